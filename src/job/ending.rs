//! How a job ended, as a message and as a record of the journal.

use crate::message::Message;
use crate::message::payload::{self, ErrorCode, JobResult, Record, Status, code};
use crate::message::text::{self, Data, Encoding};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// What an end takes besides its tails: its numbers, a few words, token and conversation, the record's frame.
const FRAME: usize = 2 * 1024;
/// Most bytes of an end in XML, where `&` takes five: it must fit the message limit of any Poseidon.
const XML_LIMIT: usize = 768 * 1024;
/// Least of a text that is worth keeping while it is shortened.
const SHORTEST: usize = 64;

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ending {
    /// It came to an end that a result tells.
    Result(JobResult),
    /// It could not be started.
    Error(payload::Error),
}

/// Bytes of the journal to keep free for the end of a job that keeps `tail` bytes of each stream, at most `limit`.
/// Not the worst case, where each byte takes six: [`Ending::fit`] cuts what would not fit.
pub(super) fn reserve(tail: usize, limit: usize) -> usize {
    tail.saturating_mul(3).saturating_add(FRAME).min(limit)
}

impl Ending {
    /// The job is not there any more though nothing told its end.
    pub fn lost() -> Self {
        let message = "the agent has lost sight of it; it was not run again";
        Self::Result(JobResult::without_process(
            Status::Interrupted,
            Some(message),
        ))
    }

    pub fn to_message(&self, conversation_id: &str) -> Message {
        match self {
            Self::Result(result) => Message::within(conversation_id, payload::RESULT, result),
            Self::Error(error) => Message::within(conversation_id, payload::ERROR, error),
        }
    }

    /// The code of its record.
    pub fn code(&self) -> u32 {
        match self {
            Self::Result(result) if result.status == Status::Succeeded => code::SUCCEEDED,
            _ => code::FAILED,
        }
    }

    /// The data of its record.
    pub fn data(&self) -> String {
        match self {
            Self::Result(result) => payload::to_json(result),
            Self::Error(error) => payload::to_json(error),
        }
    }

    /// Shortens what it says until its record fits what was reserved for it.
    pub fn fit(mut self, reserve: usize) -> Self {
        let room = reserve.saturating_sub(FRAME).max(FRAME / 2);
        let mut cut = false;
        loop {
            let data = self.data();
            if data.len() <= room && travels(&data) {
                break;
            }
            let shorter = match &mut self {
                Self::Result(result) => {
                    let tail = &mut result.tail;
                    let longer = if tail.stdout.data.len() >= tail.stderr.data.len() {
                        &mut tail.stdout
                    } else {
                        &mut tail.stderr
                    };
                    let halved = halve_tail(longer);
                    cut |= halved;
                    halved
                        || result.data.take().is_some()
                        || result.message.as_mut().is_some_and(halve_text)
                }
                Self::Error(error) => {
                    error.detail.take().is_some() || halve_text(&mut error.message)
                }
            };
            if !shorter {
                if let Self::Error(error) = &mut self {
                    *error =
                        payload::Error::new(ErrorCode::Io, "why it failed was too long to keep");
                }
                break;
            }
        }
        // There is room for it in the frame.
        if let (true, Self::Result(result)) = (cut, &mut self) {
            const NOTE: &str = "its tails were cut to fit the journal";
            result.message = Some(match &result.message {
                Some(message) => format!("{message}; {NOTE}"),
                None => NOTE.to_owned(),
            });
        }
        self
    }
}

/// Keeps the last half; false where there is nothing left to cut.
fn halve_tail(data: &mut Data) -> bool {
    if data.data.is_empty() {
        return false;
    }
    match data.encoding {
        Encoding::Utf8 => {
            let middle = data.data.ceil_char_boundary(data.data.len().div_ceil(2));
            data.data.drain(..middle);
        }
        Encoding::Base64 => {
            let bytes = text::decode(&data.data).unwrap_or_default();
            data.data = text::encode(&bytes[bytes.len().div_ceil(2)..]);
        }
    }
    true
}

/// Keeps the first half.
fn halve_text(text: &mut String) -> bool {
    if text.len() <= SHORTEST {
        return false;
    }
    text.truncate(text.floor_char_boundary(text.len() / 2));
    text.push('…');
    true
}

/// Whether a message with this data is short enough for any Poseidon.
pub fn travels(data: &str) -> bool {
    xml_length(data) <= XML_LIMIT
}

/// Length of a text in XML.
fn xml_length(text: &str) -> usize {
    let extra = |b: u8| match b {
        b'&' => 4,
        b'<' | b'>' => 3,
        _ => 0,
    };
    text.len() + text.bytes().map(extra).sum::<usize>()
}

/// The message that a record about a job travels as. One that is damaged beyond knowing is taken for an error.
pub fn kind_of(record: &Record) -> &'static str {
    #[derive(Deserialize)]
    struct Peek {
        status: Option<IgnoredAny>,
    }
    match record.code {
        code::ACCEPTED => payload::ACCEPTED,
        code::SUCCEEDED => payload::RESULT,
        _ => match serde_json::from_str::<Peek>(record.data.get()) {
            Ok(Peek { status: Some(_) }) => payload::RESULT,
            _ => payload::ERROR,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::payload::Tail;

    fn result(stdout: &[u8], stderr: &[u8]) -> Ending {
        let tail = Tail {
            stdout: Data::from_bytes(stdout),
            stderr: Data::from_bytes(stderr),
        };
        Ending::Result(JobResult {
            tail,
            ..JobResult::without_process(Status::Succeeded, Some("hm"))
        })
    }

    #[test]
    fn what_fits_is_left_alone_and_what_does_not_is_cut_to_fit() {
        let usual = result(&[b'x'; 4096], &[0xFF; 4096]);
        assert_eq!(usual.clone().fit(reserve(4096, usize::MAX)), usual);
        for limit in [8 * 1024, 16 * 1024, 192 * 1024, usize::MAX] {
            for byte in [0xFF, 1, b'&'] {
                let stdout = vec![byte; 60_000];
                for tail in [4096, 65_536] {
                    let reserve = reserve(tail, limit);
                    let cut = result(&stdout, b"short").fit(reserve);
                    assert!(cut.data().len() + FRAME <= reserve, "{limit} {tail}");
                    assert!(xml_length(&cut.data()) <= XML_LIMIT);
                    let Ending::Result(cut) = cut else { panic!() };
                    assert_eq!(cut.tail.stderr.data, "short", "the longer one is cut");
                    assert!(!cut.tail.stdout.data.is_empty());
                    let rest = cut.tail.stdout.into_bytes().unwrap();
                    assert!(stdout.ends_with(&rest));
                }
            }
        }
        let long = payload::Error::new(ErrorCode::NotFound, "é".repeat(100_000));
        let cut = Ending::Error(long).fit(reserve(4096, usize::MAX));
        assert!(cut.data().len() < reserve(4096, usize::MAX));
        // What cannot be cut is replaced.
        let word = ErrorCode::Other("&".repeat(1 << 20));
        let cut = Ending::Error(payload::Error::new(word, "m")).fit(reserve(4096, usize::MAX));
        assert!(cut.data().len() < 200, "{}", cut.data().len());
    }

    #[test]
    fn a_record_knows_what_it_travels_as() {
        let error = Ending::Error(payload::Error::new(ErrorCode::Io, "no"));
        let failed = Ending::Result(JobResult::without_process(Status::Failed, None));
        let kind = |code: u32, data: String| {
            kind_of(&Record {
                id: 1,
                token: String::new(),
                code,
                etime: 0.0,
                ctime: 0.0,
                conversation: None,
                data: serde_json::value::RawValue::from_string(data).unwrap(),
            })
        };
        assert_eq!(kind(code::ACCEPTED, "{}".into()), payload::ACCEPTED);
        let good = result(b"", b"");
        assert_eq!(kind(good.code(), good.data()), payload::RESULT);
        assert_eq!(kind(failed.code(), failed.data()), payload::RESULT);
        assert_eq!(kind(error.code(), error.data()), payload::ERROR);
        assert_eq!(kind(code::FAILED, "null".into()), payload::ERROR);
    }
}
