//! Calls about the plugins of one device: it is asked, and nothing is kept here.

use super::agents::resolve;
use super::extract::Path;
use super::{Answer, ApiError, Shared, json};
use crate::agents::ask::{AskError, ask};
use crate::server::App;
use axum::extract::State;
use serde_json::Value;
use serde_json::json as value;
use triton::message::{Message, payload};

pub(super) async fn list(State(app): Shared, Path(name): Path<String>) -> Answer {
    let question = Message::new(payload::MODULE_LIST);
    relay(&app, &name, &question, payload::MODULE_LIST).await
}

pub(super) async fn kill(State(app): Shared, Path(of): Path<(String, String)>) -> Answer {
    order(&app, of, payload::MODULE_KILL).await
}

pub(super) async fn start(State(app): Shared, Path(of): Path<(String, String)>) -> Answer {
    order(&app, of, payload::MODULE_START).await
}

async fn order(app: &App, (name, module): (String, String), kind: &str) -> Answer {
    log::info!("{kind} {module} for {name}");
    let question = Message::with(kind, &value!({ "name": module }));
    relay(app, &name, &question, payload::RESULT).await
}

/// Asks the one device, and gives on what it answers.
async fn relay(app: &App, name: &str, question: &Message, expected: &str) -> Answer {
    let targets = resolve(app, name)?;
    let [target] = targets.as_slice() else {
        return Err(match targets.len() {
            0 => ApiError::offline(format!("{name} has never connected")),
            n => ApiError::conflict(format!("{name} has {n} instances: name one, NAME/INSTANCE")),
        });
    };
    let Some(connection) = &target.connection else {
        return Err(ApiError::offline(format!("{name} is down")));
    };
    let answer = match ask(connection, question, expected).await {
        Ok(answer) => answer,
        Err(AskError::Refused(error)) if error.code == payload::ErrorCode::NotFound => {
            return Err(ApiError::not_found(error.message));
        }
        Err(e) => return Err(e.into()),
    };
    let odd = |e: &dyn std::fmt::Display| AskError::Odd(e.to_string());
    let text = answer.payload.as_deref().unwrap_or_default();
    if payload::depth(text) > payload::DATA_DEPTH {
        return Err(odd(&"it is nested too deep").into());
    }
    let answer: Value = serde_json::from_str(text).map_err(|e| odd(&e))?;
    Ok(json(&answer))
}
