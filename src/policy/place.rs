//! Where paths lead.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Where a path really is: by the symbolic links on the way and at its end, as far as there is something.
pub fn real(path: &Path) -> PathBuf {
    for above in path.ancestors() {
        if let Ok(found) = fs::canonicalize(above) {
            return match path.strip_prefix(above) {
                Ok(rest) if !rest.as_os_str().is_empty() => found.join(rest),
                _ => found,
            };
        }
    }
    path.to_owned()
}

/// Whether this is an absolute path whose parts are what they look like.
pub fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// Whether the kernel has this of one of the agent's threads, each of which has its number.
pub fn is_of_this_process(path: &Path) -> bool {
    let number = path
        .strip_prefix("/proc")
        .ok()
        .and_then(|p| p.iter().next());
    let number = number.and_then(|number| number.to_str()?.parse::<u32>().ok());
    number.is_some_and(|number| {
        Path::new("/proc/self/task")
            .join(number.to_string())
            .exists()
    })
}

/// Whether `path` is at or below `prefix`, by whole parts; for a `tree` also whether `prefix` is in it.
pub fn concerns(prefix: &Path, path: &Path, tree: bool) -> bool {
    path.starts_with(prefix) || tree && prefix.starts_with(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_whole_parts() {
        let said =
            |prefix: &str, path: &str, tree| concerns(Path::new(prefix), Path::new(path), tree);
        assert!(said("/etc/config", "/etc/config", false));
        assert!(said("/etc/config", "/etc/config/network", false));
        assert!(!said("/etc/config", "/etc/configs", false));
        assert!(!said("/etc/config", "/etc", false));
        assert!(said("/etc/config", "/etc", true));
        assert!(!said("/etc/config", "/etcetera", true));
        assert!(said("/", "/x", false));
        for wrong in ["a", "", "/a/../b", "../a"] {
            assert!(!is_plain(Path::new(wrong)), "{wrong}");
        }
    }

    #[test]
    fn links_are_followed_as_far_as_there_is_something() {
        let folder = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir(base.join("a")).unwrap();
        std::os::unix::fs::symlink("a", base.join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", base.join("broken")).unwrap();
        assert_eq!(real(&base.join("link")), base.join("a"));
        assert_eq!(real(&base.join("link/x/y")), base.join("a/x/y"));
        assert_eq!(real(&base.join("broken/x")), base.join("broken/x"));
        assert_eq!(real(Path::new("/")), Path::new("/"));
    }
}
