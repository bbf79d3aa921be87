//! The HTTP interface, as `docs/api.md` has it.

mod agents;
mod batches;
mod blobs;
mod cef;
mod data;
mod events;
mod extract;
mod files;
mod history;
mod identifiers;
mod jobs;
mod metrics;
mod repositories;
mod schedules;
mod trust;

use crate::agents::upgrade::{self, bearer};
use crate::server::{App, page};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Largest body of a request.
const BODY_LIMIT: usize = 2 << 20;
/// The document that describes the interface.
pub const OPENAPI: &str = include_str!("openapi.json");

type Shared = State<Arc<App>>;
type Answer = Result<Response, ApiError>;

/// Makes the router and the list of its routes from one table.
macro_rules! routes {
    ($($method:ident $path:literal => $handler:expr,)*) => {
        /// Method and path of each call that needs the token.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];

        fn guarded() -> Router<Arc<App>> {
            Router::new()$(.route($path, axum::routing::$method($handler)))*
        }
    };
}

routes! {
    get "/api/v1/agents" => agents::list,
    get "/api/v1/agents/{name}" => agents::show,
    delete "/api/v1/agents/{name}" => agents::forget,
    get "/api/v1/agents/{name}/file" => files::get,
    get "/api/v1/pending" => identifiers::pending,
    post "/api/v1/pending/{id}/approve" => identifiers::approve,
    post "/api/v1/pending/{id}/refuse" => identifiers::refuse,
    get "/api/v1/identifiers" => identifiers::list,
    post "/api/v1/identifiers" => identifiers::register,
    delete "/api/v1/identifiers/{id}" => identifiers::forget,
    post "/api/v1/jobs" => jobs::create,
    get "/api/v1/jobs" => jobs::list,
    get "/api/v1/jobs/{job}" => jobs::show,
    get "/api/v1/jobs/{job}/output" => jobs::output,
    post "/api/v1/jobs/{job}/cancel" => jobs::cancel,
    post "/api/v1/batches" => batches::create,
    get "/api/v1/batches" => batches::list,
    get "/api/v1/batches/{batch}" => batches::show,
    get "/api/v1/batches/{batch}/output" => batches::output,
    post "/api/v1/batches/{batch}/cancel" => batches::cancel,
    get "/api/v1/history" => history::list,
    put "/api/v1/blobs/{hash}" => blobs::put,
    head "/api/v1/blobs/{hash}" => blobs::head,
    get "/api/v1/repositories/{name}" => repositories::show,
    post "/api/v1/repositories/{name}" => repositories::replace,
    get "/api/v1/repositories/{name}/history" => repositories::history,
    get "/api/v1/repositories/{name}/revisions/{revision}" => repositories::revision,
    get "/api/v1/repositories/{name}/files/{*path}" => repositories::file,
    put "/api/v1/repositories/{name}/files/{*path}" => repositories::put,
    delete "/api/v1/repositories/{name}/files/{*path}" => repositories::remove,
    post "/api/v1/repositories/{name}/revert" => repositories::revert,
    get "/api/v1/data/{name}" => data::list,
    get "/api/v1/data/{name}/{*key}" => data::show,
    put "/api/v1/data/{name}/{*key}" => data::put,
    delete "/api/v1/data/{name}/{*key}" => data::remove,
    get "/api/v1/trust" => trust::list,
    post "/api/v1/trust/rotate" => trust::rotate,
    get "/api/v1/trust/{name}" => trust::show,
    post "/api/v1/trust/{name}/accept" => trust::accept,
    post "/api/v1/trust/{name}/reset" => trust::reset,
    get "/api/v1/schedules/{name}" => schedules::show,
    put "/api/v1/schedules/{name}" => schedules::put,
    delete "/api/v1/schedules/{name}" => schedules::remove,
    get "/api/v1/agents/{name}/schedule" => schedules::of_agent,
    get "/api/v1/events" => events::stream,
    get "/api/v1/cef" => cef::list,
    get "/api/v1/cef/state" => cef::state,
    get "/api/v1/agents/{name}/metrics" => metrics::show,
}

/// Paths that need no token.
pub const OPEN_ROUTES: &[(&str, &str)] = &[("get", "/healthz"), ("get", "/api/v1/openapi.json")];

/// Everything that the server answers.
pub fn router(app: &Arc<App>) -> Router {
    guarded()
        .layer(middleware::from_fn(complete))
        // Layers that are added later come first.
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .route("/healthz", get(health))
        .route("/api/v1/openapi.json", get(openapi))
        .route("/", get(root))
        .route("/triton", any(agent))
        .route("/triton/", any(agent))
        .route("/triton/{identifier}", any(agent_by_path))
        .route("/triton/{identifier}/", any(agent_by_path))
        .fallback(elsewhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::map_response(page::secure))
        .with_state(app.clone())
}

async fn health() -> Response {
    json(&serde_json::json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn root(State(app): Shared, request: Request) -> Response {
    if upgrade::is_upgrade(request.headers()) {
        return upgrade::answer(&app, None, request);
    }
    page::file(request.uri())
}

async fn agent(State(app): Shared, request: Request) -> Response {
    upgrade::answer(&app, None, request)
}

async fn agent_by_path(
    State(app): Shared,
    Path(identifier): Path<String>,
    request: Request,
) -> Response {
    upgrade::answer(&app, Some(&identifier), request)
}

async fn elsewhere(request: Request) -> Response {
    let path = request.uri().path();
    if path.starts_with("/api/") {
        return ApiError::not_found(format!("there is no call {path}")).into_response();
    }
    page::file(request.uri())
}

async fn wrong_method(request: Request) -> Response {
    let text = format!("{} is not for {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid", text).into_response()
}

async fn guard(State(app): Shared, request: Request, next: Next) -> Response {
    match bearer(request.headers()) {
        Some(token) if app.is_admin(token) => next.run(request).await,
        _ => {
            let error = ApiError::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "the admin token is missing or wrong: send it in `Authorization: Bearer TOKEN`",
            );
            let mut response = error.into_response();
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
    }
}

/// Has a call that changes something done to its end, whatever becomes of its client: what is stored and what is in
/// memory would part half-way.
async fn complete(request: Request, next: Next) -> Response {
    let method = request.method();
    if method != Method::POST && method != Method::DELETE {
        // An upload ends with its connection; what its content is for is done by `whole`.
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    // Read here: elsewhere a body that ends with its connection looks as if it were all of it.
    let done = match bytes(body, &head.headers, BODY_LIMIT).await {
        Ok(body) => whole(next.run(Request::from_parts(head, body.into()))).await,
        Err(e) => Err(e),
    };
    done.unwrap_or_else(IntoResponse::into_response)
}

/// Runs to its end even where the caller is dropped, as it is when a client goes away.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(work).await.map_err(|e| {
        log::error!("a call failed: {e}");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "io", e.to_string())
    })
}

/// A call that failed.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    fn offline(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "offline", message)
    }

    fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
    }

    fn full(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "full", message)
    }

    fn agent(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "agent", message)
    }

    fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }
}

impl From<crate::store::StoreError> for ApiError {
    fn from(e: crate::store::StoreError) -> Self {
        match e {
            crate::store::StoreError::NameTaken => Self::conflict(e.to_string()),
            crate::store::StoreError::Failed(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "io", e.to_string())
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"error": {"code": self.code, "message": self.message}});
        (self.status, json(&body)).into_response()
    }
}

/// A JSON answer: an object with one field.
fn object(field: &'static str, value: &impl Serialize) -> Response {
    json(&std::collections::BTreeMap::from([(field, value)]))
}

/// A JSON answer.
fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(e) => {
            log::error!("an answer cannot be written: {e}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Newline-delimited JSON as it comes.
fn ndjson<S>(lines: S) -> Response
where
    S: futures_util::Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from_stream(lines)).into_response()
}

/// The hash of the identifier with this name.
fn identifier(app: &App, name: &str) -> Result<String, ApiError> {
    app.registry
        .identifier(name)
        .ok_or_else(|| ApiError::not_found(format!("no identifier is registered as {name}")))
}

/// The body of a request as it is; one that says it is too large is not read.
async fn bytes(body: Body, headers: &HeaderMap, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::too_large(format!("the body has more than {limit} bytes"));
    if blobs::length(headers).is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    axum::body::to_bytes(body, limit).await.map_err(|e| {
        // axum wraps the error of the limit; there is no other way to tell it.
        let source = std::error::Error::source(&e);
        if source.is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>) {
            too_large()
        } else {
            ApiError::invalid(format!("the body did not arrive: {e}"))
        }
    })
}

/// The body of a request; a missing one is an empty object.
async fn read<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let bytes = bytes(body, &HeaderMap::new(), BODY_LIMIT).await?;
    let bytes: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) {
        b"{}"
    } else {
        &bytes
    };
    serde_json::from_slice(bytes)
        .map_err(|e| ApiError::invalid(format!("the body cannot be read: {e}")))
}
