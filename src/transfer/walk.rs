//! The folders between the one that is put and the one that is worked on.

use super::put::kind_of;
use super::{io_error, refused};
use crate::job::Stop;
use crate::sys::dir::Dir;
use std::ffi::OsStr;

/// The way from a folder to one below it, held open: no link on it is followed, and the next entry is mostly near.
pub struct Walk<'a> {
    base: &'a Dir,
    pub base_path: &'a str,
    /// Whether what is no folder may be removed where one is needed.
    pub replace: bool,
    open: Vec<Opened>,
    base_dirty: bool,
}

struct Opened {
    name: String,
    dir: Dir,
    /// Whether it has to be synced.
    dirty: bool,
}

impl<'a> Walk<'a> {
    pub fn new(base: &'a Dir, base_path: &'a str, replace: bool) -> Self {
        Self {
            base,
            base_path,
            replace,
            open: Vec::new(),
            base_dirty: false,
        }
    }

    pub fn path(&self, path: &str) -> String {
        format!("{}/{path}", self.base_path)
    }

    pub fn last(&self) -> &Dir {
        self.open.last().map_or(self.base, |opened| &opened.dir)
    }

    /// Something has changed in the folder where it is.
    pub fn dirty(&mut self) {
        match self.open.last_mut() {
            Some(opened) => opened.dirty = true,
            None => self.base_dirty = true,
        }
    }

    /// Goes back until so many folders are open.
    pub fn leave(&mut self, depth: usize) -> Result<(), Stop> {
        while self.open.len() > depth {
            if let Some(opened) = self.open.pop()
                && opened.dirty
            {
                let synced = opened.dir.file().sync_all();
                synced
                    .map_err(|e| io_error(format_args!("sync the folder {}", opened.name), &e))?;
            }
        }
        Ok(())
    }

    /// Goes to a folder; none where it is not there.
    pub fn enter(&mut self, path: &str, make: bool) -> Result<Option<&Dir>, Stop> {
        let parts = || path.split('/').filter(|part| !part.is_empty());
        let common = parts()
            .zip(&self.open)
            .take_while(|(part, opened)| *part == opened.name)
            .count();
        self.leave(common)?;
        for part in parts().skip(common) {
            let name = OsStr::new(part);
            let shown = || format!("{} in {path:?} of {}", part, self.base_path);
            let failed = |act: &str, e| io_error(format_args!("{act} {}", shown()), &e);
            let there = self.last().look(name).map_err(|e| failed("look at", e))?;
            match there {
                Some(m) if m.is_dir() => {}
                Some(m) if !self.replace => {
                    let text = format!("{} is {}, and not a folder", shown(), kind_of(&m).1);
                    return Err(refused(text).into());
                }
                _ if !make => return Ok(None),
                other => {
                    if other.is_some() {
                        let removed = self.last().remove(name);
                        removed.map_err(|e| failed("remove", e))?;
                    }
                    let made = self.last().make_folder(name);
                    made.map_err(|e| failed("make the folder", e))?;
                    self.dirty();
                }
            }
            let dir = self.last().folder(name);
            let dir = dir.map_err(|e| {
                io_error(
                    format_args!("open {part} in {path:?} of {}", self.base_path),
                    &e,
                )
            })?;
            self.open.push(Opened {
                name: part.to_owned(),
                dir,
                dirty: false,
            });
        }
        Ok(Some(self.last()))
    }

    /// Goes to a folder that is made where it is not there; true where that was so.
    pub fn enter_making(&mut self, path: &str) -> Result<bool, Stop> {
        if self.enter(path, false)?.is_some() {
            return Ok(false);
        }
        self.enter(path, true)?;
        Ok(true)
    }
}
