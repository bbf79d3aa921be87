//! Several real agents and the real Poseidon: what it has them do by themselves, and what it has all of them do.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime};
use support::agent::Agent;
use support::eventually;
use support::poseidon::Poseidon;

fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[track_caller]
fn done(poseidon: &Poseidon, arguments: &[&str]) -> String {
    let output = poseidon.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    said(&output)
}

/// A registered agent that is up.
fn member(poseidon: &Poseidon, name: &str) -> Agent {
    let mut agent = Agent::new().with(&["--url", &poseidon.url(), "--heartbeat", "1"]);
    let identifier = agent.run(&["identifier"]).stdout;
    poseidon.register(String::from_utf8(identifier).unwrap().trim(), name);
    agent.start();
    poseidon.wait_for(name, "up");
    agent
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
fn more_lines(path: &Path) -> usize {
    let before = lines(path).len();
    eventually("it runs again", || {
        Some(lines(path).len()).filter(|now| *now > before + 1)
    })
}

/// Sets a schedule from a file of TOML.
#[track_caller]
fn schedule(poseidon: &Poseidon, agent: &Agent, text: &str, code: i32) -> String {
    let file = agent.folder().join("schedule.toml");
    fs::write(&file, text).unwrap();
    let set = poseidon.run(&["schedule", "set", "gate", file.to_str().unwrap()]);
    assert_eq!(set.status.code(), Some(code), "{}", said(&set));
    said(&set)
}

#[test]
fn a_schedule_runs_while_poseidon_is_down_and_follows_it_when_it_is_back() {
    let mut poseidon = Poseidon::on_a_held_port(&[]);
    let mut agent = member(&poseidon, "gate");
    let (one, two) = (agent.folder().join("one"), agent.folder().join("two"));
    let entry = |name: &str, path: &Path| {
        let shell = format!("echo $TRITON_JOB >> {}", path.display());
        format!(
            "[schedule.{name}]\ncron = \"* * * * * *\"\nshell = \"{shell}\"\noverlap = \"allow\"\n"
        )
    };
    schedule(&poseidon, &agent, &entry("one", &one), 0);
    more_lines(&one);
    let shown = eventually("the device says so", || {
        let shown = poseidon.json(&["schedule", "ls", "gate", "--json"]);
        let list = &shown["devices"][0]["schedule"];
        (list["revision"] == shown["revision"] && list["entries"][0]["last"]["status"].is_string())
            .then_some(shown)
    });
    let entry_shown = &shown["devices"][0]["schedule"]["entries"][0];
    assert!(entry_shown["next"].is_number(), "{shown}");
    let table = done(&poseidon, &["schedule", "ls", "gate"]);
    assert!(
        table.contains("gate/") && table.contains(" is up\n") && table.contains("poseidon"),
        "{table}"
    );

    poseidon.kill();
    agent.wait_for_link("waiting");
    let alone = lines(&one).len();
    more_lines(&one);
    // It is the device's own: it needs no Poseidon to start anew, either.
    agent.kill();
    agent.start();
    more_lines(&one);

    poseidon.launch();
    poseidon.wait_for("gate", "up");
    // What ran meanwhile is known here now.
    let token = &lines(&one)[alone];
    assert!(token.starts_with("schedule:poseidon:one:"), "{token}");
    eventually("its record arrives", || {
        let history = done(&poseidon, &["history", "gate", "--token", token]);
        history.contains("  ok  ").then_some(())
    });

    // Changed while the device is away.
    agent.kill();
    poseidon.wait_for("gate", "down");
    let told = schedule(&poseidon, &agent, &entry("two", &two), 0);
    assert!(told.contains("gets it when it comes"), "{told}");
    agent.start();
    more_lines(&two);
    let over = lines(&one).len();
    more_lines(&two);
    assert_eq!(lines(&one).len(), over, "it is gone");
    done(&poseidon, &["schedule", "rm", "gate"]);
    eventually("nothing is left", || {
        (agent.status()["schedule"]["entries"] == 0).then_some(())
    });
}

#[test]
fn skipped_times_and_zones_that_a_device_does_not_know_are_told() {
    let poseidon = Poseidon::start();
    let agent = member(&poseidon, "gate");
    // A second run comes while the first is not over.
    let slow = "[schedule.slow]\ncron = \"* * * * * *\"\nshell = \"sleep 3\"\n";
    schedule(&poseidon, &agent, slow, 0);
    let line = eventually("it is told", || {
        let history = done(&poseidon, &["history", "gate", "--code", "skipped"]);
        let line = history.lines().find(|line| line.contains("slow"))?;
        Some(line.to_owned())
    });
    assert!(
        line.contains("  skipped  schedule:poseidon:slow  slow did not run "),
        "{line}"
    );
    assert!(line.contains(": overlap"), "{line}");
    let strange =
        "[schedule.a]\ncron = \"@daily\"\nshell = \"true\"\ntime_zone = \"Mars/Phobos\"\n";
    let told = schedule(&poseidon, &agent, strange, 1);
    assert!(
        told.contains("gate did not take it: invalid: entry 1 (a): timeZone"),
        "{told}"
    );
    let table = done(&poseidon, &["schedule", "ls", "gate"]);
    assert!(table.contains("did not take it"), "{table}");
    assert!(
        table.contains("entry 1 (a): timeZone: the zone Mars/Phobos is not known here"),
        "{table}"
    );
    // What it had it keeps.
    assert!(table.contains("slow"), "{table}");
}

#[test]
fn a_folder_comes_as_it_is_and_goes_back_the_same() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let poseidon = Poseidon::start();
    let agent = member(&poseidon, "gate");
    let there = agent.folder().join("srv");
    let at = |path: &str| there.join(path);
    fs::create_dir_all(at("a/b/c")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    for n in 0..20 {
        fs::write(at(&format!("a/b/{n} ä")), format!("{n}\n").repeat(n * 1000)).unwrap();
    }
    fs::write(at("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at("run.sh"), PermissionsExt::from_mode(0o4755)).unwrap();
    fs::set_permissions(at("a/b"), PermissionsExt::from_mode(0o555)).unwrap();
    // Whoever follows these finds what is not the folder's.
    symlink("/etc/passwd", at("a/outside")).unwrap();
    symlink("../..", at("a/up")).unwrap();
    symlink("nothing", at("broken")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(at("pipe"))
            .status()
            .unwrap()
            .success()
    );
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
    for path in ["run.sh", "a", "a/b"] {
        let times = fs::FileTimes::new().set_modified(long_ago);
        let opened = fs::File::open(at(path)).unwrap();
        opened.set_times(times).unwrap();
    }
    let here = tempfile::tempdir().unwrap();
    let pull = |to: &str, more: &[&str]| {
        let place = format!("gate:{}", there.display());
        let to = here.path().join(to);
        let mut arguments = vec!["pull", "-r", &place, to.to_str().unwrap()];
        arguments.extend(more);
        poseidon.run(&arguments)
    };
    let pulled = pull("copy", &[]);
    assert!(pulled.status.success(), "{}", said(&pulled));
    assert!(said(&pulled).contains("pipe: a pipe"), "{}", said(&pulled));
    assert!(
        said(&pulled).contains("21 files, 5 folders, 3 links"),
        "{}",
        said(&pulled)
    );
    fs::remove_file(at("pipe")).unwrap();
    let same = Command::new("diff")
        .args(["-r", "--no-dereference"])
        .arg(&there)
        .arg(here.path().join("copy"))
        .output()
        .unwrap();
    assert!(same.status.success(), "{}", said(&same));
    for path in ["run.sh", "a", "a/b"] {
        let metadata = fs::metadata(here.path().join("copy").join(path)).unwrap();
        assert_eq!(metadata.modified().unwrap(), long_ago, "{path}");
    }
    let mode = |path: &str| {
        let metadata = fs::metadata(here.path().join("copy").join(path)).unwrap();
        metadata.permissions().mode() & 0o7777
    };
    // Nobody becomes another user by what a device has.
    assert_eq!(
        (mode("run.sh") & 0o7700, mode("a/b") & 0o700),
        (0o700, 0o500)
    );
    // Again: what is there stays, and another folder is the place for it.
    assert!(pull(".", &[]).status.success());
    let again = pull(".", &[]);
    assert!(!again.status.success() && said(&again).contains("is there already"));
    assert!(here.path().join("srv/run.sh").exists());
    let refused = pull("none", &["--no-links"]);
    assert!(!refused.status.success() && said(&refused).contains("is a symbolic link"));
    let left: Vec<_> = fs::read_dir(here.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "copy" && name != "srv")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A device whose program is a copy of its own.
struct Copy {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Copy {
    fn new(poseidon: &Poseidon, name: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("bin")).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_triton"), at("bin/triton")).unwrap();
        let identifier = format!("an-identifier-for-the-update-of-{name}");
        let config = format!(
            "url = {:?}\nstate = \"{}\"\nsocket = \"{}\"\nidentifier = {identifier:?}\n{more}",
            poseidon.url(),
            at("state").display(),
            at("socket").display(),
        );
        fs::write(at("triton.toml"), config).unwrap();
        poseidon.register(&identifier, name);
        let mut command = Command::new(at("bin/triton"));
        for (name, _) in std::env::vars() {
            if name.starts_with("TRITON_") || name.to_lowercase().ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command.arg("--config").arg(at("triton.toml")).arg("run");
        command.stdin(Stdio::null());
        let child = Some(command.spawn().unwrap());
        poseidon.wait_for(name, "up");
        Self { folder, child }
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("bin/triton")
    }

    /// The program that runs, whatever is on the disk.
    fn runs(&self) -> Vec<u8> {
        let pid = self.child.as_ref().unwrap().id();
        fs::read(format!("/proc/{pid}/exe")).unwrap()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_key_is_made_and_a_program_signed_with_it_is_what_runs() {
    let poseidon = Poseidon::start();
    let work = tempfile::tempdir().unwrap();
    let path = |name: &str| work.path().join(name).to_str().unwrap().to_owned();
    let (key, other) = (path("key"), path("other"));
    // As it is told to be written down: the lines behind the key are the configuration.
    let told = String::from_utf8(poseidon.run(&["signing-key", &key]).stdout).unwrap();
    let section: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    let section = section.join("\n");
    assert!(section.starts_with("[update]\nkeys = [\""), "{told}");
    let device = Copy::new(&poseidon, "gate", &section);
    let plain = Copy::new(&poseidon, "plain", "");
    let old = fs::read(device.program()).unwrap();
    let mut new = old.clone();
    new.extend_from_slice(b"a newer one");
    let file = path("triton");
    fs::write(&file, &new).unwrap();

    poseidon.run(&["signing-key", &other]);
    // The wrong file gets nowhere near a device.
    let wrong = poseidon.run(&["update", "gate", "--file", &other, "--key", &key]);
    assert!(said(&wrong).contains("is no program"), "{}", said(&wrong));
    let update =
        |name: &str, key: &str| poseidon.run(&["update", name, "--file", &file, "--key", key]);
    for (name, key, why) in [
        ("gate", &other, "untrusted"),
        ("plain", &key, "update.keys"),
    ] {
        let refused = update(name, key);
        assert!(!refused.status.success(), "{}", said(&refused));
        assert!(said(&refused).contains(why), "{}", said(&refused));
    }
    assert_eq!(fs::read(plain.program()).unwrap(), old);
    assert!(device.runs() == old);

    let updated = update("gate", &key);
    assert!(updated.status.success(), "{}", said(&updated));
    poseidon.wait_for("gate", "up");
    assert!(device.runs() == new, "the new program runs");
    assert_eq!(fs::read(device.program()).unwrap(), new);
    // It does what it did before.
    let echo = done(&poseidon, &["run", "gate", "--", "echo", "here"]);
    assert_eq!(echo, "here\n");
}

#[test]
fn a_batch_over_real_agents_stops_where_it_should() {
    let poseidon = Poseidon::start();
    let names = ["gate-1", "gate-2", "gate-3", "gate-4"];
    let agents: Vec<Agent> = names.iter().map(|name| member(&poseidon, name)).collect();
    let marks = || {
        let marks = agents.iter().map(|a| a.folder().join("mark").exists());
        marks.filter(|there| *there).count()
    };
    // In the folder of each agent: its state folder's parent is what only it knows.
    let mark = "cd \"$(dirname \"$TRITON_SOCKET\")\" && ";
    let run = |more: &[&str], shell: &str| {
        let shell = format!("{mark}{shell}");
        let mut arguments = vec!["run", "--on", "gate-*"];
        arguments.extend(more);
        arguments.extend(["--", "sh", "-c", &shell]);
        poseidon.run(&arguments)
    };
    let failed = run(&["--canary", "1"], "touch mark; exit 3");
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert_eq!(marks(), 1, "{}", said(&failed));
    assert!(
        said(&failed).contains("Stopped: one of the first did not succeed."),
        "{}",
        said(&failed)
    );
    let failed = run(
        &["--stop-on-failures", "2", "--concurrency", "1"],
        "rm -f mark; touch mark; echo tried; exit 1",
    );
    assert!(!failed.status.success());
    assert_eq!(
        String::from_utf8_lossy(&failed.stdout)
            .matches("tried")
            .count(),
        2,
        "{}",
        said(&failed)
    );
    // One of them goes while its job runs.
    let slow = agents[3].folder().join("slow");
    fs::write(&slow, "").unwrap();
    let child = poseidon
        .command(&["run", "--on", "gate-*", "--json", "--", "sh", "-c"])
        .arg(format!(
            "{mark}if [ -e slow ]; then touch begun; exec sleep 1000; fi; touch mark"
        ))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it has begun", || {
        agents[3].folder().join("begun").exists().then_some(())
    });
    let mut agents = agents;
    agents[3].kill();
    agents[3].start();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success(), "{}", said(&output));
    let batches = poseidon.json(&["batches", "--json"]);
    let batch = batches["batches"][0]["id"].as_str().unwrap().to_owned();
    let batch: Value = poseidon.json(&["batch", &batch, "--json"]);
    let members = batch["members"].as_array().unwrap();
    let of = |name: &str| {
        let member = members.iter().find(|m| m["agent"] == name).unwrap();
        member["state"].clone()
    };
    assert_eq!(of("gate-1"), json!("succeeded"), "{batch}");
    assert_eq!(of("gate-4"), json!("failed"), "{batch}");
}
