//! Whether the other side is alive (`docs/protocol.md` section 2). No clock of its own: time comes in.

use std::time::{Duration, Instant};

/// Traffic proves life; silence is asked about; no answer is death.
///
/// The question goes along with a heartbeat, so that it wakes nobody for itself: a router's processor sleeps deeper
/// the less often it is woken.
#[derive(Debug)]
pub struct KeepAlive {
    heartbeat: Duration,
    patience: Duration,
    heard: Instant,
    asked: Option<Instant>,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Wait,
    /// Send a ping.
    Ask,
    /// The path is dead.
    Dead,
}

/// Heartbeat intervals of silence after which a heartbeat asks. More than one, else each heartbeat would.
const ASK_ALONG: f64 = 1.25;
/// Longest silence between heartbeats that nobody asks about: proxies acknowledge what nobody reads, and cut what is
/// silent.
const LONGEST: Duration = Duration::from_mins(15);
/// And after which a ping goes though there was no heartbeat. More than two, else it would come before the second.
const ASK: f64 = 2.25;

impl KeepAlive {
    /// Waits `patience` for the answer to a ping.
    pub fn new(heartbeat: Duration, patience: Duration, now: Instant) -> Self {
        Self {
            heartbeat,
            patience,
            heard: now,
            asked: None,
        }
    }

    /// Another heartbeat interval.
    pub fn set_heartbeat(&mut self, heartbeat: Duration) {
        self.heartbeat = heartbeat;
    }

    /// Something was received.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
    }

    /// When [`KeepAlive::check`] will say something else than to wait.
    pub fn next(&self) -> Instant {
        match self.asked {
            Some(asked) => asked + self.patience,
            None => self.heard + self.heartbeat.mul_f64(ASK).min(LONGEST),
        }
    }

    /// What to do at `now`. After [`Verdict::Ask`] the ping counts as sent.
    pub fn check(&mut self, now: Instant) -> Verdict {
        if now < self.next() {
            return Verdict::Wait;
        }
        if self.asked.is_some() {
            return Verdict::Dead;
        }
        self.asked = Some(now);
        Verdict::Ask
    }

    /// A heartbeat is sent at `now`: whether a ping should go with it. If so it counts as sent.
    pub fn ask_along(&mut self, now: Instant) -> bool {
        let asks = self.asked.is_none() && now >= self.heard + self.heartbeat.mul_f64(ASK_ALONG);
        if asks {
            self.asked = Some(now);
        }
        asks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_asked_about_once_and_then_fatal() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut life = KeepAlive::new(Duration::from_secs(10), Duration::from_secs(3), start);
        assert_eq!(life.check(at(0.0)), Verdict::Wait);
        assert_eq!(life.next(), at(22.5));
        life.heard(at(5.0));
        assert_eq!(life.check(at(22.5)), Verdict::Wait);
        assert_eq!(life.check(at(27.5)), Verdict::Ask);
        assert_eq!(life.next(), at(30.5));
        assert_eq!(life.check(at(28.0)), Verdict::Wait);
        life.heard(at(29.0));
        assert_eq!(life.check(at(30.5)), Verdict::Wait);
        assert_eq!(life.check(at(51.5)), Verdict::Ask);
        assert_eq!(life.check(at(54.5)), Verdict::Dead);
    }

    #[test]
    fn every_second_heartbeat_asks_where_nothing_else_is_heard() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut life = KeepAlive::new(Duration::from_secs(10), Duration::from_secs(3), start);
        for round in 0..3 {
            let begun = f64::from(round) * 20.0;
            life.heard(at(begun + 0.1));
            assert!(!life.ask_along(at(begun + 10.0)));
            assert_eq!(life.check(at(begun + 19.9)), Verdict::Wait);
            assert!(life.ask_along(at(begun + 20.0)));
            // Asked once, and nothing more to ask until the answer.
            assert!(!life.ask_along(at(begun + 20.0)));
            assert_eq!(life.check(at(begun + 20.1)), Verdict::Wait);
        }
        assert_eq!(life.check(at(63.0)), Verdict::Dead);
    }
}
