//! `triton run`: the daemon.

use super::args::Args;
use super::{load, logging};
use crate::agent::{self, Outcome};
use crate::error::Result;

/// Exit code after an internal error: service managers restart on it, and it differs from a wrong setting's.
const BROKEN: u8 = 70;

pub fn run(args: &Args) -> Result<u8> {
    logging::start(log::LevelFilter::Info);
    let config = load(args)?;
    log::set_max_level(config.log);
    logging::direct(config.log_to);
    let reload = || load(args).inspect(|config| logging::direct(config.log_to));
    let outcome = agent::run(&config, &reload)?;
    Ok(match outcome {
        Outcome::Stopped => 0,
        Outcome::Broken => BROKEN,
    })
}
