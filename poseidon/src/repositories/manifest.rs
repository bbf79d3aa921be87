//! The files of a revision: their names, modes, limits, and the id that they make.

use crate::blobs::sha256;
use crate::store::repositories::Script;
use std::fmt::Write as _;

/// Files of one repository.
pub const MAX_FILES: usize = 2000;
/// Bytes of one script.
pub const SCRIPT_BYTES: u64 = 1 << 20;
/// Bytes of a path, and its parts.
const PATH_BYTES: usize = 255;
const PATH_PARTS: usize = 8;
/// Digits of a revision's id.
const ID: usize = 16;

/// What it says of a path that a repository cannot have; nothing where it can.
pub fn check_path(path: &str) -> Result<(), String> {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let mut parts = path.split('/');
    let wrong = if path.is_empty() || path.len() > PATH_BYTES {
        format!("it has 1 to {PATH_BYTES} bytes")
    } else if parts.clone().count() > PATH_PARTS {
        format!("it is at most {PATH_PARTS} levels deep")
    } else if !path.bytes().all(|b| letter(b) || b == b'/') {
        "it consists of letters, digits, `.`, `_`, `-` and `/`".to_owned()
    } else if parts.any(str::is_empty) {
        "it is relative, and no part of it is empty".to_owned()
    } else if path.split('/').any(|part| part.starts_with('.')) {
        "no part of it begins with a dot".to_owned()
    } else {
        return Ok(());
    };
    // Debug, so that a line end shows as what it is.
    Err(format!("{path:?} is no path of a script: {wrong}"))
}

/// A mode as octal digits.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if digits && mode <= 0o777 => Ok(mode),
        _ => Err(format!(
            "{text:?} is no mode of a script: octal digits are expected, 0000 to 0777, such as 0755"
        )),
    }
}

/// The mode of a file that was given none.
pub fn default_mode(begin: &[u8]) -> u32 {
    if begin.starts_with(b"#!") {
        0o755
    } else {
        0o644
    }
}

/// Puts the files in order, checks that they can be in one folder, and that they are not too many.
pub fn arrange(files: &mut [Script]) -> Result<(), String> {
    if files.len() > MAX_FILES {
        return Err(format!(
            "a repository has at most {MAX_FILES} files, and these are {}",
            files.len()
        ));
    }
    for file in files.iter() {
        check_path(&file.path)?;
        if file.size > SCRIPT_BYTES {
            return Err(format!(
                "{} has {} bytes, and a script has at most {SCRIPT_BYTES}",
                file.path, file.size
            ));
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if let Some(two) = files.windows(2).find(|two| two[0].path == two[1].path) {
        return Err(format!("{} is there twice", two[0].path));
    }
    for file in files.iter() {
        for (at, _) in file.path.match_indices('/') {
            let folder = &file.path[..at];
            if files
                .binary_search_by(|f| f.path.as_str().cmp(folder))
                .is_ok()
            {
                return Err(format!("{folder} is a file, so {} cannot be", file.path));
            }
        }
    }
    Ok(())
}

/// The id of a revision with these files, which are in order: the beginning of the SHA-256 of one line for each,
/// `MODE SHA256 SIZE PATH`.
pub fn id(files: &[Script]) -> String {
    let mut text = String::new();
    for file in files {
        let Script {
            path,
            sha256,
            size,
            mode,
        } = file;
        // Writing to a text does not fail.
        let _ = writeln!(text, "{mode:04o} {sha256} {size} {path}");
    }
    let mut id = sha256(text.as_bytes());
    id.truncate(ID);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(path: &str) -> Script {
        Script {
            path: path.to_owned(),
            sha256: "0".repeat(64),
            size: 1,
            mode: 0o644,
        }
    }

    #[test]
    fn paths_stay_inside() {
        let long = "a".repeat(255);
        for good in ["a", "a/b", "A-b_c.d/e..f", "a/b/c/d/e/f/g/h", &long] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        let longer = "a".repeat(256);
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            ".git/x",
            "a/.b",
            "a\0",
            "a\nb",
            "a b",
            "ä",
            "a\\b",
            "a/b/c/d/e/f/g/h/i",
            &longer,
        ] {
            let said = check_path(bad).unwrap_err();
            assert!(!said.contains(['\n', '\0']), "{said:?}");
        }
    }

    #[test]
    fn modes_are_octal_and_give_no_power() {
        assert_eq!(parse_mode("0755"), Ok(0o755));
        assert_eq!(parse_mode("644"), Ok(0o644));
        for bad in ["", "7", "0855", "4755", "+755", "07777", "rwx", " 755"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_id_is_of_the_content_and_its_order_does_not_matter() {
        let mut one = vec![script("b"), script("a/c")];
        let mut two = vec![script("a/c"), script("b")];
        arrange(&mut one).unwrap();
        arrange(&mut two).unwrap();
        assert_eq!(id(&one), id(&two));
        two[0].mode = 0o755;
        assert_ne!(id(&one), id(&two));
        assert_eq!(id(&[]), "e3b0c44298fc1c14");
        for mut bad in [
            vec![script("a"), script("a")],
            vec![script("a/b"), script("a")],
            vec![script("a/b/c"), script("a.b"), script("a/b"), script("a-b")],
            vec![script("x"); MAX_FILES + 1],
        ] {
            assert!(arrange(&mut bad).is_err());
        }
    }
}
