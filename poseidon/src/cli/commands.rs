//! The commands that ask once and print the answer.

use super::client::{Client, segment};
use super::many::agents_path;
use super::tables::{ago, bytes, clean, percent, span, table, text};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

pub(super) type Ended = Result<ExitCode, String>;

#[derive(Args)]
pub(super) struct Register {
    /// The whole identifier; `-` reads it from standard input
    #[arg(required_unless_present = "identifier_file")]
    identifier: Option<String>,
    /// File with the identifier: there it does not show in the process list
    #[arg(long, value_name = "FILE", conflicts_with = "identifier")]
    identifier_file: Option<PathBuf>,
    /// What to call it
    #[arg(long)]
    name: Option<String>,
    /// Given to its agents; can be repeated; those of a known identifier stay where none is given
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = pair)]
    attributes: Vec<(String, String)>,
}

/// `KEY=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is expected".to_owned()),
    }
}

/// An object of such pairs; of several with one name the last one counts.
fn map(pairs: Vec<(String, String)>) -> Value {
    json!(pairs.into_iter().collect::<BTreeMap<_, _>>())
}

impl Register {
    pub(super) async fn run(self, client: &Client) -> Ended {
        let identifier = match (self.identifier.as_deref(), self.identifier_file) {
            (_, Some(path)) => std::fs::read_to_string(&path)
                .map_err(|e| format!("cannot read {}: {e}", path.display()))?,
            (Some("-"), None) => std::io::read_to_string(std::io::stdin())
                .map_err(|e| format!("cannot read standard input: {e}"))?,
            (identifier, None) => identifier.unwrap_or_default().to_owned(),
        };
        let mut body = json!({"identifier": identifier.trim()});
        if !self.attributes.is_empty() {
            body["attributes"] = map(self.attributes);
        }
        if let Some(name) = self.name {
            body["name"] = name.into();
        }
        let answer: Value = client.post("/identifiers", &body).await?;
        if let Some(warning) = answer["warning"].as_str() {
            eprintln!("poseidon: {}", clean(warning));
        }
        let identifier = &answer["identifier"];
        print(&format!(
            "registered {} as {}\n",
            text(&identifier["id"]),
            text(&identifier["name"])
        ))
    }
}

/// Prints all of it; a reader that has gone is no error.
pub(super) fn print(text: &str) -> Ended {
    say(text).map(|_| ExitCode::SUCCESS)
}

/// Prints text; false where nobody reads it any more.
pub(super) fn say(text: &str) -> Result<bool, String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(format!("cannot write to standard output: {e}")),
        Ok(()) => Ok(true),
    }
}

pub(super) fn print_json(value: &Value) -> Ended {
    print(&format!("{value:#}\n"))
}

pub(super) fn rows<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

/// Ids of the keys that were shown, to compare with `triton trust show`.
fn key_ids(pending: &Value) -> String {
    let ids: Vec<String> = rows(pending, "keyIds").map(text).collect();
    if ids.is_empty() {
        return "-".to_owned();
    }
    ids.join(" ")
}

pub(super) async fn pending(client: &Client, json: bool) -> Ended {
    let answer: Value = client.get("/pending").await?;
    if json {
        return print_json(&answer);
    }
    let rows: Vec<_> = rows(&answer, "pending")
        .map(|p| {
            vec![
                text(&p["id"]),
                text(&p["address"]),
                text(&p["agent"]),
                key_ids(p),
                text(&p["attempts"]),
                ago(&p["firstSeen"]),
                ago(&p["lastSeen"]),
            ]
        })
        .collect();
    if rows.is_empty() {
        return print("Nobody waits for approval.\n");
    }
    let head = [
        "ID",
        "ADDRESS",
        "AGENT",
        "KEY",
        "ATTEMPTS",
        "FIRST SEEN",
        "LAST SEEN",
    ];
    print(&(table(&head, &rows) + "\nLet one in with: poseidon approve ID --name NAME\n"))
}

pub(super) async fn approve(
    client: &Client,
    id: &str,
    name: Option<String>,
    attributes: Vec<(String, String)>,
    key: Option<String>,
    no_pin: bool,
) -> Ended {
    let mut body = json!({});
    if !attributes.is_empty() {
        body["attributes"] = map(attributes);
    }
    for (field, value) in [("name", name), ("key", key)] {
        if let Some(value) = value {
            body[field] = value.into();
        }
    }
    if no_pin {
        body["pin"] = false.into();
    }
    let path = format!("/pending/{}/approve", segment(id));
    let answer: Value = client.post(&path, &body).await?;
    let identifier = &answer["identifier"];
    print(&format!(
        "approved {} as {}; it gets in at its next retry\n",
        text(&identifier["id"]),
        text(&identifier["name"])
    ))
}

pub(super) async fn refuse(client: &Client, id: &str) -> Ended {
    let path = format!("/pending/{}/refuse", segment(id));
    let answer: Value = client.post(&path, &json!({})).await?;
    print(&format!("refused {}\n", text(&answer["identifier"]["id"])))
}

pub(super) async fn identifiers(client: &Client, json: bool) -> Ended {
    let answer: Value = client.get("/identifiers").await?;
    if json {
        return print_json(&answer);
    }
    let rows: Vec<_> = rows(&answer, "identifiers")
        .map(|i| {
            let attributes = i["attributes"].as_object().into_iter().flatten();
            let attributes: Vec<_> = attributes
                .map(|(key, value)| format!("{}={}", clean(key), text(value)))
                .collect();
            vec![
                text(&i["name"]),
                text(&i["id"]),
                text(&i["state"]),
                ago(&i["created"]),
                i["heartbeatSeconds"]
                    .as_u64()
                    .map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s")),
                attributes.join(" "),
            ]
        })
        .collect();
    print(&table(
        &["NAME", "ID", "STATE", "CREATED", "HEARTBEAT", "ATTRIBUTES"],
        &rows,
    ))
}

pub(super) async fn forget(
    client: &Client,
    name: Option<String>,
    identifier: Option<String>,
) -> Ended {
    let (path, what) = match (name, identifier) {
        (Some(name), _) => (format!("/agents/{}", segment(&name)), name),
        (None, id) => {
            let id = id.unwrap_or_default();
            (format!("/identifiers/{}", segment(&id)), id)
        }
    };
    client.delete(&path).await?;
    print(&format!("forgot {}\n", clean(&what)))
}

pub(super) async fn agents(client: &Client, on: &[String], json: bool) -> Ended {
    let path = if on.is_empty() {
        "/agents".to_owned()
    } else {
        agents_path(on, &[])
    };
    let answer: Value = client.get(&path).await?;
    if json {
        return print_json(&answer);
    }
    let all: Vec<&Value> = rows(&answer, "agents").collect();
    if all.is_empty() && !on.is_empty() {
        return print("No device is selected.\n");
    }
    if all.is_empty() {
        return print("No agent has connected yet. Those that wait: poseidon pending\n");
    }
    let rows: Vec<_> = all
        .iter()
        .map(|a| {
            let shared = all.iter().filter(|b| b["name"] == a["name"]).count() > 1;
            let name = text(&a["name"]);
            let name = if shared {
                let instance: String = text(&a["instance"]).chars().take(8).collect();
                format!("{name}/{instance}")
            } else {
                name
            };
            let (hello, health) = (&a["hello"], &a["health"]);
            vec![
                name,
                state(a),
                ago(&a["since"]),
                text(&a["address"]),
                system(hello),
                percent(&health["systemLoad"], &json!(1)),
                percent(
                    &health["physicalMemoryUsed"],
                    &health["physicalMemoryTotal"],
                ),
                fullest(health),
                ago(&a["lastSeen"]),
            ]
        })
        .collect();
    let head = [
        "NAME",
        "STATE",
        "SINCE",
        "ADDRESS",
        "SYSTEM",
        "CPU",
        "MEMORY",
        "DISK",
        "LAST SEEN",
    ];
    let mut out = table(&head, &rows);
    for agent in all.iter().filter(|a| a["collision"].is_object()) {
        let _ = writeln!(out, "\n{}", collision(agent));
    }
    for agent in all.iter().filter(|a| a["trust"]["untrusted"].is_object()) {
        let _ = writeln!(out, "\n{}", untrusted(agent));
    }
    print(&out)
}

/// What it means that two devices have one instance id, and what to do.
fn collision(agent: &Value) -> String {
    let other = &agent["collision"];
    format!(
        "Collision: two devices have the instance id of {name}/{instance}: the one at {address} (host {host}), and one at \
         {other_address} (host {other_host}), which is kept out (first seen {since}, last {last}). One is a copy of the \
         other's disk. On one of them stop triton, remove the file `instance` and the journal from its state folder, and \
         start it again.",
        name = text(&agent["name"]),
        instance = text(&agent["instance"]),
        address = text(&agent["address"]),
        host = text(&agent["hello"]["hostname"]),
        other_address = text(&other["address"]),
        other_host = text(&other["hostname"]),
        since = ago(&other["since"]),
        last = ago(&other["last"]),
    )
}

/// Who came under a device's name and was not believed, and what to do.
fn untrusted(agent: &Value) -> String {
    let other = &agent["trust"]["untrusted"];
    format!(
        "Untrusted: a device at {address} came as {name} and is kept out ({time}): {reason}. Compare with 'triton trust show' \
         at the device; 'poseidon trust ls {name}' tells more, 'poseidon trust accept {name} KEYID' lets it in.",
        address = text(&other["address"]),
        name = text(&agent["name"]),
        time = ago(&other["time"]),
        reason = text(&other["reason"]),
    )
}

fn state(agent: &Value) -> String {
    let mut state = text(&agent["state"]);
    if agent["collision"].is_object() {
        state.push_str(", collision");
    }
    if agent["trust"]["untrusted"].is_object() {
        state.push_str(", untrusted");
    }
    state
}

fn system(hello: &Value) -> String {
    match (&hello["os"], &hello["arch"]) {
        (Value::Null, Value::Null) => "-".to_owned(),
        (os, arch) => format!("{} {}", text(os), text(arch)),
    }
}

/// The file system with the least room.
fn fullest(health: &Value) -> String {
    rows(health, "fileSystems")
        .filter_map(|fs| {
            let (used, free) = (fs["spaceUsed"].as_f64()?, fs["spaceAvailable"].as_f64()?);
            (used + free > 0.0).then(|| (used / (used + free), fs))
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(
            || "-".to_owned(),
            |(share, fs)| format!("{:.0} % {}", share * 100.0, text(&fs["mount"])),
        )
}

pub(super) async fn show(client: &Client, name: &str, json: bool) -> Ended {
    let agent: Value = client.get(&format!("/agents/{}", segment(name))).await?;
    if json {
        return print_json(&agent);
    }
    let mut out = describe(&agent);
    if agent["collision"].is_object() {
        let _ = writeln!(out, "\n{}", collision(&agent));
    }
    if agent["trust"]["untrusted"].is_object() {
        let _ = writeln!(out, "\n{}", untrusted(&agent));
    }
    print(&out)
}

/// An agent on a few lines.
pub(crate) fn describe(agent: &Value) -> String {
    let (hello, health) = (&agent["hello"], &agent["health"]);
    let mut out = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(out, "{:<12}{value}", format!("{label}:"));
    };
    line("Name", text(&agent["name"]));
    line("Instance", text(&agent["instance"]));
    line("Identifier", text(&agent["identifier"]));
    line(
        "State",
        format!("{}, since {}", text(&agent["state"]), ago(&agent["since"])),
    );
    line(
        "Last seen",
        format!(
            "{} from {}",
            ago(&agent["lastSeen"]),
            text(&agent["address"])
        ),
    );
    if agent["plain"] == true {
        line(
            "Agent",
            "a plain Triton, which says nothing of itself".to_owned(),
        );
    } else {
        line(
            "Agent",
            format!("triton {}", text(&hello["agent"]["version"])),
        );
        line("Host", text(&hello["hostname"]));
        line(
            "System",
            format!("{}, kernel {}", system(hello), text(&hello["kernel"])),
        );
        if hello["through"].is_string() {
            line("Through", text(&hello["through"]));
        }
    }
    for (key, value) in agent["attributes"].as_object().into_iter().flatten() {
        line("Attribute", format!("{}={}", clean(key), text(value)));
    }
    if health.is_null() {
        line("Health", "none yet".to_owned());
        return out;
    }
    line("Health", format!("as of {}", ago(&agent["healthAt"])));
    if let Some(uptime) = health["uptime"].as_f64() {
        line("  Uptime", span(uptime));
    }
    let average: Vec<_> = rows(health, "loadAverage")
        .filter_map(Value::as_f64)
        .map(|n| format!("{n:.2}"))
        .collect();
    if !average.is_empty() {
        line("  Load", average.join(" "));
    }
    line("  CPU", percent(&health["systemLoad"], &json!(1)));
    line(
        "  Memory",
        format!(
            "{} of {} used",
            bytes(&health["physicalMemoryUsed"]),
            bytes(&health["physicalMemoryTotal"])
        ),
    );
    for fs in rows(health, "fileSystems") {
        line(
            "  Disk",
            format!(
                "{} ({}): {} of {} used, {} free",
                text(&fs["mount"]),
                text(&fs["type"]),
                bytes(&fs["spaceUsed"]),
                bytes(&fs["spaceTotal"]),
                bytes(&fs["spaceAvailable"])
            ),
        );
    }
    for interface in rows(health, "interfaces") {
        let addresses: Vec<_> = rows(interface, "addresses").map(text).collect();
        line(
            "  Network",
            format!(
                "{} {}: received {}, sent {}; {}",
                text(&interface["name"]),
                if interface["up"] == true {
                    "up"
                } else {
                    "down"
                },
                bytes(&interface["rxBytes"]),
                bytes(&interface["txBytes"]),
                addresses.join(" ")
            ),
        );
    }
    for sensor in rows(health, "temperatures") {
        line(
            "  Sensor",
            format!(
                "{}: {} °C",
                text(&sensor["label"]),
                text(&sensor["celsius"])
            ),
        );
    }
    out
}
