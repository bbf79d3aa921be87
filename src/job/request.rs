//! What a request may say: checked before the job is accepted.

use super::task::Task;
use super::{Settings, Work};
use crate::message::payload::{self, ErrorCode, OutputMode};
use crate::message::text;
use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

/// Longest token, as for message ids.
const TOKEN_LIMIT: usize = 128;
/// Variables that a request may add to a job's environment.
const VARIABLE_LIMIT: usize = 1_024;
/// Most words of a command. execvp(3) may put a copy of their pointers on a worker's small stack.
const WORD_LIMIT: usize = 8192;
/// Longest name of a job in lists, in characters.
const NAME_LIMIT: usize = 64;

/// A checked request.
#[derive(Debug)]
pub(super) struct Plan {
    pub act: Act,
    pub timeout: Option<Duration>,
    pub output: OutputMode,
    pub not_after: Option<f64>,
    pub not_before: Option<f64>,
    /// What lists show. Not the arguments: they may hold secrets.
    pub name: String,
}

/// What a job does.
#[derive(Debug)]
pub(super) enum Act {
    /// It runs a process.
    Process(Process),
    /// It is carried out by the agent itself.
    Task(Arc<dyn Task>),
}

/// A checked command.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Process {
    /// Never empty.
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub directory: CString,
    pub stdin: Option<Vec<u8>>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub nice: Option<i32>,
    pub memory: Option<u64>,
}

impl Plan {
    /// Whether `notBefore` has passed.
    pub fn is_due(&self, now: f64) -> bool {
        self.not_before.is_none_or(|time| time <= now)
    }
}

fn invalid(message: impl Into<String>) -> payload::Error {
    payload::Error::new(ErrorCode::Invalid, message)
}

/// Checks a request; the error says which field is wrong and what it may be. `name` is what lists show in place of the
/// program's own.
pub(super) fn check(
    token: &str,
    work: Work,
    name: Option<String>,
    settings: &Settings,
) -> Result<Plan, payload::Error> {
    if token.is_empty() || token.chars().count() > TOKEN_LIMIT || token.contains('\0') {
        return Err(invalid(format!(
            "the token must have 1 to {TOKEN_LIMIT} characters and no NUL"
        )));
    }
    match work {
        Work::Refused(error) => Err(error),
        Work::Command(command) => check_command(command, name, settings),
        Work::Task(task, bounds) => {
            check_times(bounds.not_before, bounds.not_after)?;
            Ok(Plan {
                timeout: timeout(bounds.timeout_seconds, settings)?,
                output: OutputMode::Stream,
                not_after: bounds.not_after,
                not_before: bounds.not_before,
                name: name.unwrap_or_else(|| task.name().to_owned()),
                act: Act::Task(task),
            })
        }
    }
}

fn check_times(not_before: Option<f64>, not_after: Option<f64>) -> Result<(), payload::Error> {
    for (field, time) in [("notBefore", not_before), ("notAfter", not_after)] {
        if time.is_some_and(|time| !time.is_finite()) {
            return Err(invalid(format!("{field} is no time")));
        }
    }
    if let (Some(from), Some(to)) = (not_before, not_after)
        && from > to
    {
        return Err(invalid("notBefore is later than notAfter"));
    }
    Ok(())
}

fn check_command(
    command: payload::Command,
    name: Option<String>,
    settings: &Settings,
) -> Result<Plan, payload::Error> {
    let (argv, own_name) = match (command.argv, command.shell) {
        (Some(_), Some(_)) => return Err(invalid("give argv or shell, not both")),
        (None, None) => return Err(invalid("give argv (a list of words) or shell (a text)")),
        (Some(argv), None) => {
            let name = argv.first().map(|program| short_name(program));
            (argv, name.unwrap_or_default())
        }
        (None, Some(shell)) => {
            if shell.trim().is_empty() {
                return Err(invalid("shell is empty"));
            }
            // Without `--`, as POSIX has it for -c; a command that begins with a dash needs a blank before it.
            let shell = if shell.starts_with(['-', '+']) {
                format!(" {shell}")
            } else {
                shell
            };
            let argv = vec![settings.shell.clone(), "-c".to_owned(), shell];
            (argv, "shell".to_owned())
        }
    };
    if argv.first().is_none_or(String::is_empty) {
        return Err(invalid("argv must begin with the name of a program"));
    }
    if argv.len() > WORD_LIMIT {
        return Err(payload::Error::new(
            ErrorCode::TooLarge,
            format!("argv has {} words, {WORD_LIMIT} are allowed", argv.len()),
        ));
    }
    if argv.iter().any(|word| word.contains('\0')) {
        return Err(invalid("argv and shell cannot hold a NUL"));
    }
    if command.env.len() > VARIABLE_LIMIT {
        return Err(payload::Error::new(
            ErrorCode::TooLarge,
            format!(
                "env has {} names, {VARIABLE_LIMIT} are allowed",
                command.env.len()
            ),
        ));
    }
    for (name, value) in &command.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(invalid(format!(
                "env: {name:?} cannot be set; a name is not empty and has no `=`, and neither it nor its value has a NUL"
            )));
        }
    }
    // A service's own folder is an accident of how it was started: without a wish, the root.
    let cwd = command.cwd.unwrap_or_else(|| "/".to_owned());
    if !cwd.starts_with('/') {
        return Err(invalid(format!("cwd {cwd:?} must be an absolute path")));
    }
    let directory = CString::new(cwd).map_err(|_| invalid("cwd cannot hold a NUL"))?;
    for (field, name) in [("user", &command.user), ("group", &command.group)] {
        if name.as_ref().is_some_and(String::is_empty) {
            return Err(invalid(format!("{field} is empty")));
        }
    }
    let stdin = command
        .stdin
        .map(|data| text::decode(&data).ok_or_else(|| invalid("stdin is not base64")))
        .transpose()?;
    if let Some(nice) = command.nice
        && !(-20..=19).contains(&nice)
    {
        return Err(invalid(format!("nice is {nice}, it goes from -20 to 19")));
    }
    if command.memory_bytes == Some(0) {
        return Err(invalid("memoryBytes is 0"));
    }
    check_times(command.not_before, command.not_after)?;
    Ok(Plan {
        act: Act::Process(Process {
            argv,
            env: command.env.into_iter().collect(),
            directory,
            stdin,
            user: command.user,
            group: command.group,
            nice: command.nice,
            memory: command.memory_bytes,
        }),
        timeout: timeout(command.timeout_seconds, settings)?,
        output: command.output,
        not_after: command.not_after,
        not_before: command.not_before,
        name: name.unwrap_or(own_name),
    })
}

fn timeout(seconds: Option<f64>, settings: &Settings) -> Result<Option<Duration>, payload::Error> {
    let wanted = match seconds {
        None => settings.default_timeout,
        Some(seconds) if seconds.is_finite() && seconds > 0.0 => {
            Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
        }
        Some(seconds) => {
            return Err(invalid(format!(
                "timeoutSeconds is {seconds}, it must be above 0"
            )));
        }
    };
    Ok(match (wanted, settings.max_timeout) {
        (Some(wanted), Some(max)) => Some(wanted.min(max)),
        (wanted, max) => wanted.or(max),
    })
}

/// The last part of a path, cut to a bearable length.
fn short_name(program: &str) -> String {
    let name = program.rsplit('/').find(|part| !part.is_empty());
    name.unwrap_or(program).chars().take(NAME_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(json: &str) -> payload::Command {
        serde_json::from_str(json).unwrap()
    }

    fn checked(json: &str) -> Result<Plan, payload::Error> {
        check(
            "t",
            Work::Command(command(json)),
            None,
            &Settings::default(),
        )
    }

    fn process(plan: &Plan) -> &Process {
        match &plan.act {
            Act::Process(process) => process,
            Act::Task(_) => panic!("a command is a process"),
        }
    }

    #[test]
    fn a_plain_command_gets_the_defaults() {
        let plan = checked(r#"{"argv":["/usr/bin/id","-u"]}"#).unwrap();
        assert_eq!(process(&plan).argv, ["/usr/bin/id", "-u"]);
        assert_eq!((plan.name.as_str(), plan.timeout), ("id", None));
        assert_eq!(process(&plan).directory.as_c_str(), c"/");
        let plan = checked(r#"{"shell":"-x","stdin":"aGk=","timeoutSeconds":0.25}"#).unwrap();
        assert_eq!(process(&plan).argv, ["/bin/sh", "-c", " -x"]);
        assert_eq!(process(&plan).stdin.as_deref(), Some(&b"hi"[..]));
        assert_eq!(plan.timeout, Some(Duration::from_millis(250)));
        assert_eq!(plan.name, "shell");
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_named() {
        for (json, said) in [
            ("{}", "argv"),
            (r#"{"argv":["a"],"shell":"b"}"#, "not both"),
            (r#"{"argv":[]}"#, "name of a program"),
            (r#"{"argv":[""]}"#, "name of a program"),
            (r#"{"shell":" \n"}"#, "shell is empty"),
            (r#"{"argv":["a","b\u0000c"]}"#, "NUL"),
            (r#"{"argv":["a"],"env":{"":"x"}}"#, "env"),
            (r#"{"argv":["a"],"env":{"A=B":"x"}}"#, "A=B"),
            (r#"{"argv":["a"],"env":{"A":"\u0000"}}"#, "env"),
            (r#"{"argv":["a"],"cwd":"tmp"}"#, "absolute"),
            (r#"{"argv":["a"],"cwd":"/\u0000"}"#, "cwd"),
            (r#"{"argv":["a"],"user":""}"#, "user"),
            (r#"{"argv":["a"],"stdin":"*"}"#, "base64"),
            (r#"{"argv":["a"],"nice":20}"#, "nice"),
            (r#"{"argv":["a"],"memoryBytes":0}"#, "memoryBytes"),
            (r#"{"argv":["a"],"timeoutSeconds":0}"#, "timeoutSeconds"),
            (r#"{"argv":["a"],"timeoutSeconds":-1}"#, "timeoutSeconds"),
            (r#"{"argv":["a"],"notBefore":2,"notAfter":1}"#, "notBefore"),
        ] {
            let error = checked(json).expect_err(json);
            assert_eq!(error.code, ErrorCode::Invalid, "{json}");
            assert!(error.message.contains(said), "{json}: {}", error.message);
        }
        let mut endless = command(r#"{"argv":["a"]}"#);
        endless.timeout_seconds = Some(f64::NAN);
        let check = |token, command| {
            let work = Work::Command(command);
            check(token, work, None, &Settings::default())
        };
        assert!(check("t", endless).is_err());
        assert!(check("", command(r#"{"argv":["a"]}"#)).is_err());
        let many = payload::Command {
            argv: Some(vec!["a".to_owned(); WORD_LIMIT + 1]),
            ..payload::Command::default()
        };
        let error = check("t", many).unwrap_err();
        assert_eq!(error.code, ErrorCode::TooLarge);
    }

    #[test]
    fn the_device_bounds_the_timeout() {
        let settings = Settings {
            default_timeout: Some(Duration::from_mins(1)),
            max_timeout: Some(Duration::from_secs(100)),
            ..Settings::default()
        };
        for (seconds, expected) in [(None, 60), (Some(7.0), 7), (Some(1e300), 100)] {
            assert_eq!(
                timeout(seconds, &settings).unwrap(),
                Some(Duration::from_secs(expected))
            );
        }
        let settings = Settings {
            default_timeout: None,
            ..settings
        };
        assert_eq!(
            timeout(None, &settings).unwrap(),
            Some(Duration::from_secs(100))
        );
        assert_eq!(
            timeout(Some(1e300), &Settings::default()).unwrap(),
            Some(Duration::MAX)
        );
    }
}
