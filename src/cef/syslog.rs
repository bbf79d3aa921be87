//! What a syslog daemon puts before an event: RFC 3164, RFC 5424, and what vendors make of them.

use super::{Fault, MARK, fault};
use crate::dates::{self, DAY};

/// Longest name of a host, in bytes, as in RFC 5424.
const HOST_LIMIT: usize = 255;
/// The highest priority: facility 23, severity 7.
const HIGHEST_PRI: u8 = 191;
/// Years on either side of now, one of which has a 29th of February: a century may have none.
const LEAP_YEARS: i64 = 8;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// What a prefix says of the event behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Prefix<'a> {
    /// When it happened, Unix time.
    pub time: Option<f64>,
    /// Where.
    pub host: Option<&'a str>,
}

/// Where the event begins in a line; `None` where there is none. In the structured data of RFC 5424 stands what others
/// have said, such as a user's name: that is no event.
pub fn find(line: &str) -> Option<usize> {
    let at = mark(line, 0)?;
    match structured_data(line) {
        Some((begin, end)) if (begin..end).contains(&at) => mark(line, end),
        _ => Some(at),
    }
}

/// The next [`MARK`] with a version behind it.
fn mark(line: &str, mut from: usize) -> Option<usize> {
    while let Some(at) = line[from..].find(MARK) {
        from += at + MARK.len();
        if line.as_bytes().get(from).is_some_and(u8::is_ascii_digit) {
            return Some(from - MARK.len());
        }
    }
    None
}

/// Where the structured data of a message of RFC 5424 begins and ends.
fn structured_data(line: &str) -> Option<(usize, usize)> {
    let text = match line.strip_prefix('<') {
        Some(rest) => priority(rest)?,
        None => line,
    };
    let text = text.strip_prefix("1 ")?;
    rfc5424(text)?;
    // Time, host, program, process and kind are a word each.
    let data = text.splitn(6, ' ').nth(5)?;
    let mut rest = data;
    while let Some(element) = rest.strip_prefix('[') {
        rest = behind_element(element)?;
    }
    let whole = rest.is_empty() || rest.starts_with(' ');
    whole.then(|| (line.len() - data.len(), line.len() - rest.len()))
}

/// What follows an element `[ID NAME="VALUE" …]`, of which the first bracket is taken off.
fn behind_element(text: &str) -> Option<&str> {
    let mut rest = behind_name(text)?;
    while let Some(parameter) = rest.strip_prefix(' ') {
        let value = behind_name(parameter)?.strip_prefix("=\"")?;
        let bytes = value.as_bytes();
        let mut at = 0;
        while *bytes.get(at)? != b'"' {
            at += 1 + usize::from(bytes[at] == b'\\');
        }
        rest = &value[at + 1..];
    }
    rest.strip_prefix(']')
}

fn behind_name(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_ascii_graphic() || matches!(c, '=' | ']' | '"'))?;
    (end > 0).then(|| &text[end..])
}

/// Takes the prefix off: what it says, and the event. RFC 3164 tells neither year nor zone: the year is the one that is
/// nearest to `now`, and local time is `offset` seconds ahead of UTC.
pub fn split(line: &str, now: f64, offset: i64) -> Result<(Prefix<'_>, &str), Fault> {
    let Some(at) = find(line) else {
        return fault(0, "there is no CEF: with a version behind it");
    };
    let (head, event) = line.split_at(at);
    // RFC 5424 lets a byte order mark stand before UTF-8.
    let head = head.trim_end_matches('\u{FEFF}').trim_end_matches(' ');
    if head.is_empty() {
        return Ok((Prefix::default(), event));
    }
    let (rest, has_pri) = match head.strip_prefix('<') {
        None => (head, false),
        Some(rest) => match priority(rest) {
            Some(rest) => (rest, true),
            None => return fault(0, "a priority is a number from 0 to 191 in < and >"),
        },
    };
    let prefix = rest.strip_prefix("1 ").and_then(rfc5424);
    let prefix = prefix.or_else(|| rfc3164(rest.strip_prefix("1 ").unwrap_or(rest), now, offset));
    match prefix {
        Some(prefix) => Ok((prefix, event)),
        // By RFC 3164 all that follows a priority is content, where it is nothing else.
        None if has_pri => Ok((Prefix::default(), event)),
        None => fault(0, "what stands before CEF: is no syslog prefix"),
    }
}

/// What follows a priority, without its `<`.
fn priority(text: &str) -> Option<&str> {
    let (number, rest) = text.split_once('>')?;
    let digits = (1..=3).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    let known = number.parse::<u8>().is_ok_and(|n| n <= HIGHEST_PRI);
    (digits && known).then(|| rest.trim_start_matches(' '))
}

/// `TIME HOST APP PROCID MSGID DATA`, behind the version; a dash is nothing.
fn rfc5424(text: &str) -> Option<Prefix<'_>> {
    let mut words = text.split(' ');
    let time = match words.next()? {
        "-" => None,
        word => Some(iso(word)?),
    };
    let host = words.next().filter(|word| *word != "-").and_then(host);
    Some(Prefix { time, host })
}

/// `Mmm dd hh:mm:ss HOST TAG`, also with a year behind the day as Cisco writes it, or with the time of
/// RFC 3339 as rsyslog does.
fn rfc3164(text: &str, now: f64, offset: i64) -> Option<Prefix<'_>> {
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let first = words.next()?;
    let time = if let Some(time) = iso(first) {
        time
    } else {
        let month = MONTHS.iter().position(|month| *month == first)?;
        let day = number(words.next()?, 2)?;
        let mut clock = words.next()?;
        let mut year = None;
        if clock.len() == 4 {
            year = Some(number(clock, 4)?);
            clock = words.next()?;
        }
        // Cisco closes the time by a colon.
        let clock = time_of_day(clock.trim_end_matches(':'))?;
        let at = |year| date(year, i64::try_from(month).ok()? + 1, day, clock, offset);
        match year {
            Some(year) => at(year)?,
            None => nearest(now, at)?,
        }
    };
    // Where the next word is a tag, the host was left out.
    let host = words
        .next()
        .filter(|word| !word.ends_with(':') && !word.contains('['))
        .and_then(host);
    Some(Prefix {
        time: Some(time),
        host,
    })
}

/// The time of RFC 3339. A device's own date without a zone is not one.
fn iso(word: &str) -> Option<f64> {
    let full = word.len() >= 20 && word.as_bytes().get(10) == Some(&b'T');
    let zone = word.ends_with(['Z', 'z']) || word.get(19..)?.contains(['+', '-']);
    (full && zone).then(|| dates::parse(word, 0.0)).flatten()
}

fn host(word: &str) -> Option<&str> {
    let sound = !word.is_empty() && word.len() <= HOST_LIMIT;
    (sound && !word.chars().any(char::is_control)).then_some(word)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    let right = (1..=digits).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    right.then(|| text.parse().ok()).flatten()
}

/// `hh:mm:ss`, also with a fraction; seconds since midnight.
fn time_of_day(text: &str) -> Option<f64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = clock.split(':');
    let mut next = |most| {
        let part = parts.next().filter(|part| part.len() == 2)?;
        number(part, 2).filter(|n| *n <= most)
    };
    // 60 is a leap second.
    let whole = (next(23)? * 60 + next(59)?) * 60 + next(60)?;
    number(fraction, 9)?;
    let fraction: f64 = format!("0.{fraction}").parse().ok()?;
    parts.next().is_none().then_some(whole as f64 + fraction)
}

fn date(year: i64, month: i64, day: i64, clock: f64, offset: i64) -> Option<f64> {
    let days = dates::days(year, month, day);
    // A day that the month does not have comes out as another one.
    let exists = dates::civil(days) == (year, month, day);
    exists.then(|| (days * DAY - offset) as f64 + clock)
}

/// The one that is nearest to `now`: a line of New Year's Eve may come in January, and one of a clock that is ahead in
/// December.
fn nearest(now: f64, at: impl Fn(i64) -> Option<f64>) -> Option<f64> {
    #[allow(clippy::cast_possible_truncation, reason = "a day of the calendar")]
    let this = dates::civil((now / DAY as f64).floor().clamp(-1e6, 1e7) as i64).0;
    let mut best: Option<f64> = None;
    for year in this - LEAP_YEARS..=this + LEAP_YEARS {
        if let Some(time) = at(year)
            && best.is_none_or(|best| (time - now).abs() < (best - now).abs())
        {
            best = Some(time);
        }
    }
    best
}
