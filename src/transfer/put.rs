//! `file.put`: one file, as a whole or not at all.

use super::attributes::{Attributes, Reader};
use super::leftovers::Of;
use super::temporary::{self, Temporary};
use super::{Content, Files, Meter, fetch, hash, io_error, no_space, path, prune, refused};
use crate::job::{Context, Stop, Task};
use crate::message::ErrorCode;
use crate::message::payload::{Error, FILE_PUT, FileRequest};
use crate::sys::dir::Dir;
use crate::sys::space;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Mode of a new file for which none is given.
const MODE: u32 = 0o644;

/// Fetches a file and puts it into its place.
#[derive(Debug)]
pub struct Put {
    files: Arc<Files>,
    request: FileRequest,
    content: Content,
    name: String,
}

impl Put {
    /// Checks the request.
    pub fn new(files: Arc<Files>, request: FileRequest) -> Result<Self, Error> {
        let (_, name) = path::absolute(&request.path)?;
        let content = content(&request.reference, request.size, &request.sha256)?;
        if let Some(mode) = &request.mode {
            super::attributes::read_mode(mode)?;
        }
        if let Some(mtime) = request.mtime {
            super::attributes::time(mtime)?;
        }
        Ok(Self {
            name: format!("file.put {name}"),
            files,
            content,
            request,
        })
    }
}

/// What a request says of its content, checked.
pub fn content(reference: &str, size: Option<u64>, sha256: &str) -> Result<Content, Error> {
    let content = Content {
        reference: reference.to_owned(),
        size: size.ok_or_else(|| Error::new(ErrorCode::Invalid, "size is missing"))?,
        sha256: sha256.to_owned(),
    };
    content.check()?;
    Ok(content)
}

impl Task for Put {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, context: &Context<'_>) -> Result<Option<Value>, Stop> {
        let request = &self.request;
        let path = &request.path;
        let (folder, name) = path::absolute(path)?;
        let _claim = self.files.claim(path)?;
        let attributes = Reader::default().read(
            request.mode.as_deref(),
            request.owner.as_deref(),
            request.group.as_deref(),
            request.mtime,
        )?;
        let permit = |dir: &Dir, at: &Path| {
            let rest = Path::new(path).strip_prefix(at).unwrap_or(Path::new(path));
            context.permit(FILE_PUT, dir.file(), &rest.to_string_lossy())
        };
        let parents = if request.parents {
            Parents::make(Path::new(folder), &permit)?
        } else {
            Parents::default()
        };
        let dir = Dir::open(Path::new(folder)).map_err(|e| {
            let mut error = io_error(format_args!("open the folder {folder}"), &e);
            if error.code == ErrorCode::NotFound {
                error.message.push_str("; with \"parents\" it is made");
            }
            error
        })?;
        permit(&dir, Path::new(folder))?;
        let temporary = temporary::name(name, &self.content.sha256);
        let _note = self.files.note(
            Of::File,
            &format!("{}/{}", folder.trim_end_matches('/'), temporary.display()),
        );
        let mut meter = Meter::new(self.content.size);
        let step = Step {
            context,
            files: &self.files,
            dir: &dir,
            path,
            name: OsStr::new(name),
            replace: false,
        };
        let done = step.put(&self.content, &attributes, request.if_changed, &mut meter)?;
        if done.fetched {
            let sync = dir.file().sync_all();
            sync.map_err(|e| io_error(format_args!("sync the folder {folder}"), &e))?;
        }
        parents.keep();
        Ok(Some(json!({
            "path": path,
            "size": self.content.size,
            "sha256": self.content.sha256,
            "changed": done.changed,
            "resumed": done.resumed,
        })))
    }
}

/// One entry of a folder that is to become something.
pub struct Step<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) files: &'a Files,
    pub(super) dir: &'a Dir,
    /// For messages.
    pub(super) path: &'a str,
    pub(super) name: &'a OsStr,
    /// Whether something of another kind may be removed from there.
    pub(super) replace: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Done {
    /// Whether content, mode, owner or group are others now.
    pub changed: bool,
    /// Whether the file is a new one.
    pub fetched: bool,
    /// Bytes that had not to be fetched again.
    pub resumed: u64,
}

impl Step<'_> {
    /// Makes it a file of this content. The folder is left to sync where something was fetched.
    pub fn put(
        &self,
        content: &Content,
        attributes: &Attributes,
        if_changed: bool,
        meter: &mut Meter,
    ) -> Result<Done, Stop> {
        let old = self.look()?;
        let old_file = old.as_ref().filter(|m| m.is_file());
        self.check_kind(old.as_ref(), old_file.is_some(), "a regular file")?;
        if if_changed
            && old_file.is_some_and(|m| m.len() == content.size)
            && let Some(file) = self.has(content)?
        {
            meter.add(self.context, content.size);
            let applied = attributes.apply(&file);
            return Ok(Done {
                changed: applied.map_err(|e| self.failed("set mode, owner or time of", &e))?,
                ..Done::default()
            });
        }
        let name = temporary::name(&self.name.to_string_lossy(), &content.sha256);
        let temporary = Temporary::open(self.dir, name)
            .map_err(|e| self.failed("make a temporary file beside", &e))?;
        let missing = content.size.saturating_sub(temporary.there);
        check_space(self.dir.file(), missing, self.files.reserve, self.path)?;
        let file = &temporary.file;
        let resumed = fetch(
            self.context,
            content,
            file,
            temporary.there,
            &self.files.pace,
            meter,
        )
        .map_err(|stop| stop.about(self.path))?;
        let attributes = match old_file {
            Some(old) => attributes.or_of(old),
            None => Attributes {
                mode: attributes.mode.or(Some(MODE)),
                ..attributes.clone()
            },
        };
        attributes
            .apply(file)
            .map_err(|e| self.failed("set mode, owner or time of", &e))?;
        // The last moment in which it can be cancelled.
        self.context.check()?;
        if old.is_some_and(|m| m.is_dir()) {
            prune::remove(self.context, self.dir, self.name, self.path)?;
        }
        temporary
            .place(self.name)
            .map_err(|e| self.failed("write", &e))?;
        Ok(Done {
            changed: true,
            fetched: true,
            resumed,
        })
    }

    /// What is there now.
    pub fn look(&self) -> Result<Option<Metadata>, Error> {
        self.dir
            .look(self.name)
            .map_err(|e| self.failed("look at", &e))
    }

    /// Refuses what is of another kind, unless it may be replaced.
    pub fn check_kind(
        &self,
        old: Option<&Metadata>,
        fits: bool,
        wanted: &str,
    ) -> Result<(), Error> {
        match old {
            Some(old) if !fits && !self.replace => Err(refused(format!(
                "{} is {}, and not {wanted}; it stays as it is",
                self.path,
                kind_of(old).1
            ))),
            _ => Ok(()),
        }
    }

    /// The file, where it has the content.
    fn has(&self, content: &Content) -> Result<Option<File>, Stop> {
        let file = self
            .dir
            .read(self.name)
            .map_err(|e| self.failed("read", &e))?;
        let hash = hash(self.context, &file, content.size);
        match hash {
            Ok(hash) => Ok((hash == content.sha256).then_some(file)),
            Err(stop) => Err(stop.about(self.path)),
        }
    }

    /// That something cannot be done to it.
    pub fn failed(&self, act: &str, error: &io::Error) -> Error {
        io_error(format_args!("{act} {}", self.path), error)
    }
}

impl Stop {
    /// Says what it is about.
    pub fn about(self, path: &str) -> Self {
        match self {
            Self::Failed(mut error) => {
                error.message = format!("{path}: {}", error.message);
                Self::Failed(error)
            }
            stop => stop,
        }
    }
}

/// What something is, as `file.list` says it and in words.
pub fn kind_of(metadata: &Metadata) -> (&'static str, &'static str) {
    let kind = metadata.file_type();
    if kind.is_file() {
        ("file", "a regular file")
    } else if kind.is_dir() {
        ("directory", "a folder")
    } else if kind.is_symlink() {
        ("symlink", "a symbolic link")
    } else if kind.is_fifo() {
        ("fifo", "a named pipe")
    } else if kind.is_socket() {
        ("socket", "a socket")
    } else {
        ("device", "a device")
    }
}

/// Refuses what does not fit the file system that `file` is on.
pub fn check_space(file: &File, bytes: u64, reserve: u64, path: &str) -> Result<(), Error> {
    let space = space::space_of(file)
        .map_err(|e| io_error(format_args!("see how much room there is for {path}"), &e))?;
    if bytes == 0 || bytes.saturating_add(reserve) <= space.available {
        return Ok(());
    }
    let text = format!(
        "{path} needs {bytes} bytes more, {} are free, and {reserve} of them stay so (files.reserve_bytes)",
        space.available
    );
    Err(Error::new(no_space(), text))
}

/// Folders that were made for a file, and go again if it does not come.
#[derive(Debug, Default)]
struct Parents(Vec<PathBuf>);

impl Parents {
    /// `permit` is asked about each folder in which one is made.
    fn make(folder: &Path, permit: &dyn Fn(&Dir, &Path) -> Result<(), Stop>) -> Result<Self, Stop> {
        let mut missing = Vec::new();
        for path in folder.ancestors() {
            match fs::metadata(path) {
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(path),
                Err(e) => {
                    return Err(io_error(format_args!("look at {}", path.display()), &e).into());
                }
            }
        }
        let mut made = Self::default();
        while let Some(path) = missing.pop() {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                continue;
            };
            let above = Dir::open(folder)
                .map_err(|e| io_error(format_args!("open the folder {}", folder.display()), &e))?;
            permit(&above, folder)?;
            match above.make_folder(name) {
                Ok(()) => made.0.push(path.to_owned()),
                // Somebody else's.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    let what = format_args!("make the folder {}", path.display());
                    return Err(io_error(what, &e).into());
                }
            }
            let synced = above.file().sync_all();
            synced.map_err(|e| io_error(format_args!("sync {}", folder.display()), &e))?;
        }
        Ok(made)
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        // The lowest first; one that has something in it by now stays.
        while let Some(path) = self.0.pop() {
            let _ = fs::remove_dir(path);
        }
    }
}
