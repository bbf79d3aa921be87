//! Every call with every key.

use crate::common::*;
use crate::{ask, bearer, token};
use poseidon::api::ROUTES;
use poseidon::doors::Role;
use serde_json::{Value, json};

#[tokio::test]
async fn every_call_lets_in_who_may_and_nobody_else() {
    let rig = rig().await;
    let removed = token(&rig, "removed", "admin", &[]).await;
    rig.client.delete("/tokens/removed").await.unwrap();
    let body = json!({"name": "expired", "role": "admin", "expiresSeconds": 1});
    let answer: Value = rig.client.post("/tokens", &body).await.unwrap();
    let expired = answer["token"].as_str().unwrap().to_owned();
    eventually("it expires", async || {
        let told = ask(rig.url(), "GET", "/me", &[&bearer(&expired)], "").await;
        (told.status == 401).then_some(())
    })
    .await;
    let mut keys = vec![
        ("none", None, String::new()),
        ("wrong", None, bearer("ptk_0000")),
        ("no scheme", None, format!("authorization: {removed}")),
        ("a cookie", None, format!("cookie: poseidon={removed}")),
        ("removed", None, bearer(&removed)),
        ("expired", None, bearer(&expired)),
    ];
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        let token = token(&rig, role.as_str(), role.as_str(), &[]).await;
        keys.push((role.as_str(), Some(role), bearer(&token)));
    }
    for route in ROUTES {
        let path = route.path.strip_prefix("/api/v1").unwrap();
        let path = nowhere(path);
        for (name, role, key) in &keys {
            let head: Vec<&str> = Some(key.as_str())
                .filter(|k| !k.is_empty())
                .into_iter()
                .collect();
            let told = ask(rig.url(), &route.method.to_uppercase(), &path, &head, "").await;
            let what = format!(
                "{} {path} with {name}: {} {}",
                route.method, told.head, told.body
            );
            match role {
                None => assert_eq!(told.status, 401, "{what}"),
                Some(role) if *role < route.role => assert_eq!(told.status, 403, "{what}"),
                Some(_) => assert!(!matches!(told.status, 401 | 403), "{what}"),
            }
        }
    }
}

/// What each role is for, by the names of the calls: a call that slips into another role is seen here.
#[test]
// The order of the arms says it.
#[allow(clippy::match_same_arms)]
fn roles_are_as_promised() {
    for route in ROUTES {
        let act = route.act();
        let reads = matches!(route.method, "get" | "head");
        let (group, _) = act.split_once('.').unwrap();
        let content = matches!(
            act.as_str(),
            "files.get" | "repositories.file" | "data.show"
        );
        let expected = match (group, reads) {
            _ if act == "agents.forget" => Role::Admin,
            _ if matches!(act.as_str(), "trust.show" | "schedules.of_agent") => Role::Viewer,
            ("trust", _) => Role::Admin,
            // What runs, with its words and variables.
            ("schedules", _) | ("modules", false) => Role::Operator,
            ("cef" | "metrics" | "modules", true) => Role::Viewer,
            ("identifiers" | "tokens" | "audit", _) => Role::Admin,
            ("session", _) => Role::Viewer,
            _ if content || group == "blobs" => Role::Operator,
            ("jobs" | "batches" | "repositories" | "data", false) => Role::Operator,
            (
                "agents" | "jobs" | "batches" | "history" | "repositories" | "data" | "events",
                true,
            ) => Role::Viewer,
            _ => panic!("{act}: say here who may"),
        };
        assert_eq!(route.role, expected, "{act}");
        // Content that is read is an act, as is all that changes something but content that nobody has a use for yet.
        assert_eq!(
            route.is_act(),
            content || (!reads && act != "blobs.put"),
            "{act}"
        );
    }
}

#[tokio::test]
async fn a_viewer_is_shown_no_input() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let command = json!({"argv": ["login"], "stdin": "c2VjcmV0", "env": {"KEY": "hidden"}});
    let job = rig.run("box", command).await;
    let viewer = bearer(&token(&rig, "eyes", "viewer", &[]).await);
    let operator = bearer(&token(&rig, "hands", "operator", &[]).await);
    let command = agent.expect("command").await;
    agent.succeed(&command, 0).await;
    rig.ended(&job).await;
    for path in [
        "/jobs".to_owned(),
        format!("/jobs/{job}"),
        format!("/jobs/{job}/output?follow=true"),
    ] {
        let seen = ask(rig.url(), "GET", &path, &[&operator], "").await;
        let told = ask(rig.url(), "GET", &path, &[&viewer], "").await;
        assert_eq!((seen.status, told.status), (200, 200), "{path}");
        assert!(
            told.body.contains("login") || path.contains("output"),
            "{}",
            told.body
        );
        for input in ["c2VjcmV0", "hidden"] {
            assert!(!told.body.contains(input), "{path}: {}", told.body);
            assert!(
                seen.body.contains(input) || path.contains("output"),
                "{}",
                seen.body
            );
        }
    }
}

#[tokio::test]
async fn tokens_are_stored_as_hashes_only() {
    let rig = rig().await;
    let secret = token(&rig, "ops", "operator", &["gate-*"]).await;
    let list: Value = rig.client.get("/tokens").await.unwrap();
    assert_eq!(list["tokens"][0]["name"], "ops");
    assert_eq!(list["tokens"][0]["on"], json!(["gate-*"]));
    assert!(!list.to_string().contains(&secret));
    let admin = std::fs::read_to_string(rig.dir.path().join("data/admin-token")).unwrap();
    for file in ["poseidon.db", "poseidon.db-wal"] {
        let content = std::fs::read(rig.dir.path().join("data").join(file)).unwrap();
        for secret in [secret.as_str(), admin.trim(), IDENTIFIER] {
            let mut windows = content.windows(secret.len());
            assert!(
                !windows.any(|w| w == secret.as_bytes()),
                "{file} has a secret"
            );
        }
    }
    for (name, role, on) in [
        ("local", "viewer", json!([])),
        ("a/b", "viewer", json!([])),
        ("x", "admin", json!(["gate-*"])),
        ("x", "viewer", json!(["state=up"])),
        ("x", "root", json!([])),
        ("ops", "viewer", json!([])),
    ] {
        let body = json!({"name": name, "role": role, "on": on});
        assert!(
            rig.client.post::<Value>("/tokens", &body).await.is_err(),
            "{body}"
        );
    }
}
