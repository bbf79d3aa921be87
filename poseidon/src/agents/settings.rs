//! What an operator says of an identifier: its name, attributes and heartbeat. Checked, and put over what is known.

use super::identifiers::{ID_MIN, IdentifierError, Result};
use super::{fingerprint, hash};
use crate::store::Identifier;
use crate::time::now;
use std::collections::BTreeMap;
use triton::message::Message;
use triton::message::payload::{self, HEARTBEAT_SECONDS};

/// Longest name, in characters.
const NAME_LIMIT: usize = 64;
/// Attributes of one identifier.
const MAX_ATTRIBUTES: usize = 64;
/// Bytes of them all, names and texts, as `welcome` carries them. With a name, keys and the longest chain of those beside
/// them that has to fit `SMALLEST_LIMIT`, since Poseidon does not know what a device takes: one that cannot read its
/// welcome obeys nobody.
pub(super) const MAX_ATTRIBUTE_BYTES: usize = 8 << 10;

/// What is to be said of an identifier; what is absent stays.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub name: Option<String>,
    /// In place of all attributes.
    pub attributes: Option<BTreeMap<String, String>>,
    /// Attributes one by one; one without a value goes.
    pub changes: BTreeMap<String, Option<String>>,
    pub heartbeat: Heartbeat,
}

/// What becomes of the seconds between heartbeats.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Heartbeat {
    /// They stay.
    #[default]
    Stays,
    /// These; without any, as the devices ask for.
    Is(Option<u32>),
}

impl Settings {
    /// The row that they make of the known one.
    pub(super) fn over(
        self,
        hash: &str,
        known: Option<&Identifier>,
        refused: bool,
    ) -> Result<Identifier> {
        let mut row = known.cloned().unwrap_or_else(|| Identifier {
            hash: hash.to_owned(),
            name: fingerprint(hash).to_owned(),
            refused,
            created: now(),
            attributes: BTreeMap::new(),
            heartbeat: None,
        });
        row.refused = refused;
        // A name that it has is not looked at again: the rules may have been others.
        if let Some(name) = self.name.filter(|name| *name != row.name) {
            check_name(&name)?;
            row.name = name;
        }
        if let Some(attributes) = self.attributes {
            row.attributes = attributes;
        }
        for (key, value) in self.changes {
            match value {
                Some(value) => row.attributes.insert(key, value),
                None => row.attributes.remove(&key),
            };
        }
        // Nor are attributes: one that has too many can be refused all the same, or get another name.
        if known.is_none_or(|known| known.attributes != row.attributes) {
            check_attributes(&row.attributes)?;
        }
        if let Heartbeat::Is(heartbeat) = self.heartbeat {
            check_heartbeat(heartbeat)?;
            row.heartbeat = heartbeat;
        }
        Ok(row)
    }
}

/// Whether devices have to be told.
pub(super) fn differ(a: &Identifier, b: &Identifier) -> bool {
    (&a.name, &a.attributes, a.heartbeat) != (&b.name, &b.attributes, b.heartbeat)
}

/// What is shown to everybody opens no door: neither an ID nor a name is taken for an identifier.
pub(super) fn check_secret<'a>(
    text: &str,
    known: impl IntoIterator<Item = &'a Identifier>,
    pending: impl IntoIterator<Item = &'a String>,
) -> Result<()> {
    let own = hash(text);
    let digits = text.to_ascii_lowercase();
    let is_id = |hash: &str| digits.len() >= ID_MIN && hash.starts_with(&digits);
    let public = |what: String, to_do: String| {
        Err(IdentifierError::Public(format!(
            "this is {what}, which is no secret: as an identifier it would let in whoever has read it. {to_do}"
        )))
    };
    for row in known {
        let id = fingerprint(&row.hash);
        let to_do = format!("'poseidon set {id}' changes what is said of that device");
        if is_id(&row.hash) {
            return public(format!("the ID of {:?}", row.name), to_do);
        }
        if row.name == text && row.hash != own {
            return public(format!("the name of {id}"), to_do);
        }
    }
    if let Some(hash) = pending.into_iter().find(|hash| is_id(hash)) {
        let to_do = format!("'poseidon approve {}' lets it in", fingerprint(hash));
        return public(
            "the ID of a device that waits for approval".to_owned(),
            to_do,
        );
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let length = name.chars().count();
    let bad = |c: char| c == '/' || c.is_control() || is_invisible(c) || is_xml_foreign(c);
    // In an address the two are steps, and are taken before it is sent.
    let step = matches!(name, "." | "..");
    if (1..=NAME_LIMIT).contains(&length) && name.trim() == name && !name.contains(bad) && !step {
        return Ok(());
    }
    Err(IdentifierError::Invalid(format!(
        "a name has 1 to {NAME_LIMIT} visible characters, none of them a slash, and is not \".\" or \"..\""
    )))
}

/// Characters that make one name look like another.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

fn check_attributes(attributes: &BTreeMap<String, String>) -> Result<()> {
    let fits = |text: &str, limit| text.chars().count() <= limit && !text.contains(is_xml_foreign);
    if attributes.len() <= MAX_ATTRIBUTES
        && attributes
            .iter()
            .all(|(key, value)| !key.is_empty() && fits(key, 64) && fits(value, 4096))
    {
        let bytes = encoded(attributes);
        if bytes <= MAX_ATTRIBUTE_BYTES {
            return Ok(());
        }
        return Err(IdentifierError::Invalid(format!(
            "the attributes have {bytes} bytes in a message, escapes included, more than {MAX_ATTRIBUTE_BYTES}: every device \
             has to be able to take them all at once. What is longer goes by 'poseidon data put'"
        )));
    }
    Err(IdentifierError::Invalid(format!(
        "at most {MAX_ATTRIBUTES} attributes, each a name of 1 to 64 and a text of up to 4096 characters"
    )))
}

/// Bytes that attributes take in a message.
fn encoded(attributes: &BTreeMap<String, String>) -> usize {
    let size = |attributes: &BTreeMap<String, String>| {
        let message = Message::with(payload::WELCOME, attributes).encode();
        message.map_or(usize::MAX, |text| text.len())
    };
    size(attributes).saturating_sub(size(&BTreeMap::new()))
}

/// JSON leaves these as they are and XML cannot carry them.
fn is_xml_foreign(c: char) -> bool {
    matches!(c, '\u{FFFE}' | '\u{FFFF}')
}

fn check_heartbeat(seconds: Option<u32>) -> Result<()> {
    if seconds.is_none_or(|seconds| HEARTBEAT_SECONDS.contains(&seconds)) {
        return Ok(());
    }
    Err(IdentifierError::Invalid(format!(
        "a heartbeat comes every {} to {} seconds",
        HEARTBEAT_SECONDS.start(),
        HEARTBEAT_SECONDS.end()
    )))
}
