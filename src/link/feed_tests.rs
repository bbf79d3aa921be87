use super::*;
use crate::journal::{Acceptance, Settings};
use crate::message::payload::{HistoryPut, OUTPUT, Output, Stream};
use crate::outbox::Limits;
use crate::sys::wake::Wake;
use serde_json::{Value, json};
use std::sync::Arc;

/// In memory: its folder is none.
fn journal() -> Journal {
    let settings = Settings {
        folder: "/proc/triton/journal".into(),
        state: "/proc/triton".into(),
        bytes: 1 << 20,
        memory_bytes: 16 << 20,
        sync: false,
        goes_on: None,
    };
    Journal::open(&settings).unwrap()
}

fn outbox() -> Outbox {
    let limits = Limits {
        control: 10,
        output_bytes: 10_000,
    };
    let outbox = Outbox::new(limits).unwrap();
    outbox.set_online(true);
    outbox
}

fn accept(journal: &Journal, token: &str, conversation: &str) {
    let job = Acceptance {
        token,
        conversation,
        what: "echo",
        origin: "poseidon",
        reserve: 100,
    };
    journal.accept(&job).unwrap();
}

fn end(journal: &Journal, token: &str, conversation: &str) {
    let data = json!({"status": "succeeded", "exitCode": 0}).to_string();
    journal.end(token, conversation, code::SUCCEEDED, data);
}

fn put(journal: &Journal, data: Value) -> u64 {
    let put = HistoryPut {
        data,
        ..HistoryPut::default()
    };
    journal.put(&put).unwrap().id
}

fn sent(turn: Turn) -> (Message, Value) {
    let Turn::Send(message) = turn else {
        panic!("{turn:?}")
    };
    let payload = message.read().unwrap();
    (message, payload)
}

fn drain(feed: &mut Feed, outbox: &Outbox) -> usize {
    std::iter::from_fn(|| matches!(feed.next(outbox), Turn::Send(_)).then_some(())).count()
}

#[test]
fn records_leave_in_order_as_their_messages() {
    let (journal, outbox) = (journal(), outbox());
    accept(&journal, "job", "talk");
    let values = [put(&journal, json!(1)), put(&journal, json!({"b": "<&>"}))];
    end(&journal, "job", "talk");
    let mut feed = Feed::new(&journal, 1_000);
    assert!(
        matches!(feed.next(&outbox), Turn::Idle),
        "not before welcome"
    );
    feed.begin(Some(0));
    assert!(!feed.is_done());

    let (message, payload) = sent(feed.next(&outbox));
    assert_eq!(
        (&*message.kind, &*message.conversation_id),
        ("accepted", "talk")
    );
    assert_eq!(payload["what"], "echo");
    assert!(payload["sequence"].as_u64().unwrap() < values[0]);
    assert!(payload["etime"].as_f64().unwrap() > 0.0 && payload["ctime"].is_f64());

    let (message, payload) = sent(feed.next(&outbox));
    assert_eq!(message.kind, "history");
    let records = payload["records"].as_array().unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["id"], values[0]);
    assert_eq!(records[1]["data"]["b"], "<&>");

    let (message, payload) = sent(feed.next(&outbox));
    assert_eq!(
        (&*message.kind, &*message.conversation_id),
        ("result", "talk")
    );
    assert_eq!(payload["exitCode"], 0);
    let last = payload["sequence"].as_u64().unwrap();
    assert!(last > values[1]);
    assert!(matches!(feed.next(&outbox), Turn::Idle));
    assert!(!feed.is_done(), "nothing is acknowledged yet");
    feed.acknowledged(last);
    assert!(feed.is_done());
    assert_eq!(journal.acked(), last);

    // A welcome without `acked` does not make it a server that acknowledges nothing.
    feed.begin(None);
    let more = put(&journal, json!(3));
    sent(feed.next(&outbox));
    feed.flushed();
    assert_eq!(journal.acked(), last);
    feed.acknowledged(more);

    // The next connection goes on where the server says it stands.
    let mut feed = Feed::new(&journal, 1_000);
    feed.begin(Some(values[0]));
    let (_, payload) = sent(feed.next(&outbox));
    assert_eq!(payload["records"][0]["id"], values[1]);
    assert_eq!(sent(feed.next(&outbox)).1["sequence"], last);
}

#[test]
fn an_end_waits_for_its_own_output_and_holds_up_what_is_behind_it() {
    let (journal, outbox) = (journal(), outbox());
    let waiter = Arc::new(Wake::new().unwrap());
    accept(&journal, "a", "talk");
    let mut feed = Feed::new(&journal, 1_000);
    feed.begin(Some(0));
    sent(feed.next(&outbox));
    for conversation in ["other", "talk"] {
        let piece = Output::new(Stream::Stdout, 0, b"x");
        outbox.offer(Message::within(conversation, OUTPUT, &piece), &waiter);
    }
    end(&journal, "a", "talk");
    accept(&journal, "b", "b");
    for _ in 0..2 {
        assert!(matches!(feed.next(&outbox), Turn::Idle));
        outbox.pop_output().unwrap();
    }
    assert_eq!(sent(feed.next(&outbox)).0.kind, "result");
    assert_eq!(sent(feed.next(&outbox)).0.kind, "accepted");
}

#[test]
fn a_record_that_is_too_long_for_a_message_travels_shortened() {
    let (journal, outbox) = (journal(), outbox());
    accept(&journal, "job", "talk");
    let data = json!({"code": "&".repeat(300_000), "message": "m"}).to_string();
    journal.end("job", "talk", code::FAILED, data);
    let behind = put(&journal, json!(1));
    let mut feed = Feed::new(&journal, 1_000);
    feed.begin(Some(0));
    sent(feed.next(&outbox));
    let (message, payload) = sent(feed.next(&outbox));
    assert_eq!((&*message.kind, &payload["code"]), ("error", &json!("io")));
    assert!(message.encode().unwrap().len() < 2_000);
    assert_eq!(payload["sequence"], behind - 1);
    assert_eq!(
        sent(feed.next(&outbox)).1["records"][0]["id"],
        behind,
        "it holds up nothing"
    );
}

#[test]
fn no_more_than_a_window_is_on_its_way() {
    let (journal, outbox) = (journal(), outbox());
    for n in 0..WINDOW + 20 {
        accept(&journal, &format!("job-{n}"), "");
    }
    let mut feed = Feed::new(&journal, 1_000);
    feed.begin(Some(0));
    let first = sent(feed.next(&outbox)).1["sequence"].as_u64().unwrap();
    assert_eq!(drain(&mut feed, &outbox), WINDOW - 1);
    assert!(matches!(feed.next(&outbox), Turn::Full));
    feed.acknowledged(first + 9);
    assert_eq!(journal.acked(), first + 9);
    assert_eq!(drain(&mut feed, &outbox), 10);
    assert!(matches!(feed.next(&outbox), Turn::Full));
    // An ack that comes late, or knows too much, does no harm.
    feed.acknowledged(first);
    assert!(matches!(feed.next(&outbox), Turn::Full));
    feed.acknowledged(u64::MAX);
    assert_eq!(journal.acked(), first + 9 + WINDOW as u64);
    assert_eq!(drain(&mut feed, &outbox), 10);
}

#[test]
fn values_count_one_by_one_and_by_their_bytes() {
    let (journal, outbox) = (journal(), outbox());
    let numbers: Vec<u64> = (0..=WINDOW).map(|n| put(&journal, json!(n))).collect();
    let mut feed = Feed::new(&journal, 1_000);
    feed.begin(Some(0));
    let mut got = 0;
    while let Turn::Send(message) = feed.next(&outbox) {
        let history: Value = message.read().unwrap();
        got += history["records"].as_array().unwrap().len();
    }
    assert_eq!(got, WINDOW);
    // A part of a message can be acknowledged; it counts until all of it is.
    feed.acknowledged(*numbers.last().unwrap() - 1);
    assert_eq!(drain(&mut feed, &outbox), 1);

    let large: Vec<u64> = (0..10)
        .map(|_| put(&journal, json!("x".repeat(60_000))))
        .collect();
    feed.acknowledged(*numbers.last().unwrap());
    assert_eq!(
        drain(&mut feed, &outbox),
        5,
        "one a message, 256 KiB in all"
    );
    assert!(matches!(feed.next(&outbox), Turn::Full));
    feed.acknowledged(large[4]);
    assert_eq!(drain(&mut feed, &outbox), 5);
}

#[test]
fn who_acknowledges_nothing_gets_each_record_once() {
    let (journal, outbox) = (journal(), outbox());
    let first = put(&journal, json!(1));
    let mut feed = Feed::new(&journal, 1_000);
    feed.begin(None);
    feed.flushed();
    sent(feed.next(&outbox));
    assert_eq!(journal.acked(), 0, "it has not left yet");
    let mut feed = Feed::new(&journal, 1_000);
    feed.begin(None);
    sent(feed.next(&outbox));
    feed.flushed();
    assert_eq!(journal.acked(), first);
    assert!(feed.is_done());
    feed.acknowledged(0);
    let mut feed = Feed::new(&journal, 1_000);
    feed.begin(None);
    assert!(matches!(feed.next(&outbox), Turn::Idle));
}

#[test]
fn what_json_may_hold_and_xml_not_arrives_all_the_same() {
    let (journal, outbox) = (journal(), outbox());
    let text = "a\u{FFFE}\u{FFFF}\u{1}\u{7F}\0";
    put(&journal, json!(text));
    accept(&journal, "job", "job");
    let data = json!({"status": "failed", "message": text}).to_string();
    journal.end("job", "job", code::FAILED, data);
    let mut feed = Feed::new(&journal, 1_000);
    feed.begin(Some(0));
    for pointer in ["/records/0/data", "/what", "/message"] {
        let (message, _) = sent(feed.next(&outbox));
        let line = message.encode().unwrap();
        let read = Message::decode(line.as_bytes(), 1 << 20).unwrap();
        let payload: Value = read.read().unwrap();
        let wanted = if pointer == "/what" { "echo" } else { text };
        assert_eq!(payload.pointer(pointer).unwrap(), wanted);
    }
}

#[test]
fn events_travel_together_in_their_place_among_the_others() {
    let (journal, outbox) = (journal(), outbox());
    let event = |n: usize, bytes: usize| {
        let data =
            json!({"host": "h", "source": "command", "cef": format!("{n}{}", "<".repeat(bytes))});
        journal.events(vec![(n as f64, data.to_string())]).unwrap()
    };
    put(&journal, json!("before"));
    let first = event(1, 0);
    event(2, 0);
    let large = event(3, 5_000);
    event(4, 0);
    put(&journal, json!("between"));
    accept(&journal, "job", "job");
    let last = event(5, 0);
    let mut feed = Feed::new(&journal, 1_000);
    feed.begin(Some(0));
    assert_eq!(sent(feed.next(&outbox)).1["records"][0]["data"], "before");
    let (message, payload) = sent(feed.next(&outbox));
    assert_eq!(message.kind, "events");
    let events = payload["events"].as_array().unwrap();
    assert_eq!(events.len(), 2, "the third is too large for the message");
    assert_eq!(
        (&events[0]["sequence"], payload["last"].as_u64()),
        (&json!(first), Some(last))
    );
    assert_eq!(
        (&events[0]["time"], &events[0]["host"]),
        (&json!(1.0), &json!("h"))
    );
    assert_eq!(
        (&events[0]["source"], &events[0]["cef"]),
        (&json!("command"), &json!("1"))
    );
    assert!(events[0]["stored"].as_f64().unwrap() > 1e9);
    let payload = sent(feed.next(&outbox)).1;
    assert_eq!(
        payload["events"].as_array().unwrap().len(),
        1,
        "it travels alone"
    );
    assert_eq!(payload["events"][0]["sequence"], large);
    assert_eq!(sent(feed.next(&outbox)).1["events"][0]["cef"], "4");
    assert_eq!(sent(feed.next(&outbox)).1["records"][0]["data"], "between");
    assert_eq!(sent(feed.next(&outbox)).0.kind, "accepted");
    assert_eq!(sent(feed.next(&outbox)).1["events"][0]["sequence"], last);
    feed.acknowledged(last);
    assert!(feed.is_done());
    assert_eq!(journal.acked(), last);
}

#[test]
fn no_more_events_than_a_window_are_on_their_way() {
    let (journal, outbox) = (journal(), outbox());
    for _ in 0..3 {
        let events = vec![(1.0, "{\"cef\":\"x\"}".to_owned()); 200];
        journal.events(events).unwrap();
    }
    let mut feed = Feed::new(&journal, 200_000);
    feed.begin(Some(0));
    let (_, payload) = sent(feed.next(&outbox));
    assert_eq!(payload["events"].as_array().unwrap().len(), WINDOW);
    assert!(matches!(feed.next(&outbox), Turn::Full));
}
