//! How much of something is let through in a time.

use std::time::{Duration, Instant};

/// So many a second, with the same again at once.
#[derive(Debug)]
pub struct Budget {
    rate: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    /// Full.
    pub fn new(rate: u32, now: Instant) -> Self {
        let rate = f64::from(rate.max(1));
        Self {
            rate,
            left: rate,
            at: now,
        }
    }

    /// Whether there is one; then it is spent.
    pub fn spend(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.rate).min(self.rate);
        self.at = now;
        let has = self.left >= 1.0;
        if has {
            self.left -= 1.0;
        }
        has
    }

    /// When it is worth looking again where there is none: not for each single one.
    pub fn next(&self) -> Instant {
        let wanted = (self.rate / 10.0).max(1.0);
        let wait = (wanted - self.left).max(0.0) / self.rate;
        self.at + Duration::from_secs_f64(wait)
    }
}

/// At most so many within a time that begins with the first.
#[derive(Debug)]
pub struct Window {
    most: u32,
    length: Duration,
    begun: Option<Instant>,
    count: u32,
    /// Those above.
    beyond: u64,
}

impl Window {
    /// Empty.
    pub fn new(most: u32, length: Duration) -> Self {
        Self {
            most,
            length,
            begun: None,
            count: 0,
            beyond: 0,
        }
    }

    /// One more. Whether it is still within, and how many of an earlier time were not.
    pub fn add(&mut self, now: Instant) -> (bool, u64) {
        let over = self.begun.is_none_or(|begun| now - begun >= self.length);
        let mut missed = 0;
        if over {
            self.begun = Some(now);
            self.count = 0;
            missed = std::mem::take(&mut self.beyond);
        }
        self.count = self.count.saturating_add(1);
        let within = self.count <= self.most;
        if !within {
            self.beyond += 1;
        }
        (within, missed)
    }

    /// How many were not within, since that was asked last.
    pub fn take_beyond(&mut self) -> u64 {
        std::mem::take(&mut self.beyond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_lets_through_its_rate_whatever_comes() {
        let begun = Instant::now();
        let mut budget = Budget::new(10, begun);
        let at = |ms| begun + Duration::from_millis(ms);
        let passed = (0..10_000).filter(|ms| budget.spend(at(*ms))).count();
        assert!((109..=110).contains(&passed), "{passed}");
        assert!(!budget.spend(at(10_000)) || !budget.spend(at(10_000)));
        assert!(budget.next() > at(10_000) && budget.next() <= at(10_200));
    }

    #[test]
    fn a_window_counts_what_it_keeps_out_and_says_so_in_the_next() {
        let begun = Instant::now();
        let mut window = Window::new(2, Duration::from_mins(1));
        let at = |s| begun + Duration::from_secs(s);
        let said: Vec<_> = [0, 1, 2, 59, 60].map(|s| window.add(at(s))).into();
        let expected = [(true, 0), (true, 0), (false, 0), (false, 0), (true, 2)];
        assert_eq!(said, expected);
        assert_eq!(window.take_beyond(), 0);
    }
}
