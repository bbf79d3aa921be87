//! `agent.update` with the real program, which replaces a copy of itself.

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use support::fake::{Fake, Peer};
use triton::message::payload::{DataRequest, DataResponse, Hello, Welcome};
use triton::message::{Message, id, text};

const TOKEN: &str = "the-update";

/// A server that gives one update and tells what it hears of it.
struct Server {
    fake: Fake,
    heard: Receiver<Message>,
    /// Whether the agent (and not only its trial) gets a welcome.
    open: Arc<AtomicBool>,
}

impl Server {
    fn new(request: Message, content: Vec<u8>) -> Self {
        let (sender, heard) = channel();
        let open = Arc::new(AtomicBool::new(true));
        let door = Arc::clone(&open);
        let request = Mutex::new(Some(request));
        let sender = Mutex::new(sender);
        let fake = Fake::websocket(move |mut peer| {
            let Some(hello) = peer.next_of("hello") else {
                return;
            };
            let probe = hello.read::<Hello>().unwrap().probe;
            if !probe && !door.load(Ordering::SeqCst) {
                return;
            }
            peer.send(&hello.reply("welcome", &Welcome::default()));
            if probe {
                while peer.next().is_some() {}
                return;
            }
            if let Some(request) = request.lock().unwrap().take() {
                peer.send(&request);
            }
            let sender = sender.lock().unwrap().clone();
            serve(&mut peer, &content, &sender);
        });
        Self { fake, heard, open }
    }

    /// The end of the job.
    #[track_caller]
    fn end(&self) -> serde_json::Value {
        loop {
            let message = self.heard.recv_timeout(support::PATIENCE).expect("it ends");
            if message.conversation_id == TOKEN && matches!(&*message.kind, "result" | "error") {
                let mut end: serde_json::Value = message.read_json().unwrap();
                end["kind"] = message.kind.into();
                return end;
            }
        }
    }
}

fn serve(peer: &mut Peer, content: &[u8], heard: &Sender<Message>) {
    while let Some(message) = peer.next() {
        if message.kind != "data.request" {
            let _ = heard.send(message);
            continue;
        }
        let wanted: DataRequest = message.read_json().unwrap();
        let from = usize::try_from(wanted.offset).unwrap().min(content.len());
        let to = (from + usize::try_from(wanted.length).unwrap()).min(content.len());
        let response = DataResponse {
            reference: wanted.reference,
            offset: wanted.offset,
            data: text::encode(&content[from..to]),
            eof: to == content.len(),
            sha256: None,
        };
        peer.send(&message.reply("data.response", &response));
    }
}

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn request(content: &[u8], version: &str, pair: &Ed25519KeyPair) -> Message {
    let sha256 = id::hex(&Sha256::digest(content));
    let signature = pair.sign(triton::update::signed_text(&sha256, version).as_bytes());
    let payload = serde_json::json!({
        "ref": format!("sha256:{sha256}"), "size": content.len(), "sha256": sha256, "version": version,
        "signature": STANDARD.encode(signature.as_ref()),
    });
    Message {
        id: TOKEN.to_owned(),
        conversation_id: TOKEN.to_owned(),
        ..Message::with("agent.update", &payload)
    }
}

/// A device with a program of its own.
struct Device {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Device {
    fn new(server: &Server, keys: &[&Ed25519KeyPair]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        fs::copy(
            env!("CARGO_BIN_EXE_triton"),
            folder.path().join("bin/triton"),
        )
        .unwrap();
        let keys: Vec<String> = keys
            .iter()
            .map(|pair| STANDARD.encode(pair.public_key().as_ref()))
            .collect();
        let config = format!(
            "url = {:?}\nstate = \"{}\"\nsocket = \"{}\"\nidentifier = \"an-identifier-for-the-update\"\n[update]\nkeys = {keys:?}\nconfirm_seconds = 5\n",
            server.fake.url,
            folder.path().join("state").display(),
            folder.path().join("socket").display(),
        );
        fs::write(folder.path().join("triton.toml"), config).unwrap();
        let mut device = Self {
            folder,
            child: None,
        };
        device.start();
        device
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("bin/triton")
    }

    fn start(&mut self) {
        let mut command = Command::new(self.program());
        for (name, _) in std::env::vars() {
            if name.starts_with("TRITON_") || name.to_lowercase().ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command
            .arg("--config")
            .arg(self.folder.path().join("triton.toml"))
            .arg("run")
            .stdin(Stdio::null());
        self.child = Some(command.spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// What is on the disk under the program's name, and what else is there.
    fn installed(&self) -> (Vec<u8>, Vec<String>) {
        let names = fs::read_dir(self.folder.path().join("bin")).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "triton")
            .collect();
        names.sort();
        (fs::read(self.program()).unwrap(), names)
    }

    fn starts(&self) -> u64 {
        let text = fs::read_to_string(self.folder.path().join("state/update.json"));
        let text = text.unwrap_or_else(|_| "{}".to_owned());
        let note: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        note["starts"].as_u64().unwrap_or(0)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.kill();
    }
}

fn old_program() -> Vec<u8> {
    fs::read(env!("CARGO_BIN_EXE_triton")).unwrap()
}

/// The same program, and another file.
fn new_program() -> Vec<u8> {
    let mut bytes = old_program();
    bytes.extend_from_slice(b"a newer one");
    bytes
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn a_signed_program_takes_the_old_ones_place_and_tells_the_end() {
    let new = new_program();
    let server = Server::new(request(&new, VERSION, &pair()), new.clone());
    let device = Device::new(&server, &[&pair()]);
    let pid = device.pid();
    let end = server.end();
    assert_eq!(end["status"], "succeeded", "{end}");
    assert_eq!(end["data"]["starts"], 1, "{end}");
    assert!(end["sequence"].is_u64(), "{end}");
    support::eventually("nothing is left behind", || {
        (device.installed() == (new.clone(), vec![])).then_some(())
    });
    let runs = fs::read(format!("/proc/{pid}/exe")).unwrap();
    assert!(runs == new, "the new program runs, as the same process");
}

#[test]
fn without_a_welcome_the_old_program_comes_back_and_tells_why() {
    let new = new_program();
    let server = Server::new(request(&new, VERSION, &pair()), new);
    let device = Device::new(&server, &[&pair()]);
    support::eventually("it runs as the new program", || {
        // The trial still gets its welcome; the agent itself does not, once it is the new one.
        let proven = fs::exists(device.folder.path().join("state/update.json")).unwrap();
        if proven {
            server.open.store(false, Ordering::SeqCst);
        }
        (device.starts() > 0).then_some(())
    });
    support::eventually("the old one is back", || {
        (device.installed().0 == old_program()).then_some(())
    });
    server.open.store(true, Ordering::SeqCst);
    let end = server.end();
    assert_eq!(end["status"], "failed", "{end}");
    let reason = end["message"].as_str().unwrap();
    assert!(reason.contains("no welcome in time"), "{end}");
    assert_eq!(device.installed(), (old_program(), vec![]));
}

#[test]
fn one_that_dies_three_times_is_taken_back() {
    let new = new_program();
    let server = Server::new(request(&new, VERSION, &pair()), new.clone());
    let mut device = Device::new(&server, &[&pair()]);
    for start in 1..=3 {
        support::eventually("the new program has been started", || {
            let proven = fs::exists(device.folder.path().join("state/update.json")).unwrap();
            if proven {
                server.open.store(false, Ordering::SeqCst);
            }
            (device.starts() >= start).then_some(())
        });
        device.kill();
        assert!(device.installed().0 == new);
        device.start();
    }
    server.open.store(true, Ordering::SeqCst);
    let end = server.end();
    assert_eq!(end["status"], "failed", "{end}");
    assert!(
        end["message"].as_str().unwrap().contains("died 3 times"),
        "{end}"
    );
    assert_eq!(device.installed(), (old_program(), vec![]));
}

/// A program from C.
fn compiled(source: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    fs::write(folder.path().join("program.c"), source).unwrap();
    let done = Command::new("cc")
        .arg("-o")
        .arg(&program)
        .arg(folder.path().join("program.c"))
        .status()
        .unwrap();
    assert!(done.success());
    fs::read(program).unwrap()
}

#[test]
fn what_is_not_signed_or_does_not_run_changes_nothing() {
    let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    let script = format!("#!/bin/sh\necho triton {VERSION}\n").into_bytes();
    let mut foreign = new_program();
    // e_machine: none.
    foreign[18..20].fill(0);
    let stranger = fs::read("/bin/true").unwrap();
    // It starts, and does not get as far as a welcome.
    let broken = compiled(&format!(
        "#include <stdio.h>\n#include <string.h>\nint main(int n, char **a) {{\n\
         if (n == 2 && !strcmp(a[1], \"--version\")) return puts(\"triton {VERSION}\") < 0;\n\
         return puts(\"broken\"), 3; }}\n"
    ));
    let good = new_program();
    let cases: [(&[u8], &Ed25519KeyPair, bool, &str, &str); 7] = [
        (&good, &other, true, "untrusted", "signed"),
        (&good, &pair(), false, "refused", "update.keys"),
        (&script, &pair(), true, "refused", "kind of processor"),
        (b"", &pair(), true, "refused", "kind of processor"),
        (&foreign, &pair(), true, "refused", "kind of processor"),
        (&broken, &pair(), true, "refused", "check-config"),
        (&stranger, &pair(), true, "refused", "calls itself"),
    ];
    for (content, signer, trusted, code, said) in cases {
        // Without a version what the program says of itself counts as well.
        let version = if content == stranger { "" } else { VERSION };
        let server = Server::new(request(content, version, signer), content.to_vec());
        let keys = [&pair()];
        let device = Device::new(&server, if trusted { &keys } else { &[] });
        let end = server.end();
        assert_eq!(
            (&end["kind"], &end["code"]),
            (&"error".into(), &code.into()),
            "{end}"
        );
        assert!(end["message"].as_str().unwrap().contains(said), "{end}");
        assert_eq!(device.installed(), (old_program(), vec![]), "{end}");
        assert!(!fs::exists(device.folder.path().join("state/update.json")).unwrap());
    }
}

#[test]
fn a_program_that_is_there_already_is_left_alone() {
    let same = old_program();
    let server = Server::new(request(&same, VERSION, &pair()), same);
    let _device = Device::new(&server, &[&pair()]);
    let end = server.end();
    assert_eq!(end["status"], "succeeded", "{end}");
    assert_eq!(end["data"]["changed"], false, "{end}");
}

#[test]
fn a_power_cut_before_the_rename_leaves_the_old_program_and_an_honest_end() {
    let run = Message {
        id: TOKEN.to_owned(),
        conversation_id: TOKEN.to_owned(),
        ..Message::with("command", &serde_json::json!({"argv": ["sleep", "1000"]}))
    };
    let server = Server::new(run, Vec::new());
    let mut device = Device::new(&server, &[&pair()]);
    loop {
        let message = server.heard.recv_timeout(support::PATIENCE).unwrap();
        if message.kind == "accepted" {
            break;
        }
    }
    device.kill();
    // What `agent.update` leaves when the device dies just before the rename.
    let bin = device.folder.path().join("bin");
    fs::write(bin.join(".triton.new"), "new").unwrap();
    fs::hard_link(device.program(), bin.join(".triton.old")).unwrap();
    let note = serde_json::json!({
        "token": TOKEN, "conversation": TOKEN, "sha256": "0".repeat(64), "version": "2", "from": "1",
        "program": device.program(), "old": bin.join(".triton.old"), "starts": 0,
    });
    fs::write(
        device.folder.path().join("state/update.json"),
        note.to_string(),
    )
    .unwrap();
    device.start();
    let end = server.end();
    assert_eq!(end["status"], "failed", "{end}");
    assert!(
        end["message"].as_str().unwrap().contains("took its place"),
        "{end}"
    );
    assert_eq!(device.installed(), (old_program(), vec![]));
    let mode = fs::metadata(device.program()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}
