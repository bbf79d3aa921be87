//! Jobs against real processes.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use triton::job::{JobState, Origin, Pool, Request, Settings};
use triton::message::payload::{
    Accepted, Cancel, Command, Error, ErrorCode, JobResult, Output, OutputMode, Status, Stream,
};
use triton::message::{Message, id, text};
use triton::outbox::{Limits, Outbox};
use triton::sys::{clock, poll};
use triton::thread::Crew;

/// No test should ever take so long; a loaded machine may.
const PATIENCE: Duration = Duration::from_secs(60);

/// A pool, and one peer that reads what it says.
struct Bench {
    pool: Arc<Pool>,
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

impl Bench {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let crew = Crew::new(|name| panic!("the thread {name} panicked"));
        Self {
            pool: Pool::start(settings, &crew).unwrap(),
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
            conversation_id: token.to_owned(),
            command,
            sink: Arc::clone(&self.sink),
            origin: Origin::Poseidon,
        });
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

#[test]
fn a_command_runs_and_tells_all() {
    let mut bench = Bench::new();
    let course = bench.run(argv(&["printf", "%s|", "a b", "$HOME", ""]));
    assert_eq!(course.accepted, [Accepted::default()]);
    assert_eq!(course.text(), "a b|$HOME||");
    let result = course.result();
    assert_eq!(
        (result.status, result.exit_code, result.signal),
        (Status::Succeeded, Some(0), None)
    );
    assert_eq!((result.stdout_bytes, result.stderr_bytes), (11, 0));
    assert_eq!(result.tail.stdout.data, "a b|$HOME||");
    assert!((result.started_at.unwrap() - clock::now()).abs() < 60.0);
    assert!(!result.leaked);

    let course = bench.run(shell("echo out; echo err >&2; exit 7"));
    assert_eq!(
        (course.text(), course.stderr.as_slice()),
        ("out\n", &b"err\n"[..])
    );
    let result = course.result();
    assert_eq!((result.status, result.exit_code), (Status::Failed, Some(7)));
    assert_eq!(result.tail.stderr.data, "err\n");
    let result = bench.run(shell("kill -9 $$")).result();
    assert_eq!(
        (result.status, result.exit_code, result.signal),
        (Status::Failed, None, Some(9))
    );
}

#[test]
fn stdin_flows_in_while_output_flows_out() {
    let mut bench = Bench::new();
    // More than pipes hold, both ways, and bytes of every value.
    let bytes: Vec<u8> = (0..600_000_u32).map(|n| (n * 31 / 7) as u8).collect();
    let mut command = argv(&["cat"]);
    command.stdin = Some(text::encode(&bytes));
    let course = bench.run(command);
    assert!(course.stdout == bytes);
    let result = course.result();
    assert_eq!(
        (result.status, result.stdout_bytes),
        (Status::Succeeded, 600_000)
    );
    // A process that does not want all of it is not disturbed.
    let mut command = shell("head -c 3");
    command.stdin = Some(text::encode(&bytes));
    assert_eq!(bench.run(command).stdout, bytes[..3]);
    let mut command = argv(&["cat"]);
    command.stdin = Some(String::new());
    assert_eq!(bench.run(command).result().status, Status::Succeeded);
    assert_eq!(bench.run(argv(&["cat"])).stdout, b"");
}

#[test]
fn what_cannot_start_ends_with_an_error_that_says_why() {
    let mut bench = Bench::new();
    let course = bench.run(argv(&["no-such-program"]));
    assert_eq!(course.accepted.len(), 1);
    let error = course.error();
    assert_eq!(error.code, ErrorCode::NotFound);
    assert!(error.message.contains("\"no-such-program\""));
    let course = bench.run(Command::default());
    assert_eq!(course.accepted.len(), 0);
    assert_eq!(course.error().code, ErrorCode::Invalid);
    let again = bench.submit(argv(&["/no/such"]));
    let first = bench.course(&again).error();
    bench.submit_as(&again, argv(&["true"]));
    assert_eq!(bench.course(&again).error(), first);
}
