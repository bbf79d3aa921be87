//! How long a peer is waited for.

use crate::job::{Context, Stop};
use crate::message::{ErrorCode, Message};
use std::time::{Duration, Instant};

/// A job that waits for its connection holds a worker: not for ever. As long as what it has fetched would be kept.
const OFFLINE: Duration = Duration::from_hours(24);

/// Adds up the time that a peer lets a transfer wait, apart for while there is a connection and while there is none.
/// One that comes and goes does not begin anew.
#[derive(Debug)]
pub struct Patience {
    idle: Duration,
    online: Duration,
    offline: Duration,
}

impl Patience {
    /// With a silence of `idle` on a standing connection, at most.
    pub fn new(idle: Duration) -> Self {
        Self {
            idle,
            online: Duration::ZERO,
            offline: Duration::ZERO,
        }
    }

    /// The peer has done what it is waited for.
    pub fn renew(&mut self) {
        *self = Self::new(self.idle);
    }

    /// The next message of the job's conversation; none where the connection has come or gone.
    pub fn receive(&mut self, context: &Context<'_>) -> Result<Option<Message>, Stop> {
        let begun = Instant::now();
        let online = context.is_online();
        let (spent, most) = if online {
            (&mut self.online, self.idle)
        } else {
            (&mut self.offline, OFFLINE)
        };
        let received = context.receive(Some(begun + most.saturating_sub(*spent)));
        *spent = spent.saturating_add(begun.elapsed());
        match received? {
            None if *spent < most => Ok(None),
            None if online => Err(context.too_late(
                "the peer has neither given nor asked for content for files.idle_seconds",
            )),
            None => Err(Stop::failed(
                ErrorCode::Other("offline".to_owned()),
                "there was no connection for a day; ask again",
            )),
            message => Ok(message),
        }
    }
}
