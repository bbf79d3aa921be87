//! A full journal.

use super::*;
use crate::journal::record::Lost;
use crate::message::payload::ErrorCode;

fn small(folder: &Path) -> Settings {
    Settings {
        bytes: 32 << 10,
        memory_bytes: 32 << 10,
        ..settings(folder)
    }
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("journal")).unwrap().count()
}

fn on_disk(folder: &Path) -> u64 {
    std::fs::read_dir(folder.join("journal"))
        .unwrap()
        .map(|e| e.unwrap().metadata().unwrap().len())
        .sum()
}

/// The same on the disk and in memory, where the folder's parent is missing.
fn both(test: impl Fn(&Path, &Journal)) {
    let folder = tempfile::tempdir().unwrap();
    test(
        folder.path(),
        &Journal::open(&small(folder.path())).unwrap(),
    );
    let folder = tempfile::tempdir().unwrap();
    let missing = Settings {
        folder: folder.path().join("not/there"),
        ..small(folder.path())
    };
    std::fs::create_dir(folder.path().join("journal")).unwrap();
    let journal = Journal::open(&missing).unwrap();
    assert_eq!(journal.report().state.state, "memory");
    test(folder.path(), &journal);
}

#[test]
fn what_is_acknowledged_makes_room_for_ever() {
    both(|folder, journal| {
        journal.connected(0);
        for n in 0..2_000 {
            run_job(journal, &token(n));
            journal.acknowledge(journal.report().state.last);
            let report = journal.report();
            assert!(report.bytes <= report.limit, "{report:?}");
            assert!(on_disk(folder) <= (32 << 10) + 64);
            assert!(files(folder) <= 10);
        }
        assert!(is_ended(journal, &token(1_999)) && is_ended(journal, &token(1_990)));
        assert!(journal.find(&token(0)).is_none());
        assert_eq!(journal.report().dropped, 0);
    });
}

#[test]
fn without_any_poseidon_the_oldest_make_room_and_the_rest_waits_for_one() {
    both(|folder, journal| {
        journal.set_alone(true);
        let event = || vec![(1.0, r#"{"cef":"CEF:0|a|b|c|d|e|5|"}"#.to_owned())];
        for n in 0..1_000 {
            run_job(journal, &token(n));
            journal.events(event()).unwrap();
            let report = journal.report();
            assert!(report.bytes <= report.limit, "{report:?}");
            assert!(on_disk(folder) <= (32 << 10) + 64);
        }
        assert!(journal.find(&token(0)).is_none() && is_ended(journal, &token(999)));
        let report = journal.report();
        assert!(report.dropped > 0 && report.acked == 0, "{report:?}");
        // One that is configured later gets what is left, and from then on nothing goes that it has not stored.
        journal.set_alone(false);
        let first = journal.next(journal.connected(0)).unwrap();
        assert!(first.id > 1 && first.id == report.state.first);
        let refused = (1_000..2_000).find_map(|n| journal.accept(&job(&token(n))).err());
        let Some(Refusal::Full(why)) = refused else {
            panic!("{refused:?}");
        };
        assert!(
            why.contains("records wait for Poseidon in journal."),
            "{why}"
        );
    });
}

#[test]
fn room_costs_little_flash() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&Settings {
        bytes: 256 << 10,
        ..settings(folder.path())
    })
    .unwrap();
    journal.connected(0);
    // One job that stays open is in the way of removing its segment.
    journal.accept(&job("open")).unwrap();
    for n in 0..2_000 {
        run_job(&journal, &token(n));
        journal.acknowledge(journal.report().state.last);
    }
    let report = journal.report();
    let each = report.written_bytes / 2_000;
    assert!(each < 700, "{each}");
    assert!(report.syncs < 2_000 * 108 / 100, "{report:?}");
    assert!(matches!(journal.find("open"), Some(Standing::Open)));
    assert_eq!(journal.next(0).unwrap().token, "open");
}

#[test]
fn what_nobody_has_stays_and_new_jobs_and_values_are_refused() {
    both(|folder, journal| {
        let mut accepted = 0;
        let reason = loop {
            match journal.accept(&job(&token(accepted))) {
                Ok(()) => journal.end(&token(accepted), &token(accepted), 1, result(0)),
                Err(Refusal::Full(reason)) => break reason,
                Err(other) => panic!("{other:?}"),
            }
            accepted += 1;
            assert!(accepted < 1_000);
        };
        assert!(accepted > 20, "{accepted}");
        assert!(
            reason.contains(&format!("{} records wait", accepted * 2)),
            "{reason}"
        );
        assert!(reason.contains("journal."), "{reason}");
        let refused = journal.put(&put(200, 2_000)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Busy);
        assert!(refused.message.contains("wait for Poseidon"));
        assert_eq!(read_behind(journal, 0).len(), accepted * 2);
        // Refusing writes nothing.
        let before = journal.report().written_bytes;
        for _ in 0..50 {
            refusal(journal, "more");
        }
        assert_eq!(journal.report().written_bytes, before);
        assert!(on_disk(folder) <= (32 << 10) + 64);
        // Known tokens are known all the same, and an acknowledgement helps.
        assert!(matches!(refusal(journal, &token(0)), Refusal::Known(_)));
        journal.connected(0);
        journal.acknowledge(journal.report().state.last / 2);
        journal.accept(&job("more")).unwrap();
    });
}

#[test]
fn the_end_of_an_accepted_job_always_has_its_room() {
    both(|folder, journal| {
        let large = |token: &str| {
            journal.accept(&Acceptance {
                reserve: 3_000,
                ..job(token)
            })
        };
        let mut open = 0;
        while large(&token(open)).is_ok() {
            open += 1;
            assert!(open < 1_000);
        }
        while journal.put(&put(200, 50)).is_ok() {}
        assert!(open > 2, "{open}");
        for n in 0..open {
            journal.end(&token(n), &token(n), 1, result(2_000));
        }
        let report = journal.report();
        assert!(report.bytes <= report.limit, "{report:?}");
        assert!(on_disk(folder) <= (32 << 10) + 64);
        for n in 0..open {
            let Some(Standing::Ended(end)) = journal.find(&token(n)) else {
                panic!("{n} has no end");
            };
            assert_eq!(status_of(&end), Status::Succeeded);
        }
    });
}

#[test]
fn an_end_that_does_not_fit_loses_its_tails_and_nothing_else() {
    both(|_, journal| {
        journal.accept(&job("a")).unwrap();
        while journal.put(&put(200, 300)).is_ok() {}
        journal.end("a", "a", code::SUCCEEDED, result(20_000));
        let Some(Standing::Ended(end)) = journal.find("a") else {
            panic!("no end");
        };
        let result: JobResult = serde_json::from_str(end.data.get()).unwrap();
        assert_eq!(
            (result.status, result.exit_code),
            (Status::Succeeded, Some(0))
        );
        assert_eq!(result.tail, Tail::default());
        assert!(result.message.unwrap().contains("journal is full"));
        let report = journal.report();
        assert!(report.bytes <= report.limit, "{report:?}");
    });
}

#[test]
fn events_make_room_oldest_first_and_are_counted() {
    both(|folder, journal| {
        run_job(journal, "kept");
        journal.put(&put(200, 10)).unwrap();
        let mut events = 0;
        for n in 0..1_500 {
            journal.put(&put(code::EVENT, 100)).unwrap();
            events += 1;
            if n % 50 == 0 {
                run_job(journal, &token(n));
            }
        }
        let report = journal.report();
        assert!(report.dropped > 1_000, "{report:?}");
        assert!(report.bytes <= report.limit);
        assert!(files(folder) <= 12, "{}", files(folder));
        let records = read_behind(journal, 0);
        let kept = records.iter().filter(|r| r.code == code::EVENT).count() as u64;
        let mut lost = Lost::default();
        for record in records.iter().filter(|r| r.code == code::DROPPED) {
            lost.add(record);
        }
        assert_eq!(kept + lost.all(), events);
        assert_eq!(lost.all(), report.dropped);
        // The youngest are there, and everything that is no event.
        let youngest = records.iter().rposition(|r| r.code == code::EVENT).unwrap();
        assert!(youngest + 3 >= records.len());
        assert_eq!(records.iter().filter(|r| r.code <= 2).count(), 62);
        assert!(is_ended(journal, "kept"));
        assert_eq!(records.iter().filter(|r| r.code == 200).count(), 1);
    });
}

#[test]
fn an_index_of_a_full_journal_is_small() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&settings(folder.path())).unwrap();
    journal.connected(0);
    let short = r#"{"code":"io","message":"x"}"#;
    for n in 0..4_000 {
        journal.accept(&job(&token(n))).unwrap();
        journal.end(&token(n), &token(n), code::FAILED, short.to_owned());
        journal.acknowledge(journal.report().state.last);
    }
    assert!(journal.report().bytes > 900_000);
    let state = journal.state();
    let tokens = &state.disk.as_ref().unwrap().tokens;
    // A place and its hash take 16 bytes, and one of control.
    let bytes = tokens.capacity() * 8 / 7 * 17;
    println!("{} tokens in {bytes} bytes", tokens.len());
    assert!(bytes <= 100_000, "{bytes}");
}

#[test]
fn a_cut_while_room_is_made_leaves_a_job_or_its_end() {
    use super::forget::{Dice, Shelf};
    let mut cuts = 0;
    for changes in 0..14 {
        for seed in 0..12 {
            let shelves = (Shelf::new("/nowhere/journal"), Shelf::new("/nowhere"));
            let open = || {
                let settings = small(Path::new("/nowhere"));
                Journal::over(&settings, shelves.0.clone(), shelves.1.clone()).unwrap()
            };
            let journal = open();
            journal.connected(0);
            journal.accept(&job("a")).unwrap();
            // Until the next record needs room, all of it acknowledged.
            let before = |journal: &Journal| journal.report().bytes + 5_000 < 32 << 10;
            let mut n = 0;
            while before(&journal) {
                run_job(&journal, &token(n));
                n += 1;
            }
            journal.acknowledge(journal.report().state.last);
            // Neither acknowledged nor synced.
            journal.end("a", "a", code::SUCCEEDED, result(0));
            assert!(journal.sync_due().is_some());
            shelves.0.break_after(changes);
            let large = Acceptance {
                reserve: 8_000,
                ..job("b")
            };
            let _ = journal.accept(&large);
            drop(journal);
            shelves.0.mend();
            shelves.0.cut(&mut Dice::new(seed));
            let journal = open();
            assert!(is_ended(&journal, "a"), "{changes} changes, seed {seed}");
            cuts += 1;
        }
    }
    assert_eq!(cuts, 14 * 12);
}

#[test]
fn events_take_half_of_the_journal_and_leave_jobs_alone() {
    both(|folder, journal| {
        for n in 0..10 {
            run_job(journal, &token(n));
        }
        // All is acknowledged: it would go by age, the jobs first.
        journal.connected(0);
        for n in 0..300 {
            let stored = journal.events(vec![event(100), event(100)]).unwrap();
            assert_eq!(stored, journal.last());
            if n < 290 {
                journal.acknowledge(stored);
            }
        }
        let records = read_behind(journal, 0);
        let events = |r: &&Record| r.code == code::EVENT;
        let bytes: usize = records
            .iter()
            .filter(events)
            .map(|r| r.data.get().len())
            .sum();
        assert!(bytes <= 16 << 10 && bytes > 4 << 10, "{bytes}");
        assert!((0..10).all(|n| is_ended(journal, &token(n))));
        // Nothing went that nobody has, and the youngest are there.
        assert_eq!(journal.report().dropped, 0);
        assert_eq!(records.last().unwrap().id, journal.last());
        assert!(on_disk(folder) <= (32 << 10) + 64);

        // Offline the oldest go too, and are counted.
        journal.disconnected();
        for _ in 0..300 {
            journal.events(vec![event(100)]).unwrap();
        }
        let records = read_behind(journal, 0);
        let mut lost = Lost::default();
        let dropped = records.iter().filter(|r| r.code == code::DROPPED);
        dropped.for_each(|r| lost.add(r));
        assert_eq!(lost.all(), journal.report().dropped);
        let kept = records.iter().filter(|r| r.id > journal.acked());
        assert_eq!(
            kept.filter(|r| r.code == code::EVENT).count() as u64 + lost.all(),
            320
        );
        assert!((0..10).all(|n| is_ended(journal, &token(n))));

        // More at once than they have: none of it.
        let before = journal.last();
        let refused = journal.events(vec![event(100); 200]).unwrap_err();
        assert_eq!(refused.code, ErrorCode::TooLarge);
        assert_eq!(journal.last(), before);
    });
}

#[test]
fn events_do_not_make_room_of_what_nobody_has() {
    both(|_, journal| {
        while journal.put(&put(200, 300)).is_ok() {}
        let refused = journal.events(vec![event(2_000)]).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Busy);
    });
}
