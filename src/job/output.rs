//! A job's two streams on their way from the pipes to the peer.

use crate::message::Message;
use crate::message::payload::{self, OutputMode, Progress, Stream};
use crate::message::text::{self, Data};
use crate::outbox::{Offer, Outbox};
use crate::sys::wake::Wake;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A piece is sent when it has so many bytes...
const CHUNK: usize = 32 * 1024;
/// ...or when its first byte has waited so long.
const FLUSH_AFTER: Duration = Duration::from_millis(50);
/// What JSON adds to a piece.
const ENVELOPE: usize = 128;
/// Buffer of a stream that has said little so far.
const FIRST_BUFFER: usize = 4 * 1024;

/// The last bytes of a stream.
#[derive(Debug)]
struct Last {
    bytes: Vec<u8>,
    limit: usize,
    cut: bool,
}

impl Last {
    fn push(&mut self, bytes: &[u8]) {
        let bytes = if bytes.len() > self.limit {
            self.cut = true;
            self.bytes.clear();
            &bytes[bytes.len() - self.limit..]
        } else {
            bytes
        };
        self.bytes.extend_from_slice(bytes);
        // Cut at twice the limit only, so that a byte is moved once on the average.
        if self.bytes.len() >= self.limit * 2 {
            self.cut_to_limit();
        }
    }

    fn cut_to_limit(&mut self) {
        let surplus = self.bytes.len().saturating_sub(self.limit);
        self.cut |= surplus > 0;
        self.bytes.drain(..surplus);
    }

    fn into_data(mut self) -> Data {
        self.cut_to_limit();
        // The rest of a character that was cut in two would turn a whole text into base64.
        let continues = |b: &&u8| (0x80..0xC0).contains(*b);
        let rest = self.bytes.iter().take(3).take_while(continues).count();
        let text = &self.bytes[rest..];
        if self.cut && std::str::from_utf8(text).is_ok() {
            return Data::from_bytes(text);
        }
        Data::from_bytes(&self.bytes)
    }
}

/// The reading end of one stream.
#[derive(Debug)]
pub(super) struct Source {
    stream: Stream,
    /// None when it has ended, or is not read any more.
    pipe: Option<File>,
    streaming: bool,
    /// Read and not handed over yet: `buffer[..filled]`. Made at the first byte, larger as they come.
    buffer: Vec<u8>,
    filled: usize,
    /// Position of `buffer[0]` in the stream.
    offset: u64,
    /// When to hand over what is in the buffer though it is not full.
    due: Option<Instant>,
    last: Last,
    total: u64,
}

impl Source {
    /// `pipe` must not block.
    pub fn new(stream: Stream, pipe: Option<OwnedFd>, mode: OutputMode, keep: usize) -> Self {
        Self {
            stream,
            pipe: pipe.map(File::from),
            streaming: mode == OutputMode::Stream,
            buffer: Vec::new(),
            filled: 0,
            offset: 0,
            due: None,
            last: Last {
                bytes: Vec::new(),
                limit: keep,
                cut: false,
            },
            total: 0,
        }
    }

    /// What to poll for reading, while it is open.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// When [`Source::ready`] will have something though the buffer is not full.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether everything was read and handed over.
    pub fn is_done(&self) -> bool {
        self.pipe.is_none() && self.filled == 0
    }

    /// Reads no more. What was read is still handed over.
    pub fn close(&mut self) {
        self.pipe = None;
    }

    /// Reads once, as much as there is room for.
    pub fn read(&mut self, now: Instant) {
        let Some(pipe) = &mut self.pipe else { return };
        if self.buffer.is_empty() {
            self.buffer.resize(FIRST_BUFFER, 0);
        }
        match pipe.read(&mut self.buffer[self.filled..]) {
            Ok(0) => self.pipe = None,
            Ok(count) => {
                let end = self.filled + count;
                self.total += count as u64;
                self.last.push(&self.buffer[self.filled..end]);
                if self.streaming {
                    self.filled = end;
                    self.due.get_or_insert(now + FLUSH_AFTER);
                }
                if end == self.buffer.len() && end < CHUNK {
                    self.buffer.resize((end * 4).min(CHUNK), 0);
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            // A pipe that cannot be read has nothing more to say.
            Err(_) => self.pipe = None,
        }
    }

    /// Bytes of the next piece, if it is time for one.
    fn ready(&mut self, now: Instant) -> Option<usize> {
        let ended = self.pipe.is_none();
        let is_due = self.due.is_some_and(|due| due <= now);
        if self.filled == 0 || !(ended || is_due || self.filled >= CHUNK) {
            return None;
        }
        let whole = if ended {
            self.filled
        } else {
            text::whole_characters(&self.buffer[..self.filled])
        };
        // The beginning of a character waits for its rest, however long that takes.
        self.due = None;
        (whole > 0).then_some(whole)
    }

    /// The next `count` bytes.
    fn piece(&self, count: usize) -> payload::Output<'_> {
        payload::Output::new(self.stream, self.offset, &self.buffer[..count])
    }

    /// They are handed over.
    fn pass(&mut self, count: usize) {
        self.buffer.copy_within(count..self.filled, 0);
        self.filled -= count;
        self.offset += count as u64;
    }

    /// Bytes read in all, and the last of them.
    pub fn into_last(self) -> (u64, Data) {
        (self.total, self.last.into_data())
    }
}

/// The way to the peer, with the one piece that found no room.
pub(super) struct Delivery<'a> {
    sink: &'a Outbox,
    conversation: &'a str,
    waiter: &'a Arc<Wake>,
    held: Option<(Message, u64)>,
    /// The last that the process has said of its progress, where it is not handed over yet.
    progress: Option<Progress>,
    /// Whether pieces that find no room are dropped instead of held.
    pub impatient: bool,
    /// Bytes dropped.
    pub dropped: u64,
}

impl<'a> Delivery<'a> {
    pub fn new(sink: &'a Outbox, conversation: &'a str, waiter: &'a Arc<Wake>) -> Self {
        Self {
            sink,
            conversation,
            waiter,
            held: None,
            progress: None,
            impatient: false,
            dropped: 0,
        }
    }

    /// Whether a piece waits for room: read no more until [`Delivery::retry`] has placed it.
    pub fn is_stalled(&self) -> bool {
        self.held.is_some()
    }

    /// Hands over what `source` has to give now.
    pub fn pump(&mut self, source: &mut Source, now: Instant) {
        while !self.is_stalled()
            && let Some(count) = source.ready(now)
        {
            if self.sink.is_online() {
                let piece = source.piece(count);
                // What is escaped in ordinary text takes less than an eighth.
                let size = ENVELOPE + piece.data.len() + piece.data.len() / 8;
                let message = Message::bulk(self.conversation, payload::OUTPUT, &piece, size);
                self.offer(message, count as u64);
            } else {
                self.dropped += count as u64;
            }
            source.pass(count);
        }
    }

    /// Tries what found no room again.
    pub fn retry(&mut self) {
        if let Some((message, bytes)) = self.held.take() {
            self.offer(message, bytes);
        }
        if let Some(progress) = self.progress.take_if(|_| self.held.is_none()) {
            self.set_progress(progress);
        }
    }

    /// Sends how far the process is, behind its output so far. Where there is no room only the latest waits.
    pub fn set_progress(&mut self, progress: Progress) {
        let message = Message::within(self.conversation, payload::PROGRESS, &progress);
        if let Offer::Full(_) = self.sink.offer(message, self.waiter) {
            self.progress = Some(progress).filter(|_| !self.impatient);
        }
    }

    fn offer(&mut self, message: Message, bytes: u64) {
        match self.sink.offer(message, self.waiter) {
            Offer::Taken => {}
            Offer::Full(message) if !self.impatient => self.held = Some((message, bytes)),
            Offer::Full(_) | Offer::Offline => self.dropped += bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process;
    use std::io::Write;

    fn source(mode: OutputMode, keep: usize) -> (Source, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        process::set_nonblocking(reader.as_fd()).unwrap();
        let source = Source::new(Stream::Stdout, Some(reader.into()), mode, keep);
        (source, writer)
    }

    fn take(source: &mut Source, now: Instant) -> Option<payload::Output<'static>> {
        let count = source.ready(now)?;
        let message = Message::bulk("c", payload::OUTPUT, &source.piece(count), count);
        source.pass(count);
        Some(message.read().unwrap())
    }

    #[test]
    fn a_character_is_not_cut_and_a_torn_one_comes_at_the_end() {
        let (mut source, mut writer) = source(OutputMode::Stream, 100);
        let start = Instant::now();
        writer.write_all(b"ab\xe2\x82").unwrap();
        source.read(start);
        assert_eq!(take(&mut source, start), None);
        let due = source.due().unwrap();
        let piece = take(&mut source, due).unwrap();
        assert_eq!((piece.offset, &*piece.data), (0, "ab"));
        // No timer for what cannot be sent yet.
        assert_eq!((source.due(), take(&mut source, due)), (None, None));
        writer.write_all(b"\xac\xe2").unwrap();
        source.read(due);
        let due = source.due().unwrap();
        let piece = take(&mut source, due).unwrap();
        assert_eq!((piece.offset, &*piece.data), (2, "€"));
        drop(writer);
        source.read(due);
        let piece = take(&mut source, due).unwrap();
        assert_eq!(
            (piece.offset, piece.into_bytes().unwrap()),
            (5, b"\xe2".to_vec())
        );
        assert!(source.is_done());
        let (total, last) = source.into_last();
        assert_eq!((total, last.into_bytes().unwrap().len()), (6, 6));
    }

    #[test]
    fn a_full_buffer_does_not_wait() {
        let (mut source, mut writer) = source(OutputMode::Stream, 100);
        let now = Instant::now();
        writer.write_all(&vec![b'x'; CHUNK + 10]).unwrap();
        let mut pieces = Vec::new();
        for _ in 0..10 {
            source.read(now);
            pieces.extend(take(&mut source, now));
        }
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].data.len(), CHUNK);
        assert_eq!(source.filled, 10);
    }

    #[test]
    fn the_tail_is_the_end_of_the_text_and_begins_with_a_whole_character() {
        for pieces in [1, 3, 7, 1000] {
            let (mut source, mut writer) = source(OutputMode::Discard, 10);
            let text = "€".repeat(1000);
            for piece in text.as_bytes().chunks(pieces) {
                writer.write_all(piece).unwrap();
                source.read(Instant::now());
                assert_eq!(source.filled, 0);
            }
            let (total, last) = source.into_last();
            assert_eq!((total, last.data.as_str()), (3000, "€€€"));
        }
    }
}
