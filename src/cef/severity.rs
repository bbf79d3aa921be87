//! How bad an event is.

use std::fmt;

/// A number or a word, as the line has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Severity {
    /// 0 to 10.
    Number(u8),
    Unknown,
    Low,
    Medium,
    High,
    VeryHigh,
}

impl Severity {
    /// Reads it; numbers without leading zeros, words as the standard writes them.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "Unknown" => Self::Unknown,
            "Low" => Self::Low,
            "Medium" => Self::Medium,
            "High" => Self::High,
            "Very-High" => Self::VeryHigh,
            "10" => Self::Number(10),
            _ => match text.as_bytes() {
                [digit @ b'0'..=b'9'] => Self::Number(digit - b'0'),
                _ => return None,
            },
        })
    }

    /// As a number; a word is the highest of its numbers, so that who looks for "at least" misses nothing. `Unknown` has
    /// none.
    pub fn number(self) -> Option<u8> {
        match self {
            Self::Number(n) => Some(n),
            Self::Unknown => None,
            Self::Low => Some(3),
            Self::Medium => Some(6),
            Self::High => Some(8),
            Self::VeryHigh => Some(10),
        }
    }

    /// As a word: 0 to 3 are low, to 6 medium, to 8 high.
    pub fn word(self) -> &'static str {
        match self.number() {
            None => "Unknown",
            Some(0..=3) => "Low",
            Some(4..=6) => "Medium",
            Some(7..=8) => "High",
            Some(_) => "Very-High",
        }
    }
}

/// As it was read.
impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            _ => f.write_str(self.word()),
        }
    }
}
