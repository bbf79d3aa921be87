//! TLS of the server, by rustls with ring.

use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A server's own TLS.
pub struct Own {
    /// Takes connections.
    pub acceptor: TlsAcceptor,
    /// The fingerprint of its certificate.
    pub fingerprint: String,
}

/// The SHA-256 of a certificate, in hex digits.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    triton::message::id::hex(&Sha256::digest(certificate))
}

/// Reads a certificate chain and its key.
pub fn own(certificates: &Path, key: &Path) -> Result<Own, String> {
    let chain = certificates_of(certificates)?;
    // Its own comes first, before those that vouch for it.
    let fingerprint = chain.first().map(fingerprint).unwrap_or_default();
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|e| format!("cannot read the key {}: {e}", key.display()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| {
            format!(
                "the certificate {} and the key {} cannot be used: {e}",
                certificates.display(),
                key.display()
            )
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Ok(Own {
        acceptor,
        fingerprint,
    })
}

/// All certificates of a PEM file; at least one.
pub fn certificates_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |e| format!("cannot read the certificates {}: {e}", path.display());
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| failed(e.to_string()))?;
    if all.is_empty() {
        return Err(failed("there is none".to_owned()));
    }
    Ok(all)
}
