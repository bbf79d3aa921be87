//! `poseidon push`: a file or a folder onto devices.

mod tree;

use super::bars::Bars;
use super::client::{Client, Failure, segment};
use super::follow::{Away, Follower, News, Outage, Patience};
use super::jobs::outcome;
use super::length;
use super::ls::cancel;
use super::once::Once;
use super::place::{Place, devices, interrupted};
use super::run::not_started;
use super::tables::{bytes, clean, text};
use super::upload::{Source, Uploads};
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::task::JoinSet;
use tree::Tree;
use triton::message::payload::{DIRECTORY_PUT, FILE_PUT, Progress};

/// A list of entries that is longer travels by a ref: the request is stored with the job of each device.
const INLINE: usize = 8 << 10;

#[derive(Args)]
// Each is a flag of the command line, on or off by itself.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Push {
    /// File or folder
    #[arg(value_name = "FILE|DIR")]
    source: PathBuf,
    /// Where it goes, on which devices; a slash at the end means into that folder
    #[arg(required = true, value_name = "NAME,NAME:/PATH", value_parser = Place::parse)]
    places: Vec<Place>,
    /// Devices by a selector, such as label.site=attic; then the place is :/path. Can be repeated
    #[arg(long, value_name = "SELECTOR")]
    on: Vec<String>,
    /// Permissions of a file, such as 0640; those of a folder's files are as they are here
    #[arg(long, value_name = "OCTAL", value_parser = mode)]
    mode: Option<String>,
    /// Owner there, a name or a number; of a folder all that is in it, and not the folder itself
    #[arg(long)]
    owner: Option<String>,
    /// Group there, a name or a number; of a folder all that is in it, and not the folder itself
    #[arg(long)]
    group: Option<String>,
    /// Leave a file as it is that has the content already
    #[arg(long)]
    if_changed: bool,
    /// Make missing folders on the way to a file; where a folder is pushed to, only its own name may be missing
    #[arg(long)]
    parents: bool,
    /// Delete what is in the folder there and not here
    #[arg(long)]
    prune: bool,
    /// End it after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// Let the job wait for devices that are down: they get it when they are back
    #[arg(long)]
    queue: bool,
    /// A job that waited for so long is not carried out any more: 90s, 15m, 12h, 3d
    #[arg(long, requires = "queue", value_name = "DURATION", default_value = "24h", value_parser = length)]
    expires: Duration,
    #[command(flatten)]
    patience: Patience,
}

fn mode(text: &str) -> Result<String, String> {
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    if digits {
        Ok(text.to_owned())
    } else {
        Err("three or four octal digits are expected, such as 0644".to_owned())
    }
}

impl Push {
    pub(super) async fn run(self, client: &Client) -> Result<ExitCode, String> {
        if !self.on.is_empty() && self.places.iter().any(|place| !place.names.is_empty()) {
            return Err("either --on says which devices, and the place is :/path, or names before the colon do".to_owned());
        }
        if self.on.is_empty() && self.places.iter().any(|place| place.names.is_empty()) {
            return Err("no device is named before the colon: NAME:/path".to_owned());
        }
        let selected = match self.on.as_slice() {
            [] => Vec::new(),
            on => selected(client, on).await?,
        };
        let bars = Bars::new();
        let order = tokio::select! {
            order = self.order(client, &bars) => order?,
            code = interrupted() => return Ok(ExitCode::from(code)),
        };
        let mut jobs = Vec::new();
        for place in &self.places {
            let names = match place.names.as_slice() {
                [] => &selected,
                names => names,
            };
            let ended = match self.start(client, names, place, &order).await {
                Ok(Ok(more)) => {
                    jobs.extend(more);
                    continue;
                }
                Ok(Err(code)) => Ok(code),
                Err(e) => Err(e),
            };
            cancel(client, &ids(&jobs)).await;
            return ended;
        }
        tokio::select! {
            code = self.follow(client, &jobs, &bars) => code,
            code = interrupted() => {
                eprintln!("poseidon: cancelling");
                cancel(client, &ids(&jobs)).await;
                Ok(ExitCode::from(code))
            }
        }
    }

    /// Looks at the source, and brings to the server what it does not have.
    async fn order(&self, client: &Client, bars: &Bars) -> Result<Order, String> {
        let source = &self.source;
        let failed = |e: std::io::Error| format!("cannot read {}: {e}", source.display());
        // Named by the user, so a link is followed.
        let real = std::fs::canonicalize(source).map_err(failed)?;
        let name = source
            .file_name()
            .or_else(|| real.file_name())
            .and_then(|name| name.to_str())
            .ok_or_else(|| format!("{} has no name that can be sent", source.display()))?
            .to_owned();
        let metadata = std::fs::metadata(&real).map_err(failed)?;
        let mut uploads = Uploads::new(client, self.patience, bars);
        let mut payload = Map::new();
        if let Some(seconds) = self.timeout {
            payload.insert("timeoutSeconds".to_owned(), json!(seconds));
        }
        let kind = if metadata.is_dir() {
            let options = [("--mode", self.mode.is_some()), ("--parents", self.parents)];
            self.not_for("a folder", &options)?;
            let tree = Tree::read(&real)?;
            let mut entries = tree.hash(bars).await?;
            for entry in &mut entries {
                self.add_owner(entry);
            }
            uploads.send(tree.sources(&entries)).await?;
            let list = Value::Array(entries).to_string();
            if list.len() > INLINE {
                let manifest = Source::of_bytes(list.into_bytes());
                let named = manifest.named();
                uploads.send(vec![manifest]).await?;
                payload.insert("manifest".to_owned(), Value::Object(named));
            } else {
                let entries = serde_json::from_str(&list).unwrap_or_default();
                payload.insert("entries".to_owned(), entries);
            }
            payload.insert("prune".to_owned(), self.prune.into());
            DIRECTORY_PUT
        } else if metadata.is_file() {
            self.not_for("a file", &[("--prune", self.prune)])?;
            let file = Source::of_file(&real, bars).await?;
            payload.extend(file.named());
            uploads.send(vec![file]).await?;
            let mut fields = json!({"ifChanged": self.if_changed, "parents": self.parents});
            if let Some(mode) = &self.mode {
                fields["mode"] = mode.clone().into();
            }
            self.add_owner(&mut fields);
            if let Value::Object(fields) = fields {
                payload.extend(fields);
            }
            FILE_PUT
        } else {
            return Err(format!(
                "{} is neither a file nor a folder, and nothing else is pushed",
                source.display()
            ));
        };
        Ok(Order {
            kind,
            payload,
            name,
        })
    }

    fn not_for(&self, what: &str, options: &[(&str, bool)]) -> Result<(), String> {
        match options.iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(format!(
                "{option} is not for {what}, which {} is",
                self.source.display()
            )),
            None => Ok(()),
        }
    }

    fn add_owner(&self, entry: &mut Value) {
        for (field, value) in [("owner", &self.owner), ("group", &self.group)] {
            if let Some(value) = value {
                entry[field] = value.clone().into();
            }
        }
    }

    async fn start(
        &self,
        client: &Client,
        names: &[String],
        place: &Place,
        order: &Order,
    ) -> Result<Result<Vec<Value>, ExitCode>, String> {
        let mut payload = order.payload.clone();
        payload.insert("path".to_owned(), place.path_for(&order.name).into());
        let mut body = json!({"agents": names, "type": order.kind, "payload": payload});
        if self.queue {
            body["queue"] = json!(true);
            body["expiresSeconds"] = json!(self.expires.as_secs());
        }
        let once = Once::jobs(body);
        let answer = once.send_until(client, self.patience, interrupted).await;
        let answer = answer.map_err(|e| not_started(&e, !self.queue))?;
        Ok(answer.map(|answer| answer["jobs"].as_array().cloned().unwrap_or_default()))
    }

    /// A bar for each device, and a line at its end.
    async fn follow(
        &self,
        client: &Client,
        jobs: &[Value],
        bars: &Bars,
    ) -> Result<ExitCode, String> {
        let away = Away::default();
        let mut all = JoinSet::new();
        for (index, (job, name)) in jobs.iter().zip(devices(jobs)).enumerate() {
            if job["state"] == "queued" {
                let id = text(&job["id"]);
                bars.say(&format!("{name}: is down, job {id} waits for it"));
                continue;
            }
            let (client, id) = (client.clone(), job["id"].as_str().unwrap_or("").to_owned());
            let outage = Outage::new(self.patience, away.clone());
            let mut bar = bars.of_percent(&name, index);
            all.spawn(async move {
                let step = |percent: u64, message: &str| bar.set(percent, message);
                let end = end_of(&client, &id, outage, step).await;
                (name, end)
            });
        }
        let mut code = ExitCode::SUCCESS;
        while let Some(ended) = all.join_next().await {
            let (name, end) = ended.map_err(|e| e.to_string())?;
            let (line, good) = match end {
                Ok(job) => (said(&job), job["result"]["status"] == "succeeded"),
                Err(e) => (
                    format!("{e}; 'poseidon jobs' tells what became of it"),
                    false,
                ),
            };
            bars.say(&format!("{name}: {line}"));
            if !good {
                code = ExitCode::FAILURE;
            }
        }
        Ok(code)
    }
}

/// The devices that selectors mean.
async fn selected(client: &Client, on: &[String]) -> Result<Vec<String>, String> {
    let terms: Vec<_> = on.iter().map(|on| format!("on={}", segment(on))).collect();
    let path = format!("/agents?brief=true&{}", terms.join("&"));
    let answer: Value = client.get(&path).await?;
    let agents = answer["agents"].as_array().map_or(&[][..], Vec::as_slice);
    // A server that knows no selectors would mean all of them.
    if agents.iter().any(|agent| !agent["identifier"].is_null()) {
        return Err("this server knows no selectors: name the devices".to_owned());
    }
    if agents.is_empty() {
        return Err("no device fits --on".to_owned());
    }
    let name = |agent: &Value| {
        let field = |name: &str| agent[name].as_str().unwrap_or("").to_owned();
        format!("{}/{}", field("name"), field("instance"))
    };
    Ok(agents.iter().map(name).collect())
}

/// What each device is asked for, but for the path.
struct Order {
    kind: &'static str,
    payload: Map<String, Value>,
    /// What the source is called.
    name: String,
}

fn ids(jobs: &[Value]) -> Vec<&str> {
    jobs.iter().filter_map(|job| job["id"].as_str()).collect()
}

/// Follows a job to its end; `step` is told how far it is.
async fn end_of(
    client: &Client,
    id: &str,
    outage: Outage,
    mut step: impl FnMut(u64, &str),
) -> Result<Value, Failure> {
    let mut follower = Follower::to_the_end(client, id, outage, true).await?;
    while let Some((_, news)) = follower.next().await? {
        match news {
            News::End(job) => return Ok(job),
            News::Progress(Progress { percent, message }) => {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let percent = percent.clamp(0.0, 100.0) as u64;
                step(percent, &clean(&message));
            }
            News::Output { .. } | News::Gap { .. } | News::Other => {}
        }
    }
    Err(Failure::wrong("the output ended before the job did"))
}

/// What became of it, in one line.
fn said(job: &Value) -> String {
    let data = &job["result"]["data"];
    let path = text(&data["path"]);
    if job["result"]["status"] != "succeeded" {
        let why = match job["result"]["message"].as_str() {
            Some(message) => format!(": {}", clean(message)),
            None => String::new(),
        };
        return outcome(job) + &why;
    }
    if data["files"].is_number() {
        return format!(
            "{path}: {} files, {} changed, {} removed, {}",
            text(&data["files"]),
            text(&data["changed"]),
            text(&data["removed"]),
            bytes(&data["bytes"])
        );
    }
    let how = match (&data["changed"], data["resumed"].as_u64()) {
        (Value::Bool(false), _) => "has it already".to_owned(),
        (_, Some(resumed)) if resumed > 0 => {
            format!("written, {} were there before", bytes(&data["resumed"]))
        }
        _ => "written".to_owned(),
    };
    format!("{path}: {}, {how}", bytes(&data["size"]))
}
