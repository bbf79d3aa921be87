//! Agents come, report and go.
#![allow(missing_docs)]

mod common;

#[path = "agents/settings.rs"]
mod settings;

use common::*;
use serde_json::{Value, json};
use triton::message::{Message, payload};

#[tokio::test]
async fn an_unknown_identifier_waits_until_it_is_approved() {
    let rig = rig().await;
    let (status, _, _) = Agent::connect(rig.url(), None, "/triton")
        .await
        .err()
        .unwrap();
    assert_eq!(status, 401);
    for path in ["/triton", "/"] {
        let (status, body, _) = Agent::connect(rig.url(), Some(IDENTIFIER), path)
            .await
            .err()
            .unwrap();
        assert_eq!(status, 403);
        assert!(body.contains("poseidon approve"), "{body}");
    }
    let pending: Value = rig.client.get("/pending").await.unwrap();
    let one = &pending["pending"][0];
    assert_eq!(
        (&one["attempts"], &one["agent"]),
        (&json!(2), &json!("triton/0.1.0"))
    );
    let id = one["id"].as_str().unwrap();
    assert_eq!(id.len(), 16);
    let path = format!("/pending/{}/approve", &id[..4]);
    let approved: Value = rig
        .client
        .post(&path, &json!({"name": "box"}))
        .await
        .unwrap();
    assert_eq!(approved["identifier"]["state"], "registered");
    let pending: Value = rig.client.get("/pending").await.unwrap();
    assert_eq!(pending["pending"], json!([]));
    for (header, path) in [
        (Some(IDENTIFIER), "/".to_owned()),
        (Some(IDENTIFIER), "/triton/".to_owned()),
        (None, format!("/triton/{IDENTIFIER}")),
        (None, format!("/triton/{IDENTIFIER}/")),
    ] {
        let mut agent = Agent::connect(rig.url(), header, &path).await.unwrap();
        let welcome = agent.hello("i1").await;
        assert_eq!(welcome.name.as_deref(), Some("box"));
        assert_eq!(
            (welcome.heartbeat_seconds, welcome.deltas),
            (Some(15), true)
        );
    }
    // Neither the database nor anything else holds the identifier itself.
    for entry in std::fs::read_dir(rig.dir.path().join("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes
                .windows(IDENTIFIER.len())
                .any(|w| w == IDENTIFIER.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}

#[tokio::test]
async fn a_refused_identifier_stays_out_and_out_of_the_list() {
    let rig = rig().await;
    let url = rig.url().to_owned();
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let refused: Value = rig
        .client
        .post(&format!("/pending/{IDENTIFIER}/refuse"), &json!({}))
        .await
        .unwrap();
    assert_eq!(refused["identifier"]["state"], "refused");
    let bye: payload::Bye = agent.expect(payload::BYE).await.read().unwrap();
    assert_eq!(bye.reason, "refused");
    let (status, _, _) = Agent::connect(&url, Some(IDENTIFIER), "/")
        .await
        .err()
        .unwrap();
    assert_eq!(status, 403);
    let pending: Value = rig.client.get("/pending").await.unwrap();
    assert_eq!(pending["pending"], json!([]));
}

#[tokio::test]
async fn a_taken_name_and_a_bad_name_are_refused() {
    let rig = rig().await;
    rig.register("box").await;
    let other = json!({"identifier": "another-identifier-as-long", "name": "box"});
    let e = rig
        .client
        .post::<Value>("/identifiers", &other)
        .await
        .unwrap_err();
    assert!(e.contains("name"), "{e}");
    for name in ["", "a/b", " a", "a\u{7}", "\u{202e}a", ".", ".."] {
        let body = json!({"identifier": IDENTIFIER, "name": name});
        assert!(
            rig.client
                .post::<Value>("/identifiers", &body)
                .await
                .is_err(),
            "{name:?}"
        );
    }
    let spaced = json!({"identifier": "two words", "name": "x"});
    assert!(
        rig.client
            .post::<Value>("/identifiers", &spaced)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn registering_again_keeps_what_is_not_given() {
    let rig = rig().await;
    rig.register("box").await;
    let register = async |body: Value| -> Value {
        let answer: Value = rig.client.post("/identifiers", &body).await.unwrap();
        answer["identifier"].clone()
    };
    let renamed = register(json!({"identifier": IDENTIFIER, "name": "shed"})).await;
    assert_eq!(
        (&renamed["name"], &renamed["attributes"]),
        (&json!("shed"), &json!({"site": "attic"}))
    );
    let emptied = register(json!({"identifier": IDENTIFIER, "attributes": {}})).await;
    assert_eq!(
        (&emptied["name"], &emptied["attributes"]),
        (&json!("shed"), &json!({}))
    );
}

#[tokio::test]
async fn heartbeats_and_deltas_make_health() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let shown = rig.show("box").await;
    assert_eq!(shown["state"], "up");
    assert_eq!(shown["hello"]["future"], true);
    assert_eq!(shown["attributes"], json!({"site": "attic"}));
    let whole = json!({"uptime": 1, "processes": 7, "loadAverage": [1, 2, 3], "extra": "kept",
        "interfaces": [{"name": "eth0", "rxBytes": 1, "up": true}, {"name": "ppp0", "up": true}],
        "agent": {"rss": 1, "jobs": 0, "queue": 0}});
    agent.send(&Message::with("heartbeat", &whole)).await;
    let plain = json!({"delta": true, "uptime": 1.5, "agent": {"rss": 1}});
    agent.send(&Message::with("heartbeat", &plain)).await;
    let delta = json!({"delta": true, "nested": true, "uptime": 2, "loadAverage": [4, 5, 6],
        "interfaces": [{"name": "eth0", "rxBytes": 9}], "agent": {"jobs": 1}});
    agent.send(&Message::with("heartbeat", &delta)).await;
    let health = eventually("health", async || {
        let shown = rig.show("box").await;
        (shown["health"]["uptime"] == 2).then(|| shown["health"].clone())
    })
    .await;
    let merged = json!({"uptime": 2, "processes": 7, "loadAverage": [4, 5, 6], "extra": "kept",
        "interfaces": [{"name": "eth0", "rxBytes": 9, "up": true}], "agent": {"rss": 1, "jobs": 1}});
    assert_eq!(health, merged);
    drop(agent);
    eventually("down", async || {
        (rig.show("box").await["state"] == "down").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_silent_agent_is_pinged_and_then_down() {
    let rig = rig_with(|settings| settings.heartbeat_seconds = 1).await;
    rig.register("box").await;
    // It answers pings: it is read.
    let mut lively = rig.agent("lively").await;
    let silent = rig.agent("silent").await;
    let reads = tokio::spawn(async move { lively.next().await });
    eventually("the silent one is down", async || {
        let shown = rig.show("box%2Fsilent").await;
        (shown["state"] == "down").then_some(())
    })
    .await;
    assert_eq!(rig.show("box%2Fliv").await["state"], "up");
    drop(silent);
    reads.abort();
}

/// Reads, and so answers pings, until the connection ends; gives the first message and the agent.
fn alive(mut agent: Agent) -> tokio::task::JoinHandle<(Option<Message>, Agent)> {
    tokio::spawn(async move {
        let first = agent.next().await;
        (first, agent)
    })
}

fn run(id: &str) -> Value {
    json!({"run": id})
}

async fn connect(rig: &Rig) -> Agent {
    Agent::connect(rig.url(), Some(IDENTIFIER), "/")
        .await
        .unwrap()
}

#[tokio::test]
async fn a_connection_that_does_not_answer_is_replaced() {
    let rig = rig().await;
    rig.register("box").await;
    // It is not read, so it answers no ping.
    let mut old = rig.agent("i1").await;
    // Others are not held up meanwhile.
    let (mut new, _) = tokio::join!(rig.agent("i1"), rig.agent("i2"));
    let bye: payload::Bye = old.expect(payload::BYE).await.read().unwrap();
    assert_eq!(bye.reason, "replaced");
    assert_eq!(old.next().await, None);
    let shown = rig.show("box%2Fi1").await;
    assert_eq!(
        (&shown["state"], &shown["collision"]),
        (&json!("up"), &Value::Null)
    );
    let job = rig.run("box/i1", json!({"argv": ["true"]})).await;
    let command = new.expect(payload::COMMAND).await;
    assert_eq!(command.id, job);
}

#[tokio::test]
async fn a_process_that_comes_again_replaces_itself_at_once() {
    let rig = rig().await;
    rig.register("box").await;
    let mut old = connect(&rig).await;
    old.hello_with("i1", run("a")).await;
    let old = alive(old);
    let mut new = connect(&rig).await;
    new.hello_with("i1", run("a")).await;
    let bye = old.await.unwrap().0.unwrap();
    assert_eq!(bye.read::<payload::Bye>().unwrap().reason, "replaced");
    assert_eq!(rig.show("box").await["collision"], Value::Null);
}

#[tokio::test]
async fn the_second_of_two_that_live_is_sent_away_and_shown() {
    let rig = rig().await;
    rig.register("box").await;
    let mut first = connect(&rig).await;
    first.hello_with("i1", run("a")).await;
    let first = alive(first);
    let mut second = connect(&rig).await;
    second
        .say_hello("i1", json!({"run": "b", "hostname": "copy"}))
        .await;
    let bye: payload::Bye = second.expect(payload::BYE).await.read().unwrap();
    assert_eq!(bye.reason, "collision");
    assert_eq!(second.next().await, None);
    let shown = rig.show("box").await;
    assert_eq!(shown["state"], "up");
    let collision = &shown["collision"];
    assert_eq!(collision["hostname"], "copy");
    assert!(collision["address"].as_str().unwrap().starts_with("127."));
    assert_eq!(collision["since"], collision["last"]);
    assert_eq!(shown["hello"]["hostname"], "box");
    // Again: it is the same collision.
    let mut third = connect(&rig).await;
    third.say_hello("i1", run("b")).await;
    third.expect(payload::BYE).await;
    let again = rig.show("box").await["collision"].clone();
    assert_eq!(again["since"], collision["since"]);
    assert_ne!(again["address"], collision["address"]);
    // The first is none the worse for it.
    let job = rig.run("box", json!({"argv": ["true"]})).await;
    assert_eq!(first.await.unwrap().0.unwrap().id, job);
}

#[tokio::test]
async fn a_process_that_returns_after_another_is_a_collision() {
    let rig = rig().await;
    rig.register("box").await;
    for (id, hostname, other) in [
        ("a", "one", Value::Null),
        ("b", "two", Value::Null),
        ("a", "one", json!("two")),
    ] {
        let mut agent = connect(&rig).await;
        let hello = json!({"run": id, "hostname": hostname});
        agent.hello_with("i1", hello).await;
        assert_eq!(rig.show("box").await["collision"]["hostname"], other);
        drop(agent);
        rig.is_down("box").await;
    }
}

#[tokio::test]
async fn a_probe_is_welcomed_and_changes_nothing() {
    let rig = rig().await;
    rig.register("box").await;
    let mut probe = connect(&rig).await;
    let welcome = probe.hello_with("i1", json!({"probe": true})).await;
    assert_eq!(welcome.name.as_deref(), Some("box"));
    let agents: Value = rig.client.get("/agents").await.unwrap();
    assert_eq!(agents["agents"], json!([]));
    let mut first = connect(&rig).await;
    first.hello_with("i1", run("a")).await;
    let first = alive(first);
    let mut probe = connect(&rig).await;
    probe
        .hello_with(
            "i1",
            json!({"probe": true, "run": "b", "hostname": "probe"}),
        )
        .await;
    // What it says besides is not the agent's.
    probe
        .send(&Message::with("heartbeat", &json!({"uptime": 1})))
        .await;
    drop(probe);
    let job = rig.run("box", json!({"argv": ["true"]})).await;
    assert_eq!(first.await.unwrap().0.unwrap().id, job);
    let shown = rig.show("box").await;
    assert_eq!(
        (
            &shown["collision"],
            &shown["health"],
            &shown["hello"]["hostname"]
        ),
        (&Value::Null, &Value::Null, &json!("box"))
    );
}

#[tokio::test]
async fn a_plain_triton_is_served() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = Agent::connect(rig.url(), None, &format!("/triton/{IDENTIFIER}"))
        .await
        .unwrap();
    let beat = "<tritonMessage><type>heartbeat</type><id>1</id><payload>&lt;heartbeat>&lt;uptime>81234&lt;/uptime>\
                &lt;processorLoad>0.5&lt;/processorLoad>&lt;/heartbeat></payload></tritonMessage>";
    agent.text(beat.to_owned()).await;
    let shown = eventually("health", async || {
        let shown = rig.client.get::<Value>("/agents/box").await.ok()?;
        shown["health"].is_object().then_some(shown)
    })
    .await;
    assert_eq!(
        (&shown["plain"], &shown["instance"]),
        (&json!(true), &json!("plain"))
    );
    assert_eq!(shown["health"]["uptime"], 81234.0);
    let mut second = Agent::connect(rig.url(), Some(IDENTIFIER), "/")
        .await
        .unwrap();
    second
        .send(&Message::with("heartbeat", &json!({"uptime": 5})))
        .await;
    eventually("the second", async || {
        rig.client.get::<Value>("/agents/box%2Fplain-2").await.ok()
    })
    .await;
    let job = rig.run("box/plain", json!({"shell": "uptime"})).await;
    let command = agent.expect(payload::COMMAND).await;
    agent
        .send(&command.reply("commandResult", &json!({"text": "up 3 days"})))
        .await;
    let job = rig.ended(&job).await;
    assert_eq!(job["result"]["status"], "succeeded");
    assert_eq!(
        job["result"]["tail"]["stdout"]["data"],
        "{\"text\":\"up 3 days\"}"
    );
}

#[tokio::test]
async fn bad_messages_are_answered_and_the_connection_lives() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let laughs = "<!DOCTYPE l [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;\">]><tritonMessage><type>t</type><id>1</id>\
                  <payload>&b;</payload></tritonMessage>";
    let big = "x".repeat(2 << 20);
    for (text, code) in [
        ("garbage".to_owned(), "invalid"),
        (laughs.to_owned(), "invalid"),
        (big, "too-large"),
        (Message::new("dance").encode().unwrap(), "unknown-type"),
        (
            Message::with("heartbeat", &json!({"uptime": "long"}))
                .encode()
                .unwrap(),
            "invalid",
        ),
        (
            Message {
                version: 2,
                ..Message::new("heartbeat")
            }
            .encode()
            .unwrap(),
            "unsupported-version",
        ),
    ] {
        agent.text(text).await;
        let error: payload::Error = agent.expect(payload::ERROR).await.read().unwrap();
        assert_eq!(error.code.as_str(), code);
        if code == "unsupported-version" {
            assert_eq!(error.detail, Some(json!({"versions": [1]})));
        }
    }
    // A hello of another version is no plain Triton: it can try again with this one.
    let hello = Message {
        version: 2,
        ..Message::with("hello", &json!({"instance": "i1"}))
    };
    let mut newer = Agent::connect(rig.url(), Some(IDENTIFIER), "/")
        .await
        .unwrap();
    newer.send(&hello).await;
    newer.expect(payload::ERROR).await;
    drop(newer);
    // An error is not answered: the next answer is to the question after it.
    agent
        .send(&Message::with("error", &json!({"code": "busy"})))
        .await;
    agent.send(&Message::new("dance")).await;
    agent.expect(payload::ERROR).await;
    assert_eq!(rig.show("box").await["state"], "up");
    // Beyond the hard limit the connection ends, and nothing else does.
    let huge = tokio_tungstenite::tungstenite::Message::text("x".repeat(5 << 20));
    let _ = futures_util::SinkExt::send(&mut agent.socket, huge).await;
    eventually("down", async || {
        (rig.show("box").await["state"] == "down").then_some(())
    })
    .await;
    rig.agent("i1").await;
}

#[tokio::test]
async fn too_many_attempts_are_slowed_down_and_known_agents_are_not() {
    let rig = rig().await;
    rig.register("box").await;
    drop(rig.agent("i1").await);
    let (status, retry) = eventually("429", async || {
        let (status, _, retry) = Agent::connect(rig.url(), Some("guess-guess-guess"), "/")
            .await
            .err()?;
        (status == 429).then_some((status, retry))
    })
    .await;
    assert_eq!((status, retry.as_deref()), (429, Some("1")));
    rig.agent("i1").await;
}

#[tokio::test]
async fn a_long_identifier_is_no_guess_and_a_short_one_may_be() {
    let rig = rig().await;
    // Neither has been seen at this address.
    rig.register("box").await;
    let short = json!({"identifier": "short", "name": "shed"});
    rig.client
        .post::<Value>("/identifiers", &short)
        .await
        .unwrap();
    eventually("429", async || {
        let (status, _, _) = Agent::connect(rig.url(), Some("guess-guess-guess"), "/")
            .await
            .err()?;
        (status == 429).then_some(())
    })
    .await;
    rig.agent("i1").await;
    // A second may have passed, which gives one attempt back.
    let _ = Agent::connect(rig.url(), Some("guess-guess-guess"), "/").await;
    let refused = Agent::connect(rig.url(), Some("short"), "/").await.err();
    assert_eq!(refused.map(|(status, _, _)| status), Some(429));
}

#[tokio::test]
async fn a_full_server_says_when_to_come_back() {
    let rig = rig_with(|settings| settings.max_agents = 1).await;
    rig.register("box").await;
    let _first = rig.agent("i1").await;
    let (status, _, retry) = Agent::connect(rig.url(), Some(IDENTIFIER), "/")
        .await
        .err()
        .unwrap();
    assert_eq!((status, retry.is_some()), (503, true));
}

#[tokio::test]
async fn a_stop_says_bye_and_a_restart_remembers() {
    let mut rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    agent
        .send(&Message::with("heartbeat", &json!({"uptime": 9})))
        .await;
    eventually("health", async || {
        rig.show("box").await["health"].is_object().then_some(())
    })
    .await;
    let reads = tokio::spawn(async move {
        let bye = agent
            .expect(payload::BYE)
            .await
            .read::<payload::Bye>()
            .unwrap();
        assert_eq!(agent.next().await, None);
        bye.reason
    });
    rig.restart().await;
    assert_eq!(reads.await.unwrap(), "stopping");
    let shown = rig.show("box").await;
    assert_eq!(
        (&shown["state"], &shown["health"]["uptime"]),
        (&json!("down"), &json!(9))
    );
    rig.agent("i1").await;
}

#[tokio::test]
async fn what_is_down_can_be_forgotten() {
    let rig = rig().await;
    rig.register("box").await;
    let agent = rig.agent("i1").await;
    let e = rig.client.delete("/agents/box").await.unwrap_err();
    assert!(e.contains("up"), "{e}");
    drop(agent);
    eventually("forgotten", async || {
        rig.client.delete("/agents/box").await.ok()
    })
    .await;
    let agents: Value = rig.client.get("/agents").await.unwrap();
    assert_eq!(agents["agents"], json!([]));
    let mut agent = rig.agent("i2").await;
    rig.client
        .delete(&format!("/identifiers/{IDENTIFIER}"))
        .await
        .unwrap();
    agent.expect(payload::BYE).await;
    let (status, _, _) = Agent::connect(rig.url(), Some(IDENTIFIER), "/")
        .await
        .err()
        .unwrap();
    assert_eq!(status, 403);
}

#[tokio::test]
async fn watchers_see_the_fleet_change() {
    let rig = rig().await;
    rig.register("box").await;
    let mut lines = rig.client.lines("/events").await.unwrap();
    let mut next = async || -> Value {
        serde_json::from_slice(&within(lines.next()).await.unwrap().unwrap()).unwrap()
    };
    let fleet = next().await;
    assert_eq!(
        (&fleet["type"], &fleet["agents"]),
        (&json!("fleet"), &json!([]))
    );
    let mut agent = rig.agent("i1").await;
    let up = next().await;
    assert_eq!(
        (&up["type"], &up["agent"]["state"]),
        (&json!("agent"), &json!("up"))
    );
    let job = rig.run("box", json!({"argv": ["true"]})).await;
    let sent = next().await;
    assert_eq!(
        (&sent["type"], &sent["job"]["state"]),
        (&json!("job"), &json!("sent"))
    );
    let command = agent.expect(payload::COMMAND).await;
    agent.succeed(&command, 0).await;
    let ended = next().await;
    assert_eq!(
        (&ended["job"]["state"], &ended["job"]["id"]),
        (&json!("ended"), &json!(job))
    );
    drop(agent);
    assert_eq!(next().await["agent"]["state"], "down");
    let _ = Agent::connect(rig.url(), Some("somebody-else-knocks"), "/").await;
    assert_eq!(next().await["pending"][0]["attempts"], 1);
    rig.client.delete("/agents/box").await.unwrap();
    assert_eq!(next().await["type"], "agent-removed");
}

#[tokio::test]
async fn a_slow_watcher_gets_the_last_state_and_not_each_on_the_way() {
    const BEATS: u32 = 600;
    let rig = rig().await;
    rig.register("box").await;
    let mut lines = rig.client.lines("/events").await.unwrap();
    let mut agent = rig.agent("i1").await;
    let padding = "x".repeat(50_000);
    // More than all buffers between server and watcher hold.
    for uptime in 1..=BEATS {
        let beat = json!({"uptime": uptime, "padding": padding});
        agent.send(&Message::with("heartbeat", &beat)).await;
    }
    eventually("all beats", async || {
        (rig.show("box").await["health"]["uptime"] == BEATS).then_some(())
    })
    .await;
    let mut read = 0;
    loop {
        let line = within(lines.next()).await.unwrap().unwrap();
        let line: Value = serde_json::from_slice(&line).unwrap();
        read += 1;
        if line["agent"]["health"]["uptime"] == BEATS {
            break;
        }
    }
    assert!(read < BEATS, "{read} lines");
}

/// Closes are answered (RFC 6455 section 5.5.1), and who breaks the protocol learns how.
#[tokio::test]
async fn the_end_of_a_connection_is_said_by_a_close_frame() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message as Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame as Raw};

    let rig = rig().await;
    rig.register("box").await;
    let raw = |bytes: &'static [u8], kind| Frame::Frame(Raw::message(bytes, kind, true));
    for (frame, code) in [
        (
            Frame::Close(Some(CloseFrame {
                code: 1000.into(),
                reason: "enough".into(),
            })),
            1000_u16,
        ),
        (raw(b"<a>\xff</a>", OpCode::Data(Data::Text)), 1007),
        (raw(b"more", OpCode::Data(Data::Continue)), 1002),
    ] {
        let mut agent = rig.agent("i1").await;
        agent.socket.send(frame).await.unwrap();
        let answer = loop {
            match within(agent.socket.next()).await {
                Some(Ok(Frame::Close(Some(close)))) => break u16::from(close.code),
                Some(Ok(_)) => {}
                other => panic!("no close frame for {code}: {other:?}"),
            }
        };
        assert_eq!(answer, code);
        rig.is_down("box").await;
    }
}

#[tokio::test]
async fn a_state_that_is_too_large_is_refused_with_its_limit() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let large = json!({"uptime": 1, "x": "y".repeat(70_000)});
    agent.send(&Message::with(payload::HEARTBEAT, &large)).await;
    let error: payload::Error = agent.expect(payload::ERROR).await.read().unwrap();
    assert_eq!(error.code.as_str(), "too-large");
    assert!(error.message.contains("65536"), "{}", error.message);
}

#[tokio::test]
async fn a_lost_key_of_poseidon_is_said_where_devices_are_pinned() {
    let mut rig = daemon().await;
    let key = rig.dir.path().join("data/poseidon-key");
    let lost = |log: &str| {
        log.matches("was missing, and Poseidon has a new key")
            .count()
    };
    // Nobody has pinned the first, and nobody this one.
    rig.register("box").await;
    std::fs::remove_file(&key).unwrap();
    rig.kill().await;
    assert_eq!(lost(&rig.log()), 0, "{}", rig.log());
    let db = rusqlite::Connection::open(rig.dir.path().join("data/poseidon.db")).unwrap();
    let public = format!("{}=", "A".repeat(43));
    let row = (poseidon::agents::hash(IDENTIFIER), public);
    db.execute("INSERT INTO device_keys VALUES (?1, '', ?2, 1.0)", row)
        .unwrap();
    drop(db);
    rig.kill().await;
    assert_eq!(lost(&rig.log()), 0, "{}", rig.log());
    std::fs::remove_file(&key).unwrap();
    rig.kill().await;
    let (log, own) = (rig.log(), rig.client.get::<Value>("/trust").await.unwrap());
    let id = own["poseidon"]["keyId"].as_str().unwrap();
    assert_eq!(lost(&log), 1, "{log}");
    for part in ["ERROR", id, "1 pinned name ", "'triton trust reset'"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    // It is the key from now on.
    rig.kill().await;
    assert_eq!(lost(&rig.log()), 1, "{}", rig.log());
}
