//! `triton run`: the daemon.

use super::args::Args;
use super::logging;
use crate::agent::{self, Outcome, Reload};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::sys::process;
use std::path::Path;
use std::sync::Arc;

/// Exit code after an internal error: service managers restart on it, and it differs from a wrong setting's.
const BROKEN: u8 = 70;

pub fn run(args: &Args) -> Result<u8> {
    // Later its file may have got another name.
    let program = process::program();
    logging::start(log::LevelFilter::Info);
    let (file, overrides) = (args.config.clone(), args.overrides.clone());
    let reload: Reload = Arc::new(move || super::load_from(file.as_deref(), &overrides));
    let config = reload()?;
    apply_log(&config);
    let outcome = agent::run(&config, &program, &reload, &apply_log)?;
    Ok(match outcome {
        Outcome::Stopped => 0,
        Outcome::Broken => BROKEN,
        Outcome::Restarting => return Err(again(&program)),
    })
}

/// Becomes a new process of the program as it is on the disk now, with the same arguments, environment and number: a
/// service manager sees no end. It returns only where that fails.
fn again(program: &Path) -> Error {
    use std::os::unix::process::CommandExt as _;
    let mut words = std::env::args_os();
    let mut command = std::process::Command::new(program);
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    let error = command.args(words).exec();
    Error::at("start again as", program, error)
}

fn apply_log(config: &Config) {
    log::set_max_level(config.log);
    logging::direct(config.log_to);
}
