use super::*;
use crate::store::tests::{begin, db, hold};
use std::pin::pin;

const ID: &str = "00112233445566778899aabbccddeeff";

fn plan() -> Plan {
    Plan {
        row: Row {
            id: ID.to_owned(),
            created: 1.0,
            kind: "command".to_owned(),
            request: RawValue::NULL.to_owned().into(),
            on: vec!["*".to_owned()],
            agents: Vec::new(),
            concurrency: 1,
            canary: 0,
            stop_on_failures: 0,
            queue: true,
            expires: None,
            total: 0,
            stopped: None,
            ended: None,
            counts: None,
        },
        targets: vec![Target {
            key: Key {
                identifier: "hash".to_owned(),
                instance: "i1".to_owned(),
            },
            name: "box".to_owned(),
            connection: None,
            journal: None,
        }],
    }
}

/// Who finds a batch in the store gets the one that is driven, also before its maker has heard that it is stored.
#[tokio::test]
async fn a_cancel_reaches_a_batch_as_soon_as_it_can_be_found() {
    let dir = tempfile::tempdir().unwrap();
    let batches = Batches::new(db(dir.path()), Events::default());
    let held = hold(&batches.db);
    let mut create = pin!(batches.create(plan()));
    begin(create.as_mut()).await;
    let mut get = pin!(batches.get(ID));
    begin(get.as_mut()).await;
    drop(held);

    let found = get.await.unwrap().unwrap();
    let changed = found.changed.subscribe();
    assert!(batches.cancel(&found, None).await.unwrap());
    let made = create.await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&found, &made));
    assert!(lock(&made.standing).cancel.is_some() && changed.has_changed().unwrap());
}

#[tokio::test]
async fn a_batch_that_is_not_stored_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let batches = Batches::new(db(dir.path()), Events::default());
    let first = batches.create(plan()).await.unwrap().unwrap();
    let again = batches.create(plan()).await;
    assert!(matches!(again, Err(StoreError::TokenTaken)));
    assert_eq!(lock(&batches.open).len(), 1);
    assert!(Arc::ptr_eq(&batches.open(ID).unwrap(), &first));
}

/// Nobody waits for ever for what is in the store alone.
#[tokio::test]
async fn a_batch_that_nobody_drives_is_an_error_until_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let batches = Batches::new(db(dir.path()), Events::default());
    let first = batches.create(plan()).await.unwrap().unwrap();
    batches.close(&first);
    let error = batches.get(ID).await.err().expect("an error").to_string();
    assert!(error.contains(ID) && error.contains("restart"), "{error}");
    let call = |store: &mut dyn Store| store.end_batch(ID, 2.0, &Counts::default());
    batches.db.call(call).await.unwrap();
    assert!(batches.get(ID).await.unwrap().unwrap().is_over());
}
