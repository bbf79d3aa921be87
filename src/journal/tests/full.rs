//! A journal that is full on a disk that fails: what events were dropped is said, and nothing else is.

use super::forget::Shelf;
use super::*;
use crate::journal::record::Lost;
use crate::message::payload::ErrorCode;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Desk {
    journal: Journal,
    folder: Arc<Shelf>,
    state: Arc<Shelf>,
}

impl Desk {
    /// Half of it is for events: 64 KiB on the disk, 16 KiB in memory.
    fn new() -> Self {
        let (folder, state) = (Shelf::new("/nowhere/journal"), Shelf::new("/nowhere"));
        Self {
            journal: Self::open(&folder, &state),
            folder,
            state,
        }
    }

    fn open(folder: &Arc<Shelf>, state: &Arc<Shelf>) -> Journal {
        let small = Settings {
            bytes: 128 << 10,
            memory_bytes: 32 << 10,
            ..settings(Path::new("/nowhere"))
        };
        let journal = Journal::over(&small, folder.clone(), state.clone()).unwrap();
        journal.state().retry = Duration::ZERO;
        journal
    }

    /// Stores so many events, which the next call must not bring back to the disk.
    fn events(&self, count: usize) -> u64 {
        for _ in 0..count {
            self.stay();
            self.journal.events(vec![event(100)]).unwrap();
        }
        count as u64
    }

    fn stay(&self) {
        if let Some(memory) = &mut self.journal.state().memory {
            memory.next_try = Instant::now() + Duration::from_hours(1);
        }
    }

    /// Tries the disk; whether it is in use.
    fn come_back(&self) -> bool {
        if let Some(memory) = &mut self.journal.state().memory {
            memory.next_try = Instant::now();
        }
        self.journal.tend();
        self.state_of() == "disk"
    }

    fn state_of(&self) -> String {
        self.journal.report().state.state
    }

    /// Events that can be read, and those that are said to be dropped.
    fn account(&self) -> (u64, u64) {
        let records = read_behind(&self.journal, 0);
        let told: BTreeSet<_> = records.iter().map(|r| (&r.token, r.code)).collect();
        assert_eq!(told.len(), records.len(), "a record is there twice");
        let mut lost = Lost::default();
        let dropped = records.iter().filter(|r| r.code == code::DROPPED);
        dropped.for_each(|r| lost.add(r));
        let kept = records.iter().filter(|r| r.code == code::EVENT).count();
        (kept as u64, lost.all())
    }
}

#[test]
fn what_the_full_disk_holds_is_not_called_dropped() {
    let desk = Desk::new();
    let mut all = desk.events(100);
    desk.journal.sync();
    desk.folder.break_after(0);
    all += desk.events(20);
    assert_eq!(desk.state_of(), "memory");
    assert_eq!(
        desk.account(),
        (all, 0),
        "all are there, on the disk or in memory"
    );
    // More than the memory holds: the oldest of these go, and not those on the disk.
    all += desk.events(200);
    let (kept, lost) = desk.account();
    assert!(lost > 100 && kept > 110, "{kept} and {lost}");
    assert_eq!(kept + lost, all);
    assert_eq!(desk.journal.report().dropped, lost);
    // What says so does not fill the memory itself.
    let says = |r: &&Record| r.code == code::DROPPED;
    let records = read_behind(&desk.journal, 0);
    assert!(records.iter().filter(says).count() < 50);
    desk.folder.mend();
    assert!(desk.come_back());
    assert_eq!(desk.account(), (kept, lost));
    assert_eq!(desk.journal.report().dropped, lost);
}

/// At any point at which the disk may fail: while events are stored, while they make room, and while it is tried again.
#[test]
fn each_event_is_there_or_said_to_be_dropped_wherever_the_disk_fails() {
    let mut in_memory = 0;
    for changes in 0..60 {
        for (again, full) in [(0, true), (3, true), (17, true), (3, false), (17, false)] {
            let desk = Desk::new();
            let fail_after = |changes| {
                if full {
                    desk.folder.fill_after(changes);
                } else {
                    desk.folder.break_after(changes);
                }
            };
            // As much as events may have there, and jobs between them, so that segments are rewritten.
            let mut all = 0;
            for n in 0..16 {
                all += desk.events(9);
                run_job(&desk.journal, &token(n));
            }
            fail_after(changes);
            let batch = vec![event(100); 30];
            desk.journal.events(batch).unwrap();
            all += 30 + desk.events(30);
            in_memory += u32::from(desk.state_of() == "memory");
            desk.folder.mend();
            fail_after(again);
            desk.come_back();
            desk.folder.mend();
            assert!(desk.come_back());
            let (kept, lost) = desk.account();
            if full {
                assert_eq!(kept + lost, all, "{changes}, {again}: {kept} are there");
            } else {
                // What a disk that cannot be synced still shows may have been given up already.
                assert!(kept + lost >= all, "{changes}, {again}: {kept} and {lost}");
            }
            assert!((0..16).all(|n| is_ended(&desk.journal, &token(n))));
        }
    }
    assert!(in_memory > 100, "{in_memory}");
}

#[test]
fn a_disk_that_fails_while_it_makes_room_owes_no_job_a_second_end() {
    for changes in 0..12 {
        let desk = Desk::new();
        desk.journal.connected(0);
        desk.journal.accept(&job("open")).unwrap();
        for n in 1_000.. {
            if desk.journal.report().bytes > 120 << 10 {
                break;
            }
            run_job(&desk.journal, &token(n));
            desk.journal.put(&put(200, 1_000)).unwrap();
            desk.journal.acknowledge(desk.journal.last());
        }
        desk.folder.break_after(changes);
        let _ = desk.journal.put(&put(200, 20_000));
        desk.stay();
        desk.journal.end("open", "open", code::SUCCEEDED, result(0));
        // Acknowledged, so it may go from memory, where much comes behind it.
        for n in 0..300 {
            desk.stay();
            desk.journal.acknowledge(desk.journal.last());
            run_job(&desk.journal, &token(n));
        }
        desk.journal.acknowledge(desk.journal.last());
        desk.folder.mend();
        assert!(desk.come_back());
        let behind = read_behind(&desk.journal, desk.journal.acked());
        assert!(behind.is_empty(), "{changes}: {behind:?}");
    }
}

#[test]
fn a_token_is_known_also_while_the_disk_is_tried_in_vain() {
    for changes in 0..40 {
        let desk = Desk::new();
        desk.journal.connected(0);
        for n in 0..60 {
            run_job(&desk.journal, &token(n));
            desk.journal.put(&put(200, 1_000)).unwrap();
        }
        desk.journal.acknowledge(desk.journal.last() / 2);
        desk.folder.break_after(0);
        // Refused, or in memory: each makes the next attempt need room.
        for n in 60..80 {
            desk.stay();
            let _ = desk.journal.put(&put(200, 1_000));
            let _ = desk.journal.accept(&job(&token(n)));
            desk.stay();
            desk.journal
                .end(&token(n), &token(n), code::SUCCEEDED, result(0));
        }
        desk.folder.mend();
        desk.folder.break_after(changes);
        desk.come_back();
        for n in 40..60 {
            desk.stay();
            let refused = desk.journal.accept(&job(&token(n)));
            let known = matches!(refused, Err(Refusal::Known(Standing::Ended(_))));
            assert!(known, "{changes}, {n}: {refused:?}");
        }
    }
}

#[test]
fn an_orderly_end_brings_the_memory_to_a_disk_that_works_again() {
    let desk = Desk::new();
    desk.folder.break_after(0);
    desk.events(3);
    let last = desk.journal.last();
    assert!(!desk.journal.keeps(last));
    // Too soon for an attempt by itself.
    desk.stay();
    desk.folder.mend();
    desk.journal.close();
    assert!(desk.journal.keeps(last));
    let Desk { folder, state, .. } = desk;
    let journal = Desk::open(&folder, &state);
    assert_eq!(read_behind(&journal, 0).len(), 3);
    journal.connected(0);
    folder.break_after(0);
    let last = journal.events(vec![event(100)]).unwrap();
    journal.close();
    assert!(!journal.keeps(last), "it says so in the log");
    journal.acknowledge(last);
    assert!(journal.keeps(last), "Poseidon has it");
}

#[test]
fn what_is_too_much_for_the_memory_is_refused_with_the_reason() {
    let desk = Desk::new();
    desk.folder.break_after(0);
    desk.events(1);
    let before = desk.journal.last();
    desk.stay();
    let refused = desk.journal.events(vec![event(100); 60]).unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
    let said = &refused.message;
    for part in [
        "all events have 16384",
        "send fewer",
        "in memory: cannot write /nowhere/journal",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(said.contains("free space on that disk"), "{said}");
    assert_eq!(desk.journal.last(), before);
    // On the disk they fit.
    desk.folder.mend();
    assert!(desk.come_back());
    desk.journal.events(vec![event(100); 60]).unwrap();
    // It fails in the middle of them: what the memory cannot hold is said.
    desk.folder.fill_after(30);
    let newest = desk.journal.events(vec![event(100); 60]).unwrap();
    assert_eq!(desk.state_of(), "memory");
    let report = desk.journal.report();
    assert!(report.bytes <= report.limit, "{report:?}");
    let (kept, lost) = desk.account();
    assert_eq!(kept + lost, 121);
    assert!(
        read_behind(&desk.journal, 0)
            .iter()
            .any(|r| r.id == newest && r.code == code::EVENT)
    );
}
