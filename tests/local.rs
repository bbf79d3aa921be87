//! The commands of the program on the local socket, without any Poseidon.

mod support;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use support::agent::{Agent, triton};
use support::eventually;
use triton::message::payload::{self, Error, JobResult, Output};
use triton::message::{ErrorCode, Message};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_is_of_commands_that_there_are() {
    for (topic, begin) in [
        ("schedule", "Usage: triton schedule [--json]\n"),
        ("engine", "Usage: triton engine [--pipe PATH] COMMAND\n"),
        ("exec", "Usage: triton exec "),
        ("doctor", "Usage: triton [OPTIONS] COMMAND\n"),
    ] {
        let done = triton().args(["help", topic]).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{topic}");
        let text = text(&done.stdout);
        assert!(text.starts_with(begin), "{topic}: {text}");
    }
    for line in [&["help", "nosuch"][..], &["nosuch", "--help"]] {
        let done = triton().args(line).output().unwrap();
        assert_eq!(done.status.code(), Some(2), "{line:?}");
        assert!(done.stdout.is_empty());
        let text = text(&done.stderr);
        assert!(text.contains("no command \"nosuch\""), "{text}");
    }
}

#[test]
fn exec_streams_and_ends_with_the_jobs_code() {
    let agent = Agent::offline();
    let done = agent.run(&["exec", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(text(&done.stdout), "out\n");
    assert_eq!(text(&done.stderr), "err\n");
    assert_eq!(done.status.code(), Some(7));
    let done = agent.run(&[
        "exec",
        "--shell",
        "printf '%s' \"$GREETING $PWD\"",
        "--env",
        "GREETING=hi",
        "--cwd",
        "/",
    ]);
    assert_eq!(text(&done.stdout), "hi /");
    for (code, line) in [
        (124, &["exec", "--timeout", "0.2", "--", "sleep", "100"][..]),
        (127, &["exec", "--", "/does/not/exist"]),
        (126, &["exec", "--", "/etc/passwd"]),
        (128 + 9, &["exec", "--shell", "kill -9 $$"]),
        (125, &["exec", "--env", "=x", "--", "true"]),
        (2, &["exec", "--fast", "--", "true"]),
    ] {
        let done = agent.run(line);
        assert_eq!(
            done.status.code(),
            Some(code),
            "{line:?}: {}",
            text(&done.stderr)
        );
        assert!(!done.stderr.is_empty(), "{line:?} explains itself");
    }
}

#[test]
fn exec_gives_any_bytes_both_ways() {
    let agent = Agent::offline();
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|n| (n * 7 + n / 256).to_le_bytes()[0])
        .collect();
    let mut child = agent
        .command(&["exec", "--stdin", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(done.status.success());
    assert_eq!(done.stdout, bytes);
}

#[test]
fn ctrl_c_cancels_the_job() {
    let agent = Agent::offline();
    let marker = agent.folder().join("pid");
    let line = format!(
        "echo $$ > {}; echo ready; exec sleep 1000",
        marker.display()
    );
    let mut child = agent
        .command(&["exec", "--shell", &line])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (ready, _output) = support::first_line(&mut child);
    assert_eq!(ready, "ready\n");
    let job = std::fs::read_to_string(&marker).unwrap();
    support::signal(child.id(), libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let process = format!("/proc/{}", job.trim());
    eventually("the job is gone", || {
        (!std::path::Path::new(&process).exists()).then_some(())
    });
}

#[test]
fn jobs_are_listed_and_cancelled_from_elsewhere() {
    let agent = Agent::offline();
    assert_eq!(
        text(&agent.run(&["jobs"]).stdout),
        "No job runs or waits.\n"
    );
    let mut child = agent
        .command(&[
            "exec",
            "--shell",
            "trap '' TERM; echo $TRITON_JOB; sleep 1000; sleep 1000",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (token, _output) = support::first_line(&mut child);
    let token = token.trim();
    let list = text(&agent.run(&["jobs"]).stdout);
    let line: Vec<&str> = list.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line[..3], [token, "command", "running"], "{list}");
    let list: serde_json::Value =
        serde_json::from_slice(&agent.run(&["jobs", "--json"]).stdout).unwrap();
    assert_eq!(list[0]["token"], token);
    assert!(list[0]["acceptedAt"].as_f64() <= list[0]["startedAt"].as_f64());

    for wrong in [&token[..3], "nosuchjob", ""] {
        let done = agent.run(&["cancel", wrong]);
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{wrong}: {said}");
        assert!(said.contains("triton jobs"), "{said}");
    }
    let done = agent.run(&["cancel", &token[..10], "--grace", "0"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    eventually("it is gone", || {
        text(&agent.run(&["jobs"]).stdout)
            .starts_with("No job")
            .then_some(())
    });
    let done = agent.run(&["cancel", token]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("triton history --token"));
}

#[test]
fn a_killed_exec_takes_its_job_with_it() {
    let agent = Agent::offline();
    let mut child = agent
        .command(&["exec", "--shell", "echo $$; exec sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (job, _output) = support::first_line(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    let process = format!("/proc/{}", job.trim());
    eventually("the job is gone", || {
        (!std::path::Path::new(&process).exists()).then_some(())
    });
}

#[test]
fn commands_say_what_is_wrong_without_a_daemon() {
    let agent = Agent::new();
    for line in [&["status"][..], &["exec", "--", "true"]] {
        let done = agent.run(line);
        assert!(!done.status.success());
        let said = text(&done.stderr);
        assert!(
            said.contains("triton.sock") && said.contains("triton run"),
            "{said}"
        );
    }
    let done = triton().arg("--version").output().unwrap();
    assert_eq!(
        text(&done.stdout),
        concat!("triton ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let done = triton().arg("--help").output().unwrap();
    for word in [
        "run",
        "status",
        "exec",
        "identifier",
        "check-config",
        "doctor",
        "TRITON_URL",
    ] {
        assert!(text(&done.stdout).contains(word), "{word}");
    }
    let done = triton().output().unwrap();
    assert_eq!(done.status.code(), Some(2));
}

#[test]
fn the_identifier_is_generated_once_private_and_shown_on_request() {
    let agent = Agent::new();
    let first = text(&agent.run(&["identifier"]).stdout);
    assert_eq!(first.trim().len(), 64);
    assert_eq!(text(&agent.run(&["identifier"]).stdout), first);
    assert_eq!(
        text(&agent.run(&["identifier", "--fingerprint"]).stdout)
            .trim()
            .len(),
        16
    );
    let mode = std::fs::metadata(agent.state().join("identifier"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let file = agent.folder().join("key");
    std::fs::write(&file, "provided\n").unwrap();
    let given = agent.run(&["identifier", "--identifier-file", file.to_str().unwrap()]);
    assert_eq!(text(&given.stdout), "provided\n");
}

#[test]
fn check_config_names_file_line_and_what_is_allowed() {
    let agent = Agent::new();
    let file = agent.folder().join("t.toml");
    std::fs::write(&file, "url = \"ws://a\"\n\n[jobs]\nworkers = 1000\n").unwrap();
    let done = agent.run(&["check-config", "--config", file.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(1));
    let said = text(&done.stderr);
    assert!(
        said.contains("t.toml:4: ") && said.contains("from 1 to 64"),
        "{said}"
    );
    std::fs::write(&file, "url = \"ws://a\"\n").unwrap();
    let done = agent.run(&["check-config", "--config", file.to_str().unwrap()]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(!agent.state().exists(), "checking creates nothing");
}

#[test]
fn check_config_finds_what_would_stop_the_agent_or_its_connection() {
    let agent = Agent::new();
    let file = agent.folder().join("t.toml");
    let check = |content: String, variable: Option<&OsStr>| {
        std::fs::write(&file, content).unwrap();
        let mut command = agent.command(&["check-config", "--config", file.to_str().unwrap()]);
        if let Some(value) = variable {
            command.env("TRITON_URL", value);
        }
        let done = command.output().unwrap();
        (done.status.code(), text(&done.stderr))
    };
    let (code, said) = check("socket_group = \"no-such-group\"\n".into(), None);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("socket_group") && said.contains("no-such-group"),
        "{said}"
    );
    let empty = agent.folder().join("empty.pem");
    std::fs::write(&empty, "no certificate\n").unwrap();
    let (code, said) = check(format!("[tls]\nca_file = {empty:?}\n"), None);
    assert_eq!(code, Some(1));
    assert!(said.contains("empty.pem: holds no certificate"), "{said}");
    let (code, said) = check(String::new(), Some(OsStr::from_bytes(b"\xff")));
    assert_eq!(code, Some(1));
    assert!(said.contains("TRITON_URL is not UTF-8"), "{said}");
    assert_eq!(check(String::new(), None).0, Some(0));
}

#[test]
fn what_cannot_be_printed_is_an_error() {
    let agent = Agent::new();
    for command in [&["identifier"][..], &["check-config"], &["--version"]] {
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let done = agent.command(command).stdout(full).output().unwrap();
        assert_eq!(done.status.code(), Some(1), "{command:?}");
        assert!(text(&done.stderr).contains("cannot write to standard output"));
    }
}

#[test]
fn a_second_agent_is_refused_and_the_first_goes_on() {
    let agent = Agent::offline();
    let same_state = agent.run(&["run"]);
    assert_eq!(same_state.status.code(), Some(1));
    assert!(text(&same_state.stderr).contains("another triton uses the state folder"));
    let mut other = triton();
    other.arg("run").arg("--socket").arg(agent.socket());
    other.arg("--state").arg(agent.folder().join("other"));
    let same_socket = other.output().unwrap();
    assert_eq!(same_socket.status.code(), Some(1));
    assert!(text(&same_socket.stderr).contains("another triton listens on"));
    assert!(agent.run(&["status"]).status.success());
}

#[test]
fn a_socket_left_by_a_killed_agent_is_replaced() {
    let mut agent = Agent::offline();
    agent.kill();
    assert!(agent.socket().exists());
    agent.start();
    agent.wait_until_it_serves();
    // What is no socket is left alone.
    let mut other = Agent::new();
    std::fs::write(other.socket(), "precious").unwrap();
    other.start();
    assert!(!other.wait().success());
    assert!(other.log().contains("is no socket"));
    assert_eq!(std::fs::read_to_string(other.socket()).unwrap(), "precious");
}

#[test]
fn the_socket_is_for_its_owner_or_the_group() {
    let agent = Agent::offline();
    let mode = |agent: &Agent| {
        std::fs::metadata(agent.socket())
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode(&agent), 0o600);
    let mut agent = Agent::new().with(&["--socket-group", "nogroup"]);
    agent.start();
    agent.wait_until_it_serves();
    assert_eq!(mode(&agent), 0o660);
    let mut agent = Agent::new().with(&["--socket-group", "no-such-group"]);
    agent.start();
    assert_eq!(agent.wait().code(), Some(1));
    assert!(agent.log().contains("no-such-group"));
}

fn lines(agent: &Agent) -> (UnixStream, impl Iterator<Item = Message>) {
    let stream = UnixStream::connect(agent.socket()).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let reader = BufReader::new(stream.try_clone().unwrap());
    let messages = reader
        .lines()
        .map(|line| Message::decode(line.unwrap().as_bytes(), 4 << 20).unwrap());
    (stream, messages)
}

#[test]
fn the_socket_speaks_messages_line_by_line() {
    let agent = Agent::offline();
    let (mut stream, mut messages) = lines(&agent);
    let line = "\n\r\n<tritonMessage><type>command</type><id>seed</id><payload><![CDATA[<c><argv>echo</argv><argv>xml</argv></c>]]></payload></tritonMessage>";
    // Cut into pieces; the last line without its end.
    for piece in line.as_bytes().chunks(7) {
        stream.write_all(piece).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(messages.next().unwrap().kind, payload::ACCEPTED);
    let output: Output = messages.next().unwrap().read().unwrap();
    assert_eq!(output.data, "xml\n");
    let result: JobResult = messages.next().unwrap().read().unwrap();
    assert_eq!(result.exit_code, Some(0));
    assert!(
        messages.next().is_none(),
        "the daemon closes when all is said"
    );
}

#[test]
fn bad_lines_are_answered_and_the_connection_lives() {
    let agent = Agent::offline();
    let (mut stream, mut messages) = lines(&agent);
    let mut code = |line: &[u8]| {
        stream.write_all(line).unwrap();
        stream.write_all(b"\n").unwrap();
        messages.next().unwrap().read::<Error>().unwrap().code
    };
    assert_eq!(code(b"garbage"), ErrorCode::Invalid);
    assert_eq!(code(b"\xff\xfe"), ErrorCode::Invalid);
    assert_eq!(code(&vec![b'x'; 3 << 20]), ErrorCode::TooLarge);
    assert_eq!(
        code(b"<tritonMessage><type>dance</type><id>1</id></tritonMessage>"),
        ErrorCode::UnknownType
    );
    assert!(agent.run(&["status"]).status.success());
}

#[test]
fn a_crowd_of_clients_is_bounded_and_served_in_the_end() {
    let agent = Agent::offline();
    let before = agent.resources();
    let mut crowd: Vec<UnixStream> = (0..40)
        .map(|_| UnixStream::connect(agent.socket()).unwrap())
        .collect();
    let status = Message::new(payload::AGENT_STATUS).encode().unwrap() + "\n";
    for stream in &mut crowd {
        stream.write_all(status.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    for mut stream in crowd {
        let mut answer = String::new();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("agent.status"));
    }
    eventually("the descriptors are closed", || {
        // Each client took two; threads of the start and a status may come and go meanwhile.
        let after = agent.resources();
        (after.0 < before.0 + 5 && after.1 < before.1 + 5).then_some(())
    });
}

#[test]
fn what_a_client_in_the_queue_gave_up_is_not_done() {
    let agent = Agent::offline();
    let crowd: Vec<UnixStream> = (0..16)
        .map(|_| UnixStream::connect(agent.socket()).unwrap())
        .collect();
    let file = agent.folder().join("ran");
    let mut waiting = agent
        .command(&["exec", "--", "touch", file.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Killed, as by a script's timeout.
    let mut killed = agent.command(&["put", "key", "value"]).spawn().unwrap();
    let mut said = BufReader::new(waiting.stderr.take().unwrap()).lines();
    let first = said.next().unwrap().unwrap();
    assert!(first.contains("waiting for the daemon"), "{first}");
    killed.kill().unwrap();
    killed.wait().unwrap();
    support::signal(waiting.id(), libc::SIGINT);
    assert_eq!(waiting.wait().unwrap().code(), Some(130));
    assert!(said.next().unwrap().unwrap().contains("it does not run"));
    drop(crowd);
    let history = agent.run(&["history", "--json"]);
    assert!(history.status.success());
    assert_eq!(text(&history.stdout), "");
    assert!(!file.exists());
}

#[test]
fn a_client_that_does_not_read_holds_up_its_job_only() {
    let agent = Agent::offline();
    let (mut lazy, messages) = lines(&agent);
    let flood = Message::with(payload::COMMAND, &serde_json::json!({"argv": ["yes"]}));
    lazy.write_all((flood.encode().unwrap() + "\n").as_bytes())
        .unwrap();
    eventually("the flood runs", || {
        (agent.status()["jobs"]["running"] == 1).then_some(())
    });
    for _ in 0..20 {
        assert!(agent.run(&["exec", "--", "true"]).status.success());
    }
    // Under qemu most of it is qemu's.
    let limit = if std::env::var_os("TRITON_TEST_BINARY").is_some() {
        64 << 20
    } else {
        16 << 20
    };
    assert!(agent.resident() < limit, "{}", agent.resident());
    drop(lazy);
    drop(messages);
    eventually("the flood is cancelled", || {
        (agent.status()["jobs"]["running"] == 0).then_some(())
    });
}

#[test]
fn sigterm_during_a_job_ends_it_and_the_agent() {
    let mut agent = Agent::offline();
    let mut child = agent
        .command(&[
            "exec",
            "--shell",
            "trap '' TERM; echo $$; while :; do sleep 1; done",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (job, _output) = support::first_line(&mut child);
    let before = std::time::Instant::now();
    assert!(agent.stop().success());
    assert!(
        before.elapsed() < std::time::Duration::from_secs(5),
        "procd kills after 5 s"
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(
        !std::path::Path::new(&format!("/proc/{}", job.trim())).exists(),
        "it ignored SIGTERM"
    );
    assert!(!agent.socket().exists());
}

#[test]
fn the_whole_group_has_its_grace() {
    let agent = Agent::offline();
    let cleaned = agent.folder().join("cleaned");
    // The leader ends at once; the one behind it tidies up and holds no pipe of the job.
    let line = format!(
        "(trap 'sleep 0.5; echo yes > {}; exit' TERM; echo ready >&2; while :; do sleep 0.1; done) >/dev/null 2>&3 & \
         exec 3>&-; wait",
        cleaned.display()
    );
    let line = format!("exec 3>{}; {line}", agent.folder().join("ready").display());
    let mut child = agent
        .command(&["exec", "--shell", &line])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the job is ready", || {
        let text = std::fs::read_to_string(agent.folder().join("ready")).unwrap_or_default();
        text.contains("ready").then_some(())
    });
    support::signal(child.id(), libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(
        std::fs::read_to_string(&cleaned).unwrap_or_default(),
        "yes\n"
    );
}
