//! Search in windows: each call to the store looks through so many rows and no more, however much is stored and however
//! rare what is looked for.

use crate::server::App;
use crate::store::Result;
use crate::store::events::{EventFilter, Found, Window};
use std::time::Duration;
use tokio::time::Instant;

/// Rows that one call looks through.
const WINDOW: u64 = 10_000;
/// Time after which a search answers with what it has, and says where to go on.
const PATIENCE: Duration = Duration::from_secs(2);
/// Clocks of servers are corrected by less than that.
const SLACK: f64 = 60.0;

/// Words that must all be there, each as the beginning of a word; what stands in double quotes must be there like that. `None` where
/// there is no word at all. Nothing in it is syntax of the index.
pub fn words(text: &str) -> Option<String> {
    let mut phrases: Vec<String> = Vec::new();
    for (n, part) in text.split('"').enumerate() {
        if n % 2 == 1 {
            phrases.push(format!("\"{part}\""));
        } else {
            phrases.extend(part.split_whitespace().map(|word| format!("\"{word}\" *")));
        }
    }
    // One without letters and digits would fit nothing. NUL would end the expression.
    phrases.retain(|phrase| phrase.contains(char::is_alphanumeric));
    let words = phrases.join(" ").replace('\0', " ");
    (!words.is_empty()).then_some(words)
}

/// What a search has found.
pub struct Page {
    /// In the order that was asked for.
    pub found: Vec<Found>,
    /// Where to go on: behind this row, or before it. `None` where there is nothing more.
    pub next: Option<u64>,
}

/// The newest events before a row, newest first.
pub async fn before(app: &App, filter: &EventFilter, row: u64, limit: usize) -> Result<Page> {
    let started = Instant::now();
    let oldest = app.db.call(|store| store.event_state()).await?.oldest;
    let mut found: Vec<Found> = Vec::new();
    let mut last = row.saturating_sub(1).min(*app.cef.newest().borrow());
    while oldest > 0 && last >= oldest {
        let window = Window {
            first: last.saturating_sub(WINDOW - 1).max(oldest),
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
    let oldest = app.db.call(|store| store.event_state()).await?.oldest;
    let newest = *app.cef.newest().borrow();
    let mut found: Vec<Found> = Vec::new();
    // A row beyond the newest is that of another store, which was put aside: all is new then.
    let mut through = if row > newest { 0 } else { row };
    through = through.max(oldest.saturating_sub(1));
    while through < newest && found.len() < limit && started.elapsed() <= PATIENCE {
        let window = Window {
            first: through + 1,
            last: (through + WINDOW).min(newest),
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
            ("failed login", Some(r#""failed" * "login" *"#)),
            (
                r#"src=10.0.0.1 "Login failed""#,
                Some(r#""src=10.0.0.1" * "Login failed""#),
            ),
            ("NOT a OR b*", Some(r#""NOT" * "a" * "OR" * "b*" *"#)),
            (r#"line:x" NEAR("#, Some(r#""line:x" * " NEAR(""#)),
            ("--- |", None),
            (" ", None),
            ("\"\"", None),
        ] {
            assert_eq!(words(text).as_deref(), expected, "{text}");
        }
    }
}
