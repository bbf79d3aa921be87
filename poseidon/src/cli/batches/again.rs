//! The same batch once more, for the devices that it did not reach or that failed.

use super::super::client::Client;
use super::super::commands::rows;
use super::super::follow::Patience;
use super::super::once::Once;
use super::super::tables::clean;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::time::Duration;

/// How a member ended that is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Again {
    Failed,
    Offline,
}

impl Again {
    fn means(self, state: &str) -> bool {
        match self {
            Self::Failed => matches!(state, "failed" | "timed-out"),
            Self::Offline => state == "offline",
        }
    }
}

/// Makes a new batch with the request of `batch`, and all that was said of how it is to go.
pub(super) async fn ask(
    client: &Client,
    batch: &Value,
    again: &[Again],
    patience: Patience,
) -> Result<Value, String> {
    let ended = rows(batch, "members").filter(|member| {
        let state = member["state"].as_str().unwrap_or("");
        again.iter().any(|again| again.means(state))
    });
    let known: Value = client.get("/agents?brief=true").await?;
    let mut names = Vec::new();
    for member in ended {
        match name(&known, member) {
            Some(name) => names.push(name),
            None => eprintln!(
                "poseidon: {} is left out: Poseidon does not know it any more",
                clean(&full_name(member))
            ),
        }
    }
    if names.is_empty() {
        let words: Vec<_> = again
            .iter()
            .filter_map(|again| Some(again.to_possible_value()?.get_name().to_owned()))
            .collect();
        return Err(format!(
            "no device of this batch ended as {}: nothing is asked again",
            words.join(" or ")
        ));
    }
    let mut body = json!({
        "agents": names, "type": batch["type"], "payload": batch["request"],
        "concurrency": batch["concurrency"], "canary": batch["canary"],
        "stopOnFailures": batch["stopOnFailures"], "queue": batch["queue"],
    });
    if let (Some(created), Some(expires)) = (batch["created"].as_f64(), batch["expires"].as_f64()) {
        // As long as then, rounded.
        let span = Duration::try_from_secs_f64(expires - created + 0.5).unwrap_or_default();
        body["expiresSeconds"] = json!(span.as_secs().max(1));
    }
    Ok(Once::batch(body).send(client, patience).await?)
}

fn full_name(agent: &Value) -> String {
    let field = |name: &str| agent[name].as_str().unwrap_or("");
    format!("{}/{}", field("agent"), field("instance"))
}

/// What a member is called now: it may have another name since.
fn name(known: &Value, member: &Value) -> Option<String> {
    let all: Vec<&Value> = rows(known, "agents")
        .filter(|agent| agent["instance"] == member["instance"])
        .collect();
    let same = all.iter().find(|agent| agent["name"] == member["agent"]);
    let instance = member["instance"].as_str()?;
    let agent = match (same, &all[..]) {
        (Some(agent), _) => agent,
        // Plain Tritons are numbered, so that the number says nothing.
        (None, [agent]) if !instance.starts_with("plain") => agent,
        _ => return None,
    };
    Some(format!("{}/{instance}", agent["name"].as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_by_its_instance_also_under_another_name() {
        let known = json!({"agents": [
            {"name": "new", "instance": "aa"}, {"name": "x", "instance": "bb"}, {"name": "y", "instance": "bb"},
            {"name": "z", "instance": "plain"},
        ]});
        for (agent, instance, found) in [
            ("old", "aa", Some("new/aa")),
            ("y", "bb", Some("y/bb")),
            ("old", "bb", None),
            ("old", "cc", None),
            ("old", "plain", None),
            ("z", "plain", Some("z/plain")),
        ] {
            let member = json!({"agent": agent, "instance": instance});
            assert_eq!(name(&known, &member).as_deref(), found, "{member}");
        }
    }
}
