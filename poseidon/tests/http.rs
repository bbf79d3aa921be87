//! The HTTP side: doors, headers, the document, TLS, the data folder.
#![allow(missing_docs)]

mod common;

use common::*;
use poseidon::api::{OPEN_ROUTES, OPENAPI, ROUTES};
use poseidon::cli::client::Client;
use poseidon::server;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends a request by hand; the answer with its head.
async fn ask(url: &str, method: &str, path: &str, more: &str, body: &[u8]) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may answer, and close, before it has read all of a body that is too large.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn every_call_needs_the_token() {
    let rig = rig().await;
    for (method, path) in ROUTES.iter().map(|route| (route.method, route.path)) {
        for header in [
            "",
            "authorization: Bearer 00\r\n",
            "authorization: Basic eDp5\r\n",
        ] {
            let answer = ask(rig.url(), &method.to_uppercase(), path, header, b"").await;
            assert!(
                answer.starts_with("HTTP/1.1 401"),
                "{method} {path}: {answer}"
            );
            // An answer to HEAD has no body.
            assert!(method == "head" || answer.contains("\"unauthorized\""));
        }
    }
    for (method, path) in OPEN_ROUTES.iter().filter(|(method, _)| *method == "get") {
        let answer = ask(rig.url(), &method.to_uppercase(), path, "", b"").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let wrong = Client::new(rig.url(), "0".repeat(64), None).unwrap();
    let e = wrong.get::<Value>("/agents").await.unwrap_err();
    assert!(e.contains("admin-token"), "{e}");
}

#[test]
fn the_document_has_every_call_and_no_other() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut described = BTreeSet::new();
    for (path, calls) in document["paths"].as_object().unwrap() {
        for method in calls.as_object().unwrap().keys() {
            described.insert((method.as_str(), path.as_str()));
        }
    }
    // The document has no sign for a name that goes over slashes.
    let served: Vec<_> = ROUTES
        .iter()
        .map(|route| (route.method, route.path))
        .chain(OPEN_ROUTES.iter().copied())
        .map(|(method, path)| (method, path.replace("{*", "{")))
        .collect();
    let served: BTreeSet<_> = served.iter().map(|(m, p)| (*m, p.as_str())).collect();
    assert_eq!(described, served);
    // Every reference leads somewhere.
    for reference in OPENAPI.split("\"#/").skip(1) {
        let path = format!("/{}", reference.split('"').next().unwrap());
        assert!(document.pointer(&path).is_some(), "{path}");
    }
}

#[tokio::test]
async fn the_page_is_served_with_headers_that_protect_it() {
    let rig = rig().await;
    for (path, kind) in [
        ("/", "text/html"),
        ("/app.js", "text/javascript"),
        ("/style.css", "text/css"),
    ] {
        let answer = ask(rig.url(), "GET", path, "", b"").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for header in [
            &format!("content-type: {kind}"),
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(answer.contains(header), "{header} of {path}: {answer}");
        }
        assert!(!answer.contains("access-control-allow"), "{answer}");
        assert!(!answer.contains("unsafe-"), "{answer}");
        assert!(!answer.contains("strict-transport-security"), "{answer}");
    }
    assert!(
        ask(rig.url(), "GET", "/nothing", "", b"")
            .await
            .starts_with("HTTP/1.1 404")
    );
    assert!(
        ask(rig.url(), "GET", "/triton", "", b"")
            .await
            .starts_with("HTTP/1.1 426")
    );
    let answer = ask(rig.url(), "PUT", "/api/v1/agents", "", b"").await;
    assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
}

#[tokio::test]
async fn bodies_are_bounded_and_checked() {
    let rig = rig().await;
    let token = std::fs::read_to_string(rig.dir.path().join("data/admin-token")).unwrap();
    let auth = format!("authorization: Bearer {}\r\n", token.trim());
    let large = vec![b' '; (2 << 20) + 1];
    for (body, status, code) in [
        (&large[..], 413, "too-large"),
        (b"{", 400, "invalid"),
        (b"[]", 400, "invalid"),
        (
            b"{\"agents\":[\"nobody\"],\"command\":{\"argv\":[\"a\"]}}",
            404,
            "not-found",
        ),
    ] {
        let answer = ask(rig.url(), "POST", "/api/v1/jobs", &auth, body).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(answer.contains(&format!("\"{code}\"")), "{answer}");
    }
    for (method, path, status) in [
        ("GET", "/api/v1/jobs?limit=abc", 400),
        ("GET", "/api/v1/jobs?limit=-1", 400),
        ("GET", "/api/v1/jobs/x/output?follow=1", 400),
        ("GET", "/api/v1/agents/%ff", 400),
        ("DELETE", "/api/v1/identifiers/%ff", 400),
        ("POST", "/api/v1/pending/%ff/approve", 400),
        ("PUT", "/api/v1/agents", 405),
    ] {
        let answer = ask(rig.url(), method, path, &auth, b"").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], "invalid", "{path}");
        assert!(body["error"]["message"].is_string(), "{path}");
    }
    assert!(
        ask(rig.url(), "GET", "/api/v1/none", &auth, b"")
            .await
            .contains("not-found")
    );
}

#[tokio::test]
async fn tls_is_served_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path(), "127.0.0.1");
    let rig = rig_with(|settings| settings.tls = Some((cert.clone(), key))).await;
    assert!(rig.url().starts_with("https://127.0.0.1:"));
    let token = rig.server.as_ref().unwrap().data.admin_token().unwrap();
    let client = Client::new(rig.url(), token.clone(), Some(&cert)).unwrap();
    let agents: Value = client.get("/agents").await.unwrap();
    assert_eq!(agents, json!({"agents": []}));
    let stranger = Client::new(rig.url(), token, None).unwrap();
    let e = stranger.get::<Value>("/agents").await.unwrap_err();
    assert!(e.contains("TLS failed"), "{e}");
}

/// Makes a certificate for `name`; its file and that of its key.
fn certificate(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (cert, key) = (
        dir.join(format!("{name}.pem")),
        dir.join(format!("{name}.key")),
    );
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (cert, key)
}

/// Runs the command; whether it succeeded, and what it wrote.
async fn command(arguments: &[&str]) -> (bool, String) {
    let output = within(poseidon(arguments).output()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn the_commands_know_the_certificate_of_the_servers_folder() {
    let dir = tempfile::tempdir().unwrap();
    let tls = certificate(dir.path(), "poseidon.example.com");
    let start = async |tls: (PathBuf, PathBuf), folder: &str| {
        let mut settings = settings(&dir.path().join(folder));
        settings.tls = Some(tls);
        server::start(settings).await.unwrap()
    };
    let server = start(tls.clone(), "a").await;
    let data = dir.path().join("a/data");
    let folder = data.to_str().unwrap();
    let file = data.join("certificate");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let (ok, said) = command(&["--data", folder, "agents"]).await;
    assert!(ok, "{said}");
    // An address that is given says where, and the certificate must be for it.
    let token = data.join("admin-token");
    let by_url = [
        "--url",
        &server.url,
        "--token-file",
        token.to_str().unwrap(),
    ];
    let trusting = [&by_url[..], &["--ca-file", tls.0.to_str().unwrap()]].concat();
    for arguments in [&by_url[..], &trusting] {
        let (ok, said) = command(&[arguments, &["--data", folder, "agents"]].concat()).await;
        assert!(!ok && said.contains("TLS failed"), "{said}");
        assert!(
            said.contains("--ca-file") && said.contains("--url"),
            "{said}"
        );
        assert!(!said.contains("Does the server run?"), "{said}");
    }
    // Another server has come to this address, with another certificate for the same name.
    let other = start(certificate(dir.path(), "other.example.com"), "b").await;
    std::fs::write(data.join("url"), &other.url).unwrap();
    let (ok, said) = command(&["--data", folder, "agents"]).await;
    assert!(!ok && said.contains("not the one that"), "{said}");
    std::fs::write(&file, "nonsense").unwrap();
    let (ok, said) = command(&["--data", folder, "agents"]).await;
    assert!(!ok && said.contains("holds no SHA-256"), "{said}");
    // Plain, to where TLS is spoken.
    let plain = other.url.replace("https", "http");
    let (ok, said) = command(&["--data", folder, "--url", &plain, "agents"]).await;
    assert!(!ok && said.contains("may speak https"), "{said}");
    other.stop().await;
    server.stop().await;
    // The next start tells the new one, or none.
    let server = start(certificate(dir.path(), "new.example.com"), "a").await;
    let (ok, said) = command(&["--data", folder, "agents"]).await;
    assert!(ok, "{said}");
    server.stop().await;
    let server = server::start(settings(&dir.path().join("a")))
        .await
        .unwrap();
    assert!(!file.exists());
    let (ok, said) = command(&["--data", folder, "agents"]).await;
    assert!(ok, "{said}");
    server.stop().await;
    let (ok, said) = command(&["--data", folder, "agents"]).await;
    assert!(!ok && said.contains("Does the server run?"), "{said}");
}

#[tokio::test]
async fn plain_is_for_loopback_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut open = settings(dir.path());
    open.listen = "0.0.0.0:0".to_owned();
    let e = server::start(open.clone()).await.err().unwrap();
    assert!(e.contains("--tls-cert"), "{e}");
    open.plain = true;
    server::start(open).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_server_starts_where_it_cannot_write_its_address() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("data/url.new")).unwrap();
    let server = server::start(settings(dir.path())).await.unwrap();
    assert!(!dir.path().join("data/url").exists());
    server.stop().await;
}

#[tokio::test]
async fn a_data_folder_has_one_server_and_no_other_readers() {
    let rig = rig().await;
    let e = server::start(settings(rig.dir.path())).await.err().unwrap();
    assert!(e.contains("belongs to a Poseidon that runs"), "{e}");
    let data = rig.dir.path().join("data");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in ["admin-token", "url", "poseidon.db", "poseidon.db-wal"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
    let token = std::fs::read_to_string(data.join("admin-token")).unwrap();
    assert_eq!(token.trim().len(), 64);
}
