//! Gives an agent the content that it asks for, a piece at a time and behind all other traffic.

use super::Key;
use super::connection::{Bond, Connection};
use super::named::{Manifests, hash_of};
use super::session::Session;
use crate::blobs::is_hash;
use crate::jobs::Live;
use crate::server::App;
use crate::store::named::Content;
use serde::Deserialize;
use serde_json::Value;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;
use triton::message::payload::{self, DataRequest, DataResponse, ErrorCode, PIECE};
use triton::message::{Message, seal, text};

/// Requests of one agent that wait: many times its window.
const QUEUE: usize = 1024;
/// Longest `ref`, in bytes.
const REFERENCE: usize = 512;
const ATTRIBUTES: &str = "attributes";
const ATTRIBUTE: &str = "attribute/";

type Refusal = (ErrorCode, String);

/// Answers the requests of one connection in their order, beside its session.
pub(super) struct Provider(mpsc::Sender<Asked>);

struct Asked {
    message: Message,
    request: DataRequest,
    /// The open job that it asks for.
    job: Option<Arc<Live>>,
    /// The key that the answer is to be sealed to.
    key: Option<String>,
}

impl Provider {
    /// Ends when it is dropped, or the connection is.
    fn start(app: &Arc<App>, connection: &Arc<Connection>, key: &Key) -> Self {
        let (queue, mut requests) = mpsc::channel::<Asked>(QUEUE);
        let (app, connection, key) = (app.clone(), connection.clone(), key.clone());
        tokio::spawn(async move {
            while let Some(asked) = requests.recv().await {
                let bond = connection.bond();
                let answer = match piece(&app, &key, &asked, bond.as_deref()).await {
                    Ok(answer) => answer,
                    Err((code, reason)) => asked.message.reply_error(code, reason),
                };
                let Ok(text) = answer.encode() else {
                    log::error!("an answer with content cannot be written");
                    continue;
                };
                if !connection.send_content(text).await {
                    return;
                }
            }
        });
        Self(queue)
    }
}

impl Session<'_> {
    /// Takes a `data.request`; it is answered when its turn comes.
    pub(super) async fn provide(&mut self, key: &Key, message: Message, job: Option<Arc<Live>>) {
        let request = match message.read::<DataRequest>() {
            Ok(request) if is_reference(&request.reference) => request,
            Ok(_) => {
                let text = format!("a ref has at most {REFERENCE} bytes and no control characters");
                return self.complain(&message, &text).await;
            }
            Err(e) => return self.complain(&message, &e.to_string()).await,
        };
        // The key counts only where the device has signed it: else anybody could have put his own there.
        let sealing = message.read::<Sealing>().unwrap_or_default();
        let bond = self.connection.bond();
        let signed = bond
            .as_ref()
            .is_some_and(|bond| bond.device.wrote(&message, &bond.session));
        if sealing.key.is_some() && !signed {
            let text = "the key is not signed by the device's own";
            let reply = message.reply_error(ErrorCode::Untrusted, text);
            return self.connection.send_waiting(&reply).await;
        }
        let asked = Asked {
            key: sealing.key,
            // Of the message only who asked matters from here on.
            message: Message {
                payload: None,
                signature: None,
                ..message
            },
            request,
            job,
        };
        let provider = self
            .provider
            .get_or_insert_with(|| Provider::start(self.app, self.connection, key));
        if let Err(e) = provider.0.try_send(asked) {
            let text = format!("more than {QUEUE} requests wait for an answer");
            let reply = e.into_inner().message.reply_error(ErrorCode::Busy, text);
            self.connection.send_waiting(&reply).await;
        }
    }
}

fn is_reference(text: &str) -> bool {
    text.len() <= REFERENCE && !text.contains(char::is_control)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Sealing {
    key: Option<String>,
}

async fn piece(
    app: &Arc<App>,
    key: &Key,
    asked: &Asked,
    bond: Option<&Bond>,
) -> Result<Message, Refusal> {
    let DataRequest {
        reference,
        offset,
        length,
    } = &asked.request;
    let content = find(app, key, reference, asked.job.as_deref()).await?;
    let pinned = bond.is_some_and(|bond| bond.pinned);
    if pinned
        && asked.key.is_none()
        && asked.job.is_none()
        && is_secret(app, key, reference).await?
    {
        let text = format!("{reference:?} is a secret, which goes to this device sealed only");
        return Err((ErrorCode::Untrusted, text));
    }
    let (offset, length) = (*offset, (*length).min(PIECE as u64));
    let length = usize::try_from(length).unwrap_or(PIECE);
    let shared = app.clone();
    // What a name stands for may be replaced between two pieces; what a hash stands for may not.
    let by_name = hash_of(reference).is_none();
    let read = tokio::task::spawn_blocking(move || {
        let (bytes, eof) = content.read_at(&shared.blobs, offset, length)?;
        Ok((bytes, eof, by_name.then(|| content.sha256())))
    });
    let (bytes, eof, sha256) = read
        .await
        .map_err(io::Error::other)
        .and_then(|read| read)
        .map_err(|e| failed(reference, &e))?;
    let mut response = DataResponse {
        reference: reference.clone(),
        offset,
        data: String::new(),
        eof,
        sha256,
    };
    let (Some(bond), Some(to)) = (bond, asked.key.as_deref().filter(|_| by_name)) else {
        response.data = text::encode(&bytes);
        return Ok(asked.message.reply(payload::DATA_RESPONSE, &response));
    };
    let invalid = |e: String| (ErrorCode::Invalid, e);
    // The hash goes under the seal too: a short secret could be guessed by it.
    let sha256 = response.sha256.take().unwrap_or_default();
    let sealed = seal::seal(to, &sha256, &bytes, reference, offset).map_err(invalid)?;
    let value = serde_json::to_value(&response).map_err(|e| invalid(e.to_string()))?;
    let Value::Object(mut fields) = value else {
        return Err(invalid("an answer is an object".to_owned()));
    };
    fields.remove("data");
    fields.insert("key".to_owned(), sealed.key.into());
    fields.insert("sealed".to_owned(), sealed.sealed.into());
    let mut answer = asked.message.reply(payload::DATA_RESPONSE, &fields);
    bond.own.key.sign(&mut answer, &bond.session);
    Ok(answer)
}

async fn is_secret(app: &App, key: &Key, name: &str) -> Result<bool, Refusal> {
    if hash_of(name).is_some() || name == ATTRIBUTES || name.starts_with(ATTRIBUTE) {
        return Ok(false);
    }
    let shown = app.data.show(&key.identifier, name).await;
    match shown {
        Ok(shown) => Ok(shown.is_some_and(|(entry, _)| entry.secret)),
        Err(e) => Err((ErrorCode::Io, e.to_string())),
    }
}

/// What a `ref` means to this agent.
async fn find(
    app: &Arc<App>,
    key: &Key,
    reference: &str,
    job: Option<&Live>,
) -> Result<Content, Refusal> {
    let missing = |reason: String| Err((ErrorCode::NotFound, reason));
    if let Some(hash) = hash_of(reference) {
        if !is_hash(hash) {
            let text = format!("{reference:?} is no ref: 64 hex digits follow sha256:");
            return Err((ErrorCode::Invalid, text));
        }
        let Some(job) = job else {
            return missing(format!(
                "{reference} belongs to no open job of this agent in this conversation"
            ));
        };
        let named = Manifests::named(app, job)
            .await
            .map_err(|e| failed("the manifest", &e))?;
        if !named.has(hash) {
            return missing(format!("this job does not name {reference}"));
        }
        return Ok(Content::Blob(hash.to_owned()));
    }
    if job.is_some() {
        return missing(format!(
            "{reference:?} is no content of this job: data by name is asked for in a conversation of its own"
        ));
    }
    let attributes = || {
        let settings = app.registry.settings(&key.identifier);
        settings
            .map(|(_, attributes)| attributes)
            .unwrap_or_default()
    };
    if reference == ATTRIBUTES {
        let json = serde_json::to_vec(&attributes());
        return json
            .map(Content::Value)
            .map_err(|e| (ErrorCode::Io, e.to_string()));
    }
    if let Some(name) = reference.strip_prefix(ATTRIBUTE) {
        return match attributes().remove(name) {
            Some(value) => Ok(Content::Value(value.into_bytes())),
            None => missing(format!("this device has no attribute {name:?}")),
        };
    }
    match app.data.get(&key.identifier, reference).await {
        Ok(Some(content)) => Ok(content),
        Ok(None) => missing(format!("this device was given nothing named {reference:?}")),
        Err(e) => Err((ErrorCode::Io, e.to_string())),
    }
}

fn failed(what: &str, e: &io::Error) -> Refusal {
    if e.kind() == io::ErrorKind::NotFound {
        let text = format!("Poseidon does not have {what} any more: push it again");
        return (ErrorCode::NotFound, text);
    }
    log::error!("{what} cannot be read: {e}");
    (ErrorCode::Io, format!("Poseidon cannot read {what}: {e}"))
}
