//! How long to wait before the next try. Time and randomness come in as arguments.

use super::Kind;
use std::time::Duration;

/// First and longest wait after an ordinary failure.
const ORDINARY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// The same while the device is not registered. The jitter of a fifth comes on top, so the longest is 10 min.
const UNREGISTERED: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(500));
/// The same while a wrong clock is the likely reason: it may be set at any moment, and where that goes by small steps
/// nobody notices.
const CLOCK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// The shortest that a server may ask for: many devices that come back at once are what it wants to avoid.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Shorter waits would only burn processor time.
const FLOOR: Duration = Duration::from_millis(100);
/// A session that lasted so long resets everything; a shorter one nothing, so that a server that accepts and
/// fails is not stormed.
const STABLE: Duration = Duration::from_mins(1);

/// Remembers how often connecting has failed.
#[derive(Debug, Default)]
pub struct Backoff {
    ordinary: u32,
    unregistered: u32,
}

impl Backoff {
    /// None has failed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long to wait after a failure. `random` is any number from the whole range.
    ///
    /// - Ordinary failures: evenly between 0 and 1 s, 2 s, 4 s … 5 min (full jitter), at least 0.1 s.
    /// - A wrong clock: the same up to 1 min.
    /// - Not registered: 30 s, 60 s … 500 s and up to a fifth on top, so 30 s to 10 min.
    /// - Retry-After: that long, a second at least, and up to a quarter and a second on top.
    pub fn after(&mut self, kind: Kind, random: u32) -> Duration {
        match kind {
            Kind::Unregistered => {
                let wait = doubled(UNREGISTERED, &mut self.unregistered);
                wait + share(wait / 5, random)
            }
            Kind::RetryAfter(wait) => {
                let wait = wait.max(RETRY_AFTER);
                wait + share(wait / 4 + Duration::from_secs(1), random)
            }
            Kind::Clock => share(doubled(CLOCK, &mut self.ordinary), random).max(FLOOR),
            Kind::Stopped | Kind::Other => {
                share(doubled(ORDINARY, &mut self.ordinary), random).max(FLOOR)
            }
        }
    }

    /// A session has ended after so long. The wait before the next try comes from [`Backoff::after`] as usual.
    pub fn session_ended(&mut self, lasted: Duration) {
        self.unregistered = 0;
        if lasted >= STABLE {
            self.ordinary = 0;
        }
    }
}

/// `first` doubled for each time before, up to `longest`; counts one more.
fn doubled((first, longest): (Duration, Duration), times: &mut u32) -> Duration {
    let wait = first
        .saturating_mul(1_u32.checked_shl(*times).unwrap_or(u32::MAX))
        .min(longest);
    *times = times.saturating_add(1);
    wait
}

/// The part of `whole` that `random` is of the range of `u32`.
fn share(whole: Duration, random: u32) -> Duration {
    // Waits have at most an hour, 3.6 million ms: times 2^32 this is below 2^54.
    let ms = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(ms.saturating_mul(u64::from(random)) / u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn ordinary_waits_double_up_to_five_minutes() {
        let mut backoff = Backoff::new();
        let longest: Vec<u64> = (0..11)
            .map(|_| backoff.after(Kind::Other, u32::MAX).as_secs())
            .collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(backoff.after(Kind::Other, 0), FLOOR);
        let middle = backoff.after(Kind::Other, u32::MAX / 2);
        assert!(middle > secs(149) && middle <= secs(150));
    }

    #[test]
    fn a_clock_that_may_be_set_soon_is_not_waited_for_long() {
        let mut backoff = Backoff::new();
        let longest: Vec<u64> = (0..9)
            .map(|_| backoff.after(Kind::Clock, u32::MAX).as_secs())
            .collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        // Whatever failed before.
        assert_eq!(backoff.after(Kind::Other, u32::MAX), secs(300));
        assert_eq!(backoff.after(Kind::Clock, u32::MAX), secs(60));
        assert_eq!(backoff.after(Kind::Clock, 0), FLOOR);
    }

    #[test]
    fn unregistered_devices_wait_from_30_seconds_to_10_minutes() {
        let mut backoff = Backoff::new();
        let shortest: Vec<u64> = (0..7)
            .map(|_| backoff.after(Kind::Unregistered, 0).as_secs())
            .collect();
        assert_eq!(shortest, [30, 60, 120, 240, 480, 500, 500]);
        assert_eq!(backoff.after(Kind::Unregistered, u32::MAX), secs(600));
    }

    #[test]
    fn the_server_decides_with_retry_after() {
        let mut backoff = Backoff::new();
        assert_eq!(backoff.after(Kind::RetryAfter(secs(120)), 0), secs(120));
        assert_eq!(backoff.after(Kind::RetryAfter(secs(0)), 0), RETRY_AFTER);
        assert_eq!(
            backoff.after(Kind::RetryAfter(secs(120)), u32::MAX),
            secs(151)
        );
    }

    #[test]
    fn only_a_session_of_a_minute_resets() {
        let mut backoff = Backoff::new();
        for _ in 0..5 {
            backoff.after(Kind::Other, 0);
        }
        backoff.session_ended(secs(59));
        assert_eq!(backoff.after(Kind::Other, u32::MAX), secs(32));
        backoff.session_ended(secs(60));
        assert_eq!(backoff.after(Kind::Other, u32::MAX), secs(1));
    }

    proptest! {
        #[test]
        fn waits_stay_in_their_bounds(steps: Vec<(u8, u32, u16)>) {
            let mut backoff = Backoff::new();
            for (kind, random, seconds) in steps {
                let asked = secs(u64::from(seconds) % 3601);
                let (kind, least, most) = match kind % 5 {
                    0 => (Kind::Other, FLOOR, secs(300)),
                    1 => (Kind::Unregistered, secs(30), secs(600)),
                    2 => (Kind::Clock, FLOOR, secs(60)),
                    3 => {
                        let least = asked.max(RETRY_AFTER);
                        (Kind::RetryAfter(asked), least, least * 5 / 4 + secs(1))
                    }
                    _ => {
                        backoff.session_ended(asked);
                        continue;
                    }
                };
                let wait = backoff.after(kind, random);
                prop_assert!(least <= wait && wait <= most, "{kind:?} {wait:?}");
            }
        }
    }
}
