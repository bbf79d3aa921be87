//! Files that are not as they were written.

use super::forget::Shelf;
use super::*;
use crate::journal::line::Lines;
use crate::journal::store::Folder as _;
use std::io;
use std::sync::Arc;

const FIRST: &str = "0000000001.log";

/// A journal over files that a test has made.
struct Bench {
    folder: Arc<Shelf>,
    state: Arc<Shelf>,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: Shelf::new("/nowhere/journal"),
            state: Shelf::new("/nowhere"),
        }
    }

    fn open(&self, bytes: u64) -> Journal {
        let settings = Settings {
            bytes,
            ..settings(Path::new("/nowhere"))
        };
        let journal = Journal::over(&settings, self.folder.clone(), self.state.clone()).unwrap();
        assert_eq!(journal.report().state.state, "disk");
        journal
    }
}

/// A segment as an agent leaves it: jobs of all kinds, values, text that is no ASCII. Its bytes, and for each line
/// where it ends and what it says.
fn recorded() -> (Vec<u8>, Vec<(usize, Content)>) {
    let bench = Bench::new();
    let journal = bench.open(1 << 20);
    run_job(&journal, "a");
    journal.accept(&job("größe")).unwrap();
    journal.put(&put(200, 5)).unwrap();
    journal.end("größe", "talk", code::FAILED, result(12));
    journal.put(&put(code::EVENT, 3)).unwrap();
    let said = contents(&journal);
    let bytes = bench.folder.content(FIRST);
    let ends = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n');
    let ends: Vec<usize> = ends.map(|(at, _)| at + 1).collect();
    assert_eq!(ends.len(), said.len());
    (bytes.clone(), ends.into_iter().zip(said).collect())
}

/// Opens a damaged segment, of which the `whole` records must be there; then works on, and starts once more.
fn check(segment: &[u8], whole: &[&Content], last: bool) {
    let bench = Bench::new();
    bench.folder.put(FIRST, segment);
    if !last {
        bench.folder.put("0000000002.log", b"");
    }
    let journal = bench.open(1 << 20);
    let found = contents(&journal);
    let ids: Vec<u64> = whole.iter().map(|r| r.0).collect();
    let there: Vec<_> = found.iter().filter(|r| ids.contains(&r.0)).collect();
    assert_eq!(there, whole);
    // Besides them, at most the ends of jobs whose ends are gone.
    for other in found.iter().filter(|r| !ids.contains(&r.0)) {
        assert_eq!(other.2, code::FAILED);
        assert!(other.3.contains("interrupted"), "{other:?}");
    }
    run_job(&journal, "later");
    let stored = journal.put(&put(200, 1)).unwrap();
    let all = contents(&journal);
    assert_eq!(all.len(), found.len() + 3);
    assert!(all.is_sorted_by_key(|r| r.0));
    drop(journal);
    let journal = bench.open(1 << 20);
    assert_eq!(contents(&journal), all);
    assert!(is_ended(&journal, "later"));
    assert_eq!(all.last().unwrap().0, stored.id);
}

#[test]
fn cut_at_each_byte_it_keeps_what_is_whole() {
    let (bytes, lines) = recorded();
    for cut in 0..=bytes.len() {
        let whole: Vec<_> = lines.iter().filter(|l| l.0 <= cut).map(|l| &l.1).collect();
        check(&bytes[..cut], &whole, true);
        check(&bytes[..cut], &whole, false);
    }
}

#[test]
fn a_flipped_bit_costs_the_record_that_it_hits() {
    let (bytes, lines) = recorded();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let hit = lines.iter().position(|l| at < l.0).unwrap();
        let whole: Vec<_> = lines.iter().map(|l| &l.1).collect();
        let whole = [&whole[..hit], &whole[hit + 1..]].concat();
        check(&damaged, &whole, true);
        if at % 7 == 0 {
            check(&damaged, &whole, false);
        }
    }
}

#[test]
fn damage_is_counted() {
    let (bytes, lines) = recorded();
    let damage = |segment: &[u8]| {
        let bench = Bench::new();
        bench.folder.put(FIRST, segment);
        bench.open(1 << 20).report().damaged
    };
    assert_eq!(damage(&bytes), 0);
    assert_eq!(damage(&bytes[..bytes.len() - 1]), 1);
    let mut flipped = bytes.clone();
    flipped[3] ^= 1;
    assert_eq!(damage(&flipped), 1);
    let hole = lines[0].0..lines[2].0;
    let mut holed = bytes;
    holed[hole].fill(0);
    assert_eq!(damage(&holed), 1, "one hole");
}

#[test]
fn records_out_of_order_are_passed_over() {
    let (bytes, lines) = recorded();
    let line = |n: usize| &bytes[if n == 0 { 0 } else { lines[n - 1].0 }..lines[n].0];
    let said = |n: usize| &lines[n].1;
    // The same twice, and older ones behind younger ones.
    let mixed = [
        line(0),
        line(1),
        line(1),
        line(0),
        line(3),
        line(2),
        line(4),
        line(5),
    ]
    .concat();
    let whole = [said(0), said(1), said(3), said(4), said(5)];
    check(&mixed, &whole, true);
    check(&mixed, &whole, false);
    // What a merging leaves that was cut short: a segment of known records only. That is no damage.
    let bench = Bench::new();
    bench.folder.put(FIRST, &bytes);
    bench.folder.put("0000000002.log", &bytes[lines[2].0..]);
    bench.folder.put("0000000003.log.new", b"half a li");
    let journal = bench.open(1 << 20);
    assert_eq!(
        contents(&journal),
        lines.iter().map(|l| l.1.clone()).collect::<Vec<_>>()
    );
    assert_eq!(journal.report().damaged, 0);
    run_job(&journal, "b");
    assert!(
        !bench
            .folder
            .names()
            .unwrap()
            .iter()
            .any(|n| n.contains("new"))
    );
}

#[test]
fn absurd_content_is_survived() {
    let (bytes, lines) = recorded();
    let whole: Vec<_> = lines.iter().map(|l| &l.1).collect();
    let huge = vec![b'x'; 9 << 20];
    let mut hex = b"0123456789abcdef ".repeat(40_000);
    hex.push(b'\n');
    for junk in [
        &huge[..],
        &hex,
        b"\n\n\n\n",
        b"\xff\xfe\0\n",
        &vec![0; 100_000],
    ] {
        check(&[junk, b"\n", &bytes].concat(), &whole, true);
        check(&[&bytes, junk].concat(), &whole, true);
        check(&[&bytes, junk].concat(), &whole, false);
    }
    let bench = Bench::new();
    bench.folder.put("id", &[b'\xff'; 300]);
    bench.folder.put("9999999999.log", &bytes);
    bench.folder.put("00000000001.log", &bytes);
    bench.folder.put(FIRST, &bytes);
    bench.state.put("sequence", b"\0\0\0");
    let journal = bench.open(1 << 20);
    assert_eq!(contents(&journal).len(), whole.len());
    assert_eq!(journal.report().state.id.len(), 32);
}

#[test]
fn a_name_that_was_made_stays() {
    let bench = Bench::new();
    let id = bench.open(1 << 20).report().state.id;
    assert_eq!(bench.open(1 << 20).report().state.id, id);
    let other = Bench::new();
    assert_ne!(other.open(1 << 20).report().state.id, id);
}

#[test]
fn a_journal_that_is_larger_than_it_may_be_now_is_read_whole() {
    let bench = Bench::new();
    let journal = bench.open(1 << 20);
    journal.connected(0);
    for n in 0..200 {
        run_job(&journal, &token(n));
    }
    let all = contents(&journal);
    drop(journal);
    let journal = bench.open(8 << 10);
    assert_eq!(contents(&journal), all);
    assert!(matches!(refusal(&journal, "more"), Refusal::Full(_)));
    journal.connected(all.last().unwrap().0);
    journal.accept(&job("more")).unwrap();
    assert!(journal.report().bytes <= 8 << 10);
}

#[test]
fn reading_fails_only_where_the_disk_does() {
    #[derive(Debug)]
    struct Broken;
    impl crate::journal::store::File for Broken {
        fn length(&self) -> io::Result<u64> {
            Ok(100)
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Other.into())
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }
        fn set_length(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }
    assert!(Lines::new(&Broken, 0, 100, 64).next().is_err());
}
