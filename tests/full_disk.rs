//! The real agent on a full disk while events come from all sources: who sent one is told what became of it, and each is
//! there once when all is well again, or said to be dropped.

mod support;

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::Write as _;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use support::agent::Agent;
use support::eventually;
use support::fake::{Fake, Peer};
use support::place::{Namespace, fill, possible};
use triton::message::Message;
use triton::message::payload::{self, Welcome, code};

/// Bytes of the disk that has the whole state folder.
const DISK: u64 = 2 << 20;
const JOURNAL: &str = "[journal]\nbytes = 262144\nmemory_bytes = 65536\n";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn line(name: &str) -> String {
    format!("CEF:0|v|p|1|s|{name}|5|src=192.0.2.1")
}

/// What a server that stores and acknowledges has got.
#[derive(Default)]
struct Stored {
    /// Name and source by sequence.
    events: BTreeMap<u64, (String, String)>,
    /// How many are said to be dropped, by the sequence of what says so.
    dropped: BTreeMap<u64, u64>,
    last: u64,
    /// It stores nothing, and acknowledges nothing.
    holds: bool,
    to_send: VecDeque<Message>,
    answers: Vec<Message>,
    /// How the journal was at each `hello`.
    journals: Vec<String>,
    wrong: Vec<String>,
}

impl Stored {
    fn take(&mut self, message: &Message) {
        if message.kind != payload::EVENTS && message.kind != payload::HISTORY {
            let answer: Value = message.read().unwrap_or_default();
            match answer["sequence"].as_u64() {
                // A record of a job.
                Some(sequence) if message.kind != payload::RESULT => self.last = sequence,
                _ if [payload::RESULT, payload::ERROR].contains(&&*message.kind) => {
                    self.answers.push(message.clone());
                }
                _ => {}
            }
            return;
        }
        if self.holds {
            return;
        }
        let read: Value = message.read_json().unwrap();
        for event in read["events"].as_array().into_iter().flatten() {
            let sequence = event["sequence"].as_u64().unwrap();
            let name = event["cef"].as_str().unwrap().split('|').nth(5).unwrap();
            let new = (
                name.to_owned(),
                event["source"].as_str().unwrap().to_owned(),
            );
            let known = self.events.entry(sequence).or_insert_with(|| new.clone());
            if *known != new {
                self.wrong
                    .push(format!("{sequence} is {known:?} and {new:?}"));
            }
            self.last = self.last.max(sequence);
        }
        for record in read["records"].as_array().into_iter().flatten() {
            let id = record["id"].as_u64().unwrap();
            if record["code"] == code::DROPPED {
                let events = record["data"]["events"].as_u64().unwrap();
                self.dropped.insert(id, events);
            }
            self.last = self.last.max(id);
        }
    }
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<Stored>>);

impl Server {
    fn start() -> (Self, Fake) {
        let server = Self::default();
        let own = server.clone();
        (server, Fake::websocket(move |peer| own.serve(peer)))
    }

    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().unwrap()
    }

    fn serve(&self, mut peer: Peer) {
        let acked = Some(self.stored().last);
        let welcome = Welcome {
            acked,
            heartbeat_seconds: Some(1),
            ..Welcome::default()
        };
        let Some(hello) = peer.welcome(&welcome) else {
            return;
        };
        let held = self.stored().holds;
        if let Some(journal) = hello.journal {
            self.stored().journals.push(journal.state);
        }
        // A heartbeat each second gives it a turn.
        while let Some(message) = peer.next() {
            let mut stored = self.stored();
            stored.take(&message);
            let mine: Vec<Message> = stored.to_send.drain(..).collect();
            let (last, holds) = (stored.last, stored.holds);
            drop(stored);
            for message in &mine {
                peer.send(message);
            }
            if held && !holds {
                return;
            }
            if !holds {
                peer.ack(last);
            }
        }
    }

    /// Has the agent asked to store an event, and waits for its answer.
    fn send(&self, payload: &Value) -> Message {
        let message = Message::with(payload::EVENT, payload);
        self.stored().to_send.push_back(message.clone());
        eventually("the agent answers", || {
            let stored = self.stored();
            let mut answers = stored.answers.iter();
            answers.find(|a| a.conversation_id == message.id).cloned()
        })
    }

    /// Each name once, with its source.
    fn names(&self) -> BTreeMap<String, String> {
        let stored = self.stored();
        assert!(stored.wrong.is_empty(), "{:?}", stored.wrong);
        let mut names = BTreeMap::new();
        for (sequence, (name, source)) in &stored.events {
            let before = names.insert(name.clone(), source.clone());
            assert!(before.is_none(), "{name} came twice, also as {sequence}");
        }
        names
    }
}

/// An agent whose state folder is a disk of its own.
struct Device {
    agent: Agent,
    /// The state folder as seen from here.
    inside: PathBuf,
    file: PathBuf,
    _disk: Namespace,
}

impl Device {
    /// With a listener and a followed file, not started.
    fn new(more: &[&str]) -> Option<Self> {
        if !possible("--mount") {
            return None;
        }
        let agent = Agent::new();
        let disk = Namespace::with_disk(&agent.state(), DISK);
        let inside = disk.place().path(&agent.state());
        let file = agent.folder().join("app.log");
        fs::write(&file, "").unwrap();
        let settings = format!(
            "{JOURNAL}[events]\nsyslog_udp = \"127.0.0.1:0\"\nfiles = [\"{}\"]\nrate = 1000\n",
            file.display()
        );
        let path = agent.folder().join("triton.toml");
        fs::write(&path, settings).unwrap();
        let agent = agent.with(&["--config", path.to_str().unwrap()]).with(more);
        Some(Self {
            agent: agent.within(disk.place()),
            inside,
            file,
            _disk: disk,
        })
    }

    fn start(&mut self) {
        self.agent.start();
        self.agent.wait_until_it_serves();
        eventually("it listens", || self.address());
        eventually("the file is followed", || {
            self.inside.join("events.json").exists().then_some(())
        });
    }

    fn address(&self) -> Option<String> {
        let sources = self.agent.status()["events"]["sources"].clone();
        let name = sources[0][0].as_str()?.strip_prefix("udp ")?.to_owned();
        (!name.ends_with(":0")).then_some(name)
    }

    fn journal(&self) -> Value {
        self.agent.status()["journal"].clone()
    }

    fn stored(&self) -> u64 {
        self.agent.status()["events"]["stored"]
            .as_u64()
            .unwrap_or(0)
    }

    fn command(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.agent.command(arguments);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let written = child.stdin.take().unwrap().write_all(input.as_bytes());
        written.unwrap();
        child.wait_with_output().unwrap()
    }

    fn append(&self, name: &str) {
        let file = fs::File::options().append(true).open(&self.file);
        writeln!(file.unwrap(), "{}", line(name)).unwrap();
    }

    /// One event from each source on the device, by names that end with `n`; returns when all are stored. The sequence of
    /// the first.
    fn events(&self, n: usize, names: &mut BTreeSet<String>) -> u64 {
        let before = self.stored();
        let new = ["command", "syslog", "file"].map(|source| format!("{source} {n}"));
        let done = self.agent.run(&["event", &line(&new[0])]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sent = socket.send_to(line(&new[1]).as_bytes(), self.address().unwrap());
        sent.unwrap();
        self.append(&new[2]);
        names.extend(new);
        eventually("all three are stored", || {
            (self.stored() >= before + 3).then_some(())
        });
        text(&done.stdout).trim().parse().unwrap()
    }

    /// Fills the disk, and sends events until that is seen.
    fn fill(&self, n: &mut usize, names: &mut BTreeSet<String>) -> PathBuf {
        let ballast = fill(&self.inside);
        let full = eventually("the journal is in memory", || {
            *n += 1;
            // Until the page is full that the journal writes to.
            let name = format!("command {n}");
            let done = self.agent.run(&["event", &line(&name)]);
            assert!(done.status.success(), "{}", text(&done.stderr));
            names.insert(name);
            Some(self.journal()).filter(|journal| journal["state"] == "memory")
        });
        let reason = full["reason"].as_str().unwrap_or_default();
        for part in [
            "cannot write",
            self.agent.state().to_str().unwrap(),
            "No space left on device",
            "free space on that disk",
        ] {
            assert!(reason.contains(part), "{full}");
        }
        *n += 1;
        self.events(*n, names);
        ballast
    }

    fn wait_for_the_disk(&self) {
        eventually("the journal is on the disk again by itself", || {
            (self.journal()["state"] == "disk").then_some(())
        });
    }

    /// Names in the journal, in their order.
    fn names(&self) -> Vec<String> {
        let shown = self
            .agent
            .run(&["history", "--json", "--code", "101", "--limit", "1000"]);
        let shown = text(&shown.stdout);
        let name = |record: &str| {
            let record: Value = serde_json::from_str(record).unwrap();
            let line = record["data"]["cef"].as_str().unwrap();
            line.split('|').nth(5).unwrap().to_owned()
        };
        shown.lines().map(name).collect()
    }
}

#[test]
fn events_of_each_source_outlive_a_full_disk_and_arrive_once() {
    let (server, fake) = Server::start();
    let Some(mut device) = Device::new(&["--url", &fake.url]) else {
        return;
    };
    device.start();
    device.agent.wait_for_link("connected");
    let (mut n, mut names) = (0, BTreeSet::new());
    let first = device.events(n, &mut names);
    let by_poseidon = |n: usize, names: &mut BTreeSet<String>| {
        let name = format!("poseidon {n}");
        let answer = server.send(&json!({ "cef": line(&name) }));
        assert_eq!(answer.kind, payload::RESULT, "{:?}", answer.payload);
        names.insert(name);
    };
    by_poseidon(n, &mut names);

    let ballast = device.fill(&mut n, &mut names);
    // The server hears that this journal may forget, and what it asks for is done all the same.
    eventually("a hello says so", || {
        (server.stored().journals.last()? == "memory").then_some(())
    });
    by_poseidon(n, &mut names);
    // More at once than events may have there is told to whom it concerns, and why.
    let many: Vec<Value> = (0..500)
        .map(|n| json!({ "cef": line(&n.to_string()) }))
        .collect();
    let answer = server.send(&json!({ "events": many }));
    let error: payload::Error = answer.read().unwrap();
    assert_eq!(error.code, payload::ErrorCode::TooLarge);
    for part in [
        "all events have 32768",
        "send fewer",
        "in memory: ",
        "No space left on device",
    ] {
        assert!(error.message.contains(part), "{}", error.message);
    }
    // What the server has not got yet when there is room again.
    server.stored().holds = true;
    n += 1;
    device.events(n, &mut names);
    fs::remove_file(ballast).unwrap();
    device.wait_for_the_disk();
    n += 1;
    let last = device.events(n, &mut names);
    device.agent.kill();
    server.stored().holds = false;
    device.agent.start();
    let wait_for = |names: &BTreeSet<String>| {
        eventually(&format!("{} events arrive", names.len()), || {
            (server.names().len() >= names.len()).then_some(())
        });
    };
    wait_for(&names);
    n += 1;
    device.agent.wait_until_it_serves();
    eventually("it listens", || device.address());
    device.events(n, &mut names);
    wait_for(&names);
    let arrived = server.names();
    assert_eq!(arrived.keys().cloned().collect::<BTreeSet<_>>(), names);
    for (name, source) in &arrived {
        let wanted = match name.split(' ').next().unwrap() {
            "syslog" => "syslog/127.0.0.1".to_owned(),
            "file" => format!("file{}", device.file.display()),
            other => other.to_owned(),
        };
        assert_eq!(*source, wanted, "{name}");
    }
    // No number stands for something that is gone.
    let stored = server.stored();
    assert!(stored.dropped.is_empty(), "{:?}", stored.dropped);
    let before_the_end: Vec<u64> = stored.events.range(first..=last).map(|(s, _)| *s).collect();
    assert_eq!(
        before_the_end.len() as u64,
        last - first + 1,
        "{before_the_end:?}"
    );
    assert!(!device.agent.log().contains("panicked"));
}

#[test]
fn what_the_memory_cannot_hold_is_counted_and_nothing_else_is() {
    let Some(mut device) = Device::new(&[]) else {
        return;
    };
    device.start();
    let (mut n, mut names) = (0, BTreeSet::new());
    // Some on the disk, which stay there.
    for _ in 0..3 {
        n += 1;
        device.events(n, &mut names);
    }
    let on_disk = names.clone();
    let ballast = device.fill(&mut n, &mut names);
    let before = names.len() as u64;
    let lines: String = (0..400)
        .map(|n| line(&format!("many {n}")) + "\n")
        .collect();
    let done = device.command(&["event", "-"], &lines);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let report = device.journal();
    let dropped = report["dropped"].as_u64().unwrap();
    assert!((200..400).contains(&dropped), "{report}");
    assert!(
        report["bytes"].as_u64() <= report["limit"].as_u64(),
        "{report}"
    );
    // One line of the log for a whole lot of them.
    let said = device.agent.log().matches("events were dropped").count();
    assert!(said < 60, "{said} lines");
    fs::remove_file(ballast).unwrap();
    device.wait_for_the_disk();
    device.agent.stop();

    // The same at the server, once there is one.
    let (server, fake) = Server::start();
    device.agent = device.agent.with(&["--url", &fake.url]);
    device.agent.start();
    eventually("all that is left arrives", || {
        let stored = server.stored();
        let lost: u64 = stored.dropped.values().sum();
        (stored.events.len() as u64 + lost == before + 400).then_some(())
    });
    let arrived: BTreeSet<String> = server.names().into_keys().collect();
    assert!(
        arrived.is_superset(&on_disk),
        "what was on the disk was dropped"
    );
    assert!(arrived.contains("many 399"), "the youngest stay");
    assert_eq!(server.stored().dropped.values().sum::<u64>(), dropped);
}

#[test]
fn an_end_on_a_full_disk_says_what_it_costs_and_reads_the_file_again() {
    let Some(mut device) = Device::new(&[]) else {
        return;
    };
    device.start();
    let (mut n, mut names) = (0, BTreeSet::new());
    let ballast = device.fill(&mut n, &mut names);
    n += 1;
    device.events(n, &mut names);
    device.agent.stop();
    let log = device.agent.log();
    let lost = log
        .lines()
        .find(|line| line.contains("are lost with this process"));
    assert!(
        lost.is_some_and(|line| line.contains("No space left on device")),
        "{log}"
    );
    // It starts on the full disk, too, and what the file still has is read again.
    device.append("while it was away");
    device.agent.start();
    device.agent.wait_until_it_serves();
    let from_the_file = || {
        let mut found = device.names();
        found.retain(|name| name.starts_with("file") || name.starts_with("while"));
        found
    };
    let of_file = |name: &&String| name.starts_with("file");
    let mut wanted: Vec<String> = names.iter().filter(of_file).cloned().collect();
    wanted.sort_by_key(|name| name[5..].parse::<usize>().unwrap());
    wanted.push("while it was away".to_owned());
    eventually("each of its lines is there once", || {
        (from_the_file() == wanted).then_some(())
    });
    assert_eq!(device.journal()["state"], "memory");
    fs::remove_file(ballast).unwrap();
    device.wait_for_the_disk();
    assert_eq!(from_the_file(), wanted);
    // Room that was made a moment before the end is used by it.
    let mut more = BTreeSet::new();
    eventually("it listens", || device.address());
    let ballast = device.fill(&mut n, &mut more);
    fs::remove_file(ballast).unwrap();
    device.agent.stop();
    device.agent.start();
    device.agent.wait_until_it_serves();
    let there: BTreeSet<String> = device.names().into_iter().collect();
    assert!(there.is_superset(&more), "{there:?} lacks some of {more:?}");
    assert_eq!(
        device.names().len(),
        there.len(),
        "something is there twice"
    );
}
