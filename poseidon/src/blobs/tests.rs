use super::*;
use crate::jobs::spool::RESERVE;
use std::os::unix::fs::PermissionsExt as _;

fn blobs(dir: &Path, limit: u64, total: u64) -> Arc<Blobs> {
    Blobs::start(dir.join("blobs"), limit, total).unwrap()
}

fn parts(blobs: &Blobs) -> usize {
    std::fs::read_dir(blobs.dir.join(PARTS)).unwrap().count()
}

fn used(blobs: &Blobs) -> u64 {
    blobs.used.load(Ordering::Relaxed)
}

#[test]
fn a_blob_is_put_once_read_in_pieces_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let store = blobs(dir.path(), 100, 1000);
    let hash = store.put(b"hello").unwrap();
    assert_eq!(
        hash,
        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    assert_eq!(store.put(b"hello").unwrap(), hash);
    assert_eq!((used(&store), parts(&store)), (5, 0));
    let path = dir.path().join("blobs/2c").join(&hash);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(store.len(&hash).unwrap(), Some(5));
    for (offset, len, bytes, eof) in [
        (0, 4, &b"hell"[..], false),
        (0, 5, b"hello", true),
        (4, 100, b"o", true),
        (5, 1, b"", true),
        (5, 0, b"", true),
        (u64::MAX, 9, b"", true),
        (0, 0, b"", false),
    ] {
        assert_eq!(
            store.read_at(&hash, offset, len).unwrap(),
            (bytes.to_vec(), eof)
        );
    }
    let none = "0".repeat(64);
    assert_eq!(store.len(&none).unwrap(), None);
    assert_eq!(
        store.read_at(&none, 0, 1).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    drop(store);
    assert_eq!(used(&blobs(dir.path(), 100, 1000)), 5);
}

#[test]
fn what_is_no_hash_is_no_path() {
    let dir = tempfile::tempdir().unwrap();
    let store = blobs(dir.path(), 100, 1000);
    let upper = "A".repeat(64);
    let step = format!("..{}", "0".repeat(62));
    for hash in ["", "../../etc/passwd", &upper, &step, "é"] {
        assert!(store.len(hash).unwrap().is_none());
        assert!(store.open(hash).is_err() && store.keep(hash).unwrap().is_none());
        assert!(matches!(
            store.upload(Some(hash), None),
            Err(BlobError::NoHash)
        ));
    }
}

#[test]
fn what_is_wrong_too_large_or_cut_off_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = blobs(dir.path(), 10, 1000);
    let hash = sha256(b"right");
    let mut upload = store.upload(Some(&hash), None).unwrap();
    upload.write(b"wrong").unwrap();
    assert_eq!(parts(&store), 1);
    let Err(BlobError::Wrong(is)) = upload.finish() else {
        panic!("it is taken");
    };
    assert_eq!(is, sha256(b"wrong"));
    let mut upload = store.upload(Some(&hash), Some(5)).unwrap();
    upload.write(b"rig").unwrap();
    drop(upload);
    assert!(matches!(
        store.upload(Some(&hash), Some(11)),
        Err(BlobError::TooLarge(10))
    ));
    // Its size lies.
    let mut upload = store.upload(None, Some(1)).unwrap();
    upload.write(&[0; 10]).unwrap();
    assert!(matches!(upload.write(&[0]), Err(BlobError::TooLarge(10))));
    drop(upload);
    assert_eq!((used(&store), parts(&store)), (0, 0));
    assert_eq!(store.uploads.load(Ordering::Relaxed), 0);
    // One that is there is verified all the same.
    store.put(b"right").unwrap();
    let mut upload = store.upload(Some(&hash), None).unwrap();
    assert!(upload.is_known());
    upload.write(b"wrong").unwrap();
    assert!(matches!(upload.finish(), Err(BlobError::Wrong(_))));
    assert_eq!(store.read(&hash, 5).unwrap(), b"right");
    assert!(store.read(&hash, 4).is_err());
}

#[test]
fn two_may_put_the_same_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = blobs(dir.path(), 100, 1000);
    let hash = sha256(b"same");
    let mut uploads: Vec<_> = (0..3)
        .map(|_| store.upload(Some(&hash), Some(4)).unwrap())
        .collect();
    for upload in &mut uploads {
        upload.write(b"same").unwrap();
    }
    assert_eq!(used(&store), 12);
    for upload in uploads {
        assert_eq!(upload.finish().unwrap(), (hash.clone(), 4));
    }
    assert_eq!((used(&store), parts(&store)), (4, 0));
}

#[test]
fn the_store_and_the_disk_have_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = blobs(dir.path(), 100, 250);
    store.put(&[1; 100]).unwrap();
    let _waits = store.upload(None, Some(100)).unwrap();
    let Err(BlobError::Full(why)) = store.put(&[2; 100]) else {
        panic!("it is taken");
    };
    assert!(why.contains("--blob-store-bytes"), "{why}");
    store.put(&[3; 50]).unwrap();
    assert_eq!(used(&store), 250);

    let mut store = Arc::into_inner(blobs(&dir.path().join("other"), 100, 1000)).unwrap();
    store.free = |_| Some(RESERVE + 50);
    let store = Arc::new(store);
    store.put(&[1; 50]).unwrap();
    for size in [Some(51), None] {
        let full = store
            .upload(None, size)
            .and_then(|mut upload| upload.write(&[0; 51]));
        assert!(matches!(full, Err(BlobError::Full(_))), "{full:?}");
    }
    assert_eq!((used(&store), parts(&store)), (50, 0));
    let many: Vec<_> = (0..MAX_UPLOADS)
        .map(|_| store.upload(None, None).unwrap())
        .collect();
    assert!(matches!(store.upload(None, None), Err(BlobError::Busy)));
    drop(many);
    store.upload(None, None).unwrap();
}

#[test]
fn what_was_on_its_way_is_gone_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = blobs(dir.path(), 100, 250);
    let hash = store.put(b"whole").unwrap();
    // As a process that is killed leaves it.
    let mut upload = store.upload(None, Some(100)).unwrap();
    upload.write(b"half").unwrap();
    std::mem::forget(upload);
    assert_eq!(parts(&store), 1);
    let again = blobs(dir.path(), 100, 250);
    assert_eq!((used(&again), parts(&again)), (5, 0));
    assert_eq!(again.len(&hash).unwrap(), Some(5));
}

#[test]
fn what_nothing_wants_goes_after_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let store = blobs(dir.path(), 100, 1000);
    let [wanted, unwanted, later] = [b"1", b"2", b"3"].map(|b| store.put(b).unwrap());
    let now = SystemTime::now();
    assert_eq!(store.old(now).unwrap(), Vec::<String>::new());
    let next = now + KEEP + Duration::from_mins(1);
    let mut old = store.old(next).unwrap();
    old.sort();
    let mut all = vec![wanted.clone(), unwanted.clone(), later.clone()];
    all.sort();
    assert_eq!(old, all);
    // Somebody is about to refer to this one.
    let path = store.path(&later).unwrap();
    let mark = |time| File::open(&path).unwrap().set_modified(time).unwrap();
    mark(next);
    let stay = HashSet::from([wanted.clone()]);
    assert_eq!(store.sweep(&old, &stay, next).unwrap(), 1);
    assert_eq!(store.len(&unwanted).unwrap(), None);
    assert_eq!(store.len(&wanted).unwrap(), Some(1));
    assert_eq!(store.len(&later).unwrap(), Some(1));
    assert_eq!(used(&store), 2);
    // Old enough to be looked at, and not yet to go.
    mark(now);
    let soon = now + KEEP - Duration::from_mins(1);
    assert!(store.old(soon).unwrap().contains(&later));
    assert_eq!(store.sweep(&old, &HashSet::new(), soon).unwrap(), 0);
}
