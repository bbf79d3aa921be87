//! Signs of life for the service manager's watchdog.

use crate::store::{Db, StoreError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Gives a sign four times in each `period`, as long as the runtime turns and the database answers a question; the log says
/// when it does not. A task of its own: who waits for signals is not run by the workers of the runtime.
pub fn signs(db: Db, period: Duration) -> mpsc::Receiver<()> {
    let (sender, signs) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut well = true;
        loop {
            // A quarter, so that the answer has three: the manager counts from the last sign.
            sleep(period / 4).await;
            // Any question does; there is no job without a name.
            let answer = timeout(period, db.call(|store| store.job(""))).await;
            let trouble = match answer {
                // To start anew makes no room on a full disk.
                Ok(Ok(_) | Err(StoreError::Full(_))) => None,
                Ok(Err(e)) => Some(e.to_string()),
                Err(_) => Some(format!("no answer within {} s", period.as_secs_f64())),
            };
            match &trouble {
                Some(trouble) => log::error!(
                    "the database does not answer, so the watchdog is not fed: {trouble}"
                ),
                None if !well => log::warn!("the database answers again"),
                None => {}
            }
            well = trouble.is_none();
            if well && sender.send(()).await.is_err() {
                return;
            }
        }
    });
    signs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::Sqlite;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_that_hangs_gives_no_sign() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("db")).unwrap();
        let db = Db::start(Box::new(store)).unwrap();
        let period = Duration::from_millis(50);
        let mut signs = signs(db.clone(), period);
        for _ in 0..3 {
            signs.recv().await.unwrap();
        }
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let hangs = db.post(move |_| {
            let _ = gate.recv();
            Ok(())
        });
        assert!(hangs);
        // One may be on its way.
        let mut more = 0;
        while timeout(20 * period, signs.recv()).await.is_ok() {
            more += 1;
            assert!(more <= 2, "signs go on");
        }
        drop(go);
        signs.recv().await.unwrap();
    }
}
