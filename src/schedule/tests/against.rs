//! Against crates of others: croner for expressions, jiff for zones.

use super::super::next::next;
use super::super::zone::Zone;
use super::{at, cron};
use crate::dates::{civil, days};
use chrono::{DateTime, Utc};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::str::FromStr as _;

/// 2020 to 2060.
const YEARS: std::ops::Range<i64> = 1_577_836_800..2_840_140_800;

fn offset(zone: &TimeZone, time: i64) -> i64 {
    zone.to_offset(Timestamp::from_second(time).unwrap())
        .seconds()
        .into()
}

/// All zones of this machine.
fn zones() -> Vec<String> {
    let mut names = Vec::new();
    for area in [
        "Africa",
        "America",
        "Antarctica",
        "Asia",
        "Atlantic",
        "Australia",
        "Europe",
        "Pacific",
        "Etc",
    ] {
        let folder = Path::new("/usr/share/zoneinfo").join(area);
        for file in fs::read_dir(folder).unwrap().flatten() {
            if file.path().is_file() {
                names.push(format!("{area}/{}", file.file_name().display()));
            }
        }
    }
    assert!(names.len() > 300, "{names:?}");
    names
}

#[test]
fn every_zone_of_this_machine_is_read_as_jiff_reads_it() {
    for name in zones() {
        let (own, other) = (Zone::named(&name).unwrap(), TimeZone::get(&name).unwrap());
        let end = Timestamp::from_second(YEARS.end).unwrap();
        let begin = Timestamp::from_second(YEARS.start).unwrap();
        let changes = other.following(begin).take_while(|t| t.timestamp() < end);
        let mut times: Vec<i64> = changes.map(|t| t.timestamp().as_second()).collect();
        times.extend(YEARS.step_by(86_400 * 97 + 1_234));
        for time in times {
            for time in [time - 1, time, time + 1] {
                let segment = own.segment(time);
                assert_eq!(segment.offset, offset(&other, time), "{name} at {time}");
                assert!(
                    segment.start.is_none_or(|s| s <= time) && segment.end.is_none_or(|e| e > time)
                );
                if let Some(start) = segment.start {
                    assert_eq!(
                        segment.before,
                        offset(&other, start - 1),
                        "{name} before {start}"
                    );
                }
            }
        }
    }
}

/// One field: a star, or numbers of its range.
fn field(least: u32, most: u32, star: bool) -> BoxedStrategy<String> {
    let one = (least..=most).prop_map(|n| n.to_string());
    let range = (least..=most, least..=most, 1..=7_u32)
        .prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b)));
    let list = prop::collection::vec(prop_oneof![one.clone(), range.clone()], 1..4);
    let list = list.prop_map(|parts| parts.join(","));
    let plain = prop_oneof![3 => one, 2 => range, 1 => list];
    if star {
        prop_oneof![2 => Just("*".to_owned()), 1 => (2..=9_u32).prop_map(|n| format!("*/{n}")), 4 => plain].boxed()
    } else {
        prop_oneof![1 => Just("*".to_owned()), 1 => plain].boxed()
    }
}

fn expression() -> impl Strategy<Value = String> {
    let second = prop_oneof![3 => Just("0".to_owned()), 1 => field(0, 59, true)];
    // Crons differ in what `*/2` means for the days where the other is restricted: our tests say so elsewhere.
    let days = (field(1, 31, false), field(1, 12, true), field(0, 6, false));
    (second, field(0, 59, true), field(0, 23, true), days).prop_map(
        |(second, minute, hour, (day, month, week))| {
            format!("{second} {minute} {hour} {day} {month} {week}")
        },
    )
}

fn matches(cron: &croner::Cron, local: i64) -> bool {
    let time: DateTime<Utc> = DateTime::from_timestamp(local, 0).unwrap();
    cron.is_time_matching(&time).unwrap()
}

/// What the rules of `next` make of all local times that fit from `from` to `to`, minute by minute, by the other crates.
fn by_the_rules(text: &str, zone: &TimeZone, from: i64, to: i64) -> Vec<i64> {
    let cron = croner::Cron::from_str(text).unwrap();
    let every_hour = text.split(' ').nth(2).unwrap().starts_with('*');
    let mut times = BTreeSet::new();
    for local in (from - 100_000..to + 100_000).filter(|t| t % 60 == 0) {
        if !matches(&cron, local) {
            continue;
        }
        let (year, month, day) = civil(local.div_euclid(86_400));
        let second = local - days(year, month, day) * 86_400;
        let narrow = |n: i64| i8::try_from(n).unwrap();
        let datetime = jiff::civil::date(i16::try_from(year).unwrap(), narrow(month), narrow(day))
            .at(
                narrow(second / 3_600),
                narrow(second / 60 % 60),
                narrow(second % 60),
                0,
            );
        let ambiguous = zone.to_ambiguous_timestamp(datetime);
        match ambiguous.offset() {
            jiff::tz::AmbiguousOffset::Unambiguous { offset } => {
                times.insert(local - i64::from(offset.seconds()));
            }
            // The change: the first time behind which the later offset holds.
            jiff::tz::AmbiguousOffset::Gap { before, .. } => {
                let about =
                    Timestamp::from_second(local - i64::from(before.seconds()) + 1).unwrap();
                let change = zone.preceding(about).next().unwrap();
                times.insert(change.timestamp().as_second());
            }
            jiff::tz::AmbiguousOffset::Fold { before, after } => {
                times.insert(local - i64::from(before.seconds()));
                if every_hour {
                    times.insert(local - i64::from(after.seconds()));
                }
            }
        }
    }
    times
        .into_iter()
        .filter(|t| (from + 1..=to).contains(t))
        .collect()
}

fn ours(text: &str, zone: &Zone, from: i64, to: i64) -> Vec<i64> {
    let cron = cron(text);
    let times = std::iter::successors(next(&cron, zone, from), |time| next(&cron, zone, *time));
    times.take_while(|time| *time <= to).collect()
}

const ZONES: [&str; 12] = [
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Antarctica/Troll",
    "Pacific/Chatham",
    "America/Nuuk",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn in_utc_they_come_when_croner_says(text in expression(), start in YEARS) {
        let croner = croner::Cron::from_str(&text).unwrap();
        let (cron, zone) = (cron(&text), Zone::named("UTC").unwrap());
        let mut time = start;
        for _ in 0..20 {
            let ours = next(&cron, &zone, time);
            let from: DateTime<Utc> = DateTime::from_timestamp(time, 0).unwrap();
            let theirs = croner.find_next_occurrence(&from, false).ok().map(|t| t.timestamp());
            prop_assert_eq!(ours, theirs, "{} behind {}", text, from);
            let Some(next) = ours else { break };
            time = next;
        }
    }

    #[test]
    fn around_a_change_they_come_by_the_rules(
        text in expression(),
        zone in prop::sample::select(&ZONES[..]),
        start in YEARS,
    ) {
        // Croner looks at minutes here: seconds do not change the rules.
        let text = format!("0 {}", text.split_once(' ').unwrap().1);
        let (own, other) = (Zone::named(zone).unwrap(), TimeZone::get(zone).unwrap());
        let change = other.following(Timestamp::from_second(start).unwrap()).next();
        let middle = change.map_or(start, |change| change.timestamp().as_second());
        let (from, to) = (middle - 100_000, middle + 100_000);
        prop_assert_eq!(ours(&text, &own, from, to), by_the_rules(&text, &other, from, to), "{} in {}", text, zone);
    }

    #[test]
    fn a_tz_string_means_what_jiff_reads(
        standard in -12..=12_i64,
        week in (1..=5_u8, 1..=5_u8),
        // Not January and December: jiff looks at one year only, and a change may belong to the next one.
        month in (2..=5_u8, 8..=11_u8),
        day in (0..=6_u8, 0..=6_u8),
        hour in (-24..=48_i32, -24..=48_i32),
        south in any::<bool>(),
        time in YEARS,
    ) {
        let dates = [
            format!("M{}.{}.{}/{}", month.0, week.0, day.0, hour.0),
            format!("M{}.{}.{}/{}", month.1, week.1, day.1, hour.1),
        ];
        let (start, end) = if south { (1, 0) } else { (0, 1) };
        let text = format!("AAA{standard}BBB,{},{}", dates[start], dates[end]);
        let (own, other) = (Zone::named(&text).unwrap(), TimeZone::posix(&text).unwrap());
        for time in (time..time + 400 * 86_400).step_by(86_400 + 3_601) {
            prop_assert_eq!(own.segment(time).offset, offset(&other, time), "{} at {}", text, time);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,40}|[0-9*,/ -]{0,40}|@[a-z]{0,9}") {
        if let Ok(super::When::Times(cron)) = cron::parse(&text) {
            let _ = next(&cron, &Zone::named("CET-1CEST").unwrap(), at("2026-01-01"));
        }
        let _ = Zone::rule(&text);
    }
}
