//! Calls about the plugins of one device: it is asked, and nothing is kept here.

use super::ask::relay;
use super::door::Who;
use super::extract::Path;
use super::{Answer, Shared};
use crate::server::App;
use axum::extract::State;
use serde_json::json as value;
use triton::message::{Message, payload};

pub(super) async fn list(State(app): Shared, who: Who, Path(name): Path<String>) -> Answer {
    let question = Message::new(payload::MODULE_LIST);
    relay(&app, &who, &name, &question, payload::MODULE_LIST).await
}

pub(super) async fn kill(State(app): Shared, who: Who, Path(of): Path<(String, String)>) -> Answer {
    order(&app, &who, of, payload::MODULE_KILL).await
}

pub(super) async fn start(
    State(app): Shared,
    who: Who,
    Path(of): Path<(String, String)>,
) -> Answer {
    order(&app, &who, of, payload::MODULE_START).await
}

async fn order(app: &App, who: &Who, (name, module): (String, String), kind: &str) -> Answer {
    log::info!("{kind} {module} for {name}");
    let question = Message::with(kind, &value!({ "name": module }));
    relay(app, who, &name, &question, payload::RESULT).await
}
