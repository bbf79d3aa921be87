//! What is kept in the state folder: the device's key, whose key Poseidon's is, and which one was refused last.

use crate::error::{Error, Result};
use crate::message::payload;
use crate::message::sign::{CHAIN, Proof, PublicKey, SecretKey};
use crate::{identity, sys};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// The device's key.
const DEVICE: &str = "device-key";
/// Poseidon's key.
const PIN: &str = "poseidon-key";
/// The key of a Poseidon that is not the pinned one.
const REFUSED: &str = "poseidon-key.refused";
/// Held by who changes one of them: the agent and `triton trust` may at the same time.
const LOCK: &str = "trust.lock";
/// Bytes of one of the files.
const LIMIT: u64 = 64 * 1024;
/// Keys that are remembered as left behind.
const PASSED: usize = 64;

/// The folder.
#[derive(Debug, Clone)]
pub struct Files(PathBuf);

/// The device's key.
#[derive(Debug)]
pub struct Device {
    /// The key.
    pub key: SecretKey,
    /// How it came to be this one, as far as Poseidon has not confirmed it.
    pub keys: Vec<Proof>,
}

#[derive(Serialize, Deserialize)]
struct DeviceFile {
    seed: String,
    #[serde(default)]
    keys: Vec<Proof>,
}

/// Poseidon's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The key.
    pub key: PublicKey,
    /// Those that it has followed: they count no more, wherever they stand.
    pub passed: Vec<PublicKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PinFile {
    public_key: String,
    #[serde(default)]
    passed: Vec<String>,
}

/// A Poseidon that was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// The key that it showed.
    pub public_key: String,
    /// Where.
    pub place: String,
    /// When.
    pub time: f64,
}

impl Files {
    /// Those in this folder.
    pub fn new(state: &Path) -> Self {
        Self(state.to_owned())
    }

    /// Where Poseidon's key is kept.
    pub fn pin_path(&self) -> PathBuf {
        self.0.join(PIN)
    }

    /// The device's key; made where there is none yet.
    pub fn device(&self) -> Result<Device> {
        if let Some(device) = self.load_device()? {
            return Ok(device);
        }
        identity::create_folder(&self.0)?;
        self.locked(|| {
            // Another process may have made it meanwhile.
            if let Some(device) = self.load_device()? {
                return Ok(device);
            }
            let key = SecretKey::random().map_err(Error::new)?;
            let device = Device {
                key,
                keys: Vec::new(),
            };
            self.store_device(&device)?;
            Ok(device)
        })
    }

    fn load_device(&self) -> Result<Option<Device>> {
        let Some(file) = self.read::<DeviceFile>(DEVICE)? else {
            return Ok(None);
        };
        let key = SecretKey::parse(&file.seed).map_err(|e| self.damaged(DEVICE, &e))?;
        let keys = file.keys;
        Ok(Some(Device { key, keys }))
    }

    fn store_device(&self, device: &Device) -> Result<()> {
        self.write(
            DEVICE,
            &DeviceFile {
                seed: device.key.seed(),
                keys: device.keys.clone(),
            },
        )
    }

    /// Gives the device a new key, which the old one vouches for. The old one is gone afterwards.
    pub fn rotate(&self) -> Result<Device> {
        let old = self.device()?;
        self.locked(|| {
            let old = self.load_device()?.unwrap_or(old);
            if old.keys.len() >= CHAIN {
                return Err(Error::new(format!(
                    "the key was changed {CHAIN} times without Poseidon having seen it; connect first"
                )));
            }
            let key = SecretKey::random().map_err(Error::new)?;
            let mut keys = old.keys;
            keys.push(old.key.prove(&key.public()));
            let device = Device { key, keys };
            self.store_device(&device)?;
            Ok(device)
        })
    }

    /// Poseidon goes by `key`: how it came to be is of no interest any more.
    pub fn confirm(&self, key: &PublicKey) -> Result<()> {
        self.locked(|| match self.load_device()? {
            Some(device) if device.key.public() == *key && !device.keys.is_empty() => {
                let keys = Vec::new();
                self.store_device(&Device { keys, ..device })
            }
            _ => Ok(()),
        })
    }

    /// Poseidon's key; none where there is no file. What cannot be read is an error, and never none.
    pub fn pin(&self) -> Result<Option<Pin>> {
        let Some(file) = self.read::<PinFile>(PIN)? else {
            return Ok(None);
        };
        let parse = |text: &String| text.parse::<PublicKey>().map_err(|e| self.damaged(PIN, &e));
        Ok(Some(Pin {
            key: parse(&file.public_key)?,
            passed: file.passed.iter().map(parse).collect::<Result<_>>()?,
        }))
    }

    /// Binds the device to a key.
    pub fn set_pin(&self, pin: &Pin) -> Result<()> {
        let skip = pin.passed.len().saturating_sub(PASSED);
        let passed = pin.passed.iter().skip(skip);
        let file = PinFile {
            public_key: pin.key.to_string(),
            passed: passed.map(ToString::to_string).collect(),
        };
        self.locked(|| {
            self.write(PIN, &file)?;
            self.remove(REFUSED)
        })
    }

    /// Forgets Poseidon's key; whether there was one.
    pub fn reset(&self) -> Result<bool> {
        let was = self.pin_path().exists();
        self.locked(|| {
            self.remove(PIN)?;
            self.remove(REFUSED)
        })?;
        Ok(was)
    }

    /// The Poseidon that was refused last, if any.
    pub fn refused(&self) -> Option<Refused> {
        self.read(REFUSED).ok().flatten()
    }

    /// Notes one that was refused.
    pub fn set_refused(&self, refused: &Refused) -> Result<()> {
        self.locked(|| self.write(REFUSED, refused))
    }

    fn locked<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let path = self.0.join(LOCK);
        let open = |new: bool| {
            File::options()
                .write(true)
                .create_new(new)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&path)
        };
        // The folder is the agent's user's, who may have put anything there, and this may be root: only what was made
        // just now is given away, and nothing is followed.
        let lock = match open(true) {
            Ok(file) => self.give(&file).map(|()| file),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => open(false),
            Err(e) => Err(e),
        };
        let lock = lock.map_err(|e| Error::at("open", &path, e))?;
        sys::lock::exclusive(&lock).map_err(|e| Error::at("lock", &path, e.into()))?;
        act()
    }

    /// Root writes for the agent, whose user may be another.
    fn give(&self, file: &File) -> io::Result<()> {
        let (own, folder) = (file.metadata()?, fs::metadata(&self.0)?);
        if own.uid() == folder.uid() {
            return Ok(());
        }
        fchown(file, Some(folder.uid()), Some(folder.gid()))
    }

    fn damaged(&self, name: &str, why: &str) -> Error {
        Error::new(format!("{} is damaged: {why}", self.0.join(name).display()))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.0.join(name);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(LIMIT).read_to_string(&mut text));
        match read {
            Ok(_) => {}
            // Where the state folder is none there is no file in it either: such a device is managed all the same.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(Error::at("read", &path, e)),
        }
        payload::from_json(&text).map(Some).map_err(|_| {
            // What is wrong is not shown in the parser's words: they might hold a piece of a secret.
            match serde_json::from_str::<IgnoredAny>(&text) {
                Ok(_) => self.damaged(name, "a field is absent or holds what it cannot"),
                Err(e) => self.damaged(name, &format!("no JSON, at column {}", e.column())),
            }
        })
    }

    /// Whole or not at all, durable, for its owner only.
    fn write<T: Serialize>(&self, name: &str, content: &T) -> Result<()> {
        let path = self.0.join(name);
        let new = self.0.join(format!("{name}.new"));
        let write = || {
            // One that was left behind may be anybody's to read.
            let _ = fs::remove_file(&new);
            let mut file = File::options()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&new)?;
            self.give(&file)?;
            writeln!(file, "{}", payload::to_json(content))?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|e| {
            let _ = fs::remove_file(&new);
            Error::at("write", &path, e)
        })
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.0.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::at("remove", &path, e)),
            _ => File::open(&self.0)
                .and_then(|folder| folder.sync_all())
                .map_err(|e| Error::at("sync", &self.0, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_device_keeps_its_key_and_says_how_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(&folder.path().join("state"));
        let first = files.device().unwrap();
        let path = folder.path().join("state").join(DEVICE);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(files.device().unwrap().key.public(), first.key.public());
        let second = files.rotate().unwrap();
        assert_eq!(second.keys, [first.key.prove(&second.key.public())]);
        assert!(
            !fs::read_to_string(&path)
                .unwrap()
                .contains(&first.key.seed())
        );
        // Of another key it is no confirmation.
        files.confirm(&first.key.public()).unwrap();
        assert_eq!(files.device().unwrap().keys.len(), 1);
        files.confirm(&second.key.public()).unwrap();
        assert_eq!(files.device().unwrap().keys, []);
        for _ in 0..CHAIN {
            files.rotate().unwrap();
        }
        assert!(
            files
                .rotate()
                .unwrap_err()
                .to_string()
                .contains("connect first")
        );
        fs::write(&path, "{\"seed\":\"AAAA\"}").unwrap();
        let error = files.device().unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }

    #[test]
    fn no_lock_is_taken_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(&folder.path().join("state"));
        files.device().unwrap();
        let lock = folder.path().join("state").join(LOCK);
        let other = folder.path().join("other");
        fs::remove_file(&lock).unwrap();
        std::os::unix::fs::symlink(&other, &lock).unwrap();
        let error = files.rotate().unwrap_err().to_string();
        assert!(error.contains(LOCK), "{error}");
        assert!(!other.exists());
        fs::write(&other, "").unwrap();
        assert!(files.rotate().is_err());
    }

    #[test]
    fn what_was_there_before_is_given_to_nobody() {
        // Only root can give files away.
        let own = sys::user::effective_uid();
        let agent = if own == 0 { 12_345 } else { own };
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let victim = folder.path().join("victim");
        fs::write(&victim, "").unwrap();
        fs::hard_link(&victim, folder.path().join(LOCK)).unwrap();
        std::os::unix::fs::chown(folder.path(), Some(agent), None).unwrap();
        files.device().unwrap();
        let owner = |name: &str| fs::metadata(folder.path().join(name)).unwrap().uid();
        assert_eq!((owner("victim"), owner(DEVICE)), (own, agent));
        fs::remove_file(folder.path().join(LOCK)).unwrap();
        files.rotate().unwrap();
        assert_eq!(owner(LOCK), agent, "it has to open it too");
    }

    #[test]
    fn a_pin_that_cannot_be_read_is_not_none() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        assert_eq!(files.pin().unwrap(), None);
        let key = SecretKey::random().unwrap().public();
        let pin = Pin {
            key,
            passed: vec![SecretKey::random().unwrap().public()],
        };
        files.set_pin(&pin).unwrap();
        assert_eq!(files.pin().unwrap(), Some(pin));
        for broken in ["", "{}", "{\"publicKey\":\"AAAA\"}", "\0"] {
            fs::write(files.pin_path(), broken).unwrap();
            assert!(files.pin().is_err(), "{broken:?}");
        }
        assert!(files.reset().unwrap());
        assert!(!files.reset().unwrap());
        assert_eq!(files.pin().unwrap(), None);
        fs::create_dir(files.pin_path()).unwrap();
        assert!(files.pin().is_err());
    }
}
