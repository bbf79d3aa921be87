//! The real agent at the real Poseidon over a network that is broken in every way that a proxy can break it. Whatever
//! happens, in the end the ledger holds.
//!
//! `TRITON_FAULTS_SEED` repeats the choices of the random schedule, `TRITON_FAULTS_STEPS` says how long it is.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use support::eventually;
use support::proxy::{Cut, Direction, Fault, Proxy};
use support::random::{Random, seed, setting};
use support::rig::Rig;

/// Steps of the random schedule in a run of CI.
const STEPS: u64 = 40;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Load for so long, then the ledger. The fault must be over when `during` returns.
fn under_load(rig: &Rig, during: impl FnOnce(&Rig)) {
    let mut random = Random::new(1);
    let load = rig.load(&mut random);
    rig.pass(ms(300));
    during(rig);
    rig.proxy().set(Fault::None);
    rig.wait_until_connected();
    rig.pass(ms(300));
    load.end();
    let ledger = rig.settle();
    println!("{ledger}");
    ledger.assert_sound();
    assert!(
        !ledger.starts.is_empty() && !ledger.values.is_empty(),
        "{ledger}"
    );
}

/// A job that comes to its end in spite of the fault.
fn ends(rig: &Rig, line: &str) {
    let token = rig.job(line).expect("Poseidon itself is well");
    eventually("the job ends", || {
        rig.nudge();
        let (_, job) = rig.api.get(&format!("jobs/{token}")).unwrap();
        (job["state"] == "ended").then_some(())
    });
}

/// Waits until the agent has seen that its path is dead, with its own words for it.
fn wait_for_trouble(rig: &Rig, words: &str) {
    let before = rig.agent.log().matches(words).count();
    eventually(
        &format!("the log says {words:?}:\n{}", rig.agent.log()),
        || {
            rig.nudge();
            (rig.agent.log().matches(words).count() > before).then_some(())
        },
    );
}

#[test]
fn late_split_and_slow_traffic_only_takes_time() {
    let rig = Rig::through_a_proxy();
    for fault in [Fault::Delay(ms(50)), Fault::Bytes, Fault::Slow(50_000)] {
        under_load(&rig, |rig| {
            rig.proxy().set(fault);
            ends(rig, "seq 1 1000");
            rig.pass(ms(500));
        });
    }
}

#[test]
fn cut_connections_are_made_again() {
    let rig = Rig::through_a_proxy();
    under_load(&rig, |rig| {
        for n in 0..20 {
            let before = rig.proxy().accepted();
            rig.proxy()
                .cut(if n % 2 == 0 { Cut::Reset } else { Cut::Close });
            eventually("a new connection", || {
                rig.nudge();
                (rig.proxy().accepted() > before).then_some(())
            });
            rig.pass(ms(100));
        }
    });
}

#[test]
fn what_happens_while_nobody_listens_arrives_later() {
    let rig = Rig::through_a_proxy();
    under_load(&rig, |rig| {
        rig.proxy().set(Fault::Refuse);
        rig.proxy().cut(Cut::Reset);
        // The reason is left out: qemu 7.2 gives MIPS programs the numbers of this machine for errors of a connect.
        wait_for_trouble(rig, "cannot connect: tcp: ");
        rig.pass(ms(1000));
    });
}

#[test]
fn a_half_open_path_is_left_at_the_deadline() {
    let rig = Rig::through_a_proxy();
    under_load(&rig, |rig| {
        rig.proxy().set(Fault::HalfOpen);
        rig.proxy().cut(Cut::Reset);
        wait_for_trouble(rig, "cannot connect: http: ");
    });
}

#[test]
fn a_pause_changes_nothing_and_a_long_one_is_a_dead_path() {
    let rig = Rig::through_a_proxy();
    under_load(&rig, |rig| {
        for _ in 0..4 {
            rig.proxy().set(Fault::Stall);
            rig.pass(ms(300));
            rig.proxy().set(Fault::None);
            rig.pass(ms(300));
        }
        rig.proxy().set(Fault::Stall);
        wait_for_trouble(rig, "no sign of life");
    });
}

#[test]
fn a_path_that_loses_one_direction_is_dead() {
    let rig = Rig::through_a_proxy();
    for direction in [Direction::ToAgent, Direction::ToServer] {
        under_load(&rig, |rig| {
            rig.proxy().set(Fault::Swallow(direction));
            wait_for_trouble(rig, "the connection ended: ");
            rig.pass(ms(500));
        });
    }
}

#[test]
fn a_black_hole_at_any_point_of_the_beginning() {
    let rig = Rig::through_a_proxy();
    // The request has some 300 bytes, `hello` a thousand; then come heartbeats and records.
    for bytes in [0, 100, 700, 1500, 3000, 6000] {
        under_load(&rig, |rig| {
            let before = rig.proxy().accepted();
            rig.proxy().set(Fault::StallAfter(bytes));
            rig.proxy().cut(Cut::Reset);
            eventually("two attempts go wrong", || {
                rig.nudge();
                (rig.proxy().accepted() >= before + 2).then_some(())
            });
            rig.proxy().cut(Cut::Reset);
        });
    }
}

/// A server that said `welcome` with `acked` once does not become a plain one because it is silent: what is handed to a
/// dead path does not count as acknowledged.
#[test]
fn a_silent_server_is_not_a_plain_one() {
    let rig = Rig::through_a_proxy();
    rig.put().unwrap();
    rig.settle().assert_sound();
    rig.proxy().set(Fault::StallAfter(700));
    rig.proxy().cut(Cut::Reset);
    for _ in 0..20 {
        rig.put()
            .expect("the agent stores while the server is away");
    }
    // Longer than `hello_seconds`.
    rig.pass(ms(7000));
    rig.put().unwrap();
    rig.proxy().set(Fault::None);
    rig.proxy().cut(Cut::Reset);
    let ledger = rig.settle();
    ledger.assert_sound();
    assert_eq!(ledger.rows.len(), 22);
}

#[test]
fn any_faults_in_any_order() {
    let mut random = Random::new(seed("TRITON_FAULTS_SEED"));
    let steps = setting("TRITON_FAULTS_STEPS").unwrap_or(STEPS);
    let rig = Rig::through_a_proxy();
    let load = rig.load(&mut random);
    for _ in 0..steps {
        rig.pass(random.up_to(ms(700)));
        let fault = match random.below(9) {
            0 => Fault::Delay(random.up_to(ms(200))),
            1 => Fault::Slow(2_000 + random.below(100_000)),
            2 => Fault::Bytes,
            3 => Fault::Stall,
            4 => Fault::StallAfter(random.below(10_000)),
            5 => Fault::Swallow(Direction::ToServer),
            6 => Fault::Swallow(Direction::ToAgent),
            7 => Fault::HalfOpen,
            _ => Fault::Refuse,
        };
        rig.proxy().set(fault);
        match random.below(3) {
            0 => rig.proxy().cut(Cut::Reset),
            1 => rig.proxy().cut(Cut::Close),
            _ => {}
        }
        rig.pass(random.up_to(ms(1500)));
        if random.below(4) > 0 {
            rig.proxy().set(Fault::None);
        }
    }
    rig.proxy().set(Fault::None);
    load.end();
    rig.wait_until_connected();
    let ledger = rig.settle();
    println!(
        "{steps} steps, {} connections: {ledger}",
        rig.proxy().accepted()
    );
    ledger.assert_sound();
    assert!(rig.proxy().accepted() as u64 > steps / 4, "{ledger}");
    assert!(ledger.ends().contains_key("succeeded"), "{ledger}");
}

/// A server that sends back what it gets, and a proxy before it.
fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut copy = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut copy, &mut stream);
                let _ = stream.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    Proxy::to(address)
}

fn client(proxy: &Proxy, patience: Duration) -> TcpStream {
    let client = TcpStream::connect(proxy.address()).unwrap();
    client.set_read_timeout(Some(patience)).unwrap();
    client
}

/// Whether bytes come back before the client's patience is over.
fn answers(client: &mut TcpStream, bytes: &[u8]) -> bool {
    let mut back = vec![0; bytes.len()];
    client.write_all(bytes).is_ok() && client.read_exact(&mut back).is_ok() && back == bytes
}

#[test]
fn the_proxy_passes_bytes_and_ends() {
    let proxy = echo();
    let mut alice = client(&proxy, support::PATIENCE);
    assert!(answers(&mut alice, &vec![7; 300_000]));
    alice.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(
        alice.read(&mut [0]).unwrap(),
        0,
        "FIN goes through and comes back"
    );
    eventually("it lets go", || (proxy.standing() == 0).then_some(()));
}

#[test]
fn the_proxy_is_slow_in_three_ways() {
    let proxy = echo();
    let mut alice = client(&proxy, support::PATIENCE);
    for (fault, bytes, least) in [
        (Fault::Delay(ms(100)), 10, ms(200)),
        (Fault::Slow(10_000), 3_000, ms(500)),
        (Fault::Bytes, 2_000, ms(0)),
    ] {
        proxy.set(fault);
        let begun = Instant::now();
        assert!(answers(&mut alice, &vec![7; bytes]), "{fault:?}");
        assert!(begun.elapsed() >= least, "{fault:?}");
    }
}

#[test]
fn the_proxy_stalls_and_goes_on() {
    let proxy = echo();
    let mut alice = client(&proxy, ms(200));
    proxy.set(Fault::Stall);
    assert!(!answers(&mut alice, b"one"));
    proxy.set(Fault::None);
    alice.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut back = [0; 3];
    alice.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"one", "nothing was lost");
    proxy.set(Fault::StallAfter(5));
    alice.write_all(b"seven").unwrap();
    eventually("two more have passed", || {
        (proxy.passed().0 == 5).then_some(())
    });
    alice.set_read_timeout(Some(ms(200))).unwrap();
    // Their echo may have slipped through; the other three bytes have not.
    let mut echo = Vec::new();
    assert!(alice.read_to_end(&mut echo).is_err());
    assert!(b"se".starts_with(&echo), "{echo:?}");
}

#[test]
fn the_proxy_swallows_for_good() {
    for direction in [Direction::ToServer, Direction::ToAgent] {
        let proxy = echo();
        let mut alice = client(&proxy, ms(300));
        assert!(answers(&mut alice, b"one"));
        proxy.set(Fault::Swallow(direction));
        assert!(!answers(&mut alice, b"two"));
        proxy.set(Fault::None);
        assert!(!answers(&mut alice, b"three"), "it has lost bytes");
        assert!(answers(&mut client(&proxy, support::PATIENCE), b"four"));
    }
}

#[test]
fn the_proxy_cuts_refuses_and_opens_halfway() {
    let proxy = echo();
    let mut alice = client(&proxy, support::PATIENCE);
    assert!(answers(&mut alice, b"one"));
    proxy.cut(Cut::Close);
    assert_eq!(alice.read(&mut [0]).unwrap(), 0);
    let mut alice = client(&proxy, support::PATIENCE);
    assert!(answers(&mut alice, b"one"));
    proxy.cut(Cut::Reset);
    let error = alice.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    proxy.set(Fault::HalfOpen);
    let mut alice = client(&proxy, ms(300));
    assert!(!answers(&mut alice, b"one"));
    proxy.set(Fault::None);
    assert!(!answers(&mut alice, b"two"), "that one stays dead");

    proxy.set(Fault::Refuse);
    let error = TcpStream::connect(proxy.address()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    proxy.set(Fault::None);
    eventually("it listens again", || {
        TcpStream::connect(proxy.address()).ok()
    });
}
