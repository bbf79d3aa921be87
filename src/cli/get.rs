//! `triton get`: data that Poseidon has for this device, by name.

use super::{history, unexpected};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::local::client::{Client, Event};
use crate::message::payload::{self, DataRequest, DataResponse, ErrorCode, PIECE};
use crate::message::{Message, id, text};
use crate::sys::poll::after;
use crate::sys::signal::{SIGINT, SIGTERM, Signals};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long it may take until the next piece comes, a new connection to Poseidon included.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// Times that a file is begun, where the data is replaced meanwhile.
const TRIES: u32 = 3;
/// What a message has besides the piece.
const HEAD: usize = 4096;

pub fn run(config: &Config, name: &str, to: Option<&str>) -> Result<u8> {
    let limit = config.limits.message_bytes;
    let client = super::exec::connect(config)?;
    let signals = Signals::receive(&[SIGINT, SIGTERM])
        .map_err(|e| Error::because("cannot receive signals", e))?;
    let mut source = Source {
        client,
        signals,
        name,
        // In base64 three bytes take four.
        piece: PIECE.min(limit.saturating_sub(HEAD) / 4 * 3).max(1),
        offset: 0,
        sha256: None,
        hash: Sha256::new(),
    };
    let Some(to) = to else {
        let mut out = io::stdout().lock();
        if source.copy(&mut out, "standard output")? {
            return Ok(0);
        }
        return Err(Error::new(format!(
            "{name:?} was replaced while it was read, and what was written here is not whole: read it again, or use --to"
        )));
    };
    let target = Target::new(Path::new(to))?;
    let written = source.bring(&target, to);
    if written.is_err() {
        let _ = fs::remove_file(&target.new);
    }
    written.map(|()| 0)
}

/// A file that comes whole or not at all, for its owner only: it may be a secret.
struct Target {
    path: PathBuf,
    new: PathBuf,
}

impl Target {
    fn new(path: &Path) -> Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| Error::new("--to takes the name of a file"))?;
        let mut new = std::ffi::OsString::from(".");
        new.push(name);
        new.push(format!(".triton-{}", std::process::id()));
        Ok(Self {
            path: path.to_owned(),
            new: path.with_file_name(new),
        })
    }

    fn create(&self) -> Result<File> {
        let _ = fs::remove_file(&self.new);
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.new)
            .map_err(|e| Error::at("write", &self.new, e))
    }

    fn finish(&self, file: &File) -> Result<()> {
        file.sync_all()
            .and_then(|()| fs::rename(&self.new, &self.path))
            .map_err(|e| Error::at("write", &self.path, e))
    }
}

struct Source<'a> {
    client: Client,
    signals: Signals,
    name: &'a str,
    piece: usize,
    offset: u64,
    /// Of the whole, as it came with the first piece; an older Poseidon does not tell.
    sha256: Option<String>,
    hash: Sha256,
}

impl Source<'_> {
    /// Makes a file of it, anew where it is replaced meanwhile.
    fn bring(&mut self, target: &Target, place: &str) -> Result<()> {
        for _ in 0..TRIES {
            let mut file = target.create()?;
            if self.copy(&mut file, place)? {
                return target.finish(&file);
            }
        }
        Err(Error::new(format!(
            "{:?} did not come whole in {TRIES} tries, as if it was replaced each time: try again later",
            self.name
        )))
    }

    /// Writes all of it; false where it is not the same content from its begin to its end.
    fn copy(&mut self, out: &mut dyn Write, place: &str) -> Result<bool> {
        self.offset = 0;
        loop {
            let Some((bytes, eof)) = self.next()? else {
                return Ok(false);
            };
            self.offset += bytes.len() as u64;
            self.hash.update(&bytes);
            out.write_all(&bytes)
                .and_then(|()| if eof { out.flush() } else { Ok(()) })
                .map_err(|e| Error::because(format!("cannot write to {place}"), e))?;
            if eof {
                let hash = id::hex(&self.hash.finalize_reset());
                return Ok(self.sha256.as_ref().is_none_or(|sha256| *sha256 == hash));
            }
        }
    }

    /// The next piece; nothing where it is one of other content. Where the connection to Poseidon is lost on the way,
    /// it is waited for.
    fn next(&mut self) -> Result<Option<(Vec<u8>, bool)>> {
        let deadline = after(PATIENCE);
        loop {
            let answer = self.ask(deadline)?;
            match answer.kind.as_str() {
                payload::DATA_RESPONSE => {
                    let response: DataResponse = answer
                        .read()
                        .map_err(|e| Error::because("Poseidon's answer", e))?;
                    if self.offset == 0 {
                        self.sha256.clone_from(&response.sha256);
                        self.hash.reset();
                    } else if self.sha256 != response.sha256 {
                        return Ok(None);
                    }
                    return self.check(&response).map(Some);
                }
                payload::ERROR => {
                    let error: payload::Error = answer
                        .read()
                        .map_err(|e| Error::because("the daemon's error", e))?;
                    let lost = error.code == ErrorCode::Other(payload::OFFLINE.to_owned())
                        && self.offset > 0
                        && Instant::now() < deadline;
                    if !lost {
                        return Err(history::refusal(&answer));
                    }
                    self.wait(after(PAUSE))?;
                }
                other => return Err(unexpected(other)),
            }
        }
    }

    fn check(&self, response: &DataResponse) -> Result<(Vec<u8>, bool)> {
        let bytes = text::decode(&response.data);
        let bytes = bytes.filter(|bytes| {
            let moves = !bytes.is_empty() || response.eof;
            response.offset == self.offset && bytes.len() <= self.piece && moves
        });
        let bytes = bytes.ok_or_else(|| {
            Error::new(format!(
                "Poseidon's answer is not the piece of {:?} that was asked for",
                self.name
            ))
        })?;
        Ok((bytes, response.eof))
    }

    fn ask(&mut self, deadline: Instant) -> Result<Message> {
        let request = DataRequest {
            reference: self.name.to_owned(),
            offset: self.offset,
            length: self.piece as u64,
        };
        let request = Message::with(payload::DATA_REQUEST, &request);
        self.client.send(&request)?;
        loop {
            let event = self.client.next(Some(&self.signals), Some(deadline))?;
            match event {
                Event::Message(m) if m.conversation_id == request.id => return Ok(m),
                Event::Message(_) => {}
                other => return Err(ended(&other)),
            }
        }
    }

    /// Sleeps, but a signal ends it.
    fn wait(&mut self, until: Instant) -> Result<()> {
        loop {
            match self.client.next(Some(&self.signals), Some(until))? {
                Event::TimedOut => return Ok(()),
                Event::Message(_) => {}
                other => return Err(ended(&other)),
            }
        }
    }
}

fn ended(event: &Event) -> Error {
    Error::new(match event {
        Event::Signal(_) => "interrupted",
        Event::TimedOut => "Poseidon does not answer",
        _ => "the daemon went away",
    })
}
