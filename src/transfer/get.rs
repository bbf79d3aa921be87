//! `file.get`: gives a file's bytes to a peer that asks for them piece by piece.

use super::attributes;
use super::put::kind_of;
use super::{Files, Patience, io_error, path, refused};
use crate::job::{Context, Stop, Task};
use crate::message::payload::{
    self, DATA_OFFER, DATA_REQUEST, DATA_RESPONSE, DataRequest, DataResponse, Error, FILE_GET,
    FileRequest,
};
use crate::message::{ErrorCode, Message, id, text};
use crate::sys::dir::Dir;
use crate::sys::user;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// A file without blocks that says to be this short may be one that the kernel writes when it is read, as in `/proc`.
const MADE_UP: u64 = 65_536;
/// Bytes of such a file: it is read at once.
const MADE_UP_LIMIT: u64 = 4 << 20;

/// Gives a file.
#[derive(Debug)]
pub struct Get {
    files: Arc<Files>,
    path: String,
    offset: u64,
    follow: bool,
    name: String,
}

impl Get {
    /// Checks the request.
    pub fn new(files: Arc<Files>, request: FileRequest) -> Result<Self, Error> {
        let (_, name) = path::absolute(&request.path)?;
        Ok(Self {
            name: format!("file.get {name}"),
            files,
            offset: request.offset,
            follow: request.follow,
            path: request.path,
        })
    }

    /// Opens it, where it is a regular file: a device or a pipe would act on that.
    fn open(&self, context: &Context<'_>) -> Result<(File, Metadata), Stop> {
        let (folder, name) = path::absolute(&self.path)?;
        let failed = |act: &str, e: &io::Error| io_error(format_args!("{act} {}", self.path), e);
        let is_file = |metadata: &Metadata| {
            if metadata.is_file() {
                return Ok(());
            }
            let kind = kind_of(metadata).1;
            Err(refused(format!(
                "{} is {kind}, and not a regular file",
                self.path
            )))
        };
        let file = if self.follow {
            let look = std::fs::metadata(&self.path).map_err(|e| failed("look at", &e))?;
            is_file(&look)?;
            File::options()
                .read(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(&self.path)
        } else {
            let dir = Dir::open(Path::new(folder))
                .map_err(|e| io_error(format_args!("open the folder {folder}"), &e))?;
            context.permit(FILE_GET, dir.file(), name)?;
            let name = OsStr::new(name);
            let look = dir.look(name).map_err(|e| failed("look at", &e))?;
            let none = || Error::new(ErrorCode::NotFound, format!("there is no {}", self.path));
            let look = look.ok_or_else(none)?;
            if look.is_symlink() {
                let target = dir.read_link(name).map_err(|e| failed("read", &e))?;
                let text = format!(
                    "{} is a symbolic link to {}; ask for that, or with \"follow\"",
                    self.path,
                    target.display()
                );
                return Err(refused(text).into());
            }
            is_file(&look)?;
            dir.read(name)
        };
        let file = file.map_err(|e| failed("open", &e))?;
        // It may have been exchanged meanwhile.
        let metadata = file.metadata().map_err(|e| failed("look at", &e))?;
        is_file(&metadata)?;
        // By a link it may be anywhere.
        context.permit(FILE_GET, &file, "")?;
        Ok((file, metadata))
    }
}

impl Task for Get {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, context: &Context<'_>) -> Result<Option<Value>, Stop> {
        let (file, metadata) = self.open(context)?;
        let source = Source::new(file, &metadata, &self.path)?;
        let size = source.size;
        if self.offset > size {
            let text = format!("{} has {size} bytes, and not {}", self.path, self.offset);
            return Err(Stop::failed(ErrorCode::Invalid, text));
        }
        let mut giving = Giving {
            context,
            path: &self.path,
            source,
            piece: self.files.pace.piece,
            hash: Sha256::new(),
            hashed: 0,
        };
        giving.hash_to(self.offset)?;
        let mut answer = json!({
            "size": size,
            "mode": attributes::mode(&metadata),
            "owner": user::user_name(metadata.uid()),
            "group": user::group_name(metadata.gid()),
            "mtime": attributes::mtime(&metadata),
        });
        let mut offer = answer.clone();
        offer["ref"] = context.token().into();
        offer["offset"] = self.offset.into();
        giving.serve(&offer, &mut Patience::new(self.files.pace.idle))?;
        giving.hash_to(size)?;
        answer["path"] = self.path.as_str().into();
        answer["sha256"] = id::hex(&giving.hash.finalize()).into();
        Ok(Some(answer))
    }
}

/// What is given.
struct Source {
    file: File,
    size: u64,
    /// What the file was when it was opened.
    was: Stamp,
    /// Its content, where it is made up by the kernel.
    content: Option<Vec<u8>>,
}

/// What changes when a file's content does.
type Stamp = (u64, Option<SystemTime>, i64, i64);

fn stamp(metadata: &Metadata) -> Stamp {
    let modified = metadata.modified().ok();
    (
        metadata.len(),
        modified,
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}

impl Source {
    fn new(file: File, metadata: &Metadata, path: &str) -> Result<Self, Error> {
        let mut source = Self {
            was: stamp(metadata),
            size: metadata.len(),
            content: None,
            file,
        };
        if metadata.blocks() == 0 && metadata.len() <= MADE_UP {
            let mut content = Vec::new();
            (&source.file)
                .take(MADE_UP_LIMIT + 1)
                .read_to_end(&mut content)
                .map_err(|e| io_error(format_args!("read {path}"), &e))?;
            source.size = content.len() as u64;
            if source.size > MADE_UP_LIMIT {
                let text = format!(
                    "{path} is written by the kernel as it is read, and longer than {MADE_UP_LIMIT} bytes; copy it first"
                );
                return Err(Error::new(ErrorCode::TooLarge, text));
            }
            source.content = Some(content);
        }
        Ok(source)
    }

    fn read(&self, offset: u64, length: usize, path: &str) -> Result<Vec<u8>, Error> {
        let rest = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(rest);
        if let Some(content) = &self.content {
            let from = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(content.len());
            return Ok(content[from..from + length].to_vec());
        }
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, offset);
        let now = self.file.metadata();
        let now = now.map_err(|e| io_error(format_args!("look at {path}"), &e))?;
        if stamp(&now) != self.was {
            let code = ErrorCode::Other("changed".to_owned());
            return Err(Error::new(
                code,
                format!("{path} changed while it was read; ask again"),
            ));
        }
        read.map_err(|e| io_error(format_args!("read {path}"), &e))?;
        Ok(bytes)
    }
}

struct Giving<'a> {
    context: &'a Context<'a>,
    path: &'a str,
    source: Source,
    piece: usize,
    hash: Sha256,
    /// Bytes that the hash has: most pieces are asked for in their order, and read once.
    hashed: u64,
}

impl Giving<'_> {
    /// Answers until the peer has all.
    fn serve(&mut self, offer: &Value, patience: &mut Patience) -> Result<(), Stop> {
        let mut offered = false;
        loop {
            if !offered && self.context.is_online() {
                self.context.send(DATA_OFFER, offer);
                offered = true;
            }
            let Some(message) = patience.receive(self.context)? else {
                // It may have gone with the connection.
                offered = false;
                continue;
            };
            if message.kind == payload::ERROR {
                let mut error: Error = message.read().unwrap_or_else(|e| invalid(e.to_string()));
                error.message = format!("the peer does not take {}: {}", self.path, error.message);
                return Err(error.into());
            }
            if message.kind != DATA_REQUEST {
                log::debug!("a {} came in a transfer from this device", message.kind);
                continue;
            }
            patience.renew();
            if self.answer(&message)? {
                return Ok(());
            }
        }
    }

    /// True where the peer has all.
    fn answer(&mut self, message: &Message) -> Result<bool, Stop> {
        let request: DataRequest = message.read().map_err(|e| invalid(e.to_string()))?;
        if request.reference != self.context.token() {
            let text = format!(
                "this job gives {}, not {:?}",
                self.context.token(),
                request.reference
            );
            return Err(invalid(text).into());
        }
        if request.length == 0 {
            return Ok(true);
        }
        let length = usize::try_from(request.length)
            .unwrap_or(usize::MAX)
            .min(self.piece);
        let offset = request.offset.min(self.source.size);
        let bytes = self.source.read(offset, length, self.path)?;
        let end = offset + bytes.len() as u64;
        if offset == self.hashed {
            self.hash.update(&bytes);
            self.hashed = end;
        }
        let response = DataResponse {
            reference: request.reference,
            offset,
            data: text::encode(&bytes),
            eof: end >= self.source.size,
            sha256: None,
        };
        // Where the connection went meanwhile, the peer asks again.
        self.context.send_bulk(DATA_RESPONSE, &response)?;
        Ok(false)
    }

    /// Reads what the hash does not have yet.
    fn hash_to(&mut self, end: u64) -> Result<(), Stop> {
        while self.hashed < end {
            self.context.check()?;
            let length = usize::try_from(end - self.hashed).unwrap_or(usize::MAX);
            let length = length.min(payload::PIECE);
            let bytes = self.source.read(self.hashed, length, self.path)?;
            self.hash.update(&bytes);
            self.hashed += bytes.len() as u64;
        }
        Ok(())
    }
}

fn invalid(text: String) -> Error {
    Error::new(ErrorCode::Invalid, text)
}
