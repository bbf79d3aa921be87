//! The agent as a service: what it tells the service manager, and that the watchdog is fed only while all of it lives.

mod support;

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;
use support::agent::Agent;
use support::fake::Fake;
use support::manager::{Held, Manager};

/// The watchdog's period here. The agent looks after itself twice in it.
const PERIOD: Duration = Duration::from_secs(1);

#[test]
fn it_tells_of_its_start_its_connection_each_reload_and_its_end() {
    let manager = Manager::new();
    let agent = Agent::new();
    let file = agent.folder().join("triton.toml");
    fs::write(&file, "").unwrap();
    let mut agent = agent
        .with_variable("TRITON_CONFIG", file.to_str().unwrap())
        .with_variable("NOTIFY_SOCKET", &manager.address());
    agent.start();
    // Ready without a connection, but not before the local socket takes commands.
    let ready = manager.next();
    assert!(UnixStream::connect(agent.socket()).is_ok());
    assert_eq!(
        ready,
        "READY=1\nSTATUS=working offline: no url is configured"
    );

    let fake = Fake::welcoming(support::fake::Peer::idle);
    fs::write(&file, format!("url = \"{}\"", fake.url)).unwrap();
    agent.signal(libc::SIGHUP);
    let reloading = manager.next();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    assert!(time.unwrap().parse::<u64>().unwrap() > 0, "{reloading}");
    assert!(manager.next().starts_with("READY=1\nSTATUS="));
    manager.wait_for("STATUS=connected to ws://");

    fs::write(&file, "url = 7").unwrap();
    agent.signal(libc::SIGHUP);
    assert!(manager.next().starts_with("RELOADING=1"));
    let refused = manager.next();
    assert!(
        refused.starts_with("READY=1\nSTATUS=connected"),
        "{refused}"
    );
    assert!(refused.contains("is not in force: "), "{refused}");

    agent.signal(libc::SIGTERM);
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=stopping");
    assert!(agent.wait().success());
    assert_eq!(manager.next_within(Duration::from_millis(1)), None);
}

#[test]
fn a_status_is_told_when_it_changes() {
    let manager = Manager::new();
    let fake = Fake::http("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let mut agent = Agent::new()
        .with(&["--url", &fake.url])
        .with_variable("NOTIFY_SOCKET", &manager.address());
    agent.start();
    manager.wait_for("STATUS=not connected, trying again: http: ");
    // The next attempt fails in the same way, which is no news: what comes is the reload's.
    for _ in 0..3 {
        fake.wait_for_connection();
        agent.wait_for_link("waiting");
        agent.signal(libc::SIGHUP);
        assert!(manager.next().starts_with("RELOADING=1"));
        assert!(manager.next().starts_with("READY=1\nSTATUS=not connected"));
    }
}

#[test]
fn a_job_gets_nothing_of_what_is_between_manager_and_agent() {
    let manager = Manager::new();
    let mut agent = Agent::new().with_variable("NOTIFY_SOCKET", &manager.address());
    let variables = [
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "SYSTEMD_EXEC_PID",
        "CREDENTIALS_DIRECTORY",
        "CONFIGURATION_DIRECTORY",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
    ];
    for name in variables {
        agent = agent.with_variable(name, "100000000");
    }
    agent.start();
    agent.wait_until_it_serves();
    let environment = agent.run(&["exec", "--", "env"]).stdout;
    let environment = String::from_utf8(environment).unwrap();
    assert!(environment.contains("TRITON_JOB="), "{environment}");
    for name in variables.iter().chain(&["NOTIFY_SOCKET"]) {
        assert!(!environment.contains(name), "{environment}");
    }
}

fn watched(manager: &Manager, agent: Agent) -> Agent {
    let mut agent = agent
        .with_variable("NOTIFY_SOCKET", &manager.address())
        .with_variable("WATCHDOG_USEC", &PERIOD.as_micros().to_string());
    agent.start();
    manager.wait_for("READY=1");
    agent
}

/// Holds a thread: from then on the watchdog gets nothing, the log says why, and all is well when the thread goes on.
#[track_caller]
fn starves(manager: &Manager, agent: &Agent, thread: &str, said: &str) {
    manager.wait_for("WATCHDOG=1");
    let before = agent.log().len();
    let logs = |text: &str| {
        support::eventually(text, || agent.log()[before..].contains(text).then_some(()));
    };
    let held = Held::of(agent.pid(), thread);
    logs(&format!("no sign of life from {said}"));
    manager.drain();
    let told = manager.next_within(3 * PERIOD);
    assert_eq!(told, None, "{thread} hangs");
    drop(held);
    manager.wait_for("WATCHDOG=1");
    logs("answers again");
}

#[test]
fn any_thread_that_hangs_starves_the_watchdog() {
    let manager = Manager::new();
    let fake = Fake::welcoming(support::fake::Peer::idle);
    let agent = watched(&manager, Agent::new().with(&["--url", &fake.url]));
    agent.wait_for_link("connected");
    for thread in ["link", "heartbeat", "local"] {
        starves(&manager, &agent, thread, &format!("the thread {thread}"));
    }
}

#[test]
fn a_link_that_hangs_while_it_waits_for_its_next_attempt_starves_the_watchdog() {
    let manager = Manager::new();
    let fake = Fake::http("HTTP/1.1 503 Later\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n");
    let agent = watched(&manager, Agent::new().with(&["--url", &fake.url]));
    agent.wait_for_link("waiting");
    starves(&manager, &agent, "link", "the thread link");
}

/// Jobs that run for long, one behind the other: each takes a worker.
fn sleeper(agent: &Agent) -> Child {
    agent
        .command(&["exec", "--", "sleep", "1000"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_worker_that_hangs_starves_the_watchdog_and_one_that_supervises_does_not() {
    let manager = Manager::new();
    let agent = watched(&manager, Agent::new());
    let mut clients = [sleeper(&agent), sleeper(&agent)];
    let jobs = |running: u32| {
        let what = format!("{running} jobs run");
        support::eventually(&what, || {
            (agent.status()["jobs"]["running"] == running).then_some(())
        });
    };
    jobs(2);
    for worker in ["job-1", "job-2"] {
        starves(&manager, &agent, worker, "the worker of job ");
    }
    for client in &mut clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    // Workers without a job give their sign of life by waiting for one.
    jobs(0);
    manager.drain();
    for _ in 0..4 {
        manager.wait_for("WATCHDOG=1");
    }
}

#[test]
fn waiting_for_a_server_is_no_sign_of_death() {
    let manager = Manager::new();
    // It accepts, and then says nothing: each attempt takes the whole deadline of 10 s.
    let fake = Fake::tcp(|stream| {
        std::thread::sleep(support::PATIENCE);
        drop(stream);
    });
    let agent = watched(&manager, Agent::new().with(&["--url", &fake.url]));
    fake.wait_for_connection();
    let mut fed = 0;
    while agent.status()["link"]["state"] == "connecting" && fed < 8 {
        manager.wait_for("WATCHDOG=1");
        fed += 1;
    }
    assert_eq!(fed, 8, "{}", agent.log());
    assert!(!agent.log().contains("no sign of life"), "{}", agent.log());
}
