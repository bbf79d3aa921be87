//! The `OpenAPI` document says what the API answers: each call with each key, by its status, code and shape.
#![allow(missing_docs)]

mod common;

use common::*;
use poseidon::api::{OPENAPI, ROUTES};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use triton::message::payload;
use triton::message::sign::SecretKey;

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// What the document says of a call.
fn described<'a>(document: &'a Value, method: &str, path: &str) -> &'a Value {
    let path = path.replace("{*", "{");
    let call = &document["paths"][&path][method];
    assert!(call.is_object(), "{method} {path}");
    call
}

/// What a status of a call, or a schema, refers to.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            let path = reference.strip_prefix('#').unwrap();
            resolved(document, document.pointer(path).expect(reference))
        }
        None => value,
    }
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => panic!("the document has the type {kind}"),
    }
}

/// What of `value` is not as the schema says: types, required fields, enumerations, alternatives. Where it is an
/// answer, fields that no schema has are wrong as well.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = resolved(document, schema);
    let words = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten();
        all.filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    for (field, expected) in [("oneOf", 1), ("anyOf", 0)] {
        let Some(choices) = schema[field].as_array() else {
            continue;
        };
        let tried = choices.iter().map(|one| check(document, one, value, at));
        let (fit, wrong): (Vec<_>, Vec<_>) = tried.partition(Result::is_ok);
        if fit.is_empty() || (expected > 0 && fit.len() != expected) {
            return Err(format!("{at}: {} of {field} fit: {wrong:?}", fit.len()));
        }
    }
    let kinds = match &schema["type"] {
        Value::String(kind) => vec![kind.clone()],
        kinds => words(kinds),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is_a(value, kind)) {
        return Err(format!("{at} is no {kinds:?}: {value}"));
    }
    if let Some(all) = schema["enum"].as_array()
        && !all.contains(value)
    {
        return Err(format!("{at} is none of {all:?}: {value}"));
    }
    if let Some(fields) = value.as_object() {
        for name in words(&schema["required"]) {
            if !fields.contains_key(&name) {
                return Err(format!("{at} lacks {name}: {value}"));
            }
        }
        let known = schema["properties"].as_object();
        for (name, field) in fields {
            let at = format!("{at}.{name}");
            match (
                known.and_then(|known| known.get(name)),
                &schema["additionalProperties"],
            ) {
                (Some(schema), _) => check(document, schema, field, &at)?,
                (None, Value::Bool(false)) => return Err(format!("{at} is in no schema")),
                (None, more @ Value::Object(_)) => check(document, more, field, &at)?,
                (None, _) if known.is_some() => return Err(format!("{at} is in no schema")),
                (None, _) => {}
            }
        }
    }
    if let (Some(items), Some(schema)) = (value.as_array(), schema.get("items")) {
        for (n, item) in items.iter().enumerate() {
            check(document, schema, item, &format!("{at}[{n}]"))?;
        }
    }
    Ok(())
}

/// A call: status, type of the content, and the content, but for a stream that goes on.
async fn call(
    rig: &Rig,
    method: &str,
    path: &str,
    key: &str,
    body: &[u8],
) -> (u16, String, String) {
    let address = rig.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let key = match key {
        "" => String::new(),
        key => format!("authorization: Bearer {key}\r\n"),
    };
    let head = format!(
        "{} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{key}\r\n",
        method.to_uppercase(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let n = within(stream.read(&mut piece)).await.unwrap_or(0);
        answer.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && (n == 0 || (path.ends_with("/events") && head.contains("ndjson")))
        {
            let kind = head
                .lines()
                .find_map(|line| line.strip_prefix("content-type: "));
            let status = head[9..12].parse().unwrap();
            return (status, kind.unwrap_or("").to_owned(), body.to_owned());
        }
        assert!(n > 0, "no answer to {method} {path}: {text}");
    }
}

/// Makes a call and holds its answer against the document.
async fn told(
    rig: &Rig,
    document: &Value,
    (method, route): (&str, &str),
    path: &str,
    key: &str,
    body: &[u8],
) -> u16 {
    let (status, kind, body) = call(rig, method, path, key, body).await;
    let what = format!("{method} {path}: {status} {body:.300}");
    let answers = &described(document, method, route)["responses"];
    let answer = resolved(document, &answers[status.to_string()]);
    assert!(
        answer.is_object(),
        "the status is not in the document: {what}"
    );
    let schema = &answer["content"][&kind]["schema"];
    if status < 400 {
        assert!(
            kind.is_empty() || schema.is_object(),
            "content of the type {kind} is not in the document: {what}"
        );
    } else if method != "head" {
        assert_eq!(kind, "application/json", "{what}");
    }
    // An answer to HEAD has no body, and a stream is pieces of it.
    if kind == "application/json" && method != "head" {
        let value: Value = serde_json::from_str(&body).expect(&what);
        if let Err(wrong) = check(document, schema, &value, "answer") {
            panic!("{wrong}: {what}");
        }
    }
    status
}

/// What holds for each call because of its place in the table.
#[test]
fn the_document_has_the_statuses_of_the_door() {
    let document = document();
    for route in ROUTES {
        let answers = &described(&document, route.method, route.path)["responses"];
        let mut needed = vec!["401", "403", "500"];
        if route.is_act() {
            // It is written down first.
            needed.push("507");
        }
        if matches!(route.method, "post" | "delete") {
            needed.extend(["400", "413"]);
        }
        if route.path.contains('{') {
            needed.push("400");
        }
        for status in needed {
            let what = format!("{} {} lacks {status}", route.method, route.path);
            assert!(answers[status].is_object(), "{what}");
        }
    }
}

/// The codes that `docs/api.md` has are those of the document.
#[test]
fn the_document_has_the_codes_of_the_page() {
    let page = include_str!("../../docs/api.md");
    let from = page.find("; codes: ").expect("the codes");
    let codes = page[from..].split("\n\n").next().unwrap();
    // Every other piece stands between backquotes.
    let codes: BTreeSet<&str> = codes.split('`').skip(1).step_by(2).collect();
    let document = document();
    let codes_of = &document["components"]["schemas"]["Error"]["properties"]["error"];
    let known = codes_of["properties"]["code"]["enum"].as_array().unwrap();
    let known: BTreeSet<&str> = known.iter().map(|code| code.as_str().unwrap()).collect();
    assert_eq!(codes, known);
}

#[tokio::test]
async fn every_answer_is_in_the_document() {
    let document = document();
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let job = rig.run("box", json!({"argv": ["true"]})).await;
    let command = agent.expect(payload::COMMAND).await;
    agent.output(&command, 0, b"done\n").await;
    agent.succeed(&command, 5).await;
    rig.ended(&job).await;
    drop(agent);
    rig.is_down("box").await;
    let admin = rig.server.as_ref().unwrap().data.admin_token().unwrap();
    let mut keys = vec![String::new(), "wrong".to_owned()];
    for role in ["viewer", "operator"] {
        let body = json!({"name": role, "role": role});
        let made: Value = rig.client.post("/tokens", &body).await.unwrap();
        keys.push(made["token"].as_str().unwrap().to_owned());
    }
    keys.push(admin.clone());

    // Who may not, and what is not there.
    for route in ROUTES {
        let path = nowhere(route.path);
        if route.path == "/api/v1/trust/rotate" {
            continue;
        }
        for key in &keys {
            told(&rig, &document, (route.method, route.path), &path, key, b"").await;
        }
    }

    // What is there, in an order in which each finds what it needs.
    let sha = "98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4";
    let key = SecretKey::random().unwrap().public().to_string();
    let id = rig.client.get::<Value>("/identifiers").await.unwrap();
    let id = id["identifiers"][0]["id"].as_str().unwrap().to_owned();
    let run = json!({"agents": ["box"], "command": {"argv": ["true"]}, "queue": true});
    let entries = json!({"entries": [{"name": "night", "cron": "30 2 * * *", "shell": "true"}]});
    let calls: Vec<(&str, &str, String, Vec<u8>, u16)> = [
        ("get", "/agents", "/agents".to_owned(), json!(null), 200),
        (
            "get",
            "/agents",
            "/agents?brief=true".to_owned(),
            json!(null),
            200,
        ),
        (
            "get",
            "/agents/{name}",
            "/agents/box".to_owned(),
            json!(null),
            200,
        ),
        (
            "get",
            "/agents/{name}/file",
            "/agents/box/file?path=/a".to_owned(),
            json!(null),
            409,
        ),
        (
            "get",
            "/agents/{name}/schedule",
            "/agents/box/schedule".to_owned(),
            json!(null),
            409,
        ),
        (
            "get",
            "/agents/{name}/modules",
            "/agents/box/modules".to_owned(),
            json!(null),
            409,
        ),
        (
            "get",
            "/agents/{name}/metrics",
            "/agents/box/metrics".to_owned(),
            json!(null),
            200,
        ),
        ("get", "/jobs", "/jobs".to_owned(), json!(null), 200),
        ("get", "/jobs", "/jobs?limit=0".to_owned(), json!(null), 400),
        (
            "get",
            "/jobs/{job}",
            format!("/jobs/{job}"),
            json!(null),
            200,
        ),
        (
            "get",
            "/jobs/{job}/output",
            format!("/jobs/{job}/output"),
            json!(null),
            200,
        ),
        (
            "post",
            "/jobs/{job}/cancel",
            format!("/jobs/{job}/cancel"),
            json!({}),
            409,
        ),
        ("post", "/jobs", "/jobs".to_owned(), run.clone(), 201),
        ("post", "/batches", "/batches".to_owned(), run.clone(), 201),
        ("get", "/batches", "/batches".to_owned(), json!(null), 200),
        (
            "get",
            "/batches",
            "/batches?limit=501".to_owned(),
            json!(null),
            400,
        ),
        ("get", "/history", "/history".to_owned(), json!(null), 200),
        (
            "post",
            "/repositories/{name}",
            "/repositories/box".to_owned(),
            json!({"files": []}),
            200,
        ),
        (
            "get",
            "/repositories/{name}",
            "/repositories/box".to_owned(),
            json!(null),
            200,
        ),
        (
            "put",
            "/repositories/{name}/files/{*path}",
            "/repositories/box/files/a.sh".to_owned(),
            json!("a"),
            200,
        ),
        (
            "put",
            "/repositories/{name}/files/{*path}",
            "/repositories/box/files/a.sh".to_owned(),
            json!("b"),
            200,
        ),
        (
            "get",
            "/repositories/{name}/files/{*path}",
            "/repositories/box/files/a.sh".to_owned(),
            json!(null),
            200,
        ),
        (
            "get",
            "/repositories/{name}/history",
            "/repositories/box/history".to_owned(),
            json!(null),
            200,
        ),
        (
            "get",
            "/repositories/{name}/revisions/{revision}",
            "/repositories/box/revisions/1".to_owned(),
            json!(null),
            200,
        ),
        // As a text, and as the number that answers have.
        (
            "post",
            "/repositories/{name}/revert",
            "/repositories/box/revert".to_owned(),
            json!({"revision": 1}),
            200,
        ),
        (
            "post",
            "/repositories/{name}/revert",
            "/repositories/box/revert".to_owned(),
            json!({"revision": "2"}),
            200,
        ),
        (
            "post",
            "/repositories/{name}/revert",
            "/repositories/box/revert".to_owned(),
            json!({"revision": 1.5}),
            400,
        ),
        (
            "post",
            "/repositories/{name}/revert",
            "/repositories/box/revert".to_owned(),
            json!({"revision": 99}),
            404,
        ),
        (
            "put",
            "/data/{name}/{*key}",
            "/data/box/a".to_owned(),
            json!("a"),
            200,
        ),
        (
            "put",
            "/data/{name}/{*key}",
            "/data/box/s?secret=true".to_owned(),
            json!("a"),
            200,
        ),
        (
            "get",
            "/data/{name}/{*key}",
            "/data/box/a".to_owned(),
            json!(null),
            200,
        ),
        (
            "get",
            "/data/{name}/{*key}",
            "/data/box/s".to_owned(),
            json!(null),
            403,
        ),
        (
            "get",
            "/data/{name}",
            "/data/box".to_owned(),
            json!(null),
            200,
        ),
        (
            "delete",
            "/data/{name}/{*key}",
            "/data/box/a".to_owned(),
            json!(null),
            200,
        ),
        (
            "put",
            "/schedules/{name}",
            "/schedules/box".to_owned(),
            entries,
            200,
        ),
        (
            "get",
            "/schedules/{name}",
            "/schedules/box".to_owned(),
            json!(null),
            200,
        ),
        (
            "delete",
            "/schedules/{name}",
            "/schedules/box".to_owned(),
            json!(null),
            200,
        ),
        ("get", "/cef", "/cef".to_owned(), json!(null), 200),
        (
            "get",
            "/cef/state",
            "/cef/state".to_owned(),
            json!(null),
            200,
        ),
        ("get", "/trust", "/trust".to_owned(), json!(null), 200),
        (
            "post",
            "/trust/{name}/accept",
            "/trust/box/accept".to_owned(),
            json!({"key": key}),
            200,
        ),
        (
            "get",
            "/trust/{name}",
            "/trust/box".to_owned(),
            json!(null),
            200,
        ),
        (
            "post",
            "/trust/{name}/remove",
            "/trust/box/remove".to_owned(),
            json!({"key": key}),
            409,
        ),
        (
            "post",
            "/trust/{name}/reset",
            "/trust/box/reset".to_owned(),
            json!({}),
            200,
        ),
        (
            "post",
            "/trust/rotate",
            "/trust/rotate".to_owned(),
            json!({}),
            200,
        ),
        ("get", "/me", "/me".to_owned(), json!(null), 200),
        (
            "post",
            "/tokens",
            "/tokens".to_owned(),
            json!({"name": "ann", "role": "viewer", "on": ["b*"]}),
            201,
        ),
        ("get", "/tokens", "/tokens".to_owned(), json!(null), 200),
        (
            "delete",
            "/tokens/{name}",
            "/tokens/ann".to_owned(),
            json!(null),
            200,
        ),
        (
            "post",
            "/identifiers",
            "/identifiers".to_owned(),
            json!({"identifier": "another-one-of-good-length"}),
            201,
        ),
        (
            "get",
            "/identifiers",
            "/identifiers".to_owned(),
            json!(null),
            200,
        ),
        (
            "post",
            "/pending/{id}/refuse",
            format!("/pending/{id}/refuse"),
            json!({}),
            200,
        ),
        (
            "post",
            "/pending/{id}/approve",
            format!("/pending/{id}/approve"),
            json!({"pin": false}),
            200,
        ),
        ("get", "/pending", "/pending".to_owned(), json!(null), 200),
        ("get", "/audit", "/audit".to_owned(), json!(null), 200),
        (
            "post",
            "/login",
            "/login".to_owned(),
            json!({"token": "wrong"}),
            401,
        ),
        (
            "post",
            "/login",
            "/login".to_owned(),
            json!({"token": admin}),
            200,
        ),
        (
            "delete",
            "/identifiers/{id}",
            format!("/identifiers/{id}"),
            json!(null),
            200,
        ),
        (
            "get",
            "/openapi.json",
            "/openapi.json".to_owned(),
            json!(null),
            200,
        ),
    ]
    .into_iter()
    .map(|(method, route, path, body, status)| {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        (method, route, path, body, status)
    })
    .collect();
    for (method, route, path, body, expected) in calls {
        let route = (method, &*format!("/api/v1{route}"));
        let path = format!("/api/v1{path}");
        let status = told(&rig, &document, route, &path, &admin, &body).await;
        assert_eq!(status, expected, "{method} {path}");
    }
    let route = ("put", "/api/v1/blobs/{hash}");
    let path = format!("/api/v1/blobs/{sha}");
    assert_eq!(
        told(&rig, &document, route, &path, &admin, b"hello\n").await,
        400
    );
}
