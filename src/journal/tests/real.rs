//! Real disks: full, read-only, gone.

use super::*;
use std::ffi::CString;
use std::fs;
use std::time::{Duration, Instant};

/// Runs a test on a tmpfs of its own, in a thread with its own mounts. Says so where that is not possible.
fn on_tmpfs(kilobytes: usize, test: impl FnOnce(&Path) + Send + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let thread = std::thread::spawn(move || {
        let options = format!("size={kilobytes}k");
        match own_mounts().and_then(|()| mount("tmpfs", &path, 0, &options)) {
            Ok(()) => test(&path),
            Err(e) if std::env::var_os("TRITON_REQUIRE_NAMESPACES").is_none() => {
                println!("skipped: no mount namespace of its own here: {e}");
            }
            Err(e) => panic!("no mount namespace of its own here: {e}"),
        }
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[allow(unsafe_code)]
fn own_mounts() -> std::io::Result<()> {
    // SAFETY: no pointers; it concerns this thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    mount("none", Path::new("/"), libc::MS_REC | libc::MS_PRIVATE, "")
}

#[allow(unsafe_code)]
fn mount(kind: &str, path: &Path, flags: libc::c_ulong, options: &str) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let kind = CString::new(kind).unwrap();
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let options = CString::new(options).unwrap();
    // SAFETY: strings with NUL that live through the call.
    let result = unsafe {
        libc::mount(
            kind.as_ptr(),
            path.as_ptr(),
            kind.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Opens, and tries a failed disk again at each call.
fn open(settings: &Settings) -> Journal {
    let journal = Journal::open(settings).unwrap();
    let mut state = journal.state();
    state.retry = Duration::ZERO;
    if let Some(memory) = &mut state.memory {
        memory.next_try = Instant::now();
    }
    drop(state);
    journal
}

fn state_of(journal: &Journal) -> (String, String) {
    let state = journal.report().state;
    (state.state, state.reason.unwrap_or_default())
}

/// Fills the file system, but for so many bytes.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

#[test]
fn a_full_disk_refuses_one_job_and_nothing_is_lost() {
    on_tmpfs(256, |path| {
        let journal = open(&settings(path));
        run_job(&journal, "before");
        journal.accept(&job("open")).unwrap();
        let id = journal.report().state.id;
        fill(&path.join("filler"));
        // Until the page is full that the journal writes to.
        let mut more = 0;
        let failed = loop {
            match journal.accept(&job(&token(more))) {
                Ok(()) => more += 1,
                Err(refusal) => break refusal,
            }
            assert!(more < 100);
        };
        assert!(matches!(failed, Refusal::Failed(_)), "{failed:?}");
        let (state, reason) = state_of(&journal);
        assert_eq!(state, "memory");
        assert!(reason.contains("No space left on device"), "{reason}");
        assert!(reason.contains("free space on that disk"), "{reason}");
        assert!(reason.contains(path.to_str().unwrap()), "{reason}");
        assert!(journal.take_id_changed() && !journal.take_id_changed());
        assert_ne!(journal.report().state.id, id);

        // The device can be worked with all the same, and knows what it knew.
        for n in 0..more {
            journal.end(&token(n), &token(n), 1, result(0));
        }
        run_job(&journal, "meanwhile");
        journal.end("open", "open", 1, result(0));
        assert!(journal.find(&token(more)).is_none(), "it was refused");
        let value = journal.put(&put(200, 10)).unwrap();
        assert_eq!(state_of(&journal).0, "memory");
        for token in ["before", "open", "meanwhile"] {
            assert!(is_ended(&journal, token), "{token}");
        }
        let all = contents(&journal);
        assert!(all.is_sorted_by_key(|r| r.0));

        // There is room again: the disk gets what it lacks, under the same numbers and its old name.
        fs::remove_file(path.join("filler")).unwrap();
        // Also where no job comes, and Poseidon has to hear of it.
        journal.tend();
        assert_eq!(state_of(&journal).0, "disk");
        assert!(journal.take_id_changed());
        assert_eq!(journal.report().state.id, id);
        let last = journal.put(&put(200, 10)).unwrap();
        let after = contents(&journal);
        assert_eq!(after[..all.len()], all);
        assert_eq!(after.len(), all.len() + 1);
        drop(journal);
        let journal = open(&settings(path));
        assert_eq!(contents(&journal), after);
        assert!(all.iter().any(|r| r.0 == value.id) && after.last().unwrap().0 == last.id);
    });
}

#[test]
fn a_disk_that_is_full_at_the_start_is_no_reason_not_to_start() {
    on_tmpfs(64, |path| {
        fill(&path.join("filler"));
        let journal = open(&settings(path));
        let (state, reason) = state_of(&journal);
        assert_eq!(state, "memory");
        assert!(reason.contains("No space left"), "{reason}");
        run_job(&journal, "a");
        fs::remove_file(path.join("filler")).unwrap();
        run_job(&journal, "b");
        assert_eq!(state_of(&journal).0, "disk");
        let all = contents(&journal);
        drop(journal);
        let journal = open(&settings(path));
        assert_eq!(contents(&journal), all);
        assert!(is_ended(&journal, "a") && is_ended(&journal, "b"));
    });
}

#[test]
fn a_disk_that_becomes_read_only_is_read_and_used_again_later() {
    on_tmpfs(512, |path| {
        let journal = open(&settings(path));
        run_job(&journal, "before");
        // A file that is open to be written keeps a file system from becoming read-only: as after a restart.
        drop(journal);
        mount("tmpfs", path, libc::MS_REMOUNT | libc::MS_RDONLY, "").unwrap();
        let journal = open(&settings(path));
        let (state, reason) = state_of(&journal);
        assert_eq!(state, "memory");
        assert!(reason.contains("Read-only file system"), "{reason}");
        assert!(reason.contains("mount it to be written"), "{reason}");
        assert!(is_ended(&journal, "before"));
        assert_eq!(read_behind(&journal, 0).len(), 2);
        run_job(&journal, "meanwhile");
        assert_eq!(read_behind(&journal, 0).len(), 4);
        mount("tmpfs", path, libc::MS_REMOUNT, "").unwrap();
        run_job(&journal, "after");
        assert_eq!(state_of(&journal).0, "disk");
        assert_eq!(read_behind(&journal, 0).len(), 6);
    });
}

#[test]
fn a_missing_disk_is_not_replaced_by_a_folder_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Settings {
        folder: folder.path().join("disk/journal"),
        ..settings(folder.path())
    };
    let journal = open(&missing);
    let (state, reason) = state_of(&journal);
    assert_eq!(state, "memory");
    assert!(reason.contains("disk/journal"), "{reason}");
    assert!(reason.contains("No such file or directory"), "{reason}");
    assert!(reason.contains("mount its disk"), "{reason}");
    run_job(&journal, "meanwhile");
    assert!(!folder.path().join("disk").exists());
    fs::create_dir(folder.path().join("disk")).unwrap();
    run_job(&journal, "after");
    assert_eq!(state_of(&journal).0, "disk");
    let all = contents(&journal);
    assert_eq!(all.len(), 4);
    drop(journal);
    assert_eq!(contents(&open(&missing)), all);
}

#[test]
fn a_disk_that_appears_later_with_a_journal_is_joined() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = open(&settings(folder.path()));
    run_job(&journal, "old");
    journal.accept(&job("open")).unwrap();
    let id = journal.report().state.id;
    drop(journal);
    let away = folder.path().join("away");
    fs::rename(&path, &away).unwrap();
    fs::write(&path, "in the way").unwrap();
    let journal = open(&settings(folder.path()));
    let (state, reason) = state_of(&journal);
    assert_eq!(state, "memory");
    assert!(
        reason.contains("not a folder") || reason.contains("Not a directory"),
        "{reason}"
    );
    journal.connected(0);
    run_job(&journal, "meanwhile");
    let sent = read_behind(&journal, 0);
    journal.acknowledge(sent[1].id);
    fs::remove_file(&path).unwrap();
    fs::rename(&away, &path).unwrap();
    run_job(&journal, "after");
    assert_eq!(
        (state_of(&journal).0.as_str(), journal.report().state.id),
        ("disk", id)
    );
    for token in ["old", "open", "meanwhile", "after"] {
        assert!(is_ended(&journal, token), "{token}");
    }
    // What was on it has not been sent yet, and its numbers have been passed over.
    let rest = read_behind(&journal, journal.acked());
    let unsent: Vec<_> = rest.iter().map(|r| (r.token.as_str(), r.code)).collect();
    for expected in [
        ("old", 0),
        ("old", 1),
        ("open", 0),
        ("open", 2),
        ("after", 0),
        ("after", 1),
    ] {
        assert!(unsent.contains(&expected), "{expected:?} in {unsent:?}");
    }
    assert_eq!(unsent.len(), 6);
}

#[test]
fn a_folder_that_is_removed_while_it_is_in_use_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&settings(folder.path()));
    run_job(&journal, "before");
    fs::remove_dir_all(folder.path().join("journal")).unwrap();
    let Refusal::Failed(reason) = refusal(&journal, "a") else {
        panic!("written into nothing");
    };
    assert!(reason.contains("removed"), "{reason}");
    run_job(&journal, "a");
    assert_eq!(state_of(&journal).0, "disk");
    // What is behind a file that was removed can be read as long as it is open.
    let all: Vec<_> = contents(&journal).into_iter().map(|r| (r.1, r.2)).collect();
    let expected = [("before", 0), ("before", 1), ("a", 0), ("a", 1)];
    assert_eq!(all, expected.map(|(t, c)| (t.to_owned(), c)));
    drop(journal);
    assert_eq!(contents(&open(&settings(folder.path()))).len(), 4);
}

#[test]
fn a_state_folder_that_cannot_be_written_is_told() {
    on_tmpfs(256, |path| {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            state: path.to_owned(),
            ..settings(folder.path())
        };
        drop(open(&settings));
        mount("tmpfs", path, libc::MS_REMOUNT | libc::MS_RDONLY, "").unwrap();
        let journal = open(&settings);
        let (state, reason) = state_of(&journal);
        assert_eq!(state, "memory");
        assert!(reason.contains("/sequence: Read-only"), "{reason}");
        run_job(&journal, "a");
        mount("tmpfs", path, libc::MS_REMOUNT, "").unwrap();
        run_job(&journal, "b");
        assert_eq!(state_of(&journal).0, "disk");
        assert_eq!(contents(&journal).len(), 4);
    });
}

#[test]
fn a_job_that_was_interrupted_is_ended_once_also_where_its_end_had_to_wait() {
    on_tmpfs(512, |path| {
        let small = Settings {
            memory_bytes: 32 << 10,
            ..settings(path)
        };
        let journal = open(&small);
        journal.accept(&job("open")).unwrap();
        drop(journal);
        mount("tmpfs", path, libc::MS_REMOUNT | libc::MS_RDONLY, "").unwrap();
        let journal = open(&small);
        journal.connected(0);
        // Acknowledged, and much comes behind it.
        for n in 0..200 {
            run_job(&journal, &token(n));
            journal.acknowledge(journal.report().state.last);
        }
        mount("tmpfs", path, libc::MS_REMOUNT, "").unwrap();
        run_job(&journal, "after");
        assert_eq!(state_of(&journal).0, "disk");
        let ends = |r: &&Record| r.token == "open" && code::is_end(r.code);
        assert_eq!(read_behind(&journal, 0).iter().filter(ends).count(), 1);
        let unsent = read_behind(&journal, journal.acked());
        assert_eq!(unsent.iter().filter(ends).count(), 0, "{unsent:?}");
    });
}
