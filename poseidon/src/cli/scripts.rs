//! `poseidon scripts`: the scripts of a device, with their history.

mod diff;
mod local;

use super::bars::Bars;
use super::client::{Client, segment};
use super::commands::{Ended, print, print_json, rows};
use super::each::{On, each};
use super::follow::Patience;
use super::tables::{ago, bytes, clean, table, text};
use super::upload::{Source, Uploads};
use crate::repositories::manifest::parse_mode;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// How often a change is made on top of another's that came in between.
const ATTEMPTS: u32 = 5;
/// Digits of a hash that are shown.
const SHORT: usize = 12;

#[derive(Args)]
pub(super) struct Scripts {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put files, or all files of a folder, into the repositories of devices: one new revision each
    Put(Put),
    /// List the scripts of a device
    Ls {
        /// Name of the device
        name: String,
        /// Id or number of a revision; without it, the current one
        #[arg(long)]
        revision: Option<String>,
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
    },
    /// Print one script
    Show {
        /// Name of the device
        name: String,
        /// Its path in the repository
        path: String,
        /// Id or number of a revision; without it, the current one
        #[arg(long)]
        revision: Option<String>,
    },
    /// Take scripts away: one new revision of each device
    #[command(
        override_usage = "poseidon scripts rm [OPTIONS] NAME PATH…\n       poseidon scripts rm [OPTIONS] NAME… -- PATH…\n       poseidon scripts rm [OPTIONS] --on SELECTOR PATH…"
    )]
    Rm {
        /// Name of the device, and the paths in its repository; several devices with `--` before the paths
        #[arg(value_name = "NAME|PATH")]
        words: Vec<String>,
        /// Paths in the repositories
        #[arg(last = true, value_name = "PATH")]
        paths: Vec<String>,
        #[command(flatten)]
        on: On,
        /// What to say of it in the history
        #[arg(long, default_value = "")]
        comment: String,
    },
    /// Show what differs: the last change; between a revision and the current one; or between two
    Diff {
        /// Name of the device
        name: String,
        /// Id or number of the older revision
        from: Option<String>,
        /// Id or number of the newer one
        to: Option<String>,
    },
    /// List the revisions that are kept, newest first
    History {
        /// Name of the device
        name: String,
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the scripts what they were in an earlier revision: one new revision of each device
    Revert {
        /// Names of devices, and last the id of that revision or its number, which each device has its own of
        #[arg(required = true, value_name = "NAME|REVISION", num_args = 1..)]
        words: Vec<String>,
        #[command(flatten)]
        on: On,
        /// What to say of it in the history
        #[arg(long, default_value = "")]
        comment: String,
    },
}

#[derive(Args)]
#[command(
    override_usage = "poseidon scripts put [OPTIONS] NAME FILE…\n       poseidon scripts put [OPTIONS] NAME… -- FILE…\n       poseidon scripts put [OPTIONS] --on SELECTOR FILE…"
)]
struct Put {
    /// Name of the device, and files, which keep their name, or folders, whose files keep their path in them; several
    /// devices with `--` before the files
    #[arg(value_name = "NAME|FILE")]
    words: Vec<OsString>,
    /// Files or folders
    #[arg(last = true, value_name = "FILE")]
    files: Vec<OsString>,
    #[command(flatten)]
    on: On,
    /// Path in the repository: of a single file, or the folder that everything goes to
    #[arg(long = "as", value_name = "PATH")]
    path: Option<String>,
    /// Permissions, such as 0755; else 0755 for what is executable or begins with #!, and 0644
    #[arg(long, value_parser = mode)]
    mode: Option<u32>,
    /// What to say of it in the history
    #[arg(long, default_value = "")]
    comment: String,
    /// The repository has these files then, and no others
    #[arg(long)]
    prune: bool,
    /// Only if this is the id of the current revision
    #[arg(long, value_name = "REVISION")]
    parent: Option<String>,
    #[command(flatten)]
    patience: Patience,
}

fn mode(text: &str) -> Result<u32, String> {
    parse_mode(text)
}

/// Path of a repository's calls.
fn repository(name: &str) -> String {
    format!("/repositories/{}", segment(name))
}

/// Address of a script's content.
fn script(name: &str, path: &str, revision: Option<&str>) -> String {
    let parts: Vec<String> = path.split('/').map(segment).collect();
    let query = revision.map_or_else(String::new, |r| format!("?revision={}", segment(r)));
    format!("{}/files/{}{query}", repository(name), parts.join("/"))
}

/// A revision with its files; without one the current.
async fn revision(client: &Client, name: &str, which: Option<&str>) -> Result<Value, String> {
    let path = match which {
        Some(which) => format!("{}/revisions/{}", repository(name), segment(which)),
        None => repository(name),
    };
    client.get(&path).await
}

impl Scripts {
    pub(super) async fn run(self, client: &Client) -> Ended {
        match self.command {
            Command::Put(put) => put.run(client).await,
            Command::Ls {
                name,
                revision,
                json,
            } => ls(client, &name, revision.as_deref(), json).await,
            Command::Show {
                name,
                path,
                revision,
            } => {
                let path = script(&name, &path, revision.as_deref());
                client.copy(&path, &mut std::io::stdout()).await?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Rm {
                words,
                paths,
                on,
                comment,
            } => {
                let (names, paths) = on.apart(words, paths, "PATH")?;
                let names = on.names(client, names).await?;
                each(&names, async |name| {
                    rm(client, name, &paths, &comment).await
                })
                .await
            }
            Command::Diff { name, from, to } => diff::run(client, &name, from, to).await,
            Command::History { name, json } => history(client, &name, json).await,
            Command::Revert {
                mut words,
                on,
                comment,
            } => {
                let revision = on.last_words(&mut words, 1, "REVISION")?.concat();
                let names = on.names(client, words).await?;
                let body = json!({"revision": revision, "comment": comment});
                each(&names, async |name| {
                    let path = format!("{}/revert", repository(name));
                    let answer: Value = client.post(&path, &body).await?;
                    Ok(told(name, &answer))
                })
                .await
            }
        }
    }
}

async fn ls(client: &Client, name: &str, which: Option<&str>, json: bool) -> Ended {
    let found = revision(client, name, which).await?;
    if json {
        return print_json(&found);
    }
    if found["revision"].is_null() {
        return print("Nothing was put yet. Put scripts with: poseidon scripts put NAME FILE\n");
    }
    let rows: Vec<_> = rows(&found, "files")
        .map(|f| {
            vec![
                text(&f["path"]),
                text(&f["mode"]),
                bytes(&f["size"]),
                text(&f["sha256"]).chars().take(SHORT).collect(),
            ]
        })
        .collect();
    let head = format!(
        "Revision {} ({}), {}\n\n",
        text(&found["revision"]),
        text(&found["number"]),
        ago(&found["created"])
    );
    print(&(head + &table(&["PATH", "MODE", "SIZE", "SHA256"], &rows)))
}

async fn history(client: &Client, name: &str, json: bool) -> Ended {
    let answer: Value = client.get(&format!("{}/history", repository(name))).await?;
    if json {
        return print_json(&answer);
    }
    let rows: Vec<_> = rows(&answer, "revisions")
        .map(|r| {
            vec![
                text(&r["number"]),
                text(&r["revision"]),
                ago(&r["created"]),
                text(&r["files"]),
                bytes(&r["bytes"]),
                text(&r["comment"]),
            ]
        })
        .collect();
    if rows.is_empty() {
        return print("Nothing was put yet.\n");
    }
    let head = ["NUMBER", "REVISION", "MADE", "FILES", "SIZE", "COMMENT"];
    print(&table(&head, &rows))
}

impl Put {
    async fn run(self, client: &Client) -> Ended {
        let (names, files) = self.on.apart(self.words, self.files, "FILE")?;
        let names = names.into_iter().map(|name| {
            let name = name.into_string();
            name.map_err(|name| format!("{} is no name: it is not UTF-8", name.display()))
        });
        let names = self
            .on
            .names(client, names.collect::<Result<_, _>>()?)
            .await?;
        let files: Vec<PathBuf> = files.into_iter().map(PathBuf::from).collect();
        let (as_path, mode) = (self.path, self.mode);
        // Hashing reads all of it.
        let found =
            tokio::task::spawn_blocking(move || local::find(&files, as_path.as_deref(), mode));
        let (files, skipped) = found.await.map_err(|e| e.to_string())??;
        for path in skipped {
            let path = clean(&path.display().to_string());
            eprintln!("poseidon: {path} is left out: its name begins with a dot");
        }
        // Before anything is sent: what any of them lacks.
        let mut new = BTreeSet::new();
        for name in &names {
            let before = match revision(client, name, None).await {
                Ok(before) => before,
                Err(e) if names.len() == 1 => return Err(e),
                // It is told when its turn comes.
                Err(_) => continue,
            };
            let known: BTreeSet<&str> = rows(&before, "files")
                .filter_map(|f| f["sha256"].as_str())
                .collect();
            let hashes = files.iter().map(|f| f.sha256.as_str());
            new.extend(hashes.filter(|hash| !known.contains(hash)));
        }
        let new = files.iter().filter(|f| new.contains(f.sha256.as_str()));
        let sources = new.map(|f| Source::known(&f.sha256, f.size, f.from.clone()));
        let bars = Bars::new();
        Uploads::new(client, self.patience, &bars)
            .send(sources.collect())
            .await?;
        drop(bars);
        let change = |before: &Value| {
            let mut after = if self.prune {
                BTreeMap::new()
            } else {
                entries(before)
            };
            for file in &files {
                let mode = format!("{:04o}", file.mode);
                let entry = json!({"path": file.path, "sha256": file.sha256, "mode": mode});
                after.insert(file.path.clone(), entry);
            }
            Ok(after)
        };
        let parent = self.parent.as_deref();
        each(&names, async |name| {
            change_whole(client, name, &self.comment, parent, change).await
        })
        .await
    }
}

async fn rm(
    client: &Client,
    name: &str,
    paths: &[String],
    comment: &str,
) -> Result<String, String> {
    change_whole(client, name, comment, None, |before| {
        let mut after = entries(before);
        for path in paths {
            if after.remove(path).is_none() {
                return Err(format!(
                    "there is no script {} in the current revision of {}",
                    clean(path),
                    clean(name)
                ));
            }
        }
        Ok(after)
    })
    .await
}

/// The files of a revision by path, as they are sent for a new one.
fn entries(revision: &Value) -> BTreeMap<String, Value> {
    rows(revision, "files")
        .filter_map(|f| {
            let entry = json!({"path": f["path"], "sha256": f["sha256"], "mode": f["mode"]});
            Some((f["path"].as_str()?.to_owned(), entry))
        })
        .collect()
}

/// Makes a new revision of the current one, again where somebody else made one in between.
async fn change_whole(
    client: &Client,
    name: &str,
    comment: &str,
    parent: Option<&str>,
    change: impl Fn(&Value) -> Result<BTreeMap<String, Value>, String>,
) -> Result<String, String> {
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        let before = revision(client, name, None).await?;
        let files: Vec<Value> = change(&before)?.into_values().collect();
        let on_top = before["revision"].as_str().unwrap_or("");
        let body = json!({"files": files, "comment": comment, "parent": parent.unwrap_or(on_top)});
        match client.try_post::<Value>(&repository(name), &body).await {
            Ok(answer) => return Ok(told(name, &answer)),
            Err(failure) if failure.is_conflict() && parent.is_none() && left > 0 => {}
            Err(failure) => return Err(failure.into()),
        }
    }
}

/// What a change has done, in one line.
fn told(name: &str, answer: &Value) -> String {
    let now = &answer["repository"];
    let how = if answer["changed"] == true {
        "is now at"
    } else {
        "stays at"
    };
    let files = now["files"].as_array().map_or(0, Vec::len);
    let word = if files == 1 { "file" } else { "files" };
    if now["revision"].is_null() {
        return format!("{} has no scripts, as before\n", clean(name));
    }
    format!(
        "{} {how} revision {} ({}), {files} {word}\n",
        clean(name),
        text(&now["revision"]),
        text(&now["number"]),
    )
}
