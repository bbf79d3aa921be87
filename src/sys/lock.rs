//! File locks.

use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

/// A process that was killed may have left a child between fork and exec, which holds its locks for a moment.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// Locks a file for this process alone, or says within a second why not.
pub fn exclusive(file: &File) -> Result<(), TryLockError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}
