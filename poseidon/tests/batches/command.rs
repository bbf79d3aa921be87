//! The commands, as processes.

use crate::common::*;
use crate::fleet::Fleet;
use crate::over;
use serde_json::{Value, json};
use std::process::Output;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

fn command(rig: &Rig, arguments: &[&str]) -> Command {
    let mut command = poseidon(arguments);
    command.env("POSEIDON_DATA", rig.dir.path().join("data"));
    command
}

async fn run(rig: &Rig, arguments: &[&str]) -> Output {
    within(command(rig, arguments).output()).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn several_are_summed_up_and_one_is_as_ever() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 3).await;
    fleet.leave(2);
    rig.is_down("gate%2Fi2").await;
    let arguments = ["run", "--on", "gate,os=Linux", "--canary", "1", "--", "x"];
    let work = async {
        let (at, job) = fleet.next().await;
        fleet.output(at, &job, "fine\n").await;
        fleet.succeed(at, &job.id).await;
        let (at, job) = fleet.next().await;
        fleet.output(at, &job, "tri").await;
        fleet.fail(at, &job.id, "no such package\u{1b}[2J").await;
    };
    let (output, ()) = tokio::join!(run(&rig, &arguments), work);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(text(&output.stdout), "gate/i0: fine\ngate/i1: tri\n");
    let said = text(&output.stderr);
    for part in [
        "3 devices, 1 of them down",
        "poseidon: gate/i0: succeeded",
        "poseidon: gate/i1: failed (exit code 3)",
        "poseidon: gate/i2: offline: the device is down",
        "DEVICES    3\nSUCCEEDED  1\nFAILED     1\nOFFLINE    1\n",
        "gate/i1  failed   3          no such package\u{FFFD}[2J\n",
        "gate/i2  offline  -          the device is down\n",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let list = run(&rig, &["batches"]).await;
    let list = text(&list.stdout);
    assert!(list.contains("1 succeeded, 1 failed, 1 offline"), "{list}");
    let id = list.lines().nth(1).unwrap().split(' ').next().unwrap();
    let shown = run(&rig, &["batch", id]).await;
    assert!(text(&shown.stdout).contains("gate/i1  "), "{shown:?}");
    // One device: its own output and exit code, and nothing else.
    let one = ["run", "--on", "label.n=1", "--", "x"];
    let work = async {
        let (at, job) = fleet.next().await;
        fleet.output(at, &job, "raw").await;
        fleet.fail(at, &job.id, "no").await;
    };
    let (output, ()) = tokio::join!(run(&rig, &one), work);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("raw", ""));
    let nobody = run(&rig, &["run", "--on", "nobody", "--", "x"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("no device is selected"));
    let chosen = run(&rig, &["agents", "--on", "state=down"]).await;
    assert_eq!(text(&chosen.stdout).lines().count(), 2, "{chosen:?}");
}

#[tokio::test]
async fn those_that_failed_or_were_down_are_asked_again() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 4).await;
    fleet.leave(3);
    rig.is_down("gate%2Fi3").await;
    let body = json!({
        "on": ["gate"], "type": "script", "payload": {"name": "a.sh", "args": ["x"], "stdin": "eA=="},
        "concurrency": 7, "canary": 0, "stopOnFailures": 9,
    });
    let batch: Value = rig.client.post("/batches", &body).await.unwrap();
    let id = batch["batch"]["id"].as_str().unwrap();
    for _ in 0..3 {
        let (at, job) = fleet.next().await;
        match at {
            0 => fleet.succeed(at, &job.id).await,
            _ => fleet.fail(at, &job.id, "no").await,
        }
    }
    over(&rig, id).await;
    rig.register("door").await;
    let again = async |state: &str| {
        let output = run(&rig, &["batch", id, "--again", state, "--json"]).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        made["batch"].clone()
    };
    // By their instances, under the name that they have now.
    let made = again("failed").await;
    assert_eq!(made["agents"], json!(["door/i1", "door/i2"]));
    assert_eq!(
        ["type", "request", "concurrency", "stopOnFailures", "queue"].map(|f| &made[f]),
        [
            &body["type"],
            &body["payload"],
            &body["concurrency"],
            &body["stopOnFailures"],
            &json!(false)
        ]
    );
    for _ in 0..2 {
        let (at, job) = fleet.next().await;
        assert_ne!(at, 0);
        fleet.succeed(at, &job.id).await;
    }
    over(&rig, made["id"].as_str().unwrap()).await;
    fleet.come(&rig, 3).await;
    let made = again("offline").await;
    assert_eq!(made["agents"], json!(["door/i3"]));
    let (at, job) = fleet.next().await;
    assert_eq!(at, 3);
    fleet.succeed(at, &job.id).await;
    let made = made["id"].as_str().unwrap();
    over(&rig, made).await;
    let none = run(&rig, &["batch", made, "--again", "failed,offline"]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(
        text(&none.stderr).contains("ended as failed or offline: nothing is asked again"),
        "{none:?}"
    );
    fleet.nothing_more(&rig).await;
    // Those that were waited for and did not come are waited for as long as then.
    fleet.leave(3);
    rig.is_down("door%2Fi3").await;
    let body = json!({
        "agents": ["door/i3"], "command": {"argv": ["x"]}, "queue": true, "expiresSeconds": 1,
    });
    let waits: Value = rig.client.post("/batches", &body).await.unwrap();
    let waits = waits["batch"]["id"].as_str().unwrap();
    over(&rig, waits).await;
    let output = run(&rig, &["batch", waits, "--again", "offline", "--json"]).await;
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    let made = &made["batch"];
    let span = made["expires"].as_f64().unwrap() - made["created"].as_f64().unwrap();
    assert!(
        made["queue"] == true && (0.5..=1.0).contains(&span),
        "{made}"
    );
    over(&rig, made["id"].as_str().unwrap()).await;
    // One that was forgotten since is told, the others are asked.
    fleet.leave(2);
    rig.is_down("door%2Fi2").await;
    run(&rig, &["forget", "door/i2"]).await;
    let output = run(&rig, &["batch", id, "--again", "failed"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output.stderr).contains("gate/i2 is left out"),
        "{output:?}"
    );
    assert!(text(&output.stdout).contains(&format!(": 1 device, as batch {id} asked")));
    assert_eq!(fleet.next().await.0, 1);
}

#[tokio::test]
async fn answers_of_plugins_are_told_with_the_names_of_their_devices() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 2).await;
    for json in [false, true] {
        let work = async {
            for _ in 0..2 {
                let (at, job) = fleet.next().await;
                fleet.output(at, &job, "counts").await;
                let result = json!({"status": "succeeded", "data": {"at": at}});
                fleet.result(at, &job.id, result).await;
            }
        };
        let mut arguments = vec!["ask", "--on", "gate", "--type", "lines.count"];
        arguments.extend(json.then_some("--json"));
        let (output, ()) = tokio::join!(run(&rig, &arguments), work);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let mut lines: Vec<_> = text(&output.stdout).lines().collect();
        if json {
            let lines = lines.iter().map(|l| serde_json::from_str(l).unwrap());
            let ended: Vec<Value> = lines.filter(|l: &Value| l["type"] == "ended").collect();
            assert_eq!(ended.len(), 2);
            for one in ended {
                let at = format!("i{}", one["data"]["at"]);
                assert_eq!(one["instance"], at);
            }
            continue;
        }
        lines.sort_unstable();
        let wanted = [
            "gate/i0: counts",
            "gate/i0: {\"at\":0}",
            "gate/i1: counts",
            "gate/i1: {\"at\":1}",
        ];
        assert_eq!(lines, wanted);
    }
    // One device of a selector, of which nothing else tells.
    let work = async {
        let (at, job) = fleet.next().await;
        let result = json!({"status": "failed", "data": [1]});
        fleet.result(at, &job.id, result).await;
    };
    let one = ["ask", "--on", "label.n=1", "--type", "lines.count"];
    let (output, ()) = tokio::join!(run(&rig, &one), work);
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert_eq!(text(&output.stdout), "[1]\n");
    let said = text(&output.stderr);
    assert!(said.starts_with("poseidon: gate: failed"), "{said}");
}

#[tokio::test]
async fn json_lines_are_those_of_the_api() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 2).await;
    let work = async {
        for _ in 0..2 {
            let (at, job) = fleet.next().await;
            fleet.output(at, &job, "a\n").await;
            fleet.succeed(at, &job.id).await;
        }
    };
    let (output, ()) = tokio::join!(run(&rig, &["run", "--json", "--on", "*", "--", "x"]), work);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
    assert_eq!(
        [kinds("output"), kinds("ended"), kinds("summary")],
        [2, 2, 1]
    );
}

#[tokio::test]
async fn ctrl_c_cancels_the_batch_once_and_stops_waiting_the_second_time() {
    use rustix::process::{Pid, Signal, kill_process};
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 3).await;
    let arguments = ["run", "--on", "*", "--concurrency", "1", "--", "x"];
    let mut child = command(&rig, &arguments).spawn().unwrap();
    let (at, job) = fleet.next().await;
    fleet.output(at, &job, "ready\n").await;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = within(lines.next_line()).await.unwrap().unwrap();
    assert_eq!(line, format!("gate/i{at}: ready"));
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let (same, cancel) = fleet.next().await;
    assert_eq!((same, cancel.kind.as_str()), (at, "cancel"));
    kill_process(pid, Signal::INT).unwrap();
    let output = within(child.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let said = text(&output.stderr);
    assert!(
        said.contains("cancelling the batch") && said.contains("no longer waiting"),
        "{said}"
    );
    fleet.nothing_more(&rig).await;
}

#[tokio::test]
async fn a_follower_outlives_a_restart_and_prints_each_line_once() {
    let mut rig = daemon().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 2).await;
    let child = command(&rig, &["run", "--on", "*", "--", "x"])
        .spawn()
        .unwrap();
    let mut jobs = vec![fleet.next().await, fleet.next().await];
    jobs.sort_by_key(|(at, _)| *at);
    for (at, job) in &jobs {
        fleet.accept(*at, &job.id).await;
        fleet.output(*at, job, "before\n").await;
    }
    let (at, job) = &jobs[0];
    fleet.succeed(*at, &job.id).await;
    eventually("one has ended", async || {
        (rig.job(&job.id).await["state"] == "ended").then_some(())
    })
    .await;
    rig.kill().await;
    fleet.again(&rig).await;
    let (at, job) = &jobs[1];
    let agent = fleet.agents[*at].as_mut().unwrap();
    agent.output(job, 7, b"after\n").await;
    fleet.succeed(*at, &job.id).await;
    let output = within(child.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mut lines: Vec<&str> = text(&output.stdout).lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["gate/i0: before", "gate/i1: after", "gate/i1: before"]
    );
    let said = text(&output.stderr);
    assert_eq!(said.matches("gate/i0: succeeded").count(), 1, "{said}");
}

#[tokio::test]
async fn a_reboot_of_many_has_to_be_said_twice() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 2).await;
    for arguments in [&["reboot", "gate"][..], &["shutdown", "--on", "*"]] {
        let output = run(&rig, arguments).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = text(&output.stderr);
        assert!(
            said.contains("2 devices") && said.contains("--yes"),
            "{said}"
        );
    }
    fleet.nothing_more(&rig).await;
    let arguments = ["reboot", "--on", "*", "--yes", "--delay", "5", "--detach"];
    let output = run(&rig, &arguments).await;
    assert!(output.status.success(), "{output:?}");
    for _ in 0..2 {
        let (_, request) = fleet.next().await;
        let asked: Value = request.read().unwrap();
        assert_eq!(
            (request.kind.as_str(), asked["delaySeconds"].as_u64()),
            ("system.reboot", Some(5))
        );
    }
    // One needs no second word.
    let output = run(&rig, &["reboot", "gate/i0", "--detach"]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fleet.next().await.1.kind, "system.reboot");
}

#[tokio::test]
async fn scripts_and_engine_commands_go_the_same_way() {
    let rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 1).await;
    for arguments in [
        &[
            "script",
            "gate",
            "--timeout",
            "9",
            "--detach",
            "--",
            "backup.sh",
            "-v",
            "now",
        ][..],
        &[
            "script",
            "--timeout",
            "9",
            "--detach",
            "--on",
            "*",
            "--",
            "backup.sh",
            "-v",
            "now",
        ],
    ] {
        let output = run(&rig, arguments).await;
        assert!(output.status.success(), "{output:?}");
        let (_, request) = fleet.next().await;
        let asked: Value = request.read().unwrap();
        assert_eq!(request.kind, "script");
        assert_eq!(asked["name"], "backup.sh");
        assert_eq!(asked["args"], serde_json::json!(["-v", "now"]));
        assert_eq!(asked["timeoutSeconds"].as_f64(), Some(9.0));
    }
    let output = run(
        &rig,
        &["script", "--detach", "--on", "*", "backup.sh", "now"],
    )
    .await;
    assert!(output.status.success(), "{output:?}");
    let asked: Value = fleet.next().await.1.read().unwrap();
    assert_eq!(
        (&asked["name"], &asked["args"][0]),
        (&"backup.sh".into(), &"now".into())
    );
    let arguments = [
        "engine",
        "gate",
        "--command",
        "PROCESS_X;1",
        "--pipe",
        "/p",
        "--detach",
    ];
    let output = run(&rig, &arguments).await;
    assert!(output.status.success(), "{output:?}");
    let (_, request) = fleet.next().await;
    let asked: Value = request.read().unwrap();
    assert_eq!(request.kind, "engine.command");
    assert_eq!(
        (&asked["command"], &asked["pipe"]),
        (&"PROCESS_X;1".into(), &"/p".into())
    );
    assert!(!run(&rig, &["script", "gate"]).await.status.success());
}
