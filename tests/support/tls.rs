//! A TLS server for the tests, by rustls, whichever library the client has; certificates made on the spot.
#![allow(dead_code, missing_docs)]

use super::support::{echo, serve};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    PublicKeyData,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::NamedTempFile;
use triton::link::tls::Pin;

/// An authority of our own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a server shows and holds.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: KeyPair,
}

/// Times before, around and after the year that this device may think it is.
#[derive(Clone, Copy)]
pub enum Valid {
    Now,
    Over,
    NotYet,
}

fn params(names: &[&str], valid: Valid) -> CertificateParams {
    let owned: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(owned).unwrap();
    let (from, to) = match valid {
        Valid::Now => (1990, 4000),
        Valid::Over => (1990, 2000),
        Valid::NotYet => (3000, 4000),
    };
    // A name of its own: OpenSSL takes a certificate with the name of its issuer for self-signed.
    let name = names.first().copied().unwrap_or("Authority");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    params
}

impl Authority {
    pub fn new() -> Self {
        Self::with(KeyPair::generate().unwrap())
    }

    /// One that signs with a key of another kind.
    pub fn with(key: KeyPair) -> Self {
        let mut params = params(&[], Valid::Now);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn file(&self) -> NamedTempFile {
        file(&self.0.pem())
    }

    pub fn sign(&self, names: &[&str], valid: Valid) -> Identity {
        self.sign_key(names, valid, KeyPair::generate().unwrap())
    }

    pub fn sign_key(&self, names: &[&str], valid: Valid, key: KeyPair) -> Identity {
        let certificate = params(names, valid).signed_by(&key, &self.0).unwrap();
        identity(&certificate, key)
    }
}

/// The library cannot make RSA keys here, so this one is kept: `openssl genpkey -algorithm RSA`. It guards nothing.
pub fn rsa_key() -> KeyPair {
    let pem = include_str!("rsa-2048.pem");
    KeyPair::from_pkcs8_pem_and_sign_algo(pem, &rcgen::PKCS_RSA_SHA256).unwrap()
}

pub fn self_signed(names: &[&str], valid: Valid) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = params(names, valid).self_signed(&key).unwrap();
    identity(&certificate, key)
}

/// What `openssl req -x509` makes: self-signed, and an authority by its own word.
pub fn self_signed_authority(names: &[&str]) -> (Identity, NamedTempFile) {
    let key = KeyPair::generate().unwrap();
    let mut params = params(names, Valid::Now);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let file = file(&certificate.pem());
    (identity(&certificate, key), file)
}

fn identity(certificate: &Certificate, key: KeyPair) -> Identity {
    Identity {
        chain: vec![certificate.der().clone()],
        key,
    }
}

pub fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

impl Identity {
    pub fn pin(&self) -> Pin {
        Pin::of(&self.key.subject_public_key_info())
    }
}

/// Shows a certificate whatever key it holds.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A WebSocket echo over TLS, and how many bytes it could decrypt of all its clients.
pub struct Server {
    pub address: SocketAddr,
    decrypted: Arc<AtomicUsize>,
}

impl Server {
    pub fn new(identity: Identity) -> Self {
        Self::with(identity.chain, &identity.key, rustls::ALL_VERSIONS)
    }

    /// One that shakes hands, agrees to a WebSocket and drops the socket.
    pub fn vanishing(identity: Identity) -> (Self, Pin) {
        let pin = identity.pin();
        let server = Self::speaking(
            identity.chain,
            &identity.key,
            rustls::ALL_VERSIONS,
            |stream| drop(tungstenite::accept(stream)),
        );
        (server, pin)
    }

    pub fn with(
        chain: Vec<CertificateDer<'static>>,
        key: &KeyPair,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        Self::speaking(chain, key, versions, echo)
    }

    fn speaking(
        chain: Vec<CertificateDer<'static>>,
        key: &KeyPair,
        versions: &[&'static SupportedProtocolVersion],
        speak: impl Fn(Counted) + Send + Sync + 'static,
    ) -> Self {
        Self::offering(ring::default_provider(), chain, key, versions, speak)
    }

    /// One that offers certain ciphers and key exchanges.
    pub fn offering(
        provider: CryptoProvider,
        chain: Vec<CertificateDer<'static>>,
        key: &KeyPair,
        versions: &[&'static SupportedProtocolVersion],
        speak: impl Fn(Counted) + Send + Sync + 'static,
    ) -> Self {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = ring::sign::any_supported_type(&key).unwrap();
        let shown = Arc::new(Shown(Arc::new(CertifiedKey::new(chain, key))));
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(shown);
        let config = Arc::new(config);
        let decrypted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&decrypted);
        let address = serve(move |tcp| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let stream = StreamOwned::new(connection, tcp);
            speak(Counted(stream, Arc::clone(&count)));
        });
        Self { address, decrypted }
    }

    pub fn url(&self) -> String {
        format!("wss://poseidon.test:{}/triton", self.address.port())
    }

    /// Bytes that clients have sent inside TLS: HTTP, and so the identifier, begins with the first.
    pub fn decrypted(&self) -> usize {
        self.decrypted.load(Ordering::SeqCst)
    }
}

pub struct Counted(StreamOwned<ServerConnection, TcpStream>, Arc<AtomicUsize>);

impl std::io::Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.fetch_add(n, Ordering::SeqCst);
        Ok(n)
    }
}

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}
