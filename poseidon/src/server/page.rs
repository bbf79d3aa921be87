//! The page: files of `web/` in the binary.

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};

const JS: &str = "text/javascript; charset=utf-8";
/// Path, content type, content. One line for each file.
const FILES: &[(&str, &str, &str)] = &[
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("../../web/index.html"),
    ),
    (
        "/style.css",
        "text/css; charset=utf-8",
        include_str!("../../web/style.css"),
    ),
    (
        "/favicon.svg",
        "image/svg+xml",
        include_str!("../../web/favicon.svg"),
    ),
    ("/api.js", JS, include_str!("../../web/api.js")),
    ("/app.js", JS, include_str!("../../web/app.js")),
    ("/batches.js", JS, include_str!("../../web/batches.js")),
    ("/cef.js", JS, include_str!("../../web/cef.js")),
    ("/clock.js", JS, include_str!("../../web/clock.js")),
    ("/data.js", JS, include_str!("../../web/data.js")),
    ("/device.js", JS, include_str!("../../web/device.js")),
    ("/dom.js", JS, include_str!("../../web/dom.js")),
    ("/editor.js", JS, include_str!("../../web/editor.js")),
    ("/facts.js", JS, include_str!("../../web/facts.js")),
    ("/files.js", JS, include_str!("../../web/files.js")),
    ("/fleet.js", JS, include_str!("../../web/fleet.js")),
    ("/format.js", JS, include_str!("../../web/format.js")),
    ("/health.js", JS, include_str!("../../web/health.js")),
    ("/history.js", JS, include_str!("../../web/history.js")),
    ("/jobs.js", JS, include_str!("../../web/jobs.js")),
    ("/many.js", JS, include_str!("../../web/many.js")),
    ("/output.js", JS, include_str!("../../web/output.js")),
    ("/pending.js", JS, include_str!("../../web/pending.js")),
    ("/plots.js", JS, include_str!("../../web/plots.js")),
    ("/run.js", JS, include_str!("../../web/run.js")),
    ("/schedule.js", JS, include_str!("../../web/schedule.js")),
    ("/scripts.js", JS, include_str!("../../web/scripts.js")),
    ("/sha256.js", JS, include_str!("../../web/sha256.js")),
    ("/store.js", JS, include_str!("../../web/store.js")),
];

/// Scripts and styles come from here only, and nobody shows the page in a frame.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
pub fn file(uri: &Uri) -> Response {
    let Some((_, kind, content)) = FILES.iter().find(|(path, ..)| *path == uri.path()) else {
        return (StatusCode::NOT_FOUND, "There is nothing here.\n").into_response();
    };
    (
        [
            (header::CONTENT_TYPE, *kind),
            // The files belong together: none may be older than the others.
            (header::CACHE_CONTROL, "no-cache"),
        ],
        *content,
    )
        .into_response()
}

/// Headers that every answer carries.
pub async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
