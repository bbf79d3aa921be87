//! Who this agent is: its identifier (API key) and its instance id.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::message::id;
use crate::secret::Secret;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Longest identifier, in bytes: it must fit a request header.
pub const IDENTIFIER_LIMIT: usize = 1_024;
/// Random bytes of a generated one.
const GENERATED_BYTES: usize = 32;

/// The identifier. It has no `Display`, and its `Debug` shows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identifier(Secret);

impl Identifier {
    /// Checks and wraps.
    pub fn new(text: &str) -> Result<Self, String> {
        check_identifier(text)?;
        Ok(Self(Secret::new(text)))
    }

    /// The secret itself, for the connection and `triton identifier` only.
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    /// What may be shown: the first 16 hex digits of its SHA-256. Poseidon lists pending identifiers by it.
    pub fn fingerprint(&self) -> String {
        id::hex(&Sha256::digest(self.0.reveal().as_bytes())[..8])
    }
}

/// Whether `text` can be an identifier: it has to fit a header and a path.
pub fn check_identifier(text: &str) -> Result<(), String> {
    if !text.is_empty()
        && text.len() <= IDENTIFIER_LIMIT
        && text.bytes().all(|b| b.is_ascii_graphic())
    {
        return Ok(());
    }
    Err(format!(
        "expected an identifier of 1 to {IDENTIFIER_LIMIT} visible ASCII characters without spaces"
    ))
}

/// Where an identifier came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The configuration or the environment.
    Given,
    /// A file that someone provided.
    File(PathBuf),
    /// The file in the state folder, made by this agent.
    Generated(PathBuf),
}

/// The identifier that `config` leads to; generated where none is provided and none was generated before.
pub fn identifier(config: &Config) -> Result<(Identifier, Source)> {
    if let Some(text) = &config.identifier {
        let identifier = Identifier::new(text).map_err(Error::new)?;
        return Ok((identifier, Source::Given));
    }
    if let Some(path) = &config.identifier_file {
        let identifier = read_identifier(path)?;
        return Ok((identifier, Source::File(path.clone())));
    }
    let path = config.state.join("identifier");
    create_folder(&config.state)?;
    let generate = || {
        let mut bytes = [0; GENERATED_BYTES];
        getrandom::fill(&mut bytes).map(|()| id::hex(&bytes))
    };
    ensure(&path, generate)?;
    Ok((read_identifier(&path)?, Source::Generated(path)))
}

/// Which installation this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Random, made once per installation, so that several agents can share an identifier.
    pub id: String,
    /// Why the id is known to this process only, and will be another one at its next start.
    pub fleeting: Option<String>,
}

/// The instance, made where there is none yet. A state folder that cannot be used gives one that only this process
/// knows: a device whose disk fails has to be reachable all the more.
pub fn instance(state: &Path) -> Result<Instance> {
    let path = state.join("instance");
    let kept = create_folder(state)
        .and_then(|()| ensure(&path, || Ok(id::random())))
        .and_then(|()| read_small(&path));
    let text = match kept {
        Ok(text) => text,
        Err(error) => {
            return Ok(Instance {
                id: id::random(),
                fleeting: Some(error.to_string()),
            });
        }
    };
    if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Instance {
            id: text,
            fleeting: None,
        });
    }
    Err(Error::new(format!(
        "{} is damaged: expected 32 hex digits; remove it, and the agent is a new instance",
        path.display()
    )))
}

fn read_identifier(path: &Path) -> Result<Identifier> {
    let text = read_small(path)?;
    let wrong = |reason| Error::new(format!("{}: {reason}", path.display()));
    let identifier = Identifier::new(&text).map_err(wrong)?;
    let mode = fs::metadata(path).map_or(0, |m| m.mode());
    if mode & 0o077 != 0 {
        log::warn!(
            "{} holds the identifier and others may use it (mode {:03o}): chmod 600 it",
            path.display(),
            mode & 0o777
        );
    }
    Ok(identifier)
}

fn read_small(path: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| {
            file.take(IDENTIFIER_LIMIT as u64 + 16)
                .read_to_string(&mut text)
        })
        .map_err(|e| Error::at("read", path, e))?;
    Ok(text.trim().to_owned())
}

/// Creates the folder of secrets, and its parents, for its owner only.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| {
            let hint = if e.kind() == io::ErrorKind::PermissionDenied {
                " (run as root, or name another folder with --state)"
            } else {
                ""
            };
            Error::because(
                format!("cannot create the state folder {}{hint}", path.display()),
                e,
            )
        })
}

/// Creates the file unless it exists, whole or not at all, 0600, durable.
fn ensure(path: &Path, content: impl FnOnce() -> Result<String, getrandom::Error>) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let content = content().map_err(|e| {
        Error::because(
            format!("no random bytes for {}", path.display()),
            e.to_string(),
        )
    })?;
    let temporary = path.with_extension(format!("new.{}", std::process::id()));
    let created = create_whole(&temporary, path, &content);
    let _ = fs::remove_file(&temporary);
    created.map_err(|e| Error::at("create", path, e))
}

fn create_whole(temporary: &Path, path: &Path, content: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)?;
    writeln!(file, "{content}")?;
    file.sync_all()?;
    // Unlike a rename, a link does not replace what another process created meanwhile.
    match fs::hard_link(temporary, path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        // A file system without links, such as FAT: nothing better than a rename.
        Err(_) => fs::rename(temporary, path)?,
    }
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(state: &Path) -> Config {
        Config {
            state: state.to_owned(),
            ..Config::default()
        }
    }

    #[test]
    fn a_generated_identifier_is_256_bits_private_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a/b");
        let (first, source) = identifier(&config(&state)).unwrap();
        assert_eq!(first.secret().reveal().len(), 64);
        let path = state.join("identifier");
        assert_eq!(source, Source::Generated(path.clone()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
        assert_eq!(identifier(&config(&state)).unwrap().0, first);
        assert_eq!(
            fs::read_dir(&state).unwrap().count(),
            1,
            "nothing temporary stays"
        );
        assert!(!format!("{first:?}").contains(&first.secret().reveal()[..4]));
    }

    #[test]
    fn many_processes_at_once_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let seen: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|n| {
                    let path = &path;
                    scope.spawn(move || {
                        // Threads share the process id: give each its own temporary name.
                        let temporary = path.with_extension(n.to_string());
                        create_whole(&temporary, path, &format!("from {n}")).unwrap();
                        read_small(path).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(seen.iter().all(|text| *text == seen[0]), "{seen:?}");
    }

    #[test]
    fn provided_ones_win_and_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, "secret-key\n").unwrap();
        let mut config = config(folder.path());
        config.identifier_file = Some(file.clone());
        assert_eq!(
            identifier(&config).unwrap().0.secret().reveal(),
            "secret-key"
        );
        config.identifier = Some("given".into());
        assert_eq!(identifier(&config).unwrap().0.secret().reveal(), "given");
        config.identifier = None;
        fs::write(&file, "two words\n").unwrap();
        let error = identifier(&config).unwrap_err().to_string();
        assert!(
            error.contains("key: expected an identifier") && !error.contains("two words"),
            "{error}"
        );
        fs::write(&file, "").unwrap();
        assert!(identifier(&config).is_err());
        fs::write(&file, vec![b'x'; 5_000]).unwrap();
        assert!(identifier(&config).is_err());
    }

    #[test]
    fn an_instance_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = instance(folder.path()).unwrap();
        assert_eq!(first.fleeting, None);
        assert_eq!(instance(folder.path()).unwrap(), first);
        fs::write(folder.path().join("instance"), "x").unwrap();
        assert!(
            instance(folder.path())
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
    }

    #[test]
    fn a_folder_that_cannot_be_used_gives_an_instance_for_this_process() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let first = instance(&file.join("state")).unwrap();
        assert_eq!(first.id.len(), 32);
        assert!(first.fleeting.unwrap().contains("file/state"));
        // An identifier, though, is not made up: nobody could let the next one in beforehand.
        assert!(identifier(&config(&file.join("state"))).is_err());
    }
}
