//! The real Poseidon.

use poseidon::cli::client::Client;
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

pub struct Server {
    folder: tempfile::TempDir,
    child: Option<Child>,
    listen: String,
}

/// What a process has used.
pub struct Usage {
    resident_kb: u64,
    peak_kb: u64,
    seconds: f64,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} MB resident, {:.0} MB at most, {:.1} s of processor time",
            self.resident_kb as f64 / 1000.0,
            self.peak_kb as f64 / 1000.0,
            self.seconds
        )
    }
}

/// As many descriptors as are allowed.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Beside this program's folder, unless the environment names another.
fn program() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("POSEIDON") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let folder = own.parent().and_then(|examples| examples.parent());
    Ok(folder.unwrap_or(&own).join("poseidon"))
}

impl Server {
    pub async fn start() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| format!("cannot make a folder: {e}"))?;
        let mut server = Self {
            folder,
            child: None,
            listen: "127.0.0.1:0".to_owned(),
        };
        server.restart().await?;
        Ok(server)
    }

    /// Returns when it listens.
    pub async fn restart(&mut self) -> Result<(), String> {
        let program = program()?;
        let failed = |e| format!("cannot start {}: {e}", program.display());
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .map_err(failed)?;
        let mut child = Command::new(&program)
            .args(["serve", "--listen", &self.listen, "--data"])
            .arg(self.folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            let mut stdout = BufReader::new(stdout);
            stdout.read_line(&mut line).await.map_err(failed)?;
        }
        self.child = Some(child);
        let address = line.trim().rsplit("://").next().filter(|a| a.contains(':'));
        address
            .ok_or_else(|| {
                let log = std::fs::read_to_string(self.folder.path().join("log"));
                format!("Poseidon does not listen: {}", log.unwrap_or_default())
            })?
            .clone_into(&mut self.listen);
        Ok(())
    }

    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error says that it is gone already, which the agents will tell.
            let _ = child.kill().await;
        }
    }

    pub fn address(&self) -> String {
        self.listen.clone()
    }

    pub fn client(&self) -> Result<Client, String> {
        let path = self.folder.path().join("data/admin-token");
        let token = std::fs::read_to_string(&path)
            .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Client::new(
            &format!("http://{}", self.listen),
            token.trim().to_owned(),
            None,
        )
    }

    /// Of the process that runs now.
    pub fn usage(&self) -> Usage {
        let pid = self.child.as_ref().and_then(Child::id).unwrap_or(0);
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let status = read("status");
        let kb = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let word = line.and_then(|line| line.split_whitespace().nth(1));
            word.and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        let stat = read("stat");
        let fields = stat.rsplit(") ").next().unwrap_or("").split(' ');
        let ticks: u64 = fields
            .skip(11)
            .take(2)
            .filter_map(|f| f.parse::<u64>().ok())
            .sum();
        Usage {
            resident_kb: kb("VmRSS"),
            peak_kb: kb("VmHWM"),
            // USER_HZ is 100 on every Linux that runs this.
            seconds: ticks as f64 / 100.0,
        }
    }
}
