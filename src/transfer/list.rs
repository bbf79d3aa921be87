//! `file.list`: what is in a folder, a JSON object a line.

use super::attributes;
use super::put::kind_of;
use super::{io_error, path};
use crate::job::{Context, Stop, Task};
use crate::message::ErrorCode;
use crate::message::payload::{Error, FILE_LIST, FileRequest};
use crate::sys::dir::Dir;
use crate::sys::user;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Entries unless the request says otherwise, and at most.
const ENTRIES: u64 = 10_000;
const MOST_ENTRIES: u64 = 100_000;
/// Bytes of one message of output.
const OUTPUT: usize = 16 * 1024;

/// Lists a folder.
#[derive(Debug)]
pub struct List {
    path: String,
    limit: u64,
    name: String,
}

impl List {
    /// Checks the request.
    pub fn new(request: FileRequest) -> Result<Self, Error> {
        let name = match request.path.as_str() {
            "/" => "/",
            path => path::absolute(path)?.1,
        };
        let limit = request.limit.unwrap_or(ENTRIES);
        if !(1..=MOST_ENTRIES).contains(&limit) {
            let text = format!("limit must be 1 to {MOST_ENTRIES}");
            return Err(Error::new(ErrorCode::Invalid, text));
        }
        Ok(Self {
            name: format!("file.list {name}"),
            path: request.path,
            limit,
        })
    }
}

impl Task for List {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, context: &Context<'_>) -> Result<Option<Value>, Stop> {
        let mut lines = Lines {
            context,
            text: String::new(),
            owner: None,
            group: None,
        };
        let failed = |e: &std::io::Error| io_error(format_args!("list {}", self.path), e);
        let (mut count, mut more) = (0_u64, false);
        let dir = if self.path == "/" {
            let root = Dir::open(Path::new("/")).map_err(|e| failed(&e))?;
            context.permit(FILE_LIST, root.file(), "")?;
            root
        } else {
            let (folder, name) = path::absolute(&self.path)?;
            let above = Dir::open(Path::new(folder)).map_err(|e| failed(&e))?;
            context.permit(FILE_LIST, above.file(), name)?;
            let name = OsStr::new(name);
            let there = above.look(name).map_err(|e| failed(&e))?;
            let none = || Error::new(ErrorCode::NotFound, format!("there is no {}", self.path));
            let there = there.ok_or_else(none)?;
            if !there.is_dir() {
                lines.add(&above, name, &there)?;
                lines.flush()?;
                return Ok(Some(self.data(1, false)));
            }
            above.folder(name).map_err(|e| failed(&e))?
        };
        for name in dir.names().map_err(|e| failed(&e))? {
            let name = name.map_err(|e| failed(&e))?;
            if count == self.limit {
                more = true;
                break;
            }
            context.check()?;
            match dir.look(&name) {
                Ok(Some(metadata)) => lines.add(&dir, &name, &metadata)?,
                // It went meanwhile.
                Ok(None) => continue,
                Err(e) => return Err(failed(&e).into()),
            }
            count += 1;
        }
        lines.flush()?;
        Ok(Some(self.data(count, more)))
    }
}

impl List {
    fn data(&self, entries: u64, more: bool) -> Value {
        json!({ "path": self.path, "entries": entries, "more": more })
    }
}

struct Lines<'a> {
    context: &'a Context<'a>,
    text: String,
    /// The last ones that were looked up.
    owner: Option<(u32, String)>,
    group: Option<(u32, String)>,
}

fn called(last: &mut Option<(u32, String)>, number: u32, look_up: fn(u32) -> String) -> &str {
    if last.as_ref().is_none_or(|(of, _)| *of != number) {
        *last = None;
    }
    &last.get_or_insert_with(|| (number, look_up(number))).1
}

impl Lines<'_> {
    fn add(&mut self, dir: &Dir, name: &OsStr, metadata: &Metadata) -> Result<(), Stop> {
        let mut entry = json!({
            "name": name.to_string_lossy(),
            "type": kind_of(metadata).0,
            "size": metadata.len(),
            "mode": attributes::mode(metadata),
            "owner": called(&mut self.owner, metadata.uid(), user::user_name),
            "group": called(&mut self.group, metadata.gid(), user::group_name),
            "mtime": attributes::mtime(metadata),
        });
        if metadata.is_symlink()
            && let Ok(target) = dir.read_link(name)
        {
            entry["target"] = target.to_string_lossy().into();
        }
        self.text.push_str(&entry.to_string());
        self.text.push('\n');
        if self.text.len() >= OUTPUT {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stop> {
        if self.text.is_empty() {
            return Ok(());
        }
        let text = std::mem::take(&mut self.text);
        self.context.output(text.as_bytes())
    }
}
