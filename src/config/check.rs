//! What each setting may be. The texts say what is allowed and never repeat a secret.

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Most labels, and longest text of one, so that `hello` stays small.
const LABELS: usize = 64;
const LABEL_LENGTH: usize = 256;
/// `sockaddr_un` holds 108 bytes with a closing NUL.
const SOCKET_LENGTH: usize = 107;

struct Whole<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for Whole<MIN, MAX> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<u64, E> {
        if (MIN..=MAX).contains(&n) {
            return Ok(n);
        }
        Err(E::invalid_value(Unexpected::Unsigned(n), &self))
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<u64, E> {
        match u64::try_from(n) {
            Ok(n) => self.visit_u64(n),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(n), &self)),
        }
    }
}

pub(super) fn whole<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(Whole::<MIN, MAX>)
}

/// The same for what counts or bounds things in memory.
pub(super) fn count<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<usize, D::Error> {
    usize::try_from(whole::<D, MIN, MAX>(deserializer)?).map_err(D::Error::custom)
}

struct Between<const MIN: i32, const MAX: i32>;

impl<const MIN: i32, const MAX: i32> Visitor<'_> for Between<MIN, MAX> {
    type Value = i32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<i32, E> {
        let fits = i32::try_from(n).ok().filter(|n| (MIN..=MAX).contains(n));
        fits.ok_or_else(|| E::invalid_value(Unexpected::Signed(n), &self))
    }
}

/// A number that may be negative.
pub(super) fn signed<'de, D: Deserializer<'de>, const MIN: i32, const MAX: i32>(
    deserializer: D,
) -> Result<i32, D::Error> {
    deserializer.deserialize_i64(Between::<MIN, MAX>)
}

pub(super) fn some_signed<'de, D: Deserializer<'de>, const MIN: i32, const MAX: i32>(
    deserializer: D,
) -> Result<Option<i32>, D::Error> {
    signed::<D, MIN, MAX>(deserializer).map(Some)
}

pub(super) fn heartbeat(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(n @ 1..=86_400) => Ok(n),
        _ => Err("expected a whole number from 1 to 86400, in seconds".to_owned()),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

pub(super) fn urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let urls = match OneOrMany::deserialize(deserializer) {
        Ok(OneOrMany::One(url)) => vec![url],
        Ok(OneOrMany::Many(urls)) => urls,
        Err(_) => return Err(D::Error::custom("expected a URL, or a list of them")),
    };
    urls.iter()
        .try_for_each(|u| url(u))
        .map_err(D::Error::custom)?;
    Ok(urls)
}

pub(super) fn url(text: &str) -> Result<(), String> {
    text.parse::<crate::link::Target>()
        .map(|_| ())
        .map_err(|e| format!("the url {e}"))
}

pub(super) fn identifier<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(d)?;
    crate::identity::check_identifier(&text).map_err(D::Error::custom)?;
    Ok(Some(text))
}

pub(super) fn absolute<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(d)?;
    if path.is_absolute() {
        return Ok(path);
    }
    Err(D::Error::custom("expected an absolute path"))
}

pub(super) fn some_absolute<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
    absolute(d).map(Some)
}

pub(super) fn socket<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
    let path = absolute(d)?;
    socket_length(&path).map_err(D::Error::custom)?;
    Ok(path)
}

pub(super) fn socket_length(path: &Path) -> Result<(), String> {
    if path.as_os_str().len() <= SOCKET_LENGTH {
        return Ok(());
    }
    Err(format!(
        "expected a path of at most {SOCKET_LENGTH} bytes, the system's limit for sockets"
    ))
}

pub(super) fn log_level<'de, D: Deserializer<'de>>(d: D) -> Result<log::LevelFilter, D::Error> {
    level(&String::deserialize(d)?).map_err(D::Error::custom)
}

pub(super) fn level(text: &str) -> Result<log::LevelFilter, String> {
    text.parse()
        .map_err(|_| "expected one of error, warn, info, debug, trace, off".to_owned())
}

pub(super) fn log_to(text: &str) -> Result<super::LogTo, String> {
    match text {
        "stderr" => Ok(super::LogTo::Stderr),
        "syslog" => Ok(super::LogTo::Syslog),
        _ => Err("expected one of stderr, syslog".to_owned()),
    }
}

pub(super) fn labels<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let labels = BTreeMap::<String, String>::deserialize(d)?;
    let short = |s: &String| !s.is_empty() && s.len() <= LABEL_LENGTH;
    if labels.len() > LABELS || !labels.iter().all(|(k, v)| short(k) && short(v)) {
        return Err(D::Error::custom(format!(
            "expected at most {LABELS} labels with names and values of 1 to {LABEL_LENGTH} bytes"
        )));
    }
    Ok(labels)
}

pub(super) fn pins<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let pins = Vec::<String>::deserialize(d)?;
    pins.iter()
        .try_for_each(|p| pin(p))
        .map_err(D::Error::custom)?;
    Ok(pins)
}

pub(super) fn pin(text: &str) -> Result<(), String> {
    text.parse::<crate::link::tls::Pin>()
        .map(|_| ())
        .map_err(|e| format!("the pin {e}"))
}

pub(super) fn proxy<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(d)?;
    proxy_url(&text).map_err(D::Error::custom)?;
    Ok(Some(text))
}

pub(super) fn proxy_url(text: &str) -> Result<(), String> {
    if text == "none" {
        return Ok(());
    }
    text.parse::<crate::link::Proxy>()
        .map(|_| ())
        .map_err(|e| format!("the proxy {e}"))
}
