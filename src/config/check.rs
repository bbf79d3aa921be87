//! What settings may be. The texts say what is allowed and never repeat a secret.

use std::collections::BTreeMap;
use std::path::Path;

/// Most labels, and longest text of one, so that `hello` stays small.
const LABELS: usize = 64;
const LABEL_LENGTH: usize = 256;
/// Most extensions with an interpreter.
const INTERPRETERS: usize = 64;
/// `sockaddr_un` holds 108 bytes with a closing NUL.
const SOCKET_LENGTH: usize = 107;

pub(super) fn url(text: &str) -> Result<(), String> {
    text.parse::<crate::link::Target>()
        .map(|_| ())
        .map_err(|e| format!("the url {e}"))
}

pub(super) fn socket_length(path: &Path) -> Result<(), String> {
    if path.as_os_str().len() <= SOCKET_LENGTH {
        return Ok(());
    }
    Err(format!(
        "expected a path of at most {SOCKET_LENGTH} bytes, the system's limit for sockets"
    ))
}

pub(super) fn labels(labels: &BTreeMap<String, String>) -> Result<(), String> {
    let short = |s: &String| !s.is_empty() && s.len() <= LABEL_LENGTH;
    if labels.len() > LABELS || !labels.iter().all(|(k, v)| short(k) && short(v)) {
        return Err(format!(
            "expected at most {LABELS} labels with names and values of 1 to {LABEL_LENGTH} bytes"
        ));
    }
    Ok(())
}

pub(super) fn interpreters(table: &BTreeMap<String, String>) -> Result<(), String> {
    let sound = |(extension, program): (&String, &String)| {
        !extension.is_empty()
            && extension.bytes().all(|b| b.is_ascii_alphanumeric())
            && !program.is_empty()
            && !program.contains('\0')
    };
    if table.len() > INTERPRETERS || !table.iter().all(sound) {
        return Err(format!(
            "expected at most {INTERPRETERS} extensions without dot, each with a program, such as lua = \"/usr/bin/lua\""
        ));
    }
    Ok(())
}

/// A command without a shell.
pub(super) fn words(words: &[String]) -> Result<(), String> {
    let sound = |word: &String| !word.contains('\0');
    if words.first().is_none_or(String::is_empty) || !words.iter().all(sound) {
        return Err(
            "expected a program and its arguments, such as [\"reboot\", \"-d\", \"5\"]".to_owned(),
        );
    }
    Ok(())
}

pub(super) fn pin(text: &str) -> Result<(), String> {
    text.parse::<crate::link::tls::Pin>()
        .map(|_| ())
        .map_err(|e| format!("the pin {e}"))
}

/// An Ed25519 public key in base64.
pub fn public_key(text: &str) -> Result<[u8; 32], String> {
    crate::message::text::decode(text.trim())
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "expected an Ed25519 public key: 32 bytes in base64".to_owned())
}

pub(super) fn proxy_url(text: &str) -> Result<(), String> {
    if text == "none" {
        return Ok(());
    }
    text.parse::<crate::link::Proxy>()
        .map(|_| ())
        .map_err(|e| format!("the proxy {e}"))
}

/// A list in one text, by comma.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}
