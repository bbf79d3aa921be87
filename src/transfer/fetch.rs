//! Fetches content into a file, several requests ahead, and goes on after a lost connection.

use super::{Meter, Patience, io_error};
use crate::job::{Context, Stop};
use crate::message::payload::{
    self, DATA_REQUEST, DATA_RESPONSE, DataRequest, DataResponse, PIECE,
};
use crate::message::{ErrorCode, Message, id, text};
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// Blocks of so many zeros are not written: a file system leaves a hole there.
const BLOCK: usize = 4_096;
/// What was written is synced in steps, so that the last sync is short, what a power cut leaves is most of it, and a small
/// device's memory does not fill with what its flash has yet to take.
const SYNC_EVERY: u64 = 4 << 20;
/// What a message has around a piece: tags, ids, the names of the fields, and a ref of [`REFERENCE_LIMIT`].
const AROUND: usize = 4_096;
/// Longest ref, in bytes.
pub const REFERENCE_LIMIT: usize = 512;
/// Requests on their way at most. After a reconnect all are made again, and the answers to both fit a job's inbox.
const REQUESTS: usize = 32;

/// Something that a peer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// What the peer calls it.
    pub reference: String,
    /// Its bytes.
    pub size: u64,
    /// Its SHA-256 in lower-case hex.
    pub sha256: String,
}

impl Content {
    /// Checks what a request says of it.
    pub fn check(&self) -> Result<(), payload::Error> {
        let invalid = |text: &str| Err(payload::Error::new(ErrorCode::Invalid, text));
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if self.reference.is_empty()
            || self.reference.len() > REFERENCE_LIMIT
            || self.reference.contains(char::is_control)
        {
            return invalid("ref must have 1 to 512 bytes and no control character");
        }
        if self.sha256.len() != 64 || !self.sha256.bytes().all(hex) {
            return invalid("sha256 must be 64 lower-case hex digits");
        }
        // What a file can be long, for the kernel.
        if i64::try_from(self.size).is_err() {
            return invalid("size is larger than any file");
        }
        Ok(())
    }
}

/// How fast content moves, and how long a peer may be silent.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Bytes that are asked for ahead.
    window: u64,
    /// Requests on their way.
    pub requests: usize,
    /// Bytes of one message.
    pub piece: usize,
    /// Silence on a standing connection.
    pub idle: Duration,
}

impl Pace {
    /// With messages of at most `message_limit` bytes, and at most `requests` on their way.
    pub fn new(window: u64, requests: usize, message_limit: usize, idle: Duration) -> Self {
        // Base64 makes four bytes of three.
        let piece = (message_limit.saturating_sub(AROUND) / 4 * 3).clamp(BLOCK, PIECE);
        Self {
            window,
            requests: requests.clamp(1, REQUESTS),
            piece,
            idle,
        }
    }
}

/// Fetches `content` into `file`, which is open for reading and writing and holds its first `resume_from` bytes; returns
/// how many of them it could use. The hash of the whole decides: where it is wrong with the bytes that were there, all
/// is fetched anew.
pub fn fetch(
    context: &Context<'_>,
    content: &Content,
    file: &File,
    resume_from: u64,
    pace: &Pace,
    meter: &mut Meter,
) -> Result<u64, Stop> {
    let resumed = resume_from.min(content.size);
    let mut transfer = Transfer {
        context,
        content,
        file,
        pace,
        hash: Sha256::new(),
        written: resumed,
        asked: resumed,
        unsynced: 0,
        flight: VecDeque::new(),
        more: false,
    };
    // What is behind it would show through holes.
    file.set_len(resumed).map_err(unwritten)?;
    update(context, file, resumed, &mut transfer.hash)?;
    meter.add(context, resumed);
    transfer.run(meter)?;
    // A hole at the end has not made the file longer.
    file.set_len(content.size).map_err(unwritten)?;
    let more = transfer.more;
    let hash = id::hex(&transfer.hash.finalize());
    if hash == content.sha256 {
        return Ok(resumed);
    }
    if resumed > 0 {
        log::info!(
            "what was there of {} is not its beginning",
            content.reference
        );
        meter.take_back(content.size);
        return fetch(context, content, file, 0, pace, meter);
    }
    let Content { size, sha256, .. } = content;
    let text = if more {
        format!("the content goes on behind the {size} bytes that were announced")
    } else {
        format!("the content's SHA-256 is {hash}, and not {sha256} as was announced")
    };
    Err(Stop::failed(ErrorCode::Invalid, text))
}

/// The SHA-256 of the first `length` bytes of a file, in hex.
pub fn hash(context: &Context<'_>, file: &File, length: u64) -> Result<String, Stop> {
    let mut hash = Sha256::new();
    update(context, file, length, &mut hash)?;
    Ok(id::hex(&hash.finalize()))
}

fn update(context: &Context<'_>, file: &File, length: u64, hash: &mut Sha256) -> Result<(), Stop> {
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < length {
        context.check()?;
        let wanted = usize::try_from(length - at).unwrap_or(PIECE).min(PIECE);
        let read = match file.read_at(&mut buffer[..wanted], at) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other,
        };
        let read = read.map_err(|e| io_error("read it", &e))?;
        hash.update(&buffer[..read]);
        at += read as u64;
    }
    Ok(())
}

/// Bytes that were asked for, and what has come of them before its turn to be written.
struct Slot {
    offset: u64,
    length: usize,
    data: Vec<u8>,
}

struct Transfer<'a> {
    context: &'a Context<'a>,
    content: &'a Content,
    file: &'a File,
    pace: &'a Pace,
    hash: Sha256,
    /// All before it is in the file and the hash.
    written: u64,
    /// All before it was asked for.
    asked: u64,
    unsynced: u64,
    /// In the order of their offsets.
    flight: VecDeque<Slot>,
    /// Whether the peer has more than it should.
    more: bool,
}

impl Transfer<'_> {
    fn run(&mut self, meter: &mut Meter) -> Result<(), Stop> {
        let mut patience = Patience::new(self.pace.idle);
        while self.written < self.content.size {
            if self.context.is_online() {
                self.ask();
            }
            let before = self.written;
            match patience.receive(self.context)? {
                Some(message) if self.take(&message)? => patience.renew(),
                None if self.context.is_online() => self.ask_again(),
                _ => {}
            }
            meter.add(self.context, self.written - before);
        }
        Ok(())
    }

    /// Fills the window.
    fn ask(&mut self) {
        while self.asked < self.content.size && self.flight.len() < self.pace.requests {
            let rest = self.content.size - self.asked;
            let length = usize::try_from(rest).unwrap_or(usize::MAX);
            let length = length.min(self.pace.piece);
            let ahead = self.asked - self.written + length as u64;
            if ahead > self.pace.window && !self.flight.is_empty() {
                return;
            }
            self.request(self.asked, length);
            self.flight.push_back(Slot {
                offset: self.asked,
                length,
                data: Vec::new(),
            });
            self.asked += length as u64;
        }
    }

    /// What was on its way went with the connection.
    fn ask_again(&mut self) {
        for slot in &self.flight {
            let have = slot.data.len();
            if have < slot.length {
                self.context.ask_twice();
                self.request(slot.offset + have as u64, slot.length - have);
            }
        }
    }

    fn request(&self, offset: u64, length: usize) {
        let request = DataRequest {
            reference: self.content.reference.clone(),
            offset,
            length: length as u64,
        };
        self.context.send(DATA_REQUEST, &request);
    }

    /// False where it was nothing new.
    fn take(&mut self, message: &Message) -> Result<bool, Stop> {
        if message.kind == payload::ERROR {
            let mut error: payload::Error = message.read().unwrap_or_else(|e| wrong(e.to_string()));
            error.message = format!("the peer does not give the content: {}", error.message);
            return Err(error.into());
        }
        if message.kind != DATA_RESPONSE {
            log::debug!("a {} came in a transfer to this device", message.kind);
            return Ok(false);
        }
        let response: DataResponse = message.read().map_err(|e| wrong(e.to_string()))?;
        // An answer that comes twice may be one of a file before this.
        let late = self.context.asked_twice();
        if response.reference != self.content.reference {
            if late {
                return Ok(false);
            }
            return Err(wrong(format!(
                "content came that was not asked for: {:?}",
                response.reference
            ))
            .into());
        }
        let data = text::decode(&response.data)
            .ok_or_else(|| wrong("the data is no base64".to_owned()))?;
        let (offset, length) = (response.offset, data.len());
        let end = offset.saturating_add(length as u64);
        let slot = self.flight.iter_mut().find(|slot| {
            let have = slot.data.len();
            slot.offset + have as u64 == offset && slot.length - have >= length
        });
        let Some(slot) = slot else {
            if late {
                return Ok(false);
            }
            let text = format!("{length} bytes at {offset} came that were not asked for");
            return Err(wrong(text).into());
        };
        if response.eof && end < self.content.size {
            let size = self.content.size;
            let text = format!("the content ends after {end} bytes, {size} were announced");
            return Err(wrong(text).into());
        }
        if data.is_empty() {
            return Err(wrong(format!("nothing came at {offset}, which is not the end")).into());
        }
        if end == self.content.size {
            self.more = !response.eof;
        }
        slot.data.extend_from_slice(&data);
        let missing = slot.length - slot.data.len();
        if missing > 0 {
            self.request(end, missing);
        }
        self.write()?;
        Ok(true)
    }

    /// Writes what has its turn.
    fn write(&mut self) -> Result<(), Stop> {
        while let Some(slot) = self.flight.front_mut() {
            let data = std::mem::take(&mut slot.data);
            write_with_holes(self.file, &data, slot.offset).map_err(unwritten)?;
            self.hash.update(&data);
            slot.offset += data.len() as u64;
            slot.length -= data.len();
            self.written += data.len() as u64;
            self.unsynced += data.len() as u64;
            if slot.length > 0 {
                break;
            }
            self.flight.pop_front();
        }
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.file.sync_data().map_err(unwritten)?;
        }
        Ok(())
    }
}

fn wrong(text: String) -> payload::Error {
    payload::Error::new(ErrorCode::Invalid, text)
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "it stands where map_err gives it"
)]
fn unwritten(error: io::Error) -> Stop {
    io_error("write what came", &error).into()
}

/// Writes all but blocks of zeros: behind `offset` the file has nothing yet. Its length is the caller's to set.
pub fn write_with_holes(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    let mut at = 0;
    while at < data.len() {
        let start = at;
        // As long as the blocks are of one kind.
        let hole = is_zero(&data[at..block_end(data, offset, at)]);
        while at < data.len() {
            let end = block_end(data, offset, at);
            if is_zero(&data[at..end]) != hole {
                break;
            }
            at = end;
        }
        if !hole {
            file.write_all_at(&data[start..at], offset + start as u64)?;
        }
    }
    Ok(())
}

/// Where the file's block ends that `data[at]` is in.
fn block_end(data: &[u8], offset: u64, at: usize) -> usize {
    let within = (offset + at as u64) % BLOCK as u64;
    // Below BLOCK.
    let within = usize::try_from(within).unwrap_or(0);
    data.len().min(at + BLOCK - within)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| b == 0)
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
