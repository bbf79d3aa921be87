//! POSIX TZ strings, such as `CET-1CEST,M3.5.0,M10.5.0/3`, with RFC 8536's hours from -167 to 167.

use super::zone::Segment;
use crate::dates::{DAY, civil, days};

/// What a TZ string says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    standard: i64,
    summer: Option<Summer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Summer {
    offset: i64,
    start: Date,
    end: Date,
}

/// A day of each year, and the local time of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Date {
    day: Day,
    time: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Day {
    /// `Jn`: 1 to 365, without the leap day.
    Julian(i64),
    /// `n`: 0 to 365, the leap day counts.
    Zero(i64),
    /// `Mm.w.d`: weekday d in week w of month m; week 5 is the last.
    Month(i64, i64, i64),
}

/// As POSIX leaves open and all C libraries have it.
const DEFAULT: &str = ",M3.2.0,M11.1.0";
/// Changes of so many years on each side are looked at: a rule's time may be a week off its day.
const YEARS: i64 = 2;

impl Rule {
    /// One offset for all times.
    pub fn fixed(offset: i64) -> Self {
        Self {
            standard: offset,
            summer: None,
        }
    }

    /// Reads a TZ string; none where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut text = Text(text.as_bytes());
        text.name()?;
        let standard = -text.time(24)?;
        if text.0.is_empty() {
            return Some(Self::fixed(standard));
        }
        text.name()?;
        let offset = match text.0.first() {
            None | Some(b',') => standard + 3_600,
            Some(_) => -text.time(24)?,
        };
        if text.0.is_empty() {
            text = Text(DEFAULT.as_bytes());
        }
        let (start, end) = (text.date()?, text.date()?);
        text.0.is_empty().then_some(Self {
            standard,
            summer: Some(Summer { offset, start, end }),
        })
    }

    /// The stretch that a time is in.
    pub fn segment(&self, time: i64) -> Segment {
        let Some(summer) = &self.summer else {
            return Segment {
                start: None,
                before: self.standard,
                offset: self.standard,
                end: None,
            };
        };
        let (year, ..) = civil(time.div_euclid(DAY));
        let mut changes = Vec::new();
        for year in year - YEARS..=year + YEARS {
            let start = (summer.start.of(year) - self.standard, summer.offset);
            let end = (summer.end.of(year) - summer.offset, self.standard);
            // In order as they come: a sort is kilobytes of code.
            for change in [start, end] {
                let at = changes.partition_point(|(at, _): &(i64, i64)| *at <= change.0);
                changes.insert(at, change);
            }
        }
        // A summer that lasts all year ends in the moment in which the next one begins: that is no change.
        let mut real: Vec<(i64, i64)> = Vec::new();
        for change in changes {
            if real.last().is_some_and(|last| last.0 == change.0) {
                real.pop();
            }
            if real.last().is_none_or(|last| last.1 != change.1) {
                real.push(change);
            }
        }
        let behind = real.partition_point(|(at, _)| *at <= time);
        let last = behind.checked_sub(1).and_then(|n| real.get(n));
        let before = behind.checked_sub(2).and_then(|n| real.get(n));
        let offset = last.map_or(summer.offset, |(_, offset)| *offset);
        Segment {
            // The first one of them may be the end of a stretch that began before.
            start: last.filter(|_| before.is_some()).map(|(at, _)| *at),
            before: before.map_or(offset, |(_, offset)| *offset),
            offset,
            end: real.get(behind).map(|(at, _)| *at),
        }
    }
}

impl Date {
    /// In local time, seconds since 1970.
    fn of(&self, year: i64) -> i64 {
        let january = days(year, 1, 1);
        let day = match self.day {
            Day::Zero(n) => january + n,
            Day::Julian(n) => {
                let leap = days(year + 1, 1, 1) - january - 365;
                january + n - 1 + if n >= 60 { leap } else { 0 }
            }
            Day::Month(month, week, weekday) => {
                let first = days(year, month, 1);
                let next = days(year + month / 12, month % 12 + 1, 1);
                let day = first + (weekday - first - 4).rem_euclid(7) + (week - 1) * 7;
                if day >= next { day - 7 } else { day }
            }
        };
        day * DAY + self.time
    }
}

/// What is left to read.
struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn take(&mut self, wanted: u8) -> bool {
        let found = self.0.first() == Some(&wanted);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    /// At least three letters, or anything plain in `<>`.
    fn name(&mut self) -> Option<()> {
        let quoted = self.take(b'<');
        let right =
            |b: &u8| b.is_ascii_alphabetic() || quoted && (b.is_ascii_digit() || b"+-".contains(b));
        let length = self.0.iter().take_while(|b| right(b)).count();
        self.0 = &self.0[length..];
        (length >= 3 && (!quoted || self.take(b'>'))).then_some(())
    }

    fn number(&mut self, least: i64, most: i64) -> Option<i64> {
        let length = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(length.min(4));
        self.0 = rest;
        let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
        (least..=most).contains(&number).then_some(number)
    }

    /// `[+-]h[:m[:s]]`, in seconds.
    fn time(&mut self, most: i64) -> Option<i64> {
        let minus = self.take(b'-');
        if !minus {
            self.take(b'+');
        }
        let mut seconds = self.number(0, most)? * 3_600;
        if self.take(b':') {
            seconds += self.number(0, 59)? * 60;
            if self.take(b':') {
                seconds += self.number(0, 59)?;
            }
        }
        Some(if minus { -seconds } else { seconds })
    }

    /// `,date[/time]`
    fn date(&mut self) -> Option<Date> {
        if !self.take(b',') {
            return None;
        }
        let day = if self.take(b'J') {
            Day::Julian(self.number(1, 365)?)
        } else if self.take(b'M') {
            let month = self.number(1, 12)?;
            let week = self.take(b'.').then(|| self.number(1, 5))??;
            Day::Month(month, week, self.take(b'.').then(|| self.number(0, 6))??)
        } else {
            Day::Zero(self.number(0, 365)?)
        };
        let time = if self.take(b'/') {
            self.time(167)?
        } else {
            7_200
        };
        Some(Date { day, time })
    }
}
