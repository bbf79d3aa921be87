//! The clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time in seconds, to the millisecond.
pub fn now() -> f64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    (since.as_secs_f64() * 1000.0).round() / 1000.0
}
