//! Mutual trust: the real agent and the real Poseidon, also with a man in the middle who ends TLS.

mod support;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use support::agent::Agent;
use support::eventually;
use support::middle::{Middle, To};
use support::poseidon::Poseidon;
use triton::message::{Message, payload};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// What `triton trust show` says.
fn own(agent: &Agent) -> Value {
    let shown = agent.run(&["trust", "show", "--json"]);
    serde_json::from_slice(&shown.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&shown.stderr)))
}

#[track_caller]
fn poseidon_says(poseidon: &Poseidon, arguments: &[&str]) -> String {
    let said = poseidon.run(arguments);
    assert!(
        said.status.success(),
        "{arguments:?}: {}",
        text(&said.stderr)
    );
    text(&said.stdout)
}

#[track_caller]
fn agent_says(agent: &Agent, arguments: &[&str]) -> String {
    let said = agent.run(arguments);
    assert!(
        said.status.success(),
        "{arguments:?}: {}",
        text(&said.stderr)
    );
    text(&said.stdout)
}

/// An agent that connects to `url`, approved by the key that it has shown.
fn approved(poseidon: &Poseidon, url: &str) -> Agent {
    let agent = Agent::new().with(&["--url", url, "--heartbeat", "1"]);
    let agent = approve(poseidon, agent);
    wait_for_trust(&agent, "trusted");
    agent
}

fn approve(poseidon: &Poseidon, mut agent: Agent) -> Agent {
    agent.start();
    agent.wait_for_log("poseidon approve");
    let pending = poseidon.json(&["pending", "--json"]);
    let pending = &pending["pending"][0];
    assert_eq!(pending["keyIds"], json!([own(&agent)["device"]["keyId"]]));
    let id = pending["id"].as_str().unwrap();
    poseidon_says(poseidon, &["approve", id, "--name", "box"]);
    agent.signal(libc::SIGHUP);
    poseidon.wait_for("box", "up");
    agent
}

fn trust_state(agent: &Agent) -> String {
    let status = agent.status();
    status["trust"]["state"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[track_caller]
fn wait_for_trust(agent: &Agent, state: &str) {
    eventually(&format!("trust is {state}; log:\n{}", agent.log()), || {
        (trust_state(agent) == state).then_some(())
    });
}

fn touch(path: &Path) -> Value {
    json!({ "argv": ["touch", path] })
}

#[track_caller]
fn run_echo(poseidon: &Poseidon) {
    assert_eq!(
        poseidon_says(poseidon, &["run", "box", "--", "echo", "hi"]),
        "hi"
    );
}

#[track_caller]
fn get_is_untrusted(agent: &Agent) {
    let got = agent.run(&["get", "key"]);
    assert!(!got.status.success(), "{}", text(&got.stdout));
    let said = text(&got.stderr);
    assert!(said.contains("untrusted"), "{said}");
}

#[test]
fn a_stolen_identifier_gets_nowhere_and_a_new_key_gets_in_by_a_person_only() {
    let poseidon = Poseidon::start();
    let mut agent = approved(&poseidon, &poseidon.url());
    let pinned = own(&agent)["pinned"].clone();
    assert_eq!(
        pinned,
        poseidon
            .json(&["trust", "show", "--json"])
            .as_object()
            .map(|own| json!({
                "keyId": own["keyId"], "publicKey": own["publicKey"],
            }))
            .unwrap()
    );
    run_echo(&poseidon);
    for file in ["device-key", "poseidon-key"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(agent.state().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    // The thief has the identifier and all else but the key.
    let identifier = agent_says(&agent, &["identifier"]);
    agent.stop();
    let thief = Agent::new()
        .with(&["--url", &poseidon.url()])
        .with_variable("TRITON_IDENTIFIER", &identifier);
    fs::create_dir_all(thief.state()).unwrap();
    fs::copy(
        agent.state().join("instance"),
        thief.state().join("instance"),
    )
    .unwrap();
    let mut thief = thief;
    thief.start();
    thief.wait_for_log("'poseidon trust ls box' shows its key");
    let seen = poseidon.wait_for("box", "down");
    let refused = &seen["trust"]["untrusted"];
    let key = own(&thief)["device"]["keyId"].clone();
    assert_eq!(refused["keyId"], key);
    assert!(
        refused["reason"].as_str().unwrap().contains("not pinned"),
        "{refused}"
    );
    let listed = poseidon_says(&poseidon, &["trust", "ls", "box"]);
    assert!(
        listed.contains("REFUSED") && listed.contains(key.as_str().unwrap()),
        "{listed}"
    );
    // It is the operator who lets another key in.
    let wrong = poseidon.run(&["trust", "accept", "box", "0123456789abcdef"]);
    assert!(!wrong.status.success());
    poseidon_says(
        &poseidon,
        &["trust", "accept", "box", key.as_str().unwrap()],
    );
    thief.signal(libc::SIGHUP);
    poseidon.wait_for("box", "up");
    run_echo(&poseidon);
}

#[test]
fn a_key_that_is_pinned_already_is_no_news() {
    let poseidon = Poseidon::start();
    let agent = approved(&poseidon, &poseidon.url());
    let key = own(&agent)["device"]["keyId"].as_str().unwrap().to_owned();
    let shown = |what: &str| poseidon.json(&["show", "box", "--json"])[what].clone();
    let since = shown("since");
    let keys = poseidon.json(&["trust", "ls", "box", "--json"]);
    poseidon_says(&poseidon, &["trust", "accept", "box", &key]);
    // What was asked for before is done when this is.
    run_echo(&poseidon);
    assert_eq!((shown("state"), shown("since")), (json!("up"), since));
    assert_eq!(keys, poseidon.json(&["trust", "ls", "box", "--json"]));
}

#[test]
fn a_key_that_is_taken_away_is_out_at_once_and_the_others_stay() {
    let poseidon = Poseidon::start();
    let mut first = approved(&poseidon, &poseidon.url());
    let identifier = agent_says(&first, &["identifier"]);
    // A second device of the same identifier.
    let mut second = Agent::new()
        .with(&["--url", &poseidon.url(), "--heartbeat", "1"])
        .with_variable("TRITON_IDENTIFIER", &identifier);
    let [kept, gone] = [&first, &second].map(|agent| own(agent)["device"].clone());
    let [kept_id, gone_id] = [&kept, &gone].map(|key| key["keyId"].as_str().unwrap());
    let accept = gone["publicKey"].as_str().unwrap();
    poseidon_says(&poseidon, &["trust", "accept", "box", accept]);
    second.start();
    wait_for_trust(&second, "trusted");
    let [first_instance, second_instance] =
        [&first, &second].map(|agent| agent.status()["instance"].as_str().unwrap().to_owned());
    let is = |instance: &str, state: &str| {
        eventually(&format!("{instance} is {state}"), || {
            let mut agents = poseidon.agents().into_iter();
            agents.find(|agent| agent["instance"] == instance && agent["state"] == state)
        });
    };
    is(&first_instance, "up");
    is(&second_instance, "up");
    // One that is not pinned is not removed, whatever it looks like.
    for wrong in ["0123456789abcdef", "nonsense"] {
        let said = poseidon.run(&["trust", "rm", "box", wrong]);
        assert!(!said.status.success());
        assert!(text(&said.stderr).contains(wrong), "{}", text(&said.stderr));
    }
    let left = poseidon_says(&poseidon, &["trust", "rm", "box", gone_id]);
    assert_eq!(left, format!("pinned for box: {kept_id}"));
    second.wait_for_log("does not take this device");
    let trust = eventually("the one is refused", || {
        let keys = poseidon.json(&["trust", "ls", "box", "--json"])["identifiers"][0].clone();
        (keys["refused"][0]["keyId"] == gone_id).then_some(keys)
    });
    assert_eq!(trust["pinned"].as_array().unwrap().len(), 1, "{trust}");
    // The other one is as before, and the one stays out.
    is(&second_instance, "down");
    is(&first_instance, "up");
    let name = format!("box/{first_instance}");
    let arguments = ["run", &name, "--", "echo", "hi"];
    assert_eq!(poseidon_says(&poseidon, &arguments), "hi");
    second.stop();
    // The last one stays, until there is another one.
    let last = poseidon.run(&["trust", "rm", "box", kept_id]);
    let said = text(&last.stderr);
    assert!(
        !last.status.success() && said.contains("the last pinned key"),
        "{said}"
    );
    poseidon_says(&poseidon, &["trust", "accept", "box", gone_id]);
    let whole = kept["publicKey"].as_str().unwrap();
    let left = poseidon_says(&poseidon, &["trust", "rm", "box", whole]);
    assert_eq!(left, format!("pinned for box: {gone_id}"));
    first.wait_for_log("does not take this device");
    first.stop();
    let acts = poseidon.json(&["audit", "--act", "trust.remove", "--json"]);
    let acts = acts["acts"].as_array().unwrap();
    assert_eq!(acts.len(), 5);
    // The newest come first.
    for (act, (key, status)) in acts
        .iter()
        .zip([(whole, 200), (kept_id, 409), (gone_id, 200)])
    {
        assert_eq!(act["status"], status, "{act}");
        assert!(act["detail"].as_str().unwrap().contains(key), "{act}");
    }
}

#[test]
fn a_man_in_the_middle_neither_commands_nor_changes_nor_repeats() {
    let poseidon = Poseidon::start();
    let middle = Middle::before(poseidon.address());
    let agent = approved(&poseidon, &middle.url());
    let made = |name: &str| agent.folder().join(name);
    run_echo(&poseidon);

    // Made up: without a signature, and with one of another message.
    let made_up = Message::with(payload::COMMAND, &touch(&made("made-up")));
    middle.say(To::Agent, made_up.clone());
    let answer = |id: &str| {
        eventually("the agent answers", || {
            let seen = middle.seen().into_iter();
            let mut errors = seen.filter(|(to, m)| *to == To::Poseidon && m.kind == payload::ERROR);
            errors.find(|(_, m)| m.conversation_id == id)
        })
        .1
        .read::<payload::Error>()
        .unwrap()
    };
    let error = answer(&made_up.id);
    assert_eq!(error.code.as_str(), "untrusted");
    assert!(error.message.contains("not signed"), "{}", error.message);
    let signed = middle
        .seen()
        .into_iter()
        .find(|(to, m)| *to == To::Agent && m.kind == payload::COMMAND)
        .unwrap()
        .1;
    assert!(signed.signature.is_some());
    let borrowed = Message {
        signature: signed.signature.clone(),
        ..Message::with(payload::COMMAND, &touch(&made("borrowed")))
    };
    middle.say(To::Agent, borrowed.clone());
    assert_eq!(answer(&borrowed.id).code.as_str(), "untrusted");

    // Changed on its way.
    let target = made("changed");
    let other = target.clone();
    middle.rule(move |_, message| {
        vec![if message.kind == payload::COMMAND {
            Message {
                payload: Some(touch(&other).to_string()),
                ..message
            }
        } else {
            message
        }]
    });
    let done = poseidon.run(&["run", "box", "--", "true"]);
    assert!(!done.status.success());
    assert!(
        text(&done.stderr).contains("untrusted"),
        "{}",
        text(&done.stderr)
    );
    middle.be_honest();

    // Repeated: on this connection, and on the next one.
    let counter = made("counter");
    let count = format!("echo x >>{}", counter.display());
    poseidon_says(&poseidon, &["run", "box", "--", "sh", "-c", &count]);
    let repeated = middle
        .seen()
        .into_iter()
        .rfind(|(to, m)| *to == To::Agent && m.kind == payload::COMMAND)
        .unwrap()
        .1;
    let refusals = || agent.status()["trust"]["refused"].as_u64().unwrap();
    let before = refusals();
    middle.say(To::Agent, repeated.clone());
    eventually("it is refused", || (refusals() > before).then_some(()));
    let welcomes = agent.log().matches("Poseidon calls this device").count();
    middle.cut();
    eventually("it is back", || {
        (agent.log().matches("Poseidon calls this device").count() > welcomes).then_some(())
    });
    let before = refusals();
    middle.say(To::Agent, repeated);
    eventually("it is refused", || (refusals() > before).then_some(()));
    run_echo(&poseidon);
    assert_eq!(fs::read_to_string(&counter).unwrap(), "x\n");
    for name in ["made-up", "borrowed", "changed"] {
        assert!(!made(name).exists(), "{name}");
    }
    assert!(!target.exists());
}

#[test]
fn a_man_in_the_middle_reads_no_secret_and_puts_none_in_its_place() {
    const SECRET: &str = "correct horse battery staple";
    let poseidon = Poseidon::start();
    let middle = Middle::before(poseidon.address());
    let agent = approved(&poseidon, &middle.url());
    let file = agent.folder().join("given");
    fs::write(&file, SECRET).unwrap();
    let file = file.to_str().unwrap();
    poseidon_says(&poseidon, &["data", "put", "box", "key", file, "--secret"]);
    assert_eq!(agent_says(&agent, &["get", "key"]), SECRET);
    let wire = middle.wire();
    assert!(wire.contains("sealed"), "it went over the wire sealed");
    for shown in [
        SECRET.to_owned(),
        triton::message::text::encode(SECRET.as_bytes()),
        // By which a short one could be guessed.
        triton::message::id::hex(&Sha256::digest(SECRET)),
    ] {
        assert!(!wire.contains(&shown));
    }
    // He asks with a key of his own, or for the plain form.
    for with in [Some("xGhhH0W6v3D5uYAc9gQqzR1mH2tG7bPp0kZl1n8sVyQ="), None] {
        middle.rule(move |_, message| {
            vec![if message.kind == payload::DATA_REQUEST {
                let mut request: Value = message.read().unwrap();
                let fields = request.as_object_mut().unwrap();
                fields.remove("key");
                if let Some(key) = with {
                    fields.insert("key".to_owned(), key.into());
                }
                Message {
                    payload: Some(request.to_string()),
                    ..message
                }
            } else {
                message
            }]
        });
        get_is_untrusted(&agent);
    }
    // He answers himself: in plain, and with an answer that he has seen.
    let seen = middle.seen();
    let sealed = seen
        .into_iter()
        .find(|(_, m)| m.kind == payload::DATA_RESPONSE);
    let sealed = sealed.unwrap().1;
    let plain = json!({"ref": "key", "offset": 0, "data": "AAAA", "eof": true});
    for answer in [Message::with(payload::DATA_RESPONSE, &plain), sealed] {
        middle.rule(move |_, message| {
            vec![if message.kind == payload::DATA_RESPONSE {
                Message {
                    conversation_id: message.conversation_id,
                    ..answer.clone()
                }
            } else {
                message
            }]
        });
        get_is_untrusted(&agent);
    }
    middle.be_honest();
    assert_eq!(agent_says(&agent, &["get", "key"]), SECRET);
    assert!(!middle.wire().contains(SECRET));
}

#[test]
fn an_old_hello_and_an_old_proof_get_nowhere() {
    let poseidon = Poseidon::start();
    let middle = Middle::before(poseidon.address());
    let agent = approved(&poseidon, &middle.url());
    let hello = |middle: &Middle| {
        let seen = middle.seen().into_iter();
        let mut hellos = seen.filter(|(_, m)| m.kind == payload::HELLO);
        hellos.next_back().unwrap().1
    };
    let old = hello(&middle);
    // A new key, by a proof.
    let first = own(&agent)["device"]["keyId"].clone();
    agent_says(&agent, &["trust", "rotate"]);
    let second = own(&agent)["device"]["keyId"].clone();
    assert_ne!(first, second);
    let pinned =
        || poseidon.json(&["trust", "ls", "box", "--json"])["identifiers"][0]["pinned"].clone();
    eventually("Poseidon takes it", || {
        (pinned()[0]["keyId"] == second).then_some(())
    });
    assert_eq!(pinned().as_array().unwrap().len(), 1);
    agent.wait_for_log("goes by this device's new key");
    run_echo(&poseidon);
    let proof = hello(&middle);
    assert_eq!(proof.read::<payload::Hello>().unwrap().keys.len(), 1);
    // What was recorded is put in place of the next hello.
    for recorded in [old, proof] {
        let recorded = Arc::new(Mutex::new(Some(recorded)));
        middle.rule(move |to, message| {
            let other = recorded
                .lock()
                .unwrap()
                .take_if(|_| to == To::Poseidon && message.kind == payload::HELLO);
            vec![other.unwrap_or(message)]
        });
        let refused = || {
            let all = poseidon.json(&["trust", "ls", "box", "--json"]);
            all["identifiers"][0]["refused"][0]["time"].as_f64()
        };
        let before = refused();
        middle.cut();
        eventually("it is refused", || (refused() > before).then_some(()));
        middle.be_honest();
        agent.signal(libc::SIGHUP);
        poseidon.wait_for("box", "up");
        run_echo(&poseidon);
    }
    assert_eq!(pinned()[0]["keyId"], second);
}

#[test]
fn devices_follow_poseidon_to_its_new_key_over_several_changes() {
    let poseidon = Poseidon::start();
    let mut agent = approved(&poseidon, &poseidon.url());
    let id = || poseidon.json(&["trust", "show", "--json"])["keyId"].clone();
    poseidon_says(&poseidon, &["trust", "rotate"]);
    eventually("it follows", || {
        (own(&agent)["pinned"]["keyId"] == id()).then_some(())
    });
    poseidon.wait_for("box", "up");
    run_echo(&poseidon);
    // Also those that were away meanwhile.
    agent.stop();
    poseidon_says(&poseidon, &["trust", "rotate"]);
    poseidon_says(&poseidon, &["trust", "rotate"]);
    agent.start();
    poseidon.wait_for("box", "up");
    wait_for_trust(&agent, "trusted");
    assert_eq!(own(&agent)["pinned"]["keyId"], id());
    run_echo(&poseidon);
}

#[test]
fn another_poseidon_gets_heartbeats_and_nothing_else_until_a_person_says_so() {
    let first = Poseidon::start();
    let mut agent = approved(&first, &first.url());
    agent.stop();
    // It has the identifier, and the same name for it.
    let other = Poseidon::start();
    let identifier = agent_says(&agent, &["identifier"]);
    other.register(&identifier, "box");
    let mut moved = Agent::new().with(&["--url", &other.url(), "--heartbeat", "1"]);
    let state = agent.state();
    assert!(
        std::process::Command::new("cp")
            .arg("-a")
            .arg(&state)
            .arg(moved.state())
            .status()
            .unwrap()
            .success()
    );
    moved.start();
    moved.wait_for_log("obeys");
    wait_for_trust(&moved, "untrusted");
    other.wait_for("box", "up");
    let file = moved.folder().join("file");
    let done = other.run(&["run", "box", "--", "touch", file.to_str().unwrap()]);
    assert!(
        text(&done.stderr).contains("untrusted"),
        "{}",
        text(&done.stderr)
    );
    assert!(!file.exists());
    // A record stays for the right one.
    agent_says(&moved, &["put", "mine"]);
    eventually("its heartbeat comes", || {
        other.json(&["show", "box", "--json"])["health"]["uptime"].as_f64()
    });
    assert!(!poseidon_says(&other, &["history", "--json"]).contains("mine"));
    let refused = own(&moved)["refused"].clone();
    let key = other.json(&["trust", "show", "--json"]);
    assert_eq!(refused["publicKey"], key["publicKey"]);
    let wrong = moved.run(&["trust", "accept", "0123456789abcdef"]);
    assert!(!wrong.status.success());
    agent_says(&moved, &["trust", "accept", key["keyId"].as_str().unwrap()]);
    wait_for_trust(&moved, "trusted");
    run_echo(&other);
    eventually("the record comes", || {
        poseidon_says(&other, &["history", "--json"])
            .contains("mine")
            .then_some(())
    });
}

#[test]
fn a_wrong_poseidon_gets_nothing_of_jobs_and_has_no_say_on_them() {
    let poseidon = Poseidon::start();
    let middle = Middle::before(poseidon.address());
    let agent = approved(&poseidon, &middle.url());
    let file = agent.folder().join("content");
    let (go, gone) = (agent.folder().join("go"), agent.folder().join("gone"));
    fs::write(&file, "the content").unwrap();
    // Two jobs run: one gives a file and waits to be asked for it, one has not said anything yet.
    middle.rule(|to, message| {
        let held = to == To::Agent && message.kind == payload::DATA_REQUEST;
        Vec::from_iter((!held).then_some(message))
    });
    let begin = |arguments: &[&str]| {
        let mut command = poseidon.command(arguments);
        command.stdout(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let pull = begin(&["pull", &format!("box:{}", file.display()), "-"]);
    let text_of_shell = format!(
        "until [ -e {} ]; do sleep 0.05; done; echo said; : >{}; sleep 1",
        go.display(),
        gone.display()
    );
    let run = begin(&["run", "box", "--", "sh", "-c", &text_of_shell]);
    let to_poseidon = |from: usize, kind: &str| {
        let seen = middle.seen().into_iter().skip(from);
        seen.filter(|(to, m)| *to == To::Poseidon && m.kind == kind)
            .map(|(_, m)| m)
            .collect::<Vec<_>>()
    };
    let offer = eventually("the file is offered", || {
        to_poseidon(0, payload::DATA_OFFER).pop()
    });
    eventually("both run", || {
        (agent.status()["jobs"]["running"] == 2).then_some(())
    });
    // He takes the place of Poseidon.
    middle.rule(|to, message| match (to, message.kind.as_str()) {
        (To::Agent, payload::WELCOME) => vec![Message {
            signature: None,
            ..message
        }],
        (To::Agent, _) => vec![],
        (To::Poseidon, _) => vec![message],
    });
    let before = middle.seen().len();
    middle.cut();
    wait_for_trust(&agent, "untrusted");
    let conversation = &offer.conversation_id;
    let ask = json!({"ref": conversation, "offset": 0, "length": 5});
    let error = payload::Error::new(triton::message::ErrorCode::Io, "no");
    middle.say(
        To::Agent,
        Message::within(conversation, payload::DATA_REQUEST, &ask),
    );
    middle.say(
        To::Agent,
        Message::within(conversation, payload::ERROR, &error),
    );
    fs::write(&go, "").unwrap();
    eventually("the command has spoken", || gone.exists().then_some(()));
    eventually("and has ended", || {
        (agent.status()["jobs"]["running"] == 1).then_some(())
    });
    let question = Message::new(payload::AGENT_STATUS);
    middle.say(To::Agent, question.clone());
    eventually("a question is answered", || {
        to_poseidon(before, payload::AGENT_STATUS)
            .into_iter()
            .find(|m| m.conversation_id == question.id)
    });
    eventually("a heartbeat comes", || {
        to_poseidon(before, payload::HEARTBEAT).pop()
    });
    for kind in [
        payload::OUTPUT,
        payload::PROGRESS,
        payload::DATA_OFFER,
        payload::DATA_RESPONSE,
        payload::RESULT,
    ] {
        assert_eq!(to_poseidon(before, kind), [], "{kind}");
    }
    // The right one is there again: all goes on.
    middle.be_honest();
    middle.cut();
    wait_for_trust(&agent, "trusted");
    let pulled = pull.wait_with_output().unwrap();
    assert_eq!(text(&pulled.stdout), "the content");
    assert!(run.wait_with_output().unwrap().status.success());
}

#[test]
fn a_pin_that_cannot_be_read_leaves_the_device_reachable_and_shut() {
    let poseidon = Poseidon::start();
    let mut agent = approved(&poseidon, &poseidon.url());
    agent.stop();
    fs::write(agent.state().join("poseidon-key"), "{\"publicKey\":").unwrap();
    agent.start();
    poseidon.wait_for("box", "up");
    let done = poseidon.run(&["run", "box", "--", "true"]);
    let said = text(&done.stderr);
    assert!(
        said.contains("untrusted") && said.contains("damaged"),
        "{said}"
    );
    let shown = agent.run(&["trust"]);
    assert!(
        text(&shown.stdout).contains("damaged"),
        "{}",
        text(&shown.stdout)
    );
    assert_eq!(shown.status.code(), Some(1));
    agent_says(&agent, &["trust", "reset"]);
    wait_for_trust(&agent, "trusted");
    run_echo(&poseidon);
}

#[test]
fn a_configured_key_holds_from_the_first_connection_on() {
    let poseidon = Poseidon::start();
    let other = Poseidon::start();
    let key = poseidon.json(&["trust", "show", "--json"])["publicKey"].clone();
    let agent = |url: &str| {
        let agent = Agent::new();
        let file = agent.folder().join("triton.toml");
        fs::write(
            &file,
            format!("url = {url:?}\n[trust]\nposeidon_keys = [{key}]\n"),
        )
        .unwrap();
        agent.with_variable("TRITON_CONFIG", file.to_str().unwrap())
    };
    let good = approve(&poseidon, agent(&poseidon.url()));
    wait_for_trust(&good, "trusted");
    run_echo(&poseidon);
    assert_eq!(own(&good)["pinned"], Value::Null);
    let bad = approve(&other, agent(&other.url()));
    wait_for_trust(&bad, "untrusted");
    let done = other.run(&["run", "box", "--", "true"]);
    assert!(
        text(&done.stderr).contains("untrusted"),
        "{}",
        text(&done.stderr)
    );
}

#[test]
fn without_a_pin_all_is_as_it_was() {
    let poseidon = Poseidon::start();
    let mut agent = Agent::new().with(&["--url", &poseidon.url()]);
    agent.start();
    agent.wait_for_log("poseidon approve");
    let id = agent_says(&agent, &["identifier", "--fingerprint"]);
    poseidon_says(&poseidon, &["approve", &id, "--name", "box", "--no-pin"]);
    agent.signal(libc::SIGHUP);
    poseidon.wait_for("box", "up");
    assert_eq!(trust_state(&agent), "open");
    run_echo(&poseidon);
    // Its instance is held to the key that it has shown, others are not.
    let identifier = agent_says(&agent, &["identifier"]);
    agent.stop();
    poseidon.wait_for("box", "down");
    let mut second = Agent::new()
        .with(&["--url", &poseidon.url()])
        .with_variable("TRITON_IDENTIFIER", &identifier);
    second.start();
    poseidon.wait_for("box", "up");
    second.stop();
    fs::copy(
        agent.state().join("instance"),
        second.state().join("instance"),
    )
    .unwrap();
    second.start();
    second.wait_for_log("has shown");
    // Pinned afterwards.
    let key = own(&agent)["device"]["publicKey"].clone();
    poseidon_says(
        &poseidon,
        &["trust", "accept", "box", key.as_str().unwrap()],
    );
    agent.start();
    wait_for_trust(&agent, "trusted");
    let instance = agent.status()["instance"].as_str().unwrap().to_owned();
    let name = format!("box/{instance}");
    assert_eq!(
        poseidon_says(&poseidon, &["run", &name, "--", "echo", "hi"]),
        "hi"
    );
}
