//! `hello`: who it is that came.

use super::arrival::{Arrival, Refusal};
use super::connection::Bond;
use super::delivery;
use super::handle::{raw, read_value};
use super::provision;
use super::recorder::Recorder;
use super::selector::Hello;
use super::session::{Phase, STATE_LIMIT, Session};
use super::trust::NotAdmitted;
use crate::agents::Key;
use triton::message::sign::PublicKey;
use triton::message::{ErrorCode, Message, payload};

/// Longest instance id, in characters.
const INSTANCE_LIMIT: usize = 128;
/// Longest id of a process or a journal that is kept, in characters.
const ID_LIMIT: usize = 128;
/// So often a connection may become another instance.
const MAX_MOVES: u32 = 8;
/// So often a new connection may find another one in its place that lives no more.
const MAX_PROBES: usize = 3;

impl Session<'_> {
    pub(super) async fn hello(&mut self, message: &Message) {
        let (hello, value) = match message
            .read::<payload::Hello>()
            .map_err(|e| e.to_string())
            .and_then(|hello| read_value::<payload::Hello>(message).map(|value| (hello, value)))
        {
            Ok(both) => both,
            Err(reason) => return self.complain(message, &reason).await,
        };
        let length = hello.instance.chars().count();
        let bad = |c: char| !(c.is_ascii_graphic() || c.is_alphanumeric()) || c == '/';
        if !(1..=INSTANCE_LIMIT).contains(&length) || hello.instance.contains(bad) {
            let reason =
                "hello needs an instance: 1 to 128 letters, digits or signs, without slash";
            return self.complain(message, reason).await;
        }
        let hello_json = raw(&value);
        if hello_json.get().len() > STATE_LIMIT {
            let size = hello_json.get().len();
            return self.refuse_state(message, size).await;
        }
        let registry = &self.app.registry;
        if registry.settings(&self.connection.identifier).is_none() {
            return self.connection.close("forgotten");
        }
        let shown = match self.shown(message, &hello) {
            Ok(shown) => shown,
            Err(reason) => return self.distrust(message, &hello, None, &reason),
        };
        let admitted = registry
            .admit_key(
                &self.app.db,
                &self.connection.identifier,
                &hello,
                shown.as_ref(),
                false,
            )
            .await;
        let pinned = match admitted {
            Ok(pinned) => pinned,
            Err(why) => return self.not_admitted(message, &hello, shown, why),
        };
        self.connection
            .set_bond(shown.map(|key| Bond::new(self.app.keyring.own(), key, pinned, &message.id)));
        if hello.probe {
            if matches!(self.phase, Phase::Waiting) {
                self.phase = Phase::Probe;
            }
            let said = Hello::read(Some(&hello_json));
            return registry.welcome_probe(self.connection, message, &hello.instance, said);
        }
        if let Phase::Agent { key, plain, .. } = &self.phase
            && key.instance != hello.instance
        {
            // It was taken for a plain Triton because its hello came late, or it changes its instance.
            let (key, plain) = (key.clone(), *plain);
            self.moves += 1;
            if self.moves > MAX_MOVES {
                return self.connection.close("too many instances");
            }
            self.finish_records().await;
            self.leave().await;
            if plain {
                self.app.registry.remove(&key);
                self.app.metrics.forget(&key);
            }
        }
        let short = |id: &String| !id.is_empty() && id.chars().count() <= ID_LIMIT;
        let last = hello.journal.as_ref().map_or(0, |journal| journal.last);
        let arrival = Arrival {
            instance: Some(hello.instance.clone()),
            hello: Some(hello_json),
            address: self.peer.0.to_string(),
            hostname: hello.hostname.clone(),
            run: hello.run.clone().filter(short),
            journal: hello
                .journal
                .as_ref()
                .map(|journal| journal.id.clone())
                .filter(short),
            message: Some(message.clone()),
        };
        if let Some(key) = self.take_place(&arrival).await {
            self.be_agent(&key, false, arrival.journal.is_some());
            if shown.is_some() {
                let (db, identifier) = (&self.app.db, &key.identifier);
                let kept = registry.admit_key(db, identifier, &hello, shown.as_ref(), true);
                if let Err(why) = kept.await {
                    return self.not_admitted(message, &hello, shown, why);
                }
            }
            if arrival.journal.is_some() {
                self.check_numbering(&key, last);
            }
            delivery::start(self.app, &key);
            provision::start(self.app, &key);
        }
    }

    /// The key that a `hello` shows, which has signed it for this very connection.
    fn shown(
        &self,
        message: &Message,
        hello: &payload::Hello,
    ) -> Result<Option<PublicKey>, String> {
        let Some(key) = &hello.public_key else {
            return Ok(None);
        };
        let key: PublicKey = key.parse().map_err(|e| format!("its publicKey: {e}"))?;
        if hello.challenge.as_deref() != Some(self.connection.challenge.as_str()) {
            return Err(
                "its hello was made for another connection: it was recorded, or a proxy changes the header \
                 Triton-Challenge"
                    .to_owned(),
            );
        }
        if !key.wrote(message, "") {
            return Err(format!("its hello is not signed by the key {}", key.id()));
        }
        Ok(Some(key))
    }

    fn not_admitted(
        &self,
        message: &Message,
        hello: &payload::Hello,
        shown: Option<PublicKey>,
        why: NotAdmitted,
    ) {
        match why {
            NotAdmitted::Distrusted(reason) => self.distrust(message, hello, shown, &reason),
            NotAdmitted::Unstored(e) => {
                let name = self.app.registry.name(&self.connection.identifier);
                log::error!("{name} does not come in yet, since its key is not stored: {e}");
                // It tries again, as after any broken connection.
                self.connection.close("the store failed");
            }
        }
    }

    /// Sends away who cannot show who it is.
    fn distrust(
        &self,
        message: &Message,
        hello: &payload::Hello,
        shown: Option<PublicKey>,
        reason: &str,
    ) {
        let identifier = &self.connection.identifier;
        let name = self.app.registry.name(identifier);
        log::warn!(
            "{name} at {} is not believed: {reason}; 'poseidon trust ls {name}' tells more",
            self.peer.0
        );
        self.app.registry.refuse_key(
            identifier,
            &self.peer.0.to_string(),
            &hello.instance,
            shown,
            reason,
        );
        if hello.public_key.is_none() {
            // Who knows no keys would take an error for the word of a plain server, and hand it its records.
            return self.connection.close("untrusted");
        }
        let text = format!(
            "{reason}; an operator may let it in: 'poseidon trust ls {name}' shows its key"
        );
        let error = message.reply_error(ErrorCode::Untrusted, text);
        self.connection.close_with(&error, "untrusted");
    }

    /// Takes the place of its instance. Where somebody has it that lives, this one is sent away.
    async fn take_place(&mut self, arrival: &Arrival) -> Option<Key> {
        let mut dead = None;
        for _ in 0..MAX_PROBES {
            match self.app.registry.arrive(self.connection, arrival, dead) {
                Ok(key) => return Some(key),
                Err(Refusal::NotLetIn) => {
                    self.connection.close("not let in");
                    return None;
                }
                Err(Refusal::Occupied(first)) => {
                    if first.is_alive().await {
                        break;
                    }
                    dead = Some(first.id);
                }
            }
        }
        let key = Key {
            identifier: self.connection.identifier.clone(),
            instance: arrival.instance.clone().unwrap_or_default(),
        };
        self.app
            .registry
            .collide(&key, &arrival.address, &arrival.hostname);
        self.connection.close("collision");
        None
    }

    /// An agent that numbers its records anew is not heard: they look like those that are stored.
    fn check_numbering(&self, key: &Key, last: u64) {
        let acked = self.app.registry.acked(key);
        if last < acked {
            log::warn!(
                "the journal of {} ends at {last}, and {acked} is stored: it has lost its numbering, and what it \
                 numbers below that is taken for what is stored",
                self.name()
            );
        }
    }

    pub(super) async fn become_plain(&mut self) {
        let registry = &self.app.registry;
        if registry.is_strict(&self.connection.identifier) {
            let reason = "it says no hello, and this identifier is for pinned keys only";
            let address = self.peer.0.to_string();
            registry.refuse_key(&self.connection.identifier, &address, "", None, reason);
            log::warn!("{address} is not believed: {reason}");
            return self.connection.close("untrusted");
        }
        let arrival = Arrival {
            instance: None,
            hello: None,
            address: self.peer.0.to_string(),
            hostname: String::new(),
            run: None,
            journal: None,
            message: None,
        };
        match self.app.registry.arrive(self.connection, &arrival, None) {
            Ok(key) => {
                self.be_agent(&key, true, false);
                // Poseidon may have been killed before it could do so. To ask would be to start them again.
                self.lose_jobs(&key, Some(self.connection.id)).await;
                delivery::start(self.app, &key);
            }
            Err(_) => self.connection.close("not let in"),
        }
    }

    fn be_agent(&mut self, key: &Key, plain: bool, journal: bool) {
        let first = matches!(self.phase, Phase::Waiting | Phase::Probe);
        self.phase = Phase::Agent {
            key: key.clone(),
            plain,
            name: self.app.registry.name(&key.identifier),
        };
        if !journal {
            self.recorder = None;
        } else if self.recorder.is_none() {
            let address = self.peer.0.to_string();
            self.recorder = Some(Recorder::start(self.app, self.connection, key, &address));
        }
        if first {
            log::info!("{} is up", self.name());
        }
    }
}
