//! Pinned public keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// SHA-256 of a server's public key (its `SubjectPublicKeyInfo`). It outlives the certificate: a renewed one
/// with the same key still fits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of a `SubjectPublicKeyInfo` in DER.
    pub fn of(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }

    /// The pin of the key in a certificate in DER; `None` where it cannot be read.
    #[cfg_attr(not(any(feature = "tls", feature = "rustls")), allow(dead_code))]
    pub(super) fn of_certificate(der: &[u8]) -> Option<Self> {
        super::spki::Certificate::parse(der).map(|certificate| Self::of(certificate.spki))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256//{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A pin cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinError;

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is no pin: write sha256//BASE64 (as curl does) or 64 hex digits of the SHA-256 of the public key")
    }
}

impl std::error::Error for PinError {}

impl FromStr for Pin {
    type Err = PinError;

    /// Reads `sha256//BASE64`, `sha256:HEX` or 64 hex digits, between which colons may stand.
    fn from_str(text: &str) -> Result<Self, PinError> {
        let bytes = match text.strip_prefix("sha256//") {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| PinError)?,
            None => from_hex(text.strip_prefix("sha256:").unwrap_or(text)).ok_or(PinError)?,
        };
        Ok(Self(bytes.try_into().map_err(|_| PinError)?))
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16))
        .collect();
    let digits = digits?;
    if digits.len() != 64 {
        return None;
    }
    // Two hex digits are at most 255.
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_ways_to_write_it() {
        let pin = Pin::of(b"key");
        let hex = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";
        let pairs: Vec<&str> = (0..32).map(|n| &hex[2 * n..2 * n + 2]).collect();
        for text in [
            pin.to_string(),
            hex.to_owned(),
            hex.to_uppercase(),
            format!("sha256:{hex}"),
            pairs.join(":"),
        ] {
            assert_eq!(text.parse(), Ok(pin), "{text}");
        }
        for text in [
            "",
            "sha256//",
            "sha256//AAAA",
            "sha1:00",
            &hex[1..],
            "sha256//!",
        ] {
            assert_eq!(text.parse::<Pin>(), Err(PinError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(sha256(//|:))?\\PC{0,70}") {
            let _ = text.parse::<Pin>();
        }
    }
}
