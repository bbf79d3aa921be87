//! Room in a full journal: what is acknowledged goes, oldest first, then events.

use super::disk::{CHUNK, Disk, Note, Segment};
use super::line;
use super::memory::is_open;
use super::record::{Lost, is_event};
use super::renumber::Rebase;
use super::state::Open;
use super::store::Fault;
use crate::message::payload::Record;
use std::collections::HashMap;
use std::ops::{ControlFlow, RangeInclusive};

/// A segment is rewritten only where this part of a full one is gained: else each record could cost the writing of a
/// whole segment, and flash wears.
const WORTHWHILE: u64 = 16;

/// What becomes of a record of a segment that is rewritten.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    Stay,
    Go,
    /// With another id.
    Renumber(u64),
}

impl Disk {
    /// Makes room as far as possible; `lost` counts what events that took, also where it goes wrong on the way.
    ///
    /// What is acknowledged goes strictly by age. An end must not go before the `accepted` of its job: a start would
    /// take that job for one that was interrupted.
    pub fn make_room(
        &mut self,
        needed: u64,
        acked: u64,
        open: &HashMap<String, Open>,
        lost: &mut Lost,
    ) -> Result<(), Fault> {
        if self.fits(needed) {
            return Ok(());
        }
        // What is about to go may be all that is known of a job whose end is not on the disk yet.
        self.sync()?;
        let least = (self.limits.segment() / WORTHWHILE).max(1);
        let stays = |r: &Record| r.id > acked || is_open(open, r);

        let mut at = 0;
        while !self.fits(needed) && at < self.segments.len() {
            let segment = &self.segments[at];
            if segment.first > acked || (segment.bytes == 0 && at + 1 == self.segments.len()) {
                break;
            }
            let pinned = open
                .values()
                .filter(|o| (segment.first..=segment.last).contains(&o.id))
                .count() as u64;
            if segment.records > 0 && pinned == segment.records {
                at += 1;
                continue;
            }
            if segment.last > acked && self.gain(at, &stays)? < least {
                break;
            }
            at = self.clean(at, &stays)?;
        }

        let stays = |r: &Record| stays(r) && !is_event(r.code);
        self.drop_events(acked, lost, stays, |disk| disk.fits(needed))
    }

    /// Drops the oldest events, so that all of them and `needed` bytes more take no more than `share`; `lost` counts what
    /// that took of what nobody has.
    pub fn bound_events(
        &mut self,
        needed: u64,
        share: u64,
        acked: u64,
        lost: &mut Lost,
    ) -> Result<(), Fault> {
        let fits = |disk: &Self| {
            let events: u64 = disk.segments.iter().map(Segment::event_bytes).sum();
            events + needed <= share
        };
        if !fits(self) {
            self.sync()?;
            self.drop_events(acked, lost, |r| !is_event(r.code), fits)?;
        }
        Ok(())
    }

    /// Cleans segments, the oldest first, of events and what else does not stay, until it is enough.
    fn drop_events(
        &mut self,
        acked: u64,
        lost: &mut Lost,
        stays: impl Fn(&Record) -> bool,
        is_enough: impl Fn(&Self) -> bool,
    ) -> Result<(), Fault> {
        let least = (self.limits.segment() / WORTHWHILE).max(1);
        let mut at = 0;
        while !is_enough(self) && at < self.segments.len() {
            if self.segments[at].event_bytes() < least {
                at += 1;
                continue;
            }
            let mut goes = Lost::default();
            self.scan(at, 0, CHUNK, |found| {
                if found.record.id > acked {
                    goes.add(&found.record);
                }
                ControlFlow::Continue(())
            })?;
            at = self.clean(at, &stays)?;
            *lost += goes;
        }
        Ok(())
    }

    /// Bytes that rewriting a segment would free.
    fn gain(&mut self, at: usize, stays: &impl Fn(&Record) -> bool) -> Result<u64, Fault> {
        let mut left = self.segments[at].bytes;
        self.scan(at, 0, CHUNK, |found| {
            if stays(&found.record) {
                left -= (found.end - found.offset).min(left);
            }
            ControlFlow::Continue(())
        })?;
        Ok(left)
    }

    /// Rewrites a segment without what does not stay; returns which one comes next.
    fn clean(&mut self, at: usize, stays: &impl Fn(&Record) -> bool) -> Result<usize, Fault> {
        if at + 1 == self.segments.len() {
            self.roll()?;
        }
        let left = self.segments[at].bytes - self.gain(at, stays)?;
        if left == 0 {
            self.forget(at..=at);
            let segment = self.segments.remove(at);
            self.remove_file(&segment)?;
            return Ok(at);
        }
        // What stays is put together: else each segment could end as a file of one record.
        let from = match at.checked_sub(1) {
            Some(before) if self.segments[before].bytes + left <= self.limits.segment() => before,
            _ => at,
        };
        self.rewrite(
            from..=at,
            |record| {
                if stays(record) { Fate::Stay } else { Fate::Go }
            },
        )?;
        Ok(from + 1)
    }

    /// Writes some segments, not the last one, anew into the first of them.
    pub fn rewrite(
        &mut self,
        range: RangeInclusive<usize>,
        fate: impl Fn(&Record) -> Fate,
    ) -> Result<(), Fault> {
        let mut new = Segment {
            number: self.segments[*range.start()].number,
            ..Segment::default()
        };
        let name = new.name();
        let temporary = format!("{name}.new");
        let folder = self.folder.clone();
        let fault = |e| Fault::new("rewrite", &*folder, &name, e);
        let file = folder.create(&temporary).map_err(fault)?;
        let hasher = self.hasher.clone();
        let mut notes = Vec::new();
        let mut pending = Vec::new();
        let mut written = 0;
        let mut done = Ok(());
        for at in range.clone() {
            self.scan(at, 0, CHUNK, |found| {
                let mut record = found.record;
                match fate(&record) {
                    Fate::Stay => {}
                    Fate::Go => return ControlFlow::Continue(()),
                    Fate::Renumber(id) => record.id = id,
                }
                done = line::write(found.acked, &record).and_then(|line| {
                    notes.extend(Note::of(&record, &hasher, new.bytes));
                    new.add(&record, line.len() as u64);
                    new.bytes += line.len() as u64;
                    pending.extend_from_slice(line.as_bytes());
                    if pending.len() >= CHUNK {
                        file.write_at(&pending, written)?;
                        written += pending.len() as u64;
                        pending.clear();
                    }
                    Ok(())
                });
                if done.is_err() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
        }
        let done = done.and_then(|()| {
            file.write_at(&pending, written)?;
            self.counts.bytes += new.bytes;
            if self.limits.sync {
                file.sync()?;
                self.counts.syncs += 1;
            }
            folder.rename(&temporary, &name)
        });
        if let Err(e) = done {
            let _ = folder.remove(&temporary);
            return Err(fault(e));
        }
        self.forget(range.clone());
        for note in notes {
            self.remember_at(note, new.number);
        }
        let old: Vec<Segment> = self.segments.splice(range, [new]).collect();
        if self.limits.sync {
            self.sync_names()?;
        }
        old.iter().skip(1).try_for_each(|s| self.remove_file(s))
    }

    /// Gives the records behind `from`, up to `through`, new ids behind all others. For a while they take their room
    /// twice.
    pub fn move_up(
        &mut self,
        from: u64,
        through: u64,
        acked: u64,
        mut id: impl FnMut() -> u64,
    ) -> Result<(), Fault> {
        let mut at = from;
        while let Some(mut record) = self.next(at, false)?.filter(|r| r.id <= through) {
            at = record.id;
            record.id = id();
            self.append(&record, acked)?;
        }
        if at == from {
            return Ok(());
        }
        self.roll()?;
        for at in (0..self.segments.len() - 1).rev() {
            let segment = &self.segments[at];
            if segment.last > from && segment.first <= through {
                self.rewrite(at..=at, |record| {
                    if record.id > from && record.id <= through {
                        Fate::Go
                    } else {
                        Fate::Stay
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Writes the segments from this number on anew, into other files.
    pub fn rewrite_from(&mut self, number: u32) -> Result<(), Fault> {
        if self.active().bytes > 0 {
            self.roll()?;
        }
        for at in 0..self.segments.len() - 1 {
            if self.segments[at].number >= number {
                self.rewrite(at..=at, |_| Fate::Stay)?;
            }
        }
        Ok(())
    }

    /// Gives other ids. Newest first, so that ids grow at any time.
    pub fn renumber(&mut self, rebase: Rebase) -> Result<(), Fault> {
        let hits = |s: &Segment| rebase.concerns(s.first, s.last);
        if !self.segments.iter().any(hits) {
            return Ok(());
        }
        self.roll()?;
        for at in (0..self.segments.len()).rev() {
            if hits(&self.segments[at]) {
                self.rewrite(at..=at, |record| {
                    if rebase.hits(record.id) {
                        Fate::Renumber(rebase.apply(record.id))
                    } else {
                        Fate::Stay
                    }
                })?;
            }
        }
        self.synced = self.last();
        Ok(())
    }

    /// The places in some segments are void.
    fn forget(&mut self, range: RangeInclusive<usize>) {
        self.forget_places();
        let gone: Vec<u32> = self.segments[range].iter().map(|s| s.number).collect();
        self.tokens
            .retain(|_, place| !gone.contains(&place.segment));
    }

    fn remove_file(&self, segment: &Segment) -> Result<(), Fault> {
        let name = segment.name();
        let removed = self.folder.remove(&name);
        removed.map_err(|e| self.fault("remove", &name, e))
    }
}
