//! A descriptor that tells when somebody sets the clock.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A timerfd that never comes due unless it is armed for a time, and that the kernel cancels when the real-time clock jumps: by NTP's first answer,
/// by date(1), after a sleep. Then it is readable until cleared. While nothing happens it costs nothing.
#[derive(Debug)]
pub struct ClockWatch(OwnedFd);

impl ClockWatch {
    /// Watches from now on. Fails where the kernel has no such timers, or no descriptor is left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked below.
        let fd = unsafe {
            libc::timerfd_create(libc::CLOCK_REALTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let watch = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        watch.arm(None)?;
        Ok(watch)
    }

    /// Has it become readable also when the clock reaches a Unix time; with none, not any more. Says whether the clock
    /// was set in this very moment: then it may not become readable for that.
    pub fn arm(&self, at: Option<i64>) -> io::Result<bool> {
        // SAFETY: `itimerspec` is plain numbers.
        let mut due: libc::itimerspec = unsafe { std::mem::zeroed() };
        // The type is deprecated with musl only because it will grow, and its end grows with it.
        #[allow(deprecated)]
        let end = libc::time_t::MAX;
        // A time that does not fit is as good as none; zero would disarm it.
        #[allow(
            clippy::useless_conversion,
            reason = "not every C library has 64 bits for it"
        )]
        let at = at.map_or(end, |at| at.max(1).try_into().unwrap_or(end));
        due.it_value.tv_sec = at;
        // SAFETY: a live `itimerspec`; the old value is not asked for.
        let result = unsafe {
            libc::timerfd_settime(
                self.0.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET,
                &raw const due,
                std::ptr::null_mut(),
            )
        };
        if result == 0 {
            return Ok(false);
        }
        match io::Error::last_os_error() {
            // The clock was set in this very moment; the timer is armed all the same.
            e if e.raw_os_error() == Some(libc::ECANCELED) => Ok(true),
            e => Err(e),
        }
    }

    /// Forgets the jumps so far, and says whether there was one; it goes on watching.
    pub fn clear(&self) -> bool {
        let mut count = [0_u8; 8];
        // SAFETY: eight writable bytes, as timerfd wants. ECANCELED is the news that is forgotten here; EAGAIN means
        // that there was none.
        let n = unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        n < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ECANCELED)
    }
}

impl AsFd for ClockWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::{IN, PollSet};
    use std::time::Instant;

    /// What the kernel says about the timer.
    fn facts(watch: &ClockWatch) -> String {
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", watch.0.as_raw_fd())).unwrap()
    }

    #[test]
    fn it_is_armed_for_the_end_of_time_and_for_jumps() {
        // The machine's clock is not ours to set: what a jump does is the kernel's word.
        let watch = ClockWatch::new().unwrap();
        watch.clear();
        let facts = facts(&watch);
        let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
        let fact = |name: &str| {
            let line = facts.lines().find_map(|l| l.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {facts}"))
        };
        assert_eq!(fact("clockid: "), "0", "CLOCK_REALTIME");
        assert_eq!(fact("settime flags: "), format!("0{flags}"));
        let left = fact("it_value: ").trim_start_matches('(');
        let left: i64 = left.split(',').next().unwrap().parse().unwrap();
        // A kernel counts nanoseconds in 63 bits: 292 years from 1970 on.
        assert!(left > 86_400 * 365, "{facts}");
        let mut set = PollSet::new();
        set.add(watch.as_fd(), IN);
        assert!(!set.wait(Some(Instant::now())).unwrap());
    }

    #[test]
    fn armed_for_a_time_it_is_readable_from_then_on() {
        let watch = ClockWatch::new().unwrap();
        let is_due = |within: Instant| {
            let mut set = PollSet::new();
            set.add(watch.as_fd(), IN);
            set.wait(Some(within)).unwrap()
        };
        watch.arm(Some(i64::MAX)).unwrap();
        assert!(!is_due(Instant::now()));
        // Any time in the past is due at once.
        for past in [i64::MIN, 0, 1] {
            watch.arm(Some(past)).unwrap();
            assert!(is_due(Instant::now() + std::time::Duration::from_mins(1)));
        }
        assert!(!watch.clear(), "nobody has set the clock");
        assert!(!is_due(Instant::now()));
        watch.arm(None).unwrap();
        assert!(!is_due(Instant::now()));
    }
}
