//! The door of each call: who makes it, whether they may, and the log of it.

use super::{ApiError, BODY_LIMIT, bytes, whole};
use crate::agents::upgrade::bearer;
use crate::agents::{FINGERPRINT, fingerprint, hash};
use crate::doors::audit::summary;
use crate::doors::origin::is_own;
use crate::doors::{Caller, Principal, Role};
use crate::jobs::lock;
use crate::server::App;
use crate::server::limits::{Peer, Tls};
use crate::store::doors::Act;
use axum::body::{Body, HttpBody as _};
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use std::net::IpAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

/// The header that a call by cookie carries where it changes something.
pub const CSRF: &str = "x-csrf-token";
/// Longest text that calls add to the log of them, in bytes.
const NOTES: usize = 4096;

/// A call that needs a token.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// In lower case.
    pub method: &'static str,
    /// With its placeholders.
    pub path: &'static str,
    /// Who may.
    pub role: Role,
    handler: &'static str,
    mark: &'static str,
}

impl Route {
    pub(super) const fn new(
        method: &'static str,
        path: &'static str,
        role: Role,
        handler: &'static str,
        mark: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            role,
            handler,
            mark,
        }
    }

    /// What the audit log calls it, such as `jobs.create`.
    pub fn act(&self) -> String {
        self.handler.replace("::", ".")
    }

    /// Whether it is written into the audit log: what changes something, and what is marked `audited`, such as the
    /// reading of content; not what is marked `quiet`.
    pub fn is_act(&self) -> bool {
        match self.mark {
            "audited" => true,
            "quiet" => false,
            _ => !matches!(self.method, "get" | "head"),
        }
    }
}

/// Who makes a call, for its handler.
#[derive(Clone)]
pub(super) struct Who {
    pub caller: Caller,
    notes: Arc<Mutex<String>>,
}

impl Deref for Who {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.caller.principal
    }
}

impl Who {
    /// Adds to what the audit log says of this call when it is over: never a secret.
    pub fn note(&self, text: &str) {
        let mut notes = lock(&self.notes);
        if notes.len() + text.len() < NOTES {
            if !notes.is_empty() {
                notes.push(' ');
            }
            notes.push_str(text);
        } else if !notes.ends_with('…') {
            notes.push_str(" …");
        }
    }

    /// Whether it sees no content: neither what was typed into a command nor what is in files.
    pub fn is_viewer(&self) -> bool {
        self.role == Role::Viewer
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Only a route that is not in the table has none.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            let text = "nobody has looked who makes this call";
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "io", text)
        })
    }
}

/// What a route's door is made of.
pub(super) type Door = State<(Arc<App>, &'static Route)>;

pub(super) async fn pass(
    State((app, route)): Door,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let target = params.map(|params| target(&params)).unwrap_or_default();
    let passed = enter(&app, route, target, request, next).await;
    passed.unwrap_or_else(axum::response::IntoResponse::into_response)
}

/// What the placeholders of the path stand for.
fn target(params: &RawPathParams) -> String {
    let values: Vec<String> = params
        .iter()
        .map(|(name, value)| match name {
            "id" => fingerprint_of(value),
            _ => value.to_owned(),
        })
        .collect();
    values.join(" ")
}

/// Where an ID is taken a whole identifier does as well, which is a secret: of that the fingerprint is told.
fn fingerprint_of(id: &str) -> String {
    if id.len() <= FINGERPRINT && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return id.to_owned();
    }
    fingerprint(&hash(id)).to_owned()
}

async fn enter(
    app: &Arc<App>,
    route: &'static Route,
    target: String,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut head, body) = request.into_parts();
    let (address, tls) = peer(&head.extensions);
    let mut act = Act {
        address: address.to_string(),
        act: route.act(),
        target,
        ..Act::default()
    };
    let Some(caller) = caller(app, &head.headers, tls) else {
        return Err(unknown(app, &head.headers, act, address).await);
    };
    caller.principal.name.clone_into(&mut act.who);
    caller.principal.role.as_str().clone_into(&mut act.role);
    if let Err(refusal) = may(route, &caller, &head.method, &head.headers) {
        // Who has many refused must not push out what else is in the log.
        if let Some(passed_over) = caller.principal.may_note() {
            if passed_over > 0 {
                act.detail = format!("{passed_over} refused calls before it are not written down");
            }
            record(app, act, refusal.status.as_u16()).await;
        }
        return Err(refusal);
    }
    let who = Who {
        caller,
        notes: Arc::default(),
    };
    head.extensions.insert(who.clone());
    // A call that changes something is done to its end, whatever becomes of its client: what is stored and what is in
    // memory would part half-way. An upload ends with its connection; what its content is for is done by `whole`.
    let to_its_end = matches!(head.method, Method::POST | Method::PATCH | Method::DELETE);
    let mut body = body;
    act.detail = head.uri.query().map(query).unwrap_or_default();
    if to_its_end {
        // Read here: elsewhere a body that ends with its connection looks as if it were all of it.
        let read = bytes(body, &head.headers, BODY_LIMIT).await?;
        if route.is_act() {
            let (on, detail) = summary(&read);
            act.target = joined(&act.target, &on);
            act.detail = joined(&act.detail, &detail);
        }
        body = read.into();
    }
    let begun = if route.is_act() {
        let begun = app.audit.begin(act).await.map_err(|e| {
            let meaning = "nothing was done, for it cannot be written into the audit log";
            ApiError::from(e).because(meaning)
        });
        Some(begun?.telling(who.notes.clone()))
    } else {
        None
    };
    let (shared, request) = (app.clone(), Request::from_parts(head, body));
    let work = async move {
        let response = next.run(request).await;
        if let Some(begun) = begun {
            let notes = std::mem::take(&mut *lock(&who.notes));
            begun.end(response.status().as_u16(), &notes).await;
        }
        while_good(&shared, who.caller, response)
    };
    if to_its_end {
        whole(work).await
    } else {
        Ok(work.await)
    }
}

fn joined(a: &str, b: &str) -> String {
    format!("{a} {b}").trim().to_owned()
}

/// A query as people read it.
fn query(query: &str) -> String {
    let text = percent_encoding::percent_decode_str(query).decode_utf8_lossy();
    text.replace(char::is_control, "\u{FFFD}")
}

/// Where a request comes from, and whether the browser sees TLS.
pub(super) fn peer(extensions: &Extensions) -> (IpAddr, bool) {
    let address = extensions
        .get::<Peer>()
        .map_or(IpAddr::from([0, 0, 0, 0]), |peer| {
            peer.0.ip().to_canonical()
        });
    (address, extensions.get::<Tls>().is_some_and(|tls| tls.0))
}

/// The session cookie's name. With the prefix no other host can set it.
pub(super) fn cookie_name(tls: bool) -> &'static str {
    if tls { "__Host-poseidon" } else { "poseidon" }
}

/// The session cookie.
pub(super) fn cookie(headers: &HeaderMap, tls: bool) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == cookie_name(tls))
        .map(|(_, value)| value)
}

/// Whom the token stands for or, without one, the cookie.
fn caller(app: &App, headers: &HeaderMap, tls: bool) -> Option<Caller> {
    if headers.contains_key(header::AUTHORIZATION) {
        return app.doors.by_token(bearer(headers)?);
    }
    app.doors.by_cookie(cookie(headers, tls)?)
}

/// The answer to who has no key. A wrong token is written down, as far as there are not too many.
async fn unknown(app: &App, headers: &HeaderMap, act: Act, address: IpAddr) -> ApiError {
    if bearer(headers).is_some() && app.doors.may_note(address) {
        record(app, act, StatusCode::UNAUTHORIZED.as_u16()).await;
    }
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "the token is missing, wrong, expired or removed: send one in `Authorization: Bearer TOKEN`, or sign in",
    )
}

/// Writes down what was refused.
pub(super) async fn record(app: &App, act: Act, status: u16) {
    if let Err(e) = app.audit.record(act, false, status).await {
        log::error!("a refused call is not in the audit log: {e}");
    }
}

fn may(
    route: &Route,
    caller: &Caller,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    if caller.csrf.is_some() {
        // The browser sends a cookie along for any page that asks; a token has to be known.
        let acts = !matches!(*method, Method::GET | Method::HEAD);
        is_own(headers, acts).map_err(ApiError::refused)?;
        let given = headers.get(CSRF).and_then(|value| value.to_str().ok());
        if acts && !caller.fits_csrf(given.unwrap_or("")) {
            let text = "a call by cookie that changes something needs the header X-CSRF-Token, as /api/v1/me tells it";
            return Err(ApiError::refused(text));
        }
    }
    let Principal { name, role, .. } = &*caller.principal;
    if *role < route.role {
        return Err(ApiError::refused(format!(
            "{name} is {}, and this is for {}",
            article(*role),
            article(route.role)
        )));
    }
    Ok(())
}

fn article(role: Role) -> &'static str {
    match role {
        Role::Viewer => "a viewer",
        Role::Operator => "an operator",
        Role::Admin => "an admin",
    }
}

type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A stream breaks off when its token or session is no longer good; it does not end as if that were all.
fn while_good(app: &Arc<App>, caller: Caller, response: Response) -> Response {
    let (head, body) = response.into_parts();
    if body.size_hint().exact().is_some() {
        return Response::from_parts(head, body);
    }
    let app = app.clone();
    let ended: Ended = Box::pin(async move { app.doors.ended(&caller).await });
    let state = Some((body.into_data_stream(), ended));
    let pieces = futures_util::stream::unfold(state, |state| async move {
        let (mut pieces, mut ended) = state?;
        tokio::select! {
            biased;
            () = &mut ended => {
                let gone = std::io::Error::other("the token or session is no longer good");
                Some((Err(gone), None))
            }
            piece = pieces.next() => match piece? {
                Ok(piece) => Some((Ok(piece), Some((pieces, ended)))),
                Err(e) => Some((Err(std::io::Error::other(e)), None)),
            }
        }
    });
    Response::from_parts(head, Body::from_stream(pieces))
}

/// What 401 says with.
pub(super) fn challenge(mut response: Response) -> Response {
    if response.status() == StatusCode::UNAUTHORIZED {
        let bearer = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, bearer);
    }
    response
}

/// An answer that nobody keeps.
pub(super) fn no_store(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.into_response()
}
