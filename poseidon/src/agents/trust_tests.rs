//! Keys of devices that change at once.

use super::*;
use crate::agents::hash;
use crate::agents::identifiers::{IdentifierError, Pin};
use crate::agents::settings::Settings;
use crate::events::Events;
use crate::store::sqlite::Sqlite;
use crate::store::{Identifier, Snapshot};
use triton::message::sign::{Proof, SecretKey};

struct Rig {
    dir: tempfile::TempDir,
    db: Db,
    registry: Registry,
    identifier: String,
}

impl Rig {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("db")).unwrap();
        let db = Db::start(Box::new(store)).unwrap();
        let registry = Registry::new(Snapshot::default(), Events::default(), 15);
        let rig = Self {
            dir,
            db,
            registry,
            identifier: hash("an-identifier-of-a-good-length"),
        };
        let row = Identifier {
            hash: rig.identifier.clone(),
            name: "box".to_owned(),
            refused: false,
            created: 0.0,
            attributes: BTreeMap::new(),
            heartbeat: None,
        };
        lock(&rig.registry.inner)
            .identifiers
            .insert(rig.identifier.clone(), row.clone());
        rig.db
            .call(move |store| store.put_identifier(&row))
            .await
            .unwrap();
        rig
    }

    async fn accept(&self, key: &SecretKey) {
        let key = key.public().to_string();
        let accepted = self
            .registry
            .accept_key(&self.db, &self.identifier, Some(&key))
            .await;
        accepted.unwrap();
    }

    async fn rotate(&self, proof: Proof, key: &SecretKey) {
        let hello = Hello {
            instance: "i1".to_owned(),
            keys: vec![proof],
            ..Hello::default()
        };
        let (registry, key) = (&self.registry, key.public());
        let admitted = registry.admit_key(&self.db, &self.identifier, &hello, Some(&key), false);
        assert!(matches!(admitted.await, Ok(true)));
    }

    /// What is pinned in memory, which is what is stored.
    async fn pinned(&self) -> Vec<String> {
        let keys = self.registry.keys_of(&self.identifier).pinned;
        let mut keys: Vec<String> = keys.into_iter().map(|key| key.public_key).collect();
        keys.sort();
        let stored = self.db.call(|store| store.device_keys()).await.unwrap();
        let mut stored: Vec<String> = stored
            .into_iter()
            .filter(|row| row.instance.is_empty())
            .map(|row| row.key)
            .collect();
        stored.sort();
        assert_eq!(keys, stored, "in {}", self.dir.path().display());
        keys
    }
}

fn texts<const N: usize>(keys: [&SecretKey; N]) -> Vec<String> {
    let mut texts = keys.map(|key| key.public().to_string()).to_vec();
    texts.sort();
    texts
}

#[tokio::test]
async fn keys_that_change_at_once_all_change() {
    let rig = Rig::new().await;
    let [a, b, new_a, new_b, c] = std::array::from_fn(|_| SecretKey::random().unwrap());
    // Two are accepted at once.
    tokio::join!(rig.accept(&a), rig.accept(&b));
    assert_eq!(rig.pinned().await, texts([&a, &b]));
    // Both devices change theirs while a third key is accepted.
    tokio::join!(
        rig.rotate(a.prove(&new_a.public()), &new_a),
        rig.rotate(b.prove(&new_b.public()), &new_b),
        rig.accept(&c)
    );
    assert_eq!(rig.pinned().await, texts([&new_a, &new_b, &c]));
    // One goes while another changes: neither undoes the other.
    let newer = SecretKey::random().unwrap();
    let gone = new_b.public().id().to_string();
    let (removed, ()) = tokio::join!(
        rig.registry.remove_key(&rig.db, &rig.identifier, &gone),
        rig.rotate(new_a.prove(&newer.public()), &newer)
    );
    removed.unwrap();
    let new_a = newer;
    assert_eq!(rig.pinned().await, texts([&new_a, &c]));
    // What is taken back stays so: the keys that come then are remembered, not pinned.
    let newest = SecretKey::random().unwrap();
    let proof = new_a.prove(&newest.public());
    let hello = Hello {
        instance: "i1".to_owned(),
        keys: vec![proof],
        ..Hello::default()
    };
    let key = newest.public();
    let (reset, admitted) = tokio::join!(
        rig.registry.reset_keys(&rig.db, &rig.identifier),
        rig.registry
            .admit_key(&rig.db, &rig.identifier, &hello, Some(&key), true)
    );
    reset.unwrap();
    assert!(matches!(admitted, Ok(false)), "{admitted:?}");
    assert!(rig.pinned().await.is_empty());
}

#[tokio::test]
async fn nobody_pushes_out_the_key_of_an_instance() {
    let rig = Rig::new().await;
    let [honest, thief] = std::array::from_fn(|_| SecretKey::random().unwrap().public());
    let hello = |instance: &str| Hello {
        instance: instance.to_owned(),
        ..Hello::default()
    };
    let admit = async |instance: &str, key: &PublicKey, place: bool| {
        let (registry, hello) = (&rig.registry, hello(instance));
        let admitted = registry.admit_key(&rig.db, &rig.identifier, &hello, Some(key), place);
        admitted.await
    };
    admit("honest", &honest, true).await.unwrap();
    // What has no place in the registry is let in, and leaves nothing behind.
    for n in 0..10 {
        admit(&format!("made-up-{n}"), &thief, false).await.unwrap();
    }
    assert_eq!(rig.registry.keys_of(&rig.identifier).shown.len(), 1);
    // Where there is no more room nobody makes some.
    let row = |n: usize| DeviceKey {
        identifier: rig.identifier.clone(),
        instance: format!("i{n}"),
        key: thief.to_string(),
        since: now(),
    };
    let rows: Vec<DeviceKey> = (0..MAX_SHOWN).map(row).collect();
    lock(&rig.registry.inner).pin(&rig.identifier, &rows);
    let shown = rig.registry.keys_of(&rig.identifier).shown;
    assert_eq!(shown.len(), MAX_SHOWN);
    admit("one-more", &thief, true).await.unwrap_err();
    let e = admit("honest", &thief, false).await.unwrap_err();
    assert!(
        matches!(&e, NotAdmitted::Distrusted(reason) if reason.contains("has shown")),
        "{e:?}"
    );
    admit("honest", &honest, true).await.unwrap();
    // With an instance its key goes, from the store too.
    let key = Key {
        identifier: rig.identifier.clone(),
        instance: "honest".to_owned(),
    };
    lock(&rig.registry.inner).forget_key(&key);
    let removed = rig
        .db
        .call(move |store| store.delete_instance(&key.identifier, &key.instance));
    removed.await.unwrap();
    assert!(
        rig.db
            .call(|store| store.device_keys())
            .await
            .unwrap()
            .is_empty()
    );
    admit("one-more", &thief, true).await.unwrap();
}

#[tokio::test]
async fn one_that_was_refused_is_approved_with_its_key() {
    let rig = Rig::new().await;
    let (registry, db, id) = (&rig.registry, &rig.db, &rig.identifier);
    let [first, second] = std::array::from_fn(|_| SecretKey::random().unwrap());
    registry.refuse(db, id).await.unwrap();
    let with = |key: Option<&SecretKey>| Pin {
        none: false,
        id: key.map(|key| key.public().to_string()),
    };
    // Nobody knows its key yet.
    let e = registry
        .approve(db, id, Settings::default(), &with(None))
        .await;
    assert!(matches!(e, Err(IdentifierError::Invalid(_))), "{e:?}");
    registry.knock(id, "192.0.2.1:1", "triton/0.1.0", Some(first.public()));
    assert!(registry.pending().is_empty());
    registry
        .approve(db, id, Settings::default(), &with(None))
        .await
        .unwrap();
    assert_eq!(rig.pinned().await, texts([&first]));
    // One that is in gets the named key besides, and keeps what it has when it is refused meanwhile.
    let named = with(Some(&second));
    let again = registry.approve(db, id, Settings::default(), &named).await;
    assert_eq!(again.unwrap().state, "registered");
    assert_eq!(rig.pinned().await, texts([&first, &second]));
    registry.refuse(db, id).await.unwrap();
    registry
        .approve(db, id, Settings::default(), &with(None))
        .await
        .unwrap();
    assert_eq!(rig.pinned().await, texts([&first, &second]));
}
