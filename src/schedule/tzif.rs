//! The system's zone files (`TZif`, RFC 8536).

use super::posix::Rule;
use super::zone::Zone;

/// Changes before this (1 January 2020) are left out: no schedule looks back so far.
const OLDEST: i64 = 1_577_836_800;
const HEADER: usize = 44;

/// Reads a file; none where it is no zone file.
pub fn read(bytes: &[u8]) -> Option<Zone> {
    let first = Header::read(bytes)?;
    if first.version == 0 {
        return block(&first, bytes, 4);
    }
    // From version 2 on, the same follows with times of 64 bits, and then the rule for the time behind them.
    let bytes = bytes.get(HEADER + first.length(4)..)?;
    let header = Header::read(bytes)?;
    let mut zone = block(&header, bytes, 8)?;
    let footer = bytes.get(HEADER + header.length(8)..)?;
    let footer = std::str::from_utf8(footer).ok()?.strip_prefix('\n')?;
    let rule = footer.split('\n').next()?;
    if !rule.is_empty() {
        zone.rule = Rule::parse(rule)?;
    }
    Some(zone)
}

struct Header {
    version: u8,
    times: usize,
    types: usize,
    leaps: usize,
    rest: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(b"TZif") {
            return None;
        }
        let count = |n: usize| usize::try_from(number(bytes.get(20 + n * 4..24 + n * 4)?)).ok();
        let [utc, standard, leaps, times, types, letters] = [
            count(0)?,
            count(1)?,
            count(2)?,
            count(3)?,
            count(4)?,
            count(5)?,
        ];
        // Far more than any file has, and sums of it fit.
        if [utc, standard, leaps, times, types, letters]
            .iter()
            .any(|n| *n > 65_536)
        {
            return None;
        }
        Some(Self {
            version: *bytes.get(4)?,
            times,
            types,
            leaps,
            rest: utc + standard + letters,
        })
    }

    /// Of all that follows, where a time has so many bytes.
    fn length(&self, width: usize) -> usize {
        self.times * (width + 1) + self.types * 6 + self.leaps * (width + 4) + self.rest
    }
}

fn block(header: &Header, bytes: &[u8], width: usize) -> Option<Zone> {
    let times = bytes.get(HEADER..)?.get(..header.times * width)?;
    let rest = &bytes[HEADER + times.len()..];
    let (kinds, rest) = rest.split_at_checked(header.times)?;
    let types = rest.get(..header.types * 6)?;
    let offset = |kind: u8| {
        types
            .chunks_exact(6)
            .nth(kind.into())
            .map(|t| number(&t[..4]))
    };
    let first = offset(0)?;
    let mut zone = Zone {
        first,
        changes: Vec::new(),
        rule: Rule::fixed(first),
    };
    let mut last = first;
    for (time, kind) in times.chunks_exact(width).zip(kinds) {
        let (time, offset) = (number(time), offset(*kind)?);
        if time < OLDEST {
            zone.first = offset;
        } else if offset != last {
            zone.changes.push((time, offset));
        }
        last = offset;
    }
    zone.rule = Rule::fixed(last);
    Some(zone)
}

/// Big-endian, with sign.
fn number(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|b| *b >= 0x80);
    let start = if negative { -1 } else { 0 };
    bytes.iter().fold(start, |n: i64, b| n << 8 | i64::from(*b))
}
