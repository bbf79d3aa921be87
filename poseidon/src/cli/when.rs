//! Times and lengths of time as people write them.

/// Seconds of a length of time such as `90s`, `15m`, `12h`, `3d`.
pub(super) fn length(text: &str) -> Result<f64, String> {
    let wrong = || "a number and s, m, h or d is expected, such as 90s, 15m, 12h, 3d".to_owned();
    let unit = match text.chars().last() {
        Some('s') => 1.0,
        Some('m') => 60.0,
        Some('h') => 3600.0,
        Some('d') => 86_400.0,
        _ => return Err(wrong()),
    };
    // The unit is one byte.
    let number = digits(&text[..text.len() - 1]).ok_or_else(wrong)?;
    Ok(number * unit)
}

/// A point in time as it was given: what it means may depend on the present.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum When {
    /// Unix time.
    At(f64),
    /// So many seconds ago.
    Ago(f64),
}

impl When {
    /// Reads a Unix time, a date, a date and time, or an age.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(time) = digits(text) {
            return Ok(Self::At(time));
        }
        if let Some(time) = date(text) {
            return Ok(Self::At(time));
        }
        length(text).map(Self::Ago).map_err(|_| {
            "a Unix time, a date (2025-06-01), a date and time (2025-06-01T12:30:00Z) or an age (90s, 15m, 2h, 3d) is expected"
                .to_owned()
        })
    }

    /// The Unix time.
    pub(super) fn time(self, now: f64) -> f64 {
        match self {
            Self::At(time) => time,
            Self::Ago(seconds) => (now - seconds).max(0.0),
        }
    }
}

/// A decimal number without sign or exponent.
fn digits(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

/// RFC 3339, where the time and its zone may be left out: midnight, UTC.
fn date(text: &str) -> Option<f64> {
    let (day, rest) = match text.split_once(['T', 't', ' ']) {
        Some((day, rest)) => (day, Some(rest)),
        None => (text, None),
    };
    let mut parts = day.split('-');
    let year = field(parts.next()?, 4)?;
    let month = field(parts.next()?, 2).filter(|month| (1..=12).contains(month))?;
    let last = days(next_month(year, month)) - days((year, month, 1));
    let day = field(parts.next()?, 2).filter(|day| (1..=last).contains(day))?;
    if parts.next().is_some() {
        return None;
    }
    let seconds = rest.map_or(Some(0.0), clock)?;
    Some(days((year, month, day)) as f64 * 86_400.0 + seconds)
}

/// Seconds since midnight UTC of `12:30`, `12:30:00.5`, with `Z` or `+02:00` behind.
fn clock(text: &str) -> Option<f64> {
    let at = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
    let (clock, zone) = text.split_at(at);
    let zone = match zone.strip_prefix(['+', '-']) {
        Some(offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let minutes = limited(hours, 23)? * 60 + limited(minutes, 59)?;
            if zone.starts_with('-') {
                -minutes
            } else {
                minutes
            }
        }
        None if zone.len() <= 1 => 0,
        None => return None,
    };
    let mut parts = clock.splitn(3, ':');
    let hours = limited(parts.next()?, 23)?;
    let minutes = limited(parts.next()?, 59)?;
    let seconds = match parts.next() {
        None => 0.0,
        Some(text) => {
            let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
            // 60 is a leap second.
            limited(whole, 60)?;
            digits(text)?
        }
    };
    Some(((hours * 60 + minutes - zone) * 60) as f64 + seconds)
}

fn limited(text: &str, most: i64) -> Option<i64> {
    field(text, 2).filter(|number| *number <= most)
}

/// A number of exactly so many digits.
fn field(text: &str, width: usize) -> Option<i64> {
    let right = text.len() == width && text.bytes().all(|b| b.is_ascii_digit());
    right.then(|| text.parse().ok()).flatten()
}

fn next_month(year: i64, month: i64) -> (i64, i64, i64) {
    if month == 12 {
        (year + 1, 1, 1)
    } else {
        (year, month + 1, 1)
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years begin in March here, so that a leap day is the last.
fn days((year, month, day): (i64, i64, i64)) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The other way round.
fn calendar(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    (year, month, day)
}

/// A Unix time for people, in UTC: `2025-06-01T12:30:00Z`.
pub(super) fn show(time: f64) -> String {
    // Years 0 to 9999; all else is no time that a clock shows.
    if !(-62_167_219_200.0..253_402_300_800.0).contains(&time) {
        return format!("{time}");
    }
    #[allow(clippy::cast_possible_truncation)]
    let seconds = time.floor() as i64;
    let (year, month, day) = calendar(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_a_unit() {
        for (text, seconds) in [
            ("90s", 90.0),
            ("15m", 900.0),
            ("12h", 43_200.0),
            ("3d", 259_200.0),
            ("1.5h", 5400.0),
        ] {
            assert_eq!(length(text), Ok(seconds), "{text}");
        }
        for text in ["", "s", "90", "-1h", "1e3s", "3 d", "1w", "infs", "ü"] {
            assert!(length(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_in_every_form() {
        for (text, when) in [
            ("1700000000", When::At(1_700_000_000.0)),
            ("1700000000.25", When::At(1_700_000_000.25)),
            ("2023-11-14T22:13:20Z", When::At(1_700_000_000.0)),
            ("2023-11-14 22:13:20.5", When::At(1_700_000_000.5)),
            ("2023-11-15T00:13:20+02:00", When::At(1_700_000_000.0)),
            ("2023-11-14T21:43:20-00:30", When::At(1_700_000_000.0)),
            ("2024-02-29", When::At(1_709_164_800.0)),
            ("1969-12-31", When::At(-86_400.0)),
            ("2h", When::Ago(7200.0)),
        ] {
            assert_eq!(When::parse(text), Ok(when), "{text}");
        }
        for text in [
            "",
            ".",
            "yesterday",
            "2023-02-29",
            "2023-13-01",
            "2023-1-1",
            "2023-01-01T",
            "2023-01-01T24:00Z",
            "2023-01-01T12:00:00ZZ",
            "2023-01-01T12:00:00+2",
            "2023-01-01T12:00:1",
            "-5",
        ] {
            assert!(When::parse(text).is_err(), "{text}");
        }
        assert!((When::Ago(60.0).time(100.0) - 40.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_shown_is_read_again() {
        assert_eq!(show(1_700_000_000.9), "2023-11-14T22:13:20Z");
        assert_eq!(show(-1.0), "1969-12-31T23:59:59Z");
        // Every day of eight centuries, with its leap years.
        for day in -146_097..146_097 {
            let time = f64::from(day) * 86_400.0 + 3661.0;
            assert_eq!(When::parse(&show(time)), Ok(When::At(time)));
        }
        assert_eq!(show(1e300), format!("{}", 1e300));
    }
}
