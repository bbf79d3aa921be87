//! WebSocket frames (RFC 6455) out of bytes and into bytes. No I/O.
//!
//! Written for two promises that a general library does not give: a message over the limit, or one that is no
//! text, is passed over and reported while the connection lives, and nothing is allocated because a peer has
//! declared a length. tungstenite is what the tests hold it against.

use std::fmt;

/// Bit of the first header byte: the last frame of its message.
const FINAL: u8 = 0x80;
/// Bit of the second: a mask follows.
const MASKED: u8 = 0x80;
/// Values of its other bits: the length follows in two bytes, or in eight.
const LENGTH_16: u8 = 0x7e;
const LENGTH_64: u8 = 0x7f;

const CONTINUATION: u8 = 0;
/// Opcode of a text message.
pub const TEXT: u8 = 1;
const BINARY: u8 = 2;
/// Opcode of a close frame.
pub const CLOSE: u8 = 8;
/// Opcode of a ping.
pub const PING: u8 = 9;
/// Opcode of a pong.
pub const PONG: u8 = 10;

/// Longest payload of a control frame.
pub const CONTROL_LIMIT: usize = 125;

/// Longest header: 2 bytes, 8 of length, 4 of mask.
const HEADER_LIMIT: usize = 14;

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Masks what it sends.
    Client,
    /// Wants what it receives to be masked.
    Server,
}

/// The peer broke the framing: nothing that follows can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken(pub &'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What came out of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole text message. Whether it is UTF-8 is for the message's codec to judge.
    Text(Vec<u8>),
    /// A text message over the limit has begun: the bytes declared up to now. It is passed over.
    TooLarge(u64),
    /// A binary message has begun. It is passed over.
    Binary,
    /// To be answered with a pong of the same payload.
    Ping(Vec<u8>),
    /// Answer to a ping.
    Pong,
    /// The peer closes: code (1005 where it gave none) and reason.
    Close(u16, String),
}

#[derive(Debug)]
struct Frame {
    is_final: bool,
    opcode: u8,
    /// Bytes of payload still to come.
    left: u64,
    /// Turned with each piece, so that its first byte belongs to the next byte of payload.
    mask: Option<[u8; 4]>,
}

impl Frame {
    fn is_control(&self) -> bool {
        self.opcode >= CLOSE
    }
}

/// The data message that is under way.
#[derive(Debug, PartialEq, Eq)]
enum Assembly {
    None,
    Text,
    /// Too large or binary: its bytes are dropped.
    Skipped,
}

/// Reads frames.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    limit: usize,
    header: [u8; HEADER_LIMIT],
    header_length: usize,
    frame: Option<Frame>,
    assembly: Assembly,
    text: Vec<u8>,
    control: Vec<u8>,
}

impl Decoder {
    /// A decoder for text messages of at most `limit` bytes.
    pub fn new(role: Role, limit: usize) -> Self {
        Self {
            role,
            limit,
            header: [0; HEADER_LIMIT],
            header_length: 0,
            frame: None,
            assembly: Assembly::None,
            text: Vec::new(),
            control: Vec::new(),
        }
    }

    /// Takes bytes from the front of `input` up to the next event; `None` where it takes all of them.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Broken> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.read_header(input)? {
                    Some(frame) => {
                        let begun = self.begin(&frame)?;
                        if begun.is_some() {
                            self.frame = Some(frame);
                            return Ok(begun);
                        }
                        frame
                    }
                    None => return Ok(None),
                },
            };
            let length =
                usize::try_from(frame.left).map_or(input.len(), |left| left.min(input.len()));
            let (piece, rest) = input.split_at(length);
            *input = rest;
            frame.left -= length as u64;
            self.take(&mut frame, piece);
            if frame.left > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
            if let Some(event) = self.end(&frame)? {
                return Ok(Some(event));
            }
        }
    }

    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Broken> {
        let (first, length, mask) = loop {
            // How long a header is stands in its second byte.
            let extra: usize = match self.header[1] & !MASKED {
                LENGTH_16 => 2,
                LENGTH_64 => 8,
                _ => 0,
            };
            let masked = self.header[1] & MASKED != 0;
            let whole = 2 + extra + if masked { 4 } else { 0 };
            if self.header_length >= 2 && self.header_length == whole {
                let header = &self.header[..whole];
                let length = match extra {
                    0 => u64::from(header[1] & !MASKED),
                    _ => header[2..2 + extra]
                        .iter()
                        .fold(0, |sum, b| sum << 8 | u64::from(*b)),
                };
                let mask = masked.then(|| [0, 1, 2, 3].map(|n| header[whole - 4 + n]));
                break (header[0], length, mask);
            }
            let Some((byte, rest)) = input.split_first() else {
                return Ok(None);
            };
            *input = rest;
            self.header[self.header_length] = *byte;
            self.header_length += 1;
            // What is broken is told at once and not when garbage has filled a header.
            if self.header_length == 2 {
                self.check_start(self.header[0], self.header[1])?;
            }
        };
        self.header_length = 0;
        self.header[1] = 0;
        if length > i64::MAX as u64 {
            return Err(Broken("a frame declares a length of more than 63 bits"));
        }
        Ok(Some(Frame {
            is_final: first & FINAL != 0,
            opcode: first & 0x0f,
            left: length,
            mask,
        }))
    }

    /// Checks the first two bytes of a header.
    fn check_start(&self, first: u8, second: u8) -> Result<(), Broken> {
        if first & 0x70 != 0 {
            return Err(Broken("a frame uses an extension that was not agreed on"));
        }
        match (self.role, second & MASKED != 0) {
            (Role::Client, true) => return Err(Broken("a frame from the server is masked")),
            (Role::Server, false) => return Err(Broken("a frame from the client is not masked")),
            _ => {}
        }
        match first & 0x0f {
            CLOSE | PING | PONG if first & FINAL == 0 => {
                Err(Broken("a control frame is fragmented"))
            }
            // Values above the limit announce that the length follows, and it is longer.
            CLOSE | PING | PONG if usize::from(second & !MASKED) > CONTROL_LIMIT => {
                Err(Broken("a control frame is longer than 125 bytes"))
            }
            CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG => Ok(()),
            _ => Err(Broken("a frame has an unknown opcode")),
        }
    }

    /// A header is complete.
    fn begin(&mut self, frame: &Frame) -> Result<Option<Event>, Broken> {
        if frame.is_control() {
            self.control.clear();
            return Ok(None);
        }
        match (frame.opcode, &self.assembly) {
            (CONTINUATION, Assembly::None) => {
                return Err(Broken("a continuation comes without a beginning"));
            }
            (TEXT | BINARY, Assembly::Text | Assembly::Skipped) => {
                return Err(Broken("a message begins inside another"));
            }
            (BINARY, _) => {
                self.assembly = Assembly::Skipped;
                return Ok(Some(Event::Binary));
            }
            (TEXT, _) => self.assembly = Assembly::Text,
            _ => {}
        }
        if self.assembly == Assembly::Text {
            let size = (self.text.len() as u64).saturating_add(frame.left);
            if size > self.limit as u64 {
                self.text = Vec::new();
                self.assembly = Assembly::Skipped;
                return Ok(Some(Event::TooLarge(size)));
            }
        }
        Ok(None)
    }

    /// A piece of payload.
    fn take(&mut self, frame: &mut Frame, piece: &[u8]) {
        let target = match self.assembly {
            _ if frame.is_control() => &mut self.control,
            Assembly::Text => &mut self.text,
            Assembly::None | Assembly::Skipped => return,
        };
        // Grows with what arrives, by doubling, and not with what was declared.
        let from = target.len();
        target.extend_from_slice(piece);
        if let Some(mask) = &mut frame.mask {
            apply_mask(&mut target[from..], *mask);
            mask.rotate_left(piece.len() % 4);
        }
    }

    /// A frame is complete.
    fn end(&mut self, frame: &Frame) -> Result<Option<Event>, Broken> {
        match frame.opcode {
            PING => return Ok(Some(Event::Ping(std::mem::take(&mut self.control)))),
            PONG => return Ok(Some(Event::Pong)),
            CLOSE => {
                return match self.control.as_slice() {
                    [] => Ok(Some(Event::Close(1005, String::new()))),
                    [_] => Err(Broken("a close frame holds half a code")),
                    [high, low, reason @ ..] => Ok(Some(Event::Close(
                        u16::from_be_bytes([*high, *low]),
                        String::from_utf8_lossy(reason).into_owned(),
                    ))),
                };
            }
            _ => {}
        }
        if !frame.is_final {
            return Ok(None);
        }
        match std::mem::replace(&mut self.assembly, Assembly::None) {
            Assembly::Text => Ok(Some(Event::Text(std::mem::take(&mut self.text)))),
            Assembly::None | Assembly::Skipped => Ok(None),
        }
    }
}

/// Appends a frame to `output`. A client gives a fresh random mask with each.
pub fn encode(output: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) {
    output.reserve(payload.len() + HEADER_LIMIT);
    output.push(FINAL | opcode);
    let masked = if mask.is_some() { MASKED } else { 0 };
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..=125), _) => output.push(masked | length),
        (_, Ok(length)) => {
            output.push(masked | LENGTH_16);
            output.extend(length.to_be_bytes());
        }
        _ => {
            output.push(masked | LENGTH_64);
            output.extend((payload.len() as u64).to_be_bytes());
        }
    }
    output.extend(mask.iter().flatten());
    let from = output.len();
    output.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut output[from..], mask);
    }
}

fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    // Eight bytes at a time: output passes here at full speed.
    let wide = u64::from_ne_bytes([0, 1, 2, 3, 0, 1, 2, 3].map(|n: usize| mask[n]));
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
