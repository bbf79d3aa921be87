//! How often somebody may try.

use crate::jobs::lock;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Instant;

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The way of a request was encrypted, as far as the browser sees it.
#[derive(Debug, Clone, Copy)]
pub struct Tls(pub bool);

/// Attempts that an address has at once…
const BURST: f64 = 100.0;
/// …and gets back each second.
const PER_SECOND: f64 = 1.0;
/// Addresses that are remembered. More at a time share one bucket, so that nobody gets around the limit by
/// having many.
const MAX_ADDRESSES: usize = 10_000;

struct Bucket {
    left: f64,
    at: Instant,
}

/// Failed attempts by address.
pub struct Attempts {
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
    burst: f64,
    per_second: f64,
}

impl Default for Attempts {
    fn default() -> Self {
        Self::new(BURST, PER_SECOND)
    }
}

impl Attempts {
    /// So many at once, and so many more each second.
    pub fn new(burst: f64, per_second: f64) -> Self {
        Self {
            buckets: Mutex::default(),
            burst,
            per_second,
        }
    }

    fn refill(&self, bucket: &mut Bucket, now: Instant) {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + passed * self.per_second).min(self.burst);
        bucket.at = now;
    }

    /// Whether `ip` may try now; one that fails is counted. The error is the time to wait, in seconds.
    pub fn check(&self, ip: IpAddr, succeeds: bool) -> Result<(), u64> {
        self.check_at(ip, succeeds, Instant::now())
    }

    fn check_at(&self, ip: IpAddr, succeeds: bool, now: Instant) -> Result<(), u64> {
        let mut buckets = lock(&self.buckets);
        let mut ip = network(ip);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&ip) {
            buckets.retain(|_, bucket| {
                self.refill(bucket, now);
                bucket.left < self.burst
            });
            if buckets.len() >= MAX_ADDRESSES {
                ip = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        if succeeds && !buckets.contains_key(&ip) {
            return Ok(());
        }
        let bucket = buckets.entry(ip).or_insert(Bucket {
            left: self.burst,
            at: now,
        });
        self.refill(bucket, now);
        if bucket.left < 1.0 {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            return Err(((1.0 - bucket.left) / self.per_second).ceil().max(1.0) as u64);
        }
        if !succeeds {
            bucket.left -= 1.0;
        }
        Ok(())
    }
}

/// Who has one IPv6 address has the whole /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn attempts_run_out_and_come_back() {
        let attempts = Attempts::default();
        let start = Instant::now();
        let ip = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..100 {
            assert_eq!(attempts.check_at(ip, false, start), Ok(()));
        }
        assert_eq!(attempts.check_at(ip, false, start), Err(1));
        assert_eq!(attempts.check_at(ip, true, start), Err(1));
        assert_eq!(
            attempts.check_at(IpAddr::from([192, 0, 2, 2]), true, start),
            Ok(())
        );
        let later = start + Duration::from_secs(2);
        assert_eq!(attempts.check_at(ip, true, later), Ok(()));
        assert_eq!(attempts.check_at(ip, false, later), Ok(()));
    }

    #[test]
    fn memory_is_bounded() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for n in 0..20_000_u32 {
            let _ = attempts.check_at(IpAddr::from(n.to_be_bytes()), false, now);
        }
        assert!(lock(&attempts.buckets).len() <= MAX_ADDRESSES + 1);
    }
}
