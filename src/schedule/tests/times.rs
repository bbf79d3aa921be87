//! Expressions, zones and what comes next.

use super::super::next::{between, next};
use super::super::zone::Zone;
use super::{When, at, cron};
use crate::dates::utc;
use std::fs;

/// Berlin, as a router writes it.
const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

/// The next times behind one, as UTC.
fn times(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let (cron, zone) = (cron(text), Zone::named(zone).unwrap());
    let first = next(&cron, &zone, at(after));
    std::iter::successors(first, |time| next(&cron, &zone, *time))
        .take(count)
        .map(|time| utc(time as f64).trim_end_matches(":00Z").to_owned())
        .collect()
}

#[test]
fn ordinary_expressions_come_when_they_should() {
    for (text, after, expected) in [
        (
            "0 2 * * *",
            "2026-11-21T02:00",
            &["2026-11-22T02:00", "2026-11-23T02:00"][..],
        ),
        ("0 2 * * *", "2026-11-21T01:59:59", &["2026-11-21T02:00"]),
        (
            "*/20 * * * *",
            "2026-12-31T23:30",
            &["2026-12-31T23:40", "2027-01-01T00:00"],
        ),
        ("30 10 15 * * *", "2026-11-21", &["2026-11-21T15:10:30Z"]),
        ("@hourly", "2026-11-21T10:00", &["2026-11-21T11:00"]),
        ("@Weekly", "2026-11-21", &["2026-11-22T00:00"]),
        ("@monthly", "2026-11-21", &["2026-12-01T00:00"]),
        ("@yearly", "2026-11-21", &["2027-01-01T00:00"]),
        ("0 0 29 2 *", "2096-03-01", &["2104-02-29T00:00"]),
        (
            "0 0 31 * *",
            "2026-04-01",
            &["2026-05-31T00:00", "2026-07-31T00:00"],
        ),
        ("0 9 * * mon-fri", "2026-11-20T09:00", &["2026-11-23T09:00"]),
        (
            "0 9 * * 7",
            "2026-11-21",
            &["2026-11-22T09:00", "2026-11-29T09:00"],
        ),
        (
            "0 9 * * fri-sun",
            "2026-11-20T09:00",
            &["2026-11-21T09:00", "2026-11-22T09:00", "2026-11-27T09:00"],
        ),
        ("0 0 * JAN,jul *", "2026-02-01", &["2026-07-01T00:00"]),
        (
            "5-59/15 0 1 1 *",
            "2026-11-21",
            &["2027-01-01T00:05", "2027-01-01T00:20"],
        ),
        // Either day where both are restricted, both where one begins with a star.
        (
            "0 0 13 * 5",
            "2026-11-01",
            &["2026-11-06T00:00", "2026-11-13T00:00", "2026-11-20T00:00"],
        ),
        (
            "0 0 */2 * 5",
            "2026-11-01",
            &["2026-11-13T00:00", "2026-11-27T00:00"],
        ),
    ] {
        assert_eq!(
            times(text, "UTC", after, expected.len()),
            expected,
            "{text}"
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_the_field_and_what_it_may_be() {
    for (text, parts) in [
        ("", &["0 fields"][..]),
        ("* * * *", &["4 fields", "minute"]),
        ("* * * * * * *", &["7 fields"]),
        ("60 * * * *", &["minute", "\"60\"", "0 to 59"]),
        ("* 24 * * *", &["hour", "0 to 23"]),
        ("* * 0 * *", &["day of month", "1 to 31"]),
        ("* * * 13 *", &["month", "1 to 12"]),
        ("* * * * 8", &["day of week", "0 to 7"]),
        ("* * * * L", &["day of week", "\"L\""]),
        ("* * ? * *", &["day of month"]),
        ("5/15 * * * *", &["a step needs", "5-59/2"]),
        ("*/0 * * * *", &["step", "1 to 59"]),
        ("*/ * * * *", &["step"]),
        ("1--2 * * * *", &["minute"]),
        (
            "-1 * * * *",
            &["minute \"-1\": \"-1\" is neither a number from 0 to 59"],
        ),
        ("* 5- * * *", &["hour", "\"5-\" is neither", "0-23"]),
        ("* * 1,,2 * *", &["\"\" is neither", "1-31"]),
        ("20-10 * * * *", &["backwards", "20-59,0-10"]),
        ("+5 * * * *", &["minute"]),
        ("1, * * * *", &["minute"]),
        ("@noon", &["@noon", "@daily", "@reboot"]),
        ("0 0 * * jan", &["day of week"]),
        ("٣ * * * *", &["minute"]),
    ] {
        let said = cron::parse(text).expect_err(text);
        for part in parts {
            assert!(said.contains(part), "{text:?}: {said}");
        }
    }
    assert!(cron::parse(&"1,".repeat(65)).unwrap_err().contains("128"));
    assert_eq!(cron::parse(" @Reboot "), Ok(When::Reboot));
}

#[test]
fn a_time_that_is_left_out_runs_at_the_change() {
    // In Berlin 02:00 to 03:00 is left out on 29 March 2026.
    let day = ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"];
    assert_eq!(times("30 2 * * *", BERLIN, "2026-03-27T12:00", 3), day);
    // All that is left out is one run, and the one of three o'clock is the same.
    let quarters = ["2026-03-29T00:45", "2026-03-29T01:00", "2026-03-29T01:15"];
    assert_eq!(
        times("*/15 * * * *", BERLIN, "2026-03-29T00:30", 3),
        quarters
    );
    // Right at the change, and right before it.
    let next = ["2026-03-30T00:30"];
    assert_eq!(times("30 2 * * *", BERLIN, "2026-03-29T01:00", 1), next);
    assert_eq!(
        times("30 2 * * *", BERLIN, "2026-03-29T00:59:59", 1),
        ["2026-03-29T01:00"]
    );
    // A zone that leaves midnight out.
    let santiago = "<-04>4<-03>,M9.1.6/24,M4.1.6/24";
    let midnight = ["2026-09-05T04:00", "2026-09-06T04:00", "2026-09-07T03:00"];
    assert_eq!(
        times("0 0 * * *", santiago, "2026-09-05T00:00", 3),
        midnight
    );
}

#[test]
fn a_time_that_comes_twice_runs_the_first_time() {
    // In Berlin 02:00 to 03:00 comes twice on 25 October 2026.
    let once = ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"];
    assert_eq!(times("30 2 * * *", BERLIN, "2026-10-23T12:00", 3), once);
    let hours = ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-26T01:00"];
    assert_eq!(times("*/30 2 * * *", BERLIN, "2026-10-24T12:00", 3), hours);
    let three = ["2026-10-25T02:00"];
    assert_eq!(times("0 3 * * *", BERLIN, "2026-10-25T00:30", 1), three);
    // What goes by lengths of time does not pause for an hour.
    let every = [
        "2026-10-25T00:30",
        "2026-10-25T01:00",
        "2026-10-25T01:30",
        "2026-10-25T02:00",
    ];
    assert_eq!(times("*/30 * * * *", BERLIN, "2026-10-25T00:00", 4), every);
    assert_eq!(
        times("0 */2 * * *", BERLIN, "2026-10-24T22:00", 2),
        ["2026-10-25T00:00", "2026-10-25T01:00"]
    );
    // A zone that goes back over midnight.
    let santiago = "<-04>4<-03>,M9.1.6/24,M4.1.6/24";
    let late = ["2026-04-04T02:30", "2026-04-05T02:30", "2026-04-06T03:30"];
    assert_eq!(times("30 23 * * *", santiago, "2026-04-04T00:00", 3), late);
}

#[test]
fn zones_are_written_in_many_ways() {
    for (zone, noon) in [
        ("UTC", "12:00"),
        ("UTC0", "12:00"),
        ("<+0545>-5:45", "06:15"),
        ("EST5EDT", "17:00"),
        ("IST-5:30", "06:30"),
        ("<-03>3", "15:00"),
        // Summer lasts all year.
        ("XXX3EDT4,0/0,J365/23", "16:00"),
        ("AEST-10AEDT,M10.1.0,M4.1.0/3", "01:00"),
        ("IST-2IDT,M3.4.4/26,M10.5.0", "10:00"),
    ] {
        let day = times("0 12 * * *", zone, "2026-11-20T18:00", 1).remove(0);
        assert_eq!(&day[11..], noon, "{zone}");
    }
    let folder = tempfile::tempdir().unwrap();
    for text in [
        "",
        "CET",
        "Mars/Phobos",
        "../../etc/passwd",
        "/etc/localtime",
        "CET-1CEST,M3.5.0",
        "CET-1CEST,M13.5.0,M10.5.0",
        "CET-1CEST,M3.5.0,M10.5.0/3x",
        "CET25",
        "<+03",
        "a b",
        "X-1",
        "\u{0}",
    ] {
        let said = Zone::named_in(text, folder.path()).expect_err(text);
        assert!(said.contains("POSIX TZ string"), "{text}: {said}");
    }
}

#[test]
fn broken_zone_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let good = fs::read("/usr/share/zoneinfo/Europe/Berlin").unwrap();
    let put = |bytes: &[u8]| {
        fs::write(folder.path().join("X"), bytes).unwrap();
        Zone::named_in("X", folder.path())
    };
    assert_eq!(put(&good), Zone::named("Europe/Berlin"));
    assert!(put(b"").unwrap_err().contains("no zone file"));
    assert!(put(b"hello").is_err());
    // Cut anywhere it is refused, or means something; it never panics.
    let mut refused = 0;
    for length in 0..good.len() {
        refused += usize::from(put(&good[..length]).is_err());
    }
    assert!(refused > good.len() / 2);
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0xFF;
        if let Ok(zone) = put(&bytes) {
            // Whatever it means, the search comes to an end.
            let _ = next(&cron("30 2 * * *"), &zone, super::at("2026-03-01"));
        }
    }
}

#[test]
fn missed_times_are_counted_and_the_last_is_found_at_any_pace() {
    for (text, count, last) in [
        ("* * * * * *", 1_000, "2026-11-21T10:00:30Z"),
        ("* * * * *", 1_000, "2026-11-21T10:00"),
        ("0 * * * *", 1_000, "2026-11-21T10:00"),
        ("0 2 * * *", 325, "2026-11-21T02:00"),
        ("* 0 1 2 *", 60, "2026-02-01T00:59"),
        ("* * 1 2 *", 1_000, "2026-02-01T23:59"),
        ("0 0 1 1 *", 1, "2026-01-01T00:00"),
    ] {
        let cron = cron(text);
        let zone = Zone::named("UTC").unwrap();
        let next = |after| next(&cron, &zone, after);
        let found = between(
            &next,
            at("2026-01-01") - 1,
            at("2026-11-21T10:00:30"),
            1_000,
        );
        let (n, time) = found.unwrap();
        let time = utc(time as f64);
        assert_eq!((n, time.trim_end_matches(":00Z")), (count, last), "{text}");
    }
}
