//! `poseidon data`: what devices are given besides their scripts.

use super::client::{Client, segment};
use super::commands::{Ended, print, print_json, rows};
use super::each::{On, each};
use super::tables::{ago, bytes, clean, table, text};
use crate::data::VALUE_BYTES;
use axum::body::Bytes;
use clap::{Args, Subcommand};
use serde_json::Value;
use std::io::Read as _;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct Data {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Give data to devices, which get it with `triton get KEY`
    Put(Put),
    /// List what a device was given
    Ls {
        /// Name of the device
        name: String,
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what a device was given; a secret is not shown
    Show {
        /// Name of the device
        name: String,
        /// Name of the data
        key: String,
    },
    /// Take data away from devices
    Rm {
        /// Names of devices, and last the name of the data
        #[arg(required = true, value_name = "NAME|KEY", num_args = 1..)]
        words: Vec<String>,
        #[command(flatten)]
        on: On,
    },
}

#[derive(Args)]
#[command(
    override_usage = "poseidon data put [OPTIONS] NAME… KEY FILE\n       poseidon data put [OPTIONS] NAME… KEY --value TEXT\n       poseidon data put [OPTIONS] --on SELECTOR KEY FILE"
)]
struct Put {
    /// Names of devices; then the name of the data: 1 to 128 letters, digits, `.`, `_`, `-` and `/`; and last, without
    /// --value, the file with the content; `-` reads standard input
    #[arg(required = true, value_name = "NAME|KEY|FILE", num_args = 1..)]
    words: Vec<String>,
    #[command(flatten)]
    on: On,
    /// The content itself, which shows in the process list: no place for a secret
    #[arg(long, value_name = "TEXT", conflicts_with = "secret")]
    value: Option<String>,
    /// Only the device may read it: it is not shown again
    #[arg(long)]
    secret: bool,
}

/// Path of the calls about a device's data.
fn path(name: &str, key: &str) -> String {
    let key: Vec<String> = key.split('/').map(segment).collect();
    format!("/data/{}/{}", segment(name), key.join("/"))
}

impl Data {
    pub(super) async fn run(self, client: &Client) -> Ended {
        match self.command {
            Command::Put(put) => put.run(client).await,
            Command::Ls { name, json } => ls(client, &name, json).await,
            Command::Show { name, key } => {
                let path = path(&name, &key);
                client.copy(&path, &mut std::io::stdout()).await?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Rm { mut words, on } => {
                let key = on.last_words(&mut words, 1, "KEY")?.concat();
                let names = on.names(client, words).await?;
                each(&names, async |name| {
                    client.delete(&path(name, &key)).await?;
                    Ok(format!("took {} from {}\n", clean(&key), clean(name)))
                })
                .await
            }
        }
    }
}

/// What is given.
enum Content {
    Bytes(Bytes),
    File(String),
}

impl Content {
    /// What a file holds, or standard input, which is read once for all devices.
    fn of(file: String) -> Result<Self, String> {
        if file != "-" {
            return Ok(Self::File(file));
        }
        let mut content = Vec::new();
        // More than is kept of a value: a file is read as it is sent, a pipe is not.
        std::io::stdin()
            .lock()
            .take(VALUE_BYTES as u64 + 1)
            .read_to_end(&mut content)
            .map_err(|e| format!("cannot read standard input: {e}"))?;
        if content.len() > VALUE_BYTES {
            return Err(format!(
                "standard input has more than {VALUE_BYTES} bytes: put them in a file"
            ));
        }
        Ok(Self::Bytes(content.into()))
    }

    async fn put(&self, client: &Client, path: &str) -> Result<Value, String> {
        match self {
            Self::Bytes(bytes) => client.put(path, bytes.clone()).await,
            Self::File(file) => {
                let failed = |e| format!("cannot read {file}: {e}");
                let open = std::fs::File::open(file).map_err(failed)?;
                let metadata = open.metadata().map_err(failed)?;
                if !metadata.is_file() {
                    return Err(format!("{file} is no plain file: give - and pipe it in"));
                }
                client.put_file(path, open, metadata.len()).await
            }
        }
    }
}

impl Put {
    async fn run(self, client: &Client) -> Ended {
        let Self {
            mut words,
            on,
            value,
            secret,
        } = self;
        let usage = if value.is_some() { "KEY" } else { "KEY FILE" };
        let count = usage.split(' ').count();
        let mut last = on.last_words(&mut words, count, usage)?.into_iter();
        let key = last.next().unwrap_or_default();
        let content = match (value, last.next()) {
            (Some(value), _) => Content::Bytes(value.into()),
            (None, file) => Content::of(file.unwrap_or_default())?,
        };
        let names = on.names(client, words).await?;
        each(&names, async |name| {
            let path = format!("{}?secret={secret}", path(name, &key));
            let answer = content.put(client, &path).await?;
            Ok(format!(
                "gave {} ({}{}) to {}\n",
                text(&answer["key"]),
                bytes(&answer["size"]),
                if answer["secret"] == true {
                    ", secret"
                } else {
                    ""
                },
                clean(name)
            ))
        })
        .await
    }
}

async fn ls(client: &Client, name: &str, json: bool) -> Ended {
    let answer: Value = client.get(&format!("/data/{}", segment(name))).await?;
    if json {
        return print_json(&answer);
    }
    let rows: Vec<_> = rows(&answer, "data")
        .map(|d| {
            vec![
                text(&d["key"]),
                bytes(&d["size"]),
                if d["secret"] == true {
                    "secret".to_owned()
                } else {
                    text(&d["sha256"]).chars().take(12).collect()
                },
                ago(&d["changed"]),
            ]
        })
        .collect();
    if rows.is_empty() {
        return print(
            "It was given nothing. Give something with: poseidon data put NAME KEY FILE\n",
        );
    }
    print(&table(&["KEY", "SIZE", "SHA256", "CHANGED"], &rows))
}
