//! Agent and Poseidon in a network namespace each, with a cable between that is pulled. Needs root; skipped where
//! namespaces are not possible.

mod support;

use std::process::Command;
use std::time::Duration;
use support::agent::Agent;
use support::eventually;
use support::place::{Namespace, leave_the_network, possible, succeed};
use support::poseidon::Poseidon;
use support::random::Random;
use support::rig::{FAST, Rig};

/// Poseidon's end of the cable and the agent's. Nobody else has these networks.
const HERE: &str = "10.77.0.1";
const THERE: &str = "10.77.0.2/24";

/// Runs `ip` at Poseidon's end, which is this thread's.
#[track_caller]
fn ip(line: &str) {
    succeed(Command::new("ip").args(line.split(' ')));
}

/// Two networks and a cable: `here` at this thread's end, `there` at the agent's.
fn cable() -> Option<Namespace> {
    if !possible("--net") {
        return None;
    }
    leave_the_network();
    ip("link set lo up");
    let there = Namespace::network();
    let pid = there.pid();
    let made = Command::new("ip")
        .args(["link", "add", "here", "type", "veth"])
        .args(["peer", "name", "there", "netns", &pid.to_string()])
        .output();
    match made {
        Ok(output) if output.status.success() => {}
        other => {
            assert!(
                std::env::var_os("TRITON_REQUIRE_NAMESPACES").is_none(),
                "no veth: {other:?}"
            );
            println!("skipped: no veth here: {other:?}");
            return None;
        }
    }
    ip(&format!("addr add {HERE}/24 dev here"));
    ip("link set here up");
    there.run(&format!("ip addr add {THERE} dev there"));
    there.run("ip link set there up");
    there.run("ip link set lo up");
    Some(there)
}

fn rig(there: &Namespace) -> Rig {
    // --plain: nobody else is on this cable.
    let arguments = [FAST, &["--plain"]].concat();
    let mut poseidon = Poseidon::at(&format!("{HERE}:8787"), &arguments);
    poseidon.launch();
    let url = poseidon.url();
    Rig::of(poseidon, Agent::new().within(there.place()), &url)
}

/// The fault, some time of it, its end; under load, with the ledger after it.
fn survives(rig: &Rig, break_it: impl Fn(), mend_it: impl Fn()) {
    let load = rig.load(&mut Random::new(1));
    rig.pass(Duration::from_millis(500));
    for _ in 0..2 {
        let ended = rig.agent.log().matches("the connection ended").count();
        break_it();
        eventually(&format!("it is noticed:\n{}", rig.agent.log()), || {
            (rig.agent.log().matches("the connection ended").count() > ended).then_some(())
        });
        rig.pass(Duration::from_millis(500));
        assert!(!rig.connected());
        mend_it();
        rig.wait_until_connected();
        rig.pass(Duration::from_millis(300));
    }
    // Shorter than anything needs to notice.
    for _ in 0..5 {
        break_it();
        std::thread::sleep(Duration::from_millis(50));
        mend_it();
        rig.pass(Duration::from_millis(200));
    }
    load.end();
    rig.wait_until_connected();
    let ledger = rig.settle();
    println!("{ledger}");
    ledger.assert_sound();
    assert!(
        !ledger.starts.is_empty() && !ledger.values.is_empty(),
        "{ledger}"
    );
}

#[test]
fn a_cable_is_pulled_at_either_end() {
    let Some(there) = cable() else { return };
    let rig = rig(&there);
    survives(&rig, || ip("link set here down"), || ip("link set here up"));
    survives(
        &rig,
        || there.run("ip link set there down"),
        || there.run("ip link set there up"),
    );
}

#[test]
fn an_address_goes_and_comes_back_or_is_another_one() {
    let Some(there) = cable() else { return };
    let rig = rig(&there);
    survives(
        &rig,
        || there.run(&format!("ip addr del {THERE} dev there")),
        || there.run(&format!("ip addr add {THERE} dev there")),
    );
    // As after a new lease: the old connection hangs at Poseidon, the device comes from elsewhere.
    let load = rig.load(&mut Random::new(2));
    for (new, old) in [("10.77.0.3/24", THERE), (THERE, "10.77.0.3/24")] {
        there.run(&format!("ip addr del {old} dev there"));
        there.run(&format!("ip addr add {new} dev there"));
        eventually("it comes from its new address", || {
            rig.nudge();
            let (_, agent) = rig.api.get("agents/router").ok()?;
            let address = agent["agent"]["address"]
                .as_str()
                .or(agent["address"].as_str())?;
            let ip = new.split('/').next()?;
            (agent.to_string().contains("\"up\"") && address.starts_with(&format!("{ip}:")))
                .then_some(())
        });
    }
    load.end();
    let ledger = rig.settle();
    println!("{ledger}");
    ledger.assert_sound();
}

/// Without a journal, too: a dead link is found from both sides, and one that is back is used.
#[test]
fn a_dead_link_is_found_and_used_again() {
    let Some(there) = cable() else { return };
    let rig = rig(&there);
    ip("link set here down");
    rig.agent
        .wait_for_log("the connection ended: no sign of life");
    eventually("the agent says that it cannot connect", || {
        let status = rig.nudge()?;
        let error = status["link"]["lastError"].as_str()?;
        error.starts_with("tcp: ").then_some(())
    });
    rig.poseidon.wait_for("router", "down");
    ip("link set here up");
    rig.wait_until_connected();
    rig.poseidon.wait_for("router", "up");
}
