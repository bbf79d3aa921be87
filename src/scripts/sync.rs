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
use std::sync::{Arc, TryLockError, Weak};

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
        let mut fetched = 0;
        let changed = !self.is_current(context)?;
        if changed {
            let folder = self.repository.revisions().join(NEW);
            let half_made = HalfMade(&folder);
            fetched = self.make(context, &folder)?;
            context.check()?;
            self.switch(&folder)?;
            drop(half_made);
        }
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
    /// Whether the current revision is this one, and whole.
    fn is_current(&self, context: &Context<'_>) -> Result<bool, Stop> {
        let current = self.repository.state().current.clone();
        let Some(current) = current.filter(|c| c.name == self.plan.revision) else {
            return Ok(false);
        };
        let mut count = 0;
        let counted = walk(&current.folder, "", &mut |_, _| {
            count += 1;
            Ok(())
        });
        if counted.is_err() || count != self.plan.files.len() {
            return Ok(false);
        }
        for file in &self.plan.files {
            let path = current.folder.join(&file.path);
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

    /// Gives the revision its name and makes it the current one.
    fn switch(&self, made: &Path) -> Result<(), Stop> {
        let repository = &*self.repository;
        let name = &self.plan.revision;
        let revisions = repository.revisions();
        let folder = revisions.join(name);
        let (old, link) = (revisions.join(OLD), repository.folder.join(NEW));
        if fs::symlink_metadata(&folder).is_ok() {
            // An older one, or one that is not as it should be: this one takes its place.
            remove(&old);
            fs::rename(&folder, &old).map_err(cannot("move away", &folder))?;
        }
        let switch = || {
            fs::rename(made, &folder)?;
            File::open(&revisions)?.sync_all()?;
            let _ = fs::remove_file(&link);
            symlink(Path::new("revisions").join(name), &link)?;
            fs::rename(&link, repository.link())
        };
        if let Err(e) = switch() {
            remove(&link);
            remove(&folder);
            let _ = fs::rename(&old, &folder);
            return Err(cannot("switch to", &folder)(e));
        }
        if let Err(e) = File::open(&repository.folder).and_then(|folder| folder.sync_all()) {
            log::warn!(
                "the switch to {} may not outlive a power cut: {e}",
                folder.display()
            );
        }
        remove(&old);
        log::info!("the scripts are those of the revision {name} now");
        repository.become_current(Revision {
            name: name.clone(),
            folder,
        });
        Ok(())
    }
}

impl Repository {
    /// The revisions that are here.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.revisions()).into_iter().flatten();
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .collect()
    }

    /// Removes what is neither this one, the one before, nor in use.
    fn become_current(&self, revision: Revision) {
        let name = revision.name.clone();
        let (before, mut keep) = {
            let mut state = self.state();
            let before = state.current.replace(Arc::new(revision));
            let former = before.as_ref().map(Arc::downgrade);
            state.former.extend(former);
            state.former.retain(|former| former.strong_count() > 0);
            let in_use = state.former.iter().filter_map(Weak::upgrade);
            let keep: BTreeSet<String> = in_use.map(|revision| revision.name.clone()).collect();
            (before, keep)
        };
        let Some(before) = before.filter(|before| before.name != name) else {
            // Which one was before that is not known any more.
            return;
        };
        keep.extend([name, before.name.clone()]);
        for name in self.names() {
            if !keep.contains(&name) {
                remove(&self.revisions().join(name));
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
