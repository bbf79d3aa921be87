//! `poseidon tokens`, `poseidon audit` and `poseidon secrets`.

use super::client::{Client, segment};
use super::commands::{Ended, print, print_json, rows};
use super::tables::{ago, clean, table, text};
use super::{length, since};
use crate::secrets;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Args)]
pub(super) struct Tokens {
    #[command(subcommand)]
    command: TokensCommand,
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleName {
    /// Sees devices, jobs with their output, and what was recorded; no files and no secrets
    Viewer,
    /// Also acts on devices: commands, files, scripts, data, batches
    Operator,
    /// Also decides who comes in: identifiers, tokens, the audit log
    Admin,
}

#[derive(Subcommand)]
enum TokensCommand {
    /// Make a token and print it; it is not shown again
    Add {
        /// What to call it, which the audit log says
        name: String,
        /// What it may
        #[arg(long, value_enum)]
        role: RoleName,
        /// Only for devices that a selector means, as for `run`; can be repeated
        #[arg(long, value_name = "SELECTOR")]
        on: Vec<String>,
        /// It ends after so long: 12h, 30d
        #[arg(long, value_name = "DURATION", value_parser = length)]
        expires: Option<Duration>,
    },
    /// List the tokens
    Ls {
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a token: who uses it is out at once
    Rm {
        /// Its name
        name: String,
    },
}

impl Tokens {
    pub(super) async fn run(self, client: &Client) -> Ended {
        match self.command {
            TokensCommand::Add {
                name,
                role,
                on,
                expires,
            } => {
                let role = match role {
                    RoleName::Viewer => "viewer",
                    RoleName::Operator => "operator",
                    RoleName::Admin => "admin",
                };
                let mut body = json!({"name": name, "role": role, "on": on});
                if let Some(expires) = expires {
                    body["expiresSeconds"] = expires.as_secs().into();
                }
                let answer: Value = client.post("/tokens", &body).await?;
                eprintln!(
                    "poseidon: this is the token of {}; it is not shown again. Use it with POSEIDON_TOKEN, --token-file, or to sign in to the page",
                    clean(&name)
                );
                print(&format!("{}\n", text(&answer["token"])))
            }
            TokensCommand::Ls { json } => list(client, json).await,
            TokensCommand::Rm { name } => {
                client
                    .delete(&format!("/tokens/{}", segment(&name)))
                    .await?;
                print(&format!("removed {}\n", clean(&name)))
            }
        }
    }
}

async fn list(client: &Client, json: bool) -> Ended {
    let answer: Value = client.get("/tokens").await?;
    if json {
        return print_json(&answer);
    }
    let rows: Vec<_> = rows(&answer, "tokens")
        .map(|token| {
            let on: Vec<String> = token["on"]
                .as_array()
                .map(|on| on.iter().map(text).collect())
                .unwrap_or_default();
            let expires = token["expires"].as_f64();
            let expires = match expires {
                Some(time) if time <= crate::time::now() => "expired".to_owned(),
                Some(time) => triton::dates::utc(time),
                None => "never".to_owned(),
            };
            vec![
                text(&token["name"]),
                text(&token["role"]),
                if on.is_empty() {
                    "all".to_owned()
                } else {
                    on.join(" or ")
                },
                ago(&token["created"]),
                expires,
            ]
        })
        .collect();
    if rows.is_empty() {
        return print(
            "There is only the admin's, in the data folder. Make one with: poseidon tokens add NAME --role viewer\n",
        );
    }
    print(&table(
        &["NAME", "ROLE", "DEVICES", "MADE", "EXPIRES"],
        &rows,
    ))
}

#[derive(Args)]
pub(super) struct Audit {
    /// Only what was done since then: a Unix time, a date or date and time (2025-06-01T12:30:00Z), or an age (90s, 15m, 2h, 3d)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<f64>,
    /// Only by this token
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// Only this act, such as jobs.create, or all that begin so, such as jobs
    #[arg(long)]
    act: Option<String>,
    /// Only what has this in its target: a device, say
    #[arg(long, value_name = "TEXT")]
    on: Option<String>,
    /// The newest so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(super) async fn run(self, client: &Client) -> Ended {
        let mut path = format!("/audit?limit={}", self.limit);
        if let Some(since) = self.since {
            let _ = write!(path, "&since={since}");
        }
        for (field, value) in [("who", self.who), ("act", self.act), ("on", self.on)] {
            if let Some(value) = value {
                let _ = write!(path, "&{field}={}", segment(&value));
            }
        }
        let answer: Value = client.get(&path).await?;
        if self.json {
            return print_json(&answer);
        }
        let mut out = String::new();
        for act in rows(&answer, "acts") {
            let end = match (act["status"].as_u64(), act["allowed"] == true) {
                (None, _) => "no end known".to_owned(),
                (Some(status), true) => status.to_string(),
                (Some(status), false) => format!("denied {status}"),
            };
            let _ = writeln!(
                out,
                "{}  {}  {}  {}  {}  {}  {}",
                act["time"]
                    .as_f64()
                    .map_or("-".to_owned(), triton::dates::utc),
                text(&act["who"]),
                text(&act["address"]),
                text(&act["act"]),
                text(&act["target"]),
                end,
                clean(act["detail"].as_str().unwrap_or("")),
            );
        }
        print(&out)
    }
}

#[derive(Args)]
pub(super) struct Secrets {
    #[command(subcommand)]
    command: SecretsCommand,
}

#[derive(Subcommand)]
enum SecretsCommand {
    /// Encrypt all secrets with a new key; the server must be stopped
    RotateKey {
        /// File with the key, as the server is told; else secret.key in the data folder
        #[arg(long, env = "POSEIDON_SECRET_KEY_FILE", value_name = "FILE")]
        secret_key_file: Option<PathBuf>,
    },
}

impl Secrets {
    pub(super) fn run(self, data: &Path) -> Ended {
        let SecretsCommand::RotateKey { secret_key_file } = self.command;
        let rotated = secrets::rotate(data, secret_key_file.as_deref())?;
        print(&format!(
            "{} secrets are encrypted with the new key {} in {}; the old one is gone. Keep a copy of the file apart from the backups\n",
            rotated.secrets,
            rotated.key,
            rotated.file.display()
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}
