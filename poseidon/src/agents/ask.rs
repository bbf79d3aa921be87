//! Asks an agent for what it answers at once: no job, nothing that is stored or sent again.

use super::connection::{Connection, SendError};
use crate::jobs::lock;
use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;
use triton::message::sign::ROOM;
use triton::message::{DEFAULT_LIMIT, Message, payload};

/// An answer may take so long: a device syncs its disk first.
const WAIT: Duration = Duration::from_secs(30);
/// Questions to one agent at a time.
const MOST: usize = 64;

/// The questions to one agent that wait for their answers, by conversation.
#[derive(Default)]
pub struct Asks(Mutex<HashMap<String, oneshot::Sender<Message>>>);

impl Asks {
    /// Gives a message to who waits for it, or back.
    pub(super) fn answer(&self, message: Message) -> Option<Message> {
        let waiting = lock(&self.0).remove(&message.conversation_id);
        match waiting {
            Some(waiting) => {
                // Nobody may wait any more: then nobody needs the answer.
                let _ = waiting.send(message);
                None
            }
            None => Some(message),
        }
    }

    /// No answer comes any more.
    pub(super) fn end(&self) {
        lock(&self.0).clear();
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// The agent is gone, or went.
    Offline,
    /// It, or Poseidon, has too much to do.
    Busy,
    /// It says nothing.
    Silent,
    /// The question makes a message of so many bytes, more than agents take.
    TooLarge(usize),
    /// It says no.
    Refused(payload::Error),
    /// It says something else.
    Odd(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline => f.write_str("the agent is down"),
            Self::Busy => f.write_str("the agent does not take what already waits for it"),
            Self::Silent => write!(f, "the agent did not answer within {} s", WAIT.as_secs()),
            Self::TooLarge(size) => write!(f, "it makes a message of {size} bytes"),
            Self::Refused(error) => write!(f, "{}: {}", error.code, error.message),
            Self::Odd(reason) => write!(f, "the agent's answer makes no sense: {reason}"),
        }
    }
}

/// Sends a request, and waits for the answer of the type `expected`.
pub async fn ask(
    connection: &Connection,
    request: &Message,
    expected: &str,
) -> Result<Message, AskError> {
    let text = request.encode().map_err(|e| AskError::Odd(e.to_string()))?;
    // A signature may come to it.
    if text.len() + ROOM > DEFAULT_LIMIT {
        return Err(AskError::TooLarge(text.len()));
    }
    let (sender, answer) = oneshot::channel();
    let waiting = Waiting {
        asks: &connection.asks,
        id: &request.conversation_id,
    };
    {
        let mut asks = lock(&connection.asks.0);
        if asks.len() >= MOST {
            return Err(AskError::Busy);
        }
        asks.insert(request.conversation_id.clone(), sender);
    }
    // It may have ended before the question was there to be ended with it.
    if connection.has_ended() {
        return Err(AskError::Offline);
    }
    connection.send_message(request).map_err(|e| match e {
        SendError::Offline => AskError::Offline,
        SendError::Busy => AskError::Busy,
    })?;
    let answer = match timeout(WAIT, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => return Err(AskError::Offline),
        Err(_) => return Err(AskError::Silent),
    };
    drop(waiting);
    match answer.kind.as_str() {
        kind if kind == expected => Ok(answer),
        payload::ERROR => match answer.read() {
            Ok(error) => Err(AskError::Refused(error)),
            Err(e) => Err(AskError::Odd(e.to_string())),
        },
        other => Err(AskError::Odd(format!(
            "{expected} was expected, and {} came",
            other.chars().take(64).collect::<String>().escape_debug()
        ))),
    }
}

/// Takes a question back, also where who asked has gone.
struct Waiting<'a> {
    asks: &'a Asks,
    id: &'a str,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.asks.0).remove(self.id);
    }
}
