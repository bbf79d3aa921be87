//! Content by its hash.
#![allow(missing_docs)]

mod common;

use common::*;
use poseidon::blobs::sha256;
use poseidon::blobs::sweep::sweep;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn file(rig: &Rig, hash: &str) -> PathBuf {
    rig.dir
        .path()
        .join("data/blobs")
        .join(&hash[..2])
        .join(hash)
}

fn parts(rig: &Rig) -> usize {
    let parts = rig.dir.path().join("data/blobs/parts");
    std::fs::read_dir(parts).unwrap().count()
}

async fn put(rig: &Rig, bytes: &[u8]) -> String {
    let hash = sha256(bytes);
    let (status, _) = rig.ask("PUT", &format!("/blobs/{hash}"), bytes).await;
    assert!(matches!(status, 200 | 201));
    hash
}

#[tokio::test]
async fn a_large_blob_is_put_once_and_outlives_a_restart() {
    let mut rig = rig().await;
    // More than a body of JSON may have.
    let bytes: Vec<u8> = (0..5_000_000_u32)
        .flat_map(u32::to_le_bytes)
        .take(5_000_000)
        .collect();
    let hash = sha256(&bytes);
    let path = format!("/blobs/{hash}");
    assert_eq!(rig.ask("HEAD", &path, b"").await.0, 404);
    let answer = rig.told("PUT", &path, &bytes, 201).await;
    assert_eq!(answer, json!({"sha256": hash, "size": bytes.len()}));
    rig.told("PUT", &path, &bytes, 200).await;
    rig.restart().await;
    let (status, body) = rig.ask("HEAD", &path, b"").await;
    assert_eq!((status, body.len()), (200, 0));
    assert!(std::fs::read(file(&rig, &hash)).unwrap() == bytes);
    assert_eq!(parts(&rig), 0);
}

#[tokio::test]
async fn wrong_hashes_and_sizes_are_refused_and_leave_nothing() {
    let rig = rig_with(|settings| {
        settings.blob_bytes = 1000;
        settings.blob_store_bytes = 2500;
    })
    .await;
    let zeros = "0".repeat(64);
    for hash in ["x", &zeros[1..], &"A".repeat(64), "..%2F..%2Fetc%2Fpasswd"] {
        let path = format!("/blobs/{hash}");
        let (code, _) = rig.refused("PUT", &path, b"hello", 400).await;
        assert_eq!(code, "invalid", "{hash}");
        assert_eq!(rig.ask("HEAD", &path, b"").await.0, 400);
    }
    let path = format!("/blobs/{zeros}");
    let (code, message) = rig.refused("PUT", &path, b"hello", 400).await;
    assert_eq!(code, "invalid");
    assert!(message.contains(&sha256(b"hello")), "{message}");
    assert_eq!(rig.ask("HEAD", &path, b"").await.0, 404);
    // By what it says, and by what comes.
    let (code, message) = rig.refused("PUT", &path, &[0; 1001], 413).await;
    assert_eq!(code, "too-large");
    assert!(message.contains("--blob-bytes"), "{message}");
    let mut chunks = Vec::new();
    for _ in 0..11 {
        chunks.extend_from_slice(b"64\r\n");
        chunks.extend_from_slice(&[b'x'; 100]);
        chunks.extend_from_slice(b"\r\n");
    }
    let chunked = "transfer-encoding: chunked\r\n";
    let whole = [&chunks[..], b"0\r\n\r\n"].concat();
    assert_eq!(rig.ask_with("PUT", &path, chunked, &whole).await.0, 413);
    assert_eq!(parts(&rig), 0);
    // All rooms are free again.
    put(&rig, &[1; 1000]).await;
    put(&rig, &[2; 1000]).await;
    let path = format!("/blobs/{}", sha256(&[3; 501]));
    let (code, message) = rig.refused("PUT", &path, &[3; 501], 507).await;
    assert_eq!(code, "full");
    assert!(message.contains("--blob-store-bytes"), "{message}");
    put(&rig, &[3; 500]).await;
}

/// A connection that is cut, and a server that is killed, on the way.
#[tokio::test]
async fn what_is_cut_off_leaves_nothing() {
    let mut rig = daemon().await;
    let token = std::fs::read_to_string(rig.dir.path().join("data/admin-token")).unwrap();
    let begin = async |rig: &Rig, hash: &str| {
        let address = rig.url().strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "PUT /api/v1/blobs/{hash} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 1000000\r\n\r\n",
            token.trim()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![7; 600_000]).await.unwrap();
        eventually("it is being written", async || {
            (parts(rig) == 1).then_some(())
        })
        .await;
        stream
    };
    let hash = sha256(&vec![7; 1_000_000]);
    let stream = begin(&rig, &hash).await;
    drop(stream);
    eventually("the part is gone", async || {
        (parts(&rig) == 0).then_some(())
    })
    .await;
    let mut stream = begin(&rig, &hash).await;
    rig.kill().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
    assert_eq!(parts(&rig), 0);
    assert_eq!(rig.ask("HEAD", &format!("/blobs/{hash}"), b"").await.0, 404);
    assert_eq!(put(&rig, &vec![7; 1_000_000]).await, hash);
}

#[tokio::test]
async fn what_nothing_refers_to_goes_after_a_day() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let script = rig
        .told("PUT", "/repositories/box/files/a", b"one", 200)
        .await;
    let one = sha256(b"one");
    assert_eq!(script["repository"]["files"][0]["sha256"], one);
    // Only an earlier revision has it.
    rig.told("PUT", "/repositories/box/files/a", b"two", 200)
        .await;
    let large = vec![9; (1 << 20) + 1];
    rig.told("PUT", "/data/box/firmware", &large, 200).await;
    let job = put(&rig, b"of a job").await;
    let entry = put(&rig, b"of its manifest").await;
    let manifest = put(
        &rig,
        json!([{"path": "x", "ref": format!("sha256:{entry}")}])
            .to_string()
            .as_bytes(),
    )
    .await;
    // The shape of the requests that name content is the agent's business: any request will do.
    let command = json!({"argv": ["x", format!("sha256:{job}")]});
    let first = rig.run("box", command).await;
    let command = json!({"argv": [format!("sha256:{manifest}")], "env": {"manifest": "x"}});
    let second = rig.run("box", command).await;
    let nobody = put(&rig, b"nobody's").await;
    let app = rig.server.as_ref().unwrap().app();
    let clean = async |hours: u64| {
        let now = SystemTime::now() + Duration::from_hours(hours);
        sweep(app, now).await.unwrap()
    };
    let is_there = |hash: &str| file(&rig, hash).exists();
    assert_eq!(clean(0).await, 0);
    assert_eq!(clean(25).await, 1);
    assert!(!is_there(&nobody));
    let kept = [
        &one,
        &sha256(b"two"),
        &sha256(&large),
        &job,
        &manifest,
        &entry,
    ];
    for hash in kept {
        assert!(is_there(hash));
    }
    // A batch waits for a device that is down: its member has no job yet.
    let absent = rig.agent("i2").await;
    drop(absent);
    rig.is_down("box%2Fi2").await;
    let later = put(&rig, b"of a batch").await;
    let body = json!({"agents": ["box/i2"], "queue": true,
        "command": {"argv": ["x", format!("sha256:{later}")]}});
    let batch: Value = rig.client.post("/batches", &body).await.unwrap();
    assert_eq!(clean(25).await, 0);
    assert!(is_there(&later));
    let id = batch["batch"]["id"].as_str().unwrap();
    let path = format!("/batches/{id}/cancel");
    rig.told("POST", &path, b"", 200).await;
    eventually("the batch is over", async || {
        let batch: Value = rig.client.get(&format!("/batches/{id}")).await.unwrap();
        (batch["state"] == "ended").then_some(())
    })
    .await;
    assert_eq!(clean(25).await, 1);
    // Jobs end, data goes; what a revision has stays.
    for id in [&first, &second] {
        let command = agent.expect("command").await;
        assert_eq!(*id, command.id);
        agent.succeed(&command, 0).await;
        rig.ended(id).await;
    }
    rig.told("DELETE", "/data/box/firmware", b"", 200).await;
    assert_eq!(clean(25).await, 4);
    assert!(is_there(&one) && is_there(&sha256(b"two")));
    // A forgotten identifier refers to nothing.
    let list: Value = rig.client.get("/identifiers").await.unwrap();
    let id = list["identifiers"][0]["id"].as_str().unwrap().to_owned();
    rig.told("DELETE", &format!("/identifiers/{id}"), b"", 200)
        .await;
    assert_eq!(clean(25).await, 2);
}
