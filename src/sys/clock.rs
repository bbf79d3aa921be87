//! Clocks, and what the kernel knows about them.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The system's time is not held to a floor at or behind this (1 January 2100), which came from a broken clock.
const LATEST_FLOOR: f64 = 4_102_444_800.0;

/// A time that had been reached when the device had been up for so long.
#[derive(Debug, Clone, Copy)]
struct Floor {
    unix: f64,
    up: Duration,
}

static FLOOR: OnceLock<Floor> = OnceLock::new();

/// Unix time in seconds. A router may live in 1970 until NTP has spoken.
pub fn now() -> f64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

/// The time as log daemons read it, such as `Nov  1 09:05:00`: local, in English, 15 bytes.
pub fn syslog_stamp() -> String {
    // SAFETY: no pointer that is used.
    let now = unsafe { libc::time(std::ptr::null_mut()) };
    // SAFETY: `tm` is plain numbers and a pointer that nobody follows, for which zero is a value.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are live. Where it fails `local` stays a time that can be written.
    unsafe { libc::localtime_r(&raw const now, &raw mut local) };
    stamp(&local)
}

fn stamp(time: &libc::tm) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = usize::try_from(time.tm_mon)
        .ok()
        .and_then(|m| MONTHS.get(m));
    format!(
        "{} {:2} {:02}:{:02}:{:02}",
        month.unwrap_or(&MONTHS[0]),
        time.tm_mday,
        time.tm_hour,
        time.tm_min,
        time.tm_sec
    )
}

/// Says that it is `unix` or later, as the last thing written down before the start shows. The first call counts.
pub fn set_floor(unix: f64) {
    if unix > 0.0
        && unix < LATEST_FLOOR
        && let Some(up) = since_boot()
    {
        let _ = FLOOR.set(Floor { unix, up });
    }
}

/// [`now`], but while the kernel does not call the clock synchronised, not before the floor plus the time since
/// that was set: a router that boots in 1970 does not take up what had expired when it went down.
pub fn trusted() -> f64 {
    match FLOOR.get() {
        Some(floor) => not_before(now(), synced(), *floor, since_boot()),
        None => now(),
    }
}

fn not_before(now: f64, synced: Option<bool>, floor: Floor, up: Option<Duration>) -> f64 {
    if synced == Some(true) {
        return now;
    }
    let passed = up.map_or(Duration::ZERO, |up| up.saturating_sub(floor.up));
    now.max(floor.unix + passed.as_secs_f64())
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
    read(libc::CLOCK_BOOTTIME)
}

/// The clock by which the service manager orders what it is told.
pub fn monotonic() -> Option<Duration> {
    read(libc::CLOCK_MONOTONIC)
}

fn read(clock: libc::clockid_t) -> Option<Duration> {
    // SAFETY: `timespec` is plain numbers.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live `timespec`.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
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
    fn a_clock_that_nobody_has_set_stays_above_its_floor() {
        let floor = Floor {
            unix: 1000.0,
            up: Duration::from_secs(50),
        };
        let up = |seconds| Some(Duration::from_secs(seconds));
        let cases = [
            (None, 3.0, up(57), 1007.0),
            (Some(false), 3.0, up(57), 1007.0),
            (Some(false), 2000.0, up(57), 2000.0),
            // No clock of the kernel's, or one that went back: the floor holds.
            (Some(false), 3.0, None, 1000.0),
            (Some(false), 3.0, up(1), 1000.0),
            // Whoever set the clock knows better than what was written down, also backwards.
            (Some(true), 3.0, up(57), 3.0),
        ];
        for (synced, now, up, expected) in cases {
            let is = not_before(now, synced, floor, up);
            assert!(
                (is - expected).abs() < 0.001,
                "{synced:?} {now} {up:?}: {is}"
            );
        }
    }

    #[test]
    fn a_stamp_is_as_date_writes_it() {
        // SAFETY: plain numbers.
        let mut time: libc::tm = unsafe { std::mem::zeroed() };
        (time.tm_mon, time.tm_mday, time.tm_hour, time.tm_min) = (10, 1, 9, 5);
        assert_eq!(stamp(&time), "Nov  1 09:05:00");
        let date = || {
            let mut date = std::process::Command::new("date");
            let output = date.arg("+%b %e %T").env("LC_ALL", "C").output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        // One of three: the second may change in between.
        assert!((0..3).any(|_| syslog_stamp() == date()));
    }

    #[test]
    fn a_floor_out_of_a_broken_clock_is_none() {
        for unix in [0.0, -5.0, f64::NAN, f64::INFINITY, LATEST_FLOOR] {
            set_floor(unix);
        }
        assert!((trusted() - now()).abs() < 60.0);
    }

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
