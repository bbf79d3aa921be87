//! Places on devices, as the commands about files take them.

use super::tables::text;
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::signal::unix::{SignalKind, signal};

/// `NAME[,NAME…]:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// NAME or NAME/INSTANCE of each device; none where a selector says which.
    pub(super) names: Vec<String>,
    pub(super) path: String,
}

impl Place {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some((names, path)) = text.split_once(":/") else {
            return Err("NAME:/path is expected, or NAME,NAME:/path".to_owned());
        };
        let mut all = Vec::new();
        for name in names.split(',').filter(|_| !names.is_empty()) {
            if name.is_empty() {
                return Err("there is no name between two commas".to_owned());
            }
            if !all.iter().any(|known| known == name) {
                all.push(name.to_owned());
            }
        }
        Ok(Self {
            names: all,
            path: format!("/{path}"),
        })
    }

    /// The path of what has this name there: a slash at the end means into that folder.
    pub(super) fn path_for(&self, name: &str) -> String {
        if self.path.ends_with('/') {
            format!("{}{name}", self.path)
        } else {
            self.path.clone()
        }
    }
}

/// The last part of a path.
pub(super) fn last_part(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path)
}

/// What to call the device of each job.
pub(super) fn devices(jobs: &[Value]) -> Vec<String> {
    let mut instances: BTreeMap<&str, usize> = BTreeMap::new();
    for job in jobs {
        *instances
            .entry(job["agent"].as_str().unwrap_or(""))
            .or_default() += 1;
    }
    jobs.iter()
        .map(|job| {
            let name = text(&job["agent"]);
            match instances.get(job["agent"].as_str().unwrap_or("")) {
                Some(1) => name,
                _ => format!("{name}/{}", text(&job["instance"])),
            }
        })
        .collect()
}

/// Returns the exit code when the command is to end: at Ctrl-C, or with its terminal.
pub(super) async fn interrupted() -> u8 {
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(e) => {
            log::warn!("cannot wait for signals: {e}");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => 130,
        () = wait(SignalKind::terminate()) => 143,
        () = wait(SignalKind::hangup()) => 129,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_before_the_path() {
        let place = |text: &str| Place::parse(text).map(|p| (p.names.join("|"), p.path));
        let found = |names: &str, path: &str| Ok((names.to_owned(), path.to_owned()));
        assert_eq!(place("attic:/etc/x"), found("attic", "/etc/x"));
        assert_eq!(place("a,b/12,a:/x:/y"), found("a|b/12", "/x:/y"));
        assert_eq!(place(":/x"), found("", "/x"));
        for wrong in ["attic", "attic:etc", "/etc/x", "a,:/x", ",a:/x"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_slash_at_the_end_means_into_the_folder() {
        let path = |text| Place::parse(text).map(|place| place.path_for("hosts"));
        assert_eq!(path("a:/etc/").as_deref(), Ok("/etc/hosts"));
        assert_eq!(path("a:/etc/other").as_deref(), Ok("/etc/other"));
        assert_eq!(path("a:/").as_deref(), Ok("/hosts"));
        assert_eq!(last_part("/etc/conf/"), "conf");
    }
}
