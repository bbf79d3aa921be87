use super::*;

fn spools(job_limit: u64, total_limit: u64) -> (tempfile::TempDir, Spools) {
    let dir = tempfile::tempdir().unwrap();
    let spools = Spools::open(dir.path().join("output"), job_limit, total_limit).unwrap();
    (dir, spools)
}

fn write(spools: &Spools, spool: &mut Spool, token: &str, offset: u64, bytes: &[u8]) {
    let open = || HashSet::from([token.to_owned()]);
    spool.output(spools, token, Stream::Stdout, offset, bytes, open);
}

fn out(offset: u64, bytes: &[u8]) -> Piece {
    Piece::Output {
        stream: Stream::Stdout,
        offset,
        bytes: bytes.to_vec(),
    }
}

fn hole(offset: u64, length: u64) -> Piece {
    Piece::Gap {
        stream: Stream::Stdout,
        offset,
        length,
    }
}

#[test]
fn gaps_are_seen_and_repeats_are_not() {
    let (_dir, spools) = spools(1 << 20, 1 << 20);
    let mut spool = Spool::default();
    write(&spools, &mut spool, "a", 0, b"abc");
    write(&spools, &mut spool, "a", 1, b"bcde");
    write(&spools, &mut spool, "a", 0, b"abc");
    write(&spools, &mut spool, "a", 9, b"j");
    write(&spools, &mut spool, "a", u64::MAX, b"overflow");
    let mut reader = Reader::new(spools.path("a"));
    assert_eq!(
        reader.read().unwrap(),
        [out(0, b"abc"), out(3, b"de"), hole(5, 4), out(9, b"j")]
    );
    assert_eq!(reader.position(), spool.written());
    assert_eq!(reader.read().unwrap(), []);
    assert_eq!(reader.rest([12, 0]), [hole(10, 2)]);
}

#[test]
fn over_the_limit_of_a_job_is_counted_only() {
    let (_dir, spools) = spools(40, 1 << 20);
    let mut spool = Spool::default();
    write(&spools, &mut spool, "a", 0, b"0123456789");
    write(&spools, &mut spool, "a", 10, &[b'x'; 100]);
    write(&spools, &mut spool, "a", 110, b"y");
    assert_eq!(spool.seen(), [111, 0]);
    let mut reader = Reader::new(spools.path("a"));
    assert_eq!(reader.read().unwrap(), [out(0, b"0123456789")]);
    assert_eq!(reader.rest(spool.seen()), [hole(10, 101)]);
}

#[test]
fn the_oldest_output_makes_room_and_open_jobs_keep_theirs() {
    let (_dir, spools) = spools(1 << 20, 12_000);
    let mut old = Spool::default();
    write(&spools, &mut old, "old", 0, &[b'o'; 8000]);
    let mut new = Spool::default();
    write(&spools, &mut new, "new", 0, &[b'n'; 8000]);
    write(&spools, &mut new, "new", 8000, b"more");
    assert!(!spools.path("old").exists());
    assert_eq!(new.written(), 8000 + 4 + 2 * HEADER as u64);
}

#[test]
fn small_files_count_as_what_they_take_and_deleted_ones_no_more() {
    let (dir, all) = spools(1 << 20, 1 << 20);
    let used = || all.used.load(Ordering::Relaxed);
    let mut small = Spool::default();
    write(&all, &mut small, "small", 0, b"abc");
    write(&all, &mut small, "small", 3, b"def");
    assert_eq!(used(), FILE_MIN);
    let mut large = Spool::default();
    write(&all, &mut large, "large", 0, &[b'l'; 10_000]);
    assert_eq!(used(), FILE_MIN + 10_000 + HEADER as u64);
    let again = Spools::open(dir.path().join("output"), 1 << 20, 1 << 20).unwrap();
    assert_eq!(again.used.load(Ordering::Relaxed), used());
    all.delete(&["large".to_owned(), "none".to_owned()]);
    assert_eq!(used(), FILE_MIN);
    assert!(!all.path("large").exists());
}

#[test]
fn a_disk_that_is_nearly_full_is_left_to_the_database() {
    let (dir, mut all) = spools(1 << 30, 1 << 30);
    // The free space is what a file says.
    all.free = |dir| {
        let text = std::fs::read_to_string(dir.parent()?.join("free")).ok()?;
        text.parse().ok()
    };
    let free = |bytes: u64| std::fs::write(dir.path().join("free"), bytes.to_string()).unwrap();
    free(RESERVE - 1);
    let mut spool = Spool::default();
    write(&all, &mut spool, "a", 0, b"abc");
    assert!(spool.cramped);
    free(RESERVE + (2 << 20));
    write(&all, &mut spool, "a", 3, b"def");
    free(0);
    // Not looked at before a MiB is written.
    write(&all, &mut spool, "a", 6, b"ghi");
    write(&all, &mut spool, "a", 9, &vec![b'x'; 1 << 20]);
    write(&all, &mut spool, "a", 9 + (1 << 20), b"jkl");
    assert_eq!(spool.seen(), [12 + (1 << 20), 0]);
    let mut reader = Reader::new(all.path("a"));
    assert_eq!(
        reader.read().unwrap(),
        [hole(0, 3), out(3, b"def"), out(6, b"ghi")]
    );
    assert_eq!(reader.rest(spool.seen()), [hole(9, 3 + (1 << 20))]);
    std::fs::remove_file(dir.path().join("free")).unwrap();
    write(&all, &mut spool, "a", 12 + (1 << 20), b"mno");
    assert_eq!(reader.read().unwrap(), [out(12 + (1 << 20), b"mno")]);
}

#[test]
fn the_disk_is_looked_at() {
    let (dir, _) = spools(0, 0);
    assert!(free(dir.path()).is_some());
}

#[test]
fn a_torn_record_is_cut_off_after_a_restart() {
    let (_dir, spools) = spools(1 << 20, 1 << 20);
    let mut spool = Spool::default();
    write(&spools, &mut spool, "a", 0, b"abc");
    write(&spools, &mut spool, "a", 3, b"def");
    drop(spool);
    let path = spools.path("a");
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut spool = Spool::default();
        write(&spools, &mut spool, "a", 6, b"ghi");
        let mut reader = Reader::new(path.clone());
        let pieces = reader.read().unwrap();
        assert_eq!(pieces.last(), Some(&out(6, b"ghi")), "cut at {cut}");
        assert_eq!(reader.position(), spool.written());
    }
}

#[test]
fn a_folder_that_is_gone_is_a_gap() {
    let (dir, spools) = spools(1 << 20, 1 << 20);
    std::fs::remove_dir_all(dir.path().join("output")).unwrap();
    let mut spool = Spool::default();
    write(&spools, &mut spool, "a", 0, b"abc");
    let mut reader = Reader::new(spools.path("a"));
    assert_eq!(reader.read().unwrap(), []);
    assert_eq!(reader.rest(spool.seen()), [hole(0, 3)]);
    // What comes when it is back is stored: so it is where a disk was too full for a new file.
    std::fs::create_dir(dir.path().join("output")).unwrap();
    write(&spools, &mut spool, "a", 3, b"def");
    let mut reader = Reader::new(spools.path("a"));
    assert_eq!(reader.read().unwrap(), [hole(0, 3), out(3, b"def")]);
}
