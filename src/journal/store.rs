//! Files as the journal needs them: few calls, so that tests can put a disk below it that fails and forgets.

use crate::sys::{lock, space};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// An open file.
pub trait File: Send {
    /// Its length.
    fn length(&self) -> io::Result<u64>;
    /// Reads; fewer bytes than asked for only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all or fails; then part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts it.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Waits until its content is on the disk.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of files.
pub trait Folder: Send + Sync {
    /// Where it is, for messages.
    fn path(&self) -> &Path;
    /// Makes it if it is missing, and keeps other processes out. Its parents are made only in memory, where they are
    /// missing after each boot: an absent disk is no reason to fill another.
    fn prepare(&self) -> io::Result<()>;
    /// Names of all that is in it.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Opens a file to read, or to read and write.
    fn open(&self, name: &str, write: bool) -> io::Result<Box<dyn File>>;
    /// Makes an empty file; one of that name loses its content.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Gives a file another name; what had it is gone.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Waits until the names are on the disk.
    fn sync(&self) -> io::Result<()>;
}

impl fmt::Debug for dyn File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("File")
    }
}

impl fmt::Debug for dyn Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path().display())
    }
}

/// What went wrong at which path, and what to do about it.
#[derive(Debug)]
pub struct Fault {
    what: String,
    cause: io::Error,
}

impl Fault {
    /// `cannot ACT FOLDER/NAME: CAUSE`.
    pub fn new(act: &str, folder: &dyn Folder, name: &str, cause: io::Error) -> Self {
        let path = folder.path().join(name);
        Self {
            what: format!("cannot {act} {}", path.display()),
            cause,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match self.cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on that disk",
            io::ErrorKind::ReadOnlyFilesystem => "check that disk, and mount it to be written",
            io::ErrorKind::NotFound => "mount its disk or create its parent folder",
            io::ErrorKind::PermissionDenied => "give the folder to the agent's user",
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                "move away what is in the way"
            }
            io::ErrorKind::WouldBlock => {
                "another process uses it: end that, or give each its own journal.folder"
            }
            _ => "check that disk, or name another folder in journal.folder",
        };
        write!(f, "{}: {}; {advice}", self.what, self.cause)
    }
}

/// What went to the disk.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct Counts {
    pub bytes: u64,
    pub syncs: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.syncs += other.syncs;
    }
}

/// Writes a small file whole or not at all, and durably.
pub fn replace(
    folder: &dyn Folder,
    name: &str,
    text: &str,
    counts: &mut Counts,
) -> Result<(), Fault> {
    let temporary = format!("{name}.new");
    let write = |counts: &mut Counts| {
        let file = folder.create(&temporary)?;
        file.write_at(text.as_bytes(), 0)?;
        counts.bytes += text.len() as u64;
        file.sync()?;
        folder.rename(&temporary, name)?;
        folder.sync()?;
        counts.syncs += 2;
        Ok(())
    };
    write(counts).map_err(|e| {
        let _ = folder.remove(&temporary);
        Fault::new("write", folder, name, e)
    })
}

/// Reads a small file; `None` where there is none.
pub fn read_small(folder: &dyn Folder, name: &str) -> Result<Option<Vec<u8>>, Fault> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 256];
        let n = folder.open(name, false)?.read_at(&mut bytes, 0)?;
        bytes.truncate(n);
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Fault::new("read", folder, name, e)),
    }
}

/// A folder of the system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Whether it is this process's alone.
    exclusive: bool,
    /// Its descriptor, which holds the lock.
    handle: Mutex<Option<fs::File>>,
}

impl Directory {
    /// The folder at `path`, which need not exist yet.
    pub fn new(path: &Path, exclusive: bool) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            exclusive,
            handle: Mutex::new(None),
        })
    }

    fn lock(&self, handle: &fs::File) -> io::Result<()> {
        match lock::exclusive(handle) {
            Ok(()) => Ok(()),
            Err(fs::TryLockError::WouldBlock) => {
                Err(io::Error::new(io::ErrorKind::WouldBlock, "it is in use"))
            }
            // A file system without locks is used without.
            Err(fs::TryLockError::Error(e)) => {
                log::debug!("cannot lock {}: {e}", self.path.display());
                Ok(())
            }
        }
    }
}

/// Whether a missing parent of `path` may be made: one, in memory, as after each boot. Two are more likely a disk that
/// is not mounted yet.
fn parent_is_lost_at_boot(path: &Path) -> bool {
    let mut above = path.ancestors().skip(1);
    let is_missing = above.next().is_some_and(|parent| !parent.exists());
    is_missing && above.next().is_some_and(space::is_in_memory)
}

impl Folder for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn prepare(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        match builder
            .recursive(parent_is_lost_at_boot(&self.path))
            .create(&self.path)
        {
            Ok(()) => {
                if let Some(parent) = self.path.parent() {
                    sync_folder(&fs::File::open(parent)?)?;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            // A folder that exists on a file system that cannot be written.
            Err(_) if self.path.is_dir() => {}
            Err(e) => return Err(e),
        }
        let new = fs::File::open(&self.path)?;
        let metadata = new.metadata()?;
        if !metadata.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                "it is not a folder",
            ));
        }
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        let same = match &*handle {
            Some(old) => {
                let old = old.metadata()?;
                (old.dev(), old.ino()) == (metadata.dev(), metadata.ino())
            }
            None => false,
        };
        if !same {
            if self.exclusive {
                self.lock(&new)?;
            }
            *handle = Some(new);
        }
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Box<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(write)
            .open(self.path.join(name))?;
        Ok(Box::new(file))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path.join(name))?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        sync_folder(&fs::File::open(&self.path)?)
    }
}

fn sync_folder(folder: &fs::File) -> io::Result<()> {
    match folder.sync_all() {
        // Some file systems have nothing to sync here.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

impl File for fs::File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match std::os::unix::fs::FileExt::read_at(
                self,
                &mut buffer[read..],
                offset + read as u64,
            ) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)?;
        // The system writes into a removed file without a word.
        if self.metadata()?.nlink() == 0 {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the file was removed",
            ));
        }
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
