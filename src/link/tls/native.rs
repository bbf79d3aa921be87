//! TLS by native-tls, which is OpenSSL on Linux.
//!
//! native-tls finds the system's authorities by itself, also for an OpenSSL that was built from source: it
//! tries `SSL_CERT_FILE` and `SSL_CERT_DIR`, then the places where the distributions keep them.

use super::{Pin, Problem, Secured, Tls, TlsSettings};
use crate::link::stream::{Patience, Socket, Stream};
use native_tls::{Certificate, HandshakeError, Protocol, TlsConnector, TlsStream};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub struct Native {
    connector: TlsConnector,
    pins: Vec<Pin>,
}

impl Tls for Native {
    const NAME: &str = "native-tls (OpenSSL)";

    fn prepare(settings: &TlsSettings) -> Result<Self, Problem> {
        let key = Key::of(settings);
        let known = match &*cache() {
            Some((of, connector)) if *of == key => Some(connector.clone()),
            _ => None,
        };
        let connector = if let Some(connector) = known {
            connector
        } else {
            let connector = build(settings)?;
            *cache() = Some((key, connector.clone()));
            connector
        };
        Ok(Self {
            connector,
            pins: settings.pins.clone(),
        })
    }

    fn handshake(self, host: &str, socket: Socket) -> Result<Secured, Problem> {
        let stream = match self.connector.connect(host, socket) {
            Ok(stream) => stream,
            Err(HandshakeError::Failure(error)) => {
                let problem = problem(&error.to_string());
                if matches!(problem, Problem::UnknownAuthority(_)) {
                    // The system's authorities may have changed since they were read.
                    *cache() = None;
                }
                return Err(problem);
            }
            // A patient socket waits instead.
            Err(HandshakeError::WouldBlock(_)) => return Err(Problem::Closed),
        };
        let certificate = match stream.peer_certificate() {
            Ok(Some(certificate)) => certificate.to_der().unwrap_or_default(),
            _ => Vec::new(),
        };
        if !self.pins.is_empty() {
            let key = Pin::of_certificate(&certificate);
            if !key.is_some_and(|key| self.pins.contains(&key)) {
                return Err(Problem::WrongPin(key));
            }
        }
        Ok(Secured {
            stream: Box::new(NativeStream(stream)),
            certificate,
            parameters: None,
        })
    }
}

/// The connector of the last handshake. native-tls reads the system's authorities for each new one, even where
/// they are not wanted: with Debian's 140 some 90 ms on a PC, and a router's processor is far slower.
static CACHE: Mutex<Option<(Key, TlsConnector)>> = Mutex::new(None);

fn cache() -> MutexGuard<'static, Option<(Key, TlsConnector)>> {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a connector was built from.
#[derive(PartialEq)]
struct Key {
    settings: TlsSettings,
    file_changed: Option<SystemTime>,
}

impl Key {
    fn of(settings: &TlsSettings) -> Self {
        let metadata = settings
            .ca_file
            .as_ref()
            .and_then(|file| std::fs::metadata(file).ok());
        Self {
            settings: settings.clone(),
            file_changed: metadata.and_then(|metadata| metadata.modified().ok()),
        }
    }
}

fn build(settings: &TlsSettings) -> Result<TlsConnector, Problem> {
    let mut builder = TlsConnector::builder();
    builder.min_protocol_version(Some(Protocol::Tlsv12));
    if let Some(file) = &settings.ca_file {
        let unreadable =
            |why: String| Problem::Other(format!("the authority file {}: {why}", file.display()));
        let pem = std::fs::read(file).map_err(|error| unreadable(error.to_string()))?;
        let found = Certificate::stack_from_pem(&pem)
            .map_err(|error| unreadable(format!("is no PEM file of certificates: {error}")))?;
        if found.is_empty() {
            return Err(unreadable("holds no certificate".into()));
        }
        builder.disable_built_in_roots(true);
        for certificate in found {
            builder.add_root_certificate(certificate);
        }
    }
    if !settings.asks_authorities() {
        // The pin takes the place of authority, name and dates; `handshake` compares it. That the server holds
        // the key is part of every handshake, whatever is accepted here.
        builder.disable_built_in_roots(true);
        builder.danger_accept_invalid_certs(true);
        builder.danger_accept_invalid_hostnames(true);
    }
    let built = builder.build();
    built.map_err(|error| Problem::Other(format!("OpenSSL does not start: {error}")))
}

/// native-tls passes on only OpenSSL's text: the reason of the failure, and in parentheses the outcome of the
/// certificate's check, which says nothing where that was not the reason. The words are the same from 1.1.1 to
/// 3.6 but for a hyphen and a capital; an OpenSSL built without error strings gives the reason's number only.
fn problem(text: &str) -> Problem {
    let (reason, check) = match text.rsplit_once(" (") {
        Some((reason, check)) if text.ends_with(')') => (reason, check),
        _ => (text, ""),
    };
    let is = |pieces: &[&str]| pieces.iter().any(|piece| reason.contains(piece));
    if is(&["certificate verify failed", "reason(134)"]) {
        let is = |pieces: &[&str]| pieces.iter().any(|piece| check.contains(piece));
        if is(&["has expired"]) {
            Problem::Expired
        } else if is(&["not yet valid"]) {
            Problem::NotYetValid
        } else if is(&["ostname mismatch", "IP address mismatch"]) {
            Problem::WrongName(Vec::new())
        } else if is(&[
            "self-signed",
            "self signed",
            "unable to",
            "signature failure",
        ]) {
            // A signature fails where an authority has the same name and another key.
            Problem::UnknownAuthority(None)
        } else {
            let check = check.trim_end_matches(')');
            Problem::Other(format!("the server's certificate is refused: {check}"))
        }
    } else if is(&["bad signature", "reason(123)"]) {
        Problem::NotItsKey
    } else if is(&[
        "wrong version number",
        "http request",
        "packet length too long",
        "reason(267)",
    ]) {
        Problem::NotTls
    } else if is(&["alert", "unsupported protocol", "no shared cipher"]) {
        Problem::Refused(reason.to_owned())
    } else if is(&["unexpected EOF", "eof while reading", "reset by peer"]) {
        Problem::Closed
    } else {
        Problem::Other(format!("the TLS handshake failed: {reason}"))
    }
}

struct NativeStream(TlsStream<Socket>);

impl Read for NativeStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // OpenSSL 3 has only words for a peer that goes without the farewell of TLS.
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Other if error.to_string().contains("unexpected eof") => {
                io::ErrorKind::UnexpectedEof.into()
            }
            _ => error,
        })
    }
}

impl Write for NativeStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl AsFd for NativeStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

impl Stream for NativeStream {
    fn set_patience(&mut self, patience: Option<Patience>) {
        self.0.get_mut().set_patience(patience);
    }
}
