//! Acts on the agent and the system: reload, restart, exit, reboot, shutdown.
//!
//! Each is a job that lasts for its delay. When its success is in the journal it is handed to `main`, which waits until
//! Poseidon has acknowledged that, and then acts: nobody has to guess whether what went down was meant to.

use crate::config::System;
use crate::error::{Error, Result};
use crate::job::task::{Told, after_seconds};
use crate::job::{Context, Pool, Stop, Task, hide_own_variables};
use crate::journal::Journal;
use crate::message::payload::{self, HistoryPut};
use crate::outbox::Outbox;
use crate::sys::poll::after;
use crate::sys::process;
use crate::sys::wake::Wake;
use serde_json::{Value, json};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long Poseidon's acknowledgement is waited for.
const ACK_PATIENCE: Duration = Duration::from_secs(10);
/// How often to look, while there is something to wait for that does not ring.
const LOOK: Duration = Duration::from_millis(50);
/// How long a system that was told to go down may take to end the agent.
const DOWN_PATIENCE: Duration = Duration::from_mins(5);

/// What is done. Of two at once the later in this list wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// The configuration is read anew.
    Reload,
    /// The agent's process becomes a new one.
    Restart,
    /// The agent ends.
    Exit,
    /// The system starts anew.
    Reboot,
    /// The system goes down.
    Shutdown,
}

/// By their message types.
pub const ACTS: [(&str, Act); 5] = [
    (payload::AGENT_RELOAD, Act::Reload),
    (payload::AGENT_RESTART, Act::Restart),
    (payload::AGENT_EXIT, Act::Exit),
    (payload::SYSTEM_REBOOT, Act::Reboot),
    (payload::SYSTEM_SHUTDOWN, Act::Shutdown),
];

impl Act {
    fn name(self) -> &'static str {
        let found = ACTS.iter().find(|(_, act)| *act == self);
        found.map_or("", |(name, _)| name)
    }
}

/// An act that has been reported and not been done.
#[derive(Debug, Clone)]
struct Asked {
    act: Act,
    /// Of the job.
    token: String,
    /// The record that has to be acknowledged.
    through: u64,
}

/// Reads the configuration and says what is wrong with it.
pub type Check = Box<dyn Fn() -> Result<()> + Send + Sync>;

/// From the jobs to `main`.
pub struct Acts {
    asked: Mutex<Option<Asked>>,
    wake: Wake,
    journal: Arc<Journal>,
    check: Check,
    /// Why the configuration is not the one that was to be read last.
    refused: Mutex<Option<String>>,
}

impl fmt::Debug for Acts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acts")
    }
}

impl Acts {
    /// Nothing to do yet.
    pub fn new(journal: Arc<Journal>, check: Check) -> io::Result<Self> {
        Ok(Self {
            asked: Mutex::default(),
            wake: Wake::new()?,
            journal,
            check,
            refused: Mutex::default(),
        })
    }

    /// Why the configuration that was to be read last is not in force.
    pub fn refused(&self) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.clone()
    }

    /// Says that; nothing where it is in force.
    pub fn set_refused(&self, reason: Option<String>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Rung when there is something to do.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn ask(&self, act: Act, token: &str) {
        let asked = Asked {
            act,
            token: token.to_owned(),
            through: self.journal.last(),
        };
        let mut slot = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_none_or(|other| other.act <= act) {
            *slot = Some(asked);
        }
        drop(slot);
        self.wake.ring();
    }

    /// Restarts the agent as a part of this job, whose end the next process tells.
    pub fn restart_within(&self, token: &str) {
        self.journal.set_goes_on(token);
        self.ask(Act::Restart, token);
    }

    fn take(&self) -> Option<Asked> {
        self.wake.clear();
        let mut slot = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        slot.take()
    }
}

#[cfg_attr(not(feature = "acts"), allow(dead_code))]
/// The job: waits, then hands the act on.
#[derive(Debug)]
pub struct Delayed {
    pub act: Act,
    pub seconds: f64,
    pub token: String,
    pub acts: Arc<Acts>,
}

impl Task for Delayed {
    fn name(&self) -> &'static str {
        self.act.name()
    }

    fn run(&self, context: &Context<'_>) -> std::result::Result<Option<Value>, Stop> {
        context.sleep_until(after_seconds(self.seconds))?;
        if self.act == Act::Reload
            && let Err(error) = (self.acts.check)()
        {
            self.acts.set_refused(Some(error.to_string()));
            // `main` finds the same, and tells the log and the service manager.
            self.acts.ask(self.act, &self.token);
            return Err(Stop::Told(Box::new(Told {
                succeeded: false,
                message: Some(format!("configuration refused: {error}")),
                data: None,
            })));
        }
        Ok(None)
    }

    fn after(&self) {
        self.acts.ask(self.act, &self.token);
    }
}

/// What `main` is to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Wait.
    None,
    /// Read the configuration anew.
    Reload,
    /// End, and begin again.
    Restart,
    /// End.
    Exit,
}

/// `main`'s side.
pub struct Actor<'a> {
    pub acts: &'a Acts,
    /// To Poseidon.
    pub link: &'a Outbox,
    pub pool: &'a Pool,
    /// How long jobs get to end before the system goes down.
    pub grace: Duration,
    pub system: &'a System,
    pub stage: Stage,
}

/// How far an act is.
#[derive(Default)]
pub enum Stage {
    /// There is none.
    #[default]
    Idle,
    /// Until Poseidon knows.
    Acknowledgement(Acknowledgement),
    /// The system has been told.
    Down(Down),
}

/// What is waited for.
pub struct Acknowledgement {
    asked: Asked,
    until: Instant,
}

/// The command that ends the system.
pub struct Down {
    asked: Asked,
    /// As long as it runs.
    child: Option<Child>,
    until: Instant,
}

impl Actor<'_> {
    /// When to call [`Actor::turn`] at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Idle => None,
            Stage::Down(Down {
                child: None, until, ..
            }) => Some(*until),
            Stage::Acknowledgement(_) | Stage::Down(_) => Some(after(LOOK)),
        }
    }

    /// Looks what is to be done. It may wait for the jobs' end.
    pub fn turn(&mut self) -> Deed {
        if matches!(self.stage, Stage::Idle) {
            let Some(asked) = self.acts.take() else {
                return Deed::None;
            };
            self.stage = Stage::Acknowledgement(Acknowledgement {
                asked,
                until: after(ACK_PATIENCE),
            });
        }
        // What comes now waits for its turn, or for the next process.
        self.acts.wake.clear();
        match std::mem::take(&mut self.stage) {
            Stage::Idle => Deed::None,
            Stage::Acknowledgement(waiting) => {
                let journal = &self.acts.journal;
                if self.link.is_online()
                    && journal.acked() < waiting.asked.through
                    && Instant::now() < waiting.until
                {
                    self.stage = Stage::Acknowledgement(waiting);
                    return Deed::None;
                }
                self.act(waiting.asked)
            }
            Stage::Down(down) => self.watch(down),
        }
    }

    fn act(&mut self, asked: Asked) -> Deed {
        log::info!("{} (job {})", asked.act.name(), asked.token);
        if asked.act != Act::Reload {
            self.pool.will_stop_for(asked.act.name());
        }
        let words = match asked.act {
            Act::Reload => return Deed::Reload,
            Act::Restart => return Deed::Restart,
            Act::Exit => return Deed::Exit,
            Act::Reboot => &self.system.reboot_command,
            Act::Shutdown => &self.system.shutdown_command,
        };
        // In order, and while there is a connection that tells of it.
        self.pool.stop(self.grace);
        self.acts.journal.sync();
        match start(words) {
            Ok(child) => {
                self.stage = Stage::Down(Down {
                    asked,
                    child: Some(child),
                    until: after(DOWN_PATIENCE),
                });
                Deed::None
            }
            Err(error) => self.failed(&asked, &error.to_string()),
        }
    }

    fn watch(&mut self, mut down: Down) -> Deed {
        if let Some(child) = &mut down.child {
            match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) if status.success() => down.child = None,
                Ok(Some(status)) => {
                    return self.failed(&down.asked, &format!("its command failed: {status}"));
                }
                Err(e) => return self.failed(&down.asked, &format!("its command is lost: {e}")),
            }
        }
        if Instant::now() >= down.until {
            return self.failed(&down.asked, "the system has not gone down within 5 minutes");
        }
        self.stage = Stage::Down(down);
        Deed::None
    }

    /// The device has to stay in reach. Its jobs have been ended, so the agent begins anew.
    fn failed(&self, asked: &Asked, why: &str) -> Deed {
        let name = asked.act.name();
        log::error!("{name} has failed, so the agent restarts: {why}");
        let stored = self.acts.journal.put(&HistoryPut {
            token: Some(asked.token.clone()),
            data: json!({ "failed": name, "message": why }),
            ..HistoryPut::default()
        });
        if let Err(error) = stored {
            log::error!("that it has failed cannot be stored: {}", error.message);
        }
        Deed::Restart
    }
}

fn start(words: &[String]) -> Result<Child> {
    let program = words.first().map(String::as_str).unwrap_or_default();
    let mut command = Command::new(program);
    command.args(words.get(1..).unwrap_or_default());
    hide_own_variables(&mut command);
    // What it starts may outlive it, and wants to be told to end.
    process::as_a_fresh_process(&mut command);
    command
        .stdin(Stdio::null())
        .spawn()
        .map_err(|e| Error::because(format!("cannot run {program:?}"), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_act_has_its_name_and_the_stronger_wins() {
        for (name, act) in ACTS {
            assert_eq!(act.name(), name);
        }
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&crate::journal::Settings {
            folder: folder.path().join("journal"),
            state: folder.path().to_owned(),
            bytes: 65_536,
            memory_bytes: 32_768,
            sync: false,
            goes_on: None,
        });
        let acts = Acts::new(Arc::new(journal.unwrap()), Box::new(|| Ok(()))).unwrap();
        assert!(acts.take().is_none());
        for act in [Act::Restart, Act::Reboot, Act::Reload, Act::Exit] {
            acts.ask(act, "t");
        }
        assert_eq!(acts.take().unwrap().act, Act::Reboot);
        assert!(acts.take().is_none());
    }
}
