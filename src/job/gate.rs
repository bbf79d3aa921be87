//! Where a job has got to in the file system, asked before it goes on.

use super::task::Stop;
use crate::message::payload::{self, ErrorCode};
use std::fmt;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// What this device lets a job of Poseidon's touch.
pub trait Gate: Send + Sync {
    /// Whether a job of a message type may use this path, which has no symbolic links in it.
    fn path(&self, kind: &str, path: &Path) -> Result<(), payload::Error>;

    /// Whether it depends on paths at all.
    fn asks_for_paths(&self) -> bool;
}

impl fmt::Debug for dyn Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

/// Asks where `file` really is, or what is at `rest` in that folder. Of what is open: a path might lead elsewhere by now.
pub(super) fn ask(gate: &dyn Gate, kind: &str, file: &File, rest: &str) -> Result<(), Stop> {
    if !gate.asks_for_paths() {
        return Ok(());
    }
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut path = fs::read_link(&link).map_err(|e| {
        let text = format!(
            "the policy cannot tell where this is: {link} cannot be read: {e}; is /proc mounted?"
        );
        Stop::failed(ErrorCode::Refused, text)
    })?;
    if !rest.is_empty() {
        path.push(rest);
    }
    Ok(gate.path(kind, &path)?)
}
