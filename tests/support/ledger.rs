//! The ledger of a test that breaks things: what was promised, and what is there when all is quiet.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use triton::message::payload::{Record, code};

/// A record in Poseidon's store, as its API shows it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its place in the store.
    pub at: u64,
    pub instance: String,
    pub id: u64,
    pub token: String,
    pub code: u32,
    pub data: Value,
}

impl Row {
    pub fn read(value: &Value) -> Self {
        let number = |name: &str| {
            value[name]
                .as_u64()
                .unwrap_or_else(|| panic!("{name}: {value}"))
        };
        let text = |name: &str| {
            value[name]
                .as_str()
                .unwrap_or_else(|| panic!("{name}: {value}"))
        };
        Self {
            at: number("row"),
            instance: text("instance").to_owned(),
            id: number("id"),
            token: text("token").to_owned(),
            code: u32::try_from(number("code")).unwrap(),
            data: value["data"].clone(),
        }
    }
}

/// A value that `history.put` was asked to store, by what makes it unlike all others.
#[derive(Clone, Copy, Debug)]
pub struct Put {
    pub n: u64,
    /// Its sequence where the agent confirmed it.
    pub sequence: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// The token of each start, written by the job itself.
    pub starts: Vec<String>,
    /// The jobs as Poseidon's API shows them.
    pub jobs: Vec<Value>,
    /// Jobs that Poseidon's API has confirmed with a 201.
    pub confirmed: Vec<String>,
    /// What the agent's journal still has.
    pub agent: Vec<Record>,
    /// What Poseidon's store has, in the order of its rows.
    pub rows: Vec<Row>,
    /// What local clients have put.
    pub values: Vec<Put>,
    /// The agent's own words on what it has not handed over.
    pub waiting: u64,
    /// The journal got another id meanwhile: what was sent and not accepted may be lost, if it never started.
    pub may_lose_unstarted: bool,
}

/// Errors that say that a job never started, with the agent's word or Poseidon's.
const NEVER_STARTED: [&str; 2] = ["busy", "io"];

impl Ledger {
    /// All that does not hold; empty where everything is as promised.
    pub fn violations(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.check_starts(&mut wrong);
        self.check_jobs(&mut wrong);
        self.check_tokens(&mut wrong);
        self.check_order(&mut wrong);
        self.check_values(&mut wrong);
        self.check_agent(&mut wrong);
        wrong
    }

    #[track_caller]
    pub fn assert_sound(&self) {
        let wrong = self.violations();
        let shown: Vec<&String> = wrong.iter().take(40).collect();
        assert!(
            wrong.is_empty(),
            "{} promises broken, {self}:\n{shown:#?}",
            wrong.len()
        );
    }

    /// How many jobs ended with each status or error.
    pub fn ends(&self) -> BTreeMap<String, usize> {
        let mut ends = BTreeMap::new();
        for job in &self.jobs {
            let end = job["result"]["status"]
                .as_str()
                .or(job["error"]["code"].as_str())
                .or(job["state"].as_str());
            *ends.entry(end.unwrap_or("?").to_owned()).or_default() += 1;
        }
        ends
    }

    fn starts_of(&self) -> HashMap<&str, usize> {
        let mut count = HashMap::new();
        for token in &self.starts {
            *count.entry(token.as_str()).or_default() += 1;
        }
        count
    }

    fn check_starts(&self, wrong: &mut Vec<String>) {
        for (token, count) in self.starts_of() {
            if count > 1 {
                wrong.push(format!("job {token} was started {count} times"));
            }
        }
    }

    fn check_jobs(&self, wrong: &mut Vec<String>) {
        let starts = self.starts_of();
        let known: BTreeSet<&str> = self.jobs.iter().filter_map(|j| j["id"].as_str()).collect();
        for token in &self.confirmed {
            if !known.contains(token.as_str()) {
                wrong.push(format!(
                    "job {token} was confirmed, Poseidon has forgotten it"
                ));
            }
        }
        for job in &self.jobs {
            let token = job["id"].as_str().unwrap_or("?");
            let (result, error) = (&job["result"], &job["error"]);
            if job["state"] != "ended" {
                wrong.push(format!("job {token} has no end: it is {}", job["state"]));
                continue;
            }
            if result.is_null() == error.is_null() {
                wrong.push(format!("job {token} does not have exactly one end: {job}"));
            }
            let started = starts.get(token).copied().unwrap_or(0);
            let ran = result["status"] == "succeeded" || result["exitCode"].is_number();
            if ran && started != 1 {
                wrong.push(format!("job {token} ran, with {started} starts: {result}"));
            }
            let never = result["status"] == "expired"
                || NEVER_STARTED.iter().any(|code| error["code"] == *code);
            if never && started != 0 {
                wrong.push(format!(
                    "job {token} never started, with {started} starts: {job}"
                ));
            }
            if error["code"] == "lost" && !(self.may_lose_unstarted && started == 0) {
                wrong.push(format!(
                    "job {token} is lost, though no journal was: {error}"
                ));
            }
            self.check_end(token, job, wrong);
        }
    }

    /// The job's end as shown is the one in the store.
    fn check_end(&self, token: &str, job: &Value, wrong: &mut Vec<String>) {
        let Some(end) = self
            .rows
            .iter()
            .find(|r| r.token == token && code::is_end(r.code))
        else {
            return;
        };
        let shown = &job["result"]["status"];
        if !shown.is_null() && *shown != end.data["status"] {
            wrong.push(format!(
                "job {token} shows {shown}, its record {}",
                end.data
            ));
        }
    }

    /// Accepted and ended, each once, in this order; and nothing was started that is not accepted.
    fn check_tokens(&self, wrong: &mut Vec<String>) {
        let mut accepted: HashMap<&str, Vec<u64>> = HashMap::new();
        let mut ended: HashMap<&str, Vec<u64>> = HashMap::new();
        for row in &self.rows {
            if row.code == code::ACCEPTED {
                accepted.entry(&row.token).or_default().push(row.id);
            } else if code::is_end(row.code) {
                ended.entry(&row.token).or_default().push(row.id);
            }
        }
        for (token, ids) in &accepted {
            let ends = ended.get(token).map_or(&[][..], Vec::as_slice);
            if ids.len() > 1 {
                wrong.push(format!(
                    "job {token} was accepted {} times: {ids:?}",
                    ids.len()
                ));
            }
            match ends {
                [end] if *end > ids[0] => {}
                [end] => wrong.push(format!("job {token} ended ({end}) before {}", ids[0])),
                _ => wrong.push(format!("job {token} has {} ends: {ends:?}", ends.len())),
            }
        }
        for token in ended.keys().filter(|t| !accepted.contains_key(*t)) {
            wrong.push(format!("job {token} ended and was never accepted"));
        }
        let starts: BTreeSet<&String> = self.starts.iter().collect();
        for token in starts {
            if !accepted.contains_key(token.as_str()) {
                wrong.push(format!(
                    "job {token} was started and Poseidon has no record of it"
                ));
            }
        }
    }

    /// An instance's records arrive in the order of their sequence, and each once.
    fn check_order(&self, wrong: &mut Vec<String>) {
        let mut last: HashMap<&str, u64> = HashMap::new();
        let mut seen = BTreeSet::new();
        for row in &self.rows {
            if !seen.insert((&row.instance, row.id)) {
                wrong.push(format!(
                    "sequence {} of {} is there twice",
                    row.id, row.instance
                ));
            }
            let last = last.entry(&row.instance).or_default();
            if row.id < *last {
                wrong.push(format!("sequence {} came behind {last}", row.id));
            }
            *last = row.id;
        }
    }

    fn check_values(&self, wrong: &mut Vec<String>) {
        let mut arrived: HashMap<u64, Vec<u64>> = HashMap::new();
        for row in self.rows.iter().filter(|r| r.code == code::VALUE) {
            match row.data["n"].as_u64() {
                Some(n) => arrived.entry(n).or_default().push(row.id),
                None => wrong.push(format!("nobody has put {row:?}")),
            }
        }
        for value in &self.values {
            let ids = arrived.remove(&value.n).unwrap_or_default();
            match (value.sequence, ids.as_slice()) {
                (Some(sequence), [id]) if *id == sequence => {}
                // Asked for and not confirmed: it may be there, once.
                (None, [] | [_]) => {}
                (sequence, ids) => wrong.push(format!(
                    "value {} was confirmed as {sequence:?} and arrived as {ids:?}",
                    value.n
                )),
            }
        }
        for n in arrived.keys() {
            wrong.push(format!("nobody has put the value {n}"));
        }
        let dropped = self.rows.iter().filter(|r| r.code == code::DROPPED);
        for row in dropped {
            wrong.push(format!("events were dropped: {}", row.data));
        }
    }

    /// What the agent still has is what Poseidon has.
    fn check_agent(&self, wrong: &mut Vec<String>) {
        let rows: HashMap<u64, &Row> = self.rows.iter().map(|r| (r.id, r)).collect();
        for record in &self.agent {
            match rows.get(&record.id) {
                None => wrong.push(format!("Poseidon lacks {record:?}")),
                Some(row) => {
                    let data = serde_json::from_str::<Value>(record.data.get()).unwrap();
                    if (row.code, &row.token) != (record.code, &record.token) {
                        wrong.push(format!("the agent has {record:?}, Poseidon {row:?}"));
                    } else if record.code == code::VALUE && row.data != data {
                        wrong.push(format!("the agent has the value {data}, Poseidon {row:?}"));
                    }
                }
            }
        }
        if self.waiting > 0 {
            wrong.push(format!(
                "{} records have not been acknowledged",
                self.waiting
            ));
        }
    }
}

impl std::fmt::Display for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let confirmed = self.values.iter().filter(|v| v.sequence.is_some()).count();
        write!(
            f,
            "{} jobs {:?}, {} starts, {} records, {confirmed} of {} values confirmed",
            self.jobs.len(),
            self.ends(),
            self.starts.len(),
            self.rows.len(),
            self.values.len()
        )
    }
}
