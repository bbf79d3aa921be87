//! Files between the real agent and the real Poseidon, through a network that is cut again and again.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::thread;
use std::time::Duration;
use support::proxy::Cut;
use support::random::setting;
use support::rig::{NAME, Rig};

/// A dozen cuts leave some time between them.
const CUTS: u64 = 12;
/// What Poseidon may need for a file of any size: it holds less than 4 MiB of it.
const MEMORY: u64 = 40 << 20;

/// Bytes that do not repeat soon, and compress to nothing shorter.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut all: Vec<u8> = (0..length.div_ceil(8))
        .flat_map(|_| next().to_le_bytes())
        .collect();
    all.truncate(length);
    all
}

/// Megabytes of the file: `TRITON_EXCHANGE_MB`, 200 unless set.
fn file() -> Vec<u8> {
    let size = usize::try_from(setting("TRITON_EXCHANGE_MB").unwrap_or(200)).unwrap();
    // No multiple of a piece.
    noise(size * 1_000_000 + 17)
}

/// The most memory that a process has ever had, in bytes.
fn most_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}

/// Begins a command on a connection that is new, so that what passes on it belongs to the command.
fn begin(rig: &Rig, arguments: &[&str]) -> Child {
    if let Some(proxy) = &rig.proxy {
        proxy.cut(Cut::Close);
    }
    support::eventually("the agent is up on both sides", || {
        let status = rig.nudge()?;
        let connected = status["link"]["state"] == "connected";
        let up = rig
            .poseidon
            .agents()
            .iter()
            .any(|agent| agent["state"] == "up");
        let fresh = rig.proxy.as_ref().is_none_or(|proxy| {
            let (to_server, to_agent) = proxy.passed();
            proxy.standing() == 1 && to_server.max(to_agent) < 1 << 20
        });
        (connected && up && fresh).then_some(())
    });
    let mut command = rig.poseidon.command(arguments);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Cuts the agent's connection each time that `every` bytes have passed, until the command ends. Returns how often.
fn cut_until(rig: &Rig, mut child: Child, every: u64) -> (Output, u64) {
    let mut cuts = 0;
    while child.try_wait().unwrap().is_none() {
        let (to_server, to_agent) = rig.proxy().passed();
        if to_server.max(to_agent) > every && cuts < CUTS {
            rig.proxy().cut(if cuts % 2 == 0 {
                Cut::Reset
            } else {
                Cut::Close
            });
            cuts += 1;
        }
        rig.nudge();
        thread::sleep(Duration::from_millis(20));
    }
    (child.wait_with_output().unwrap(), cuts)
}

fn assert_good(done: &Output, rig: &Rig) {
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}\nagent:\n{}", rig.agent.log());
}

fn folder(rig: &Rig, name: &str) -> PathBuf {
    let folder = rig.agent.folder().join(name);
    fs::create_dir(&folder).unwrap();
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

#[test]
fn a_large_file_goes_both_ways_through_a_dozen_cuts_at_flat_memory() {
    let rig = Rig::through_a_proxy();
    let bytes = file();
    // In base64, and more is asked for than arrives before a cut.
    let every = bytes.len() as u64 / (CUTS + 2);
    let (here, there) = (folder(&rig, "here"), folder(&rig, "there"));
    fs::write(here.join("image"), &bytes).unwrap();
    let before = most_memory(rig.poseidon.pid());

    let source = here.join("image").display().to_string();
    let target = format!("{NAME}:{}/", there.display());
    let push = begin(&rig, &["push", &source, &target]);
    let (done, cuts) = cut_until(&rig, push, every);
    assert_good(&done, &rig);
    assert_eq!(cuts, CUTS);
    assert_eq!(names(&there), ["image"]);
    assert!(fs::read(there.join("image")).unwrap() == bytes);

    let place = format!("{NAME}:{}", there.join("image").display());
    let back = here.join("back").display().to_string();
    let pull = begin(&rig, &["pull", &place, &back]);
    let (done, cuts) = cut_until(&rig, pull, every);
    assert_good(&done, &rig);
    assert_eq!(cuts, CUTS);
    assert!(fs::read(&back).unwrap() == bytes);

    let after = most_memory(rig.poseidon.pid());
    println!("Poseidon's memory: {before} before, {after} at most");
    assert!(after < before + MEMORY, "{before} before, {after} at most");
}

#[test]
fn a_file_goes_on_when_poseidon_is_killed_and_started_again() {
    let mut rig = Rig::through_a_proxy();
    let bytes = noise(40_000_011);
    let (here, there) = (folder(&rig, "here"), folder(&rig, "there"));
    fs::write(here.join("image"), &bytes).unwrap();
    let source = here.join("image").display().to_string();
    let target = format!("{NAME}:{}/copy", there.display());
    let place = format!("{NAME}:{source}");
    let back = here.join("back").display().to_string();
    for arguments in [["push", &source, &target], ["pull", &place, &back]] {
        let child = begin(&rig, &arguments);
        support::eventually("some of it has passed", || {
            let (to_server, to_agent) = rig.proxy().passed();
            (to_server.max(to_agent) > 8 << 20).then_some(())
        });
        rig.poseidon.kill();
        rig.poseidon.launch();
        let (done, _) = cut_until(&rig, child, u64::MAX);
        assert_good(&done, &rig);
    }
    assert!(fs::read(there.join("copy")).unwrap() == bytes);
    assert!(fs::read(&back).unwrap() == bytes);
    assert_eq!(names(&there), ["copy"], "nothing is left beside it");
}

#[test]
fn what_the_device_says_reaches_the_user() {
    let rig = Rig::direct();
    let there = folder(&rig, "there");
    let at = |name: &str| format!("{NAME}:{}", there.join(name).display());
    fs::write(there.join("file"), b"content").unwrap();
    std::os::unix::fs::symlink("file", there.join("link")).unwrap();
    let listed = rig.poseidon.run(&["ls", &at("")]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "file\nlink\n");
    let long = rig.poseidon.run(&["ls", "-l", &at("")]);
    let long = String::from_utf8_lossy(&long.stdout).into_owned();
    assert!(long.contains("link -> file"), "{long}");
    assert!(long.starts_with("-rw"), "{long}");
    let pulled = rig.poseidon.run(&["pull", &at("link"), "-", "--follow"]);
    assert_eq!(pulled.stdout, b"content");
    let kernel = rig
        .poseidon
        .run(&["pull", &format!("{NAME}:/proc/cpuinfo"), "-"]);
    assert!(
        !kernel.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&kernel.stderr)
    );
    for (name, word) in [
        ("link", "symbolic link"),
        ("none", "there is no"),
        ("", "folder"),
    ] {
        let done = rig.poseidon.run(&["pull", &at(name), "-"]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(
            !done.status.success() && said.contains(word),
            "{name}: {said}"
        );
        assert!(done.stdout.is_empty());
    }
    // A folder, and what is no longer in it.
    let site = folder(&rig, "site");
    fs::create_dir(site.join("sub")).unwrap();
    fs::write(site.join("sub/page"), b"page").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", site.join("sub/link")).unwrap();
    let source = site.display().to_string();
    for _ in 0..2 {
        let done = rig.poseidon.run(&["push", &source, &at("www"), "--prune"]);
        assert_good(&done, &rig);
        assert_eq!(fs::read(there.join("www/sub/page")).unwrap(), b"page");
        assert_eq!(
            fs::read_link(there.join("www/sub/link")).unwrap(),
            Path::new("/etc/passwd")
        );
        fs::write(there.join("www/sub/stray"), b"").unwrap();
    }
    fs::remove_file(there.join("www/sub/stray")).unwrap();
    let done = rig.poseidon.run(&["push", &source, &at("link")]);
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("symbolic link"));
}
