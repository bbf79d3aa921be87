//! The thread `schedule`: waits for the next time, begins runs, hears how they end.

use super::cron::When;
use super::entry::{Entry, Overlap};
use super::next::next;
use super::progress::{Due, Progress, Times};
use super::zone::Zone;
use super::{CONFIG, FILE_LIMIT, POSEIDON, Scheduler, TIMES, load, request};
use crate::dates;
use crate::journal::Standing;
use crate::journal::store::{Counts, Folder as _, replace};
use crate::link::tls;
use crate::message::Message;
use crate::message::payload::{self, HistoryPut, code};
use crate::outbox::{Limits, Outbox};
use crate::sys::clock;
use crate::sys::clock_watch::ClockWatch;
use crate::sys::poll::{IN, PollSet};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A run that the pool had no room for is tried again after this.
const RETRY: Duration = Duration::from_secs(30);
/// A clock in a believable year but behind what was written down is looked at so often: that the kernel begins to call
/// it synchronised wakes nobody.
const DOUBT: Duration = Duration::from_mins(5);
/// The device's own zone is read again where this has passed; nobody is woken for it.
const ZONE_AGE: Duration = Duration::from_mins(1);
/// Answers of the pool that may wait; far more than runs can be under way.
const ANSWERS: usize = 1_024;

/// An entry at work.
struct Item {
    /// Source and name.
    key: String,
    source: &'static str,
    entry: Arc<Entry>,
    zone: Option<Result<Zone, String>>,
    progress: Progress,
    /// When to look at it again.
    next: Option<i64>,
    waiting: Option<Waiting>,
    running: Vec<Run>,
    /// Times that an overlap took since the last was written down: how many, and the first.
    overlapped: Option<(u32, i64)>,
    /// How the last run ended.
    status: Option<String>,
}

/// A run that is to begin as soon as it can.
struct Waiting {
    time: i64,
    not_before: Option<Instant>,
}

struct Run {
    token: String,
    time: i64,
}

/// What the thread holds.
struct Worker<'a> {
    shared: &'a Scheduler,
    items: Vec<Item>,
    /// Progress of entries as it was found on the disk.
    kept: Map<String, Value>,
    outbox: Arc<Outbox>,
    watch: Option<ClockWatch>,
    boot: String,
    own: Zone,
    own_read: Instant,
    /// Whether the clock could be believed at the last look.
    believed: bool,
    /// Why the own zone is UTC.
    zoneless: Option<String>,
    /// Progress that is not on the disk has to be before the next run.
    dirty: bool,
    unwritten: Option<String>,
}

/// Whole seconds.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a float beyond i64 becomes its end"
)]
pub fn whole(time: f64) -> i64 {
    time.floor() as i64
}

/// An entry for lists, without its times.
pub fn describe(entry: &Entry, source: &str) -> Value {
    let mut shown = json!({
        "name": entry.name,
        "source": source,
        "cron": entry.cron,
        "enabled": entry.enabled,
    });
    if let Some(zone) = &entry.zone {
        shown["timeZone"] = zone.clone().into();
    }
    shown
}

impl Scheduler {
    /// The body of the thread. `first`: the agent starts.
    pub(super) fn run(&self, first: bool) {
        let limits = Limits {
            control: ANSWERS,
            output_bytes: 1,
        };
        let outbox = match Outbox::new(limits) {
            Ok(outbox) => Arc::new(outbox),
            Err(e) => {
                log::error!("the schedule cannot hear how its runs end: {e}; nothing of it runs");
                let mut desk = self.desk();
                desk.trouble = Some(e.to_string());
                desk.runs = false;
                return;
            }
        };
        // It hands out what waits only while there is somebody.
        outbox.set_online(true);
        let path = self.folder.path().join(TIMES);
        let kept = load(&path).unwrap_or_else(|e| {
            log::error!(
                "schedule: {} cannot be read, so what was missed while the agent was off is not known: {e}",
                path.display()
            );
            None
        });
        let (own, zoneless) = Zone::own();
        let mut worker = Worker {
            shared: self,
            items: Vec::new(),
            kept: kept
                .and_then(|k| k.as_object().cloned())
                .unwrap_or_default(),
            outbox,
            watch: ClockWatch::new()
                .inspect_err(|e| log::debug!("the clock cannot be watched: {e}"))
                .ok(),
            boot: clock::boot_id().unwrap_or_default(),
            own,
            own_read: Instant::now(),
            believed: false,
            zoneless,
            dirty: false,
            unwritten: None,
        };
        worker.work(first);
        for item in &mut worker.items {
            self.record_overlap(item);
        }
    }

    /// The times that an overlap took, but for the first, which was said at once.
    fn record_overlap(&self, item: &mut Item) {
        if let Some(lost) = item.overlapped.take().filter(|lost| lost.0 > 0) {
            self.record(item, lost, "overlap");
        }
    }

    /// Says in the journal what was skipped: the first time, and how many.
    fn record(&self, item: &Item, (count, at): (u32, i64), reason: &str) {
        #[allow(clippy::cast_precision_loss, reason = "such a time is far off")]
        let from = dates::utc(at as f64);
        log::warn!(
            "schedule: {} was skipped {count} times from {from} on: {reason}",
            item.entry.name
        );
        let put = HistoryPut {
            token: Some(format!("schedule:{}", item.key)),
            code: Some(code::SKIPPED),
            etime: None,
            data: json!({ "name": item.entry.name, "at": at, "reason": reason, "count": count }),
        };
        if let Err(error) = self.journal.put(&put) {
            log::warn!("schedule: that could not be stored: {}", error.message);
        }
    }
}

impl Worker<'_> {
    fn work(&mut self, first: bool) {
        let mut generation = None;
        let mut start = first;
        let mut jumped = true;
        loop {
            self.shared.pulse.beat();
            let desk = self.shared.desk();
            if desk.stop {
                drop(desk);
                // A run that the pool has refused waits over the restart.
                self.hear();
                if self.dirty {
                    self.save();
                }
                return;
            }
            let known = generation == Some(desk.generation);
            if known {
                drop(desk);
            } else {
                generation = Some(desk.generation);
                let set = desk.set.iter().map(|e| (POSEIDON, Arc::clone(e)));
                let entries = set.chain(desk.configured.iter().map(|e| (CONFIG, Arc::clone(e))));
                let entries = entries.collect();
                drop(desk);
                self.take(entries, std::mem::take(&mut start));
                jumped = true;
            }
            self.hear();
            jumped |= self.refresh_zone();
            let doubt = self.look(jumped);
            self.begin();
            if self.dirty {
                self.save();
            }
            self.publish();
            if self.items.is_empty() {
                let mut desk = self.shared.desk();
                if generation == Some(desk.generation) {
                    desk.runs = false;
                    return;
                }
            }
            jumped = self.wait(doubt);
        }
    }

    /// Puts entries in place of those there were. What is known of them stays. `start`: with the agent, not later.
    fn take(&mut self, entries: Vec<(&'static str, Arc<Entry>)>, start: bool) {
        let mut old = std::mem::take(&mut self.items);
        for (source, entry) in entries {
            let key = format!("{source}:{}", entry.name);
            let rule = entry.rule();
            let mut item = match old.iter().position(|item| item.key == key) {
                Some(at) => old.swap_remove(at),
                None => Item {
                    progress: self
                        .kept
                        .get(&key)
                        .map(Progress::from_json)
                        .unwrap_or_default(),
                    key,
                    source,
                    entry: Arc::clone(&entry),
                    zone: None,
                    next: None,
                    waiting: None,
                    running: Vec::new(),
                    overlapped: None,
                    status: None,
                },
            };
            item.entry = entry;
            item.next = None;
            item.zone = item.entry.zone();
            if let Some(Err(why)) = &item.zone {
                log::error!("schedule: {} does not run: {why}", item.entry.name);
            }
            if item.progress.rule != rule {
                item.progress = Progress {
                    rule,
                    last: item.progress.last,
                    // An entry that comes while the device is up waits for the next time that it comes up.
                    boot: if start {
                        String::new()
                    } else {
                        self.boot.clone()
                    },
                    ..Progress::default()
                };
                item.waiting = None;
                self.dirty = true;
            }
            if start && item.progress.last.is_some() {
                item.status = self.ended(&item);
            }
            let reboot = start && item.entry.enabled && item.entry.when == When::Reboot;
            if reboot && self.boot.is_empty() {
                log::error!(
                    "schedule: {} does not run: the kernel tells no boot id",
                    item.entry.name
                );
            }
            if reboot && item.progress.boot != self.boot {
                let time = whole(clock::now());
                let jitter = self.jitter(&item, time);
                item.waiting = Some(Waiting {
                    time,
                    not_before: Some(Instant::now() + Duration::from_secs(jitter.unsigned_abs())),
                });
            }
            self.kept.remove(&item.key);
            self.items.push(item);
        }
        // One that goes and comes again has missed nothing meanwhile.
        self.dirty |= !old.is_empty() || !std::mem::take(&mut self.kept).is_empty();
    }

    /// How the last run of an earlier life of the agent ended.
    fn ended(&self, item: &Item) -> Option<String> {
        let token = self.token(item, item.progress.last?);
        match self.shared.journal.find(&token)? {
            Standing::Ended(record) => {
                let data: Value = payload::from_json(record.data.get()).unwrap_or_default();
                Some(outcome(&data))
            }
            Standing::Open => None,
        }
    }

    /// Names a run: what journal and Poseidon know it by, the same whenever it is made.
    fn token(&self, item: &Item, time: i64) -> String {
        let time = match item.entry.when {
            When::Reboot => format!("boot-{}", self.boot),
            #[allow(clippy::cast_precision_loss, reason = "such a time is far off")]
            When::Times(_) => dates::utc(time as f64).replace(['-', ':'], ""),
        };
        format!("schedule:{}:{time}", item.key)
    }

    fn jitter(&self, item: &Item, time: i64) -> i64 {
        if item.entry.jitter == 0 {
            return 0;
        }
        // The same after a restart: else a run that was to be late would have been missed.
        let text = format!("{} {} {time}", self.shared.seed, item.key);
        let hash = Sha256::digest(text.as_bytes());
        let number = u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]);
        i64::from(number % item.entry.jitter)
    }

    /// Takes what the pool says.
    fn hear(&mut self) {
        // As many as may wait.
        for _ in 0..ANSWERS {
            let Some(message) = self.outbox.pop() else {
                return;
            };
            if matches!(message.kind.as_str(), payload::RESULT | payload::ERROR) {
                self.end(&message);
            }
        }
    }

    fn end(&mut self, message: &Message) {
        let token = &message.conversation_id;
        let found = self.items.iter_mut().find_map(|item| {
            let at = item.running.iter().position(|run| run.token == *token)?;
            Some((item.running.remove(at), item))
        });
        // Of an entry that is no more.
        let Some((run, item)) = found else { return };
        let data: Value = message.read().unwrap_or_default();
        let refused = match data["code"].as_str() {
            Some("busy" | "io") => true,
            // The system is told to go down: the run waits for its coming up, or for its not going down.
            Some("refused") => self.shared.pool.stops(),
            _ => false,
        };
        if refused && self.shared.journal.find(token).is_none() {
            let why = data["message"].as_str().unwrap_or_default();
            log::warn!(
                "schedule: {} cannot begin and is tried again in {} s: {why}",
                item.entry.name,
                RETRY.as_secs()
            );
            if item.waiting.is_none() {
                item.waiting = Some(Waiting {
                    time: run.time,
                    not_before: Some(Instant::now() + RETRY),
                });
                // The disk has it as one that began.
                self.dirty = true;
                return;
            }
            return self.shared.record(item, (1, run.time), "busy");
        }
        item.status = Some(outcome(&data));
        self.shared.record_overlap(item);
    }

    /// The device may have been given another zone.
    fn refresh_zone(&mut self) -> bool {
        if self.own_read.elapsed() < ZONE_AGE {
            return false;
        }
        self.own_read = Instant::now();
        let (own, zoneless) = Zone::own();
        self.zoneless = zoneless;
        let changed = own != self.own;
        self.own = own;
        changed
    }

    /// Looks which entries are due, at all of them where the clock has `jumped`. Says whether the clock is in doubt.
    fn look(&mut self, jumped: bool) -> bool {
        let now = clock::now();
        let year = tls::clock_year(now) >= tls::BUILD_YEAR;
        let above = clock::trusted() <= now + 1.0;
        let believed = std::mem::replace(&mut self.believed, year && above);
        if !self.believed {
            for item in &mut self.items {
                item.next = None;
            }
            return year;
        }
        let (now, jumped) = (whole(now), jumped || !believed);
        for at in 0..self.items.len() {
            let due = self.items[at].next.is_some_and(|next| next <= now);
            if jumped || due {
                self.look_at(at, now);
            }
        }
        false
    }

    fn look_at(&mut self, at: usize, now: i64) {
        let item = &self.items[at];
        let (When::Times(cron), true) = (&item.entry.when, item.entry.enabled) else {
            return;
        };
        let zone = match &item.zone {
            None => &self.own,
            Some(Ok(zone)) => zone,
            Some(Err(_)) => return,
        };
        let times = Times {
            next: &|after| next(cron, zone, after),
            jitter: &|time| self.jitter(item, time),
            catch_up: item.entry.catch_up,
        };
        let mut progress = item.progress.clone();
        let Due { run, missed, next } = progress.look(now, &times);
        self.dirty |= progress.done.is_some() && item.progress.done.is_none() || missed.is_some();
        let item = &mut self.items[at];
        (item.progress, item.next) = (progress, next);
        if let Some(missed) = missed {
            self.shared.record(&self.items[at], missed, "missed");
        }
        let item = &mut self.items[at];
        let Some(time) = run else { return };
        let overlaps = !item.running.is_empty() && item.entry.overlap == Overlap::Skip;
        if !overlaps && item.waiting.is_none() {
            let not_before = None;
            item.waiting = Some(Waiting { time, not_before });
            return;
        }
        match &mut item.overlapped {
            Some(first @ (0, _)) => *first = (1, time),
            Some((count, _)) => *count += 1,
            // The first is said at once, the others when the run ends: flash wears.
            None => {
                item.overlapped = Some((0, time));
                self.shared.record(&self.items[at], (1, time), "overlap");
            }
        }
    }

    /// Begins what waits and can. One write for all of them.
    fn begin(&mut self) {
        let now = Instant::now();
        let under_way: usize = self.items.iter().map(|item| item.running.len()).sum();
        // A worker is left to who is in front of the device, or at Poseidon.
        let room = (self.shared.workers.max(2) - 1).saturating_sub(under_way);
        // The oldest first.
        let mut ready: Vec<usize> = Vec::new();
        let time = |at: usize| self.items[at].waiting.as_ref().map(|w| w.time);
        for (at, item) in self.items.iter().enumerate() {
            let free = item.running.is_empty() || item.entry.overlap == Overlap::Allow;
            let waiting = item.waiting.as_ref();
            if free && waiting.is_some_and(|w| w.not_before.is_none_or(|time| time <= now)) {
                let place = ready.partition_point(|other| time(*other) <= time(at));
                ready.insert(place, at);
            }
        }
        ready.truncate(room);
        if ready.is_empty() {
            return;
        }
        for at in &ready {
            let item = &mut self.items[*at];
            let Some(waiting) = item.waiting.take() else {
                continue;
            };
            item.progress.last = Some(waiting.time);
            item.status = None;
            item.progress.boot.clone_from(&self.boot);
            let token = self.token(&self.items[*at], waiting.time);
            let time = waiting.time;
            self.items[*at].running.push(Run { token, time });
        }
        self.save();
        for at in ready {
            let item = &mut self.items[at];
            let Some(run) = item.running.last() else {
                continue;
            };
            log::debug!("schedule: {} begins", item.entry.name);
            let permitted = match item.source {
                POSEIDON => {
                    let works = (self.shared.works)(&item.entry);
                    works.and_then(|()| (self.shared.permit)(&item.entry))
                }
                _ => Ok(()),
            };
            let (scripts, sink) = (&self.shared.scripts, &self.outbox);
            match permitted.and_then(|()| request(&item.entry, &run.token, scripts, sink)) {
                Ok(request) => self.shared.pool.submit(request),
                Err(error) => {
                    let time = run.time;
                    item.running.pop();
                    item.status = Some(error.code.to_string());
                    self.shared
                        .record(&self.items[at], (1, time), &error.message);
                }
            }
        }
    }

    /// Brings all progress to the disk. Where that fails runs go on: the device is to be of use, and what it has run is
    /// in the journal too.
    fn save(&mut self) {
        self.dirty = false;
        let mut times = Map::new();
        for item in &self.items {
            let waiting = item.waiting.as_ref().map(|w| w.time);
            times.insert(item.key.clone(), item.progress.to_json(waiting));
        }
        let text = Value::Object(times).to_string();
        debug_assert!(text.len() <= FILE_LIMIT);
        let written = replace(&*self.shared.folder, TIMES, &text, &mut Counts::default());
        let fault = written.err().map(|fault| fault.to_string());
        if fault != self.unwritten {
            if let Some(why) = &fault {
                log::error!("schedule: which times have run is not kept over a restart: {why}");
            } else {
                log::info!("schedule: which times have run is kept again");
            }
            self.unwritten = fault;
        }
    }

    /// Makes lists and status show it.
    fn publish(&self) {
        let shown = self.items.iter().map(|item| {
            let mut shown = describe(&item.entry, item.source);
            shown["next"] = item.next.into();
            if let Some(last) = item.progress.last {
                shown["last"] =
                    json!({ "time": last, "token": self.token(item, last), "status": item.status });
            }
            if !item.running.is_empty() {
                shown["running"] = item.running.len().into();
            }
            if item.waiting.is_some() {
                shown["waiting"] = true.into();
            }
            if let Some(Err(why)) = &item.zone {
                shown["problem"] = why.clone().into();
            }
            shown
        });
        let shown = shown.collect();
        let mut desk = self.shared.desk();
        desk.shown = shown;
        desk.trouble = self.unwritten.clone().or_else(|| self.zoneless.clone());
    }

    /// Waits until there is something to do; says whether the clock was set.
    fn wait(&self, doubt: bool) -> bool {
        let next = self.items.iter().filter_map(|item| item.next).min();
        let held = self
            .items
            .iter()
            .filter_map(|item| item.waiting.as_ref()?.not_before);
        let now = Instant::now();
        // One that waits for another reason is begun when a run ends.
        let mut deadline = held.filter(|time| *time > now).min();
        let mut sooner = |time: Instant| deadline = Some(deadline.map_or(time, |d| d.min(time)));
        if doubt {
            sooner(now + DOUBT);
        }
        let armed = self.watch.as_ref().map(|watch| watch.arm(next));
        match (armed, next) {
            (Some(Ok(false)), _) | (None | Some(Err(_)), None) => {}
            // Set in this moment: look again.
            (Some(Ok(true)), _) => return true,
            // A kernel without such timers: the wait is as long as it seems now.
            #[allow(clippy::cast_precision_loss, reason = "such a time is far off")]
            (None | Some(Err(_)), Some(next)) => {
                let left = Duration::try_from_secs_f64(next as f64 - clock::now());
                sooner(now + left.unwrap_or_default());
            }
        }
        let mut set = PollSet::new();
        set.add(self.shared.wake.as_fd(), IN);
        set.add(self.outbox.wake().as_fd(), IN);
        let watch = self.watch.as_ref().map(|watch| set.add(watch.as_fd(), IN));
        if let Err(e) = set.wait(deadline) {
            // poll fails only for lack of kernel memory: wait without it.
            log::error!("poll fails: {e}");
            std::thread::sleep(Duration::from_secs(1));
        }
        let ticked = watch.is_some_and(|place| set.ready(place) != 0);
        drop(set);
        self.shared.wake.clear();
        self.outbox.wake().clear();
        ticked && self.watch.as_ref().is_some_and(ClockWatch::clear)
    }
}

/// A result or an error in a word.
fn outcome(data: &Value) -> String {
    let word = data["status"].as_str().or(data["code"].as_str());
    word.unwrap_or("unknown").to_owned()
}
