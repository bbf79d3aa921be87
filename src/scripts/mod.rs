//! The scripts of this device: whole revisions, of which one is current (`docs/protocol.md` section 6).
//!
//! ```text
//! STATE/scripts/current              a link to revisions/REV, switched by renaming a new link over it
//!               revisions/REV/…      a revision, never changed once it has its name
//!               revisions/.new       one that is being made
//!               revisions/.old-N     one that was not as it should be, out of the way of a new one of its name
//! ```
//!
//! What an agent that died has left of the last two is removed at the start.
//!
//! Which one is current is in memory too. Whoever runs a script of a revision holds it, and nobody can get hold of one
//! that is not current, so one that nobody holds can be removed without a lock.

mod attributes;
mod interpreter;
mod manifest;
mod sync;

pub use attributes::Attributes;
pub use manifest::Plan;
pub use sync::Sync;

use crate::job::Holds;
use crate::message::payload::{self, Command, ErrorCode};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Longest name of a script or revision, in bytes.
const NAME_LIMIT: usize = 255;
/// Most arguments of a script.
const ARGUMENTS: usize = 4096;
/// Where a revision or a link is made.
const NEW: &str = ".new";
/// What has to go out of the way of another of its name, before its number.
const OLD: &str = ".old-";

/// The scripts of this device.
#[derive(Debug)]
pub struct Repository {
    folder: PathBuf,
    interpreters: BTreeMap<String, String>,
    /// Of the device, for the environment.
    attributes: Arc<Attributes>,
    /// Held by the one who brings a revision.
    syncing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Arc<Revision>>,
    /// Those that were current, as long as a job holds them, and where they are now.
    former: Vec<(Weak<Revision>, PathBuf)>,
    /// How many had to go out of the way.
    moved: u32,
}

/// A revision that is current or in use.
#[derive(Debug)]
pub struct Revision {
    name: String,
    folder: PathBuf,
}

impl Holds for Revision {}

impl Repository {
    /// The repository in the state folder; it need not exist. What an interrupted sync has left is removed.
    pub fn open(
        state: &Path,
        interpreters: BTreeMap<String, String>,
        attributes: Arc<Attributes>,
    ) -> Self {
        let repository = Self {
            folder: state.join("scripts"),
            interpreters,
            attributes,
            syncing: Mutex::default(),
            state: Mutex::default(),
        };
        repository.clean();
        let current = repository.linked();
        repository.state().current = current;
        repository
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn revisions(&self) -> PathBuf {
        self.folder.join("revisions")
    }

    fn link(&self) -> PathBuf {
        self.folder.join("current")
    }

    /// The name of the revision that the link leads to.
    fn target(&self) -> Option<String> {
        let target = match fs::read_link(self.link()) {
            Ok(target) => target,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => {
                log::error!("{} is no link to a revision: {e}", self.link().display());
                return None;
            }
        };
        let name = target.strip_prefix("revisions").ok().and_then(Path::to_str);
        name.filter(|name| check_revision(name).is_ok())
            .map(str::to_owned)
    }

    /// The revision that the link names, if it is one.
    fn linked(&self) -> Option<Arc<Revision>> {
        let name = self.target()?;
        let folder = self.revisions().join(&name);
        folder.is_dir().then(|| Arc::new(Revision { name, folder }))
    }

    /// What is in the folder of revisions: names and paths.
    fn entries(&self) -> impl Iterator<Item = (String, PathBuf)> {
        let entries = fs::read_dir(self.revisions()).into_iter().flatten();
        entries
            .flatten()
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
    }

    /// Removes what is half made.
    fn clean(&self) {
        let _ = fs::remove_file(self.folder.join(NEW));
        let number = |name: &str| name.strip_prefix(OLD)?.parse::<u32>().ok();
        let moved = self.entries().filter_map(|(name, _)| number(&name)).max();
        if let Some(moved) = moved
            && let Some(name) = self.target()
        {
            let folder = self.revisions().join(name);
            // Power was cut after it had gone out of the way, and before the new one had come.
            if fs::symlink_metadata(&folder).is_err() {
                let old = self.revisions().join(format!("{OLD}{moved}"));
                match fs::rename(&old, &folder) {
                    Ok(()) => log::warn!("{} is back from {}", folder.display(), old.display()),
                    Err(e) => log::error!("cannot bring back {}: {e}", folder.display()),
                }
            }
        }
        for (name, path) in self.entries() {
            if name.starts_with('.') {
                log::info!("removing the half-made {}", path.display());
                remove(&path);
            }
        }
    }

    /// What is current, for `hello` and the status.
    pub fn revision(&self) -> Option<String> {
        let state = self.state();
        state.current.as_ref().map(|revision| revision.name.clone())
    }

    /// What runs the script `name` with `args`: `command` with the rest of the request in it, and what has to be held
    /// as long as it runs.
    pub fn command(
        &self,
        name: &str,
        args: Vec<String>,
        command: Command,
    ) -> Result<(Command, Arc<Revision>), payload::Error> {
        check_name(name).map_err(|why| invalid(format!("the script {name:?}: {why}")))?;
        if command.argv.is_some() || command.shell.is_some() {
            return Err(invalid("a script has args, not argv or shell"));
        }
        if args.len() > ARGUMENTS {
            let text = format!("args has {} words, {ARGUMENTS} are allowed", args.len());
            return Err(payload::Error::new(ErrorCode::TooLarge, text));
        }
        let current = self.state().current.clone();
        let revision = current.ok_or_else(|| {
            payload::Error::new(
                ErrorCode::NotFound,
                "this device has no scripts: no revision has been brought to it",
            )
        })?;
        let path = revision.file(name)?;
        let mut words = interpreter::of(&path, name, &self.interpreters)?;
        words.extend(args);
        let mut command = command;
        command.argv = Some(words);
        let folder = revision.folder.display().to_string();
        command.env.extend(self.attributes.environment());
        command
            .env
            .insert("TRITON_SCRIPTS".to_owned(), folder.clone());
        command
            .env
            .insert("TRITON_SCRIPT".to_owned(), name.to_owned());
        command.cwd.get_or_insert(folder);
        Ok((command, revision))
    }
}

impl Revision {
    /// A script's file. No link on the way is followed: it may lead out of the revision.
    fn file(&self, name: &str) -> Result<PathBuf, payload::Error> {
        let mut path = self.folder.clone();
        let mut kind = None;
        for part in name.split('/') {
            path.push(part);
            let found = fs::symlink_metadata(&path).map_err(|e| match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => payload::Error::new(
                    ErrorCode::NotFound,
                    format!("the revision {} has no script {name:?}", self.name),
                ),
                _ => payload::Error::new(
                    ErrorCode::Io,
                    format!("cannot read {}: {e}", path.display()),
                ),
            })?;
            if found.is_symlink() {
                let text = format!(
                    "{} is a symbolic link, which is not followed",
                    path.display()
                );
                return Err(payload::Error::new(ErrorCode::Refused, text));
            }
            kind = Some(found);
        }
        if kind.is_some_and(|found| found.is_file()) {
            return Ok(path);
        }
        let text = format!("{name:?} is a folder and no script");
        Err(payload::Error::new(ErrorCode::Invalid, text))
    }
}

/// Name and bytes of each script, in order.
pub type List = Vec<(String, u64)>;

/// The current revision in the state folder, and all that is in it.
pub fn list(state: &Path) -> io::Result<(Option<String>, List)> {
    let folder = state.join("scripts");
    let target = match fs::read_link(folder.join("current")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // It tells whoever may not read it from a device that has none.
            fs::read_dir(state)?;
            return Ok((None, Vec::new()));
        }
        target => folder.join(target?),
    };
    let mut found = Vec::new();
    walk(&target, "", &mut |name, path| {
        found.push((name.to_owned(), fs::symlink_metadata(path)?.len()));
        Ok(())
    })?;
    found.sort();
    let name = target.file_name();
    Ok((name.map(|name| name.to_string_lossy().into_owned()), found))
}

/// Calls `each` with the name and path of every regular file below `folder`.
fn walk(
    folder: &Path,
    prefix: &str,
    each: &mut dyn FnMut(&str, &Path) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type()?;
        // As deep as names are long.
        if kind.is_dir() && name.len() <= NAME_LIMIT {
            walk(&entry.path(), &format!("{name}/"), each)?;
        } else if kind.is_file() {
            each(&name, &entry.path())?;
        }
    }
    Ok(())
}

/// Removes a folder or file with all below it; says so where it cannot.
fn remove(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            log::warn!("cannot remove {}: {e}", path.display());
        }
        _ => {}
    }
}

fn invalid(message: impl Into<String>) -> payload::Error {
    payload::Error::new(ErrorCode::Invalid, message)
}

/// Whether this names a script: relative, and no part begins with a dot.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let sound = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    if name.len() > NAME_LIMIT || !name.split('/').all(sound) {
        return Err(
            "a name is a relative path of up to 255 letters, digits, '.', '_', '-' and '/', no part of which begins \
             with a dot",
        );
    }
    Ok(())
}

/// Whether this names a revision: one part of such a path.
fn check_revision(name: &str) -> Result<(), &'static str> {
    if name.contains('/') || check_name(name).is_err() {
        return Err(
            "the name of a revision has 1 to 255 letters, digits, '.', '_' and '-', and begins with no dot",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
