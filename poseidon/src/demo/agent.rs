//! The demo's agent: a real `triton` process.

use clap::Args;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// An agent stops in order within 5 s; one that does not is killed.
const STOP: Duration = Duration::from_secs(6);
/// Time for `triton identifier`.
const ASK: Duration = Duration::from_secs(10);
/// Lines of its log that are shown when something fails.
const TAIL: usize = 20;

/// Finds the agent's binary: as told, built by the cargo that started us, beside us, in the PATH.
pub(super) async fn find(told: Option<PathBuf>) -> Result<PathBuf, String> {
    if let Some(path) = told {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(format!("{} is no file", path.display()))
        };
    }
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let beside = own.with_file_name("triton");
    if let (Some(cargo), Some(manifest)) = (
        std::env::var_os("CARGO"),
        std::env::var_os("CARGO_MANIFEST_DIR"),
    ) {
        // Always, so that it is as fresh as this program; where nothing has changed it takes a moment.
        let folder = own.parent().unwrap_or(Path::new("."));
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            None | Some("debug") => "dev",
            Some(name) => name,
        };
        let status = Command::new(cargo)
            .args([
                "build",
                "--bin",
                "triton",
                "--profile",
                profile,
                "--manifest-path",
            ])
            .arg(Path::new(&manifest).join("../Cargo.toml"))
            .arg("--target-dir")
            .arg(folder.parent().unwrap_or(folder))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await
            .map_err(|e| format!("cannot start cargo: {e}"))?;
        return if status.success() {
            Ok(beside)
        } else {
            Err(format!("cargo did not build it: {status}"))
        };
    }
    if beside.is_file() {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("triton"))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            "it is neither beside this program nor in the PATH; give --triton FILE".to_owned()
        })
}

/// Makes an agent that waits for its next try try at once.
pub(super) fn hang_up(pid: Option<rustix::process::Pid>) {
    send(pid, rustix::process::Signal::HUP);
}

fn send(pid: Option<rustix::process::Pid>, signal: rustix::process::Signal) {
    if let Some(pid) = pid {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// What stands between the demo and its agent: it sees to it that the kernel ends the agent with the demo, also where
/// that is killed, and then becomes the agent.
#[derive(Args)]
pub struct Become {
    /// Process id of the demo
    parent: i32,
    /// The agent and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Become {
    pub(crate) fn run(self) -> Result<ExitCode, String> {
        use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
        set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(|e| format!("the agent cannot be bound to the demo: {e}"))?;
        // It may have ended just before.
        if getppid() != Pid::from_raw(self.parent) {
            return Err("the demo has ended".to_owned());
        }
        let (program, arguments) = self.command.split_first().ok_or("no agent is named")?;
        let e = std::process::Command::new(program).args(arguments).exec();
        Err(format!("cannot run {}: {e}", program.display()))
    }
}

/// The process; killed when this is dropped.
pub(super) struct Agent {
    binary: PathBuf,
    state: PathBuf,
    child: Option<Child>,
}

impl Agent {
    pub(super) fn new(binary: PathBuf, state: PathBuf) -> Self {
        Self {
            binary,
            state,
            child: None,
        }
    }

    /// A command that knows nothing of the agent that this machine may have.
    fn command(&self) -> Command {
        Self::clean(Command::new(&self.binary))
    }

    fn clean(mut command: Command) -> Command {
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"TRITON_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// The same, bound to this process.
    fn bound(&self) -> Result<Command, String> {
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = Self::clean(Command::new(own));
        command
            .arg("demo-agent")
            .arg(std::process::id().to_string())
            .arg("--")
            .arg(&self.binary);
        Ok(command)
    }

    /// Has the agent make its identifier, and tells it.
    pub(super) async fn identifier(&self) -> Result<String, String> {
        let asked = self
            .command()
            .arg("identifier")
            .arg("--state")
            .arg(&self.state)
            .output();
        let output = timeout(ASK, asked)
            .await
            .map_err(|_| "`triton identifier` does not end".to_owned())?
            .map_err(|e| format!("cannot run {}: {e}", self.binary.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("`triton identifier` failed: {}", said.trim()));
        }
        // 256 bits in hex; the instance id beside it is shorter.
        text.split_whitespace()
            .find(|word| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit()))
            .map(str::to_owned)
            .ok_or_else(|| format!("`triton identifier` shows no identifier: {}", text.trim()))
    }

    fn arguments(&self, url: &str) -> Vec<String> {
        let url = format!("{}/triton", url.replacen("http", "ws", 1));
        let state = self.state.display().to_string();
        let socket = self.state.join("triton.sock").display().to_string();
        [
            "run",
            "--url",
            &url,
            "--state",
            &state,
            "--socket",
            &socket,
            "--heartbeat",
            "2",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// How it is started.
    pub(super) fn command_line(&self, url: &str) -> String {
        format!("triton {}", self.arguments(url).join(" "))
    }

    fn log(&self) -> PathBuf {
        self.state.with_extension("log")
    }

    /// A file beside its state.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.state.with_file_name(name)
    }

    pub(super) fn start(&mut self, url: &str) -> Result<(), String> {
        let log = File::create(self.log()).map_err(|e| e.to_string())?;
        let errors = log.try_clone().map_err(|e| e.to_string())?;
        let child = self
            .bound()?
            .args(self.arguments(url))
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("cannot run {}: {e}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    pub(super) fn pid(&self) -> Option<rustix::process::Pid> {
        let id = self.child.as_ref()?.id()?;
        rustix::process::Pid::from_raw(i32::try_from(id).ok()?)
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        Some(status.to_string())
    }

    /// Stops it in order, or else by force.
    pub(super) async fn stop(&mut self) {
        let pid = self.pid();
        let Some(child) = &mut self.child else {
            return;
        };
        send(pid, rustix::process::Signal::TERM);
        if timeout(STOP, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
    }

    /// The end of its log, for the message of what failed.
    pub(super) fn log_tail(&self) -> String {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let start = lines.len().saturating_sub(TAIL);
        if lines.is_empty() {
            return "\nThe agent's log is empty.".to_owned();
        }
        let mut tail = "\nThe end of the agent's log:".to_owned();
        for line in &lines[start..] {
            tail.push_str("\n  ");
            tail.push_str(&crate::cli::clean(line));
        }
        tail
    }
}
