//! Events on their way to a SIEM that dies, restarts, is slow, or is not who it should be.
#![allow(missing_docs)]

mod common;

use common::*;
use poseidon::cef::forward::Settings as Siem;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use triton::message::{Message, payload};

/// Sends events `from..=to`, each with its number, and waits until they are stored.
async fn report(agent: &mut Agent, from: u64, to: u64, padding: usize) {
    let padding = "x".repeat(padding);
    let event = |n: u64| {
        let severity = n % 10;
        json!({"sequence": n, "time": 1_700_000_000.0, "stored": 1.0, "host": "gate", "source": "command",
            "cef": format!("CEF:0|Acme|Wall|1|7|x|{severity}|n={n} pad={padding}")})
    };
    for begin in (from..=to).step_by(100) {
        let end = to.min(begin + 99);
        let events: Vec<_> = (begin..=end).map(event).collect();
        let message = json!({"events": events, "last": to});
        agent.send(&Message::with(payload::EVENTS, &message)).await;
        agent.acked(end).await;
    }
}

fn siem(target: &str, ca: Option<PathBuf>, severity: u8) -> Siem {
    Siem {
        target: target.parse().unwrap(),
        ca,
        severity,
    }
}

/// The next message, out of its frame.
async fn message(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut length = 0_usize;
    loop {
        match stream.read_u8().await.ok()? {
            b' ' => break,
            digit => {
                assert!(digit.is_ascii_digit(), "a digit");
                length = length * 10 + usize::from(digit - b'0');
            }
        }
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text).await.ok()?;
    Some(String::from_utf8(text).unwrap())
}

fn number(message: &str) -> u64 {
    let (_, rest) = message.split_once("|n=").expect("an event");
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// Numbers of messages until that of `last` came.
async fn numbers(stream: &mut (impl AsyncRead + Unpin), last: u64) -> Vec<u64> {
    let mut all = Vec::new();
    while all.last() != Some(&last) {
        all.push(number(
            &within(message(stream)).await.expect("more messages"),
        ));
    }
    all
}

async fn state(rig: &Rig) -> Value {
    let state: Value = rig.client.get("/cef/state").await.unwrap();
    state["forwarding"].clone()
}

async fn until(rig: &Rig, what: &str, check: impl Fn(&Value) -> bool) -> Value {
    eventually(what, async || {
        let state = state(rig).await;
        check(&state).then_some(state)
    })
    .await
}

async fn rebind(address: std::net::SocketAddr) -> TcpListener {
    eventually("the address is free", async || {
        let socket = TcpSocket::new_v4().ok()?;
        socket.set_reuseaddr(true).ok()?;
        socket.bind(address).ok()?;
        socket.listen(8).ok()
    })
    .await
}

#[tokio::test]
async fn events_go_in_order_and_from_the_cursor_after_a_restart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let rig = rig_in(dir, |s| s.siem = Some(siem(&target, None, 0))).await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    report(&mut agent, 1, 1, 0).await;
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    assert_eq!(
        within(message(&mut stream)).await.unwrap(),
        "<134>1 2023-11-14T22:13:20.000Z gate triton - CEF [meta sequenceId=\"1\"] CEF:0|Acme|Wall|1|7|x|1|n=1 pad="
    );
    report(&mut agent, 2, 700, 50).await;
    assert_eq!(
        numbers(&mut stream, 700).await,
        (2..=700).collect::<Vec<_>>()
    );
    let state = until(&rig, "all is sent", |state| state["waiting"] == 0).await;
    assert_eq!(
        (&state["state"], &state["sent"], &state["sentThrough"]),
        (&json!("connected"), &json!(700), &json!(700))
    );
    assert_eq!(
        (&state["target"], &state["error"]),
        (&json!(target), &Value::Null)
    );
    // Poseidon stops; another one goes on, and what was sent a short time ago comes again.
    drop(agent);
    let Rig { server, dir, .. } = rig;
    server.unwrap().stop().await;
    assert_eq!(within(message(&mut stream)).await, None);
    let rig = rig_in(dir, |s| s.siem = Some(siem(&target, None, 0))).await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    report(&mut agent, 701, 703, 0).await;
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    let again = numbers(&mut stream, 703).await;
    let first = again[0];
    assert_eq!(again, (first..=703).collect::<Vec<_>>());
    let state = until(&rig, "all is sent", |state| state["waiting"] == 0).await;
    assert_eq!(state["sent"], 703, "each is counted once");
}

#[tokio::test]
async fn what_a_siem_had_not_read_when_both_died_comes_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    let mut rig = daemon_with(&["--siem", &target]).await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let (unread, _) = within(listener.accept()).await.unwrap();
    report(&mut agent, 1, 5, 0).await;
    until(&rig, "the kernel has it", |state| state["sentThrough"] == 5).await;
    // Poseidon goes, and so does the SIEM, which has read nothing.
    rig.kill().await;
    drop(unread);
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    assert_eq!(numbers(&mut stream, 5).await, [1, 2, 3, 4, 5]);
    // Later it has surely read them: they do not come at each start.
    let db = rusqlite::Connection::open(rig.dir.path().join("data/poseidon.db")).unwrap();
    let resend = || {
        let row = db.query_row("SELECT resend_after FROM event_state", [], |row| {
            row.get::<_, i64>(0)
        });
        row.unwrap_or(0)
    };
    assert_eq!(resend(), 0);
    tokio::time::sleep(Duration::from_secs(25)).await;
    eventually("half a minute is over", async || {
        (resend() == 5).then_some(())
    })
    .await;
    rig.kill().await;
    drop(stream);
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    report(&mut agent, 6, 6, 0).await;
    assert_eq!(numbers(&mut stream, 6).await, [6]);
}

#[tokio::test]
async fn each_break_is_in_the_log() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    let rig = daemon_with(&["--siem", &target]).await;
    for breaks in 1..=3 {
        let (stream, _) = within(listener.accept()).await.unwrap();
        drop(stream);
        eventually("it is said", async || {
            let said = rig
                .log()
                .matches("events wait here, and do not go to")
                .count();
            (said == breaks).then_some(())
        })
        .await;
    }
    // Attempts that fail are not said each time.
    drop(listener);
    let failed = async || (state(&rig).await["error"].as_str()?.contains("refused")).then_some(());
    eventually("an attempt fails", failed).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let log = rig.log();
    assert_eq!(log.matches("events wait here").count(), 3, "{log}");
}

#[tokio::test]
async fn a_siem_that_dies_gets_everything_when_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let rig = rig_with(|s| s.siem = Some(siem(&format!("tcp://{address}"), None, 0))).await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    report(&mut agent, 1, 50, 0).await;
    let mut got: BTreeSet<u64> = numbers(&mut stream, 50).await.into_iter().collect();
    // It dies with much that its kernel has taken and it has not read: a reset throws that away.
    report(&mut agent, 51, 150, 200).await;
    until(&rig, "the kernel has it", |state| {
        state["sentThrough"] == 150
    })
    .await;
    stream.set_zero_linger().unwrap();
    drop((stream, listener));
    let down = until(&rig, "it is missed", |state| state["state"] == "waiting").await;
    assert!(
        down["error"].is_string() && down["nextTry"].is_number(),
        "{down}"
    );
    // What comes meanwhile is acknowledged to the device, and waits.
    report(&mut agent, 151, 650, 0).await;
    let down = state(&rig).await;
    assert_eq!(down["waiting"], 500, "{down}");
    let listener = rebind(address).await;
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    let again = numbers(&mut stream, 650).await;
    assert!(again.is_sorted(), "in order");
    got.extend(again);
    assert_eq!(got, (1..=650).collect(), "no gap");
    let state = until(&rig, "all is sent", |state| state["waiting"] == 0).await;
    assert_eq!(state["sent"], 650, "each is counted once");
}

/// Reports an event, and ends each connection with `end` when it has come; returns how often it came, at most `most` times,
/// before a second one.
async fn times(rig: &Rig, listener: &TcpListener, end: impl Fn(TcpStream), most: usize) -> usize {
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    report(&mut agent, 1, 1, 0).await;
    for times in 0..most {
        let (mut stream, _) = within(listener.accept()).await.unwrap();
        if times == 2 {
            // What comes now stands behind what goes again.
            report(&mut agent, 2, 2, 0).await;
        }
        let text = within(message(&mut stream)).await.unwrap();
        if number(&text) == 2 {
            return times;
        }
        end(stream);
    }
    most
}

#[tokio::test]
async fn what_a_siem_has_read_does_not_come_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    let rig = rig_with(|s| s.siem = Some(siem(&target, None, 0))).await;
    rig.register("box").await;
    // One that closes in order has read everything: it comes only once more, for something may stand before the SIEM.
    assert_eq!(times(&rig, &listener, drop, 3).await, 2);
}

#[tokio::test]
async fn what_a_siem_may_not_have_read_comes_several_times() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    let rig = rig_with(|s| s.siem = Some(siem(&target, None, 0))).await;
    rig.register("box").await;
    let reset = |stream: TcpStream| stream.set_zero_linger().unwrap();
    assert_eq!(times(&rig, &listener, reset, 3).await, 3);
}

#[tokio::test]
async fn a_slow_siem_holds_nobody_up() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    let rig = rig_with(|s| s.siem = Some(siem(&target, None, 0))).await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    // It reads nothing: the device is acknowledged, and the API answers.
    report(&mut agent, 1, 2000, 4000).await;
    let stuck = state(&rig).await;
    assert_eq!(stuck["state"], "connected");
    assert!(
        stuck["waiting"].as_u64().unwrap() > 0 && stuck["sentThrough"].as_u64().unwrap() < 2000,
        "{stuck}"
    );
    // Then slowly.
    let mut got = Vec::new();
    for n in 0..2000 {
        if n % 200 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        got.push(number(&within(message(&mut stream)).await.unwrap()));
    }
    assert_eq!(got, (1..=2000).collect::<Vec<_>>());
    until(&rig, "all is sent", |state| state["waiting"] == 0).await;
}

#[tokio::test]
async fn a_poseidon_that_is_killed_leaves_no_gap() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    let mut rig = daemon_with(&["--siem", &target]).await;
    rig.register("box").await;
    let mut got = BTreeSet::new();
    for round in 0..3_u64 {
        let (mut agent, _) = rig.journaled("i1", "j1").await;
        let (mut stream, _) = within(listener.accept()).await.unwrap();
        let (first, last) = (round * 300 + 1, round * 300 + 300);
        let read = async {
            // Only some of it is read before the kill; the rest is what the kernel still has.
            for _ in 0..100 {
                got.insert(number(&within(message(&mut stream)).await.unwrap()));
            }
        };
        tokio::join!(report(&mut agent, first, last, 100), read);
        rig.kill().await;
        while let Some(text) = within(message(&mut stream)).await {
            got.insert(number(&text));
        }
    }
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    report(&mut agent, 901, 901, 0).await;
    got.extend(numbers(&mut stream, 901).await);
    assert_eq!(got, (1..=901).collect(), "no gap");
}

#[tokio::test]
async fn only_what_is_severe_enough_goes_and_what_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    let rig = rig_with(|s| s.siem = Some(siem(&target, None, 8))).await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    report(&mut agent, 1, 19, 0).await;
    let odd = json!({"events": [{"sequence": 20, "time": 1.0, "stored": 1.0, "host": "a b", "cef": "odd\n|n=20 "}]});
    agent.send(&Message::with(payload::EVENTS, &odd)).await;
    agent.acked(20).await;
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    for n in [8, 9, 18, 19] {
        assert_eq!(number(&within(message(&mut stream)).await.unwrap()), n);
    }
    assert_eq!(
        within(message(&mut stream)).await.unwrap(),
        "<133>1 1970-01-01T00:00:01.000Z a_b triton - CEF [meta sequenceId=\"20\"] odd#012|n=20 "
    );
    let state = until(&rig, "all is sent", |state| state["waiting"] == 0).await;
    assert_eq!((&state["sent"], &state["severity"]), (&json!(5), &json!(8)));
}

#[tokio::test]
async fn what_is_pruned_unsent_is_said() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let rig = rig_with(|s| {
        s.siem = Some(siem(&format!("tcp://{address}"), None, 0));
        s.events_bytes = 100_000;
    })
    .await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    report(&mut agent, 1, 100, 1000).await;
    let app = rig.server.as_ref().unwrap().app();
    let (deleted, unsent) = poseidon::cef::prune_now(app).await.unwrap();
    assert!(deleted > 40 && deleted == unsent, "{deleted} {unsent}");
    let down = state(&rig).await;
    assert_eq!(
        (&down["prunedUnsent"], &down["waiting"]),
        (&json!(unsent), &json!(100 - unsent))
    );
    let data = rig.dir.path().join("data");
    let output = poseidon(&["events", "--forwarding"])
        .env("POSEIDON_DATA", &data)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains(&format!("pruned unsent {unsent} events")) && text.contains("no connection"),
        "{text}"
    );
    // What is left goes when the SIEM is there.
    let listener = rebind(address).await;
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    assert_eq!(
        numbers(&mut stream, 100).await,
        (deleted + 1..=100).collect::<Vec<_>>()
    );
}

/// An authority, and a server's certificate for `name` by it.
struct Authority {
    ca: PathBuf,
    acceptor: tokio_rustls::TlsAcceptor,
}

fn authority(dir: &Path, label: &str, name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let path = |what: &str| dir.join(format!("{label}-{what}.pem"));
    std::fs::write(path("ca"), issuer.pem()).unwrap();
    std::fs::write(path("chain"), certificate.pem()).unwrap();
    std::fs::write(path("key"), key.serialize_pem()).unwrap();
    Authority {
        ca: path("ca"),
        acceptor: poseidon::server::tls::own(&path("chain"), &path("key"))
            .unwrap()
            .acceptor,
    }
}

async fn secure(
    listener: &TcpListener,
    authority: &Authority,
) -> std::io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    let (stream, _) = within(listener.accept()).await.unwrap();
    within(authority.acceptor.accept(stream)).await
}

#[tokio::test]
async fn tls_goes_to_the_right_siem_only_and_survives_its_restart() {
    let dir = tempfile::tempdir().unwrap();
    let good = authority(dir.path(), "good", "localhost");
    let foreign = authority(dir.path(), "foreign", "localhost");
    let misnamed = authority(dir.path(), "misnamed", "elsewhere.example");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = format!("tls://localhost:{port}");
    // Both are trusted, and one has another name.
    let both = dir.path().join("both.pem");
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    std::fs::write(&both, text(&good.ca) + &text(&misnamed.ca)).unwrap();
    let rig = rig_with(|s| s.siem = Some(siem(&target, Some(both), 0))).await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    report(&mut agent, 1, 10, 0).await;
    for (wrong, word) in [
        (&foreign, "invalid peer certificate"),
        (&misnamed, "not valid for name"),
    ] {
        assert!(secure(&listener, wrong).await.is_err());
        let state = until(&rig, word, |state| {
            state["error"]
                .as_str()
                .is_some_and(|error| error.contains("TLS failed") && error.contains(word))
        })
        .await;
        assert_eq!(
            (&state["sent"], &state["waiting"]),
            (&json!(0), &json!(10)),
            "{state}"
        );
    }
    let mut stream = secure(&listener, &good).await.unwrap();
    assert_eq!(numbers(&mut stream, 10).await, (1..=10).collect::<Vec<_>>());
    until(&rig, "all is sent", |state| state["waiting"] == 0).await;
    drop(stream);
    report(&mut agent, 11, 300, 100).await;
    let mut stream = secure(&listener, &good).await.unwrap();
    let got: BTreeSet<u64> = numbers(&mut stream, 300).await.into_iter().collect();
    assert!(got.is_superset(&(11..=300).collect()));
    // One that speaks no TLS at all.
    drop(stream);
    let (plain, _) = within(listener.accept()).await.unwrap();
    drop(plain);
    until(&rig, "it is missed", |state| {
        state["state"] == "waiting" && state["error"].is_string()
    })
    .await;
}

#[tokio::test]
async fn wrong_options_are_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for (options, words) in [
        (
            &["--siem", "siem:6514"][..],
            "tls://HOST:6514 or tcp://HOST:601 is expected",
        ),
        (
            &["--siem", "tls://siem:6514", "--siem-ca", "/nowhere.pem"],
            "/nowhere.pem",
        ),
        (
            &["--siem", "tcp://siem:601", "--siem-ca", "/nowhere.pem"],
            "--siem-ca is for tls:// only",
        ),
        (&["--siem-severity", "5"], "--siem"),
        (
            &["--siem", "tls://siem:6514", "--siem-severity", "11"],
            "11",
        ),
    ] {
        let arguments: Vec<&str> = ["serve", "--listen", "127.0.0.1:0"]
            .into_iter()
            .chain(options.iter().copied())
            .collect();
        let output = within(poseidon(&arguments).env("POSEIDON_DATA", &data).output())
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && text.contains(words),
            "{options:?}: {text}"
        );
    }
}
