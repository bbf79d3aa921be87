//! A build without TLS.

use super::{Problem, Secured, Tls, TlsSettings};
use crate::link::Socket;

pub struct NoTls;

impl Tls for NoTls {
    const NAME: &str = "no TLS";

    fn prepare(_: &TlsSettings) -> Result<Self, Problem> {
        Err(Problem::Other(
            "this build has no TLS: take one that has, or a ws:// URL".into(),
        ))
    }

    fn handshake(self, _: &str, _: Socket) -> Result<Secured, Problem> {
        Self::prepare(&TlsSettings::default()).and(Err(Problem::Closed))
    }
}
