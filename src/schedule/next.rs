//! From local times that fit to points in time.
//!
//! A local time that a change of the clock leaves out counts at the change. One that comes twice counts the first time,
//! unless the entry's hour begins with `*`: what runs every ten minutes does so in the hour that is repeated as well.

use super::cron::Cron;
use super::zone::Zone;

/// How far ahead a time is looked for: 29 February on a certain weekday may be 40 years off.
pub const HORIZON: i64 = 50 * 366 * 86_400;
/// Stretches of one offset looked at for that, with some more for zones that change often.
const SEGMENTS: usize = 400;

/// The first time behind `after` that fits.
pub fn next(cron: &Cron, zone: &Zone, after: i64) -> Option<i64> {
    let horizon = after.saturating_add(HORIZON);
    let mut at = after.checked_add(1)?;
    for _ in 0..SEGMENTS {
        let segment = zone.segment(at);
        let offset = segment.offset;
        let mut from = at + offset;
        if let Some(start) = segment.start {
            // What a clock on the wall showed up to the change, and from it on.
            let (before, behind) = (start + segment.before, start + offset);
            if at == start && cron.first(before, behind).is_some() {
                return Some(start);
            }
            if !cron.every_hour() {
                from = from.max(before);
            }
        }
        let end = segment.end.map_or(horizon, |end| end.min(horizon));
        if let Some(local) = cron.first(from, end + offset) {
            return Some(local - offset);
        }
        if end >= horizon {
            return None;
        }
        at = end;
    }
    None
}

/// How many times fit behind `after` and up to `end`, counted up to `most`, and the last of them.
pub fn between(
    next: &dyn Fn(i64) -> Option<i64>,
    after: i64,
    end: i64,
    most: u32,
) -> Option<(u32, i64)> {
    let mut last = next(after).filter(|t| *t <= end)?;
    let mut count = 1;
    while let Some(time) = next(last).filter(|t| *t <= end) {
        if count >= most {
            return Some((most, newest(next, last, end)));
        }
        (last, count) = (time, count + 1);
    }
    Some((count, last))
}

/// The last time up to `end`, where `known` is one. Looks back from the end in steps that grow, so that it is found soon
/// whatever the entry's pace.
fn newest(next: &dyn Fn(i64) -> Option<i64>, known: i64, end: i64) -> i64 {
    let mut back = 60;
    loop {
        let from = end - back;
        if from <= known {
            break;
        }
        if next(from).is_some_and(|t| t <= end) {
            break;
        }
        back *= 16;
    }
    let mut last = known.max(end - back);
    // At most so many as fit the last step and not the one before it.
    while let Some(time) = next(last).filter(|t| *t <= end) {
        last = time;
    }
    last
}
