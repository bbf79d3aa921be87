//! `triton run`: the daemon.

use super::args::Args;
use super::{load, logging};
use crate::agent::{self, Outcome};
use crate::config::Config;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

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
        Outcome::Restarting => return Err(again()),
    })
}

/// Becomes a new process of the program as it is on the disk now, with the same arguments, environment and number: a
/// service manager sees no end. It returns only where that fails.
fn again() -> Error {
    use std::os::unix::process::CommandExt as _;
    let own = Path::new("/proc/self/exe");
    let path = match std::fs::read_link(own) {
        Ok(path) => path,
        Err(e) => return Error::at("find the program by", own, e),
    };
    // What the kernel adds where another file has taken its place.
    let path = path
        .to_str()
        .and_then(|path| path.strip_suffix(" (deleted)"))
        .map_or(path.clone(), PathBuf::from);
    let mut words = std::env::args_os();
    let mut command = std::process::Command::new(&path);
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    let error = command.args(words).exec();
    Error::at("start again as", &path, error)
}

fn apply_log(config: &Config) {
    log::set_max_level(config.log);
    logging::direct(config.log_to);
}
