//! Signatures: who wrote a message. `docs/protocol.md`, section 10, is the specification; this does no I/O.

use super::Message;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a signature of a message is over begins with this, so that none that was made for something else counts.
const MESSAGE: &str = "triton-message";
/// The same for the proof that one key follows another.
const PROOF: &str = "triton-key";
/// Most proofs in one chain.
pub const CHAIN: usize = 16;
/// Bytes of XML that a signature takes at most.
pub const ROOM: usize = 256;
/// What acts is carried out within so many seconds of its sending, or not at all.
pub const VALID: u32 = 600;
/// The furthest that `until` may lie ahead, in seconds.
pub const LONGEST: u32 = 86_400;

/// The element `signature` of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Id of the key that made it.
    pub key_id: KeyId,
    /// Which request of this connection it is, from 1 up; only on what acts.
    pub number: Option<u32>,
    /// Until when it may be carried out, in whole seconds since `hello`; only on what acts.
    pub until: Option<u32>,
    /// The signature itself.
    pub bytes: [u8; 64],
}

/// The first 16 hex digits of the SHA-256 of a public key: what people compare.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::id::hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0; 8];
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(());
        }
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            let digits = text.get(at..at + 2).ok_or(())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ())?;
        }
        Ok(Self(bytes))
    }
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Its id.
    pub fn id(&self) -> KeyId {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.0);
        let mut id = [0; 8];
        id.copy_from_slice(&digest.as_ref()[..8]);
        KeyId(id)
    }

    /// Whether the owner of this key wrote `message` on the connection whose `hello` has the id `session`.
    pub fn wrote(&self, message: &Message, session: &str) -> bool {
        let Some(signature) = message.signature.as_deref() else {
            return false;
        };
        signature.key_id == self.id()
            && self.signed(
                &text(message, session, signature.number, signature.until),
                &signature.bytes,
            )
    }

    fn signed(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(text, signature)
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        crate::config::public_key(text).map(Self)
    }
}

/// An Ed25519 key with its secret part, which no `Debug` shows.
pub struct SecretKey {
    pair: Ed25519KeyPair,
    seed: [u8; 32],
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public().id())
    }
}

impl SecretKey {
    /// A new one.
    pub fn random() -> Result<Self, String> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| format!("no random bytes for a key: {e}"))?;
        Self::from_seed(seed)
    }

    /// The one that `seed`, base64 of 32 bytes, stands for.
    pub fn parse(seed: &str) -> Result<Self, String> {
        let bytes = STANDARD.decode(seed.trim()).ok();
        let seed = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        Self::from_seed(seed.ok_or("the seed is not base64 of 32 bytes")?)
    }

    fn from_seed(seed: [u8; 32]) -> Result<Self, String> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
            .map_err(|_| "the seed makes no key".to_owned())?;
        Ok(Self { pair, seed })
    }

    /// Its seed in base64: a secret.
    pub fn seed(&self) -> String {
        STANDARD.encode(self.seed)
    }

    /// What others know of it.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Signs `message` for the connection whose `hello` has the id `session`.
    pub fn sign(&self, message: &mut Message, session: &str) {
        self.put(message, session, None, None);
    }

    /// Signs a request that acts: the `number`th of this connection, good `until` so many seconds after `hello`.
    pub fn sign_act(&self, message: &mut Message, session: &str, number: u32, until: u32) {
        self.put(message, session, Some(number), Some(until));
    }

    fn put(&self, message: &mut Message, session: &str, number: Option<u32>, until: Option<u32>) {
        let signed = self.pair.sign(&text(message, session, number, until));
        let mut bytes = [0; 64];
        bytes.copy_from_slice(signed.as_ref());
        message.signature = Some(Box::new(Signature {
            key_id: self.public().id(),
            number,
            until,
            bytes,
        }));
    }

    /// The proof that `next` follows this key.
    pub fn prove(&self, next: &PublicKey) -> Proof {
        let signed = self.pair.sign(proof_text(&next.to_string()).as_bytes());
        Proof {
            public_key: next.to_string(),
            previous: self.public().to_string(),
            signature: STANDARD.encode(signed.as_ref()),
        }
    }
}

/// What is signed of a message. No part can hold a NUL: XML has none.
fn text(message: &Message, session: &str, number: Option<u32>, until: Option<u32>) -> Vec<u8> {
    let decimal = |number: Option<u32>| number.map(|n| n.to_string()).unwrap_or_default();
    let payload = message.payload.as_deref().unwrap_or_default();
    let (version, number, until) = (message.version.to_string(), decimal(number), decimal(until));
    let parts = [
        MESSAGE,
        &message.kind,
        &version,
        &message.id,
        &message.conversation_id,
        "",
        payload,
        session,
        &number,
        &until,
    ];
    let mut text = Vec::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for part in parts {
        text.extend_from_slice(part.as_bytes());
        text.push(0);
    }
    text
}

fn proof_text(next: &str) -> String {
    format!("{PROOF}\0{next}\0")
}

/// That one key follows another, said by the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proof {
    /// The new key.
    pub public_key: String,
    /// The key before, which signed.
    pub previous: String,
    /// Base64.
    pub signature: String,
}

impl Proof {
    /// The keys before and after, where the one before has signed.
    fn check(&self) -> Option<(PublicKey, PublicKey)> {
        let (previous, next) = (self.previous.parse().ok()?, self.public_key.parse().ok()?);
        let previous: PublicKey = previous;
        let signature = STANDARD.decode(&self.signature).ok()?;
        previous
            .signed(proof_text(&self.public_key).as_bytes(), &signature)
            .then_some((previous, next))
    }
}

/// Whether `chain`, oldest first, leads from `from` to `to`. The keys that are left on the way, `from` first; `None` where
/// it leads elsewhere, or one of its proofs on the way is wrong.
pub fn follow(chain: &[Proof], from: &PublicKey, to: &PublicKey) -> Option<Vec<PublicKey>> {
    let mut at = *from;
    let mut left = Vec::new();
    for proof in chain.iter().take(CHAIN) {
        if at == *to {
            break;
        }
        // What stands before the key that is known is of no interest.
        if proof.previous != at.to_string() {
            continue;
        }
        let (previous, next) = proof.check()?;
        left.push(previous);
        at = next;
    }
    (at == *to).then_some(left)
}

/// Whether a message of this type asks for something to be done, so that it has to be signed where keys are pinned. The
/// others tell, or ask what is; new types act until they are listed here.
pub fn acts(kind: &str) -> bool {
    !matches!(
        kind,
        "agent.status"
            | "history.get"
            | "schedule.list"
            | "module.list"
            | "data.request"
            | "data.response"
            | "welcome"
            | "ack"
            | "ping"
            | "pong"
            | "bye"
            | "error"
            | "result"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32]).unwrap()
    }

    fn message() -> Message {
        Message {
            payload: Some("{\"shell\":\"id\"}".to_owned()),
            ..Message::new("command")
        }
    }

    #[test]
    fn a_signature_is_over_every_part() {
        let (mine, other) = (key(1), key(2));
        let mut signed = message();
        mine.sign_act(&mut signed, "session", 7, 600);
        let xml = signed.encode().unwrap();
        let back = Message::decode(xml.as_bytes(), 10_000).unwrap();
        assert_eq!(back, signed);
        assert!(mine.public().wrote(&back, "session"));
        assert!(!other.public().wrote(&back, "session"));
        assert!(!mine.public().wrote(&back, "another"));
        assert!(!mine.public().wrote(&message(), "session"));
        let changes: [&dyn Fn(&mut Message); 9] = [
            &|m| m.kind.push('x'),
            &|m| m.version = 2,
            &|m| m.id.push('x'),
            &|m| m.conversation_id.push('x'),
            &|m| m.payload = Some("{\"shell\":\"id \"}".to_owned()),
            &|m| m.payload = None,
            &|m| m.signature.as_mut().unwrap().number = Some(8),
            &|m| m.signature.as_mut().unwrap().until = None,
            &|m| m.signature.as_mut().unwrap().bytes[3] ^= 1,
        ];
        for (n, change) in changes.iter().enumerate() {
            let mut forged = back.clone();
            change(&mut forged);
            assert!(!mine.public().wrote(&forged, "session"), "{n}");
        }
    }

    #[test]
    fn a_chain_is_followed_from_any_of_its_keys_to_its_last() {
        let keys: Vec<SecretKey> = (1..6).map(key).collect();
        let public: Vec<PublicKey> = keys.iter().map(SecretKey::public).collect();
        let chain: Vec<Proof> = (0..4).map(|n| keys[n].prove(&public[n + 1])).collect();
        for n in 0..5 {
            let left = follow(&chain, &public[n], &public[4]).unwrap();
            assert_eq!(left, public[n..4]);
        }
        // Neither back, nor to a stranger, nor over a proof that is missing or by another.
        assert_eq!(follow(&chain, &public[4], &public[0]), None);
        assert_eq!(follow(&chain, &public[0], &key(9).public()), None);
        assert_eq!(follow(&chain[1..], &public[0], &public[4]), None);
        let mut forged = chain.clone();
        forged[2].signature = key(9).prove(&public[3]).signature;
        assert_eq!(follow(&forged, &public[0], &public[4]), None);
        let stranger = Proof {
            previous: public[0].to_string(),
            ..key(9).prove(&key(8).public())
        };
        assert_eq!(follow(&[stranger], &public[0], &key(8).public()), None);
        // Bounded, whatever comes.
        let many = vec![chain[0].clone(); 1000];
        assert_eq!(follow(&many, &public[2], &public[4]), None);
    }

    #[test]
    fn a_proof_is_no_signature_of_a_message_and_keys_are_read_strictly() {
        let one = key(1);
        assert!(one.seed().parse::<PublicKey>().is_ok(), "both are 32 bytes");
        assert_eq!(
            SecretKey::parse(&one.seed()).unwrap().public(),
            one.public()
        );
        for wrong in ["", "x", &one.seed()[1..], &format!("{}AA", one.seed())] {
            assert!(SecretKey::parse(wrong).is_err(), "{wrong}");
        }
        let id = one.public().id();
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in [
            "",
            "0123456789abcde",
            "0123456789abcdefg",
            "0123456789abcdeé",
        ] {
            assert!(wrong.parse::<KeyId>().is_err(), "{wrong}");
        }
        assert!(!format!("{one:?}").contains(&one.seed()[..8]));
    }

    #[test]
    fn what_acts_has_to_be_signed_and_so_has_what_nobody_knows() {
        for kind in [
            "command",
            "cancel",
            "schedule.set",
            "history.put",
            "x.y",
            "hello",
        ] {
            assert!(acts(kind), "{kind}");
        }
        for kind in ["ack", "bye", "data.response", "schedule.list"] {
            assert!(!acts(kind), "{kind}");
        }
    }
}
