//! The first minutes of a new program as the agent, and the way back.

use super::install::{beside, sync_folder};
use super::{Pending, Settings};
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::link::status::LinkStatus;
use crate::message::payload::{self, JobResult, Status, code};
use crate::sys::poll;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Starts of a new program without a welcome; with the next one the old program is brought back.
const STARTS: u32 = 3;
/// How often the link is looked at while there is a trial.
const LOOK: Duration = Duration::from_millis(500);

/// How this start stands to an update.
#[derive(Debug)]
pub enum Began {
    /// There is none.
    Alone,
    /// This start tells what became of one.
    Trial(Box<Trial>),
    /// The old program has its place again: it has to be started.
    TakenBack,
}

/// An update that is told of by this start of the agent.
#[derive(Debug)]
pub struct Trial {
    state: PathBuf,
    pending: Pending,
    /// Until when the welcome has to come; none where it is known already that the update failed.
    deadline: Option<Instant>,
    /// This process is the new program.
    is_new: bool,
}

impl Trial {
    /// Looks what an update has left. To be called first of all, with the state folder locked: what crashes later has
    /// been counted.
    pub fn begin(settings: &Settings) -> Began {
        let state = &settings.state;
        let Some(mut pending) = Pending::load(state) else {
            // What an update that was cut short has left; there was no note yet, or none any more.
            for what in ["new", "old"] {
                let _ = std::fs::remove_file(beside(&settings.program, what));
            }
            return Began::Alone;
        };
        let is_new = match super::hash(Path::new("/proc/self/exe")) {
            Ok(hash) => hash == pending.sha256,
            Err(e) => {
                log::error!("this program cannot be read, so an update is not followed: {e}");
                return Began::Alone;
            }
        };
        let trial = |pending, deadline| {
            Began::Trial(Box::new(Self {
                state: state.clone(),
                pending,
                deadline,
                is_new,
            }))
        };
        if !is_new {
            pending.failed.get_or_insert_with(|| {
                "the device or the agent stopped before the new program took its place".to_owned()
            });
            return trial(pending, None);
        }
        pending.starts += 1;
        if pending.starts > STARTS {
            let reason = format!("the new program died {STARTS} times before it got a welcome");
            return match take_back(state, &mut pending, &reason) {
                Ok(()) => Began::TakenBack,
                Err(e) => {
                    pending.failed = Some(format!("{reason}; {e}"));
                    trial(pending, None)
                }
            };
        }
        if let Err(e) = pending.store(state) {
            log::error!("this start of the new program is not counted: {e}");
        }
        let seconds = settings.confirm.as_secs();
        log::warn!(
            "the new program runs as the agent; without a welcome within {seconds} s the old one comes back"
        );
        trial(pending, Some(poll::after(settings.confirm)))
    }

    /// The job that this start has to end.
    pub fn token(&self) -> &str {
        &self.pending.token
    }

    /// The welcome came: the new program stays.
    fn succeeded(self, journal: &Journal) {
        let Pending { version, from, .. } = &self.pending;
        log::info!("the update from {from} to {version} has succeeded");
        let result = JobResult {
            data: Some(json!({"version": version, "from": from, "starts": self.pending.starts})),
            ..JobResult::without_process(Status::Succeeded, None)
        };
        self.tell(journal, code::SUCCEEDED, payload::to_json(&result));
        self.clear();
    }

    /// Tells that the update failed. Where the old program could not be brought back, note and old program stay: each
    /// start without a welcome tries it again.
    fn failed(&mut self, journal: &Journal) {
        let reason = self.pending.failed.clone().unwrap_or_default();
        let Pending { version, from, .. } = &self.pending;
        log::error!("the update from {from} to {version} has failed: {reason}");
        if !self.pending.told {
            let result = JobResult::without_process(Status::Failed, Some(&reason));
            self.tell(journal, code::FAILED, payload::to_json(&result));
        }
        if !self.is_new {
            return self.clear();
        }
        self.pending.told = true;
        if let Err(e) = self.pending.store(&self.state) {
            log::error!("that the end of the update was told is not noted: {e}");
        }
    }

    fn tell(&self, journal: &Journal, code: u32, data: String) {
        journal.end(&self.pending.token, &self.pending.conversation, code, data);
    }

    fn clear(&self) {
        // Where the new program never took its place, `old` is a second name of the program that runs.
        let leftovers = [&self.pending.old, &beside(&self.pending.program, "new")];
        for path in leftovers {
            let _ = std::fs::remove_file(path);
        }
        Pending::remove(&self.state);
    }
}

fn take_back(state: &Path, pending: &mut Pending, reason: &str) -> Result<()> {
    pending.failed = Some(reason.to_owned());
    // First the note: a power cut between the two leaves a new program that is taken back at a later start.
    if let Err(e) = pending.store(state) {
        log::error!("why the update failed is not noted: {e}");
    }
    log::error!("bringing the old program back: {reason}");
    std::fs::rename(&pending.old, &pending.program)
        .map_err(|e| Error::at("bring back", &pending.program, e))?;
    if let Err(e) = sync_folder(&pending.program) {
        log::error!("{} cannot be synced: {e}", pending.program.display());
    }
    Ok(())
}

/// `main`'s side of a trial.
pub struct Watch<'a> {
    trial: Option<Box<Trial>>,
    link: &'a LinkStatus,
    journal: &'a Journal,
}

impl<'a> Watch<'a> {
    /// Watches `trial`, if there is one; one that has failed is told of at once.
    pub fn new(trial: Option<Box<Trial>>, link: &'a LinkStatus, journal: &'a Journal) -> Self {
        let mut trial = trial;
        if let Some(failed) = trial.as_mut().filter(|trial| trial.deadline.is_none()) {
            failed.failed(journal);
            trial = trial.filter(|trial| trial.is_new);
        }
        Self {
            trial,
            link,
            journal,
        }
    }

    /// When to call [`Watch::turn`] at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.trial.as_ref().map(|_| poll::after(LOOK))
    }

    /// Whether the agent has to restart, as the old program.
    pub fn turn(&mut self) -> bool {
        let Some(mut trial) = self.trial.take() else {
            return false;
        };
        if self.link.get().welcomed {
            // One that could not be taken back, and that has failed for everybody, stays all the same.
            if trial.pending.told {
                trial.clear();
            } else {
                trial.succeeded(self.journal);
            }
            return false;
        }
        if trial.deadline.is_none_or(|at| at > Instant::now()) {
            self.trial = Some(trial);
            return false;
        }
        let error = self.link.get().last_error.unwrap_or_default();
        let reason = format!("the new program got no welcome in time: {error}");
        match take_back(&trial.state, &mut trial.pending, &reason) {
            Ok(()) => true,
            Err(e) => {
                trial.pending.failed = Some(format!("{reason}; {e}"));
                trial.failed(self.journal);
                trial.deadline = None;
                self.trial = Some(trial);
                false
            }
        }
    }
}
