//! Waiting for the disk.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Brings all that was written to the file system of `file` to its disk: once for many files.
pub fn file_system(file: &File) -> io::Result<()> {
    // SAFETY: a number only, of a live descriptor.
    if unsafe { libc::syncfs(file.as_raw_fd()) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}
