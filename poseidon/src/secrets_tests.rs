use super::*;
use crate::store::Identifier;
use crate::store::Store as _;
use crate::store::named::Entry;

const PLAIN: &[u8] = b"the-plain-secret-of-this-test";

fn entry(key: &str) -> Entry {
    Entry {
        key: key.to_owned(),
        secret: true,
        size: PLAIN.len() as u64,
        sha256: None,
        changed: 1.0,
    }
}

/// A folder whose store has plain secrets, as an older Poseidon left them, one of them deleted.
fn old_folder() -> (tempfile::TempDir, DataDir) {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let mut store = Sqlite::open(&data.path().join("poseidon.db")).unwrap();
    store.keep_deleted().unwrap();
    let identifier = Identifier {
        hash: "h".to_owned(),
        name: "box".to_owned(),
        refused: false,
        created: 1.0,
        attributes: std::collections::BTreeMap::default(),
        heartbeat: None,
    };
    store.put_identifier(&identifier).unwrap();
    for key in ["key", "gone"] {
        let content = Content::Value(PLAIN.to_vec());
        store
            .put_named("h", &entry(key), "its-hash", &content)
            .unwrap();
    }
    store.delete_named("h", "gone").unwrap();
    (dir, data)
}

fn open(data: &DataDir) -> Sqlite {
    Sqlite::open(&data.path().join("poseidon.db")).unwrap()
}

/// Whether any file of the folder has these bytes.
fn has(data: &DataDir, bytes: &[u8]) -> bool {
    std::fs::read_dir(data.path()).unwrap().any(|file| {
        let content = std::fs::read(file.unwrap().path()).unwrap_or_default();
        content.windows(bytes.len()).any(|window| window == bytes)
    })
}

fn get(store: &mut Sqlite, keys: &Keys) -> Vec<u8> {
    match store.named_content("h", "key").unwrap().unwrap() {
        Content::Sealed(sealed) => keys.open("h", "key", &sealed).unwrap(),
        other => panic!("{other:?} is not encrypted"),
    }
}

#[test]
fn plain_secrets_are_encrypted_and_written_over() {
    let (_dir, data) = old_folder();
    assert!(has(&data, PLAIN), "the test sees plain secrets");
    let mut store = open(&data);
    let keys = prepare(&data, None, &mut store).unwrap();
    assert_eq!(get(&mut store, &keys), PLAIN);
    assert!(!has(&data, PLAIN) && !has(&data, b"its-hash"));
    drop(store);
    assert!(!has(&data, PLAIN));
    let mode = std::fs::metadata(data.path().join(FILE))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    // The next start changes nothing.
    let mut store = open(&data);
    let before = store.named_content("h", "key").unwrap();
    prepare(&data, None, &mut store).unwrap();
    assert_eq!(store.named_content("h", "key").unwrap(), before);
}

#[test]
fn without_the_right_key_nothing_starts() {
    let (_dir, data) = old_folder();
    let mut store = open(&data);
    prepare(&data, None, &mut store).unwrap();
    let path = data.path().join(FILE);
    let right = std::fs::read_to_string(&path).unwrap();
    let mut refused = |what: &str| {
        let e = prepare(&data, None, &mut store).unwrap_err();
        assert!(e.contains("secret.key") && e.contains(what), "{e}");
        assert!(!e.contains(&right[PREFIX.len() + 1..]), "{e}");
    };
    std::fs::remove_file(&path).unwrap();
    refused("is not there");
    assert!(!path.exists(), "no new key is made");
    std::fs::write(&path, Key::random().unwrap().line()).unwrap();
    refused("which is not in the key file");
    std::fs::write(&path, "").unwrap();
    refused("no key");
    std::fs::write(
        &path,
        right
            .trim()
            .trim_end_matches(|c: char| c.is_ascii_hexdigit()),
    )
    .unwrap();
    refused("line 1");
    let elsewhere = data.path().join("elsewhere");
    let e = prepare(&data, Some(&elsewhere), &mut store).unwrap_err();
    assert!(e.contains("elsewhere is not there"), "{e}");
    std::fs::write(&elsewhere, &right).unwrap();
    prepare(&data, Some(&elsewhere), &mut store).unwrap();
}

#[test]
fn a_secret_belongs_to_its_place() {
    let keys = Keys(vec![Key::random().unwrap()]);
    let sealed = keys.seal("h", "key", PLAIN).unwrap();
    assert_eq!(keys.open("h", "key", &sealed).unwrap(), PLAIN);
    assert!(keys.open("other", "key", &sealed).is_err());
    assert!(keys.open("h", "other", &sealed).is_err());
    for at in 0..sealed.bytes.len() {
        let mut changed = sealed.clone();
        changed.bytes[at] ^= 1;
        assert!(keys.open("h", "key", &changed).is_err(), "{at}");
    }
    let mut short = sealed.clone();
    short.bytes.truncate(5);
    assert!(keys.open("h", "key", &short).is_err());
    let again = keys.seal("h", "key", PLAIN).unwrap();
    assert_ne!(again.bytes, sealed.bytes, "each has a nonce of its own");
    assert!(!format!("{keys:?} {sealed:?}").contains(&hex(&keys.0[0].bytes)));
}

#[test]
fn a_key_is_rotated_and_a_crash_on_the_way_loses_nothing() {
    let (_dir, data) = old_folder();
    let path = data.path().join(FILE);
    let mut store = open(&data);
    prepare(&data, None, &mut store).unwrap();
    let first = std::fs::read_to_string(&path).unwrap();
    // The crash: both keys are in the file, and the secrets are under the old one.
    let new = Key::random().unwrap();
    std::fs::write(&path, format!("{}\n{first}", new.line())).unwrap();
    let keys = prepare(&data, None, &mut store).unwrap();
    assert_eq!(get(&mut store, &keys), PLAIN);
    std::fs::write(&path, new.line()).unwrap();
    let keys = prepare(&data, None, &mut store).unwrap();
    assert_eq!(get(&mut store, &keys), PLAIN);
    drop(store);

    let folder = data.path().to_owned();
    let e = rotate(&folder, None).err().unwrap();
    assert!(e.contains("belongs to a Poseidon that runs"), "{e}");
    drop(data);
    let rotated = rotate(&folder, None).unwrap();
    assert_eq!(rotated.secrets, 1);
    let data = DataDir::open(&folder).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.lines().count() == 1 && !text.contains(&new.line()));
    let mut store = open(&data);
    let keys = prepare(&data, None, &mut store).unwrap();
    assert_eq!(get(&mut store, &keys), PLAIN);
}
