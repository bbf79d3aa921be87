//! Time is an argument in all of these: nothing sleeps.

use super::*;

mod against;
mod entries;
mod settled;
mod times;

/// The times of an expression in a zone.
pub fn cron(text: &str) -> cron::Cron {
    match cron::parse(text).unwrap() {
        When::Times(cron) => cron,
        When::Reboot => panic!("@reboot has no times"),
    }
}

/// A time as people write it.
pub fn at(text: &str) -> i64 {
    run::whole(crate::dates::parse(text, 0.0).unwrap())
}
