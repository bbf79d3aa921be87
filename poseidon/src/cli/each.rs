//! What is done for one identifier after the other: whom it is for, and what became of each.

use super::client::Client;
use super::commands::{Ended, print, rows};
use super::many::{NAMED, agents_path};
use super::tables::clean;
use clap::Args;
use serde_json::Value;
use std::collections::HashSet;
use std::process::ExitCode;

/// Whom it is for, besides those that are named.
#[derive(Args)]
pub(super) struct On {
    /// Devices that a selector means, as for `run`; can be repeated. What a name gets all its instances get: where it means
    /// only some of them, nothing is done
    #[arg(long, value_name = "SELECTOR")]
    on: Vec<String>,
}

impl On {
    /// Takes the last `number` words, which are no names, from those that were given.
    pub(super) fn last_words(
        &self,
        words: &mut Vec<String>,
        number: usize,
        usage: &str,
    ) -> Result<Vec<String>, String> {
        match words.len().checked_sub(number) {
            Some(names) if names > 0 || !self.on.is_empty() => Ok(words.split_off(names)),
            _ => Err(format!(
                "which device? NAME… {usage} or --on SELECTOR {usage} is expected, and {} is taken for {usage}",
                words.join(" ")
            )),
        }
    }

    /// The names, and what is meant for them where that may be several words: all that stands behind `--`, else behind
    /// the first word, or all of it where a selector says for whom it is.
    pub(super) fn apart<T>(
        &self,
        mut words: Vec<T>,
        last: Vec<T>,
        usage: &str,
    ) -> Result<(Vec<T>, Vec<T>), String> {
        let rest = if !last.is_empty() {
            last
        } else if self.on.is_empty() {
            words.split_off(words.len().min(1))
        } else {
            std::mem::take(&mut words)
        };
        if rest.is_empty() || (words.is_empty() && self.on.is_empty()) {
            return Err(format!(
                "NAME {usage}…, NAME… -- {usage}… or --on SELECTOR {usage}… is expected"
            ));
        }
        Ok((words, rest))
    }

    /// The names of all that are meant, each once. What is done for a name is done for all its instances, so a selector
    /// that means only some of them is refused.
    pub(super) async fn names(
        &self,
        client: &Client,
        mut names: Vec<String>,
    ) -> Result<Vec<String>, String> {
        if !self.on.is_empty() {
            let path = format!("{}&brief=true", agents_path(&self.on, &[]));
            let meant: Value = client.get(&path).await?;
            let all: Value = client.get("/agents?brief=true").await?;
            let others = others(&meant, &all, &names);
            if !others.is_empty() {
                return Err(refusal(&others));
            }
            names.extend(rows(&meant, "agents").map(|agent| instance_of(agent).0.to_owned()));
        }
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Err("the selector means no device".to_owned());
        }
        Ok(names)
    }
}

/// Name and instance of an agent.
fn instance_of(agent: &Value) -> (&str, &str) {
    let field = |name: &str| agent[name].as_str().unwrap_or_default();
    (field("name"), field("instance"))
}

/// Of all agents those that are not meant and share the name of one that is, unless it is among the given names.
fn others<'a>(meant: &Value, all: &'a Value, names: &[String]) -> Vec<(&'a str, &'a str)> {
    let meant: HashSet<_> = rows(meant, "agents").map(instance_of).collect();
    let shared: HashSet<_> = meant.iter().map(|(name, _)| *name).collect();
    rows(all, "agents")
        .map(|agent| (instance_of(agent), &agent["state"]))
        // As where jobs are made: numbers of plain Tritons come and go.
        .filter(|((_, instance), state)| *state != "down" || !instance.starts_with("plain"))
        .map(|(agent, _)| agent)
        .filter(|agent| shared.contains(agent.0) && !meant.contains(agent))
        .filter(|(name, _)| names.iter().all(|given| given != name))
        .collect()
}

fn refusal(others: &[(&str, &str)]) -> String {
    let mut names: Vec<String> = others.iter().map(|(name, _)| clean(name)).collect();
    names.dedup();
    let shown: Vec<String> = others
        .iter()
        .take(NAMED)
        .map(|(name, instance)| clean(&format!("{name}/{instance}")))
        .collect();
    let more = match others.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    names.truncate(NAMED);
    format!(
        "nothing was done: all instances of a name get the same, and --on does not mean {}{more}. If these shall get it \
         too, give the name, which means all of them: {}",
        shown.join(", "),
        names.join(" ")
    )
}

/// Does something for each name, whatever becomes of the others; says in a line what became of it, and fails where
/// any failed.
pub(super) async fn each(
    names: &[String],
    mut act: impl AsyncFnMut(&str) -> Result<String, String>,
) -> Ended {
    let mut failed = 0;
    for name in names {
        match act(name).await {
            Ok(said) => {
                print(&said)?;
            }
            Err(e) if names.len() == 1 => return Err(e),
            Err(e) => {
                failed += 1;
                eprintln!("poseidon: {}: {}", clean(name), clean(&e));
            }
        }
    }
    match failed {
        0 => Ok(ExitCode::SUCCESS),
        _ => Err(format!("it failed for {failed} of {}", names.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(selector: &[&str]) -> On {
        On {
            on: selector.iter().map(|&s| s.to_owned()).collect(),
        }
    }

    #[test]
    fn the_last_words_are_no_names() {
        let taken = |on: On, words: &[&str], number| {
            let mut words: Vec<String> = words.iter().map(|&w| w.to_owned()).collect();
            let last = on.last_words(&mut words, number, "X").ok()?;
            Some((words.join(" "), last.join(" ")))
        };
        let found = |names: &str, last: &str| Some((names.to_owned(), last.to_owned()));
        assert_eq!(taken(on(&[]), &["a", "b", "x"], 1), found("a b", "x"));
        assert_eq!(taken(on(&[]), &["a", "x", "y"], 2), found("a", "x y"));
        assert_eq!(taken(on(&["*"]), &["x"], 1), found("", "x"));
        assert_eq!(taken(on(&["*"]), &["a", "x"], 1), found("a", "x"));
        assert_eq!(taken(on(&[]), &["x"], 1), None);
        assert_eq!(taken(on(&["*"]), &["x"], 2), None);
    }

    #[test]
    fn names_stand_before_the_dashes_or_first() {
        let apart = |on: On, words: &[&'static str], last: &[&'static str]| {
            let (names, rest) = on.apart(words.to_vec(), last.to_vec(), "X").ok()?;
            Some((names.join(" "), rest.join(" ")))
        };
        let found = |names: &str, rest: &str| Some((names.to_owned(), rest.to_owned()));
        assert_eq!(apart(on(&[]), &["a", "x", "y"], &[]), found("a", "x y"));
        assert_eq!(apart(on(&[]), &["a", "b"], &["x"]), found("a b", "x"));
        assert_eq!(apart(on(&["*"]), &["x", "y"], &[]), found("", "x y"));
        assert_eq!(apart(on(&["*"]), &["a"], &["x"]), found("a", "x"));
        assert_eq!(apart(on(&["*"]), &[], &["x"]), found("", "x"));
        for (on, words, last) in [
            (on(&[]), &["a"][..], &[][..]),
            (on(&[]), &[], &["x"]),
            (on(&[]), &[], &[]),
            (on(&["*"]), &[], &[]),
        ] {
            assert_eq!(apart(on, words, last), None);
        }
    }
}
