//! A store that can be held up, for tests of what happens meanwhile.

use super::Db;
use super::sqlite::Sqlite;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};

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
