//! What devices run by their own clocks: by the API and the command, and how devices are brought it.
#![allow(missing_docs)]

mod common;

use common::*;
use serde_json::{Value, json};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use triton::message::payload::{ERROR, RESULT, SCHEDULE_LIST, SCHEDULE_SET, SCRIPTS_SYNC};
use triton::message::{Message, payload};

const BASE: &str = "/schedules/box";

fn daily(shell: &str) -> Value {
    json!({"name": "daily", "cron": "@daily", "shell": shell})
}

async fn set(rig: &Rig, entries: Value) -> String {
    let body = json!({ "entries": entries }).to_string();
    let answer = rig.told("PUT", BASE, body.as_bytes(), 200).await;
    answer["schedule"]["revision"].as_str().unwrap().to_owned()
}

/// What a device says to a question.
type Answer = Box<dyn Fn(&Message) -> Message>;

/// An agent that has this revision of a schedule.
async fn device(rig: &Rig, instance: &str, revision: &str) -> Agent {
    let mut agent = Agent::connect(rig.url(), Some(IDENTIFIER), "/triton")
        .await
        .unwrap();
    let mut more = journal("j1");
    more["capabilities"] = json!(["command", SCHEDULE_SET, SCHEDULE_LIST]);
    more["schedule"] = json!({ "revision": revision });
    agent.hello_with(instance, more).await;
    agent
}

async fn take(agent: &mut Agent) -> Value {
    let message = agent.expect(SCHEDULE_SET).await;
    let asked: Value = message.read().unwrap();
    let data = json!({"revision": asked["revision"], "entries": 1, "next": 1});
    let result = json!({"status": "succeeded", "elapsedMs": 0, "data": data});
    agent.send(&message.reply(RESULT, &result)).await;
    asked
}

/// The one device, as soon as it is so.
async fn stands(rig: &Rig, what: &str, right: impl Fn(&Value) -> bool) -> Value {
    eventually(what, async || {
        let shown = rig.told("GET", BASE, b"", 200).await;
        let device = shown["devices"][0].clone();
        right(&device).then_some(device)
    })
    .await
}

async fn command(rig: &Rig, arguments: &[&str], input: Option<&str>) -> Output {
    let mut command = poseidon(arguments);
    command.env("POSEIDON_DATA", rig.dir.path().join("data"));
    let Some(input) = input else {
        return within(command.output()).await.unwrap();
    };
    command.stdin(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    within(child.wait_with_output()).await.unwrap()
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn a_schedule_is_kept_over_a_restart_and_two_editors_do_not_overwrite_each_other() {
    let mut rig = rig().await;
    rig.register("box").await;
    let empty = rig.told("GET", BASE, b"", 200).await;
    assert_eq!(
        empty,
        json!({"name": "box", "revision": null, "changed": null, "entries": [], "devices": []})
    );
    rig.refused("DELETE", BASE, b"", 404).await;
    rig.refused("GET", "/schedules/nobody", b"", 404).await;
    let first = set(&rig, json!([daily("true")])).await;
    let put = async |entries: Value, parent: &str, status: u16| {
        let body = json!({"entries": entries, "parent": parent}).to_string();
        rig.told("PUT", BASE, body.as_bytes(), status).await
    };
    let error = put(json!([]), "", 409).await;
    assert!(
        error["error"]["message"].as_str().unwrap().contains(&first),
        "{error}"
    );
    assert_eq!(
        put(json!([daily("true")]), &first, 200).await["changed"],
        false
    );
    assert_eq!(
        put(json!([daily("false")]), &first, 200).await["changed"],
        true
    );
    for (body, why) in [
        (&b"{"[..], "cannot be read"),
        (b"{}", "entries"),
        (b"{\"entries\": 1}", "no list"),
        (b"{\"entries\": [], \"else\": 1}", "else"),
        (
            br#"{"entries": [{"name": "a", "cron": "@daily", "shell": "x"}, {"name": "b", "cron": "0 2 * *", "shell": "x"}]}"#,
            "entry 2 (b): cron: has 4 fields",
        ),
    ] {
        let (code, message) = rig.refused("PUT", BASE, body, 400).await;
        assert!(code == "invalid" && message.contains(why), "{message}");
    }
    rig.restart().await;
    let shown = rig.told("GET", BASE, b"", 200).await;
    assert_eq!(shown["entries"], json!([daily("false")]));
    let gone = rig.told("DELETE", BASE, b"", 200).await;
    assert_eq!(gone["schedule"]["entries"], json!([]));
    assert!(gone["schedule"]["revision"].is_string());
    // It goes with its identifier.
    let id = poseidon::agents::hash(IDENTIFIER);
    rig.told("DELETE", &format!("/identifiers/{}", &id[..16]), b"", 200)
        .await;
    rig.register("box").await;
    assert_eq!(rig.told("GET", BASE, b"", 200).await, empty);
}

#[tokio::test]
async fn a_device_is_given_what_it_has_not_when_it_comes_and_when_that_changes() {
    let mut rig = rig().await;
    rig.register("box").await;
    // Nothing was ever set: what it has is left alone.
    let mut agent = device(&rig, "i1", "by somebody else").await;
    agent.nothing_came().await;
    let first = set(&rig, json!([daily("one")])).await;
    let asked = take(&mut agent).await;
    assert_eq!(asked, json!({"revision": first, "entries": [daily("one")]}));
    stands(&rig, "it has it", |d| d["revision"] == first.as_str()).await;
    let second = set(&rig, json!([daily("two")])).await;
    assert_eq!(take(&mut agent).await["revision"], second.as_str());
    drop(agent);
    rig.restart().await;
    // With what it has it is left alone, and with what it had before it is not.
    let mut agent = device(&rig, "i1", &second).await;
    agent.nothing_came().await;
    drop(agent);
    rig.is_down("box").await;
    let down = rig.told("GET", BASE, b"", 200).await;
    assert_eq!(
        down["devices"],
        json!([{"instance": "i1", "state": "down", "revision": null, "problem": null}])
    );
    // What is taken away while it is down is taken from it when it comes.
    rig.told("DELETE", BASE, b"", 200).await;
    let mut agent = device(&rig, "i1", &second).await;
    assert_eq!(take(&mut agent).await["entries"], json!([]));
    // Another process of the same identifier, which knows no schedules, is left alone.
    let mut old = rig.agent("i2").await;
    old.nothing_came().await;
    let shown = rig.told("GET", BASE, b"", 200).await;
    let problem = shown["devices"][1]["problem"].as_str().unwrap();
    assert!(problem.contains("knows no schedules"), "{shown}");
}

#[tokio::test]
async fn what_a_device_refuses_is_not_sent_again_and_a_change_is() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = device(&rig, "i1", "").await;
    let revision = set(&rig, json!([daily("one")])).await;
    let refuse = async |agent: &mut Agent, code: payload::ErrorCode, why: &str| {
        let message = agent.expect(SCHEDULE_SET).await;
        let error = payload::Error::new(code, why);
        agent.send(&message.reply(ERROR, &error)).await;
    };
    let why = "entry 1 (daily): timeZone: the zone Mars is not known here";
    refuse(&mut agent, payload::ErrorCode::Invalid, why).await;
    let stood = stands(&rig, "its reason is there", |d| d["problem"].is_string()).await;
    assert_eq!(stood["revision"], "");
    assert!(stood["problem"].as_str().unwrap().contains(why), "{stood}");
    agent.nothing_came().await;
    let shown = command(&rig, &["schedule", "ls", "box"], None);
    let answer = async {
        let question = agent.expect(SCHEDULE_LIST).await;
        let list = json!({"revision": "", "entries": [], "problem": null});
        agent.send(&question.reply(SCHEDULE_LIST, &list)).await;
    };
    let (shown, ()) = tokio::join!(shown, answer);
    assert!(
        said(&shown).0.contains("did not take it: invalid: entry 1"),
        "{shown:?}"
    );
    // A disk that fails may do so no more in a moment: it is tried again, at once where something changes.
    set(&rig, json!([daily("two")])).await;
    refuse(&mut agent, payload::ErrorCode::Io, "no room").await;
    stands(&rig, "the other reason is there", |d| {
        d["problem"].as_str().is_some_and(|p| p.contains("no room"))
    })
    .await;
    let third = set(&rig, json!([daily("three")])).await;
    assert_eq!(take(&mut agent).await["revision"], third.as_str());
    let stood = stands(&rig, "it has it", |d| d["revision"] == third.as_str()).await;
    assert_eq!(stood["problem"], json!(null));
    // Back to what was refused: tried anew.
    let again = set(&rig, json!([daily("one")])).await;
    assert_eq!(again, revision);
    assert_eq!(take(&mut agent).await["revision"], revision.as_str());
}

#[tokio::test]
async fn the_command_waits_for_what_devices_that_are_up_say() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = device(&rig, "i1", "").await;
    let entries = |shell: &str| json!([daily(shell)]).to_string();
    let setting = async |input: &str| {
        let done = command(&rig, &["schedule", "set", "box", "-"], Some(input)).await;
        let (out, err) = said(&done);
        (done.status.code(), out, err)
    };
    let refuses = async |agent: &mut Agent| {
        let message = agent.expect(SCHEDULE_SET).await;
        let why = "entry 1 (daily): timeZone: the zone Mars is not known here";
        let error = payload::Error::new(payload::ErrorCode::Invalid, why);
        agent.send(&message.reply(ERROR, &error)).await;
    };
    let one = entries("one");
    let ((code, _, err), ()) = tokio::join!(setting(&one), refuses(&mut agent));
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains("box did not take it: invalid: entry 1 (daily): timeZone"),
        "{err}"
    );
    // As before: it is not asked again, and what it said still holds.
    let (code, out, err) = setting(&one).await;
    assert!(
        code == Some(1) && out.contains("as before") && err.contains("did not take it"),
        "{out}{err}"
    );
    // What it said to the one before is not held against the next.
    let two = entries("two");
    let ((code, out, err), _) = tokio::join!(setting(&two), take(&mut agent));
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(!out.contains("not known"), "{out}");
    // Nothing is said in time.
    let (code, out, _) = setting(&entries("three")).await;
    assert!(code == Some(0) && out.contains("not known yet"), "{out}");
}

#[tokio::test]
async fn scripts_that_are_on_their_way_do_not_hold_up_a_schedule() {
    let rig = rig().await;
    rig.register("box").await;
    rig.told("PUT", "/repositories/box/files/a.sh", b"#!/bin/sh\n", 200)
        .await;
    set(&rig, json!([daily("one")])).await;
    let mut agent = Agent::connect(rig.url(), Some(IDENTIFIER), "/triton")
        .await
        .unwrap();
    let mut more = journal("j1");
    more["capabilities"] = json!([SCRIPTS_SYNC, SCHEDULE_SET]);
    agent.hello_with("i1", more).await;
    let mut kinds = Vec::new();
    for _ in 0..2 {
        // Neither is answered.
        kinds.push(agent.next().await.unwrap().kind);
    }
    kinds.sort();
    assert_eq!(kinds, [SCHEDULE_SET, SCRIPTS_SYNC]);
}

#[tokio::test]
async fn a_device_is_asked_for_its_times_and_may_say_anything() {
    let rig = rig().await;
    rig.register("box").await;
    let path = "/agents/box/schedule";
    rig.refused("GET", path, b"", 409).await;
    let mut agent = device(&rig, "i1", "").await;
    let list = json!({"revision": "", "entries": [{"name": "own", "source": "config", "next": 5}], "problem": null});
    let own = list.clone();
    let cases: Vec<(Answer, u16, &str)> = vec![
        (Box::new(move |m| m.reply(SCHEDULE_LIST, &own)), 200, "own"),
        (
            Box::new(|m| m.reply_error(payload::ErrorCode::Refused, "the policy says no")),
            403,
            "the policy says no",
        ),
        (
            Box::new(|m| m.reply(RESULT, &json!({"status": "succeeded"}))),
            502,
            "result",
        ),
        (
            Box::new(|m| Message {
                payload: Some("{\"entries\":".to_owned()),
                ..m.reply(SCHEDULE_LIST, &json!(null))
            }),
            502,
            "makes no sense",
        ),
        (
            Box::new(|m| Message {
                payload: Some(format!("{}{}", "[".repeat(5000), "]".repeat(5000))),
                ..m.reply(SCHEDULE_LIST, &json!(null))
            }),
            502,
            "nested",
        ),
    ];
    for (answer, status, says) in cases {
        let asked = rig.ask("GET", path, b"");
        let answers = async {
            let question = agent.expect(SCHEDULE_LIST).await;
            agent.send(&answer(&question)).await;
            // A second answer belongs to nobody.
            agent.send(&answer(&question)).await;
        };
        let ((told, body), ()) = tokio::join!(asked, answers);
        let body = String::from_utf8(body).unwrap();
        assert!(told == status && body.contains(says), "{told} {body}");
    }
    agent.nothing_came().await;
    // It goes before it answers.
    let asked = rig.refused("GET", path, b"", 409);
    let goes = async {
        agent.expect(SCHEDULE_LIST).await;
        drop(agent);
    };
    let (refused, ()) = tokio::join!(asked, goes);
    assert_eq!(refused.0, "offline");
    let _one = device(&rig, "i1", "").await;
    let _two = device(&rig, "i2", "").await;
    let (code, message) = rig.refused("GET", path, b"", 409).await;
    assert!(code == "conflict" && message.contains("2 instances"));
}

#[tokio::test]
async fn the_command_sets_lists_and_takes_away() {
    let rig = rig().await;
    rig.register("box").await;
    let two = json!({"identifier": "another-identifier-of-a-good-length", "name": "two"});
    rig.client
        .post::<Value>("/identifiers", &two)
        .await
        .unwrap();
    let toml = "[schedule.nightly]\ncron = \"15 2 * * *\"\ntime_zone = \"CET-1CEST,M3.5.0,M10.5.0/3\"\n\
                script = \"backup.sh\"\nargs = [\"-v\"]\ncatch_up = true\n\n[schedule.tick]\ncron = \"@hourly\"\nshell = \"date\"\n";
    let file = rig.dir.path().join("s.toml");
    std::fs::write(&file, toml).unwrap();
    let file = file.to_str().unwrap();
    let done = command(&rig, &["schedule", "set", "box", "two", file], None).await;
    let (out, _) = said(&done);
    assert!(done.status.success(), "{done:?}");
    assert!(
        out.starts_with("box has 2 entries, revision ") && out.contains("\ntwo has 2 entries"),
        "{out}"
    );
    let (out, _) = said(&command(&rig, &["schedule", "ls", "box"], None).await);
    for part in [
        "NAME     CRON",
        "nightly  15 2 * * * CET-1CEST,M3.5.0,M10.5.0/3  script backup.sh -v  catchUp=true",
        "tick     @hourly",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    for (arguments, input, says) in [
        (
            &["schedule", "set", "box", "-"][..],
            Some("[schedule.a]\ncron = \"61 * * * *\"\nshell = \"x\"\n"),
            "standard input: line 2: schedule.a: cron: ",
        ),
        (
            &["schedule", "set", "box", "-"],
            Some("{\"entries\":[{\"name\":\"a b\"}]}"),
            "entry 1 (a b): name: ",
        ),
        (&["schedule", "set", "box", "/no/file"], None, "/no/file"),
        (&["schedule", "set", file], None, "which device?"),
        (
            &["schedule", "set", "nobody", file],
            None,
            "no identifier is registered as nobody",
        ),
        (
            &["schedule", "set", "--on", "nobody", file],
            None,
            "the selector means no device",
        ),
        (
            &["schedule", "rm", "box", "none"],
            None,
            "no entry none for box",
        ),
    ] {
        let done = command(&rig, arguments, input).await;
        let (_, err) = said(&done);
        assert!(!done.status.success() && err.contains(says), "{err}");
    }
    let _agent = rig.agent("i1").await;
    let empty = Some("[]");
    let done = command(&rig, &["schedule", "set", "--on", "os=Linux", "-"], empty).await;
    assert!(said(&done).0.starts_with("box has 0 entries"), "{done:?}");
    let done = command(&rig, &["schedule", "rm", "two", "tick"], None).await;
    assert!(said(&done).0.starts_with("two has 1 entry, "), "{done:?}");
    let done = command(&rig, &["schedule", "rm", "two"], None).await;
    assert!(said(&done).0.starts_with("two has 0 entries"), "{done:?}");
    let shown = command(&rig, &["schedule", "ls", "box", "--json"], None).await;
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["entries"], json!([]));
    assert_eq!(shown["devices"][0]["state"], "up");
}

#[tokio::test]
async fn a_schedule_that_is_damaged_is_set_anew() {
    let rig = rig().await;
    rig.register("box").await;
    let first = set(&rig, json!([daily("one")])).await;
    let store = rig.dir.path().join("data/poseidon.db");
    let other = rusqlite::Connection::open(store).unwrap();
    let damage = "UPDATE schedules SET entries = '[{'";
    assert_eq!(other.execute(damage, []).unwrap(), 1);
    let answer = rig.told("GET", BASE, b"", 500).await;
    assert!(answer.to_string().contains("set it anew"), "{answer}");
    // Who builds on what was there is told of it.
    let on_top = json!({"entries": [daily("two")], "parent": first}).to_string();
    rig.told("PUT", BASE, on_top.as_bytes(), 500).await;
    let second = set(&rig, json!([daily("two")])).await;
    let shown = rig.told("GET", BASE, b"", 200).await;
    assert_eq!(shown["revision"], second);
    assert_eq!(shown["entries"], json!([daily("two")]));
}

/// Answers one request as a Poseidon whose devices never say whether they take a schedule; a look at one takes a while.
async fn answer_slowly(stream: TcpStream, looks: &AtomicUsize) {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first).await.unwrap();
    let (mut line, mut length) = (String::new(), 0);
    while stream.read_line(&mut line).await.unwrap() > 2 {
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let path = first.split(' ').nth(1).unwrap();
    let schedule = json!({
        "name": path.rsplit('/').next(), "revision": "new", "entries": [],
        "devices": [{"instance": "i1", "state": "up", "revision": "old", "problem": null}],
    });
    let answer = if first.starts_with("PUT ") {
        json!({"changed": true, "schedule": schedule})
    } else {
        looks.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(700)).await;
        schedule
    };
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        answer.len()
    );
    // The command may have given up.
    let _ = stream.write_all((head + &answer).as_bytes()).await;
}

#[tokio::test]
async fn devices_that_say_nothing_are_waited_for_together() {
    let rig = rig().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let looks = counted.clone();
            tokio::spawn(async move { answer_slowly(stream, &looks).await });
        }
    });
    let arguments = [
        "--url", &url, "schedule", "set", "a", "b", "c", "d", "e", "f", "g", "h", "-",
    ];
    let done = command(&rig, &arguments, Some("[]")).await;
    let (out, err) = said(&done);
    assert!(done.status.success(), "{err}");
    assert_eq!(out.matches("is not known yet").count(), 8, "{out}");
    // Within 2 s there is time for three looks, and none behind that.
    let looks = looks.load(Ordering::Relaxed);
    assert!((1..=4).contains(&looks), "{looks} looks");
}
