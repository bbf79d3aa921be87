//! How large a welcome gets, when it is written, and where its place in the queue is.

use super::*;
use crate::agents::arrival::Arrival;
use crate::agents::connection::{Out, Outbox, QUEUE, SendError};
use crate::agents::hash;
use crate::agents::settings::Settings;
use crate::events::Events;
use crate::keyring::Keyring;
use crate::store::{Identifier, Snapshot};
use std::collections::BTreeMap;
use triton::message::sign::{CHAIN, SecretKey};

const LONGEST: usize = 128;

fn registry(attributes: BTreeMap<String, String>) -> Registry {
    let row = Identifier {
        hash: hash("box"),
        name: "&".repeat(64),
        refused: false,
        created: 0.0,
        attributes,
        heartbeat: None,
    };
    let snapshot = Snapshot {
        identifiers: vec![row],
        ..Snapshot::default()
    };
    Registry::new(snapshot, Events::default(), 15)
}

/// So many attributes with such texts.
fn attributes(number: usize, text: &str) -> BTreeMap<String, String> {
    let all = (0..number).map(|n| (format!("k{n}"), text.to_owned()));
    all.collect()
}

/// The most that may be said.
fn most() -> BTreeMap<String, String> {
    // `"k0":""` of both and a comma are around it, and each sign has five bytes.
    let mut all = attributes(2, &"&".repeat((MAX_ATTRIBUTE_BYTES - 15) / 10));
    let rest = (MAX_ATTRIBUTE_BYTES - 15) % 10;
    all.get_mut("k0").unwrap().push_str(&"x".repeat(rest));
    all
}

/// An agent that is up, and what waits for it.
fn arrive(registry: &Registry, instance: &str) -> (Arc<Connection>, Outbox) {
    let (connection, outbox) = registry.open(&hash("box"), 10).unwrap();
    let mut hello = Message::new(payload::HELLO);
    hello.id = "&".repeat(LONGEST);
    hello.conversation_id.clone_from(&hello.id);
    let arrival = Arrival {
        instance: Some(instance.to_owned()),
        hello: None,
        address: String::new(),
        hostname: String::new(),
        run: None,
        journal: Some("j".to_owned()),
        message: Some(hello),
    };
    assert!(registry.arrive(&connection, &arrival, None).is_ok());
    (connection, outbox)
}

async fn greeting(outbox: &mut Outbox) -> Box<Greeting> {
    match outbox.next().await {
        Some(Out::Welcome(greeting)) => greeting,
        other => panic!("{other:?}"),
    }
}

fn read(welcome: &Welcome) -> payload::Welcome {
    let message = Message::decode(welcome.text.as_bytes(), SMALLEST_LIMIT).unwrap();
    message.read().unwrap()
}

#[tokio::test]
async fn the_largest_welcome_fits_every_device() {
    let dir = tempfile::tempdir().unwrap();
    let ring = Keyring::open(dir.path()).unwrap();
    for _ in 0..CHAIN {
        ring.rotate().unwrap();
    }
    let settings = |attributes| Settings {
        attributes: Some(attributes),
        ..Settings::default()
    };
    let over = |attributes| settings(attributes).over(&hash("box"), None, false);
    let mut more = most();
    assert!(over(more.clone()).is_ok());
    more.get_mut("k1").unwrap().push('x');
    let error = format!("{:?}", over(more).unwrap_err());
    let bytes = format!("{} bytes", MAX_ATTRIBUTE_BYTES + 1);
    for part in [&*bytes, "more than 8192"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let registry = registry(most());
    let (connection, mut outbox) = arrive(&registry, "i1");
    let mut greeting = greeting(&mut outbox).await;
    let device = SecretKey::random().unwrap().public();
    let session = &greeting.hello.id;
    let bond = Bond::new(ring.own(), device, true, session);
    greeting.bond = Some(Arc::new(bond));
    let told = read(&registry.welcome(&connection, &greeting, true).unwrap());
    assert_eq!((told.attributes, told.keys.len()), (most(), CHAIN));
}

#[tokio::test]
async fn attributes_that_are_too_large_already_stay_behind() {
    let before = attributes(64, &"&".repeat(4096));
    let registry = registry(before.clone());
    let (connection, mut outbox) = arrive(&registry, "i1");
    let greeting = greeting(&mut outbox).await;
    let told = read(&registry.welcome(&connection, &greeting, true).unwrap());
    assert!(told.attributes.is_empty());
    assert_eq!(told.name, Some("&".repeat(64)));
    assert_eq!(told.acked, Some(0));
    // It can be refused, or renamed, and attributes can go; but not all that is left is good enough.
    let row = lock(&registry.inner).identifiers[&hash("box")].clone();
    let over = |settings: Settings, refused| settings.over(&row.hash, Some(&row), refused);
    assert!(over(Settings::default(), true).is_ok());
    let name = Some("shed".to_owned());
    let named = Settings {
        name,
        ..Settings::default()
    };
    assert!(over(named, false).is_ok());
    let without = |number| Settings {
        changes: (0..number).map(|n| (format!("k{n}"), None)).collect(),
        ..Settings::default()
    };
    assert!(over(without(1), false).is_err());
    assert!(over(without(64), false).is_ok());
}

/// Whoever changes an identifier holds the registry: what each agent is told is written by its own session.
#[tokio::test]
async fn who_changes_an_identifier_writes_no_welcome() {
    let registry = registry(BTreeMap::new());
    let mut agents: Vec<_> = ["i1", "i2"]
        .map(|instance| arrive(&registry, instance))
        .into();
    for (_, outbox) in &mut agents {
        greeting(outbox).await;
    }
    let again = || registry.welcome_again(&lock(&registry.inner), &hash("box"));
    again();
    again();
    for (connection, outbox) in &mut agents {
        assert!(matches!(outbox.next().await, Some(Out::Again)));
        assert!(outbox.is_empty(), "once is enough");
        connection.tells();
    }
    again();
    assert!(matches!(agents[0].1.next().await, Some(Out::Again)));
}

#[tokio::test]
async fn a_further_welcome_waits_for_room_and_keeps_its_place() {
    let registry = registry(BTreeMap::new());
    let (connection, mut outbox) = arrive(&registry, "i1");
    while connection.send("job".to_owned()).is_ok() {}
    for _ in 0..3 {
        connection.tell_again();
    }
    tokio::task::yield_now().await;
    greeting(&mut outbox).await;
    // It has the place already.
    assert_eq!(connection.send("late".to_owned()), Err(SendError::Busy));
    tokio::task::yield_now().await;
    for n in 1..QUEUE {
        assert!(matches!(outbox.next().await, Some(Out::Text(_))), "{n}");
    }
    assert!(connection.send("last".to_owned()).is_ok());
    assert!(matches!(outbox.next().await, Some(Out::Again)));
    assert!(matches!(outbox.next().await, Some(Out::Text(text)) if text == "last"));
    assert!(outbox.is_empty());
    let open = tokio::time::timeout(std::time::Duration::ZERO, connection.closed());
    assert!(open.await.is_err());
}
