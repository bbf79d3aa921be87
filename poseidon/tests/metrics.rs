//! What heartbeats say, kept over time: live, in few writes, averaged when it is old, and bounded.
#![allow(missing_docs)]

mod common;

use common::*;
use poseidon::agents::Key;
use poseidon::metrics;
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use triton::message::{Message, payload};

async fn metrics(rig: &Rig, query: &str) -> Value {
    rig.client.get(&format!("/agents/{query}")).await.unwrap()
}

fn series<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let mut all = answer["metrics"].as_array().unwrap().iter();
    all.find(|one| one["name"] == name).unwrap_or(&Value::Null)
}

fn key(instance: &str) -> Key {
    Key {
        identifier: poseidon::agents::hash(IDENTIFIER),
        instance: instance.to_owned(),
    }
}

fn beat(value: f64) -> Map<String, Value> {
    let beat = json!({"systemLoad": value, "metrics": [{"name": "queue/mail", "value": value * 100.0, "unit": "mails"}]});
    beat.as_object().unwrap().clone()
}

fn rows(rig: &Rig, step: u32) -> Vec<(String, i64)> {
    let db = Connection::open(rig.dir.path().join("data/poseidon.db")).unwrap();
    let mut statement = db
        .prepare("SELECT instance, start FROM metrics WHERE step = ?1 ORDER BY instance, start")
        .unwrap();
    let rows = statement
        .query_map([step], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn heartbeats_are_live_and_plotted_with_what_plugins_add() {
    let mut rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let send = async |agent: &mut Agent, beat: Value| {
        agent.send(&Message::with(payload::HEARTBEAT, &beat)).await;
        agent.nothing_came().await;
    };
    send(&mut agent, json!({"systemLoad": 0.5, "metrics": [{"name": "queue", "value": 7, "unit": "mails"}, {"name": "gone", "value": 1}],
        "temperatures": [{"label": "cpu", "celsius": 40.0}]})).await;
    // Of an entry only what has changed is there; one that is not there has gone.
    send(
        &mut agent,
        json!({"delta": true, "nested": true, "metrics": [{"name": "queue", "value": 9}]}),
    )
    .await;
    let health = &rig.show("box").await["health"];
    assert_eq!(
        health["metrics"],
        json!([{"name": "queue", "value": 9, "unit": "mails"}])
    );
    let answer = metrics(&rig, "box/metrics").await;
    let queue = series(&answer, "queue");
    assert_eq!(
        (&queue["unit"], &queue["points"][0][1]),
        (&json!("mails"), &json!(8.0))
    );
    assert_eq!(series(&answer, "temperature:cpu")["points"][0][1], 40.0);
    let one = metrics(&rig, "box/metrics?name=queue&name=nothing").await;
    assert_eq!(one["metrics"].as_array().unwrap().len(), 1);
    // A heartbeat that is refused leaves nothing.
    agent
        .send(&Message::with(
            payload::HEARTBEAT,
            &json!({"metrics": [{"name": 5, "value": "x"}]}),
        ))
        .await;
    agent.expect(payload::ERROR).await;
    // What no number of seven digits holds is passed over, and spoils nothing.
    send(&mut agent, json!({"metrics": [{"name": "queue", "value": 1e39, "unit": "mails"}, {"name": "vast", "value": -1e308}]})).await;
    let answer = metrics(&rig, "box/metrics").await;
    assert_eq!(series(&answer, "queue")["points"][0][1], 8.0);
    assert_eq!(series(&answer, "vast"), &Value::Null);
    // It is written at the server's end.
    drop(agent);
    rig.restart().await;
    let answer = metrics(&rig, "box%2Fi1/metrics").await;
    assert_eq!(series(&answer, "queue")["points"][0][1], 8.0);
    // What is in memory goes on where the store ends.
    let mut agent = rig.agent("i1").await;
    send(
        &mut agent,
        json!({"metrics": [{"name": "other", "value": 3}]}),
    )
    .await;
    let answer = metrics(&rig, "box/metrics").await;
    assert_eq!(series(&answer, "queue")["points"][0][1], 8.0);
    assert_eq!(series(&answer, "other")["points"][0][1], 3.0);
    for (path, status) in [
        ("nobody/metrics", 404),
        ("box/metrics?points=0", 400),
        ("box/metrics?since=x", 400),
        ("box/metrics?color=1", 400),
    ] {
        assert_eq!(
            rig.ask("GET", &format!("/agents/{path}"), b"").await.0,
            status,
            "{path}"
        );
    }
    let data = rig.dir.path().join("data");
    let run = async |arguments: &[&str]| {
        let output = poseidon(arguments)
            .env("POSEIDON_DATA", &data)
            .output()
            .await
            .unwrap();
        (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (out, _) = run(&["metrics", "box"]).await;
    assert!(
        out.lines()
            .any(|line| line.starts_with("queue ") && line.contains("8 mails")),
        "{out}"
    );
    let (out, _) = run(&["metrics", "box", "queue"]).await;
    assert!(out.trim_end().ends_with("  8 mails"), "{out}");
    let (_, err) = run(&["metrics", "box", "cheese"]).await;
    assert!(err.contains("has said nothing of cheese"), "{err}");
    drop(agent);
    rig.is_down("box").await;
    rig.told("DELETE", "/agents/box", b"", 200).await;
    assert!(rows(&rig, 60).is_empty());
}

#[tokio::test]
async fn heartbeats_cost_the_store_nothing_and_a_chunk_is_one_row() {
    let rig = rig().await;
    rig.register("box").await;
    let app = rig.server.as_ref().unwrap().app();
    for n in 0..200 {
        let mut agent = Agent::connect(rig.url(), Some(IDENTIFIER), "/triton")
            .await
            .unwrap();
        agent.hello(&format!("i{n}")).await;
    }
    eventually("all are known", async || {
        (metrics_rows(&rig) == 200).then_some(())
    })
    .await;
    let begin = 1_700_000_000.0 - 1_700_000_000.0 % 1800.0;
    // Half an hour of heartbeats, of 200 devices.
    for round in 0..60 {
        for n in 0..200 {
            app.metrics.take(
                &key(&format!("i{n}")),
                &beat(0.5),
                begin + f64::from(round) * 30.0,
            );
        }
    }
    assert_eq!((app.metrics.written(), rows(&rig, 60).len()), (0, 0));
    app.metrics.flush(app, begin + 1799.0).await;
    assert_eq!((app.metrics.written(), rows(&rig, 60).len()), (200, 200));
    // Nothing new, nothing written.
    app.metrics.flush(app, begin + 1799.0).await;
    assert_eq!(app.metrics.written(), 200);
}

fn metrics_rows(rig: &Rig) -> i64 {
    let db = Connection::open(rig.dir.path().join("data/poseidon.db")).unwrap();
    db.query_row("SELECT count(*) FROM instances", [], |row| row.get(0))
        .unwrap()
}

#[tokio::test]
async fn old_points_are_averaged_and_older_ones_go() {
    let rig = rig().await;
    rig.register("box").await;
    drop(rig.agent("i1").await);
    eventually("it is known", async || {
        (metrics_rows(&rig) == 1).then_some(())
    })
    .await;
    let app = rig.server.as_ref().unwrap().app();
    let begin = 1_700_000_000.0 - 1_700_000_000.0 % 86_400.0;
    let mut last = 0.0;
    for minute in 0..3 * 60 {
        let value = f64::from(minute / 15);
        last = begin + f64::from(minute) * 60.0;
        app.metrics.take(&key("i1"), &beat(value), last);
        app.metrics.take(&key("i1"), &beat(value), last + 30.0);
        if minute % 5 == 0 {
            app.metrics.flush(app, last).await;
        }
    }
    app.metrics.flush(app, last).await;
    assert_eq!(rows(&rig, 60).len(), 6);
    let now = begin + 86_400.0 + 2.0 * 3600.0;
    let fold = async |now: f64, days: u32| {
        app.db
            .call(move |store| metrics::fold(store, now, days))
            .await
            .unwrap()
    };
    assert_eq!(fold(now, 30).await, 4);
    assert_eq!(fold(now, 30).await, 0);
    assert_eq!((rows(&rig, 60).len(), rows(&rig, 900).len()), (2, 1));
    // The same numbers, coarse and fine; each quarter of an hour has its own.
    let query = format!(
        "box/metrics?since={begin}&until={}&points=12&name=system%3Aload",
        begin + 3.0 * 3600.0 - 1.0
    );
    let answer = metrics(&rig, &query).await;
    assert_eq!(answer["step"], 900);
    let expected: Vec<_> = (0..12)
        .map(|n| json!([begin + f64::from(n) * 900.0, f64::from(n)]))
        .collect();
    let points = series(&answer, "system:load")["points"].as_array().unwrap();
    let points: Vec<_> = points
        .iter()
        .map(|p| json!([p[0].as_f64(), p[1]]))
        .collect();
    assert_eq!(points, expected);
    // The rest folds into the same row; after the days that were asked for all goes.
    assert_eq!(fold(now + 86_400.0, 30).await, 2);
    assert_eq!((rows(&rig, 60).len(), rows(&rig, 900).len()), (0, 1));
    let answer = metrics(&rig, &query).await;
    assert_eq!(
        series(&answer, "system:load")["points"]
            .as_array()
            .unwrap()
            .len(),
        12
    );
    assert_eq!(fold(now + 31.0 * 86_400.0, 30).await, 1);
    assert_eq!(rows(&rig, 900).len(), 0);
}

#[tokio::test]
async fn who_makes_new_names_all_the_time_is_bounded() {
    let rig = rig().await;
    rig.register("box").await;
    drop(rig.agent("i1").await);
    eventually("it is known", async || {
        (metrics_rows(&rig) == 1).then_some(())
    })
    .await;
    let app = rig.server.as_ref().unwrap().app();
    let begin = 1_700_000_000.0 - 1_700_000_000.0 % 1800.0;
    for round in 0..100 {
        let metrics: Vec<_> = (0..1000)
            .map(|n| json!({"name": format!("{}-{round}-{n}", "n".repeat(50)), "value": n}))
            .collect();
        let beat = json!({ "metrics": metrics });
        app.metrics.take(
            &key("i1"),
            beat.as_object().unwrap(),
            begin + f64::from(round),
        );
    }
    app.metrics.flush(app, begin + 100.0).await;
    let db = Connection::open(rig.dir.path().join("data/poseidon.db")).unwrap();
    let size: i64 = db
        .query_row("SELECT length(data) FROM metrics", [], |row| row.get(0))
        .unwrap();
    assert!((1000..20_000).contains(&size), "{size}");
    let answer = metrics(&rig, &format!("box/metrics?since={begin}")).await;
    assert_eq!(answer["metrics"].as_array().unwrap().len(), 192);
    // With a clock that jumps it goes on.
    for at in [0.0, 1e12, -1e12, f64::NAN, begin + 60.0] {
        app.metrics.take(&key("i1"), &beat(0.5), at);
        app.metrics.flush(app, at).await;
    }
}

#[tokio::test]
async fn what_is_gone_takes_its_readings_along() {
    let mut rig = rig().await;
    rig.register("box").await;
    let beats = async |rig: &Rig, instance: &str| {
        let mut agent = rig.agent(instance).await;
        let beat = json!({"systemLoad": 0.5});
        agent.send(&Message::with(payload::HEARTBEAT, &beat)).await;
        agent.nothing_came().await;
        drop(agent);
        rig.is_down(&format!("box%2F{instance}")).await;
    };
    let gathered = |rig: &Rig| rig.server.as_ref().unwrap().app().metrics.gathered();
    for instance in ["i1", "i2"] {
        beats(&rig, instance).await;
    }
    assert_eq!(gathered(&rig), 2);
    rig.told("DELETE", "/agents/box%2Fi1", b"", 200).await;
    assert_eq!(gathered(&rig), 1);
    let id = &poseidon::agents::hash(IDENTIFIER)[..16];
    rig.told("DELETE", &format!("/identifiers/{id}"), b"", 200)
        .await;
    assert_eq!(gathered(&rig), 0);

    // As many as an identifier may have, so that each further one makes room of that which was silent longest.
    rig.register("box").await;
    Connection::open(rig.dir.path().join("data/poseidon.db"))
        .unwrap()
        .execute(
            "INSERT INTO instances (identifier, instance, plain, address, since, last_seen)
             WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 9999)
             SELECT ?1, 'old' || n, 0, '192.0.2.1:1', 1.0, 1e10 FROM n",
            [poseidon::agents::hash(IDENTIFIER)],
        )
        .unwrap();
    rig.restart().await;
    for n in 0..5 {
        beats(&rig, &format!("new{n}")).await;
    }
    eventually("only the last is left", async || {
        (gathered(&rig) == 1).then_some(())
    })
    .await;
}
