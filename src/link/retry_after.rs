//! `Retry-After`: seconds or an HTTP date.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest wait that a server can ask for: a wrong header must not keep a device away for a day.
pub const LIMIT: Duration = Duration::from_hours(1);

/// How long the server asks to wait. A date is compared with the server's own `Date`, where it sent one, since
/// the clock of a device is often wrong.
pub fn parse(value: &str, date: Option<&str>, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a u64 holds are a long time too.
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LIMIT));
    }
    let until = http_date(value)?;
    let now = match date.and_then(http_date) {
        Some(date) => date,
        None => now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    };
    Some(Duration::from_secs(until.saturating_sub(now)).min(LIMIT))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that RFC 9110 lets servers write.
fn http_date(text: &str) -> Option<u64> {
    let mut parts = text.trim().split_once(", ")?.1.split(' ');
    let day: u64 = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]
    .iter()
    .position(|name| *name == month)? as u64;
    let year: u64 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':').map(str::parse::<u64>);
    let (hour, minute, second) = (
        clock.next()?.ok()?,
        clock.next()?.ok()?,
        clock.next()?.ok()?,
    );
    let in_range = (1..=31).contains(&day)
        && (1970..=9999).contains(&year)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range || parts.next() != Some("GMT") {
        return None;
    }
    // Days of the years before, with a leap day every 4 but not every 100 but every 400; then of the months.
    let before = year - 1;
    let leaps = before / 4 - before / 100 + before / 400;
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let months = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_day = u64::from(is_leap && month > 1);
    // 719_162 days lie between the years 1 and 1970.
    let days = before * 365 + leaps + *months.get(usize::try_from(month).ok()?)? + leap_day + day
        - 1
        - 719_162;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Thu, 29 Feb 2024 12:00:00 GMT", 1_709_208_000),
            ("Fri, 01 Mar 2024 00:00:00 GMT", 1_709_251_200),
            ("Thu, 31 Dec 2026 23:59:59 GMT", 1_798_761_599),
        ] {
            assert_eq!(http_date(text), Some(seconds), "{text}");
        }
        for text in [
            "",
            "Sun, 06 Nov 1994",
            "x, 0 Nov 1994 08:49:37 GMT",
            "x, 1 Nov 1994 24:00:00 GMT",
        ] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_dates_and_bounds() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_770);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(parse("120", None, now), Some(Duration::from_mins(2)));
        assert_eq!(parse(date, None, now), Some(Duration::from_secs(7)));
        assert_eq!(parse("99999999999999999999999", None, now), Some(LIMIT));
        assert_eq!(parse("soon", None, now), None);
        // A device whose clock stands in 1970.
        assert_eq!(parse(date, Some(date), UNIX_EPOCH), Some(Duration::ZERO));
        assert_eq!(parse(date, None, UNIX_EPOCH), Some(LIMIT));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", odd in "[A-Z][a-z]{2}, [0-9]{1,20} Feb [0-9]{1,20} [0-9:]{1,20} GMT") {
            let _ = parse(&text, Some(&odd), SystemTime::now());
            let _ = parse(&odd, None, SystemTime::now());
        }
    }
}
