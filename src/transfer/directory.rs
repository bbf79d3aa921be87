//! `directory.put`: a folder becomes what a manifest says. Each file changes as a whole; the folder file by file.

use super::attributes::{Attributes, Reader};
use super::leftovers::Of;
use super::manifest::{ENTRY_BYTES, Manifest};
use super::put::{self, Step, check_space};
use super::walk::Walk;
use super::{Content, Files, Meter, fetch, io_error, path, prune, temporary};
use crate::job::{Context, Stop, Task};
use crate::message::payload::{DIRECTORY_PUT, ENTRIES_LIMIT, Entry, EntryKind, Error, FileRequest};
use crate::message::{ErrorCode, id};
use crate::sys::dir::{self, Dir};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

/// Puts what differs, and removes the rest where it is to.
#[derive(Debug)]
pub struct PutDirectory {
    files: Arc<Files>,
    path: String,
    prune: bool,
    wanted: Wanted,
    name: String,
}

#[derive(Debug)]
enum Wanted {
    Manifest(Manifest),
    /// To be fetched.
    Content(Content),
}

impl PutDirectory {
    /// Checks the request.
    pub fn new(files: Arc<Files>, request: FileRequest) -> Result<Self, Error> {
        let (_, name) = path::absolute(&request.path)?;
        let wanted = match (request.entries, request.manifest) {
            (Some(entries), None) => Wanted::Manifest(Manifest::check(entries.0, files.entries)?),
            (
                None,
                Some(Entry {
                    reference,
                    size,
                    sha256,
                    ..
                }),
            ) => {
                let content = put::content(&reference, size, &sha256)?;
                let most = files.entries.min(ENTRIES_LIMIT) as u64 * ENTRY_BYTES;
                if content.size > most {
                    let text = format!(
                        "the manifest has {} bytes, this device takes {most} (files.manifest_entries)",
                        content.size
                    );
                    return Err(Error::new(ErrorCode::TooLarge, text));
                }
                Wanted::Content(content)
            }
            _ => {
                let text = "give entries (a list) or manifest (a ref), and not both";
                return Err(Error::new(ErrorCode::Invalid, text));
            }
        };
        Ok(Self {
            name: format!("directory.put {name}"),
            files,
            prune: request.prune,
            wanted,
            path: request.path,
        })
    }

    /// The list is in memory anyway: so is its JSON, for a moment.
    fn fetch_manifest(&self, context: &Context<'_>, content: &Content) -> Result<Manifest, Stop> {
        let mut file = dir::nameless().map_err(|e| io_error("make room for the manifest", &e))?;
        let mut meter = Meter::silent();
        fetch(context, content, &file, 0, &self.files.pace, &mut meter)?;
        let mut text = String::new();
        file.rewind()
            .and_then(|()| file.read_to_string(&mut text))
            .map_err(|e| Error::new(ErrorCode::Invalid, format!("the manifest is no text: {e}")))?;
        drop(file);
        Ok(Manifest::read(&text, self.files.entries)?)
    }
}

impl Task for PutDirectory {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, context: &Context<'_>) -> Result<Option<Value>, Stop> {
        let _claim = self.files.claim(&self.path)?;
        let fetched;
        let manifest = match &self.wanted {
            Wanted::Manifest(manifest) => manifest,
            Wanted::Content(content) => {
                fetched = self.fetch_manifest(context, content)?;
                &fetched
            }
        };
        let (folder, name) = path::absolute(&self.path)?;
        let above = Dir::open(Path::new(folder))
            .map_err(|e| io_error(format_args!("open the folder {folder}"), &e))?;
        context.permit(DIRECTORY_PUT, above.file(), name)?;
        let step = Step {
            context,
            files: &self.files,
            dir: &above,
            path: &self.path,
            name: OsStr::new(name),
            replace: false,
        };
        let there = step.look()?;
        let is_folder = there.as_ref().is_some_and(Metadata::is_dir);
        step.check_kind(there.as_ref(), is_folder, "a folder")?;
        if !is_folder {
            check_space(above.file(), manifest.bytes, self.files.reserve, &self.path)?;
            above
                .make_folder(OsStr::new(name))
                .and_then(|()| above.file().sync_all())
                .map_err(|e| step.failed("make the folder", &e))?;
        }
        let base = above
            .folder(OsStr::new(name))
            .map_err(|e| step.failed("open the folder", &e))?;
        let mut work = Work {
            context,
            files: &self.files,
            walk: Walk::new(&base, &self.path, self.prune),
            reader: Reader::default(),
            meter: Meter::new(manifest.bytes),
            made: Vec::new(),
            counts: Counts::default(),
        };
        let done = self.carry_out(&mut work, manifest, &base);
        if done.is_err() && !is_folder {
            // Where there is something in it by now, it stays.
            let _ = above.remove_folder(OsStr::new(name));
        }
        let removed = done?;
        let synced = base.file().sync_all();
        synced.map_err(|e| step.failed("sync the folder", &e))?;
        Ok(Some(json!({
            "path": self.path,
            "files": work.counts.files,
            "changed": work.counts.changed,
            "removed": removed,
            "bytes": work.counts.bytes,
        })))
    }
}

impl PutDirectory {
    /// Returns how much was removed.
    fn carry_out(&self, work: &mut Work<'_>, manifest: &Manifest, base: &Dir) -> Result<u64, Stop> {
        work.look_first(manifest, base)?;
        let _note = self.files.note(Of::Folder, &self.path);
        for (index, entry) in manifest.entries().iter().enumerate() {
            work.context.check()?;
            work.put(index, entry)?;
        }
        work.walk.leave(0)?;
        let removed = if self.prune {
            prune::prune(work.context, base, &self.path, manifest)?
        } else {
            0
        };
        work.finish_folders(manifest)?;
        Ok(removed)
    }
}

#[derive(Default)]
struct Counts {
    files: u64,
    changed: u64,
    bytes: u64,
}

struct Work<'a> {
    context: &'a Context<'a>,
    files: &'a Files,
    walk: Walk<'a>,
    reader: Reader,
    meter: Meter,
    /// Entries whose folders were not there.
    made: Vec<usize>,
    counts: Counts,
}

impl Work<'_> {
    fn attributes(&mut self, entry: &Entry) -> Result<Attributes, Error> {
        let (mode, owner, group) = (&entry.mode, &entry.owner, &entry.group);
        self.reader.read(
            mode.as_deref(),
            owner.as_deref(),
            group.as_deref(),
            entry.mtime,
        )
    }

    /// Finds what cannot be done before anything is: users that there are not, things in the way, no room.
    fn look_first(&mut self, manifest: &Manifest, base: &Dir) -> Result<(), Stop> {
        let mut more = 0_u64;
        for entry in manifest.entries() {
            self.context.check()?;
            self.attributes(entry)?;
            let (above, name) = split(&entry.path);
            let replace = self.walk.replace;
            let path = self.walk.path(&entry.path);
            let mut old = 0;
            if let Some(dir) = self.walk.enter(above, false)? {
                let step = Step {
                    context: self.context,
                    files: self.files,
                    dir,
                    path: &path,
                    name: OsStr::new(name),
                    replace,
                };
                let there = step.look()?;
                let (fits, wanted) = match entry.kind {
                    EntryKind::File => (
                        there.as_ref().is_some_and(Metadata::is_file),
                        "a regular file",
                    ),
                    EntryKind::Directory => {
                        (there.as_ref().is_some_and(Metadata::is_dir), "a folder")
                    }
                    EntryKind::Symlink => (
                        there.as_ref().is_some_and(Metadata::is_symlink),
                        "a symbolic link",
                    ),
                };
                step.check_kind(there.as_ref(), fits, wanted)?;
                old = there.filter(Metadata::is_file).map_or(0, |m| m.len());
            }
            more = more.saturating_add(entry.size.unwrap_or(0).saturating_sub(old));
        }
        self.walk.leave(0)?;
        // Each file is asked about again, with its temporary one.
        Ok(check_space(
            base.file(),
            more,
            self.files.reserve,
            self.walk.base_path,
        )?)
    }

    fn put(&mut self, index: usize, entry: &Entry) -> Result<(), Stop> {
        let attributes = self.attributes(entry)?;
        let path = self.walk.path(&entry.path);
        if entry.kind == EntryKind::Directory {
            if self.walk.enter_making(&entry.path)? {
                self.made.push(index);
                self.counts.changed += 1;
            }
            return Ok(());
        }
        let (above, name) = split(&entry.path);
        self.walk.enter_making(above)?;
        let step = Step {
            context: self.context,
            files: self.files,
            dir: self.walk.last(),
            path: &path,
            name: OsStr::new(name),
            replace: self.walk.replace,
        };
        if entry.kind == EntryKind::Symlink {
            if put_link(&step, entry, &attributes)? {
                self.counts.changed += 1;
                self.walk.dirty();
            }
            return Ok(());
        }
        let content = put::content(&entry.reference, entry.size, &entry.sha256)?;
        let done = step.put(&content, &attributes, true, &mut self.meter)?;
        self.counts.files += 1;
        self.counts.changed += u64::from(done.changed);
        if done.fetched {
            self.counts.bytes = self
                .counts
                .bytes
                .saturating_add(content.size - done.resumed);
            self.walk.dirty();
        }
        Ok(())
    }

    /// Mode, owner and time of folders, when nothing in them changes any more; the lowest first.
    fn finish_folders(&mut self, manifest: &Manifest) -> Result<(), Stop> {
        for (index, entry) in manifest.entries().iter().enumerate().rev() {
            if entry.kind != EntryKind::Directory {
                continue;
            }
            self.context.check()?;
            let attributes = self.attributes(entry)?;
            let path = self.walk.path(&entry.path);
            let Some(dir) = self.walk.enter(&entry.path, false)? else {
                continue;
            };
            let applied = attributes
                .apply(dir.file())
                .map_err(|e| io_error(format_args!("set mode, owner or time of {path}"), &e))?;
            if applied && self.made.binary_search(&index).is_err() {
                self.counts.changed += 1;
            }
        }
        self.walk.leave(0)
    }
}

/// True where it was another one before, or another's.
fn put_link(step: &Step<'_>, entry: &Entry, attributes: &Attributes) -> Result<bool, Stop> {
    let target = OsStr::new(entry.target.as_deref().unwrap_or_default());
    let old = step.look()?;
    let is_link = old.as_ref().is_some_and(Metadata::is_symlink);
    step.check_kind(old.as_ref(), is_link, "a symbolic link")?;
    let (uid, gid) = (attributes.uid, attributes.gid);
    let same = is_link
        && step
            .dir
            .read_link(step.name)
            .map_err(|e| step.failed("read", &e))?
            == target;
    if same {
        let other = |m: &Metadata| {
            uid.is_some_and(|uid| uid != m.uid()) || gid.is_some_and(|gid| gid != m.gid())
        };
        let owned = old.as_ref().is_some_and(other);
        if owned {
            let owned = step.dir.own_link(step.name, uid, gid);
            owned.map_err(|e| step.failed("set the owner of", &e))?;
        }
        return Ok(owned);
    }
    let hash = id::hex(&Sha256::digest(target.as_encoded_bytes()));
    let temporary = temporary::name(&step.name.to_string_lossy(), &hash);
    // Of an agent that died.
    let _ = step.dir.remove(&temporary);
    if old.is_some_and(|m| m.is_dir()) {
        prune::remove(step.context, step.dir, step.name, step.path)?;
    }
    let made = step
        .dir
        .make_link(target, &temporary)
        .and_then(|()| match (uid, gid) {
            (None, None) => Ok(()),
            _ => step.dir.own_link(&temporary, uid, gid),
        })
        .and_then(|()| step.dir.rename(&temporary, step.name));
    made.map_err(|e| {
        let _ = step.dir.remove(&temporary);
        step.failed("make the symbolic link", &e)
    })?;
    Ok(true)
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
