//! TLS to the server that runs on a data folder: the folder tells its certificate, so no name and no authority have to.

use crate::server::data;
use crate::server::tls::fingerprint;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
};

/// Bytes of a SHA-256 in hex digits.
const DIGITS: usize = 64;

/// What a certificate is refused with that the folder does not tell.
const ANOTHER: Error = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);

/// Whether a handshake failed because of that.
pub(super) fn is_another(e: &std::io::Error) -> bool {
    let inner = e.get_ref().and_then(|inner| inner.downcast_ref());
    inner == Some(&ANOTHER)
}

/// A connector for the server of this folder; `None` where the folder tells no certificate.
pub(super) fn connector(folder: &Path) -> Result<Option<TlsConnector>, String> {
    let file = folder.join(data::CERTIFICATE);
    let pin = match std::fs::read_to_string(&file) {
        Ok(text) => text.trim().to_ascii_lowercase(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("cannot read {}: {e}", file.display())),
    };
    if pin.len() != DIGITS || !pin.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!(
            "{} holds no SHA-256 of a certificate: the server writes it at its start",
            file.display()
        ));
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin, provider }))
        .with_no_client_auth();
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

/// Believes one certificate, whatever its names and dates are.
#[derive(Debug)]
struct Pinned {
    pin: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = fingerprint(certificate);
        if shown.as_bytes().ct_eq(self.pin.as_bytes()).into() {
            return Ok(ServerCertVerified::assertion());
        }
        Err(ANOTHER)
    }

    // That it has the key of the certificate, and has not just copied it.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
