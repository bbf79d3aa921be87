//! `triton identifier`: what to register with Poseidon.

use super::print;
use crate::config::Config;
use crate::error::Result;
use crate::identity;

pub fn run(config: &Config, fingerprint: bool) -> Result<u8> {
    let (identifier, _) = identity::identifier(config)?;
    if fingerprint {
        print(&format!("{}\n", identifier.fingerprint()));
    } else {
        print(&format!("{}\n", identifier.secret().reveal()));
    }
    Ok(0)
}
