//! The ledger of the crash tests can fail: each broken promise is seen.

mod support;

use serde_json::{Value, json};
use support::ledger::{Ledger, Put, Row};

fn row(id: u64, token: &str, code: u32, data: Value) -> Row {
    Row {
        at: id + 100,
        instance: "i".to_owned(),
        id,
        token: token.to_owned(),
        code,
        data,
    }
}

/// Two jobs, one that ran and one that was interrupted before its first act, and two values.
fn sound() -> Ledger {
    let succeeded = json!({ "status": "succeeded", "exitCode": 0 });
    let interrupted = json!({ "status": "interrupted" });
    let record = json!({
        "id": 5, "token": "v", "code": 200, "etime": 1, "ctime": 1, "data": { "n": 0 }
    });
    Ledger {
        starts: vec!["a".to_owned()],
        jobs: vec![
            json!({ "id": "a", "state": "ended", "result": succeeded, "error": null }),
            json!({ "id": "b", "state": "ended", "result": interrupted, "error": null }),
        ],
        confirmed: vec!["a".to_owned()],
        agent: vec![serde_json::from_value(record).unwrap()],
        rows: vec![
            row(1, "a", 0, json!({ "what": "sh" })),
            row(2, "b", 0, json!({ "what": "sh" })),
            row(3, "a", 1, succeeded),
            row(4, "b", 2, interrupted),
            row(5, "v", 200, json!({ "n": 0 })),
        ],
        values: vec![
            Put {
                n: 0,
                sequence: Some(5),
            },
            Put {
                n: 1,
                sequence: None,
            },
        ],
        waiting: 0,
        may_lose_unstarted: false,
    }
}

#[test]
fn a_sound_ledger_has_no_violations() {
    sound().assert_sound();
}

#[test]
fn each_broken_promise_is_seen() {
    type Break = fn(&mut Ledger);
    let breaks: [(&str, Break); 21] = [
        ("started 2 times", |l| l.starts.push("a".to_owned())),
        ("ran, with 0 starts", |l| l.starts.clear()),
        ("was started and Poseidon has no record", |l| {
            l.starts.push("c".to_owned());
        }),
        ("has no end: it is \"accepted\"", |l| {
            l.jobs[0]["state"] = json!("accepted");
        }),
        ("exactly one end", |l| {
            l.jobs[0]["error"] = json!({ "code": "io" });
        }),
        ("exactly one end", |l| l.jobs[1]["result"] = Value::Null),
        ("is lost", |l| {
            l.jobs[1]["result"] = Value::Null;
            l.jobs[1]["error"] = json!({ "code": "lost" });
        }),
        ("never started, with 1", |l| {
            l.jobs[0]["result"] = json!({ "status": "expired" });
        }),
        ("its record", |l| {
            l.jobs[1]["result"] = json!({ "status": "cancelled" });
        }),
        ("Poseidon has forgotten it", |l| {
            l.jobs.remove(0);
        }),
        ("accepted 2 times", |l| {
            l.rows.push(row(6, "a", 0, Value::Null));
        }),
        ("has 2 ends", |l| l.rows.push(row(6, "a", 2, Value::Null))),
        ("has 0 ends", |l| {
            l.rows.remove(3);
        }),
        ("never accepted", |l| {
            l.rows.remove(1);
        }),
        ("ended (3) before 6", |l| {
            l.rows.remove(0);
            l.rows.push(row(6, "a", 0, Value::Null));
        }),
        ("is there twice", |l| {
            l.rows.push(row(5, "w", 150, Value::Null));
        }),
        ("came behind", |l| l.rows.swap(0, 1)),
        ("value 0 was confirmed as Some(5) and arrived as []", |l| {
            l.rows.pop();
            l.agent.clear();
        }),
        (
            "value 0 was confirmed as Some(5) and arrived as [5, 6]",
            |l| {
                l.rows.push(row(6, "v", 200, json!({ "n": 0 })));
            },
        ),
        ("nobody has put the value 7", |l| {
            l.rows.push(row(6, "v", 200, json!({ "n": 7 })));
        }),
        ("have not been acknowledged", |l| l.waiting = 1),
    ];
    for (what, break_it) in breaks {
        let mut ledger = sound();
        break_it(&mut ledger);
        let wrong = ledger.violations();
        assert!(wrong.iter().any(|w| w.contains(what)), "{what}: {wrong:#?}");
    }
}

#[test]
fn dropped_events_and_a_different_copy_are_seen() {
    let mut ledger = sound();
    ledger.rows.push(row(6, "d", 102, json!({ "events": 3 })));
    assert!(ledger.violations()[0].contains("dropped"));
    let mut ledger = sound();
    ledger.rows[4].data = json!({ "n": 1 });
    assert!(
        ledger
            .violations()
            .iter()
            .any(|w| w.contains("the agent has the value"))
    );
    let mut ledger = sound();
    ledger.agent[0].id = 9;
    assert!(ledger.violations()[0].contains("Poseidon lacks"));
    let mut ledger = sound();
    ledger.rows[4].id = 6;
    assert!(
        ledger
            .violations()
            .iter()
            .any(|w| w.contains("arrived as [6]"))
    );
}
