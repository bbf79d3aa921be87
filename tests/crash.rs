//! kill -9 of the agent, of Poseidon and of both, at random points under load; then the ledger.
//!
//! `TRITON_CRASH_SEED` repeats a run's choices, `TRITON_CRASH_ROUNDS` says how many kills there are: 200 in CI,
//! thousands by hand.

mod support;

use std::time::Duration;
use support::random::{Random, seed, setting};
use support::rig::Rig;

/// Kills in a run of CI.
const ROUNDS: u64 = 200;

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Agent,
    Poseidon,
    Both,
}

/// Kills and starts again. Which comes back first is chance.
fn kill(rig: &mut Rig, victim: Victim, random: &mut Random) {
    let (agent, poseidon) = (victim != Victim::Poseidon, victim != Victim::Agent);
    if random.below(2) == 0 {
        if agent {
            rig.agent.kill();
        }
        if poseidon {
            rig.poseidon.kill();
        }
    } else {
        if poseidon {
            rig.poseidon.kill();
        }
        if agent {
            rig.agent.kill();
        }
    }
    std::thread::sleep(random.up_to(Duration::from_millis(20)));
    // Some are killed again before they have come up.
    if poseidon && random.below(6) == 0 {
        let soon = random.up_to(Duration::from_millis(60));
        rig.poseidon.launch_and_kill(soon);
    }
    if agent && random.below(6) == 0 {
        rig.agent.start();
        std::thread::sleep(random.up_to(Duration::from_millis(30)));
        rig.agent.kill();
    }
    if agent {
        rig.agent.start();
    }
    if poseidon {
        rig.poseidon.launch();
    }
}

#[test]
fn killed_at_any_point_nothing_is_lost_and_nothing_happens_twice() {
    let mut random = Random::new(seed("TRITON_CRASH_SEED"));
    let rounds = setting("TRITON_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let mut rig = Rig::direct();
    let load = rig.load(&mut random);
    for _ in 0..rounds {
        // Most kills meet a session at work, some the way there.
        if random.below(4) > 0 {
            rig.wait_until_connected();
            rig.pass(random.up_to(Duration::from_millis(500)));
        } else {
            rig.pass(random.up_to(Duration::from_millis(100)));
        }
        let victim = match random.below(10) {
            0..=3 => Victim::Agent,
            4..=7 => Victim::Poseidon,
            _ => Victim::Both,
        };
        kill(&mut rig, victim, &mut random);
    }
    load.end();
    let ledger = rig.settle();
    println!("{rounds} kills: {ledger}");
    ledger.assert_sound();
    // What shows nothing shows no fault either.
    let ended = ledger.ends();
    let succeeded = ended.get("succeeded").copied().unwrap_or(0) as u64;
    let interrupted = ended.get("interrupted").copied().unwrap_or(0);
    assert!(succeeded >= rounds / 2, "{ledger}");
    assert!(interrupted > 0 || rounds < 100, "{ledger}");
    assert!(ledger.values.len() as u64 >= rounds, "{ledger}");
}
