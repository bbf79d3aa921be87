//! The program replaces itself, and the old one comes back where the new one is not up to it.
//!
//! ```text
//! agent.update ─ signed? ─ fetch beside the program ─ the new one runs, reads the configuration, gets a welcome
//!     ─ note (pending) ─ the old one gets a second name ─ rename ─ restart
//! at the start ─ the note names this very program? ─ no:  it never took its place, or was taken back: the job failed
//!                                                  ─ yes: count this start; a welcome in time: the job succeeded
//!                                                         too many starts, or no welcome: take it back, restart
//! ```
//!
//! Whatever stops the device in between, there is a whole program under the program's name, and the note tells the one
//! that starts what has happened.

mod install;
mod pending;
mod signature;
mod trial;

pub use install::{Request, Update};
pub use pending::Pending;
pub use signature::{PublicKey, signed_text};
pub use trial::{Began, Trial, Watch};

use crate::config::Config;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What an update goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who may sign; nobody: updates are off.
    pub keys: Vec<PublicKey>,
    /// How long the new program may take to its first welcome.
    pub confirm: Duration,
    /// The state folder.
    pub state: PathBuf,
    /// This program's file, as it was when the agent started.
    pub program: PathBuf,
}

impl Settings {
    /// By the configuration.
    pub fn from_config(config: &Config, program: &Path) -> Self {
        let keys = config.update.keys.iter();
        Self {
            // They were checked when they were read.
            keys: keys.filter_map(|key| PublicKey::parse(key).ok()).collect(),
            confirm: Duration::from_secs(config.update.confirm_seconds),
            state: config.state.clone(),
            program: program.to_owned(),
        }
    }
}

/// SHA-256 of a file.
fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(crate::message::id::hex(&hash.finalize())),
            Ok(count) => hash.update(&buffer[..count]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The package manager that owns the file, if one does.
fn owner(root: &Path, program: &Path) -> Option<&'static str> {
    // Longest list that is looked through.
    const LIMIT: u64 = 16 << 20;
    let read = |path: &Path| {
        let mut text = Vec::new();
        let file = File::open(path).ok()?;
        file.take(LIMIT).read_to_end(&mut text).ok()?;
        Some(text)
    };
    let program = program.to_string_lossy();
    // With /usr merged, the same file has two names.
    let other = program.strip_prefix("/usr").unwrap_or(&program).to_owned();
    // opkg and dpkg keep a list of files for each package.
    for (folder, manager) in [("usr/lib/opkg/info", "opkg"), ("var/lib/dpkg/info", "dpkg")] {
        let Ok(lists) = std::fs::read_dir(root.join(folder)) else {
            continue;
        };
        let owns = |list: &Path| {
            list.extension().is_some_and(|e| e == "list")
                && read(list).is_some_and(|text| {
                    let mut lines = text.split(|b| *b == b'\n');
                    lines.any(|line| line == program.as_bytes() || line == other.as_bytes())
                })
        };
        if lists.flatten().any(|list| owns(&list.path())) {
            return Some(manager);
        }
    }
    // apk keeps one list of all: folders (F:) and the files in them (R:).
    let text = read(&root.join("lib/apk/db/installed"))?;
    let (folder, name) = program.rsplit_once('/')?;
    let folder = folder.strip_prefix('/').unwrap_or(folder);
    let mut inside = false;
    text.split(|b| *b == b'\n')
        .any(|line| {
            if let Some(path) = line.strip_prefix(b"F:") {
                inside = path == folder.as_bytes();
            }
            inside && line.strip_prefix(b"R:") == Some(name.as_bytes())
        })
        .then_some("apk")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_managers_file_is_known() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let owner = |program: &str| owner(root.path(), Path::new(program));
        assert_eq!(owner("/usr/bin/triton"), None);
        put(
            "var/lib/dpkg/info/triton.list",
            "/.\n/usr\n/usr/bin/triton\n",
        );
        assert_eq!(owner("/usr/bin/triton"), Some("dpkg"));
        assert_eq!(owner("/usr/local/bin/triton"), None);
        put("usr/lib/opkg/info/another.list", "/opt/triton\n");
        assert_eq!(owner("/opt/triton"), Some("opkg"));
        put(
            "lib/apk/db/installed",
            "P:other\nF:usr/sbin\nR:x\n\nP:triton\nF:usr/sbin\nR:triton\nZ:Q1\n",
        );
        assert_eq!(owner("/usr/sbin/triton"), Some("apk"));
        assert_eq!(owner("/usr/sbin/tri"), None);
    }
}
