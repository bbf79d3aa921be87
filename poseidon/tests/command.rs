//! The commands, as processes, against a server in this one.
#![allow(missing_docs)]

mod common;

use common::*;
use serde_json::{Value, json};
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use triton::message::payload;

fn command(rig: &Rig, arguments: &[&str]) -> Command {
    let mut command = poseidon(arguments);
    command.env("POSEIDON_DATA", rig.dir.path().join("data"));
    command
}

async fn run(rig: &Rig, arguments: &[&str]) -> Output {
    within(command(rig, arguments).output()).await.unwrap()
}

async fn stdout(rig: &Rig, arguments: &[&str]) -> String {
    let output = run(rig, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn an_agent_is_approved_shown_and_forgotten() {
    let rig = rig().await;
    let _ = Agent::connect(rig.url(), Some(IDENTIFIER), "/").await;
    let pending = stdout(&rig, &["pending"]).await;
    let id = pending
        .lines()
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();
    assert!(
        stdout(&rig, &["approve", &id, "--name", "box"])
            .await
            .contains("approved")
    );
    let mut agent = rig.agent("i1").await;
    let beat =
        json!({"uptime": 90_000, "physicalMemoryTotal": 1 << 30, "physicalMemoryUsed": 1 << 29});
    agent
        .send(&triton::message::Message::with("heartbeat", &beat))
        .await;
    eventually("health", async || {
        rig.show("box").await["health"].is_object().then_some(())
    })
    .await;
    let agents = stdout(&rig, &["agents"]).await;
    assert!(
        agents.contains("box") && agents.contains("up") && agents.contains("50 %"),
        "{agents}"
    );
    assert!(stdout(&rig, &["show", "box"]).await.contains("25 h"));
    let json: Value = serde_json::from_str(&stdout(&rig, &["agents", "--json"]).await).unwrap();
    assert_eq!(json["agents"][0]["name"], "box");
    assert!(stdout(&rig, &["refuse", &id]).await.contains("refused"));
    assert!(stdout(&rig, &["identifiers"]).await.contains("refused"));
    assert!(
        stdout(&rig, &["forget", "--identifier", &id])
            .await
            .contains("forgot")
    );
    let output = run(&rig, &["show", "box"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("there is no agent box")
    );
}

#[tokio::test]
async fn an_identifier_is_registered_from_a_file() {
    let rig = rig().await;
    let file = rig.dir.path().join("identifier");
    std::fs::write(&file, format!("{IDENTIFIER}\n")).unwrap();
    let file = file.to_str().unwrap();
    stdout(
        &rig,
        &[
            "register",
            "--identifier-file",
            file,
            "--name",
            "box",
            "--attribute",
            "site=attic",
        ],
    )
    .await;
    // Again without attributes: they stay.
    stdout(
        &rig,
        &["register", "--identifier-file", file, "--name", "shed"],
    )
    .await;
    let mut agent = Agent::connect(rig.url(), Some(IDENTIFIER), "/")
        .await
        .unwrap();
    let welcome = agent.hello("i1").await;
    assert_eq!(welcome.name.as_deref(), Some("shed"));
    assert_eq!(welcome.attributes["site"], "attic");
}

#[tokio::test]
async fn what_is_said_of_a_device_is_changed_by_its_name_or_id() {
    let rig = rig().await;
    let file = rig.dir.path().join("identifier");
    std::fs::write(&file, IDENTIFIER).unwrap();
    let file = file.to_str().unwrap();
    stdout(
        &rig,
        &["register", "--identifier-file", file, "--name", "box"],
    )
    .await;
    let line = ["set", "box", "--attribute", "floor=3", "--attribute", "a=b"];
    let said = stdout(&rig, &line).await;
    let id = said.split_whitespace().nth(1).unwrap().trim_matches(',');
    let line = [
        "set",
        id,
        "--name",
        "shed",
        "--unset",
        "a",
        "--heartbeat",
        "90",
    ];
    stdout(&rig, &line).await;
    let listed = stdout(&rig, &["identifiers"]).await;
    for part in ["shed", "floor=3", "90 s"] {
        assert!(listed.contains(part), "{listed}");
    }
    assert!(!listed.contains("a=b"), "{listed}");
    stdout(&rig, &["set", "shed", "--heartbeat", "default"]).await;
    assert!(!stdout(&rig, &["identifiers"]).await.contains("90 s"));
    for (line, why) in [
        (&["set", "shed"][..], "--heartbeat"),
        (&["set", "shed", "--heartbeat", "0"], "1 to 86400"),
        (&["set", "nobody", "--name", "x"], "no such identifier"),
        (
            &["set", "shed", "--attribute", "a=b", "--unset", "a"],
            "both given and taken away",
        ),
        (&["register", id, "--attribute", "floor=4"], "poseidon set"),
        (&["register", "shed"], "poseidon set"),
    ] {
        let output = run(&rig, line).await;
        assert!(!output.status.success(), "{line:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(why), "{line:?}: {said}");
    }
    let output = run(&rig, &["register", "hunter2"]).await;
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("whoever guesses it"), "{said}");
}

#[tokio::test]
async fn an_address_without_scheme_is_told_before_a_missing_token() {
    let rig = rig().await;
    let output = command(&rig, &["--url", "127.0.0.1:8787", "agents"])
        .env("POSEIDON_DATA", rig.dir.path().join("none"))
        .output();
    let output = within(output).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("is no address of a server"), "{said}");
}

#[tokio::test]
async fn run_streams_raw_bytes_and_ends_with_the_exit_code() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let job = tokio::spawn(async move {
        let command = agent.expect(payload::COMMAND).await;
        let request: payload::Command = command.read().unwrap();
        agent.output(&command, 0, b"a\xffb").await;
        let errors = payload::Output::new(payload::Stream::Stderr, 0, b"oops\n");
        agent.send(&command.reply("output", &errors)).await;
        let result = json!({"status": "failed", "exitCode": 7, "stdoutBytes": 3});
        agent.send(&command.reply("result", &result)).await;
        let command = agent.expect(payload::COMMAND).await;
        let result = json!({"status": "failed", "signal": 9});
        agent.send(&command.reply("result", &result)).await;
        (request, agent)
    });
    let output = run(
        &rig,
        &[
            "run", "box", "--cwd", "/tmp", "--env", "A=b=c", "--", "ls", "-l",
        ],
    )
    .await;
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"a\xffb"[..], &b"oops\n"[..])
    );
    let output = run(&rig, &["run", "box", "--shell", "--", "kill $$"]).await;
    assert_eq!(output.status.code(), Some(137), "{output:?}");
    let (request, _agent) = job.await.unwrap();
    assert_eq!(request.argv.unwrap(), ["ls", "-l"]);
    assert_eq!(
        (request.cwd.as_deref(), request.env["A"].as_str()),
        (Some("/tmp"), "b=c")
    );
    let jobs = stdout(&rig, &["jobs", "--agent", "box"]).await;
    assert!(jobs.contains("failed (exit code 7)"), "{jobs}");
    let id = jobs
        .lines()
        .nth(2)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    let output = run(&rig, &["output", id]).await;
    assert_eq!(output.stdout, b"a\xffb");
    assert!(stdout(&rig, &["job", id]).await.contains("ls -l"));
    let output = run(&rig, &["run", "nobody", "--", "ls"]).await;
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn a_job_without_a_process_tells_its_answer_and_why_it_failed() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let jobs = tokio::spawn(async move {
        for result in [
            json!({"status": "succeeded", "data": {"lines": 7}}),
            json!({"status": "failed", "message": "no such file\u{1b}[2J"}),
            json!({"status": "failed"}),
        ] {
            let request = agent.expect("lines.count").await;
            agent.send(&request.reply("result", &result)).await;
        }
        agent
    });
    let ask = async || run(&rig, &["ask", "box", "--type", "lines.count"]).await;
    let output = ask().await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"{\"lines\":7}\n"[..], &b""[..])
    );
    for wanted in [
        "poseidon: box: failed\nposeidon: box: no such file\u{FFFD}[2J\n",
        "poseidon: box: failed\n",
    ] {
        let output = ask().await;
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), wanted);
    }
    let _agent = jobs.await.unwrap();
    let jobs = stdout(&rig, &["jobs", "--json"]).await;
    let jobs: Value = serde_json::from_str(&jobs).unwrap();
    let id = jobs["jobs"][2]["id"].as_str().unwrap();
    let shown = stdout(&rig, &["job", id]).await;
    assert!(shown.contains("Data:     {\"lines\":7}\n"), "{shown}");
    assert_eq!(stdout(&rig, &["output", id]).await, "{\"lines\":7}\n");
}

#[tokio::test]
async fn several_devices_have_their_names_before_their_lines() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agents = [rig.agent("aaa").await, rig.agent("bbb").await];
    let jobs = async {
        for (agent, code) in agents.iter_mut().zip([0, 3]) {
            let command = agent.expect(payload::COMMAND).await;
            agent.output(&command, 0, b"one\ntw").await;
            agent.output(&command, 6, b"o").await;
            let status = if code == 0 { "succeeded" } else { "failed" };
            let result = json!({"status": status, "exitCode": code, "stdoutBytes": 7});
            agent.send(&command.reply("result", &result)).await;
        }
    };
    let ((), output) = tokio::join!(jobs, run(&rig, &["run", "box", "--", "x"]));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "box/aaa: one",
            "box/aaa: two",
            "box/bbb: one",
            "box/bbb: two"
        ]
    );
}

/// What a command writes to a terminal, which util-linux has for it.
async fn on_a_terminal(rig: &Rig, line: &str) -> String {
    let mut command = Command::new("script");
    command
        .args(["-qefc", &format!("\"$POSEIDON\" {line}"), "/dev/null"])
        .env("POSEIDON", env!("CARGO_BIN_EXE_poseidon"))
        .env("POSEIDON_DATA", rig.dir.path().join("data"))
        .env_remove("POSEIDON_URL")
        .env_remove("POSEIDON_TOKEN")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let done = within(command.output()).await.unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[tokio::test]
async fn progress_is_shown_on_a_terminal_and_goes_before_output() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agents = vec![rig.agent("aaa").await];
    let works = async |agents: &mut Vec<Agent>| {
        for agent in agents {
            let command = agent.expect(payload::COMMAND).await;
            let progress = json!({"percent": 40, "message": "half\u{1b}[2J way"});
            agent.send(&command.reply("progress", &progress)).await;
            agent.output(&command, 0, b"done\n").await;
            agent.succeed(&command, 5).await;
        }
    };
    let (seen, ()) = tokio::join!(on_a_terminal(&rig, "run box -- x"), works(&mut agents));
    assert_eq!(
        seen,
        "\r 40 % half\u{FFFD}[2J way\u{1b}[K\r\u{1b}[Kdone\r\n"
    );
    agents.push(rig.agent("bbb").await);
    for line in ["run box -- x", "run --on box -- x"] {
        let (seen, ()) = tokio::join!(on_a_terminal(&rig, line), works(&mut agents));
        for part in [
            "\rbox/aaa:  40 % half",
            "\rbox/bbb:  40 % half",
            "\r\u{1b}[Kbox/",
            "box/aaa: done\r\n",
            "box/bbb: done\r\n",
        ] {
            assert!(seen.contains(part), "{line}: {seen:?}");
        }
    }
    // Nobody is told where there is none.
    let quiet = async { run(&rig, &["run", "box/aaa", "--", "x"]).await };
    agents.truncate(1);
    let (done, ()) = tokio::join!(quiet, works(&mut agents));
    assert!(
        done.stderr.is_empty() && done.stdout == b"done\n",
        "{done:?}"
    );
}

#[tokio::test]
async fn a_long_error_does_not_widen_the_list_of_jobs() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let job = rig.run("box", json!({"argv": ["x"]})).await;
    let request = agent.expect(payload::COMMAND).await;
    let why = "no room ".repeat(50);
    let error = json!({"code": "io", "message": why});
    agent.send(&request.reply(payload::ERROR, &error)).await;
    rig.ended(&job).await;
    let jobs = stdout(&rig, &["jobs"]).await;
    let longest = jobs.lines().map(|line| line.chars().count()).max();
    assert!(longest < Some(160) && jobs.contains("io: no room") && jobs.contains('…'));
    assert!(stdout(&rig, &["job", &job]).await.contains(why.trim_end()));
}

#[tokio::test]
async fn ctrl_c_cancels_the_job_and_waits_for_its_end() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let mut child = command(&rig, &["run", "box", "--", "sleep", "9"])
        .spawn()
        .unwrap();
    let request = agent.expect(payload::COMMAND).await;
    agent.output(&request, 0, b"ready\n").await;
    // With its first output it certainly listens for the signal.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(
        within(lines.next_line()).await.unwrap().as_deref(),
        Some("ready")
    );
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    agent.expect(payload::CANCEL).await;
    let result = json!({"status": "cancelled", "signal": 15});
    agent.send(&request.reply("result", &result)).await;
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(130));
}

#[tokio::test]
async fn serve_says_where_it_listens_and_stops_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_poseidon"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(dir.path().join("data"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = within(lines.next_line()).await.unwrap().unwrap();
    let url = first.strip_prefix("Poseidon 0.1.0 listens on ").unwrap();
    assert!(
        url.starts_with("http://127.0.0.1:") && !url.ends_with(":0"),
        "{first}"
    );
    let second = within(lines.next_line()).await.unwrap().unwrap();
    assert!(second.contains("admin-token"), "{second}");
    let written = std::fs::read_to_string(dir.path().join("data/url")).unwrap();
    assert_eq!(written.trim(), url);
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(within(child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn the_agent_of_a_demo_that_is_killed_ends() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (triton, file) = (dir.path().join("triton"), dir.path().join("pid"));
    let script = format!(
        "#!/bin/sh\nif [ $1 = identifier ]; then echo {}; else echo $$ > {}; exec sleep 300; fi\n",
        "0".repeat(64),
        file.display()
    );
    std::fs::write(&triton, script).unwrap();
    std::fs::set_permissions(&triton, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut demo = poseidon(&["demo", "--triton", triton.to_str().unwrap()]);
    let mut demo = demo.env("TMPDIR", dir.path()).spawn().unwrap();
    let pid = eventually("the agent runs", async || {
        let text = std::fs::read_to_string(&file).ok()?;
        text.trim().parse::<u32>().ok()
    })
    .await;
    // It is the child itself, for it is signalled by its number.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let parent = stat.rsplit(')').next().unwrap().split_whitespace().nth(1);
    assert_eq!(parent, demo.id().map(|id| id.to_string()).as_deref());
    demo.kill().await.unwrap();
    eventually("the agent ends", async || {
        // Whoever takes orphans in may leave it unread for a while.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_the_command_line_cannot_mean_is_told() {
    use std::os::unix::ffi::OsStrExt as _;
    let rig = rig().await;
    for (arguments, says) in [
        (&["job", ""][..], "a value is required for '<JOB>'"),
        (&["jobs", "--limit", "0"], "0 is not in 1..=500"),
        (&["batches", "--limit", "501"], "501 is not in 1..=500"),
        (&["history", "--limit", "0"], "0 is not in 1..=1000000"),
    ] {
        let output = run(&rig, arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    let wrong = std::ffi::OsStr::from_bytes(b"\xff");
    let output = command(&rig, &["agents"])
        .env("POSEIDON_TOKEN", wrong)
        .output();
    let output = within(output).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("POSEIDON_TOKEN"),
        "{said}"
    );
    for arguments in [&["--help"][..], &["run", "--help"], &["--version"]] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let child = command(&rig, arguments).stdout(full.unwrap()).spawn();
        let output = within(child.unwrap().wait_with_output()).await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    }
}

#[tokio::test]
async fn history_goes_back_over_many_pages() {
    let rig = rig().await;
    rig.register("box").await;
    let (mut agent, _) = rig.journaled("i1", "j1").await;
    for first in [1, 301, 601, 901] {
        agent.values(first..=first + 299).await;
        agent.acked(first + 299).await;
    }
    for (limit, more, expected) in [
        ("1100", true, 101..=1200),
        ("1200", false, 1..=1200),
        ("5000", false, 1..=1200),
        ("500", true, 701..=1200),
    ] {
        let output = run(&rig, &["history", "box", "--json", "--limit", limit]).await;
        let text = String::from_utf8(output.stdout).unwrap();
        let ids: Vec<u64> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["id"]
                    .as_u64()
                    .unwrap()
            })
            .collect();
        assert_eq!(ids, expected.collect::<Vec<u64>>(), "{limit}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.contains("older records are not shown"), more, "{said}");
    }
}

#[tokio::test]
async fn a_demo_that_fails_names_the_step_and_shows_the_log() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let triton = dir.path().join("triton");
    let script = format!(
        "#!/bin/sh\nif [ $1 = identifier ]; then echo {}; else echo out of luck >&2; exit 3; fi\n",
        "0".repeat(64)
    );
    std::fs::write(&triton, script).unwrap();
    std::fs::set_permissions(&triton, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_poseidon"));
    demo.args(["demo", "--exit", "--triton"])
        .arg(&triton)
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = within(demo.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("shows up as pending") && said.contains("out of luck"),
        "{said}"
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "the folder is gone"
    );
}
