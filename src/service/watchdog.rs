//! Whether the agent does its work: what the service manager's watchdog is fed with.
//!
//! A timer in a healthy thread would feed it while the rest hangs. So each part is asked for a sign of life, and only
//! when all have given theirs since the last question, the manager is told. Where no manager asks, nobody is asked and
//! nothing wakes up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The manager is told so often within its period: twice, as `sd_watchdog_enabled(3)` wants it.
const A_PERIOD: u32 = 2;
/// While someone is silent, it is looked so often within a period whether that has changed.
const LOOKS: u32 = 8;

/// A thread's sign of life: the watchdog asks, the thread answers at its next turn.
#[derive(Debug, Default)]
pub struct Pulse {
    awaited: AtomicBool,
    /// Until when the thread may be busy with something that has a deadline of its own.
    busy: Mutex<Option<Instant>>,
}

impl Pulse {
    /// Asks. Waking the thread is up to the caller.
    pub fn ask(&self) {
        self.awaited.store(true, Ordering::Release);
    }

    /// Answers; the thread calls it at each turn of its loop, asked or not.
    pub fn beat(&self) {
        self.awaited.store(false, Ordering::Release);
    }

    /// The thread cannot answer until `until` at the latest; `None` when it can again.
    pub fn busy_until(&self, until: Option<Instant>) {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Whether an answer is missing.
    pub fn is_silent(&self, now: Instant) -> bool {
        let busy = *self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        self.awaited.load(Ordering::Acquire) && busy.is_none_or(|until| until <= now)
    }

    /// What [`Part::silent`] says of a part that is one thread.
    pub fn silent(&self, now: Instant, thread: &str) -> Option<String> {
        self.is_silent(now).then(|| format!("the thread {thread}"))
    }
}

/// A part of the agent that has to live. Neither function may wait for long.
pub trait Part {
    /// Asks for a sign of life.
    fn ask(&self);
    /// Who has given none, for the log.
    fn silent(&self, now: Instant) -> Option<String>;
}

/// Asks all parts, and says when the manager may be told that the agent lives.
pub struct Watchdog<'a> {
    parts: Vec<&'a dyn Part>,
    period: Duration,
    asked: Instant,
    next: Instant,
    /// Who was silent at the last look.
    silent: Vec<String>,
}

impl<'a> Watchdog<'a> {
    /// Asks for the first time.
    pub fn new(parts: Vec<&'a dyn Part>, period: Duration, now: Instant) -> Self {
        let mut watchdog = Self {
            parts,
            period,
            asked: now,
            next: now,
            silent: Vec::new(),
        };
        watchdog.ask(now);
        watchdog
    }

    fn ask(&mut self, now: Instant) {
        for part in &self.parts {
            part.ask();
        }
        self.asked = now;
        self.next = now + self.period / A_PERIOD;
    }

    /// When to call [`Watchdog::look`].
    pub fn next(&self) -> Instant {
        self.next
    }

    /// The manager could not be told: it will be as soon as it reads again.
    pub fn not_told(&mut self, now: Instant) {
        self.next = now + self.period / LOOKS;
    }

    /// Whether all have answered, so that the manager may be told. If so, they are asked again.
    pub fn look(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        let silent: Vec<String> = self.parts.iter().filter_map(|p| p.silent(now)).collect();
        if silent.is_empty() {
            if !self.silent.is_empty() {
                log::warn!("{} answers again", self.silent.join(", "));
                self.silent.clear();
            }
            self.ask(now);
            return true;
        }
        if silent != self.silent {
            log::error!(
                "no sign of life from {} for {} s: the watchdog is not fed, and the service manager will start the \
                 agent anew if that lasts",
                silent.join(", "),
                now.saturating_duration_since(self.asked).as_secs()
            );
            self.silent = silent;
        }
        self.next = now + self.period / LOOKS;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thread(&'static str, Pulse);

    impl Part for Thread {
        fn ask(&self) {
            self.1.ask();
        }
        fn silent(&self, now: Instant) -> Option<String> {
            self.1.is_silent(now).then(|| self.0.to_owned())
        }
    }

    const PERIOD: Duration = Duration::from_secs(80);

    #[test]
    fn only_when_all_have_answered_it_is_fed() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let (one, two) = (
            Thread("one", Pulse::default()),
            Thread("two", Pulse::default()),
        );
        let mut watchdog = Watchdog::new(vec![&one, &two], PERIOD, begun);
        assert_eq!(watchdog.next(), at(40));
        one.1.beat();
        two.1.beat();
        assert!(!watchdog.look(at(39)), "too early");
        assert!(watchdog.look(at(40)));
        // From here on, `two` is stuck.
        one.1.beat();
        assert!(!watchdog.look(at(80)));
        assert_eq!(watchdog.next(), at(90));
        assert!(!watchdog.look(at(90)));
        assert_eq!(watchdog.silent, ["two"]);
        // It was only slow: the manager is told as soon as that is seen.
        two.1.beat();
        assert!(watchdog.look(at(100)));
        assert!(watchdog.silent.is_empty());
        // An answer counts for one question.
        one.1.beat();
        assert!(!watchdog.look(at(140)));
    }

    #[test]
    fn a_deadline_of_its_own_excuses_a_thread_until_then() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let link = Thread("link", Pulse::default());
        let mut watchdog = Watchdog::new(vec![&link], PERIOD, begun);
        link.1.busy_until(Some(at(100)));
        assert!(watchdog.look(at(40)) && watchdog.look(at(80)));
        assert!(!watchdog.look(at(120)), "it is past its own deadline");
        link.1.busy_until(None);
        assert!(!watchdog.look(at(130)), "being free is no answer");
        link.1.beat();
        assert!(watchdog.look(at(140)));
    }
}
