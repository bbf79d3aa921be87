//! Bytes of any kind as text that JSON and XML can carry: `{data, encoding}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How `data` holds its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As they are.
    #[default]
    Utf8,
    /// In base64 (RFC 4648, with padding).
    Base64,
}

/// Bytes as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// The text, or the base64 of the bytes.
    pub data: String,
    /// Which of the two.
    #[serde(default)]
    pub encoding: Encoding,
}

impl Data {
    /// Text where the bytes are clean UTF-8, base64 where not.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (data, encoding) = carried(bytes);
        Self {
            data: data.into_owned(),
            encoding,
        }
    }

    /// The bytes; `None` where the base64 is wrong.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self.encoding {
            Encoding::Utf8 => Some(self.data.into_bytes()),
            Encoding::Base64 => decode(&self.data),
        }
    }
}

/// The bytes as they travel: themselves where they are clean UTF-8, base64 where not.
pub fn carried(bytes: &[u8]) -> (Cow<'_, str>, Encoding) {
    match std::str::from_utf8(bytes) {
        Ok(text) if is_clean(text) => (text.into(), Encoding::Utf8),
        _ => (encode(bytes).into(), Encoding::Base64),
    }
}

/// Whether XML 1.0 can carry `text` inside JSON, which escapes the other control characters. NUL is refused
/// everywhere: too many programs end a string there.
fn is_clean(text: &str) -> bool {
    !text.as_bytes().contains(&0) && !has_noncharacters(text)
}

/// Whether there are U+FFFE or U+FFFF in it, which XML 1.0 cannot carry.
pub(super) fn has_noncharacters(text: &str) -> bool {
    // Both begin with 0xEF, and output comes through here by the megabyte: a byte is found much faster.
    text.as_bytes().contains(&0xEF) && text.contains(['\u{FFFE}', '\u{FFFF}'])
}

/// Length of the longest prefix of `bytes` that does not cut a UTF-8 character in two. Where the rest cannot
/// become a character, all of `bytes`.
pub fn whole_characters(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let start = bytes.len() - back;
        let needed = match bytes[start] {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        return if needed > back { start } else { bytes.len() };
    }
    bytes.len()
}

/// Base64 of `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes behind base64 text; white space, as in line-wrapped base64, is skipped.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    if text.bytes().any(|b| b.is_ascii_whitespace()) {
        let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        return STANDARD.decode(compact).ok();
    }
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Data::from_bytes(&bytes).into_bytes().unwrap(), bytes);
        }

        #[test]
        fn cutting_at_whole_characters_keeps_text_text(text in "\\PC{0,40}", cut in 0usize..200) {
            let bytes = &text.as_bytes()[..cut.min(text.len())];
            let whole = whole_characters(bytes);
            prop_assert!(bytes.len() - whole <= 3);
            prop_assert!(std::str::from_utf8(&bytes[..whole]).is_ok());
        }
    }

    #[test]
    fn only_unclean_bytes_become_base64() {
        assert_eq!(
            Data::from_bytes("é\u{1b}[0m\r\n".as_bytes()).encoding,
            Encoding::Utf8
        );
        for bytes in [
            &b"\xff"[..],
            b"a\0b",
            "\u{FFFE}".as_bytes(),
            "\u{FFFF}".as_bytes(),
        ] {
            assert_eq!(Data::from_bytes(bytes).encoding, Encoding::Base64);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_not_held_back() {
        assert_eq!(whole_characters(b"ab\xff"), 3);
        assert_eq!(whole_characters(b"\x80\x80\x80\x80"), 4);
        assert_eq!(whole_characters("ab€".as_bytes()), 5);
        assert_eq!(whole_characters(&"ab€".as_bytes()[..4]), 2);
    }
}
