//! The types of external plugins: each request is a job.

use super::{Peer, Plugin};
use crate::external::Hub;
use crate::external::ask::Ask;
use crate::job::{Pool, Work};
use crate::message::Message;
use crate::message::payload::{self, Bounds, ErrorCode};
use std::sync::Arc;

/// Hands requests to plugins.
pub struct External {
    pool: Arc<Pool>,
    hub: Arc<Hub>,
}

impl External {
    /// To those that `hub` knows.
    pub fn new(pool: Arc<Pool>, hub: Arc<Hub>) -> Self {
        Self { pool, hub }
    }

    fn work(&self, message: &Message) -> Result<Work, payload::Error> {
        let bounds: Bounds = message
            .read()
            .map_err(|e| payload::Error::new(ErrorCode::Invalid, e.to_string()))?;
        if let Some((name, None)) = self.hub.find(&message.kind) {
            let text = format!("the plugin {name} does not run now; see 'triton module ls'");
            return Err(payload::Error::new(ErrorCode::Busy, text));
        }
        let ask = Ask {
            hub: Arc::clone(&self.hub),
            kind: message.kind.clone(),
            payload: message.payload.clone(),
        };
        Ok(Work::Task(Arc::new(ask), bounds))
    }
}

impl Plugin for External {
    fn name(&self) -> &'static str {
        "external"
    }

    fn types(&self) -> &'static [&'static str] {
        &[]
    }

    fn takes(&self, kind: &str) -> bool {
        self.hub.find(kind).is_some()
    }

    fn offers(&self) -> Vec<String> {
        self.hub.types()
    }

    fn handle(&self, message: &Message, from: &Peer) {
        // Also what is refused: a token that ran before is answered by how that ended.
        let work = self.work(message).unwrap_or_else(Work::Refused);
        self.pool.submit(from.request(message, work));
    }
}
