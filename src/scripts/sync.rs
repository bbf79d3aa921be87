//! `scripts.sync`: brings a revision. It is made beside the others and gets its name when all of it is on the disk; one
//! rename of a link makes it the current one.

use super::manifest::{Plan, Wanted};
use super::{NEW, OLD, Repository, Revision, remove, walk};
use crate::job::{Context, Stop, Task};
use crate::message::payload::{self, ErrorCode};
use crate::sys::space::space;
use crate::sys::sync;
use crate::transfer::{Meter, Pace, fetch, hash, io_error, no_space};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, TryLockError};

/// What is left free besides the files: their folders, and the journal's next records.
const SPARE: u64 = 128 * 1024;

/// The job.
#[derive(Debug)]
pub struct Sync {
    repository: Arc<Repository>,
    plan: Plan,
    pace: Pace,
}

impl Sync {
    /// Brings what `plan` says into `repository`.
    pub fn new(repository: Arc<Repository>, plan: Plan, pace: Pace) -> Self {
        Self {
            repository,
            plan,
            pace,
        }
    }
}

impl Task for Sync {
    fn name(&self) -> &'static str {
        payload::SCRIPTS_SYNC
    }

    fn run(&self, context: &Context<'_>) -> Result<Option<Value>, Stop> {
        let _one = match self.repository.syncing.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let text = "another scripts.sync is under way; try again when it has ended";
                return Err(Stop::failed(ErrorCode::Busy, text));
            }
        };
        let revisions = self.repository.revisions();
        let folder = revisions.join(&self.plan.revision);
        let current = self.repository.revision();
        let is_current = current.is_some_and(|name| name == self.plan.revision);
        let is_whole = self.is_whole(context, &folder)?;
        let mut fetched = 0;
        if !is_whole {
            let new = revisions.join(NEW);
            let half_made = HalfMade(&new);
            fetched = self.make(context, &new)?;
            context.check()?;
            self.switch(Some(&new), folder)?;
            drop(half_made);
        } else if !is_current {
            // One that was current before. A job may run in it, so it stays as it is.
            self.switch(None, folder)?;
        }
        let changed = !(is_whole && is_current);
        Ok(Some(json!({
            "revision": self.plan.revision,
            "files": self.plan.files.len(),
            "fetched": fetched,
            "changed": changed,
        })))
    }
}

/// Removed, unless it has been given its name.
struct HalfMade<'a>(&'a Path);

impl Drop for HalfMade<'_> {
    fn drop(&mut self) {
        remove(self.0);
    }
}

fn cannot<'a>(act: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Stop + 'a {
    move |e| io_error(format_args!("{act} {}", path.display()), &e).into()
}

impl Sync {
    /// Whether the folder holds what is wanted, and no more.
    fn is_whole(&self, context: &Context<'_>, folder: &Path) -> Result<bool, Stop> {
        let mut count = 0;
        let counted = walk(folder, "", &mut |_, _| {
            count += 1;
            Ok(())
        });
        if counted.is_err() || count != self.plan.files.len() {
            return Ok(false);
        }
        for file in &self.plan.files {
            let path = folder.join(&file.path);
            let whole = fs::symlink_metadata(&path)
                .is_ok_and(|found| found.is_file() && found.mode() & 0o7777 == file.mode);
            if !whole || !holds(context, &path, file)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the revision in `folder` and brings it to the disk; returns how many files had to be fetched.
    fn make(&self, context: &Context<'_>, folder: &Path) -> Result<usize, Stop> {
        remove(folder);
        fs::create_dir_all(folder).map_err(cannot("create", folder))?;
        let mut have = self.known(context)?;
        let missing: BTreeMap<&str, u64> = self
            .plan
            .files
            .iter()
            .filter(|file| !have.contains_key(&file.content.sha256))
            .map(|file| (file.content.sha256.as_str(), file.content.size))
            .collect();
        let bytes = missing
            .values()
            .fold(0_u64, |sum, n| sum.saturating_add(*n));
        check_space(folder, bytes)?;
        let mut meter = Meter::new(bytes);
        let mut fetched = 0;
        for file in &self.plan.files {
            context.check()?;
            let path = folder.join(&file.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(cannot("create", parent))?;
            }
            if let Some(source) = have.get(&file.content.sha256) {
                take_over(source, &path, file.mode).map_err(cannot("write", &path))?;
                continue;
            }
            let new = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(cannot("create", &path))?;
            fetch(context, &file.content, &new, 0, &self.pace, &mut meter)
                .map_err(|stop| stop.about(&format!("the file {:?}", &file.path)))?;
            new.set_permissions(Permissions::from_mode(file.mode))
                .map_err(cannot("set the mode of", &path))?;
            have.insert(file.content.sha256.clone(), path);
            fetched += 1;
        }
        // Once for all of it.
        File::open(folder)
            .and_then(|folder| sync::file_system(&folder))
            .map_err(cannot("sync", folder))?;
        Ok(fetched)
    }

    /// What of the content the revisions that are here have already, by hash. What the files say of themselves does not
    /// count: each is read.
    fn known(&self, context: &Context<'_>) -> Result<BTreeMap<String, PathBuf>, Stop> {
        let wanted: BTreeSet<(u64, &str)> = self
            .plan
            .files
            .iter()
            .map(|file| (file.content.size, file.content.sha256.as_str()))
            .collect();
        let mut candidates = Vec::new();
        // A folder that cannot be read has nothing to give.
        for name in self.repository.names() {
            let _ = walk(
                &self.repository.revisions().join(name),
                "",
                &mut |_, path| {
                    let size = fs::symlink_metadata(path)?.len();
                    if wanted
                        .range((size, "")..)
                        .next()
                        .is_some_and(|(s, _)| *s == size)
                    {
                        candidates.push((path.to_owned(), size));
                    }
                    Ok(())
                },
            );
        }
        let mut have = BTreeMap::new();
        for (path, size) in candidates {
            if have.len() == wanted.len() {
                break;
            }
            let hash = File::open(&path).map(|file| hash(context, &file, size));
            context.check()?;
            if let Ok(Ok(hash)) = hash
                && wanted.contains(&(size, hash.as_str()))
            {
                have.entry(hash).or_insert(path);
            }
        }
        Ok(have)
    }

    /// Gives the revision its name where it was made anew, and makes it the current one.
    fn switch(&self, made: Option<&Path>, folder: PathBuf) -> Result<(), Stop> {
        let repository = &*self.repository;
        let name = &self.plan.revision;
        let link = repository.folder.join(NEW);
        let mut old = None;
        if made.is_some() && fs::symlink_metadata(&folder).is_ok() {
            // It is not as it should be: the new one takes its place.
            let aside = repository.aside();
            fs::rename(&folder, &aside).map_err(cannot("move away", &folder))?;
            old = Some(aside);
        }
        let switch = || {
            if let Some(made) = made {
                fs::rename(made, &folder)?;
                File::open(repository.revisions())?.sync_all()?;
            }
            let _ = fs::remove_file(&link);
            symlink(Path::new("revisions").join(name), &link)?;
            fs::rename(&link, repository.link())
        };
        if let Err(e) = switch() {
            remove(&link);
            if made.is_some() {
                remove(&folder);
            }
            if let Some(old) = old {
                let _ = fs::rename(old, &folder);
            }
            return Err(cannot("switch to", &folder)(e));
        }
        if let Err(e) = File::open(&repository.folder).and_then(|folder| folder.sync_all()) {
            log::warn!(
                "the switch to {} may not outlive a power cut: {e}",
                folder.display()
            );
        }
        log::info!("the scripts are those of the revision {name} now");
        let name = name.clone();
        repository.become_current(Revision { name, folder }, old.as_deref());
        Ok(())
    }
}

impl Repository {
    /// The revisions that are here.
    fn names(&self) -> Vec<String> {
        let names = self.entries().map(|(name, _)| name);
        names.filter(|name| !name.starts_with('.')).collect()
    }

    /// A name that is free for what has to go out of the way. The last has the highest number.
    fn aside(&self) -> PathBuf {
        let mut state = self.state();
        state.moved = state.moved.wrapping_add(1);
        self.revisions().join(format!("{OLD}{}", state.moved))
    }

    /// Removes what is neither this one, the one before, nor in use. What had its name until now is at `old`.
    fn become_current(&self, revision: Revision, old: Option<&Path>) {
        let folder = revision.folder.clone();
        let mut keep = vec![folder.clone()];
        let before = {
            let mut state = self.state();
            let before = state.current.replace(Arc::new(revision));
            let before = before.map(|before| {
                let path = before.folder.clone();
                state.former.push((Arc::downgrade(&before), path.clone()));
                path
            });
            state.former.retain(|former| former.0.strong_count() > 0);
            for (_, path) in &mut state.former {
                if let Some(old) = old.filter(|_| *path == folder) {
                    old.clone_into(path);
                }
                keep.push(path.clone());
            }
            before
        };
        // Where it takes its own place, which one was before that is not known any more.
        let forgotten = before.is_none_or(|before| {
            let same = before == folder;
            keep.push(before);
            same
        });
        for (name, path) in self.entries() {
            if !keep.contains(&path) && (name.starts_with('.') || !forgotten) {
                remove(&path);
            }
        }
    }
}

/// Whether the file has the content.
fn holds(context: &Context<'_>, path: &Path, wanted: &Wanted) -> Result<bool, Stop> {
    let Ok(file) = File::open(path) else {
        return Ok(false);
    };
    if !file
        .metadata()
        .is_ok_and(|m| m.len() == wanted.content.size)
    {
        return Ok(false);
    }
    match hash(context, &file, wanted.content.size) {
        Ok(hash) => Ok(hash == wanted.content.sha256),
        Err(Stop::Failed(_)) => Ok(false),
        Err(stop) => Err(stop),
    }
}

/// The same file under another name where it may be, else a copy.
fn take_over(source: &Path, path: &Path, mode: u32) -> io::Result<()> {
    let same_mode = fs::symlink_metadata(source)?.mode() & 0o7777 == mode;
    if same_mode && fs::hard_link(source, path).is_ok() {
        return Ok(());
    }
    fs::copy(source, path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn check_space(folder: &Path, bytes: u64) -> Result<(), Stop> {
    let needed = bytes.saturating_add(SPARE);
    match space(folder) {
        Some(space) if space.available < needed => {
            let text = format!(
                "there is no room for {bytes} bytes of scripts: {} are free at {}",
                space.available,
                folder.display()
            );
            Err(Stop::failed(no_space(), text))
        }
        _ => Ok(()),
    }
}
