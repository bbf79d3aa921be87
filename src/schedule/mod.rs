//! Schedules: what the device runs by its own clock, connected or not (`docs/protocol.md` section 6).
//!
//! Entries come from Poseidon (`schedule.set`, kept in STATE/schedule.json) and from the device's configuration. `cron`
//! says which local times fit, `zone` and `next` make points in time of them, `progress` decides what is due, has
//! been missed or had its turn, and `run` is the thread that hands it to the pool as jobs. A schedule without entries
//! has no thread.
//!
//! **At most once.** What had its turn is in STATE/schedule-times.json, written and synced before the run; and the
//! token of a run is made of its entry and its time, so that the journal refuses it a second time as well.

mod cron;
mod entry;
mod next;
mod posix;
mod progress;
mod run;
#[cfg(test)]
mod tests;
mod tzif;
mod zone;

pub use entry::{Entry, Fault, by_snake, from_xml, snake, snake_of};
pub(crate) use zone::Zone;

use crate::job::{Holds, Origin, Pool, Request, Work};
use crate::journal::Journal;
use crate::journal::store::{Counts, Directory, replace};
use crate::message::payload::{self, ErrorCode};
use crate::outbox::Outbox;
use crate::scripts::Repository;
use crate::service::watchdog::{Part, Pulse};
use crate::sys::clock;
use crate::sys::wake::Wake;
use crate::thread::{Crew, SMALL_STACK};
use cron::When;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Most entries that Poseidon may set, and of the configuration.
pub const ENTRIES: usize = 256;
/// Longest revision, in bytes.
const REVISION_LIMIT: usize = 64;
/// Longest of the files, in bytes; the entries of Poseidon have to fit it.
const FILE_LIMIT: usize = 256 * 1024;
/// What Poseidon has set.
const SET: &str = "schedule.json";
/// What has become of the times of all entries.
const TIMES: &str = "schedule-times.json";

/// Who an entry comes from.
const POSEIDON: &str = "poseidon";
const CONFIG: &str = "config";

/// What the scheduler works with.
pub struct Settings {
    /// The agent's own folder.
    pub state: PathBuf,
    /// The entries of the configuration.
    pub entries: Vec<Arc<Entry>>,
    /// Makes the jitter another one on each device.
    pub seed: String,
    /// Jobs that run at once, of which runs take all but one.
    pub workers: usize,
    #[allow(missing_docs)]
    pub pool: Arc<Pool>,
    #[allow(missing_docs)]
    pub scripts: Arc<Repository>,
    #[allow(missing_docs)]
    pub journal: Arc<Journal>,
    #[allow(missing_docs)]
    pub crew: Crew,
    /// Asked where Poseidon sets an entry, and before each run of it: whether what acts on it is there and not switched
    /// off. A schedule is no way round that.
    pub works: Permit,
    /// Asked before each run of an entry that Poseidon has set.
    pub permit: Permit,
}

/// Whether an entry may run.
pub type Permit = Box<dyn Fn(&Entry) -> Result<(), payload::Error> + Send + Sync>;

/// Knows the entries, and runs them by its thread.
pub struct Scheduler {
    desk: Mutex<Desk>,
    /// Rung when the thread should look at the desk.
    wake: Wake,
    pulse: Pulse,
    folder: Arc<Directory>,
    seed: String,
    workers: usize,
    pool: Arc<Pool>,
    scripts: Arc<Repository>,
    journal: Arc<Journal>,
    crew: Crew,
    works: Permit,
    permit: Permit,
}

#[derive(Default)]
struct Desk {
    configured: Vec<Arc<Entry>>,
    set: Vec<Arc<Entry>>,
    revision: String,
    /// Why what Poseidon had set is not there.
    lost: Option<String>,
    /// What else is wrong.
    trouble: Option<String>,
    /// Grows with each change of the entries.
    generation: u32,
    /// Entries are being set.
    setting: bool,
    stop: bool,
    thread: Option<JoinHandle<()>>,
    /// Whether the thread lives, or is about to.
    runs: bool,
    /// The entries as they are listed.
    shown: Vec<Value>,
}

impl Scheduler {
    /// Loads what Poseidon has set. A file that cannot be used is said, and costs nothing else.
    pub fn new(settings: Settings) -> io::Result<Arc<Self>> {
        let mut desk = Desk {
            configured: settings.entries,
            ..Desk::default()
        };
        let path = settings.state.join(SET);
        match load(&path).and_then(|file| file.map(|file| read_set(&file)).transpose()) {
            Ok(None) => {}
            Ok(Some((revision, set))) => (desk.revision, desk.set) = (revision, set),
            Err(why) => {
                let why = format!(
                    "{} cannot be used, so what Poseidon had set does not run until it sets it again: {why}",
                    path.display()
                );
                log::error!("schedule: {why}");
                desk.lost = Some(why);
            }
        }
        let scheduler = Arc::new(Self {
            desk: Mutex::new(desk),
            wake: Wake::new()?,
            pulse: Pulse::default(),
            folder: Directory::new(&settings.state, false),
            seed: settings.seed,
            workers: settings.workers,
            pool: settings.pool,
            scripts: settings.scripts,
            journal: settings.journal,
            crew: settings.crew,
            works: settings.works,
            permit: settings.permit,
        });
        scheduler.ensure_thread(true);
        Ok(scheduler)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Each change under the lock is complete in itself: what a panicked thread leaves is sound.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread where there is work for it and none lives. `first`: the agent starts.
    fn ensure_thread(self: &Arc<Self>, first: bool) {
        let mut desk = self.desk();
        if desk.stop || desk.runs || desk.set.is_empty() && desk.configured.is_empty() {
            drop(desk);
            self.wake.ring();
            return;
        }
        desk.runs = true;
        drop(desk);
        let own = Arc::clone(self);
        let started = self
            .crew
            .spawn("schedule", SMALL_STACK, move || own.run(first));
        let mut desk = self.desk();
        match started {
            Ok(thread) => desk.thread = Some(thread),
            Err(e) => {
                desk.runs = false;
                log::error!("no thread can be started for the schedule: {e}; nothing of it runs");
                desk.trouble = Some(format!("no thread can be started: {e}"));
            }
        }
    }

    /// The entries of the configuration, read anew.
    pub fn configure(self: &Arc<Self>, entries: Vec<Arc<Entry>>) {
        let mut desk = self.desk();
        desk.configured = entries;
        desk.generation += 1;
        drop(desk);
        self.ensure_thread(false);
    }

    /// Replaces what Poseidon has set, as a whole and durably, or not at all.
    pub fn set(self: &Arc<Self>, set: &Value) -> Result<Value, payload::Error> {
        let invalid = |why: String| payload::Error::new(ErrorCode::Invalid, why);
        let (revision, entries) = read_set(set).map_err(invalid)?;
        for (at, entry) in entries.iter().enumerate() {
            let place = format!("entry {} ({})", at + 1, entry.name);
            if let Some(Err(why)) = entry.zone() {
                return Err(invalid(format!("{place}: timeZone: {why}")));
            }
            (self.works)(entry)
                .map_err(|e| payload::Error::new(e.code, format!("{place}: {}", e.message)))?;
        }
        let text = json!({ "revision": revision, "entries": set["entries"] }).to_string();
        if text.len() > FILE_LIMIT {
            return Err(payload::Error::new(
                ErrorCode::TooLarge,
                too_long(text.len()),
            ));
        }
        // Before the lock is taken: zones are files. Shown until the thread has looked at the entries.
        let mut shown = Vec::with_capacity(entries.len());
        let mut earliest = None::<i64>;
        for entry in &entries {
            let next = expected(entry);
            earliest = earliest.into_iter().chain(next).min();
            let mut entry = run::describe(entry, POSEIDON);
            entry["next"] = next.into();
            shown.push(entry);
        }
        if std::mem::replace(&mut self.desk().setting, true) {
            let why = "another schedule.set is under way; try again";
            return Err(payload::Error::new(ErrorCode::Busy, why));
        }
        let written = replace(&*self.folder, SET, &text, &mut Counts::default());
        let mut desk = self.desk();
        desk.setting = false;
        if let Err(fault) = written {
            return Err(payload::Error::new(ErrorCode::Io, fault.to_string()));
        }
        desk.shown.retain(|shown| shown["source"] != POSEIDON);
        desk.shown.extend(shown);
        let count = entries.len();
        log::info!("schedule: Poseidon has set {count} entries, revision {revision:?}");
        desk.revision.clone_from(&revision);
        desk.set = entries;
        desk.lost = None;
        desk.generation += 1;
        drop(desk);
        self.ensure_thread(false);
        Ok(json!({ "revision": revision, "entries": count, "next": earliest }))
    }

    /// What Poseidon has set last; empty where it has set nothing.
    pub fn revision(&self) -> String {
        self.desk().revision.clone()
    }

    /// All entries, with their times.
    pub fn list(&self) -> Value {
        let desk = self.desk();
        json!({ "revision": desk.revision, "entries": desk.shown, "problem": desk.problem() })
    }

    /// For `agent.status`.
    pub fn report(&self) -> Value {
        let desk = self.desk();
        let next = desk.shown.iter().filter_map(|shown| shown["next"].as_i64());
        json!({
            "revision": desk.revision,
            "entries": desk.set.len() + desk.configured.len(),
            "next": next.min(),
            "problem": desk.problem(),
        })
    }

    /// Nothing more is begun. Returns the thread, where one lives.
    pub fn stop(&self) -> Option<JoinHandle<()>> {
        let mut desk = self.desk();
        desk.stop = true;
        let thread = desk.thread.take();
        drop(desk);
        self.wake.ring();
        thread
    }
}

impl Desk {
    fn problem(&self) -> Option<&String> {
        self.lost.as_ref().or(self.trouble.as_ref())
    }
}

impl Part for Scheduler {
    fn ask(&self) {
        // Under the lock: a thread that ends meanwhile gives no answer.
        let desk = self.desk();
        if desk.runs {
            self.pulse.ask();
            self.wake.ring();
        }
    }

    fn silent(&self, now: Instant) -> Option<String> {
        let runs = self.desk().runs;
        self.pulse.silent(now, "schedule").filter(|_| runs)
    }
}

/// The job of a run, which answers to `sink`.
pub fn request(
    entry: &Entry,
    token: &str,
    scripts: &Repository,
    sink: &Arc<Outbox>,
) -> Result<Request, payload::Error> {
    let mut command = entry.command.clone();
    let mut holds: Option<Arc<dyn Holds>> = None;
    if let Some((name, args)) = &entry.script {
        let (script, revision) = scripts.command(name, args.clone(), command)?;
        command = script;
        holds = Some(revision);
    }
    let kind = match entry.script {
        Some(_) => payload::SCRIPT,
        None => payload::COMMAND,
    };
    Ok(Request {
        token: token.to_owned(),
        kind: kind.to_owned(),
        conversation_id: token.to_owned(),
        work: Work::Command(command),
        name: Some(entry.name.clone()),
        holds,
        sink: Arc::clone(sink),
        origin: Origin::Schedule,
    })
}

/// The next time of an entry that has had none.
fn expected(entry: &Entry) -> Option<i64> {
    let (When::Times(cron), true) = (&entry.when, entry.enabled) else {
        return None;
    };
    let zone = entry.zone().unwrap_or_else(|| Ok(Zone::own().0)).ok()?;
    next::next(cron, &zone, run::whole(clock::now()))
}

/// Whether a device would take this as `schedule.set`, but for the zones that it knows: for who is about to send it.
pub fn check(set: &Value) -> Result<(), String> {
    read_set(set)?;
    match set.to_string().len() {
        length if length > FILE_LIMIT => Err(too_long(length)),
        _ => Ok(()),
    }
}

fn too_long(length: usize) -> String {
    format!("the entries take {length} bytes; {FILE_LIMIT} are allowed")
}

/// `{revision, entries}`, checked.
pub fn read_set(set: &Value) -> Result<(String, Vec<Arc<Entry>>), String> {
    let revision = match &set["revision"] {
        Value::String(text) if text.len() <= REVISION_LIMIT => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => {
            return Err(format!(
                "revision is no text of at most {REVISION_LIMIT} bytes"
            ));
        }
    };
    let Some(list) = set["entries"].as_array() else {
        return Err("entries is no list".to_owned());
    };
    if list.len() > ENTRIES {
        return Err(format!("{} entries; {ENTRIES} are allowed", list.len()));
    }
    let mut entries: Vec<Arc<Entry>> = Vec::with_capacity(list.len());
    for (at, value) in list.iter().enumerate() {
        let name = value["name"].as_str().unwrap_or("without name");
        let entry = Entry::read(value).map_err(|Fault { field, why }| {
            let field = if field.is_empty() {
                String::new()
            } else {
                format!("{field}: ")
            };
            format!(
                "entry {} ({}): {field}{why}",
                at + 1,
                name.chars().take(64).collect::<String>()
            )
        })?;
        if let Some(first) = entries.iter().position(|e| e.name == entry.name) {
            return Err(format!(
                "entry {} ({name}): name: entry {} has it already",
                at + 1,
                first + 1
            ));
        }
        entries.push(Arc::new(entry));
    }
    Ok((revision, entries))
}

/// A file of JSON; none where there is none.
fn load(path: &Path) -> Result<Option<Value>, String> {
    let mut text = String::new();
    match File::open(path).and_then(|f| f.take(FILE_LIMIT as u64 + 1).read_to_string(&mut text)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
        Ok(_) if text.len() > FILE_LIMIT => {
            return Err(format!("it is longer than {FILE_LIMIT} bytes"));
        }
        Ok(_) => {}
    }
    payload::from_json(&text)
        .map(Some)
        .map_err(|e| e.to_string())
}
