//! Poseidon's own key, by which devices know it, and how it came to be this one.

use crate::agents::connection::Bond;
use crate::server::data::write_whole;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use triton::message::payload::Welcome;
use triton::message::sign::{CHAIN, Proof, SecretKey};

/// File in the data folder.
pub const FILE: &str = "poseidon-key";

/// The key that holds, and its chain.
#[derive(Debug)]
pub struct Own {
    /// The key.
    pub key: SecretKey,
    /// Proofs, oldest first.
    pub keys: Vec<Proof>,
}

impl Own {
    /// Says in a `welcome` who Poseidon is, and what it holds the device for.
    pub fn introduce(&self, welcome: &mut Welcome, bond: &Bond) {
        welcome.public_key = Some(self.key.public().to_string());
        welcome.keys.clone_from(&self.keys);
        welcome.pinned = bond.pinned;
        welcome.device_key = Some(bond.device.to_string());
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    seed: String,
    #[serde(default)]
    keys: Vec<Proof>,
}

/// The key in its file.
#[derive(Debug)]
pub struct Keyring {
    path: PathBuf,
    /// It was made at this start.
    is_new: bool,
    own: Mutex<Arc<Own>>,
}

impl Keyring {
    /// Reads the key of a data folder; made at the first start. One that cannot be read is an error and no reason for
    /// another: every device that has pinned it would have to be visited.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let path = folder.join(FILE);
        let wrong = |e: String| {
            format!(
                "cannot use Poseidon's key {}: {e}; bring it back from a backup: with another key every device that has \
                 pinned this one needs 'triton trust reset', at the device",
                path.display()
            )
        };
        let mut is_new = false;
        let own = match std::fs::read_to_string(&path) {
            Ok(text) => {
                // The parser's words might hold a piece of the secret.
                let stored: Stored = serde_json::from_str(&text)
                    .map_err(|e| wrong(format!("it is damaged (column {})", e.column())))?;
                let key = SecretKey::parse(&stored.seed).map_err(wrong)?;
                let keys = stored.keys;
                Own { key, keys }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let key = SecretKey::random()?;
                let keys = Vec::new();
                let own = Own { key, keys };
                store(&path, &own).map_err(|e| e.to_string())?;
                is_new = true;
                own
            }
            Err(e) => return Err(wrong(e.to_string())),
        };
        Ok(Self {
            path,
            is_new,
            own: Mutex::new(Arc::new(own)),
        })
    }

    /// Says what it means that the key was made at this start, where devices of so many names are pinned.
    pub fn tell_loss(&self, pinned: usize) {
        if !self.is_new || pinned == 0 {
            return;
        }
        log::error!(
            "{} was missing, and Poseidon has a new key now: {}. Devices of {pinned} pinned {} refuse every command of it. \
             If there is a copy of the file, stop Poseidon, put the copy in its place and start Poseidon again. If there is \
             none, each of these devices needs 'triton trust reset', at the device",
            self.path.display(),
            self.own().key.public().id(),
            if pinned == 1 { "name" } else { "names" }
        );
    }

    /// The key that holds now.
    pub fn own(&self) -> Arc<Own> {
        crate::jobs::lock(&self.own).clone()
    }

    /// Makes a new key, which the one before vouches for. Blocks.
    pub fn rotate(&self) -> io::Result<Arc<Own>> {
        let mut own = crate::jobs::lock(&self.own);
        let key = SecretKey::random().map_err(io::Error::other)?;
        let mut keys = own.keys.clone();
        keys.push(own.key.prove(&key.public()));
        let more = keys.len().saturating_sub(CHAIN);
        keys.drain(..more);
        let new = Own { key, keys };
        store(&self.path, &new)?;
        *own = Arc::new(new);
        Ok(own.clone())
    }
}

fn store(path: &Path, own: &Own) -> io::Result<()> {
    let text = serde_json::to_string(&Stored {
        seed: own.key.seed(),
        keys: own.keys.clone(),
    })?;
    let failed = |e: io::Error| {
        let text = format!("cannot write {}: {e}", path.display());
        io::Error::new(e.kind(), text)
    };
    write_whole(path, &text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use triton::message::sign::follow;

    #[test]
    fn the_key_stays_rotates_within_bounds_and_is_never_replaced_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::open(dir.path()).unwrap();
        let first = ring.own().key.public();
        let path = dir.path().join(FILE);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let ring = Keyring::open(dir.path()).unwrap();
        assert_eq!(ring.own().key.public(), first);
        let second = ring.rotate().unwrap().key.public();
        let again = Keyring::open(dir.path()).unwrap().own();
        assert_eq!(again.key.public(), second);
        assert_eq!(follow(&again.keys, &first, &second), Some(vec![first]));
        for _ in 0..CHAIN {
            ring.rotate().unwrap();
        }
        let last = ring.own();
        assert_eq!(last.keys.len(), CHAIN);
        assert_eq!(follow(&last.keys, &first, &last.key.public()), None);
        assert!(follow(&last.keys, &second, &last.key.public()).is_some());
        std::fs::write(&path, "{\"seed\":\"AAAA\"}").unwrap();
        let error = Keyring::open(dir.path()).unwrap_err();
        assert!(error.contains("backup"), "{error}");
    }
}
