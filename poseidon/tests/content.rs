//! Content that agents ask for, and files that they hand out.
#![allow(missing_docs)]

#[path = "content/command.rs"]
mod command;
mod common;
#[path = "content/device.rs"]
mod device;
#[path = "content/pull.rs"]
mod pull;
#[path = "content/tree.rs"]
mod tree;

use common::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use triton::message::payload::{self, DataRequest, DataResponse};
use triton::message::{Message, id, text};

pub fn sha256(bytes: &[u8]) -> String {
    id::hex(&Sha256::digest(bytes))
}

/// Bytes that do not repeat soon.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn blob(rig: &Rig, bytes: &[u8]) -> String {
    let app = rig.server.as_ref().unwrap().app();
    app.blobs.put(bytes).unwrap()
}

/// Makes a job of another kind than a command.
async fn order(rig: &Rig, name: &str, kind: &str, payload: Value) -> String {
    let body = json!({"agents": [name], "type": kind, "payload": payload});
    let answer: Value = rig.client.post("/jobs", &body).await.unwrap();
    answer["jobs"][0]["id"].as_str().unwrap().to_owned()
}

async fn ask(agent: &mut Agent, conversation: &str, reference: &str, offset: u64, length: u64) {
    let request = DataRequest {
        reference: reference.to_owned(),
        offset,
        length,
    };
    let message = Message::within(conversation, payload::DATA_REQUEST, &request);
    agent.send(&message).await;
}

/// Asks and reads the answer: the bytes and whether they are the last, or the code of the error.
async fn get(
    agent: &mut Agent,
    conversation: &str,
    reference: &str,
    offset: u64,
    length: u64,
) -> Result<(Vec<u8>, bool), String> {
    ask(agent, conversation, reference, offset, length).await;
    let message = agent.next().await.unwrap();
    assert_eq!(message.conversation_id, conversation);
    if message.kind == payload::ERROR {
        let error: payload::Error = message.read().unwrap();
        return Err(error.code.to_string());
    }
    assert_eq!(message.kind, payload::DATA_RESPONSE);
    let response: DataResponse = message.read().unwrap();
    assert_eq!(
        (response.reference.as_str(), response.offset),
        (reference, offset)
    );
    Ok((text::decode(&response.data).unwrap(), response.eof))
}

fn refused(code: &str) -> Result<(Vec<u8>, bool), String> {
    Err(code.to_owned())
}

#[tokio::test]
async fn a_job_gets_the_content_that_it_names_and_no_other() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let mut other = rig.agent("i2").await;
    let bytes = noise(150_000);
    let hash = blob(&rig, &bytes);
    let stranger = blob(&rig, b"of somebody else");
    let content = format!("sha256:{hash}");
    let payload = json!({"path": "/etc/x", "ref": content, "size": bytes.len(), "sha256": hash});
    let job = order(&rig, "box/i1", "file.put", payload).await;
    let request = agent.expect("file.put").await;
    assert_eq!(request.id, job);

    let whole = get(&mut agent, &job, &content, 0, u64::MAX).await;
    assert_eq!(
        whole,
        Ok((bytes[..65536].to_vec(), false)),
        "a piece is bounded"
    );
    let last = get(&mut agent, &job, &content, 140_000, 10_000).await;
    assert_eq!(last, Ok((bytes[140_000..].to_vec(), true)));
    assert_eq!(
        get(&mut agent, &job, &content, 7, 0).await,
        Ok((vec![], false))
    );
    for behind in [150_000, u64::MAX] {
        assert_eq!(
            get(&mut agent, &job, &content, behind, 10).await,
            Ok((vec![], true))
        );
    }
    let other_content = format!("sha256:{stranger}");
    let upper = content.to_uppercase().replace("SHA", "sha");
    for (reference, code) in [
        (other_content.as_str(), "not-found"),
        (&upper, "invalid"),
        ("sha256:../../etc/passwd", "invalid"),
        ("sha256:", "invalid"),
        ("attributes", "not-found"),
        (&"x".repeat(600), "invalid"),
    ] {
        let answer = get(&mut agent, &job, reference, 0, 10).await;
        assert_eq!(answer, refused(code), "{reference}");
    }
    // Another instance of the same name is no part of it, nor is a conversation of its own.
    for conversation in [job.as_str(), "own"] {
        let answer = get(&mut other, conversation, &content, 0, 10).await;
        assert_eq!(answer, refused("not-found"));
    }
    agent.succeed(&request, 0).await;
    rig.ended(&job).await;
    assert_eq!(
        get(&mut agent, &job, &content, 0, 10).await,
        refused("not-found")
    );
}

#[tokio::test]
async fn what_a_manifest_names_belongs_to_the_job() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let [one, two, three] = [b"one".as_slice(), b"two", b"three"].map(|b| blob(&rig, b));
    let manifest = json!([
        {"path": "a", "type": "file", "ref": format!("sha256:{one}"), "size": 3, "sha256": one},
        {"path": "b", "type": "directory"},
    ]);
    let manifest = blob(&rig, manifest.to_string().as_bytes());
    let payload = json!({"path": "/srv", "manifest": {"ref": format!("sha256:{manifest}")}});
    let job = order(&rig, "box", "directory.put", payload).await;
    agent.expect("directory.put").await;
    let entries =
        json!({"path": "/srv", "entries": [{"path": "a", "ref": format!("sha256:{two}")}]});
    let second = order(&rig, "box", "directory.put", entries).await;
    agent.expect("directory.put").await;
    for (job, named) in [
        (&job, [true, false, false]),
        (&second, [false, true, false]),
    ] {
        for (hash, named) in [&one, &two, &three].into_iter().zip(named) {
            let answer = get(&mut agent, job, &format!("sha256:{hash}"), 0, 100).await;
            assert_eq!(answer.is_ok(), named, "{hash}: {answer:?}");
        }
    }
    // What the request names and the store has lost is said, and said again when it is there.
    let lost = sha256(b"lost");
    let payload = json!({"path": "/srv", "manifest": {"ref": format!("sha256:{lost}")}});
    let job = order(&rig, "box", "directory.put", payload).await;
    agent.expect("directory.put").await;
    let reference = format!("sha256:{lost}");
    assert_eq!(
        get(&mut agent, &job, &reference, 0, 9).await,
        refused("not-found")
    );
    blob(&rig, b"lost");
    assert_eq!(
        get(&mut agent, &job, &reference, 0, 9).await,
        Ok((b"lost".to_vec(), true))
    );
}

#[tokio::test]
async fn data_by_name_is_what_the_identifier_was_given() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let app = rig.server.as_ref().unwrap().app();
    let given = poseidon::store::named::Content::Value(b"secret".to_vec());
    let identifier = poseidon::agents::hash(IDENTIFIER);
    let hash = (sha256(b"secret"), 6);
    app.data
        .put(&identifier, "key", true, given, hash)
        .await
        .unwrap();
    let all = |bytes: &[u8]| Ok((bytes.to_vec(), true));
    for (reference, answer) in [
        ("attributes", all(br#"{"site":"attic"}"#)),
        ("attribute/site", all(b"attic")),
        ("attribute/", refused("not-found")),
        ("attribute/name", refused("not-found")),
        ("key", all(b"secret")),
        ("other", refused("not-found")),
        ("", refused("not-found")),
    ] {
        assert_eq!(
            get(&mut agent, "own", reference, 0, 100).await,
            answer,
            "{reference}"
        );
    }
    assert_eq!(
        get(&mut agent, "own", "key", 2, 2).await,
        Ok((b"cr".to_vec(), false))
    );
    // Each piece tells of which content it is.
    for (reference, whole) in [("key", &b"secret"[..]), ("attribute/site", b"attic")] {
        ask(&mut agent, "own", reference, 2, 2).await;
        let response: DataResponse = agent.expect(payload::DATA_RESPONSE).await.read().unwrap();
        assert_eq!(response.sha256, Some(sha256(whole)));
    }
    let long = "n".repeat(512);
    assert_eq!(
        get(&mut agent, "own", &long, 0, 9).await,
        refused("not-found")
    );
    for wrong in ["n".repeat(513), "a\nb".to_owned()] {
        assert_eq!(
            get(&mut agent, "own", &wrong, 0, 9).await,
            refused("invalid")
        );
    }
}

#[tokio::test]
async fn requests_are_answered_in_their_order_and_hold_up_nothing() {
    const PIECES: u64 = 16;
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let bytes = noise(1 << 20);
    let hash = blob(&rig, &bytes);
    let content = format!("sha256:{hash}");
    let job = order(
        &rig,
        "box",
        "file.put",
        json!({"path": "/x", "ref": content}),
    )
    .await;
    agent.expect("file.put").await;
    // Far more than the window, and nothing is read meanwhile: commands get through to others, and to this one first.
    for _ in 0..10 {
        for n in 0..PIECES {
            ask(&mut agent, &job, &content, n * 65536, 65536).await;
        }
    }
    let command = rig.run("box", json!({"argv": ["true"]})).await;
    let mut next = 0;
    let mut commands = 0;
    while next < 10 * PIECES {
        let message = agent.next().await.unwrap();
        if message.kind == payload::COMMAND {
            assert_eq!(message.id, command);
            commands += 1;
            continue;
        }
        assert_eq!(message.kind, payload::DATA_RESPONSE, "{message:?}");
        let response: DataResponse = message.read().unwrap();
        assert_eq!(response.offset, next % PIECES * 65536);
        next += 1;
    }
    assert_eq!(commands, 1, "it came among the pieces, not behind them");
    // One that asks without end is told so, and lives on.
    for _ in 0..3000 {
        ask(&mut agent, &job, &content, 0, 65536).await;
    }
    let (mut answers, mut refusals) = (0, 0);
    while answers + refusals < 3000 {
        let message = agent.next().await.unwrap();
        match message.kind.as_str() {
            payload::DATA_RESPONSE => answers += 1,
            _ => refusals += 1,
        }
    }
    assert!(
        answers > 0 && refusals > 0,
        "{answers} answers, {refusals} refusals"
    );
}
