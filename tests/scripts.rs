//! Scripts on the real agent: brought by a server that follows a script, run offline, held while they run.

mod support;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use support::agent::Agent;
use support::eventually;
use support::fake::{Fake, Notes, Peer};
use triton::message::payload::{self, DataRequest, DataResponse, Welcome};
use triton::message::{ErrorCode, Message, text};

fn hash(content: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(content)
        .iter()
        .fold(String::new(), |mut hex, b| {
            let _ = write!(hex, "{b:02x}");
            hex
        })
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn manifest(revision: &str, files: &[(&str, &[u8])]) -> Value {
    let files: Vec<Value> = files
        .iter()
        .map(|(path, content)| {
            json!({ "path": path, "sha256": hash(content), "size": content.len(), "mode": "0644" })
        })
        .collect();
    json!({ "revision": revision, "files": files })
}

/// A Poseidon that has content and sends what the test says.
struct Desk {
    agent: Agent,
    /// Requests to send.
    orders: Sender<Message>,
    /// All that came but heartbeats.
    came: Notes<Message>,
    content: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    asked: Notes<String>,
}

fn answer(peer: &mut Peer, message: &Message, content: &[u8]) {
    let request: DataRequest = message.read().unwrap();
    let from = usize::try_from(request.offset).unwrap();
    let to = content
        .len()
        .min(from + usize::try_from(request.length).unwrap());
    let response = DataResponse {
        reference: request.reference,
        offset: request.offset,
        data: text::encode(&content[from..to]),
        eof: to == content.len(),
        sha256: None,
    };
    peer.send(&message.reply(payload::DATA_RESPONSE, &response));
}

impl Desk {
    fn new() -> Self {
        Self::with(Agent::new())
    }

    fn with(agent: Agent) -> Self {
        let (orders, queue) = channel();
        let queue: Arc<Mutex<Receiver<Message>>> = Arc::new(Mutex::new(queue));
        let (came, asked) = (Notes::new(), Notes::new());
        let content: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
        let (seen, wanted, shelf) = (came.clone(), asked.clone(), Arc::clone(&content));
        let fake = Fake::each(move |_, mut peer| {
            let welcome = Welcome {
                attributes: BTreeMap::from([("site-name".to_owned(), "Attic".to_owned())]),
                heartbeat_seconds: Some(1),
                ..Welcome::default()
            };
            peer.welcome(&welcome);
            // Heartbeats come each second, so that orders do not wait long.
            while let Some(message) = peer.next() {
                if message.kind == payload::DATA_REQUEST {
                    let request: DataRequest = message.read().unwrap();
                    wanted.add(request.reference.clone());
                    let found = shelf.lock().unwrap().get(&request.reference).cloned();
                    match found {
                        Some(bytes) => answer(&mut peer, &message, &bytes),
                        // The test wants it to wait.
                        None if request.reference == format!("sha256:{}", hash(b"late")) => {}
                        None => {
                            peer.send(&message.reply_error(ErrorCode::NotFound, "no such content"));
                        }
                    }
                } else if message.kind != payload::HEARTBEAT {
                    seen.add(message);
                }
                for order in queue.lock().unwrap().try_iter() {
                    peer.send(&order);
                }
            }
        });
        let mut agent = agent.with(&["--url", &fake.url]);
        agent.start();
        agent.wait_for_link("connected");
        Self {
            agent,
            orders,
            came,
            content,
            asked,
        }
    }

    fn shelve(&self, content: &[u8]) {
        let reference = format!("sha256:{}", hash(content));
        let mut known = self.content.lock().unwrap();
        known.insert(reference, content.to_vec());
    }

    fn send(&self, kind: &str, payload: &Value) -> Message {
        let order = Message::with(kind, payload);
        self.orders.send(order.clone()).unwrap();
        order
    }

    fn end(&self, order: &Message) -> (String, Value) {
        eventually(&format!("{} ends", order.kind), || {
            let came = self.came.wait_for(0);
            let end = came.iter().find(|m| {
                m.conversation_id == order.id && matches!(m.kind.as_str(), "result" | "error")
            })?;
            Some((end.kind.clone(), end.read().unwrap()))
        })
    }

    fn sync(&self, revision: &str, files: &[(&str, &[u8])]) -> Value {
        for (_, content) in files {
            self.shelve(content);
        }
        let order = self.send(payload::SCRIPTS_SYNC, &manifest(revision, files));
        let (kind, end) = self.end(&order);
        assert_eq!(kind, "result", "{end}");
        assert_eq!(end["status"], "succeeded", "{end}");
        end["data"].clone()
    }

    fn scripts(&self) -> PathBuf {
        self.agent.state().join("scripts")
    }

    fn revisions(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.scripts().join("revisions"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn script(&self, arguments: &[&str]) -> Output {
        let mut line = vec!["script", "run"];
        line.extend(arguments);
        self.agent.run(&line)
    }
}

#[test]
fn a_revision_is_brought_switched_and_run_also_offline() {
    let mut desk = Desk::new();
    let show = b"#!/bin/sh\necho \"$TRITON_SCRIPT|$TRITON_ATTRIBUTE_SITE_NAME|$TRITON_JOB|$#|$1|$2\"\npwd\nexit 3\n";
    let big: Vec<u8> = (0..300_000_u32)
        .map(|n| (n * 7 + n / 256).to_le_bytes()[0])
        .collect();
    let first = desk.sync("r1", &[("net/show.sh", show), ("data.bin", &big)]);
    assert_eq!(
        first,
        json!({ "revision": "r1", "files": 2, "fetched": 2, "changed": true })
    );
    let folder = desk.scripts().join("revisions/r1");
    assert_eq!(fs::read(folder.join("data.bin")).unwrap(), big);
    assert_eq!(
        fs::metadata(folder.join("net/show.sh")).unwrap().mode() & 0o7777,
        0o644
    );
    assert_eq!(desk.agent.status()["scripts"]["revision"], "r1");
    // The same once more changes nothing; a second revision fetches only what is new, and no file is there twice.
    assert_eq!(
        desk.sync("r1", &[("net/show.sh", show), ("data.bin", &big)])["changed"],
        false
    );
    let second = desk.sync(
        "r2",
        &[
            ("net/show.sh", show),
            ("more.bin", &big),
            ("a.sh", b"echo a"),
        ],
    );
    assert_eq!(
        (&second["fetched"], &second["changed"]),
        (&json!(1), &json!(true))
    );
    let inode = |path: &str| {
        fs::metadata(desk.scripts().join("revisions").join(path))
            .unwrap()
            .ino()
    };
    assert_eq!(inode("r1/data.bin"), inode("r2/more.bin"));
    // Offline, after a restart, with what was known before.
    desk.agent.stop();
    let mut offline = desk
        .agent
        .command(&["run"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    desk.agent.wait_until_it_serves();
    assert_eq!(desk.agent.status()["link"]["state"], "off");
    let done = desk.script(&["net/show.sh", "$(id)", "a b"]);
    assert_eq!(done.status.code(), Some(3), "{}", said(&done.stderr));
    let lines = said(&done.stdout);
    let (head, place) = lines.trim_end().split_once('\n').unwrap();
    let fields: Vec<&str> = head.split('|').collect();
    assert_eq!((fields[0], fields[1]), ("net/show.sh", "Attic"));
    assert_eq!(fields[2].len(), 32);
    assert_eq!(fields[3..], ["2", "$(id)", "a b"]);
    assert!(place.ends_with("scripts/revisions/r2"), "{place}");
    let list = desk.agent.run(&["script", "ls", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list["revision"], "r2");
    assert_eq!(list["scripts"][0], json!({ "name": "a.sh", "size": 6 }));
    assert_eq!(
        said(&desk.agent.run(&["script", "ls"]).stdout)
            .lines()
            .count(),
        3
    );
    for (name, code) in [("none.sh", 127), ("../x", 125), ("more.bin", 125)] {
        let done = desk.script(&[name]);
        assert_eq!(
            done.status.code(),
            Some(code),
            "{name}: {}",
            said(&done.stderr)
        );
        assert!(!done.stderr.is_empty());
    }
    support::signal(offline.id(), libc::SIGTERM);
    assert!(offline.wait().unwrap().success());
}

#[test]
fn a_missing_interpreter_is_named_with_its_setting() {
    let agent = Agent::new();
    let config = agent.folder().join("t.toml");
    fs::write(
        &config,
        "[scripts.interpreters]\nlua = \"/no/such/lua\"\nrb = \"sh\"\n",
    )
    .unwrap();
    let desk = Desk::with(agent.with(&["--config", config.to_str().unwrap()]));
    desk.sync(
        "r",
        &[
            ("a.lua", b"x"),
            ("b.rb", b"echo by sh"),
            ("c.sh", b"echo c"),
            ("d.x", b"x"),
        ],
    );
    let done = desk.script(&["a.lua"]);
    assert_eq!(done.status.code(), Some(127));
    let text = said(&done.stderr);
    assert!(
        text.contains("/no/such/lua") && text.contains("scripts.interpreters"),
        "{text}"
    );
    assert_eq!(said(&desk.script(&["b.rb"]).stdout), "by sh\n");
    // The others that there are stay.
    assert_eq!(said(&desk.script(&["c.sh"]).stdout), "c\n");
    assert!(said(&desk.script(&["d.x"]).stderr).contains("extension \"x\""));
}

#[test]
fn a_job_of_an_older_revision_keeps_it_and_ends_in_it() {
    let desk = Desk::new();
    let wait = b"echo ready; read line; cat lib.txt";
    desk.sync("r1", &[("wait.sh", wait), ("lib.txt", b"one")]);
    let go = desk.agent.folder().join("go");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&go)
            .status()
            .unwrap()
            .success()
    );
    let line = format!("exec < {}; . ./wait.sh", go.display());
    desk.sync(
        "r1b",
        &[
            ("wait.sh", wait),
            ("hold.sh", line.as_bytes()),
            ("lib.txt", b"two"),
        ],
    );
    let mut child = desk
        .agent
        .command(&["script", "run", "hold.sh"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it runs", || {
        (desk.agent.status()["jobs"]["running"] == 1).then_some(())
    });
    for n in 2..6 {
        let content = format!("content {n}");
        desk.sync(&format!("r{n}"), &[("lib.txt", content.as_bytes())]);
    }
    assert_eq!(desk.revisions(), ["r1b", "r4", "r5"]);
    fs::write(&go, "\n").unwrap();
    let (ready, mut rest) = support::first_line(&mut child);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut rest, &mut text).unwrap();
    assert_eq!((ready.as_str(), text.as_str()), ("ready\n", "two"));
    assert!(child.wait().unwrap().success());
    // Nobody holds it any more.
    desk.sync("r6", &[("lib.txt", b"six")]);
    assert_eq!(desk.revisions(), ["r5", "r6"]);
}

/// The way back is the same revision, so the job in it keeps its files; also where that name comes to mean others.
#[test]
fn going_back_to_a_revision_takes_nothing_from_a_job_in_it() {
    for (again, left) in [("one", &["a", "b"][..]), ("other", &[".old-1", "a", "b"])] {
        let desk = Desk::new();
        let go = desk.agent.folder().join("go");
        let line = format!(
            "echo ready; until test -e {}; do sleep 0.02; done; cat lib.txt",
            go.display()
        );
        let files = |lib: &'static str| [("wait.sh", line.as_bytes()), ("lib.txt", lib.as_bytes())];
        desk.sync("a", &files("one"));
        let mut child = desk
            .agent
            .command(&["script", "run", "wait.sh"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (ready, mut rest) = support::first_line(&mut child);
        assert_eq!(ready, "ready\n");
        desk.sync("b", &files("two"));
        let inode = || {
            fs::metadata(desk.scripts().join("revisions/a"))
                .unwrap()
                .ino()
        };
        let before = inode();
        let came = desk.sync("a", &files(again));
        assert_eq!(came["changed"], true, "{came}");
        assert_eq!(inode() == before, again == "one");
        assert_eq!(desk.revisions(), left);
        let lib = fs::read_to_string(desk.scripts().join("current/lib.txt")).unwrap();
        assert_eq!(lib, again);
        fs::write(&go, "").unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut rest, &mut text).unwrap();
        assert_eq!(text, "one");
        assert!(child.wait().unwrap().success());
        assert_eq!(desk.sync("a", &files(again))["changed"], false);
        desk.sync("c", &files("three"));
        assert_eq!(desk.revisions(), ["a", "c"]);
    }
}

#[test]
fn what_is_hostile_or_wrong_leaves_all_as_it_was() {
    let desk = Desk::new();
    desk.sync("good", &[("a.sh", b"echo good")]);
    let target = desk.agent.folder().join("outside");
    fs::write(&target, "mine").unwrap();
    let file = |path: &str| json!({ "path": path, "sha256": hash(b"x"), "size": 1 });
    let many: Vec<Value> = (0..3000).map(|n| file(&format!("f{n}"))).collect();
    for (what, bad, code) in [
        (
            "out",
            json!({ "revision": "bad", "files": [file("../../x")] }),
            "invalid",
        ),
        (
            "absolute",
            json!({ "revision": "bad", "files": [file(target.to_str().unwrap())] }),
            "invalid",
        ),
        (
            "revision",
            json!({ "revision": "../bad", "files": [] }),
            "invalid",
        ),
        (
            "twice",
            json!({ "revision": "bad", "files": [file("a"), file("a")] }),
            "invalid",
        ),
        (
            "many",
            json!({ "revision": "bad", "files": many }),
            "too-large",
        ),
        (
            "no list",
            json!({ "revision": "bad", "files": 7 }),
            "invalid",
        ),
        (
            "full",
            json!({ "revision": "bad", "files": [
            { "path": "a", "sha256": hash(b"x"), "size": 1_u64 << 60 }] }),
            "no-space",
        ),
        // The server says that it has it, and gives something else.
        (
            "lie",
            json!({ "revision": "bad", "files": [
            { "path": "a", "sha256": hash(b"liar"), "size": 4 }] }),
            "invalid",
        ),
        (
            "size",
            json!({ "revision": "bad", "files": [
            { "path": "b", "sha256": hash(b"short"), "size": 50 }] }),
            "invalid",
        ),
        (
            "gone",
            json!({ "revision": "bad", "files": [
            { "path": "b", "sha256": hash(b"gone"), "size": 4 }] }),
            "not-found",
        ),
    ] {
        let mut shelf = desk.content.lock().unwrap();
        shelf.insert(format!("sha256:{}", hash(b"liar")), b"lies".to_vec());
        shelf.insert(format!("sha256:{}", hash(b"short")), b"short".to_vec());
        drop(shelf);
        let (kind, end) = desk.end(&desk.send(payload::SCRIPTS_SYNC, &bad));
        assert_eq!(
            (kind.as_str(), end["code"].as_str()),
            ("error", Some(code)),
            "{what}: {end}"
        );
        assert_eq!(desk.revisions(), ["good"], "{what}");
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
    assert_eq!(said(&desk.script(&["a.sh"]).stdout), "good\n");
    // One that was spoilt on the device is not believed, and mended; a link in its place is not followed.
    let script = desk.scripts().join("revisions/good/a.sh");
    fs::write(&script, "echo evil").unwrap();
    assert_eq!(desk.sync("good", &[("a.sh", b"echo good")])["fetched"], 1);
    assert_eq!(said(&desk.script(&["a.sh"]).stdout), "good\n");
    fs::remove_file(&script).unwrap();
    symlink("/bin/true", &script).unwrap();
    let done = desk.script(&["a.sh"]);
    assert!(
        said(&done.stderr).contains("symbolic link"),
        "{}",
        said(&done.stderr)
    );
    assert_eq!(
        desk.sync("good", &[("a.sh", b"echo good")])["changed"],
        true
    );
}

#[test]
fn one_sync_at_a_time_and_a_cancelled_or_killed_one_leaves_nothing() {
    let mut desk = Desk::new();
    desk.sync("good", &[("a.sh", b"echo good")]);
    let late = manifest("late", &[("late", b"late"), ("a.sh", b"echo good")]);
    let half_made = |desk: &Desk| desk.scripts().join("revisions/.new").exists();
    let begin = |desk: &Desk, count| {
        let order = desk.send(payload::SCRIPTS_SYNC, &late);
        desk.asked.wait_for(count);
        assert!(half_made(desk));
        order
    };
    let first = begin(&desk, 2);
    let second = desk.send(payload::SCRIPTS_SYNC, &manifest("other", &[]));
    let (kind, end) = desk.end(&second);
    assert_eq!(
        (kind.as_str(), end["code"].as_str()),
        ("error", Some("busy")),
        "{end}"
    );
    desk.send(payload::CANCEL, &json!({ "job": first.id }));
    assert_eq!(desk.end(&first).1["status"], "cancelled");
    assert_eq!(desk.revisions(), ["good"]);
    // Killed on the way: the next start removes what it left, and reports the job.
    let third = begin(&desk, 3);
    desk.agent.kill();
    assert!(half_made(&desk));
    desk.agent.start();
    assert_eq!(desk.end(&third).1["status"], "interrupted");
    assert_eq!(desk.revisions(), ["good"]);
    assert_eq!(said(&desk.script(&["a.sh"]).stdout), "good\n");
    desk.sync("next", &[("a.sh", b"echo next")]);
    assert_eq!(said(&desk.script(&["a.sh"]).stdout), "next\n");
    let leftovers = fs::read_dir(desk.scripts()).unwrap().count();
    assert_eq!(leftovers, 2, "current and revisions");
}

#[test]
fn a_token_that_ran_is_answered_though_its_script_is_gone() {
    let desk = Desk::new();
    desk.sync("r1", &[("a.sh", b"echo a")]);
    let order = desk.send(payload::SCRIPT, &json!({ "name": "a.sh" }));
    assert_eq!(desk.end(&order).1["exitCode"], 0);
    desk.sync("r2", &[("b.sh", b"echo b")]);
    let before = desk.came.wait_for(0).len();
    desk.orders.send(order.clone()).unwrap();
    let again = desk.came.wait_for(before + 1).pop().unwrap();
    assert_eq!(again.kind, "result", "{again:?}");
    let new = desk.send(payload::SCRIPT, &json!({ "name": "a.sh" }));
    assert_eq!(desk.end(&new).1["code"], "not-found");
}

#[test]
fn the_hello_tells_the_revision() {
    let hellos = Notes::new();
    let seen = hellos.clone();
    let fake = Fake::each(move |_, mut peer| {
        let hello = peer.next_of(payload::HELLO).unwrap();
        seen.add(hello.read::<Value>().unwrap());
        peer.send(&hello.reply(payload::WELCOME, &Welcome::default()));
        peer.idle();
    });
    let mut agent = Agent::new().with(&["--url", &fake.url]);
    agent.start();
    assert_eq!(hellos.wait_for(1)[0]["scripts"]["revision"], "");
    agent.stop();
    let folder = agent.state().join("scripts/revisions/r7");
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    symlink("revisions/r7", agent.state().join("scripts/current")).unwrap();
    agent.start();
    assert_eq!(hellos.wait_for(2)[1]["scripts"]["revision"], "r7");
}
