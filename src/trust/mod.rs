//! Mutual trust: the device's own key, and whom it obeys. `docs/protocol.md`, section 10.
//!
//! Where no key of Poseidon's is pinned the agent is open, as agents without keys are. From the first pin on it does what
//! acts only where that key has signed it, for this connection, in time, and once. A pin that cannot be read is no
//! reason to be open: then nothing is done, and the agent stays reachable to say so.

pub mod files;

use crate::dispatch::Guard;
use crate::message::payload::{
    DATA_REQUEST, DataRequest, DataResponse, ErrorCode, HELLO, Hello, Welcome,
};
use crate::message::seal::Ephemeral;
use crate::message::sign::{self, KeyId, LONGEST, PublicKey};
use crate::message::{Message, text};
use crate::plugin::{Origin, Peer};
use crate::sys::clock;
use files::{Device, Files, Pin, Refused};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The same Poseidon is noted as refused again after so long, in seconds: flash wears.
const NOTE_AGAIN: f64 = 86_400.0;
/// Another one is not noted sooner, unless what was noted is gone.
const NOTE_PAUSE: Duration = Duration::from_mins(10);
/// Digits of a challenge.
const CHALLENGE: usize = 32;

/// Why a request is not carried out.
pub type Refusal = (ErrorCode, String);

/// What a `welcome` is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Worth {
    /// Nothing is pinned: it is as good as any.
    Open,
    /// It is the pinned Poseidon's.
    Trusted,
    /// It is somebody else's, for this reason: nothing of it holds.
    Foreign(String),
}

/// Keys, pins and what they mean for the connection that stands.
#[derive(Debug)]
pub struct Trust {
    files: Files,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    device: Option<Device>,
    /// Why there is none.
    device_problem: Option<String>,
    /// `trust.poseidon_keys`.
    configured: Vec<PublicKey>,
    pin: Option<Pin>,
    /// The pin could not be written: this process alone knows it.
    fleeting: Option<String>,
    /// Why nobody knows whether there is a pin.
    broken: Option<String>,
    session: Option<Session>,
    refused: u32,
    /// When a Poseidon that was refused was written down.
    noted: Option<Instant>,
}

/// The connection that stands.
#[derive(Debug)]
struct Session {
    /// Id of its `hello`, which is random: what was signed for another connection is worth nothing here.
    id: String,
    begun: Instant,
    /// Number of the last request that was signed for it.
    last: u32,
    trusted: bool,
}

/// A question that is sealed to this device.
#[derive(Debug)]
pub struct Question {
    key: Ephemeral,
    reference: String,
    offset: u64,
}

impl Inner {
    /// The keys that Poseidon may have. One of the configuration that Poseidon has left behind stands for the one that
    /// came after it.
    fn keys(&self) -> Vec<PublicKey> {
        let pin = self.pin.as_ref();
        if self.configured.is_empty() {
            return pin.map(|pin| pin.key).into_iter().collect();
        }
        let now = |key: &PublicKey| match pin {
            Some(pin) if pin.passed.contains(key) => pin.key,
            _ => *key,
        };
        self.configured.iter().map(now).collect()
    }

    /// Whether anybody may ask for anything.
    fn is_open(&self) -> bool {
        self.broken.is_none() && self.configured.is_empty() && self.pin.is_none()
    }

    fn bound_to(&self) -> String {
        let ids: Vec<String> = self.keys().iter().map(|key| key.id().to_string()).collect();
        if ids.is_empty() {
            return "none".to_owned();
        }
        ids.join(", ")
    }
}

impl Trust {
    /// That of the agent with this state folder. Nothing is read before [`Trust::prepare`].
    pub fn new(state: &Path) -> Self {
        Self {
            files: Files::new(state),
            inner: Mutex::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is kept, since `triton trust` may have changed it, and makes the device's key where there is none.
    /// Returns what the upgrade is to show. To be called before each attempt to connect.
    pub fn prepare(&self, configured: &[PublicKey]) -> Option<String> {
        let (device, pin) = (self.files.device(), self.files.pin());
        let mut inner = self.inner();
        inner.session = None;
        inner.configured = configured.to_vec();
        match device {
            Ok(device) => {
                inner.device = Some(device);
                inner.device_problem = None;
            }
            Err(e) => {
                let e = e.to_string();
                if inner.device_problem.as_ref() != Some(&e) {
                    log::error!("this device has no key, and connects without one: {e}");
                }
                inner.device = None;
                inner.device_problem = Some(e);
            }
        }
        match pin {
            Ok(None) if inner.fleeting.is_some() => {}
            Ok(pin) => {
                inner.pin = pin;
                inner.fleeting = None;
                inner.broken = None;
            }
            Err(e) => {
                let e = e.to_string();
                if inner.broken.as_ref() != Some(&e) {
                    log::error!(
                        "nobody knows which Poseidon this device obeys, so it obeys none but those of \
                         trust.poseidon_keys: {e}; 'triton trust accept' or 'triton trust reset' makes it known"
                    );
                }
                inner.broken = Some(e);
            }
        }
        inner.device.as_ref().map(|d| d.key.public().to_string())
    }

    /// The message `hello`, signed where the server has asked for that by its challenge.
    pub fn hello(&self, hello: &Hello, challenge: Option<&str>) -> Message {
        let mut inner = self.inner();
        let challenge = challenge
            .filter(|text| text.len() == CHALLENGE && text.bytes().all(|b| b.is_ascii_hexdigit()));
        let message = match (&inner.device, challenge) {
            (Some(device), Some(challenge)) => {
                let signed = Hello {
                    public_key: Some(device.key.public().to_string()),
                    challenge: Some(challenge.to_owned()),
                    keys: device.keys.clone(),
                    ..hello.clone()
                };
                let mut message = Message::with(HELLO, &signed);
                device.key.sign(&mut message, "");
                message
            }
            _ => Message::with(HELLO, hello),
        };
        inner.session = Some(Session {
            id: message.id.clone(),
            begun: Instant::now(),
            last: 0,
            trusted: false,
        });
        message
    }

    /// What the answer to `hello` is worth; `place` is where it came from. It may pin, or follow Poseidon to a new key.
    pub fn welcome(&self, message: &Message, welcome: &Welcome, place: &str) -> Worth {
        self.weigh(message, welcome, place, true)
    }

    /// The same for a trial, which changes nothing.
    pub fn examine(&self, message: &Message, welcome: &Welcome, place: &str) -> Worth {
        self.weigh(message, welcome, place, false)
    }

    fn weigh(&self, message: &Message, welcome: &Welcome, place: &str, real: bool) -> Worth {
        let mut inner = self.inner();
        let session = inner.session.as_ref().map(|s| s.id.clone());
        let session = session.unwrap_or_default();
        let shown = welcome.public_key.as_deref();
        let shown: Option<PublicKey> = shown.and_then(|key| key.parse().ok());
        let shown =
            shown.filter(|key| message.conversation_id == session && key.wrote(message, &session));
        let own = inner.device.as_ref().map(|d| d.key.public());
        let knows_us = own.is_some_and(|own| {
            welcome.pinned && welcome.device_key.as_deref() == Some(&*own.to_string())
        });
        if inner.is_open() {
            let Some(key) = shown.filter(|_| knows_us && real) else {
                return Worth::Open;
            };
            let passed = Vec::new();
            self.pin(&mut inner, Pin { key, passed });
            log::warn!(
                "from now on this device obeys only the Poseidon at {place}, by its key {}; 'triton trust' tells more",
                key.id()
            );
        } else if let Some(key) = shown {
            let keys = inner.keys();
            let followed = keys
                .iter()
                .find_map(|from| sign::follow(&welcome.keys, from, &key));
            match followed {
                Some(left) if left.is_empty() || !real => {}
                Some(left) => {
                    log::warn!(
                        "Poseidon has another key, {}, which the old one proves",
                        key.id()
                    );
                    let mut passed = inner.pin.take().map_or(Vec::new(), |pin| pin.passed);
                    passed.extend(left);
                    self.pin(&mut inner, Pin { key, passed });
                }
                None => {
                    if real {
                        self.note(&mut inner, &key, place);
                    }
                    // `triton trust accept` does not overrule the configuration.
                    let what_to_do = if inner.configured.is_empty() {
                        format!("'triton trust accept {}'", key.id())
                    } else {
                        format!("put its key, {key}, into trust.poseidon_keys")
                    };
                    return Worth::Foreign(format!(
                        "the Poseidon at {place} has the key {}, and this device obeys {} only: if that is the right one \
                         now, {what_to_do}",
                        key.id(),
                        inner.bound_to(),
                    ));
                }
            }
        } else {
            return Worth::Foreign(inner.silent(place));
        }
        if let Some(session) = &mut inner.session {
            session.trusted = true;
        }
        let proofs = inner.device.as_ref().is_some_and(|d| !d.keys.is_empty());
        if let Some(own) = own.filter(|_| knows_us && proofs && real) {
            match self.files.confirm(&own) {
                Ok(()) => log::info!("Poseidon goes by this device's new key {}", own.id()),
                Err(e) => log::warn!("the way to this device's new key is kept: {e}"),
            }
        }
        Worth::Trusted
    }

    /// What it is worth that no `welcome` comes.
    pub fn plain(&self, place: &str) -> Worth {
        let inner = self.inner();
        if inner.is_open() {
            return Worth::Open;
        }
        Worth::Foreign(inner.silent(place))
    }

    fn pin(&self, inner: &mut Inner, pin: Pin) {
        inner.fleeting = self.files.set_pin(&pin).err().map(|e| {
            log::error!("Poseidon's key is pinned only until the agent ends: {e}");
            e.to_string()
        });
        if inner.fleeting.is_none() {
            inner.broken = None;
        }
        inner.pin = Some(pin);
    }

    /// Keeps which one was refused last. It costs flash, and a false Poseidon may show a new key as often as it likes.
    fn note(&self, inner: &mut Inner, key: &PublicKey, place: &str) {
        let refused = Refused {
            public_key: key.to_string(),
            place: place.to_owned(),
            time: clock::now(),
        };
        let early = inner.noted.is_some_and(|at| at.elapsed() < NOTE_PAUSE);
        let known = self.files.refused().is_some_and(|last| {
            early
                || last.public_key == refused.public_key
                    && last.place == refused.place
                    && (refused.time - last.time).abs() < NOTE_AGAIN
        });
        if known {
            return;
        }
        inner.noted = Some(Instant::now());
        if let Err(e) = self.files.set_refused(&refused) {
            log::warn!("the Poseidon that was refused is not noted: {e}");
        }
    }

    /// Whether a message that came from the connection may be acted on.
    pub fn judge(&self, message: &Message) -> Result<(), Refusal> {
        if !sign::acts(&message.kind) {
            return Ok(());
        }
        let mut inner = self.inner();
        if inner.is_open() {
            return Ok(());
        }
        let judged = inner.judge(message);
        if let Err((code, reason)) = &judged {
            inner.refused = inner.refused.saturating_add(1);
            log::warn!(
                "a {} was refused ({code}): {reason}",
                message.kind.escape_debug()
            );
        }
        judged
    }

    /// What Poseidon is asked for a local client, signed and with the key that the answer is to be sealed to where this
    /// device obeys that Poseidon.
    pub fn ask(&self, request: &DataRequest) -> Result<(Message, Option<Question>), Refusal> {
        let inner = self.inner();
        if inner.is_open() {
            return Ok((Message::with(DATA_REQUEST, request), None));
        }
        let untrusted = |reason: &str| (ErrorCode::Untrusted, reason.to_owned());
        let Some(session) = inner.session.as_ref().filter(|session| session.trusted) else {
            return Err(untrusted(
                "this device is not connected to the Poseidon whose key it has pinned: see 'triton trust show'",
            ));
        };
        let Some(device) = &inner.device else {
            return Err(untrusted(
                "this device has no key, so nothing can be sealed to it: see 'triton trust show'",
            ));
        };
        let key = Ephemeral::random().map_err(|e| (ErrorCode::Io, e))?;
        let payload = json!({
            "ref": request.reference,
            "offset": request.offset,
            "length": request.length,
            "key": key.public(),
        });
        let mut message = Message::with(DATA_REQUEST, &payload);
        device.key.sign(&mut message, &session.id);
        let question = Question {
            key,
            reference: request.reference.clone(),
            offset: request.offset,
        };
        Ok((message, Some(question)))
    }

    /// The plain form of the answer to a sealed question.
    pub fn unseal(&self, question: Question, answer: &Message) -> Result<DataResponse, Refusal> {
        let untrusted = |reason: &str| (ErrorCode::Untrusted, reason.to_owned());
        {
            let inner = self.inner();
            let session = inner.session.as_ref().map_or("", |session| &session.id);
            if !inner.keys().iter().any(|key| key.wrote(answer, session)) {
                return Err(untrusted("the answer is not signed by Poseidon"));
            }
        }
        let invalid = |e: String| (ErrorCode::Invalid, e);
        let mut response: DataResponse = answer.read().map_err(|e| invalid(e.to_string()))?;
        let more: Value = answer.read().map_err(|e| invalid(e.to_string()))?;
        let text_of = |name: &str| more[name].as_str().unwrap_or_default();
        if response.reference != question.reference || response.offset != question.offset {
            return Err(untrusted("the answer is one to another question"));
        }
        let content = question.key.open(
            text_of("key"),
            text_of("sealed"),
            &response.reference,
            response.offset,
        );
        let (sha256, content) =
            content.ok_or_else(|| untrusted("the answer is not sealed to this device"))?;
        response.sha256 = Some(sha256);
        response.data = text::encode(&content);
        Ok(response)
    }

    /// The connection is gone.
    pub fn ended(&self) {
        self.inner().session = None;
    }

    /// For `agent.status`.
    pub fn report(&self) -> Value {
        let inner = self.inner();
        let trusted = inner.session.as_ref().map(|session| session.trusted);
        let id = |key: &PublicKey| key.id().to_string();
        let mut report = json!({
            "state": match (inner.is_open(), trusted) {
                (true, _) => "open",
                (false, Some(true)) => "trusted",
                (false, Some(false)) => "untrusted",
                (false, None) => "bound",
            },
            "poseidonKeys": inner.keys().iter().map(id).collect::<Vec<_>>(),
            "refused": inner.refused,
        });
        if let Some(device) = &inner.device {
            report["deviceKey"] = id(&device.key.public()).into();
        }
        let problems = [&inner.device_problem, &inner.broken, &inner.fleeting];
        let problems: Vec<&str> = problems.into_iter().flatten().map(String::as_str).collect();
        if !problems.is_empty() {
            report["problem"] = problems.join("; ").into();
        }
        report
    }

    /// Id of the device's key.
    pub fn device_id(&self) -> Option<KeyId> {
        let inner = self.inner();
        inner.device.as_ref().map(|d| d.key.public().id())
    }
}

impl Guard for Arc<Trust> {
    fn lets_pass(&self, message: &Message, from: &Peer) -> bool {
        if from.origin != Origin::Poseidon {
            return true;
        }
        let judged = self.judge(message);
        if let Err((code, reason)) = &judged {
            from.outbox
                .push(message.reply_error(code.clone(), reason.as_str()));
        }
        judged.is_ok()
    }
}

impl Inner {
    /// What is said of a server that does not show who it is.
    fn silent(&self, place: &str) -> String {
        if let (Some(broken), true) = (&self.broken, self.configured.is_empty()) {
            return format!("nobody knows which Poseidon this device obeys: {broken}");
        }
        format!(
            "the server at {place} does not show that it is the Poseidon of the key {}, which alone this device obeys \
             (see 'triton trust show')",
            self.bound_to()
        )
    }

    fn judge(&mut self, message: &Message) -> Result<(), Refusal> {
        let untrusted = |reason: String| Err((ErrorCode::Untrusted, reason));
        let keys = self.keys();
        if let (Some(broken), true) = (&self.broken, keys.is_empty()) {
            return untrusted(format!(
                "nobody knows which Poseidon this device obeys: {broken}; at the device 'triton trust accept' or \
                 'triton trust reset' makes it known"
            ));
        }
        let bound = self.bound_to();
        let Some(signature) = message.signature.as_deref() else {
            return untrusted(format!(
                "it is not signed, and this device obeys only the key {bound}"
            ));
        };
        let Some(key) = keys.iter().find(|key| key.id() == signature.key_id) else {
            return untrusted(format!(
                "it is signed by the key {}, and this device obeys only {bound}",
                signature.key_id
            ));
        };
        let Some(session) = self.session.as_mut().filter(|s| key.wrote(message, &s.id)) else {
            return untrusted(
                "its signature is not over this message on this connection".to_owned(),
            );
        };
        if !session.trusted {
            return untrusted(
                "this connection has not shown by its welcome that it is Poseidon's".to_owned(),
            );
        }
        let (Some(number), Some(until)) = (signature.number, signature.until) else {
            return untrusted("its signature has no number or no end (until)".to_owned());
        };
        let now = u32::try_from(session.begun.elapsed().as_secs()).unwrap_or(u32::MAX);
        if until > now.saturating_add(LONGEST) {
            return untrusted("its signature is good for longer than a day".to_owned());
        }
        if number <= session.last {
            return untrusted("it came before, or overtaken by a later one".to_owned());
        }
        session.last = number;
        if now > until {
            let code = ErrorCode::Other("expired".to_owned());
            let reason = format!("it was on its way until {} s too late", now - until);
            return Err((code, reason));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
