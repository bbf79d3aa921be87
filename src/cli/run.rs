//! `triton run`: the daemon.

use super::args::Args;
use super::{load, logging};
use crate::agent::{self, Outcome};
use crate::config::Config;
use crate::error::Result;

/// Exit code after an internal error: service managers restart on it, and it differs from a wrong setting's.
const BROKEN: u8 = 70;

pub fn run(args: &Args) -> Result<u8> {
    logging::start(log::LevelFilter::Info);
    let config = load(args)?;
    apply_log(&config);
    let outcome = agent::run(&config, &|| load(args), &apply_log)?;
    Ok(match outcome {
        Outcome::Stopped => 0,
        Outcome::Broken => BROKEN,
    })
}

fn apply_log(config: &Config) {
    log::set_max_level(config.log);
    logging::direct(config.log_to);
}
