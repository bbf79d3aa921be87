//! A descriptor that wakes a thread out of poll(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// An eventfd: any thread rings it, the owner polls it.
#[derive(Debug)]
pub struct Wake(OwnedFd);

impl Wake {
    /// A silent one.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked below.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wakes the owner, now or at its next poll. Safe to call at any time from any thread.
    pub fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight readable bytes, as eventfd wants. It can fail only where the counter is full, and
        // then the owner is awake anyway.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Silences it; the owner calls this after waking and before it looks at what changed.
    pub fn clear(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: eight writable bytes, as eventfd wants. Failing means that it was silent already.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::Wake;
    use crate::sys::poll::{IN, PollSet};
    use std::os::fd::AsFd;
    use std::time::Instant;

    #[test]
    fn it_rings_until_cleared() {
        let wake = Wake::new().unwrap();
        let rings = || {
            let mut set = PollSet::new();
            set.add(wake.as_fd(), IN);
            set.wait(Some(Instant::now())).unwrap()
        };
        assert!(!rings());
        wake.ring();
        wake.ring();
        assert!(rings() && rings());
        wake.clear();
        assert!(!rings());
    }
}
