//! Memory is short, and when there is none left a job goes, not the agent.

use super::*;
use serde_json::Value;
use std::time::{Duration, Instant};
use support::place::user;

/// A memory cgroup of version 1 or 2, removed when dropped.
struct Cgroup {
    folder: PathBuf,
    /// Names of its files: the limit, where the kernel counts what it has killed.
    files: [&'static str; 2],
}

impl Cgroup {
    fn new(bytes: u64) -> Option<Self> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let name = format!("triton-test-{}-{count}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/memory");
        let second = Path::new("/sys/fs/cgroup");
        let cgroup = if first.join("memory.limit_in_bytes").exists()
            || first.join("cgroup.procs").exists()
        {
            Self {
                folder: first.join(name),
                files: ["memory.limit_in_bytes", "memory.oom_control"],
            }
        } else {
            // Its children have the controller only if it is switched on for them.
            let _ = fs::write(second.join("cgroup.subtree_control"), "+memory");
            Self {
                folder: second.join(name),
                files: ["memory.max", "memory.events"],
            }
        };
        let limit = cgroup.folder.join(cgroup.files[0]);
        let made =
            fs::create_dir(&cgroup.folder).and_then(|()| fs::write(&limit, bytes.to_string()));
        if let Err(e) = made {
            skip(&format!("{}: {e}", limit.display()));
            return None;
        }
        // Where there is swap it is not to be used; where it is not counted, there is none.
        let _ = fs::write(cgroup.folder.join("memory.swap.max"), "0");
        let _ = fs::write(
            cgroup.folder.join("memory.memsw.limit_in_bytes"),
            bytes.to_string(),
        );
        Some(cgroup)
    }

    /// Where a process is put into it.
    fn place(&self) -> Place {
        let line = format!(
            "echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"",
            text(&self.folder)
        );
        Place::new(&["sh", "-c", &line])
    }

    fn killed(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join(self.files[1])).unwrap();
        let count = text.lines().find_map(|l| l.strip_prefix("oom_kill "));
        count.unwrap_or("0").parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What was killed in it may take a moment to leave.
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::remove_dir(&self.folder).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn score(pid: &str) -> i32 {
    let path = format!("/proc/{pid}/oom_score_adj");
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

fn own_score(agent: &Agent) -> i32 {
    score(&agent.pid().to_string())
}

fn job_score(agent: &Agent) -> i32 {
    let output = agent.run(&["exec", "--", "cat", "/proc/self/oom_score_adj"]);
    stdout(&output).trim().parse().unwrap()
}

fn started(place: Place, settings: &str) -> Agent {
    let mut agent = configure(Agent::new().within(place), settings);
    agent.start();
    agent.wait_until_it_serves();
    agent
}

/// What stands before a program that shall have this place from its service manager.
fn given(score: i32) -> Place {
    let line = format!("echo {score} > /proc/self/oom_score_adj && exec \"$0\" \"$@\"");
    Place::new(&["sh", "-c", &line])
}

/// Below zero needs `CAP_SYS_RESOURCE`, which not every root has.
fn may_go_below_zero() -> bool {
    let tried = given(-1).command(Path::new("true")).output().unwrap();
    if !tried.status.success() {
        println!("skipped: oom_score_adj below zero, root may not set it here (CAP_SYS_RESOURCE)");
    }
    tried.status.success()
}

#[test]
fn the_agent_stands_behind_its_jobs() {
    let Some(other) = user() else { return };
    let below = may_go_below_zero();
    let lowered = if below { -500 } else { 0 };
    let mut cases = vec![
        (given(0), "", lowered, 500),
        // A service manager's word holds; a setting's holds more.
        (given(100), "", 100, 500),
        (given(600), "oom_score_adj = 300", 300, 500),
        (given(600), "oom_score_adj = 0", 0, 500),
        // A job is never behind the agent.
        (given(0), "oom_score_adj = 1000", 1000, 1000),
        (
            given(0),
            "oom_score_adj = 300\n[jobs]\noom_score_adj = 0",
            300,
            300,
        ),
        (
            given(0),
            "oom_score_adj = 0\n[jobs]\noom_score_adj = 1000",
            0,
            1000,
        ),
        // Whoever may not, and was not told to, says nothing.
        (given(0).then(&other), "", 0, 500),
    ];
    if below {
        cases.extend([
            (given(-700), "", -700, 500),
            (
                given(0),
                "oom_score_adj = -900\n[jobs]\noom_score_adj = 0",
                -900,
                0,
            ),
            (given(100), "oom_score_adj = -1000", -1000, 500),
        ]);
    }
    for (place, settings, own, job) in cases {
        let agent = started(place, settings);
        assert_eq!(
            (own_score(&agent), job_score(&agent)),
            (own, job),
            "{settings}"
        );
        assert!(!agent.log().contains("WARN"), "{}", agent.log());
    }
    let agent = started(given(0).then(&other), "oom_score_adj = -1");
    assert_eq!((own_score(&agent), job_score(&agent)), (0, 500));
    agent.wait_for_log("oom_score_adj cannot be set to -1: Permission denied");
}

#[test]
fn a_job_that_eats_all_memory_is_killed_and_the_agent_stays() {
    let Some(cgroup) = Cgroup::new(32 << 20) else {
        return;
    };
    let (poseidon, agent) = pair(Agent::new().within(cgroup.place()));
    let mut agent = agent;
    agent.start();
    agent.wait_for_link("connected");
    let since = agent.status()["link"]["since"].clone();
    let pid = agent.pid();
    for round in 1..=3 {
        // It keeps the last line, which has no end.
        let output = run(&poseidon, &["tail", "/dev/zero"]);
        assert_eq!(output.status.code(), Some(128 + 9), "{output:?}");
        let jobs = poseidon.json(&["jobs", "--json"]);
        let result = &jobs["jobs"][0]["result"];
        assert_eq!(result["signal"], 9, "{jobs}");
        assert_eq!(cgroup.killed(), round);
    }
    // A crowd of small ones, each smaller than the agent: the agent would be the largest.
    let crowd = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
                 (exec head -c 3000000 /dev/zero | tail -c 3000000 | sleep 1) & done; wait; exec tail /dev/zero";
    let output = run(&poseidon, &["sh", "-c", crowd]);
    assert_ne!(output.status.code(), Some(0));
    assert!(cgroup.killed() > 3);
    assert_eq!(agent.ended(), None);
    assert_eq!(agent.pid(), pid);
    assert_eq!(agent.status()["link"]["since"], since, "{}", agent.log());
    assert_eq!(stdout(&run(&poseidon, &["echo", "alive"])), "alive\n");
}

#[test]
fn all_works_with_32_megabytes() {
    let Some(cgroup) = Cgroup::new(32 << 20) else {
        return;
    };
    let agent = configure(Agent::new(), "[journal]\nbytes = 65536\n");
    let (poseidon, mut agent) = pair(agent.within(cgroup.place()));
    agent.start();
    agent.wait_for_link("connected");
    let since = agent.status()["link"]["since"].clone();
    // The journal is full several times over.
    let big = "x".repeat(4000);
    for _ in 0..40 {
        assert!(agent.run(&["put", &big]).status.success());
    }
    let journal: Value = agent.status()["journal"].clone();
    assert_eq!(journal["state"], "disk");
    let output = run(&poseidon, &["head", "-c", "100000000", "/dev/zero"]);
    assert!(output.status.success());
    assert_eq!(output.stdout.len(), 100_000_000);
    assert!(output.stdout.iter().all(|byte| *byte == 0));
    // And so locally, several at once.
    let jobs: Vec<_> = (0..4)
        .map(|_| {
            let words = ["exec", "--", "head", "-c", "5000000", "/dev/zero"];
            let mut command = agent.command(&words);
            command.stdout(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for job in jobs {
        assert_eq!(job.wait_with_output().unwrap().stdout.len(), 5_000_000);
    }
    assert_eq!(cgroup.killed(), 0);
    assert_eq!(agent.status()["link"]["since"], since, "{}", agent.log());
}
