//! What the real agent lets a server ask for: by messages, by jobs that got somewhere else, by schedules, over reloads.

mod support;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use support::agent::Agent;
use support::eventually;
use support::fake::{Fake, Notes};
use support::poseidon::Poseidon;
use support::rig::{NAME, Rig};
use triton::message::Message;
use triton::message::payload::{self, DataRequest, DataResponse, Welcome};
use triton::message::text;

const CONTENT: &[u8] = b"new content\n";

fn hash(content: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(content)
        .iter()
        .fold(String::new(), |mut hex, b| {
            let _ = write!(hex, "{b:02x}");
            hex
        })
}

/// A server that sends what the test says and gives [`CONTENT`] to whoever asks, and an agent with a policy.
struct Desk {
    agent: Agent,
    orders: Sender<Message>,
    came: Notes<Message>,
}

impl Desk {
    fn new(policy: &str) -> Self {
        let (orders, queue) = channel();
        let queue: Arc<Mutex<Receiver<Message>>> = Arc::new(Mutex::new(queue));
        let came = Notes::new();
        let seen = came.clone();
        let fake = Fake::each(move |_, mut peer| {
            let welcome = Welcome {
                heartbeat_seconds: Some(1),
                acked: Some(0),
                ..Welcome::default()
            };
            peer.welcome(&welcome);
            // Heartbeats come each second, so that orders do not wait long.
            while let Some(message) = peer.next() {
                if message.kind == payload::DATA_REQUEST {
                    let request: DataRequest = message.read().unwrap();
                    let response = DataResponse {
                        reference: request.reference,
                        data: text::encode(CONTENT),
                        eof: true,
                        ..DataResponse::default()
                    };
                    peer.send(&message.reply(payload::DATA_RESPONSE, &response));
                } else if message.kind == payload::DATA_OFFER {
                    let done = json!({ "ref": message.conversation_id, "offset": 0, "length": 0 });
                    peer.send(&message.reply(payload::DATA_REQUEST, &done));
                    seen.add(message);
                } else if message.kind != payload::HEARTBEAT {
                    seen.add(message);
                }
                for order in queue.lock().unwrap().try_iter() {
                    peer.send(&order);
                }
            }
        });
        let agent = Agent::new();
        let file = agent.folder().join("triton.toml");
        let mut agent = agent.with(&["--url", &fake.url, "--config", file.to_str().unwrap()]);
        fs::write(&file, policy).unwrap();
        agent.start();
        agent.wait_for_link("connected");
        Self {
            agent,
            orders,
            came,
        }
    }

    fn file(&self) -> PathBuf {
        self.agent.folder().join("triton.toml")
    }

    fn send(&self, message: &Message) {
        self.orders.send(message.clone()).unwrap();
    }

    /// The end of a conversation.
    fn end_of(&self, message: &Message) -> Message {
        eventually("the conversation ends", || {
            let came = self.came.wait_for(0);
            came.into_iter().rev().find(|answer| {
                let ends = [payload::RESULT, payload::ERROR, message.kind.as_str()];
                answer.conversation_id == message.id && ends.contains(&answer.kind.as_str())
            })
        })
    }

    fn ask_message(&self, message: &Message) -> (String, Value) {
        self.send(message);
        let answer = self.end_of(message);
        (answer.kind.clone(), answer.read().unwrap())
    }

    fn ask(&self, kind: &str, payload: &Value) -> (String, Value) {
        self.ask_message(&Message::with(kind, payload))
    }

    /// The name of the rule that refuses it.
    #[track_caller]
    fn refused(&self, kind: &str, payload: &Value) -> String {
        let (answer, error) = self.ask(kind, payload);
        assert_eq!(
            (answer.as_str(), &error["code"]),
            ("error", &json!("refused")),
            "{kind} {payload}: {error}"
        );
        let rule = error["detail"]["policy"].as_str().unwrap().to_owned();
        assert!(
            error["message"].as_str().unwrap().contains(&rule),
            "{error}"
        );
        rule
    }

    #[track_caller]
    fn allowed(&self, kind: &str, payload: &Value) -> Value {
        let (answer, result) = self.ask(kind, payload);
        assert_ne!(answer, "error", "{kind} {payload}: {result}");
        result
    }

    fn reload(&self, policy: &str) {
        fs::write(self.file(), policy).unwrap();
        let before = self.agent.log().matches("configuration").count();
        self.agent.signal(libc::SIGHUP);
        eventually("the configuration is read anew", || {
            (self.agent.log().matches("configuration").count() > before).then_some(())
        });
    }

    fn status(&self) -> Value {
        self.agent.status()["policy"].clone()
    }
}

fn put(path: &Path) -> Value {
    let hash = hash(CONTENT);
    json!({ "path": path, "ref": format!("sha256:{hash}"), "size": CONTENT.len(), "sha256": hash })
}

#[test]
fn what_is_refused_is_answered_logged_and_counted() {
    let desk = Desk::new(
        "[policy.allow.uptime]\ncommand = [\"uptime\", \"echo *\"]\n\n\
         [policy.allow.acts]\ntype = [\"history.put\", \"cancel\", \"agent.*\"]\n\
         [policy.deny.exit]\ntype = \"agent.exit\"\n",
    );
    let said = desk.allowed(
        "command",
        &json!({"argv": ["echo", "a b"], "output": "collect"}),
    );
    assert_eq!(said["tail"]["stdout"]["data"], "a b\n");
    assert_eq!(
        desk.refused("command", &json!({"argv": ["touch", "/tmp/x"]})),
        "allow"
    );
    assert_eq!(
        desk.refused("command", &json!({"shell": "uptime"})),
        "allow"
    );
    assert_eq!(
        desk.refused(
            "command",
            &json!({"argv": ["uptime"], "env": {"LD_PRELOAD": "x"}})
        ),
        "allow"
    );
    assert_eq!(desk.refused("agent.exit", &json!({})), "deny.exit");
    assert_eq!(
        desk.refused("system.reboot", &json!({"delaySeconds": 60})),
        "allow"
    );
    assert_eq!(
        desk.refused("scripts.sync", &json!({"revision": "r", "files": []})),
        "allow"
    );
    assert_eq!(
        desk.refused("schedule.set", &json!({"revision": "r", "entries": []})),
        "allow"
    );
    assert_eq!(
        desk.refused("file.get", &json!({"path": "/etc/passwd"})),
        "allow"
    );
    // The types of an agent's own acts are allowed, so this goes on to the plugin, which has its own reason.
    let (_, error) = desk.ask("agent.update", &json!({}));
    assert!(error["detail"]["policy"].is_null(), "{error}");
    assert_eq!(
        desk.allowed("agent.status", &json!({}))["policy"]["refused"],
        8
    );
    let log = desk
        .agent
        .wait_for_log("was refused by this device's policy, allow");
    assert!(!log.contains("/tmp/x"), "arguments may be secrets: {log}");
    let status = desk.status();
    assert_eq!(status["profile"], "open");
    let exit = json!({"name": "exit", "action": "deny", "refused": 1});
    assert!(
        status["rules"].as_array().unwrap().contains(&exit),
        "{status}"
    );
}

#[test]
fn xml_is_judged_as_it_is_carried_out() {
    let marker = tempfile::tempdir().unwrap();
    let file = marker.path().join("made");
    let desk = Desk::new("[policy.allow.x]\ncommand = \"true\"\n");
    let shown = file.display();
    for payload in [
        format!("<c><argv>touch</argv><argv>{shown}</argv></c>"),
        format!("<c><shell>touch {shown}</shell></c>"),
        format!("<c><argv>true</argv><env><BASH_ENV>{shown}</BASH_ENV></env></c>"),
        format!("{{\"argv\":[\"true\"],\"argv\":[\"touch\",\"{shown}\"]}}"),
        format!("{{\"argv\":[\"true\"],\"shell\":\"touch {shown}\"}}"),
        format!("[[\"touch\",\"{shown}\"]]"),
        "{".to_owned(),
    ] {
        let message = Message {
            payload: Some(payload.clone()),
            ..Message::new("command")
        };
        let (kind, error) = desk.ask_message(&message);
        assert_eq!(kind, "error", "{payload}");
        assert!(
            ["refused", "invalid"].contains(&error["code"].as_str().unwrap()),
            "{payload}: {error}"
        );
    }
    assert!(!file.exists());
    desk.allowed("command", &json!({"argv": ["true"]}));
}

#[test]
fn files_stay_where_the_policy_has_them_whatever_links_say() {
    let folder = tempfile::tempdir().unwrap();
    let base = fs::canonicalize(folder.path()).unwrap();
    let (up, out) = (base.join("up"), base.join("out"));
    for dir in [&up, &out, &up.join("sub"), &up.join("secret")] {
        fs::create_dir(dir).unwrap();
    }
    fs::write(out.join("passwd"), "secret").unwrap();
    symlink(&out, up.join("link")).unwrap();
    symlink(out.join("passwd"), up.join("file-link")).unwrap();
    symlink(&up, base.join("named")).unwrap();
    let desk = Desk::new(&format!(
        "[policy.allow.up]\ntype = [\"file.*\", \"directory.put\"]\npath = [{up:?}, {:?}]\n[policy.deny.secret]\npath = {:?}\n",
        base.join("named"),
        base.join("named/secret"),
    ));
    // Plain, and by a link of the operator's own.
    desk.allowed("file.put", &put(&up.join("sub/a")));
    desk.allowed("file.put", &put(&base.join("named/b")));
    assert_eq!(fs::read(up.join("b")).unwrap(), CONTENT);
    desk.allowed("file.get", &json!({"path": up.join("b")}));
    desk.allowed("file.list", &json!({"path": up}));
    let parents = |path: PathBuf| {
        let mut put = put(&path);
        put["parents"] = true.into();
        put
    };
    desk.allowed("file.put", &parents(up.join("new/er/c")));
    // Out of it by a link, and into what is denied under another name.
    for (kind, payload, rule) in [
        ("file.put", put(&out.join("x")), "allow"),
        ("file.put", put(&up.join("link/x")), "allow"),
        ("file.put", parents(up.join("link/new/x")), "allow"),
        ("file.get", json!({"path": up.join("link/passwd")}), "allow"),
        (
            "file.get",
            json!({"path": up.join("file-link"), "follow": true}),
            "allow",
        ),
        ("file.list", json!({"path": up.join("link/sub")}), "allow"),
        ("file.put", put(&up.join("secret/x")), "deny.secret"),
        (
            "file.list",
            json!({"path": up.join("secret")}),
            "deny.secret",
        ),
        (
            "directory.put",
            json!({"path": up.join("link/x"), "entries": []}),
            "allow",
        ),
        (
            "directory.put",
            json!({"path": up, "entries": [], "prune": true}),
            "deny.secret",
        ),
        ("file.put", put(&desk.agent.state().join("x")), "own-files"),
    ] {
        assert_eq!(desk.refused(kind, &payload), rule, "{kind} {payload}");
    }
    let made: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(made, ["passwd"]);
    assert_eq!(fs::read_dir(up.join("secret")).unwrap().count(), 0);
    // A link that comes between the request and its time.
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs_f64();
    let mut late = put(&up.join("sub/x"));
    late["notBefore"] = (now + 3.0).into();
    let message = Message::with("file.put", &late);
    desk.send(&message);
    eventually("it waits", || {
        (desk.agent.status()["jobs"]["waiting"] == 1).then_some(())
    });
    fs::rename(up.join("sub"), up.join("old")).unwrap();
    symlink(&out, up.join("sub")).unwrap();
    let end = desk.end_of(&message);
    let error: Value = end.read().unwrap();
    assert_eq!(
        (end.kind.as_str(), &error["detail"]["policy"]),
        ("error", &json!("allow")),
        "{error}"
    );
    assert!(!out.join("x").exists());
    let status = desk.status();
    assert_eq!(status["refused"], 12, "{status}");
    let counted = |name: &str| {
        status["rules"]
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["name"] == name)
            .unwrap()["refused"]
            .clone()
    };
    assert_eq!((counted("secret"), counted("up")), (json!(3), json!(0)));
}

#[test]
fn schedules_are_judged_when_they_are_set_and_when_they_run() {
    let open = "[policy.allow.x]\ntype = [\"command\", \"schedule.set\"]\n";
    let closed = "[policy]\nprofile = \"read-only\"\n[schedule.own]\ncron = \"* * * * * *\"\ncommand = [\"true\"]\n";
    let desk = Desk::new(open);
    let entries = |second: Value| {
        json!({"revision": "r", "entries": [
        {"name": "a", "cron": "* * * * * *", "command": ["true"]}, second]})
    };
    let (_, error) = desk.ask(
        "schedule.set",
        &entries(json!({"name": "b", "cron": "@daily", "script": "x.sh"})),
    );
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("entry 2 (b): refused"),
        "{error}"
    );
    assert_eq!(desk.agent.status()["schedule"]["entries"], 0);
    desk.allowed(
        "schedule.set",
        &entries(json!({"name": "b", "cron": "@daily", "command": ["true"]})),
    );
    let last = |name: &str| {
        let output = desk.agent.run(&["schedule", "--json"]);
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let entry = list["entries"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|e| e["name"] == name)
            .cloned();
        entry.unwrap_or_default()["last"]["status"].clone()
    };
    eventually("a run", || (last("a") == "succeeded").then_some(()));
    desk.reload(closed);
    // What Poseidon has set does not run any more; the device's own does.
    eventually("a refused run", || (last("a") == "refused").then_some(()));
    eventually("a run of its own", || {
        (last("own") == "succeeded").then_some(())
    });
    let history = desk.agent.run(&["history", "--code", "103", "--json"]);
    let history = String::from_utf8(history.stdout).unwrap();
    assert!(history.contains("profile read-only"), "{history}");
}

#[test]
fn a_token_that_has_run_is_answered_by_its_end_whatever_the_rules_are_now() {
    let desk = Desk::new("");
    let message = Message::with("command", &json!({"argv": ["true"]}));
    assert_eq!(desk.ask_message(&message).0, "result");
    desk.reload("[policy]\nprofile = \"read-only\"\n");
    let seen = desk.came.wait_for(0).len();
    desk.send(&message);
    let again = desk.came.wait_for(seen + 1).pop().unwrap();
    assert_eq!(
        (again.kind.as_str(), &again.conversation_id),
        ("result", &message.id)
    );
    assert_eq!(desk.status()["refused"], 0);
    assert_eq!(
        desk.refused("command", &json!({"argv": ["true"]})),
        "profile read-only"
    );
    // Local users act by their rights.
    assert!(desk.agent.run(&["exec", "--", "true"]).status.success());
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn a_mistake_starts_nothing_and_changes_nothing() {
    let agent = Agent::new();
    let (file, policy) = (
        agent.folder().join("t.toml"),
        agent.folder().join("policy.toml"),
    );
    let run = |command: &str| agent.run(&[command, "--config", file.to_str().unwrap()]);
    let named = format!("[policy]\nfile = {policy:?}\n");
    for (config, own, wanted) in [
        (
            "[policy.deny.x]\ntype = \"comand\"\n",
            None,
            format!("{}:2: policy.deny: x: type:", file.display()),
        ),
        (
            "\n[policy]\nprofile = \"scripts\"\n",
            None,
            format!("{}:3: policy.profile:", file.display()),
        ),
        (&named, None, format!("{}", policy.display())),
        (
            &named,
            Some(""),
            format!("{}:1: it says nothing", policy.display()),
        ),
        (
            &named,
            Some("\n[policy.deny.x]\n"),
            format!("{}:2: policy.deny.x: a rule without", policy.display()),
        ),
        (
            &named,
            Some("url = \"ws://x\"\n"),
            format!("{}:1: `url` has no place", policy.display()),
        ),
        (
            &named,
            Some("[policy]\nprofile"),
            format!("{}:2: ", policy.display()),
        ),
    ] {
        fs::write(&file, config).unwrap();
        let _ = fs::remove_file(&policy);
        if let Some(own) = own {
            fs::write(&policy, own).unwrap();
        }
        for command in ["run", "check-config"] {
            let output = run(command);
            assert_eq!(output.status.code(), Some(1), "{config} {own:?}");
            assert!(
                said(&output).contains(&wanted),
                "{wanted}: {}",
                said(&output)
            );
        }
    }
    let desk = Desk::new("[policy]\nprofile = \"read-only\"\n");
    desk.reload("[policy]\nprofile = \"red-only\"\n");
    desk.agent
        .wait_for_log("the old configuration stays in force");
    assert_eq!(
        desk.refused("command", &json!({"argv": ["true"]})),
        "profile read-only"
    );
    desk.reload("[policy]\nprofile = \"open\"\n");
    desk.allowed("command", &json!({"argv": ["true"]}));
}

/// The environment may hold a proxy's password.
#[test]
fn what_the_kernel_has_of_the_agent_itself_is_out_of_reach() {
    let desk = Desk::new("[policy.deny.x]\ntype = \"system.reboot\"\n");
    let (link, file) = (
        desk.agent.folder().join("link"),
        desk.agent.folder().join("file"),
    );
    symlink("/proc/self", &link).unwrap();
    symlink("/proc/thread-self/environ", &file).unwrap();
    let pid = desk.agent.pid();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let threads = threads.map(|thread| thread.unwrap().file_name());
    let mut paths: Vec<PathBuf> = threads
        .map(|thread| Path::new("/proc").join(thread).join("environ"))
        .collect();
    assert!(paths.len() > 1);
    for own in ["self/environ", "self/maps", "thread-self/environ"] {
        paths.push(Path::new("/proc").join(own));
    }
    paths.push(link.join("environ"));
    paths.push(file);
    for path in paths {
        let asked = json!({"path": path, "follow": true});
        assert_eq!(desk.refused("file.get", &asked), "own-files", "{path:?}");
    }
    let list = json!({"path": "/proc/self"});
    assert_eq!(desk.refused("file.list", &list), "own-files");
    desk.allowed(
        "file.list",
        &json!({"path": format!("/proc/{}", std::process::id())}),
    );
    desk.allowed("file.list", &json!({"path": "/proc/sys"}));
}

#[test]
fn what_may_be_a_mistake_is_said_and_goes_on() {
    let mut agent = Agent::new();
    let file = agent.folder().join("t.toml");
    let text =
        "[policy.deny.x]\ntype = [\"command\", \"gpio.set\"]\n[policy.deny.y]\nuser = \"nobdy\"\n";
    fs::write(&file, text).unwrap();
    let config = ["--config", file.to_str().unwrap()];
    agent = agent.with(&config);
    let output = agent.run(&[&["check-config"][..], &config].concat());
    assert!(output.status.success(), "{output:?}");
    agent.start();
    agent.wait_until_it_serves();
    let log = agent.log();
    for said in [&said(&output), &log] {
        for wanted in [
            format!(
                "{}:1: policy.deny.x: no message of the agent's has the type \"gpio.set\"",
                file.display()
            ),
            format!("{}:3: policy.deny.y: no user \"nobdy\"", file.display()),
        ] {
            assert_eq!(said.matches(&wanted).count(), 1, "{wanted}: {said}");
        }
        assert!(!said.contains("\"command\""), "{said}");
    }
}

#[test]
fn the_command_explains_decisions_offline() {
    let agent = Agent::new();
    let (file, policy) = (
        agent.folder().join("t.toml"),
        agent.folder().join("policy.toml"),
    );
    fs::write(&file, format!("[policy]\nfile = {policy:?}\n")).unwrap();
    fs::write(
        &policy,
        "[policy.allow.uptime]\ncommand = [\"uptime *\"]\n\n[policy.deny.secret]\npath = \"/srv/secret\"\n\
         [policy.allow.files]\ntype = \"file.*\"\npath = \"/srv\"\n[policy.allow.set]\ntype = \"schedule.set\"\n",
    )
    .unwrap();
    let test = |arguments: &[&str]| {
        let mut all = vec!["--config", file.to_str().unwrap(), "policy"];
        all.extend(arguments);
        let output = agent.run(&all);
        (output.status.code().unwrap(), said(&output))
    };
    for (arguments, code, parts) in [
        (
            &["test", "command", "--", "uptime", "-p"][..],
            0,
            &[
                "allowed",
                "allow.uptime",
                "policy.toml:1)",
                "compared as    uptime -p",
                "deny.secret",
            ][..],
        ),
        (
            &["test", "command", "--", "uptime", "a b"],
            0,
            &["uptime 'a b'"],
        ),
        (
            &["test", "command", "--env", "A=b", "--", "uptime", "-p"],
            1,
            &["env: the rule does not name the variable \"A\""],
        ),
        (
            &["test", "command", "--shell", "uptime -p; reboot"],
            1,
            &["refused", "no allow rule", "has no argv"],
        ),
        (
            &["test", "file.get", "--path", "/srv/secret/x"],
            1,
            &["refused", "deny.secret", "policy.toml:4)"],
        ),
        (
            &["test", "file.get", "--path", "/etc/passwd"],
            1,
            &["is not below /srv"],
        ),
        (&["test", "agent.status"], 0, &["only reads"]),
        (
            &["test", "file.put", "--path", "/etc/config/triton"],
            1,
            &["own-files"],
        ),
        (&["test"], 2, &["policy takes"]),
        (&["dance"], 2, &["policy takes"]),
        (
            &["show"],
            0,
            &["profile   open", "deny.secret", "/srv/secret", "not known"],
        ),
    ] {
        let (status, said) = test(arguments);
        assert_eq!(status, code, "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: {said} lacks {part}");
        }
    }
    let arguments = [
        "--config",
        file.to_str().unwrap(),
        "policy",
        "test",
        "schedule.set",
        "--json",
        "--message",
        "-",
    ];
    let mut child = agent
        .command(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let set = json!({"revision": "1", "entries": [{"name": "n", "cron": "@daily", "command": ["reboot"]}]});
    child
        .stdin
        .take()
        .unwrap()
        .write_all(set.to_string().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["allowed"], false);
    assert_eq!(report["decisions"][0]["rule"], "allow.set");
    assert_eq!(report["decisions"][1]["what"], "entry 1 (n)");
}

#[test]
fn a_flood_of_refused_requests_is_counted_and_hardly_logged() {
    let desk = Desk::new("[policy]\nprofile = \"read-only\"\n");
    for _ in 0..2_000 {
        desk.send(&Message::with("command", &json!({"argv": ["true"]})));
    }
    eventually("all are counted", || {
        (desk.status()["refused"] == 2_000).then_some(())
    });
    let lines = desk
        .agent
        .log()
        .matches("was refused by this device's policy")
        .count();
    assert!((1..60).contains(&lines), "{lines}");
    let status = desk.agent.run(&["status"]);
    assert!(
        said(&status).contains("policy      read-only, 2000 requests"),
        "{}",
        said(&status)
    );
    let shown = desk
        .agent
        .run(&["--config", desk.file().to_str().unwrap(), "policy", "show"]);
    assert!(
        said(&shown).contains("refused   2000 since"),
        "{}",
        said(&shown)
    );
    assert_eq!(
        desk.agent.status()["journal"]["last"],
        0,
        "nothing of it is in the journal"
    );
}

#[test]
fn poseidon_says_why_a_device_refuses() {
    let poseidon = Poseidon::on_a_held_port(&[]);
    let url = poseidon.url();
    let rig = Rig::with_settings(
        poseidon,
        Agent::new(),
        &url,
        "[policy]\nprofile = \"scripts-only\"\n",
    );
    let output = rig.poseidon.run(&["run", NAME, "--", "true"]);
    let text = said(&output);
    assert!(!output.status.success());
    assert!(
        text.contains("policy") && text.contains("scripts-only"),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(126), "{text}");
    let output = rig.poseidon.run(&["ls", &format!("{NAME}:/etc")]);
    assert!(!output.status.success());
    assert!(said(&output).contains("scripts-only"), "{}", said(&output));
}

#[test]
fn a_device_that_may_only_be_read_says_how_much_it_refused() {
    let poseidon = Poseidon::on_a_held_port(&[]);
    let url = poseidon.url();
    let policy = "[policy]\nprofile = \"read-only\"\n[policy.deny.runs]\ntype = \"command\"\n";
    let rig = Rig::with_settings(poseidon, Agent::new(), &url, policy);
    for _ in 0..2 {
        let output = rig.poseidon.run(&["run", NAME, "--", "true"]);
        assert!(!output.status.success(), "{output:?}");
    }
    let status = rig.poseidon.json(&["status", NAME, "--json"]);
    assert_eq!(status["policy"]["profile"], "read-only", "{status}");
    assert_eq!(status["policy"]["refused"], 2);
    let text = said(&rig.poseidon.run(&["status", NAME]));
    assert!(
        text.contains("read-only, 2 requests") && text.contains("2 by runs"),
        "{text}"
    );
}
