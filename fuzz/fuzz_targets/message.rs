//! Any bytes are read as a message or refused; what is read is written and read back the same, with its signature, which
//! is nobody's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use triton::message::Message;
use triton::message::sign::PublicKey;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Message::decode(bytes, 1 << 20) {
        let line = message
            .encode()
            .expect("what XML carried in, it carries out");
        assert!(!line.contains(['\n', '\r']));
        // Escaping makes text longer, so the copy gets a larger limit.
        assert_eq!(
            Message::decode(line.as_bytes(), 16 << 20).expect("its own writing"),
            message
        );
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let key: PublicKey = key.parse().expect("32 bytes");
        if message
            .signature
            .as_ref()
            .is_none_or(|s| s.key_id != key.id())
        {
            assert!(!key.wrote(&message, ""));
        }
    }
});
