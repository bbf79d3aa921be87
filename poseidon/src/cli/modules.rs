//! `modules`: the plugins of a device.

use super::client::{Client, segment};
use super::commands::{Ended, print, print_json, rows};
use super::tables::{clean, table, text};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Shows the plugins of a device, and ends or starts one.
#[derive(Args)]
pub(super) struct Modules {
    /// NAME or NAME/INSTANCE of the device
    name: String,
    /// What to do; without it, they are shown
    #[arg(requires = "module")]
    act: Option<Act>,
    /// The plugin: one that is external
    module: Option<String>,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Act {
    /// End it; it stays so until it is started, or the agent is
    Kill,
    /// Start it; what it crashed before is forgotten
    Start,
}

impl Modules {
    pub(super) async fn run(self, client: &Client) -> Ended {
        let path = format!("/agents/{}/modules", segment(&self.name));
        if let (Some(act), Some(module)) = (self.act, &self.module) {
            let act = match act {
                Act::Kill => "kill",
                Act::Start => "start",
            };
            let path = format!("{path}/{}/{act}", segment(module));
            client.post::<Value>(&path, &json!({})).await?;
            return Ok(ExitCode::SUCCESS);
        }
        let list: Value = client.get(&path).await?;
        if self.json {
            return print_json(&list);
        }
        let line = |module: &Value| {
            let types: Vec<String> = rows(module, "types").map(text).collect();
            let pid = module["pid"].as_u64().map(|pid| pid.to_string());
            vec![
                text(&module["name"]),
                text(&module["kind"]),
                text(&module["state"]),
                text(&module["version"]),
                pid.unwrap_or_default(),
                clean(&types.join(" ")),
                module["reason"].as_str().map(clean).unwrap_or_default(),
            ]
        };
        // What runs beside the agent first: it is what an operator looks for.
        let (own, others): (Vec<&Value>, Vec<&Value>) =
            rows(&list, "modules").partition(|module| module["kind"] == "builtin");
        let lines: Vec<_> = others.into_iter().chain(own).map(line).collect();
        let head = ["NAME", "KIND", "STATE", "VERSION", "PID", "TYPES", "REASON"];
        print(&table(&head, &lines))
    }
}
