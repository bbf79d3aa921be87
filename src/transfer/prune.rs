//! Removes what is below a folder, and never leaves it: links go themselves, other file systems stay.

use super::manifest::{Manifest, Standing};
use super::{io_error, refused};
use crate::job::{Context, Stop};
use crate::sys::dir::Dir;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt as _;

/// How deep it goes: each level is an open folder.
const DEPTH: usize = 128;
/// Names that are collected before they are removed: a folder that changes while it is read may leave some out.
const NAMES: usize = 1_000;

/// Removes an entry with all that is in it. What is on another file system stays.
pub fn remove(context: &Context<'_>, dir: &Dir, name: &OsStr, path: &str) -> Result<(), Stop> {
    let mut pruner = Pruner::new(context, dir, path)?;
    pruner.remove(dir, name, path, 0)?;
    Ok(())
}

/// Removes what is in `dir` and not in the manifest; returns how much it was.
pub fn prune(
    context: &Context<'_>,
    dir: &Dir,
    path: &str,
    manifest: &Manifest,
) -> Result<u64, Stop> {
    let mut pruner = Pruner::new(context, dir, path)?;
    pruner.prune(dir, path, "", manifest)?;
    Ok(pruner.removed)
}

struct Pruner<'a> {
    context: &'a Context<'a>,
    /// What is on another device, or another mount, stays.
    device: u64,
    mount: Option<String>,
    removed: u64,
}

impl<'a> Pruner<'a> {
    fn new(context: &'a Context<'a>, dir: &Dir, path: &str) -> Result<Self, Stop> {
        Ok(Self {
            context,
            device: device(dir).map_err(|e| failed("look at", path, &e))?,
            mount: dir.mount(),
            removed: 0,
        })
    }

    fn prune(
        &mut self,
        dir: &Dir,
        path: &str,
        within: &str,
        manifest: &Manifest,
    ) -> Result<(), Stop> {
        let standing = |name: &OsStr| match name.to_str() {
            Some(name) => manifest.standing(&join(within, name)),
            // Manifests have no such names.
            None => Standing::Unknown,
        };
        self.remove_some(dir, path, 0, &|name| standing(name) == Standing::Unknown)?;
        for name in names(dir, path)? {
            let name = name.map_err(|e| failed("read", path, &e))?;
            if standing(&name) != Standing::Folder {
                continue;
            }
            let inner_path = join(path, &name.to_string_lossy());
            let inner = dir
                .folder(&name)
                .map_err(|e| failed("open", &inner_path, &e))?;
            if self.is_ours(&inner, &inner_path)? {
                let within = join(within, &name.to_string_lossy());
                // As deep as the manifest at most.
                self.prune(&inner, &inner_path, &within, manifest)?;
            }
        }
        Ok(())
    }

    /// Removes the entries for which that holds. True where all of them went.
    fn remove_some(
        &mut self,
        dir: &Dir,
        path: &str,
        depth: usize,
        holds: &dyn Fn(&OsStr) -> bool,
    ) -> Result<bool, Stop> {
        loop {
            let mut doomed: Vec<OsString> = Vec::new();
            for name in names(dir, path)? {
                let name = name.map_err(|e| failed("read", path, &e))?;
                if holds(&name) {
                    doomed.push(name);
                }
                if doomed.len() >= NAMES {
                    break;
                }
            }
            let all = doomed.len() < NAMES;
            let mut left = 0;
            for name in &doomed {
                if !self.remove(dir, name, &join(path, &name.to_string_lossy()), depth)? {
                    left += 1;
                }
            }
            // Those that stay would be found again and again.
            if all || left == doomed.len() {
                return Ok(left == 0);
            }
        }
    }

    /// Removes an entry and all that is in it; false where something of it stays.
    fn remove(&mut self, dir: &Dir, name: &OsStr, path: &str, depth: usize) -> Result<bool, Stop> {
        self.context.check()?;
        let look = dir.look(name).map_err(|e| failed("look at", path, &e))?;
        let Some(metadata) = look else {
            return Ok(true);
        };
        if !metadata.is_dir() {
            let removed = dir.remove(name);
            return self.count(removed, path);
        }
        if depth >= DEPTH {
            let text = format!("{path} is more than {DEPTH} folders deep; remove it by hand");
            return Err(refused(text).into());
        }
        let inner = dir.folder(name).map_err(|e| failed("open", path, &e))?;
        if !self.is_ours(&inner, path)? || !self.remove_some(&inner, path, depth + 1, &|_| true)? {
            return Ok(false);
        }
        let removed = dir.remove_folder(name);
        self.count(removed, path)
    }

    /// False where something is mounted there: it stays, as another file system does.
    fn count(&mut self, removed: io::Result<()>, path: &str) -> Result<bool, Stop> {
        match removed {
            Ok(()) => self.removed += 1,
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                log::info!("{path} is in use by the system, such as a mount; it stays");
                return Ok(false);
            }
            Err(e) => return Err(failed("remove", path, &e)),
        }
        Ok(true)
    }

    fn is_ours(&self, dir: &Dir, path: &str) -> Result<bool, Stop> {
        let device = device(dir).map_err(|e| failed("look at", path, &e))?;
        let ours = device == self.device && dir.mount() == self.mount;
        if !ours {
            log::info!("{path} is another file system; what is in it stays");
        }
        Ok(ours)
    }
}

fn device(dir: &Dir) -> io::Result<u64> {
    dir.file().metadata().map(|m| m.dev())
}

fn names(dir: &Dir, path: &str) -> Result<crate::sys::dir::Names, Stop> {
    dir.names().map_err(|e| failed("read", path, &e))
}

fn failed(act: &str, path: &str, error: &io::Error) -> Stop {
    io_error(format_args!("{act} {path}"), error).into()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        return name.to_owned();
    }
    format!("{path}/{name}")
}
