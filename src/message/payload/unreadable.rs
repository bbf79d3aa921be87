//! Why something cannot be read as what it should be.

use serde::de;
use std::fmt;

/// Characters of a field's name that an error repeats.
const NAME: usize = 64;

/// Why JSON or XML cannot be read as a type, and where in it. In a box, since it is returned from everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(Box<Why>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Why {
    /// Such as `entries[2].mode`; empty where it is the whole.
    place: String,
    reason: String,
}

impl Unreadable {
    /// It is about the value of this field.
    pub(super) fn in_field(self, name: &str) -> Self {
        let end = name.char_indices().nth(NAME);
        self.within(&name[..end.map_or(name.len(), |(end, _)| end)])
    }

    /// It is about this item of a list.
    pub(super) fn in_item(self, index: usize) -> Self {
        self.within(&format!("[{index}]"))
    }

    fn within(mut self, outer: &str) -> Self {
        let place = &self.0.place;
        let dot = if place.is_empty() || place.starts_with('[') {
            ""
        } else {
            "."
        };
        self.0.place = format!("{outer}{dot}{place}");
        self
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Why { place, reason } = &*self.0;
        if !place.is_empty() {
            write!(f, "{place}: ")?;
        }
        f.write_str(reason)
    }
}

impl std::error::Error for Unreadable {}

impl de::Error for Unreadable {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self(Box::new(Why {
            place: String::new(),
            reason: reason.to_string(),
        }))
    }

    /// serde knows the names that types have in the program.
    fn invalid_type(seen: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = expected.to_string();
        let expected = match &*expected {
            "i32" | "i64" => "a whole number",
            "u32" | "u64" | "usize" => "a whole number not below 0",
            "f64" => "a number",
            name if name.starts_with("struct ") => "an object",
            name => name,
        };
        Self::custom(format_args!("invalid type: {seen}, expected {expected}"))
    }
}
