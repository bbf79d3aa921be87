//! What became of a member, from its job.

use crate::store::Job;
use crate::store::batches::{Detail, MemberEnd, MemberState};
use serde::Deserialize;
use serde_json::value::RawValue;
use triton::message::payload;
use triton::message::text::Data;

/// Longest message and last line that are kept, in characters: each may be told ten thousand times.
const TEXT: usize = 300;

/// How a member ends that is down.
pub(super) fn offline() -> MemberEnd {
    MemberEnd::new(MemberState::Offline, "the device is down")
}

/// Whether this end counts as a failure. A member that was down says nothing of what is asked, nor does one that went
/// before it got its job.
pub(super) fn is_failure(state: MemberState) -> bool {
    matches!(
        state,
        MemberState::Failed | MemberState::TimedOut | MemberState::Cancelled
    )
}

/// How a member ends that is not known any more.
pub(super) fn forgotten() -> MemberEnd {
    MemberEnd::new(MemberState::Offline, "the device was forgotten")
}

/// How a member ends with its job.
pub fn end_of(job: &Job) -> MemberEnd {
    if let Some(error) = &job.error {
        return of_error(error);
    }
    let result = job.result.as_deref().map(RawValue::get);
    match result.map(serde_json::from_str::<payload::JobResult>) {
        Some(Ok(result)) => of_result(result),
        _ => MemberEnd::new(MemberState::Failed, "its end cannot be read"),
    }
}

fn of_error(error: &RawValue) -> MemberEnd {
    #[derive(Deserialize)]
    struct Error {
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(Error { code, message }) = serde_json::from_str(error.get()) else {
        return MemberEnd::new(MemberState::Failed, "its end cannot be read");
    };
    let state = match code.as_str() {
        "offline" | "expired" => MemberState::Offline,
        "cancelled" => MemberState::Cancelled,
        _ => MemberState::Failed,
    };
    let hint = if code == "unknown-type" {
        "; a newer Triton may"
    } else {
        ""
    };
    let message: String = message.chars().take(TEXT).collect();
    MemberEnd::new(state, format!("{code}: {message}{hint}"))
}

fn of_result(result: payload::JobResult) -> MemberEnd {
    use payload::Status;
    let state = match result.status {
        Status::Succeeded => MemberState::Succeeded,
        Status::TimedOut => MemberState::TimedOut,
        Status::Cancelled => MemberState::Cancelled,
        _ => MemberState::Failed,
    };
    let [out, err] = [result.tail.stdout, result.tail.stderr].map(last_line);
    let last_line = if state == MemberState::Succeeded {
        out
    } else {
        err.or(out)
    };
    let ended = match result.status {
        Status::Interrupted => Some("interrupted: the agent or the device died meanwhile"),
        Status::Expired => Some("expired: it came too late to start"),
        _ => None,
    };
    let message = result.message.map(|text| text.chars().take(TEXT).collect());
    MemberEnd {
        state,
        detail: Detail {
            exit_code: result.exit_code.map(i64::from),
            signal: result.signal.map(i64::from),
            elapsed_ms: Some(result.elapsed_ms as f64),
            message: message.or(ended.map(str::to_owned)),
            last_line,
        },
    }
}

/// The last line with something in it.
fn last_line(tail: Data) -> Option<String> {
    let bytes = tail.into_bytes()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rfind(|line| !line.trim().is_empty())?;
    Some(line.trim_end().chars().take(TEXT).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::JobState;
    use serde_json::{Value, json};

    fn end(result: Option<Value>, error: Option<Value>) -> MemberEnd {
        let raw =
            |value: Option<Value>| value.map(|v| serde_json::value::to_raw_value(&v).unwrap());
        end_of(&Job {
            token: "t".to_owned(),
            identifier: "h".to_owned(),
            instance: "i".to_owned(),
            agent: "box".to_owned(),
            state: JobState::Ended,
            created: 1.0,
            kind: "command".to_owned(),
            request: RawValue::NULL.to_owned().into(),
            result: raw(result),
            error: raw(error),
            stdout_bytes: 0,
            stderr_bytes: 0,
            queue: false,
            expires: None,
            journal: None,
        })
    }

    #[test]
    fn an_end_says_how_and_with_which_last_line() {
        let tail = json!({"stdout": {"data": "out\n", "encoding": "utf8"},
            "stderr": {"data": "first\nno such package \n\n", "encoding": "utf8"}});
        let failed = end(
            Some(json!({"status": "failed", "exitCode": 3, "tail": tail})),
            None,
        );
        assert_eq!(failed.state, MemberState::Failed);
        assert_eq!(failed.detail.exit_code, Some(3));
        assert_eq!(failed.detail.last_line.as_deref(), Some("no such package"));
        let fine = end(Some(json!({"status": "succeeded", "tail": tail})), None);
        assert_eq!(fine.detail.last_line.as_deref(), Some("out"));
        for (status, state) in [
            ("timed-out", MemberState::TimedOut),
            ("cancelled", MemberState::Cancelled),
            ("interrupted", MemberState::Failed),
            ("expired", MemberState::Failed),
        ] {
            assert_eq!(end(Some(json!({"status": status})), None).state, state);
        }
    }

    #[test]
    fn errors_are_told_apart() {
        for (code, state) in [
            ("offline", MemberState::Offline),
            ("expired", MemberState::Offline),
            ("cancelled", MemberState::Cancelled),
            ("busy", MemberState::Failed),
            ("lost", MemberState::Failed),
        ] {
            let end = end(None, Some(json!({"code": code, "message": "so it is"})));
            assert_eq!(end.state, state, "{code}");
            assert_eq!(end.detail.message, Some(format!("{code}: so it is")));
        }
        assert_eq!(end(Some(json!([])), None).state, MemberState::Failed);
    }
}
