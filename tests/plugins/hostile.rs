//! Plugins that break what can be broken. The agent goes on in each case, and says what was wrong.

use crate::rig::{Rig, lives};
use crate::support::agent::Agent;
use crate::support::eventually;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

#[test]
fn a_hello_that_comes_late_is_in_time_and_one_that_never_comes_is_not() {
    let rig = Rig::with(
        "hello_seconds = 2",
        &[
            ("late", "sleep 1; say hello '' '{}'; while hear; do :; done"),
            ("never", "exec sleep 1000"),
            ("other", "say pong '' '{}'; sleep 1000"),
        ],
    );
    let pid = rig.wait_for("never", "starting")["pid"].clone();
    rig.wait_for("late", "running");
    rig.wait_for_reason("never", "no hello within 2 s");
    assert!(!lives(&pid), "{pid}");
    let other = rig.wait_for("other", "failed");
    assert!(
        other["reason"].as_str().unwrap().contains("not a hello"),
        "{other}"
    );
}

#[test]
fn what_is_no_message_is_answered_and_counted() {
    let rig = Rig::with(
        "",
        &[(
            "garbage",
            r#"say hello '' '{}'
            hear
            echo garbage
            hear && [ "$type" = error ] && say put.it.away '' '{}'
            hear && [ "$type" = error ] && echo two errors >&2
            while echo garbage; do hear; done"#,
        )],
    );
    rig.wait_for_reason("garbage", "broke the protocol 10 times");
    rig.agent.wait_for_log("plugin garbage: two errors");
}

#[test]
fn a_line_without_end_takes_no_memory() {
    let rig = Rig::with(
        "",
        &[("endless", "say hello '' '{}'; tr '\\0' x </dev/zero")],
    );
    rig.wait_for_reason("endless", "a line of more than 1048576 bytes");
    assert!(
        rig.agent.resident() < 40_000_000,
        "{}",
        rig.agent.resident()
    );
}

#[test]
fn a_flood_is_read_at_its_rate_and_in_the_log_at_its_own() {
    let flood = "say hello '' '{}'
        (hear; while hear; do :; done) <&0 &
        while :; do say log '' '{\"level\":\"info\",\"message\":\"drop\"}'; echo noise >&2; done";
    let quiet = "say hello '' '{\"types\":[\"quiet.ask\"]}'
        while hear; do
            [ $type = quiet.ask ] && say result $conversation '{\"status\":\"succeeded\"}'
        done";
    let rig = Rig::with("rate = 10", &[("flood", flood), ("quiet", quiet)]);
    rig.wait_for("flood", "running");
    rig.wait_for("quiet", "running");
    for _ in 0..10 {
        let (code, _, err) = rig.module_ask("quiet.ask", "{}");
        assert_eq!(code, 0, "{err}");
    }
    let log = rig.agent.log();
    assert!(log.matches("plugin flood").count() <= 25, "{log}");
    assert_eq!(rig.module("flood")["state"], "running");
}

#[test]
fn one_that_hangs_is_killed() {
    let hang = "say hello '' '{\"types\":[\"hang.ask\"],\"pings\":true}'
        hear; hear; [ $type = ping ] && say pong $conversation '{}' && echo ponged >&2
        exec sleep 1000";
    // Its answers fill the pipe, and it reads none.
    let deaf = "say hello '' '{}'
        while :; do say history.put '' '{\"data\":1}'; done";
    let rig = Rig::with("patience_seconds = 1", &[("hang", hang), ("deaf", deaf)]);
    rig.agent.wait_for_log("plugin hang: ponged");
    rig.wait_for_reason("hang", "not answered a ping for 1 s");
    rig.wait_for_reason("deaf", "not read its input for 1 s");
}

#[test]
fn a_crash_loop_ends() {
    let crash = "say hello '' '{\"types\":[\"crashy.x\"]}'; echo oops >&2; exit 1";
    let rig = Rig::with("", &[("crash", crash)]);
    rig.wait_for("crash", "waiting");
    let module = rig.wait_for("crash", "failed");
    assert_eq!(module["restarts"], 4);
    assert!(
        module["reason"]
            .as_str()
            .unwrap()
            .contains("5 ends in a row"),
        "{module}"
    );
    let log = rig.agent.log();
    assert!(
        log.contains("plugin crash: oops") && log.contains("triton module start crash"),
        "{log}"
    );
    // Who asks for what it did hears of it; of what nobody had, as ever.
    for (kind, wanted) in [
        (
            "crashy.x",
            "unknown-type: crashy.x: the plugin crash has failed, see 'triton module ls'",
        ),
        ("crashy.y", "does not know the type crashy.y"),
    ] {
        let (code, _, said) = rig.module_ask(kind, "{}");
        assert!(code != 0 && said.contains(wanted), "{said}");
    }
    // Mended, it begins anew.
    rig.put("crash", "say hello '' '{}'; while hear; do :; done");
    rig.start_again("crash").unwrap();
    assert_eq!(rig.wait_for("crash", "running")["reason"], json!(null));
}

#[test]
fn a_type_has_one_owner() {
    let say =
        |types: &str| format!("say hello '' '{{\"types\":[\"{types}\"]}}'; while hear; do :; done");
    let rig = Rig::unstarted("");
    rig.put("a", &say("gpio.set"));
    rig.put("builtin", &say("file.put"));
    rig.put("nodot", &say("command"));
    let rig = rig.start();
    rig.wait_for("a", "running");
    rig.put("b", &say("gpio.set"));
    rig.start_again("b").unwrap();
    for (name, why) in [
        ("b", "another plugin acts on gpio.set"),
        ("builtin", "begin with file."),
        ("nodot", "no type"),
    ] {
        let module = rig.wait_for(name, "failed");
        assert!(module["reason"].as_str().unwrap().contains(why), "{module}");
    }
    assert_eq!(rig.module("a")["state"], "running");
}

#[test]
fn what_others_can_change_is_not_started() {
    let rig = Rig::unstarted("");
    let good = "say hello '' '{}'; while hear; do :; done";
    for name in ["good", "group", "owner", "elf"] {
        rig.put(name, good);
    }
    let path = |name: &str| rig.folder().join(name);
    fs::set_permissions(path("group"), fs::Permissions::from_mode(0o775)).unwrap();
    chown(path("owner"), Some(65_534), None).unwrap();
    fs::write(path("elf"), "#!/no/such/program\n").unwrap();
    symlink(path("good"), path("link")).unwrap();
    let rig = rig.start();
    rig.wait_for("good", "running");
    for (name, why) in [
        ("group", "chmod go-w"),
        ("owner", "user 65534"),
        ("link", "symbolic link"),
        ("elf", "cannot start"),
    ] {
        let module = rig.wait_for(name, "failed");
        assert!(module["reason"].as_str().unwrap().contains(why), "{module}");
        let error = rig.start_again(name).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    // The folder has become another's meanwhile.
    rig.kill("good").unwrap();
    fs::set_permissions(rig.folder(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = rig.start_again("good").unwrap_err();
    assert!(error.contains("0777"), "{error}");
}

#[test]
fn nothing_is_left_behind() {
    let stubborn =
        "trap '' TERM HUP INT; say hello '' '{}'; sleep 1000 & hear; while :; do sleep 1000; done";
    let nice = "say hello '' '{}'; while hear; do [ $type = bye ] && echo \"bye $payload\" >&2 && exit; done";
    let mut rig = Rig::with("", &[("stubborn", stubborn), ("nice", nice)]);
    let pids =
        |rig: &Rig| ["stubborn", "nice"].map(|name| rig.wait_for(name, "running")["pid"].clone());
    let all = |rig: &Rig| {
        // The children too, by the process group.
        let group = rig.module("stubborn")["pid"].to_string();
        let stats = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| {
            let stat = fs::read_to_string(e.path().join("stat")).ok()?;
            let rest = stat.rsplit_once(')')?.1.to_owned();
            let mut fields = rest.split_whitespace();
            (fields.nth(2)? == group).then(|| e.file_name().into_string().unwrap())
        });
        stats.collect::<Vec<_>>()
    };
    pids(&rig);
    let group = all(&rig);
    assert!(group.len() >= 2, "{group:?}");
    let begun = std::time::Instant::now();
    rig.agent.stop();
    assert!(begun.elapsed().as_secs() < 5, "procd would have killed it");
    // Killed before the agent ended; the kernel may take a moment more for the children.
    let lives_no_more = |pid: &String| !lives(&pid.parse().unwrap());
    eventually(&format!("the end of {group:?}"), || {
        group.iter().all(lives_no_more).then_some(())
    });
    assert!(
        rig.agent
            .log()
            .contains("bye {\"reason\":\"the agent stops\"}"),
        "{}",
        rig.agent.log()
    );
    // A killed agent cannot end anything: the kernel does.
    rig.agent.start();
    rig.agent.wait_until_it_serves();
    let pids = pids(&rig);
    rig.agent.kill();
    eventually("the plugins have ended", || {
        pids.iter().all(|pid| !lives(pid)).then_some(())
    });
}

#[test]
fn who_has_no_plugins_pays_for_no_thread() {
    let threads = |agent: &Agent| {
        let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid()))
            .unwrap()
            .flatten();
        let names = tasks.map(|t| fs::read_to_string(t.path().join("comm")).unwrap_or_default());
        names.filter(|name| name.trim() == "plugins").count()
    };
    let rig = Rig::unstarted("").start();
    assert_eq!(threads(&rig.agent), 0);
    rig.put("new", "say hello '' '{}'; while hear; do :; done");
    rig.start_again("new").unwrap();
    rig.wait_for("new", "running");
    assert_eq!(threads(&rig.agent), 1);
}
