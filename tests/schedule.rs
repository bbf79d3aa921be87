//! What the device runs by its own clock: the real agent, with entries that come every second.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use support::agent::Agent;
use support::poseidon::Poseidon;
use support::rig::{FAST, Rig};
use support::{eventually, local};
use triton::message::Message;
use triton::message::payload::{Record, SCHEDULE_SET};

/// An agent whose configuration has these entries.
fn agent(entries: &str) -> Agent {
    let mut agent = unstarted(entries);
    agent.start();
    agent.wait_until_it_serves();
    agent
}

fn unstarted(entries: &str) -> Agent {
    let agent = Agent::new();
    let file = agent.folder().join("triton.toml");
    let entries = entries.replace("FOLDER", agent.folder().to_str().unwrap());
    fs::write(&file, entries).unwrap();
    agent.with_variable("TRITON_CONFIG", file.to_str().unwrap())
}

fn set(agent: &Agent, revision: &str, entries: &Value) -> Result<Value, String> {
    let set = json!({ "revision": revision, "entries": entries });
    let answer = local::ask(&agent.socket(), &Message::with(SCHEDULE_SET, &set))?;
    let result: Value = answer.read().map_err(|e| e.to_string())?;
    assert_eq!(result["status"], "succeeded", "{result}");
    Ok(result["data"].clone())
}

/// The entry of this name, as `triton schedule --json` shows it.
fn entry(agent: &Agent, name: &str) -> Value {
    let output = agent.run(&["schedule", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let entries = list["entries"].as_array().unwrap();
    entries
        .iter()
        .find(|e| e["name"] == name)
        .cloned()
        .unwrap_or_default()
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn wait_for_lines(path: &Path, count: usize) -> Vec<String> {
    eventually(&format!("{} has {count} lines", path.display()), || {
        Some(lines(path)).filter(|lines| lines.len() >= count)
    })
}

fn records(agent: &Agent, code: u32) -> Vec<Record> {
    let all = local::history(&agent.socket()).unwrap();
    all.into_iter().filter(|r| r.code == code).collect()
}

fn data(record: &Record) -> Value {
    serde_json::from_str(record.data.get()).unwrap()
}

/// Its first act names its run.
const EACH_SECOND: &str = "
[schedule.tick]
cron = \"* * * * * *\"
shell = \"echo $TRITON_JOB >> FOLDER/runs\"
overlap = \"allow\"
";

#[test]
fn entries_of_the_configuration_run_and_are_in_the_history() {
    let mut agent = agent(EACH_SECOND);
    let runs = wait_for_lines(&agent.folder().join("runs"), 3);
    assert!(runs[0].starts_with("schedule:config:tick:20"), "{runs:?}");
    let accepted = records(&agent, 0);
    let first = accepted.iter().find(|r| r.token == runs[0]).unwrap();
    assert_eq!(data(first), json!({ "what": "tick", "origin": "schedule" }));
    let ended = eventually("its end", || {
        records(&agent, 1).into_iter().find(|r| r.token == runs[0])
    });
    assert_eq!(data(&ended)["exitCode"], 0);
    let shown = eventually("its end is shown", || {
        Some(entry(&agent, "tick")).filter(|e| e["last"]["status"] == "succeeded")
    });
    assert_eq!(shown["source"], "config");
    let status = agent.status();
    assert_eq!(status["schedule"]["entries"], 1, "{status}");
    assert!(status["schedule"]["next"].is_number(), "{status}");
    let table = String::from_utf8(agent.run(&["schedule"]).stdout).unwrap();
    assert!(
        table.contains("tick") && table.contains("* * * * * *"),
        "{table}"
    );
    assert!(agent.stop().success());
}

#[test]
fn killed_again_and_again_no_time_runs_twice() {
    let mut agent = agent(EACH_SECOND);
    let runs = agent.folder().join("runs");
    for round in 1..=6_u64 {
        let before = lines(&runs).len();
        wait_for_lines(&runs, before + 1);
        // Somewhere between two times, and sometimes just at one.
        std::thread::sleep(std::time::Duration::from_millis(round * 173 % 1_000));
        agent.kill();
        agent.start();
    }
    wait_for_lines(&runs, 8);
    agent.kill();
    let all = lines(&runs);
    let mut once = all.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), all.len(), "{all:?}");
}

#[test]
fn what_is_set_is_kept_and_replaced_as_a_whole() {
    let mut agent = agent("");
    let threads = |agent: &Agent| agent.resources().1;
    let idle = threads(&agent);
    assert!(!agent.state().join("schedule-times.json").exists());
    let done = agent.folder().join("done");
    let command = json!(["sh", "-c", format!("echo x >> {}", done.display())]);
    let daily =
        json!({ "name": "daily", "cron": "0 2 * * *", "timeZone": "CET-1CEST", "shell": "true" });
    let entries = json!([{ "name": "now", "cron": "* * * * * *", "command": command }, daily]);
    let answer = set(&agent, "r1", &entries).unwrap();
    assert_eq!(
        (&answer["revision"], &answer["entries"]),
        (&json!("r1"), &json!(2))
    );
    assert!(answer["next"].is_number());
    wait_for_lines(&done, 2);
    // One wrong entry, and all stays as it was.
    let wrong = json!([daily, { "name": "x", "cron": "0 2 * *", "shell": "true" }]);
    let refused = set(&agent, "r2", &wrong).unwrap_err();
    assert!(
        refused.contains("entry 2 (x): cron: has 4 fields"),
        "{refused}"
    );
    let unknown =
        json!([{ "name": "x", "cron": "@daily", "timeZone": "Mars/Phobos", "shell": "true" }]);
    let refused = set(&agent, "r2", &unknown).unwrap_err();
    assert!(
        refused.contains("Mars/Phobos is not known here"),
        "{refused}"
    );
    assert_eq!(agent.status()["schedule"]["revision"], "r1");
    agent.kill();
    agent.start();
    agent.wait_until_it_serves();
    assert_eq!(agent.status()["schedule"]["revision"], "r1");
    let before = lines(&done).len();
    wait_for_lines(&done, before + 2);
    assert_eq!(entry(&agent, "daily")["source"], "poseidon");
    // Nothing left: no thread is, either.
    set(&agent, "", &json!([])).unwrap();
    eventually("the thread ends", || {
        let names = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
        let names = names
            .flatten()
            .map(|t| fs::read_to_string(t.path().join("comm")).unwrap_or_default());
        names
            .into_iter()
            .all(|name| name != "schedule\n")
            .then_some(())
    });
    let before = lines(&done).len();
    set(&agent, "r3", &json!([daily])).unwrap();
    let shown = entry(&agent, "daily");
    assert!(
        shown["next"].is_number() && shown["last"].is_null(),
        "{shown}"
    );
    assert!(lines(&done).len() <= before + 1);
    assert!(idle > 0 && agent.stop().success());
}

#[test]
fn a_schedule_is_no_way_round_what_is_switched_off() {
    let own = "[schedule.own]\ncron = \"* * * * * *\"\ncommand = [\"true\"]\n";
    let mut agent = agent(own);
    let entries = json!([{"name": "a", "cron": "* * * * * *", "command": ["true"]}]);
    set(&agent, "1", &entries).unwrap();
    eventually("a run", || {
        (entry(&agent, "a")["last"]["status"] == "succeeded").then_some(())
    });
    agent.stop();
    let off = format!("[plugins]\noff = [\"command\"]\n{own}");
    fs::write(agent.folder().join("triton.toml"), off).unwrap();
    agent.start();
    agent.wait_until_it_serves();
    // What was set before does not run any more; the device's own does.
    eventually("a refused run", || {
        (entry(&agent, "a")["last"]["status"] == "refused").then_some(())
    });
    eventually("a run of its own", || {
        (entry(&agent, "own")["last"]["status"] == "succeeded").then_some(())
    });
    let skipped = records(&agent, 103);
    assert!(
        skipped.iter().any(|r| r.data.get().contains("plugins.off")),
        "{skipped:?}"
    );
    let error = set(&agent, "2", &entries).unwrap_err();
    assert!(
        error.contains("entry 1 (a)") && error.contains("plugins.off"),
        "{error}"
    );
    let script = json!([{"name": "s", "cron": "@daily", "script": "x.sh"}]);
    set(&agent, "3", &script).unwrap();
}

#[test]
fn a_schedule_in_xml_is_taken_as_well() {
    let agent = agent("");
    let done = agent.folder().join("done");
    let xml = format!(
        "<set><revision>7</revision><entries><name>a</name><cron>* * * * * *</cron><catchUp>true</catchUp>\
         <command>touch</command><command>{}</command><jitterSeconds>0</jitterSeconds></entries></set>",
        done.display()
    );
    let message = Message {
        payload: Some(xml),
        ..Message::new(SCHEDULE_SET)
    };
    local::ask(&agent.socket(), &message).unwrap();
    assert_eq!(agent.status()["schedule"]["revision"], "7");
    eventually("it runs", || done.exists().then_some(()));
    for payload in [
        "<a>x</a>",
        "<a/>",
        "{}",
        "[]",
        "<a><revision>1</revision></a>",
    ] {
        let message = Message {
            payload: Some(payload.to_owned()),
            ..Message::new(SCHEDULE_SET)
        };
        let error = local::ask(&agent.socket(), &message).unwrap_err();
        assert!(error.contains("invalid"), "{payload}: {error}");
    }
}

#[test]
fn a_broken_file_is_said_and_costs_nothing_else() {
    let mut agent = agent("[schedule.own]\ncron = \"@daily\"\nshell = \"true\"\n");
    set(
        &agent,
        "r1",
        &json!([{ "name": "a", "cron": "@daily", "shell": "true" }]),
    )
    .unwrap();
    assert!(agent.stop().success());
    for broken in [
        "{",
        "",
        "7",
        "{\"revision\":\"r1\",\"entries\":[{\"name\":\"a\"}]}",
        "\u{0}\u{0}",
    ] {
        fs::write(agent.state().join("schedule.json"), broken).unwrap();
        fs::write(agent.state().join("schedule-times.json"), broken).unwrap();
        agent.start();
        agent.wait_until_it_serves();
        let status = agent.status();
        assert_eq!(
            status["schedule"]["revision"], "",
            "{broken:?}: so that Poseidon sets it again"
        );
        let problem = status["schedule"]["problem"].as_str().unwrap().to_owned();
        assert!(problem.contains("schedule.json"), "{problem}");
        assert!(agent.log().contains("schedule.json cannot be used"));
        eventually("the own entry is planned", || {
            entry(&agent, "own")["next"].as_i64()
        });
        assert!(agent.run(&["exec", "true"]).status.success());
        assert!(agent.stop().success());
    }
    agent.start();
    agent.wait_until_it_serves();
    set(&agent, "r2", &json!([])).unwrap();
    assert!(agent.status()["schedule"]["problem"].is_null());
}

#[test]
fn reboot_runs_once_in_a_life_of_the_device() {
    let mut agent = agent(
        "[schedule.boot]\ncron = \"@reboot\"\nshell = \"echo x >> FOLDER/boot\"\n\
         [schedule.tick]\ncron = \"* * * * * *\"\nshell = \"echo x >> FOLDER/tick\"\n",
    );
    let (boot, tick) = (agent.folder().join("boot"), agent.folder().join("tick"));
    wait_for_lines(&boot, 1);
    for _ in 0..2 {
        agent.kill();
        agent.start();
        let before = lines(&tick).len();
        wait_for_lines(&tick, before + 1);
    }
    // One that comes later waits for the next boot.
    let late = agent.folder().join("late");
    let touch = json!(["touch", late]);
    agent.wait_until_it_serves();
    set(
        &agent,
        "1",
        &json!([{ "name": "late", "cron": "@reboot", "command": touch }]),
    )
    .unwrap();
    let before = lines(&tick).len();
    wait_for_lines(&tick, before + 2);
    assert_eq!(lines(&boot).len(), 1);
    assert!(!late.exists());
}

#[test]
fn an_overlap_is_skipped_or_waits_or_is_allowed() {
    let entries = ["skip", "queue", "allow"].map(|overlap| {
        format!(
            "[schedule.{overlap}]\ncron = \"* * * * * *\"\noverlap = \"{overlap}\"\n\
             shell = \"echo x >> FOLDER/{overlap}; until test -e FOLDER/go; do sleep 0.05; done\"\n"
        )
    });
    let agent = agent(&format!("[jobs]\nworkers = 16\n{}", entries.concat()));
    let count = |name: &str| lines(&agent.folder().join(name)).len();
    wait_for_lines(&agent.folder().join("allow"), 3);
    assert_eq!((count("skip"), count("queue")), (1, 1));
    let skipped = eventually("what was skipped is in the journal", || {
        let skipped: Vec<Value> = records(&agent, 103).iter().map(data).collect();
        let named = |name: &str| {
            skipped
                .iter()
                .any(|s| s["name"] == name && s["reason"] == "overlap")
        };
        (named("skip") && named("queue")).then_some(skipped)
    });
    assert!(
        skipped
            .iter()
            .all(|s| s["name"] != "allow" && s["count"].as_u64() > Some(0)),
        "{skipped:?}"
    );
    assert_eq!(entry(&agent, "queue")["waiting"], true);
    fs::write(agent.folder().join("go"), "").unwrap();
    wait_for_lines(&agent.folder().join("queue"), 2);
    wait_for_lines(&agent.folder().join("skip"), 2);
    let history = String::from_utf8(agent.run(&["history", "--code", "103"]).stdout).unwrap();
    assert!(
        history.contains("skipped") && history.contains("overlap"),
        "{history}"
    );
    assert!(!agent.run(&["put", "--code", "103", "x"]).status.success());
}

/// More of them than workers: all run, and who is in front of the device is served meanwhile.
#[test]
fn many_at_once_wait_for_one_another_and_leave_a_worker() {
    let mut entries = String::from("[jobs]\nworkers = 2\nqueue = 1\n");
    for n in 0..12 {
        let entry = format!(
            "[schedule.e{n}]\ncron = \"@reboot\"\nshell = \"echo $TRITON_JOB >> FOLDER/runs; until test -e FOLDER/go; do sleep 0.02; done\"\n"
        );
        entries.push_str(&entry);
    }
    let agent = agent(&entries);
    let runs = agent.folder().join("runs");
    wait_for_lines(&runs, 1);
    assert!(agent.run(&["exec", "true"]).status.success());
    assert_eq!(lines(&runs).len(), 1);
    fs::write(agent.folder().join("go"), "").unwrap();
    let mut all = wait_for_lines(&runs, 12);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 12);
    assert_eq!(records(&agent, 103).len(), 0);
}

#[test]
fn a_script_of_the_repository_runs_and_one_that_is_not_there_is_said() {
    let mut agent = unstarted(
        "[schedule.good]\ncron = \"* * * * * *\"\nscript = \"a/b.sh\"\nargs = [\"FOLDER/out\", \"x y\"]\n\
         [schedule.bad]\ncron = \"* * * * * *\"\nscript = \"no.sh\"\n",
    );
    let scripts = agent.state().join("scripts");
    fs::create_dir_all(scripts.join("revisions/r1/a")).unwrap();
    let text = "echo \"$TRITON_SCRIPT $2 $(pwd)\" >> \"$1\"\n";
    fs::write(scripts.join("revisions/r1/a/b.sh"), text).unwrap();
    std::os::unix::fs::symlink("revisions/r1", scripts.join("current")).unwrap();
    agent.start();
    let out = wait_for_lines(&agent.folder().join("out"), 1);
    assert!(out[0].starts_with("a/b.sh x y /"), "{out:?}");
    assert!(out[0].ends_with("scripts/revisions/r1"), "{out:?}");
    let skipped = eventually("it is said", || records(&agent, 103).first().map(data));
    assert_eq!(skipped["name"], "bad", "{skipped}");
    assert!(
        skipped["reason"].as_str().unwrap().contains("no script"),
        "{skipped}"
    );
    assert_eq!(entry(&agent, "bad")["last"]["status"], "not-found");
}

#[test]
fn what_cannot_run_is_said() {
    let agent = agent(
        "[schedule.missing]\ncron = \"* * * * * *\"\ncommand = [\"/no/such/program\"]\n\
         [schedule.lost]\ncron = \"* * * * * *\"\nshell = \"true\"\ntime_zone = \"Mars/Phobos\"\n",
    );
    eventually("the missing program is shown", || {
        (entry(&agent, "missing")["last"]["status"] == "not-found").then_some(())
    });
    let lost = entry(&agent, "lost");
    assert!(
        lost["problem"].as_str().unwrap().contains("Mars/Phobos"),
        "{lost}"
    );
    assert!(agent.log().contains("lost does not run"));
}

#[test]
fn the_configuration_is_checked_by_line_and_read_anew() {
    for (text, parts) in [
        (
            "[schedule.a]\ncron = \"0 2 * *\"\nshell = \"x\"",
            &[":2: ", "schedule: a: cron: has 4 fields"][..],
        ),
        (
            "\n[schedule.a]\ncron = \"@daily\"\n",
            &[":2: ", "one of script, command and shell"],
        ),
        (
            "[schedule.a]\ncron = \"@daily\"\nshell = \"x\"\ncatchUp = true",
            &[":4: ", "`catchUp` is no field of an entry; `catch_up` is"],
        ),
        (
            "[schedule.a]\ncron = \"@daily\"\nshell = \"x\"\njitter_seconds = \"5\"",
            &[":4: ", "jitter_seconds: expected a number"],
        ),
        ("[schedule]\na = 1", &[":2: ", "a table"]),
        ("[[schedule]]\ncron = 1", &[":1: ", "a table"]),
        (
            "[schedule.\"a b\"]\ncron = \"@daily\"\nshell = \"x\"",
            &[":1: ", "letters"],
        ),
        (
            "[schedule.a]\ncron = 2026-11-21\nshell = \"x\"",
            &[":2: ", "cron: expected a text"],
        ),
        (
            "[schedule.a]\ncron = \"@daily\"\nshell = \"x\"\ntime_zone = \"Mars/Phobos\"",
            &["schedule.a.time_zone", "Mars/Phobos"],
        ),
    ] {
        let agent = unstarted(text);
        let checked = agent
            .command(&["check-config"])
            .env("TRITON_CONFIG", agent.folder().join("triton.toml"))
            .output()
            .unwrap();
        let said = String::from_utf8(checked.stderr).unwrap();
        assert!(!checked.status.success(), "{text}");
        for part in parts {
            assert!(said.contains(part), "{text}: {said}");
        }
    }
    let agent = agent("");
    let file = agent.folder().join("triton.toml");
    fs::write(
        &file,
        EACH_SECOND.replace("FOLDER", agent.folder().to_str().unwrap()),
    )
    .unwrap();
    agent.signal(libc::SIGHUP);
    wait_for_lines(&agent.folder().join("runs"), 2);
    fs::write(&file, "").unwrap();
    agent.signal(libc::SIGHUP);
    eventually("it is gone", || {
        (agent.status()["schedule"]["entries"] == 0).then_some(())
    });
}

#[test]
fn what_ran_offline_is_in_poseidons_history_later() {
    let poseidon = Poseidon::on_a_held_port(FAST);
    let agent = Agent::new();
    let runs = agent.folder().join("runs");
    let url = poseidon.url();
    let more = EACH_SECOND.replace("FOLDER", agent.folder().to_str().unwrap());
    let mut rig = Rig::with_settings(poseidon, agent, &url, &more);
    wait_for_lines(&runs, 1);
    rig.poseidon.kill();
    let before = lines(&runs).len();
    let offline = wait_for_lines(&runs, before + 3)[before + 1].clone();
    rig.poseidon.launch();
    rig.wait_until_connected();
    let rows = eventually("the runs have arrived", || {
        let path = format!("history?agent=router&token={offline}&limit=10");
        let (status, page) = rig.api.get(&path).ok()?;
        assert_eq!(status, 200, "{page}");
        let rows = page["records"].as_array()?.clone();
        (rows.len() == 2).then_some(rows)
    });
    let accepted = rows.iter().find(|r| r["code"] == 0).unwrap();
    assert_eq!(accepted["data"]["origin"], "schedule", "{accepted}");
    assert_eq!(accepted["data"]["what"], "tick");
    assert!(rows.iter().any(|r| r["code"] == 1));
}
