//! The commands: what users see of files.

use crate::common::*;
use crate::device::{Behaviour, Device, Lie};
use crate::{blob, noise, sha256};
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Output, Stdio};
use tokio::io::AsyncReadExt as _;
use triton::message::payload::{self, DataRequest, DataResponse};
use triton::message::{Message, text};

/// Runs the command on the rig's data folder, in its folder.
async fn run(rig: &Rig, arguments: &[&str]) -> Output {
    let mut command = poseidon(arguments);
    command
        .env("POSEIDON_DATA", rig.dir.path().join("data"))
        .current_dir(rig.dir.path());
    within(command.output()).await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn up(rig: &Rig) {
    eventually("up", async || {
        let shown: Value = rig.client.get("/agents/box").await.ok()?;
        (shown["state"] == "up").then_some(())
    })
    .await;
}

/// Nothing is left beside what belongs there.
fn no_leftovers(dir: &Path) {
    let names = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names
        .filter(|name| name.to_string_lossy().starts_with(".poseidon"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn pull_writes_a_whole_file_or_none() {
    let file = noise(1_000_000);
    let rig = rig().await;
    rig.register("box").await;
    let url = rig.url().to_owned();
    let device = Device::start(move || url.clone(), Behaviour::good(&file));
    up(&rig).await;
    let dir = rig.dir.path();
    let done = run(&rig, &["pull", "box:/var/log/x.log"]).await;
    assert!(done.status.success(), "{}", said(&done));
    assert!(std::fs::read(dir.join("x.log")).unwrap() == file);
    let mode = std::fs::metadata(dir.join("x.log"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(
        mode & 0o777 & !0o640,
        0,
        "no more than on the device: {mode:o}"
    );
    // What is there stays.
    std::fs::write(dir.join("x.log"), "mine").unwrap();
    let done = run(&rig, &["pull", "box:/var/log/x.log"]).await;
    assert_eq!(done.status.code(), Some(1));
    assert!(said(&done).contains("--force"), "{}", said(&done));
    assert_eq!(std::fs::read(dir.join("x.log")).unwrap(), b"mine");
    let done = run(&rig, &["pull", "box:/var/log/x.log", ".", "--force"]).await;
    assert!(done.status.success(), "{}", said(&done));
    assert!(std::fs::read(dir.join("x.log")).unwrap() == file);
    let done = run(&rig, &["pull", "box:/x", "-"]).await;
    assert!(done.stdout == file, "{}", said(&done));
    // Of several devices one may fail.
    let done = run(&rig, &["pull", "box,nobody:/etc/hosts", "."]).await;
    assert_eq!(done.status.code(), Some(1));
    assert!(said(&done).contains("nobody: "), "{}", said(&done));
    assert!(std::fs::read(dir.join("box-hosts")).unwrap() == file);
    for arguments in [
        ["pull", "box:/var/log/"],
        ["pull", ":/x"],
        ["pull", "box/x"],
    ] {
        assert!(
            !run(&rig, &arguments).await.status.success(),
            "{arguments:?}"
        );
    }
    drop(device);
    rig.is_down("box").await;
    let url = rig.url().to_owned();
    let lying = Behaviour {
        lie: Lie::WrongHash,
        ..Behaviour::good(&file)
    };
    let _device = Device::start(move || url.clone(), lying);
    up(&rig).await;
    let done = run(&rig, &["pull", "box:/etc/other", "--patience", "1s"]).await;
    assert!(said(&done).contains("SHA-256"), "{}", said(&done));
    assert!(!dir.join("other").exists());
    no_leftovers(dir);
}

#[tokio::test]
async fn pull_keeps_holes_and_the_time() {
    let mut file = vec![0; 16 << 20];
    file[100] = 1;
    file[(9 << 20)..][..5000].fill(2);
    let rig = rig().await;
    rig.register("box").await;
    let url = rig.url().to_owned();
    let _device = Device::start(move || url.clone(), Behaviour::good(&file));
    up(&rig).await;
    let done = run(&rig, &["pull", "box:/disk.img"]).await;
    assert!(done.status.success(), "{}", said(&done));
    let pulled = rig.dir.path().join("disk.img");
    assert!(std::fs::read(&pulled).unwrap() == file);
    let metadata = std::fs::metadata(&pulled).unwrap();
    assert!(
        metadata.blocks() * 512 < 1 << 20,
        "{} blocks",
        metadata.blocks()
    );
    assert_eq!(
        (metadata.mtime(), metadata.mtime_nsec()),
        (1_700_000_000, 500_000_000)
    );
}

#[tokio::test]
async fn pull_goes_on_when_poseidon_is_killed() {
    let mut rig = daemon().await;
    rig.register("box").await;
    let file = noise(40 << 20);
    let address = rig.dir.path().join("data/url");
    let url = move || {
        std::fs::read_to_string(&address)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let device = Device::start(url, Behaviour::good(&file));
    up(&rig).await;
    let mut child = poseidon(&["pull", "box:/x", "-"])
        .env("POSEIDON_DATA", rig.dir.path().join("data"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // It has begun, and cannot go on for as long as nobody reads.
    let mut read = vec![0; 1 << 20];
    within(stdout.read_exact(&mut read)).await.unwrap();
    rig.kill().await;
    within(stdout.read_to_end(&mut read)).await.unwrap();
    let done = within(child.wait_with_output()).await.unwrap();
    assert!(done.status.success(), "{}", said(&done));
    assert!(read == file);
    assert!(said(&done).contains("trying again"), "{}", said(&done));
    // The job of the server that was killed has nobody who waits for it.
    eventually("all jobs end", async || {
        let jobs: Value = rig.client.get("/jobs").await.unwrap();
        let all = jobs["jobs"].as_array().unwrap();
        (all.len() == 2 && all.iter().all(|job| job["state"] == "ended")).then_some(())
    })
    .await;
    drop(device);
}

/// Fetches what a `file.put` names, as the agent does.
async fn content(agent: &mut Agent, job: &Message, reference: &str) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let request = DataRequest {
            reference: reference.to_owned(),
            offset: all.len() as u64,
            length: 65536,
        };
        agent
            .send(&job.reply(payload::DATA_REQUEST, &request))
            .await;
        let response: DataResponse = agent.expect(payload::DATA_RESPONSE).await.read().unwrap();
        all.extend(text::decode(&response.data).unwrap());
        if response.eof {
            return all;
        }
    }
}

#[tokio::test]
async fn push_brings_a_file_and_tells_what_became_of_it() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let file = noise(300_000);
    std::fs::write(rig.dir.path().join("conf"), &file).unwrap();
    let arguments = [
        "push",
        "conf",
        "box:/etc/",
        "--mode",
        "0600",
        "--owner",
        "root",
        "--if-changed",
        "--parents",
    ];
    let device = async {
        let job = agent.expect("file.put").await;
        let request: Value = job.read().unwrap();
        let hash = sha256(&file);
        let expected = json!({
            "path": "/etc/conf", "ref": format!("sha256:{hash}"), "size": 300_000, "sha256": hash, "mode": "0600",
            "owner": "root", "ifChanged": true, "parents": true,
        });
        assert_eq!(request, expected);
        let reference = request["ref"].as_str().unwrap();
        assert!(content(&mut agent, &job, reference).await == file);
        let data = json!({"path": "/etc/conf", "size": 300_000, "changed": true, "resumed": 0});
        let result = json!({"status": "succeeded", "data": data});
        agent.send(&job.reply(payload::RESULT, &result)).await;
    };
    let (done, ()) = tokio::join!(run(&rig, &arguments), device);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(
        said(&done).contains("box: /etc/conf: 293 KiB, written"),
        "{}",
        said(&done)
    );

    let device = async {
        let job = agent.expect("file.put").await;
        let error = json!({"code": "refused", "message": "it is a symbolic link"});
        agent.send(&job.reply(payload::ERROR, &error)).await;
    };
    let (done, ()) = tokio::join!(run(&rig, &["push", "conf", "box:/etc/link"]), device);
    assert_eq!(done.status.code(), Some(1));
    assert!(
        said(&done).contains("box: refused: it is a symbolic link"),
        "{}",
        said(&done)
    );

    drop(agent);
    rig.is_down("box").await;
    let done = run(&rig, &["push", "conf", "box:/etc/x"]).await;
    assert_eq!(done.status.code(), Some(1));
    assert!(said(&done).contains("--queue"), "{}", said(&done));
    let done = run(&rig, &["push", "conf", "box:/etc/x", "--queue"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(said(&done).contains("waits for it"), "{}", said(&done));
    for arguments in [
        ["push", "nothing", "box:/x", "--parents"],
        ["push", "conf", "box:/x", "--prune"],
        ["push", "conf", ":/x", "--parents"],
        ["push", "/dev/null", "box:/x", "--parents"],
        ["push", "conf", "box:/x", "--mode=999"],
    ] {
        let done = run(&rig, &arguments).await;
        assert!(!done.status.success(), "{arguments:?}");
        assert!(!said(&done).is_empty());
    }
    let jobs: Value = rig.client.get("/jobs").await.unwrap();
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn push_brings_a_folder_with_its_links_by_a_manifest_where_it_is_large() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let root = rig.dir.path().join("site");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::write(root.join("sub/page"), "page").unwrap();
    std::os::unix::fs::symlink("sub/page", root.join("link")).unwrap();
    let device = async {
        let job = agent.expect("directory.put").await;
        let request: Value = job.read().unwrap();
        assert_eq!(
            (&request["path"], &request["prune"]),
            (&json!("/srv/site"), &json!(true))
        );
        let entries = request["entries"].as_array().unwrap();
        let paths: Vec<_> = entries
            .iter()
            .map(|e| e["path"].as_str().unwrap())
            .collect();
        assert_eq!(paths, ["link", "sub", "sub/page"]);
        assert_eq!(entries[0]["target"], "sub/page");
        let page = content(&mut agent, &job, entries[2]["ref"].as_str().unwrap()).await;
        assert_eq!(page, b"page");
        let data = json!({"path": "/srv/site", "files": 1, "changed": 1, "removed": 0, "bytes": 4});
        let result = json!({"status": "succeeded", "data": data});
        agent.send(&job.reply(payload::RESULT, &result)).await;
    };
    let (done, ()) = tokio::join!(run(&rig, &["push", "site", "box:/srv/", "--prune"]), device);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(
        said(&done).contains("1 files, 1 changed, 0 removed, 4 B"),
        "{}",
        said(&done)
    );

    for n in 0..1500 {
        std::fs::write(root.join(format!("sub/{n:04}")), n.to_string()).unwrap();
    }
    // All but the new ones are known to Poseidon: they are not sent.
    blob(&rig, b"1499");
    let device = async {
        let job = agent.expect("directory.put").await;
        let request: Value = job.read().unwrap();
        assert!(request["entries"].is_null());
        let manifest = content(
            &mut agent,
            &job,
            request["manifest"]["ref"].as_str().unwrap(),
        )
        .await;
        assert_eq!(request["manifest"]["sha256"], sha256(&manifest).as_str());
        let entries: Vec<Value> = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(entries.len(), 1503);
        let last = entries.iter().find(|e| e["path"] == "sub/1499").unwrap();
        assert_eq!(
            content(&mut agent, &job, last["ref"].as_str().unwrap()).await,
            b"1499"
        );
        let result = json!({"status": "failed", "message": "no space left"});
        agent.send(&job.reply(payload::RESULT, &result)).await;
    };
    let (done, ()) = tokio::join!(run(&rig, &["push", "site", "box:/srv/site"]), device);
    assert_eq!(done.status.code(), Some(1));
    assert!(
        said(&done).contains("box: failed: no space left"),
        "{}",
        said(&done)
    );

    let done = run(&rig, &["push", "site", "box:/srv/site", "--parents"]).await;
    assert_eq!(done.status.code(), Some(1));
    assert!(
        said(&done).contains("--parents is not for a folder"),
        "{}",
        said(&done)
    );
    let help = run(&rig, &["push", "--help"]).await;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    // An example that the server takes, and what an owner is not for.
    assert!(help.contains("label.site=attic"), "{help}");
    assert!(help.contains("not the folder itself"), "{help}");
    // Nothing is pushed where a part cannot be.
    let pipe = std::process::Command::new("mkfifo")
        .arg(root.join("pipe"))
        .status();
    assert!(pipe.unwrap().success());
    let done = run(&rig, &["push", "site", "box:/srv/site"]).await;
    assert!(said(&done).contains("pipe (a pipe)"), "{}", said(&done));
}

#[tokio::test]
async fn ls_sorts_what_the_device_lists() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agent = rig.agent("i1").await;
    let mut listed = async |arguments: &[&str], more: bool| {
        let device = async {
            let job = agent.expect(payload::FILE_LIST).await;
            let request: Value = job.read().unwrap();
            assert_eq!(request["path"], "/etc");
            let lines = concat!(
                r#"{"name":"passwd","type":"file","size":12,"mode":"0644","owner":"root","group":"root","mtime":0}"#,
                "\n",
                r#"{"name":"config","type":"directory","size":4096,"mode":"0755","owner":"root","group":"root","mtime":0}"#,
                "\n"
            );
            let (one, two) = lines.split_at(50);
            agent.output(&job, 0, one.as_bytes()).await;
            agent.output(&job, 50, two.as_bytes()).await;
            let data = json!({"path": "/etc", "entries": 2, "more": more});
            let result = json!({"status": "succeeded", "stdoutBytes": lines.len(), "data": data});
            agent.send(&job.reply(payload::RESULT, &result)).await;
        };
        tokio::join!(run(&rig, arguments), device).0
    };
    let done = listed(&["ls", "box:/etc/"], false).await;
    assert_eq!(String::from_utf8_lossy(&done.stdout), "config\npasswd\n");
    let done = listed(&["ls", "-l", "box:/etc"], true).await;
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        "drwxr-xr-x root root 4096 1970-01-01T00:00:00Z config\n-rw-r--r-- root root   12 1970-01-01T00:00:00Z passwd\n"
    );
    assert!(
        said(&done).contains("more than 2 entries"),
        "{}",
        said(&done)
    );
    let done = listed(&["ls", "--json", "box:/etc"], false).await;
    let entries: Vec<Value> = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(entries[0]["name"], "config");
    let device = async {
        let job = agent.expect(payload::FILE_LIST).await;
        let error = json!({"code": "not-found", "message": "there is no /nowhere"});
        agent.send(&job.reply(payload::ERROR, &error)).await;
    };
    let (done, ()) = tokio::join!(run(&rig, &["ls", "box:/nowhere"]), device);
    assert_eq!(done.status.code(), Some(1));
    assert!(
        said(&done).contains("there is no /nowhere"),
        "{}",
        said(&done)
    );
}
