//! Notes of transfers on their way, one small file each, so that what a died agent leaves behind is found by the next one.

use super::temporary::is_temporary;
use crate::identity;
use crate::message::id;
use crate::sys::dir::Dir;
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Notes at most. A transfer beyond them leaves its temporary file for good if the agent dies in it.
const NOTES: usize = 64;
/// Bytes of a note: a path and a word.
const NOTE_BYTES: u64 = 8_192;
/// How long what was fetched is kept, to go on behind it.
const KEEP: Duration = Duration::from_hours(24);
/// How long a folder that cannot be looked into is remembered.
const KEEP_NOTES: Duration = Duration::from_hours(24 * 30);
/// How deep folders below a put one are looked into.
const DEPTH: usize = 64;

/// What a note tells of.
#[derive(Debug, Clone, Copy)]
pub enum Of {
    /// A temporary file, by its path.
    File,
    /// A folder that has temporary files somewhere below.
    Folder,
}

/// A note, for as long as the transfer is on its way.
#[derive(Debug)]
pub struct Note(Option<PathBuf>);

impl Note {
    /// Makes a note in `notes`. Without it the transfer goes on all the same.
    pub fn take(notes: &Path, of: Of, path: &str) -> Self {
        let word = match of {
            Of::File => "file",
            Of::Folder => "folder",
        };
        let text = format!("{word} {path}\n");
        let note = notes.join(&id::hex(&Sha256::digest(text.as_bytes()))[..32]);
        match write(notes, &note, &text) {
            Ok(()) => Self(Some(note)),
            Err(e) => {
                log::warn!(
                    "no note of the transfer to {path}: {e}; if the agent dies in it, its temporary file stays"
                );
                Self(None)
            }
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

fn write(notes: &Path, note: &Path, text: &str) -> io::Result<()> {
    if note.exists() {
        return Ok(());
    }
    identity::create_folder(notes).map_err(io::Error::other)?;
    if fs::read_dir(notes)?.take(NOTES).count() >= NOTES {
        return Err(io::Error::other("there are too many notes already"));
    }
    fs::write(note, text)
}

/// Removes temporary files that nobody went on with for a day, and the notes of them. For the agent's start: all notes
/// are of those before it.
pub fn sweep(notes: &Path, now: SystemTime) {
    sweep_some(notes, now, None);
}

/// The same while transfers are on their way, which `busy` tells of a folder. A note is looked into once a day: what it
/// tells of may be large, or on a disk that hangs.
pub fn sweep_again(notes: &Path, now: SystemTime, busy: &dyn Fn(&str) -> bool) {
    sweep_some(notes, now, Some(busy));
}

fn sweep_some(notes: &Path, now: SystemTime, busy: Option<&dyn Fn(&str) -> bool>) {
    let Ok(list) = fs::read_dir(notes) else {
        return;
    };
    for entry in list.flatten().take(2 * NOTES) {
        let note = entry.path();
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if busy.is_some() {
            // What it tells of is no older than the note.
            if !is_older(&metadata, now, KEEP) {
                continue;
            }
            set_time(&note, now);
        }
        let done = match sweep_one(&note, now, busy) {
            Ok(done) => done,
            Err(e) => {
                log::debug!("{}: {e}", note.display());
                // So long since the note was made, and not since it was looked into.
                if let (true, Ok(was)) = (busy.is_some(), metadata.modified()) {
                    set_time(&note, was);
                }
                is_older(&metadata, now, KEEP_NOTES)
            }
        };
        if done {
            let _ = fs::remove_file(&note);
        }
    }
}

fn set_time(note: &Path, time: SystemTime) {
    let file = fs::File::open(note);
    if let Err(e) = file.and_then(|file| file.set_modified(time)) {
        log::debug!("{}: {e}", note.display());
    }
}

/// True where there is nothing left to remove.
fn sweep_one(
    note: &Path,
    now: SystemTime,
    busy: Option<&dyn Fn(&str) -> bool>,
) -> io::Result<bool> {
    let mut text = String::new();
    let file = fs::File::open(note)?;
    file.take(NOTE_BYTES).read_to_string(&mut text)?;
    let nothing = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(true),
        _ => Err(e),
    };
    match text.trim_end_matches('\n').split_once(' ') {
        Some(("file", path)) => match super::path::absolute(path) {
            Ok((folder, name)) => Dir::open(Path::new(folder))
                .and_then(|dir| sweep_file(&dir, OsStr::new(name), now))
                .or_else(nothing),
            Err(_) => Ok(true),
        },
        // A folder that is being put may have no temporary file just now.
        Some(("folder", path)) if busy.is_some_and(|busy| busy(path)) => Ok(false),
        Some(("folder", path)) => Dir::open(Path::new(path))
            .and_then(|dir| sweep_folder(&dir, now, DEPTH))
            .or_else(nothing),
        _ => Ok(true),
    }
}

fn sweep_file(dir: &Dir, name: &OsStr, now: SystemTime) -> io::Result<bool> {
    if !name.to_str().is_some_and(is_temporary) {
        return Ok(true);
    }
    match dir.look(name)? {
        Some(metadata) if metadata.is_dir() || !is_older(&metadata, now, KEEP) => {
            Ok(metadata.is_dir())
        }
        Some(_) => {
            log::info!(
                "removing {}, which a transfer has left behind",
                name.display()
            );
            dir.remove(name).map(|()| true)
        }
        None => Ok(true),
    }
}

fn sweep_folder(dir: &Dir, now: SystemTime, depth: usize) -> io::Result<bool> {
    let mut done = true;
    for name in dir.names()? {
        let name = name?;
        if name.to_str().is_some_and(is_temporary) {
            done &= sweep_file(dir, &name, now)?;
        } else if depth > 0
            && dir.look(&name)?.is_some_and(|m| m.is_dir())
            && let Ok(inner) = dir.folder(&name)
        {
            done &= sweep_folder(&inner, now, depth - 1)?;
        }
    }
    Ok(done)
}

/// What is from the future may be as old as it likes: the clock is not set yet.
fn is_older(metadata: &fs::Metadata, now: SystemTime, age: Duration) -> bool {
    let time = metadata.modified().ok();
    time.and_then(|time| now.duration_since(time).ok())
        .is_some_and(|since| since >= age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_after_a_day_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let notes = folder.path().join("transfers");
        let put = folder.path().join("put");
        fs::create_dir_all(put.join("deep")).unwrap();
        let file = folder.path().join(".x.triton-0123456789ab");
        let other = folder.path().join("other");
        let below = put.join("deep/.y.triton-0123456789ab");
        let beside = put.join("deep/y");
        for path in [&file, &other, &below, &beside] {
            fs::write(path, "x").unwrap();
        }
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        std::mem::forget([
            Note::take(&notes, Of::File, &text(&file)),
            Note::take(&notes, Of::File, &text(&other)),
            Note::take(&notes, Of::File, "/no/such/folder/.x.triton-0123456789ab"),
            Note::take(&notes, Of::File, "../x"),
            Note::take(&notes, Of::Folder, &text(&put)),
            Note::take(&notes, Of::Folder, "/no/such/folder"),
        ]);
        let count = || fs::read_dir(&notes).unwrap().count();
        assert_eq!(count(), 6);
        let hour = Duration::from_hours(1);
        sweep(&notes, SystemTime::now() + hour);
        assert!(file.exists() && below.exists());
        assert_eq!(count(), 2, "of what is there");
        // A clock that is not set.
        sweep(&notes, SystemTime::UNIX_EPOCH);
        assert_eq!(count(), 2);
        sweep(&notes, SystemTime::now() + 25 * hour);
        assert!(!file.exists() && !below.exists());
        assert!(other.exists() && beside.exists());
        assert_eq!(count(), 0);
    }

    #[test]
    fn a_sweep_beside_transfers_looks_at_old_notes_once_a_day_and_at_none_that_is_busy() {
        let folder = tempfile::tempdir().unwrap();
        let notes = folder.path().join("transfers");
        let put = folder.path().join("put");
        fs::create_dir(&put).unwrap();
        let [file, below] = [folder.path(), &put].map(|f| f.join(".x.triton-0123456789ab"));
        let make = || {
            fs::write(&file, "x").unwrap();
            fs::write(&below, "x").unwrap();
        };
        make();
        std::mem::forget([
            Note::take(&notes, Of::File, file.to_str().unwrap()),
            Note::take(&notes, Of::Folder, put.to_str().unwrap()),
        ]);
        let after = |hours| SystemTime::now() + Duration::from_hours(hours);
        sweep_again(&notes, after(23), &|_| false);
        assert!(file.exists() && below.exists());
        let busy = put.to_str().unwrap();
        sweep_again(&notes, after(25), &|path| path == busy);
        assert!(!file.exists() && below.exists());
        sweep_again(&notes, after(26), &|_| false);
        assert!(below.exists(), "it was looked at an hour ago");
        sweep_again(&notes, after(50), &|_| false);
        assert!(!below.exists());
        assert_eq!(fs::read_dir(&notes).unwrap().count(), 0);
    }

    #[test]
    fn notes_are_bounded_and_go_with_their_transfer() {
        let folder = tempfile::tempdir().unwrap();
        let notes = folder.path().join("transfers");
        let take = |n: usize| Note::take(&notes, Of::File, &format!("/x/{n}"));
        let held: Vec<_> = (0..NOTES + 3).map(take).collect();
        assert_eq!(fs::read_dir(&notes).unwrap().count(), NOTES);
        drop(held);
        assert_eq!(fs::read_dir(&notes).unwrap().count(), 0);
        // A folder that cannot be used costs a warning only.
        drop(Note::take(Path::new("/proc/none"), Of::File, "/x"));
    }
}
