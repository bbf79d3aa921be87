//! TLS over a socket, by the library that this build has chosen: rustls (feature `rustls`, which wins), else
//! native-tls (feature `tls`). One suite, `tests/tls.rs`, holds for both.
//!
//! The server is checked before anything is sent to it: against the system's authorities, or an own authority
//! file and nothing else, or by the pinned hash of its public key (then names and dates do not matter, since
//! the key itself is known), or by file and pin together. There is no way to turn the check off.

mod pin;
pub mod spki;

#[cfg(all(feature = "tls", not(feature = "rustls")))]
mod native;
#[cfg(all(feature = "tls", not(feature = "rustls")))]
use native::Native as Chosen;

#[cfg(feature = "rustls")]
mod rustls;
#[cfg(feature = "rustls")]
use self::rustls::Rustls as Chosen;

#[cfg(not(any(feature = "tls", feature = "rustls")))]
mod none;
#[cfg(not(any(feature = "tls", feature = "rustls")))]
use none::NoTls as Chosen;

pub use pin::{Pin, PinError};

use super::stream::{Socket, Stream};
use super::{ConnectError, Kind, Phase};
use crate::dates;
use crate::sys::clock;
use std::fmt::Write as _;
use std::path::PathBuf;

/// A clock that stands in an earlier year than this is wrong. From `SOURCE_DATE_EPOCH` at build time; without
/// it the year in which this line was last touched.
pub const BUILD_YEAR: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => year_of(number(text)),
    None => 2026,
};

/// The name of the TLS library in this build, for `--version` and `doctor`.
pub const LIBRARY: &str = <Chosen as Tls>::NAME;

/// How the server is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM file of authorities; with it the system's do not count.
    pub ca_file: Option<PathBuf>,
    /// Public keys, one of which the server must have.
    pub pins: Vec<Pin>,
}

impl TlsSettings {
    #[cfg_attr(not(any(feature = "tls", feature = "rustls")), allow(dead_code))]
    /// Whether authorities are asked: always, except where there are only pins.
    fn asks_authorities(&self) -> bool {
        self.ca_file.is_some() || self.pins.is_empty()
    }
}

/// Reads what is needed to check a server, as a connection would; the error names the file and what is wrong with it.
pub fn check(settings: &TlsSettings) -> Result<(), String> {
    match Chosen::prepare(settings) {
        Err(Problem::Other(why)) => Err(why),
        _ => Ok(()),
    }
}

/// What a TLS library must offer.
trait Tls: Sized {
    /// Its name.
    const NAME: &str;
    /// Reads what it needs to check a server.
    fn prepare(settings: &TlsSettings) -> Result<Self, Problem>;
    /// Shakes hands with `host` (a name or an address) and checks it. The socket's patience bounds it.
    fn handshake(self, host: &str, socket: Socket) -> Result<Secured, Problem>;
}

/// The outcome of a handshake.
pub(super) struct Secured {
    /// The encrypted stream.
    pub stream: Box<dyn Stream>,
    /// The server's certificate in DER.
    certificate: Vec<u8>,
    /// Version and cipher, where the library tells.
    parameters: Option<String>,
}

impl Secured {
    /// What was agreed on and with whom, for the log and `doctor`.
    pub fn describe(&self) -> String {
        let mut text = self
            .parameters
            .clone()
            .unwrap_or_else(|| LIBRARY.to_owned());
        if let Some(parts) = spki::Certificate::parse(&self.certificate) {
            if let Some(name) = parts.common_name() {
                let _ = write!(text, ", certificate of {name}");
            }
            let _ = write!(text, ", key {}", Pin::of(parts.spki));
        }
        text
    }
}

/// Why a handshake failed, in terms that both libraries share.
#[derive(Debug)]
#[cfg_attr(not(any(feature = "tls", feature = "rustls")), allow(dead_code))]
enum Problem {
    /// The time of the certificate is over.
    Expired,
    /// It has not begun.
    NotYetValid,
    /// The certificate is for these names, where the library tells.
    WrongName(Vec<String>),
    /// No known authority has signed it. With the server's key, where the library tells.
    UnknownAuthority(Option<Pin>),
    /// The key is none of the pinned ones.
    WrongPin(Option<Pin>),
    /// The server cannot prove that it holds the key of its certificate.
    NotItsKey,
    /// What came back is no TLS.
    NotTls,
    /// The server ended the connection in the handshake.
    Closed,
    /// The server refused, or both have nothing in common.
    Refused(String),
    /// Something else; a whole sentence.
    Other(String),
}

/// Secures `socket`, which keeps its patience.
pub(super) fn handshake(
    settings: &TlsSettings,
    host: &str,
    socket: Socket,
) -> Result<Secured, ConnectError> {
    // A trailing dot belongs to DNS; certificates do not have it.
    let host = host.trim_end_matches('.');
    Chosen::prepare(settings)
        .and_then(|tls| tls.handshake(host, socket))
        .map_err(|problem| explain(&problem, host, settings, clock::now(), trusted_time()))
}

/// The time that certificates are judged by, as far as the library lets us say. Not before what this device has seen
/// already: a router that boots in 1970 can connect, and then get the time from wherever it likes.
fn trusted_time() -> f64 {
    clock::trusted()
}

/// A clock that is this far behind the trusted time, in seconds, is worth a word.
const BEHIND: f64 = 60.0;

/// Why a certificate's time may look wrong: what is known about a clock that is behind.
fn behind(now: f64, trusted: f64) -> Option<String> {
    let year = clock_year(now);
    if year < BUILD_YEAR {
        Some(format!("stands in the year {year} and is wrong"))
    } else if trusted - now > BEHIND {
        let (now, seen) = (dates::utc(now), dates::utc(trusted));
        Some(format!("says {now} and is behind: it was {seen} already"))
    } else {
        None
    }
}

fn explain(
    problem: &Problem,
    host: &str,
    settings: &TlsSettings,
    now: f64,
    trusted: f64,
) -> ConnectError {
    let mut kind = Kind::Other;
    let mut wrong_time = |text: &str| match (behind(now, trusted), problem) {
        (Some(how), _) => {
            kind = Kind::Clock;
            format!(
                "{text}, but this device's clock {how}: set it (NTP); then this is tried again at once"
            )
        }
        (None, Problem::NotYetValid) => {
            kind = Kind::Clock;
            let now = dates::utc(now);
            format!(
                "{text}: this device's clock may be behind, it says {now}. Set it (NTP), and this is tried again at \
                 once; if it is right, the server's certificate is made for later"
            )
        }
        (None, _) => {
            let now = dates::utc(now);
            format!("{text} (the clock here says {now}): renew it on the server, or set the clock")
        }
    };
    let message = match problem {
        Problem::Expired => wrong_time("the server's certificate has expired"),
        Problem::NotYetValid => wrong_time("the server's certificate is not valid yet"),
        Problem::WrongName(names) if names.is_empty() => format!(
            "the server's certificate is for another host than {host}: use the name that it is for, or pin its key"
        ),
        Problem::WrongName(names) => format!(
            "the server's certificate is for {}, not for {host}: use the name that it is for, or pin its key",
            names.iter().take(5).cloned().collect::<Vec<_>>().join(", ")
        ),
        Problem::UnknownAuthority(key) => {
            let mut text = match &settings.ca_file {
                Some(file) => format!(
                    "the server's certificate is not signed by an authority in {}",
                    file.display()
                ),
                None => "the server's certificate is not signed by an authority that this system knows: install \
                     them (package ca-certificates; on OpenWrt ca-bundle), name an own one (ca-file), or pin the \
                     server's key"
                    .into(),
            };
            if let Some(key) = key {
                let _ = write!(text, "; its key is {key}");
            }
            text
        }
        Problem::WrongPin(key) => match key {
            Some(key) => format!(
                "the server's key is none of the pinned ones: it is {key}. If the server has a new key, pin that; if \
                 not, somebody is in between"
            ),
            None => "the server's certificate cannot be read, so its key cannot be compared with the pin".into(),
        },
        Problem::NotItsKey => "the server does not hold the key of the certificate that it shows: its files do not fit \
             together, or somebody is in between"
            .into(),
        Problem::NotTls => "what answered there does not speak TLS: is the port right, or should the URL begin \
             with ws:// instead of wss://?"
            .into(),
        Problem::Closed => "the server closed the connection in the TLS handshake: is the port right?".into(),
        Problem::Refused(why) => format!("the TLS handshake was refused: {why}"),
        Problem::Other(text) => text.clone(),
    };
    ConnectError {
        phase: Phase::Tls,
        kind,
        message,
    }
}

/// The year in which a clock stands. Before [`BUILD_YEAR`] it is wrong.
pub fn clock_year(now: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no clock stands so far ahead, and before 1970 is as good as 1970"
    )]
    year_of(now.max(0.0) as u64)
}

/// Digits as a number, at build time.
const fn number(text: &str) -> u64 {
    let mut sum = 0;
    let mut at = 0;
    while at < text.len() {
        sum = sum * 10 + (text.as_bytes()[at] - b'0') as u64;
        at += 1;
    }
    sum
}

/// The year, for most of it: an average year has 31,556,952 seconds.
const fn year_of(seconds: u64) -> u64 {
    1970 + seconds / 31_556_952
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In 2042.
    const LATE: f64 = 2_284_000_000.0;

    fn said(problem: &Problem, now: f64, trusted: f64) -> (Kind, String) {
        let error = explain(problem, "a", &TlsSettings::default(), now, trusted);
        assert_eq!(error.phase, Phase::Tls);
        (error.kind, error.message)
    }

    #[test]
    fn a_wrong_clock_is_told_from_a_wrong_certificate() {
        for problem in [Problem::NotYetValid, Problem::Expired] {
            // Before the build.
            let (kind, text) = said(&problem, 86_400.0, 86_400.0);
            assert_eq!(kind, Kind::Clock);
            assert!(text.contains("1970") && text.contains("NTP"), "{text}");
            // Before what the journal has seen.
            let (kind, text) = said(&problem, LATE, LATE + 7.0 * 86_400.0);
            assert_eq!(kind, Kind::Clock);
            assert!(text.contains("2042-") && text.contains("behind"), "{text}");
        }
        // A clock that nothing speaks against.
        let (kind, text) = said(&Problem::NotYetValid, LATE, LATE + 1.0);
        assert_eq!(kind, Kind::Clock);
        assert!(text.contains("may be behind, it says 2042-"), "{text}");
        let (kind, text) = said(&Problem::Expired, LATE, LATE + 1.0);
        assert_eq!(kind, Kind::Other);
        assert!(text.contains("renew it on the server"), "{text}");
        // What has nothing to do with time.
        assert_eq!(said(&Problem::Closed, 0.0, LATE).0, Kind::Other);
    }

    #[test]
    fn years() {
        assert_eq!(year_of(number("784111777")), 1994);
        assert_eq!(year_of(0), 1970);
        assert_eq!(clock_year(-1e300), 1970);
        assert_eq!(clock_year(784_111_777.9), 1994);
    }
}
