//! Questions that a device answers at once: nothing of them is kept here.

use super::agents::resolve;
use super::door::Who;
use super::{Answer, ApiError, json};
use crate::agents::ask::{AskError, ask};
use crate::server::App;
use axum::http::StatusCode;
use serde_json::Value;
use triton::message::{ErrorCode, Message, payload};

/// Asks the one device, and gives on what it answers.
pub(super) async fn relay(
    app: &App,
    who: &Who,
    name: &str,
    question: &Message,
    expected: &str,
) -> Answer {
    let targets = resolve(app, who, name)?;
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
        Err(AskError::Refused(error)) if error.code == ErrorCode::NotFound => {
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

impl From<AskError> for ApiError {
    fn from(e: AskError) -> Self {
        let text = e.to_string();
        match e {
            AskError::Offline => Self::offline(text),
            AskError::Busy => Self::busy(text),
            AskError::Refused(error) => match error.code {
                ErrorCode::Refused => Self::new(StatusCode::FORBIDDEN, "refused", text),
                ErrorCode::Busy => Self::busy(text),
                _ => Self::agent(text),
            },
            AskError::Silent | AskError::TooLarge(_) | AskError::Odd(_) => Self::agent(text),
        }
    }
}
