//! The payloads that carry content.

use serde::{Deserialize, Serialize};

/// Most bytes of content in one message.
pub const PIECE: usize = 64 * 1024;

/// `data.request`: asks for a piece of content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DataRequest {
    /// Which content.
    #[serde(rename = "ref")]
    pub reference: String,
    #[serde(default)]
    pub offset: u64,
    /// Bytes wanted; at most [`PIECE`] come at once.
    pub length: u64,
}

/// `data.response`: a piece of content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DataResponse {
    #[serde(rename = "ref")]
    pub reference: String,
    #[serde(default)]
    pub offset: u64,
    /// Base64.
    #[serde(default)]
    pub data: String,
    /// Whether nothing follows.
    #[serde(default)]
    pub eof: bool,
}
