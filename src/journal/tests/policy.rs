//! What is written and synced when, and what the calls answer.

use super::*;
use crate::message::payload::ErrorCode;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

fn open(folder: &Path) -> Journal {
    Journal::open(&settings(folder)).unwrap()
}

#[test]
fn a_job_costs_one_sync_while_poseidon_acknowledges() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    assert_eq!(journal.connected(0), 0);
    let before = journal.report();
    for n in 1..=100 {
        run_job(&journal, &token(n));
        assert!(journal.sync_due().is_some());
        journal.acknowledge(journal.report().state.last);
        assert_eq!(journal.sync_due(), None);
        journal.sync();
    }
    let after = journal.report();
    assert_eq!(after.syncs - before.syncs, 100);
    let bytes = (after.written_bytes - before.written_bytes) / 100;
    println!("a job of `true`: {bytes} bytes");
    assert!(bytes < 700, "{bytes}");
    assert_eq!(after.waiting, 0);
    // The acknowledgements cost nothing, and are known after a restart up to the last write.
    drop(journal);
    assert_eq!(open(folder.path()).acked(), after.state.last - 2);
}

#[test]
fn without_poseidon_an_end_is_synced_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let syncs = || journal.report().syncs;
    let before = syncs();
    run_job(&journal, "a");
    assert_eq!(syncs() - before, 2);
    // To a server that acknowledges nothing there is no one to wait for either.
    journal.acknowledge(journal.report().state.last);
    run_job(&journal, "b");
    assert_eq!(syncs() - before, 4);
    journal.put(&put(200, 1)).unwrap();
    assert_eq!(syncs() - before, 5);
}

#[test]
fn an_end_that_nobody_acknowledges_is_synced_after_a_second_or_with_the_next_sync() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let syncs = || journal.report().syncs;
    journal.connected(0);
    let start = Instant::now();
    run_job(&journal, "a");
    let first = journal.sync_due().unwrap();
    assert!(first >= start + Duration::from_millis(900));
    assert!(first <= Instant::now() + Duration::from_secs(1));
    // Another end does not put it off, and one sync covers both.
    let before = syncs();
    journal.end("x", "x", code::FAILED, result(0));
    assert_eq!(journal.sync_due(), Some(first));
    // An acknowledgement of the first only is not enough.
    journal.acknowledge(journal.report().state.last - 1);
    assert_eq!(journal.sync_due(), Some(first));
    journal.sync();
    assert_eq!((journal.sync_due(), syncs() - before), (None, 1));
    // Whatever syncs next covers it.
    journal.end("y", "y", code::FAILED, result(0));
    journal.put(&put(200, 1)).unwrap();
    assert_eq!((journal.sync_due(), syncs() - before), (None, 2));
    // The connection ends.
    journal.end("z", "z", code::FAILED, result(0));
    journal.disconnected();
    assert_eq!((journal.sync_due(), syncs() - before), (None, 3));
    journal.end("u", "u", code::FAILED, result(0));
    assert_eq!((journal.sync_due(), syncs() - before), (None, 4));
}

#[test]
fn without_sync_nothing_is_waited_for_but_creation() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&Settings {
        sync: false,
        goes_on: None,
        ..settings(folder.path())
    })
    .unwrap();
    let before = journal.report().syncs;
    for n in 0..10 {
        run_job(&journal, &token(n));
        journal.put(&put(200, 1)).unwrap();
    }
    journal.disconnected();
    assert_eq!(journal.report().syncs, before);
}

#[test]
fn files_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    run_job(&journal, "a");
    let path = folder.path().join("journal");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(&path).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
        files += 1;
    }
    assert_eq!(files, 2);
    let sequence = std::fs::metadata(folder.path().join("sequence")).unwrap();
    assert_eq!(sequence.mode() & 0o777, 0o600);
}

#[test]
fn a_token_is_accepted_once() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    journal.accept(&job("a")).unwrap();
    assert!(matches!(
        refusal(&journal, "a"),
        Refusal::Known(Standing::Open)
    ));
    journal.end("a", "a", code::SUCCEEDED, result(0));
    let Refusal::Known(Standing::Ended(end)) = refusal(&journal, "a") else {
        panic!("not ended");
    };
    assert_eq!((end.code, status_of(&end)), (1, Status::Succeeded));
    // A value with the same token is another thing.
    journal
        .put(&HistoryPut {
            token: Some("v".to_owned()),
            ..put(200, 1)
        })
        .unwrap();
    assert!(journal.find("v").is_none());
    journal.accept(&job("v")).unwrap();
    drop(journal);
    let journal = open(folder.path());
    assert!(is_ended(&journal, "a") && is_ended(&journal, "v"));
    assert!(journal.find("b").is_none());
}

#[test]
fn a_job_without_an_end_was_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    run_job(&journal, "done");
    let acceptance = Acceptance {
        conversation: "talk",
        ..job("open")
    };
    journal.accept(&acceptance).unwrap();
    let last = journal.report().state.last;
    drop(journal);
    for _ in 0..2 {
        let journal = open(folder.path());
        let records = read_behind(&journal, last);
        assert_eq!(records.len(), 1, "reported once, also after two starts");
        let end = &records[0];
        assert_eq!((end.code, end.token.as_str()), (code::FAILED, "open"));
        assert_eq!(end.conversation.as_deref(), Some("talk"));
        assert_eq!(status_of(end), Status::Interrupted);
        assert_eq!(journal.report().waiting, 4);
    }
}

#[test]
fn two_processes_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let second = open(folder.path());
    assert_eq!(first.report().state.state, "disk");
    let state = second.report().state;
    assert_eq!(state.state, "memory");
    assert!(
        state.reason.unwrap().contains("another process uses it"),
        "says why"
    );
}

#[test]
fn values_are_judged() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let refused = |put: HistoryPut| journal.put(&put).unwrap_err().code;
    let with_token = |token: &str| HistoryPut {
        token: Some(token.to_owned()),
        ..HistoryPut::default()
    };
    for code in [0, 2, 99, 102] {
        assert_eq!(refused(put(code, 1)), ErrorCode::Invalid);
    }
    for text in ["", "a\0b", "a\nb", &"x".repeat(129)] {
        assert_eq!(refused(with_token(text)), ErrorCode::Invalid);
    }
    assert_eq!(refused(put(200, 64 * 1024)), ErrorCode::TooLarge);
    let etime = Some(f64::NAN);
    assert_eq!(
        refused(HistoryPut {
            etime,
            ..HistoryPut::default()
        }),
        ErrorCode::Invalid
    );
    let stored = journal
        .put(&HistoryPut {
            etime: Some(12.5),
            ..with_token(&"ü".repeat(128))
        })
        .unwrap();
    assert_eq!((stored.code, stored.data.get()), (200, "null"));
    assert!((stored.etime - 12.5).abs() < f64::EPSILON);
    let largest = journal.put(&put(100, 64 * 1024 - 2)).unwrap();
    assert_eq!(
        content(&journal.next(stored.id).unwrap()),
        content(&largest)
    );
}

#[test]
fn history_answers_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    for n in 0..30 {
        let code = if n % 3 == 0 { 300 } else { 301 };
        let etime = Some(f64::from(n));
        let put = HistoryPut {
            etime,
            ..put(code, 10)
        };
        journal.put(&put).unwrap();
    }
    let get = |query: HistoryGet| journal.history(&query, 1 << 20).unwrap();
    let of_code = HistoryGet {
        code: Some(300),
        ..HistoryGet::default()
    };
    let all = get(of_code.clone());
    assert_eq!((all.records.len(), all.more), (10, false));
    assert_eq!(all.last, journal.report().state.last);
    assert!(all.records.is_sorted_by_key(|r| r.id));
    // In pages of four, each behind the last of the one before; the link's reading is not disturbed.
    let first = journal.next(0).unwrap();
    let (mut id, mut pages) = (0, Vec::new());
    loop {
        let page = get(HistoryGet {
            id: Some(id),
            limit: Some(4),
            ..of_code.clone()
        });
        id = page.records.last().unwrap().id;
        pages.push((page.records.len(), page.more));
        if !page.more {
            break;
        }
    }
    assert_eq!(pages, [(4, true), (4, true), (2, false)]);
    assert_eq!(journal.next(first.id).unwrap().id, first.id + 1);
    let late = get(HistoryGet {
        etime: Some(27.0),
        ..of_code.clone()
    });
    assert_eq!(late.records.len(), 1);
    let token = all.records[3].token.clone();
    let one = get(HistoryGet {
        token: Some(token),
        ..HistoryGet::default()
    });
    assert_eq!(one.records[0].id, all.records[3].id);
    // Within the bytes, and on: a page is never empty where there is more.
    let mut seen = 0;
    let mut id = 0;
    for _ in 0..100 {
        let query = HistoryGet {
            id: Some(id),
            ..HistoryGet::default()
        };
        let page = journal.history(&query, 700).unwrap();
        assert!(serde_json::to_string(&page).unwrap().len() <= 700);
        seen += page.records.len();
        id = page.records.last().unwrap().id;
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, 30);
    for limit in [0, 1001] {
        let query = HistoryGet {
            limit: Some(limit),
            ..of_code.clone()
        };
        let error = journal.history(&query, 1 << 20).unwrap_err();
        assert_eq!(error.code, ErrorCode::Invalid);
    }
    let error = journal
        .history(&HistoryGet::default(), 1 << 20)
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::Invalid);
    assert!(error.message.contains("token, code, ctime, etime and id"));
}

#[test]
fn an_end_too_large_for_an_answer_is_shown_without_its_tails() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    journal.accept(&job("a")).unwrap();
    journal.end("a", "a", code::SUCCEEDED, result(50_000));
    let ends = HistoryGet {
        code: Some(1),
        ..HistoryGet::default()
    };
    let page = journal.history(&ends, 4_000).unwrap();
    assert_eq!((page.records.len(), page.more), (1, false));
    assert_eq!(status_of(&page.records[0]), Status::Succeeded);
    assert!(serde_json::to_string(&page).unwrap().len() <= 4_000);
}

#[test]
fn numbers_go_on_after_a_restart_and_after_the_journal_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = 0;
    for n in 0..4 {
        let journal = open(folder.path());
        run_job(&journal, &token(n));
        let records = read_behind(&journal, last);
        assert_eq!(records.len(), 2);
        last = records[1].id;
        drop(journal);
        if n == 1 {
            std::fs::remove_dir_all(folder.path().join("journal")).unwrap();
        }
        if n == 2 {
            // The journal's last record is as good as a bound that is lost.
            std::fs::write(folder.path().join("sequence"), "nonsense").unwrap();
        }
    }
}

#[test]
fn a_server_that_knows_more_than_this_life_shows_that_numbers_were_used() {
    let folder = tempfile::tempdir().unwrap();
    // Neither the journal nor the bound are left of what the server remembers, up to 5 or up to 5000.
    for (n, known) in [5, 5_000].into_iter().enumerate() {
        let folder = folder.path().join(n.to_string());
        std::fs::create_dir(&folder).unwrap();
        let journal = open(&folder);
        for n in 0..10 {
            run_job(&journal, &token(n));
        }
        journal.accept(&job("open")).unwrap();
        assert_eq!(journal.report().state.last, 21);
        assert_eq!(journal.connected(known), known);
        let records = read_behind(&journal, known);
        assert_eq!(records.len(), 21, "all are sent, under new numbers");
        assert!(records[0].id > known.max(21));
        assert_eq!(journal.report().waiting, 21);
        assert!(is_ended(&journal, &token(3)));
        assert!(matches!(journal.find("open"), Some(Standing::Open)));
        journal.acknowledge(records[9].id);
        // The same server again: now it is this life's own numbers.
        journal.disconnected();
        assert_eq!(journal.connected(records[9].id), records[9].id);
        assert_eq!(read_behind(&journal, records[9].id).len(), 11);
        drop(journal);
        let journal = open(&folder);
        let again = read_behind(&journal, records[9].id);
        assert_eq!(again.len(), 12, "and the end of the open job");
        assert_eq!(content(&again[0]), content(&records[10]));
        assert_eq!(journal.connected(records[9].id), records[9].id);
        assert_eq!(contents(&journal).len(), 22);
    }
}

#[test]
fn a_server_that_talks_nonsense_does_not_use_up_the_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    run_job(&journal, "a");
    journal.connected(0);
    assert_eq!(journal.connected(u64::MAX), 0);
    journal.acknowledge(u64::MAX);
    assert_eq!(journal.acked(), 2);
    // One that has been restored from a backup gets again what it lacks.
    assert_eq!(journal.connected(1), 1);
    assert_eq!(journal.report().waiting, 1);
}

#[test]
fn it_rings_for_each_record() {
    use crate::sys::poll::{IN, PollSet};
    use std::os::fd::AsFd as _;
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let rings = || {
        let mut set = PollSet::new();
        set.add(journal.wake().as_fd(), IN);
        let rings = set.wait(Some(Instant::now())).unwrap();
        journal.wake().clear();
        rings
    };
    assert!(!rings());
    journal.accept(&job("a")).unwrap();
    assert!(rings());
    journal.acknowledge(1);
    assert!(journal.find("a").is_some() && !rings());
    journal.end("a", "a", code::SUCCEEDED, result(0));
    assert!(rings());
    journal.put(&put(200, 1)).unwrap();
    assert!(rings());
}

#[test]
fn events_are_synced_after_a_second_or_offline_at_once_but_seldom() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let syncs = || journal.report().syncs;
    let store = || {
        let event = (1.5, "{\"cef\":\"x\"}".to_owned());
        journal.events(vec![event]).unwrap()
    };
    // Connected: a second after the first, unless it is acknowledged.
    journal.connected(0);
    let before = syncs();
    let start = Instant::now();
    store();
    let due = journal.sync_due().unwrap();
    assert!(due >= start + Duration::from_secs(1));
    journal.acknowledge(store());
    assert_eq!(journal.sync_due(), None);
    journal.sync();
    assert_eq!(syncs() - before, 0);
    // The end of the connection syncs what is left; what comes then waits up to 5 s.
    store();
    journal.disconnected();
    assert_eq!(syncs() - before, 1);
    let start = Instant::now();
    for _ in 0..50 {
        store();
    }
    assert_eq!(syncs() - before, 1);
    let due = journal.sync_due().unwrap();
    assert!(due <= start + Duration::from_secs(5));
    journal.sync();
    assert_eq!((journal.sync_due(), syncs() - before), (None, 2));
    // Where the disk has rested, at once.
    journal.state().synced_at = start.checked_sub(Duration::from_secs(6));
    store();
    assert_eq!((journal.sync_due(), syncs() - before), (None, 3));
    drop(journal);
    let journal = open(folder.path());
    assert_eq!(journal.last().min(54), 54);
    assert_eq!(read_behind(&journal, 0).len(), 54);
}
