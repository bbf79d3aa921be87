//! The real Poseidon on a full disk while agents report and people ask: each is told the truth, nothing that was
//! acknowledged is lost, and all goes on by itself when there is room.

mod support;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use support::agent::Agent;
use support::eventually;
use support::ledger::Ledger;
use support::place::{Namespace, fill, possible};
use support::poseidon::Poseidon;
use support::rig::{FAST, NAME, Rig};
use triton::message::payload::code;

/// More than what stays free for the database.
const DISK: u64 = 128 << 20;

/// One agent at a Poseidon whose data folder is a disk of its own.
struct Central {
    rig: Rig,
    /// The data folder as seen from here.
    inside: PathBuf,
    _disk: Namespace,
}

impl Central {
    fn start() -> Option<Self> {
        if !possible("--mount") {
            return None;
        }
        let mut poseidon = Poseidon::at("127.0.0.1:0", FAST);
        let data = poseidon.data();
        let disk = Namespace::with_disk(&data, DISK);
        poseidon.put_in(disk.place());
        poseidon.launch();
        let url = poseidon.url();
        Some(Self {
            inside: disk.place().path(&data),
            rig: Rig::of(poseidon, Agent::new(), &url),
            _disk: disk,
        })
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.rig.api.call(method, path, Some(body)).unwrap()
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.rig.api.get(path).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn job(&self, line: &str) -> String {
        let body = json!({ "agents": [NAME], "command": { "shell": line } });
        let (status, answer) = self.call("POST", "jobs", &body);
        assert_eq!(status, 201, "{answer}");
        answer["jobs"][0]["id"].as_str().unwrap().to_owned()
    }

    /// Fills the disk until an act is refused: the log of the store may have some room of its own left.
    fn fill(&self) -> PathBuf {
        let ballast = fill(&self.inside);
        let name = json!({ "name": "probe", "role": "viewer" });
        eventually("an act is refused", || {
            let (status, _) = self.call("POST", "tokens", &name);
            self.call("DELETE", "tokens/probe", &json!({}));
            (status == 507).then_some(())
        });
        ballast
    }

    /// Waits until acts are done again.
    fn wait_for_room(&self) {
        let name = json!({ "name": "again", "role": "viewer" });
        eventually("an act is done again", || {
            (self.call("POST", "tokens", &name).0 == 201).then_some(())
        });
    }

    fn event(&self, name: &str) {
        let line = format!("CEF:0|v|p|1|s|{name}|5|");
        let done = self.rig.agent.run(&["event", &line]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{said}");
    }

    /// The names of the events that Poseidon has, each once.
    fn events(&self) -> BTreeSet<String> {
        let found = self.get("cef?limit=500");
        let mut names = BTreeSet::new();
        for event in found["events"].as_array().unwrap() {
            let name = event["name"].as_str().unwrap().to_owned();
            assert!(names.insert(name.clone()), "{name} is there twice");
        }
        names
    }

    /// All is quiet: each value that the agent has confirmed is there once, under its sequence.
    fn settle(&self) -> Ledger {
        self.rig.wait_until_connected();
        let ledger = self.rig.settle();
        println!("{ledger}");
        assert_eq!(ledger.waiting, 0, "{ledger}");
        let values = ledger.rows.iter().filter(|row| row.code == code::VALUE);
        let mut arrived: Vec<_> = values
            .map(|row| (row.data["n"].as_u64(), Some(row.id)))
            .collect();
        arrived.sort_unstable();
        let wanted: Vec<_> = ledger
            .values
            .iter()
            .map(|v| (Some(v.n), v.sequence))
            .collect();
        assert_eq!(arrived, wanted);
        let ids: BTreeSet<u64> = ledger.rows.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), ledger.rows.len(), "a record is there twice");
        ledger
    }

    /// A command that finds the server by its address: the data folder is elsewhere.
    fn command(&self, arguments: &[&str]) -> Output {
        let poseidon = &self.rig.poseidon;
        let mut command = poseidon.command(arguments);
        command.env("POSEIDON_URL", format!("http://{}", poseidon.address()));
        command.env("POSEIDON_TOKEN", poseidon.token().trim());
        command.output().unwrap()
    }

    fn output(&self, token: &str) -> String {
        let output = self.command(&["output", token]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn each_act_says_that_the_disk_is_full_and_reading_goes_on() {
    let Some(central) = Central::start() else {
        return;
    };
    let before = central.job("echo before");
    eventually("it ends", || {
        (central.get(&format!("jobs/{before}"))["state"] == "ended").then_some(())
    });
    let script = format!("repositories/{NAME}/files/a.sh");
    let text = json!("#!/bin/sh");
    assert_eq!(central.call("PUT", &script, &text).0, 200);
    let ballast = central.fill();

    let hash = "0123456789abcdef".repeat(4);
    let order = json!({ "agents": [NAME], "command": { "argv": ["true"] } });
    let queued = json!({ "agents": [NAME], "command": { "argv": ["true"] }, "queue": true });
    let push = json!({ "agents": [NAME], "type": "file.put", "payload": { "path": "/tmp/x", "ref": format!("sha256:{hash}"), "size": 1, "sha256": hash } });
    let none = json!({});
    let acts = [
        ("POST", "jobs".to_owned(), &order),
        ("POST", "jobs".to_owned(), &queued),
        ("POST", "jobs".to_owned(), &push),
        ("POST", "batches".to_owned(), &order),
        ("PUT", format!("blobs/{hash}"), &text),
        ("PUT", script.clone(), &json!("#!/bin/sh\nnew")),
        ("DELETE", script.clone(), &none),
        (
            "POST",
            format!("repositories/{NAME}"),
            &json!({ "files": [] }),
        ),
        ("PUT", format!("data/{NAME}/key"), &text),
        ("PUT", format!("data/{NAME}/key?secret=true"), &text),
        (
            "PUT",
            format!("schedules/{NAME}"),
            &json!({ "entries": [] }),
        ),
        (
            "POST",
            "identifiers".to_owned(),
            &json!({ "identifier": "x".repeat(32), "name": "new" }),
        ),
        (
            "POST",
            "tokens".to_owned(),
            &json!({ "name": "new", "role": "viewer" }),
        ),
        ("POST", "trust/rotate".to_owned(), &none),
        ("POST", format!("trust/{NAME}/accept"), &none),
        ("DELETE", format!("agents/{NAME}"), &none),
        (
            "POST",
            "login".to_owned(),
            &json!({ "token": central.rig.poseidon.token().trim() }),
        ),
        ("GET", script.clone(), &none),
    ];
    let reads = [
        "agents".to_owned(),
        format!("agents/{NAME}"),
        format!("agents/{NAME}/modules"),
        format!("agents/{NAME}/metrics"),
        "jobs".to_owned(),
        format!("jobs/{before}"),
        "batches".to_owned(),
        "history".to_owned(),
        "cef".to_owned(),
        "cef/state".to_owned(),
        format!("repositories/{NAME}"),
        format!("data/{NAME}"),
        format!("schedules/{NAME}"),
        "identifiers".to_owned(),
        "audit".to_owned(),
        "me".to_owned(),
    ];
    // While the agent's own records, and other acts, fail all the time.
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for (method, path, body) in &acts {
                        let (status, answer) = central.call(method, path, body);
                        let error = &answer["error"];
                        let said = error["message"].as_str().unwrap_or_default();
                        let clear =
                            said.contains("disk of the data folder") && said.contains("free space");
                        assert!(
                            (status, &error["code"]) == (507, &json!("full")) && clear,
                            "{method} {path}: {status} {answer}"
                        );
                        central.rig.put().expect("the agent stores");
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            for path in &reads {
                central.get(path);
            }
        }
        for writer in writers {
            writer.join().unwrap();
        }
    });
    assert_eq!(central.output(&before), "before\n");
    let shown = central.command(&["run", "--on", "all", "--", "true"]);
    let said = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(
        !shown.status.success() && said.contains("free space there"),
        "{said}"
    );

    fs::remove_file(ballast).unwrap();
    central.wait_for_room();
    // Nothing was done by what was refused.
    let jobs = central.get("jobs");
    let commands = jobs["jobs"].as_array().unwrap().iter();
    assert_eq!(commands.filter(|job| job["type"] == "command").count(), 1);
    assert_eq!(central.get("batches")["batches"], json!([]));
    assert_eq!(central.get(&format!("data/{NAME}"))["data"], json!([]));
    let names: Vec<Value> = central.get("tokens")["tokens"].as_array().unwrap().clone();
    assert!(
        names.iter().all(|token| token["name"] != "new"),
        "{names:?}"
    );
    assert_eq!(
        central.call("PUT", &script, &json!("#!/bin/sh\nnew")).0,
        200
    );
    let after = central.job("echo after");
    eventually("it ends", || {
        (central.get(&format!("jobs/{after}"))["state"] == "ended").then_some(())
    });
    assert_eq!(central.output(&after), "after\n");
    assert_eq!(central.settle().values.len(), 2 * acts.len());
    let log = central.rig.poseidon.log();
    let said = log.matches("free space there").count();
    assert!((1..100).contains(&said), "{said} lines say it:\n{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn what_agents_report_waits_with_them_and_arrives_once() {
    let Some(mut central) = Central::start() else {
        return;
    };
    // Registered while there is room; it comes for the first time when there is none.
    let late = Agent::new();
    let identifier = String::from_utf8(late.run(&["identifier"]).stdout).unwrap();
    let body = json!({ "identifier": identifier.trim(), "name": "late" });
    assert_eq!(central.call("POST", "identifiers", &body).0, 201);
    let mut wanted = BTreeSet::new();
    central.event("before");
    wanted.insert("before".to_owned());
    let gate = central.rig.agent.folder().join("gate");
    let running = central.job(&format!(
        "echo begun; until [ -e {} ]; do sleep 0.1; done; seq 1 20000; exit 3",
        gate.display()
    ));
    eventually("what there was arrives", || {
        let begun = central.output(&running) == "begun\n";
        (begun && central.rig.waiting()? == 0).then_some(())
    });
    let ballast = central.fill();
    for n in 0..50 {
        central.event(&format!("full {n}"));
        wanted.insert(format!("full {n}"));
        central.rig.put().expect("the agent stores");
    }
    fs::write(&gate, "").unwrap();
    let mut late = late.with(&["--url", &central.rig.poseidon.url()]);
    late.start();
    eventually("all of it waits at the agent", || {
        (central.rig.waiting()? > 100).then_some(())
    });
    assert_eq!(central.events(), BTreeSet::from(["before".to_owned()]));
    assert_eq!(central.get(&format!("jobs/{running}"))["state"], "accepted");
    late.wait_for_log("next attempt");
    let log = late.log();
    assert!(
        !log.contains("untrusted") && !log.contains("trust accept"),
        "{log}"
    );
    let trust = central.get("trust").to_string();
    assert!(!trust.contains("cannot be stored"), "{trust}");

    // What it has not acknowledged is not lost by its end either.
    central.rig.poseidon.kill();
    central.rig.poseidon.launch();
    fs::remove_file(ballast).unwrap();
    central.wait_for_room();
    eventually("all events are there, each once", || {
        (central.events() == wanted).then_some(())
    });
    eventually("the end of the job is there", || {
        let job = central.get(&format!("jobs/{running}"));
        (job["result"]["exitCode"] == 3).then_some(())
    });
    let output = central.output(&running);
    assert!(output.starts_with("begun\n"), "{output:.100}");
    eventually("the late one is in", || {
        let agents = central.get("agents");
        let mut all = agents["agents"].as_array()?.iter();
        all.any(|agent| agent["name"] == "late" && agent["state"] == "up")
            .then_some(())
    });
    let ledger = central.settle();
    assert_eq!(ledger.values.len(), 50);
    let ends = ledger.rows.iter().filter(|row| row.token == running);
    assert_eq!(ends.map(|row| row.code).collect::<Vec<_>>(), [0, 2]);
    let log = central.rig.poseidon.log();
    assert!(
        log.contains("are not stored yet, and not acknowledged"),
        "{log}"
    );
    assert!(!log.contains("panicked"), "{log}");
}
