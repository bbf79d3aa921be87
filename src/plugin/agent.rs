//! `agent.status`: the agent about itself.

use super::{Peer, Plugin};
use crate::identity::Instance;
use crate::job::Pool;
use crate::journal::Journal;
use crate::link::status::LinkStatus;
use crate::message::Message;
use crate::message::payload::AGENT_STATUS;
use crate::outbox::Outbox;
use crate::plugin::health::agent_rss;
use crate::schedule::Scheduler;
use crate::scripts::Repository;
use crate::sys::clock;
use crate::trust::Trust;
use std::sync::Arc;

/// Answers `agent.status`.
pub struct Status {
    instance: Instance,
    fingerprint: String,
    started: f64,
    link: Arc<LinkStatus>,
    pool: Arc<Pool>,
    outbox: Arc<Outbox>,
    journal: Arc<Journal>,
    scheduler: Arc<Scheduler>,
    scripts: Arc<Repository>,
    trust: Arc<Trust>,
}

impl Status {
    /// Reports on these parts.
    #[allow(clippy::too_many_arguments, reason = "each is a part")]
    pub fn new(
        instance: Instance,
        fingerprint: String,
        link: Arc<LinkStatus>,
        pool: Arc<Pool>,
        outbox: Arc<Outbox>,
        journal: Arc<Journal>,
        scheduler: Arc<Scheduler>,
        scripts: Arc<Repository>,
        trust: Arc<Trust>,
    ) -> Self {
        Self {
            instance,
            fingerprint,
            started: clock::now(),
            link,
            pool,
            outbox,
            journal,
            scheduler,
            scripts,
            trust,
        }
    }
}

impl Plugin for Status {
    fn name(&self) -> &'static str {
        "agent"
    }

    fn types(&self) -> &'static [&'static str] {
        &[AGENT_STATUS]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        let mut report = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "startedAt": self.started,
            "time": clock::now(),
            "instance": self.instance.id,
            "identifier": self.fingerprint,
            "rss": agent_rss(),
            "link": self.link.get(),
            "queue": { "messages": self.outbox.len(), "dropped": self.outbox.dropped() },
            "journal": self.journal.report(),
            "schedule": self.scheduler.report(),
            "trust": self.trust.report(),
            "scripts": { "revision": self.scripts.revision().unwrap_or_default() },
            "jobs": {
                "running": self.pool.running(),
                "waiting": self.pool.waiting(),
                "list": self.pool.list(),
            },
        });
        if let Some(reason) = &self.instance.fleeting {
            report["instanceReason"] = reason.clone().into();
        }
        from.outbox.push(message.reply(AGENT_STATUS, &report));
    }
}
