//! The door for agents: from an HTTP request with an identifier to a WebSocket.

use super::identifiers::Admission;
use super::{GUESSABLE, fingerprint, hash, session};
use crate::server::App;
use crate::server::limits::Peer;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use triton::identity::check_identifier;

/// Beyond this a message is not even read to its end: the connection closes with 1009.
pub const HARD_LIMIT: usize = 4 << 20;
/// Thousands of agents are connected and mostly silent: tungstenite's 128 KiB each would be too much.
const BUFFER: usize = 4 << 10;
/// A writer may have so much in its buffer beyond the message that it writes.
const WRITE_BUFFER: usize = 4 << 20;
/// Header of a device's public key.
const DEVICE_KEY: &str = "triton-key";
/// Header of what it is to sign.
const CHALLENGE: &str = "triton-challenge";
/// When a full server is worth another try, in seconds.
const RETRY_FULL: u64 = 30;

/// Whether a request asks for a WebSocket.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// Answers an agent's request; `in_path` is the identifier in the path, if any.
pub fn answer(app: &Arc<App>, in_path: Option<&str>, mut request: Request) -> Response {
    if !is_upgrade(request.headers()) {
        return (
            StatusCode::UPGRADE_REQUIRED,
            [
                (header::UPGRADE, "websocket"),
                (header::CONNECTION, "upgrade"),
            ],
            "Tritons connect here by WebSocket.\n",
        )
            .into_response();
    }
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = request.headers();
    let Some(identifier) = bearer(headers).or(in_path) else {
        return (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Bearer")],
            "An identifier is missing: in `Authorization: Bearer IDENTIFIER`, or in the path.\n",
        )
            .into_response();
    };
    if check_identifier(identifier).is_err() {
        return (StatusCode::UNAUTHORIZED, "This is no identifier.\n").into_response();
    }
    let hash = hash(identifier);
    let admission = app.registry.admission(&hash);
    // Guesses are slowed down. A registered identifier that is too long to be guessed is no guess, nor is an agent
    // that was last seen at this very address, so that a neighbour behind the same address does not keep it out.
    let trusted = admission == Admission::Registered
        && (identifier.len() >= GUESSABLE || app.registry.known_from(&hash, peer.0.ip()));
    if !trusted
        && let Err(wait) = app
            .attempts
            .check(peer.0.ip(), admission == Admission::Registered)
    {
        return retry(
            StatusCode::TOO_MANY_REQUESTS,
            wait,
            "Too many attempts with identifiers that are not registered.\n",
        );
    }
    let id = fingerprint(&hash);
    if admission != Admission::Registered {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
        let agent = text(header::USER_AGENT.as_str()).unwrap_or("");
        let key = text(DEVICE_KEY).and_then(|key| key.parse().ok());
        let address = peer.0.to_string();
        app.registry.knock(&hash, &address, agent, key);
    }
    match admission {
        Admission::Registered => {}
        Admission::Refused => {
            let text = format!("This identifier is refused. Its ID is {id}.\n");
            return (StatusCode::FORBIDDEN, text).into_response();
        }
        Admission::Unknown => {
            log::info!("identifier {id} from {} is not registered", peer.0);
            let text = format!(
                "This identifier is not registered. An operator lets it in with: poseidon approve {id} --name NAME\n"
            );
            return (StatusCode::FORBIDDEN, text).into_response();
        }
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).cloned();
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    let (Some(key), Some("13")) = (key, version.and_then(|v| v.to_str().ok())) else {
        return (
            StatusCode::BAD_REQUEST,
            [(header::SEC_WEBSOCKET_VERSION, "13")],
            "This is no WebSocket handshake of version 13.\n",
        )
            .into_response();
    };
    if *app.stop.borrow() {
        return retry(
            StatusCode::SERVICE_UNAVAILABLE,
            5,
            "Poseidon is stopping.\n",
        );
    }
    let Some((connection, outbox)) = app.registry.open(&hash, app.settings.max_agents) else {
        log::warn!(
            "there are {} agents, no more are let in",
            app.settings.max_agents
        );
        return retry(
            StatusCode::SERVICE_UNAVAILABLE,
            RETRY_FULL,
            "There is no room for more agents.\n",
        );
    };
    let challenge = connection.challenge.clone();
    let upgrade = hyper::upgrade::on(&mut request);
    let app = app.clone();
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let config = WebSocketConfig::default()
                    .read_buffer_size(BUFFER)
                    .write_buffer_size(BUFFER)
                    .max_write_buffer_size(WRITE_BUFFER)
                    .max_message_size(Some(HARD_LIMIT))
                    .max_frame_size(Some(HARD_LIMIT));
                let socket = WebSocketStream::from_raw_socket(
                    TokioIo::new(upgraded),
                    Role::Server,
                    Some(config),
                )
                .await;
                session::run(&app, socket, &connection, outbox, peer).await;
            }
            Err(e) => log::debug!("{}: the handshake was not finished: {e}", peer.0),
        }
        app.registry.close(&connection);
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(CHALLENGE, challenge)
        .header(
            header::SEC_WEBSOCKET_ACCEPT,
            derive_accept_key(key.as_bytes()),
        )
        .body(Body::empty())
        .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// The token of `Authorization: Bearer TOKEN`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim())
        .filter(|token| !token.is_empty())
}

fn retry(status: StatusCode, seconds: u64, text: &'static str) -> Response {
    (status, [(header::RETRY_AFTER, seconds.to_string())], text).into_response()
}
