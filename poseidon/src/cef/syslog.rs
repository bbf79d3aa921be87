//! An event as a syslog message: RFC 5424, framed by its length as RFC 5425 and RFC 6587 have it.

use crate::store::events::Found;
use std::fmt::Write as _;

/// `local0`: what devices report is of no facility of this machine.
const FACILITY: u8 = 16;
/// Who sends, by which a SIEM sorts.
const APP: &str = "triton";
/// Kind of message.
const KIND: &str = "CEF";
/// The largest number of a message; then they begin anew.
const LAST_NUMBER: u64 = 2_147_483_647;
/// Longest name of a host.
const HOST: usize = 255;

/// Appends the message, in its frame.
pub fn frame(found: &Found, out: &mut Vec<u8>) {
    let text = message(found);
    out.extend_from_slice(text.len().to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(text.as_bytes());
}

/// The message. No byte order mark stands before the line: receivers look for `CEF:` there.
pub fn message(found: &Found) -> String {
    let event = &found.event;
    let priority = FACILITY * 8 + severity(event.severity);
    let host = if event.host.is_empty() {
        &event.agent
    } else {
        &event.host
    };
    let number = (found.row.max(1) - 1) % LAST_NUMBER + 1;
    let mut text = format!(
        "<{priority}>1 {} {} {APP} - {KIND} [meta sequenceId=\"{number}\"] ",
        time(event.time),
        word(host)
    );
    text.reserve(event.line.len());
    for c in event.line.chars() {
        if c.is_control() && c != '\t' {
            // As rsyslog does: a line end would begin a line in somebody's file.
            let _ = write!(text, "#{:03o}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}

/// From CEF's to syslog's; what is unknown is worth a notice.
fn severity(severity: Option<u8>) -> u8 {
    match severity {
        Some(0..=3) => 6,
        Some(4..=6) => 4,
        Some(7..=8) => 3,
        Some(_) => 2,
        None => 5,
    }
}

/// With milliseconds; a dash where an older Poseidon stored what is no date.
fn time(time: f64) -> String {
    if !triton::dates::is_common(time) {
        return "-".to_owned();
    }
    let whole = triton::dates::utc(time.floor());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let milliseconds = ((time - time.floor()) * 1000.0) as u16;
    format!("{}.{milliseconds:03}Z", whole.trim_end_matches('Z'))
}

/// Printable ASCII without blanks, never empty.
fn word(text: &str) -> String {
    let shown = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    let word: String = text.chars().take(HOST).map(shown).collect();
    if word.is_empty() {
        "-".to_owned()
    } else {
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::events::Event;

    fn found(time: f64, host: &str, severity: Option<u8>, line: &str) -> Found {
        Found {
            row: 42,
            identifier: "hash".to_owned(),
            instance: "i1".to_owned(),
            received: 0.0,
            event: Event {
                time,
                host: host.to_owned(),
                agent: "box".to_owned(),
                severity,
                line: line.to_owned(),
                ..Event::default()
            },
        }
    }

    #[test]
    fn messages_are_rfc_5424() {
        let line = "CEF:0|Acme|Düse|1|2|x|9|";
        assert_eq!(
            message(&found(1_700_000_000.25, "gate 1", Some(9), line)),
            format!(
                "<130>1 2023-11-14T22:13:20.250Z gate_1 triton - CEF [meta sequenceId=\"42\"] {line}"
            )
        );
        assert_eq!(
            message(&found(-5.0, "", None, "a\nb\u{85}")),
            "<133>1 - box triton - CEF [meta sequenceId=\"42\"] a#012b#205"
        );
        for (severity, priority) in [(0, 134), (3, 134), (4, 132), (7, 131), (8, 131), (10, 130)] {
            let text = message(&found(0.0, "h", Some(severity), "x"));
            assert!(
                text.starts_with(&format!("<{priority}>1 1970-01-01T00:00:00.000Z h ")),
                "{text}"
            );
        }
        let mut out = Vec::new();
        frame(&found(0.0, "h", None, "ü"), &mut out);
        let text = String::from_utf8(out).unwrap();
        let (length, rest) = text.split_once(' ').unwrap();
        assert_eq!(length.parse(), Ok(rest.len()));
    }
}
