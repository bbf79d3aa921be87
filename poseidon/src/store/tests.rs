//! A store that can be held up, for tests of what happens meanwhile.

use super::sqlite::Sqlite;
use super::{Db, Job, JobState};
use serde_json::value::RawValue;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use triton::message::payload;

pub(crate) fn db(dir: &Path) -> Db {
    Db::start(Box::new(Sqlite::open(&dir.join("db")).unwrap())).unwrap()
}

/// Keeps the store's thread until the sender is dropped: what is asked meanwhile comes into one transaction, in its order.
pub(crate) fn hold(db: &Db) -> Sender<()> {
    let (release, held) = channel();
    assert!(db.post(move |_| {
        let _ = held.recv();
        Ok(())
    }));
    release
}

/// Polls it once: it has asked the store by then, and goes no further until it is polled again.
pub(crate) async fn begin(work: impl Future + Unpin) {
    tokio::select! {
        biased;
        _ = work => panic!("the store is held"),
        () = std::future::ready(()) => {}
    }
}

/// A job that was sent, with a request of so many bytes.
pub(crate) fn job(token: &str, bytes: usize) -> Job {
    let request = format!("\"{}\"", "x".repeat(bytes));
    Job {
        token: token.to_owned(),
        identifier: "hash".to_owned(),
        instance: "i1".to_owned(),
        agent: "box".to_owned(),
        state: JobState::Sent,
        created: 1.0,
        request: RawValue::from_string(request).unwrap().into(),
        result: None,
        error: None,
        stdout_bytes: 0,
        stderr_bytes: 0,
        queue: false,
        expires: None,
        journal: None,
        kind: payload::COMMAND.to_owned(),
    }
}
