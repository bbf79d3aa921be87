//! What is due, missed, or had its turn, whatever the clock does.

use super::super::next::next;
use super::super::progress::{COUNT_LIMIT, Due, Progress, Times};
use super::super::zone::Zone;
use super::{at, cron};
use proptest::prelude::*;

struct Device {
    progress: Progress,
    text: &'static str,
    jitter: i64,
    catch_up: bool,
    ran: Vec<i64>,
    missed: u32,
}

fn device(text: &'static str, now: i64) -> Device {
    let mut device = Device {
        progress: Progress::default(),
        text,
        jitter: 0,
        catch_up: false,
        ran: Vec::new(),
        missed: 0,
    };
    assert_eq!(device.look(now).run, None, "a new entry has missed nothing");
    device
}

impl Device {
    fn look(&mut self, now: i64) -> Due {
        let (cron, zone) = (cron(self.text), Zone::named("UTC").unwrap());
        let times = Times {
            next: &|after| next(&cron, &zone, after),
            jitter: &|time| (time / 60 * 7_919).rem_euclid(self.jitter.max(1)),
            catch_up: self.catch_up,
        };
        let due = self.progress.look(now, &times);
        self.ran.extend(due.run);
        self.missed += due.missed.map_or(0, |m| m.0);
        due
    }

    /// Off and on again: only what is on the disk is left.
    fn restart(&mut self) {
        self.restart_with(None);
    }

    /// The same while a run waits to begin.
    fn restart_with(&mut self, waiting: Option<i64>) {
        self.progress = Progress::from_json(&self.progress.to_json(waiting));
    }
}

fn due(run: Option<i64>, missed: Option<(u32, i64)>, next: i64) -> Due {
    let next = Some(next);
    Due { run, missed, next }
}

const HOUR: i64 = 3_600;

#[test]
fn a_time_runs_when_it_comes_and_not_again() {
    let ten = at("2026-11-21T10:00");
    let mut device = device("0 * * * *", ten - 5);
    assert_eq!(device.look(ten - 1), due(None, None, ten));
    assert_eq!(device.look(ten), due(Some(ten), None, ten + HOUR));
    assert_eq!(device.look(ten), due(None, None, ten + HOUR));
    device.restart();
    assert_eq!(device.look(ten + 1), due(None, None, ten + HOUR));
    // A little late is no miss.
    assert_eq!(device.look(ten + HOUR + 60).run, Some(ten + HOUR));
}

#[test]
fn what_was_missed_is_one_run_or_one_record() {
    let ten = at("2026-11-21T10:00");
    let mut plain = device("0 * * * *", ten);
    plain.restart();
    let later = ten + 5 * HOUR + 600;
    assert_eq!(
        plain.look(later),
        due(None, Some((5, ten + HOUR)), ten + 6 * HOUR)
    );
    assert_eq!(plain.look(later), due(None, None, ten + 6 * HOUR));
    let mut eager = device("0 * * * *", ten);
    eager.catch_up = true;
    assert_eq!(
        eager.look(later),
        due(Some(ten + 5 * HOUR), None, ten + 6 * HOUR)
    );
    assert_eq!(eager.look(later).run, None);
    // On again just at a time: that one runs, the ones before were missed.
    let mut exact = device("0 * * * *", ten);
    assert_eq!(
        exact.look(ten + 3 * HOUR),
        due(Some(ten + 3 * HOUR), Some((2, ten + HOUR)), ten + 4 * HOUR)
    );
    // However many there were.
    let mut fast = device("* * * * * *", ten);
    let much = ten + 40 * 365 * 24 * HOUR;
    assert_eq!(
        fast.look(much),
        due(Some(much), Some((COUNT_LIMIT - 1, ten + 1)), much + 1)
    );
}

#[test]
fn a_clock_that_is_set_back_runs_nothing_again() {
    let ten = at("2026-11-21T10:00");
    let mut device = device("0 * * * *", ten - 1);
    for hour in 0..5 {
        device.look(ten + hour * HOUR);
    }
    device.restart();
    assert_eq!(device.look(ten + HOUR / 2), due(None, None, ten + 5 * HOUR));
    // Before the entry was made: those times have never run.
    assert_eq!(
        device.look(ten - 10 * HOUR - 5),
        due(None, None, ten - 10 * HOUR)
    );
    assert_eq!(device.look(ten - 10 * HOUR).run, Some(ten - 10 * HOUR));
}

#[test]
fn a_clock_that_was_years_ahead_does_not_silence_an_entry() {
    let ten = at("2026-11-21T10:00");
    let ahead = at("2031-05-01T00:00");
    let mut device = device("0 * * * *", ten - 1);
    device.look(ten);
    device.look(ahead + HOUR / 2);
    device.look(ahead + HOUR);
    device.restart();
    // NTP has spoken.
    assert_eq!(device.look(ten + 1), due(None, None, ten + HOUR));
    assert_eq!(device.look(ten + HOUR).run, Some(ten + HOUR));
    // And when that time comes for true, what ran in it does not run again.
    device.look(ahead);
    let ran = device.ran.len();
    assert_eq!(device.look(ahead + HOUR), due(None, None, ahead + 2 * HOUR));
    assert_eq!(device.ran.len(), ran);
}

#[test]
fn what_a_wrong_clock_missed_comes_when_it_is_right() {
    let now = at("2026-11-21T10:00");
    let mut device = device("0 2 1 12 *", now);
    assert_eq!(
        device.look(at("2026-12-15")).missed,
        Some((1, at("2026-12-01T02:00")))
    );
    assert_eq!(device.look(now).next, Some(at("2026-12-01T02:00")));
}

#[test]
fn jitter_delays_and_outlives_a_restart() {
    let ten = at("2026-11-21T10:00");
    let mut device = device("0 * * * *", ten - 5);
    device.jitter = 1_800;
    let later = device.look(ten).next.unwrap();
    assert!((ten..ten + 1_800).contains(&later) && later != ten);
    device.restart();
    assert_eq!(device.look(later - 1), due(None, None, later));
    assert_eq!(device.look(later).run, Some(ten));
}

#[test]
fn a_run_that_waits_when_the_agent_dies_is_not_lost() {
    let ten = at("2026-11-21T10:00");
    let mut prompt = device("0 * * * *", ten - 5);
    assert_eq!(prompt.look(ten).run, Some(ten));
    // It has not begun; another entry's run brings the file up to date.
    prompt.restart_with(Some(ten));
    assert_eq!(prompt.look(ten + 20).run, Some(ten));
    // Hours later it is made up for, or said to be missed.
    for catch_up in [true, false] {
        let mut late = device("0 * * * *", ten - 2 * HOUR - 5);
        late.catch_up = catch_up;
        for hour in [-2, -1, 0] {
            late.look(ten + hour * HOUR);
        }
        late.restart_with(Some(ten));
        let due = late.look(ten + HOUR / 2);
        assert_eq!(due.run, catch_up.then_some(ten));
        assert_eq!(due.missed, (!catch_up).then_some((1, ten)));
        assert_eq!(due.next, Some(ten + HOUR));
    }
}

#[test]
fn what_had_its_turn_beside_a_run_that_waits_does_not_come_again() {
    let ten = at("2026-11-21T10:00");
    let mut device = device("0 * * * *", ten - 1);
    for hour in 0..5 {
        device.look(ten + hour * HOUR);
    }
    // The one of twelve waits; those behind it were overlaps.
    device.restart_with(Some(ten + 2 * HOUR));
    let now = ten + 4 * HOUR + 1;
    assert_eq!(device.look(now).missed, Some((1, ten + 2 * HOUR)));
    // Nor where the clock is set back; that one has been said to be missed.
    assert_eq!(device.look(ten - 1), due(None, None, ten + 5 * HOUR));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// The clock jumps about within two days, the device is switched off now and then: no time runs twice.
    #[test]
    fn no_time_runs_twice(
        text in prop::sample::select(&["*/10 * * * *", "0 * * * *", "5 3 * * *", "*/7 * * * * *"][..]),
        catch_up in any::<bool>(),
        jitter in prop::sample::select(&[0, 5][..]),
        steps in prop::collection::vec((-90_000..90_000_i64, any::<bool>(), 1..50_i64, 1..900_i64), 1..4),
    ) {
        let mut now = at("2026-11-21T10:00");
        let mut device = device(text, now);
        (device.catch_up, device.jitter) = (catch_up, jitter);
        for (jump, restart, count, step) in steps {
            now += jump;
            for _ in 0..count {
                if restart {
                    device.restart();
                }
                device.look(now);
                now += step;
            }
        }
        let mut once = device.ran.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), device.ran.len(), "{:?}", device.ran);
    }

    /// Without jumps each time runs, or is said to be missed.
    #[test]
    fn no_time_is_forgotten(steps in prop::collection::vec(1..20_000_i64, 1..60)) {
        let start = at("2026-11-21T10:00");
        let mut device = device("*/10 * * * *", start);
        let mut now = start;
        for step in steps {
            now += step;
            device.look(now);
        }
        let all = u32::try_from((now - start) / 600).unwrap();
        prop_assert_eq!(u32::try_from(device.ran.len()).unwrap() + device.missed, all);
    }
}
