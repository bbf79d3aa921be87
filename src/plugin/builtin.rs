//! The plugins that are built in: which there are, what they act on, and how they are put together.
//!
//! A new one has its feature in `Cargo.toml` (and there in `full`), its module in `plugin/mod.rs` behind that feature, a
//! line of [`BUILTIN`], and a line in [`compose`]. Its name is its feature's.

use super::Plugin;
use crate::acts::Acts;
use crate::config::Config;
use crate::events::Events;
use crate::external::Hub;
use crate::identity::Instance;
use crate::job::Pool;
use crate::journal::Journal;
use crate::link::control::Control;
use crate::link::status::LinkStatus;
use crate::message::ErrorCode;
use crate::message::payload::{self, Error, PluginState};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::policy::Policy;
use crate::relay::Relay;
use crate::schedule::Scheduler;
use crate::scripts::Repository;
use crate::thread::Crew;
use crate::trust::Trust;
use crate::update;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

/// One that is built in, or could be.
pub struct Builtin {
    /// Its name, and that of its feature.
    pub name: &'static str,
    /// Whether this program has it.
    pub built: bool,
    /// Whether it belongs to the core: it is in every build, and nobody switches it off.
    pub core: bool,
    /// The types that it acts on: what is answered by name also where it is not there.
    pub types: &'static [&'static str],
    /// What does not work without it, so that it is not switched off alone.
    pub needed_by: &'static [&'static str],
}

const fn core(name: &'static str, types: &'static [&'static str]) -> Builtin {
    Builtin {
        name,
        built: true,
        core: true,
        types,
        needed_by: &[],
    }
}

const fn plugin(name: &'static str, built: bool, types: &'static [&'static str]) -> Builtin {
    Builtin {
        name,
        built,
        core: false,
        types,
        needed_by: &[],
    }
}

/// All of them.
pub static BUILTIN: &[Builtin] = &[
    core("agent", &[payload::AGENT_STATUS]),
    core("history", &[payload::HISTORY_GET, payload::HISTORY_PUT]),
    core("trust", &[payload::TRUST_RELOAD]),
    core("jobs", &[payload::CANCEL, payload::PROGRESS]),
    core(
        "module",
        &[
            payload::MODULE_LIST,
            payload::MODULE_KILL,
            payload::MODULE_START,
        ],
    ),
    plugin(
        "acts",
        cfg!(feature = "acts"),
        &[
            payload::AGENT_RELOAD,
            payload::AGENT_RESTART,
            payload::AGENT_EXIT,
            payload::SYSTEM_REBOOT,
            payload::SYSTEM_SHUTDOWN,
        ],
    ),
    plugin("command", cfg!(feature = "command"), &[payload::COMMAND]),
    Builtin {
        needed_by: &["files", "scripts", "update"],
        ..plugin(
            "data",
            cfg!(feature = "data"),
            &[payload::DATA_REQUEST, payload::DATA_RESPONSE],
        )
    },
    plugin(
        "engine",
        cfg!(feature = "engine"),
        &[payload::ENGINE_COMMAND],
    ),
    plugin("events", cfg!(feature = "events"), &[payload::EVENT]),
    plugin("external", cfg!(feature = "external"), &[]),
    plugin(
        "files",
        cfg!(feature = "files"),
        &[
            payload::FILE_PUT,
            payload::DIRECTORY_PUT,
            payload::FILE_GET,
            payload::FILE_LIST,
        ],
    ),
    plugin("health", cfg!(feature = "health"), &[]),
    plugin("metrics", cfg!(feature = "metrics"), &[payload::METRIC]),
    plugin("relay", cfg!(feature = "relay"), &[]),
    plugin(
        "schedule",
        cfg!(feature = "schedule"),
        &[payload::SCHEDULE_SET, payload::SCHEDULE_LIST],
    ),
    plugin(
        "scripts",
        cfg!(feature = "scripts"),
        &[payload::SCRIPT, payload::SCRIPTS_SYNC],
    ),
    plugin("update", cfg!(feature = "update"), &[payload::AGENT_UPDATE]),
];

/// Whether the setting `plugins.off` may be this list; the error says why not.
pub fn check_off(names: &[String]) -> Result<(), String> {
    for name in names {
        let Some(found) = BUILTIN.iter().find(|b| b.name == name) else {
            let all = BUILTIN.iter().filter(|b| !b.core).map(|b| b.name);
            let all: Vec<_> = all.collect();
            return Err(format!(
                "there is no plugin {name:?}; those that can be switched off are {}",
                all.join(", ")
            ));
        };
        if found.core {
            return Err(format!(
                "{name} cannot be switched off: the agent does not work without it"
            ));
        }
        let there = |other: &&&str| {
            let built = BUILTIN.iter().any(|b| b.name == **other && b.built);
            built && !names.iter().any(|name| name == **other)
        };
        if let Some(other) = found.needed_by.iter().find(there) {
            return Err(format!(
                "{name} cannot be switched off alone: {other} does not work without it, switch that off as well"
            ));
        }
    }
    Ok(())
}

/// What there is and how it is.
#[derive(Default)]
pub struct Modules {
    off: Vec<String>,
    /// The external ones; none where they are switched off or not in this build.
    external: OnceLock<Arc<Hub>>,
}

impl Modules {
    /// Without those of the setting `plugins.off`.
    pub fn new(off: &[String]) -> Self {
        Self {
            off: off.to_owned(),
            external: OnceLock::new(),
        }
    }

    /// There are external ones.
    pub fn set_hub(&self, hub: Arc<Hub>) {
        // It is set once, when the agent starts.
        let _ = self.external.set(hub);
    }

    /// Who knows the external ones.
    pub fn hub(&self) -> Option<&Arc<Hub>> {
        self.external.get()
    }

    /// Whether a plugin is neither left out of this build nor switched off.
    pub fn has(&self, name: &str) -> bool {
        BUILTIN.iter().any(|b| b.name == name && b.built) && !self.is_off(name)
    }

    fn is_off(&self, name: &str) -> bool {
        self.off.iter().any(|off| off == name)
    }

    fn builtin(&self) -> impl Iterator<Item = (&'static Builtin, &'static str)> {
        let built = BUILTIN.iter().filter(|b| b.built);
        built.map(|b| {
            (
                b,
                if self.is_off(b.name) {
                    "off"
                } else {
                    "running"
                },
            )
        })
    }

    /// For `hello`.
    pub fn states(&self) -> Vec<PluginState> {
        let own = self.builtin().map(|(b, state)| PluginState {
            name: b.name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: state.to_owned(),
        });
        let others = self.hub().map(|hub| hub.states());
        own.chain(others.into_iter().flatten()).collect()
    }

    /// For `module.list` and `agent.status`.
    pub fn list(&self) -> Vec<Value> {
        let own = self.builtin().map(|(b, state)| {
            json!({
                "name": b.name, "kind": "builtin", "version": env!("CARGO_PKG_VERSION"),
                "state": state, "types": b.types,
            })
        });
        let others = self.hub().map(|hub| hub.list());
        own.chain(others.into_iter().flatten()).collect()
    }

    /// Why nothing acts on a type that this agent could know.
    pub fn absent(&self, kind: &str) -> Option<Error> {
        let Some(found) = BUILTIN.iter().find(|b| b.types.contains(&kind)) else {
            let (name, how) = self.hub()?.gone(kind)?;
            let text = format!("{kind}: the plugin {name} has {how}, see 'triton module ls'");
            return Some(Error::new(ErrorCode::UnknownType, text));
        };
        let name = found.name;
        Some(if self.is_off(name) {
            let text = format!("{kind}: {name} is switched off on this device by plugins.off");
            Error::new(ErrorCode::Refused, text)
        } else {
            let text = format!("{kind}: this agent was built without {name}");
            Error::new(ErrorCode::UnknownType, text)
        })
    }
}

/// What plugins are made of.
#[allow(missing_docs)]
pub struct Parts<'a> {
    pub config: &'a Config,
    pub modules: &'a Arc<Modules>,
    pub crew: &'a Crew,
    pub instance: &'a Instance,
    pub fingerprint: &'a str,
    pub link: &'a Arc<LinkStatus>,
    pub outbox: &'a Arc<Outbox>,
    pub pool: &'a Arc<Pool>,
    pub journal: &'a Arc<Journal>,
    pub policy: &'a Arc<Policy>,
    pub trust: &'a Arc<Trust>,
    pub control: &'a Arc<Control>,
    pub acts: &'a Arc<Acts>,
    /// None where nothing runs by the clock.
    pub scheduler: Option<&'a Arc<Scheduler>>,
    pub scripts: &'a Arc<Repository>,
    /// None where they are switched off.
    pub events: Option<&'a Arc<Events>>,
    pub metrics: &'a Arc<Metrics>,
    /// None where it is switched off or not configured.
    pub relay: Option<&'a Arc<Relay>>,
    pub updates: update::Settings,
}

/// Those that this build has and that are not switched off.
pub fn compose(parts: &Parts<'_>) -> Vec<Box<dyn Plugin>> {
    let pool = || Arc::clone(parts.pool);
    let mut plugins: Vec<Box<dyn Plugin>> = Vec::new();
    let mut add = |name: &str, make: &dyn Fn() -> Box<dyn Plugin>| {
        if parts.modules.has(name) {
            plugins.push(make());
        }
    };
    add("agent", &|| Box::new(super::agent::Status::new(parts)));
    add("history", &|| {
        let limit = parts.config.limits.message_bytes;
        let journal = Arc::clone(parts.journal);
        Box::new(super::history::History::new(journal, limit))
    });
    add("jobs", &|| Box::new(super::jobs::Jobs::new(pool())));
    add("module", &|| {
        Box::new(super::module::Lister::new(Arc::clone(parts.modules)))
    });
    add("trust", &|| {
        Box::new(super::trust::TrustDesk::new(Arc::clone(parts.control)))
    });
    #[cfg(feature = "acts")]
    add("acts", &|| {
        Box::new(super::acts::Doer::new(pool(), Arc::clone(parts.acts)))
    });
    #[cfg(feature = "command")]
    add("command", &|| {
        Box::new(super::command::Commands::new(pool()))
    });
    #[cfg(feature = "data")]
    add("data", &|| {
        let (link, trust) = (Arc::clone(parts.outbox), Arc::clone(parts.trust));
        Box::new(super::data::Data::new(pool(), link, trust))
    });
    #[cfg(feature = "engine")]
    add("engine", &|| {
        let pipe = parts.config.engine.pipe.clone();
        Box::new(super::engine::Engine::new(pool(), pipe))
    });
    #[cfg(feature = "files")]
    add("files", &|| {
        let files = super::files::shared(parts.config, parts.crew);
        Box::new(super::files::Files::new(pool(), files))
    });
    #[cfg(feature = "metrics")]
    add("metrics", &|| {
        Box::new(super::events::Metrics::new(Arc::clone(parts.metrics)))
    });
    #[cfg(feature = "scripts")]
    add("scripts", &|| {
        let pace = super::data::pace(parts.config);
        Box::new(super::scripts::Scripts::new(
            pool(),
            Arc::clone(parts.scripts),
            pace,
        ))
    });
    #[cfg(feature = "update")]
    add("update", &|| {
        let pace = super::data::pace(parts.config);
        let (settings, acts) = (parts.updates.clone(), Arc::clone(parts.acts));
        Box::new(super::update::Updates::new(pool(), settings, pace, acts))
    });
    // Where they are switched off they are not there.
    #[cfg(feature = "events")]
    if let Some(events) = parts.events {
        let events = Arc::clone(events);
        plugins.push(Box::new(super::events::Events::new(events)));
    }
    #[cfg(feature = "schedule")]
    if let Some(scheduler) = parts.scheduler {
        let scheduler = Arc::clone(scheduler);
        plugins.push(Box::new(super::schedule::Schedules::new(scheduler)));
    }
    // Last, so that none of its types can take another's place.
    #[cfg(feature = "external")]
    if let Some(hub) = parts.modules.hub() {
        let hub = Arc::clone(hub);
        plugins.push(Box::new(super::external::External::new(pool(), hub)));
    }
    plugins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn off(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn only_what_nothing_else_needs_is_switched_off() {
        for right in [
            &[][..],
            &["files"],
            &["command", "command"],
            &["data", "update", "scripts", "files"],
        ] {
            assert_eq!(check_off(&off(right)), Ok(()), "{right:?}");
        }
        for (wrong, says) in [
            (
                &["file"][..],
                "events, external, files, health, metrics, relay, schedule",
            ),
            (&["agent"], "cannot be switched off"),
            (&["jobs"], "cannot be switched off"),
            (&["data", "files", "update"], "scripts does not work"),
        ] {
            let said = check_off(&off(wrong)).unwrap_err();
            assert!(said.contains(says), "{wrong:?}: {said}");
        }
    }

    #[test]
    fn what_is_off_says_so_and_what_nobody_knows_does_not() {
        let modules = Modules::new(&off(&["files"]));
        let error = modules.absent(payload::FILE_PUT).unwrap();
        assert_eq!(error.code, ErrorCode::Refused);
        assert!(error.message.contains("plugins.off"), "{}", error.message);
        assert_eq!(modules.absent("file.putt"), None);
        let states = modules.states();
        let state = |name: &str| states.iter().find(|s| s.name == name).unwrap();
        assert_eq!(state("files").state, "off");
        assert_eq!(state("history").state, "running");
    }
}
