//! The data folder: locked by one server, readable by its owner only.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// File with the admin token.
pub const TOKEN: &str = "admin-token";
/// File with the address of the server that runs, or ran last.
pub const URL: &str = "url";
/// File with the SHA-256 of its certificate, in hex digits; absent where it has none.
pub const CERTIFICATE: &str = "certificate";

/// How long the folder of another Poseidon is waited for, and how often it is looked at.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// An open data folder.
pub struct DataDir {
    path: PathBuf,
    /// Held as long as this lives.
    _lock: File,
}

impl DataDir {
    /// Opens the folder, which is created where it is missing, and locks it.
    pub fn open(path: &Path) -> Result<Self, String> {
        let failed = |e: io::Error| format!("cannot use the data folder {}: {e}", path.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        // One that has just ended may be held for a moment yet, by a child that it was starting.
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path, _lock: lock }),
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(format!(
                        "the data folder {} belongs to a Poseidon that runs: stop that one, or give another --data",
                        path.display()
                    ));
                }
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the admin token is.
    pub fn token_path(&self) -> PathBuf {
        self.path.join(TOKEN)
    }

    /// The admin token; made at the first start.
    pub fn admin_token(&self) -> Result<String, String> {
        let path = self.token_path();
        match std::fs::read_to_string(&path) {
            Ok(text) if text.trim().len() >= 32 => return Ok(text.trim().to_owned()),
            Ok(_) => {
                return Err(format!(
                    "{} holds no token: delete it, and a new one is made",
                    path.display()
                ));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(format!("cannot read {}: {e}", path.display())),
        }
        let token = triton::message::id::random() + &triton::message::id::random();
        self.write(TOKEN, &token)?;
        Ok(token)
    }

    /// Tells the commands where the server is, and by which certificate they know it.
    pub fn write_address(&self, url: &str, certificate: Option<&str>) -> Result<(), String> {
        // First, so that whoever finds this address finds its certificate.
        match certificate {
            Some(fingerprint) => self.write(CERTIFICATE, fingerprint)?,
            None => self.remove(CERTIFICATE)?,
        }
        self.write(URL, url)
    }

    fn remove(&self, name: &str) -> Result<(), String> {
        let path = self.path.join(name);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {e}", path.display()))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.path.join(name);
        write_whole(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
    }
}

/// Writes a file whole or not at all, for its owner only.
pub fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.to_owned().into_os_string();
    new.push(".new");
    // One that was left behind may be somebody else's to read.
    let _ = std::fs::remove_file(&new);
    let write = || {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&new)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&new);
    })
}
