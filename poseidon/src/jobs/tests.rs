use super::output::{Lines, Now};
use super::*;
use crate::store;
use crate::store::tests::{begin, db, hold};
use std::pin::pin;
use tokio::sync::watch;

const TOKEN: &str = "00112233445566778899aabbccddeeff";
/// Number of a connection.
const HERE: u64 = 7;

fn jobs(dir: &std::path::Path) -> Arc<Jobs> {
    let spools = Spools::open(dir.join("output"), 1 << 20, 1 << 20).unwrap();
    Jobs::new(db(dir), Events::default(), spools, Vec::new())
}

fn job() -> Job {
    store::tests::job(TOKEN, 0)
}

/// Who finds a job in the store finds it among the open ones, also before the one who made it has heard that it is stored.
#[tokio::test]
async fn a_job_is_open_as_soon_as_it_can_be_found() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = jobs(dir.path());
    let (_stop, stopping) = watch::channel(false);
    let held = hold(&jobs.db);
    let mut create = pin!(jobs.create(vec![(job(), HERE)]));
    begin(create.as_mut()).await;
    let mut lines = pin!(Lines::open(&jobs, TOKEN, true, stopping));
    begin(lines.as_mut()).await;
    assert!(jobs.open(TOKEN).is_none());
    drop(held);

    let mut lines = lines.await.unwrap().unwrap();
    assert!(jobs.open(TOKEN).is_some());
    assert!(matches!(lines.now().await, Now::Nothing));
    let made = create.await.unwrap().unwrap();
    jobs.end(&made[0], End::Error(forgotten())).await;
    let end = lines.next().await.unwrap().unwrap();
    assert!(end.starts_with(b"{\"type\":\"end\""), "{end:?}");
    assert!(lines.next().await.is_none());
    assert!(jobs.open(TOKEN).is_none());
    let ended = jobs.get(TOKEN).await.unwrap().unwrap();
    assert_eq!(ended.state, JobState::Ended);
}

#[tokio::test]
async fn a_job_that_is_not_stored_is_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = jobs(dir.path());
    let first = jobs.create(vec![(job(), HERE)]).await.unwrap().unwrap();
    let further = Job {
        token: "f".repeat(32),
        ..job()
    };
    let again = jobs.create(vec![(further, HERE), (job(), HERE)]).await;
    assert!(matches!(again, Err(StoreError::TokenTaken)));
    assert_eq!(lock(&jobs.open).len(), 1);
    assert!(Arc::ptr_eq(&jobs.open(TOKEN).unwrap(), &first[0]));
}

/// Nobody waits for ever for what is in the store alone, and it is not said to have ended.
#[tokio::test]
async fn a_job_that_nobody_goes_on_with_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = jobs(dir.path());
    let insert = |store: &mut dyn Store| store.insert_jobs(&[job()]);
    jobs.db.call(insert).await.unwrap();
    let error = jobs.get(TOKEN).await.unwrap_err().to_string();
    assert!(
        error.contains(TOKEN) && error.contains("restart"),
        "{error}"
    );
}

#[tokio::test]
async fn a_cancel_overtakes_no_job() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = jobs(dir.path());
    let mut made = jobs.create(vec![(job(), HERE)]).await.unwrap().unwrap();
    let live = made.remove(0);
    assert!(jobs.cancel_unsent(&live).await);
    let sent = |_: &Job| panic!("it was cancelled");
    jobs.send_new(&live, HERE, sent).await;
    let ended = live.job();
    assert_eq!(ended.state, JobState::Ended);
    assert!(ended.error.unwrap().get().contains("cancelled"));

    // One that was sent is the agent's to end.
    for by_delivery in [false, true] {
        let token = format!("{by_delivery:>032}");
        let further = Job { token, ..job() };
        let mut made = jobs.create(vec![(further, HERE)]).await.unwrap().unwrap();
        let live = made.remove(0);
        if by_delivery {
            live.resume(HERE + 1, None, 1.0);
        } else {
            jobs.send_new(&live, HERE, |_| Ok(())).await;
        }
        assert!(!jobs.cancel_unsent(&live).await);
        assert_eq!(live.state(), JobState::Sent);
    }
}
