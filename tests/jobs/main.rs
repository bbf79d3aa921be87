//! Jobs against real processes.

mod ending;
mod queue;
mod resources;
mod starting;
mod streams;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use triton::job::{JobState, Origin, Pool, Request, Settings, Work};
use triton::journal::{Acceptance, Journal};
use triton::message::payload::{
    Accepted, Cancel, Command, Error, ErrorCode, JobResult, Output, OutputMode, Status, Stream,
};
use triton::message::{Message, id, text};
use triton::outbox::{Limits, Outbox};
use triton::sys::{clock, poll};
use triton::thread::Crew;

/// No test should ever take so long; a loaded machine may.
const PATIENCE: Duration = Duration::from_mins(1);

/// A pool, and one peer that reads what it says.
struct Bench {
    pool: Arc<Pool>,
    journal: Arc<Journal>,
    sink: Arc<Outbox>,
    /// Read, and not asked for yet.
    seen: Vec<Message>,
}

/// All that was said of one job.
#[derive(Debug, Default)]
struct Course {
    accepted: Vec<Accepted>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    pieces: usize,
    result: Option<JobResult>,
    error: Option<Error>,
}

impl Course {
    fn result(self) -> JobResult {
        assert_eq!(self.error, None);
        self.result.unwrap()
    }

    fn error(self) -> Error {
        assert_eq!(self.result, None);
        self.error.unwrap()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

fn outbox() -> Arc<Outbox> {
    let outbox = Outbox::new(Limits {
        control: 1000,
        output_bytes: 256 * 1024,
    })
    .unwrap();
    outbox.set_online(true);
    Arc::new(outbox)
}

/// In memory: its folder is none.
fn journal() -> Arc<Journal> {
    let settings = triton::journal::Settings {
        folder: "/proc/triton/journal".into(),
        state: "/proc/triton".into(),
        bytes: 1 << 20,
        memory_bytes: 16 << 20,
        sync: false,
        goes_on: None,
    };
    Arc::new(Journal::open(&settings).unwrap())
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let journal = journal();
        let crew = Crew::new(|name| panic!("the thread {name} panicked"));
        Self {
            pool: Pool::start(settings, &crew, Arc::clone(&journal)),
            journal,
            sink: outbox(),
            seen: Vec::new(),
        }
    }

    fn submit(&self, command: Command) -> String {
        let token = id::random();
        self.submit_as(&token, command);
        token
    }

    fn submit_as(&self, token: &str, command: Command) {
        self.pool.submit(Request {
            token: token.to_owned(),
            kind: "command".to_owned(),
            conversation_id: token.to_owned(),
            work: Work::Command(command),
            name: None,
            holds: None,
            sink: Arc::clone(&self.sink),
            origin: Origin::Local,
        });
    }

    /// What the journal has of a job: codes and data.
    fn records(&self, token: &str) -> Vec<(u32, serde_json::Value)> {
        let mut records = Vec::new();
        let mut last = 0;
        while let Some(record) = self.journal.next(last) {
            last = record.id;
            if record.token == token {
                records.push((
                    record.code,
                    serde_json::from_str(record.data.get()).unwrap(),
                ));
            }
        }
        records
    }

    /// The next message of this conversation.
    fn next(&mut self, token: &str) -> Message {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.sink.wake().clear();
            self.seen.extend(std::iter::from_fn(|| self.sink.pop()));
            if let Some(place) = self.seen.iter().position(|m| m.conversation_id == token) {
                return self.seen.remove(place);
            }
            poll::wait_one(self.sink.wake().as_fd(), poll::IN, deadline)
                .expect("a message in time");
        }
    }

    /// Everything up to the end of this job.
    fn course(&mut self, token: &str) -> Course {
        let mut course = Course::default();
        loop {
            let message = self.next(token);
            match message.kind.as_str() {
                "accepted" => course.accepted.push(message.read().unwrap()),
                "output" => {
                    let output: Output = message.read().unwrap();
                    let stream = match output.stream {
                        Stream::Stdout => &mut course.stdout,
                        Stream::Stderr => &mut course.stderr,
                    };
                    assert_eq!(output.offset, stream.len() as u64, "a gap");
                    course.pieces += 1;
                    stream.extend(output.into_bytes().unwrap());
                }
                "result" => {
                    course.result = Some(message.read().unwrap());
                    return course;
                }
                "error" => {
                    course.error = Some(message.read().unwrap());
                    return course;
                }
                other => panic!("{other}"),
            }
        }
    }

    /// The same where some of its output has been read already.
    fn course_from_middle(&mut self, token: &str) -> Course {
        let mut course = Course::default();
        loop {
            let message = self.next(token);
            match message.kind.as_str() {
                "result" => {
                    course.result = Some(message.read().unwrap());
                    return course;
                }
                "accepted" | "output" => {}
                other => panic!("{other}"),
            }
        }
    }

    /// The next message of this conversation, reading no further than that.
    fn next_only(&mut self, token: &str) -> Message {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.sink.wake().clear();
            while let Some(message) = self.sink.pop() {
                if message.conversation_id == token {
                    return message;
                }
                self.seen.push(message);
            }
            poll::wait_one(self.sink.wake().as_fd(), poll::IN, deadline)
                .expect("a message in time");
        }
    }

    fn run(&mut self, command: Command) -> Course {
        let token = self.submit(command);
        self.course(&token)
    }

    fn state(&self, token: &str) -> Option<JobState> {
        self.pool.list().into_iter().find(|j| j.token == token)
    }

    fn cancel(&self, token: &str, grace: Option<f64>) -> Result<(), Error> {
        self.pool.cancel(&Cancel {
            job: token.to_owned(),
            grace_seconds: grace,
        })
    }

    /// Waits for a line that the job says first, such as "ready".
    fn until_said(&mut self, token: &str, line: &str) {
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains(line) {
            let message = self.next(token);
            if message.kind == "output" {
                said.extend(message.read::<Output>().unwrap().into_bytes().unwrap());
            } else {
                assert_eq!(message.kind, "accepted", "{message:?}");
            }
        }
    }
}

fn argv(words: &[&str]) -> Command {
    Command {
        argv: Some(words.iter().map(ToString::to_string).collect()),
        ..Command::default()
    }
}

fn shell(text: &str) -> Command {
    Command {
        shell: Some(text.to_owned()),
        ..Command::default()
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process runs: a zombie does not.
fn lives(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit(')').next().unwrap_or("").trim_start();
        !state.starts_with('Z')
    })
}

fn is_root() -> bool {
    triton::sys::user::effective_uid() == 0
}

/// Runs a test in a process of its own, for what a process has only one of. True inside it.
fn alone(test: &str, limits: &str) -> bool {
    const MARK: &str = "TRITON_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let output = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{limits} exec \"$0\" \"$1\" --exact --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(MARK, "1")
        .env("TRITON_IDENTIFIER", "secret")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains("1 passed"), "{said}");
    false
}
