//! The Triton message: five fields, and a signature if there is one, written as one line of XML.
//!
//! This module does no I/O. `docs/protocol.md` section 1 is its specification; the format is the first
//! Triton's ("Format" in its read-me).

pub mod id;
pub mod payload;
pub mod seal;
pub mod sign;
pub mod text;
mod xml;

pub use payload::{ErrorCode, PayloadError};
pub use xml::{DecodeError, EncodeError};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Default limit for one message, in bytes of XML.
pub const DEFAULT_LIMIT: usize = 1 << 20;

/// Smallest limit that a device may set. What it has to take whatever its limit is, such as `welcome`, is no larger.
pub const SMALLEST_LIMIT: usize = 16 << 10;

/// The version that every message type of protocol 1 has.
pub const VERSION: u32 = 1;

/// One Triton message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What the message is, such as `heartbeat`.
    pub kind: String,
    /// Version of the type.
    pub version: u32,
    /// Unique id of this message.
    pub id: String,
    /// Id of the message that began the conversation.
    pub conversation_id: String,
    /// Content: JSON, or XML where it begins with `<`.
    pub payload: Option<String>,
    /// Who wrote it, where it says so. Nothing is said by its presence: it has to be checked.
    pub signature: Option<Box<sign::Signature>>,
}

impl Message {
    /// A message that begins a conversation, without payload.
    pub fn new(kind: &str) -> Self {
        let id = id::random();
        Self {
            kind: kind.to_owned(),
            version: VERSION,
            conversation_id: id.clone(),
            id,
            payload: None,
            signature: None,
        }
    }

    /// A message that begins a conversation, with a JSON payload.
    pub fn with<T: Serialize>(kind: &str, payload: &T) -> Self {
        Self {
            payload: Some(payload::to_json(payload)),
            ..Self::new(kind)
        }
    }

    /// A message in the conversation `conversation_id`.
    pub fn within<T: Serialize>(conversation_id: &str, kind: &str, payload: &T) -> Self {
        Self::bulk(conversation_id, kind, payload, payload::SMALL)
    }

    /// The same with a payload of about `size` bytes.
    pub fn bulk<T: Serialize>(conversation_id: &str, kind: &str, payload: &T, size: usize) -> Self {
        Self {
            conversation_id: conversation_id.to_owned(),
            payload: Some(payload::to_json_of(payload, size)),
            ..Self::new(kind)
        }
    }

    /// A reply to `self`.
    pub fn reply<T: Serialize>(&self, kind: &str, payload: &T) -> Self {
        Self::within(&self.conversation_id, kind, payload)
    }

    /// An `error` reply to `self`.
    pub fn reply_error(&self, code: ErrorCode, message: impl Into<String>) -> Self {
        self.reply(payload::ERROR, &payload::Error::new(code, message))
    }

    /// The `error` reply to a version of a type that is not spoken here.
    pub fn reply_unsupported_version(&self) -> Self {
        let kind: String = self.kind.chars().take(200).collect();
        let text = format!(
            "{kind} is spoken in version {VERSION} here, not {}",
            self.version
        );
        let mut error = payload::Error::new(ErrorCode::UnsupportedVersion, text);
        error.detail = Some(serde_json::json!({ "versions": [VERSION] }));
        self.reply(payload::ERROR, &error)
    }

    /// Reads the payload, JSON or XML, as `T`. A missing payload is read as an empty object.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        payload::from_text(self.payload.as_deref())
    }

    /// Reads a payload that keeps JSON as it is written, such as the records of a `history`: `read` cannot.
    pub fn read_json<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        payload::from_json_text(self.payload.as_deref())
    }

    /// Writes the message as one line of XML.
    pub fn encode(&self) -> Result<String, EncodeError> {
        xml::encode(self, false)
    }

    /// The same without what is assumed where it is absent: version 1, and the id as the conversation's. Not every
    /// reader of the first Triton's format knows that.
    pub fn encode_briefly(&self) -> Result<String, EncodeError> {
        xml::encode(self, true)
    }

    /// Reads a message from XML of at most `limit` bytes.
    pub fn decode(bytes: &[u8], limit: usize) -> Result<Self, DecodeError> {
        xml::decode(bytes, limit)
    }
}
