//! What of an entry's times is settled. Plain data and decisions; time comes as an argument.

use super::next::between;
use serde_json::{Value, json};

/// A time that is noticed no later than this, in seconds, has not been missed: a clock that is set by a few seconds, and
/// an agent that is started anew, run what fell between.
pub const GRACE: i64 = 60;
/// Missed times are counted up to this.
pub const COUNT_LIMIT: u32 = 1_000;
/// Stretches of settled times that are remembered; each jump of the clock makes one.
const STRETCHES: usize = 4;

/// What has become of an entry's times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it was made for: another expression or zone begins anew.
    pub rule: String,
    /// Times up to here are not looked at any more; none until the clock can be believed.
    pub done: Option<i64>,
    /// Times behind `.0` up to `.1` had their turn. Where the clock is set back, they do not come again.
    pub had: Vec<(i64, i64)>,
    /// The time of the last run.
    pub last: Option<i64>,
    /// The device's life in which `@reboot` had its turn.
    pub boot: String,
}

/// What there is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Run for this time.
    pub run: Option<i64>,
    /// How many times were missed, and the first of them.
    pub missed: Option<(u32, i64)>,
    /// When to look again.
    pub next: Option<i64>,
}

/// An entry's times, and what is to become of them.
pub struct Times<'a> {
    /// The first time behind another.
    pub next: &'a dyn Fn(i64) -> Option<i64>,
    /// How much later the run of a time is.
    pub jitter: &'a dyn Fn(i64) -> i64,
    /// Whether what was missed is made up for by one run.
    pub catch_up: bool,
}

impl Progress {
    /// The first time behind `after` that has not had its turn.
    fn after(&self, times: &Times<'_>, after: i64) -> Option<i64> {
        let mut time = (times.next)(after)?;
        // Each stretch at most once, as they do not overlap.
        for _ in 0..=self.had.len() {
            let Some(had) = self.had.iter().find(|h| h.0 < time && time <= h.1) else {
                return Some(time);
            };
            time = (times.next)(had.1)?;
        }
        Some(time)
    }

    /// Decides what to do at `now`, and settles it.
    pub fn look(&mut self, now: i64, times: &Times<'_>) -> Due {
        // A clock that was set back: from here on anew, without what had its turn.
        let done = self.done.map_or(now, |done| done.min(now));
        self.done = Some(done);
        let next = |after| self.after(times, after);
        let due_at = |time: i64| time.saturating_add((times.jitter)(time));
        let Some(first) = next(done) else {
            return Due::default();
        };
        if due_at(first) > now {
            let next = Some(due_at(first));
            return Due {
                next,
                ..Due::default()
            };
        }
        // Times in the order in which they stand; the next one's jitter may end before this one's.
        let is_due = |after: i64| next(after).filter(|t| due_at(*t) <= now);
        let (count, last) = between(&is_due, done, now, COUNT_LIMIT).unwrap_or((1, first));
        let late = now - due_at(last) > GRACE;
        let run = (!late || times.catch_up).then_some(last);
        let others = count - u32::from(run.is_some());
        let missed = (others > 0 && !times.catch_up).then_some((others, first));
        let short = last - done <= GRACE;
        if run.is_some() || short {
            // Where it is the only one, there is nothing between.
            self.settle(if short || count == 1 { done } else { last - 1 }, last);
        }
        self.done = Some(last);
        Due {
            run,
            missed,
            next: self.after(times, last).map(due_at),
        }
    }

    /// Times behind `from` up to `to` have had their turn.
    fn settle(&mut self, from: i64, to: i64) {
        let from = match self.had.iter().find(|h| h.0 <= from && from <= h.1) {
            Some(had) => had.0,
            None => from,
        };
        self.had.retain(|h| h.0 < from || h.1 > to);
        let at = self.had.partition_point(|h| h.0 < from);
        self.had.insert(at, (from, to));
        while self.had.len() > STRETCHES {
            // What lies between two that are near one another counts as had: that is better than a second turn.
            let gap = |at: &usize| self.had[at + 1].0 - self.had[*at].1;
            if let Some(at) = (0..self.had.len() - 1).min_by_key(gap) {
                self.had[at].1 = self.had[at + 1].1;
                self.had.remove(at + 1);
            }
        }
    }

    /// As it is kept on disk. A run that waits to begin has not had its turn there, which may make one stretch more.
    pub fn to_json(&self, waiting: Option<i64>) -> Value {
        let before = waiting.map(|time| time - 1);
        let mut had = self.had.clone();
        if let (Some(time), Some(before)) = (waiting, before)
            && let Some(at) = had.iter().position(|h| h.0 < time && time <= h.1)
        {
            // What is left of the stretch on either side.
            let (from, to) = had.remove(at);
            let sides = [(from, before), (time, to)];
            had.splice(at..at, sides.into_iter().filter(|h| h.0 < h.1));
        }
        json!({
            "rule": self.rule,
            "done": self.done.into_iter().chain(before).min(),
            "had": had,
            "last": self.last,
            "boot": self.boot,
        })
    }

    /// What was kept; what makes no sense is as good as absent.
    pub fn from_json(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let list = value["had"].as_array().map_or(&[][..], Vec::as_slice);
        let pair = |had: &Value| Some((had[0].as_i64()?, had[1].as_i64()?));
        Self {
            rule: text("rule"),
            done: value["done"].as_i64(),
            had: list.iter().filter_map(pair).take(STRETCHES + 1).collect(),
            last: value["last"].as_i64(),
            boot: text("boot"),
        }
    }
}
