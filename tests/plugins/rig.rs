//! An agent with a folder of plugins.

use crate::support::agent::Agent;
use crate::support::{eventually, local};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use triton::message::Message;
use triton::message::payload::{MODULE_KILL, MODULE_LIST, MODULE_START};

/// What each plugin in shell begins with: it says hello and has what it needs to speak.
pub const SHELL: &str = r#"#!/bin/sh
say() { # TYPE CONVERSATION PAYLOAD
    id=$(cat /proc/sys/kernel/random/uuid)
    printf '<tritonMessage><type>%s</type><id>%s</id><conversationId>%s</conversationId><payload>%s</payload></tritonMessage>\n' "$1" "$id" "${2:-$id}" "$3"
}
hear() { # the next message: its type, conversation and payload
    read -r line || return 1
    type=${line#*<type>} type=${type%%</type>*}
    conversation=${line#*<conversationId>} conversation=${conversation%%</conversationId>*}
    payload=${line#*<payload>} payload=${payload%%</payload>*}
}
"#;

pub struct Rig {
    pub agent: Agent,
}

impl Rig {
    /// An agent without Poseidon that has not started yet, with `settings` in its section `plugins`.
    pub fn unstarted(settings: &str) -> Self {
        let agent = Agent::new();
        let folder = agent.folder().join("plugins");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let file = agent.folder().join("triton.toml");
        let text = format!("[plugins]\nfolder = {folder:?}\n{settings}\n");
        fs::write(&file, text).unwrap();
        let agent = agent.with_variable("TRITON_CONFIG", file.to_str().unwrap());
        Self { agent }
    }

    pub fn folder(&self) -> PathBuf {
        self.agent.folder().join("plugins")
    }

    /// Puts a program there. It begins with `SHELL`, unless it says itself what runs it.
    pub fn put(&self, name: &str, text: &str) {
        let begin = if text.starts_with("#!") { "" } else { SHELL };
        let path = self.folder().join(name);
        fs::write(&path, format!("{begin}{text}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn start(mut self) -> Self {
        self.agent.start();
        self.agent.wait_until_it_serves();
        self
    }

    pub fn with(settings: &str, plugins: &[(&str, &str)]) -> Self {
        let rig = Self::unstarted(settings);
        for (name, text) in plugins {
            rig.put(name, text);
        }
        rig.start()
    }

    pub fn ask(&self, kind: &str, payload: &Value) -> Result<Message, String> {
        local::ask(&self.agent.socket(), &Message::with(kind, payload))
    }

    pub fn kill(&self, name: &str) -> Result<Message, String> {
        self.ask(MODULE_KILL, &json!({ "name": name }))
    }

    pub fn start_again(&self, name: &str) -> Result<Message, String> {
        self.ask(MODULE_START, &json!({ "name": name }))
    }

    /// How it is in the list.
    pub fn module(&self, name: &str) -> Value {
        let list: Value = self.ask(MODULE_LIST, &json!({})).unwrap().read().unwrap();
        let modules = list["modules"].as_array().unwrap();
        let found = modules.iter().find(|m| m["name"] == name);
        found.cloned().unwrap_or_default()
    }

    #[track_caller]
    pub fn wait_for(&self, name: &str, state: &str) -> Value {
        eventually(&format!("{name} is {state}"), || {
            Some(self.module(name)).filter(|module| module["state"] == state)
        })
    }

    /// Waits until it ended and says why.
    #[track_caller]
    pub fn wait_for_reason(&self, name: &str, text: &str) {
        eventually(&format!("{name}: {text}"), || {
            let module = self.module(name);
            let reason = module["reason"].as_str().unwrap_or_default();
            reason.contains(text).then_some(())
        });
    }

    /// Asks a plugin as `triton module ask` does: exit code, output, errors.
    pub fn module_ask(&self, kind: &str, payload: &str) -> (i32, String, String) {
        let output = self.agent.run(&["module", "ask", kind, payload]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap();
        (code, text(&output.stdout), text(&output.stderr))
    }
}

/// Whether there is a process of this number that is no zombie.
pub fn lives(pid: &Value) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|rest| !rest.starts_with(['Z', 'X']))
}
