//! A folder as it is to be on a device.

use crate::cli::bars::Bars;
use crate::cli::upload::Source;
use serde_json::{Value, json};
use std::fs::{self, FileType, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Entries of one folder, and folders inside one another. Devices take fewer, unless they are told otherwise.
const MAX_ENTRIES: usize = 100_000;
const MAX_DEPTH: usize = 64;
/// Wrong entries that are named.
const NAMED: usize = 10;

/// What is below a folder, in order.
pub(super) struct Tree {
    root: PathBuf,
    /// Paths below it, a folder before what is in it.
    entries: Vec<(String, Metadata)>,
}

impl Tree {
    pub(super) fn read(root: &Path) -> Result<Self, String> {
        let mut tree = Self {
            root: root.to_owned(),
            entries: Vec::new(),
        };
        let mut wrong = Vec::new();
        tree.walk("", 0, &mut wrong)?;
        if wrong.is_empty() {
            return Ok(tree);
        }
        let more = match wrong.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        wrong.truncate(NAMED);
        Err(format!(
            "nothing is pushed, for these cannot be: {}{more}",
            wrong.join(", ")
        ))
    }

    fn walk(&mut self, below: &str, depth: usize, wrong: &mut Vec<String>) -> Result<(), String> {
        let folder = self.root.join(below);
        let failed = |e: std::io::Error| format!("cannot read {}: {e}", folder.display());
        if depth > MAX_DEPTH {
            return Err(format!(
                "{} is more than {MAX_DEPTH} folders deep",
                folder.display()
            ));
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
        }
        names.sort();
        for name in names {
            let shown = folder.join(&name);
            let Some(name) = name.to_str().filter(|name| !name.contains(['\n', '\r'])) else {
                wrong.push(format!(
                    "{:?} (its name is no text, or has a line end)",
                    shown.display().to_string()
                ));
                continue;
            };
            let path = if below.is_empty() {
                name.to_owned()
            } else {
                format!("{below}/{name}")
            };
            let metadata = fs::symlink_metadata(&shown)
                .map_err(|e| format!("cannot read {}: {e}", shown.display()))?;
            let kind = metadata.file_type();
            if let Some(what) = special(kind) {
                wrong.push(format!("{path} ({what})"));
                continue;
            }
            if self.entries.len() >= MAX_ENTRIES {
                return Err(format!(
                    "{} holds more than {MAX_ENTRIES} files and folders",
                    self.root.display()
                ));
            }
            self.entries.push((path.clone(), metadata));
            if kind.is_dir() {
                self.walk(&path, depth + 1, wrong)?;
            }
        }
        Ok(())
    }

    /// The entries as a request has them; reads all files.
    pub(super) async fn hash(&self, bars: &Bars) -> Result<Vec<Value>, String> {
        let mut entries = Vec::with_capacity(self.entries.len());
        for (path, metadata) in &self.entries {
            let kind = metadata.file_type();
            let full = self.root.join(path);
            let mut entry = json!({"path": path});
            if kind.is_symlink() {
                let target = fs::read_link(&full)
                    .map_err(|e| format!("cannot read {}: {e}", full.display()))?;
                let target = target.to_str().ok_or_else(|| {
                    format!("{} points to a name that is no text", full.display())
                })?;
                entry["type"] = "symlink".into();
                entry["target"] = target.into();
            } else {
                entry["mode"] = format!("{:04o}", metadata.permissions().mode() & 0o7777).into();
                entry["mtime"] = metadata.mtime().into();
                entry["type"] = if kind.is_dir() { "directory" } else { "file" }.into();
                if kind.is_file() {
                    for (field, value) in Source::of_file(&full, bars).await?.named() {
                        entry[field] = value;
                    }
                }
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The content of the files among these entries.
    pub(super) fn sources(&self, entries: &[Value]) -> Vec<Source> {
        let file = |entry: &Value| {
            let (hash, size) = (entry["sha256"].as_str()?, entry["size"].as_u64()?);
            let path = self.root.join(entry["path"].as_str()?);
            Some(Source::known(hash, size, path))
        };
        entries.iter().filter_map(file).collect()
    }
}

/// What it is, if it is nothing that can be pushed.
fn special(kind: FileType) -> Option<&'static str> {
    if kind.is_fifo() {
        Some("a pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else if kind.is_char_device() || kind.is_block_device() {
        Some("a device")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[tokio::test]
    async fn a_folder_is_read_in_order_with_links_as_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/c")).unwrap();
        fs::write(dir.path().join("b/c/x"), b"hello").unwrap();
        fs::write(dir.path().join("a"), b"").unwrap();
        symlink("../outside", dir.path().join("b/link")).unwrap();
        let tree = Tree::read(dir.path()).unwrap();
        let entries = tree.hash(&Bars::new()).await.unwrap();
        let field =
            |name: &str| -> Vec<String> { entries.iter().map(|e| e[name].to_string()).collect() };
        assert_eq!(
            field("path"),
            [r#""a""#, r#""b""#, r#""b/c""#, r#""b/c/x""#, r#""b/link""#]
        );
        assert_eq!(field("target")[4], r#""../outside""#);
        assert_eq!(entries[3]["size"], 5);
        let hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(entries[3]["ref"], format!("sha256:{hash}"));
        assert_eq!(tree.sources(&entries).len(), 2);
    }

    #[test]
    fn what_cannot_be_pushed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mkfifo = std::process::Command::new("mkfifo")
            .arg(dir.path().join("pipe"))
            .status();
        assert!(mkfifo.unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        fs::write(dir.path().join("two\nlines"), b"").unwrap();
        let e = Tree::read(dir.path()).err().unwrap();
        for part in ["pipe (a pipe)", "socket (a socket)", "two\\nlines"] {
            assert!(e.contains(part), "{e}");
        }
    }
}
