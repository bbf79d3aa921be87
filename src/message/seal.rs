//! Sealed content: only who asked for it can read it. `docs/protocol.md`, section 10; this does no I/O.
//!
//! Each side makes an X25519 key for one question or answer. Who they are is said by the signatures of the messages
//! that carry these keys, not here.

use super::text;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::SystemRandom;
use std::fmt;

/// Hex digits of a SHA-256.
const HASH: usize = 64;
/// What the key is made for.
const PURPOSE: &[u8] = b"triton-sealed\0";

/// A key of one question. It has no second use.
pub struct Ephemeral {
    private: EphemeralPrivateKey,
    public: [u8; 32],
}

impl fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ephemeral")
    }
}

impl Ephemeral {
    /// A new one.
    pub fn random() -> Result<Self, String> {
        let failed = |_| "no random bytes for a key".to_owned();
        let private =
            EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(failed)?;
        let computed = private.compute_public_key().map_err(failed)?;
        let mut public = [0; 32];
        public.copy_from_slice(computed.as_ref());
        Ok(Self { private, public })
    }

    /// What the other side gets, in base64.
    pub fn public(&self) -> String {
        text::encode(&self.public)
    }

    /// Reads what was sealed to this key by the owner of `key`, the SHA-256 of the whole content and this piece of it; `None` where it was changed, or meant for something else.
    pub fn open(
        self,
        key: &str,
        sealed: &str,
        reference: &str,
        offset: u64,
    ) -> Option<(String, Vec<u8>)> {
        let peer = read_key(key)?;
        let mut bytes = text::decode(sealed)?;
        let own = self.public;
        let cipher = cipher(self.private, &peer, &own, &peer)?;
        let about = about(reference, offset);
        let length = cipher
            .open_in_place(nonce(), Aad::from(about), &mut bytes)
            .ok()?
            .len();
        bytes.truncate(length);
        if bytes.len() < HASH {
            return None;
        }
        let content = bytes.split_off(HASH);
        Some((String::from_utf8(bytes).ok()?, content))
    }
}

/// Content that only the owner of one key can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The key that was made for it, in base64.
    pub key: String,
    /// The content, in base64.
    pub sealed: String,
}

/// Seals a piece of content, and `sha256` of all of it in hex, to the device's `key`; an error where that is none.
pub fn seal(
    key: &str,
    sha256: &str,
    content: &[u8],
    reference: &str,
    offset: u64,
) -> Result<Sealed, String> {
    if sha256.len() != HASH {
        return Err("the hash of the content is none".to_owned());
    }
    let device = read_key(key).ok_or("the key is not base64 of 32 bytes")?;
    let own = Ephemeral::random()?;
    let (public, shown) = (own.public, own.public());
    let failed = || "nothing can be sealed to this key".to_owned();
    let cipher = cipher(own.private, &device, &device, &public).ok_or_else(failed)?;
    let mut bytes = [sha256.as_bytes(), content].concat();
    cipher
        .seal_in_place_append_tag(nonce(), Aad::from(about(reference, offset)), &mut bytes)
        .map_err(|_| failed())?;
    Ok(Sealed {
        key: shown,
        sealed: text::encode(&bytes),
    })
}

fn read_key(text: &str) -> Option<[u8; 32]> {
    text::decode(text)?.try_into().ok()
}

/// The key is used once, so that any nonce does.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn about(reference: &str, offset: u64) -> Vec<u8> {
    format!("{reference}\0{offset}\0").into_bytes()
}

fn cipher(
    private: EphemeralPrivateKey,
    peer: &[u8; 32],
    device: &[u8; 32],
    poseidon: &[u8; 32],
) -> Option<LessSafeKey> {
    // A key of a small group, which would make the secret a known one, is refused by ring.
    agree_ephemeral(private, &UnparsedPublicKey::new(&X25519, peer), |shared| {
        let extracted = Salt::new(HKDF_SHA256, &[]).extract(shared);
        let info = [PURPOSE, device, poseidon];
        let key = extracted.expand(&info, &CHACHA20_POLY1305).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    })
    .ok()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> (Ephemeral, Sealed) {
        let device = Ephemeral::random().unwrap();
        let sealed = seal(&device.public(), &"ab".repeat(32), b"hush", "wifi/key", 7).unwrap();
        (device, sealed)
    }

    #[test]
    fn only_the_key_that_asked_opens_it_and_only_as_what_it_is() {
        let (device, one) = sealed();
        let open = |device: Ephemeral, key: &str, content: &str, name: &str, at| {
            device.open(key, content, name, at)
        };
        assert_eq!(
            open(device, &one.key, &one.sealed, "wifi/key", 7),
            Some(("ab".repeat(32), b"hush".to_vec()))
        );
        let wrong = |name: &str, at: u64, change: &dyn Fn(&mut Sealed)| {
            let (device, mut one) = sealed();
            change(&mut one);
            device.open(&one.key, &one.sealed, name, at)
        };
        assert_eq!(wrong("wifi/kex", 7, &|_| {}), None);
        assert_eq!(wrong("wifi/key", 8, &|_| {}), None);
        assert_eq!(wrong("wifi/key", 7, &|s| s.key = sealed().1.key), None);
        assert_eq!(
            wrong("wifi/key", 7, &|s| s.sealed = sealed().1.sealed),
            None
        );
        assert_eq!(wrong("wifi/key", 7, &|s| s.sealed.truncate(8)), None);
        assert_eq!(wrong("wifi/key", 7, &|s| s.sealed.clear()), None);
        assert_eq!(wrong("wifi/key", 7, &|s| s.key = "*".to_owned()), None);
        let (other, _) = sealed();
        let (_, one) = sealed();
        assert_eq!(other.open(&one.key, &one.sealed, "wifi/key", 7), None);
    }

    #[test]
    fn a_key_that_makes_the_secret_known_is_refused() {
        let zero = text::encode(&[0; 32]);
        let hash = "ab".repeat(32);
        assert!(seal(&zero, &hash, b"hush", "x", 0).is_err());
        assert!(seal("", &hash, b"hush", "x", 0).is_err());
        assert!(seal(&sealed().0.public(), "", b"hush", "x", 0).is_err());
        assert!(!sealed().1.sealed.contains(&text::encode(b"hush")));
    }
}
