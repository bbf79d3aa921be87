//! What a setting is, and how it is set from a text.

use super::{Config, check};
use crate::policy::Action;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One setting: its name and what it may be.
pub struct Setting {
    /// Its name in the file, such as `jobs.workers`.
    pub key: &'static str,
    pub(super) kind: Kind,
    /// How the environment and flags give it, where they can.
    pub outside: Option<Outside>,
}

/// The names of a setting outside the file.
pub struct Outside {
    /// The environment's name for it.
    pub variable: &'static str,
    /// The flag, without dashes.
    pub flag: Option<&'static str>,
    /// What its value is called in the help.
    pub value: &'static str,
    /// One line for the help.
    pub help: &'static str,
}

/// Where in the configuration something is kept.
pub(super) type Place<T> = fn(&mut Config) -> &mut T;

/// What a value may be, and where it goes.
pub(super) enum Kind {
    /// A whole number between two others.
    Number(i64, i64, Number),
    Switch(Place<bool>),
    /// A text; the function checks it.
    Text(fn(&mut Config, &str) -> Result<(), String>),
    /// A path, in the file an absolute one; the function checks the rest.
    Path(fn(&mut Config, PathBuf) -> Result<(), String>),
    /// A path that may be relative.
    AnyPath(Place<Option<PathBuf>>),
    /// A list of texts. In the file one text is as good as a list of one, where that is `One::OrMore`.
    List(One, fn(&mut Config, Vec<String>) -> Result<(), String>),
    /// A table of texts; the function checks it.
    Table(fn(&mut Config, BTreeMap<String, String>) -> Result<(), String>),
    /// A section of sections, one for each entry of the schedule.
    Schedule,
    /// A section of sections, one for each rule of the policy.
    Rules(Action),
    /// Of older versions: whatever it is, it means nothing any more.
    Former(Place<bool>),
}

#[derive(PartialEq)]
pub(super) enum One {
    OrMore,
    IsNoList,
}

/// The numbers that there are.
pub(super) enum Number {
    U32(Place<u32>),
    U64(Place<u64>),
    Usize(Place<usize>),
    I32(Place<i32>),
    SomeU32(Place<Option<u32>>),
    SomeI32(Place<Option<i32>>),
}

impl Number {
    /// False where it does not fit, which the limits of a setting exclude.
    fn set(&self, config: &mut Config, n: i64) -> bool {
        fn put<T: TryFrom<i64>>(place: &mut T, n: i64) -> bool {
            T::try_from(n).map(|n| *place = n).is_ok()
        }
        match self {
            Self::U32(place) => put(place(config), n),
            Self::U64(place) => put(place(config), n),
            Self::Usize(place) => put(place(config), n),
            Self::I32(place) => put(place(config), n),
            Self::SomeU32(place) => put(place(config).get_or_insert_default(), n),
            Self::SomeI32(place) => put(place(config).get_or_insert_default(), n),
        }
    }
}

impl Setting {
    /// The setting that has this flag.
    pub fn by_flag(flag: &str) -> Option<&'static Self> {
        super::SETTINGS
            .iter()
            .find(|s| s.outside.as_ref().is_some_and(|o| o.flag == Some(flag)))
    }

    /// Whether a flag that is given again adds to it.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.kind, Kind::List(..))
    }

    /// Sets it from a text of the environment or a flag.
    pub(super) fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        match &self.kind {
            Kind::Number(least, most, number) => {
                set_number(config, number, text.parse().ok(), *least, *most)
            }
            Kind::Text(set) => set(config, text),
            Kind::Path(set) => set(config, absolute(text)?),
            Kind::AnyPath(place) => {
                *place(config) = Some(absolute(text)?);
                Ok(())
            }
            Kind::List(_, set) => set(config, check::list(text)),
            Kind::Switch(_)
            | Kind::Table(_)
            | Kind::Schedule
            | Kind::Rules(_)
            | Kind::Former(_) => Err("stands in the file only".to_owned()),
        }
    }
}

/// Sets a number, where it is one and within the limits.
pub(super) fn set_number(
    config: &mut Config,
    number: &Number,
    n: Option<i64>,
    least: i64,
    most: i64,
) -> Result<(), String> {
    match n {
        Some(n) if (least..=most).contains(&n) && number.set(config, n) => Ok(()),
        _ => Err(format!("expected a whole number from {least} to {most}")),
    }
}

/// Paths on the command line may be relative; the daemon must not depend on where it was started.
fn absolute(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(Path::new(text)).map_err(|e| format!("expected a path: {e}"))
}
