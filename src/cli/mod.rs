//! The commands of the `triton` program.

mod args;
mod check_config;
mod doctor;
mod event;
mod exec;
mod get;
mod help;
mod history;
mod identifier;
mod logging;
mod module;
mod policy;
mod put;
mod run;
mod schedule;
mod script;
mod status;
mod trust;
mod words;

use crate::config::Config;
use crate::error::{Error, Result};
use args::{Args, Command};
use std::process::ExitCode;

/// Exit code of a wrong command line, as usual.
const USAGE: u8 = 2;

/// Parses the arguments, carries out the command and prints an error, if any.
pub fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(reason) => {
            eprintln!("triton: {reason}\nTry 'triton --help'.");
            return ExitCode::from(USAGE);
        }
    };
    match dispatch(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("triton: {error}");
            ExitCode::from(args.command.failure_code())
        }
    }
}

fn dispatch(args: &Args) -> Result<u8> {
    match &args.command {
        Command::Help(topic) => {
            let Some(text) = help::text(topic.as_deref()) else {
                let topic = printable(topic.as_deref().unwrap_or_default());
                eprintln!("triton: there is no command {topic:?}\nTry 'triton --help'.");
                return Ok(USAGE);
            };
            print(&text);
            Ok(0)
        }
        Command::Version => {
            print(&format!("triton {}\n", env!("CARGO_PKG_VERSION")));
            Ok(0)
        }
        Command::Run => run::run(args),
        Command::Status { json } => status::run(&quiet(args)?, *json),
        Command::Exec(exec) => exec::run(&quiet(args)?, exec),
        Command::History { query, json } => history::run(&quiet(args)?, query, *json),
        Command::Put { put, json } => put::run(&quiet(args)?, put, *json),
        Command::Schedule { json } => schedule::run(&quiet(args)?, *json),
        Command::Policy { query, json } => query.run(&quiet(args)?, *json),
        Command::Words(words) => words.run(&quiet(args)?),
        Command::Identifier { fingerprint } => identifier::run(&quiet(args)?, *fingerprint),
        Command::CheckConfig => check_config::run(args),
        Command::Doctor => doctor::run(args),
    }
}

/// The configuration, with warnings only in the log: for commands whose output is for people and programs.
fn quiet(args: &Args) -> Result<Config> {
    logging::start(log::LevelFilter::Warn);
    load(args)
}

fn load(args: &Args) -> Result<Config> {
    let variable = |name: &str| std::env::var(name).ok();
    Config::load(args.config.as_deref(), &variable, &args.overrides)
}

/// Prints to standard output; that nobody reads it any more is no failure.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A text from outside without control characters, which a terminal would obey.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect()
}

/// Reads standard input to its end; `beyond` says what to do with more than `limit` bytes.
fn read_stdin(limit: u64, beyond: &str) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::because("cannot read standard input", e))?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(format!(
            "standard input is longer than {limit} bytes; {beyond}"
        )));
    }
    Ok(bytes)
}

/// An error for an answer of the daemon that does not fit the question.
fn unexpected(kind: &str) -> Error {
    Error::new(format!(
        "the daemon answers with an unexpected {}; do both have the same version?",
        printable(kind)
    ))
}
