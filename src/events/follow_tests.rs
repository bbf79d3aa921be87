//! Followed files, over rotations, restarts and disks that fail.

use super::follow::Files;
use super::tests::{Stage, events, line, stage, stage_in};
use super::*;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

/// Followed files, looked at by hand.
struct Followers {
    stage: Stage,
    files: Files,
    path: PathBuf,
}

impl Followers {
    fn new() -> Self {
        Self::over(stage())
    }

    /// With a journal in memory.
    fn without_a_disk() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("journal"), "in the way").unwrap();
        Self::over(stage_in(folder))
    }

    fn over(stage: Stage) -> Self {
        let path = stage.folder.path().join("app.log");
        let files = Self::files(&stage, &path);
        Self { stage, files, path }
    }

    fn files(stage: &Stage, path: &std::path::Path) -> Files {
        Files::open(
            &[path.to_owned()],
            1_000,
            stage.folder.path(),
            &stage.events,
        )
    }

    fn look(&mut self) {
        let mut buffer = Vec::new();
        for _ in 0..4 {
            self.files.look(&self.stage.events, &mut buffer);
        }
    }

    /// As after a rotation, when nobody writes to the old file any more.
    fn look_for_long(&mut self) {
        self.look();
        std::thread::sleep(Duration::from_millis(2_100));
        self.look();
    }

    fn append(&self, name: &str, text: &str) {
        let path = self.path.with_file_name(name);
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn event(&self, name: &str) {
        self.append("app.log", &(line(name) + "\n"));
    }

    /// A start after a power cut or `kill -9`: nothing is written that was not.
    fn restart(&mut self) {
        let folder = self.stage.folder.path();
        // The journal's folder is locked by the one before, which the thread that syncs may have yet.
        while Arc::strong_count(&self.stage.events.journal) > 1 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let nowhere = tempfile::tempdir().unwrap();
        self.stage.events = events(nowhere.path());
        self.stage.events = events(folder);
        self.files = Self::files(&self.stage, &self.path);
    }
}

#[test]
fn a_file_is_followed_from_its_end_and_a_new_one_from_its_beginning() {
    let mut new = Followers::new();
    new.look();
    new.event("a");
    new.look();
    assert_eq!(new.stage.names(), ["a"]);
    assert_eq!(
        new.stage.stored()[0].1["source"],
        format!("file{}", new.path.display())
    );

    let mut old = Followers::new();
    old.event("before");
    old.look();
    old.event("after");
    old.append(
        "app.log",
        "Nov 21 10:00:00 fw01 sshd: no event\nCEF:0|bad\n",
    );
    old.append(
        "app.log",
        &format!("Nov 21 10:00:00 fw01 ids: {}\r\n", line("prefixed")),
    );
    old.look();
    assert_eq!(old.stage.names(), ["after", "prefixed"]);
    let tally = old.stage.events.report();
    assert_eq!((tally.stored, tally.passed, tally.refused), (2, 1, 1));
    assert!(tally.reason.unwrap().contains("within the field"));
}

#[test]
fn a_line_counts_when_it_is_whole_and_not_too_long() {
    let mut files = Followers::new();
    files.look();
    let (first, rest) = (line("a"), line("a").split_off(10));
    files.append("app.log", &first[..10]);
    files.look();
    files.append("app.log", &rest);
    files.look();
    assert_eq!(files.stage.names(), [""; 0]);
    files.append("app.log", "\n");
    files.look();
    files.append("app.log", &"x".repeat(5_000));
    files.look();
    files.append("app.log", &(line("within") + "\n"));
    files.event("b");
    files.append(
        "app.log",
        &format!("{}\n{}\n", line(&"y".repeat(600)), line("c")),
    );
    files.look();
    assert_eq!(files.stage.names(), ["a", "b", "c"]);
    assert_eq!(files.stage.events.report().refused, 2);
}

#[test]
fn the_tail_of_a_line_that_is_too_long_is_never_a_line() {
    let mut files = Followers::new();
    files.look();
    files.append("app.log", &"x".repeat(5_000));
    files.look();
    // The journal has no room: what is behind is read twice.
    let journal = Arc::clone(&files.stage.events.journal);
    for bytes in [4_000, 200, 1] {
        let put = payload::HistoryPut {
            token: None,
            code: Some(200),
            etime: None,
            data: json!("y".repeat(bytes)),
        };
        let refused = (0..2_000).find_map(|_| journal.put(&put).err());
        assert_eq!(refused.unwrap().code, ErrorCode::Busy, "it is never full");
    }
    files.append("app.log", &(line("within") + "\n"));
    files.event("a");
    files.look();
    let report = files.stage.events.report();
    assert_eq!(report.stored, 0, "there was room");
    let last = journal.last();
    journal.acknowledge(last);
    files.look();
    let stored = |journal: &Journal| {
        let mut stored = Vec::new();
        let mut id = last;
        while let Some(record) = journal.next(id) {
            id = record.id;
            stored.push(record.data.get().to_owned());
        }
        stored
    };
    let found = stored(&journal);
    assert!(found.len() == 1 && found[0].contains("|a|"), "{found:?}");
    drop(journal);
    // So it is over a restart.
    files.append("app.log", &"x".repeat(5_000));
    files.look();
    files.files.save(&files.stage.events);
    files.restart();
    files.append("app.log", &(line("within") + "\n"));
    files.event("b");
    files.look();
    let found = stored(&files.stage.events.journal);
    assert!(found.len() == 2 && found[1].contains("|b|"), "{found:?}");
}

#[test]
fn rotation_by_rename_loses_nothing() {
    let mut files = Followers::new();
    files.look();
    files.event("a");
    files.look();
    files.event("b");
    fs::rename(&files.path, files.path.with_file_name("app.log.1")).unwrap();
    files.look();
    files.event("d");
    files.look();
    // Who writes has the old file open for a while.
    files.append("app.log.1", &(line("c") + "\n"));
    files.look_for_long();
    files.event("e");
    files.look();
    assert_eq!(files.stage.names(), ["a", "b", "c", "d", "e"]);
}

#[test]
fn truncation_loses_nothing_that_was_copied() {
    let mut files = Followers::new();
    files.look();
    files.event("a");
    files.look();
    files.event("b");
    fs::copy(&files.path, files.path.with_file_name("app.log.1")).unwrap();
    fs::write(&files.path, "").unwrap();
    files.event("c");
    files.look_for_long();
    // Truncated under a writer that goes on behind: a hole.
    fs::write(&files.path, "").unwrap();
    files.look_for_long();
    let file = OpenOptions::new().write(true).open(&files.path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, (line("d") + "\n").as_bytes(), 9_000).unwrap();
    files.look();
    assert_eq!(files.stage.names(), ["a", "b", "c", "d"]);
    // No copy: what came after the cut is there.
    fs::write(&files.path, line("x") + "\n").unwrap();
    files.event("y");
    files.look_for_long();
    assert_eq!(files.stage.names(), ["a", "b", "c", "d", "x", "y"]);
}

#[test]
fn a_restart_goes_on_where_it_was_also_after_kill_9() {
    let mut files = Followers::new();
    files.look();
    for name in ["a", "b", "c"] {
        files.event(name);
    }
    files.look();
    // Positions were written when the file was found, not since.
    files.restart();
    files.event("d");
    files.look();
    assert_eq!(files.stage.names(), ["a", "b", "c", "d"]);
    // Rotated in between, with something that was not read yet.
    files.event("e");
    files.look();
    files.event("f");
    fs::rename(&files.path, files.path.with_file_name("app.log.1")).unwrap();
    files.event("g");
    files.restart();
    files.look_for_long();
    files.event("h");
    files.look();
    assert_eq!(
        files.stage.names(),
        ["a", "b", "c", "d", "e", "f", "g", "h"]
    );
    // An orderly end.
    files.files.save(&files.stage.events);
    files.event("i");
    files.restart();
    files.look();
    assert_eq!(files.stage.names().len(), 9);
}

#[test]
fn pipes_and_devices_are_refused_and_a_lost_state_is_said() {
    let stage = stage();
    let mut files = Files::open(
        &["/dev/null".into(), "/dev".into()],
        10,
        std::path::Path::new("/proc/nowhere"),
        &stage.events,
    );
    files.look(&stage.events, &mut Vec::new());
    for (_, problem) in files.report() {
        assert_eq!(problem.as_deref(), Some("it is no regular file"));
    }
    fs::write(stage.folder.path().join("events.json"), "{broken").unwrap();
    let path = stage.folder.path().join("app.log");
    fs::write(&path, line("old") + "\n").unwrap();
    let mut files = Files::open(&[path], 10, stage.folder.path(), &stage.events);
    files.look(&stage.events, &mut Vec::new());
    assert_eq!(stage.names(), [""; 0]);
}

#[test]
fn positions_are_not_written_before_their_events_are_kept() {
    let mut files = Followers::without_a_disk();
    let journal = |files: &Followers| Arc::clone(&files.stage.events.journal);
    assert_eq!(journal(&files).report().state.state, "memory");
    // Where it begins is known, since nothing was stored before it.
    files.look();
    files.event("a");
    files.look();
    assert_eq!(files.stage.names(), ["a"]);
    // An orderly end takes the memory with it: what only that had is read again.
    files.files.save(&files.stage.events);
    files.restart();
    files.look();
    assert_eq!(files.stage.names(), ["a"]);
    // What Poseidon has is not.
    let last = journal(&files).last();
    journal(&files).acknowledge(last);
    files.files.save(&files.stage.events);
    files.restart();
    files.event("b");
    files.look();
    assert_eq!(files.stage.names(), ["b"]);
}

#[test]
fn positions_that_could_not_be_written_are_when_there_is_room() {
    let mut files = Followers::new();
    // As a full disk is for this file alone.
    files.append("app.log", "no event\n");
    let positions = files.stage.folder.path().join("events.json");
    fs::create_dir(&positions).unwrap();
    fs::write(positions.join("in-the-way"), "").unwrap();
    files.look();
    files.files.save(&files.stage.events);
    fs::remove_dir_all(&positions).unwrap();
    // Nothing is new, and yet it is written.
    files.files.save(&files.stage.events);
    files.event("while it was away");
    files.restart();
    files.look();
    assert_eq!(files.stage.names(), ["while it was away"]);
}
