//! What happens when disks, descriptors, processes and threads run out: an error that says so, no crash, and all is well
//! when the want ends.

mod support;

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;
use support::agent::Agent;
use support::place::{Namespace, fill, limit, limit_as, possible, user};
use support::poseidon::Poseidon;
use support::random::Random;
use support::rig::{FAST, Rig};
use support::{eventually, local};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Processor time of a process in clock ticks.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn works(agent: &Agent) {
    eventually("a job succeeds again", || {
        agent
            .run(&["exec", "--", "true"])
            .status
            .success()
            .then_some(())
    });
}

#[test]
fn a_journal_without_room_goes_on_in_memory_and_comes_back() {
    if !possible("--mount") {
        return;
    }
    let agent = Agent::new();
    let folder = agent.state().join("journal");
    let disk = Namespace::with_disk(&folder, 2 << 20);
    let inside = disk.place().path(&folder);
    let poseidon = Poseidon::on_a_held_port(FAST);
    let url = poseidon.url();
    let rig = Rig::of(poseidon, agent.within(disk.place()), &url);
    let journal = || rig.nudge().map(|status| status["journal"].clone());
    assert_eq!(journal().unwrap()["state"], "disk");
    let load = rig.load(&mut Random::new(1));
    for _ in 0..2 {
        rig.pass(Duration::from_millis(500));
        let ballast = fill(&inside);
        let full = eventually("the journal says that it is in memory", || {
            journal().filter(|j| j["state"] == "memory")
        });
        let reason = full["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("No space left on device"), "{full}");
        // The device can be worked on.
        let done = rig.agent.run(&["exec", "--", "echo", "alive"]);
        assert_eq!(
            String::from_utf8_lossy(&done.stdout),
            "alive\n",
            "{}",
            said(&done)
        );
        fs::remove_file(ballast).unwrap();
        eventually("the journal is on the disk again", || {
            journal().filter(|j| j["state"] == "disk")
        });
    }
    load.end();
    rig.wait_until_connected();
    let mut ledger = rig.settle();
    // A change of the journal's id may end what was sent and never arrived.
    ledger.may_lose_unstarted = true;
    println!("{ledger}");
    ledger.assert_sound();
}

#[test]
fn a_poseidon_without_room_acknowledges_nothing_and_catches_up() {
    if !possible("--mount") {
        return;
    }
    let mut poseidon = Poseidon::at("127.0.0.1:0", FAST);
    let data = poseidon.data();
    let disk = Namespace::with_disk(&data, 128 << 20);
    poseidon.put_in(disk.place());
    poseidon.launch();
    let inside = disk.place().path(&data);
    let url = poseidon.url();
    let rig = Rig::of(poseidon, Agent::new(), &url);
    let load = rig.load(&mut Random::new(1));
    for _ in 0..2 {
        rig.pass(Duration::from_millis(500));
        let ballast = fill(&inside);
        // The log of the store may have some room of its own left.
        eventually("records wait at the agent", || {
            rig.put();
            (rig.waiting()? > 20).then_some(())
        });
        fs::remove_file(ballast).unwrap();
        eventually("they arrive", || (rig.waiting()? < 10).then_some(()));
    }
    load.end();
    rig.wait_until_connected();
    let ledger = rig.settle();
    println!("{ledger}");
    ledger.assert_sound();
    let log = rig.poseidon.log();
    assert!(log.contains("disk") || log.contains("space"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// An agent and a Poseidon, without load.
fn pair() -> Rig {
    Rig::through_a_proxy()
}

#[test]
fn an_agent_without_descriptors_says_so_and_recovers() {
    let rig = pair();
    let agent = &rig.agent;
    works(agent);
    let pid = agent.pid();
    // Room for one client of the local socket, and not for a job's pipes.
    limit(pid, &format!("--nofile={}:", descriptors(pid) + 2));
    let done = agent.run(&["exec", "--", "true"]);
    assert!(!done.status.success());
    assert!(
        said(&done).contains("Too many open files") && said(&done).contains("true"),
        "{}",
        said(&done)
    );
    // None at all: a connection that breaks cannot be made again, a client is not served, and nobody spins.
    limit(pid, &format!("--nofile={}:", descriptors(pid)));
    let client = std::os::unix::net::UnixStream::connect(agent.socket()).unwrap();
    rig.proxy().cut(support::proxy::Cut::Reset);
    limit(pid, "--nofile=3:");
    agent.wait_for_log("Too many open files");
    let before = ticks(pid);
    std::thread::sleep(Duration::from_secs(2));
    let spent = ticks(pid) - before;
    assert!(spent < 100, "{spent} of 200 ticks were burnt");
    drop(client);
    limit(pid, "--nofile=1024:");
    works(agent);
    rig.wait_until_connected();
    assert!(!agent.log().contains("internal error"), "{}", agent.log());
}

#[test]
fn a_poseidon_without_descriptors_says_so_and_recovers() {
    let rig = pair();
    let pid = rig.poseidon.pid();
    limit(pid, &format!("--nofile={}:", descriptors(pid)));
    let waiting = std::net::TcpStream::connect(rig.poseidon.address()).unwrap();
    eventually("the log says it", || {
        rig.poseidon
            .log()
            .contains("Too many open files")
            .then_some(())
    });
    let before = ticks(pid);
    std::thread::sleep(Duration::from_secs(2));
    let spent = ticks(pid) - before;
    assert!(spent < 100, "{spent} of 200 ticks were burnt");
    // Who is connected stays so.
    assert!(rig.connected());
    limit(pid, "--nofile=1024:");
    drop(waiting);
    let done = rig.poseidon.run(&["run", "router", "--", "echo", "back"]);
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        "back\n",
        "{}",
        said(&done)
    );
    assert!(!rig.poseidon.log().contains("panicked"));
}

#[test]
fn a_job_that_cannot_fork_says_so() {
    let Some(place) = user() else { return };
    let mut agent = Agent::new().within(place.clone());
    agent.start();
    agent.wait_until_it_serves();
    works(&agent);
    limit_as(&place, agent.pid(), "--nproc=1:");
    for _ in 0..20 {
        let done = agent.run(&["exec", "--", "true"]);
        assert!(!done.status.success());
        assert!(
            said(&done).contains("Resource temporarily unavailable"),
            "{}",
            said(&done)
        );
    }
    limit_as(&place, agent.pid(), "--nproc=5000:");
    works(&agent);
    assert_eq!(agent.status()["jobs"]["running"], 0);
}

#[test]
fn an_agent_that_cannot_start_its_threads_says_so() {
    let Some(place) = user() else { return };
    let mut told = 0;
    let mut served = false;
    for threads in 1..40 {
        let limited = place.before(&["prlimit", &format!("--nproc={threads}"), "--"]);
        let mut agent = Agent::new().within(limited);
        agent.start();
        let socket = agent.socket();
        let outcome = eventually("it serves or ends", || {
            // The link is the last of its threads.
            if local::status(&socket).is_some_and(|s| s["link"]["state"] == "off") {
                return Some(None);
            }
            agent.ended().map(Some)
        });
        assert!(!agent.log().contains("internal error"), "{}", agent.log());
        match outcome {
            None => {
                served = true;
                // It does what it can: a job is done, or refused with a reason.
                let done = agent.run(&["exec", "--", "true"]);
                if done.status.success() {
                    break;
                }
                let reason = said(&done);
                assert!(reason.contains("temporarily unavailable"), "{reason}");
            }
            Some(status) => {
                assert!(!status.success());
                let log = agent.log();
                assert!(
                    log.contains("cannot") && log.contains("temporarily unavailable"),
                    "{log}"
                );
                told += 1;
            }
        }
    }
    assert!(told > 0 && served);
}

#[test]
fn a_resolver_without_a_thread_is_asked_again() {
    let Some(place) = user() else { return };
    let poseidon = Poseidon::on_a_held_port(FAST);
    let mut agent = Agent::new().within(place.clone());
    let identifier = agent.run(&["identifier"]).stdout;
    poseidon.register(String::from_utf8(identifier).unwrap().trim(), "router");
    let file = agent.folder().join("triton.toml");
    fs::write(&file, "").unwrap();
    agent = agent.with_variable("TRITON_CONFIG", path(&file));
    agent.start();
    agent.wait_until_it_serves();
    limit_as(&place, agent.pid(), "--nproc=1:");
    let port = poseidon.address().rsplit(':').next().unwrap().to_owned();
    fs::write(&file, format!("url = \"ws://localhost:{port}/triton\"")).unwrap();
    agent.signal(libc::SIGHUP);
    let error = eventually("the attempt fails", || {
        let status = agent.status();
        status["link"]["lastError"].as_str().map(str::to_owned)
    });
    assert!(error.starts_with("dns: "), "{error}");
    assert!(error.contains("temporarily unavailable"), "{error}");
    limit_as(&place, agent.pid(), "--nproc=5000:");
    agent.signal(libc::SIGHUP);
    agent.wait_for_link("connected");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
