//! How busy the processors are, from `/proc/stat`.

use super::source::Source;
use super::{LIST_LIMIT, rounded};

/// Ticks of one processor, or of all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ticks {
    /// `cpu` for all, `cpu0`, ...
    name: String,
    busy: u64,
    total: u64,
}

/// The counters as they were at the last reading.
#[derive(Debug)]
pub(super) struct Processors {
    last: Vec<Ticks>,
}

impl Processors {
    pub fn new(source: &Source) -> Self {
        Self {
            last: ticks(source),
        }
    }

    /// Loads since the last reading: of all, and of each. None where there is nothing to compare.
    pub fn read(&mut self, source: &Source) -> (Option<f64>, Option<Vec<f64>>) {
        let now = ticks(source);
        let load = |now: &Ticks| {
            let last = self.last.iter().find(|last| last.name == now.name)?;
            let total = now.total.checked_sub(last.total).filter(|t| *t > 0)?;
            // Some counters run backwards a little now and then.
            let busy = now.busy.saturating_sub(last.busy).min(total);
            Some(rounded(busy as f64 / total as f64, 3))
        };
        let is_all = |ticks: &&Ticks| ticks.name == "cpu";
        let system = now.iter().find(is_all).and_then(load);
        // A processor that came since has no load yet: then the list would shift, so there is none this time.
        let each: Option<Vec<f64>> = now
            .iter()
            .filter(|t| !is_all(t))
            .take(LIST_LIMIT)
            .map(load)
            .collect();
        let each = each.filter(|loads| !loads.is_empty());
        // Two readings within a tick compare nothing; the older one stays to compare with.
        if system.is_some() || self.last.is_empty() || now.is_empty() || went_back(&self.last, &now)
        {
            self.last = now;
        }
        (system, each)
    }
}

fn went_back(last: &[Ticks], now: &[Ticks]) -> bool {
    last.first().map(|t| t.total) > now.first().map(|t| t.total)
}

fn ticks(source: &Source) -> Vec<Ticks> {
    let Some(text) = source.text("proc/stat") else {
        return Vec::new();
    };
    text.lines().map_while(line).collect()
}

/// `cpu0 user nice system idle iowait irq softirq steal guest guest_nice`; old kernels have fewer.
fn line(line: &str) -> Option<Ticks> {
    let mut fields = line.split_ascii_whitespace();
    let name = fields.next().filter(|name| name.starts_with("cpu"))?;
    // Guests' time is in user's already.
    let counts: Vec<u64> = fields.take(8).map_while(|f| f.parse().ok()).collect();
    if counts.len() < 4 {
        return None;
    }
    let total = counts.iter().fold(0, |sum: u64, c| sum.saturating_add(*c));
    let idle = counts[3].saturating_add(counts.get(4).copied().unwrap_or(0));
    Some(Ticks {
        name: name.to_owned(),
        busy: total.saturating_sub(idle),
        total,
    })
}
