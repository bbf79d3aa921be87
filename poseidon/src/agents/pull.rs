//! A file on its way from a device to one reader: asked for piece by piece, several at a time, as fast as it is read.

use super::Key;
use super::connection::{Connection, SendError};
use super::order::{self, Order, OrderError};
use super::registry::Target;
use crate::jobs::{End, Live, Written};
use crate::server::{App, stopped};
use crate::store::{Job, JobState};
use axum::body::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};
use triton::message::payload::{self, DataRequest, DataResponse, ErrorCode, PIECE};
use triton::message::{Message, id};

/// Files that are fetched at a time.
pub const MAX_PULLS: usize = 128;
/// Bytes that are asked for and not handed out yet. At 200 ms there and back this is 7 MB/s.
const WINDOW: u64 = 24 * PIECE as u64;
/// A device begins within so long: it may have other jobs to do first.
const BEGIN_WAIT: Duration = Duration::from_secs(50);
/// A connection that is full is tried again after so long.
const RETRY: Duration = Duration::from_millis(50);

/// What a device says of a file before its bytes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Offer {
    #[serde(rename = "ref")]
    pub reference: String,
    pub offset: u64,
    pub size: u64,
    pub mode: Option<String>,
    pub mtime: Option<f64>,
}

/// Why a file does not come, or comes no further.
#[derive(Debug)]
pub enum PullError {
    /// Too many are being fetched.
    Busy,
    /// The device was not asked.
    Order(OrderError),
    /// The job has ended.
    Ended(Box<Job>),
    /// The device has not begun, has said nothing or has been away for so long.
    Late(Duration),
    /// The device sent what makes no sense.
    Wrong(String),
    /// The server stops.
    Stopping,
}

impl std::fmt::Display for PullError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Busy => write!(f, "{MAX_PULLS} files are being fetched already"),
            Self::Order(_) => f.write_str("the device was not asked"),
            Self::Ended(job) => {
                let end = job.error.as_ref().or(job.result.as_ref());
                write!(f, "the job has ended: {}", end.map_or("", |end| end.get()))
            }
            Self::Late(wait) => write!(f, "nothing came from the device for {} s", wait.as_secs()),
            Self::Wrong(what) => write!(f, "the device sends nonsense: {what}"),
            Self::Stopping => f.write_str("the server stops"),
        }
    }
}

/// A file that is being fetched. Dropped before the end it cancels the job.
pub struct Pull {
    app: Arc<App>,
    live: Arc<Live>,
    key: Key,
    token: String,
    written: watch::Receiver<Written>,
    /// Where the device was last asked.
    connection: Option<Arc<Connection>>,
    offset: u64,
    size: u64,
    /// Everything before was asked for…
    next: u64,
    /// …and everything before this was handed out.
    given: u64,
    /// What lies between, by its offset.
    asked: BTreeMap<u64, Piece>,
    hash: Sha256,
    finished: bool,
    _room: OwnedSemaphorePermit,
}

struct Piece {
    length: u64,
    sent: bool,
    bytes: Option<Bytes>,
}

/// What happens while a reader waits.
enum News {
    Message(Message),
    /// The device may be back.
    Back,
    Ended,
    Time,
    Stopping,
}

impl Pull {
    /// Asks for a file from `offset` on; returns when the device offers it.
    pub async fn begin(
        app: &Arc<App>,
        target: Target,
        path: &str,
        offset: u64,
        follow: bool,
    ) -> Result<(Self, Offer), PullError> {
        let Ok(room) = app.pull_room.clone().try_acquire_owned() else {
            return Err(PullError::Busy);
        };
        let request = json!({"path": path, "offset": offset, "follow": follow});
        let order = Order {
            kind: payload::FILE_GET.to_owned(),
            request: super::handle::raw(&request).into(),
            expires: None,
        };
        let key = target.key.clone();
        let connection = target.connection.clone();
        let live = order::give(app, &order, &[target])
            .await
            .map_err(PullError::Order)?
            .pop()
            .ok_or(PullError::Order(OrderError::Busy))?;
        let mut pull = Self {
            app: app.clone(),
            key,
            token: live.job().token,
            written: live.written(),
            connection,
            live,
            offset,
            size: 0,
            next: offset,
            given: offset,
            asked: BTreeMap::new(),
            hash: Sha256::new(),
            finished: false,
            _room: room,
        };
        match pull.offer().await {
            Ok(offer) => {
                pull.size = offer.size;
                Ok((pull, offer))
            }
            Err(e) => {
                pull.give_up(&e).await;
                Err(e)
            }
        }
    }

    /// The job's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Ends the job where nobody else says why it came to nothing.
    pub async fn give_up(&self, e: &PullError) {
        let code = match e {
            PullError::Late(_) => ErrorCode::Other("silent".to_owned()),
            PullError::Wrong(_) => ErrorCode::Invalid,
            _ => return,
        };
        if let Some((connection, _)) = self.app.registry.connection(&self.key) {
            abandon(&self.app, &connection, &self.token);
        }
        let error = payload::Error::new(code, e.to_string());
        self.app.jobs.end(&self.live, End::Error(error)).await;
    }

    async fn offer(&mut self) -> Result<Offer, PullError> {
        let wait = BEGIN_WAIT.min(self.app.settings.file_patience);
        let until = Instant::now() + wait;
        loop {
            match self.news(until).await {
                News::Message(message) if message.kind == payload::DATA_OFFER => {
                    let offer: Offer = message.read().map_err(|e| wrong(e.to_string()))?;
                    if offer.reference != self.token || offer.offset != self.offset {
                        return Err(wrong("its offer is for something else"));
                    }
                    if offer.offset > offer.size {
                        return Err(wrong("its offer begins behind the end of the file"));
                    }
                    return Ok(offer);
                }
                News::Message(_) => return Err(wrong("content comes before the offer")),
                News::Back => {}
                News::Ended => return Err(self.ended()),
                News::Time => return Err(PullError::Late(wait)),
                News::Stopping => return Err(PullError::Stopping),
            }
        }
    }

    /// The next bytes; `None` when all of them came and the device has confirmed that.
    pub async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        let patience = self.app.settings.file_patience;
        let mut until = Instant::now() + patience;
        loop {
            let waits = self.ask();
            let ready = self.asked.first_entry().filter(|e| e.get().bytes.is_some());
            if let Some(bytes) = ready.and_then(|entry| entry.remove().bytes) {
                self.given += bytes.len() as u64;
                self.hash.update(&bytes);
                return Ok(Some(bytes));
            }
            if self.given == self.size {
                return self.finish().await.map(|()| None);
            }
            match self.news(waits.min(until)).await {
                News::Message(message) => {
                    if self.take(&message)? {
                        until = Instant::now() + patience;
                    }
                }
                News::Back => self.ask_again(),
                News::Ended => return Err(self.ended()),
                News::Time if Instant::now() < until => {}
                News::Time => return Err(PullError::Late(patience)),
                News::Stopping => return Err(PullError::Stopping),
            }
        }
    }

    /// Says that all is there, and waits for the device to say the same.
    async fn finish(&mut self) -> Result<(), PullError> {
        let patience = self.app.settings.file_patience;
        let until = Instant::now() + patience;
        let mut said = false;
        loop {
            if !said {
                said = self.request(self.size, 0).is_ok();
            }
            let tick = if said { until } else { Instant::now() + RETRY };
            match self.news(tick.min(until)).await {
                // Answers to what was asked twice.
                News::Message(_) => {}
                News::Back => said &= !self.reconnected(),
                News::Ended => return self.check(),
                News::Time if Instant::now() < until => {}
                News::Time => return Err(PullError::Late(patience)),
                News::Stopping => return Err(PullError::Stopping),
            }
        }
    }

    /// Whether the end of the job says what the bytes say.
    fn check(&mut self) -> Result<(), PullError> {
        let job = self.live.job();
        let result: Value = job
            .result
            .as_ref()
            .and_then(|result| serde_json::from_str(result.get()).ok())
            .unwrap_or_default();
        if result["status"] != "succeeded" {
            return Err(PullError::Ended(Box::new(job)));
        }
        let own = id::hex(&std::mem::take(&mut self.hash).finalize());
        if self.offset == 0 && result["data"]["sha256"] != own.as_str() {
            return Err(wrong("what came has another SHA-256 than its file"));
        }
        self.finished = true;
        Ok(())
    }

    /// Asks for as much as the window allows. Returns when to try again.
    fn ask(&mut self) -> Instant {
        while self.next < self.size && self.next - self.given < WINDOW {
            let length = (self.size - self.next).min(PIECE as u64);
            let piece = Piece {
                length,
                sent: false,
                bytes: None,
            };
            self.asked.insert(self.next, piece);
            self.next += length;
        }
        let unsent: Vec<(u64, u64)> = self
            .asked
            .iter()
            .filter(|(_, piece)| !piece.sent)
            .map(|(offset, piece)| (*offset, piece.length))
            .collect();
        for (offset, length) in unsent {
            match self.request(offset, length) {
                Ok(()) => {
                    if let Some(piece) = self.asked.get_mut(&offset) {
                        piece.sent = true;
                    }
                }
                Err(SendError::Busy) => return Instant::now() + RETRY,
                // The inbox is rung when it is back.
                Err(SendError::Offline) => break,
            }
        }
        Instant::now() + self.app.settings.file_patience
    }

    fn request(&self, offset: u64, length: u64) -> Result<(), SendError> {
        let Some(connection) = &self.connection else {
            return Err(SendError::Offline);
        };
        let request = DataRequest {
            reference: self.token.clone(),
            offset,
            length,
        };
        let message = Message::within(&self.token, payload::DATA_REQUEST, &request);
        connection.send_message(&message)
    }

    /// Whether there is another connection than the one on which was asked.
    fn reconnected(&mut self) -> bool {
        let Some((connection, _)) = self.app.registry.connection(&self.key) else {
            return false;
        };
        let is_new = self.connection.as_ref().map(|c| c.id) != Some(connection.id);
        self.connection = Some(connection);
        is_new
    }

    /// What was asked for on a connection that is gone is asked for again.
    fn ask_again(&mut self) {
        if self.reconnected() {
            for piece in self.asked.values_mut() {
                piece.sent = piece.bytes.is_some();
            }
        }
    }

    /// Takes a message; whether it brought something.
    fn take(&mut self, message: &Message) -> Result<bool, PullError> {
        if message.kind != payload::DATA_RESPONSE {
            // An offer comes again after a reconnect.
            return Ok(false);
        }
        let response: DataResponse = message.read().map_err(|e| wrong(e.to_string()))?;
        let DataResponse {
            reference,
            offset,
            data,
            eof,
            ..
        } = response;
        if reference != self.token {
            return Err(wrong("a piece of something else came"));
        }
        let Some(piece) = self.asked.get_mut(&offset) else {
            if offset < self.given {
                return Ok(false);
            }
            return Err(wrong(format!("nobody asked for bytes at {offset}")));
        };
        if piece.bytes.is_some() {
            return Ok(false);
        }
        let bytes = triton::message::text::decode(&data)
            .ok_or_else(|| wrong(format!("the base64 at {offset} cannot be read")))?;
        let length = bytes.len() as u64;
        if length > piece.length {
            return Err(wrong(format!(
                "{length} bytes came at {offset}, {} were asked for",
                piece.length
            )));
        }
        let end = offset + length;
        if eof && end < self.size {
            return Err(wrong(format!(
                "the file ends at {end}, and {} bytes were offered",
                self.size
            )));
        }
        if length == 0 {
            return Err(wrong(format!("an empty piece came at {offset}")));
        }
        let rest = piece.length - length;
        piece.length = length;
        piece.bytes = Some(bytes.into());
        if rest > 0 {
            let piece = Piece {
                length: rest,
                sent: false,
                bytes: None,
            };
            self.asked.insert(end, piece);
        }
        Ok(true)
    }

    fn ended(&self) -> PullError {
        PullError::Ended(Box::new(self.live.job()))
    }

    async fn news(&mut self, until: Instant) -> News {
        let mut stop = self.app.stop.clone();
        loop {
            if self.live.inbox.was_rung() {
                return News::Back;
            }
            // What came before the end is taken before it.
            if let Some(message) = self.live.inbox.take() {
                return News::Message(message);
            }
            tokio::select! {
                biased;
                () = self.live.inbox.news() => {}
                // An error says that the job is gone.
                _ = self.written.wait_for(|written| written.ended) => return News::Ended,
                () = sleep_until(until) => return News::Time,
                () = stopped(&mut stop) => return News::Stopping,
            }
        }
    }
}

fn wrong(what: impl Into<String>) -> PullError {
    PullError::Wrong(what.into())
}

/// Cancels a job whose reader has gone. Where the cancel is not taken the agent gives the job up by itself, since nobody
/// asks it for anything.
pub(super) fn abandon(app: &App, connection: &Connection, token: &str) {
    let cancel = payload::Cancel {
        job: token.to_owned(),
        grace_seconds: None,
    };
    let message = Message::with(payload::CANCEL, &cancel);
    app.jobs.cancelling(&message.id, token);
    if connection.send_message(&message).is_err() {
        log::warn!("job {token}, which nobody waits for, is not cancelled");
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.live.inbox.close();
        if self.finished || self.live.state() == JobState::Ended {
            return;
        }
        // Where the device is away this is done when it comes back.
        if let Some((connection, _)) = self.app.registry.connection(&self.key) {
            abandon(&self.app, &connection, &self.token);
        }
    }
}
