//! `trust.reload`: `triton trust` has changed what is pinned.

use super::{Peer, Plugin};
use crate::job::Origin;
use crate::link::control::Control;
use crate::message::payload::{RESULT, TRUST_RELOAD};
use crate::message::{ErrorCode, Message};
use std::sync::Arc;

/// Has the link connect anew, which reads it. For local users only.
pub struct TrustDesk {
    control: Arc<Control>,
}

impl TrustDesk {
    /// Gives its orders at this desk.
    pub fn new(control: Arc<Control>) -> Self {
        Self { control }
    }
}

impl Plugin for TrustDesk {
    fn name(&self) -> &'static str {
        "trust"
    }

    fn types(&self) -> &'static [&'static str] {
        &[TRUST_RELOAD]
    }

    /// Nothing that Poseidon could ask for.
    fn offers(&self) -> Vec<String> {
        Vec::new()
    }

    fn handle(&self, message: &Message, from: &Peer) {
        if from.origin != Origin::Local {
            let text = "whom this device obeys is decided at the device";
            from.outbox
                .push(message.reply_error(ErrorCode::Refused, text));
            return;
        }
        self.control.reconnect();
        from.outbox
            .push(message.reply(RESULT, &serde_json::json!({})));
    }
}
