//! How plugins come, go and come back, and what is seen of it.

use crate::rig::{Rig, lives};
use crate::support::agent::Agent;
use crate::support::eventually;
use serde_json::{Value, json};
use std::process::Stdio;

const SLOW: &str = r#"
say hello '' '{"types":["slow.wait"]}'
while hear; do
    case $type in
        slow.wait) echo "has $conversation" >&2 ;;
        cancel) echo "cancel $payload" >&2 ;;
    esac
done"#;

#[test]
fn kill_and_start() {
    let rig = Rig::with("", &[("slow", SLOW)]);
    let pid = rig.wait_for("slow", "running")["pid"].clone();
    let mut job = rig.agent.command(&["module", "ask", "slow.wait"]);
    let job = job.stderr(Stdio::piped()).spawn().unwrap();
    rig.agent.wait_for_log("plugin slow: has");
    let output = rig.agent.run(&["module", "kill", "slow"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!lives(&pid));
    assert_eq!(rig.module("slow")["state"], "stopped");
    let job = job.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&job.stderr).into_owned();
    assert!(
        said.contains("plugin-ended") && said.contains("module.kill"),
        "{said}"
    );
    let (code, _, err) = rig.module_ask("slow.wait", "{}");
    assert!(code != 0 && err.contains("unknown-type"), "{err}");
    assert!(err.contains("the plugin slow has been stopped"), "{err}");
    // Again is as good as once, and a start comes right behind.
    rig.kill("slow").unwrap();
    let output = rig.agent.run(&["module", "start", "slow"]);
    assert!(output.status.success(), "{output:?}");
    rig.wait_for("slow", "running");
    rig.start_again("slow").unwrap();
    let error = rig.kill("none").unwrap_err();
    assert!(error.contains("not-found"), "{error}");
    let error = rig.kill("command").unwrap_err();
    assert!(
        error.contains("refused") && error.contains("built in"),
        "{error}"
    );
}

#[test]
fn a_cancelled_job_has_its_grace() {
    let rig = Rig::with("", &[("slow", SLOW)]);
    rig.wait_for("slow", "running");
    let mut job = rig
        .agent
        .command(&["module", "ask", "slow.wait", r#"{"timeoutSeconds":1}"#]);
    let job = job.stderr(Stdio::piped()).output().unwrap();
    // The plugin does not answer, so its grace runs out.
    assert_eq!(job.status.code(), Some(124), "{job:?}");
    let log = rig.agent.wait_for_log("plugin slow: cancel");
    assert!(log.contains("graceSeconds"), "{log}");
    assert_eq!(rig.module("slow")["state"], "running");
}

#[test]
fn twenty_at_once() {
    let rig = Rig::unstarted("");
    for n in 0..20 {
        let answer = format!(
            "say hello '' '{{\"types\":[\"p{n}.ask\"]}}'\nwhile hear; do [ $type = p{n}.ask ] && say result $conversation '{{\"status\":\"succeeded\",\"data\":{n}}}'; done"
        );
        rig.put(&format!("p{n}"), &answer);
    }
    let rig = rig.start();
    for n in 0..20 {
        rig.wait_for(&format!("p{n}"), "running");
    }
    for n in 0..20 {
        let (code, out, err) = rig.module_ask(&format!("p{n}.ask"), "{}");
        assert_eq!((code, out.trim()), (0, n.to_string().as_str()), "{err}");
    }
    let (descriptors, _) = rig.agent.resources();
    for n in 0..20 {
        rig.kill(&format!("p{n}")).unwrap();
        rig.start_again(&format!("p{n}")).unwrap();
    }
    for n in 0..20 {
        rig.wait_for(&format!("p{n}"), "running");
    }
    eventually("no descriptor is left behind", || {
        (rig.agent.resources().0 <= descriptors).then_some(())
    });
}

#[test]
fn it_stores_values_and_may_close_its_input() {
    let rig = Rig::with(
        "",
        &[(
            "store",
            r#"say hello '' '{}'; hear
            say history.put '' '{"data":{"n":7}}'
            hear && [ "$type" = result ] && echo "stored $payload" >&2
            exec <&-
            for n in 1 2 3; do say history.put '' '{"data":8}'; done
            sleep 1000"#,
        )],
    );
    rig.agent.wait_for_log("plugin store: stored");
    let output = rig.agent.run(&["history", "--json"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(r#"{"n":7}"#), "{said}");
    eventually("the rest", || {
        let output = rig.agent.run(&["history", "--json"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (said.matches(r#""data":8"#).count() == 3).then_some(())
    });
    assert_eq!(rig.module("store")["state"], "running");
}

#[test]
fn what_is_switched_off_says_so() {
    let rig = Rig::with("off = [\"external\", \"engine\"]", &[("slow", SLOW)]);
    assert_eq!(rig.module("slow"), Value::Null);
    assert_eq!(rig.module("engine")["state"], "off");
    let error = rig
        .ask("engine.command", &json!({"command": "x"}))
        .unwrap_err();
    assert!(
        error.contains("refused") && error.contains("plugins.off"),
        "{error}"
    );
    let said = rig.agent.run(&["status"]).stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("engine off, external off"), "{said}");
    let output = rig.agent.run(&["module", "ls"]).stdout;
    let output = String::from_utf8_lossy(&output).into_owned();
    assert!(
        output.contains("switched off (plugins.off): engine external"),
        "{output}"
    );
    let agent = Agent::new();
    let file = agent.folder().join("wrong.toml");
    std::fs::write(&file, "[plugins]\noff = [\"filez\"]\n").unwrap();
    let output = agent.run(&["check-config", "--config", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("filez") && said.contains("schedule"),
        "{said}"
    );
}
