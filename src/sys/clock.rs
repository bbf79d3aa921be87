//! Clocks, and what the kernel knows about them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix time in seconds. A router may live in 1970 until NTP has spoken.
pub fn now() -> f64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

/// The time that `notBefore` and `notAfter` are measured by.
pub fn trusted() -> f64 {
    now()
}

/// Whether the kernel's clock is disciplined (NTP); `None` where it cannot be told.
pub fn synced() -> Option<bool> {
    // SAFETY: `timex` is plain numbers, for which zero is a value; `modes` 0 asks without changing anything.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live `timex`.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    (state >= 0).then_some(timex.status & libc::STA_UNSYNC == 0)
}

/// Random per boot: tells whether the device has started anew.
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = text.trim();
    (!id.is_empty() && id.len() <= 64).then(|| id.to_owned())
}

/// Time since boot, suspended time included (which `Instant` leaves out).
pub fn since_boot() -> Option<Duration> {
    // SAFETY: `timespec` is plain numbers.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live `timespec`.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    if result != 0 {
        return None;
    }
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanos = u32::try_from(time.tv_nsec).ok()?;
    Some(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_agree_with_proc() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!((since_boot().unwrap().as_secs_f64() - uptime).abs() < 60.0);
        // 2020 to 2100.
        assert!((1_577_836_800.0..4_102_444_800.0).contains(&now()));
        assert_eq!(boot_id(), boot_id());
        // Whatever it says, asking must not fail on an ordinary kernel.
        assert!(synced().is_some());
    }
}
