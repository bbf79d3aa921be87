//! Settings: defaults < file < environment < flags. Every limit of the agent has its name here.

mod check;
mod file;
mod overlay;
mod setting;
mod table;

pub use check::public_key;
pub use file::schedule as schedule_entries;
pub use setting::{Outside, Setting};
pub use table::SETTINGS;

use crate::error::{Error, Result};
use crate::policy;
use crate::schedule::Entry;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the file is looked for when `--config` and `TRITON_CONFIG` say nothing. It need not exist.
pub const DEFAULT_FILE: &str = "/etc/triton/triton.toml";

/// Longest configuration file, in bytes.
const FILE_LIMIT: u64 = 256 * 1024;

/// All settings, as the agent uses them. [`SETTINGS`] says how each is given and what it may be; the table in
/// `README.md` is the users' side.
#[derive(Clone)]
pub struct Config {
    /// Where Poseidon is; several are tried in turn. Empty: the agent works offline only.
    pub url: Vec<String>,
    /// The identifier (API key) itself.
    pub identifier: Option<String>,
    /// A file that holds it.
    pub identifier_file: Option<PathBuf>,
    /// Folder of the agent's own files: identifier, instance.
    pub state: PathBuf,
    /// The local Unix socket.
    pub socket: PathBuf,
    /// Group that may use the socket besides root and the agent's own user.
    pub socket_group: Option<String>,
    /// Seconds between heartbeats that this device asks for; Poseidon's operator may have set others for it.
    pub heartbeat_seconds: Option<u32>,
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`.
    pub log: log::LevelFilter,
    /// Where the daemon's log goes.
    pub log_to: LogTo,
    /// The agent's own place in the kernel's line when memory runs out, -1000 (never) to 1000 (first).
    pub oom_score_adj: Option<i32>,
    /// Free labels, told to Poseidon.
    pub labels: BTreeMap<String, String>,
    /// What the device runs by its own clock.
    pub schedule: Vec<Arc<Entry>>,
    /// What Poseidon may ask for.
    pub policy: policy::Settings,
    #[allow(missing_docs)]
    pub tls: Tls,
    #[allow(missing_docs)]
    pub proxy: Proxy,
    #[allow(missing_docs)]
    pub connect: Connect,
    #[allow(missing_docs)]
    pub jobs: Jobs,
    #[allow(missing_docs)]
    pub journal: Journal,
    #[allow(missing_docs)]
    pub scripts: Scripts,
    #[allow(missing_docs)]
    pub engine: Engine,
    #[allow(missing_docs)]
    pub system: System,
    #[allow(missing_docs)]
    pub update: Update,
    #[allow(missing_docs)]
    pub trust: Trust,
    #[allow(missing_docs)]
    pub plugins: Plugins,
    #[allow(missing_docs)]
    pub files: Files,
    #[allow(missing_docs)]
    pub events: Events,
    #[allow(missing_docs)]
    pub relay: Relay,
    #[allow(missing_docs)]
    pub metrics: Metrics,
    #[allow(missing_docs)]
    pub limits: Limits,
}

/// Where the daemon's log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTo {
    /// Standard error, where procd and systemd take it from.
    Stderr,
    /// The system's log, with levels.
    Syslog,
}

/// `[tls]`: whom to trust.
#[derive(Clone, Default)]
pub struct Tls {
    /// Authorities in PEM, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the server's public key, and of backup keys. Without `ca_file` they take the place of the
    /// authorities; with it both must hold.
    pub pins: Vec<String>,
}

/// `[proxy]`: an HTTP proxy by CONNECT.
#[derive(Clone, Default)]
pub struct Proxy {
    /// `http://[user:password@]host:port`, or `none`. Absent: `https_proxy`, `http_proxy` and `all_proxy`.
    pub url: Option<String>,
    /// Hosts reached without it, as in `no_proxy`. Absent: the environment's `no_proxy`.
    pub no_proxy: Option<String>,
}

/// `[connect]`: a deadline in seconds for each phase, and the pauses between attempts.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Connect {
    pub dns_seconds: u64,
    /// For each address.
    pub tcp_seconds: u64,
    pub proxy_seconds: u64,
    pub tls_seconds: u64,
    pub http_seconds: u64,
    /// For `welcome` after `hello`; then the server counts as a plain one.
    pub hello_seconds: u64,
    /// For the answer to a keep-alive ping.
    pub pong_seconds: u64,
}

/// `[update]`: whether the program may be replaced.
#[derive(Clone)]
pub struct Update {
    /// Ed25519 public keys, base64, of those who may sign a new program. None: updates are off.
    pub keys: Vec<String>,
    /// Seconds that a new program has for its first welcome.
    pub confirm_seconds: u64,
}

/// `[trust]`: whom the device obeys.
#[derive(Clone, Default)]
pub struct Trust {
    /// Ed25519 public keys, base64, that Poseidon may have. None: the first Poseidon that has approved this device is
    /// pinned.
    pub poseidon_keys: Vec<String>,
}

/// `[jobs]`: what runs commands.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Jobs {
    /// Jobs at once.
    pub workers: usize,
    /// Jobs that wait for a worker or their time; one more is answered `busy`.
    pub queue: usize,
    /// Seconds from SIGTERM to SIGKILL.
    pub grace_seconds: u64,
    /// Time-out of a job that names none; 0: none.
    pub timeout_seconds: u64,
    /// Bytes of each stream kept for a result in `collect` mode.
    pub collect_bytes: usize,
    /// Niceness of a job that names none.
    pub nice: i32,
    /// A job's place in the kernel's line when memory runs out.
    pub oom_score_adj: i32,
    /// Of older versions. The journal is the memory of ended jobs now: the setting means nothing any more.
    pub remembered: bool,
}

/// `[journal]`: the device's history, and what has to reach Poseidon.
#[derive(Clone)]
pub struct Journal {
    /// Its folder; by default `journal` in the state folder.
    pub folder: Option<PathBuf>,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of its records while the folder cannot be used.
    pub memory_bytes: usize,
    /// Whether to wait for the disk where the promise needs it.
    pub sync: bool,
}

/// `[scripts]`: what runs them.
#[derive(Clone)]
pub struct Scripts {
    /// By extension, for scripts without a `#!` line; what the file names is added to what there is.
    pub interpreters: BTreeMap<String, String>,
}

/// `[engine]`: a monitoring engine on this device.
#[derive(Clone, Default)]
pub struct Engine {
    /// Its command pipe.
    pub pipe: Option<PathBuf>,
}

/// `[system]`: how the device goes down. Run without a shell.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct System {
    pub reboot_command: Vec<String>,
    pub shutdown_command: Vec<String>,
}

/// `[plugins]`: what of the agent is on, and what runs beside it.
#[derive(Clone)]
pub struct Plugins {
    /// Built-in ones that are switched off.
    pub off: Vec<String>,
    /// Where the external ones are. It need not exist.
    pub folder: PathBuf,
    /// Seconds that one may take to its `hello`.
    pub hello_seconds: u64,
    /// Seconds that one may leave a `ping` unanswered or its input unread.
    pub patience_seconds: u64,
    /// Messages that are read of one in a second.
    pub rate: u64,
}

/// `[files]`: how content moves to and from the device.
#[derive(Clone)]
pub struct Files {
    /// Bytes that are asked for ahead.
    pub window_bytes: u64,
    /// Seconds that a peer may be silent in a transfer while the connection stands.
    pub idle_seconds: u64,
    /// Entries of one `directory.put`.
    pub manifest_entries: usize,
    /// Bytes of a file system that a transfer leaves free.
    pub reserve_bytes: u64,
}

/// `[events]`: where CEF events come from, and how many.
#[derive(Clone)]
pub struct Events {
    /// Bytes of one line.
    pub line_bytes: usize,
    /// Bytes of those that travel together.
    pub batch_bytes: usize,
    /// A second, from each source of the listener and from each file.
    pub rate: u32,
    /// Where datagrams of syslog are taken; by default nowhere.
    pub syslog_udp: Option<SocketAddr>,
    /// The same at a path.
    pub syslog_unix: Option<PathBuf>,
    /// Files that are followed.
    pub files: Vec<PathBuf>,
}

/// `[relay]`: other agents reach Poseidon through this one.
#[derive(Clone)]
pub struct Relay {
    /// Where they connect; by default nowhere.
    pub listen: Option<SocketAddr>,
    /// At once.
    pub connections: usize,
}

/// `[metrics]`: numbers that scripts and plugins add to the heartbeats.
#[derive(Clone)]
pub struct Metrics {
    /// At once.
    pub max: usize,
}

/// `[limits]`: what bounds memory.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Limits {
    /// One message, in bytes of XML.
    pub message_bytes: usize,
    /// Output that waits for one peer.
    pub output_bytes: usize,
    /// Other messages that wait for one peer.
    pub control_messages: usize,
    /// Connections to the local socket.
    pub local_clients: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: Vec::new(),
            identifier: None,
            identifier_file: None,
            state: PathBuf::from("/var/lib/triton"),
            socket: PathBuf::from("/var/run/triton/triton.sock"),
            socket_group: None,
            heartbeat_seconds: None,
            log: log::LevelFilter::Info,
            log_to: LogTo::Stderr,
            oom_score_adj: None,
            labels: BTreeMap::new(),
            schedule: Vec::new(),
            policy: policy::Settings::default(),
            tls: Tls::default(),
            proxy: Proxy::default(),
            connect: Connect::default(),
            jobs: Jobs::default(),
            journal: Journal::default(),
            scripts: Scripts::default(),
            engine: Engine::default(),
            system: System::default(),
            update: Update {
                keys: Vec::new(),
                confirm_seconds: 300,
            },
            trust: Trust::default(),
            plugins: Plugins::default(),
            files: Files::default(),
            events: Events::default(),
            relay: Relay {
                listen: None,
                connections: 32,
            },
            metrics: Metrics { max: 64 },
            limits: Limits::default(),
        }
    }
}

impl Default for Scripts {
    fn default() -> Self {
        let usual = [
            ("sh", "/bin/sh"),
            ("glue", "/bin/sh"),
            ("lua", "/usr/bin/lua"),
            ("py", "python3"),
        ];
        Self {
            interpreters: usual.map(|(e, p)| (e.to_owned(), p.to_owned())).into(),
        }
    }
}

impl Default for System {
    fn default() -> Self {
        Self {
            reboot_command: vec!["reboot".to_owned()],
            shutdown_command: vec!["poweroff".to_owned()],
        }
    }
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            dns_seconds: 10,
            tcp_seconds: 10,
            proxy_seconds: 10,
            tls_seconds: 15,
            http_seconds: 10,
            hello_seconds: 10,
            pong_seconds: 10,
        }
    }
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            workers: 4,
            queue: 16,
            grace_seconds: 5,
            timeout_seconds: 0,
            collect_bytes: 65_536,
            nice: 5,
            oom_score_adj: 500,
            remembered: false,
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            folder: None,
            bytes: 1_048_576,
            memory_bytes: 262_144,
            sync: true,
        }
    }
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            off: Vec::new(),
            folder: PathBuf::from("/etc/triton/plugins"),
            hello_seconds: 10,
            patience_seconds: 30,
            rate: 100,
        }
    }
}

impl Default for Files {
    fn default() -> Self {
        Self {
            window_bytes: 1_572_864,
            idle_seconds: 600,
            manifest_entries: 20_000,
            reserve_bytes: 524_288,
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self {
            line_bytes: 16_384,
            batch_bytes: 32_768,
            rate: 50,
            syslog_udp: None,
            syslog_unix: None,
            files: Vec::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: crate::message::DEFAULT_LIMIT,
            output_bytes: 131_072,
            control_messages: 1_024,
            local_clients: 16,
        }
    }
}

impl Config {
    /// Reads file and environment, then lays `flags` over them: pairs of one of [`SETTINGS`] and a value.
    ///
    /// A file that was named must exist; the default one need not.
    pub fn load(
        file: Option<&Path>,
        environment: &dyn Fn(&str) -> Option<String>,
        flags: &[(&'static Setting, String)],
    ) -> Result<Self> {
        let named = file.map(Path::to_owned).or_else(|| {
            let variable = environment("TRITON_CONFIG").filter(|v| !v.is_empty());
            variable.map(PathBuf::from)
        });
        let mut config = match named {
            Some(path) => Self::from_file(&path)?,
            None if Path::new(DEFAULT_FILE).exists() => Self::from_file(Path::new(DEFAULT_FILE))?,
            None => Self::default(),
        };
        overlay::apply(&mut config, environment, flags)?;
        if let Some(path) = config.policy.file.clone() {
            let text = text_of(&path, "read the policy (policy.file)")?;
            let profile = config.policy.named.then_some(config.policy.profile);
            let read = file::read_policy(&text, profile)
                .map_err(|reason| Error::new(format!("{}:{reason}", path.display())))?;
            config.policy.take(read, path);
        }
        Ok(config)
    }

    fn from_file(path: &Path) -> Result<Self> {
        let text = text_of(path, "read the configuration")?;
        let mut config = Self::from_toml(&text)
            .map_err(|reason| Error::new(format!("{}:{reason}", path.display())))?;
        config.policy.sources.push(path.to_owned());
        if config.jobs.remembered {
            log::warn!(
                "{}: jobs.remembered means nothing any more, the journal remembers jobs (journal.bytes); remove the line",
                path.display()
            );
        }
        if config.identifier.is_some() && others_may_read(path) {
            log::warn!(
                "{} holds the identifier and others may read it: chmod 600 {}",
                path.display(),
                path.display()
            );
        }
        Ok(config)
    }

    /// Where the journal is.
    pub fn journal_folder(&self) -> PathBuf {
        let folder = self.journal.folder.clone();
        folder.unwrap_or_else(|| self.state.join("journal"))
    }

    /// Reads TOML; the error begins with the number of the line.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        file::read(text)
    }
}

fn text_of(path: &Path, what: &str) -> Result<String> {
    use std::io::Read as _;
    let fail = |e| Error::at(what, path, e);
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut text = String::new();
    file.take(FILE_LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(fail)?;
    if text.len() as u64 > FILE_LIMIT {
        return Err(Error::new(format!(
            "{}: it is longer than {FILE_LIMIT} bytes",
            path.display()
        )));
    }
    Ok(text)
}

fn others_may_read(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|m| m.mode() & 0o044 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        match Config::from_toml(text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(error) => error,
        }
    }

    #[test]
    fn an_error_names_the_line_and_what_is_allowed() {
        for (text, parts) in [
            (
                "\n\nheartbeat = 5",
                &["3: ", "unknown field `heartbeat`", "heartbeat_seconds"][..],
            ),
            ("heartbeat_seconds = 0", &["1: ", "from 1 to 86400"]),
            ("heartbeat_seconds = -1", &["1: ", "from 1 to 86400"]),
            ("heartbeat_seconds = \"x\"", &["1: ", "from 1 to 86400"]),
            (
                "state = \"/a\"\n[jobs]\nworkers = 65",
                &["3: ", "from 1 to 64"],
            ),
            (
                "[jobs]\nworker = 1",
                &["2: ", "unknown field `worker`", "`workers`"],
            ),
            ("log = \"loud\"", &["1: ", "error, warn, info"]),
            ("log_to = \"file\"", &["1: ", "one of stderr, syslog"]),
            ("oom_score_adj = -1001", &["1: ", "from -1000 to 1000"]),
            ("[jobs]\nnice = -1", &["2: ", "from 0 to 19"]),
            ("[jobs]\noom_score_adj = 1001", &["2: ", "from 0 to 1000"]),
            ("url = \"ftp://x\"", &["1: ", "wss:// or ws://"]),
            ("url = [\"ws://a\", \"\"]", &["1: "]),
            ("state = \"relative\"", &["1: ", "absolute"]),
            ("identifier = \"a b\"", &["1: ", "identifier"]),
            ("[tls]\npins = [\"abc\"]", &["2: ", "sha256//"]),
            ("[proxy]\nurl = \"socks5://x\"", &["2: ", "http://"]),
            ("[journal]\nfolder = \"j\"", &["2: ", "absolute"]),
            ("[journal]\nbytes = 65535", &["2: ", "from 65536 to"]),
            ("[journal]\nmemory_bytes = 1000", &["2: ", "from 32768 to"]),
            (
                "nothing = 1",
                &["`socket_group`, `heartbeat_seconds`, `tls`, `proxy`, `log`, "],
            ),
            ("\njobs = 1", &["2: jobs: ", "a table", "integer"]),
            ("[jobs.workers]\nx = 1", &["1: ", "from 1 to 64"]),
            (
                "[jobs]\nworkers = 1.5",
                &["2: jobs.workers: ", "from 1 to 64", "float"],
            ),
            (
                "[jobs]\nworkers = 99999999999999999999",
                &["2: ", "from 1 to 64"],
            ),
            ("url = 7", &["1: ", "a list of them"]),
            ("url = [\n\"ws://a\",\n7]", &["3: ", "a string"]),
            ("identifier = 12345", &["1: ", "a string"]),
            ("[journal]\nsync = \"yes\"", &["2: ", "true or false"]),
            ("labels = 1", &["1: ", "a table"]),
            ("[labels]\na = \"b\"\nc = 1", &["3: ", "a string"]),
            ("[labels]\na = \"\"", &["1: ", "64 labels"]),
            (
                "[scripts.interpreters]\n\".sh\" = \"/bin/sh\"",
                &["1: ", "without dot"],
            ),
            ("[scripts]\ninterpreters = \"sh\"", &["2: ", "a table"]),
            ("[engine]\npipe = \"p\"", &["2: ", "absolute"]),
            (
                "[events]\nsyslog_udp = \"router:514\"",
                &["2: ", "127.0.0.1:514"],
            ),
            ("[events]\nsyslog_udp = \"0\"", &["2: ", "127.0.0.1:514"]),
            ("[events]\nsyslog_unix = \"log\"", &["2: ", "absolute"]),
            ("[events]\nfiles = [\"log\"]", &["2: ", "absolute"]),
            ("[events]\nfiles = [\"/a\", \"/a\"]", &["2: ", "twice"]),
            ("[system]\nreboot_command = []", &["2: ", "a program"]),
            (
                "[system]\nshutdown_command = \"halt\"",
                &["2: ", "a list of strings"],
            ),
            ("log = \"info\"\nlog = \"info\"", &["2: ", "duplicate key"]),
            ("a = ", &["1: "]),
        ] {
            let said = error(text);
            for part in parts {
                assert!(said.contains(part), "{text:?}: {said}");
            }
            assert!(
                !said.contains("a b") && !said.contains("12345"),
                "an identifier is not repeated: {said}"
            );
        }
    }

    #[test]
    fn a_setting_of_older_versions_is_let_pass() {
        let config = Config::from_toml("[jobs]\nremembered = 256\nworkers = 2").unwrap();
        assert_eq!(config.jobs.workers, 2);
        assert!(config.jobs.remembered);
    }

    #[test]
    fn the_journal_is_in_the_state_folder_unless_it_is_named() {
        let config = Config::from_toml("state = \"/s\"").unwrap();
        assert_eq!(config.journal_folder(), Path::new("/s/journal"));
        let config = Config::from_toml("state = \"/s\"\n[journal]\nfolder = \"/j\"").unwrap();
        assert_eq!(config.journal_folder(), Path::new("/j"));
        assert!(config.journal.sync);
    }

    #[test]
    fn interpreters_are_added_to_those_there_are() {
        let config =
            Config::from_toml("[scripts]\ninterpreters = {lua = \"/l\", rb = \"ruby\"}").unwrap();
        let of = |extension: &str| config.scripts.interpreters.get(extension).unwrap().as_str();
        assert_eq!((of("sh"), of("lua"), of("rb")), ("/bin/sh", "/l", "ruby"));
    }

    #[test]
    fn one_url_or_several() {
        let one = Config::from_toml("url = \"ws://a\"").unwrap();
        assert_eq!(one.url, ["ws://a"]);
        let two =
            Config::from_toml("url = [\"wss://a/{identifier}\", \"https://b:8443/x\"]").unwrap();
        assert_eq!(two.url.len(), 2);
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "url=\"ws://file\"\nstate=\"/file\"\nheartbeat_seconds=1",
        )
        .unwrap();
        let environment = |name: &str| match name {
            "TRITON_URL" => Some("ws://env1, ws://env2".to_owned()),
            "TRITON_HEARTBEAT" => Some("2".to_owned()),
            "TRITON_LOG" => Some(String::new()),
            _ => None,
        };
        let flag = |name: &str| Setting::by_flag(name).unwrap();
        let flags = [
            (flag("heartbeat"), "3".to_owned()),
            (flag("pin"), "00".repeat(32)),
        ];
        let config = Config::load(Some(file.path()), &environment, &flags).unwrap();
        assert_eq!(config.url, ["ws://env1", "ws://env2"]);
        assert_eq!(config.state, Path::new("/file"));
        assert_eq!(config.heartbeat_seconds, Some(3));
        assert_eq!(config.tls.pins.len(), 1);
        let wrong = Config::load(
            None,
            &|n| (n == "TRITON_HEARTBEAT").then(|| "x".into()),
            &[],
        );
        let said = wrong.err().unwrap().to_string();
        assert!(
            said.contains("TRITON_HEARTBEAT") && said.contains("from 1 to 86400"),
            "{said}"
        );
    }

    #[test]
    fn every_setting_stands_once() {
        for (at, setting) in SETTINGS.iter().enumerate() {
            let rest = &SETTINGS[at + 1..];
            assert!(rest.iter().all(|s| s.key != setting.key), "{}", setting.key);
            let Some(outside) = &setting.outside else {
                continue;
            };
            let others = || rest.iter().filter_map(|s| s.outside.as_ref());
            assert!(others().all(|o| o.variable != outside.variable));
            assert!(others().all(|o| o.flag.is_none() || o.flag != outside.flag));
        }
    }

    #[test]
    fn every_number_is_kept_where_it_belongs_up_to_its_limits() {
        let mut numbers = 0;
        for setting in SETTINGS {
            let setting::Kind::Number(least, most, number) = &setting.kind else {
                continue;
            };
            for n in [*least, *most] {
                let mut config = Config::from_toml(&format!("{} = {n}", setting.key)).unwrap();
                let kept = match number {
                    setting::Number::U32(place) => i64::from(*place(&mut config)),
                    setting::Number::U64(place) => i64::try_from(*place(&mut config)).unwrap(),
                    setting::Number::Usize(place) => i64::try_from(*place(&mut config)).unwrap(),
                    setting::Number::I32(place) => i64::from(*place(&mut config)),
                    setting::Number::SomeU32(place) => i64::from(place(&mut config).unwrap()),
                    setting::Number::SomeI32(place) => i64::from(place(&mut config).unwrap()),
                };
                assert_eq!(kept, n, "{}", setting.key);
            }
            error(&format!("{} = {}", setting.key, most + 1));
            numbers += 1;
        }
        assert!(numbers > 10);
    }

    #[test]
    fn the_read_me_names_every_setting() {
        let table = include_str!("../README.md");
        for setting in SETTINGS {
            let former = matches!(setting.kind, setting::Kind::Former(_));
            // Those of `connect` share a line.
            if !former && !setting.key.starts_with("connect.") {
                let name = format!("`{}`", setting.key);
                assert!(table.contains(&name), "{name}");
            }
            let outside = setting.outside.as_ref();
            assert!(outside.is_none_or(|o| table.contains(o.variable)));
        }
    }

    #[test]
    fn a_named_file_must_exist() {
        let said = Config::load(Some(Path::new("/nonexistent/t.toml")), &|_| None, &[])
            .err()
            .unwrap();
        assert!(said.to_string().contains("/nonexistent/t.toml"));
    }
}
