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
mod jobs;
mod logging;
mod module;
mod policy;
mod put;
mod run;
mod schedule;
mod script;
pub mod status;
mod trust;
mod words;

use crate::config::{Config, Setting};
use crate::error::{Error, Result};
use args::{Args, Command};
use std::cell::Cell;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

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
        Ok(0) if UNPRINTED.load(Ordering::Relaxed) => ExitCode::from(args.command.failure_code()),
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
    load_from(args.config.as_deref(), &args.overrides)
}

fn load_from(file: Option<&Path>, overrides: &[(&'static Setting, String)]) -> Result<Config> {
    let unreadable = Cell::new(None);
    let variable = |name: &str| {
        let value = std::env::var_os(name)?.into_string();
        value
            .map_err(|_| unreadable.set(Some(name.to_owned())))
            .ok()
    };
    let config = Config::load(file, &variable, overrides);
    match unreadable.take() {
        Some(name) => Err(Error::new(format!(
            "{name} is not UTF-8: set it anew, or unset it"
        ))),
        None => config,
    }
}

/// Whether something could not be printed.
static UNPRINTED: AtomicBool = AtomicBool::new(false);

/// Prints to standard output; that nobody reads it any more is no failure, a full disk is.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("triton: cannot write to standard output: {e}");
            UNPRINTED.store(true, Ordering::Relaxed);
        }
        _ => {}
    }
}

/// A text from outside without control characters, which a terminal would obey.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect()
}

/// Rows in columns, each as wide as its widest cell.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|at| width(at).unwrap_or(0));
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(widths);
        let padded: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(padded.join("  ").trim_end());
        out.push('\n');
    }
    out
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
