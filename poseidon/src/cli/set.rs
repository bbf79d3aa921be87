//! `poseidon set`: what is said of an identifier that is registered.

use super::client::{Client, segment};
use super::commands::{Ended, pair, print, rows};
use super::tables::text;
use clap::{ArgGroup, Args};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use triton::message::payload::HEARTBEAT_SECONDS;

#[derive(Args)]
#[command(group(
    ArgGroup::new("change")
        .required(true)
        .multiple(true)
        .args(["name", "attributes", "unset", "heartbeat"])
))]
pub(super) struct Set {
    /// Its name, or its ID as `identifiers` shows it, any beginning of at least 4 digits
    #[arg(value_name = "NAME|ID")]
    which: String,
    /// What to call it
    #[arg(long)]
    name: Option<String>,
    /// Given to its agents, besides those that they have; can be repeated
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = pair)]
    attributes: Vec<(String, String)>,
    /// Take an attribute away; can be repeated
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// Seconds between its agents' heartbeats; `default`: what the device asks for, else the server's --heartbeat-seconds
    #[arg(long, value_name = "SECONDS|default", value_parser = interval)]
    heartbeat: Option<Interval>,
}

#[derive(Clone, Copy)]
struct Interval(Option<u32>);

fn interval(text: &str) -> Result<Interval, String> {
    if text == "default" {
        return Ok(Interval(None));
    }
    let (least, most) = (HEARTBEAT_SECONDS.start(), HEARTBEAT_SECONDS.end());
    match text.parse() {
        Ok(seconds) if HEARTBEAT_SECONDS.contains(&seconds) => Ok(Interval(Some(seconds))),
        _ => Err(format!(
            "{least} to {most} seconds, or default, are expected"
        )),
    }
}

impl Set {
    pub(super) async fn run(self, client: &Client) -> Ended {
        let mut body = json!({});
        if let Some(name) = self.name {
            body["name"] = name.into();
        }
        let mut attributes: BTreeMap<String, Option<String>> = self
            .attributes
            .into_iter()
            .map(|(key, value)| (key, Some(value)))
            .collect();
        for key in self.unset {
            if attributes.get(&key).is_some_and(Option::is_some) {
                return Err(format!("{key:?} is both given and taken away"));
            }
            attributes.insert(key, None);
        }
        if !attributes.is_empty() {
            body["attributes"] = json!(attributes);
        }
        if let Some(Interval(seconds)) = self.heartbeat {
            body["heartbeatSeconds"] = json!(seconds);
        }
        // The API takes IDs only: a name may look like one.
        let known: Value = client.get("/identifiers").await?;
        let named = rows(&known, "identifiers").find(|i| i["name"] == self.which.as_str());
        let id = named.map_or(self.which, |i| text(&i["id"]));
        let path = format!("/identifiers/{}", segment(&id));
        let answer: Value = client.patch(&path, &body).await?;
        let identifier = &answer["identifier"];
        print(&format!(
            "changed {}, which is {}\n",
            text(&identifier["id"]),
            text(&identifier["name"])
        ))
    }
}
