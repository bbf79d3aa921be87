//! A disk that forgets what was not synced, and fails when told to.

use crate::journal::store::{File, Folder};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Chance, by a seed.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 0 to `sides` - 1 (splitmix64).
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => {
                if content.len() < at + bytes.len() {
                    content.resize(at + bytes.len(), 0);
                }
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Cut(length) => content.resize(*length, 0),
        }
    }
}

#[derive(Debug, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug)]
enum Naming {
    Make(String, usize),
    Rename(String, String),
    Remove(String),
}

type Names = BTreeMap<String, usize>;

impl Naming {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Make(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    inodes: Vec<Inode>,
    names: Names,
    durable: Names,
    pending: Vec<Naming>,
    /// Changes until all fail...
    breaks_after: Option<u32>,
    /// ...or only what takes room.
    full: bool,
}

/// A folder on it.
#[derive(Debug)]
pub struct Shelf {
    path: PathBuf,
    inner: Mutex<Inner>,
    itself: std::sync::Weak<Self>,
}

impl Shelf {
    pub fn new(path: &str) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self {
            path: path.into(),
            inner: Mutex::new(Inner::default()),
            itself: itself.clone(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// After so many changes and syncs each fails, until [`Self::mend`].
    pub fn break_after(&self, changes: u32) {
        self.inner().breaks_after = Some(changes);
        self.inner().full = false;
    }

    /// After so many changes and syncs nothing more can be written or made, until [`Self::mend`]. All else goes on.
    pub fn fill_after(&self, changes: u32) {
        self.inner().breaks_after = Some(changes);
        self.inner().full = true;
    }

    pub fn mend(&self) {
        self.inner().breaks_after = None;
    }

    /// The power is cut: of what was not synced, each write is there, not there or torn.
    pub fn cut(&self, dice: &mut Dice) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        inner.names.clone_from(&inner.durable);
        let kept = dice.roll(inner.pending.len() + 1);
        for naming in inner.pending.drain(..).take(kept) {
            naming.apply(&mut inner.names);
        }
        inner.durable.clone_from(&inner.names);
        for inode in &mut inner.inodes {
            inode.content.clone_from(&inode.durable);
            for mut change in inode.pending.drain(..) {
                match dice.roll(3) {
                    0 => continue,
                    1 => {
                        if let Change::Write(_, bytes) = &mut change {
                            bytes.truncate(dice.roll(bytes.len() + 1));
                        }
                    }
                    _ => {}
                }
                change.apply(&mut inode.content);
            }
            inode.durable.clone_from(&inode.content);
        }
    }

    /// What a sync has failed to write is tried again. Without this, a failed sync, then the end of the process, then
    /// a power cut lose what a restarted agent still saw: no program can help that.
    pub fn retry_writes(&self) {
        for inode in &mut self.inner().inodes {
            inode.pending.clear();
            inode.pending.push(Change::Write(0, inode.content.clone()));
            inode.pending.push(Change::Cut(inode.content.len()));
        }
    }

    /// What is in a file.
    pub fn content(&self, name: &str) -> Vec<u8> {
        let inner = self.inner();
        inner.inodes[inner.names[name]].content.clone()
    }

    /// Puts a file there.
    pub fn put(&self, name: &str, content: &[u8]) {
        let file = self.create(name).unwrap();
        file.write_at(content, 0).unwrap();
        file.sync().unwrap();
        Folder::sync(self).unwrap();
    }
}

impl Inner {
    fn change(&mut self, takes_room: bool) -> io::Result<()> {
        match &mut self.breaks_after {
            None => Ok(()),
            Some(0) if self.full && !takes_room => Ok(()),
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn name(&mut self, naming: Naming) -> io::Result<()> {
        self.change(matches!(naming, Naming::Make(..)))?;
        naming.apply(&mut self.names);
        self.pending.push(naming);
        Ok(())
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Folder for Shelf {
    fn path(&self) -> &Path {
        &self.path
    }

    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.inner().names.keys().cloned().collect())
    }

    fn open(&self, name: &str, _: bool) -> io::Result<Box<dyn File>> {
        Ok(Box::new(Handle {
            inode: self.inner().find(name)?,
            shelf: self.itself.upgrade().unwrap(),
        }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut inner = self.inner();
        let inode = inner.inodes.len();
        inner.name(Naming::Make(name.to_owned(), inode))?;
        inner.inodes.push(Inode::default());
        drop(inner);
        self.open(name, true)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.find(from)?;
        inner.name(Naming::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.find(name)?;
        inner.name(Naming::Remove(name.to_owned()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.change(false)?;
        let names = inner.names.clone();
        inner.durable = names;
        inner.pending.clear();
        Ok(())
    }
}

#[derive(Debug)]
struct Handle {
    shelf: Arc<Shelf>,
    inode: usize,
}

impl Handle {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut inner = self.shelf.inner();
        let result = inner.change(matches!(change, Change::Write(..)));
        let inode = &mut inner.inodes[self.inode];
        let change = match (change, &result) {
            // A write that fails may have got half way.
            (Change::Write(at, bytes), Err(_)) => {
                Change::Write(at, bytes[..bytes.len() / 2].into())
            }
            (Change::Cut(_), Err(_)) => return result,
            (change, Ok(())) => change,
        };
        change.apply(&mut inode.content);
        inode.pending.push(change);
        result
    }
}

impl File for Handle {
    fn length(&self) -> io::Result<u64> {
        Ok(self.shelf.inner().inodes[self.inode].content.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.shelf.inner();
        let content = &inner.inodes[self.inode].content;
        let rest = &content[usize::try_from(offset).unwrap().min(content.len())..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        self.change(Change::Write(at, bytes.to_vec()))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.change(Change::Cut(usize::try_from(length).unwrap()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.shelf.inner();
        let result = inner.change(false);
        let inode = &mut inner.inodes[self.inode];
        for change in inode.pending.drain(..) {
            // Linux forgets what it could not write, and says so once.
            if result.is_ok() {
                change.apply(&mut inode.durable);
            }
        }
        result
    }
}
