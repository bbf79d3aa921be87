//! What an agent says, message by message.

use super::recorder::Step;
use super::session::{Phase, STATE_LIMIT, Session};
use super::{Key, delivery};
use crate::cef;
use crate::jobs::{End, Live, expired};
use crate::store::records::Record;
use crate::time::now;
use serde::Deserialize as _;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use triton::message::payload::{self, ErrorCode, code};
use triton::message::{DEFAULT_LIMIT, Message, VERSION};
use triton::plugin::health::apply as apply_delta;

/// Largest part of a plain Triton's answer that is kept with the job.
const TAIL: usize = 4096;
/// The store's integers are signed.
const LAST_SEQUENCE: u64 = i64::MAX as u64;

const UNKNOWN_JOB: &str = "the device knows nothing of this job: it was lost on the way, or the agent was started anew \
                           and has lost its memory since";

impl Session<'_> {
    pub(super) async fn refuse_binary(&self) {
        let reason = "messages travel in text frames, this one was binary";
        let error = payload::Error::new(ErrorCode::Invalid, reason);
        let message = Message::with(payload::ERROR, &error);
        self.connection.send_waiting(&message).await;
    }

    pub(super) async fn receive(&mut self, bytes: &[u8]) {
        match Message::decode(bytes, DEFAULT_LIMIT) {
            Ok(message) => self.handle(message).await,
            Err(e) => {
                if !std::mem::replace(&mut self.warned, true) {
                    log::warn!("{} sends what cannot be read: {e}", self.name());
                }
                self.connection.send_waiting(&e.to_message()).await;
            }
        }
    }

    async fn handle(&mut self, message: Message) {
        let kind = message.kind.as_str();
        if kind == payload::HELLO && message.version == VERSION {
            return self.hello(&message).await;
        }
        let known = matches!(
            kind,
            payload::HEARTBEAT
                | payload::ACCEPTED
                | payload::OUTPUT
                | payload::PROGRESS
                | payload::RESULT
                | payload::BYE
                | payload::HELLO
                | payload::WELCOME
                | payload::DATA_OFFER
                | payload::DATA_REQUEST
                | payload::DATA_RESPONSE
                | payload::SCHEDULE_LIST
        ) || (matches!(kind, payload::HISTORY | payload::EVENTS)
            && self.recorder.is_some());
        if kind != payload::ERROR && known && message.version != VERSION {
            let reply = message.reply_unsupported_version();
            return self.connection.send_waiting(&reply).await;
        }
        if matches!(self.phase, Phase::Waiting) {
            self.become_plain().await;
        }
        let Phase::Agent { key, plain, .. } = &self.phase else {
            return;
        };
        let (key, plain) = (key.clone(), *plain);
        let Some(message) = self.connection.asks.answer(message) else {
            return;
        };
        let kind = message.kind.as_str();
        let jobs = &self.app.jobs;
        let live = jobs.open_of(
            &message.conversation_id,
            &key.identifier,
            &key.instance,
            plain,
        );
        let travels = matches!(kind, payload::ACCEPTED | payload::RESULT | payload::ERROR);
        if travels && self.recorder.is_some() {
            match Recorded::of(&message) {
                Ok(Some(recorded)) => return self.record(&message, recorded, live).await,
                Ok(None) => {}
                // No record, but what it says of its job holds.
                Err(reason) if kind == payload::ERROR => {
                    log::warn!("{} sends an error that is no record: {reason}", self.name());
                }
                Err(reason) => self.complain(&message, &reason).await,
            }
        }
        match (kind, live) {
            (payload::HEARTBEAT, _) => self.heartbeat(&key, &message).await,
            (payload::HISTORY, _) if known => self.history(&message).await,
            (payload::EVENTS, _) if known => self.events(&message).await,
            (payload::ACCEPTED, Some(live)) => {
                jobs.accepted(&live);
                self.connection.room.notify_one();
            }
            (payload::OUTPUT, Some(live)) => match message.read::<payload::Output>() {
                Ok(output) => {
                    let (stream, offset) = (output.stream, output.offset);
                    match output.into_bytes() {
                        Some(bytes) => jobs.output(&live, stream, offset, bytes).await,
                        None => self.complain(&message, "the base64 is wrong").await,
                    }
                }
                Err(e) => self.complain(&message, &e.to_string()).await,
            },
            (payload::PROGRESS, Some(live)) => match message.read::<payload::Progress>() {
                Ok(progress) => jobs.progress(&live, progress).await,
                Err(e) => self.complain(&message, &e.to_string()).await,
            },
            (payload::RESULT, Some(live)) => match read_result(&message) {
                Err(_) if plain => self.end_plain(&live, &message).await,
                read => {
                    match &read {
                        Ok(result) => self.fill(&live, result).await,
                        Err(reason) => self.complain(&message, reason).await,
                    }
                    self.end(&live, end_of(&live, read)).await;
                }
            },
            (payload::DATA_OFFER | payload::DATA_RESPONSE, Some(live)) => {
                if !live.inbox.put(message) {
                    log::debug!("{} sends content that nobody waits for", self.name());
                }
            }
            (payload::DATA_REQUEST, live) => self.provide(&key, message, live).await,
            (payload::ERROR, live) => self.error(&key, plain, &message, live).await,
            // Of a job that has ended, or an answer to a cancel: nothing hangs on it.
            (_, None) if known => {
                log::debug!(
                    "{} sends {kind} in a conversation that is over",
                    self.name()
                );
            }
            (_, Some(_)) if known => {}
            (_, Some(live)) if plain => self.end_plain(&live, &message).await,
            (payload::HISTORY | payload::EVENTS, _) => {
                let reason =
                    "records are taken from an agent whose hello names its journal (journal.id)";
                self.complain(&message, reason).await;
            }
            _ => {
                let reply = message.reply_error(
                    ErrorCode::UnknownType,
                    format!("Poseidon does not know {}", truncated(kind, 100)),
                );
                self.connection.send_waiting(&reply).await;
            }
        }
    }

    async fn end(&self, live: &Arc<Live>, end: End) {
        self.app.jobs.end(live, end).await;
        self.connection.relieve();
    }

    /// Stores what of the output is only in the result.
    async fn fill(&self, live: &Arc<Live>, result: &Value) {
        if let Ok(result) = payload::JobResult::deserialize(result) {
            self.app.jobs.fill(live, &result).await;
        }
    }

    /// A step of a job that is a record of the agent's journal.
    async fn record(&mut self, message: &Message, recorded: Recorded, live: Option<Arc<Live>>) {
        let Recorded {
            sequence,
            etime,
            ctime,
            data,
        } = recorded;
        if let (payload::RESULT, Some(live)) = (message.kind.as_str(), &live) {
            self.fill(live, &data).await;
        }
        let raw = raw(&data);
        let (code, job) = match message.kind.as_str() {
            payload::ACCEPTED => (code::ACCEPTED, live.map(|live| (live, Step::Accepted))),
            payload::RESULT => {
                let read = payload::JobResult::deserialize(&data).map(|result| result.status);
                let code = match &read {
                    Ok(payload::Status::Succeeded) => code::SUCCEEDED,
                    _ => code::FAILED,
                };
                let job = live.map(|live| {
                    let end = end_of(&live, read.map(|_| data).map_err(|e| e.to_string()));
                    (live, Step::Ended(end))
                });
                (code, job)
            }
            _ => {
                let end = || Step::Ended(End::Error(read_error(message)));
                (code::FAILED, live.map(|live| (live, end())))
            }
        };
        let record = Record {
            id: sequence,
            token: message.conversation_id.clone(),
            code,
            etime,
            ctime,
            conversation: None,
            data: raw,
        };
        if let Some(recorder) = &self.recorder {
            recorder.push(self.app, record, job).await;
        }
    }

    /// Records that are not about jobs.
    async fn history(&mut self, message: &Message) {
        let history = match message.read_json::<payload::History>() {
            Ok(history) => history,
            Err(e) => return self.complain(message, &e.to_string()).await,
        };
        let Some(recorder) = &self.recorder else {
            return;
        };
        // All or nothing: a later acknowledgement would cover what was left out.
        if let Some(record) = history.records.iter().find(|r| r.id > LAST_SEQUENCE) {
            let reason = format!("{} is no sequence", record.id);
            return self.complain(message, &reason).await;
        }
        for mut record in history.records {
            record.data = bearable(record.data);
            recorder.push(self.app, record, None).await;
        }
    }

    /// Records with the code 101, which travel together.
    async fn events(&mut self, message: &Message) {
        let text = message.payload.as_deref().unwrap_or_default();
        let read = serde_json::from_str::<cef::Events>(text).map_err(|e| e.to_string());
        let records = match read.and_then(|events| events.into_records(now(), LAST_SEQUENCE)) {
            Ok(records) => records,
            Err(reason) => return self.complain(message, &reason).await,
        };
        if let Some(recorder) = &self.recorder {
            for record in records {
                recorder.push(self.app, record, None).await;
            }
        }
    }

    async fn heartbeat(&self, key: &Key, message: &Message) {
        // Before anything is read: what a heartbeat says is kept.
        let size = message.payload.as_ref().map_or(0, String::len);
        if size > STATE_LIMIT {
            return self.refuse_state(message, size).await;
        }
        let value = match read_value::<payload::Heartbeat>(message) {
            Ok(value) => value,
            Err(reason) => return self.complain(message, &reason).await,
        };
        let Value::Object(mut fields) = value else {
            return self.complain(message, "a heartbeat is an object").await;
        };
        if fields.remove("delta") == Some(Value::Bool(true))
            && let Some(last) = self.app.registry.health(key)
            && let Ok(mut whole) = serde_json::from_str::<Map<_, _>>(last.get())
        {
            if let Err(reason) = apply_delta(&mut whole, fields) {
                return self.complain(message, &reason).await;
            }
            fields = whole;
        }
        fields.remove("nested");
        let whole = Value::Object(fields);
        let health = raw(&whole);
        if health.get().len() > STATE_LIMIT {
            return self.refuse_state(message, health.get().len()).await;
        }
        if let Value::Object(fields) = &whole {
            self.app.metrics.take(key, fields, now());
        }
        self.app.registry.set_health(key, health);
    }

    /// An `error` is never answered by an `error`.
    async fn error(&self, key: &Key, plain: bool, message: &Message, live: Option<Arc<Live>>) {
        let error = read_error(message);
        let jobs = &self.app.jobs;
        if let Some(live) = live {
            if error.code != ErrorCode::Busy {
                return self.end(&live, End::Error(error)).await;
            }
            if live.was_asked() {
                // It would know a token that it knows, however busy it is.
                return self.end(&live, End::Error(lost(UNKNOWN_JOB))).await;
            }
            self.connection.set_busy();
            if jobs.queue_again(&live) {
                return delivery::start(self.app, key);
            }
            return jobs.end(&live, End::Error(error)).await;
        }
        if let Some(token) = jobs.cancelled(&message.conversation_id) {
            // The agent has no such job: it never got it, or it has lost its memory.
            if error.code == ErrorCode::NotFound
                && let Some(live) = jobs.open_of(&token, &key.identifier, &key.instance, plain)
            {
                return self.end(&live, End::Error(error)).await;
            }
        }
        log::warn!(
            "{} says: {}: {}",
            self.name(),
            truncated(error.code.as_str(), 64).escape_debug(),
            truncated(&error.message, 1000).escape_debug()
        );
    }

    /// A plain Triton answers a command in its own words: the job has succeeded, and the words are its output.
    async fn end_plain(&self, live: &Arc<Live>, message: &Message) {
        let text = message.payload.clone().unwrap_or_default();
        let start = text.len().saturating_sub(TAIL);
        let start = (start..text.len())
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(text.len());
        let tail = triton::message::text::Data::from_bytes(&text.as_bytes()[start..]);
        let result = payload::JobResult {
            stdout_bytes: text.len() as u64,
            tail: payload::Tail {
                stdout: tail,
                ..payload::Tail::default()
            },
            ..payload::JobResult::without_process(payload::Status::Succeeded, None)
        };
        let jobs = &self.app.jobs;
        jobs.output(live, payload::Stream::Stdout, 0, text.into_bytes())
            .await;
        let Ok(value) = serde_json::to_value(&result) else {
            return;
        };
        self.end(live, End::Result(raw(&value))).await;
    }

    /// A `hello` or heartbeat that would be too much to keep.
    pub(super) async fn refuse_state(&self, message: &Message, size: usize) {
        let reason = format!(
            "this {} has {size} bytes, and at most {STATE_LIMIT} are kept",
            message.kind
        );
        let reply = message.reply_error(ErrorCode::TooLarge, reason);
        self.connection.send_waiting(&reply).await;
    }

    pub(super) async fn complain(&self, message: &Message, reason: &str) {
        log::debug!("{}: {} is refused: {reason}", self.name(), message.kind);
        let reply = message.reply_error(ErrorCode::Invalid, reason);
        self.connection.send_waiting(&reply).await;
    }
}

/// A step of a job as it stands in the agent's journal.
struct Recorded {
    sequence: u64,
    etime: f64,
    ctime: f64,
    /// The payload without these.
    data: Value,
}

impl Recorded {
    /// `None` for an answer that is no record.
    fn of(message: &Message) -> Result<Option<Self>, String> {
        let text = message.payload.as_deref().unwrap_or_default();
        // Most messages need no second look.
        if !text.contains("\"sequence\"") {
            return Ok(None);
        }
        // What is no object, or XML, is no record whatever it says.
        let Ok(Fields(mut fields)) = serde_json::from_str(text) else {
            return Ok(None);
        };
        let Some(sequence) = fields.remove("sequence") else {
            return Ok(None);
        };
        let sequence = serde_json::from_str(sequence.get())
            .ok()
            .filter(|sequence| *sequence <= LAST_SEQUENCE)
            .ok_or_else(|| format!("{} is no sequence", truncated(sequence.get(), 100)))?;
        let mut time = |name: &str| {
            let value = fields.remove(name);
            value
                .and_then(|value| serde_json::from_str::<f64>(value.get()).ok())
                .ok_or_else(|| format!("a record needs {name}, a Unix time in seconds"))
        };
        Ok(Some(Self {
            sequence,
            etime: time("etime")?,
            ctime: time("ctime")?,
            data: kept(fields),
        }))
    }
}

/// Whether everybody can read it: one that is nested too deep would make every list with it unreadable.
fn is_bearable(json: &str) -> bool {
    payload::depth(json) <= payload::DATA_DEPTH
}

/// An object, of which only the outermost names are read.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Fields(BTreeMap<String, Box<RawValue>>);

/// What is kept of an object: in place of what is nested too deep it says so.
fn kept(fields: BTreeMap<String, Box<RawValue>>) -> Value {
    let fields = fields.into_iter().map(|(name, value)| {
        let value = Some(value.get())
            .filter(|json| payload::depth(json) < payload::DATA_DEPTH)
            .and_then(|json| serde_json::from_str(json).ok());
        (name, value.unwrap_or_else(left_out))
    });
    Value::Object(fields.collect())
}

fn left_out() -> Value {
    serde_json::json!({ "unreadable": format!("nested deeper than {} levels", payload::DATA_DEPTH) })
}

/// A record has to be stored whatever it holds: it would block those behind it.
fn bearable(data: Box<RawValue>) -> Box<RawValue> {
    if is_bearable(data.get()) {
        return data;
    }
    match serde_json::from_str(data.get()) {
        Ok(Fields(fields)) => raw(&kept(fields)),
        Err(_) => raw(&left_out()),
    }
}

/// A `result` that is no record; of one that is nested too deep the same is kept as of a record.
fn read_result(message: &Message) -> Result<Value, String> {
    let text = message.payload.as_deref().unwrap_or_default();
    if is_bearable(text) {
        return read_value::<payload::JobResult>(message);
    }
    let Fields(fields) = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let value = kept(fields);
    let read = payload::JobResult::deserialize(&value);
    read.map(|_| value).map_err(|e| e.to_string())
}

/// The end of a job by its `result`, as far as that could be read.
fn end_of(live: &Live, read: Result<Value, String>) -> End {
    match read {
        Ok(value) if value["status"] == "expired" && asked_in_vain(live) => {
            // It was sent in time, never arrived, and is not sent again.
            if live.job().expires.is_some_and(|expires| expires <= now()) {
                return End::Error(expired());
            }
            End::Error(lost(UNKNOWN_JOB))
        }
        Ok(value) => End::Result(raw(&value)),
        // A job whose end cannot be read has ended all the same.
        Err(reason) => End::Error(payload::Error::new(
            ErrorCode::Invalid,
            format!("the agent's result cannot be read: {reason}"),
        )),
    }
}

/// Whether an `expired` is the answer to a question and not the job's own end.
fn asked_in_vain(live: &Live) -> bool {
    let own = serde_json::from_str::<Value>(live.job().request.get())
        .is_ok_and(|request| request["notAfter"].is_number());
    live.was_asked() && !own
}

fn read_error(message: &Message) -> payload::Error {
    let text = message.payload.as_deref().unwrap_or("");
    let readable = is_bearable(text).then(|| message.read().ok()).flatten();
    readable.unwrap_or_else(|| payload::Error::new(ErrorCode::Invalid, truncated(text, 1000)))
}

/// How a job ends of which nobody knows anything.
pub(super) fn lost(reason: &str) -> payload::Error {
    payload::Error::new(ErrorCode::Other("lost".to_owned()), reason)
}

/// A payload as JSON, after a check that it is a `T`. JSON keeps the fields that `T` does not know.
pub(super) fn read_value<T>(message: &Message) -> Result<Value, String>
where
    T: serde::de::DeserializeOwned + serde::Serialize,
{
    let typed = message.read::<T>().map_err(|e| e.to_string())?;
    let text = message.payload.as_deref().unwrap_or("").trim();
    if !is_bearable(text) {
        return Err(format!(
            "it is nested deeper than {} levels",
            payload::DATA_DEPTH
        ));
    }
    if !text.is_empty()
        && !text.starts_with('<')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    serde_json::to_value(&typed).map_err(|e| e.to_string())
}

pub(super) fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn truncated(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}
