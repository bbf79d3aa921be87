//! `history.get` and `history.put`: the journal for local clients and Poseidon.

use super::{Peer, Plugin};
use crate::journal::Journal;
use crate::message::payload::{
    self, Error, HISTORY, HISTORY_GET, HISTORY_PUT, HistoryGet, HistoryPut, JobResult, RESULT,
    Status, code,
};
use crate::message::{ErrorCode, Message};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// A page this short holds one record, or fits any message.
const LEAST_BYTES: usize = 1_024;

/// Answers from the journal. A stored value is synced before it is answered: this waits for the disk, as the
/// acceptance of a job does.
pub struct History {
    journal: Arc<Journal>,
    message_limit: usize,
}

/// The answer to a stored value: the `result` of what had no process, and where the value stands.
#[derive(Serialize)]
struct Stored {
    #[serde(flatten)]
    result: JobResult,
    sequence: u64,
}

impl History {
    /// Answers from `journal`, in messages below `message_limit` bytes.
    pub fn new(journal: Arc<Journal>, message_limit: usize) -> Self {
        Self {
            journal,
            message_limit,
        }
    }

    fn get(&self, message: &Message, from: &Peer) -> Result<Message, Error> {
        let query: HistoryGet = message.read().map_err(invalid)?;
        // The queue of answers is bounded by their number; these are large.
        if from.outbox.control_bytes() >= self.message_limit {
            let text = "too many answers wait to be read; read them first, then ask again";
            return Err(Error::new(ErrorCode::Busy, text));
        }
        let mut bytes = self.message_limit / 2;
        loop {
            let history = self.journal.history(&query, bytes)?;
            let answer = message.reply(HISTORY, &history);
            // Each `<`, `>` and `&` takes four or five bytes in XML: a page of those gets fewer records.
            if written_bytes(&answer) <= self.message_limit {
                return Ok(answer);
            }
            if bytes <= LEAST_BYTES {
                let id = history.records.first().map_or(0, |record| record.id);
                let text = format!(
                    "the record {id} does not fit a message of {} bytes (limits.message_bytes); ask behind it",
                    self.message_limit
                );
                return Err(Error::new(ErrorCode::TooLarge, text));
            }
            bytes /= 2;
        }
    }

    fn put(&self, message: &Message) -> Result<Message, Error> {
        let mut put: HistoryPut = message.read().map_err(invalid)?;
        if put.code == Some(code::EVENT) {
            let text = "code must not be 101: an event is checked, send it as `event`";
            return Err(Error::new(ErrorCode::Invalid, text));
        }
        if put.code == Some(code::SKIPPED) {
            let text =
                "code must not be 103: the agent itself says by it what its schedule skipped";
            return Err(Error::new(ErrorCode::Invalid, text));
        }
        if is_xml(message) {
            put.data = text_of_xml(put.data)?;
        }
        let record = self.journal.put(&put)?;
        let stored = Stored {
            result: JobResult::without_process(Status::Succeeded, None),
            sequence: record.id,
        };
        Ok(message.reply(RESULT, &stored))
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "it stands where map_err gives it"
)]
fn invalid(error: payload::PayloadError) -> Error {
    Error::new(ErrorCode::Invalid, error.to_string())
}

/// At least the bytes of the message as XML.
fn written_bytes(message: &Message) -> usize {
    let text = message.payload.as_deref().unwrap_or_default();
    let long = text.bytes().filter(|b| matches!(b, b'<' | b'>' | b'&'));
    // The other fields have at most a thousand: four tags, two ids of 128 characters, a type of this module.
    1_024 + text.len() + 4 * long.count()
}

fn is_xml(message: &Message) -> bool {
    let text = message.payload.as_deref().unwrap_or_default();
    text.trim_start().starts_with('<')
}

/// Elements in it have no one form in JSON: a list of one would look like no list.
fn text_of_xml(data: Value) -> Result<Value, Error> {
    if matches!(data, Value::String(_) | Value::Null) {
        return Ok(data);
    }
    let text = "in XML, data can only be a text; send JSON for more";
    Err(Error::new(ErrorCode::Invalid, text))
}

impl Plugin for History {
    fn name(&self) -> &'static str {
        "history"
    }

    fn types(&self) -> &'static [&'static str] {
        &[HISTORY_GET, HISTORY_PUT]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        let answer = if message.kind == HISTORY_GET {
            self.get(message, from)
        } else {
            self.put(message)
        };
        let answer = answer.unwrap_or_else(|error| message.reply(payload::ERROR, &error));
        from.outbox.push(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Settings;
    use crate::outbox::{Limits, Outbox};
    use crate::plugin::Origin;
    use serde_json::json;

    struct Stage {
        plugin: History,
        peer: Peer,
        _folder: tempfile::TempDir,
    }

    fn stage(message_limit: usize) -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            folder: folder.path().join("journal"),
            state: folder.path().to_owned(),
            bytes: 4 << 20,
            memory_bytes: 4 << 20,
            sync: false,
            goes_on: None,
        };
        let journal = Arc::new(Journal::open(&settings).unwrap());
        let limits = Limits {
            control: 1_000,
            output_bytes: 1,
        };
        let outbox = Arc::new(Outbox::new(limits).unwrap());
        outbox.set_online(true);
        Stage {
            plugin: History::new(journal, message_limit),
            peer: Peer {
                outbox,
                origin: Origin::Local,
            },
            _folder: folder,
        }
    }

    impl Stage {
        fn ask(&self, kind: &str, payload: &str) -> Message {
            let question = Message {
                payload: Some(payload.to_owned()),
                ..Message::new(kind)
            };
            self.plugin.handle(&question, &self.peer);
            let answer = self.peer.outbox.pop().unwrap();
            assert_eq!(answer.conversation_id, question.id);
            answer
        }

        fn history(&self, payload: &str) -> payload::History {
            let answer = self.ask(HISTORY_GET, payload);
            assert_eq!(answer.kind, HISTORY, "{:?}", answer.payload);
            answer.read_json().unwrap()
        }

        fn error(&self, kind: &str, payload: &str) -> Error {
            let answer = self.ask(kind, payload);
            assert_eq!(answer.kind, payload::ERROR, "{:?}", answer.payload);
            answer.read().unwrap()
        }
    }

    #[test]
    fn a_value_is_stored_and_found_in_json_and_xml() {
        let stage = stage(1 << 20);
        let answer = stage.ask(HISTORY_PUT, r#"{"token":"t","code":300,"data":{"a":[1]}}"#);
        assert_eq!(answer.kind, RESULT);
        let stored: Value = answer.read().unwrap();
        assert_eq!(stored["status"], "succeeded");
        let first = stored["sequence"].as_u64().unwrap();
        let xml =
            "<put><token>t</token><code>301</code><etime>5.5</etime><data>a &amp; b</data></put>";
        assert_eq!(stage.ask(HISTORY_PUT, xml).kind, RESULT);
        let found = stage.history(r#"{"token":"t"}"#);
        assert_eq!(found.records.len(), 2);
        assert_eq!(found.records[0].id, first);
        assert_eq!(found.records[0].data.get(), r#"{"a":[1]}"#);
        assert_eq!(found.records[1].data.get(), r#""a & b""#);
        assert!((found.records[1].etime - 5.5).abs() < 1e-9);
        let found = stage.history(&format!("<get><token>t</token><id>{first}</id></get>"));
        assert_eq!(found.records.len(), 1);
        assert_eq!(found.records[0].code, 301);
    }

    #[test]
    fn xml_carries_a_text_or_says_why_not() {
        let stage = stage(1 << 20);
        for (data, stored) in [
            ("<data> x </data>", "\" x \""),
            ("<data/>", "\"\""),
            ("<data>7</data>", "\"7\""),
            ("<data><![CDATA[{\"a\":1}]]></data>", r#""{\"a\":1}""#),
        ] {
            let put = format!("<put><token>{}</token>{data}</put>", stored.len());
            assert_eq!(stage.ask(HISTORY_PUT, &put).kind, RESULT, "{data}");
            let found = stage.history(&format!("{{\"token\":\"{}\"}}", stored.len()));
            assert_eq!(found.records.last().unwrap().data.get(), stored, "{data}");
        }
        for data in [
            "<data><a>1</a><a>2</a></data>",
            "<data><a/></data>",
            "<data>1</data><data>2</data>",
        ] {
            let error = stage.error(HISTORY_PUT, &format!("<put>{data}</put>"));
            assert_eq!(error.code, ErrorCode::Invalid);
            assert!(error.message.contains("JSON"), "{error:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        let stage = stage(1 << 20);
        for (kind, payload) in [
            (HISTORY_PUT, r#"{"code":7,"data":1}"#),
            (HISTORY_PUT, r#"{"code":101,"data":1}"#),
            (HISTORY_PUT, r#"{"code":"x"}"#),
            (HISTORY_PUT, "7"),
            (HISTORY_GET, r#"{"id":-1}"#),
            (HISTORY_GET, "<get><id>x</id></get>"),
        ] {
            let error = stage.error(kind, payload);
            assert_eq!(error.code, ErrorCode::Invalid, "{payload}");
            assert!(!error.message.is_empty(), "{payload}");
        }
    }

    #[test]
    fn any_text_that_json_can_hold_comes_back() {
        let stage = stage(1 << 20);
        let put = json!({"token": "t", "data": "\u{0}\u{1b}\r\n\u{fffe}\u{ffff}<&>\u{85}"});
        assert_eq!(stage.ask(HISTORY_PUT, &put.to_string()).kind, RESULT);
        let answer = stage.ask(HISTORY_GET, r#"{"token":"t"}"#);
        let line = answer.encode().expect("XML can carry it");
        let read = Message::decode(line.as_bytes(), 1 << 20).unwrap();
        let found: payload::History = read.read_json().unwrap();
        let data: Value = serde_json::from_str(found.records[0].data.get()).unwrap();
        assert_eq!(data, put["data"]);
    }

    #[test]
    fn an_answer_fits_a_message_whatever_it_holds() {
        let limit = 64 << 10;
        let stage = stage(limit);
        for _ in 0..40 {
            let put = json!({ "data": "&<".repeat(2_000) });
            assert_eq!(stage.ask(HISTORY_PUT, &put.to_string()).kind, RESULT);
        }
        let (mut id, mut count) = (0, 0);
        for _ in 0..40 {
            let answer = stage.ask(HISTORY_GET, &format!("{{\"id\":{id}}}"));
            assert!(answer.encode().unwrap().len() <= limit);
            let page: payload::History = answer.read_json().unwrap();
            count += page.records.len();
            id = page.records.last().map_or(id, |r| r.id);
            if !page.more {
                break;
            }
        }
        assert_eq!(count, 40);
    }

    #[test]
    fn a_record_that_fits_no_message_is_named() {
        let stage = stage(16 << 10);
        let put = json!({ "data": "x".repeat(20_000) });
        let stored: Value = stage.ask(HISTORY_PUT, &put.to_string()).read().unwrap();
        let error = stage.error(HISTORY_GET, r#"{"id":0}"#);
        assert_eq!(error.code, ErrorCode::TooLarge);
        assert!(
            error
                .message
                .contains(&format!("the record {} ", stored["sequence"])),
            "{error:?}"
        );
    }

    #[test]
    fn who_does_not_read_its_answers_gets_no_more_of_them() {
        let stage = stage(16 << 10);
        for _ in 0..3 {
            let put = json!({ "data": "x".repeat(3_000) });
            stage.ask(HISTORY_PUT, &put.to_string());
        }
        let question = Message::with(HISTORY_GET, &json!({"id": 0, "limit": 3}));
        for _ in 0..100 {
            stage.plugin.handle(&question, &stage.peer);
        }
        assert!(stage.peer.outbox.control_bytes() < 64 << 10);
        let last = std::iter::from_fn(|| stage.peer.outbox.pop()).last();
        let error: Error = last.unwrap().read().unwrap();
        assert_eq!(error.code, ErrorCode::Busy);
    }
}
