//! An event as a line.

use super::{Cef, Fault, parse};
use std::fmt::{self, Write as _};

impl Cef<'_> {
    /// The line, which [`parse`] reads as the same event. An error is about that line: an event with an empty name, a line end
    /// in its header or a blank in a key cannot be written.
    pub fn line(&self) -> Result<String, Fault> {
        let line = self.to_string();
        parse(&line)?;
        Ok(line)
    }
}

/// The line, also where nothing could read it.
impl fmt::Display for Cef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CEF:{}|", self.version)?;
        for field in [
            &self.vendor,
            &self.product,
            &self.device_version,
            &self.signature,
            &self.name,
        ] {
            escape(f, field, header)?;
            f.write_char('|')?;
        }
        write!(f, "{}|", self.severity)?;
        for (n, (key, value)) in self.extension.iter().enumerate() {
            if n > 0 {
                f.write_char(' ')?;
            }
            write!(f, "{key}=")?;
            escape(f, value, extension)?;
        }
        Ok(())
    }
}

fn header(c: char) -> Option<char> {
    matches!(c, '|' | '\\').then_some(c)
}

fn extension(c: char) -> Option<char> {
    match c {
        '=' | '\\' => Some(c),
        '\n' => Some('n'),
        '\r' => Some('r'),
        _ => None,
    }
}

fn escape(f: &mut fmt::Formatter<'_>, text: &str, escape: fn(char) -> Option<char>) -> fmt::Result {
    for c in text.chars() {
        match escape(c) {
            Some(c) => {
                f.write_char('\\')?;
                f.write_char(c)?;
            }
            None => f.write_char(c)?,
        }
    }
    Ok(())
}
