//! The XML form of a message.

use super::payload::ErrorCode;
use super::sign::Signature;
use super::{Message, VERSION, text};
use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};
use std::fmt;

const ROOT: &str = "tritonMessage";
/// Longest `id` and `conversationId`, in characters.
const ID_LIMIT: usize = 128;

/// Why a document is no message. The connection lives on; the peer gets an `error` with this code and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// `too-large` or `invalid`.
    pub code: ErrorCode,
    /// What is wrong, for the peer and the log.
    pub reason: String,
    /// The conversation to answer in, where it could be read.
    pub conversation_id: Option<String>,
}

impl DecodeError {
    fn invalid(reason: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::Invalid,
            reason: reason.into(),
            conversation_id: None,
        }
    }

    /// The `error` message that tells the peer.
    pub fn to_message(&self) -> Message {
        let payload = super::payload::Error::new(self.code.clone(), &self.reason);
        match &self.conversation_id {
            Some(id) => Message::within(id, super::payload::ERROR, &payload),
            None => Message::with(super::payload::ERROR, &payload),
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for DecodeError {}

/// A field holds a character that XML 1.0 cannot carry, so that the message cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeError {
    /// The field.
    pub field: &'static str,
    /// The character.
    pub character: char,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the field {} holds U+{:04X}, which XML cannot carry; send such content in base64",
            self.field,
            u32::from(self.character)
        )
    }
}

impl std::error::Error for EncodeError {}

/// XML 1.0, production 2.
fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

pub(super) fn encode(message: &Message, briefly: bool) -> Result<String, EncodeError> {
    let payload = message.payload.as_deref();
    let mut out = String::with_capacity(200 + payload.map_or(0, |p| p.len() + p.len() / 8));
    out.push_str("<tritonMessage>");
    element(&mut out, "type", &message.kind)?;
    if !(briefly && message.version == VERSION) {
        element(&mut out, "version", &message.version.to_string())?;
    }
    element(&mut out, "id", &message.id)?;
    if !(briefly && message.conversation_id == message.id) {
        element(&mut out, "conversationId", &message.conversation_id)?;
    }
    if let Some(payload) = payload {
        element(&mut out, "payload", payload)?;
    }
    if let Some(signature) = &message.signature {
        write_signature(&mut out, signature);
    }
    out.push_str("</tritonMessage>");
    Ok(out)
}

fn write_signature(out: &mut String, signature: &Signature) {
    out.push_str("<signature");
    let mut attribute = |name: &str, value: &str| {
        for part in [" ", name, "=\"", value, "\""] {
            out.push_str(part);
        }
    };
    attribute("keyId", &signature.key_id.to_string());
    for (name, value) in [("number", signature.number), ("until", signature.until)] {
        if let Some(value) = value {
            attribute(name, &value.to_string());
        }
    }
    out.push('>');
    out.push_str(&text::encode(&signature.bytes));
    out.push_str("</signature>");
}

/// Whether a character that begins with this byte may have to be escaped or refused: control characters, markup, and
/// 0xEF, with which U+FFFE and U+FFFF begin.
fn may_need_care(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'<' | b'>' | b'&' | 0xEF)
}

fn element(out: &mut String, field: &'static str, text: &str) -> Result<(), EncodeError> {
    out.push('<');
    out.push_str(field);
    out.push('>');
    let mut rest = text;
    // By bytes up to where a character may need care: output comes through here by the megabyte.
    while let Some(at) = rest.bytes().position(may_need_care) {
        out.push_str(&rest[..at]);
        // Such a byte begins a character.
        let mut characters = rest[at..].chars();
        let Some(c) = characters.next() else { break };
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // One message per line on sockets and pipes; CR would also be read back as LF.
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            _ if is_xml_char(c) => out.push(c),
            _ => {
                return Err(EncodeError {
                    field,
                    character: c,
                });
            }
        }
        rest = characters.as_str();
    }
    out.push_str(rest);
    out.push_str("</");
    out.push_str(field);
    out.push('>');
    Ok(())
}

/// The fields, as far as they were read: an error still finds the conversation it belongs to.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    version: Option<String>,
    id: Option<String>,
    conversation_id: Option<String>,
    payload: Option<String>,
    signature: Option<String>,
    /// Attributes of the signature.
    signed: Signed,
}

/// What a signature says besides itself. Of no other element do attributes mean anything.
#[derive(Default)]
struct Signed {
    key_id: Option<String>,
    number: Option<String>,
    until: Option<String>,
}

impl Signed {
    fn take(&mut self, name: &str, value: &str) {
        let slot = match name {
            "keyId" => &mut self.key_id,
            "number" => &mut self.number,
            "until" => &mut self.until,
            _ => return,
        };
        *slot = Some(value.to_owned());
    }

    fn with(&self, base64: &str) -> Result<Signature, String> {
        let key_id = self.key_id.as_deref().and_then(|id| id.parse().ok());
        let bytes = text::decode(base64).and_then(|bytes| bytes.try_into().ok());
        // As it is written: what is signed is the number and not its digits.
        let number = |value: &Option<String>, name: &str| match value.as_deref() {
            None => Ok(None),
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => text
                .parse()
                .map(Some)
                .map_err(|_| format!("the signature's {name} is no number of 32 bits")),
            Some(_) => Err(format!("the signature's {name} is not a whole number")),
        };
        Ok(Signature {
            key_id: key_id.ok_or("the signature's keyId is not 16 hex digits")?,
            number: number(&self.number, "number")?,
            until: number(&self.until, "until")?,
            bytes: bytes.ok_or("the signature is not base64 of 64 bytes")?,
        })
    }
}

impl Fields {
    fn slot(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "type" => Some(&mut self.kind),
            "version" => Some(&mut self.version),
            "id" => Some(&mut self.id),
            "conversationId" => Some(&mut self.conversation_id),
            "payload" => Some(&mut self.payload),
            "signature" => Some(&mut self.signature),
            _ => None,
        }
    }
}

pub(super) fn decode(bytes: &[u8], limit: usize) -> Result<Message, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError {
            code: ErrorCode::TooLarge,
            ..DecodeError::invalid(format!(
                "the message has {} bytes, more than the limit of {limit}",
                bytes.len()
            ))
        });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| DecodeError::invalid(format!("invalid UTF-8 at byte {}", e.valid_up_to())))?;
    if let Some((at, c)) = text.char_indices().find(|(_, c)| !is_xml_char(*c)) {
        return Err(DecodeError::invalid(format!(
            "U+{:04X} at byte {at} is not allowed in XML",
            u32::from(c)
        )));
    }
    let mut fields = Fields::default();
    read_document(text, &mut fields)
        .and_then(|()| check(&mut fields))
        .map_err(|reason| DecodeError {
            conversation_id: conversation(&fields),
            ..DecodeError::invalid(reason)
        })
}

fn conversation(fields: &Fields) -> Option<String> {
    let named = [&fields.conversation_id, &fields.id];
    let first = named.into_iter().flatten().find(|id| !id.is_empty())?;
    (first.chars().count() <= ID_LIMIT).then(|| first.clone())
}

fn check(fields: &mut Fields) -> Result<Message, String> {
    if fields.kind.as_ref().is_none_or(String::is_empty) {
        return Err("the type is missing".to_owned());
    }
    let id = match &fields.id {
        Some(id) if !id.is_empty() => id.clone(),
        _ => return Err("the id is missing".to_owned()),
    };
    let conversation_id = match &fields.conversation_id {
        Some(conversation) if !conversation.is_empty() => conversation.clone(),
        _ => id.clone(),
    };
    for (name, value) in [("id", &id), ("conversationId", &conversation_id)] {
        let length = value.chars().count();
        if length > ID_LIMIT {
            return Err(format!(
                "the {name} has {length} characters, more than {ID_LIMIT}"
            ));
        }
    }
    let version = match fields.version.as_deref().map(str::trim) {
        None | Some("") => VERSION,
        // A number beyond all bounds is a version that nobody speaks, but a number.
        Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().unwrap_or(u32::MAX),
        Some(_) => return Err("the version is not a whole number".to_owned()),
    };
    let signature = match fields.signature.as_deref() {
        Some(base64) => Some(Box::new(fields.signed.with(base64)?)),
        None => None,
    };
    Ok(Message {
        kind: fields.kind.take().unwrap_or_default(),
        version,
        id,
        conversation_id,
        payload: fields.payload.take(),
        signature,
    })
}

/// Walks the document once, without recursion: nested unknown elements cost a counter, not stack.
fn read_document(text: &str, fields: &mut Fields) -> Result<(), String> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut depth = 0_usize;
    let mut rooted = false;
    // The field being read at depth 2; None inside an unknown element.
    let mut field: Option<String> = None;
    loop {
        let start = reader.buffer_position();
        let event = reader.read_event().map_err(|e| {
            format!(
                "not well-formed XML near byte {}: {e}",
                reader.error_position()
            )
        })?;
        match event {
            Event::Start(tag) => {
                let name = tag.name();
                let name = name.as_ref();
                depth += 1;
                let signs = depth == 2 && name == "signature";
                // Others mean nothing here, but a document with broken ones is no XML.
                for attribute in tag.attributes() {
                    let attribute = attribute
                        .map_err(|e| format!("broken attribute near byte {start}: {e}"))?;
                    if signs {
                        fields.signed.take(attribute.key.as_ref(), &attribute.value);
                    }
                }
                match depth {
                    1 if rooted => return Err("a second root element".to_owned()),
                    1 if name != ROOT => {
                        return Err(format!("the root element is not {ROOT}"));
                    }
                    1 => rooted = true,
                    2 => {
                        if let Some(slot) = fields.slot(name) {
                            if slot.is_some() {
                                return Err(format!("the field {name} stands twice"));
                            }
                            *slot = Some(String::new());
                            field = Some(name.to_owned());
                        }
                    }
                    _ if field.is_some() => {
                        return Err(format!(
                            "an element inside the field {}: write it as text, with references or CDATA",
                            field.unwrap_or_default()
                        ));
                    }
                    _ => {}
                }
            }
            Event::End(_) => {
                depth -= 1;
                if depth == 1 {
                    field = None;
                }
            }
            Event::Text(text) => append(fields, field.as_deref(), depth, &text.xml10_content())?,
            Event::CData(data) => {
                if depth == 0 {
                    return Err("text outside the root element".to_owned());
                }
                append(fields, field.as_deref(), depth, &data.xml10_content())?;
            }
            Event::GeneralRef(reference) => {
                let c = resolve(&reference)?;
                if depth == 0 {
                    return Err("text outside the root element".to_owned());
                }
                append(fields, field.as_deref(), depth, c.encode_utf8(&mut [0; 4]))?;
            }
            Event::Decl(_) if start == 0 => {}
            Event::Decl(_) => return Err("an XML declaration that is not at the start".to_owned()),
            Event::DocType(_) => return Err("a DOCTYPE is not accepted".to_owned()),
            Event::Comment(_) | Event::PI(_) => {}
            Event::Empty(_) => unreachable!("expand_empty_elements is on"),
            Event::Eof => break,
        }
    }
    if depth > 0 {
        return Err("the document ends before its root element does".to_owned());
    }
    if !rooted {
        return Err("there is no XML element".to_owned());
    }
    Ok(())
}

/// Text belongs to the field around it; between fields only white space may stand.
fn append(
    fields: &mut Fields,
    field: Option<&str>,
    depth: usize,
    text: &str,
) -> Result<(), String> {
    if let Some(slot) = field.and_then(|name| fields.slot(name)) {
        slot.get_or_insert_default().push_str(text);
    } else if depth <= 1 && !text.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
        let place = if depth == 0 {
            "outside the root element"
        } else {
            "between the fields"
        };
        return Err(format!("text {place}"));
    }
    Ok(())
}

pub(super) fn resolve(reference: &BytesRef<'_>) -> Result<char, String> {
    let broken = |e| format!("broken character reference: {e}");
    if let Some(c) = reference.resolve_char_ref().map_err(broken)? {
        return if is_xml_char(c) {
            Ok(c)
        } else {
            Err(format!(
                "a reference to U+{:04X}, which XML does not allow",
                u32::from(c)
            ))
        };
    }
    match reference.xml10_content().as_ref() {
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "amp" => Ok('&'),
        "apos" => Ok('\''),
        "quot" => Ok('"'),
        _ => Err("an entity other than lt, gt, amp, apos, quot".to_owned()),
    }
}

#[cfg(test)]
#[path = "xml_tests.rs"]
mod tests;
