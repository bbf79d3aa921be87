//! How far a followed file was read, in STATE/events.json.

use crate::message::payload;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// First bytes by which a file is known.
pub const HEAD: usize = 256;
/// Longest of the file of positions: 16 paths of a kilobyte, in JSON.
const POSITIONS_LIMIT: u64 = 128 * 1024;
/// Positions, in the state folder.
pub const POSITIONS: &str = "events.json";

/// How far a file was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Saved {
    pub inode: u64,
    pub offset: u64,
    /// How many of the first bytes are known, and their hash.
    pub head: usize,
    pub hash: u64,
}

impl Saved {
    /// As it was written.
    pub fn read(value: &Value) -> Self {
        let number = |name: &str| value[name].as_u64().unwrap_or_default();
        let hash = value["hash"].as_str().unwrap_or_default();
        Self {
            inode: number("inode"),
            offset: number("offset"),
            head: usize::try_from(number("head")).unwrap_or(HEAD).min(HEAD),
            hash: u64::from_str_radix(hash, 16).unwrap_or_default(),
        }
    }

    /// In JSON.
    pub fn write(&self) -> Value {
        json!({
            "inode": self.inode,
            "offset": self.offset,
            "head": self.head,
            "hash": format!("{:x}", self.hash),
        })
    }

    /// Whether a file may be the one that was read so far.
    pub fn fits(&self, file: &File) -> bool {
        let length = file.metadata().map_or(0, |m| m.len());
        length >= self.offset && hash(file, self.head) == Some(self.hash)
    }
}

/// The hash (FNV-1a) of a file's first bytes; none where it has not so many.
pub fn hash(file: &File, bytes: usize) -> Option<u64> {
    let mut head = [0; HEAD];
    let head = head.get_mut(..bytes)?;
    file.read_exact_at(head, 0).ok()?;
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    Some(head.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// What was written; nothing where that cannot be read.
pub fn load(path: &Path) -> Value {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        File::open(path)?
            .take(POSITIONS_LIMIT)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) => payload::from_json(&text).unwrap_or_else(|e| {
            log::error!(
                "events: {} cannot be read, files are followed from their end: {e}",
                path.display()
            );
            Value::Null
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Value::Null,
        Err(e) => {
            log::error!(
                "events: {} cannot be read, files are followed from their end: {e}",
                path.display()
            );
            Value::Null
        }
    }
}
