//! CEF events of agents: stored once before they are acknowledged, searched, followed, pruned.
#![allow(missing_docs)]

mod common;

use common::*;
use poseidon::cef;
use rusqlite::Connection;
use serde_json::{Value, json};
use triton::message::{Message, payload};

fn line(severity: &str, name: &str, extension: &str) -> String {
    format!("CEF:0|Acme|Firewall|1.0|100|{name}|{severity}|{extension}")
}

/// Sends lines as events with the sequences from `first` on.
async fn report(agent: &mut Agent, first: u64, lines: &[String]) {
    let now = poseidon::time::now();
    let event = |(n, line): (u64, &String)| json!({"sequence": first + n, "time": now, "stored": now, "host": "gate", "source": "command", "cef": line});
    let events: Vec<_> = (0..).zip(lines).map(event).collect();
    send(agent, json!(events)).await;
}

async fn send(agent: &mut Agent, events: Value) {
    let message = json!({"events": events, "last": 9999});
    agent.send(&Message::with(payload::EVENTS, &message)).await;
}

async fn search(rig: &Rig, query: &str) -> Value {
    rig.client.get(&format!("/cef?{query}")).await.unwrap()
}

/// What was found, by the last word of its line.
async fn names(rig: &Rig, query: &str) -> Vec<String> {
    let answer = search(rig, query).await;
    let events = answer["events"].as_array().unwrap().iter();
    let name = |event: &Value| {
        event["line"]
            .as_str()
            .unwrap()
            .rsplit(['|', ' '])
            .next()
            .unwrap()
            .to_owned()
    };
    events.map(name).collect()
}

#[tokio::test]
async fn events_are_stored_once_and_acknowledged_with_the_other_records() {
    let mut rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    agent.values(1..=2).await;
    report(
        &mut agent,
        3,
        &[
            line("8", "Login failed", "src=10.0.0.1"),
            line("Low", r"A\|B", ""),
        ],
    )
    .await;
    agent.values(5..=5).await;
    agent.acked(5).await;
    // Sent again, as after a lost acknowledgement.
    report(
        &mut agent,
        3,
        &[
            line("8", "Login failed", "src=10.0.0.1"),
            line("Low", r"A\|B", ""),
        ],
    )
    .await;
    agent.acked(5).await;
    let answer = search(&rig, "").await;
    let events = answer["events"].as_array().unwrap();
    assert_eq!((events.len(), &answer["next"]), (2, &Value::Null));
    let (second, first) = (&events[0], &events[1]);
    for (field, value) in [
        ("agent", json!("box")),
        ("instance", json!("i1")),
        ("id", json!(3)),
        ("host", json!("gate")),
        ("source", json!("command")),
        ("severity", json!(8)),
        ("vendor", json!("Acme")),
        ("product", json!("Firewall")),
        ("version", json!("1.0")),
        ("signature", json!("100")),
        ("name", json!("Login failed")),
        ("line", json!(line("8", "Login failed", "src=10.0.0.1"))),
    ] {
        assert_eq!(first[field], value, "{field}");
    }
    assert_eq!(
        (&second["severity"], &second["name"]),
        (&json!(3), &json!("A|B"))
    );
    // They are no records of the history: a flood of events must not push out what jobs have left.
    let ids: Vec<_> = rig
        .history("order=asc")
        .await
        .iter()
        .map(|r| r["id"].clone())
        .collect();
    assert_eq!(ids, [1, 2, 5]);
    // Over a restart, and when the device is forgotten: an event is evidence.
    drop(agent);
    rig.restart().await;
    rig.is_down("box").await;
    rig.told("DELETE", "/agents/box", b"", 200).await;
    assert_eq!(names(&rig, "").await.len(), 2);
    assert_eq!(search(&rig, "").await["events"][0]["agent"], "box");
}

#[tokio::test]
async fn a_kill_loses_no_event_that_was_acknowledged() {
    let mut rig = daemon().await;
    rig.register("box").await;
    for round in 0..3_u64 {
        let (mut agent, acked) = rig.journaled("i1", "j1").await;
        assert_eq!(acked, round * 10);
        let lines: Vec<_> = (1..=10)
            .map(|n| line("5", "x", &format!("n={n}")))
            .collect();
        report(&mut agent, round * 10 + 1, &lines).await;
        agent.acked(round * 10 + 10).await;
        rig.kill().await;
        let found = search(&rig, "limit=1000").await;
        let ids: Vec<_> = found["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids, (1..=round * 10 + 10).rev().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_is_no_cef_is_kept_as_text_and_holds_nothing_up() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let huge = format!("CEF:0|a|b|c|d|e|5|msg={}", "x".repeat(600_000));
    send(&mut agent, json!([
        {"sequence": 1, "time": 5.0, "cef": "not CEF at all"},
        {"sequence": 2, "time": null, "stored": [], "cef": {"new": true}, "host": 7, "source": "\u{1b}[2J"},
        {"sequence": 3},
        {"sequence": 4, "time": 1e300, "cef": "CEF:7|a|b|c|d|e|5|"},
        {"sequence": 5, "time": 5.0, "cef": line("5", "good", "")},
    ])).await;
    send(&mut agent, json!([{"sequence": 6, "cef": huge}])).await;
    agent.acked(6).await;
    let answer = search(&rig, "").await;
    let events = answer["events"].as_array().unwrap();
    assert_eq!(events.len(), 6);
    assert!(
        events[0]["line"]
            .as_str()
            .unwrap()
            .ends_with("(cut off, 600022 bytes)")
    );
    for unread in [0, 2, 3, 4, 5] {
        assert_eq!(
            (&events[unread]["severity"], &events[unread]["name"]),
            (&Value::Null, &Value::Null)
        );
    }
    assert_eq!(events[1]["name"], "good");
    assert_eq!(events[5]["line"], "not CEF at all");
    // A severity asks for what is known.
    assert_eq!(
        search(&rig, "severity=0").await["events"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // What has no sequence cannot be acknowledged, and is refused as a whole.
    for bad in [
        json!([{"sequence": 7}, {"cef": "x"}]),
        json!([{"sequence": -1}]),
        json!({"sequence": 7}),
        json!(vec![0; 2000]),
    ] {
        send(&mut agent, bad).await;
        let error: payload::Error = agent.expect(payload::ERROR).await.read().unwrap();
        assert_eq!(error.code.as_str(), "invalid");
    }
    report(&mut agent, 7, &[line("5", "after", "")]).await;
    agent.acked(7).await;
    assert_eq!(names(&rig, "limit=1").await, [""]);
}

#[tokio::test]
async fn a_search_finds_what_it_asks_for() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut one, _) = rig.journaled("i1", "j1").await;
    let (mut two, _) = rig.journaled("i2", "j2").await;
    report(
        &mut one,
        1,
        &[
            line("9", "Login failed", "src=10.0.0.1 n=1"),
            line("2", "Login worked", "src=10.0.0.12 n=2"),
            line("Unknown", "Ünicode", "msg=don't \"quote\" n=3"),
        ],
    )
    .await;
    one.acked(3).await;
    let other = "CEF:0|Other, Inc|Sensor|2|7|Too hot|High|msg=50% n=4".to_owned();
    report(&mut two, 1, &[other]).await;
    two.acked(1).await;
    for (query, expected) in [
        ("", vec!["n=4", "n=3", "n=2", "n=1"]),
        ("text=login", vec!["n=2", "n=1"]),
        ("text=log%20fail", vec!["n=1"]),
        ("text=%22login%20failed%22", vec!["n=1"]),
        ("text=10.0.0.1", vec!["n=2", "n=1"]),
        ("text=%22src%3D10.0.0.1%22", vec!["n=1"]),
        ("text=%C3%BCnicode", vec!["n=3"]),
        // Nothing of it is the index's own syntax.
        ("text=login%20OR%20hot", vec![]),
        ("text=line%3Alogin", vec![]),
        ("text=NOT%20login", vec![]),
        ("text=(login", vec!["n=2", "n=1"]),
        ("text=login*%20%5E%20-", vec!["n=2", "n=1"]),
        ("text=don't%20quote", vec!["n=3"]),
        ("text=login%22", vec!["n=2", "n=1"]),
        ("text=login%00", vec!["n=2", "n=1"]),
        ("severity=8", vec!["n=4", "n=1"]),
        ("severity=0", vec!["n=4", "n=2", "n=1"]),
        ("vendor=acme", vec!["n=3", "n=2", "n=1"]),
        ("vendor=acm", vec![]),
        ("vendor=other%2C%20inc&product=sensor", vec!["n=4"]),
        ("agent=box%2Fi2", vec!["n=4"]),
        ("agent=box", vec!["n=4", "n=3", "n=2", "n=1"]),
        ("on=box%2Fi1&text=login&severity=5", vec!["n=1"]),
        ("on=nobody", vec![]),
        ("since=4000000000", vec![]),
        ("until=1000", vec![]),
        ("since=1000&until=4000000000&limit=2", vec!["n=4", "n=3"]),
    ] {
        assert_eq!(names(&rig, query).await, expected, "{query}");
    }
    for bad in [
        "text=---",
        "text=",
        "severity=11",
        "severity=x",
        "since=nan",
        "limit=0",
        "limit=1001",
        "color=red",
        "before=1&after=1",
        "on=,",
        "agent=nobody",
    ] {
        let (status, answer) = rig.ask("GET", &format!("/cef?{bad}"), b"").await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            status == 400 || (status == 404 && bad == "agent=nobody"),
            "{bad}: {status} {text}"
        );
    }
    let (status, _) = rig
        .ask("GET", &format!("/cef?text={}", "a".repeat(5000)), b"")
        .await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn pages_go_on_where_they_ended_and_what_comes_is_waited_for() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    // More than one window of a search.
    let db = Connection::open(rig.dir.path().join("data/poseidon.db")).unwrap();
    let filler = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 25000)
        INSERT INTO events (identifier, instance, id, time, at, stored, received, agent, host, source, bytes, line)
        SELECT 'gone', 'gone', n, 1, 1, 1, n * 10, 'old', 'h', 's', 100,
        CASE WHEN n % 5000 = 1 THEN 'rare' ELSE 'often' END || ' n=' || n FROM n";
    db.execute_batch(filler).unwrap();
    report(&mut agent, 1, &[line("5", "rare", "n=new")]).await;
    agent.acked(1).await;
    assert_eq!(
        names(&rig, "text=rare").await,
        ["n=new", "n=20001", "n=15001", "n=10001", "n=5001", "n=1"]
    );
    let (mut before, mut all) = (u64::MAX, Vec::new());
    for _ in 0..7 {
        let answer = search(&rig, &format!("text=rare&limit=2&before={before}")).await;
        all.extend(answer["events"].as_array().unwrap().clone());
        let Some(next) = answer["next"].as_u64() else {
            break;
        };
        before = next;
    }
    assert_eq!(all.len(), 6);
    // Oldest first, from a row on.
    assert_eq!(
        names(&rig, "text=rare&after=5001&limit=2").await,
        ["n=10001", "n=15001"]
    );
    // What came long before cannot have happened since; the windows below are not looked at.
    assert_eq!(names(&rig, "text=rare&since=200000").await, ["n=new"]);
    // It waits for what comes, and does not answer for what is not asked for.
    let client = rig.client.clone();
    let follower = tokio::spawn(async move {
        client
            .get::<Value>("/cef?after=25001&wait=20&text=second")
            .await
            .unwrap()
    });
    report(&mut agent, 2, &[line("5", "first", "n=a")]).await;
    agent.acked(2).await;
    assert!(!follower.is_finished());
    report(&mut agent, 3, &[line("5", "second", "n=b")]).await;
    let answer = within(follower).await.unwrap();
    assert_eq!(
        (answer["events"][0]["id"].as_u64(), answer["next"].as_u64()),
        (Some(3), Some(25003))
    );
    // A server that stops does not wait for its readers.
    let client = rig.client.clone();
    let waiting =
        tokio::spawn(async move { client.get::<Value>("/cef?after=25003&wait=30").await });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    within(rig.server.unwrap().stop()).await;
    let _ = within(waiting).await;
}

#[tokio::test]
async fn the_oldest_make_room_and_the_index_forgets_them() {
    let rig = rig_with(|settings| settings.events_bytes = 100_000).await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let padding = "x".repeat(1000);
    let lines: Vec<_> = (1..=100)
        .map(|n| line("5", "x", &format!("msg={padding} word{n} n={n}")))
        .collect();
    report(&mut agent, 1, &lines).await;
    agent.acked(100).await;
    let app = rig.server.as_ref().unwrap().app();
    let (deleted, unsent) = cef::prune_now(app).await.unwrap();
    assert!((50..=60).contains(&deleted), "{deleted}");
    assert_eq!(unsent, 0);
    let state: Value = rig.client.get("/cef/state").await.unwrap();
    assert!(state["bytes"].as_u64().unwrap() <= 100_000, "{state}");
    assert_eq!(
        (&state["pruned"], &state["newest"], &state["oldest"]),
        (&json!(deleted), &json!(100), &json!(deleted + 1))
    );
    assert_eq!(names(&rig, "text=word1").await.last().unwrap(), "n=100");
    assert_eq!(names(&rig, "text=%22word1%22").await, Vec::<String>::new());
    assert_eq!(names(&rig, "limit=1000").await.len() as u64, 100 - deleted);
    let db = Connection::open(rig.dir.path().join("data/poseidon.db")).unwrap();
    db.execute_batch("INSERT INTO event_words (event_words) VALUES ('integrity-check')")
        .unwrap();
    // A reader that was further back goes on with what is there.
    assert_eq!(
        names(&rig, "after=3&limit=1").await,
        [format!("n={}", deleted + 1)]
    );
}

#[tokio::test]
async fn the_command_prints_events_and_follows() {
    use tokio::io::AsyncBufReadExt as _;
    let mut rig = daemon().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    report(
        &mut agent,
        1,
        &[
            line("9", "Login failed", "src=10.0.0.1"),
            line("1", "Fine", "msg=\u{1b}[2J"),
        ],
    )
    .await;
    agent.acked(2).await;
    let data = rig.dir.path().join("data");
    let run = async |arguments: &[&str]| {
        let output = poseidon(arguments)
            .env("POSEIDON_DATA", &data)
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (good, out, err) = run(&["events"]).await;
    assert!(good && err.is_empty(), "{err}");
    let lines: Vec<_> = out.lines().collect();
    assert!(
        lines[0].ends_with("box   9  Acme Firewall: Login failed  src=10.0.0.1"),
        "{out}"
    );
    assert!(
        lines[1].contains("Fine") && !out.contains('\u{1b}'),
        "{out}"
    );
    let (_, out, err) = run(&["events", "--limit", "1", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["name"], "Fine");
    assert!(err.contains("older events were not looked at"), "{err}");
    let (_, out, _) = run(&[
        "events",
        "--text",
        "login",
        "--severity",
        "8",
        "--vendor",
        "acme",
        "--on",
        "box",
        "--since",
        "2h",
        "--raw",
    ])
    .await;
    assert_eq!(out, line("9", "Login failed", "src=10.0.0.1\n"));
    let (good, _, err) = run(&["events", "--text", "|"]).await;
    assert!(!good && err.contains("there is no word in it"), "{err}");
    let (_, out, _) = run(&["events", "--forwarding"]).await;
    assert!(out.contains("off: `poseidon serve --siem"), "{out}");

    let mut follower = poseidon(&["events", "--follow", "--limit", "1", "--text", "news"])
        .env("POSEIDON_DATA", &data)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(follower.stdout.take().unwrap()).lines();
    for (n, sequence) in (3..).enumerate().take(3) {
        if n == 2 {
            // The server is killed, and each event is there once all the same.
            rig.kill().await;
            agent = rig.journaled("i1", "j1").await.0;
        }
        report(
            &mut agent,
            sequence,
            &[line("5", "news", &format!("n={n}"))],
        )
        .await;
        agent.acked(sequence).await;
        let line = within(lines.next_line()).await.unwrap().unwrap();
        assert!(line.ends_with(&format!("n={n}")), "{line}");
    }
}
