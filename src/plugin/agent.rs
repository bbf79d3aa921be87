//! `agent.status`: the agent about itself.

use super::builtin::{Modules, Parts};
use super::{Peer, Plugin};
use crate::acts::Acts;
use crate::events::Events;
use crate::identity::Instance;
use crate::job::Pool;
use crate::journal::Journal;
use crate::link::status::LinkStatus;
use crate::message::Message;
use crate::message::payload::AGENT_STATUS;
use crate::outbox::Outbox;
use crate::plugin::health::agent_rss;
use crate::policy::Policy;
use crate::relay::Relay;
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
    scheduler: Option<Arc<Scheduler>>,
    scripts: Arc<Repository>,
    modules: Arc<Modules>,
    events: Option<Arc<Events>>,
    policy: Arc<Policy>,
    trust: Arc<Trust>,
    relay: Option<Arc<Relay>>,
    acts: Arc<Acts>,
}

impl Status {
    /// Reports on these parts.
    pub fn new(parts: &Parts<'_>) -> Self {
        Self {
            instance: parts.instance.clone(),
            fingerprint: parts.fingerprint.to_owned(),
            started: clock::now(),
            link: Arc::clone(parts.link),
            pool: Arc::clone(parts.pool),
            outbox: Arc::clone(parts.outbox),
            journal: Arc::clone(parts.journal),
            scheduler: parts.scheduler.cloned(),
            scripts: Arc::clone(parts.scripts),
            modules: Arc::clone(parts.modules),
            events: parts.events.cloned(),
            policy: Arc::clone(parts.policy),
            trust: Arc::clone(parts.trust),
            relay: parts.relay.cloned(),
            acts: Arc::clone(parts.acts),
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
            "schedule": self.scheduler.as_ref().map(|s| s.report()),
            "policy": self.policy.report(),
            "trust": self.trust.report(),
            "scripts": { "revision": self.scripts.revision().unwrap_or_default() },
            "events": self.events.as_ref().map(|e| e.report()),
            "relay": self.relay.as_ref().map(|r| r.report()),
            "jobs": {
                "running": self.pool.running(),
                "waiting": self.pool.waiting(),
                "list": self.pool.list(),
                "stopsFor": self.pool.stops_for(),
            },
            "modules": self.modules.list(),
        });
        if let Some(reason) = &self.instance.fleeting {
            report["instanceReason"] = reason.clone().into();
        }
        if let Some(reason) = self.acts.refused() {
            report["configurationRefused"] = reason.into();
        }
        from.outbox.push(message.reply(AGENT_STATUS, &report));
    }
}
