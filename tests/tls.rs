//! TLS: one suite for both libraries.
//! `cargo test --no-default-features --features tls --test tls`, and the same with `--features rustls`.
#![cfg(any(feature = "tls", feature = "rustls"))]
#![allow(missing_docs)]

#[path = "support/mod.rs"]
mod program;
#[path = "support/link.rs"]
mod support;
#[path = "support/tls.rs"]
mod tls_support;

use program::agent::Agent;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::*;
use tempfile::NamedTempFile;
use tls_support::{Authority, Identity, Server, Valid, file, self_signed, self_signed_authority};
use triton::link::tls::Pin;
use triton::link::{Incoming, Kind, LinkError, Options, Outcome, Phase, connect};
use triton::sys::wake::Wake;

const HOST: &str = "poseidon.test";

fn trusting(server: &Server, file: Option<&NamedTempFile>, pins: &[Pin]) -> Options {
    let mut options = options(&[&server.url()]);
    options.tls.ca_file = file.map(|file| file.path().to_owned());
    options.tls.pins = pins.to_vec();
    options
}

fn assert_works(options: &Options) {
    assert_echo(&mut go(options).unwrap());
}

/// Fails in the TLS phase, and the server sees nothing of the request.
fn assert_refused(server: &Server, options: &Options, texts: &[&str]) {
    assert_refused_as(Kind::Other, server, options, texts);
}

fn assert_refused_as(kind: Kind, server: &Server, options: &Options, texts: &[&str]) {
    let error = fails(options, Phase::Tls, texts);
    assert_eq!(error.kind, kind);
    assert_eq!(server.decrypted(), 0);
}

#[test]
fn an_own_authority_in_both_versions_of_tls() {
    let authority = Authority::new();
    let file = authority.file();
    for version in rustls::ALL_VERSIONS {
        let identity = authority.sign(&[HOST], Valid::Now);
        let server = Server::with(identity.chain, &identity.key, &[version]);
        assert_works(&trusting(&server, Some(&file), &[]));
    }
}

#[test]
fn the_walk_tells_name_and_key() {
    let identity = self_signed(&[HOST], Valid::Now);
    let pin = identity.pin();
    let server = Server::new(identity);
    let mut seen = String::new();
    let options = trusting(&server, None, &[pin]);
    go_with(&options, &mut resolver(), &mut |step| {
        if step.phase == Phase::Tls && step.outcome == Outcome::Done {
            seen = step.text;
        }
    })
    .unwrap();
    assert!(
        seen.contains("certificate of poseidon.test") && seen.contains(&pin.to_string()),
        "{seen}"
    );
}

#[test]
fn an_address_in_the_certificate() {
    let authority = Authority::new();
    let file = authority.file();
    let server = Server::new(authority.sign(&["127.0.0.1"], Valid::Now));
    let mut options = trusting(&server, Some(&file), &[]);
    assert_refused(&server, &options, &["certificate is for"]);
    options.urls = vec![format!("wss://{}", server.address).parse().unwrap()];
    assert_works(&options);
}

#[test]
fn unknown_authorities() {
    let other = Authority::new().file();
    for identity in [
        Authority::new().sign(&[HOST], Valid::Now),
        self_signed(&[HOST], Valid::Now),
    ] {
        let server = Server::new(identity);
        let path = other.path().display().to_string();
        assert_refused(
            &server,
            &trusting(&server, Some(&other), &[]),
            &["not signed by", &path],
        );
        // The system's.
        assert_refused(
            &server,
            &trusting(&server, None, &[]),
            &["not signed by", "ca-bundle"],
        );
    }
}

#[test]
fn wrong_names_and_dates() {
    let authority = Authority::new();
    let file = authority.file();
    for (name, valid, text) in [
        ("other.test", Valid::Now, "certificate is for"),
        (HOST, Valid::Over, "has expired"),
    ] {
        let server = Server::new(authority.sign(&[name], valid));
        assert_refused(&server, &trusting(&server, Some(&file), &[]), &[text]);
    }
}

#[test]
fn a_certificate_of_the_future_hints_at_the_clock() {
    let authority = Authority::new();
    let file = authority.file();
    let server = Server::new(authority.sign(&[HOST], Valid::NotYet));
    let options = trusting(&server, Some(&file), &[]);
    // A date: an hour or a month is easily overlooked.
    let texts = ["not valid yet", "clock may be behind", "Z.", "NTP"];
    assert_refused_as(Kind::Clock, &server, &options, &texts);
}

#[test]
fn the_agent_says_that_its_clock_may_be_behind_and_tries_again() {
    let authority = Authority::new();
    let file = authority.file();
    let server = Server::new(authority.sign(&["127.0.0.1"], Valid::NotYet));
    let url = format!("wss://{}", server.address);
    let ca_file = file.path().display().to_string();
    let mut agent = Agent::new().with(&["--url", &url, "--ca-file", &ca_file]);
    agent.start();
    agent.wait_for_log("clock may be behind");
    program::eventually("it tries again", || {
        (agent.log().matches("clock may be behind").count() >= 3).then_some(())
    });
    let status = agent.status();
    let error = status["link"]["lastError"].as_str().unwrap();
    assert!(
        error.starts_with("tls: ") && error.contains("clock may be behind"),
        "{error}"
    );
    // It watches the clock; that no jump of it came is what the pauses in the log say.
    let fds = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap();
    let watches = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    assert_eq!(
        watches
            .filter(|target| target.to_string_lossy().contains("timerfd"))
            .count(),
        1
    );
    assert!(!agent.log().contains("the clock was set"));
    assert!(agent.stop().success(), "it stops while it waits");
    assert_eq!(server.decrypted(), 0);
}

#[test]
fn a_pin_takes_the_place_of_authority_name_and_dates() {
    let other = self_signed(&[HOST], Valid::Now).pin();
    for (name, valid) in [
        (HOST, Valid::Now),
        ("other.test", Valid::Over),
        ("x", Valid::NotYet),
    ] {
        for version in rustls::ALL_VERSIONS {
            let identity = self_signed(&[name], valid);
            let pin = identity.pin();
            let server = Server::with(identity.chain, &identity.key, &[version]);
            assert_works(&trusting(&server, None, &[pin]));
            // A second one as backup, in any order.
            assert_works(&trusting(&server, None, &[other, pin]));
        }
    }
}

#[test]
fn a_wrong_pin_shows_the_right_one() {
    let identity = self_signed(&[HOST], Valid::Now);
    let pin = identity.pin();
    let server = Server::new(identity);
    let other = self_signed(&[HOST], Valid::Now).pin();
    let options = trusting(&server, None, &[other]);
    assert_refused(&server, &options, &["none of the pinned", &pin.to_string()]);
}

#[test]
fn authority_and_pin_together_must_both_hold() {
    let authority = Authority::new();
    let (file, other_file) = (authority.file(), Authority::new().file());
    let other_pin = self_signed(&[HOST], Valid::Now).pin();
    let identity = authority.sign(&[HOST], Valid::Now);
    let pin = identity.pin();
    let server = Server::new(identity);
    let refused = |file, pin, text| {
        assert_refused(&server, &trusting(&server, Some(file), &[pin]), &[text]);
    };
    refused(&file, other_pin, "none of the pinned");
    refused(&other_file, pin, "not signed by");
    assert_works(&trusting(&server, Some(&file), &[pin]));

    let identity = authority.sign(&["other.test"], Valid::Now);
    let pin = identity.pin();
    let server = Server::new(identity);
    assert_refused(
        &server,
        &trusting(&server, Some(&file), &[pin]),
        &["certificate is for"],
    );
}

#[test]
fn who_shows_a_pinned_key_must_hold_it() {
    for version in rustls::ALL_VERSIONS {
        let Identity { chain, key } = self_signed(&[HOST], Valid::Now);
        let pin = Identity {
            chain: chain.clone(),
            key,
        }
        .pin();
        let server = Server::with(chain, &self_signed(&[HOST], Valid::Now).key, &[version]);
        assert_refused(
            &server,
            &trusting(&server, None, &[pin]),
            &["does not hold the key"],
        );
    }
}

#[test]
fn unusable_authority_files_are_named() {
    let server = Server::new(self_signed(&[HOST], Valid::Now));
    let empty = file("");
    assert_refused(
        &server,
        &trusting(&server, Some(&empty), &[]),
        &["holds no certificate"],
    );
    let broken = file("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    assert_refused(
        &server,
        &trusting(&server, Some(&broken), &[]),
        &[&broken.path().display().to_string()],
    );
    let mut options = trusting(&server, None, &[]);
    options.tls.ca_file = Some("/nowhere/ca.pem".into());
    assert_refused(&server, &options, &["/nowhere/ca.pem", "No such file"]);
}

#[test]
fn what_is_no_tls_is_told() {
    let plain = serve(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        silent(stream);
    });
    let url = format!("wss://{plain}");
    fails(
        &options(&[&url]),
        Phase::Tls,
        &[&plain.to_string(), "does not speak TLS", "ws://"],
    );
    let closing = serve(|mut stream| {
        let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
    });
    fails(
        &options(&[&format!("wss://{closing}")]),
        Phase::Tls,
        &["closed the connection"],
    );
    let refusing = serve(|mut stream| {
        // Alert, fatal, handshake failure.
        let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
        let _ = stream.write_all(b"\x15\x03\x03\x00\x02\x02\x28");
        silent(stream);
    });
    fails(
        &options(&[&format!("wss://{refusing}")]),
        Phase::Tls,
        &["refused"],
    );
}

#[test]
fn silence_and_dripping_end_at_the_deadline() {
    let quiet = serve(silent);
    // A handshake record of 16 KiB, a byte at a time.
    let dripping = serve(|mut stream| {
        let record = b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb"
            .iter()
            .chain(std::iter::repeat(&3));
        for byte in record {
            // The pace of a slow peer, not a wait for something to happen.
            std::thread::sleep(Duration::from_millis(5));
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
    });
    let start = Instant::now();
    for address in [quiet, dripping] {
        let mut options = options(&[&format!("wss://{address}")]);
        options.deadlines.tls = SHORT;
        fails(
            &options,
            Phase::Tls,
            &[&format!("no answer from {address} within 300 ms")],
        );
    }
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_stop_ends_the_handshake_at_once() {
    let quiet = serve(silent);
    let stop = Arc::new(Wake::new().unwrap());
    let start = Instant::now();
    let result = connect(
        &options(&[&format!("wss://{quiet}")]),
        &mut resolver(),
        &stop,
        &mut |step| {
            if step.phase == Phase::Tls {
                stop.ring();
            }
        },
    );
    assert_eq!(result.unwrap_err().kind, Kind::Stopped);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn it_goes_through_a_proxy() {
    let identity = self_signed(&[HOST], Valid::Now);
    let pin = identity.pin();
    let server = Server::new(identity);
    let to = server.address;
    let proxy = serve(move |mut client| {
        read_request(&mut client);
        let server = std::net::TcpStream::connect(to).unwrap();
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let _ = std::io::copy(&mut &server, &mut &client);
    });
    let mut options = trusting(&server, None, &[pin]);
    options.proxy = triton::link::ProxySource::Via(proxy.to_string().parse().unwrap()).into();
    assert_works(&options);
}

#[test]
fn a_server_that_vanishes_is_an_end() {
    let identity = self_signed(&[HOST], Valid::Now);
    let pin = identity.pin();
    let server = Server::new(identity);
    let mut connection = go(&trusting(&server, None, &[pin])).unwrap();
    // The echo ends at a close and drops the socket without a word of TLS.
    connection.close(1000, "").unwrap();
    assert!(matches!(
        next(&mut connection).unwrap(),
        Incoming::Close { .. }
    ));
    assert!(matches!(next(&mut connection), Err(LinkError::Ended)));

    let (server, pin) = Server::vanishing(self_signed(&[HOST], Valid::Now));
    let mut connection = go(&trusting(&server, None, &[pin])).unwrap();
    assert!(matches!(next(&mut connection), Err(LinkError::Ended)));
}

#[test]
fn an_authority_as_its_own_server() {
    let (identity, file) = self_signed_authority(&[HOST]);
    let pin = identity.pin();
    let server = Server::new(identity);
    let by_file = trusting(&server, Some(&file), &[]);
    // The libraries differ here: rustls (webpki) never takes an authority's certificate for a server's.
    if cfg!(feature = "rustls") {
        assert_refused(&server, &by_file, &["pin its key", &pin.to_string()]);
    } else {
        assert_works(&by_file);
    }
    assert_works(&trusting(&server, None, &[pin]));
}
