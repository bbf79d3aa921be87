//! The way to a running server: HTTP/1.1 by hyper, one connection for each call.

use super::Reach;
use super::pinned;
use crate::pieces;
use crate::server::data;
use crate::server::tls::certificates_of;
use axum::body::Bytes;
use futures_util::TryStreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
/// A file is sent in such pieces.
const PIECE: usize = 64 << 10;
/// Longest line of a stream.
const LINE_LIMIT: usize = 64 << 20;
/// A stream that is followed has at least an empty line every 15 s; without any byte for this long its path is dead.
const SILENCE: Duration = Duration::from_mins(1);

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

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|e| match e {})
        .boxed_unsync()
}

/// The content of a file as it is read; `sent` counts what was handed on.
fn content(file: File, sent: Arc<AtomicU64>) -> Body {
    sent.store(0, Ordering::Relaxed);
    let frames = pieces::of_file(file, PIECE).map_ok(move |piece| {
        sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Frame::data(piece)
    });
    StreamBody::new(frames).boxed_unsync()
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Why a call failed.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The server never got the call.
    Unreachable,
    /// It may have got it: the connection broke, or the answer did not come.
    Broken,
    /// It answered with an error; the code is the API's.
    Answered { status: u16, code: String },
    /// No other try would be better.
    Wrong,
}

impl Failure {
    /// The connection broke on the way.
    pub(super) fn broken(message: impl Into<String>) -> Self {
        Self::new(Kind::Broken, message)
    }

    /// Trying again makes no sense.
    pub(super) fn wrong(message: impl Into<String>) -> Self {
        Self::new(Kind::Wrong, message)
    }

    fn new(kind: Kind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { message, kind }
    }

    /// The same, with what else is to be said of it.
    pub(super) fn and(self, more: &str) -> Self {
        let message = format!("{}; {more}", self.message);
        Self { message, ..self }
    }

    /// Whether it may work in a moment, as where the server is being restarted and its agents come back.
    pub(super) fn passes(&self) -> bool {
        match &self.kind {
            Kind::Unreachable | Kind::Broken => true,
            // What a full disk or a device has said does not change in a moment.
            Kind::Answered { code, .. } if matches!(code.as_str(), "full" | "agent" | "io") => {
                false
            }
            Kind::Answered { status, .. } => *status == 429 || *status >= 500 || self.is_offline(),
            Kind::Wrong => false,
        }
    }

    /// Whether the call certainly never got to the server, or not through it to an agent.
    pub(super) fn never_sent(&self) -> bool {
        matches!(self.kind, Kind::Unreachable) || self.is_offline()
    }

    /// Whether what was asked for is not there.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self.kind, Kind::Answered { status: 404, .. })
    }

    /// Whether somebody else was faster.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(&self.kind, Kind::Answered { code, .. } if code == "conflict")
    }

    /// Whether an agent is down.
    pub(super) fn is_offline(&self) -> bool {
        matches!(&self.kind, Kind::Answered { code, .. } if code == "offline")
    }

    /// Whether no answer of the server's own came: one of a proxy has no code of the API.
    pub(super) fn is_lost(&self) -> bool {
        match &self.kind {
            Kind::Broken => true,
            Kind::Answered { status, code } => code.is_empty() && matches!(status, 502..=504),
            _ => false,
        }
    }

    /// Whether the call may have been carried out all the same. Proxies answer with 502 and 504 where they do not know.
    pub(super) fn is_open(&self) -> bool {
        match self.kind {
            Kind::Broken => true,
            Kind::Answered { status, .. } => matches!(status, 502 | 504),
            _ => false,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.message
    }
}

/// A server and the token for it.
#[derive(Clone)]
pub struct Client {
    url: String,
    token: String,
    tls: Option<TlsConnector>,
    /// How it was found, where the data folder told its address.
    found: Option<Reach>,
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
            (None, Err(std::env::VarError::NotUnicode(_))) => {
                return Err("POSEIDON_TOKEN is no text in UTF-8, and so no token".to_owned());
            }
            (None, Ok(token)) if !token.trim().is_empty() => token.trim().to_owned(),
            _ => read(&reach.data.join(data::TOKEN)).map_err(|e| format!("{e}; {hint}"))?,
        };
        if reach.url.is_some() {
            return Self::new(&url, token, reach.ca_file.as_deref());
        }
        let tls = match reach.ca_file.as_deref() {
            // The address in the folder is that of this machine, which is in no certificate: the folder, which is as
            // good as the token in it, tells which one the server has.
            None if is_https(&url)? => match pinned::connector(&reach.data)? {
                Some(tls) => Some(tls),
                None => Some(connector(None)?),
            },
            ca_file => is_https(&url)?.then(|| connector(ca_file)).transpose()?,
        };
        let found = Some(reach.clone());
        Ok(Self::with(&url, token, tls, found))
    }

    /// The way to the same server at another time: one that was restarted may have another port.
    pub(super) fn again(&self) -> Self {
        let found = self.found.as_ref().map(Self::find);
        // While the folder cannot be read, what it said before has to do.
        found.and_then(Result::ok).unwrap_or_else(|| self.clone())
    }

    /// A client for a known server.
    pub fn new(url: &str, token: String, ca_file: Option<&Path>) -> Result<Self, String> {
        let tls = is_https(url)?.then(|| connector(ca_file)).transpose()?;
        Ok(Self::with(url, token, tls, None))
    }

    fn with(url: &str, token: String, tls: Option<TlsConnector>, found: Option<Reach>) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            token,
            tls,
            found,
        }
    }

    /// `GET`, read as `T`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        Ok(self.try_get(path).await?)
    }

    /// `POST`, read as `T`.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, String> {
        Ok(self.try_post(path, body).await?)
    }

    /// `PATCH`, read as `T`.
    pub async fn patch<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, String> {
        Ok(self.call(Method::PATCH, path, Some(body)).await?)
    }

    /// `PUT` of what is in memory, read as `T`.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        content: impl Into<Bytes>,
    ) -> Result<T, String> {
        Ok(self.try_put(path, content).await?)
    }

    /// `put` that tells what kind of failure it was.
    pub(super) async fn try_put<T: DeserializeOwned>(
        &self,
        path: &str,
        content: impl Into<Bytes>,
    ) -> Result<T, Failure> {
        let body = self
            .request(Method::PUT, path, whole(content), &[], &AtomicU64::new(0))
            .await?;
        self.parse(body.into_body()).await
    }

    /// `PUT` of a file with so many bytes, read as `T`.
    pub async fn put_file<T: DeserializeOwned>(
        &self,
        path: &str,
        file: File,
        len: u64,
    ) -> Result<T, String> {
        let sent = Arc::new(AtomicU64::new(0));
        Ok(self.try_put_file(path, file, len, &sent).await?)
    }

    /// The same; tells what kind of failure it was, and counts in `sent` how much has gone.
    pub(super) async fn try_put_file<T: DeserializeOwned>(
        &self,
        path: &str,
        file: File,
        len: u64,
        sent: &Arc<AtomicU64>,
    ) -> Result<T, Failure> {
        let body = content(file, sent.clone());
        let len = len.to_string();
        let headers = [("content-length", len.as_str())];
        let body = self
            .request(Method::PUT, path, body, &headers, sent)
            .await?;
        self.parse(body.into_body()).await
    }

    /// `HEAD`: whether it is there.
    pub async fn has(&self, path: &str) -> Result<bool, String> {
        Ok(self.try_has(path).await?)
    }

    /// `has` that tells what kind of failure it was.
    pub(super) async fn try_has(&self, path: &str) -> Result<bool, Failure> {
        match self.send(Method::HEAD, path, None).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_not_found() => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// `GET`, piece by piece. `tag` is the `ETag` that it must have.
    pub(super) async fn try_bytes(&self, path: &str, tag: Option<&str>) -> Result<Pieces, Failure> {
        let headers: Vec<_> = tag.map(|tag| ("if-match", tag)).into_iter().collect();
        let response = self
            .request(
                Method::GET,
                path,
                whole(Bytes::new()),
                &headers,
                &AtomicU64::new(0),
            )
            .await?;
        let (head, body) = response.into_parts();
        Ok(Pieces {
            headers: head.headers,
            body,
        })
    }

    /// `GET` of content, piece by piece, into `out`. A reader of `out` that has gone is no error.
    pub async fn copy(&self, path: &str, out: &mut impl std::io::Write) -> Result<(), String> {
        let mut body = self.send(Method::GET, path, None).await?;
        loop {
            let frame = match timeout(SILENCE, body.frame()).await {
                Ok(Some(frame)) => frame.map_err(|e| self.failed(&e))?,
                Ok(None) => break,
                Err(_) => return Err(self.failed(&"the server was silent for too long")),
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            match out.write_all(data) {
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.map_err(|e| format!("cannot write the content: {e}"))?,
            }
        }
        match out.flush() {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(format!("cannot write the content: {e}"))
            }
            _ => Ok(()),
        }
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<Value, String> {
        Ok(self.call(Method::DELETE, path, None).await?)
    }

    /// `GET`, line by line.
    pub async fn lines(&self, path: &str) -> Result<Lines, String> {
        Ok(self.try_lines(path).await?)
    }

    /// `get` that tells what kind of failure it was.
    pub(super) async fn try_get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, None).await
    }

    /// `post` that tells what kind of failure it was.
    pub(super) async fn try_post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// `lines` that tells what kind of failure it was.
    pub(super) async fn try_lines(&self, path: &str) -> Result<Lines, Failure> {
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
    ) -> Result<T, Failure> {
        let body = self.send(method, path, body).await?;
        self.parse(body).await
    }

    async fn parse<T: DeserializeOwned>(&self, body: Incoming) -> Result<T, Failure> {
        let bytes = collect(body)
            .await
            .map_err(|e| Failure::broken(self.failed(&e)))?;
        serde_json::from_slice(&bytes).map_err(|e| {
            Failure::wrong(self.failed(&format_args!("the answer cannot be read: {e}")))
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Incoming, Failure> {
        let body = whole(body.map_or_else(Bytes::new, |b| b.to_string().into()));
        let response = self
            .request(method, path, body, &[], &AtomicU64::new(0))
            .await?;
        Ok(response.into_body())
    }

    /// `sent` counts how much of a long body has gone: as long as it grows there is patience.
    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Body,
        headers: &[(&str, &str)],
        sent: &AtomicU64,
    ) -> Result<Response<Incoming>, Failure> {
        let uri: Uri = format!("{}/api/v1{path}", self.url)
            .parse()
            .map_err(|e| Failure::wrong(format!("{} is no address of a server: {e}", self.url)))?;
        let unreachable =
            |e: &dyn std::fmt::Display| Failure::new(Kind::Unreachable, self.failed(&e));
        let socket = timeout(CONNECT_WAIT, self.connect(&uri))
            .await
            .unwrap_or_else(|_| Err("connecting took too long. Does the server run?".to_owned()))
            .map_err(|e| unreachable(&e))?;
        let io = TokioIo::new(socket);
        let (mut sender, connection) = http1::handshake(io).await.map_err(|e| unreachable(&e))?;
        tokio::spawn(connection);
        let authority = uri.authority().map_or("", |a| a.as_str());
        let target = uri.path_and_query().map_or("/", |p| p.as_str());
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .method(method)
            .uri(target)
            .header("host", authority)
            .header("authorization", format!("Bearer {}", self.token))
            .header(
                "user-agent",
                concat!("poseidon/", env!("CARGO_PKG_VERSION")),
            )
            .header("content-type", "application/json")
            .body(body)
            .map_err(|_| Failure::wrong("the token holds characters that no token has"))?;
        let mut answer = std::pin::pin!(sender.send_request(request));
        let response = loop {
            let before = sent.load(Ordering::Relaxed);
            match timeout(ANSWER_WAIT, answer.as_mut()).await {
                Ok(response) => break response.map_err(|e| Failure::broken(self.no_answer(&e)))?,
                Err(_) if sent.load(Ordering::Relaxed) > before => {}
                Err(_) => return Err(Failure::broken(self.failed(&"there is no answer"))),
            }
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = collect(response.into_body()).await.unwrap_or_default();
        let said: Option<Value> = serde_json::from_slice(&body).ok();
        let field = |name| {
            let value = said.as_ref().map(|said| &said["error"][name]);
            value.and_then(Value::as_str).unwrap_or("")
        };
        let message = if status == hyper::StatusCode::UNAUTHORIZED {
            self.failed(
                &"the token is wrong, expired or removed; the admin's is in the file admin-token of the server's data folder",
            )
        } else if field("message").is_empty() {
            self.failed(&format_args!("the answer is {status}"))
        } else {
            super::tables::clean(field("message"))
        };
        let code = field("code").to_owned();
        let status = status.as_u16();
        Err(Failure::new(Kind::Answered { status, code }, message))
    }

    async fn connect(&self, uri: &Uri) -> Result<Box<dyn Socket>, String> {
        let host = uri.host().unwrap_or("");
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri
            .port_u16()
            .unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let socket = TcpStream::connect((bare, port))
            .await
            .map_err(|e| format!("cannot connect: {e}. Does the server run?"))?;
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
            .map_err(|e| self.tls_failed(&e))?;
        Ok(Box::new(socket))
    }

    fn tls_failed(&self, e: &std::io::Error) -> String {
        if let Some(reach) = self.found.as_ref().filter(|_| pinned::is_another(e)) {
            let file = reach.data.join(data::CERTIFICATE);
            return format!(
                "TLS failed: the certificate is not the one that {} tells: another program may listen there, and the server of this folder not run; for another server give --url, and --ca-file where its authority is an own one",
                file.display()
            );
        }
        let hint = if e.to_string().contains("InvalidContentType") {
            "the server may speak http there"
        } else if self.found.is_some() {
            "give --url with a name that its certificate has, and --ca-file where its authority is an own one"
        } else {
            "--url must have a name that its certificate has, and --ca-file names an own authority"
        };
        format!("TLS failed: {e}; {hint}")
    }

    fn no_answer(&self, e: &hyper::Error) -> String {
        // What a TLS server sends to one that speaks no TLS is no HTTP.
        let hint = if self.tls.is_none() && e.is_parse() {
            "; the server may speak https there: give --url https://…"
        } else {
            ""
        };
        self.failed(&format_args!("{e}{hint}"))
    }

    fn failed(&self, reason: &dyn std::fmt::Display) -> String {
        format!("{}: {reason}", self.url)
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

pub(crate) fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, String> {
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

/// An answer as it comes.
pub(super) struct Pieces {
    /// Its head.
    pub(super) headers: HeaderMap,
    body: Incoming,
}

impl Pieces {
    /// The next bytes; `None` at the whole end. A body that breaks off is a failure, as is a silence of this length.
    pub(super) async fn next(&mut self, silence: Duration) -> Result<Option<Bytes>, Failure> {
        loop {
            match timeout(silence, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Ok(Some(Err(e))) => {
                    return Err(Failure::broken(format!("the connection broke: {e}")));
                }
                Ok(None) => return Ok(None),
                Err(_) => {
                    let seconds = silence.as_secs();
                    let text = format!("the server was silent for {seconds} s");
                    return Err(Failure::broken(text));
                }
            }
        }
    }
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
            match timeout(SILENCE, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Ok(Some(Err(e))) => return Err(format!("the connection broke: {e}")),
                Ok(None) => return Ok(None),
                Err(_) => {
                    let seconds = SILENCE.as_secs();
                    return Err(format!("the server was silent for {seconds} s"));
                }
            }
        }
    }
}
