//! `poseidon trust`: Poseidon's own key, and those of the devices.

use super::client::{Client, segment};
use super::commands::{Ended, print, print_json, rows};
use super::tables::{ago, clean, table, text};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Args)]
pub(super) struct Trust {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show Poseidon's own key, which devices pin
    Show {
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
    },
    /// List the keys of devices: pinned, shown, refused
    Ls {
        /// Name of the device
        name: Option<String>,
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
    },
    /// Pin a device's key: from then on nobody gets in under its name without a pinned key
    Accept {
        /// Name of the device
        name: String,
        /// The key, or its id, as `triton trust show` prints it at the device; else the only one that was shown
        key: Option<String>,
    },
    /// Pin a key no longer, such as a stolen one: who has it is out at once. The last one stays
    Rm {
        /// Name of the device
        name: String,
        /// The pinned key, or its id
        key: String,
    },
    /// Forget the keys of a device: it may come with any, and secrets go to it unsealed
    Reset {
        /// Name of the device
        name: String,
    },
    /// Give Poseidon a new key, which the old one vouches for; all agents connect anew
    Rotate,
}

impl Trust {
    pub(super) async fn run(self, client: &Client) -> Ended {
        match self.command {
            Command::Show { json } => {
                let answer: Value = client.get("/trust").await?;
                let own = &answer["poseidon"];
                if json {
                    return print_json(own);
                }
                print(&format!(
                    "{}  {}\n",
                    text(&own["keyId"]),
                    text(&own["publicKey"])
                ))
            }
            Command::Ls { name, json } => ls(client, name.as_deref(), json).await,
            Command::Accept { name, key } => {
                let body = key.map_or_else(|| json!({}), |key| json!({ "key": key }));
                let path = format!("/trust/{}/accept", segment(&name));
                print_pinned(&name, &client.post(&path, &body).await?)
            }
            Command::Rm { name, key } => {
                let path = format!("/trust/{}/remove", segment(&name));
                let body = json!({ "key": key });
                print_pinned(&name, &client.post(&path, &body).await?)
            }
            Command::Reset { name } => {
                let path = format!("/trust/{}/reset", segment(&name));
                let _: Value = client.post(&path, &json!({})).await?;
                print(&format!("forgot the keys of {}\n", clean(&name)))
            }
            Command::Rotate => {
                let answer: Value = client.post("/trust/rotate", &json!({})).await?;
                print(&format!(
                    "Poseidon's key is {} now; devices follow it when they connect, as long as it is not changed more than \
                     16 times until then. Back up the file poseidon-key of the data folder.\n",
                    text(&answer["poseidon"]["keyId"])
                ))
            }
        }
    }
}

fn print_pinned(name: &str, keys: &Value) -> Ended {
    let pinned: Vec<String> = rows(keys, "pinned").map(|k| text(&k["keyId"])).collect();
    print(&format!(
        "pinned for {}: {}\n",
        clean(name),
        pinned.join(", ")
    ))
}

async fn ls(client: &Client, name: Option<&str>, json: bool) -> Ended {
    let all = match name {
        Some(name) => {
            let one: Value = client.get(&format!("/trust/{}", segment(name))).await?;
            json!({ "identifiers": [one] })
        }
        None => client.get("/trust").await?,
    };
    if json {
        return print_json(&all);
    }
    let mut lines = Vec::new();
    for device in rows(&all, "identifiers") {
        let mut line = |what: &str, key: &Value, time: &Value, more: String| {
            lines.push(vec![
                text(&device["name"]),
                what.to_owned(),
                if key.is_null() {
                    "-".to_owned()
                } else {
                    text(key)
                },
                ago(time),
                more,
            ]);
        };
        for key in rows(device, "pinned") {
            line("pinned", &key["keyId"], &key["since"], String::new());
        }
        for key in rows(device, "shown") {
            line(
                "shown",
                &key["keyId"],
                &key["since"],
                text(&key["instance"]),
            );
        }
        for one in rows(device, "refused") {
            let more = format!("{}: {}", text(&one["address"]), text(&one["reason"]));
            line("REFUSED", &one["keyId"], &one["time"], more);
        }
    }
    if lines.is_empty() {
        return print("No device has shown a key yet.\n");
    }
    print(&table(&["NAME", "STATE", "KEY", "SINCE", ""], &lines))
}
