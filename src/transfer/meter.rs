//! How far a transfer is.

use crate::job::Context;

/// Says so at each percent.
#[derive(Debug)]
pub struct Meter {
    total: u64,
    done: u64,
    said: Option<u64>,
}

impl Meter {
    /// Of so many bytes in all.
    pub fn new(total: u64) -> Self {
        Self {
            total,
            done: 0,
            said: None,
        }
    }

    /// Says nothing.
    pub fn silent() -> Self {
        Self {
            said: Some(100),
            ..Self::new(0)
        }
    }

    /// So many more are there.
    pub fn add(&mut self, context: &Context<'_>, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        let percent = percent(self.done, self.total);
        if self.said != Some(percent) {
            self.said = Some(percent);
            let text = format!("{} of {} bytes", self.done, self.total);
            // At most 100: a double holds it.
            context.progress(percent as f64, text);
        }
    }

    /// They were not worth anything.
    pub fn take_back(&mut self, bytes: u64) {
        self.done = self.done.saturating_sub(bytes);
    }
}

fn percent(done: u64, total: u64) -> u64 {
    if done >= total {
        return 100;
    }
    // Without overflow, for sizes that only lies have.
    match done.checked_mul(100) {
        Some(hundredfold) => hundredfold / total,
        None => (done / (total / 100)).min(99),
    }
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn a_percent_of_any_size() {
        for (done, total, said) in [
            (0, 0, 100),
            (0, 1, 0),
            (1, 1, 100),
            (1, 200, 0),
            (199, 200, 99),
            (5, 3, 100),
            (u64::MAX - 1, u64::MAX, 99),
            (u64::MAX / 2, u64::MAX, 50),
        ] {
            assert_eq!(percent(done, total), said, "{done} of {total}");
        }
    }
}
