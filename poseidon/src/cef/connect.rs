//! The connection to a SIEM: TCP or TLS, written to, and watched for its end.

use futures_util::FutureExt as _;
use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

/// Time for a connection to stand.
const CONNECT: Duration = Duration::from_secs(15);
/// A SIEM that takes nothing for so long is as one that is away.
const STALLED: Duration = Duration::from_mins(1);
/// Bytes of one write: each that is taken is a sign of life.
const PIECE: usize = 16 << 10;
/// How often the kernel is asked whether all has arrived: soon at first, then slower.
const ASK: [u64; 5] = [0, 1, 5, 20, 50];

/// Where events go: `tls://HOST:PORT` or `tcp://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    tls: bool,
    host: String,
    port: u16,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text} is no address of a SIEM: tls://HOST:6514 or tcp://HOST:601 is expected")
        };
        let (scheme, place) = text.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme {
            "tls" => true,
            "tcp" => false,
            _ => return Err(wrong()),
        };
        let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().ok().filter(|port| *port > 0);
        match port {
            Some(port) if !host.is_empty() && !host.contains(['/', '@', ' ']) => Ok(Self {
                tls,
                host: host.to_owned(),
                port,
            }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "tls" } else { "tcp" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl Target {
    /// What TLS needs, made once; an error says what is wrong with the options.
    pub fn connector(&self, ca: Option<&Path>) -> Result<Option<TlsConnector>, String> {
        if !self.tls {
            return match ca {
                Some(_) => Err(
                    "--siem-ca is for tls:// only: with tcp:// nobody is asked for a certificate"
                        .to_owned(),
                ),
                None => Ok(None),
            };
        }
        ServerName::try_from(self.host.as_str())
            .map_err(|_| format!("{} is no name that a certificate could have", self.host))?;
        crate::cli::client::connector(ca).map(Some)
    }
}

/// How the other side ended a connection.
pub(super) struct End {
    /// For people.
    pub reason: String,
    /// It was closed as who has read everything does it: Linux resets a connection that ends with unread data. What stands
    /// before a SIEM may have read what it cannot hand on.
    pub in_order: bool,
}

impl From<String> for End {
    fn from(reason: String) -> Self {
        Self {
            reason,
            in_order: false,
        }
    }
}

/// An open connection.
pub(super) enum Connection {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Connection {
    pub async fn open(target: &Target, tls: Option<&TlsConnector>) -> Result<Self, String> {
        let connect = async {
            let stream = TcpStream::connect((target.host.as_str(), target.port))
                .await
                .map_err(|e| format!("no connection: {e}"))?;
            let Some(tls) = tls else {
                return Ok(Self::Plain(stream));
            };
            let name = ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
            let stream = tls
                .connect(name, stream)
                .await
                .map_err(|e| format!("TLS failed: {e}"))?;
            Ok(Self::Secure(Box::new(stream)))
        };
        timeout(CONNECT, connect)
            .await
            .unwrap_or_else(|_| Err(format!("no connection within {} s", CONNECT.as_secs())))
    }

    /// Writes all, and returns when the other side's kernel has all of it. What its program has read nobody can know: syslog
    /// has no acknowledgements.
    pub async fn deliver(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(PIECE)];
            let wrote = alive(match self {
                Self::Plain(stream) => timeout(STALLED, stream.write(piece)).await,
                Self::Secure(stream) => timeout(STALLED, stream.write(piece)).await,
            })?;
            if wrote == 0 {
                return Err("the connection is closed".to_owned());
            }
            rest = &rest[wrote..];
        }
        alive(match self {
            Self::Plain(stream) => timeout(STALLED, stream.flush()).await,
            Self::Secure(stream) => timeout(STALLED, stream.flush()).await,
        })?;
        self.drained().await?;
        // A connection that was reset has nothing to send, either.
        match self.ended().now_or_never() {
            Some(end) => Err(end.reason),
            None => Ok(()),
        }
    }

    async fn drained(&self) -> Result<(), String> {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Secure(stream) => stream.get_ref().0,
        };
        let (mut last, mut since) = (usize::MAX, tokio::time::Instant::now());
        let mut asked = 0;
        loop {
            let left = triton::sys::socket::unacknowledged(stream)
                .map_err(|e| format!("the kernel does not tell what has arrived: {e}"))?;
            if left == 0 {
                return Ok(());
            }
            if left < last {
                (last, since) = (left, tokio::time::Instant::now());
            } else if since.elapsed() > STALLED {
                return Err(stalled());
            }
            if let Some(e) = stream.take_error().map_err(|e| e.to_string())? {
                return Err(format!("the connection broke: {e}"));
            }
            sleep(Duration::from_millis(ASK[asked])).await;
            asked = (asked + 1).min(ASK.len() - 1);
        }
    }

    /// Returns when the other side ends the connection. What it says is read and left: it has nothing to say.
    pub async fn ended(&mut self) -> End {
        match self {
            Self::Plain(stream) => end_of(stream).await,
            Self::Secure(stream) => end_of(stream).await,
        }
    }

    /// Ends it in order.
    pub async fn close(self) {
        let closing = async {
            match self {
                Self::Plain(mut stream) => stream.shutdown().await,
                Self::Secure(mut stream) => stream.shutdown().await,
            }
        };
        let _ = timeout(Duration::from_secs(1), closing).await;
    }
}

async fn end_of(stream: &mut (impl AsyncRead + Unpin)) -> End {
    let mut said = [0; 512];
    loop {
        match stream.read(&mut said).await {
            Ok(0) => {
                return End {
                    reason: "the SIEM closed the connection".to_owned(),
                    in_order: true,
                };
            }
            Ok(_) => {}
            Err(e) => return format!("the connection broke: {e}").into(),
        }
    }
}

fn alive<T>(result: Result<io::Result<T>, tokio::time::error::Elapsed>) -> Result<T, String> {
    match result {
        Ok(done) => done.map_err(|e| format!("the connection broke: {e}")),
        Err(_) => Err(stalled()),
    }
}

fn stalled() -> String {
    format!("the SIEM took nothing for {} s", STALLED.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_what_they_say() {
        for text in [
            "tls://siem.example.com:6514",
            "tcp://192.0.2.1:601",
            "tls://[2001:db8::1]:6514",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in [
            "siem:6514",
            "udp://siem:514",
            "tls://siem",
            "tls://:6514",
            "tls://siem:0",
            "tls://a/b:1",
            "tls://siem:x",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        let target: Target = "tcp://siem:601".parse().unwrap();
        assert!(target.connector(Some(Path::new("ca.pem"))).is_err());
    }
}
