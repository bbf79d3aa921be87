//! Dates as people write them, in UTC. A router has no need of a calendar library for that.

use std::time::Duration;

pub(crate) const DAY: i64 = 86_400;
/// Unix times of the years 0001 to 9999, which have four digits: what lies outside is shown as a number.
const YEARS: std::ops::Range<i64> = -62_135_596_800..253_402_300_800;

/// Whether it lies in the years 1970 to 9999, which every SIEM can tell.
pub fn is_common(time: f64) -> bool {
    (0.0..YEARS.end as f64).contains(&time)
}

/// `2026-11-21T10:00:00Z`. A time beyond four-digit years stays a number.
pub fn utc(time: f64) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a float beyond i64 becomes its end, which is out of range below"
    )]
    let seconds = time.floor() as i64;
    if !time.is_finite() || !YEARS.contains(&seconds) {
        return format!("{time}");
    }
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

/// A point in time as people give it: a Unix time, a date with or without a time of day (UTC
/// unless it names its zone), or an age, which is
/// taken from `now`.
pub fn parse(text: &str, now: f64) -> Option<f64> {
    if let Some(age) = length(text) {
        return Some(now - age.as_secs_f64());
    }
    if let Ok(time) = text.parse::<f64>() {
        return time.is_finite().then_some(time);
    }
    date_and_time(text)
}

/// A length of time: `90s`, `15m`, `2h`, `3d`.
pub fn length(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    // Digits only: a float may be called inf or 1e9.
    let count = digits(&text[..text.len() - 1])?;
    count.checked_mul(unit).map(Duration::from_secs)
}

/// `2026-11-21`, `2026-11-21T10:00`, `2026-11-21T10:00:00Z`, with a space for the T and a fraction too.
fn date_and_time(text: &str) -> Option<f64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let mut next = |len: usize| {
        let part = parts.next().filter(|p| p.len() == len)?;
        digits(part).and_then(|n| i64::try_from(n).ok())
    };
    let (year, month, day) = (next(4)?, next(2)?, next(2)?);
    if parts.next().is_some() || year == 0 || !(1..=12).contains(&month) {
        return None;
    }
    let days = days(year, month, day);
    // The day of a month that is too short for it comes out as another one.
    if civil(days) != (year, month, day) {
        return None;
    }
    #[allow(
        clippy::cast_precision_loss,
        reason = "four-digit years are far below 2^53"
    )]
    let midnight = (days * DAY) as f64;
    Some(midnight + time.map_or(Some(0.0), time_of_day)?)
}

/// `10:00`, `10:00:00`, `10:00:00.5`, each also with `Z` or `+02:00`; seconds since midnight UTC.
fn time_of_day(text: &str) -> Option<f64> {
    let zone_at = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
    let (text, zone) = text.split_at(zone_at);
    let zone = match zone.split_at_checked(1) {
        None | Some(("Z" | "z", "")) => 0.0,
        Some((sign @ ("+" | "-"), offset)) => {
            let mut parts = offset.split(':');
            let (hours, minutes) = (two_digits(parts.next(), 23)?, two_digits(parts.next(), 59)?);
            let seconds = (hours * 60.0 + minutes) * 60.0;
            if parts.next().is_some() {
                return None;
            }
            if sign == "-" { -seconds } else { seconds }
        }
        Some(_) => return None,
    };
    let mut parts = text.split(':');
    let (hour, minute) = (two_digits(parts.next(), 23)?, two_digits(parts.next(), 59)?);
    let second = match parts.next() {
        None => 0.0,
        Some(second) => {
            let (full, fraction) = second.split_once('.').unwrap_or((second, "0"));
            // 60 is a leap second.
            let full = two_digits(Some(full), 60)?;
            digits(fraction)?;
            full + format!("0.{fraction}").parse::<f64>().ok()?
        }
    };
    parts
        .next()
        .is_none()
        .then_some((hour * 60.0 + minute) * 60.0 + second - zone)
}

fn two_digits(text: Option<&str>, most: u32) -> Option<f64> {
    let text = text.filter(|text| text.len() == 2)?;
    let number = digits(text).and_then(|n| u32::try_from(n).ok())?;
    (number <= most).then(|| f64::from(number))
}

/// A number of digits only.
fn digits(text: &str) -> Option<u64> {
    let right = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    right.then(|| text.parse().ok()).flatten()
}

/// Year, month and day of a day since 1970-01-01, by Howard Hinnant's `civil_from_days`: years begin in March, so that
/// the leap day is their last, and the calendar repeats every 400 years (146,097 days).
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The other way round: `days_from_civil`.
pub(crate) fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times_read_as_date_says() {
        for (time, text) in [
            (0.0, "1970-01-01T00:00:00Z"),
            (-1.0, "1969-12-31T23:59:59Z"),
            (951_782_400.0, "2000-02-29T00:00:00Z"),
            (1_077_926_399.9, "2004-02-27T23:59:59Z"),
            (4_107_542_400.0, "2100-03-01T00:00:00Z"),
            (1_795_255_200.5, "2026-11-21T10:00:00Z"),
            (253_402_300_799.0, "9999-12-31T23:59:59Z"),
            (-62_135_596_800.0, "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(utc(time), text);
        }
        assert_eq!(utc(253_402_300_800.0), "253402300800");
        assert_eq!(utc(-1e300), format!("{}", -1e300));
    }

    #[test]
    fn times_are_given_in_many_ways() {
        let now = 1_795_255_200.0;
        for (text, time) in [
            ("2026-11-21T10:00:00Z", now),
            ("2026-11-21T10:00:00", now),
            ("2026-11-21 10:00", now),
            ("2026-11-21T10:00:00.25z", now + 0.25),
            ("2026-11-21T12:00:00+02:00", now),
            ("2026-11-21T09:30-00:30", now),
            ("2026-11-21", now - 36_000.0),
            ("1795255200", now),
            ("1795255200.5", now + 0.5),
            ("0", 0.0),
            ("90s", now - 90.0),
            ("15m", now - 900.0),
            ("2h", now - 7_200.0),
            ("3d", now - 259_200.0),
        ] {
            assert_eq!(parse(text, now), Some(time), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-02-29",
            "2026-11-31",
            "2026-11-21T24:00",
            "2026-11-21T10:60",
            "2026-11-21T10:00:61",
            "2026-11-21T10:00:00+1",
            "2026-11-21T10:00:00+01:00:00",
            "2026-11-21T10:00:00ZZ",
            "2026-11-21T10:00:1",
            "2026-11-21T",
            "2026-11-21T10",
            "2026-11-21-1",
            "0000-01-01",
            "26-11-21",
            "inf",
            "NaN",
            "1e3s",
            "-5m",
            "5 m",
            "5y",
            "é",
            "99999999999999999999d",
        ] {
            assert_eq!(parse(text, now), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(time in YEARS) {
            #[allow(clippy::cast_precision_loss)]
            let time = time as f64;
            prop_assert_eq!(parse(&utc(time), 0.0), Some(time));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,20}|[0-9TZ:. -]{0,24}|[0-9é]{0,22}[smhd]") {
            let _ = parse(&text, 0.0);
        }
    }
}
