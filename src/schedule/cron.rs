//! Cron expressions: which local times fit, as sets of bits.
//!
//! The common ground of the crons there are: `*`, lists, ranges, steps, names of months and days, 7 for Sunday; where
//! both days of month and of week are restricted either will do, where one begins with `*` both must fit. What only some
//! crons know (`L`, `W`, `#`, `?`, ranges backwards, a step behind a single number) is refused and not guessed at.

use crate::dates::{DAY, civil, days};

/// Longest expression, in bytes.
pub const CRON_LIMIT: usize = 128;

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Name, least and most of each field, and the words for its numbers from the least on.
const FIELDS: [(&str, u32, u32, &[&str]); 6] = [
    ("second", 0, 59, &[]),
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of month", 1, 31, &[]),
    ("month", 1, 12, MONTHS),
    ("day of week", 0, 7, WEEKDAYS),
];
const WEEKDAY: usize = 5;
const SHORTHANDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// When an entry runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Once in each life of the device.
    Reboot,
    /// At these local times.
    Times(Cron),
}

/// Local times, as sets of bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    /// In the order of `FIELDS`.
    sets: [u64; 6],
    /// The day of month or of week begins with `*`, so that both must fit.
    both_days: bool,
    /// The hour begins with `*`: the entry goes by lengths of time more than by the time of day.
    every_hour: bool,
}

/// Reads an expression; the error says which field is wrong and what it may be.
pub fn parse(text: &str) -> Result<When, String> {
    if text.len() > CRON_LIMIT {
        return Err(format!("is longer than {CRON_LIMIT} bytes"));
    }
    let mut text = text.trim();
    if text.starts_with('@') {
        if text.eq_ignore_ascii_case("@reboot") {
            return Ok(When::Reboot);
        }
        let known = SHORTHANDS
            .iter()
            .find(|(name, _)| text.eq_ignore_ascii_case(name));
        let Some((_, meaning)) = known else {
            return Err(format!(
                "{text} is none of @hourly, @daily, @weekly, @monthly, @yearly, @reboot"
            ));
        };
        text = meaning;
    }
    let mut fields: Vec<&str> = text.split_ascii_whitespace().collect();
    if fields.len() == 5 {
        fields.insert(0, "0");
    }
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "has {} fields; expected five (minute, hour, day of month, month, day of week), or six with seconds first",
            fields.len()
        ));
    }
    let mut sets = [0; 6];
    for (at, field) in fields.iter().enumerate() {
        sets[at] = set(field, at).map_err(|why| format!("{} {field:?}: {why}", FIELDS[at].0))?;
    }
    // 7 is Sunday as well.
    sets[WEEKDAY] |= sets[WEEKDAY] >> 7;
    Ok(When::Times(Cron {
        sets,
        both_days: fields[3].starts_with('*') || fields[WEEKDAY].starts_with('*'),
        every_hour: fields[2].starts_with('*'),
    }))
}

fn set(field: &str, at: usize) -> Result<u64, String> {
    let (_, least, most, _) = FIELDS[at];
    let mut bits = 0;
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        if range.is_empty() || range.starts_with('-') || range.ends_with('-') {
            return Err(format!(
                "{part:?} is neither a number from {least} to {most} nor a range, as in {least}-{most}"
            ));
        }
        let (from, mut to) = if range == "*" {
            (least, most)
        } else if let Some((from, to)) = range.split_once('-') {
            (number(from, at)?, number(to, at)?)
        } else if step.is_some() {
            return Err(format!("a step needs * or a range, as in {range}-{most}/2"));
        } else {
            let one = number(range, at)?;
            (one, one)
        };
        if at == WEEKDAY && to == 0 && from > 0 {
            to = 7;
        }
        if from > to {
            return Err(format!(
                "{range} goes backwards; write two ranges, as in {from}-{most},{least}-{to}"
            ));
        }
        let step = match step.map(|s| (digits(s), s)) {
            None => 1,
            Some((Some(step), _)) if (1..=most).contains(&step) => step,
            Some((_, text)) => return Err(format!("the step {text:?} is not from 1 to {most}")),
        };
        for n in (from..=to).step_by(step as usize) {
            bits |= 1 << n;
        }
    }
    Ok(bits)
}

fn number(text: &str, at: usize) -> Result<u32, String> {
    let (_, least, most, words) = FIELDS[at];
    let word = || words.iter().position(|w| text.eq_ignore_ascii_case(w));
    digits(text)
        .or_else(|| {
            word()
                .and_then(|n| u32::try_from(n).ok())
                .map(|n| n + least)
        })
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| format!("{text:?} is not from {least} to {most}"))
}

/// A number of one or two digits, and nothing else.
fn digits(text: &str) -> Option<u32> {
    let right = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    right.then(|| text.parse().ok()).flatten()
}

/// The first of a set from `from` on.
fn first(set: u64, from: u32) -> Option<u32> {
    let rest = set.checked_shr(from)?;
    (rest != 0).then(|| from + rest.trailing_zeros())
}

impl Cron {
    /// See [`Cron`].
    pub fn every_hour(&self) -> bool {
        self.every_hour
    }

    /// The first local time that fits, from `from` on and before `end`: seconds since 1970 as a clock on the wall counts
    /// them.
    pub fn first(&self, from: i64, end: i64) -> Option<i64> {
        let mut day = from.div_euclid(DAY);
        let mut second = u32::try_from(from.rem_euclid(DAY)).unwrap_or_default();
        while day * DAY < end {
            let (year, month, date) = civil(day);
            if self.sets[4] >> month & 1 == 0 {
                day = days(year + month / 12, month % 12 + 1, 1);
                second = 0;
                continue;
            }
            if self.fits(day, date)
                && let Some(second) = self.time(second)
            {
                let time = day * DAY + i64::from(second);
                return (time < end).then_some(time);
            }
            day += 1;
            second = 0;
        }
        None
    }

    fn fits(&self, day: i64, date: i64) -> bool {
        // The first day was a Thursday.
        let weekday = (day + 4).rem_euclid(7);
        let month = self.sets[3] >> date & 1 == 1;
        let week = self.sets[WEEKDAY] >> weekday & 1 == 1;
        if self.both_days {
            month && week
        } else {
            month || week
        }
    }

    /// The first second of a day that fits, from one on.
    fn time(&self, from: u32) -> Option<u32> {
        let [seconds, minutes, hours, ..] = self.sets;
        let (hour, minute) = (from / 3_600, from / 60 % 60);
        let whole = |hour: u32, minute: u32, second: u32| (hour * 60 + minute) * 60 + second;
        if first(hours, hour) == Some(hour) {
            if first(minutes, minute) == Some(minute)
                && let Some(second) = first(seconds, from % 60)
            {
                return Some(whole(hour, minute, second));
            }
            if let Some(minute) = first(minutes, minute + 1) {
                return Some(whole(hour, minute, first(seconds, 0)?));
            }
        }
        let hour = first(hours, hour + 1)?;
        Some(whole(hour, first(minutes, 0)?, first(seconds, 0)?))
    }
}
