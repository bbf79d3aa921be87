//! `poseidon pull --recursive` from devices that mean no good.

use crate::common::*;
use serde_json::{Value, json};
use std::process::Output;
use triton::message::payload;

/// What it lists, by path.
type Lists<'a> = &'a [(&'a str, Value)];

/// A device that lists what it is told to, and hands out no file.
async fn pull(rig: &Rig, agent: &mut Agent, arguments: &[&str], lists: &[(&str, Value)]) -> Output {
    let mut command = poseidon(arguments);
    command
        .env("POSEIDON_DATA", rig.dir.path().join("data"))
        .current_dir(rig.dir.path());
    let device = async {
        loop {
            let job = agent.next().await.expect("a request");
            if job.kind != payload::FILE_LIST {
                let error = json!({"code": "io", "message": format!("no {} here", job.kind)});
                agent.send(&job.reply(payload::ERROR, &error)).await;
                continue;
            }
            let request: Value = job.read().unwrap();
            let path = request["path"].as_str().unwrap();
            let found = lists.iter().find(|(of, _)| *of == path);
            let Some((_, entries)) = found else {
                let error = json!({"code": "not-found", "message": format!("there is no {path}")});
                agent.send(&job.reply(payload::ERROR, &error)).await;
                continue;
            };
            let lines: Vec<String> = entries["entries"]
                .as_array()
                .unwrap()
                .iter()
                .map(Value::to_string)
                .collect();
            let lines = lines.join("\n");
            agent.output(&job, 0, lines.as_bytes()).await;
            let mut data = entries.clone();
            data["entries"] = 1.into();
            let result = json!({"status": "succeeded", "stdoutBytes": lines.len(), "data": data});
            agent.send(&job.reply(payload::RESULT, &result)).await;
        }
    };
    tokio::select! {
        done = async { within(command.output()).await.unwrap() } => done,
        () = device => unreachable!(),
    }
}

fn folder(entries: &[Value]) -> Value {
    json!({"type": "directory", "mode": "0755", "entries": entries, "more": false})
}

fn entry(name: &str, kind: &str) -> Value {
    json!({"name": name, "type": kind, "size": 1, "mode": "0755", "target": "/etc"})
}

#[tokio::test]
async fn names_of_a_hostile_device_do_not_lead_elsewhere() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    std::fs::create_dir(rig.dir.path().join("in")).unwrap();
    let here = || {
        let mut names: Vec<_> = std::fs::read_dir(rig.dir.path())
            .unwrap()
            .chain(std::fs::read_dir(rig.dir.path().join("in")).unwrap())
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let before = here();
    for name in [
        "..", ".", "", "../x", "/etc/x", "a/b", "a\u{0}", "a\nb", "\u{FFFD}",
    ] {
        for kind in ["file", "directory", "symlink"] {
            let lists = [("/srv", folder(&[entry(name, kind)]))];
            let done = pull(&rig, &mut agent, &["pull", "-r", "box:/srv", "in"], &lists).await;
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(
                !done.status.success() && said.contains("would lead elsewhere"),
                "{name:?} {kind}: {said}"
            );
            assert_eq!(here(), before, "{name:?} {kind}");
        }
    }
    // A link and then a folder of the same name, to write by way of it.
    let lists = [
        (
            "/srv",
            folder(&[entry("a", "symlink"), entry("a", "directory")]),
        ),
        ("/srv/a", folder(&[entry("passwd", "file")])),
    ];
    let done = pull(&rig, &mut agent, &["pull", "-r", "box:/srv", "in"], &lists).await;
    assert!(String::from_utf8_lossy(&done.stderr).contains("come twice"));
    // What is no folder, a folder without end, and one that fails on the way.
    let own = json!({"type": "symlink", "entries": [entry("srv", "symlink")], "more": false});
    let endless: Vec<(String, Value)> = (0..70)
        .map(|depth| {
            let path = format!("/srv{}", "/a".repeat(depth));
            (path, folder(&[entry("a", "directory")]))
        })
        .collect();
    let endless: Vec<_> = endless
        .iter()
        .map(|(path, list)| (path.as_str(), list.clone()))
        .collect();
    let mut more = folder(&[entry("a", "file")]);
    more["more"] = true.into();
    let cases: [(Lists<'_>, &[&str], &str); 6] = [
        (
            &[("/srv", own)],
            &[],
            "/srv is no folder, but a symbolic link",
        ),
        (&endless, &[], "64 folders deep"),
        (&[("/srv", more)], &[], "more than 100000"),
        (
            &[("/srv", folder(&[entry("a", "directory")]))],
            &[],
            "there is no /srv/a",
        ),
        (
            &[("/srv", folder(&[entry("a", "file")]))],
            &[],
            "no file.get here",
        ),
        (
            &[("/srv", folder(&[entry("l", "symlink")]))],
            &["--no-links"],
            "/srv/l is a symbolic link",
        ),
    ];
    for (lists, options, says) in cases {
        let mut arguments = vec!["pull", "-r", "box:/srv", "in", "--patience", "1s"];
        arguments.extend(options);
        let done = pull(&rig, &mut agent, &arguments, lists).await;
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && said.contains(says), "{said}");
        assert_eq!(here(), before, "{says}");
    }
    // What is there is not touched, a link that leads elsewhere neither.
    std::os::unix::fs::symlink("/no/where", rig.dir.path().join("in/srv")).unwrap();
    let lists = [("/srv", folder(&[]))];
    let done = pull(&rig, &mut agent, &["pull", "-r", "box:/srv", "in"], &lists).await;
    assert!(String::from_utf8_lossy(&done.stderr).contains("is there already"));
    let done = pull(
        &rig,
        &mut agent,
        &["pull", "-r", "box:/srv/", "in/new"],
        &lists,
    )
    .await;
    assert!(done.status.success(), "{done:?}");
    assert!(rig.dir.path().join("in/new").is_dir());
}
