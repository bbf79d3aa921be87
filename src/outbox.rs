//! What waits to be sent to one peer (Poseidon, or a client of the local socket).
//!
//! Two queues: control traffic goes first, a job's output follows. Both are bounded. Who cannot hand over
//! output is told so and stops reading its child's pipe; it is rung when there is room again. What has to reach
//! Poseidon whatever happens is not here but in the journal.

use crate::message::Message;
use crate::sys::wake::Wake;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bounds of an [`Outbox`].
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Control messages that wait at most; the oldest is dropped and counted when one more comes.
    pub control: usize,
    /// Bytes of output that wait at most. One piece more may pass, so that a piece above the bound is not stuck.
    pub output_bytes: usize,
}

/// What became of a piece of output.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer {
    /// It will be sent.
    Taken,
    /// No room: stop reading, the waiter is rung when there is some. The piece comes back.
    Full(Message),
    /// No connection: the piece is dropped.
    Offline,
}

/// The queues of one peer.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    /// Rung when there is something to send.
    wake: Wake,
    limits: Limits,
}

#[derive(Debug, Default)]
struct State {
    online: bool,
    /// How often the connection came or went.
    changes: u32,
    closed: bool,
    control: VecDeque<Message>,
    output: VecDeque<Message>,
    output_bytes: usize,
    waiting: Vec<Arc<Wake>>,
    /// Rung when the connection comes or goes.
    watching: Vec<Arc<Wake>>,
    heartbeat: Option<Message>,
    dropped: u64,
}

impl State {
    fn let_waiters_know(&mut self) {
        for waiter in self.waiting.drain(..) {
            waiter.ring();
        }
    }

    fn let_watchers_know(&mut self) {
        for watcher in self.watching.drain(..) {
            watcher.ring();
        }
    }
}

/// Once for each: there are as many as workers.
fn note(waiters: &mut Vec<Arc<Wake>>, waiter: &Arc<Wake>) {
    if !waiters.iter().any(|w| Arc::ptr_eq(w, waiter)) {
        waiters.push(Arc::clone(waiter));
    }
}

fn weight(message: &Message) -> usize {
    message.payload.as_ref().map_or(0, String::len)
}

impl Outbox {
    /// An empty outbox without connection.
    pub fn new(limits: Limits) -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            wake: Wake::new()?,
            limits,
        })
    }

    /// One for another peer, with the same bounds.
    pub fn another(&self) -> io::Result<Self> {
        Self::new(self.limits)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is complete in itself: what a panicked thread leaves is sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rung when there is something to send.
    pub fn wake(&self) -> &Wake {
        &self.wake
    }

    /// Queues a control message, connected or not.
    pub fn push(&self, message: Message) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        if state.control.len() >= self.limits.control {
            state.control.pop_front();
            state.dropped += 1;
        }
        state.control.push_back(message);
        drop(state);
        self.wake.ring();
    }

    /// Puts the latest heartbeat into its slot; an older one that was not sent is forgotten.
    pub fn set_heartbeat(&self, message: Message) {
        let mut state = self.state();
        if !state.online {
            return;
        }
        state.heartbeat = Some(message);
        drop(state);
        self.wake.ring();
    }

    /// Offers a piece of a job's output.
    pub fn offer(&self, piece: Message, waiter: &Arc<Wake>) -> Offer {
        let mut state = self.state();
        if !state.online {
            return Offer::Offline;
        }
        if state.output_bytes >= self.limits.output_bytes {
            note(&mut state.waiting, waiter);
            return Offer::Full(piece);
        }
        state.output_bytes += weight(&piece);
        state.output.push_back(piece);
        drop(state);
        self.wake.ring();
        Offer::Taken
    }

    /// A number that is another one whenever the connection has come or gone.
    pub fn changes(&self) -> u32 {
        self.state().changes
    }

    /// Rings `waiter` once when the connection comes or goes.
    pub fn tell_of_connection(&self, waiter: &Arc<Wake>) {
        note(&mut self.state().watching, waiter);
    }

    /// Queues the end of a job: behind its own output, else ahead of everyone's.
    pub fn finish(&self, end: Message) {
        if !self.has_output_of(&end.conversation_id) {
            // It gets no more: its output was handed over before its end.
            self.push(end);
            return;
        }
        let mut state = self.state();
        if state.closed {
            return;
        }
        state.output_bytes += weight(&end);
        state.output.push_back(end);
        drop(state);
        self.wake.ring();
    }

    /// The next message to send; none while there is no connection.
    pub fn pop(&self) -> Option<Message> {
        self.pop_urgent().or_else(|| self.pop_output())
    }

    /// The next message that is not output.
    pub fn pop_urgent(&self) -> Option<Message> {
        let mut state = self.state();
        if !state.online {
            return None;
        }
        let message = state.control.pop_front();
        message.or_else(|| state.heartbeat.take())
    }

    /// The next piece of output, or the end of a job that waited behind its own.
    pub fn pop_output(&self) -> Option<Message> {
        let mut state = self.state();
        if !state.online {
            return None;
        }
        let message = state.output.pop_front()?;
        state.output_bytes -= weight(&message);
        if state.output_bytes < self.limits.output_bytes {
            state.let_waiters_know();
        }
        Some(message)
    }

    /// Whether output of a conversation waits.
    pub fn has_output_of(&self, conversation: &str) -> bool {
        let state = self.state();
        let mut output = state.output.iter();
        output.any(|m| m.conversation_id == conversation)
    }

    /// Whether [`Outbox::pop`] would give something.
    pub fn has_work(&self) -> bool {
        let state = self.state();
        state.online
            && !(state.control.is_empty() && state.output.is_empty() && state.heartbeat.is_none())
    }

    /// Whether so many answers wait that the peer should not be asked for more requests.
    pub fn is_congested(&self) -> bool {
        self.state().control.len() >= self.limits.control / 2
    }

    /// Says whether there is a connection. Without one, output is dropped by who offers it; what was queued
    /// waits for the next one.
    pub fn set_online(&self, online: bool) {
        let mut state = self.state();
        if online && state.online {
            // A further welcome: to who waits for an answer it is the same connection.
            return;
        }
        state.online = online && !state.closed;
        state.changes = state.changes.wrapping_add(1);
        if !online {
            state.heartbeat = None;
        }
        state.let_waiters_know();
        state.let_watchers_know();
        drop(state);
        self.wake.ring();
    }

    /// The peer is gone for good: everything is dropped, now and later.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.online = false;
        state.control.clear();
        state.output.clear();
        state.output_bytes = 0;
        state.heartbeat = None;
        state.let_waiters_know();
        state.let_watchers_know();
        drop(state);
        self.wake.ring();
    }

    /// Whether there is a connection.
    pub fn is_online(&self) -> bool {
        self.state().online
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        let state = self.state();
        state.control.len() + state.output.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the control messages that wait: who gives long answers asks before.
    pub fn control_bytes(&self) -> usize {
        self.state().control.iter().map(weight).sum()
    }

    /// Control messages dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.state().dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Outbox {
        Outbox::new(Limits {
            control: 2,
            output_bytes: 10,
        })
        .unwrap()
    }

    fn message(conversation: &str, kind: &str, payload: &str) -> Message {
        Message {
            conversation_id: conversation.into(),
            payload: Some(payload.into()),
            ..Message::new(kind)
        }
    }

    fn kinds(outbox: &Outbox) -> Vec<String> {
        std::iter::from_fn(|| outbox.pop())
            .map(|m| m.kind)
            .collect()
    }

    #[test]
    fn control_overtakes_output_but_a_jobs_end_follows_its_own() {
        let outbox = outbox();
        let waiter = Arc::new(Wake::new().unwrap());
        outbox.set_online(true);
        assert_eq!(
            outbox.offer(message("a", "output", "1234"), &waiter),
            Offer::Taken
        );
        outbox.finish(message("a", "end-a", ""));
        outbox.finish(message("b", "end-b", ""));
        outbox.push(message("c", "control", ""));
        assert_eq!(kinds(&outbox), ["end-b", "control", "output", "end-a"]);
    }

    #[test]
    fn output_waits_for_room_and_is_rung() {
        let outbox = outbox();
        let waiter = Arc::new(Wake::new().unwrap());
        let rung = || {
            let mut set = crate::sys::poll::PollSet::new();
            set.add(std::os::fd::AsFd::as_fd(&*waiter), crate::sys::poll::IN);
            set.wait(Some(std::time::Instant::now())).unwrap()
        };
        outbox.set_online(true);
        assert_eq!(
            outbox.offer(message("a", "o", "0123456789AB"), &waiter),
            Offer::Taken
        );
        let piece = message("a", "o", "x");
        assert_eq!(
            outbox.offer(piece.clone(), &waiter),
            Offer::Full(piece.clone())
        );
        assert!(!rung());
        outbox.pop().unwrap();
        assert!(rung());
        assert_eq!(outbox.offer(piece, &waiter), Offer::Taken);
    }

    #[test]
    fn offline_keeps_control_and_drops_output_and_heartbeats() {
        let outbox = outbox();
        let waiter = Arc::new(Wake::new().unwrap());
        for n in 0..3 {
            outbox.push(message("a", &format!("c{n}"), ""));
        }
        outbox.set_heartbeat(message("h", "heartbeat", ""));
        assert_eq!(
            outbox.offer(message("a", "output", "1"), &waiter),
            Offer::Offline
        );
        assert_eq!(outbox.pop(), None);
        outbox.set_online(true);
        assert_eq!(kinds(&outbox), ["c1", "c2"]);
        assert_eq!(outbox.dropped(), 1);
        outbox.close();
        outbox.push(message("a", "late", ""));
        outbox.set_online(true);
        assert_eq!(outbox.pop(), None);
    }
}
