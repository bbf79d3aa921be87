//! The way to a running server: HTTP/1.1 by hyper, one connection for each call.

use super::Reach;
use crate::server::data;
use crate::server::tls::certificates_of;
use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Time to connect, and time for an answer to begin.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
const ANSWER_WAIT: Duration = Duration::from_mins(1);
/// Largest answer that is read as a whole.
const ANSWER_LIMIT: usize = 256 << 20;
/// Longest line of a stream.
const LINE_LIMIT: usize = 64 << 20;

/// What stays as it is in one segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// One segment of a path, or one value of a query.
pub fn segment(text: &str) -> String {
    // A browser or proxy would take these two for steps in the path.
    match text {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => utf8_percent_encode(text, SEGMENT).to_string(),
    }
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A server and the token for it.
pub struct Client {
    url: String,
    token: String,
    tls: Option<TlsConnector>,
}

impl Client {
    /// Finds server and token as the options, the environment or the data folder say.
    pub(super) fn find(reach: &Reach) -> Result<Self, String> {
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|e| format!("cannot read {}: {e}", path.display()))
        };
        let hint = "give --url and --token-file, or the server's --data";
        let url = match &reach.url {
            Some(url) => url.clone(),
            None => read(&reach.data.join(data::URL)).map_err(|e| format!("{e}; {hint}"))?,
        };
        // Before the token, for a wrong address is no reason to look for one.
        is_https(&url)?;
        let token = match (&reach.token_file, std::env::var("POSEIDON_TOKEN")) {
            (Some(path), _) => read(path)?,
            (None, Ok(token)) if !token.trim().is_empty() => token.trim().to_owned(),
            _ => read(&reach.data.join(data::TOKEN)).map_err(|e| format!("{e}; {hint}"))?,
        };
        Self::new(&url, token, reach.ca_file.as_deref())
    }

    /// A client for a known server.
    pub fn new(url: &str, token: String, ca_file: Option<&Path>) -> Result<Self, String> {
        let tls = is_https(url)?.then(|| connector(ca_file)).transpose()?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            token,
            tls,
        })
    }

    /// `GET`, read as `T`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        self.call(Method::GET, path, None).await
    }

    /// `POST`, read as `T`.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, String> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<(), String> {
        self.call::<Value>(Method::DELETE, path, None)
            .await
            .map(drop)
    }

    /// `GET`, line by line.
    pub async fn lines(&self, path: &str) -> Result<Lines, String> {
        let body = self.send(Method::GET, path, None).await?;
        Ok(Lines {
            body,
            buffer: Vec::new(),
            searched: 0,
        })
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, String> {
        let body = self.send(method, path, body).await?;
        let bytes = collect(body).await.map_err(|e| self.failed(&e))?;
        serde_json::from_slice(&bytes)
            .map_err(|e| self.failed(&format!("the answer cannot be read: {e}")))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Incoming, String> {
        let uri: Uri = format!("{}/api/v1{path}", self.url)
            .parse()
            .map_err(|e| format!("{} is no address of a server: {e}", self.url))?;
        let socket = timeout(CONNECT_WAIT, self.connect(&uri))
            .await
            .unwrap_or_else(|_| Err("connecting took too long".to_owned()))
            .map_err(|e| self.failed(&format!("{e}. Does the server run?")))?;
        let io = TokioIo::new(socket);
        let (mut sender, connection) = http1::handshake(io)
            .await
            .map_err(|e| self.failed(&e.to_string()))?;
        tokio::spawn(connection);
        let authority = uri.authority().map_or("", |a| a.as_str());
        let target = uri.path_and_query().map_or("/", |p| p.as_str());
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", authority)
            .header("authorization", format!("Bearer {}", self.token))
            .header(
                "user-agent",
                concat!("poseidon/", env!("CARGO_PKG_VERSION")),
            )
            .header("content-type", "application/json")
            .body(Full::new(
                body.map_or_else(Bytes::new, |b| b.to_string().into()),
            ))
            .map_err(|_| "the token holds characters that no token has".to_owned())?;
        let response = timeout(ANSWER_WAIT, sender.send_request(request))
            .await
            .map_err(|_| self.failed("there is no answer"))?
            .map_err(|e| self.failed(&e.to_string()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let body = collect(response.into_body()).await.unwrap_or_default();
        let said: Option<Value> = serde_json::from_slice(&body).ok();
        let message = said
            .as_ref()
            .and_then(|value| value["error"]["message"].as_str())
            .unwrap_or("");
        if status == hyper::StatusCode::UNAUTHORIZED {
            return Err(self.failed(
                "the admin token is wrong; it is in the file admin-token of the server's data folder",
            ));
        }
        if message.is_empty() {
            return Err(self.failed(&format!("the answer is {status}")));
        }
        Err(super::tables::clean(message))
    }

    async fn connect(&self, uri: &Uri) -> Result<Box<dyn Socket>, String> {
        let host = uri.host().unwrap_or("");
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri
            .port_u16()
            .unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let socket = TcpStream::connect((bare, port))
            .await
            .map_err(|e| format!("cannot connect: {e}"))?;
        // Without it small requests wait for acknowledgements.
        let _ = socket.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return Ok(Box::new(socket));
        };
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| format!("{bare} is no name that a certificate can have"))?;
        let socket = tls
            .connect(name, socket)
            .await
            .map_err(|e| format!("TLS failed: {e}"))?;
        Ok(Box::new(socket))
    }

    fn failed(&self, reason: &str) -> String {
        let mut text = String::new();
        let _ = write!(text, "{}: {reason}", self.url);
        text
    }
}

/// Whether the address of a server asks for TLS.
fn is_https(url: &str) -> Result<bool, String> {
    match url.split_once("://") {
        Some(("https", _)) => Ok(true),
        Some(("http", _)) => Ok(false),
        _ => Err(format!(
            "{url} is no address of a server: http://… or https://…"
        )),
    }
}

fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        for certificate in certificates_of(path)? {
            roots
                .add(certificate)
                .map_err(|e| format!("cannot use {}: {e}", path.display()))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn collect(body: Incoming) -> Result<Bytes, String> {
    http_body_util::Limited::new(body, ANSWER_LIMIT)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|e| e.to_string())
}

/// An answer line by line.
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    /// So much of the buffer holds no line end.
    searched: usize,
}

impl Lines {
    /// The next line that is not empty; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            if let Some(at) = self.buffer[self.searched..]
                .iter()
                .position(|b| *b == b'\n')
            {
                let rest = self.buffer.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                line.pop();
                if line.is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > LINE_LIMIT {
                return Err("the server sends a line without end".to_owned());
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(e)) => return Err(format!("the connection broke: {e}")),
                None => return Ok(None),
            }
        }
    }
}
