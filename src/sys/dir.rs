//! Folders by descriptor. Every call names one entry of an open folder, so that nothing on the way can be exchanged for a
//! symbolic link meanwhile; none of them follows a link. Works with any kernel, unlike openat2(2).

use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Longest target of a link that is read, in bytes: the kernel makes none longer.
const LINK_LIMIT: usize = 4_096;
/// Bytes of a folder that are read at once.
const NAMES: usize = 32 * 1024;

/// An open folder.
#[derive(Debug)]
pub struct Dir(File);

fn c_string(name: &OsStr) -> io::Result<CString> {
    let bytes = name.as_bytes();
    // One entry, not a way.
    if bytes.contains(&b'/') || bytes.is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(CString::new(bytes)?)
}

fn done(code: libc::c_int) -> io::Result<()> {
    if code == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

impl Dir {
    /// Opens the folder at `path`, by the links on the way and a link there.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(path)
            .map(Self)
    }

    fn open_at(&self, name: &OsStr, flags: libc::c_int) -> io::Result<File> {
        let name = c_string(name)?;
        let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_LARGEFILE;
        let mode: libc::c_uint = 0o600;
        // SAFETY: a live descriptor and a string with NUL; the mode is there for O_CREAT.
        let descriptor = unsafe { libc::openat(self.0.as_raw_fd(), name.as_ptr(), flags, mode) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else has it.
        Ok(unsafe { File::from_raw_fd(descriptor) })
    }

    /// Opens a folder in it.
    pub fn folder(&self, name: &OsStr) -> io::Result<Self> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NONBLOCK;
        self.open_at(name, flags).map(Self)
    }

    /// Opens a file in it for reading. Look what it is before: a device may act on being opened.
    pub fn read(&self, name: &OsStr) -> io::Result<File> {
        self.open_at(name, libc::O_RDONLY | libc::O_NONBLOCK)
    }

    /// Opens a file in it for reading and writing.
    pub fn write(&self, name: &OsStr) -> io::Result<File> {
        self.open_at(name, libc::O_RDWR | libc::O_NONBLOCK)
    }

    /// Makes a file that is not there yet, 0600, for reading and writing.
    pub fn create(&self, name: &OsStr) -> io::Result<File> {
        self.open_at(name, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL)
    }

    /// What an entry is, without opening it; none where there is none.
    pub fn look(&self, name: &OsStr) -> io::Result<Option<Metadata>> {
        match self.open_at(name, libc::O_PATH) {
            Ok(file) => file.metadata().map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes a folder in it, 0755 whatever the umask is: jobs may need to look into it.
    pub fn make_folder(&self, name: &OsStr) -> io::Result<()> {
        let c_name = c_string(name)?;
        // SAFETY: a live descriptor and a string with NUL.
        done(unsafe { libc::mkdirat(self.0.as_raw_fd(), c_name.as_ptr(), 0o755) })?;
        let folder = self.folder(name)?.0;
        // It may have the bit from above by which its group is inherited.
        let mode = folder.metadata()?.mode() & 0o7777;
        if mode | 0o755 == mode {
            return Ok(());
        }
        folder.set_permissions(Permissions::from_mode(mode | 0o755))
    }

    /// Removes what is no folder.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        self.unlink(name, 0)
    }

    /// Removes an empty folder.
    pub fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
        self.unlink(name, libc::AT_REMOVEDIR)
    }

    fn unlink(&self, name: &OsStr, flags: libc::c_int) -> io::Result<()> {
        let name = c_string(name)?;
        // SAFETY: a live descriptor and a string with NUL.
        done(unsafe { libc::unlinkat(self.0.as_raw_fd(), name.as_ptr(), flags) })
    }

    /// Renames an entry; what has the new name is replaced.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        let (from, to) = (c_string(from)?, c_string(to)?);
        let folder = self.0.as_raw_fd();
        // SAFETY: a live descriptor and strings with NUL.
        done(unsafe { libc::renameat(folder, from.as_ptr(), folder, to.as_ptr()) })
    }

    /// Makes a symbolic link that is not there yet.
    pub fn make_link(&self, target: &OsStr, name: &OsStr) -> io::Result<()> {
        let (target, name) = (CString::new(target.as_bytes())?, c_string(name)?);
        // SAFETY: a live descriptor and strings with NUL.
        done(unsafe { libc::symlinkat(target.as_ptr(), self.0.as_raw_fd(), name.as_ptr()) })
    }

    /// Where a symbolic link points to.
    pub fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        let name = c_string(name)?;
        let mut target = vec![0_u8; LINK_LIMIT];
        // SAFETY: a live descriptor, a string with NUL, and a buffer with its length.
        let length = unsafe {
            libc::readlinkat(
                self.0.as_raw_fd(),
                name.as_ptr(),
                target.as_mut_ptr().cast(),
                target.len(),
            )
        };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        target.truncate(length);
        Ok(OsString::from_vec(target))
    }

    /// Gives a symbolic link, and not what it points to, to a user and a group.
    pub fn own_link(&self, name: &OsStr, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        let name = c_string(name)?;
        // -1 leaves it as it is.
        let (uid, gid) = (uid.unwrap_or(u32::MAX), gid.unwrap_or(u32::MAX));
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        // SAFETY: a live descriptor and a string with NUL.
        done(unsafe { libc::fchownat(self.0.as_raw_fd(), name.as_ptr(), uid, gid, flags) })
    }

    /// The folder's own descriptor, to sync it and to set its mode, owner and time.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Which mount it is on: a bind mount has the device of what it shows. None where `/proc` does not say.
    pub fn mount(&self) -> Option<String> {
        let path = format!("/proc/self/fdinfo/{}", self.0.as_raw_fd());
        let info = std::fs::read_to_string(path).ok()?;
        let line = info.lines().find_map(|l| l.strip_prefix("mnt_id:"))?;
        Some(line.trim().to_owned())
    }

    /// The names in it, without `.` and `..`, read on as they are taken.
    pub fn names(&self) -> io::Result<Names> {
        // A descriptor of its own, and so a position of its own.
        let name = c".";
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: a live descriptor and a string with NUL.
        let descriptor = unsafe { libc::openat(self.0.as_raw_fd(), name.as_ptr(), flags) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else has it.
        let folder = unsafe { File::from_raw_fd(descriptor) };
        Ok(Names {
            folder,
            buffer: vec![0; NAMES],
            at: 0,
            end: 0,
        })
    }
}

/// The names of a folder. After an error comes nothing more.
#[derive(Debug)]
pub struct Names {
    folder: File,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
}

impl Names {
    /// False at the end.
    fn fill(&mut self) -> io::Result<bool> {
        // SAFETY: a live descriptor, and a buffer with its length.
        let read = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                self.folder.as_raw_fd(),
                self.buffer.as_mut_ptr(),
                self.buffer.len(),
            )
        };
        self.at = 0;
        self.end = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
        Ok(self.end > 0)
    }

    /// The next entry of the buffer: inode (8 bytes), position (8), length of the entry (2), type (1), name, NUL.
    fn entry(&mut self) -> Option<OsString> {
        const NAME: usize = 19;
        let rest = self.buffer.get(self.at..self.end)?;
        let length = u16::from_ne_bytes([*rest.get(16)?, *rest.get(17)?]);
        let entry = rest.get(..usize::from(length))?;
        self.at += entry.len();
        let name = entry.get(NAME..)?.split(|&b| b == 0).next()?;
        Some(OsString::from_vec(name.to_vec()))
    }
}

impl Iterator for Names {
    type Item = io::Result<OsString>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while let Some(name) = self.entry() {
                if name != "." && name != ".." {
                    return Some(Ok(name));
                }
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(e) => {
                    self.end = 0;
                    return Some(Err(e));
                }
            }
        }
    }
}

/// A file in memory that has no name, for what need not outlive its user.
pub fn nameless() -> io::Result<File> {
    // SAFETY: a string with NUL.
    let descriptor = unsafe { libc::memfd_create(c"triton".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;

    fn os(name: &str) -> &OsStr {
        OsStr::new(name)
    }

    #[test]
    fn no_call_leaves_the_folder_or_follows_a_link() {
        let around = tempfile::tempdir().unwrap();
        let outside = around.path().join("outside");
        let inside = around.path().join("inside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        fs::create_dir(&inside).unwrap();
        let dir = Dir::open(&inside).unwrap();
        dir.make_link(os("../outside"), os("folder")).unwrap();
        dir.make_link(os("../outside/file"), os("file")).unwrap();
        for name in ["../outside/file", "/etc/passwd", "", "a/b", "a\0b"] {
            let kind = |e: io::Error| e.kind();
            let invalid = io::ErrorKind::InvalidInput;
            assert_eq!(dir.read(os(name)).map_err(kind).unwrap_err(), invalid);
            assert_eq!(dir.remove(os(name)).map_err(kind).unwrap_err(), invalid);
        }
        assert!(dir.folder(os("folder")).is_err());
        assert!(dir.read(os("file")).is_err());
        assert!(dir.write(os("file")).is_err());
        assert!(dir.create(os("file")).is_err());
        assert!(dir.look(os("file")).unwrap().unwrap().is_symlink());
        assert!(dir.look(os("none")).unwrap().is_none());
        assert_eq!(dir.read_link(os("folder")).unwrap(), "../outside");
        dir.own_link(os("file"), None, None).unwrap();
        dir.rename(os("file"), os("folder")).unwrap();
        dir.remove(os("folder")).unwrap();
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "x");
        assert_eq!(dir.names().unwrap().count(), 0);
        assert_eq!(
            dir.mount().is_some(),
            Path::new("/proc/self/fdinfo").exists()
        );
    }

    #[test]
    fn all_names_of_a_large_folder() {
        let folder = tempfile::tempdir().unwrap();
        let dir = Dir::open(folder.path()).unwrap();
        let mut made = BTreeSet::new();
        for n in 0..3_000 {
            let name = OsString::from(format!("{n}{}", "-".repeat(n % 200)));
            dir.create(&name).unwrap();
            made.insert(name);
        }
        let odd = OsString::from_vec(vec![b'x', 0xFF, b'\n']);
        dir.create(&odd).unwrap();
        made.insert(odd);
        for _ in 0..2 {
            let names: io::Result<BTreeSet<_>> = dir.names().unwrap().collect();
            assert!(names.unwrap() == made);
        }
    }
}
