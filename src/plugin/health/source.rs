//! Files of `/proc` and `/sys`, read with a bound.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// No file is read further. The longest here, the list of mounts, has about 150 bytes a line.
const FILE_LIMIT: u64 = 256 * 1024;
/// Read at a time.
const PIECE: usize = 2048;
/// No folder is listed further.
const FOLDER_LIMIT: usize = 100_000;

/// The root of the file system that the device is described in.
#[derive(Debug)]
pub(super) struct Source {
    root: PathBuf,
}

impl Source {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Whether it is this device, about which system calls tell more.
    pub fn is_here(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A path as it lies below the root.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Whether there is a file or folder.
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Content of a file, as far as the limit goes; none where it cannot be read.
    pub fn text(&self, path: &str) -> Option<String> {
        let mut file = File::open(self.path(path)).ok()?.take(FILE_LIMIT);
        // Through the stack: nearly every file here is short, and a vector would grow by a call at a time.
        let mut piece = [0; PIECE];
        let mut bytes = Vec::new();
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        Some(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    /// Content of a file that holds one word.
    pub fn word(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Content of a file that holds one number.
    pub fn number<T: std::str::FromStr>(&self, path: &str) -> Option<T> {
        self.word(path)?.parse().ok()
    }

    /// Names of the entries of a folder, in no order.
    pub fn names(&self, path: &str) -> Option<impl Iterator<Item = String> + use<>> {
        let entries = fs::read_dir(self.path(path)).ok()?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Some(names.take(FOLDER_LIMIT))
    }

    /// The same, in an order that does not change from one heartbeat to the next.
    pub fn sorted_names(&self, path: &str) -> Option<Vec<String>> {
        let mut names: Vec<String> = self.names(path)?.collect();
        // eth2 before eth10.
        names.sort_by_cached_key(|name| {
            let word = name.trim_end_matches(|c: char| c.is_ascii_digit());
            let number = name[word.len()..].parse::<u64>().unwrap_or(0);
            (word.to_owned(), number, name.clone())
        });
        Some(names)
    }
}
