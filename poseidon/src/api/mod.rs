//! The HTTP interface, as `docs/api.md` has it.

mod agents;
mod ask;
mod audit;
mod batches;
mod blobs;
mod cef;
mod data;
mod door;
mod events;
mod extract;
mod files;
mod history;
mod identifiers;
mod jobs;
mod metrics;
mod modules;
mod repositories;
mod schedules;
mod session;
pub(crate) mod token;
mod tokens;
mod trust;

use door::Who;
pub use door::{CSRF, Route};

use crate::agents::upgrade;
use crate::doors::Role;
use crate::server::{App, page};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::sync::Arc;

/// Largest body of a request.
const BODY_LIMIT: usize = 2 << 20;
/// The document that describes the interface.
pub const OPENAPI: &str = include_str!("openapi.json");

type Shared = State<Arc<App>>;
type Answer = Result<Response, ApiError>;

/// Makes the router and the list of its routes from one table: method, path, who may at least, and what it is done by.
/// What is no GET or HEAD is written into the audit log, and what is marked `audited`; what is marked `quiet` is not.
macro_rules! routes {
    ($($method:ident $path:literal $role:ident $($mark:ident)? => $handler:expr,)*) => {
        /// Each call that needs a token.
        pub const ROUTES: &[Route] = &[$(Route::new(
            stringify!($method), $path, Role::$role, stringify!($handler), concat!($(stringify!($mark))?),
        )),*];

        fn guarded(app: &Arc<App>) -> Router<Arc<App>> {
            Router::new()$(.route($path, {
                const ROUTE: &Route = &Route::new(
                    stringify!($method), $path, Role::$role, stringify!($handler), concat!($(stringify!($mark))?),
                );
                let door = middleware::from_fn_with_state((app.clone(), ROUTE), door::pass);
                axum::routing::$method($handler).route_layer(door)
            }))*
        }
    };
}

routes! {
    get "/api/v1/agents" Viewer => agents::list,
    get "/api/v1/agents/{name}" Viewer => agents::show,
    delete "/api/v1/agents/{name}" Admin => agents::forget,
    get "/api/v1/agents/{name}/file" Operator audited => files::get,
    get "/api/v1/pending" Admin => identifiers::pending,
    post "/api/v1/pending/{id}/approve" Admin => identifiers::approve,
    post "/api/v1/pending/{id}/refuse" Admin => identifiers::refuse,
    get "/api/v1/identifiers" Admin => identifiers::list,
    post "/api/v1/identifiers" Admin => identifiers::register,
    patch "/api/v1/identifiers/{id}" Admin => identifiers::set,
    delete "/api/v1/identifiers/{id}" Admin => identifiers::forget,
    post "/api/v1/jobs" Operator => jobs::create,
    get "/api/v1/jobs" Viewer => jobs::list,
    get "/api/v1/jobs/{job}" Viewer => jobs::show,
    get "/api/v1/jobs/{job}/output" Viewer => jobs::output,
    post "/api/v1/jobs/{job}/cancel" Operator => jobs::cancel,
    post "/api/v1/batches" Operator => batches::create,
    get "/api/v1/batches" Viewer => batches::list,
    get "/api/v1/batches/{batch}" Viewer => batches::show,
    get "/api/v1/batches/{batch}/output" Viewer => batches::output,
    post "/api/v1/batches/{batch}/cancel" Operator => batches::cancel,
    get "/api/v1/history" Viewer => history::list,
    put "/api/v1/blobs/{hash}" Operator quiet => blobs::put,
    head "/api/v1/blobs/{hash}" Operator => blobs::head,
    get "/api/v1/repositories/{name}" Viewer => repositories::show,
    post "/api/v1/repositories/{name}" Operator => repositories::replace,
    get "/api/v1/repositories/{name}/history" Viewer => repositories::history,
    get "/api/v1/repositories/{name}/revisions/{revision}" Viewer => repositories::revision,
    get "/api/v1/repositories/{name}/files/{*path}" Operator audited => repositories::file,
    put "/api/v1/repositories/{name}/files/{*path}" Operator => repositories::put,
    delete "/api/v1/repositories/{name}/files/{*path}" Operator => repositories::remove,
    post "/api/v1/repositories/{name}/revert" Operator => repositories::revert,
    get "/api/v1/data/{name}" Viewer => data::list,
    get "/api/v1/data/{name}/{*key}" Operator audited => data::show,
    put "/api/v1/data/{name}/{*key}" Operator => data::put,
    delete "/api/v1/data/{name}/{*key}" Operator => data::remove,
    get "/api/v1/trust" Admin => trust::list,
    post "/api/v1/trust/rotate" Admin => trust::rotate,
    get "/api/v1/trust/{name}" Viewer => trust::show,
    post "/api/v1/trust/{name}/accept" Admin => trust::accept,
    post "/api/v1/trust/{name}/remove" Admin => trust::remove,
    post "/api/v1/trust/{name}/reset" Admin => trust::reset,
    get "/api/v1/schedules/{name}" Operator => schedules::show,
    put "/api/v1/schedules/{name}" Operator => schedules::put,
    delete "/api/v1/schedules/{name}" Operator => schedules::remove,
    get "/api/v1/agents/{name}/schedule" Viewer => schedules::of_agent,
    get "/api/v1/agents/{name}/status" Viewer => agents::status,
    get "/api/v1/agents/{name}/modules" Viewer => modules::list,
    post "/api/v1/agents/{name}/modules/{module}/kill" Operator => modules::kill,
    post "/api/v1/agents/{name}/modules/{module}/start" Operator => modules::start,
    get "/api/v1/events" Viewer => events::stream,
    get "/api/v1/cef" Viewer => cef::list,
    get "/api/v1/cef/state" Viewer => cef::state,
    get "/api/v1/agents/{name}/metrics" Viewer => metrics::show,
    get "/api/v1/me" Viewer => session::me,
    post "/api/v1/logout" Viewer => session::logout,
    get "/api/v1/tokens" Admin => tokens::list,
    post "/api/v1/tokens" Admin => tokens::add,
    delete "/api/v1/tokens/{name}" Admin => tokens::remove,
    get "/api/v1/audit" Admin => audit::list,
}

/// Paths that need no token.
pub const OPEN_ROUTES: &[(&str, &str)] = &[
    ("get", "/healthz"),
    ("get", "/api/v1/openapi.json"),
    ("post", "/api/v1/login"),
];

/// Everything that the server answers.
pub fn router(app: &Arc<App>) -> Router {
    guarded(app)
        .route("/healthz", get(health))
        .route("/api/v1/login", post(session::login))
        .route("/api/v1/openapi.json", get(openapi))
        .route("/", get(root))
        .route("/triton", any(agent))
        .route("/triton/", any(agent))
        .route("/triton/{identifier}", any(agent_by_path))
        .route("/triton/{identifier}/", any(agent_by_path))
        .fallback(elsewhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(page::secure))
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
    /// Seconds after which another try makes sense.
    wait: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            wait: None,
        }
    }

    fn after(self, seconds: u64) -> Self {
        let wait = Some(seconds);
        Self { wait, ..self }
    }

    fn refused(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "refused", message)
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

    /// An error of a file in the data folder.
    fn file(e: &std::io::Error) -> Self {
        match e.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::full(format!(
                "the disk of the data folder is full: {e}; free space there, and try again"
            )),
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "io", e.to_string()),
        }
    }

    /// The same, with what that means before it.
    fn because(self, meaning: &str) -> Self {
        let message = format!("{meaning}: {}", self.message);
        Self { message, ..self }
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
            crate::store::StoreError::NameTaken | crate::store::StoreError::TokenTaken => {
                Self::conflict(e.to_string())
            }
            crate::store::StoreError::Full(_) => Self::full(e.to_string()),
            crate::store::StoreError::Failed(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "io", e.to_string())
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"error": {"code": self.code, "message": self.message}});
        let mut response = door::challenge((self.status, json(&body)).into_response());
        if let Some(seconds) = self.wait {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
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

/// The hash of the identifier with this name, if all its devices are within what the caller may see.
fn identifier(app: &App, who: &Who, name: &str) -> Result<String, ApiError> {
    app.registry
        .identifier(name)
        .filter(|hash| who.sees_identifier(&app.registry, hash))
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
