//! One registered agent and its Poseidon with settings that find faults fast, load on both, and their ledger.

use super::agent::Agent;
use super::api::Api;
use super::ledger::{Ledger, Put, Row};
use super::poseidon::Poseidon;
use super::proxy::Proxy;
use super::random::Random;
use super::{eventually, local};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The agent's name.
pub const NAME: &str = "router";
/// A second instead of ten for each phase; a queue that takes what has waited during a fault.
const SETTINGS: &str = "
[connect]
dns_seconds = 2
tcp_seconds = 1
http_seconds = 1
hello_seconds = 5
pong_seconds = 1
[jobs]
queue = 200
";
/// Poseidon's part of it.
pub const FAST: &[&str] = &["--heartbeat-seconds", "1"];
/// How long all may take to become quiet on a busy machine.
const QUIET: Duration = Duration::from_mins(3);
/// Time between two attempts that the tests ask for.
const NUDGE: Duration = Duration::from_millis(100);
/// Jobs that may be open before no more are asked for.
const OPEN: usize = 40;
/// Rows of one page of Poseidon's history.
const PAGE: usize = 500;

pub struct Rig {
    pub poseidon: Poseidon,
    pub agent: Agent,
    pub proxy: Option<Proxy>,
    pub api: Api,
    asked: Arc<Mutex<Asked>>,
    nudged: Mutex<Option<Instant>>,
}

/// What has been asked of both sides, and what they have confirmed.
#[derive(Default)]
struct Asked {
    values: Vec<Put>,
    confirmed: BTreeSet<String>,
    /// Jobs that Poseidon has shown, confirmed or not, with their last state.
    jobs: BTreeMap<String, Value>,
    refusals: BTreeMap<String, usize>,
}

impl Rig {
    /// The agent connects to Poseidon itself.
    pub fn direct() -> Self {
        let poseidon = Poseidon::on_a_held_port(FAST);
        let url = poseidon.url();
        Self::of(poseidon, Agent::new(), &url)
    }

    /// The agent connects through a proxy.
    pub fn through_a_proxy() -> Self {
        let poseidon = Poseidon::on_a_held_port(FAST);
        let proxy = Proxy::to(poseidon.address().parse().unwrap());
        let url = format!("ws://{}/triton", proxy.address());
        Self {
            proxy: Some(proxy),
            ..Self::of(poseidon, Agent::new(), &url)
        }
    }

    /// An agent that is not started yet, at a Poseidon that is.
    pub fn of(poseidon: Poseidon, agent: Agent, url: &str) -> Self {
        Self::with_settings(poseidon, agent, url, "")
    }

    /// With more settings for the agent.
    pub fn with_settings(poseidon: Poseidon, agent: Agent, url: &str, more: &str) -> Self {
        let agent = agent.with(&["--url", url]);
        let file = agent.folder().join("triton.toml");
        fs::write(&file, format!("{SETTINGS}{more}")).unwrap();
        let mut agent = agent.with_variable("TRITON_CONFIG", file.to_str().unwrap());
        let api = Api::new(poseidon.address(), &poseidon.token());
        register(&api, &agent);
        agent.start();
        let rig = Self {
            poseidon,
            agent,
            proxy: None,
            api,
            asked: Arc::default(),
            nudged: Mutex::default(),
        };
        rig.wait_until_connected();
        rig
    }

    /// Each job writes its token here as its first act.
    pub fn starts(&self) -> PathBuf {
        self.agent.folder().join("starts")
    }

    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("a rig with a proxy")
    }

    /// An agent that waits for its next attempt tries at once.
    pub fn nudge(&self) -> Option<Value> {
        let status = local::status(&self.agent.socket())?;
        let mut nudged = self.nudged.lock().unwrap();
        let long_ago = nudged.is_none_or(|at| at.elapsed() > NUDGE);
        if long_ago && status["link"]["state"] == "waiting" {
            self.agent.signal(libc::SIGHUP);
            *nudged = Some(Instant::now());
        }
        Some(status)
    }

    pub fn connected(&self) -> bool {
        self.nudge()
            .is_some_and(|status| status["link"]["state"] == "connected")
    }

    #[track_caller]
    pub fn wait_until_connected(&self) {
        eventually(
            &format!("the agent is connected; log:\n{}", self.agent.log()),
            || self.connected().then_some(()),
        );
    }

    /// Lets time pass in which the agent never waits long before it tries again.
    pub fn pass(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.nudge();
            let left = until.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }

    /// Asks Poseidon for a job, to wait there if the agent is down. `None` where there was no whole answer.
    pub fn job(&self, line: &str) -> Option<String> {
        job(&self.api, &self.asked, &self.starts(), line)
    }

    /// Puts one more value.
    pub fn put(&self) -> Option<u64> {
        put(&self.agent.socket(), &self.asked)
    }

    /// How many jobs have no end yet.
    pub fn open(&self) -> usize {
        open_jobs(&self.api, &self.asked)
    }

    /// Begins to ask both sides for all they can do, until the load is ended.
    pub fn load(&self, random: &mut Random) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let (api, asked, starts) = (self.api.clone(), Arc::clone(&self.asked), self.starts());
        threads.push(repeat(&stop, random.fork(), 60, move |random| {
            if open_jobs(&api, &asked) < OPEN {
                job(&api, &asked, &starts, pick(random));
            }
        }));
        let (socket, asked) = (self.agent.socket(), Arc::clone(&self.asked));
        threads.push(repeat(&stop, random.fork(), 40, move |_| {
            put(&socket, &asked);
        }));
        let (socket, state) = (self.agent.socket(), self.agent.state());
        let starts = self.starts();
        threads.push(repeat(&stop, random.fork(), 600, move |_| {
            // A local job: nobody asks how it ends, the ledger knows it by its start.
            let _ = super::agent::triton()
                .arg("--state")
                .arg(&state)
                .arg("--socket")
                .arg(&socket)
                .args(["exec", "--shell", &started(&starts, "true")])
                .output();
        }));
        Load { stop, threads }
    }

    /// Waits until nothing happens any more, and takes stock.
    pub fn settle(&self) -> Ledger {
        let deadline = Instant::now() + QUIET;
        let mut rows: Vec<Row> = Vec::new();
        loop {
            self.nudge();
            self.read_history(&mut rows);
            let open = open_jobs(&self.api, &self.asked);
            let waiting = self.waiting();
            let arrived: BTreeSet<u64> = rows.iter().map(|r| r.id).collect();
            let asked = self.asked.lock().unwrap();
            let missing = asked
                .values
                .iter()
                .filter(|v| v.sequence.is_some_and(|s| !arrived.contains(&s)))
                .count();
            drop(asked);
            if open == 0 && missing == 0 && waiting == Some(0) || Instant::now() > deadline {
                self.read_history(&mut rows);
                return self.ledger(rows, waiting);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn ledger(&self, rows: Vec<Row>, waiting: Option<u64>) -> Ledger {
        // A job whose answer was lost is known by its record.
        let mut asked = self.asked.lock().unwrap();
        for row in &rows {
            if !asked.jobs.contains_key(&row.token)
                && let Ok((200, job)) = self.api.get(&format!("jobs/{}", row.token))
            {
                asked.jobs.insert(row.token.clone(), job);
            }
        }
        if !asked.refusals.is_empty() {
            println!("refusals: {:?}", asked.refusals);
        }
        let starts = fs::read_to_string(self.starts()).unwrap_or_default();
        Ledger {
            starts: starts.lines().map(str::to_owned).collect(),
            jobs: asked.jobs.values().cloned().collect(),
            confirmed: asked.confirmed.iter().cloned().collect(),
            agent: local::history(&self.agent.socket()).unwrap(),
            rows,
            values: asked.values.clone(),
            waiting: waiting.unwrap_or(u64::MAX),
            may_lose_unstarted: false,
        }
    }

    /// Records that the agent's journal has not handed over.
    pub fn waiting(&self) -> Option<u64> {
        self.nudge()?["journal"]["waiting"].as_u64()
    }

    /// What is new in Poseidon's history.
    fn read_history(&self, rows: &mut Vec<Row>) {
        loop {
            let after = rows.last().map_or(0, |r| r.at);
            let path = format!("history?agent={NAME}&order=asc&limit={PAGE}&after={after}");
            let Ok((status, page)) = self.api.get(&path) else {
                return;
            };
            assert_eq!(status, 200, "{page}");
            let records = page["records"].as_array().unwrap();
            rows.extend(records.iter().map(Row::read));
            if records.is_empty() || page["more"] != true {
                return;
            }
        }
    }
}

/// Lets the agent in.
pub fn register(api: &Api, agent: &Agent) {
    let identifier = String::from_utf8(agent.run(&["identifier"]).stdout).unwrap();
    let body = json!({ "identifier": identifier.trim(), "name": NAME });
    let (status, answer) = api.post("identifiers", &body).unwrap();
    assert_eq!(status, 201, "{answer}");
}

/// Load on both sides; ended when dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// No more is asked for.
    pub fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Does something again and again, with pauses of up to so many milliseconds.
fn repeat(
    stop: &Arc<AtomicBool>,
    mut random: Random,
    most_ms: u64,
    mut what: impl FnMut(&mut Random) + Send + 'static,
) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            what(&mut random);
            std::thread::sleep(random.up_to(Duration::from_millis(most_ms)));
        }
    })
}

/// What jobs do after they have written down their start.
fn pick(random: &mut Random) -> &'static str {
    match random.below(6) {
        0 | 1 => "true",
        2 => "seq 1 2000",
        3 => "head -c 200000 /dev/zero",
        4 => "sleep 0.1",
        _ => "exit 3",
    }
}

fn started(starts: &Path, line: &str) -> String {
    format!("echo $TRITON_JOB >> {}; {line}", starts.display())
}

fn job(api: &Api, asked: &Mutex<Asked>, starts: &Path, line: &str) -> Option<String> {
    let body = json!({
        "agents": [NAME],
        "command": { "shell": started(starts, line) },
        "queue": true,
    });
    let (status, answer) = api.post("jobs", &body).ok()?;
    let mut asked = asked.lock().unwrap();
    if status != 201 {
        let code = answer["error"]["code"].to_string();
        *asked.refusals.entry(code).or_default() += 1;
        return None;
    }
    let job = &answer["jobs"][0];
    let token = job["id"].as_str().unwrap().to_owned();
    asked
        .jobs
        .entry(token.clone())
        .or_insert_with(|| job.clone());
    asked.confirmed.insert(token.clone());
    Some(token)
}

fn put(socket: &Path, asked: &Mutex<Asked>) -> Option<u64> {
    let n = {
        let mut asked = asked.lock().unwrap();
        let n = asked.values.len() as u64;
        asked.values.push(Put { n, sequence: None });
        n
    };
    let sequence = local::put(socket, json!({ "n": n })).ok()?;
    asked.lock().unwrap().values[usize::try_from(n).unwrap()].sequence = Some(sequence);
    Some(sequence)
}

/// How many jobs have no end, after a look at Poseidon. Where it does not answer, as many as before.
fn open_jobs(api: &Api, asked: &Mutex<Asked>) -> usize {
    let mut seen = Vec::new();
    if let Ok((200, list)) = api.get(&format!("jobs?agent={NAME}&limit=100")) {
        seen.extend(list["jobs"].as_array().unwrap().iter().cloned());
    }
    let listed: BTreeSet<String> = seen.iter().map(token_of).collect();
    let open: Vec<String> = {
        let asked = asked.lock().unwrap();
        let open = asked.jobs.iter().filter(|(_, job)| job["state"] != "ended");
        open.map(|(token, _)| token.clone()).collect()
    };
    for token in open.iter().filter(|token| !listed.contains(*token)) {
        if let Ok((200, job)) = api.get(&format!("jobs/{token}")) {
            seen.push(job);
        }
    }
    let mut asked = asked.lock().unwrap();
    for job in seen {
        asked.jobs.insert(token_of(&job), job);
    }
    let open = asked.jobs.values().filter(|job| job["state"] != "ended");
    open.count()
}

fn token_of(job: &Value) -> String {
    job["id"].as_str().unwrap().to_owned()
}
