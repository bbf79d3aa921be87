//! The journal: what the running daemon says of it, else what its folder looks like.

use super::say;
use crate::agent;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::sys::space::space;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// As much as a few records: a full disk takes an empty file.
const TRIAL: [u8; 4_096] = [0; 4_096];

/// Says how the journal is, and whether that is good.
pub fn is_good(config: &Config, status: Option<&Value>) -> bool {
    let journal = status.map(|status| &status["journal"]);
    let (good, text) = match journal.filter(|journal| journal.is_object()) {
        Some(journal) => reported(journal, &agent::journal_settings(config).folder),
        None => match looked_at(config) {
            Ok(text) => (true, text),
            Err(e) => (
                false,
                format!(
                    "{e}; an agent of this user would keep its journal in memory and lose it when it ends: repair the folder or name another"
                ),
            ),
        },
    };
    say(if good { "ok" } else { "BAD" }, "journal", &text);
    good
}

fn reported(journal: &Value, folder: &Path) -> (bool, String) {
    let number = |name: &str| journal[name].as_u64().unwrap_or_default();
    let reason = journal["reason"].as_str();
    let good = journal["state"] == "disk" && reason.is_none();
    let mut text = match (journal["state"].as_str(), reason) {
        (Some("disk"), None) => format!("in {}", folder.display()),
        (Some("disk"), Some(reason)) => format!("in {}, but: {reason}", folder.display()),
        (_, reason) => format!(
            "in memory: {}; what it holds is lost when the agent ends: repair {} or name another folder",
            reason.unwrap_or("no reason is known"),
            folder.display()
        ),
    };
    if number("limit") > 0 {
        text = format!("{text}; {}", used(number("bytes"), number("limit")));
    }
    for (name, what) in [
        ("waiting", "records wait for Poseidon"),
        ("dropped", "events were dropped for want of room"),
        ("damaged", "damaged records were left out"),
    ] {
        if number(name) > 0 {
            text = format!("{text}; {} {what}", number(name));
        }
    }
    (good, text)
}

/// What can be told without the daemon; an error where it could not write there.
fn looked_at(config: &Config) -> Result<String> {
    let settings = agent::journal_settings(config);
    let folder = &settings.folder;
    // One that is missing will be made in the nearest that is there.
    let there = folder.ancestors().find(|path| path.exists());
    let there = there.unwrap_or(Path::new("/"));
    try_out(there).map_err(|e| Error::at("write into", there, e))?;
    if there != folder {
        return Ok(format!("{} will be made", folder.display()));
    }
    let bytes = bytes_in(folder).map_err(|e| Error::at("read", folder, e))?;
    let mut text = format!("in {}; {}", folder.display(), used(bytes, settings.bytes));
    let left = space(folder).map_or(u64::MAX, |space| space.available);
    if left < settings.bytes.saturating_sub(bytes) {
        text = format!("{text}; only {} are left on its disk", size(left));
    }
    Ok(text)
}

/// Writes and removes a file.
fn try_out(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    let written = File::options()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| {
            file.write_all(&TRIAL)?;
            // Some file systems look for room only now.
            file.sync_all()
        });
    match fs::remove_file(&path) {
        Err(e) if written.is_ok() => Err(e),
        _ => written,
    }
}

fn bytes_in(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}

fn used(bytes: u64, limit: u64) -> String {
    format!("{} of {} used", size(bytes), size(limit))
}

fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b < 10_000.0 => format!("{b} bytes"),
        b if b < 1e6 => format!("{:.0} kB", b / 1e3),
        b => format!("{:.1} MB", b / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_daemon_says_is_passed_on() {
        let folder = Path::new("/j");
        let (good, text) = reported(
            &json!({"state": "disk", "bytes": 123_456, "limit": 4_000_000, "waiting": 3, "damaged": 1}),
            folder,
        );
        assert!(good);
        assert_eq!(
            text,
            "in /j; 123 kB of 4.0 MB used; 3 records wait for Poseidon; 1 damaged records were left out"
        );
        let (good, text) = reported(
            &json!({"state": "memory", "reason": "no room", "bytes": 9, "limit": 262_144}),
            folder,
        );
        assert!(!good);
        assert_eq!(
            text,
            "in memory: no room; what it holds is lost when the agent ends: repair /j or name another folder; 9 bytes of 262 kB used"
        );
        assert!(!reported(&json!({"state": "disk", "reason": "slow"}), folder).0);
        assert!(!reported(&json!({}), folder).0);
    }

    #[test]
    fn the_folder_is_looked_at_and_left_as_it_was() {
        let state = tempfile::tempdir().unwrap();
        let config = Config {
            state: state.path().to_owned(),
            ..Config::default()
        };
        let folder = agent::journal_settings(&config).folder;
        assert!(looked_at(&config).unwrap().contains("will be made"));
        assert!(!folder.exists());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("x"), [0; 5_000]).unwrap();
        let said = looked_at(&config).unwrap();
        assert!(said.contains("5000 bytes of"), "{said}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
        fs::write(&folder, "a file").unwrap();
        let said = looked_at(&config).unwrap_err().to_string();
        assert!(said.contains(&folder.display().to_string()), "{said}");
        assert!(!is_good(&config, None));
    }
}
