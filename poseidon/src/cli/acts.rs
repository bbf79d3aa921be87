//! `script`, `engine`, and what is asked of an agent or its device as a whole.

use super::client::Client;
use super::how::How;
use super::many::Many;
use super::run::start;
use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Runs a script of the device's repository.
#[derive(Args)]
pub(super) struct Script {
    /// NAME or NAME/INSTANCE of each agent; with --on and without `--`, the script and its arguments
    #[arg(required_unless_present = "on", value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    many: Many,
    /// The script's name and its arguments
    #[arg(last = true, value_name = "SCRIPT")]
    words: Vec<String>,
}

impl Script {
    pub(super) async fn run(self, client: &Client) -> Result<ExitCode, String> {
        let (names, words) = if self.words.is_empty() {
            if self.many.on.is_empty() {
                return Err("no script is named: poseidon script NAME… -- SCRIPT [ARG…]".to_owned());
            }
            (Vec::new(), self.names)
        } else {
            (self.names, self.words)
        };
        let Some((script, arguments)) = words.split_first() else {
            return Err(
                "no script is named: poseidon script --on SELECTOR SCRIPT [ARG…]".to_owned(),
            );
        };
        let mut payload = json!({"name": script});
        if !arguments.is_empty() {
            payload["args"] = json!(arguments);
        }
        self.how.add_to(&mut payload)?;
        let what = json!({"type": "script", "payload": payload});
        start(client, &self.many, &names, what).await
    }
}

/// Asks for an act of the agent or the device.
#[derive(Args)]
pub(super) struct Act {
    /// NAME or NAME/INSTANCE of each agent
    #[arg(required_unless_present = "on", value_name = "NAME")]
    names: Vec<String>,
    /// Do it after so many seconds, in which it can be cancelled
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    delay: Option<u32>,
    #[command(flatten)]
    many: Many,
}

impl Act {
    pub(super) async fn run(self, client: &Client, kind: &str) -> Result<ExitCode, String> {
        let payload = self
            .delay
            .map_or_else(|| json!({}), |delay| json!({"delaySeconds": delay}));
        let what = json!({"type": kind, "payload": payload});
        start(client, &self.many, &self.names, what).await
    }
}

/// The same where a slip of the pen would hurt many.
#[derive(Args)]
pub(super) struct GraveAct {
    #[command(flatten)]
    act: Act,
    /// Really, also where it is more than one device
    #[arg(long)]
    yes: bool,
}

impl GraveAct {
    pub(super) async fn run(
        self,
        client: &Client,
        kind: &str,
        verb: &str,
    ) -> Result<ExitCode, String> {
        let Act { names, many, .. } = &self.act;
        if !self.yes {
            many.only_one(client, names, verb).await?;
        }
        self.act.run(client, kind).await
    }
}

/// Asks a plugin for something.
#[derive(Args)]
pub(super) struct Ask {
    /// NAME or NAME/INSTANCE of each agent
    #[arg(required_unless_present = "on", value_name = "NAME")]
    names: Vec<String>,
    /// The request's type, which says which plugin it is for
    #[arg(long, value_name = "TYPE")]
    r#type: String,
    /// What is asked: a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    payload: String,
    #[command(flatten)]
    many: Many,
}

impl Ask {
    pub(super) async fn run(self, client: &Client) -> Result<ExitCode, String> {
        let payload: Value = serde_json::from_str(&self.payload)
            .map_err(|e| format!("--payload is a JSON object, such as '{{}}': {e}"))?;
        let what = json!({"type": self.r#type, "payload": payload});
        start(client, &self.many, &self.names, what).await
    }
}

/// Hands a command to a monitoring engine.
#[derive(Args)]
pub(super) struct Engine {
    /// NAME or NAME/INSTANCE of each agent
    #[arg(required_unless_present = "on", value_name = "NAME")]
    names: Vec<String>,
    /// The command: one line
    #[arg(long, value_name = "TEXT")]
    command: String,
    /// The engine's named pipe; without it, the one that the device has configured
    #[arg(long, value_name = "PATH")]
    pipe: Option<String>,
    #[command(flatten)]
    many: Many,
}

impl Engine {
    pub(super) async fn run(self, client: &Client) -> Result<ExitCode, String> {
        let mut payload = json!({"command": self.command});
        if let Some(pipe) = self.pipe {
            payload["pipe"] = Value::String(pipe);
        }
        let what = json!({"type": "engine.command", "payload": payload});
        start(client, &self.many, &self.names, what).await
    }
}
