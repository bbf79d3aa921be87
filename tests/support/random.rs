//! Chance that can be repeated: the seed is printed, and settable by environment.

use std::time::Duration;

/// `SplitMix64`: small, and good enough to pick a moment.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn up_to(&mut self, longest: Duration) -> Duration {
        let micros = u64::try_from(longest.as_micros()).unwrap();
        Duration::from_micros(self.below(micros + 1))
    }

    /// Another one, so that a thread's chance does not depend on what other threads do.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

/// The number in an environment variable.
#[track_caller]
pub fn setting(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text}: expected a whole number")),
    )
}

/// A new seed, or the one that the environment names; printed, so that a failure can be repeated.
#[track_caller]
pub fn seed(variable: &str) -> u64 {
    let seed = setting(variable).unwrap_or_else(|| getrandom::u64().unwrap() >> 32);
    println!("{variable}={seed}");
    seed
}
