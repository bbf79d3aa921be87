//! Which programs in the folder are plugins, and which of them may be started.
//!
//! What is started here runs with the agent's rights, so nobody but root and the agent's own user may have a say in
//! it: in the file, in its folder, and in every folder above. Symbolic links are not followed, so that this can be said
//! of the file that stands there.

use crate::sys::user;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Most plugins.
pub const MOST: usize = 32;
/// Longest name of one.
const NAME: usize = 64;
/// Most entries of the folder that are looked at.
const ENTRIES: usize = 1_024;

/// A program in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    pub path: PathBuf,
    /// Why it is not started.
    pub unfit: Option<String>,
}

/// The programs in the folder, by name. A folder that does not exist has none; the error is of one that cannot be used.
pub fn scan(folder: &Path) -> Result<Vec<Found>, String> {
    // By its real path, which is what is judged and what is started.
    let real = fs::canonicalize(folder);
    let (folder, entries) = match real.and_then(|real| fs::read_dir(&real).map(|e| (real, e))) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(format!("cannot read {}: {e}", folder.display())),
    };
    let mut names: Vec<String> = entries
        .take(ENTRIES)
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_name(name))
        .collect();
    names.sort();
    let of_folder = folder_is_fit(&folder).err();
    let mut found = Vec::new();
    for name in names {
        let path = folder.join(&name);
        let Some(verdict) = judge(&path) else {
            continue;
        };
        if found.len() == MOST {
            log::warn!(
                "{}: more than {MOST} plugins; {name} and what comes behind it is not started",
                folder.display()
            );
            break;
        }
        let unfit = of_folder.clone().or(verdict.err());
        found.push(Found { name, path, unfit });
    }
    Ok(found)
}

/// What editors and package managers leave behind begins with a dot or ends with a tilde.
pub fn is_name(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=NAME).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(known)
}

/// None: no program at all, such as a note or a folder.
fn judge(path: &Path) -> Option<Result<(), String>> {
    let is = match fs::symlink_metadata(path) {
        Ok(is) => is,
        // Gone meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => return Some(Err(format!("cannot look at it: {e}"))),
    };
    if is.file_type().is_symlink() {
        let text = "it is a symbolic link, which is not followed: put the program itself there";
        return Some(Err(text.to_owned()));
    }
    if !is.is_file() || is.mode() & 0o111 == 0 {
        return None;
    }
    Some(ours_alone(path, &is))
}

/// Nobody else may exchange what is in the folder, or the folder itself.
fn folder_is_fit(folder: &Path) -> Result<(), String> {
    for (depth, above) in folder.ancestors().enumerate() {
        let is =
            fs::metadata(above).map_err(|e| format!("cannot look at {}: {e}", above.display()))?;
        // In a folder such as /tmp nobody moves what is another's.
        let sticky = depth > 0 && is.mode() & 0o1000 != 0 && is.uid() == 0;
        if !sticky {
            ours_alone(above, &is)?;
        }
    }
    Ok(())
}

fn ours_alone(path: &Path, is: &Metadata) -> Result<(), String> {
    let own = user::effective_uid();
    if is.uid() != 0 && is.uid() != own {
        return Err(format!(
            "{} belongs to the user {}, and what it holds would run as the agent: chown it to root",
            path.display(),
            is.uid()
        ));
    }
    if is.mode() & 0o022 != 0 {
        return Err(format!(
            "others may write to {} (mode {:04o}): chmod go-w",
            path.display(),
            is.mode() & 0o7777
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_what_nobody_else_can_change_is_fit() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(scan(&folder.path().join("none")), Ok(Vec::new()));
        let put = |name: &str, bits| {
            fs::write(folder.path().join(name), "#!/bin/sh\n").unwrap();
            mode(&folder.path().join(name), bits);
        };
        put("good", 0o755);
        put("group", 0o775);
        put("others", 0o757);
        put("note.txt", 0o644);
        put(".hidden", 0o755);
        put("old~", 0o755);
        fs::create_dir(folder.path().join("lib")).unwrap();
        symlink("good", folder.path().join("link")).unwrap();
        let look = || {
            let found = scan(folder.path()).unwrap();
            let said = |f: Found| (f.name, f.unfit.unwrap_or_default());
            found.into_iter().map(said).collect::<Vec<_>>()
        };
        let found = look();
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["good", "group", "link", "others"]);
        assert_eq!(found[0].1, "");
        assert!(found[1].1.contains("0775"), "{}", found[1].1);
        assert!(found[2].1.contains("symbolic link"), "{}", found[2].1);
        assert!(found[3].1.contains("chmod go-w"), "{}", found[3].1);
        mode(folder.path(), 0o777);
        assert!(look()[0].1.contains("0777"));
        // Sticky helps the folder above, where another cannot move it away, and not the one that takes new programs.
        mode(folder.path(), 0o1777);
        assert!(look()[0].1.contains("1777"));
        mode(folder.path(), 0o755);
        if user::effective_uid() == 0 {
            std::os::unix::fs::chown(folder.path().join("good"), Some(12_345), None).unwrap();
            assert!(look()[0].1.contains("the user 12345"));
        }
    }
}
