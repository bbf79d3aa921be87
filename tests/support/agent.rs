//! The real `triton` binary.

use super::place::Place;
use super::{PATIENCE, eventually};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use tempfile::TempDir;

/// A running agent with a state folder of its own; killed when dropped.
pub struct Agent {
    child: Option<Child>,
    folder: TempDir,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    place: Place,
}

/// The program under test: cargo's, or one for another processor with what runs it (`cross/emulate.sh`).
pub fn program() -> PathBuf {
    std::env::var_os("TRITON_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_triton").into(), PathBuf::from)
}

/// A `triton` command without what the environment of the tests may hold.
pub fn triton() -> Command {
    let mut command = Command::new(program());
    remove_settings(&mut command);
    command
}

fn remove_settings(command: &mut Command) {
    for (name, _) in std::env::vars() {
        if name.starts_with("TRITON_") || name.to_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
}

impl Agent {
    /// An agent that is not started yet.
    pub fn new() -> Self {
        Self {
            child: None,
            folder: tempfile::tempdir().unwrap(),
            arguments: Vec::new(),
            variables: Vec::new(),
            place: Place::default(),
        }
    }

    /// A running agent without Poseidon.
    pub fn offline() -> Self {
        let mut agent = Self::new();
        agent.start();
        agent.wait_until_it_serves();
        agent
    }

    /// A running agent of the server at `url`.
    pub fn of(url: &str) -> Self {
        let mut agent = Self::new().with(&["--url", url]);
        agent.start();
        agent
    }

    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|&a| a.to_owned()));
        self
    }

    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// In another namespace, or as another user.
    pub fn within(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("triton.sock")
    }

    /// A command with this agent's settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.prepare(triton(), arguments)
    }

    fn prepare(&self, mut command: Command, arguments: &[&str]) -> Command {
        command
            .arg("--state")
            .arg(self.state())
            .arg("--socket")
            .arg(self.socket())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// The daemon, where it belongs.
    fn daemon(&self) -> Command {
        let mut command = self.place.command(&program());
        remove_settings(&mut command);
        self.prepare(command, &["run"])
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn start(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let mut command = self.daemon();
        command
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(n, v)| (n, v)))
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub fn wait_until_it_serves(&self) {
        eventually("the local socket answers", || {
            self.run(&["status"]).status.success().then_some(())
        });
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits for a text in the log.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) -> String {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            if log.contains(text) {
                return log;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "the log never says {text:?}:\n{log}"
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    pub fn status(&self) -> serde_json::Value {
        let output = self.run(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Waits for a state of the connection.
    #[track_caller]
    pub fn wait_for_link(&self, state: &str) {
        eventually(
            &format!("the link is {state}; log:\n{}", self.log()),
            || (self.status()["link"]["state"] == state).then_some(()),
        );
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn signal(&self, signal: i32) {
        super::signal(self.pid(), signal);
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let status = eventually("the agent ends", || child.try_wait().unwrap());
        drop(child);
        status
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .expect("it was started")
            .try_wait()
            .unwrap()
    }

    pub fn stop(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    /// Open descriptors and threads.
    pub fn resources(&self) -> (usize, usize) {
        let count = |what| {
            fs::read_dir(format!("/proc/{}/{what}", self.pid()))
                .unwrap()
                .count()
        };
        (count("fd"), count("task"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the agent's log\n{}---", self.log());
        }
    }
}
