//! The file beside a target that its content is fetched into.

use crate::sys::dir::Dir;
use crate::sys::user;
use std::ffi::{OsStr, OsString};
use std::fs::{File, FileTimes, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::SystemTime;

/// Between the target's name and the hash.
const MARK: &str = ".triton-";
/// Digits of the content's hash.
const DIGITS: usize = 12;
/// Longest beginning of the target's name, in bytes: with the rest it is a name.
const NAME: usize = 255 - 1 - MARK.len() - DIGITS;

/// `.NAME.triton-HASH`: so that the same content for the same target finds what is there.
pub fn name(target: &str, sha256: &str) -> OsString {
    let mut end = target.len().min(NAME);
    while !target.is_char_boundary(end) {
        end -= 1;
    }
    let digits = sha256.get(..DIGITS).unwrap_or_default();
    format!(".{}{MARK}{digits}", &target[..end]).into()
}

/// Whether a name is of that form.
pub fn is_temporary(name: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    name.starts_with('.')
        && name
            .rsplit_once(MARK)
            .is_some_and(|(_, digits)| digits.len() == DIGITS && digits.bytes().all(hex))
}

/// A file that goes away, unless it takes its target's place.
#[derive(Debug)]
pub struct Temporary<'a> {
    dir: &'a Dir,
    name: OsString,
    pub file: File,
    /// Bytes that an agent that died has left in it.
    pub there: u64,
    placed: bool,
}

impl<'a> Temporary<'a> {
    /// Makes it, or takes up the one that is there.
    pub fn open(dir: &'a Dir, name: OsString) -> io::Result<Self> {
        let (file, there) = match dir.create(&name) {
            Ok(file) => (file, 0),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if let Some(found) = take_up(dir, &name)? {
                    found
                } else {
                    dir.remove(&name)?;
                    (dir.create(&name)?, 0)
                }
            }
            Err(e) => return Err(e),
        };
        Ok(Self {
            dir,
            name,
            file,
            there,
            placed: false,
        })
    }

    /// Syncs it and gives it its target's name.
    pub fn place(mut self, target: &OsStr) -> io::Result<()> {
        self.file.sync_all()?;
        self.dir.rename(&self.name, target)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if self.placed {
            return;
        }
        if let Err(e) = self.dir.remove(&self.name) {
            log::warn!("the temporary file {} stays: {e}", self.name.display());
        }
    }
}

/// One that nobody else can have a hand in: what is in it is to become a file that is trusted.
fn take_up(dir: &Dir, name: &OsStr) -> io::Result<Option<(File, u64)>> {
    let ours = |m: &Metadata| {
        m.is_file()
            && m.nlink() == 1
            && m.uid() == user::effective_uid()
            && m.mode() & 0o7777 == 0o600
    };
    if !dir.look(name)?.is_some_and(|m| ours(&m)) {
        return Ok(None);
    }
    let file = dir.write(name)?;
    let metadata = file.metadata()?;
    if !ours(&metadata) {
        return Ok(None);
    }
    // It is not left over any more.
    file.set_times(FileTimes::new().set_modified(SystemTime::now()))?;
    Ok(Some((file, metadata.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const HASH: &str = "0123456789abcdef";

    #[test]
    fn names_are_known_again_and_fit() {
        for target in ["x", ".x", "x.triton-0123456789ab", &"ä".repeat(127)] {
            let name = name(target, HASH).into_string().unwrap();
            assert!(is_temporary(&name), "{name}");
            assert!(name.len() <= 255);
        }
        assert_eq!(name("x", HASH), ".x.triton-0123456789ab");
        for other in [
            "x",
            ".x",
            "x.triton-0123456789ab",
            ".x.triton-0123456789a",
            ".x.triton-0123456789aB",
            ".triton-",
            "",
        ] {
            assert!(!is_temporary(other), "{other}");
        }
    }

    #[test]
    fn one_that_is_ours_is_taken_up_and_any_other_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let dir = Dir::open(folder.path()).unwrap();
        let name = name("x", HASH);
        let path = folder.path().join(&name);
        let there = || Temporary::open(&dir, name.clone()).unwrap().there;
        let mode = |mode| fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();

        fs::write(&path, "abc").unwrap();
        mode(0o600);
        assert_eq!(there(), 3);
        assert!(!path.exists());

        fs::write(&path, "abc").unwrap();
        mode(0o666);
        assert_eq!(there(), 0, "others could write to it");

        fs::write(folder.path().join("other"), "abc").unwrap();
        fs::set_permissions(
            folder.path().join("other"),
            PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        fs::hard_link(folder.path().join("other"), &path).unwrap();
        assert_eq!(there(), 0, "it has another name");
        std::os::unix::fs::symlink("other", &path).unwrap();
        assert_eq!(there(), 0, "it is a link");
        assert_eq!(fs::read(folder.path().join("other")).unwrap(), b"abc");

        let temporary = Temporary::open(&dir, name.clone()).unwrap();
        temporary.place(OsStr::new("x")).unwrap();
        assert!(folder.path().join("x").exists() && !path.exists());
    }
}
