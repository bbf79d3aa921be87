//! One record as one line of a segment: `CHECKSUM ACKED JSON`.
//!
//! The checksum is the first 8 bytes of SHA-256 over the rest. `ACKED` is the last sequence that was acknowledged
//! when the line was written: so an acknowledgement needs no write of its own, and a restart still knows roughly how
//! far Poseidon was. JSON has no line breaks of its own, so a lost place is found again at the next one.

use super::store::File;
use crate::message::id;
use crate::message::payload::Record;
use sha2::{Digest, Sha256};
use std::io;

/// Longest line. A job's result with both tails at their largest (256 KiB, each byte escaped) is below it.
pub const LINE_LIMIT: usize = 4 << 20;
/// Highest sequence: what every reader of JSON can hold exactly.
pub const LAST_ID: u64 = (1 << 53) - 1;
/// Hex digits of the checksum.
const CHECK: usize = 16;
/// Beginnings of a whole record that are tried within one corrupt line.
const SALVAGE_TRIES: usize = 32;
/// Longest token in a file; the requests' own limit is lower.
const TOKEN_LIMIT: usize = 1_024;

fn checksum(rest: &[u8]) -> String {
    id::hex(&Sha256::digest(rest)[..CHECK / 2])
}

/// A text with its checksum in front and a line break behind.
pub fn seal(rest: &str) -> String {
    format!("{} {rest}\n", checksum(rest.as_bytes()))
}

/// What [`seal`] was given, from its line without the break.
pub fn unseal(line: &[u8]) -> Option<&str> {
    let rest = line.get(CHECK + 1..)?;
    let sound = line[CHECK] == b' ' && line[..CHECK] == *checksum(rest).as_bytes();
    std::str::from_utf8(rest).ok().filter(|_| sound)
}

/// The whole line of a record.
pub fn write(acked: u64, record: &Record) -> io::Result<String> {
    let line = seal(&format!("{acked} {}", serde_json::to_string(record)?));
    if line.len() > LINE_LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a record of {} bytes is too large", line.len()),
        ));
    }
    Ok(line)
}

/// A line without its break; `None` where it is not what was written.
pub fn read(line: &[u8]) -> Option<(u64, Record)> {
    let (acked, json) = unseal(line)?.split_once(' ')?;
    let acked = acked.parse().ok()?;
    let record: Record = serde_json::from_str(json).ok()?;
    let sane = (1..=LAST_ID).contains(&record.id)
        && acked <= LAST_ID
        && record.token.len() <= TOKEN_LIMIT
        && record.etime.is_finite()
        && record.ctime.is_finite();
    sane.then_some((acked, record))
}

/// A whole record at the end of a corrupt line: what lies behind a hole, or behind a lost line break.
fn salvage(line: &[u8]) -> Option<(usize, u64, Record)> {
    let starts = (1..line.len().saturating_sub(CHECK)).filter(|start| {
        line[start + CHECK] == b' '
            && line[*start..start + CHECK]
                .iter()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    });
    starts
        .take(SALVAGE_TRIES)
        .find_map(|start| read(&line[start..]).map(|(acked, record)| (start, acked, record)))
}

/// A record in a file.
#[derive(Debug)]
pub struct Found {
    /// Where its line begins.
    pub offset: u64,
    /// Where the next one begins.
    pub end: u64,
    /// See the module.
    pub acked: u64,
    pub record: Record,
}

/// Reads a file's records in their order; what is corrupt is passed over and counted.
pub struct Lines<'a> {
    file: &'a dyn File,
    /// Bytes of the file that count.
    length: u64,
    /// Read at once.
    chunk: usize,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    base: u64,
    /// Bytes of the buffer that are done with.
    used: usize,
    /// In the middle of a line that is too long.
    skipping: bool,
    /// Corrupt lines.
    pub damaged: u64,
}

impl<'a> Lines<'a> {
    /// From `offset`, where a line begins, up to `length`. A `chunk` is read at once.
    pub fn new(file: &'a dyn File, offset: u64, length: u64, chunk: usize) -> Self {
        Self {
            file,
            length,
            chunk,
            buffer: Vec::new(),
            base: offset,
            used: 0,
            skipping: false,
            damaged: 0,
        }
    }

    /// The next whole record.
    pub fn next(&mut self) -> io::Result<Option<Found>> {
        let mut searched = 0;
        loop {
            let rest = &self.buffer[self.used..];
            if let Some(length) = rest[searched..].iter().position(|b| *b == b'\n') {
                let length = searched + length;
                let offset = self.base + self.used as u64;
                let end = offset + length as u64 + 1;
                let line = &self.buffer[self.used..self.used + length];
                self.used += length + 1;
                searched = 0;
                if std::mem::take(&mut self.skipping) {
                    continue;
                }
                if let Some((acked, record)) = read(line) {
                    return Ok(Some(Found {
                        offset,
                        end,
                        acked,
                        record,
                    }));
                }
                self.damaged += 1;
                if let Some((start, acked, record)) = salvage(line) {
                    return Ok(Some(Found {
                        offset: offset + start as u64,
                        end,
                        acked,
                        record,
                    }));
                }
                continue;
            }
            searched = rest.len();
            if searched > LINE_LIMIT {
                self.damaged += u64::from(!self.skipping);
                self.skipping = true;
                self.used = self.buffer.len();
                searched = 0;
            }
            if !self.fill()? {
                self.damaged += u64::from(searched > 0 && !self.skipping);
                self.used = self.buffer.len();
                return Ok(None);
            }
        }
    }

    /// Reads on; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.used);
        self.base += self.used as u64;
        self.used = 0;
        let old = self.buffer.len();
        let at = self.base + old as u64;
        let left = usize::try_from(self.length.saturating_sub(at)).unwrap_or(usize::MAX);
        // A line that is longer than expected is not read in small pieces.
        let want = left.min(self.chunk.max(old));
        if want == 0 {
            return Ok(false);
        }
        self.buffer.resize(old + want, 0);
        let read = self.file.read_at(&mut self.buffer[old..], at);
        self.buffer
            .truncate(old + read.as_ref().map_or(0, |n| (*n).min(want)));
        Ok(read? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    #[derive(Debug)]
    struct Bytes(Vec<u8>);

    impl File for Bytes {
        fn length(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let rest = &self.0[usize::try_from(offset).unwrap().min(self.0.len())..];
            let n = rest.len().min(buffer.len());
            buffer[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            unreachable!()
        }
        fn set_length(&self, _: u64) -> io::Result<()> {
            unreachable!()
        }
        fn sync(&self) -> io::Result<()> {
            unreachable!()
        }
    }

    fn record(id: u64, data: &str) -> Record {
        Record {
            id,
            token: format!("token{id}"),
            code: 200,
            etime: 1.5,
            ctime: 2.5,
            conversation: None,
            data: RawValue::from_string(data.to_owned()).unwrap(),
        }
    }

    fn ids(bytes: &[u8], chunk: usize) -> (Vec<u64>, u64) {
        let file = Bytes(bytes.to_vec());
        let mut lines = Lines::new(&file, 0, bytes.len() as u64, chunk);
        let mut ids = Vec::new();
        while let Some(found) = lines.next().unwrap() {
            let start = usize::try_from(found.offset).unwrap();
            let end = usize::try_from(found.end).unwrap();
            assert_eq!(read(&bytes[start..end - 1]).unwrap().1.id, found.record.id);
            ids.push(found.record.id);
        }
        (ids, lines.damaged)
    }

    #[test]
    fn what_is_written_is_read_in_chunks_of_any_size() {
        let mut file = String::new();
        for id in 1..=5 {
            let data = serde_json::json!("x".repeat(usize::try_from(id).unwrap() * 100));
            file += &write(id - 1, &record(id, &data.to_string())).unwrap();
        }
        for chunk in [1, 7, 64, 100_000] {
            assert_eq!(ids(file.as_bytes(), chunk), (vec![1, 2, 3, 4, 5], 0));
        }
    }

    #[test]
    fn damage_costs_the_record_that_it_hits_and_no_other() {
        let line = |id| write(0, &record(id, "[1]")).unwrap();
        let (a, b, c) = (line(1), line(2), line(3));
        // A lost line break, a hole, a torn end.
        let lost = format!("{}x{b}{c}", a.trim_end());
        assert_eq!(ids(lost.as_bytes(), 64), (vec![2, 3], 1));
        let hole = format!("{a}{}{c}", "\0".repeat(b.len()));
        assert_eq!(ids(hole.as_bytes(), 64), (vec![1, 3], 1));
        let torn = format!("{a}{b}{}", &c[..c.len() - 1]);
        assert_eq!(ids(torn.as_bytes(), 64), (vec![1, 2], 1));
        let endless = format!("{a}{}\n{b}", "y".repeat(LINE_LIMIT + 100_000));
        assert_eq!(ids(endless.as_bytes(), 65_536), (vec![1, 2], 1));
    }

    #[test]
    fn senseless_records_are_damage_even_with_a_checksum() {
        for rest in [
            r#"0 {"id":0,"token":"t","code":1,"etime":1,"ctime":1,"data":1}"#,
            r#"0 {"id":9007199254740992,"token":"t","code":1,"etime":1,"ctime":1,"data":1}"#,
            r#"9007199254740992 {"id":1,"token":"t","code":1,"etime":1,"ctime":1,"data":1}"#,
            r#"x {"id":1,"token":"t","code":1,"etime":1,"ctime":1,"data":1}"#,
            r#"0 {"id":1,"token":"t","code":1,"etime":1,"ctime":1}"#,
            "",
        ] {
            assert_eq!(ids(seal(rest).as_bytes(), 64), (vec![], 1), "{rest}");
        }
        assert_eq!(ids(b"\n\n\xff\n", 64), (vec![], 3));
    }
}
