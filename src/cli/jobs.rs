//! `triton jobs` and `triton cancel`: the jobs on their way, whoever asked for them.

use super::{columns, exec, history, print, printable, status, unexpected};
use crate::config::Config;
use crate::dates;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::message::payload::{CANCEL, Cancel, ERROR, RESULT};
use crate::sys::poll::after;
use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;

/// The daemon answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// Characters of a token that may stand for all of it, so that an empty variable ends nothing.
const BEGINNING: usize = 4;
const TITLES: [&str; 6] = ["TOKEN", "TYPE", "STATE", "SINCE", "ORIGIN", "WHAT"];

pub fn list(config: &Config, json: bool) -> Result<u8> {
    let list = status::ask(config)?["jobs"]["list"].take();
    print(&if json {
        format!("{list:#}\n")
    } else {
        table(&list)
    });
    Ok(0)
}

/// Times are in UTC, as in the history.
fn table(list: &Value) -> String {
    let mut rows = vec![TITLES.map(str::to_owned)];
    for job in list.as_array().into_iter().flatten() {
        let text = |name: &str| job[name].as_str().map(printable).unwrap_or_default();
        let mut state = text("state");
        if let Some(percent) = job["progress"]["percent"].as_f64() {
            let _ = write!(state, ", {percent:.0} %");
        }
        let since = job["startedAt"].as_f64().or(job["acceptedAt"].as_f64());
        let since = since.map_or_else(|| "-".to_owned(), dates::utc);
        // What the agent does itself says its type there too.
        let (kind, what) = (text("type"), text("what"));
        let what = what.strip_prefix(&kind).unwrap_or(&what).trim_start();
        let what = what.to_owned();
        rows.push([text("token"), kind, state, since, text("origin"), what]);
    }
    if rows.len() == 1 {
        return "No job runs or waits.\n".to_owned();
    }
    columns(&rows)
}

pub fn cancel(config: &Config, token: &str, grace: Option<f64>) -> Result<u8> {
    let status = status::ask(config)?;
    let jobs = status["jobs"]["list"].as_array().into_iter().flatten();
    let tokens: Vec<&str> = jobs.filter_map(|job| job["token"].as_str()).collect();
    let cancel = Cancel {
        job: find(&tokens, token)?.to_owned(),
        grace_seconds: grace,
    };
    let answer = exec::connect(config)?.ask(&Message::with(CANCEL, &cancel), after(PATIENCE))?;
    match answer.kind.as_str() {
        RESULT => Ok(0),
        ERROR => Err(history::refusal(&answer)),
        other => Err(unexpected(other)),
    }
}

/// The one that is meant, by all of its token or the beginning.
fn find<'a>(tokens: &[&'a str], given: &str) -> Result<&'a str> {
    let exact = tokens.iter().find(|token| **token == given);
    let is_meant = |token: &&&str| token.starts_with(given) && given.len() >= BEGINNING;
    let mut meant = exact.into_iter().chain(tokens.iter().filter(is_meant));
    let shown = printable(given);
    match (meant.next(), meant.next()) {
        (Some(token), _) if exact.is_some() => Ok(token),
        (Some(token), None) => Ok(token),
        (Some(_), Some(_)) => Err(Error::new(format!(
            "the tokens of several jobs begin with {shown:?}; give more of it ('triton jobs' shows them)"
        ))),
        (None, _) => Err(Error::new(format!(
            "no job {shown:?} waits or runs here; 'triton jobs' shows those that do, of a token all or the first \
             {BEGINNING} characters and more are needed, and 'triton history --token TOKEN' tells how a job ended"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_be_shortened_where_that_is_clear() {
        let tokens = ["abcd1", "abcd12", "abxx", "x"];
        for (given, found) in [
            ("abcd12", "abcd12"),
            ("abcd1", "abcd1"),
            ("abxx", "abxx"),
            ("x", "x"),
        ] {
            assert_eq!(find(&tokens, given).unwrap(), found);
        }
        let error = |given: &str| find(&tokens, given).unwrap_err().to_string();
        assert!(error("abcd").contains("several jobs"));
        for given in ["", "abx", "abxxx", "y\u{1b}"] {
            let said = error(given);
            assert!(
                said.contains("triton jobs") && !said.contains('\u{1b}'),
                "{said}"
            );
        }
    }

    #[test]
    fn a_job_is_one_line() {
        let list = serde_json::json!([
            {"token": "t1", "type": "file.put", "state": "running", "what": "file.put network", "origin": "poseidon",
             "acceptedAt": 0.0, "startedAt": 60.0, "progress": {"percent": 40.4, "message": ""}},
            {"token": "t2", "type": "command", "state": "waiting", "what": "s\u{1b}", "origin": "local", "acceptedAt": 0.0},
        ]);
        let table = table(&list);
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1][..5], ["t1", "file.put", "running,", "40", "%"]);
        assert!(
            table.contains("00:01:00") && lines[1].ends_with(&["poseidon", "network"]),
            "{table}"
        );
        assert_eq!(lines[2].last(), Some(&"s\u{FFFD}"));
        assert!(super::table(&Value::Null).contains("No job"));
    }
}
