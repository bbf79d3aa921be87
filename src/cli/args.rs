//! The command line.

use super::history::{self, Query};
use super::policy;
use super::put::Put;
use super::words::{self, Words};
use crate::config::Setting;
use crate::dates;
use crate::sys::clock;
use lexopt::Arg::{Long, Short, Value};
use lexopt::{Parser, ValueExt as _};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// What the command line says.
pub struct Args {
    /// What to do.
    pub command: Command,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// Settings given as flags.
    pub overrides: Vec<(&'static Setting, String)>,
}

/// The commands.
pub enum Command {
    Help(Option<String>),
    Version,
    Run,
    Status { json: bool },
    Exec(Exec),
    History { query: Query, json: bool },
    Put { put: Put, json: bool },
    Schedule { json: bool },
    Policy { query: policy::Query, json: bool },
    Words(Words),
    Identifier { fingerprint: bool },
    CheckConfig,
    Doctor,
}

/// `triton exec` and `triton script run`.
#[derive(Debug, Default)]
pub struct Exec {
    /// The first word is a script.
    pub script: bool,
    pub argv: Vec<String>,
    pub shell: Option<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: Option<String>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub timeout: Option<f64>,
    pub nice: Option<i32>,
    pub memory: Option<u64>,
    pub stdin: bool,
}

impl Command {
    /// Exit code when the command itself fails. `exec` keeps the small codes for what it runs, as env(1) does.
    pub fn failure_code(&self) -> u8 {
        match self {
            Self::Exec(_) => super::exec::OWN_FAILURE,
            Self::Words(words) => words.failure_code(),
            // 1 is an answer of `policy test`.
            Self::Policy { .. } => super::USAGE,
            _ => 1,
        }
    }
}

impl Args {
    pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut parser = Parser::from_args(args);
        let mut flags = Flags::default();
        let mut command: Option<String> = None;
        let mut exec = Exec::default();
        let mut query = Query::default();
        let mut put = Put::default();
        let mut policy = policy::Query::default();
        let mut given = Words::default();
        loop {
            // Everything behind the first word of the program that exec runs is the program's.
            let runs = matches!(command.as_deref(), Some("exec" | words::SCRIPT_RUN));
            if runs
                && let Some(raw) = parser.try_raw_args()
                && raw
                    .peek()
                    .is_some_and(|a| a.to_str().is_none_or(|a| !a.starts_with('-')))
            {
                exec.argv = words(raw)?;
                break;
            }
            // A value below zero is no option.
            if command.as_deref() == Some(words::METRIC)
                && given.list.len() == 1
                && let Some(mut raw) = parser.try_raw_args()
                && raw.peek().is_some_and(is_number)
                && let Some(value) = raw.next()
            {
                given.list.push(text(value)?);
                continue;
            }
            match parser.next().map_err(|e| e.to_string())? {
                None => break,
                Some(Long("help") | Short('h')) => flags.help = true,
                Some(Long("version") | Short('V')) => flags.version = true,
                Some(Long("config") | Short('c')) => {
                    flags.config = Some(parser.value().map_err(|e| e.to_string())?.into());
                }
                Some(Long("json")) => flags.json = true,
                Some(Long("fingerprint")) => flags.fingerprint = true,
                Some(Long("remove")) if command.as_deref() == Some(words::METRIC) => {
                    given.options.push(("remove".to_owned(), String::new()));
                }
                Some(Long(name)) => {
                    let name = name.to_owned();
                    let taken = match command.as_deref() {
                        Some("exec" | words::SCRIPT_RUN) => exec.take(&name, &mut parser)?,
                        Some("history") => query.take(&name, &mut parser)?,
                        Some("put") => put.take(&name, &mut parser)?,
                        Some("policy") if name == "stdin" => {
                            policy.brings_stdin();
                            true
                        }
                        Some("policy") if policy::Query::has(&name) => {
                            policy.set(&name, &value(&name, &mut parser)?)?;
                            true
                        }
                        Some(command) if words::takes(command, &name) => {
                            given
                                .options
                                .push((name.clone(), value(&name, &mut parser)?));
                            true
                        }
                        _ => false,
                    };
                    if taken {
                        continue;
                    }
                    let setting = Setting::by_flag(&name)
                        .ok_or_else(|| unknown(&name, command.as_deref()))?;
                    flags.overrides.push((setting, value(&name, &mut parser)?));
                }
                Some(Value(word)) if command.is_none() => {
                    command = Some(word.string().map_err(|e| e.to_string())?);
                }
                // Behind `--`, with nothing before it.
                Some(Value(word)) if runs => {
                    exec.argv = vec![text(word)?];
                    exec.argv
                        .extend(words(parser.raw_args().map_err(|e| e.to_string())?)?);
                    break;
                }
                Some(Value(word)) if put.words.len() < 2 && command.as_deref() == Some("put") => {
                    put.words.push(text(word)?);
                }
                Some(Value(word)) if command.as_deref() == Some("policy") => {
                    policy.words.push(text(word)?);
                }
                Some(Value(word)) if command.as_deref() == Some("script") => {
                    command = Some(format!("script {}", text(word)?));
                }
                Some(Value(word))
                    if command
                        .as_deref()
                        .is_some_and(|c| words::has_room(c, given.list.len())) =>
                {
                    given.list.push(text(word)?);
                }
                Some(Value(word))
                    if flags.topic.is_none() && command.as_deref() == Some("help") =>
                {
                    flags.topic = Some(text(word)?);
                }
                Some(other) => return Err(other.unexpected().to_string()),
            }
        }
        let command = match command.as_deref() {
            Some("policy") if !flags.help && !flags.version => Command::Policy {
                query: policy.check()?,
                json: flags.json,
            },
            _ => flags.command(command, exec, query, put, given)?,
        };
        Ok(Args {
            command,
            config: flags.config,
            overrides: flags.overrides,
        })
    }
}

fn words(raw: impl Iterator<Item = OsString>) -> Result<Vec<String>, String> {
    raw.skip_while({
        let mut first = true;
        move |word| std::mem::take(&mut first) && word == "--"
    })
    .map(text)
    .collect()
}

fn text(word: OsString) -> Result<String, String> {
    word.into_string().map_err(|word| {
        format!(
            "the argument {} is not UTF-8, and messages are",
            word.display()
        )
    })
}

fn is_number(word: &OsStr) -> bool {
    word.to_str()
        .is_some_and(|word| word.parse::<f64>().is_ok())
}

fn unknown(name: &str, command: Option<&str>) -> String {
    if name == "identifier" {
        return "there is no --identifier: everyone may read the arguments of a process; \
                use --identifier-file or TRITON_IDENTIFIER"
            .to_owned();
    }
    let place = command
        .map(|c| format!(" of 'triton {c}'"))
        .unwrap_or_default();
    format!("--{name} is no option{place}")
}

fn value(name: &str, parser: &mut Parser) -> Result<String, String> {
    let value = parser.value().map_err(|e| e.to_string())?;
    value
        .into_string()
        .map_err(|_| format!("the value of --{name} is not UTF-8"))
}

fn number<T: std::str::FromStr>(name: &str, parser: &mut Parser) -> Result<T, String> {
    value(name, parser)?
        .parse()
        .map_err(|_| format!("--{name} takes a number"))
}

impl Exec {
    /// Takes an option of `exec`; false where it is none.
    fn take(&mut self, name: &str, parser: &mut Parser) -> Result<bool, String> {
        match name {
            "shell" if !self.script => self.shell = Some(value(name, parser)?),
            "env" => {
                let pair = value(name, parser)?;
                let (key, value) = pair
                    .split_once('=')
                    .ok_or("--env takes NAME=VALUE".to_owned())?;
                self.env.insert(key.to_owned(), value.to_owned());
            }
            "cwd" => self.cwd = Some(value(name, parser)?),
            "user" => self.user = Some(value(name, parser)?),
            "group" => self.group = Some(value(name, parser)?),
            "timeout" => self.timeout = Some(number(name, parser)?),
            "nice" => self.nice = Some(number(name, parser)?),
            "memory" => self.memory = Some(number(name, parser)?),
            "stdin" => self.stdin = true,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Query {
    /// Takes an option of `history`; false where it is none.
    fn take(&mut self, name: &str, parser: &mut Parser) -> Result<bool, String> {
        match name {
            "token" => self.token = Some(value(name, parser)?),
            "code" => self.code = Some(number(name, parser)?),
            "id" => self.id = Some(number(name, parser)?),
            "since" | "etime" | "ctime" => {
                let text = value(name, parser)?;
                let time = dates::parse(&text, clock::now()).ok_or_else(|| {
                    format!(
                        "--{name} takes an age (90s, 15m, 2h, 3d), a date in UTC (2026-11-21, \
                         2026-11-21T10:00:00Z) or a Unix time"
                    )
                })?;
                if name == "ctime" {
                    self.ctime = Some(time);
                } else {
                    self.since = Some(time);
                }
            }
            "limit" => {
                let limit = number(name, parser)?;
                if !(1..=history::MOST).contains(&limit) {
                    return Err(format!("--limit is from 1 to {}", history::MOST));
                }
                self.limit = Some(limit);
            }
            "follow" => self.follow = true,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Put {
    /// Takes an option of `put`; false where it is none.
    fn take(&mut self, name: &str, parser: &mut Parser) -> Result<bool, String> {
        match name {
            "token" => self.token = Some(value(name, parser)?),
            "code" => {
                let code = number(name, parser)?;
                if code < 100 {
                    return Err("--code is above 99: the others are the agent's own".to_owned());
                }
                self.code = Some(code);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[derive(Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "they are what the command line holds"
)]
struct Flags {
    help: bool,
    version: bool,
    json: bool,
    fingerprint: bool,
    topic: Option<String>,
    config: Option<PathBuf>,
    overrides: Vec<(&'static Setting, String)>,
}

impl Flags {
    fn command(
        &self,
        command: Option<String>,
        exec: Exec,
        query: Query,
        put: Put,
        given: Words,
    ) -> Result<Command, String> {
        if self.help {
            return Ok(Command::Help(command));
        }
        if self.version {
            return Ok(Command::Version);
        }
        let name = command.ok_or("say what to do".to_owned())?;
        let takes_json = matches!(
            name.as_str(),
            "status"
                | "history"
                | "put"
                | "schedule"
                | "module"
                | "trust"
                | "jobs"
                | words::SCRIPT_LS
        );
        if self.json && !takes_json {
            return Err(unknown("json", Some(&name)));
        }
        if self.fingerprint && name != "identifier" {
            return Err(unknown("fingerprint", Some(&name)));
        }
        Ok(match name.as_str() {
            "help" => Command::Help(self.topic.clone()),
            "version" => Command::Version,
            "run" => Command::Run,
            "status" => Command::Status { json: self.json },
            "exec" if exec.argv.is_empty() == exec.shell.is_none() => {
                return Err("exec takes either a command behind '--' or --shell TEXT".to_owned());
            }
            "exec" => Command::Exec(exec),
            words::SCRIPT_RUN if exec.argv.is_empty() || exec.shell.is_some() => {
                return Err("script run takes the NAME of a script, and its arguments".to_owned());
            }
            words::SCRIPT_RUN => Command::Exec(Exec {
                script: true,
                ..exec
            }),
            "history" => Command::History {
                query,
                json: self.json,
            },
            "put" if put.words.is_empty() => {
                return Err(
                    "put takes the DATA to store, or a KEY and its VALUE; - is standard input"
                        .to_owned(),
                );
            }
            "put" => Command::Put {
                put,
                json: self.json,
            },
            "schedule" => Command::Schedule { json: self.json },
            "identifier" => Command::Identifier {
                fingerprint: self.fingerprint,
            },
            "check-config" => Command::CheckConfig,
            "doctor" => Command::Doctor,
            other => Command::Words(given.of(other, self.json)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Args, String> {
        Args::parse(line.iter().map(OsString::from))
    }

    fn exec(line: &[&str]) -> Exec {
        match parse(line).unwrap().command {
            Command::Exec(exec) => exec,
            _ => panic!("no exec"),
        }
    }

    #[test]
    fn what_stands_behind_the_program_is_the_programs() {
        for line in [
            &["exec", "--", "ls", "-l", "--json", "--", "x"][..],
            &["exec", "ls", "-l", "--json", "--", "x"],
            &[
                "--socket", "/s", "exec", "--", "ls", "-l", "--json", "--", "x",
            ],
            &[
                "exec",
                "--timeout",
                "3",
                "--socket=/s",
                "--",
                "ls",
                "-l",
                "--json",
                "--",
                "x",
            ],
        ] {
            assert_eq!(
                exec(line).argv,
                ["ls", "-l", "--json", "--", "x"],
                "{line:?}"
            );
        }
        assert_eq!(exec(&["exec", "--timeout", "3", "true"]).timeout, Some(3.0));
        assert_eq!(exec(&["exec", "--", "-x"]).argv, ["-x"]);
        assert_eq!(
            exec(&["exec", "--shell", "a|b", "--env", "A=b=c"]).env["A"],
            "b=c"
        );
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        for (line, part) in [
            (&[][..], "say what to do"),
            (&["dance"], "\"dance\" is no command"),
            (&["run", "--fast"], "--fast is no option of 'triton run'"),
            (
                &["run", "--identifier", "x"],
                "--identifier-file or TRITON_IDENTIFIER",
            ),
            (&["exec"], "behind '--'"),
            (&["exec", "--shell", "x", "--", "y"], "either"),
            (&["exec", "--nice", "x", "y"], "--nice takes a number"),
            (&["exec", "--env", "x", "y"], "NAME=VALUE"),
            (&["run", "--json"], "--json is no option"),
            (&["run", "--follow"], "--follow is no option"),
            (&["history", "--since", "soon"], "--since takes an age"),
            (&["history", "--ctime", "soon"], "--ctime takes an age"),
            (&["history", "--limit", "0"], "from 1 to 1000"),
            (&["history", "--limit", "1001"], "from 1 to 1000"),
            (&["history", "--id", "-1"], "--id takes a number"),
            (&["history", "x"], "unexpected argument \"x\""),
            (&["put"], "DATA"),
            (&["put", "a", "b", "c"], "unexpected argument \"c\""),
            (&["script"], "script takes ls or run"),
            (&["script", "rm"], "\"script rm\" is no command"),
            (&["script", "run"], "NAME"),
            (&["script", "run", "--shell", "x"], "NAME"),
            (&["script", "ls", "x"], "unexpected argument \"x\""),
            (&["progress"], "progress takes PERCENT [TEXT]"),
            (&["get"], "get takes NAME"),
            (&["get", "a", "b"], "unexpected argument \"b\""),
            (&["get", "--delay", "1", "a"], "--delay is no option"),
            (&["agent"], "agent takes reload, restart or exit"),
            (&["agent", "dance"], "agent takes reload, restart or exit"),
            (&["system", "reload"], "system takes reboot or shutdown"),
            (
                &["system", "reboot", "--delay", "soon"],
                "--delay takes a number",
            ),
            (
                &["agent", "exit", "--delay", "nan"],
                "--delay takes a number",
            ),
            (
                &["agent", "exit", "--delay", "-1"],
                "--delay takes a number",
            ),
            (&["engine"], "engine takes COMMAND"),
            (&["jobs", "x"], "unexpected argument \"x\""),
            (&["cancel"], "cancel takes TOKEN"),
            (&["cancel", "t", "--grace", "-1"], "--grace takes a number"),
            (&["jobs", "--grace", "1"], "--grace is no option"),
            (&["metric"], "metric takes NAME VALUE"),
            (&["metric", "a", "1", "2"], "unexpected argument \"2\""),
            (&["metric", "a", "-x"], "-x"),
            (&["event", "--remove"], "--remove is no option"),
            (&["event", "--ttl", "1"], "--ttl is no option"),
            (&["put", "--code", "99", "x"], "above 99"),
            (&["put", "--since", "1h", "x"], "--since is no option"),
            (&["status", "extra"], "unexpected argument \"extra\""),
            (&["run", "--url"], "missing argument"),
        ] {
            let Err(said) = parse(line) else {
                panic!("accepted: {line:?}")
            };
            assert!(said.contains(part), "{line:?}: {said}");
        }
    }

    #[test]
    fn history_and_put_take_their_own_options() {
        let line = [
            "history", "--token", "t", "--code=2", "--etime", "7", "--ctime", "8", "--id", "3",
            "--limit", "9", "--follow", "--json",
        ];
        let Command::History { query, json } = parse(&line).unwrap().command else {
            panic!("no history");
        };
        let wanted = Query {
            token: Some("t".into()),
            code: Some(2),
            since: Some(7.0),
            ctime: Some(8.0),
            id: Some(3),
            limit: Some(9),
            follow: true,
        };
        assert!(json);
        assert_eq!(query, wanted);
        for (line, data) in [
            (&["put", "--token", "t", "x y"][..], "x y"),
            (&["put", "-"], "-"),
            (&["put", "--", "-5"], "-5"),
            (&["put", "--json", "{}"], "{}"),
        ] {
            let Command::Put { put, .. } = parse(line).unwrap().command else {
                panic!("no put");
            };
            assert_eq!(put.words, [data], "{line:?}");
        }
    }

    #[test]
    fn what_stands_behind_a_script_is_the_scripts() {
        let line = ["script", "run", "--cwd", "/", "net/up.sh", "-x", "--cwd"];
        let run = exec(&line);
        assert!(run.script);
        assert_eq!(run.argv, ["net/up.sh", "-x", "--cwd"]);
        assert_eq!(run.cwd.as_deref(), Some("/"));
        for (line, words) in [
            (
                &["progress", "5", "half", "done"][..],
                &["5", "half", "done"][..],
            ),
            (&["progress", "--", "5", "-"], &["5", "-"]),
            (&["get", "--to", "/f", "a"], &["a"]),
            (&["system", "reboot", "--delay", "1.5"], &["reboot"]),
            (&["engine", "A;b"], &["A;b"]),
            (&["metric", "a", "-5.5", "--ttl", "9"], &["a", "-5.5"]),
            (&["metric", "--unit", "W", "a", "-1e3"], &["a", "-1e3"]),
            (&["metric", "a", "--remove"], &["a"]),
            (&["event", "-"], &["-"]),
            (
                &["event", "--name", "x y", "--host=h", "k=v", "l=m n"],
                &["k=v", "l=m n"],
            ),
        ] {
            let Command::Words(given) = parse(line).unwrap().command else {
                panic!("{line:?}");
            };
            assert_eq!(
                (given.name, &given.list[..]),
                (
                    line[0],
                    &words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>()[..]
                )
            );
        }
    }

    #[test]
    fn help_and_version_win() {
        assert!(matches!(
            parse(&["--help"]).unwrap().command,
            Command::Help(None)
        ));
        assert!(
            matches!(parse(&["exec", "-h"]).unwrap().command, Command::Help(Some(c)) if c == "exec")
        );
        assert!(
            matches!(parse(&["help", "exec"]).unwrap().command, Command::Help(Some(c)) if c == "exec")
        );
        assert!(matches!(parse(&["-V"]).unwrap().command, Command::Version));
    }
}
