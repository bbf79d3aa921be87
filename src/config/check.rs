//! What settings may be. The texts say what is allowed and never repeat a secret.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Most labels, and longest text of one, so that `hello` stays small.
const LABELS: usize = 64;
const LABEL_LENGTH: usize = 256;
/// Most extensions with an interpreter.
const INTERPRETERS: usize = 64;
/// Most files that are followed, and longest path of one.
const FOLLOWED: usize = 16;
const PATH_LENGTH: usize = 1_024;
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

/// Where datagrams are taken. A port alone is that of the loopback: who wants more says so.
pub(super) fn datagram_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse().ok().filter(|port| *port > 0);
    let alone = port.map(|port: u16| SocketAddr::from(([127, 0, 0, 1], port)));
    alone.or_else(|| text.parse().ok()).ok_or_else(|| {
        "expected an address and a port, such as 127.0.0.1:514, 0.0.0.0:514 or [::]:514, or a port alone"
            .to_owned()
    })
}

/// Where other agents connect.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().ok().filter(|at: &SocketAddr| at.port() != 0);
    address.ok_or_else(|| {
        "expected an address of this device and a port, such as 192.168.1.1:8118 or [fd00::1]:8118"
            .to_owned()
    })
}

/// Files that are followed.
pub(super) fn followed(paths: Vec<String>) -> Result<Vec<PathBuf>, String> {
    if paths.len() > FOLLOWED {
        return Err(format!("expected at most {FOLLOWED} files"));
    }
    for (n, path) in paths.iter().enumerate() {
        if !path.starts_with('/') || path.len() > PATH_LENGTH || path.chars().any(char::is_control)
        {
            return Err(format!(
                "expected absolute paths of at most {PATH_LENGTH} bytes without control characters"
            ));
        }
        if paths[..n].contains(path) {
            return Err("one of the files is there twice".to_owned());
        }
    }
    Ok(paths.into_iter().map(PathBuf::from).collect())
}

/// A list in one text, by comma.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}
