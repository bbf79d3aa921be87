//! What Poseidon has said of this device, for scripts: kept over a restart, also while there is no connection.

use crate::error::{Error, Result};
use crate::message::payload;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most bytes of the file.
const LIMIT: u64 = 1 << 20;

/// The attributes of the last `welcome`. They may be secrets, so `Debug` and the log show none.
pub struct Attributes {
    path: PathBuf,
    values: Mutex<BTreeMap<String, String>>,
}

impl std::fmt::Debug for Attributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Attributes")
    }
}

impl Attributes {
    /// As they were when they last changed.
    pub fn open(state: &Path) -> Self {
        let path = state.join("attributes.json");
        let values = read(&path).unwrap_or_else(|e| {
            log::warn!(
                "the attributes of this device are not known before Poseidon says them: {e}"
            );
            BTreeMap::new()
        });
        Self {
            path,
            values: Mutex::new(values),
        }
    }

    fn values(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes them over. The disk sees only a change, for flash wears; one that fails costs what is known after a
    /// restart.
    pub fn set(&self, values: &BTreeMap<String, String>) {
        {
            let mut own = self.values();
            if *own == *values {
                return;
            }
            own.clone_from(values);
        }
        if let Err(e) = write(&self.path, values) {
            log::warn!("the attributes of this device are forgotten at the next start: {e}");
        }
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.values().clone()
    }

    /// As variables of a script.
    pub fn environment(&self) -> Vec<(String, String)> {
        let values = self.values();
        let sound = values.iter().filter(|(_, value)| !value.contains('\0'));
        sound
            .map(|(key, value)| (variable(key), value.clone()))
            .collect()
    }
}

fn variable(key: &str) -> String {
    let letter = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    "TRITON_ATTRIBUTE_"
        .chars()
        .chain(key.chars().map(letter))
        .collect()
}

fn read(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut text = String::new();
    match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        file => file.and_then(|file| file.take(LIMIT).read_to_string(&mut text)),
    }
    .map_err(|e| Error::at("read", path, e))?;
    payload::from_json(&text).map_err(|_| Error::new(format!("{} is damaged", path.display())))
}

/// Whole or not at all: 0600, synced, renamed.
fn write(path: &Path, values: &BTreeMap<String, String>) -> Result<()> {
    let new = path.with_extension("new");
    let text = payload::to_json(values);
    let write = || {
        let _ = fs::remove_file(&new);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&new);
        Error::at("write", path, e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn they_are_kept_and_written_only_when_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let attributes = Attributes::open(folder.path());
        attributes.set(&BTreeMap::new());
        let path = folder.path().join("attributes.json");
        assert!(!path.exists());
        let site = |value: &str| BTreeMap::from([("site-name".to_owned(), value.to_owned())]);
        attributes.set(&site("Attic"));
        let written = fs::metadata(&path).unwrap();
        assert_eq!(written.mode() & 0o777, 0o600);
        attributes.set(&site("Attic"));
        assert_eq!(fs::metadata(&path).unwrap().ino(), written.ino());
        let again = Attributes::open(folder.path());
        let variable = ("TRITON_ATTRIBUTE_SITE_NAME".to_owned(), "Attic".to_owned());
        assert_eq!(again.environment(), [variable]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_no_reason_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("attributes.json"), "{\"a\":").unwrap();
        let attributes = Attributes::open(folder.path());
        assert_eq!(attributes.environment(), []);
        attributes.set(&BTreeMap::from([("a".to_owned(), "x\0y".to_owned())]));
        assert_eq!(attributes.environment(), [], "no variable holds a NUL");
        assert!(!format!("{attributes:?}").contains('x'));
    }
}
