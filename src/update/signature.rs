//! Who may replace the program: Ed25519 keys (RFC 8032) that the device trusts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};

/// What a signature is over begins with this, so that none that was made for something else counts.
const PURPOSE: &str = "triton-update";

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads one in base64.
    pub fn parse(text: &str) -> Result<Self, String> {
        crate::config::public_key(text).map(Self)
    }
}

/// What is signed of a program.
pub fn signed_text(sha256: &str, version: &str) -> String {
    format!("{PURPOSE}\0{sha256}\0{version}")
}

/// Whether one of `keys` has signed this program.
pub fn is_signed(keys: &[PublicKey], sha256: &str, version: &str, signature: &str) -> bool {
    let Ok(signature) = STANDARD.decode(signature.trim()) else {
        return false;
    };
    let text = signed_text(sha256, version);
    keys.iter().any(|key| {
        UnparsedPublicKey::new(&ED25519, &key.0)
            .verify(text.as_bytes(), &signature)
            .is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    #[test]
    fn only_a_trusted_key_over_this_very_program_counts() {
        let pair = |seed: u8| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = |pair: &Ed25519KeyPair| {
            PublicKey::parse(&STANDARD.encode(pair.public_key().as_ref())).unwrap()
        };
        let (mine, other) = (pair(1), pair(2));
        let keys = [public(&mine)];
        let sign = |pair: &Ed25519KeyPair, text: &str| STANDARD.encode(pair.sign(text.as_bytes()));
        let good = sign(&mine, &signed_text("ab", "1.2.3"));
        assert!(is_signed(&keys, "ab", "1.2.3", &good));
        assert!(is_signed(
            &[public(&other), public(&mine)],
            "ab",
            "1.2.3",
            &good
        ));
        assert!(!is_signed(&keys, "ac", "1.2.3", &good));
        assert!(!is_signed(&keys, "ab", "1.2.4", &good));
        assert!(!is_signed(&[public(&other)], "ab", "1.2.3", &good));
        assert!(!is_signed(&[], "ab", "1.2.3", &good));
        assert!(!is_signed(&keys, "ab", "1.2.3", &sign(&mine, "ab1.2.3")));
        for wrong in ["", "*", "AAAA", &good[..10]] {
            assert!(!is_signed(&keys, "ab", "1.2.3", wrong), "{wrong}");
        }
        for wrong in ["", "*", "AAAA", &"A".repeat(44)] {
            assert!(PublicKey::parse(wrong).is_err(), "{wrong}");
        }
    }
}
