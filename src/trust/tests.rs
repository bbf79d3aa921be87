//! The agent's side against keys made here.

use super::*;
use crate::message::payload::COMMAND;
use crate::message::sign::SecretKey;

struct Rig {
    folder: tempfile::TempDir,
    trust: Trust,
    poseidon: SecretKey,
    session: String,
}

impl Rig {
    /// One that has said hello.
    fn new(configured: &[PublicKey]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trust = Trust::new(folder.path());
        let mut rig = Self {
            folder,
            trust,
            poseidon: SecretKey::random().unwrap(),
            session: String::new(),
        };
        rig.connect(configured);
        rig
    }

    fn connect(&mut self, configured: &[PublicKey]) {
        assert!(self.trust.prepare(configured).is_some());
        let hello = self.trust.hello(&Hello::default(), Some(&"ab".repeat(16)));
        self.session = hello.id;
    }

    fn welcome(&self, key: &SecretKey, change: impl FnOnce(&mut Welcome)) -> Worth {
        let mut welcome = Welcome {
            public_key: Some(key.public().to_string()),
            pinned: true,
            device_key: self
                .trust
                .files
                .device()
                .ok()
                .map(|d| d.key.public().to_string()),
            ..Welcome::default()
        };
        change(&mut welcome);
        let mut message = Message::within(&self.session, "welcome", &welcome);
        key.sign(&mut message, &self.session);
        self.trust.welcome(&message, &welcome, "here")
    }

    fn judge(&self, number: u32, until: u32) -> Result<(), String> {
        let mut message = Message::new(COMMAND);
        self.poseidon
            .sign_act(&mut message, &self.session, number, until);
        self.trust
            .judge(&message)
            .map_err(|(code, _)| code.to_string())
    }
}

#[test]
fn the_first_poseidon_that_has_pinned_this_device_is_pinned() {
    let rig = Rig::new(&[]);
    let unsigned = || {
        rig.trust
            .judge(&Message::new(COMMAND))
            .map_err(|e| e.0.to_string())
    };
    assert_eq!(unsigned(), Ok(()));
    // Not before it says so, of this key, and with its signature.
    assert_eq!(
        rig.welcome(&rig.poseidon, |w| w.pinned = false),
        Worth::Open
    );
    assert_eq!(
        rig.welcome(&rig.poseidon, |w| w.device_key = None),
        Worth::Open
    );
    let other = SecretKey::random().unwrap();
    let forged = |w: &mut Welcome| w.public_key = Some(other.public().to_string());
    assert_eq!(rig.welcome(&rig.poseidon, forged), Worth::Open);
    assert_eq!(rig.trust.files.pin().unwrap(), None);
    assert_eq!(rig.welcome(&rig.poseidon, |_| {}), Worth::Trusted);
    assert_eq!(unsigned(), Err("untrusted".to_owned()));
    assert_eq!(rig.trust.judge(&Message::new("agent.status")), Ok(()));
    assert!(matches!(rig.welcome(&other, |_| {}), Worth::Foreign(_)));
    assert!(matches!(rig.trust.plain("here"), Worth::Foreign(_)));
    assert_eq!(
        rig.trust.files.refused().unwrap().public_key,
        other.public().to_string()
    );
}

#[test]
fn a_false_poseidon_with_ever_new_keys_costs_no_flash() {
    let rig = Rig::new(&[]);
    assert_eq!(rig.welcome(&rig.poseidon, |_| {}), Worth::Trusted);
    let refuse = || {
        let key = SecretKey::random().unwrap();
        assert!(matches!(rig.welcome(&key, |_| {}), Worth::Foreign(_)));
        let noted = rig.trust.files.refused().unwrap().public_key;
        (noted == key.public().to_string(), noted)
    };
    let (new, first) = refuse();
    assert!(new);
    for _ in 0..20 {
        assert_eq!(refuse(), (false, first.clone()));
    }
    rig.trust.inner().noted = Instant::now().checked_sub(NOTE_PAUSE);
    assert!(refuse().0);
    assert!(!refuse().0);
    // The operator has taken what was noted, and needs the next one.
    assert!(rig.trust.files.reset().unwrap());
    assert!(refuse().0);
}

#[test]
fn a_request_counts_once_in_time_and_on_its_connection_only() {
    let mut rig = Rig::new(&[]);
    assert_eq!(rig.welcome(&rig.poseidon, |_| {}), Worth::Trusted);
    let untrusted = Err("untrusted".to_owned());
    assert_eq!(rig.judge(1, 600), Ok(()));
    assert_eq!(rig.judge(1, 600), untrusted);
    assert_eq!(rig.judge(3, 600), Ok(()));
    assert_eq!(rig.judge(2, 600), untrusted);
    assert_eq!(rig.judge(4, LONGEST + 600), untrusted);
    assert_eq!(rig.judge(4, 600), Ok(()));
    rig.trust.inner().session.as_mut().unwrap().begun -= Duration::from_secs(700);
    assert_eq!(rig.judge(5, 600), Err("expired".to_owned()));
    assert_eq!(rig.judge(6, 1300), Ok(()));
    let mut open_ended = Message::new(COMMAND);
    rig.poseidon.sign(&mut open_ended, &rig.session);
    assert_eq!(
        rig.trust.judge(&open_ended).unwrap_err().0,
        ErrorCode::Untrusted
    );
    let mut old = Message::new(COMMAND);
    rig.poseidon.sign_act(&mut old, &rig.session, 7, 1300);
    rig.connect(&[]);
    assert_eq!(rig.judge(1, 600), untrusted, "before its welcome");
    assert_eq!(rig.welcome(&rig.poseidon, |_| {}), Worth::Trusted);
    assert_eq!(rig.trust.judge(&old).unwrap_err().0, ErrorCode::Untrusted);
    assert_eq!(rig.judge(1, 600), Ok(()));
    rig.trust.ended();
    assert_eq!(rig.judge(2, 600), untrusted);
}

#[test]
fn a_key_that_poseidon_has_left_counts_no_more_not_even_where_it_is_configured() {
    let (first, second) = (SecretKey::random().unwrap(), SecretKey::random().unwrap());
    let configured = [first.public()];
    let mut rig = Rig::new(&configured);
    assert_eq!(rig.welcome(&first, |_| {}), Worth::Trusted);
    let proof = first.prove(&second.public());
    let with_proof = |w: &mut Welcome| w.keys = vec![proof.clone()];
    assert_eq!(rig.welcome(&second, with_proof), Worth::Trusted);
    rig.connect(&configured);
    assert_eq!(rig.welcome(&second, |_| {}), Worth::Trusted);
    assert!(matches!(rig.welcome(&first, |_| {}), Worth::Foreign(_)));
    // Another configured key is the operator's word.
    let third = SecretKey::random().unwrap();
    rig.connect(&[third.public()]);
    assert!(matches!(rig.welcome(&second, |_| {}), Worth::Foreign(_)));
    assert_eq!(rig.welcome(&third, |_| {}), Worth::Trusted);
}

#[test]
fn a_trial_pins_nothing_and_without_a_challenge_nothing_is_shown() {
    let rig = Rig::new(&[]);
    let welcome = Welcome {
        public_key: Some(rig.poseidon.public().to_string()),
        pinned: true,
        device_key: Some(rig.trust.files.device().unwrap().key.public().to_string()),
        ..Welcome::default()
    };
    let mut message = Message::within(&rig.session, "welcome", &welcome);
    rig.poseidon.sign(&mut message, &rig.session);
    assert_eq!(rig.trust.examine(&message, &welcome, "here"), Worth::Open);
    assert_eq!(rig.trust.files.pin().unwrap(), None);
    for challenge in [None, Some(""), Some("xy")] {
        let hello = rig.trust.hello(&Hello::default(), challenge);
        assert_eq!(hello.signature, None);
        assert!(!hello.payload.unwrap().contains("publicKey"));
    }
}

#[test]
fn a_broken_pin_shuts_the_agent_and_a_folder_that_takes_none_is_said() {
    let mut rig = Rig::new(&[]);
    std::fs::write(rig.trust.files.pin_path(), "{").unwrap();
    rig.connect(&[]);
    assert!(matches!(
        rig.welcome(&rig.poseidon, |_| {}),
        Worth::Foreign(_)
    ));
    assert_eq!(rig.judge(1, 600), Err("untrusted".to_owned()));
    assert!(
        rig.trust.report()["problem"]
            .as_str()
            .unwrap()
            .contains("damaged")
    );
    // Nothing can be written: a folder stands in the place of the new file.
    std::fs::remove_file(rig.trust.files.pin_path()).unwrap();
    std::fs::create_dir(rig.folder.path().join("poseidon-key.new")).unwrap();
    rig.connect(&[]);
    assert_eq!(rig.welcome(&rig.poseidon, |_| {}), Worth::Trusted);
    assert_eq!(rig.trust.files.pin().unwrap(), None);
    rig.connect(&[]);
    assert!(rig.trust.report()["problem"].is_string());
    let other = SecretKey::random().unwrap();
    assert!(matches!(rig.welcome(&other, |_| {}), Worth::Foreign(_)));
    assert_eq!(rig.welcome(&rig.poseidon, |_| {}), Worth::Trusted);
}
