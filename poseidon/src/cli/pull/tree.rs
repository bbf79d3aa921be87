//! A folder of a device: what is in it, and its copy here, whole or not at all.
//!
//! The device may be anybody's. Its names are checked before anything is made, all is made in a folder of its own that nobody
//! else may enter, and links come last: so nothing is ever written by way of one.

use super::{Fetch, Out, Pull, set_time};
use crate::cli::bars::Bars;
use crate::cli::client::{Client, Failure};
use crate::cli::follow::{Away, Outage};
use crate::cli::jobs::outcome;
use crate::cli::ls::list;
use crate::cli::tables::{bytes, clean};
use crate::time::now;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustix::fs::{CWD, RenameFlags, renameat_with, syncfs};
use rustix::io::Errno;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use triton::transfer;

/// Files, folders and links of one pull, and folders inside one another.
const MAX_ENTRIES: usize = 100_000;
const MAX_DEPTH: usize = 64;
/// Files on their way at a time: a device has few workers.
const AT_ONCE: usize = 4;
/// Wrong entries that are named.
const NAMED: usize = 10;

/// What is in a folder of a device. Paths are relative to it, a folder stands before what is in it.
#[derive(Default)]
struct Tree {
    folders: Vec<(PathBuf, u32, Option<SystemTime>)>,
    /// With the path on the device.
    files: Vec<(PathBuf, String)>,
    links: Vec<(PathBuf, String)>,
    /// Mode of the folder itself.
    mode: u32,
    /// Pipes, sockets, devices.
    left_out: Vec<String>,
    /// Names that cannot be asked for, or lead elsewhere.
    wrong: Vec<String>,
}

impl Pull {
    /// Fetches a folder to `target`, which is not there yet.
    pub(super) async fn tree(
        &self,
        client: &Client,
        name: &str,
        target: &Path,
        bars: &Bars,
    ) -> Result<(), String> {
        let started = now();
        let shown = target.display();
        if target.symlink_metadata().is_ok() {
            return Err(format!(
                "{shown} is there already, and a folder is never replaced: remove it, or name another place"
            ));
        }
        let root = match self.place.path.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        let tree = self.read(client, name, root).await?;
        for what in &tree.left_out {
            bars.say(&format!("poseidon: left out {}", clean(what)));
        }
        let failed = |e: std::io::Error| format!("cannot write {shown}: {e}");
        let parent = match target.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        // Only its owner may enter it. It goes with all that is in it where anything fails.
        let stage = tempfile::Builder::new()
            .prefix(".poseidon-pull-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(failed)?;
        let copy = stage.path().join("tree");
        make(&copy).map_err(failed)?;
        for (path, ..) in &tree.folders {
            make(&copy.join(path)).map_err(failed)?;
        }
        let given = self.files(client, name, &tree, &copy, bars).await?;
        for (path, points_to) in &tree.links {
            symlink(points_to, copy.join(path)).map_err(failed)?;
        }
        let mask = super::umask();
        let grant = |path: &Path, mode: u32| {
            std::fs::set_permissions(path, Permissions::from_mode(mode & 0o777 & !mask))
        };
        // What is inside first: a folder that nobody may write to could not be entered any more.
        for (path, mode, mtime) in tree.folders.iter().rev() {
            let opened = File::open(copy.join(path)).map_err(failed)?;
            set_time(&opened, *mtime).map_err(failed)?;
            grant(&copy.join(path), *mode).map_err(failed)?;
        }
        let opened = File::open(&copy).map_err(failed)?;
        syncfs(&opened).map_err(|e| failed(e.into()))?;
        rename(&copy, target).map_err(failed)?;
        // It could not be moved without the right to write to it.
        grant(target, tree.mode).map_err(failed)?;
        File::open(parent)
            .and_then(|f| f.sync_all())
            .map_err(failed)?;
        bars.say(&format!(
            "{}: {} files, {} folders, {} links, {} to {shown} in {:.1} s",
            clean(name),
            tree.files.len(),
            tree.folders.len() + 1,
            tree.links.len(),
            bytes(&json!(given)),
            now() - started
        ));
        Ok(())
    }

    /// Lists the folder and all below it.
    async fn read(&self, client: &Client, name: &str, root: &str) -> Result<Tree, String> {
        let mut tree = Tree::default();
        let mut count = 0;
        let mut waiting = vec![(PathBuf::new(), root.to_owned(), 0)];
        while let Some((below, path, depth)) = waiting.pop() {
            // As with a single file: once it has begun, what is away is waited for.
            let (entries, job) = if below == Path::new("") {
                list(client, name, &path, MAX_ENTRIES, self.patience).await?
            } else {
                self.list(client, name, &path).await?
            };
            let data = &job["result"]["data"];
            if job["result"]["status"] != "succeeded" {
                let why = outcome(&job);
                return Err(format!("{}: {}: {why}", clean(name), clean(&path)));
            }
            if data["type"]
                .as_str()
                .is_some_and(|kind| kind != "directory")
            {
                let kind = entries
                    .first()
                    .map_or("gone", |e| kind(e).unwrap_or("nothing known"));
                return Err(format!(
                    "{} is no folder, but {kind}{}",
                    clean(&path),
                    if below == Path::new("") {
                        ""
                    } else {
                        ": it was changed meanwhile"
                    }
                ));
            }
            if below == Path::new("") {
                let mode = data["mode"].as_str();
                let mode = mode.and_then(|mode| u32::from_str_radix(mode, 8).ok());
                tree.mode = mode.unwrap_or(0o755);
            }
            count += entries.len();
            if count > MAX_ENTRIES || data["more"] == true {
                return Err(format!("there are more than {MAX_ENTRIES} files in it"));
            }
            let mut names = HashSet::new();
            for entry in &entries {
                let called = entry["name"].as_str().unwrap_or_default();
                let far = if path == "/" {
                    format!("/{called}")
                } else {
                    format!("{path}/{called}")
                };
                if !is_name(called) || !names.insert(called) {
                    tree.wrong.push(far);
                    continue;
                }
                let near = below.join(called);
                let mode = entry["mode"].as_str();
                let mode = mode.and_then(|mode| u32::from_str_radix(mode, 8).ok());
                match entry["type"].as_str() {
                    Some("directory") if depth >= MAX_DEPTH => {
                        return Err(format!(
                            "{} is more than {MAX_DEPTH} folders deep",
                            clean(&far)
                        ));
                    }
                    Some("directory") => {
                        let mtime = entry["mtime"].as_f64();
                        let mtime = mtime.and_then(|mtime| transfer::time(mtime).ok());
                        tree.folders
                            .push((near.clone(), mode.unwrap_or(0o700), mtime));
                        waiting.push((near, far, depth + 1));
                    }
                    Some("file") => tree.files.push((near, far)),
                    Some("symlink") => match entry["target"].as_str() {
                        Some(to) if !to.is_empty() && !to.contains(['\0', '\u{FFFD}']) => {
                            if self.no_links {
                                return Err(format!(
                                    "{} is a symbolic link, and --no-links refuses these",
                                    clean(&far)
                                ));
                            }
                            tree.links.push((near, to.to_owned()));
                        }
                        _ => tree.wrong.push(far),
                    },
                    _ => {
                        let kind = kind(entry).unwrap_or("nothing known");
                        tree.left_out.push(format!("{far}: {kind}"));
                    }
                }
            }
        }
        if tree.wrong.is_empty() {
            return Ok(tree);
        }
        let more = match tree.wrong.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        tree.wrong.truncate(NAMED);
        let named: Vec<String> = tree.wrong.iter().map(|w| format!("{w:?}")).collect();
        Err(format!(
            "nothing is pulled, for these names are no text, come twice, or would lead elsewhere: {}{more}",
            named.join(", ")
        ))
    }

    /// Asks for a listing, again where the server or the device was away.
    async fn list(
        &self,
        client: &Client,
        name: &str,
        path: &str,
    ) -> Result<(Vec<Value>, Value), Failure> {
        let mut outage = Outage::new(self.patience, Away::default());
        let mut client = client.clone();
        loop {
            match list(&client, name, path, MAX_ENTRIES, self.patience).await {
                Ok(listed) => return Ok(listed),
                Err(failure) => outage.wait(failure).await?,
            }
            client = client.again();
        }
    }

    /// Fetches all files; how many bytes came.
    async fn files(
        &self,
        client: &Client,
        name: &str,
        tree: &Tree,
        copy: &Path,
        bars: &Bars,
    ) -> Result<u64, String> {
        let each = tree.files.iter().map(|(near, far)| async move {
            let to = copy.join(near);
            let failed = |e: std::io::Error| format!("cannot write {}: {e}", near.display());
            let file = File::create_new(&to).map_err(failed)?;
            let mut fetch = Fetch::new(self, client, name, far);
            fetch.patient = true;
            fetch
                .run(Out::File(&file), bars)
                .await
                .map_err(|e| format!("{}: {e}", clean(far)))?;
            fetch.describe(&file).map_err(failed)?;
            Ok(fetch.given)
        });
        stream::iter(each)
            .buffer_unordered(AT_ONCE)
            .try_fold(0_u64, |sum, given| async move { Ok(sum + given) })
            .await
    }
}

/// A name of one thing in a folder, which a device can be asked for. U+FFFD stands for what is no text.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0', '\n', '\r', '\u{FFFD}'])
}

fn kind(entry: &Value) -> Option<&'static str> {
    Some(match entry["type"].as_str()? {
        "file" => "a file",
        "symlink" => "a symbolic link",
        "fifo" => "a pipe",
        "socket" => "a socket",
        "device" => "a device",
        _ => return None,
    })
}

fn make(folder: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)
}

/// Never over what came meanwhile.
fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems cannot promise it; nothing was there a moment ago, and only an empty folder would be replaced.
        Err(Errno::INVAL | Errno::NOSYS) => std::fs::rename(from, to),
        done => Ok(done?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_thing_in_its_folder() {
        for good in ["a", "..a", "...", " ", "a b", "ä", "\u{1b}"] {
            assert!(is_name(good), "{good:?}");
        }
        for bad in [
            "", ".", "..", "a/b", "/", "/etc", "../x", "a\0", "a\n", "\u{FFFD}",
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
