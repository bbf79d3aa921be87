//! File systems that lack something: the right to write, or the files that every program takes for granted.

use super::*;
use support::place::possible;

/// Makes all that is mounted read-only, but for what is at `except`.
fn read_only(except: &Path) -> String {
    format!(
        "cut -d' ' -f5 /proc/self/mountinfo | while read -r at; do \
         [ \"$at\" = '{}' ] || mount -o remount,bind,ro \"$at\" 2>/dev/null || true; done; \
         if touch /tmp/writable 2>/dev/null; then echo 'not read-only' >&2; exit 1; fi",
        except.display()
    )
}

/// The same, with a small file system in memory at `folder`, as `/run` is.
fn only_run_is_writable(folder: &Path) -> String {
    format!(
        "mount -t tmpfs -o size=4m run {}; {}",
        folder.display(),
        read_only(folder)
    )
}

#[test]
fn a_root_that_cannot_be_written() {
    if !possible("--mount") {
        return;
    }
    let (poseidon, agent) = pair(Agent::new());
    // As /run is: state and socket are there.
    let run_folder = agent.folder().to_owned();
    let script = only_run_is_writable(&run_folder);
    let mut agent = agent.within(mounted(&script));
    agent.start();
    poseidon.wait_for("router", "up");
    assert_eq!(stdout(&run(&poseidon, &["echo", "hi"])), "hi\n");
    let status = status_inside(&agent);
    assert_eq!(status["journal"]["state"], "disk", "{status}");
    let log = agent.log();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[test]
fn a_root_that_cannot_be_written_with_the_state_on_it() {
    if !possible("--mount") {
        return;
    }
    let (poseidon, agent) = pair(Agent::new());
    let run_folder = agent.folder().to_owned();
    let script = only_run_is_writable(&run_folder);
    let mut agent = agent
        .with(&["--state", "/var/lib/triton-test"])
        .within(mounted(&script));
    agent.start();
    poseidon.wait_for("router", "up");
    assert_eq!(stdout(&run(&poseidon, &["echo", "hi"])), "hi\n");
    let status = status_inside(&agent);
    assert_eq!(status["journal"]["state"], "memory");
    let log = agent.log();
    for part in [
        "ERROR the state folder cannot be used",
        "name another folder with --state",
        "/var/lib/triton-test",
        "Read-only file system",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

/// Not one place to write: no identity, no journal, no socket. The device is managed all the same.
#[test]
fn nothing_can_be_written_anywhere() {
    if !possible("--mount") {
        return;
    }
    let (poseidon, agent) = pair(Agent::new());
    let mut agent = agent.within(mounted(&read_only(Path::new("/proc"))));
    agent.start();
    poseidon.wait_for("router", "up");
    assert_eq!(stdout(&run(&poseidon, &["echo", "hi"])), "hi\n");
    let log = agent.log();
    for part in [
        "ERROR the state folder cannot be used",
        "ERROR there is no local socket",
        "--socket",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(agent.stop().success());
}

/// Without Poseidon there is nothing that an agent without its socket could do, and without an identifier nobody knows
/// it: both end with the reason.
#[test]
fn what_it_cannot_do_without_it_says_and_ends() {
    if !possible("--mount") {
        return;
    }
    let place = mounted(&read_only(Path::new("/proc")));
    for (arguments, identifier, said) in [
        (&[][..], "a-device", "cannot listen on"),
        (
            &["--url", "ws://127.0.0.1:1"],
            "",
            "cannot create the state folder",
        ),
    ] {
        let mut agent = Agent::new()
            .with(arguments)
            .with_variable("TRITON_IDENTIFIER", identifier)
            .within(place.clone());
        agent.start();
        assert_eq!(agent.wait().code(), Some(1), "{}", agent.log());
        let log = agent.log();
        assert!(log.contains(said), "{log}");
        assert!(log.contains("Read-only file system"), "{log}");
    }
}

/// An empty root with the program, what its loader needs, and busybox: no `/proc`, no `/sys`, no `/dev` (no `shm`, no
/// `urandom`), no `/etc` (no `resolv.conf`, `hosts`, `passwd`, no certificates), no `/tmp`, no `/var`.
fn empty_root(agent: &Agent, more: &str) -> Place {
    let script = format!(
        "home={0}; root=$home/root; mkdir $root; mount -t tmpfs -o size=16m root $root; \
         busybox=$(command -v busybox); \
         for file in $0 $busybox $(ldd $0 $busybox 2>/dev/null | grep -o '/[^ :)]*' | sort -u); do \
         [ -e $root$file ] || {{ mkdir -p $root${{file%/*}}; : > $root$file; mount --bind $file $root$file; }}; done; \
         mkdir -p $root/bin $root$home; for name in sh echo head sleep ls cat; do ln -s $busybox $root/bin/$name; done; \
         {more} set -- \"$0\" \"$@\"; exec chroot $root \"$@\"",
        agent.folder().display()
    );
    mounted(&script)
}

#[test]
fn an_empty_root() {
    if !possible("--mount") {
        return;
    }
    if !has("busybox") {
        skip("busybox is not installed");
        return;
    }
    let (poseidon, agent) = pair(Agent::new());
    let place = empty_root(&agent, "");
    let mut agent = agent
        .with_variable("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .within(place);
    agent.start();
    poseidon.wait_for("router", "up");
    let root = run(&poseidon, &["ls", "/"]);
    assert!(!stdout(&root).contains("proc"), "{root:?}");
    assert!(
        !stdout(&root).contains("etc") && !stdout(&root).contains("dev"),
        "{root:?}"
    );
    for _ in 0..10 {
        assert_eq!(
            stdout(&run(&poseidon, &["sh", "-c", "echo $((6 * 7))"])),
            "42\n"
        );
    }
    let output = run(&poseidon, &["head", "-c", "1000000", agent_program(&agent)]);
    assert_eq!(output.stdout.len(), 1_000_000);
    // An end is found without /proc, also that of a job that leaves something behind.
    assert_eq!(
        stdout(&run(&poseidon, &["sh", "-c", "sleep 0.1 & echo left"])),
        "left\n"
    );
    // What cannot be had is said.
    let user = poseidon.run(&["run", "router", "--user", "nobody", "--", "echo"]);
    let said = String::from_utf8_lossy(&user.stderr).into_owned();
    assert!(said.contains("nobody"), "{said}");
    let log = agent.log();
    assert!(!log.contains("internal error"), "{log}");
    assert!(agent.stop().success());
}

fn agent_program(_: &Agent) -> &'static str {
    env!("CARGO_BIN_EXE_triton")
}

/// A name without `/etc/resolv.conf` is an error like any other.
#[test]
fn an_empty_root_without_a_resolver() {
    if !possible("--mount") || !has("busybox") {
        return;
    }
    let agent = Agent::new();
    let place = empty_root(&agent, "");
    let mut agent = agent
        .with(&["--url", "ws://poseidon.test:1"])
        .with_variable("TRITON_IDENTIFIER", "a-device")
        .within(place);
    agent.start();
    agent.wait_for_log("cannot connect: dns: ");
    let status = status_inside(&agent);
    assert_eq!(status["journal"]["state"], "disk", "{status}");
    assert!(agent.stop().success());
}
