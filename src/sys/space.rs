//! Room on file systems, and the size of a page.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All.
    pub total: u64,
    /// In use.
    pub used: u64,
    /// Free for ordinary users.
    pub available: u64,
}

/// Asks the file system that `path` is on. Blocks where that one hangs: not for network file systems.
pub fn space(path: &Path) -> Option<Space> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: `statvfs` is plain numbers.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string with NUL and a live `statvfs`.
    let code = unsafe { libc::statvfs(path.as_ptr(), &raw mut answer) };
    (code == 0).then(|| in_bytes(&answer))
}

/// The same of the file system that an open file or folder is on.
pub fn space_of(file: &File) -> io::Result<Space> {
    // SAFETY: `statvfs` is plain numbers.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a live descriptor and a live `statvfs`.
    if unsafe { libc::fstatvfs(file.as_raw_fd(), &raw mut answer) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(in_bytes(&answer))
}

fn in_bytes(answer: &libc::statvfs) -> Space {
    // The numbers' types differ between C libraries.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let (unit, blocks, free, available) = (
        answer.f_frsize as u64,
        u64::from(answer.f_blocks),
        u64::from(answer.f_bfree),
        u64::from(answer.f_bavail),
    );
    Space {
        total: blocks.saturating_mul(unit),
        used: blocks.saturating_sub(free).saturating_mul(unit),
        available: available.saturating_mul(unit),
    }
}

/// Whether what is written at `path`, which exists, goes into memory: tmpfs or ramfs.
pub fn is_in_memory(path: &Path) -> bool {
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: `statfs` is plain numbers.
    let mut answer: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string with NUL and a live `statfs`.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut answer) } != 0 {
        return false;
    }
    // The number's type differs between processors and C libraries; 32 bits are all that counts.
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    let kind = answer.f_type as u32;
    matches!(kind, TMPFS | RAMFS)
}

/// Bytes in a page of memory.
pub fn page_size() -> u64 {
    // SAFETY: a number only.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}
