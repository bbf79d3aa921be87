//! The real agent and the real Poseidon over real sockets.

mod support;

use std::io::Read as _;
use std::process::Stdio;
use support::agent::Agent;
use support::eventually;
use support::poseidon::Poseidon;
use support::proxy::{Cut, Direction, Fault, Proxy};
use support::random::setting;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A registered agent that is connected.
fn pair() -> (Poseidon, Agent) {
    let poseidon = Poseidon::start();
    let agent = Agent::new().with(&["--url", &poseidon.url(), "--heartbeat", "1"]);
    let identifier = text(&agent.run(&["identifier"]).stdout);
    poseidon.register(identifier.trim(), "router");
    let mut agent = agent;
    agent.start();
    poseidon.wait_for("router", "up");
    (poseidon, agent)
}

#[test]
fn from_unknown_to_a_command_with_its_output() {
    let poseidon = Poseidon::start();
    let agent = Agent::of(&poseidon.url());
    agent.wait_for_log("poseidon approve");
    let pending = poseidon.json(&["pending", "--json"]);
    let id = pending["pending"][0]["id"].as_str().unwrap().to_owned();
    let own = text(&agent.run(&["identifier", "--fingerprint"]).stdout);
    assert_eq!(own.trim(), id, "both sides show the same fingerprint");
    let approved = poseidon.run(&["approve", &id, "--name", "attic"]);
    assert!(approved.status.success(), "{}", text(&approved.stderr));
    agent.signal(libc::SIGHUP);
    poseidon.wait_for("attic", "up");
    // It is up there before the agent has read, and pinned, what it was told.
    eventually("the agent knows its name", || {
        (agent.status()["link"]["name"] == "attic").then_some(())
    });

    let health = eventually("the health arrives", || {
        let shown = poseidon.json(&["show", "attic", "--json"]);
        shown["health"]["physicalMemoryTotal"]
            .is_u64()
            .then_some(shown)
    });
    assert_eq!(health["hello"]["instance"], agent.status()["instance"]);

    let done = poseidon.run(&[
        "run",
        "attic",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    assert_eq!(text(&done.stdout), "out\n");
    assert!(text(&done.stderr).contains("err\n"));
    assert_eq!(done.status.code(), Some(7));
    let done = poseidon.run(&["run", "nobody", "--", "true"]);
    assert!(!done.status.success());
    assert!(
        text(&done.stderr).contains("nobody"),
        "{}",
        text(&done.stderr)
    );
}

#[test]
fn an_agent_says_from_afar_how_it_is_and_lets_its_owner_end_a_job() {
    let (poseidon, agent) = pair();
    let mut child = poseidon
        .command(&["run", "router", "--", "sh", "-c", "echo ready; sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (ready, _output) = support::first_line(&mut child);
    assert_eq!(ready, "ready\n");
    let said = text(&poseidon.run(&["status", "router"]).stdout);
    for part in [
        env!("CARGO_PKG_VERSION"),
        "connected to ws://",
        "1 running, 0 waiting",
        "records wait for Poseidon;",
        "trust       open",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let status = poseidon.json(&["status", "router", "--json"]);
    assert_eq!(status["instance"], agent.status()["instance"]);
    let job = &status["jobs"]["list"][0];
    let token = job["token"].as_str().unwrap();
    assert_eq!(
        (&job["type"], &job["origin"]),
        (&"command".into(), &"poseidon".into())
    );
    let jobs = text(&agent.run(&["jobs"]).stdout);
    let line = jobs.lines().nth(1).unwrap();
    assert!(
        line.starts_with(token) && line.contains("poseidon") && line.ends_with("sh"),
        "{jobs}"
    );
    let done = agent.run(&["cancel", &token[..8], "--grace", "1"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(!child.wait().unwrap().success());
    let ended = poseidon.json(&["job", token, "--json"]);
    assert_eq!(ended["result"]["status"], "cancelled", "{ended}");

    let nobody = poseidon.run(&["status", "nobody"]);
    assert!(!nobody.status.success() && text(&nobody.stderr).contains("nobody"));
    drop(agent);
    poseidon.wait_for("router", "down");
    let down = poseidon.run(&["status", "router"]);
    assert!(!down.status.success());
    assert!(
        text(&down.stderr).contains("router is down"),
        "{}",
        text(&down.stderr)
    );
}

#[test]
fn the_options_of_run_and_script_reach_the_process() {
    let (poseidon, agent) = pair();
    let script = agent.folder().join("how.sh");
    std::fs::write(
        &script,
        "#!/bin/sh\nnice; ulimit -v; echo err >&2; exit $1\n",
    )
    .unwrap();
    let put = poseidon.run(&["scripts", "put", "router", script.to_str().unwrap()]);
    assert!(put.status.success(), "{}", text(&put.stderr));
    let how = ["--nice", "9", "--memory", "512000000", "--output"];
    let limit = 512_000_000 / 1024;
    let run = |rest: &[&str]| poseidon.run(&[&rest[..2], &how, &rest[2..]].concat());
    for output in ["stream", "collect"] {
        let shell = "nice; ulimit -v; echo err >&2; exit 4";
        let done = run(&["run", "router", output, "--", "sh", "-c", shell]);
        assert_eq!(text(&done.stdout), format!("9\n{limit}\n"), "{output}");
        assert_eq!(text(&done.stderr), "err\n");
        assert_eq!(done.status.code(), Some(4));
    }
    // The device has the script by and by.
    let done = eventually("the script runs", || {
        let done = run(&["script", "router", "collect", "--", "how.sh", "5"]);
        (done.status.code() == Some(5)).then_some(done)
    });
    assert_eq!(text(&done.stdout), format!("9\n{limit}\n"));
    let done = run(&["run", "router", "discard", "--", "echo", "unseen"]);
    assert!(done.status.success() && done.stdout.is_empty());
    assert!(text(&done.stderr).contains("7 B of stdout are missing"));
    let begun = std::time::Instant::now();
    let done = poseidon.run(&["run", "router", "--not-before", "2s", "--", "echo", "now"]);
    assert_eq!(text(&done.stdout), "now\n", "{}", text(&done.stderr));
    assert!(begun.elapsed() > std::time::Duration::from_secs(1));
    for (option, value) in [
        ("--nice", "20"),
        ("--memory", "1G"),
        ("--not-before", "soon"),
        ("--output", "paper"),
    ] {
        let done = poseidon.run(&["run", "router", option, value, "--", "true"]);
        assert_eq!(done.status.code(), Some(2), "{option}");
        assert!(text(&done.stderr).contains(option), "{option}");
    }
}

#[test]
fn refused_identifiers_stay_out() {
    let poseidon = Poseidon::start();
    let agent = Agent::of(&poseidon.url());
    let id = text(&agent.run(&["identifier", "--fingerprint"]).stdout);
    agent.wait_for_link("waiting");
    assert!(poseidon.run(&["refuse", id.trim()]).status.success());
    agent.signal(libc::SIGHUP);
    eventually("a second attempt", || {
        (agent.log().matches("next attempt in").count() >= 2).then_some(())
    });
    let pending = poseidon.json(&["pending", "--json"]);
    assert_eq!(pending["pending"].as_array().unwrap().len(), 0);
    assert!(poseidon.agents().is_empty());
}

#[test]
fn output_streams_while_the_job_runs_and_ctrl_c_cancels_it() {
    let (poseidon, agent) = pair();
    let mut child = poseidon
        .command(&[
            "run",
            "router",
            "--",
            "sh",
            "-c",
            "echo $$; exec sleep 1000",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (job, _output) = support::first_line(&mut child);
    let process = format!("/proc/{}", job.trim());
    assert!(std::path::Path::new(&process).exists(), "{job:?}");
    support::signal(child.id(), libc::SIGINT);
    let status = eventually("poseidon run ends", || child.try_wait().unwrap());
    assert!(!status.success());
    eventually("the job is gone", || {
        (!std::path::Path::new(&process).exists()).then_some(())
    });
    assert_eq!(agent.status()["jobs"]["running"], 0);
}

#[test]
fn a_command_whose_answer_is_lost_runs_once() {
    let mut poseidon = Poseidon::on_a_held_port(&[]);
    let mut agent = Agent::new().with(&["--url", &poseidon.url(), "--heartbeat", "1"]);
    let identifier = text(&agent.run(&["identifier"]).stdout);
    poseidon.register(identifier.trim(), "router");
    agent.start();
    let proxy = Proxy::to(poseidon.address().parse().unwrap());
    let url = format!("http://{}", proxy.address());
    let folder = tempfile::tempdir().unwrap();
    for (n, is_killed) in [false, true].into_iter().enumerate() {
        for whom in [&["router"][..], &["--on", "router"]] {
            poseidon.wait_for("router", "up");
            let file = folder.path().join(format!("{n}-{}", whom.len()));
            let line = format!("echo ran >> '{}'; echo done", file.display());
            proxy.set(Fault::Swallow(Direction::ToAgent));
            let child = poseidon
                .command(&["--url", &url, "run"])
                .args(whom)
                .args(["--shell", "--", &line])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let ran = || std::fs::read_to_string(&file).unwrap_or_default();
            eventually("it runs", || ran().ends_with('\n').then_some(()));
            if is_killed {
                poseidon.kill();
            }
            proxy.cut(Cut::Reset);
            proxy.set(Fault::None);
            if is_killed {
                poseidon.launch();
            }
            let done = child.wait_with_output().unwrap();
            let said = text(&done.stderr);
            assert_eq!(
                (done.status.code(), text(&done.stdout).as_str()),
                (Some(0), "done\n"),
                "{said}"
            );
            assert!(said.contains("trying again"), "{said}");
            assert_eq!(ran(), "ran\n");
        }
    }
    let jobs = poseidon.json(&["jobs", "--json"]);
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 4);
}

#[test]
fn binary_output_arrives_byte_for_byte() {
    let (poseidon, _agent) = pair();
    let line = "head -c 3000000 /dev/urandom > f; sha256sum < f >&2; cat f; rm f";
    let done = poseidon.run(&["run", "router", "--cwd", "/tmp", "--", "sh", "-c", line]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(done.stdout.len(), 3_000_000);
    let mut sum = std::process::Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut sum.stdin.take().unwrap(), &done.stdout).unwrap();
    let sum = text(&sum.wait_with_output().unwrap().stdout);
    assert!(
        text(&done.stderr).contains(sum.trim()),
        "{sum} {}",
        text(&done.stderr)
    );
}

#[test]
fn a_dead_agent_is_down_and_a_new_one_is_up_again() {
    let (poseidon, mut agent) = pair();
    agent.kill();
    poseidon.wait_for("router", "down");
    let done = poseidon.run(&["run", "router", "--", "true"]);
    assert!(!done.status.success());
    assert!(
        text(&done.stderr).contains("router"),
        "{}",
        text(&done.stderr)
    );
    agent.start();
    poseidon.wait_for("router", "up");
    assert_eq!(poseidon.agents().len(), 1, "it is the same instance");
}

#[test]
fn a_killed_poseidon_finds_its_agents_again() {
    let (mut poseidon, agent) = pair();
    for _ in 0..2 {
        poseidon.kill();
        agent.wait_for_link("waiting");
        poseidon.launch();
        poseidon.wait_for("router", "up");
        let done = poseidon.run(&["run", "router", "--", "echo", "back"]);
        assert_eq!(text(&done.stdout), "back\n");
    }
    assert!(agent.status()["link"]["reconnects"].as_u64().unwrap() >= 2);
}

#[test]
fn the_end_of_a_job_arrives_after_poseidon_was_killed_in_between() {
    let (mut poseidon, agent) = pair();
    let gate = agent.folder().join("gate");
    let line = format!(
        "echo before; while [ ! -e {} ]; do sleep 0.1; done; exit 5",
        gate.display()
    );
    let started = poseidon.json(&[
        "run", "router", "--detach", "--json", "--", "sh", "-c", &line,
    ]);
    let job = started["jobs"][0]["id"].as_str().unwrap().to_owned();
    eventually("the job runs", || {
        (agent.status()["jobs"]["running"] == 1).then_some(())
    });
    poseidon.kill();
    agent.wait_for_link("waiting");
    std::fs::write(&gate, "").unwrap();
    eventually("the job ends", || {
        (agent.status()["jobs"]["running"] == 0).then_some(())
    });
    poseidon.launch();
    let ended = eventually("its end arrives", || {
        let job = poseidon.json(&["job", &job, "--json"]);
        (job["state"] == "ended").then_some(job)
    });
    assert_eq!(ended["result"]["exitCode"], 5);
}

#[test]
fn several_instances_share_an_identifier() {
    let poseidon = Poseidon::start();
    poseidon.register("shared-identifier-0001", "cluster");
    let agents: Vec<Agent> = (0..3)
        .map(|_| {
            let mut agent = Agent::new()
                .with(&["--url", &poseidon.url()])
                .with_variable("TRITON_IDENTIFIER", "shared-identifier-0001");
            agent.start();
            agent
        })
        .collect();
    eventually("all are up", || {
        let up = poseidon
            .agents()
            .iter()
            .filter(|a| a["state"] == "up")
            .count();
        (up == 3).then_some(())
    });
    let done = poseidon.run(&["run", "cluster", "--", "echo", "here"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(text(&done.stdout).matches("here").count(), 3);
    let instance = agents[0].status()["instance"].as_str().unwrap().to_owned();
    let done = poseidon.run(&[
        "run",
        &format!("cluster/{}", &instance[..8]),
        "--",
        "echo",
        "one",
    ]);
    assert_eq!(text(&done.stdout), "one\n");
}

#[test]
fn a_large_output_leaves_the_agent_small() {
    let (poseidon, agent) = pair();
    // `bench/output` does the same with a gigabyte and the release build.
    let megabytes = setting("TRITON_TEST_MEGABYTES").unwrap_or(100);
    let line = format!("head -c {megabytes}000000 /dev/zero | tr '\\0' x");
    let mut child = poseidon
        .command(&["run", "router", "--", "sh", "-c", &line])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (mut total, mut peak) = (0_u64, 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        let n = stdout.read(&mut piece).unwrap();
        if n == 0 {
            break;
        }
        total += n as u64;
        peak = peak.max(agent.resident());
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(total, megabytes * 1_000_000);
    // The debug build's code alone takes some megabytes; what counts is that it does not follow the output.
    assert!(peak < 24 << 20, "{peak} bytes resident");
}

#[cfg(any(feature = "tls", feature = "rustls"))]
#[test]
fn over_tls_with_an_own_authority_or_a_pinned_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let poseidon = Poseidon::with(&[
        "--tls-cert",
        &path("cert.pem"),
        "--tls-key",
        &path("key.pem"),
    ]);
    let port = poseidon.address().rsplit(':').next().unwrap().to_owned();
    // The commands find the server by --data, and need the authority as well.
    let register = |agent: &Agent, name: &str| {
        let identifier = text(&agent.run(&["identifier"]).stdout);
        let line = [
            "register",
            identifier.trim(),
            "--name",
            name,
            "--ca-file",
            &path("cert.pem"),
        ];
        let url = format!("https://localhost:{port}");
        let done = poseidon.run(&[&line[..], &["--url", &url]].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
    };

    let by_name = format!("wss://localhost:{port}");
    let mut trusting = Agent::new().with(&["--url", &by_name, "--ca-file", &path("cert.pem")]);
    register(&trusting, "trusting");
    trusting.start();
    trusting.wait_for_link("connected");

    // Nobody vouches for it here: the log shows why, and the key that could be pinned.
    let mut wary = Agent::new().with(&["--url", &by_name]);
    register(&wary, "wary");
    wary.start();
    wary.wait_for_log("tls: ");
    assert_ne!(wary.status()["link"]["state"], "connected");

    // A wrong pin is refused and shows the right one; with it as the backup the agent gets in, by address too.
    let by_address = format!("wss://127.0.0.1:{port}");
    let wrong = "00".repeat(32);
    let mut pinning = Agent::new().with(&["--url", &by_address, "--pin", &wrong]);
    register(&pinning, "pinning");
    pinning.start();
    let log = pinning.wait_for_log("sha256//");
    let pin = log.split("sha256//").nth(1).unwrap();
    let pin = format!("sha256//{}", &pin[..44]);
    pinning.stop();
    let mut pinning = pinning.with(&["--pin", &pin]);
    pinning.start();
    pinning.wait_for_link("connected");
}

/// A job's end, where its agent was killed while it ran.
fn end_after_a_kill(before_the_next_start: impl Fn(&Agent)) -> serde_json::Value {
    let (poseidon, mut agent) = pair();
    let started = poseidon.json(&["run", "router", "--detach", "--json", "--", "sleep", "1000"]);
    let job = started["jobs"][0]["id"].as_str().unwrap().to_owned();
    eventually("the job runs", || {
        (agent.status()["jobs"]["running"] == 1).then_some(())
    });
    agent.kill();
    before_the_next_start(&agent);
    agent.start();
    let ended = eventually("its end is known", || {
        let job = poseidon.json(&["job", &job, "--json"]);
        (job["state"] == "ended").then_some(job)
    });
    assert_eq!(agent.status()["jobs"]["running"], 0, "it was not run again");
    ended
}

#[test]
fn a_job_of_an_agent_that_has_forgotten_is_lost_and_said_to_be() {
    let ended = end_after_a_kill(|agent| {
        let _ = std::fs::remove_dir_all(agent.state().join("journal"));
    });
    assert_eq!(ended["error"]["code"], "lost");
}

#[test]
fn a_job_of_a_killed_agent_is_interrupted_and_said_to_be() {
    let ended = end_after_a_kill(|_| {});
    assert_eq!(ended["result"]["status"], "interrupted", "{ended}");
}

#[test]
fn an_output_that_nobody_reads_any_more_ends_its_job() {
    let (poseidon, agent) = pair();
    let mut child = poseidon
        .command(&[
            "run",
            "router",
            "--",
            "sh",
            "-c",
            "while :; do echo y; sleep 0.05; done",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (first, output) = support::first_line(&mut child);
    assert_eq!(first, "y\n");
    // The pipe is closed, as by `| head -n 1`.
    drop(output);
    let status = eventually("poseidon run ends", || child.try_wait().unwrap());
    assert!(!status.success());
    eventually("the job is cancelled", || {
        (agent.status()["jobs"]["running"] == 0).then_some(())
    });
}

/// The next syslog message, out of its frame.
fn syslog(stream: &mut impl std::io::Read) -> String {
    let mut length = String::new();
    loop {
        let mut one = [0];
        stream
            .read_exact(&mut one)
            .expect("the SIEM is sent something");
        match one[0] {
            b' ' => break,
            digit => length.push(digit.into()),
        }
    }
    let mut message = vec![0; length.parse().expect("a length")];
    stream.read_exact(&mut message).expect("a whole message");
    text(&message)
}

#[test]
fn an_event_of_an_offline_device_is_found_and_handed_on_and_a_metric_is_plotted() {
    let siem = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("tcp://{}", siem.local_addr().unwrap());
    let mut poseidon = Poseidon::on_a_held_port(&["--siem", &target]);
    let agent = Agent::new().with(&["--url", &poseidon.url(), "--heartbeat", "1"]);
    let identifier = text(&agent.run(&["identifier"]).stdout);
    poseidon.register(identifier.trim(), "router");
    let mut agent = agent;
    agent.start();
    poseidon.wait_for("router", "up");
    poseidon.kill();
    let ok = |output: std::process::Output| {
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let line = r"CEF:0|Acme|Fire\|wall|1|100|Login failed|8|src=10.0.0.1 msg=Grüße\=dich";
    ok(agent.run(&["event", line]));
    let second = "CEF:0|Acme|Fence|1|101|Gate open|Low|cs1=x";
    ok(agent.run(&["event", second]));
    assert!(!agent.run(&["event", "no CEF"]).status.success());
    // It dies as well, before it could tell anybody.
    agent.kill();
    agent.start();
    poseidon.launch();
    let events = eventually("both are found", || {
        let lines = ok(poseidon.run(&["events", "--json", "--on", "router"]));
        let events: Vec<serde_json::Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (events.len() == 2).then_some(events)
    });
    assert_eq!(
        (&events[0]["line"], &events[1]["line"]),
        (&line.into(), &second.into())
    );
    assert_eq!(events[0]["product"], "Fire|wall");
    assert_eq!(
        (&events[0]["severity"], &events[1]["severity"]),
        (&8.into(), &3.into())
    );
    assert_eq!(events[0]["source"], "command");
    let found = ok(poseidon.run(&[
        "events",
        "--text",
        "\"login failed\" grüße 10.0.0.1",
        "--raw",
    ]));
    assert_eq!(found, format!("{line}\n"));
    // The first connection is that of the Poseidon that was killed; it never had an event.
    let mut messages = Vec::new();
    for stream in siem.incoming() {
        let mut stream = stream.unwrap();
        if stream.peek(&mut [0]).is_ok_and(|bytes| bytes > 0) {
            messages.extend([syslog(&mut stream), syslog(&mut stream)]);
            break;
        }
    }
    assert!(
        messages[0].starts_with("<131>1 ") && messages[0].ends_with(line),
        "{messages:?}"
    );
    assert!(
        messages[1].starts_with("<134>1 ") && messages[1].ends_with(second),
        "{messages:?}"
    );
    eventually("nothing waits", || {
        let state = poseidon.json(&["events", "--forwarding", "--json"]);
        (state["forwarding"]["waiting"] == 0).then_some(())
    });

    ok(agent.run(&["metric", "queue/mail", "7.5", "--unit", "mails"]));
    eventually("the metric is live", || {
        let shown = poseidon.json(&["show", "router", "--json"]);
        (shown["health"]["metrics"][0]["value"] == 7.5).then_some(())
    });
    let plotted = poseidon.json(&["metrics", "router", "queue/mail", "--json"]);
    assert_eq!(plotted["metrics"][0]["unit"], "mails");
    assert_eq!(plotted["metrics"][0]["points"][0][1], 7.5);
    let all = ok(poseidon.run(&["metrics", "router"]));
    assert!(
        all.contains("system:memory") && all.contains("7.50 mails"),
        "{all}"
    );
}

/// Name, attributes and heartbeat of a device that made its own identifier change while it is connected: it is one
/// connection before and after, and nothing happens twice.
#[test]
fn what_poseidon_says_of_a_device_reaches_it_at_once() {
    let poseidon = Poseidon::start();
    let agent = Agent::of(&poseidon.url());
    agent.wait_for_log("poseidon approve");
    let id = text(&agent.run(&["identifier", "--fingerprint"]).stdout);
    let said = |arguments: &[&str]| {
        let done = poseidon.run(arguments);
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout)
    };
    said(&[
        "approve",
        id.trim(),
        "--name",
        "attic",
        "--attribute",
        "floor=3",
    ]);
    agent.signal(libc::SIGHUP);
    let link = || agent.status()["link"].clone();
    eventually("the agent knows its name", || {
        (link()["name"] == "attic").then_some(())
    });
    assert_eq!(link()["heartbeatSeconds"], 15);
    let scripts = agent.folder().join("scripts");
    std::fs::create_dir(&scripts).unwrap();
    let count = agent.folder().join("count");
    let script = format!(
        "#!/bin/sh\necho x >>{}\necho \"$TRITON_ATTRIBUTE_FLOOR$TRITON_ATTRIBUTE_SITE\"\n",
        count.display()
    );
    std::fs::write(scripts.join("floor.sh"), script).unwrap();
    said(&["scripts", "put", "attic", scripts.to_str().unwrap()]);
    let floor = |name: &str| {
        let done = poseidon.run(&["script", name, "--", "floor.sh"]);
        text(&done.stdout).trim().to_owned()
    };
    eventually("the script is there", || {
        (floor("attic") == "3").then_some(())
    });
    let runs = std::fs::read_to_string(&count).unwrap();
    let records = |name: &str| said(&["history", name, "--json"]).lines().count();
    let before = records("attic");
    said(&[
        "set",
        "attic",
        "--name",
        "loft",
        "--attribute",
        "site=s",
        "--unset",
        "floor",
        "--heartbeat",
        "1",
    ]);
    eventually("the agent knows it", || {
        (link()["name"] == "loft").then_some(())
    });
    let now = link();
    assert_eq!(now["attributes"], serde_json::json!({"site": "s"}));
    assert_eq!(now["heartbeatSeconds"], 1);
    assert_eq!(now["reconnects"], 0);
    assert_eq!(agent.status()["trust"]["state"], "trusted");
    let uptime = || {
        let shown = poseidon.json(&["show", "loft", "--json"]);
        assert_eq!(shown["heartbeatSeconds"], 1);
        shown["health"]["uptime"].as_f64()
    };
    let first = uptime();
    eventually("heartbeats come each second", || {
        (uptime() != first).then_some(())
    });
    assert_eq!(records("loft"), before, "no record came twice");
    assert_eq!(std::fs::read_to_string(&count).unwrap(), runs);
    assert_eq!(floor("loft"), "s");
    assert_eq!(text(&agent.run(&["get", "attribute/site"]).stdout), "s");
    assert_eq!(link()["reconnects"], 0);
}

/// The most that may be said of a device fits the least that it may take.
#[test]
fn a_device_that_takes_short_messages_only_knows_all_its_attributes() {
    let poseidon = Poseidon::start();
    let mut agent = Agent::new().with(&["--url", &poseidon.url()]);
    let config = agent.folder().join("t.toml");
    std::fs::write(&config, "[limits]\nmessage_bytes = 16384\n").unwrap();
    agent = agent.with(&["--config", config.to_str().unwrap()]);
    let identifier = text(&agent.run(&["identifier"]).stdout);
    poseidon.register(identifier.trim(), "router");
    let long = "&".repeat(1600);
    let set = |more: &str| poseidon.run(&["set", "router", "--attribute", more]);
    let done = set(&format!("long={long}"));
    assert!(done.status.success(), "{}", text(&done.stderr));
    agent.start();
    eventually("the agent knows them", || {
        (agent.status()["link"]["attributes"]["long"] == *long).then_some(())
    });
    let refused = set(&format!("more={long}"));
    assert!(!refused.status.success());
    let why = text(&refused.stderr);
    assert!(why.contains("more than 8192"), "{why}");
    assert_eq!(agent.status()["link"]["reconnects"], 0);
}

#[test]
fn the_heartbeat_is_the_devices_own_unless_poseidon_has_another() {
    let (poseidon, agent) = pair();
    let beats = |seconds: u64| {
        eventually(&format!("a heartbeat every {seconds} s"), || {
            let shown = poseidon.json(&["show", "router", "--json"]);
            let both = (
                &agent.status()["link"]["heartbeatSeconds"],
                &shown["heartbeatSeconds"],
            ) == (&seconds.into(), &seconds.into());
            both.then_some(())
        });
    };
    beats(1);
    for (set, seconds) in [("7", 7), ("default", 1)] {
        let done = poseidon.run(&["set", "router", "--heartbeat", set]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        beats(seconds);
    }
    assert_eq!(agent.status()["link"]["reconnects"], 0);
}
