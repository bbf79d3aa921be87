//! The real `poseidon` binary.

use super::eventually;
use super::place::Place;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The program, beside the agent's. It is another package's, so cargo is asked to build it if a whole
/// `cargo test --workspace` has not done so already: by way of a test of that package, since for `cargo build` it would
/// be built once more, without the features that tests add to what both need.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("TRITON_TEST_POSEIDON") {
            return path.into();
        }
        let folder = Path::new(env!("CARGO_BIN_EXE_triton")).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["test", "--no-run", "--quiet", "--workspace"])
            .args(["--test", "http"])
            .args([
                "--manifest-path",
                concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
            ])
            .arg("--target-dir")
            .arg(folder.parent().unwrap());
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        // What cargo says of this package to its tests is news to ring's build script, which would build it, and all that
        // needs it, anew, and again for the next cargo that is started elsewhere.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                build.env_remove(name);
            }
        }
        assert!(
            build.status().unwrap().success(),
            "poseidon cannot be built"
        );
        folder.join("poseidon")
    })
}

/// A running Poseidon with a data folder of its own; killed when dropped.
pub struct Poseidon {
    child: Option<Child>,
    folder: TempDir,
    arguments: Vec<String>,
    address: String,
    /// Keeps the address while nobody listens on it.
    port: Option<super::port::Port>,
    place: Place,
}

impl Poseidon {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With more arguments for `serve`.
    pub fn with(arguments: &[&str]) -> Self {
        let mut poseidon = Self::at("127.0.0.1:0", arguments);
        poseidon.launch();
        poseidon
    }

    /// At an address that nobody else gets while it is killed and launched again.
    pub fn on_a_held_port(arguments: &[&str]) -> Self {
        let port = super::port::Port::hold();
        let mut poseidon = Self::at(&port.address.to_string(), arguments);
        poseidon.port = Some(port);
        poseidon.launch();
        poseidon
    }

    /// Launched from now on in another namespace.
    pub fn put_in(&mut self, place: Place) {
        self.place = place;
    }

    /// One that is not launched yet.
    pub fn at(address: &str, arguments: &[&str]) -> Self {
        Self {
            child: None,
            folder: tempfile::tempdir().unwrap(),
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            address: address.to_owned(),
            port: None,
            place: Place::default(),
        }
    }

    /// Starts it and kills it so soon that it may not even listen.
    pub fn launch_and_kill(&mut self, after: std::time::Duration) {
        let child = self
            .command(&["serve", "--listen", &self.address])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
        std::thread::sleep(after);
        self.kill();
    }

    /// The admin token.
    pub fn token(&self) -> String {
        let path = self.place.path(&self.data().join("admin-token"));
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Starts it, again at the same address where it had one.
    pub fn launch(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let mut child = self
            .place
            .command(program())
            .args(["serve", "--listen", &self.address, "--data"])
            .arg(self.data())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut first = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut first).unwrap();
        self.child = Some(child);
        let address = first.trim().rsplit("://").next().unwrap_or_default();
        assert!(
            address.contains(':'),
            "poseidon says {first:?}:\n{}",
            self.log()
        );
        address.clone_into(&mut self.address);
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn url(&self) -> String {
        format!("ws://{}/triton", self.address)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        for (name, _) in std::env::vars() {
            if name.starts_with("POSEIDON_") || name.to_lowercase().ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command.arg("--data").arg(self.data()).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed, and reads its JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "poseidon {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Lets an identifier in before it connects.
    #[track_caller]
    pub fn register(&self, identifier: &str, name: &str) {
        let output = self.run(&["register", identifier, "--name", name]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The agents as the API gives them.
    pub fn agents(&self) -> Vec<serde_json::Value> {
        let all = self.json(&["agents", "--json"]);
        all["agents"].as_array().unwrap().clone()
    }

    /// Waits until an agent of this name is in a state.
    #[track_caller]
    pub fn wait_for(&self, name: &str, state: &str) -> serde_json::Value {
        eventually(&format!("{name} is {state}; log:\n{}", self.log()), || {
            self.agents()
                .into_iter()
                .find(|a| a["name"] == name && a["state"] == state)
        })
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Poseidon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- poseidon's log\n{}---", self.log());
        }
    }
}
