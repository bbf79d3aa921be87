//! The body of the thread `plugins`: starts, listens, judges, ends.

use super::ask::Inlet;
use super::fit::{self, Found};
use super::limits::Window;
use super::program::{Next, Program};
use super::{Hub, Order, State, View, lock, types};
use crate::job::Origin;
use crate::local::Line;
use crate::message::payload::{
    self, BYE, Bye, ERROR, HELLO, JobResult, OUTPUT, PROGRESS, RESULT, Status, WELCOME,
};
use crate::message::{ErrorCode, Message};
use crate::plugin::Peer;
use crate::sys::clock;
use crate::sys::poll::{IN, PollSet};
use crate::sys::process::{KILL, TERM};
use serde_json::{Value, json};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// After its first end it waits so long; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Who ran so long has shown that it can.
const LONG_RUN: Duration = Duration::from_mins(1);
/// So many ends in a row of shorter runs are a crash loop.
const CRASHES: u32 = 5;
/// So many breaches of the protocol within a minute, and it is killed.
const BREACHES: u32 = 10;
/// From `bye` to SIGTERM, and from there to SIGKILL: together less than the agent waits for its threads.
const BYE_GRACE: Duration = Duration::from_millis(500);
const TERM_GRACE: Duration = Duration::from_secs(1);

/// What a plugin may say besides what belongs to its jobs; the dispatcher answers it.
const SAYS: [&str; 3] = [payload::EVENT, payload::METRIC, payload::HISTORY_PUT];

struct Entry {
    found: Found,
    view: View,
    run: Option<Run>,
    next_start: Option<Instant>,
    /// Ends in a row within a minute of its start.
    crashes: u32,
    /// Who wants to hear that it has ended, or was started.
    killers: Vec<Asked>,
    starters: Vec<Asked>,
    /// Answers, given when others can see what they say.
    answers: Vec<(Message, Peer)>,
}

/// An order that was not answered yet, and who gave it.
type Asked = (Message, Peer);

struct Run {
    program: Program,
    inlet: Arc<Inlet>,
    started: Instant,
    /// Until when it has to say `hello`; none when it has.
    hello_by: Option<Instant>,
    pings: bool,
    heard: Instant,
    /// When a `ping` was sent that was not answered.
    asked: Option<Instant>,
    breaches: Window,
    /// A message of its for a job that has no room for it now.
    held: Option<Message>,
    /// It has ended: what is read of it is what it said last.
    last: bool,
    /// It has closed its output, and should have ended by then.
    end_by: Option<Instant>,
    /// Why it is ended, and when it gets the next signal.
    ending: Option<Ending>,
}

struct Ending {
    why: Option<String>,
    /// Whether it is not to be started again.
    for_good: bool,
    term_at: Option<Instant>,
    kill_at: Option<Instant>,
}

pub fn run(hub: &Arc<Hub>) {
    hub.running.store(true, Ordering::Release);
    let mut plugins = Plugins {
        hub,
        entries: Vec::new(),
        forgotten: false,
    };
    while plugins.turn() {}
    // Nobody is asked for a sign of life who is not there.
    hub.running.store(false, Ordering::Release);
}

struct Plugins<'a> {
    hub: &'a Arc<Hub>,
    entries: Vec<Entry>,
    /// Whether some are not known any more.
    forgotten: bool,
}

impl Plugins<'_> {
    /// False when all have ended and the agent stops.
    fn turn(&mut self) -> bool {
        self.hub.pulse.beat();
        self.hub.wake.clear();
        let stopping = self.hub.stopping.load(Ordering::Acquire);
        if stopping {
            self.leave_all();
            if self.entries.iter().all(|entry| entry.run.is_none()) {
                return false;
            }
        } else if self.hub.look.swap(false, Ordering::AcqRel) {
            self.scan();
        }
        let orders = std::mem::take(&mut *lock(&self.hub.orders));
        for order in orders {
            self.obey(order);
        }
        let now = Instant::now();
        for entry in &mut self.entries {
            if entry.next_start.is_some_and(|at| at <= now) && !stopping {
                start(self.hub, entry);
            }
            if let Some(run) = &mut entry.run {
                run.program.write(now);
                run.judge(self.hub, now);
            }
        }
        self.publish();
        self.wait();
        true
    }

    /// Waits until something happens, and takes what came.
    fn wait(&mut self) {
        let now = Instant::now();
        let mut set = PollSet::new();
        set.add(self.hub.wake.as_fd(), IN);
        let mut deadline: Option<Instant> = None;
        let mut places = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let mut due = entry.next_start;
            places.push(entry.run.as_ref().map(|run| {
                due = run.due(self.hub, now);
                run.program.watch(&mut set, run.held.is_some())
            }));
            deadline = [deadline, due].into_iter().flatten().min();
        }
        if let Err(e) = set.wait(deadline) {
            // poll fails only for lack of kernel memory: not at once again.
            log::error!("the plugins' poll fails: {e}");
            std::thread::sleep(Duration::from_secs(1));
            return;
        }
        let ready = set.all();
        drop(set);
        let now = Instant::now();
        for (at, places) in places.into_iter().enumerate() {
            let Some(places) = places else { continue };
            let Some(run) = &mut self.entries[at].run else {
                continue;
            };
            let open = run.program.read(places, &ready, now);
            self.listen(at);
            let Some(run) = &mut self.entries[at].run else {
                continue;
            };
            if run.program.has_ended() {
                self.ended(at);
            } else if !open {
                run.end_by = Some(now + BYE_GRACE);
            }
        }
    }

    /// Takes the lines of a plugin.
    fn listen(&mut self, at: usize) {
        let mut taken = 0;
        let waits_for_hello = |e: &Entry| e.run.as_ref().is_some_and(|run| run.hello_by.is_some());
        let offered: Vec<String> = if waits_for_hello(&self.entries[at]) {
            let others = self.entries.iter().enumerate().filter(|(i, _)| *i != at);
            others.flat_map(|(_, e)| e.view.offers().to_vec()).collect()
        } else {
            Vec::new()
        };
        let entry = &mut self.entries[at];
        let Some(run) = &mut entry.run else { return };
        if let Some(message) = run.held.take() {
            run.held = run.inlet.route(message, run.last).err();
        }
        while run.held.is_none()
            && (run.last || run.ending.as_ref().is_none_or(|e| e.kill_at.is_some()))
        {
            self.hub.pulse.beat();
            match run.program.next_line(&mut taken, run.last) {
                Next::Line(Line::Whole(bytes)) => {
                    run.heard = Instant::now();
                    run.asked = None;
                    match Message::decode(&bytes, self.hub.settings.message_limit) {
                        Ok(message) => {
                            take(self.hub, run, &mut entry.view, &offered, message);
                        }
                        Err(e) => {
                            run.program.outbox.push(e.to_message());
                            run.breach(&format!("a line that is no message: {e}"));
                        }
                    }
                }
                Next::Line(Line::TooLong) => {
                    let limit = self.hub.settings.message_limit;
                    run.kill(&format!("it wrote a line of more than {limit} bytes"));
                }
                Next::Nothing | Next::Later | Next::Closed => return,
            }
        }
    }

    /// A program has ended: what it said last is heard, what it left is killed, and it is seen what becomes of it.
    fn ended(&mut self, at: usize) {
        if let Some(run) = &mut self.entries[at].run {
            run.last = true;
        }
        for _ in 0..Program::LAST_PIECES {
            self.listen(at);
            let more = self.entries[at].run.as_mut();
            if !more.is_some_and(|run| run.program.read_the_rest()) {
                break;
            }
        }
        self.listen(at);
        let entry = &mut self.entries[at];
        let Some(run) = entry.run.take() else { return };
        let (ran, said_hello) = (run.started.elapsed(), run.hello_by.is_none());
        let how = run.program.reap();
        let ending = run.ending;
        let why = ending.as_ref().and_then(|e| e.why.clone());
        let why = why.unwrap_or_else(|| {
            let before = if said_hello { "" } else { " before its hello" };
            format!("it ended{before}: {how}")
        });
        run.inlet.close(&why);
        entry.view.inlet = None;
        entry.view.pid = None;
        let name = entry.view.name;
        if self.hub.stopping.load(Ordering::Acquire) || !entry.killers.is_empty() {
            log::info!("plugin {name}: stopped");
            enter(&mut entry.view, State::Stopped, None);
            let killers = std::mem::take(&mut entry.killers);
            entry.succeed(killers);
            if !entry.starters.is_empty() {
                start(self.hub, entry);
            }
            return;
        }
        if ending.is_some_and(|e| e.for_good) {
            log::error!(
                "plugin {name}: {why}; it is not started again before 'triton module start {name}'"
            );
            return enter(&mut entry.view, State::Failed, Some(why));
        }
        entry.crashes = if ran >= LONG_RUN {
            0
        } else {
            entry.crashes + 1
        };
        if entry.crashes >= CRASHES {
            let why =
                format!("{CRASHES} ends in a row within a minute of its start; the last: {why}");
            log::error!(
                "plugin {name}: {why}; it is not started again before 'triton module start {name}'"
            );
            return enter(&mut entry.view, State::Failed, Some(why));
        }
        let pause = FIRST_PAUSE * 2_u32.pow(entry.crashes.saturating_sub(1));
        log::warn!(
            "plugin {name}: {why}; starting it again in {} s",
            pause.as_secs()
        );
        entry.next_start = Some(Instant::now() + pause);
        enter(&mut entry.view, State::Waiting, Some(why));
    }

    /// Starts what is new in the folder. What is known stays as it is.
    fn scan(&mut self) {
        let found = match fit::scan(&self.hub.settings.folder) {
            Ok(found) => found,
            Err(why) => return log::error!("no plugins are started: {why}"),
        };
        // What has gone and does not run is forgotten.
        let before = self.entries.len();
        self.entries.retain(|entry| {
            let there = found.iter().any(|f| f.name == entry.found.name);
            there || entry.run.is_some() || !entry.answers.is_empty()
        });
        self.forgotten |= self.entries.len() < before;
        for found in found {
            if self.entries.iter().any(|e| e.found.name == found.name) {
                continue;
            }
            let Some(name) = self.hub.intern(&found.name) else {
                log::error!(
                    "plugin {}: too many names since the agent's start",
                    found.name
                );
                continue;
            };
            let view = View {
                name,
                version: String::new(),
                state: State::Stopped,
                types: Vec::new(),
                pid: None,
                since: clock::now(),
                restarts: 0,
                reason: None,
                inlet: None,
                changed: true,
            };
            let mut entry = Entry {
                found,
                view,
                run: None,
                next_start: None,
                crashes: 0,
                killers: Vec::new(),
                starters: Vec::new(),
                answers: Vec::new(),
            };
            start(self.hub, &mut entry);
            self.entries.push(entry);
        }
    }

    fn obey(&mut self, order: Order) {
        let Order {
            start: wanted,
            name,
            message,
            from,
        } = order;
        if wanted {
            // It may be new, or another one by now.
            self.scan();
        }
        let Some(entry) = self.entries.iter_mut().find(|e| e.found.name == name) else {
            let text = format!("there is no plugin {name:?}; module.list says which there are");
            return from
                .outbox
                .push(message.reply_error(ErrorCode::NotFound, text));
        };
        if wanted {
            let leaving = entry.run.as_ref().is_some_and(|run| run.ending.is_some());
            if entry.run.is_some() && !leaving {
                return entry.succeed(vec![(message, from)]);
            }
            entry.crashes = 0;
            entry.starters.push((message, from));
            if !leaving {
                start(self.hub, entry);
            }
            return;
        }
        entry.next_start = None;
        entry.refuse("it was killed meanwhile");
        let Some(run) = &mut entry.run else {
            enter(&mut entry.view, State::Stopped, None);
            return entry.succeed(vec![(message, from)]);
        };
        run.leave("it was stopped by module.kill");
        entry.killers.push((message, from));
    }

    fn leave_all(&mut self) {
        for entry in &mut self.entries {
            entry.next_start = None;
            if let Some(run) = &mut entry.run {
                run.leave("the agent stops");
            }
        }
    }

    /// Lets others see how all are.
    fn publish(&mut self) {
        let changed = |entry: &mut Entry| std::mem::take(&mut entry.view.changed);
        // All of them, so that each is marked as seen.
        let changed = self
            .entries
            .iter_mut()
            .filter_map(|e| changed(e).then_some(()))
            .count();
        if changed > 0 || std::mem::take(&mut self.forgotten) {
            let views = self.entries.iter().map(|entry| entry.view.clone());
            *lock(&self.hub.views) = views.collect();
        }
        for entry in &mut self.entries {
            for (answer, peer) in entry.answers.drain(..) {
                peer.outbox.push(answer);
            }
        }
    }
}

/// Starts a program, if nobody else has a say in it.
fn start(hub: &Arc<Hub>, entry: &mut Entry) {
    entry.next_start = None;
    let name = entry.view.name;
    // Others may have changed it since the last time.
    let found = fit::scan(&hub.settings.folder).and_then(|found| {
        let found = found.into_iter().find(|f| f.name == name);
        found.ok_or_else(|| format!("it is not in {} any more", hub.settings.folder.display()))
    });
    let started = found.and_then(|found| {
        entry.found = found;
        match &entry.found.unfit {
            Some(why) => Err(why.clone()),
            None => Program::start(&entry.found, name, &hub.settings)
                .map_err(|e| format!("cannot start {}: {e}", entry.found.path.display())),
        }
    });
    match started {
        Err(why) => {
            log::error!("plugin {name}: {why}");
            entry.refuse(&why);
            enter(&mut entry.view, State::Failed, Some(why));
        }
        Ok(program) => {
            log::info!("plugin {name}: started, process {}", program.pid);
            let now = Instant::now();
            entry.view.pid = Some(program.pid);
            if entry.view.state == State::Waiting {
                entry.view.restarts = entry.view.restarts.saturating_add(1);
            }
            enter(&mut entry.view, State::Starting, None);
            entry.run = Some(Run {
                inlet: Arc::new(Inlet::new(Arc::clone(&program.outbox))),
                program,
                started: now,
                hello_by: Some(now + hub.settings.hello),
                pings: false,
                heard: now,
                asked: None,
                breaches: Window::new(BREACHES - 1, Duration::from_mins(1)),
                held: None,
                last: false,
                end_by: None,
                ending: None,
            });
            let starters = std::mem::take(&mut entry.starters);
            entry.succeed(starters);
        }
    }
}

fn enter(view: &mut View, state: State, reason: Option<String>) {
    view.state = state;
    view.reason = reason;
    view.since = clock::now();
    view.changed = true;
}

impl Entry {
    fn succeed(&mut self, asked: Vec<Asked>) {
        let done = JobResult::without_process(Status::Succeeded, None);
        let answer = |(message, peer): Asked| (message.reply(RESULT, &done), peer);
        self.answers.extend(asked.into_iter().map(answer));
    }

    /// Who wanted it to start.
    fn refuse(&mut self, why: &str) {
        for (message, peer) in self.starters.drain(..) {
            let error = message.reply_error(ErrorCode::Refused, why);
            self.answers.push((error, peer));
        }
    }
}

impl Run {
    /// Whether it has to go, and whether it is to be asked for a sign of life.
    fn judge(&mut self, hub: &Hub, now: Instant) {
        let patience = hub.settings.patience;
        if let Some(ending) = &mut self.ending {
            if ending.term_at.is_some_and(|at| at <= now) {
                ending.term_at = None;
                self.program.signal(TERM);
            }
            if ending.kill_at.is_some_and(|at| at <= now) {
                ending.kill_at = None;
                self.program.signal(KILL);
            }
            return;
        }
        if self.hello_by.is_some_and(|by| by <= now) {
            let text = format!("no hello within {} s", hub.settings.hello.as_secs());
            return self.kill(&text);
        }
        if let Some(since) = self.program.stuck()
            && now.saturating_duration_since(since) >= patience
        {
            let text = format!("it has not read its input for {} s", patience.as_secs());
            return self.kill(&text);
        }
        if self.end_by.is_some_and(|by| by <= now) {
            return self.kill("it has closed its output");
        }
        if self.held.is_some() || self.program.is_held_back() {
            // Its answer may be among what is not read yet.
            self.heard = now;
            self.asked = None;
        }
        if !self.pings {
            return;
        }
        match self.asked {
            Some(asked) if now.saturating_duration_since(asked) >= patience => {
                let text = format!("it has not answered a ping for {} s", patience.as_secs());
                self.kill(&text);
            }
            None if now.saturating_duration_since(self.heard) >= patience * 2 => {
                self.asked = Some(now);
                self.program.outbox.push(Message::new("ping"));
                self.program.write(now);
            }
            _ => {}
        }
    }

    /// When to look at it though nothing happens.
    fn due(&self, hub: &Hub, now: Instant) -> Option<Instant> {
        let patience = hub.settings.patience;
        if self.program.has_lines() && self.held.is_none() {
            return Some(now);
        }
        let ending = self.ending.as_ref();
        let ping = match self.asked {
            _ if !self.pings || ending.is_some() => None,
            Some(asked) => Some(asked + patience),
            None => Some(self.heard + patience * 2),
        };
        [
            self.program.next(now),
            self.hello_by.filter(|_| ending.is_none()),
            self.program
                .stuck()
                .filter(|_| ending.is_none())
                .map(|since| since + patience),
            ping,
            self.end_by.filter(|_| ending.is_none()),
            ending.and_then(|e| e.term_at),
            ending.and_then(|e| e.kill_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// At once, for what it has done.
    fn kill(&mut self, why: &str) {
        if self.ending.is_none() {
            self.program.signal(KILL);
            self.ending = Some(Ending {
                why: Some(format!("killed: {why}")),
                for_good: false,
                term_at: None,
                kill_at: None,
            });
        }
    }

    /// In order, and with some time.
    fn leave(&mut self, why: &str) {
        if self.ending.is_some() {
            return;
        }
        let now = Instant::now();
        let bye = Bye {
            reason: why.to_owned(),
        };
        self.program.say_bye(Message::with(BYE, &bye), now);
        self.ending = Some(Ending {
            why: Some(why.to_owned()),
            for_good: false,
            term_at: Some(now + BYE_GRACE),
            kill_at: Some(now + BYE_GRACE + TERM_GRACE),
        });
    }

    fn breach(&mut self, what: &str) {
        let now = Instant::now();
        self.program.log(
            log::Level::Warn,
            &format!("breaks the protocol: {what}"),
            now,
        );
        let (within, _) = self.breaches.add(now);
        if !within {
            let text =
                format!("it broke the protocol {BREACHES} times in a minute; the last: {what}");
            self.kill(&text);
        }
    }
}

/// A message of a plugin.
fn take(hub: &Arc<Hub>, run: &mut Run, view: &mut View, offered: &[String], message: Message) {
    let kind = message.kind.as_str();
    if run.hello_by.is_some() {
        if run.ending.is_some() {
            // Too late.
            return;
        }
        return introduce(hub, run, view, offered, &message);
    }
    match kind {
        "pong" => {}
        "log" => {
            let said = message.read::<Value>().unwrap_or_default();
            let level = match said["level"].as_str() {
                Some("error") => log::Level::Error,
                Some("warn") => log::Level::Warn,
                Some("debug") => log::Level::Debug,
                _ => log::Level::Info,
            };
            let text = said["message"].as_str().unwrap_or_default();
            run.program.log(level, text, Instant::now());
        }
        OUTPUT | PROGRESS | RESULT | ERROR => run.held = run.inlet.route(message, run.last).err(),
        kind if SAYS.contains(&kind) => {
            let peer = Peer {
                outbox: Arc::clone(&run.program.outbox),
                origin: Origin::Plugin(view.name),
            };
            let dispatcher = lock(&hub.dispatcher).upgrade();
            if let Some(dispatcher) = dispatcher {
                dispatcher.handle(&message, &peer);
            }
        }
        kind => {
            let text = format!(
                "a plugin does not send {}",
                kind.chars().take(64).collect::<String>()
            );
            let error = message.reply_error(ErrorCode::Refused, text.clone());
            run.program.outbox.push(error);
            run.breach(&text);
        }
    }
}

/// Its `hello`, or what it says in place of it.
fn introduce(
    hub: &Arc<Hub>,
    run: &mut Run,
    view: &mut View,
    offered: &[String],
    message: &Message,
) {
    let said = if message.kind == HELLO {
        types::read(message)
    } else {
        Err("its first message is not a hello".to_owned())
    };
    let said = said.and_then(
        |hello| match hello.types.iter().find(|t| offered.contains(t)) {
            Some(taken) => Err(format!("another plugin acts on {taken} already")),
            None => Ok(hello),
        },
    );
    match said {
        Ok(hello) => {
            run.hello_by = None;
            run.pings = hello.pings;
            view.version = hello.version;
            view.types = hello.types;
            view.inlet = Some(Arc::clone(&run.inlet));
            enter(view, State::Running, None);
            let name = hub.link.get().name;
            let welcome = json!({
                "instance": hub.settings.instance, "attributes": hub.attributes.all(), "name": name,
            });
            run.program.outbox.push(message.reply(WELCOME, &welcome));
        }
        Err(why) => {
            let error = message.reply_error(ErrorCode::Invalid, why.clone());
            run.program.outbox.push(error);
            run.leave(&format!("refused: {why}"));
            // It would say the same again.
            if let Some(ending) = &mut run.ending {
                ending.for_good = true;
            }
        }
    }
}
