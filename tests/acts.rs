//! Acts on the agent and the system, and the engine's pipe: the real agent, stubs for what ends a system.

mod support;

use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use support::agent::Agent;
use support::eventually;
use support::fake::{Fake, Notes, sequence};
use support::manager::Manager;
use support::poseidon::Poseidon;
use support::{api::Api, local};
use triton::message::payload::{self, Ack, Bye, HistoryGet, Welcome};
use triton::message::{ErrorCode, Message};

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn configured(text: &str) -> Agent {
    let agent = Agent::new();
    let config = agent.folder().join("t.toml");
    fs::write(&config, text).unwrap();
    agent.with(&["--config", config.to_str().unwrap()])
}

fn started_at(agent: &Agent) -> f64 {
    eventually("the agent says since when it runs", || {
        agent.status()["startedAt"].as_f64()
    })
}

/// An end is acknowledged before the act, and what came before is not: the server decides when.
#[test]
fn a_restart_waits_for_the_acknowledgement_keeps_the_identity_and_runs_once() {
    let notes = Notes::new();
    let seen = notes.clone();
    let request = Message::with(payload::AGENT_RESTART, &json!({ "delaySeconds": 0.1 }));
    let order = request.clone();
    let stored = std::sync::Mutex::new(0);
    let fake = Fake::each(move |number, mut peer| {
        let welcome = Welcome {
            acked: Some(*stored.lock().unwrap()),
            ..Welcome::default()
        };
        let hello = peer.welcome(&welcome).unwrap();
        seen.add(json!({ "hello": hello.instance, "run": hello.run }));
        if number == 0 {
            peer.send(&order);
            let mut through = 0;
            while through == 0 {
                let Some(message) = peer.next() else { return };
                if message.kind == payload::RESULT {
                    through = sequence(&message).unwrap();
                    seen.add(message.read::<Value>().unwrap());
                }
            }
            // Nothing happens before it is acknowledged.
            assert!(peer.until_status().iter().all(|m| m.kind != payload::BYE));
            seen.add(json!("acknowledging"));
            *stored.lock().unwrap() = through;
            peer.send(&Message::with(payload::ACK, &Ack { through }));
            let bye = peer.next_of(payload::BYE).unwrap();
            seen.add(json!(bye.read::<Bye>().unwrap().reason));
        } else {
            // The same token once more is answered and not carried out.
            peer.send(&order);
            let again = peer.next_in(&order.id).unwrap();
            seen.add(again.read::<Value>().unwrap());
        }
        peer.idle();
    });
    let mut agent = Agent::of(&fake.url);
    let pid = agent.pid();
    let notes = notes.wait_for(6);
    assert_eq!(notes[1]["status"], "succeeded");
    assert_eq!(
        (&notes[2], &notes[3]),
        (&json!("acknowledging"), &json!("the agent stops"))
    );
    assert_eq!(notes[0]["hello"], notes[4]["hello"]);
    assert_ne!(notes[0]["run"], notes[4]["run"]);
    assert_eq!(notes[5]["status"], "succeeded");
    agent.wait_for_link("connected");
    assert_eq!(
        (agent.pid(), agent.status()["pid"].as_u64()),
        (pid, Some(pid.into()))
    );
    assert_eq!(fake.requests.lock().unwrap().len(), 2, "it restarts once");
    assert_eq!(agent.ended(), None);
    assert!(agent.stop().success());
}

#[test]
fn a_restart_is_no_end_for_the_service_manager() {
    let manager = Manager::new();
    let mut agent = Agent::new().with_variable("NOTIFY_SOCKET", &manager.address());
    agent.start();
    assert!(manager.next().starts_with("READY=1"));
    let before = started_at(&agent);
    let done = agent.run(&["agent", "restart"]);
    assert!(done.status.success(), "{}", said(&done.stderr));
    assert!(manager.next().starts_with("RELOADING=1"));
    assert!(manager.next().starts_with("READY=1"));
    assert!(started_at(&agent) > before);
    let done = agent.run(&["agent", "exit"]);
    assert!(done.status.success());
    assert!(manager.next().starts_with("STOPPING=1"));
    assert!(agent.wait().success());
    assert!(!agent.socket().exists());
}

#[test]
fn a_reload_is_as_a_hangup() {
    let server = Fake::welcoming(support::fake::Peer::idle);
    let mut agent = configured("");
    agent.start();
    agent.wait_until_it_serves();
    let config = agent.folder().join("t.toml");
    fs::write(&config, format!("url = {:?}", server.url)).unwrap();
    assert!(agent.run(&["agent", "reload"]).status.success());
    agent.wait_for_link("connected");
    fs::write(&config, "url = 7").unwrap();
    let refused = agent.run(&["agent", "reload"]);
    assert_eq!(refused.status.code(), Some(125), "{refused:?}");
    assert!(said(&refused.stderr).contains("configuration refused: /"));
    agent.wait_for_log("the old configuration stays in force");
    assert_eq!(agent.status()["link"]["state"], "connected");
}

#[test]
fn a_delay_can_be_cancelled_and_has_limits() {
    let agent = Agent::offline();
    let before = started_at(&agent);
    for (delay, code) in [("-1", 2), ("nan", 2), ("86401", 125)] {
        let done = agent.run(&["agent", "restart", "--delay", delay]);
        let text = said(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{delay}: {text}");
    }
    let mut child = agent
        .command(&["agent", "exit", "--delay", "1000"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let job = eventually("it waits", || {
        let job = agent.status()["jobs"]["list"][0].clone();
        (job["state"] == "running").then_some(job)
    });
    assert_eq!(job["what"], "agent.exit");
    support::signal(child.id(), libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(agent.status()["jobs"]["running"], 0);
    assert!(
        (started_at(&agent) - before).abs() < 0.001,
        "it is the same process"
    );
}

fn stub(folder: &Path, name: &str, line: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn a_system_goes_down_by_its_command_after_the_jobs_have_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let reboot = stub(
        folder.path(),
        "reboot",
        &format!(
            "echo \"$1 $(env | grep -c ^TRITON_) $(grep SigBlk /proc/self/status)\" > {}",
            mark.display()
        ),
    );
    let mut agent = configured(&format!(
        "[system]\nreboot_command = [{reboot:?}, \"a; b\"]\n"
    ))
    .with_variable("TRITON_LOG", "debug");
    agent.start();
    agent.wait_until_it_serves();
    let mut job = agent
        .command(&["exec", "--", "sleep", "1000"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the job runs", || {
        (agent.status()["jobs"]["running"] == 1).then_some(())
    });
    let done = agent.run(&["system", "reboot"]);
    assert!(done.status.success(), "{}", said(&done.stderr));
    let text = eventually("the command has run", || {
        fs::read_to_string(&mark)
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    assert_eq!(
        text, "a; b 0 SigBlk:\t0000000000000000\n",
        "one word without a shell, no settings of the agent, and no signal blocked"
    );
    assert_eq!(job.wait().unwrap().code(), Some(130));
    // The agent lives until it is ended from outside, and takes nothing new.
    let refused = agent.run(&["exec", "--", "true"]);
    assert!(
        said(&refused.stderr)
            .contains("system.reboot has been asked for: the agent starts nothing new"),
        "{}",
        said(&refused.stderr)
    );
    assert_eq!(agent.status()["jobs"]["stopsFor"], "system.reboot");
    let status = said(&agent.run(&["status"]).stdout);
    assert!(
        status.contains("nothing new starts: system.reboot"),
        "{status}"
    );
    assert!(agent.stop().success());
}

/// The pool takes nothing any more, so the time waits for the agent's next life.
#[test]
fn a_time_that_comes_while_the_system_goes_down_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (mark, ran) = (folder.path().join("mark"), folder.path().join("ran"));
    let reboot = stub(folder.path(), "reboot", &format!(": > {}", mark.display()));
    let mut agent = configured(&format!("[system]\nreboot_command = [{reboot:?}]\n"));
    agent.start();
    agent.wait_until_it_serves();
    assert!(agent.run(&["system", "reboot"]).status.success());
    eventually("the command has run", || mark.exists().then_some(()));
    let line = format!("echo $TRITON_JOB >> {}", ran.display());
    let entry = json!({ "name": "tick", "cron": "* * * * * *", "shell": line });
    let set = json!({ "revision": "1", "entries": [entry] });
    let set = Message::with(payload::SCHEDULE_SET, &set);
    let answer: Value = local::ask(&agent.socket(), &set).unwrap().read().unwrap();
    assert_eq!(answer["status"], "succeeded", "{answer}");
    let refused = || {
        let log = agent.log();
        let line = log
            .lines()
            .find(|line| line.contains("tick cannot begin"))?;
        Some(line.to_owned())
    };
    let line = eventually("it is refused", refused);
    assert!(line.contains("starts nothing new"), "{line}");
    let times = agent.state().join("schedule-times.json");
    let last = eventually("it is written down as one that waits", || {
        let times: Value = serde_json::from_slice(&fs::read(&times).ok()?).ok()?;
        let tick = &times["poseidon:tick"];
        let (last, done) = (tick["last"].as_i64()?, tick["done"].as_i64()?);
        (done < last).then_some(last)
    });
    let shown: Value = serde_json::from_slice(&agent.run(&["schedule", "--json"]).stdout).unwrap();
    let token = shown["entries"][0]["last"]["token"].as_str().unwrap();
    agent.kill();
    assert!(!ran.exists());
    agent.start();
    eventually("the entry runs again", || ran.exists().then_some(()));
    // The time itself where that was soon enough, else it is the first of those that were missed.
    let history = local::history(&agent.socket()).unwrap();
    let said = history.iter().any(|record| {
        let data: Value = serde_json::from_str(record.data.get()).unwrap();
        record.token == token || data["reason"] == "missed" && data["at"] == last
    });
    assert!(said, "of {token} nothing is known");
}

#[test]
fn a_command_that_fails_is_stored_and_the_device_stays_in_reach() {
    for (line, part) in [("exit 3", "exit status: 3"), ("", "cannot run")] {
        let folder = tempfile::tempdir().unwrap();
        let command = match line {
            "" => "/no/such/poweroff".to_owned(),
            line => stub(folder.path(), "off", line),
        };
        let mut agent = configured(&format!("[system]\nshutdown_command = [{command:?}]\n"));
        agent.start();
        let before = started_at(&agent);
        assert!(agent.run(&["system", "shutdown"]).status.success());
        agent.wait_for_log("system.shutdown has failed");
        eventually("it has restarted", || {
            (agent.status()["startedAt"].as_f64()? > before).then_some(())
        });
        let get = HistoryGet {
            code: Some(200),
            ..HistoryGet::default()
        };
        let answer =
            local::ask(&agent.socket(), &Message::with(payload::HISTORY_GET, &get)).unwrap();
        let history: Value = answer.read().unwrap();
        let data = &history["records"][0]["data"];
        assert_eq!(data["failed"], "system.shutdown");
        assert!(data["message"].as_str().unwrap().contains(part), "{data}");
        assert!(agent.run(&["exec", "--", "true"]).status.success());
    }
}

/// With a real Poseidon: the job ends there before the connection does.
#[test]
fn poseidon_knows_that_a_restart_was_meant() {
    let poseidon = Poseidon::start();
    let agent = Agent::new().with(&["--url", &poseidon.url()]);
    let api = Api::new(poseidon.address(), &poseidon.token());
    let identifier = said(&agent.run(&["identifier"]).stdout);
    let body = json!({ "identifier": identifier.trim(), "name": "router" });
    assert_eq!(api.post("identifiers", &body).unwrap().0, 201);
    let mut agent = agent;
    agent.start();
    agent.wait_for_link("connected");
    let before = started_at(&agent);
    let body = json!({ "agents": ["router"], "type": "agent.restart", "payload": { "delaySeconds": 0.2 } });
    let (status, made) = api.post("jobs", &body).unwrap();
    assert_eq!(status, 201, "{made}");
    let path = format!("jobs/{}", made["jobs"][0]["id"].as_str().unwrap());
    eventually("it has restarted", || {
        (started_at(&agent) > before).then_some(())
    });
    agent.wait_for_link("connected");
    let (_, job) = api.get(&path).unwrap();
    assert_eq!(
        (&job["state"], &job["result"]["status"]),
        (&json!("ended"), &json!("succeeded")),
        "{job}"
    );
}

/// Else who closes a device by its policy would believe it closed.
#[test]
fn a_reload_that_is_refused_fails_and_says_so_until_a_good_one() {
    let poseidon = Poseidon::start();
    let mut agent = configured("[policy.deny.x]\ntype = \"system.reboot\"\n");
    agent = agent.with(&["--url", &poseidon.url()]);
    let identifier = said(&agent.run(&["identifier"]).stdout);
    poseidon.register(identifier.trim(), "router");
    agent.start();
    poseidon.wait_for("router", "up");
    let config = agent.folder().join("t.toml");
    let refused = || agent.status()["configurationRefused"].clone();
    let wrong = |line: &str| {
        fs::write(&config, format!("[policy]\nprofile = \"{line}\"\n")).unwrap();
        format!("{}:2: policy.profile", config.display())
    };
    let reload = || poseidon.run(&["reload", "router"]);
    assert!(reload().status.success());
    assert_eq!(refused(), Value::Null);
    // By a job.
    let why = wrong("closed");
    let output = reload();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let text = said(&output.stderr);
    assert!(text.contains("router: failed"), "{text}");
    assert!(
        text.contains(&format!("configuration refused: {why}")),
        "{text}"
    );
    assert!(refused().as_str().unwrap().starts_with(&why));
    agent.wait_for_log("the old configuration stays in force");
    // By a signal.
    let good = |text: &str| {
        fs::write(&config, text).unwrap();
        agent.signal(libc::SIGHUP);
        eventually("it is in force", || refused().is_null().then_some(()));
    };
    good("");
    wrong("red-only");
    agent.signal(libc::SIGHUP);
    eventually("it is refused", || refused().is_string().then_some(()));
    let shown = said(&agent.run(&["status"]).stdout);
    assert!(shown.contains("\nconfiguration refused: /"), "{shown}");
    fs::write(&config, "").unwrap();
    assert!(reload().status.success());
    eventually("it is in force", || refused().is_null().then_some(()));
}

#[test]
fn an_engines_pipe_tells_its_errors_apart() {
    let agent = configured("");
    let pipe = agent.folder().join("engine.cmd");
    let config = agent.folder().join("t.toml");
    fs::write(&config, format!("[engine]\npipe = {pipe:?}\n")).unwrap();
    let mut agent = agent;
    agent.start();
    agent.wait_until_it_serves();
    let engine = |arguments: &[&str]| {
        let mut line = vec!["engine"];
        line.extend(arguments);
        let done = agent.run(&line);
        (done.status.code(), said(&done.stderr))
    };
    let (code, text) = engine(&["X"]);
    assert!(code == Some(127) && text.contains("not-found"), "{text}");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    assert!(engine(&["X"]).1.contains("no-reader"));
    let link = agent.folder().join("link");
    symlink(&pipe, &link).unwrap();
    let file = agent.folder().join("file");
    fs::write(&file, "").unwrap();
    for other in [&link, &file, &agent.folder().to_owned()] {
        let (_, text) = engine(&["X", "--pipe", other.to_str().unwrap()]);
        assert!(text.contains("invalid"), "{other:?}: {text}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
    assert!(engine(&["a\nb"]).1.contains("invalid"));
    assert!(engine(&[&"x".repeat(5000)]).1.contains("too-large"));
    // Somebody reads, by a descriptor that does not wait either.
    let mut reader = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&pipe)
        .unwrap();
    let command = "[1700000000] PROCESS_HOST_CHECK_RESULT;router;0;up";
    assert_eq!(engine(&[command]).0, Some(0));
    let mut bytes = vec![0; 1000];
    let read = reader.read(&mut bytes).unwrap();
    assert_eq!(said(&bytes[..read]), format!("{command}\n"));
    // Nobody reads any more: full, then busy within its time, and whole lines only.
    let long = "y".repeat(4000);
    let mut lines = 0;
    let text = loop {
        let (code, text) = engine(&[&long]);
        if code != Some(0) {
            break text;
        }
        lines += 1;
        assert!(lines < 100, "a pipe is not endless");
    };
    assert!(text.contains("busy"), "{text}");
    let mut taken = Vec::new();
    // It ends with the error that nothing is left.
    let _ = reader.read_to_end(&mut taken);
    let taken = said(&taken);
    assert_eq!(taken.lines().count(), lines);
    assert!(taken.lines().all(|line| line == long));
    drop(reader);
    assert!(engine(&["X"]).1.contains("no-reader"));
    assert_eq!(agent.status()["jobs"]["running"], 0);
}

#[test]
fn only_this_device_says_how_far_its_jobs_are() {
    let notes = Notes::new();
    let seen = notes.clone();
    let fake = Fake::welcoming(move |mut peer| {
        let progress = Message::with(payload::PROGRESS, &json!({ "job": "x", "percent": 1 }));
        peer.send(&progress);
        let answer = peer.next_in(&progress.id).unwrap();
        seen.add(answer.read::<payload::Error>().unwrap().code);
        peer.idle();
    });
    let _agent = Agent::of(&fake.url);
    assert_eq!(notes.wait_for(1)[0], ErrorCode::Refused);
}
