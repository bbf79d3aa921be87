//! Opening the journal's folder: all records are read once, and what a power cut has torn is cut off.

use super::disk::{CHUNK, Disk, Limits, Segment};
use super::line::Lines;
use super::sequence::BELIEVED;
use super::store::{Counts, Fault, Folder, read_small, replace};
use crate::message::id;
use crate::message::payload::{Record, code};
use std::collections::HashMap;
use std::sync::Arc;

/// The file that names the journal.
const ID_FILE: &str = "id";

/// An open journal and what was found in it.
#[derive(Debug)]
pub struct Opened {
    pub disk: Disk,
    /// `accepted` of the jobs without an end.
    pub open: HashMap<String, Record>,
    /// The highest acknowledged sequence that was written down.
    pub acked: u64,
    /// When the last record was stored.
    pub ctime: Option<f64>,
    /// Why it can only be read.
    pub fault: Option<Fault>,
}

/// Opens the folder, or makes a journal in it.
pub fn open(folder: &Arc<dyn Folder>, limits: Limits) -> Result<Opened, Fault> {
    let fault = |act: &str, name: &str, e| Fault::new(act, &**folder, name, e);
    folder.prepare().map_err(|e| fault("use", "", e))?;
    let mut counts = Counts::default();
    let mut numbers = Vec::new();
    for name in folder.names().map_err(|e| fault("read", "", e))? {
        if name.strip_suffix(".new").is_some() {
            // Left by a rewriting that was cut short; what it would have replaced is there.
            let _ = folder.remove(&name);
        } else if let Some(number) = name.strip_suffix(".log")
            && number.len() == 10
            && let Ok(number) = number.parse::<u32>()
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    let (id, mut fault_now) = match journal_id(&**folder, &mut counts) {
        Ok(id) => (id, None),
        Err(fault) if numbers.is_empty() => return Err(fault),
        Err(fault) => (id::random(), Some(fault)),
    };

    if numbers.is_empty() {
        let first = Segment {
            number: 1,
            ..Segment::default()
        };
        let file = folder
            .create(&first.name())
            .map_err(|e| fault("create", &first.name(), e))?;
        folder.sync().map_err(|e| fault("sync", "", e))?;
        counts.syncs += 1;
        return Ok(Opened {
            disk: Disk::new(folder.clone(), id, limits, vec![first], file, counts),
            open: HashMap::new(),
            acked: 0,
            ctime: None,
            fault: None,
        });
    }

    // What cannot be written is read all the same: what nobody has yet can still be sent.
    let newest = Segment {
        number: numbers.last().copied().unwrap_or(1),
        ..Segment::default()
    };
    let file = match folder.open(&newest.name(), true) {
        Ok(file) => file,
        Err(e) => {
            fault_now.get_or_insert(fault("open", &newest.name(), e));
            folder
                .open(&newest.name(), false)
                .map_err(|e| fault("open", &newest.name(), e))?
        }
    };
    let disk = Disk::new(folder.clone(), id, limits, Vec::new(), file, counts);
    let mut opened = Opened {
        disk,
        open: HashMap::new(),
        acked: 0,
        ctime: None,
        fault: fault_now,
    };
    for number in numbers {
        opened.read_segment(number, number == newest.number)?;
    }
    // An agent that was killed may have left names and records in the system's hands only: names are synced here, the
    // records with the first sync.
    if opened.fault.is_none() {
        opened.fault = opened.disk.sync_names().err();
    }
    opened.acked = opened.acked.min(opened.disk.last());
    let disk = &mut opened.disk;
    disk.dirty = disk.active().records > 0;
    disk.synced = if disk.dirty {
        disk.active().first - 1
    } else {
        disk.last()
    };
    Ok(opened)
}

impl Opened {
    /// Reads one segment; the last one is cut behind its last whole record.
    fn read_segment(&mut self, number: u32, last: bool) -> Result<(), Fault> {
        let mut segment = Segment {
            number,
            ..Segment::default()
        };
        let name = segment.name();
        let folder = self.disk.folder.clone();
        let fault = |act: &str, e| Fault::new(act, &*folder, &name, e);
        let file = folder.open(&name, false).map_err(|e| fault("open", e))?;
        let length = file.length().map_err(|e| fault("read", e))?;
        let mut lines = Lines::new(&*file, 0, length, CHUNK);
        let mut newest = self.disk.last();
        let (mut end, mut old) = (0, 0);
        while let Some(found) = lines.next().map_err(|e| fault("read", e))? {
            let record = found.record;
            if record.id <= newest || record.id > BELIEVED {
                old += 1;
                continue;
            }
            newest = record.id;
            end = found.end;
            segment.add(&record, found.end - found.offset);
            let known = self.disk.knows(&record.token);
            self.disk.remember(&record, number, found.offset);
            self.acked = self.acked.max(found.acked);
            self.ctime = Some(record.ctime);
            if record.code == code::ACCEPTED {
                // A copy under another number may follow the end.
                if !known || self.open.contains_key(&record.token) {
                    self.open.insert(record.token.clone(), record);
                }
            } else if code::is_end(record.code) {
                self.open.remove(&record.token);
            }
        }
        let mut damaged = lines.damaged;
        // A segment of nothing but known records is what merging left when it was cut short.
        if segment.records > 0 {
            damaged += old;
        }
        drop(lines);
        segment.bytes = length;
        if last && end < length {
            if let Err(e) = self.disk.file.set_length(end) {
                self.fault.get_or_insert(fault("cut", e));
            }
            segment.bytes = end;
        }
        if damaged > 0 {
            log::warn!(
                "{damaged} corrupt records in {}, as a power cut leaves them; all others are kept",
                folder.path().join(&name).display()
            );
        }
        self.disk.damaged += damaged;
        self.disk.segments.push(segment);
        Ok(())
    }
}

/// Reads or makes the journal's name.
fn journal_id(folder: &dyn Folder, counts: &mut Counts) -> Result<String, Fault> {
    if let Some(bytes) = read_small(folder, ID_FILE)?
        && let Ok(text) = std::str::from_utf8(&bytes)
        && let id = text.trim_end()
        && id.len() == 32
        && id
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        return Ok(id.to_owned());
    }
    let id = id::random();
    replace(folder, ID_FILE, &format!("{id}\n"), counts)?;
    Ok(id)
}
