//! `poseidon schedule`: what devices run by their own clocks.

use super::client::{Client, Failure, segment};
use super::commands::{Ended, print, print_json, rows};
use super::each::{On, each};
use super::tables::{ago, clean, cut, table, text};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use triton::dates;

/// Longest file: what a device takes, with comments.
const FILE_LIMIT: u64 = 1 << 20;
/// How long a device that is up may take to say whether it takes what was set.
const ANSWER: Duration = Duration::from_secs(2);
/// Between two looks at that.
const LOOK: Duration = Duration::from_millis(100);
/// Times that a change is made anew because somebody else was faster.
const TRIES: u32 = 5;
/// Longest cell of a table, in characters.
const CELL: usize = 60;

#[derive(Args)]
pub(super) struct Schedule {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set what devices run: all entries, in place of those that Poseidon has set before. Ends with 1 where a device that is up
    /// says within 2 s that it does not take them
    Set(Set),
    /// Show what Poseidon has set for a device, and what the device says of it: next and last runs
    Ls {
        /// Name of the device
        name: String,
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
    },
    /// Take one entry away from a device, or all; those of its own configuration stay
    Rm {
        /// Name of the device
        name: String,
        /// Name of the entry; without it, all
        entry: Option<String>,
    },
}

#[derive(Args)]
struct Set {
    /// Names of devices, and last the file: sections [schedule.NAME] as in the agent's configuration, or JSON,
    /// {"entries":[…]} as in `schedule.set`; `-` reads standard input
    #[arg(required = true, value_name = "NAME|FILE", num_args = 1..)]
    words: Vec<String>,
    #[command(flatten)]
    on: On,
}

fn path(name: &str) -> String {
    format!("/schedules/{}", segment(name))
}

impl Schedule {
    pub(super) async fn run(self, client: &Client) -> Ended {
        match self.command {
            Command::Set(set) => set.run(client).await,
            Command::Ls { name, json } => ls(client, &name, json).await,
            Command::Rm { name, entry: None } => {
                let answer = client.delete(&path(&name)).await?;
                told(client, vec![answer]).await
            }
            Command::Rm {
                name,
                entry: Some(entry),
            } => remove(client, &name, &entry).await,
        }
    }
}

impl Set {
    async fn run(mut self, client: &Client) -> Ended {
        let file = self.on.last_words(&mut self.words, 1, "FILE")?;
        let entries = read(&file.concat())?;
        let names = self.on.names(client, self.words).await?;
        let body = json!({ "entries": entries }).to_string();
        let mut answers = Vec::new();
        let set = each(&names, async |name| {
            answers.push(client.put::<Value>(&path(name), body.clone()).await?);
            Ok(String::new())
        });
        let set = set.await;
        // All together wait for what the devices say.
        let code = told(client, answers).await?;
        set.map(|_| code)
    }
}

/// Prints what became of changes, and what the devices that are up say to them; 1 where one of them refuses.
async fn told(client: &Client, mut answers: Vec<Value>) -> Ended {
    let until = Instant::now() + ANSWER;
    loop {
        let mut open = answers.iter_mut().filter(|a| waited_for(a)).peekable();
        if open.peek().is_none() || Instant::now() >= until {
            break;
        }
        sleep(LOOK).await;
        for answer in open {
            let name = answer["schedule"]["name"].as_str().unwrap_or_default();
            // What was set is set: only what the device says to it stays unknown.
            let Ok(Ok(now)) = timeout_at(until, client.get::<Value>(&path(name))).await else {
                break;
            };
            // Another change has overtaken this one: what is said from now on is said to that.
            if now["revision"] == answer["schedule"]["revision"] {
                answer["schedule"]["devices"] = now["devices"].clone();
            }
        }
    }
    let mut code = ExitCode::SUCCESS;
    for answer in &answers {
        print(&said(answer))?;
        let schedule = &answer["schedule"];
        for device in rows(schedule, "devices") {
            if let Some(problem) = device["problem"].as_str() {
                let name = called(schedule, device);
                eprintln!("poseidon: {name} did not take it: {}", clean(problem));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// Whether a device that is up has not said yet whether it takes a change.
fn waited_for(answer: &Value) -> bool {
    let schedule = &answer["schedule"];
    rows(schedule, "devices").any(|device| {
        device["state"] == "up"
            && device["problem"].is_null()
            && device["revision"] != schedule["revision"]
    })
}

/// A device's name; with its instance where there are several.
fn called(schedule: &Value, device: &Value) -> String {
    let name = text(&schedule["name"]);
    if rows(schedule, "devices").count() < 2 {
        return name;
    }
    let instance: String = text(&device["instance"]).chars().take(8).collect();
    format!("{name}/{instance}")
}

/// What became of a change, in one line.
fn said(answer: &Value) -> String {
    let schedule = &answer["schedule"];
    let (name, revision) = (text(&schedule["name"]), text(&schedule["revision"]));
    let count = rows(schedule, "entries").count();
    let entries = if count == 1 { "entry" } else { "entries" };
    let how = if waited_for(answer) {
        "; whether the device takes it is not known yet, 'poseidon schedule ls' tells"
    } else if answer["changed"] != true {
        ", as before"
    } else if rows(schedule, "devices").any(|d| d["state"] == "up") {
        ""
    } else {
        "; the device gets it when it comes"
    };
    format!("{name} has {count} {entries}, revision {revision}{how}\n")
}

/// The entries of a file, checked as a device checks them.
fn read(file: &str) -> Result<Vec<Value>, String> {
    let mut written = String::new();
    let what = if file == "-" { "standard input" } else { file };
    let from: Box<dyn std::io::Read> = if file == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(file).map_err(|e| format!("cannot read {file}: {e}"))?)
    };
    from.take(FILE_LIMIT + 1)
        .read_to_string(&mut written)
        .map_err(|e| format!("cannot read {what}: {e}"))?;
    if written.len() as u64 > FILE_LIMIT {
        return Err(format!("{what} has more than {FILE_LIMIT} bytes"));
    }
    let entries = parse(&written).map_err(|e| format!("{what}: {e}"))?;
    let set = json!({ "revision": "", "entries": entries });
    triton::schedule::check(&set).map_err(|e| format!("{what}: {e}"))?;
    Ok(entries)
}

fn parse(written: &str) -> Result<Vec<Value>, String> {
    if !written.trim_start().starts_with(['{', '[']) || is_section(written) {
        return triton::config::schedule_entries(written).map_err(|e| format!("line {e}"));
    }
    let read: Value = serde_json::from_str(written).map_err(|e| e.to_string())?;
    let entries = match read {
        Value::Object(mut fields) => {
            // What the device said, or the API, is taken as it is.
            let entries = fields.remove("entries");
            entries.ok_or("there is no field `entries`")?
        }
        entries => entries,
    };
    match entries {
        Value::Array(entries) => Ok(entries),
        _ => Err("entries is no list".to_owned()),
    }
}

/// `[schedule.NAME]` begins as a list of JSON does.
fn is_section(written: &str) -> bool {
    let begin = written.trim_start().strip_prefix('[').unwrap_or_default();
    begin
        .trim_start_matches([' ', '\t', '[', '"', '\''])
        .starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Made on what is there; anew where somebody else was faster.
async fn remove(client: &Client, name: &str, entry: &str) -> Ended {
    let mut tries = 0;
    loop {
        let schedule: Value = client.get(&path(name)).await?;
        let all: Vec<&Value> = rows(&schedule, "entries").collect();
        let rest: Vec<&Value> = all.iter().copied().filter(|e| e["name"] != entry).collect();
        if rest.len() == all.len() {
            return Err(format!(
                "Poseidon has set no entry {entry} for {name}; list them with: poseidon schedule ls {name}"
            ));
        }
        let body = json!({ "entries": rest, "parent": schedule["revision"] }).to_string();
        match client.try_put::<Value>(&path(name), body).await {
            Ok(answer) => return told(client, vec![answer]).await,
            Err(failure) if failure.is_conflict() && tries < TRIES => tries += 1,
            Err(failure) => return Err(failure.into()),
        }
    }
}

async fn ls(client: &Client, name: &str, json: bool) -> Ended {
    let schedule: Value = client.get(&path(name)).await?;
    let mut devices = Vec::new();
    for device in rows(&schedule, "devices") {
        let mut device = device.clone();
        if device["state"] == "up" && !device["revision"].is_null() {
            let instance = device["instance"].as_str().unwrap_or_default();
            let path = format!(
                "/agents/{}/schedule",
                segment(&format!("{name}/{instance}"))
            );
            match client.try_get::<Value>(&path).await {
                Ok(list) => device["schedule"] = list,
                Err(failure) => device["error"] = Failure::to_string(&failure).into(),
            }
        }
        devices.push(device);
    }
    if json {
        let mut schedule = schedule;
        schedule["devices"] = devices.into();
        return print_json(&schedule);
    }
    let mut out = stored(&schedule);
    for device in &devices {
        out.push('\n');
        out.push_str(&of_device(&schedule, device));
    }
    print(&out)
}

/// What Poseidon has set.
fn stored(schedule: &Value) -> String {
    let name = text(&schedule["name"]);
    let entries: Vec<_> = rows(schedule, "entries").map(row).collect();
    if schedule["revision"].is_null() {
        return format!(
            "Poseidon has set nothing for {name}. Set something with: poseidon schedule set {name} FILE\n"
        );
    }
    let mut out = format!(
        "{name}: revision {}, set {}\n",
        text(&schedule["revision"]),
        ago(&schedule["changed"])
    );
    if entries.is_empty() {
        out.push_str("Nothing is to run.\n");
    } else {
        out.push_str(&table(&["NAME", "CRON", "RUNS", "MORE"], &entries));
    }
    out
}

/// An entry in four cells.
fn row(entry: &Value) -> Vec<String> {
    let words = |list: &Value| {
        let words = list.as_array().into_iter().flatten();
        words.map(text).collect::<Vec<_>>().join(" ")
    };
    let runs = match entry["script"].as_str() {
        Some(script) => format!("script {} {}", clean(script), words(&entry["args"])),
        None if entry["command"].is_array() => words(&entry["command"]),
        None => text(&entry["shell"]),
    };
    let mut cron = text(&entry["cron"]);
    if let Some(zone) = entry["timeZone"].as_str() {
        let _ = write!(cron, " {}", clean(zone));
    }
    let mut more = Vec::new();
    for (field, value) in entry.as_object().into_iter().flatten() {
        if !matches!(
            field.as_str(),
            "name" | "cron" | "timeZone" | "script" | "args" | "command" | "shell"
        ) && !value.is_null()
        {
            more.push(clean(&format!("{field}={value}")));
        }
    }
    vec![
        text(&entry["name"]),
        cron,
        cut(runs.trim(), CELL),
        cut(&more.join(" "), CELL),
    ]
}

/// What a device says. Times are in UTC, as in the history.
fn of_device(schedule: &Value, device: &Value) -> String {
    let instance: String = text(&device["instance"]).chars().take(8).collect();
    let mut out = format!("{}/{instance}", text(&schedule["name"]));
    let list = &device["schedule"];
    if device["state"] != "up" {
        out.push_str(" is down: what it has is not known\n");
        return out;
    }
    if let Some(problem) = device["problem"].as_str() {
        let _ = writeln!(out, " did not take it: {}", clean(problem));
    } else if schedule["revision"].is_null() || device["revision"] == schedule["revision"] {
        out.push_str(" is up\n");
    } else {
        out.push_str(" is about to get it\n");
    }
    if let Some(error) = device["error"].as_str() {
        let _ = writeln!(out, "It does not say what it runs: {}", clean(error));
        return out;
    }
    if list.is_null() {
        return out;
    }
    let time = |value: &Value| value.as_f64().map(dates::utc);
    let rows: Vec<_> = rows(list, "entries")
        .map(|entry| {
            let next = match (time(&entry["next"]), entry["enabled"].as_bool()) {
                (_, Some(false)) => "off".to_owned(),
                _ if !entry["problem"].is_null() => "never".to_owned(),
                (Some(next), _) => next,
                (None, _) => "-".to_owned(),
            };
            let status = match entry["running"].as_u64() {
                _ if !entry["problem"].is_null() => text(&entry["problem"]),
                Some(count) if count > 0 => format!("running ({count})"),
                _ if entry["waiting"] == true => "waiting".to_owned(),
                _ => text(&entry["last"]["status"]),
            };
            let before = time(&entry["last"]["time"]).unwrap_or_else(|| "-".to_owned());
            vec![
                text(&entry["name"]),
                text(&entry["source"]),
                next,
                before,
                status,
            ]
        })
        .collect();
    if rows.is_empty() {
        out.push_str("Nothing is scheduled there.\n");
    } else {
        let head = ["NAME", "SOURCE", "NEXT", "LAST", "STATUS"];
        out.push_str(&table(&head, &rows));
    }
    if let Some(problem) = list["problem"].as_str() {
        let _ = writeln!(out, "problem: {}", clean(problem));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_toml_or_json() {
        let json = r#"[{"name": "a", "cron": "@daily", "shell": "true", "timeZone": "UTC"}]"#;
        let expected: Vec<Value> = serde_json::from_str(json).unwrap();
        for written in [
            json.to_owned(),
            format!("{{\"revision\": \"x\", \"entries\": {json}}}"),
            "# nightly\n[schedule.a]\ncron = \"@daily\"\nshell = \"true\"\ntime_zone = \"UTC\"\n"
                .to_owned(),
            "[schedule.a]\ncron = \"@daily\"\nshell = \"true\"\ntime_zone = \"UTC\"\n".to_owned(),
            "[ schedule . \"a\" ]\ncron = \"@daily\"\nshell = \"true\"\ntime_zone = \"UTC\"\n"
                .to_owned(),
        ] {
            assert_eq!(parse(&written).unwrap(), expected, "{written}");
        }
        assert_eq!(parse("[]").unwrap(), Vec::<Value>::new());
        assert_eq!(parse("").unwrap(), Vec::<Value>::new());
        for (written, why) in [
            (
                "[schedule.a]\ncron = \"61 * * * *\"\nshell = \"x\"\n",
                "line 2: schedule.a: cron: ",
            ),
            (
                "[schedule.a]\ncron = \"@daily\"\nfoo = 1\n",
                "line 3: schedule.a: `foo` is no field",
            ),
            ("[jobs]\nworkers = 3\n", "line 1: [jobs] is no section"),
            ("url = \"x\"\n", "line 1: url: expected a table"),
            ("[schedule.a\n", "line 1: "),
            ("{\"entries\": 3}", "no list"),
            ("{}", "no field `entries`"),
            ("{", "EOF"),
        ] {
            let error = parse(written).unwrap_err();
            assert!(error.contains(why), "{written}: {error}");
        }
    }
}
