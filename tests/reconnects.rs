//! Ten thousand failed connections leave nothing behind. A test binary of its own, since it counts what the whole
//! process holds.
#![allow(missing_docs)]

#[path = "support/link.rs"]
mod support;
#[cfg(any(feature = "tls", feature = "rustls"))]
#[path = "support/tls.rs"]
mod tls_support;

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use support::*;
use triton::link::{Options, Resolver};

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Waits until the servers' threads, too, have let go.
fn settles_at(most: usize, count: fn() -> usize) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while count() > most {
        if Instant::now() > end {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// Failures in all, of which the first hundred fill caches, pools and the allocator's arenas.
const FAILURES: usize = 10_000;
const WARM: usize = 100;

/// One for each way to fail.
fn failing() -> Vec<(&'static str, Options)> {
    let refused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let reset = serve(|mut stream| {
        // Closing with bytes unread is an RST.
        let _ = stream.read(&mut [0]);
    });
    let forbidden = answering("HTTP/1.1 403 Forbidden\r\n\r\n");
    let garbage = answering("\x00\x01\x02 garbage");
    let mut silent = options(&[&format!("ws://{}", serve(silent))]);
    silent.deadlines.http = Duration::from_millis(2);
    #[allow(unused_mut, reason = "TLS is a choice of build")]
    let mut all = vec![
        ("refused", options(&[&format!("ws://{refused}")])),
        ("reset", options(&[&format!("ws://{reset}")])),
        ("silent", silent),
        (
            "three urls, three reasons",
            options(&[
                &format!("ws://{forbidden}"),
                "ws://nowhere.test",
                &format!("ws://{garbage}"),
            ]),
        ),
    ];
    #[cfg(any(feature = "tls", feature = "rustls"))]
    {
        use tls_support::{Server, Valid, self_signed};
        let server = Server::new(self_signed(&["poseidon.test"], Valid::Now));
        let mut wrong_pin = options(&[&server.url()]);
        wrong_pin.tls.pins = vec![self_signed(&["x"], Valid::Now).pin()];
        all.push(("TLS failure", wrong_pin));
    }
    all
}

#[test]
fn ten_thousand_failed_connections_leave_nothing_behind() {
    let mut resolver = resolver();
    let all = failing();
    let mut failures = 0;
    let mut until = |count: usize, resolver: &mut Resolver| {
        while failures < count {
            for (kind, options) in &all {
                let outcome = go_with(options, resolver, &mut |_| {});
                assert!(outcome.is_err(), "{kind}");
                failures += 1;
            }
        }
    };
    until(WARM, &mut resolver);
    let before = (descriptors(), threads());
    let memory = resident_kib();
    until(FAILURES, &mut resolver);
    assert!(
        settles_at(before.0, descriptors),
        "{} descriptors, {} before",
        descriptors(),
        before.0
    );
    assert!(
        settles_at(before.1, threads),
        "{} threads, {} before",
        threads(),
        before.1
    );
    // The servers and the allocator's arenas for their threads live in this process too; a leak of 200 bytes for
    // each of the 10,000 would still show.
    let growth = resident_kib().saturating_sub(memory);
    println!("{failures} failures: {growth} KiB more");
    assert!(growth < 2_000, "{growth} KiB more");
}
