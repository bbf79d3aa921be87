//! What differs between two revisions.

use super::{revision, script};
use crate::cli::client::Client;
use crate::cli::commands::{Ended, print, rows};
use crate::repositories::manifest::SCRIPT_BYTES;
use serde_json::Value;
use similar::TextDiff;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

/// Lines around a change.
const CONTEXT: usize = 3;
/// A file is compared for so long; after that the difference is right, but not the smallest.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(
    client: &Client,
    name: &str,
    from: Option<String>,
    to: Option<String>,
) -> Ended {
    let to = revision(client, name, to.as_deref()).await?;
    let from = match from {
        Some(from) => Some(revision(client, name, Some(&from)).await?),
        // The one before by its number: its id may stand for a later one too.
        None => match to["number"].as_u64() {
            Some(number @ 2..) => {
                let before = (number - 1).to_string();
                Some(revision(client, name, Some(&before)).await?)
            }
            _ => None,
        },
    };
    let (old, new) = (files(from.as_ref()), files(Some(&to)));
    let paths: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let mut out = String::new();
    for path in paths {
        let (a, b) = (old.get(path), new.get(path));
        if a == b {
            continue;
        }
        let (old_mode, new_mode) = (a.map(|f| f.mode), b.map(|f| f.mode));
        // Writing to a text does not fail.
        let _ = match (old_mode, new_mode) {
            (Some(old), Some(new)) if old != new => {
                writeln!(out, "mode of {path}: {old} -> {new}")
            }
            (None, Some(mode)) => writeln!(out, "new file {path}, mode {mode}"),
            (Some(_), None) => writeln!(out, "deleted file {path}"),
            _ => Ok(()),
        };
        if a.map(|f| f.sha256) == b.map(|f| f.sha256) {
            continue;
        }
        let before = content(client, name, path, from.as_ref(), a.is_some()).await?;
        let after = content(client, name, path, Some(&to), b.is_some()).await?;
        out.push_str(&unified(
            path,
            (a.is_some(), &before),
            (b.is_some(), &after),
        ));
    }
    print(&out)
}

#[derive(PartialEq)]
struct File<'a> {
    sha256: &'a str,
    mode: &'a str,
}

fn files(revision: Option<&Value>) -> BTreeMap<&str, File<'_>> {
    let all = revision.into_iter().flat_map(|r| rows(r, "files"));
    all.filter_map(|f| {
        let (sha256, mode) = (f["sha256"].as_str()?, f["mode"].as_str()?);
        Some((f["path"].as_str()?, File { sha256, mode }))
    })
    .collect()
}

async fn content(
    client: &Client,
    name: &str,
    path: &str,
    revision: Option<&Value>,
    is_there: bool,
) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    if is_there {
        let number = revision.map(|r| r["number"].to_string());
        let address = script(name, path, number.as_deref());
        client.copy(&address, &mut content).await?;
    }
    if content.len() as u64 > SCRIPT_BYTES {
        return Err(format!("{path} is larger than a script can be"));
    }
    Ok(content)
}

fn unified(path: &str, old: (bool, &[u8]), new: (bool, &[u8])) -> String {
    let (Ok(before), Ok(after)) = (std::str::from_utf8(old.1), std::str::from_utf8(new.1)) else {
        return format!("Binary files a/{path} and b/{path} differ\n");
    };
    if before.contains('\0') || after.contains('\0') {
        return format!("Binary files a/{path} and b/{path} differ\n");
    }
    let name = |side: char, is_there| {
        if is_there {
            format!("{side}/{path}")
        } else {
            "/dev/null".to_owned()
        }
    };
    let (a, b) = (name('a', old.0), name('b', new.0));
    TextDiff::configure()
        .timeout(PATIENCE)
        .diff_lines(before, after)
        .unified_diff()
        .context_radius(CONTEXT)
        .header(&a, &b)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_as_patch_reads_it() {
        let shown = unified("a/b.sh", (true, b"one\ntwo\n"), (true, b"one\n2\nthree"));
        assert_eq!(
            shown,
            "--- a/a/b.sh\n+++ b/a/b.sh\n@@ -1,2 +1,3 @@\n one\n-two\n+2\n+three\n\\ No newline at end of file\n"
        );
        let shown = unified("x", (false, b""), (true, b"one\n"));
        assert_eq!(shown, "--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+one\n");
        let shown = unified("x", (true, b"\xff"), (true, b"one\n"));
        assert_eq!(shown, "Binary files a/x and b/x differ\n");
    }
}
