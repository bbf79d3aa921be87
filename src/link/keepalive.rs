//! Whether the other side is alive (`docs/protocol.md` section 2). No clock of its own: time comes in.

use std::time::{Duration, Instant};

/// Traffic proves life; silence is asked about; no answer is death.
#[derive(Debug)]
pub struct KeepAlive {
    silence: Duration,
    patience: Duration,
    heard: Instant,
    asked: Option<Instant>,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing before this time.
    Wait(Instant),
    /// Send a ping.
    Ask,
    /// The path is dead.
    Dead,
}

impl KeepAlive {
    /// Asks after 1.5 heartbeat intervals of silence and waits `patience` for the answer.
    pub fn new(heartbeat: Duration, patience: Duration, now: Instant) -> Self {
        Self {
            silence: heartbeat.mul_f64(1.5),
            patience,
            heard: now,
            asked: None,
        }
    }

    /// Another heartbeat interval.
    pub fn set_heartbeat(&mut self, heartbeat: Duration) {
        self.silence = heartbeat.mul_f64(1.5);
    }

    /// Something was received.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
    }

    /// What to do at `now`. After [`Verdict::Ask`] the ping counts as sent.
    pub fn check(&mut self, now: Instant) -> Verdict {
        if let Some(asked) = self.asked {
            let end = asked + self.patience;
            return if now >= end {
                Verdict::Dead
            } else {
                Verdict::Wait(end)
            };
        }
        let end = self.heard + self.silence;
        if now < end {
            return Verdict::Wait(end);
        }
        self.asked = Some(now);
        Verdict::Ask
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
        assert_eq!(life.check(at(0.0)), Verdict::Wait(at(15.0)));
        life.heard(at(5.0));
        assert_eq!(life.check(at(15.0)), Verdict::Wait(at(20.0)));
        assert_eq!(life.check(at(20.0)), Verdict::Ask);
        assert_eq!(life.check(at(21.0)), Verdict::Wait(at(23.0)));
        life.heard(at(22.0));
        assert_eq!(life.check(at(23.0)), Verdict::Wait(at(37.0)));
        assert_eq!(life.check(at(37.0)), Verdict::Ask);
        assert_eq!(life.check(at(40.0)), Verdict::Dead);
    }
}
