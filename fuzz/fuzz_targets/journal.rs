//! Any bytes as a segment, an id file or a sequence file of the journal: it opens, works and opens again with the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use triton::journal::{Acceptance, Journal, Settings, Standing};
use triton::message::payload::HistoryPut;

/// In memory where that is possible: the journal waits for its disk.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    parent.join(format!("triton-fuzz-{}", std::process::id()))
});

/// Gives each line the checksum that makes it count.
fn seal(lines: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    for line in lines.split(|b| *b == b'\n') {
        for byte in &Sha256::digest(line)[..8] {
            sealed.extend_from_slice(format!("{byte:02x}").as_bytes());
        }
        sealed.push(b' ');
        sealed.extend_from_slice(line);
        sealed.push(b'\n');
    }
    sealed
}

fn open() -> Journal {
    let journal = Journal::open(&Settings {
        folder: FOLDER.join("journal"),
        state: FOLDER.clone(),
        bytes: 1 << 20,
        memory_bytes: 1 << 18,
        sync: false,
        goes_on: None,
    })
    .expect("a wake-up");
    assert_eq!(journal.report().state.state, "disk");
    journal
}

fn contents(journal: &Journal) -> Vec<(u64, String, u32, String)> {
    let mut contents = Vec::new();
    let mut id = 0;
    while let Some(record) = journal.next(id) {
        assert!(record.id > id);
        id = record.id;
        contents.push((id, record.token, record.code, record.data.get().to_owned()));
    }
    contents
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let _ = fs::remove_dir_all(&*FOLDER);
    let segments = FOLDER.join("journal");
    fs::create_dir_all(&segments).expect("a folder");
    // The lowest two bits choose the file, the next one whether its lines get checksums.
    let bytes = if kind & 4 == 0 {
        bytes.to_vec()
    } else {
        seal(bytes)
    };
    let write = |path: PathBuf, bytes: &[u8]| fs::write(path, bytes).expect("a file");
    match kind & 3 {
        0 => write(segments.join("0000000001.log"), &bytes),
        1 => {
            let (first, second) = bytes.split_at(bytes.len() / 2);
            write(segments.join("0000000001.log"), first);
            write(segments.join("0000000002.log"), second);
        }
        2 => write(segments.join("id"), &bytes),
        _ => write(FOLDER.join("sequence"), &bytes),
    }

    let journal = open();
    let token = "a token that no seed has";
    let known = journal.find(token).is_some();
    if !known {
        let job = Acceptance {
            token,
            conversation: token,
            what: "true",
            origin: "local",
            reserve: 0,
        };
        journal.accept(&job).expect("room for a job");
        journal.end(token, token, 1, "{}".to_owned());
    }
    let put = HistoryPut::default();
    let stored = journal.put(&put).expect("room for a value");
    let before = contents(&journal);
    assert_eq!(before.last().map(|r| r.0), Some(stored.id));
    drop(journal);
    let journal = open();
    assert_eq!(contents(&journal), before);
    assert!(matches!(journal.find(token), Some(Standing::Ended(_))));
});
