//! How many events a second are let in.
//!
//! Addresses in datagrams can be forged: a spray of them must neither take memory nor the place of those who are honest. So
//! there is a bucket for each of a few sources, one for all others together, and one for the sum.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Sources with a bucket of their own.
const SOURCES: usize = 64;
/// A source that was silent for so long gives its place to another.
const IDLE: Duration = Duration::from_mins(1);
/// So many times the rate of one source are let in from all.
const TOTAL: u32 = 4;

/// Tokens: `rate` a second, and as many in store.
#[derive(Debug, Clone)]
pub struct Bucket {
    rate: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: u32, now: Instant) -> Self {
        Self {
            rate: f64::from(rate),
            tokens: f64::from(rate),
            at: now,
        }
    }

    fn has(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.rate);
        self.at = now;
        self.tokens >= 1.0
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let has = self.has(now);
        self.tokens -= if has { 1.0 } else { 0.0 };
        has
    }
}

/// The buckets of the listener.
#[derive(Debug)]
pub struct Gate {
    rate: u32,
    total: Bucket,
    others: Bucket,
    /// None is the socket in the file system.
    table: Vec<(Option<IpAddr>, Bucket)>,
}

impl Gate {
    /// Lets `rate` a second in from each source.
    pub fn new(rate: u32, now: Instant) -> Self {
        Self {
            rate,
            total: Bucket::new(rate.saturating_mul(TOTAL), now),
            others: Bucket::new(rate, now),
            table: Vec::new(),
        }
    }

    /// Whether one event of this source may come in.
    pub fn lets_in(&mut self, source: Option<IpAddr>, now: Instant) -> bool {
        if !self.total.has(now) {
            return false;
        }
        let found = self.table.iter().position(|(known, _)| *known == source);
        let place = found.or_else(|| {
            let new = (source, Bucket::new(self.rate, now));
            if self.table.len() < SOURCES {
                self.table.push(new);
                return Some(self.table.len() - 1);
            }
            let idle = |(_, b): &(_, Bucket)| now.saturating_duration_since(b.at) >= IDLE;
            let free = self.table.iter().position(idle)?;
            self.table[free] = new;
            Some(free)
        });
        let bucket = match place {
            Some(place) => &mut self.table[place].1,
            None => &mut self.others,
        };
        bucket.take(now) && self.total.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn let_in(gate: &mut Gate, source: u32, times: usize, now: Instant) -> usize {
        let source = Some(Ipv4Addr::from(source).into());
        (0..times).filter(|_| gate.lets_in(source, now)).count()
    }

    #[test]
    fn each_source_has_its_rate_and_as_much_as_burst() {
        let begin = Instant::now();
        let mut gate = Gate::new(10, begin);
        assert_eq!(let_in(&mut gate, 1, 100, begin), 10);
        assert_eq!(let_in(&mut gate, 2, 100, begin), 10);
        let later = begin + Duration::from_millis(500);
        assert_eq!(let_in(&mut gate, 1, 100, later), 5);
        // Never more than the burst, however long it was silent.
        let later = begin + Duration::from_secs(3_600);
        assert_eq!(let_in(&mut gate, 1, 100, later), 10);
    }

    #[test]
    fn forged_sources_take_neither_memory_nor_the_place_of_who_is_there() {
        let begin = Instant::now();
        let mut gate = Gate::new(50, begin);
        let (mut honest, mut forged) = (0, 0);
        let mut source = 1_000;
        for second in 0..300_u64 {
            let now = begin + Duration::from_secs(second);
            for _ in 0..10 {
                honest += let_in(&mut gate, 7, 1, now);
                for _ in 0..100 {
                    source += 1;
                    forged += let_in(&mut gate, source, 1, now);
                }
            }
            assert!(gate.table.len() <= SOURCES);
        }
        assert_eq!(honest, 3_000, "ten a second are within its rate");
        // The others' bucket, and a first event for each place that fell idle.
        assert!(forged <= 301 * 50 + 6 * SOURCES, "{forged}");
    }

    #[test]
    fn all_together_have_a_limit() {
        let begin = Instant::now();
        let mut gate = Gate::new(10, begin);
        let all: usize = (0..64).map(|n| let_in(&mut gate, n, 100, begin)).sum();
        assert_eq!(all, 40);
    }
}
