//! `data.request` and `data.response`: content on its way, in the conversation that it belongs to; and data by name, which
//! local clients ask of Poseidon through the agent.

use super::{Peer, Plugin};
use crate::config::Config;
use crate::job::{Origin, Pool};
use crate::message::payload::{self, DATA_REQUEST, DATA_RESPONSE, DataRequest};
use crate::message::{ErrorCode, Message};
use crate::outbox::Outbox;
use crate::transfer::Pace;
use crate::trust::{Question, Trust};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Questions of local clients that wait for Poseidon's answer at most.
const RELAYED: usize = 64;
/// One that has waited so long makes room for another: its client has given up.
const FORGET_AFTER: Duration = Duration::from_mins(1);

/// Hands content and requests for it to the jobs that they belong to, and relays what local clients ask.
pub struct Data {
    pool: Arc<Pool>,
    /// To Poseidon.
    link: Arc<Outbox>,
    trust: Arc<Trust>,
    /// Oldest first.
    relayed: Mutex<Vec<Relayed>>,
}

/// A question of a local client that Poseidon was asked.
struct Relayed {
    /// With Poseidon.
    conversation: String,
    client: Arc<Outbox>,
    /// With the client.
    clients: String,
    at: Instant,
    /// The answer is sealed to it.
    question: Option<Question>,
}

impl Relayed {
    fn answer(&self, answer: Message) {
        self.client.push(Message {
            conversation_id: self.clients.clone(),
            signature: None,
            ..answer
        });
    }
}

/// How fast content moves, by the configuration.
pub fn pace(config: &Config) -> Pace {
    let idle = Duration::from_secs(config.files.idle_seconds);
    // After a reconnect all are made again. Those of all workers fit the outbox twice, which drops what it has no room for.
    let requests = config.limits.control_messages / config.jobs.workers.max(1) / 2;
    let files = &config.files;
    Pace::new(
        files.window_bytes,
        requests,
        config.limits.message_bytes,
        idle,
    )
}

impl Data {
    /// For the jobs of `pool`, and for local clients through `link`.
    pub fn new(pool: Arc<Pool>, link: Arc<Outbox>, trust: Arc<Trust>) -> Self {
        Self {
            pool,
            link,
            trust,
            relayed: Mutex::default(),
        }
    }

    fn relayed(&self) -> MutexGuard<'_, Vec<Relayed>> {
        self.relayed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks Poseidon for a local client; what it gets is the client's.
    fn relay(&self, message: &Message, client: &Peer) {
        let refuse = |code, text: &str| client.outbox.push(message.reply_error(code, text));
        let request: DataRequest = match message.read() {
            Ok(request) => request,
            Err(e) => return refuse(ErrorCode::Invalid, &e.to_string()),
        };
        if !self.link.is_online() {
            let code = ErrorCode::Other(payload::OFFLINE.to_owned());
            return refuse(
                code,
                "there is no connection to the Poseidon that this device obeys, which has the data",
            );
        }
        let (asked, question) = match self.trust.ask(&request) {
            Ok(asked) => asked,
            Err((code, reason)) => return refuse(code, &reason),
        };
        let now = Instant::now();
        let full = {
            let mut relayed = self.relayed();
            let oldest = relayed.first().map(|oldest| now - oldest.at);
            let full = relayed.len() >= RELAYED;
            if full && oldest.is_some_and(|age| age >= FORGET_AFTER) {
                relayed.remove(0);
            }
            let full = relayed.len() >= RELAYED;
            if !full {
                relayed.push(Relayed {
                    conversation: asked.conversation_id.clone(),
                    client: Arc::clone(&client.outbox),
                    clients: message.conversation_id.clone(),
                    at: now,
                    question,
                });
            }
            full
        };
        if full {
            let text = format!("{RELAYED} questions wait for Poseidon's answer already; try again");
            return refuse(ErrorCode::Busy, &text);
        }
        self.link.push(asked);
    }

    /// Poseidon's answer to a question that was relayed.
    fn pass_on(&self, message: &Message) -> bool {
        let mut relayed = self.relayed();
        let place = relayed
            .iter()
            .position(|r| r.conversation == message.conversation_id);
        let Some(place) = place else { return false };
        let mut asked = relayed.remove(place);
        drop(relayed);
        let question = asked.question.take();
        let answer = match question.filter(|_| message.kind == DATA_RESPONSE) {
            None => message.clone(),
            Some(question) => match self.trust.unseal(question, message) {
                Ok(response) => message.reply(DATA_RESPONSE, &response),
                Err((code, reason)) => {
                    log::error!("what Poseidon was asked for is not given to its client: {reason}");
                    message.reply_error(code, reason)
                }
            },
        };
        asked.answer(answer);
        true
    }
}

impl Plugin for Data {
    fn name(&self) -> &'static str {
        "data"
    }

    fn types(&self) -> &'static [&'static str] {
        &[DATA_REQUEST, DATA_RESPONSE]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        let is_poseidons = from.origin == Origin::Poseidon;
        if is_poseidons && message.kind == DATA_RESPONSE && self.pass_on(message) {
            return;
        }
        let Err(message) = self.pool.deliver(message.clone(), &from.outbox) else {
            return;
        };
        if message.kind != DATA_REQUEST {
            log::debug!("a data.response came that nobody waits for");
        } else if !is_poseidons {
            self.relay(&message, from);
        } else if self.pool.knows(&message.conversation_id) {
            // An error in the conversation of a job that has just ended would look like its end, and might overtake it.
            log::debug!("a data.request came behind the end of its job");
        } else {
            let text = "no job of this conversation gives content";
            from.outbox
                .push(message.reply_error(ErrorCode::NotFound, text));
        }
    }

    /// That Poseidon cannot give what was asked for.
    fn error(&self, message: &Message, from: &Peer) -> bool {
        from.origin == Origin::Poseidon
            && (self.pass_on(message) || self.pool.deliver(message.clone(), &from.outbox).is_ok())
    }

    /// What was asked is not answered any more.
    fn disconnected(&self) {
        let relayed = std::mem::take(&mut *self.relayed());
        for asked in relayed {
            let code = ErrorCode::Other(payload::OFFLINE.to_owned());
            let error = payload::Error::new(code, "the connection to Poseidon was lost");
            asked.answer(Message::with(payload::ERROR, &error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Settings;
    use crate::journal::{self, Journal};
    use crate::outbox::Limits;
    use crate::thread::Crew;

    fn outbox() -> Arc<Outbox> {
        let limits = Limits {
            control: 1000,
            output_bytes: 1000,
        };
        let outbox = Outbox::new(limits).unwrap();
        outbox.set_online(true);
        Arc::new(outbox)
    }

    fn peer(origin: Origin, outbox: &Arc<Outbox>) -> Peer {
        Peer {
            outbox: Arc::clone(outbox),
            origin,
        }
    }

    fn code(message: &Message) -> String {
        message.read::<payload::Error>().unwrap().code.to_string()
    }

    #[test]
    fn a_clients_question_goes_to_poseidon_and_the_answer_back() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&journal::Settings {
            folder: folder.path().join("journal"),
            state: folder.path().to_owned(),
            bytes: 65_536,
            memory_bytes: 32_768,
            sync: false,
            goes_on: None,
        });
        let crew = Crew::new(|name| panic!("{name} panicked"));
        let pool = Pool::start(Settings::default(), &crew, Arc::new(journal.unwrap()));
        let (link, local) = (outbox(), outbox());
        let trust = Arc::new(Trust::new(folder.path()));
        let data = Data::new(pool, Arc::clone(&link), trust);
        let (poseidon, client) = (peer(Origin::Poseidon, &link), peer(Origin::Local, &local));
        let ask = || {
            let request = DataRequest {
                reference: "attributes".to_owned(),
                offset: 0,
                length: 10,
            };
            let request = Message::with(DATA_REQUEST, &request);
            data.handle(&request, &client);
            request
        };
        let question = ask();
        let asked = link.pop().unwrap();
        assert_eq!(asked.read::<DataRequest>().unwrap().reference, "attributes");
        assert_ne!(asked.conversation_id, question.conversation_id);
        data.handle(&asked.reply(DATA_RESPONSE, &7), &poseidon);
        let answer = local.pop().unwrap();
        assert_eq!(answer.conversation_id, question.conversation_id);
        assert_eq!(
            (answer.kind.as_str(), answer.payload.as_deref()),
            (DATA_RESPONSE, Some("7"))
        );
        // A second answer is nobody's.
        data.handle(&asked.reply(DATA_RESPONSE, &7), &poseidon);
        assert_eq!(local.pop(), None);
        // An error is an answer too, and only for what was asked.
        ask();
        let asked = link.pop().unwrap();
        assert!(data.error(&asked.reply_error(ErrorCode::NotFound, "no"), &poseidon));
        assert_eq!(code(&local.pop().unwrap()), "not-found");
        let other = Message::new(payload::ERROR);
        assert!(!data.error(&other, &poseidon));
        // Bounded, and ended with the connection.
        for _ in 0..=RELAYED {
            ask();
        }
        assert_eq!(code(&local.pop().unwrap()), "busy");
        assert_eq!(local.pop(), None);
        data.disconnected();
        for _ in 0..RELAYED {
            assert_eq!(code(&local.pop().unwrap()), "offline");
        }
        link.set_online(false);
        ask();
        assert_eq!(code(&local.pop().unwrap()), "offline");
        assert_eq!(local.pop(), None);
    }

    #[test]
    fn the_requests_of_all_transfers_fit_the_outbox_twice() {
        let mut config = Config::default();
        assert_eq!(pace(&config).requests, 32);
        config.limits.control_messages = 64;
        for (workers, requests) in [(1, 32), (4, 8), (64, 1)] {
            config.jobs.workers = workers;
            assert_eq!(pace(&config).requests, requests);
        }
    }
}
