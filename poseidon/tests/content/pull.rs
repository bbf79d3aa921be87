//! A file of a device by the API.

use crate::common::*;
use crate::device::{Behaviour, Device, Lie};
use crate::noise;
use axum::body::{Body, Bytes};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpStream;

/// An answer, as far as it came.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// The body came to its end, and did not break off.
    pub whole: bool,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    fn error(&self) -> (u16, String, String) {
        let error: Value = serde_json::from_slice(&self.body).unwrap();
        let field = |name: &str| error["error"][name].as_str().unwrap().to_owned();
        (self.status, field("code"), field("message"))
    }
}

/// Asks and reads nothing of the body.
async fn begin(rig: &Rig, path: &str, tag: Option<&str>) -> Response<Incoming> {
    let address = rig.url().strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let token = std::fs::read_to_string(rig.dir.path().join("data/admin-token")).unwrap();
    let mut request = Request::get(format!("/api/v1/agents/{path}"))
        .header("host", "x")
        .header("authorization", format!("Bearer {}", token.trim()));
    if let Some(tag) = tag {
        request = request.header("if-match", tag);
    }
    within(sender.send_request(request.body(Body::empty()).unwrap()))
        .await
        .unwrap()
}

async fn fetch(rig: &Rig, path: &str, tag: Option<&str>) -> Answer {
    let (head, mut body) = begin(rig, path, tag).await.into_parts();
    let mut answer = Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: Vec::new(),
        whole: false,
    };
    loop {
        match within(body.frame()).await {
            Some(Ok(frame)) => {
                let data: Bytes = frame.into_data().unwrap();
                answer.body.extend_from_slice(&data);
            }
            Some(Err(_)) => return answer,
            None => {
                answer.whole = true;
                return answer;
            }
        }
    }
}

async fn served(behaviour: Behaviour) -> (Rig, Device) {
    let rig = rig_with(|settings| settings.file_patience = Duration::from_millis(700)).await;
    rig.register("box").await;
    let url = rig.url().to_owned();
    let device = Device::start(move || url.clone(), behaviour);
    device.up().await;
    eventually("up", async || {
        (rig.show("box").await["state"] == "up").then_some(())
    })
    .await;
    (rig, device)
}

#[tokio::test]
async fn a_file_comes_whole_with_what_is_known_of_it() {
    let file = noise(5_000_001);
    let (rig, _device) = served(Behaviour::good(&file)).await;
    let answer = fetch(&rig, "box/file?path=/etc/x%20y", None).await;
    assert_eq!(answer.status, 200);
    assert!(answer.whole && answer.body == file);
    for (name, value) in [
        ("triton-size", "5000001"),
        ("triton-mode", "0640"),
        ("triton-mtime", "1700000000.5"),
        ("content-type", "application/octet-stream"),
        ("content-disposition", "attachment; filename*=UTF-8''x%20y"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let job = rig.job(answer.header("triton-job")).await;
    assert_eq!(job["type"], "file.get");
    assert_eq!(job["result"]["status"], "succeeded");
    assert_eq!(job["request"]["path"], "/etc/x y");
    let tag = answer.header("etag");
    let rest = fetch(&rig, "box/file?path=/etc/x&offset=5000000", Some(tag)).await;
    assert!(rest.whole && rest.body == file[5_000_000..]);
    let end = fetch(&rig, "box/file?path=/etc/x&offset=5000001", Some(tag)).await;
    assert!(end.whole && end.body.is_empty());
    let other = fetch(&rig, "box/file?path=/etc/x", Some("\"1-2\"")).await;
    assert_eq!((other.status, other.error().1.as_str()), (412, "changed"));
}

#[tokio::test]
async fn an_empty_file_and_small_pieces_are_files_too() {
    let (rig, device) = served(Behaviour::good(b"")).await;
    let answer = fetch(&rig, "box/file?path=/x", None).await;
    assert!(answer.whole && answer.body.is_empty() && answer.status == 200);
    drop((rig, device));
    let file = noise(200_000);
    let (rig, _device) = served(Behaviour {
        piece: 7001,
        ..Behaviour::good(&file)
    })
    .await;
    let answer = fetch(&rig, "box/file?path=/x", None).await;
    assert!(answer.whole && answer.body == file);
}

#[tokio::test]
async fn what_the_device_says_becomes_a_proper_error() {
    for (code, status, api) in [
        ("not-found", 404, "not-found"),
        ("refused", 403, "refused"),
        ("invalid", 400, "invalid"),
        ("busy", 503, "busy"),
        ("io", 502, "agent"),
        ("unknown-type", 409, "conflict"),
        ("changed", 409, "conflict"),
    ] {
        let (rig, _device) = served(Behaviour {
            refuse: Some((code, "in the words of the device")),
            ..Behaviour::good(b"")
        })
        .await;
        let (is, word, text) = fetch(&rig, "box/file?path=/x", None).await.error();
        assert_eq!((is, word.as_str()), (status, api), "{code}: {text}");
        assert!(text.contains("in the words of the device"), "{text}");
    }
    let rig = rig().await;
    rig.register("box").await;
    for (path, status, code) in [
        ("box/file?path=/x", 409, "offline"),
        ("nobody/file?path=/x", 404, "not-found"),
        ("box/file", 400, "invalid"),
        ("box/file?path=/x&offset=-1", 400, "invalid"),
        ("box/file?path=/x&what=ever", 400, "invalid"),
    ] {
        let (is, word, text) = fetch(&rig, path, None).await.error();
        assert_eq!((is, word.as_str()), (status, code), "{path}: {text}");
    }
    let agent = rig.agent("i1").await;
    let second = rig.agent("i2").await;
    let (status, code, text) = fetch(&rig, "box/file?path=/x", None).await.error();
    assert_eq!((status, code.as_str()), (409, "conflict"));
    assert!(text.contains("box/i1, box/i2"), "{text}");
    drop((agent, second));
}

#[tokio::test]
async fn a_file_goes_on_after_each_reconnect() {
    let file = noise(6_000_000);
    let (rig, device) = served(Behaviour {
        cut_after: Some(9),
        ..Behaviour::good(&file)
    })
    .await;
    let answer = fetch(&rig, "box/file?path=/x", None).await;
    assert!(answer.whole && answer.body == file);
    let connections = device.counts.connections.load(Ordering::SeqCst);
    assert!(connections > 10, "{connections} connections");
}

#[tokio::test]
async fn a_device_that_lies_gives_no_file_and_no_short_one() {
    let file = noise(3_000_000);
    for (lie, begun) in [
        (Lie::NoOffer, false),
        (Lie::OfferForOther, false),
        (Lie::OfferBehindEnd, false),
        (Lie::Silent, true),
        (Lie::MoreThanAsked, true),
        (Lie::OtherOffset, true),
        (Lie::NoBase64, true),
        (Lie::EarlyEnd, true),
        (Lie::Empty, true),
        (Lie::OtherRef, true),
        (Lie::WrongHash, true),
    ] {
        let (rig, device) = served(Behaviour {
            lie,
            ..Behaviour::good(&file)
        })
        .await;
        let answer = fetch(&rig, "box/file?path=/x", None).await;
        if begun {
            assert_eq!(answer.status, 200, "{lie:?}");
            assert!(!answer.whole, "{lie:?}");
        } else {
            assert!(answer.status >= 500, "{lie:?}: {}", answer.status);
            answer.error();
        }
        let jobs: Value = rig.client.get("/jobs").await.unwrap();
        let id = jobs["jobs"][0]["id"].as_str().unwrap();
        let job = rig.ended(id).await;
        if lie == Lie::WrongHash {
            assert_eq!(job["result"]["status"], "succeeded", "as the device has it");
            continue;
        }
        assert!(job["error"]["message"].is_string(), "{lie:?}: {job}");
        let cancels = &device.counts.cancels;
        eventually("the device is told", async || {
            (cancels.load(Ordering::SeqCst) > 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_reader_that_stops_reading_stops_the_asking_and_one_that_goes_cancels() {
    let file = noise(64 << 20);
    let (rig, device) = served(Behaviour::good(&file)).await;
    let mut response = begin(&rig, "box/file?path=/x", None).await;
    let token = response.headers()["triton-job"]
        .to_str()
        .unwrap()
        .to_owned();
    let first = within(response.body_mut().frame()).await.unwrap().unwrap();
    assert!(!first.into_data().unwrap().is_empty());
    let asked = || device.counts.asked.load(Ordering::SeqCst);
    // What the sockets between take is taken; then nothing more is asked for.
    let mut before = 0;
    eventually("it stops asking", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = asked();
        (std::mem::replace(&mut before, now) == now).then_some(())
    })
    .await;
    assert!(asked() < 32 << 20, "{} bytes", asked());
    assert_eq!(rig.job(&token).await["state"], "accepted");
    drop(response);
    let job = rig.ended(&token).await;
    assert_eq!(job["result"]["status"], "cancelled");
    assert_eq!(device.counts.cancels.load(Ordering::SeqCst), 1);
}
