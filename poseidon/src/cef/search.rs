//! Search in windows: each call to the store looks through so many rows and no more, however much is stored and however
//! rare what is looked for.

use crate::server::App;
use crate::store::Result;
use crate::store::events::{EventFilter, Found, Window};
use std::time::Duration;
use tokio::time::Instant;

/// Rows that one call looks through, and one that goes by the index of words: it reads only what fits.
const WINDOW: u64 = 10_000;
const WORDS_WINDOW: u64 = 50_000;
/// Letters before a star: the index is gone through for all words that begin so.
const LEAST: usize = 3;
/// Time after which a search answers with what it has, and says where to go on.
const PATIENCE: Duration = Duration::from_secs(2);
/// Clocks of servers are corrected by less than that.
const SLACK: f64 = 60.0;

/// Words that must all be there; what stands in double quotes must be there like that, and a star ends the beginning of a word.
/// Nothing else in it is syntax of the index. An error says what is wrong.
pub fn words(text: &str) -> std::result::Result<String, &'static str> {
    let mut phrases: Vec<String> = Vec::new();
    for (n, part) in text.split('"').enumerate() {
        if n % 2 == 1 {
            phrases.push(format!("\"{part}\""));
            continue;
        }
        for word in part.split_whitespace() {
            let Some(begin) = word.strip_suffix('*') else {
                phrases.push(format!("\"{word}\""));
                continue;
            };
            let letters = begin.chars().rev().take_while(|c| c.is_alphanumeric());
            match letters.take(LEAST).count() {
                // Behind a dot, say, a word begins anyway.
                0 => phrases.push(format!("\"{begin}\"")),
                LEAST => phrases.push(format!("\"{begin}\" *")),
                _ => return Err("a * needs three letters or digits before it"),
            }
        }
    }
    // One without letters and digits would fit nothing. NUL would end the expression.
    phrases.retain(|phrase| phrase.contains(char::is_alphanumeric));
    if phrases.is_empty() {
        return Err("there is no word in it");
    }
    Ok(phrases.join(" ").replace('\0', " "))
}

/// What a search has found.
pub struct Page {
    /// In the order that was asked for.
    pub found: Vec<Found>,
    /// Where to go on: behind this row, or before it. `None` where there is nothing more.
    pub next: Option<u64>,
}

/// Rows that are looked at in one go.
fn width(filter: &EventFilter) -> u64 {
    if filter.words.is_some() {
        WORDS_WINDOW
    } else {
        WINDOW
    }
}

/// The newest events before a row, newest first.
pub async fn before(app: &App, filter: &EventFilter, row: u64, limit: usize) -> Result<Page> {
    let started = Instant::now();
    let width = width(filter);
    let oldest = app.db.call(|store| store.event_state()).await?.oldest;
    let mut found: Vec<Found> = Vec::new();
    let mut last = row.saturating_sub(1).min(*app.cef.newest().borrow());
    while oldest > 0 && last >= oldest {
        let window = Window {
            first: last.saturating_sub(width - 1).max(oldest),
            last,
            limit: limit - found.len(),
            newest_first: true,
        };
        let asked = filter.clone();
        let (seen, received) = app
            .db
            .call(move |store| {
                let seen = store.events(&asked, window)?;
                Ok((seen, store.event_received(window.first)?))
            })
            .await?;
        found.extend(seen.found);
        if seen.cut {
            break;
        }
        last = window.first - 1;
        // What came before that cannot have happened after.
        let over = filter
            .since
            .is_some_and(|since| received.is_none_or(|received| received < since - SLACK));
        if over || last < oldest {
            return Ok(Page { found, next: None });
        }
        if found.len() >= limit || started.elapsed() > PATIENCE {
            return Ok(Page {
                found,
                next: Some(window.first),
            });
        }
    }
    let next = (oldest > 0 && last >= oldest)
        .then(|| found.last().map(|one| one.row))
        .flatten();
    Ok(Page { found, next })
}

/// The oldest events behind a row, oldest first. `next` is always there: more will come.
pub async fn after(app: &App, filter: &EventFilter, row: u64, limit: usize) -> Result<Page> {
    let started = Instant::now();
    let width = width(filter);
    let oldest = app.db.call(|store| store.event_state()).await?.oldest;
    let newest = *app.cef.newest().borrow();
    let mut found: Vec<Found> = Vec::new();
    // A row beyond the newest is that of another store, which was put aside: all is new then.
    let mut through = if row > newest { 0 } else { row };
    through = through.max(oldest.saturating_sub(1));
    while through < newest && found.len() < limit && started.elapsed() <= PATIENCE {
        let window = Window {
            first: through + 1,
            last: (through + width).min(newest),
            limit: limit - found.len(),
            newest_first: false,
        };
        let asked = filter.clone();
        let seen = app
            .db
            .call(move |store| store.events(&asked, window))
            .await?;
        found.extend(seen.found);
        if seen.cut {
            through = found.last().map_or(window.last, |one| one.row);
            break;
        }
        through = window.last;
    }
    Ok(Page {
        found,
        next: Some(through),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_never_syntax() {
        for (text, expected) in [
            ("failed login", Ok(r#""failed" "login""#)),
            (
                r#"src=10.0.0.1 "Login failed""#,
                Ok(r#""src=10.0.0.1" "Login failed""#),
            ),
            ("NOT a OR b", Ok(r#""NOT" "a" "OR" "b""#)),
            (r#"line:x" NEAR("#, Ok(r#""line:x" " NEAR(""#)),
            ("fail* 10.0.*", Ok(r#""fail" * "10.0.""#)),
            (r#""fa* b""#, Ok(r#""fa* b""#)),
            (
                "src=10*",
                Err("a * needs three letters or digits before it"),
            ),
            ("--- |", Err("there is no word in it")),
            (" ", Err("there is no word in it")),
            ("\"\" *", Err("there is no word in it")),
        ] {
            assert_eq!(words(text).as_deref(), expected.as_deref(), "{text}");
        }
    }
}
