//! What a folder is to hold: checked as a whole before anything is written.

use super::path;
use super::put::content;
use crate::message::ErrorCode;
use crate::message::payload::{self, ENTRIES_LIMIT, Entry, EntryKind, Error};

/// Longest target of a symbolic link, in bytes: the kernel makes none longer.
const TARGET_LIMIT: usize = 4_095;
/// Bytes of a manifest for each entry that a device allows.
pub const ENTRY_BYTES: u64 = 1_024;

/// Entries that were checked, sorted by path: a folder comes before what is in it.
#[derive(Debug)]
pub struct Manifest {
    entries: Vec<Entry>,
    /// Bytes of all files.
    pub bytes: u64,
}

/// What a manifest says of a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is an entry, or on the way to one, and a folder.
    Folder,
    /// It is an entry and no folder.
    Leaf,
    /// Nothing.
    Unknown,
}

impl Manifest {
    /// Reads the JSON list.
    pub fn read(json: &str, limit: usize) -> Result<Self, Error> {
        let entries = payload::from_json_list(json, ENTRIES_LIMIT)
            .map_err(|e| invalid(format!("the manifest cannot be read: {e}")))?;
        Self::check(entries, limit)
    }

    /// Checks entries, of which there may be `limit`.
    pub fn check(mut entries: Vec<Entry>, limit: usize) -> Result<Self, Error> {
        if entries.len() > limit {
            let text = format!(
                "{} entries, this device takes {limit} (files.manifest_entries)",
                entries.len()
            );
            return Err(Error::new(ErrorCode::TooLarge, text));
        }
        let mut bytes = 0_u64;
        for entry in &entries {
            path::relative(&entry.path)?;
            let checked = check_entry(entry).map_err(|mut e| {
                e.message = format!("entry {:?}: {}", entry.path, e.message);
                e
            })?;
            bytes = bytes.saturating_add(checked);
        }
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        for pair in entries.windows(2) {
            if let [a, b] = pair
                && a.path == b.path
            {
                return Err(invalid(format!("the path {:?} stands twice", a.path)));
            }
        }
        let manifest = Self { entries, bytes };
        for entry in &manifest.entries {
            for (at, _) in entry.path.match_indices('/') {
                let above = &entry.path[..at];
                if let Some(other) = manifest.find(above)
                    && other.kind != EntryKind::Directory
                {
                    let text =
                        format!("{:?} is below {above:?}, which is no directory", entry.path);
                    return Err(invalid(text));
                }
            }
        }
        Ok(manifest)
    }

    fn find(&self, path: &str) -> Option<&Entry> {
        let by_path = |entry: &Entry| entry.path.as_str().cmp(path);
        let at = self.entries.binary_search_by(by_path).ok()?;
        self.entries.get(at)
    }

    /// The entries in their order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What is said of a path.
    pub fn standing(&self, path: &str) -> Standing {
        match self.find(path) {
            Some(entry) if entry.kind == EntryKind::Directory => Standing::Folder,
            Some(_) => Standing::Leaf,
            None => {
                let below = format!("{path}/");
                let at = self.entries.partition_point(|e| e.path < below);
                match self.entries.get(at) {
                    Some(entry) if entry.path.starts_with(&below) => Standing::Folder,
                    _ => Standing::Unknown,
                }
            }
        }
    }
}

fn invalid(text: String) -> Error {
    Error::new(ErrorCode::Invalid, text)
}

/// Checks what does not depend on the device; returns the bytes of its content.
fn check_entry(entry: &Entry) -> Result<u64, Error> {
    if let Some(mode) = &entry.mode {
        super::attributes::read_mode(mode)?;
    }
    if let Some(mtime) = entry.mtime {
        super::attributes::time(mtime)?;
    }
    match entry.kind {
        EntryKind::Directory => Ok(0),
        EntryKind::File => {
            content(&entry.reference, entry.size, &entry.sha256).map(|content| content.size)
        }
        EntryKind::Symlink => {
            let target = entry.target.as_deref().unwrap_or_default();
            if target.is_empty() || target.len() > TARGET_LIMIT || target.contains('\0') {
                let text = format!("target must have 1 to {TARGET_LIMIT} bytes and no NUL");
                return Err(invalid(text));
            }
            Ok(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn file(path: &str) -> Value {
        json!({"path": path, "ref": "r", "size": 1, "sha256": "0".repeat(64)})
    }

    fn folder(path: &str) -> Value {
        json!({"path": path, "type": "directory"})
    }

    fn link(path: &str) -> Value {
        json!({"path": path, "type": "symlink", "target": "/etc"})
    }

    fn read(entries: &[Value]) -> Result<Manifest, Error> {
        Manifest::read(&Value::from(entries).to_string(), 100)
    }

    #[test]
    fn a_manifest_is_sorted_and_knows_its_paths() {
        let manifest = read(&[
            file("b/c/d"),
            link("b-"),
            file("a"),
            folder("b"),
            folder("e"),
        ]);
        let manifest = manifest.unwrap();
        let paths: Vec<_> = manifest.entries().iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, ["a", "b", "b-", "b/c/d", "e"]);
        assert_eq!(manifest.bytes, 2);
        for (path, said) in [
            ("a", Standing::Leaf),
            ("b", Standing::Folder),
            ("b/c", Standing::Folder),
            ("b/c/d", Standing::Leaf),
            ("b-", Standing::Leaf),
            ("b/", Standing::Unknown),
            ("b/c/d/e", Standing::Unknown),
            ("c", Standing::Unknown),
            ("", Standing::Unknown),
        ] {
            assert_eq!(manifest.standing(path), said, "{path}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (entries, said) in [
            (vec![file("a"), file("a")], "\"a\" stands twice"),
            (vec![file("a"), folder("a")], "stands twice"),
            (vec![file("a/b"), file("a")], "below \"a\""),
            (vec![file("a/b/c"), link("a"), file("a-")], "below \"a\""),
            (vec![file("../a")], ". or .."),
            (vec![file("/a")], "empty part"),
            (vec![file("")], "empty part"),
            (vec![json!({"path": "a"})], "entry \"a\": size is missing"),
            (vec![json!({"path": "a", "size": 1})], "ref"),
            (
                vec![json!({"path": "a", "type": "fifo"})],
                "unknown variant",
            ),
            (vec![json!({"path": "a", "type": "symlink"})], "target"),
            (
                vec![json!({"path": "a", "type": "directory", "mode": "9"})],
                "octal",
            ),
            (
                vec![json!({"path": "a", "type": "directory", "mtime": -1})],
                "no time",
            ),
            (vec![json!(7)], "cannot be read"),
            (vec![folder("a"); 101], "this device takes 100"),
        ] {
            let error = read(&entries).unwrap_err();
            assert!(error.message.contains(said), "{said}: {error:?}");
        }
    }

    #[test]
    fn more_entries_than_anyone_needs_are_not_even_read() {
        let json = format!("[{}{{}}]", "{},".repeat(ENTRIES_LIMIT + 1_000));
        let error = Manifest::read(&json, usize::MAX).unwrap_err();
        assert!(error.message.contains("more than 100000"), "{error:?}");
    }

    #[test]
    fn as_many_as_can_be() {
        let entries: Vec<_> = (0..ENTRIES_LIMIT)
            .map(|n| file(&format!("a/{}/{n}", n % 100)))
            .collect();
        let json = Value::from(entries).to_string();
        let manifest = Manifest::read(&json, ENTRIES_LIMIT).unwrap();
        assert_eq!(manifest.entries().len(), ENTRIES_LIMIT);
        assert_eq!(manifest.standing("a/7"), Standing::Folder);
    }

    proptest! {
        #[test]
        fn no_manifest_makes_it_panic(json in "[\\[\\]{}\":,a-z0-9/.]{0,200}") {
            let _ = Manifest::read(&json, 10);
        }

        #[test]
        fn what_is_accepted_is_a_tree(
            paths in prop::collection::vec(("[ab./]{1,6}", 0..3_u8), 0..12)
        ) {
            let entries: Vec<_> = paths
                .iter()
                .map(|(path, kind)| match kind {
                    0 => file(path),
                    1 => folder(path),
                    _ => link(path),
                })
                .collect();
            let Ok(manifest) = read(&entries) else { return Ok(()) };
            for entry in manifest.entries() {
                for other in manifest.entries() {
                    let below = other.path.starts_with(&format!("{}/", entry.path));
                    prop_assert!(!below || entry.kind == EntryKind::Directory);
                }
                prop_assert_ne!(manifest.standing(&entry.path), Standing::Unknown);
            }
        }
    }
}
