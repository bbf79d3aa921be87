//! Thousands of jobs, values and reconnects: what agent and Poseidon hold at the end is what they held when they were
//! warm. `bench/soak.sh` runs it; `TRITON_SOAK_JOBS` and `TRITON_SOAK_MINUTES` say how much at least.

mod support;

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use support::agent::Agent;
use support::eventually;
use support::poseidon::Poseidon;
use support::proxy::{Cut, Proxy};
use support::random::setting;
use support::rig::{FAST, Rig};

/// Jobs between two reconnects.
const BATCH: u64 = 10;
/// The journal is so small that it goes round several times.
const JOURNAL_BYTES: u64 = 1 << 20;
/// What may be more at the end than when warm.
const AGENT_KB: u64 = 1_024;
const POSEIDON_KB: u64 = 16_384;
const DESCRIPTORS: u64 = 2;
/// Poseidon's runtime has threads that come and go with the work.
const POSEIDON_THREADS: u64 = 4;

/// What a process holds.
#[derive(Clone, Copy)]
struct Held {
    resident_kb: u64,
    descriptors: u64,
    threads: u64,
}

impl Held {
    fn by(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let number = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Self {
            resident_kb: number("VmRSS:"),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64,
            threads: number("Threads:"),
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kB resident, {} descriptors, {} threads",
            self.resident_kb, self.descriptors, self.threads
        )
    }
}

/// Bytes of all files below.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let sizes = entries.filter_map(|entry| {
        let data = entry.metadata().ok()?;
        Some(if data.is_dir() {
            size(&entry.path())
        } else {
            data.len()
        })
    });
    sizes.sum()
}

struct Soak {
    rig: Rig,
    jobs: u64,
    reconnects: u64,
}

impl Soak {
    /// Jobs of all kinds, values, a reconnect in their middle.
    fn batch(&mut self) {
        for n in 0..BATCH {
            let line = match (self.jobs + n) % 5 {
                0 => "seq 1 2000",
                1 => "exit 3",
                2 => "sleep 0.02",
                _ => "true",
            };
            assert!(self.rig.job(line).is_some());
            assert!(self.rig.put().is_some());
        }
        let how = if self.reconnects.is_multiple_of(2) {
            Cut::Reset
        } else {
            Cut::Close
        };
        let before = self.rig.proxy().accepted();
        self.rig.proxy().cut(how);
        eventually("it connects again", || {
            let again = self.rig.connected() && self.rig.proxy().accepted() > before;
            again.then_some(())
        });
        self.jobs += BATCH;
        self.reconnects += 1;
        // No more than what the agent's queue takes.
        eventually("most have ended", || (self.rig.open() < 50).then_some(()));
    }

    fn until(&mut self, jobs: u64, time: Instant) {
        while self.jobs < jobs || Instant::now() < time {
            self.batch();
        }
    }

    /// All is quiet: what both hold.
    fn measure(&self, when: &str) -> (Held, Held) {
        let ledger = self.rig.settle();
        ledger.assert_sound();
        let agent = Held::by(self.rig.agent.pid());
        let poseidon = Held::by(self.rig.poseidon.pid());
        let journal = size(&self.rig.agent.state().join("journal"));
        let status = self.rig.agent.status();
        println!("{when}: {} reconnects, {ledger}", self.reconnects);
        println!("  agent: {agent}, journal {journal} bytes on disk");
        println!("  agent.status: {}", status["journal"]);
        println!(
            "  poseidon: {poseidon}, data {} bytes",
            size(&self.rig.poseidon.data())
        );
        assert!(journal <= JOURNAL_BYTES, "{journal} bytes of journal");
        assert_eq!(status["jobs"]["running"], 0);
        (agent, poseidon)
    }
}

#[test]
#[ignore = "long: bench/soak.sh"]
fn after_thousands_of_jobs_and_reconnects_nothing_has_grown() {
    let jobs = setting("TRITON_SOAK_JOBS").unwrap_or(6_000);
    let minutes = setting("TRITON_SOAK_MINUTES").unwrap_or(0);
    let poseidon = Poseidon::on_a_held_port(FAST);
    let proxy = Proxy::to(poseidon.address().parse().unwrap());
    let url = format!("ws://{}/triton", proxy.address());
    let agent = Agent::new();
    let settings = format!("[journal]\nbytes = {JOURNAL_BYTES}\n");
    let mut rig = Rig::with_settings(poseidon, agent, &url, &settings);
    rig.proxy = Some(proxy);
    let mut soak = Soak {
        rig,
        jobs: 0,
        reconnects: 0,
    };
    let begun = Instant::now();
    let end = begun + Duration::from_secs(60 * minutes);
    // By then the journal has gone round once, and the allocator has what it needs.
    soak.until(jobs / 3, begun + Duration::from_secs(20 * minutes));
    let (agent, poseidon) = soak.measure("warm");
    soak.until(jobs, end);
    let (agent_now, poseidon_now) = soak.measure("at the end");
    println!(
        "{} jobs in {:.0} s",
        soak.jobs,
        begun.elapsed().as_secs_f64()
    );
    flat("the agent", agent, agent_now, AGENT_KB, 0);
    flat(
        "Poseidon",
        poseidon,
        poseidon_now,
        POSEIDON_KB,
        POSEIDON_THREADS,
    );
}

#[track_caller]
fn flat(who: &str, warm: Held, end: Held, kb: u64, threads: u64) {
    assert!(
        end.resident_kb <= warm.resident_kb + kb,
        "{who} has grown by more than {kb} kB: {warm}; {end}"
    );
    assert!(
        end.descriptors <= warm.descriptors + DESCRIPTORS,
        "{who} keeps descriptors: {warm}; {end}"
    );
    assert!(
        end.threads <= warm.threads + threads,
        "{who} keeps threads: {warm}; {end}"
    );
}
