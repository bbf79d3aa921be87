use super::*;
use crate::store::sqlite::Sqlite;

fn doors_in(dir: &std::path::Path, admin: &str) -> Doors {
    use crate::store::doors::DoorStore as _;
    let mut store = Sqlite::open(&dir.join("db")).unwrap();
    let (tokens, sessions) = (store.tokens().unwrap(), store.sessions().unwrap());
    let db = Db::start(Box::new(store)).unwrap();
    Doors::new(db, admin, tokens, sessions).unwrap()
}

#[tokio::test]
async fn tokens_and_sessions_survive_a_restart_and_end_together() {
    let dir = tempfile::tempdir().unwrap();
    let doors = doors_in(dir.path(), "admin");
    let on = vec!["gate-*".to_owned()];
    let (token, made) = doors
        .add("ops", Role::Operator, on.clone(), None)
        .await
        .unwrap();
    assert_eq!((made.role, &made.on), (Role::Operator, &on));
    let caller = doors.by_token(&token).unwrap();
    let (cookie, _) = doors.log_in(&caller).await.unwrap();
    let local = doors.by_token("admin").unwrap();
    let (own, _) = doors.log_in(&local).await.unwrap();
    drop(doors);

    let doors = doors_in(dir.path(), "admin");
    assert_eq!(doors.by_token(&token).unwrap().principal.on, on);
    let session = doors.by_cookie(&cookie).unwrap();
    assert_eq!(session.principal.name, "ops");
    assert!(session.fits_csrf(&csrf(&cookie)) && !session.fits_csrf(""));
    assert!(!doors.by_cookie(&own).unwrap().fits_csrf(&csrf(&cookie)));
    doors.remove("ops").await.unwrap();
    assert!(doors.by_token(&token).is_none() && doors.by_cookie(&cookie).is_none());
    // Who holds a stream is told.
    tokio::time::timeout(Duration::from_secs(5), doors.ended(&session))
        .await
        .unwrap();
    assert_eq!(doors.by_cookie(&own).unwrap().principal.name, LOCAL);
    drop(doors);

    // With another admin token its sessions are over.
    let doors = doors_in(dir.path(), "other");
    assert!(doors.by_token("admin").is_none() && doors.by_cookie(&own).is_none());
    assert!(doors.by_token("other").is_some());
}

#[tokio::test]
async fn what_makes_no_sense_makes_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let doors = doors_in(dir.path(), "admin");
    let add = async |name: &str, role, on: &[&str]| {
        let on = on.iter().map(|s| (*s).to_owned()).collect();
        doors.add(name, role, on, None).await.map(|_| ())
    };
    for (name, role, on) in [
        ("", Role::Viewer, &[][..]),
        ("local", Role::Viewer, &[]),
        ("a b", Role::Viewer, &[]),
        ("ok", Role::Admin, &["gate-*"]),
        ("ok", Role::Viewer, &["state=up"]),
        ("ok", Role::Viewer, &["gate-*,!state=down"]),
        ("ok", Role::Viewer, &["colour=red"]),
        ("ok", Role::Viewer, &[""]),
    ] {
        let refused = add(name, role, on).await;
        assert!(
            matches!(refused, Err(TokenError::Invalid(_))),
            "{name} {on:?}"
        );
    }
    add("ok", Role::Viewer, &[]).await.unwrap();
    assert!(matches!(
        add("ok", Role::Viewer, &[]).await,
        Err(TokenError::Taken)
    ));
    assert!(matches!(
        doors.remove("local").await,
        Err(TokenError::NotFound)
    ));
    let names: Vec<_> = doors.tokens().iter().map(|t| t.name.clone()).collect();
    assert_eq!(names, ["ok"]);
}

#[tokio::test]
async fn time_runs_out() {
    let dir = tempfile::tempdir().unwrap();
    let doors = doors_in(dir.path(), "admin");
    let past = Some(now() - 1.0);
    let (token, _) = doors.add("old", Role::Viewer, vec![], past).await.unwrap();
    assert!(doors.by_token(&token).is_none());
    let local = doors.by_token("admin").unwrap();
    let (cookie, caller) = doors.log_in(&local).await.unwrap();
    let set = |created: f64, used: f64| {
        let mut inner = lock(&doors.inner);
        let session = inner.sessions.get_mut(&hash(&cookie)).unwrap();
        (session.created, session.used) = (created, used);
    };
    set(now() - 9.0 * 3600.0, now() - IDLE + 60.0);
    assert!(doors.by_cookie(&cookie).is_some());
    set(now() - 9.0 * 3600.0, now() - IDLE - NOTE_USE - 1.0);
    assert!(doors.by_cookie(&cookie).is_none(), "nobody used it");
    set(now() - SESSION - 1.0, now());
    assert!(doors.by_cookie(&cookie).is_none(), "it is too old");
    assert!(!doors.is_good(&caller));
    doors.sweep();
    assert!(lock(&doors.inner).sessions.is_empty());
}

#[tokio::test]
async fn sessions_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let doors = doors_in(dir.path(), "admin");
    let local = doors.by_token("admin").unwrap();
    let (first, _) = doors.log_in(&local).await.unwrap();
    // Times are in milliseconds.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let log_ins = (0..MAX_SESSIONS).map(|_| doors.log_in(&local));
    futures_util::future::try_join_all(log_ins).await.unwrap();
    assert_eq!(lock(&doors.inner).sessions.len(), MAX_SESSIONS);
    assert!(doors.by_cookie(&first).is_none());
}

#[tokio::test]
async fn wrong_tokens_run_out_of_tries() {
    let dir = tempfile::tempdir().unwrap();
    let doors = doors_in(dir.path(), "admin");
    let address = |n: u8| IpAddr::from([192, 0, 2, n]);
    for _ in 0..10 {
        assert_eq!(doors.may_try(address(1), false), Ok(()));
    }
    assert!(doors.may_try(address(1), false).is_err());
    assert!(doors.may_try(address(1), true).is_err());
    // Many addresses together run out as well, and lock out none who is right.
    let let_in = (2..100).filter(|n| doors.may_try(address(*n), false).is_ok());
    assert!(let_in.count() <= 92);
    assert_eq!(doors.may_try(address(200), true), Ok(()));
}
