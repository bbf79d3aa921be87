//! Calls of the page about who is signed in.

use super::door::{Who, challenge, cookie, cookie_name, no_store, peer, record};
use super::{Answer, ApiError, Shared, bytes, json};
use crate::doors::origin::is_own;
use crate::doors::{Caller, SESSION};
use crate::server::App;
use crate::store::doors::Act;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// Largest body of a login.
const BODY: usize = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
    /// It comes from a link, which anybody may have made.
    #[serde(default)]
    link: bool,
}

/// Who is signed in.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Me<'a> {
    name: &'a str,
    role: &'a str,
    on: &'a [String],
    expires: Option<f64>,
    session_ends: Option<f64>,
    csrf_token: Option<&'a str>,
}

impl<'a> From<&'a Caller> for Me<'a> {
    fn from(caller: &'a Caller) -> Self {
        let principal = &caller.principal;
        Self {
            name: &principal.name,
            role: principal.role.as_str(),
            on: &principal.on,
            expires: principal.expires,
            session_ends: caller.until,
            csrf_token: caller.csrf.as_deref(),
        }
    }
}

/// Makes a session of a token.
pub(super) async fn login(State(app): Shared, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let (address, tls) = peer(&head.extensions);
    if let Err(reason) = is_own(&head.headers, true) {
        return ApiError::refused(reason).into_response();
    }
    let old = cookie(&head.headers, tls).and_then(|cookie| app.doors.by_cookie(cookie));
    let opened = open(&app, body, &head.headers, address, old).await;
    let response = opened.map(|(cookie, caller)| {
        let mut response = json(&Me::from(&caller));
        set_cookie(&mut response, &cookie, SESSION, tls);
        response
    });
    no_store(challenge(
        response.unwrap_or_else(axum::response::IntoResponse::into_response),
    ))
}

async fn open(
    app: &Arc<App>,
    body: Body,
    headers: &axum::http::HeaderMap,
    address: IpAddr,
    old: Option<Caller>,
) -> Result<(String, Caller), ApiError> {
    let body = bytes(body, headers, BODY).await?;
    // What serde says of it could have the token in it.
    let login: Login = serde_json::from_slice(&body)
        .map_err(|_| ApiError::invalid("the body is {\"token\":\"…\"}"))?;
    if login.link
        && let Some(old) = &old
    {
        let text = format!(
            "{} is signed in: sign out before you use a link with a token",
            old.principal.name
        );
        return Err(ApiError::conflict(text));
    }
    let mut act = Act {
        address: address.to_string(),
        act: "session.login".to_owned(),
        ..Act::default()
    };
    let caller = app.doors.by_token(login.token.trim());
    if let Err(wait) = app.doors.may_try(address, caller.is_some()) {
        return Err(ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "busy",
            format!("too many wrong tokens were given: try again in {wait} s"),
        )
        .after(wait));
    }
    let Some(caller) = caller else {
        log::info!("{address} gave a token that is not accepted");
        record(app, act, StatusCode::UNAUTHORIZED.as_u16()).await;
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "Poseidon does not accept this token",
        ));
    };
    caller.principal.name.clone_into(&mut act.who);
    caller.principal.role.as_str().clone_into(&mut act.role);
    act.target.clone_from(&act.who);
    let begun = app.audit.begin(act).await?;
    if let Some(old) = old {
        app.doors.log_out(&old).await?;
    }
    let opened = app.doors.log_in(&caller).await?;
    begun.end(StatusCode::OK.as_u16(), "").await;
    Ok(opened)
}

fn set_cookie(response: &mut Response, value: &str, seconds: f64, tls: bool) {
    let secure = if tls { "; Secure" } else { "" };
    let text = format!(
        "{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}",
        cookie_name(tls)
    );
    if let Ok(value) = HeaderValue::try_from(text) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}

pub(super) async fn logout(State(app): Shared, who: Who, request: Request) -> Answer {
    let (_, tls) = peer(request.extensions());
    if !app.doors.log_out(&who.caller).await? {
        return Err(ApiError::invalid(
            "there is no session to end: this call came with a token",
        ));
    }
    let mut response = json(&serde_json::json!({}));
    set_cookie(&mut response, "", 0.0, tls);
    Ok(response)
}

pub(super) async fn me(who: Who) -> Answer {
    Ok(no_store(json(&Me::from(&who.caller))))
}
