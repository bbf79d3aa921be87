//! poll(2), the one place where threads wait for descriptors.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Readable, or ended.
pub const IN: i16 = libc::POLLIN;
/// Writable.
pub const OUT: i16 = libc::POLLOUT;
/// Set by the kernel whether asked for or not: error, hang-up.
pub const GONE: i16 = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;

/// Descriptors to wait for. Build it anew for each wait: the borrowed descriptors keep it honest.
#[derive(Default)]
pub struct PollSet<'a> {
    entries: Vec<libc::pollfd>,
    borrowed: std::marker::PhantomData<BorrowedFd<'a>>,
}

impl<'a> PollSet<'a> {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a descriptor and returns its place for [`PollSet::ready`]. With `events` 0 only [`GONE`] is seen.
    pub fn add(&mut self, fd: BorrowedFd<'a>, events: i16) -> usize {
        self.entries.push(libc::pollfd {
            fd: fd.as_raw_fd(),
            events,
            revents: 0,
        });
        self.entries.len() - 1
    }

    /// What happened to each, by their places.
    pub fn all(&self) -> Vec<i16> {
        self.entries.iter().map(|entry| entry.revents).collect()
    }

    /// Waits until a descriptor is ready or the deadline has passed; without a deadline, for ever. Returns
    /// whether any is ready. An interrupting signal does not end the wait.
    pub fn wait(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        loop {
            let timeout = match deadline {
                None => -1,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    // Rounded up: else the last millisecond would spin.
                    let ms = left.as_millis() + u128::from(left.subsec_nanos() % 1_000_000 != 0);
                    i32::try_from(ms).unwrap_or(i32::MAX)
                }
            };
            // SAFETY: the pointer and the length describe the vector, which nothing else touches meanwhile.
            let n = unsafe {
                libc::poll(
                    self.entries.as_mut_ptr(),
                    self.entries.len() as libc::nfds_t,
                    timeout,
                )
            };
            if n >= 0 {
                return Ok(n > 0);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// What happened to the descriptor at `place`: [`IN`], [`OUT`], [`GONE`] bits.
    pub fn ready(&self, place: usize) -> i16 {
        self.entries[place].revents
    }
}

/// Waits for one descriptor until the deadline; `Err(TimedOut)` where it passes.
pub fn wait_one(fd: BorrowedFd<'_>, events: i16, deadline: Instant) -> io::Result<()> {
    let mut set = PollSet::new();
    set.add(fd, events);
    if set.wait(Some(deadline))? {
        Ok(())
    } else {
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// `deadline` for a time-out in seconds from now; far ahead where the sum overflows.
pub fn after(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout)
        .unwrap_or_else(|| now + Duration::from_hours(24 * 365))
}
