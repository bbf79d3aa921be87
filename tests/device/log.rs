//! The log by way of a log daemon, with levels.

use super::*;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use support::place::possible;

/// An agent that sees a `/dev` of its own, which is a folder of the test's, and logs to syslog.
fn agent(settings: &str) -> (Agent, PathBuf) {
    let agent = configure(Agent::new(), settings);
    let dev = agent.folder().join("dev");
    fs::create_dir(&dev).unwrap();
    (agent.within(with_dev(&dev)), dev)
}

fn with_dev(dev: &Path) -> Place {
    mounted(&format!(
        "dev={}; for node in null zero urandom; do : > $dev/$node; mount --bind /dev/$node $dev/$node; done; \
         mount --rbind $dev /dev",
        dev.display()
    ))
}

struct Daemon(UnixDatagram);

impl Daemon {
    fn start(dev: &Path) -> Self {
        let _ = fs::remove_file(dev.join("log"));
        let socket = UnixDatagram::bind(dev.join("log")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        Self(socket)
    }

    /// Reads until a message has these parts.
    #[track_caller]
    fn wait_for(&self, parts: &[&str]) -> String {
        let mut buffer = [0; 2048];
        let mut seen = Vec::new();
        eventually(&format!("{parts:?}"), || {
            let n = self.0.recv(&mut buffer).ok()?;
            let message = String::from_utf8(buffer[..n].to_vec()).unwrap();
            seen.push(message.clone());
            parts.iter().all(|p| message.contains(p)).then_some(message)
        })
    }
}

/// Something at info.
fn say(agent: &Agent) {
    agent.signal(libc::SIGHUP);
}

#[test]
fn levels_restarts_and_the_way_back() {
    if !possible("--mount") {
        return;
    }
    let settings = "log_to = \"syslog\"\nlog = \"debug\"\nurl = \"ws://127.0.0.1:1\"\n";
    let (mut agent, dev) = agent(settings);
    let daemon = Daemon::start(&dev);
    agent.start();
    let pid = agent.pid();
    let from = format!(" triton[{pid}]: ");
    daemon.wait_for(&["<30>", &from, "triton 0.", " starts: "]);
    daemon.wait_for(&["<31>", &from, "connecting to"]);
    daemon.wait_for(&["<28>", &from, "cannot connect: tcp: "]);
    assert_eq!(agent.log(), "");
    // A daemon that starts anew is found at once.
    drop(daemon);
    let daemon = Daemon::start(&dev);
    say(&agent);
    daemon.wait_for(&["<30>", "configuration read anew"]);
    // While there is none the log is on standard error, and the next one is told.
    drop(daemon);
    say(&agent);
    let log = agent.wait_for_log("INFO  configuration read anew");
    assert!(log.starts_with("WARN  /dev/log takes no messages"), "{log}");
    let daemon = Daemon::start(&dev);
    say(&agent);
    daemon.wait_for(&["<28>", "before this one went to standard error"]);
    daemon.wait_for(&["configuration read anew"]);
    // An error has its level, and a setting that changes holds at once.
    let file = agent.folder().join("triton.toml");
    fs::write(&file, "nonsense").unwrap();
    say(&agent);
    daemon.wait_for(&["<27>", "the old configuration stays in force"]);
    fs::write(&file, settings.replace("syslog", "stderr")).unwrap();
    let before = agent.log().len();
    say(&agent);
    eventually("the log is here again", || {
        agent.log()[before..]
            .contains("INFO  configuration read anew")
            .then_some(())
    });
}

#[test]
fn a_daemon_that_hangs_holds_up_nobody() {
    if !possible("--mount") {
        return;
    }
    let (poseidon, _) = pair(Agent::new());
    let settings = format!(
        "log_to = \"syslog\"\nlog = \"trace\"\nurl = {:?}\n",
        poseidon.url()
    );
    let (agent, dev) = agent(&settings);
    let mut agent = agent.with_variable("TRITON_IDENTIFIER", "a-device");
    let daemon = Daemon::start(&dev);
    agent.start();
    // It does not read: its queue fills up with the words of some jobs.
    agent.wait_for_link("connected");
    eventually("its queue is full", || {
        say(&agent);
        assert_eq!(stdout(&run(&poseidon, &["echo", "on"])), "on\n");
        agent.log().contains("takes no messages").then_some(())
    });
    for _ in 0..20 {
        assert_eq!(stdout(&run(&poseidon, &["echo", "on"])), "on\n");
    }
    agent.wait_for_link("connected");
    // It goes on.
    daemon.wait_for(&["starts: "]);
    while daemon.0.recv(&mut [0; 2048]).is_ok() {}
    say(&agent);
    daemon.wait_for(&["went to standard error"]);
    daemon.wait_for(&["configuration read anew"]);
    assert!(agent.stop().success());
}

#[test]
fn busybox_writes_it_down() {
    if !possible("--mount") {
        return;
    }
    if !has("busybox") {
        skip("busybox is not installed");
        return;
    }
    let (mut agent, dev) = agent("log_to = \"syslog\"\n");
    let file = agent.folder().join("messages");
    let mut syslogd = with_dev(&dev)
        .command(Path::new("busybox"))
        .args(["syslogd", "-n", "-O", text(&file)])
        .spawn()
        .unwrap();
    eventually("it listens", || dev.join("log").exists().then_some(()));
    agent.start();
    let messages = eventually("it is written down", || {
        let text = fs::read_to_string(&file).ok()?;
        text.contains("working offline").then_some(text)
    });
    syslogd.kill().unwrap();
    syslogd.wait().unwrap();
    assert!(
        messages.contains(&format!("daemon.info triton[{}]: triton 0.", agent.pid())),
        "{messages}"
    );
}

#[test]
fn what_is_wrong_before_the_configuration_is_read_goes_to_standard_error() {
    let mut agent = configure(Agent::new(), "log_to = \"syslog\"\nnonsense = 1\n");
    agent.start();
    assert!(!agent.wait().success());
    assert!(
        agent.log().contains("unknown field `nonsense`"),
        "{}",
        agent.log()
    );
    let said = Agent::new().run(&["check-config", "--log-to", "file"]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.contains("--log-to: expected one of stderr, syslog"),
        "{said}"
    );
}
