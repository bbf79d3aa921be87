//! What has to be known of an update over a restart and a power cut: one small file in the state folder.

use crate::error::{Error, Result};
use crate::message::payload;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const FILE: &str = "update.json";
/// What is longer was not written by this program.
const LIMIT: u64 = 64 * 1024;

/// An update that is not proven yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pending {
    /// The job that asked for it.
    pub token: String,
    /// Its conversation.
    pub conversation: String,
    /// Of the new program.
    pub sha256: String,
    /// Of the new program, as it was signed.
    pub version: String,
    /// Of the old one.
    pub from: String,
    /// Where the program is.
    pub program: PathBuf,
    /// Where the old one waits.
    pub old: PathBuf,
    /// How often the new one was started as the agent.
    pub starts: u32,
    /// The job's end was told.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
    /// Why the old one was brought back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Pending {
    /// What is in the state folder. A file that cannot be read is as good as none: the program that runs is the one
    /// that there is.
    pub fn load(state: &Path) -> Option<Self> {
        let path = state.join(FILE);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(LIMIT).read_to_string(&mut text));
        match read {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return None,
            Err(e) => {
                log::error!(
                    "{} cannot be read, so an update is not followed: {e}",
                    path.display()
                );
                return None;
            }
        }
        match payload::from_json(&text) {
            Ok(pending) => Some(pending),
            Err(e) => {
                log::error!(
                    "{} is damaged, so an update is not followed: {e}",
                    path.display()
                );
                None
            }
        }
    }

    /// Writes it so that a power cut leaves the old content or this one.
    pub fn store(&self, state: &Path) -> Result<()> {
        let path = state.join(FILE);
        let new = state.join(format!("{FILE}.new"));
        let write = || {
            let mut file = File::options()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(payload::to_json(self).as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            File::open(state)?.sync_all()
        };
        write().map_err(|e| Error::at("write", &path, e))
    }

    /// It is over.
    pub fn remove(state: &Path) {
        let path = state.join(FILE);
        if let Err(e) = std::fs::remove_file(&path) {
            log::error!("{} cannot be removed: {e}", path.display());
        }
    }
}
