//! Secrets at rest: encrypted with ChaCha20-Poly1305, each with a nonce of its own and bound to its identifier and name.
//!
//! The key is in a file beside the database, or elsewhere. A file may have several keys, one a line: the first is the one
//! that is encrypted with. What is stored under another is encrypted anew at the start; so a key is changed by a file
//! with the new one first, and a crash on the way loses nothing.

use crate::server::data::{DataDir, write_whole};
use crate::store::named::{Content, NamedStore as _, Sealed};
use crate::store::sqlite::Sqlite;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use triton::message::id::hex;

/// The file with the key in the data folder.
pub const FILE: &str = "secret.key";
/// What a line begins with.
const PREFIX: &str = "poseidon-secret-key-1";
/// Bytes of a key.
const KEY: usize = 32;
/// Keys that one file may have.
const MAX_KEYS: usize = 16;
/// Largest file.
const MAX_FILE: u64 = 16 << 10;
/// Digits of a key's id.
const ID: usize = 16;

/// One key.
struct Key {
    id: String,
    bytes: [u8; KEY],
}

impl Key {
    fn new(bytes: [u8; KEY]) -> Self {
        let mut digest = Sha256::new();
        digest.update(b"poseidon secret key\n");
        digest.update(bytes);
        let mut id = hex(&digest.finalize());
        id.truncate(ID);
        Self { id, bytes }
    }

    fn random() -> Result<Self, String> {
        let mut bytes = [0; KEY];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| "the system has no random numbers".to_owned())?;
        Ok(Self::new(bytes))
    }

    fn line(&self) -> String {
        format!("{PREFIX} {}", hex(&self.bytes))
    }

    fn cipher(&self) -> Option<LessSafeKey> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.bytes).ok()?;
        Some(LessSafeKey::new(key))
    }
}

/// The keys of a file. They do not show in logs.
pub struct Keys(Vec<Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|k| &k.id))
            .finish()
    }
}

/// What a secret is bound to: nobody who can write the store gives it to another device, or under another name.
fn bound(identifier: &str, name: &str) -> Aad<Vec<u8>> {
    Aad::from(format!("poseidon secret 1\n{identifier}\n{name}").into_bytes())
}

impl Keys {
    /// Keys of the text of a file.
    fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // The line itself is not told: it may be a key with a typo.
            let wrong = || format!("line {number} is not `{PREFIX}` and 64 hex digits");
            let digits = line.strip_prefix(PREFIX).ok_or_else(wrong)?.trim();
            keys.push(Key::new(read_hex(digits).ok_or_else(wrong)?));
        }
        if keys.is_empty() {
            return Err("there is no key in it".to_owned());
        }
        if keys.len() > MAX_KEYS {
            return Err(format!("there are more than {MAX_KEYS} keys in it"));
        }
        Ok(Self(keys))
    }

    /// Reads a file; `None` where there is none.
    fn read(path: &Path) -> Result<Option<Self>, String> {
        let failed = |e: &dyn fmt::Display| format!("the key file {}: {e}", path.display());
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(&e)),
        };
        if !metadata.is_file() || metadata.len() > MAX_FILE {
            return Err(failed(&"that is no file with a key"));
        }
        if metadata.permissions().mode() & 0o007 != 0 {
            log::warn!(
                "everybody on this machine can read the key file {}: chmod 600 it",
                path.display()
            );
        }
        let text = std::fs::read_to_string(path).map_err(|e| failed(&e))?;
        Self::parse(&text).map(Some).map_err(|e| failed(&e))
    }

    fn current(&self) -> Option<&Key> {
        self.0.first()
    }

    /// Encrypts what belongs under this name to this identifier.
    pub fn seal(&self, identifier: &str, name: &str, secret: &[u8]) -> Result<Sealed, String> {
        let failed = || "the secret cannot be encrypted".to_owned();
        let key = self.current().ok_or_else(failed)?;
        let cipher = key.cipher().ok_or_else(failed)?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| failed())?;
        let mut sealed = secret.to_vec();
        cipher
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                bound(identifier, name),
                &mut sealed,
            )
            .map_err(|_| failed())?;
        let mut bytes = nonce.to_vec();
        bytes.append(&mut sealed);
        Ok(Sealed {
            key: key.id.clone(),
            bytes,
        })
    }

    /// Decrypts it.
    pub fn open(&self, identifier: &str, name: &str, sealed: &Sealed) -> Result<Vec<u8>, String> {
        let key = self.0.iter().find(|key| key.id == sealed.key);
        let key = key.ok_or_else(|| {
            format!(
                "it is encrypted with the key {}, which is not in the key file",
                sealed.key
            )
        })?;
        let failed = || "it was changed in the store, or belongs elsewhere".to_owned();
        let (nonce, text) = sealed
            .bytes
            .split_at_checked(NONCE_LEN)
            .ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut bytes = text.to_vec();
        let cipher = key.cipher().ok_or_else(failed)?;
        let opened = cipher
            .open_in_place(nonce, bound(identifier, name), &mut bytes)
            .map_err(|_| failed())?
            .len();
        bytes.truncate(opened);
        Ok(bytes)
    }
}

fn read_hex(digits: &str) -> Option<[u8; KEY]> {
    if digits.len() != 2 * KEY || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; KEY];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Where the key is.
fn place(data: &DataDir, file: Option<&Path>) -> PathBuf {
    file.map_or_else(|| data.path().join(FILE), Path::to_path_buf)
}

/// Finds the keys, or makes one where nothing is encrypted yet; then everything is encrypted with the first, and what was
/// plain is written over. An error says which file is wrong: without its key the server does not start, for it could
/// give devices no secrets, and would make a new key that nobody has a copy of.
pub fn prepare(data: &DataDir, file: Option<&Path>, store: &mut Sqlite) -> Result<Keys, String> {
    let path = place(data, file);
    let stored = store.secrets().map_err(|e| e.to_string())?;
    let keys = match Keys::read(&path)? {
        Some(keys) => keys,
        None if file.is_some() => {
            return Err(format!(
                "the key file {} is not there. Make one with: (umask 077; echo {PREFIX} $(openssl rand -hex 32) > FILE)",
                path.display()
            ));
        }
        None => {
            if let Some(first) = stored.iter().find_map(|secret| secret.sealed_key()) {
                return Err(format!(
                    "the key file {} is not there, and secrets are encrypted with its key {first}: put it back, or give it with --secret-key-file",
                    path.display()
                ));
            }
            let key = Key::random()?;
            write_whole(&path, &key.line())
                .map_err(|e| format!("cannot write the key file {}: {e}", path.display()))?;
            Keys(vec![key])
        }
    };
    let failed = |identifier: &str, name: &str, e: String| {
        format!(
            "the key file {} does not fit the secret {name} of {}: {e}. Give the right one with --secret-key-file",
            path.display(),
            crate::agents::fingerprint(identifier)
        )
    };
    let current = keys.current().map(|key| key.id.clone());
    let mut renewed = Vec::new();
    for secret in stored {
        let (identifier, name) = (&secret.identifier, &secret.name);
        let plain = match &secret.content {
            Content::Value(plain) => plain.clone(),
            Content::Sealed(sealed) => {
                let plain = keys
                    .open(identifier, name, sealed)
                    .map_err(|e| failed(identifier, name, e))?;
                if Some(&sealed.key) == current.as_ref() {
                    continue;
                }
                plain
            }
            Content::Blob(_) => {
                return Err(format!(
                    "the secret {name} is in a blob, where none belongs"
                ));
            }
        };
        let sealed = keys.seal(identifier, name, &plain)?;
        renewed.push((secret.identifier, secret.name, sealed));
    }
    let count = renewed.len();
    if count > 0 {
        store
            .reseal(&renewed)
            .map_err(|e| format!("the secrets cannot be encrypted: {e}"))?;
        log::info!(
            "encrypted {count} secrets with the key {}",
            current.unwrap_or_default()
        );
    }
    // A full disk, say: the next start tries again.
    if let Err(e) = store.scrub() {
        log::warn!("free pages of the database may still hold plain secrets of before: {e}");
    }
    Ok(keys)
}

/// What a rotation did.
pub struct Rotated {
    /// Id of the new key.
    pub key: String,
    /// Where it is.
    pub file: PathBuf,
    /// How many secrets are encrypted with it.
    pub secrets: usize,
}

/// Encrypts all secrets with a new key. After a crash on the way the file has both keys, and the next start goes on.
pub fn rotate(data: &Path, file: Option<&Path>) -> Result<Rotated, String> {
    if !data.join("poseidon.db").exists() {
        return Err(format!("there is no store in {}", data.display()));
    }
    let data = DataDir::open(data)?;
    let path = place(&data, file);
    let failed = |e: io::Error| format!("cannot write the key file {}: {e}", path.display());
    let mut store = Sqlite::open(&data.path().join("poseidon.db")).map_err(|e| e.to_string())?;
    // The old keys must fit before anything is written.
    let old = prepare(&data, file, &mut store)?;
    if old.0.len() >= MAX_KEYS {
        return Err(format!(
            "the key file {} has {MAX_KEYS} keys already, and all secrets are encrypted with the first: take the others away, \
             then there is room for a new one",
            path.display()
        ));
    }
    let new = Key::random()?;
    let lines: Vec<String> = std::iter::once(&new).chain(&old.0).map(Key::line).collect();
    write_whole(&path, &lines.join("\n")).map_err(failed)?;
    prepare(&data, file, &mut store)?;
    let secrets = store.secrets().map_err(|e| e.to_string())?.len();
    write_whole(&path, &new.line()).map_err(failed)?;
    Ok(Rotated {
        key: new.id,
        file: path,
        secrets,
    })
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
