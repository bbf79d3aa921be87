//! `poseidon ls`: what is in a folder of a device.

use super::client::{Client, Failure, segment};
use super::commands::{Ended, print, print_json};
use super::follow::{Away, Follower, News, Outage, Patience};
use super::jobs::outcome;
use super::place::{Place, interrupted};
use super::tables::{clean, text};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;
use triton::message::payload::{FILE_LIST, Stream};

/// Longest listing: 100,000 entries with long names.
const LIST_BYTES: usize = 64 << 20;

#[derive(Args)]
pub(super) struct Ls {
    /// The device, a colon and the path of a folder, a file or a link
    #[arg(value_name = "NAME:/PATH", value_parser = Place::parse)]
    place: Place,
    /// Mode, owner, group, size and time too
    #[arg(long, short)]
    long: bool,
    /// Print the entries as JSON
    #[arg(long)]
    json: bool,
    /// At most so many entries
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    limit: u32,
    #[command(flatten)]
    patience: Patience,
}

impl Ls {
    pub(super) async fn run(self, client: &Client) -> Result<ExitCode, String> {
        let [name] = self.place.names.as_slice() else {
            return Err("one device is named before the colon: NAME:/path".to_owned());
        };
        let path = match self.place.path.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        let id = ask(client, name, path, self.limit as usize).await?;
        let (mut entries, job) = tokio::select! {
            listed = listed(client, &id, self.patience) => listed?,
            code = interrupted() => {
                cancel(client, &[&id]).await;
                return Ok(ExitCode::from(code));
            }
        };
        if job["result"]["status"] != "succeeded" {
            return Err(format!("{}: {}", clean(name), outcome(&job)));
        }
        entries.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        if job["result"]["data"]["more"] == true {
            eprintln!(
                "poseidon: there are more than {} entries; --limit shows more",
                entries.len()
            );
        }
        self.show(&entries)
    }

    fn show(&self, entries: &[Value]) -> Ended {
        if self.json {
            return print_json(&json!(entries));
        }
        if !self.long {
            let names = entries.iter().fold(String::new(), |mut out, entry| {
                let _ = writeln!(out, "{}", text(&entry["name"]));
                out
            });
            return print(&names);
        }
        print(&long(entries))
    }
}

/// The entries of a folder, and the job that told them.
pub(super) async fn list(
    client: &Client,
    name: &str,
    path: &str,
    limit: usize,
    patience: Patience,
) -> Result<(Vec<Value>, Value), Failure> {
    let id = ask(client, name, path, limit).await?;
    listed(client, &id, patience).await
}

async fn ask(client: &Client, name: &str, path: &str, limit: usize) -> Result<String, Failure> {
    let payload = json!({"path": path, "limit": limit});
    let body = json!({"agents": [name], "type": FILE_LIST, "payload": payload});
    let answer: Value = client.try_post("/jobs", &body).await?;
    let jobs = answer["jobs"].as_array().map_or(&[][..], Vec::as_slice);
    let ids: Vec<&str> = jobs.iter().filter_map(|job| job["id"].as_str()).collect();
    let [id] = ids.as_slice() else {
        cancel(client, &ids).await;
        return Err(Failure::wrong(format!(
            "{} stands for {} devices: name one of them, NAME/INSTANCE",
            clean(name),
            ids.len()
        )));
    };
    Ok((*id).to_owned())
}

async fn listed(
    client: &Client,
    job: &str,
    patience: Patience,
) -> Result<(Vec<Value>, Value), Failure> {
    let outage = Outage::new(patience, Away::default());
    let mut follower = Follower::to_the_end(client, job, outage, true).await?;
    let mut lines = Vec::new();
    let mut end = Value::Null;
    while let Some((_, news)) = follower.next().await? {
        match news {
            News::Output {
                stream: Stream::Stdout,
                bytes,
                ..
            } => lines.extend_from_slice(&bytes),
            News::Gap { .. } => {
                return Err(Failure::wrong(
                    "a part of the listing was lost with a connection: try again",
                ));
            }
            News::End(job) => end = job,
            _ => {}
        }
        if lines.len() > LIST_BYTES {
            cancel(client, &[job]).await;
            return Err(Failure::wrong(format!(
                "the device's listing has more than {LIST_BYTES} bytes"
            )));
        }
    }
    let lines = lines.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let entries = lines.map(serde_json::from_slice).collect::<Result<_, _>>();
    let entries =
        entries.map_err(|e| Failure::wrong(format!("the device's listing cannot be read: {e}")))?;
    Ok((entries, end))
}

/// As `ls -l` has it.
fn long(entries: &[Value]) -> String {
    let rows: Vec<[String; 6]> = entries.iter().map(columns).collect();
    let width = |column: usize| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    };
    let widths = [width(1), width(2), width(3)];
    let mut out = String::new();
    for [mode, owner, group, size, time, name] in &rows {
        let _ = writeln!(
            out,
            "{mode} {owner:<0$} {group:<1$} {size:>2$} {time} {name}",
            widths[0], widths[1], widths[2]
        );
    }
    out
}

fn columns(entry: &Value) -> [String; 6] {
    let kind = match entry["type"].as_str() {
        Some("directory") => 'd',
        Some("symlink") => 'l',
        Some("fifo") => 'p',
        Some("socket") => 's',
        Some("device") => 'D',
        _ => '-',
    };
    let mode = entry["mode"].as_str().unwrap_or("");
    let mode = u32::from_str_radix(mode, 8).unwrap_or(0);
    let time = match entry["mtime"].as_f64() {
        Some(time) => triton::dates::utc(time.floor()),
        None => "-".to_owned(),
    };
    let name = match &entry["target"] {
        Value::String(target) => format!("{} -> {}", text(&entry["name"]), clean(target)),
        _ => text(&entry["name"]),
    };
    [
        format!("{kind}{}", permissions(mode)),
        text(&entry["owner"]),
        text(&entry["group"]),
        text(&entry["size"]),
        time,
        name,
    ]
}

/// `rwxr-xr-x`, with the bits of set-user-id, set-group-id and sticky.
fn permissions(mode: u32) -> String {
    let mut out = String::new();
    for (shift, special, letters) in [(6, 0o4000, "sS"), (3, 0o2000, "sS"), (0, 0o1000, "tT")] {
        let bits = mode >> shift;
        out.push(if bits & 4 == 0 { '-' } else { 'r' });
        out.push(if bits & 2 == 0 { '-' } else { 'w' });
        let runs = bits & 1 != 0;
        out.push(match (mode & special != 0, runs) {
            (true, true) => letters.chars().next().unwrap_or('s'),
            (true, false) => letters.chars().last().unwrap_or('S'),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    out
}

/// Nobody waits for these jobs. Where one has ended there is nothing to cancel.
pub(super) async fn cancel(client: &Client, jobs: &[&str]) {
    let all = jobs.iter().map(|job| async move {
        let path = format!("/jobs/{}/cancel", segment(job));
        if let Err(e) = client.post::<Value>(&path, &json!({})).await {
            log::info!("job {job} is not cancelled: {e}");
        }
    });
    futures_util::future::join_all(all).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_listing_looks_like_that_of_ls() {
        let entries = [
            json!({"name": "hosts", "type": "file", "size": 174, "mode": "0644", "owner": "root", "group": "root", "mtime": 0}),
            json!({"name": "su\u{1b}", "type": "symlink", "size": 7, "mode": "4755", "owner": "nobody", "group": 65534, "mtime": 86400.5, "target": "busybox"}),
        ];
        assert_eq!(
            long(&entries),
            "-rw-r--r-- root   root  174 1970-01-01T00:00:00Z hosts\n\
             lrwsr-xr-x nobody 65534   7 1970-01-02T00:00:00Z su\u{FFFD} -> busybox\n"
        );
        assert_eq!(permissions(0o1774), "rwxrwxr-T");
        assert_eq!(permissions(0o6777), "rwsrwsrwx");
    }
}
