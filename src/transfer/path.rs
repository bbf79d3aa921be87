//! Paths that a peer names.

use crate::message::ErrorCode;
use crate::message::payload::Error;

/// Longest path in bytes, as for the kernel.
const PATH_LIMIT: usize = 4_095;
/// Longest part of one, as for nearly all file systems.
const NAME_LIMIT: usize = 255;
/// Parts of a relative path: each may be an open folder.
pub const DEPTH: usize = 64;

fn invalid(path: &str, why: &str) -> Error {
    // A path may be long, and hold what no log should show as it is.
    let shown: String = path.chars().take(200).collect();
    Error::new(ErrorCode::Invalid, format!("path {shown:?}: {why}"))
}

fn check_parts(path: &str, parts: &str) -> Result<(), Error> {
    if path.len() > PATH_LIMIT {
        return Err(invalid(path, "longer than 4095 bytes"));
    }
    if path.contains(['\0', '\n', '\r']) {
        return Err(invalid(path, "holds NUL or the end of a line"));
    }
    for part in parts.split('/') {
        match part {
            "" => return Err(invalid(path, "has an empty part")),
            "." | ".." => return Err(invalid(path, "has a part . or ..")),
            _ if part.len() > NAME_LIMIT => {
                return Err(invalid(path, "has a part longer than 255 bytes"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks an absolute path, and takes it apart: the folder, and the name in it.
pub fn absolute(path: &str) -> Result<(&str, &str), Error> {
    let Some(parts) = path.strip_prefix('/') else {
        return Err(invalid(path, "is not absolute"));
    };
    check_parts(path, parts)?;
    match path.rsplit_once('/') {
        Some(("", name)) => Ok(("/", name)),
        Some(taken_apart) => Ok(taken_apart),
        None => Err(invalid(path, "is not absolute")),
    }
}

/// Checks a path below some folder.
pub fn relative(path: &str) -> Result<(), Error> {
    check_parts(path, path)?;
    if path.split('/').count() > DEPTH {
        return Err(invalid(path, "has more than 64 parts"));
    }
    if path.split('/').any(super::temporary::is_temporary) {
        let text = "has a name like those of this agent's temporary files";
        return Err(invalid(path, text));
    }
    Ok(())
}

/// Whether one of two checked paths is the other, or on the way to it.
pub fn overlap(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    #[test]
    fn absolute_paths() {
        assert_eq!(absolute("/a").unwrap(), ("/", "a"));
        assert_eq!(absolute("/a/b c/.d").unwrap(), ("/a/b c", ".d"));
        let long = format!("/{}", "x".repeat(255));
        assert!(absolute(&long).is_ok());
        for wrong in [
            "", "/", "a", "a/b", "//", "//a", "/a/", "/a//b", "/.", "/..", "/a/./b", "/a/../b",
            "/a/..", "/a\0", "/a\nb", "/a\rb",
        ] {
            let error = absolute(wrong).unwrap_err();
            assert_eq!(error.code, ErrorCode::Invalid, "{wrong:?}");
        }
        assert!(absolute(&format!("{long}x")).is_err());
        assert!(absolute(&"/x".repeat(2_048)).is_err());
    }

    #[test]
    fn relative_paths() {
        for right in ["a", "a/b", ".a", "..a", "a b", "ä/ö"] {
            relative(right).unwrap();
        }
        for wrong in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\n"] {
            assert!(relative(wrong).is_err(), "{wrong:?}");
        }
        assert!(relative(".x.triton-0123456789ab").is_err());
        assert!(relative(".x.triton-0123456789ab/y").is_err());
        assert!(relative(&"a/".repeat(64)).is_err());
        assert!(relative(&vec!["a"; 64].join("/")).is_ok());
        assert!(relative(&vec!["a"; 65].join("/")).is_err());
    }

    #[test]
    fn what_overlaps() {
        for (a, b, said) in [
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a/b/c", "/a", true),
            ("/a", "/ab", false),
            ("/a/b", "/a/c", false),
        ] {
            assert_eq!(overlap(a, b), said, "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_below(path in "(\\PC|[/.\\x00\n]){0,40}") {
            if relative(&path).is_ok() {
                let ordinary = |c| matches!(c, Component::Normal(_));
                prop_assert!(Path::new(&path).components().all(ordinary), "{path:?}");
                prop_assert_eq!(Path::new(&path).components().count(), path.split('/').count());
            }
            if let Ok((folder, name)) = absolute(&path) {
                prop_assert!(Path::new(&path) == Path::new(folder).join(name));
                prop_assert!(!name.contains('/') && folder.starts_with('/'));
            }
        }
    }
}
