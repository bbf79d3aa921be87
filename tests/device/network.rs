//! Names that cannot be looked up for a long time, and networks with one family of addresses.

use super::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::{Arc, Mutex};
use support::place::{leave_the_network, possible, succeed};

const NAME: &str = "poseidon.test";
/// Errors of name servers.
const SERVER_FAILS: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// What a name server does with a question.
#[derive(Clone)]
enum Mode {
    Silent,
    /// An error by its number.
    Failing(u8),
    Knowing(Vec<IpAddr>),
}

/// A name server of one name.
struct Dns {
    mode: Arc<Mutex<Mode>>,
}

impl Dns {
    fn at(address: &str, mode: Mode) -> Self {
        let socket = UdpSocket::bind((address, 53)).unwrap();
        let mode = Arc::new(Mutex::new(mode));
        let current = Arc::clone(&mode);
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((n, from)) = socket.recv_from(&mut question) {
                let mode = current.lock().unwrap().clone();
                if let Some(answer) = answer(&question[..n], &mode) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { mode }
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }
}

/// RFC 1035, as far as it is needed: one question, whose name ends with a zero.
fn answer(question: &[u8], mode: &Mode) -> Option<Vec<u8>> {
    let end = 12 + question.get(12..)?.iter().position(|byte| *byte == 0)? + 5;
    let kind = question[end - 3];
    let (code, known) = match mode {
        Mode::Silent => return None,
        Mode::Failing(code) => (*code, Vec::new()),
        Mode::Knowing(known) => (0, known.clone()),
    };
    let data: Vec<Vec<u8>> = known
        .iter()
        .filter_map(|ip| match (ip, kind) {
            (IpAddr::V4(ip), 1) => Some(ip.octets().to_vec()),
            (IpAddr::V6(ip), 28) => Some(ip.octets().to_vec()),
            _ => None,
        })
        .collect();
    let mut answer = question[..2].to_vec();
    answer.extend([
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::try_from(data.len()).unwrap(),
        0,
        0,
        0,
        0,
    ]);
    answer.extend(&question[12..end]);
    for data in data {
        answer.extend([
            0xc0,
            12,
            0,
            kind,
            0,
            1,
            0,
            0,
            0,
            1,
            0,
            u8::try_from(data.len()).unwrap(),
        ]);
        answer.extend(data);
    }
    Some(answer)
}

#[track_caller]
fn ip(line: &str) {
    succeed(Command::new("ip").args(line.split(' ')));
}

/// An `/etc` of the agent's own with a `resolv.conf`, or without.
fn etc(agent: Agent, server: Option<&str>) -> Agent {
    let etc = agent.folder().join("etc");
    fs::create_dir(&etc).unwrap();
    if let Some(server) = server {
        name_server(&agent, server);
    }
    let place = mounted(&format!("mount --bind {} /etc", etc.display()));
    agent.within(place)
}

/// As DHCP clients do it: a new file in the place of the old one.
fn name_server(agent: &Agent, server: &str) {
    let etc = agent.folder().join("etc");
    let text = format!("nameserver {server}\n");
    fs::write(etc.join("new"), text).unwrap();
    fs::rename(etc.join("new"), etc.join("resolv.conf")).unwrap();
}

const SETTINGS: &str = "[connect]\ndns_seconds = 1\ntcp_seconds = 2\n";

/// A Poseidon at an address of this thread's network, and an agent that knows it by a name.
fn named(address: &str, server: Option<&str>) -> (Poseidon, Agent) {
    let mut poseidon = Poseidon::at(address, &[FAST, &["--plain"]].concat());
    poseidon.launch();
    poseidon.register("a-device", "router");
    let port = poseidon.address().rsplit(':').next().unwrap().to_owned();
    let agent = configure(Agent::new(), SETTINGS)
        .with(&["--url", &format!("ws://{NAME}:{port}")])
        .with_variable("TRITON_IDENTIFIER", "a-device");
    (poseidon, etc(agent, server))
}

/// Makes so many attempts fail, as an hour would.
fn fail(agent: &Agent, times: usize) {
    let count = || agent.log().matches("cannot connect: dns: ").count();
    let goal = count() + times;
    eventually("the attempts fail", || {
        let status = support::local::status(&agent.socket())?;
        if status["link"]["state"] == "waiting" {
            agent.signal(libc::SIGHUP);
        }
        (count() >= goal).then_some(())
    });
}

#[test]
fn an_hour_without_names() {
    if !possible("--net") || !possible("--mount") {
        return;
    }
    leave_the_network();
    ip("link set lo up");
    let dns = Dns::at("127.0.0.2", Mode::Silent);
    let (poseidon, mut agent) = named("127.0.0.1:0", Some("127.0.0.2"));
    agent.start();
    agent.wait_until_it_serves();
    // getaddrinfo cannot be interrupted: one thread waits in it, however many attempts give up.
    fail(&agent, 3);
    agent.wait_for_log("no answer from the name servers about poseidon.test within 1 s");
    let (_, threads) = agent.resources();
    fail(&agent, 4);
    assert!(
        agent.resources().1 <= threads,
        "{:?} {threads}",
        agent.resources()
    );
    dns.set(Mode::Failing(SERVER_FAILS));
    fail(&agent, 2);
    // musl asks again and again after that one; this one is final.
    dns.set(Mode::Failing(NO_SUCH_NAME));
    fail(&agent, 50);
    let (descriptors, resident) = (agent.resources().0, agent.resident());
    fail(&agent, 150);
    eventually("nothing more is open than before", || {
        let (now, running) = agent.resources();
        (now <= descriptors && running <= threads).then_some(())
    });
    let grown = agent.resident().saturating_sub(resident);
    assert!(grown < 512 << 10, "{grown} bytes more after 150 failures");
    // Jobs do not need names.
    assert!(agent.run(&["exec", "--", "true"]).status.success());
    // No server listens any more, then another one does, with what was known before forgotten.
    name_server(&agent, "127.0.0.3");
    fail(&agent, 5);
    dns.set(Mode::Knowing(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]));
    name_server(&agent, "127.0.0.2");
    agent.signal(libc::SIGHUP);
    agent.wait_for_link("connected");
    poseidon.wait_for("router", "up");
}

/// DHCP comes after the agent. Nobody tells it.
#[test]
fn a_boot_before_the_name_servers_are_known() {
    if !possible("--net") || !possible("--mount") {
        return;
    }
    leave_the_network();
    ip("link set lo up");
    let _dns = Dns::at(
        "127.0.0.2",
        Mode::Knowing(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]),
    );
    let (poseidon, mut agent) = named("127.0.0.1:0", None);
    agent.start();
    eventually("some attempts fail", || {
        (agent.log().matches("cannot connect: dns: ").count() >= 3).then_some(())
    });
    name_server(&agent, "127.0.0.2");
    agent.wait_for_link("connected");
    poseidon.wait_for("router", "up");
    // A pause after each failure, and longer ones as they go on.
    let log = agent.log();
    let pauses: Vec<f64> = log
        .lines()
        .filter_map(|l| {
            l.split("next attempt in ")
                .nth(1)?
                .split(' ')
                .next()?
                .parse()
                .ok()
        })
        .collect();
    assert_eq!(
        pauses.len(),
        log.matches("cannot connect: ").count(),
        "{log}"
    );
    assert!(pauses.iter().all(|pause| *pause >= 0.1), "{pauses:?}");
}

/// Not one IPv4 address in the whole network.
fn only_ipv6() {
    leave_the_network();
    ip("link set lo up");
    ip("addr del 127.0.0.1/8 dev lo");
    ip("addr add fd00:77::1/64 dev lo nodad");
    assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err());
}

#[test]
fn ipv6_only_by_address() {
    if !possible("--net") {
        return;
    }
    only_ipv6();
    for address in ["[::1]:0", "[fd00:77::1]:0"] {
        let mut poseidon = Poseidon::at(address, &[FAST, &["--plain"]].concat());
        poseidon.launch();
        poseidon.register("a-device", "router");
        let mut agent = Agent::new()
            .with(&["--url", &poseidon.url()])
            .with_variable("TRITON_IDENTIFIER", "a-device");
        agent.start();
        agent.wait_for_link("connected");
        assert_eq!(stdout(&run(&poseidon, &["echo", "six"])), "six\n");
    }
}

#[test]
fn ipv6_only_by_name() {
    if !possible("--net") || !possible("--mount") {
        return;
    }
    only_ipv6();
    let ula: Ipv6Addr = "fd00:77::1".parse().unwrap();
    let _dns = Dns::at("::1", Mode::Knowing(vec![IpAddr::V6(ula)]));
    let (poseidon, mut agent) = named("[fd00:77::1]:0", Some("::1"));
    agent.start();
    agent.wait_for_link("connected");
    assert_eq!(stdout(&run(&poseidon, &["echo", "six"])), "six\n");
}

#[test]
fn the_family_that_works_is_used() {
    if !possible("--net") || !possible("--mount") {
        return;
    }
    leave_the_network();
    ip("link set lo up");
    ip("addr add fd00:77::1/64 dev lo nodad");
    // What is sent there vanishes: nobody is at the other end.
    ip("link add hole type veth peer name nobody");
    ip("link set nobody up");
    ip("addr add 192.0.2.1/24 dev hole");
    ip("link set hole up");
    ip("route add 2001:db8::/32 dev hole");
    let (four, six): (IpAddr, IpAddr) =
        ("192.0.2.9".parse().unwrap(), "fd00:77::1".parse().unwrap());
    let dns = Dns::at("127.0.0.2", Mode::Knowing(vec![four, six]));
    let (poseidon, mut agent) = named("[::]:0", Some("127.0.0.2"));
    agent.start();
    agent.wait_for_link("connected");
    assert_eq!(stdout(&run(&poseidon, &["echo", "six"])), "six\n");
    assert!(agent.stop().success());
    // The other way round, with three dead addresses before it.
    let dead = (1..=3).map(|n| IpAddr::V6(format!("2001:db8::{n}").parse().unwrap()));
    let mut known: Vec<IpAddr> = dead.collect();
    known.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    dns.set(Mode::Knowing(known));
    agent.start();
    agent.wait_for_link("connected");
    assert_eq!(stdout(&run(&poseidon, &["echo", "four"])), "four\n");
}
