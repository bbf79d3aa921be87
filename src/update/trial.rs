//! The first minutes of a new program as the agent, and the way back.

use super::Pending;
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::message::payload::{self, JobResult, Status, code};
use crate::sys::poll;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Starts of a new program without a welcome; with the next one the old program is brought back.
const STARTS: u32 = 3;

/// An update that is told of by this start of the agent.
#[derive(Debug)]
pub struct Trial {
    state: PathBuf,
    pending: Pending,
    /// Until when the welcome has to come; none where it is known already that the update failed.
    deadline: Option<Instant>,
}

impl Trial {
    /// Looks what an update has left. To be called first of all, with the state folder locked: what crashes later has
    /// been counted. `Err` holds the program to go on with in place of this one.
    pub fn begin(state: &Path, confirm: Duration) -> std::result::Result<Option<Self>, PathBuf> {
        let Some(mut pending) = Pending::load(state) else {
            return Ok(None);
        };
        let is_new = super::hash(Path::new("/proc/self/exe")).is_ok_and(|h| h == pending.sha256);
        if !is_new {
            pending.failed.get_or_insert_with(|| {
                "the device or the agent stopped before the new program took its place".to_owned()
            });
            return Ok(Some(Self {
                state: state.to_owned(),
                pending,
                deadline: None,
            }));
        }
        pending.starts += 1;
        if pending.starts > STARTS {
            let starts = pending.starts - 1;
            let reason = format!("the new program died {starts} times before it got a welcome");
            return match take_back(state, &mut pending, &reason) {
                Ok(program) => Err(program),
                Err(e) => {
                    log::error!("{e}; going on with the new program, which did not get a welcome");
                    Ok(None)
                }
            };
        }
        if let Err(e) = pending.store(state) {
            log::error!("this start of the new program is not counted: {e}");
        }
        log::warn!(
            "running as version {} for the first time; without a welcome within {} s the old program comes back",
            pending.version,
            confirm.as_secs()
        );
        Ok(Some(Self {
            state: state.to_owned(),
            pending,
            deadline: Some(poll::after(confirm)),
        }))
    }

    /// The job that this start has to end.
    pub fn token(&self) -> &str {
        &self.pending.token
    }

    /// When to call [`Trial::is_overdue`].
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the update failed before this start.
    pub fn has_failed(&self) -> bool {
        self.deadline.is_none()
    }

    /// Whether the time for the welcome is over.
    pub fn is_overdue(&self) -> bool {
        self.deadline.is_some_and(|at| at <= Instant::now())
    }

    /// The welcome came: the new program stays.
    pub fn succeeded(self, journal: &Journal) {
        let Pending { version, from, .. } = &self.pending;
        log::info!("the update from {from} to {version} has succeeded");
        let result = JobResult {
            data: Some(json!({"version": version, "from": from, "starts": self.pending.starts})),
            ..JobResult::without_process(Status::Succeeded, None)
        };
        self.tell(journal, code::SUCCEEDED, payload::to_json(&result));
        self.clear();
    }

    /// Tells that the update failed, where that is known.
    pub fn failed(self, journal: &Journal) {
        let reason = self.pending.failed.as_deref().unwrap_or_default();
        log::error!(
            "the update to {} has failed, {} goes on: {reason}",
            self.pending.version,
            self.pending.from
        );
        let result = JobResult::without_process(Status::Failed, Some(reason));
        self.tell(journal, code::FAILED, payload::to_json(&result));
        self.clear();
    }

    /// Brings the old program back; the path of what to go on with.
    pub fn take_back(&mut self, reason: &str) -> Result<PathBuf> {
        take_back(&self.state, &mut self.pending, reason)
    }

    /// No second try: the new program has to stay, whatever it is.
    pub fn give_up(&mut self) {
        self.deadline = None;
    }

    fn tell(&self, journal: &Journal, code: u32, data: String) {
        journal.end(&self.pending.token, &self.pending.conversation, code, data);
    }

    fn clear(&self) {
        Pending::remove(&self.state);
        // Where the new program never took its place, `old` is a second name of the program that runs.
        let leftovers = [&self.pending.old, &super::install::beside(&self.pending.program, "new")];
        for path in leftovers {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn take_back(state: &Path, pending: &mut Pending, reason: &str) -> Result<PathBuf> {
    pending.failed = Some(reason.to_owned());
    // First the note: a power cut between the two leaves a new program that is taken back at its next start.
    if let Err(e) = pending.store(state) {
        log::error!("why the update failed is not noted: {e}");
    }
    log::error!("bringing the old program back: {reason}");
    std::fs::rename(&pending.old, &pending.program)
        .and_then(|()| super::install::sync_folder(&pending.program))
        .map_err(|e| Error::at("bring back", &pending.program, e))?;
    Ok(pending.program.clone())
}
