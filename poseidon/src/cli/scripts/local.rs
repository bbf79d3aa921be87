//! Files of this machine that become scripts.

use crate::blobs::sha256;
use crate::repositories::manifest::{MAX_FILES, SCRIPT_BYTES, check_path, default_mode};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Deepest folder that is read: no path in a repository has more levels.
const MAX_DEPTH: usize = 8;

/// A file that becomes a script.
pub(super) struct Local {
    /// Where it is here.
    pub from: PathBuf,
    /// Its path in the repository.
    pub path: String,
    pub sha256: String,
    pub size: u64,
    pub mode: u32,
}

/// All files that are named, or are in folders that are named; and what was left out because its name begins with a dot.
pub(super) fn find(
    files: &[PathBuf],
    as_path: Option<&str>,
    mode: Option<u32>,
) -> Result<(Vec<Local>, Vec<PathBuf>), String> {
    let mut found = BTreeMap::new();
    let mut skipped = Vec::new();
    let single = files.len() == 1;
    for named in files {
        let metadata = std::fs::metadata(named).map_err(|e| unreadable(named, &e))?;
        if metadata.is_dir() {
            walk(named, as_path.unwrap_or(""), 0, &mut found, &mut skipped)?;
            continue;
        }
        let path = match as_path {
            Some(path) if single && !path.ends_with('/') => path.to_owned(),
            folder => join(folder.unwrap_or(""), &name_of(named)?),
        };
        add(&mut found, path, named.clone())?;
    }
    if found.is_empty() {
        return Err("there is no file to put".to_owned());
    }
    let found = found.into_iter();
    let read: Result<_, String> = found.map(|(path, from)| read(path, from, mode)).collect();
    Ok((read?, skipped))
}

fn walk(
    folder: &Path,
    prefix: &str,
    depth: usize,
    found: &mut BTreeMap<String, PathBuf>,
    skipped: &mut Vec<PathBuf>,
) -> Result<(), String> {
    if depth >= MAX_DEPTH {
        return Err(format!(
            "{} is too deep: a script is at most {MAX_DEPTH} levels down",
            folder.display()
        ));
    }
    for entry in std::fs::read_dir(folder).map_err(|e| unreadable(folder, &e))? {
        let entry = entry.map_err(|e| unreadable(folder, &e))?;
        let from = entry.path();
        let kind = entry.file_type().map_err(|e| unreadable(&from, &e))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            skipped.push(from);
            continue;
        }
        let path = join(prefix, &name_of(&from)?);
        if kind.is_dir() {
            walk(&from, &path, depth + 1, found, skipped)?;
        } else if kind.is_file() {
            add(found, path, from)?;
        } else {
            return Err(format!(
                "{} is a symbolic link or a special file: scripts are plain files",
                from.display()
            ));
        }
    }
    Ok(())
}

fn add(found: &mut BTreeMap<String, PathBuf>, path: String, from: PathBuf) -> Result<(), String> {
    check_path(&path).map_err(|e| format!("{}: {e}", from.display()))?;
    if let Some(other) = found.insert(path.clone(), from.clone()) {
        return Err(format!(
            "{} and {} would both be {path}",
            other.display(),
            from.display()
        ));
    }
    if found.len() > MAX_FILES {
        return Err(format!("these are more than {MAX_FILES} files"));
    }
    Ok(())
}

fn read(path: String, from: PathBuf, mode: Option<u32>) -> Result<Local, String> {
    let failed = |e: &std::io::Error| unreadable(&from, e);
    let file = std::fs::File::open(&from).map_err(|e| failed(&e))?;
    let executable = file.metadata().map_err(|e| failed(&e))?.mode() & 0o111 != 0;
    let mut content = Vec::new();
    file.take(SCRIPT_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(|e| failed(&e))?;
    if content.len() as u64 > SCRIPT_BYTES {
        return Err(format!(
            "{} has more than {SCRIPT_BYTES} bytes, which is the most that a script has",
            from.display()
        ));
    }
    let default = if executable {
        0o755
    } else {
        default_mode(&content)
    };
    Ok(Local {
        path,
        sha256: sha256(&content),
        size: content.len() as u64,
        mode: mode.unwrap_or(default),
        from,
    })
}

fn join(folder: &str, name: &str) -> String {
    match folder.trim_end_matches('/') {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    }
}

fn name_of(path: &Path) -> Result<String, String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| {
        format!(
            "{} has no name that a script can have; give one with --as",
            path.display()
        )
    })
}

fn unreadable(path: &Path, e: &std::io::Error) -> String {
    format!("cannot read {}: {e}", path.display())
}
