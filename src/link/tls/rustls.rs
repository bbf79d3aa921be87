//! TLS by rustls with ring: what the small static binaries carry.

use super::{Pin, Problem, Secured, Tls, TlsSettings, trusted_time};
use crate::link::stream::{Patience, Socket, Stream};
use ::rustls as lib;
use lib::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use lib::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use lib::crypto::{CryptoProvider, KeyProvider, verify_tls12_signature, verify_tls13_signature};
use lib::pki_types::pem::PemObject as _;
use lib::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use lib::server::ParsedCertificate;
use lib::sign::SigningKey;
use lib::time_provider::TimeProvider;
use lib::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that rustls takes before they are encrypted and sent. A record has 16 KiB at most; more would only
/// let output get ahead of control.
const BUFFER: usize = 16 * 1024;

pub struct Rustls {
    config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
}

impl Tls for Rustls {
    const NAME: &str = "rustls";

    fn prepare(settings: &TlsSettings) -> Result<Self, Problem> {
        Self::prepare_by(settings, trusted_time)
    }

    fn handshake(self, host: &str, socket: Socket) -> Result<Secured, Problem> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Problem::Other(format!("{host} is no name that a certificate can be for"))
        })?;
        let connection = ClientConnection::new(self.config, name)
            .map_err(|error| Problem::Other(format!("rustls does not start: {error}")))?;
        let mut stream = RustlsStream { connection, socket };
        stream.connection.set_buffer_limit(Some(BUFFER));
        stream
            .shake_hands()
            .map_err(|error| self.verifier.problem(&error))?;
        let connection = &stream.connection;
        let parameters = match (
            connection.protocol_version(),
            connection.negotiated_cipher_suite(),
        ) {
            (Some(version), Some(suite)) => Some(format!(
                "{}, {}",
                version
                    .as_str()
                    .unwrap_or("TLS")
                    .replace("TLSv1_", "TLS 1."),
                suite.suite().as_str().unwrap_or("unknown cipher")
            )),
            _ => None,
        };
        Ok(Secured {
            stream: Box::new(stream),
            certificate: std::mem::take(&mut self.verifier.seen().certificate),
            parameters,
        })
    }
}

impl Rustls {
    /// The same, with certificates judged by `time`.
    fn prepare_by(settings: &TlsSettings, time: fn() -> f64) -> Result<Self, Problem> {
        let provider = Arc::new(CryptoProvider {
            key_provider: &NoKeys,
            ..lib::crypto::ring::default_provider()
        });
        let authorities = if settings.asks_authorities() {
            let authorities = authorities(settings)?;
            if authorities.is_empty() {
                return Err(Problem::UnknownAuthority(None));
            }
            Some(authorities)
        } else {
            None
        };
        let verifier = Arc::new(Verifier {
            authorities,
            pins: settings.pins.clone(),
            provider: Arc::clone(&provider),
            seen: Mutex::default(),
        });
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(Clock(time)))
            .with_protocol_versions(lib::ALL_VERSIONS)
            .map_err(|error| Problem::Other(format!("rustls does not start: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_no_client_auth();
        // Reconnects are rare, and the memory of up to 256 sessions is not free.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            verifier,
        })
    }
}

/// The agent shows no certificate of its own, so ring's signers need not be in the program.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("this build signs nothing".into()))
    }
}

/// Unix time from elsewhere than the system's clock.
#[derive(Debug)]
struct Clock(fn() -> f64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = Duration::try_from_secs_f64((self.0)().max(0.0)).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

fn authorities(settings: &TlsSettings) -> Result<RootCertStore, Problem> {
    let mut store = RootCertStore::empty();
    match &settings.ca_file {
        Some(file) => {
            let unreadable = |why: String| {
                Problem::Other(format!("the authority file {}: {why}", file.display()))
            };
            let found = CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| match error {
                    lib::pki_types::pem::Error::Io(error) => unreadable(error.to_string()),
                    error => unreadable(format!("is no PEM file of certificates: {error:?}")),
                })?;
            if found.is_empty() {
                return Err(unreadable("holds no certificate".into()));
            }
            for certificate in found {
                store.add(certificate).map_err(|error| {
                    unreadable(format!("a certificate in it is broken: {error}"))
                })?;
            }
        }
        None => {
            // What cannot be read is left out; where nothing is left, the server's authority is unknown.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(store)
}

/// Checks the server: authorities, pins, or both.
struct Verifier {
    authorities: Option<RootCertStore>,
    pins: Vec<Pin>,
    provider: Arc<CryptoProvider>,
    /// For the report.
    seen: Mutex<Seen>,
}

/// rustls wants it and shows it nowhere.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

#[derive(Default)]
struct Seen {
    /// The certificate that the server showed.
    certificate: Vec<u8>,
    /// Whether it was good. What fails afterwards is the proof that the server holds its key.
    accepted: bool,
}

impl Verifier {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen_key(&self) -> Option<Pin> {
        Pin::of_certificate(&self.seen().certificate)
    }

    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(authorities) = &self.authorities {
            // What `WebPkiServerVerifier` does, without its lists of revoked certificates.
            let certificate = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                authorities,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
            verify_server_name(&certificate, server_name)?;
            if self.pins.is_empty() {
                return Ok(ServerCertVerified::assertion());
            }
        }
        match Pin::of_certificate(end_entity) {
            Some(key) if self.pins.contains(&key) => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn problem(&self, error: &HandshakeError) -> Problem {
        let error = match error {
            HandshakeError::Tls(error) => error,
            HandshakeError::Ended => return Problem::Closed,
            HandshakeError::Io(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Problem::Closed;
            }
            HandshakeError::Io(error) => {
                return Problem::Other(format!(
                    "the connection broke in the TLS handshake: {error}"
                ));
            }
        };
        match error {
            Error::InvalidCertificate(wrong) => match wrong {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Problem::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Problem::NotYetValid
                }
                CertificateError::NotValidForName => Problem::WrongName(Vec::new()),
                CertificateError::NotValidForNameContext { presented, .. } => {
                    // "DnsName("a.example")" is how webpki writes a name.
                    let plain = |name: &String| match name.split('"').nth(1) {
                        Some(inner) => inner.to_owned(),
                        None => name.clone(),
                    };
                    Problem::WrongName(presented.iter().map(plain).collect())
                }
                _ if self.seen().accepted => Problem::NotItsKey,
                // A bad signature: an authority of the same name with another key.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    Problem::UnknownAuthority(self.seen_key())
                }
                // From `check`.
                CertificateError::ApplicationVerificationFailure => {
                    Problem::WrongPin(self.seen_key())
                }
                other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                    let key = self
                        .seen_key()
                        .map(|key| format!(", {key}"))
                        .unwrap_or_default();
                    Problem::Other(format!(
                        "the server shows the certificate of an authority as its own (self-signed): pin its key instead{key}"
                    ))
                }
                other => Problem::Other(format!("the server's certificate is refused: {other}")),
            },
            Error::InvalidMessage(_) => Problem::NotTls,
            Error::AlertReceived(alert) => {
                Problem::Refused(format!("the server sent the alert {alert:?}"))
            }
            Error::PeerIncompatible(why) => {
                Problem::Refused(format!("nothing in common with the server: {why:?}"))
            }
            error => Problem::Other(format!("the TLS handshake failed: {error}")),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.seen().certificate = end_entity.to_vec();
        let result = self.check(end_entity, intermediates, server_name, now);
        self.seen().accepted = result.is_ok();
        result
    }

    // That the server holds the key is checked in every case.

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

enum HandshakeError {
    Io(io::Error),
    Ended,
    Tls(Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Unlike `rustls::StreamOwned` writing never reads: what poll(2) has not announced stays in the socket, so
/// that it wakes the owner.
struct RustlsStream {
    connection: ClientConnection,
    socket: Socket,
}

impl RustlsStream {
    fn shake_hands(&mut self) -> Result<(), HandshakeError> {
        while self.connection.is_handshaking() {
            self.write_out()?;
            if !self.connection.is_handshaking() {
                break;
            }
            if self.connection.read_tls(&mut self.socket)? == 0 {
                return Err(HandshakeError::Ended);
            }
            if let Err(error) = self.connection.process_new_packets() {
                // The alert tells the server why.
                let _ = self.write_out();
                return Err(HandshakeError::Tls(error));
            }
        }
        self.write_out()?;
        Ok(())
    }

    fn write_out(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut self.socket)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

impl Read for RustlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            // 0 is the end, which `reader` reports in the next turn.
            self.connection.read_tls(&mut self.socket)?;
            let processed = self.connection.process_new_packets();
            // Key updates and alerts; what cannot go now goes with the next write.
            let _ = self.write_out();
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
}

impl Write for RustlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_out()?;
        self.connection.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out()
    }
}

impl AsFd for RustlsStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Stream for RustlsStream {
    fn set_patience(&mut self, patience: Option<Patience>) {
        self.socket.set_patience(patience);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::after;
    use crate::sys::wake::Wake;
    use std::net::TcpListener;

    /// Shakes hands with a server whose certificate is valid in the thirty-first century, at `time`.
    fn shake_hands_at(time: fn() -> f64) -> Result<(), Problem> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.test".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(3000, 1, 1);
        params.not_after = rcgen::date_time_ymd(3100, 1, 1);
        // Its own authority: no certificate in the file has another issuer.
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority =
            rcgen::CertifiedIssuer::self_signed(authority, rcgen::KeyPair::generate().unwrap());
        let authority = authority.unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), authority.pem()).unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let chain = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = std::thread::spawn(move || {
            let provider = Arc::new(lib::crypto::ring::default_provider());
            let config = lib::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .unwrap();
            let (mut tcp, _) = listener.accept().unwrap();
            let mut connection = lib::ServerConnection::new(Arc::new(config)).unwrap();
            // It fails where the client refuses the certificate.
            let _ = connection.complete_io(&mut tcp);
        });
        let settings = TlsSettings {
            ca_file: Some(file.path().to_owned()),
            ..TlsSettings::default()
        };
        let patience = Patience {
            deadline: after(Duration::from_mins(1)),
            stop: Arc::new(Wake::new().unwrap()),
        };
        let mut socket = Socket::connect(&address, patience.clone()).unwrap();
        socket.set_patience(Some(patience));
        let result = Rustls::prepare_by(&settings, time)?.handshake("a.test", socket);
        server.join().unwrap();
        result.map(|_| ())
    }

    #[test]
    fn certificates_are_judged_by_the_trusted_time() {
        // 3050, by whatever this machine's clock says.
        shake_hands_at(|| 34_082_640_000.0).unwrap();
        for wrong in [|| 0.0, || -5.0, || 1_795_255_200.0] {
            assert!(matches!(shake_hands_at(wrong), Err(Problem::NotYetValid)));
        }
        assert!(matches!(
            shake_hands_at(|| 40_000_000_000.0),
            Err(Problem::Expired)
        ));
    }
}
