//! The payloads that carry content.

use serde::{Deserialize, Serialize};

/// Most bytes of content in one message.
pub const PIECE: usize = 64 * 1024;

/// `scripts.sync`: what a revision consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// Its name.
    pub revision: String,
    #[allow(missing_docs)]
    pub files: Vec<ScriptFile>,
}

/// One of its files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ScriptFile {
    /// Relative.
    pub path: String,
    pub sha256: String,
    pub size: u64,
    /// Octal; 0755 where it is absent.
    pub mode: Option<String>,
}

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
    /// Of the whole content, in hex, where that may change between two pieces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}
