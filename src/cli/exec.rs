//! `triton exec` and all that is a job of the daemon, on this terminal.

use super::args::Exec;
use super::unexpected;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::local::client::{Client, Event};
use crate::message::payload::{
    self, Cancel, Command, ErrorCode, JobResult, Output, Progress, Status, Stream,
};
use crate::message::{Message, text};
use crate::sys::poll::{IN, OUT, PollSet};
use crate::sys::signal::{SIGINT, SIGTERM, Signals};
use serde_json::{Value, json};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

/// The command itself failed, not what it ran. These codes are those of env(1) and timeout(1).
pub const OWN_FAILURE: u8 = 125;
const TIMED_OUT: u8 = 124;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
const CANCELLED: u8 = 130;
/// 128 and SIGPIPE, as of a program whose output goes to `head`.
const UNREAD: u8 = 141;
/// What a pipe takes at once when poll(2) says that it has room: `PIPE_BUF`.
const PIPE_PIECE: usize = 4_096;

/// How long the daemon may take to answer before somebody is told that it does not.
const QUIET: Duration = Duration::from_secs(5);
/// How long an interrupted command waits to hear that its job was taken: its cancel is behind the request then.
const GRACE: Duration = Duration::from_secs(2);
/// Characters of a progress that are shown: it has to stay on one line.
const LINE_TEXT: usize = 60;
/// Bytes of standard input that fit a message in base64, with room for the rest of it.
const STDIN_LIMIT: u64 = 700 * 1024;

pub fn run(config: &Config, exec: &Exec) -> Result<u8> {
    let mut client = connect(config)?;
    let request = if exec.script {
        Message::with(payload::SCRIPT, &script(exec)?)
    } else {
        Message::with(payload::COMMAND, &command(exec)?)
    };
    follow(&mut client, &request)
}

/// To the daemon.
pub fn connect(config: &Config) -> Result<Client> {
    Client::connect(&config.socket, config.limits.message_bytes)
}

/// Asks for a job and shows what comes of it; returns the exit code.
pub fn follow(client: &mut Client, request: &Message) -> Result<u8> {
    let mut line = Line::new();
    let end = watch(client, request, &mut line);
    line.clear();
    end
}

fn watch(client: &mut Client, request: &Message, line: &mut Line) -> Result<u8> {
    // Not before: while standard input is read, Ctrl-C ends this process as usual.
    let signals = Signals::receive(&[SIGINT, SIGTERM])
        .map_err(|e| Error::because("cannot receive signals", e))?;
    client.send(request)?;
    let mut written = [0; 2];
    let mut accepted = false;
    let mut interrupted = false;
    let mut deadline = Some(Instant::now() + QUIET);
    loop {
        match client.next(Some(&signals), deadline)? {
            Event::TimedOut if interrupted => {
                eprintln!("triton: the daemon did not take the job in time: it does not run");
                return Ok(CANCELLED);
            }
            Event::TimedOut => {
                deadline = None;
                eprintln!(
                    "triton: waiting for the daemon, which does not answer yet; see 'triton doctor'"
                );
            }
            Event::Signal(_) => {
                if !accepted {
                    interrupted = true;
                    deadline = Some(Instant::now() + GRACE);
                }
                let cancel = Cancel {
                    job: request.id.clone(),
                    grace_seconds: None,
                };
                client.send(&Message::with(payload::CANCEL, &cancel))?;
            }
            Event::Message(m) if m.conversation_id != request.id => {}
            Event::Message(m) => match m.kind.as_str() {
                payload::ACCEPTED => {
                    accepted = true;
                    deadline = None;
                }
                payload::PROGRESS => line.show(&read(&m)?),
                payload::OUTPUT => {
                    line.clear();
                    if let Some(code) = pass_on(&m, &mut written, &signals)? {
                        return Ok(code);
                    }
                }
                payload::RESULT => {
                    line.clear();
                    let result: JobResult = read(&m)?;
                    if let Some(data) = &result.data {
                        super::print(&format!("{data}\n"));
                    }
                    return Ok(end(&result));
                }
                payload::ERROR => {
                    line.clear();
                    return Ok(failed(&read(&m)?, accepted));
                }
                other => return Err(unexpected(other)),
            },
            Event::Closed => {
                return Err(Error::new(
                    "the daemon went away before the job ended; see its log",
                ));
            }
        }
    }
}

/// How far the job is, on one line of the terminal that the next output takes away.
struct Line {
    terminal: bool,
    shown: bool,
}

impl Line {
    fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            shown: false,
        }
    }

    fn show(&mut self, progress: &Progress) {
        if self.terminal {
            let message: String = progress.message.chars().take(LINE_TEXT).collect();
            eprint!(
                "\r{:3.0} % {}\x1b[K",
                progress.percent,
                super::printable(&message)
            );
            self.shown = true;
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}

/// The request for a script: what one for a command has, with its name and arguments in place of those.
fn script(exec: &Exec) -> Result<Value> {
    let command = Command {
        argv: None,
        ..command(exec)?
    };
    let mut request: Value = payload::from_json(&payload::to_json(&command))
        .map_err(|e| Error::because("cannot write the request", e))?;
    let (name, args) = exec.argv.split_first().unzip();
    request["name"] = json!(name);
    request["args"] = json!(args);
    Ok(request)
}

fn command(exec: &Exec) -> Result<Command> {
    let stdin = if exec.stdin {
        Some(read_stdin()?)
    } else {
        None
    };
    Ok(Command {
        argv: (!exec.argv.is_empty()).then(|| exec.argv.clone()),
        shell: exec.shell.clone(),
        env: exec.env.clone(),
        cwd: exec.cwd.clone(),
        stdin,
        user: exec.user.clone(),
        group: exec.group.clone(),
        timeout_seconds: exec.timeout,
        nice: exec.nice,
        memory_bytes: exec.memory,
        ..Command::default()
    })
}

fn read_stdin() -> Result<String> {
    let bytes = super::read_stdin(STDIN_LIMIT, "put it into a file")?;
    Ok(text::encode(&bytes))
}

fn read<T: serde::de::DeserializeOwned>(message: &Message) -> Result<T> {
    message
        .read()
        .map_err(|e| Error::because(format!("a {} of the daemon", message.kind), e))
}

/// Writes a piece of output; says so where bytes are missing before it. An exit code ends this process, and with it
/// the job, which the daemon cancels: nobody reads the output any more, or somebody wants an end while nobody does.
fn pass_on(message: &Message, written: &mut [u64; 2], signals: &Signals) -> Result<Option<u8>> {
    let output: Output = read(message)?;
    let (stream, offset) = (output.stream, output.offset);
    let bytes = output
        .into_bytes()
        .ok_or_else(|| Error::new("an output of the daemon has wrong base64"))?;
    let place = &mut written[usize::from(stream == Stream::Stderr)];
    if offset > *place {
        eprintln!(
            "triton: {} bytes of output are missing here",
            offset - *place
        );
    }
    *place = offset + bytes.len() as u64;
    for piece in bytes.chunks(PIPE_PIECE) {
        let done = match stream {
            Stream::Stdout => {
                let mut out = io::stdout().lock();
                wait_for_room(out.as_fd(), signals)
                    .and_then(|()| out.write_all(piece))
                    .and_then(|()| out.flush())
            }
            Stream::Stderr => {
                let mut out = io::stderr().lock();
                wait_for_room(out.as_fd(), signals).and_then(|()| out.write_all(piece))
            }
        };
        match done {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(Some(UNREAD)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(Some(CANCELLED)),
            Err(e) => return Err(Error::because("cannot write the job's output", e)),
        }
    }
    Ok(None)
}

/// Waits until a pipe takes a piece; `Interrupted` where a signal comes first.
fn wait_for_room(out: BorrowedFd<'_>, signals: &Signals) -> io::Result<()> {
    let mut set = PollSet::new();
    let room = set.add(out, OUT);
    set.add(signals.as_fd(), IN);
    set.wait(None)?;
    // With room the signal can wait for its turn in the loop over messages.
    if set.ready(room) == 0 && signals.next().is_some() {
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(())
}

fn end(result: &JobResult) -> u8 {
    if let Some(message) = &result.message {
        eprintln!("triton: {}", super::printable(message));
    }
    match result.status {
        Status::TimedOut => {
            eprintln!("triton: the job ran out of time and was ended");
            TIMED_OUT
        }
        Status::Cancelled => CANCELLED,
        Status::Interrupted | Status::Expired => OWN_FAILURE,
        Status::Succeeded | Status::Failed => match (result.exit_code, result.signal) {
            (Some(code), _) => u8::try_from(code).unwrap_or(1),
            (None, Some(signal)) => {
                eprintln!("triton: ended by signal {signal}");
                u8::try_from(128 + signal).unwrap_or(1)
            }
            // What the agent does itself has no process.
            (None, None) if result.status == Status::Succeeded => 0,
            (None, None) => OWN_FAILURE,
        },
    }
}

fn failed(error: &payload::Error, accepted: bool) -> u8 {
    eprintln!(
        "triton: {}: {}",
        error.code,
        super::printable(&error.message)
    );
    match error.code {
        ErrorCode::NotFound => NOT_FOUND,
        // The job never came so far: no room for it, or a disk that fails.
        _ if !accepted => OWN_FAILURE,
        ErrorCode::Io | ErrorCode::Refused => NOT_EXECUTABLE,
        _ => OWN_FAILURE,
    }
}
