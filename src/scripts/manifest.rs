//! What a sync is asked for, checked as a whole before anything is done.

use super::{check_name, check_revision, invalid};
use crate::message::payload::{Error, ErrorCode, Manifest};
use crate::transfer::Content;
use std::collections::BTreeSet;

/// Most files of a revision.
const FILES: usize = 2_000;
/// Of a file that names no mode.
const USUAL_MODE: u32 = 0o755;

/// A checked revision.
#[derive(Debug)]
pub struct Plan {
    pub(super) revision: String,
    pub(super) files: Vec<Wanted>,
}

/// One of its files.
#[derive(Debug)]
pub(super) struct Wanted {
    pub path: String,
    pub mode: u32,
    pub content: Content,
}

impl Plan {
    /// Checks all of it; the error names the file.
    pub fn of(manifest: Manifest) -> Result<Self, Error> {
        let revision = manifest.revision;
        check_revision(&revision)
            .map_err(|why| invalid(format!("the revision {revision:?}: {why}")))?;
        if manifest.files.len() > FILES {
            let count = manifest.files.len();
            let text = format!("{count} files are in the manifest, {FILES} are allowed");
            return Err(Error::new(ErrorCode::TooLarge, text));
        }
        let mut files = Vec::with_capacity(manifest.files.len());
        for file in manifest.files {
            let wrong = |why: &str| invalid(format!("the file {:?}: {why}", file.path));
            check_name(&file.path).map_err(wrong)?;
            let mode = match &file.mode {
                None => USUAL_MODE,
                Some(mode) => mode_of(mode)
                    .ok_or_else(|| wrong("mode must be octal digits, from 0 to 0777"))?,
            };
            let content = Content {
                reference: format!("sha256:{}", file.sha256),
                size: file.size,
                sha256: file.sha256,
            };
            content
                .check()
                .map_err(|e| invalid(format!("the file {:?}: {}", file.path, e.message)))?;
            files.push(Wanted {
                path: file.path,
                mode,
                content,
            });
        }
        let mut paths = BTreeSet::new();
        for file in &files {
            if !paths.insert(file.path.as_str()) {
                return Err(invalid(format!("the file {:?} stands twice", file.path)));
            }
        }
        for path in &paths {
            let mut above = *path;
            while let Some((folder, _)) = above.rsplit_once('/') {
                if paths.contains(folder) {
                    return Err(invalid(format!("{path:?} is below the file {folder:?}")));
                }
                above = folder;
            }
        }
        Ok(Self { revision, files })
    }
}

fn mode_of(text: &str) -> Option<u32> {
    let digits = text.len() <= 5 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| digits)?;
    (mode <= 0o777).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plan(revision: &str, files: &[Value]) -> Result<Plan, Error> {
        let manifest = json!({ "revision": revision, "files": files });
        Plan::of(serde_json::from_value(manifest).unwrap())
    }

    fn file(path: &str) -> Value {
        json!({ "path": path, "sha256": "0".repeat(64), "size": 1 })
    }

    #[test]
    fn a_good_manifest_is_taken() {
        let mut lib = file("lib/a.sh");
        lib["mode"] = json!("0640");
        let plan = plan("r-1.2_x", &[lib, file("lib.sh"), file("lib/b/c")]).unwrap();
        assert_eq!((plan.files[0].mode, plan.files[1].mode), (0o640, 0o755));
        assert_eq!(self::plan("r", &[]).unwrap().files.len(), 0);
    }

    #[test]
    fn a_hostile_one_is_refused_as_a_whole() {
        for revision in [
            "",
            ".new",
            "..",
            "a/b",
            "a\nb",
            "a b",
            "current\0",
            &"r".repeat(256),
        ] {
            assert!(plan(revision, &[]).is_err(), "{revision:?}");
        }
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            ".a",
            "a/.b",
            "a\nb",
            "a\0",
            "a b",
            "\u{e4}",
            "a\\b",
            &"a/".repeat(200),
        ] {
            assert!(plan("r", &[file("good"), file(path)]).is_err(), "{path:?}");
        }
        for (field, value) in [
            ("sha256", json!("0")),
            ("sha256", json!("0".repeat(63) + "G")),
            ("sha256", json!("A".repeat(64))),
            ("sha256", json!("../../../etc/passwd")),
            ("size", json!(u64::MAX)),
            ("mode", json!("4755")),
            ("mode", json!("8")),
            ("mode", json!("")),
            ("mode", json!("-1")),
            ("mode", json!("+7")),
        ] {
            let mut bad = file("a");
            bad[field] = value.clone();
            let error = plan("r", &[bad]).unwrap_err();
            assert_eq!(error.code, ErrorCode::Invalid, "{field} {value}");
            assert!(error.message.contains("\"a\""), "{}", error.message);
        }
        let said = |files: &[Value]| plan("r", files).unwrap_err().message;
        assert!(said(&[file("a"), file("a")]).contains("twice"));
        assert!(said(&[file("a/b/c"), file("a")]).contains("below"));
        assert!(said(&[file("a"), file("a-b"), file("a/b")]).contains("below"));
        let many: Vec<Value> = (0..=FILES).map(|n| file(&n.to_string())).collect();
        assert_eq!(plan("r", &many).unwrap_err().code, ErrorCode::TooLarge);
        assert!(plan("r", &many[1..]).is_ok());
    }
}
