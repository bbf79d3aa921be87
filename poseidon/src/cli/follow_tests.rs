//! Nothing twice and nothing left out, however the server cuts what it tells again.

use super::*;
use serde_json::json;

fn take(position: &mut Position, line: &Value) -> Option<News> {
    let line = serde_json::from_value(line.clone()).unwrap();
    position.take(line).unwrap()
}

fn output(offset: u64, bytes: &[u8]) -> Value {
    let Data { data, encoding } = Data::from_bytes(bytes);
    json!({"type": "output", "stream": "stdout", "offset": offset, "data": data, "encoding": encoding})
}

#[test]
fn pieces_told_again_are_taken_from_where_they_are_new() {
    // Two-byte characters: pieces may be cut within one.
    let text = "äöü\nxyz".as_bytes();
    let n = text.len();
    for lost_at in 0..=n {
        for piece in 1..=n {
            let mut position = Position::default();
            let mut taken = Vec::new();
            let mut all = |position: &mut Position, text: &[u8], size: usize| {
                for (i, part) in text.chunks(size).enumerate() {
                    let line = output((i * size) as u64, part);
                    if let Some(News::Output { offset, bytes, .. }) = take(position, &line) {
                        assert_eq!(offset, taken.len() as u64);
                        taken.extend(bytes);
                    }
                }
            };
            all(&mut position, &text[..lost_at], 2);
            position.again();
            all(&mut position, text, piece);
            assert_eq!(taken, text, "lost at {lost_at}, then in pieces of {piece}");
        }
    }
}

#[test]
fn gaps_and_streams_count_by_themselves() {
    let mut position = Position::default();
    let gap = |offset: u64, length: u64| json!({"type": "gap", "stream": "stdout", "offset": offset, "length": length});
    assert!(take(&mut position, &output(0, b"ab")).is_some());
    assert!(take(&mut position, &gap(2, 3)).is_some());
    position.again();
    assert!(take(&mut position, &output(0, b"ab")).is_none());
    assert!(take(&mut position, &gap(2, 3)).is_none(), "told already");
    // After a power cut the server has less: only what was not seen is missing.
    let Some(News::Gap { offset, length, .. }) = take(&mut position, &gap(2, 7)) else {
        panic!("a gap");
    };
    assert_eq!((offset, length), (5, 4));
    let errors =
        json!({"type": "output", "stream": "stderr", "offset": 0, "data": "e", "encoding": "utf8"});
    assert!(take(&mut position, &errors).is_some());
}

#[test]
fn progress_is_told_once() {
    let progress = json!({"type": "progress", "percent": 1, "message": ""});
    let mut position = Position::default();
    for _ in 0..2 {
        assert!(take(&mut position, &progress).is_some());
    }
    position.again();
    for told in [false, false, true] {
        assert_eq!(take(&mut position, &progress).is_some(), told);
    }
}

#[tokio::test]
async fn patience_ends_unless_something_comes() {
    let failure = || Failure::broken("gone");
    let mut outage = Outage::new(
        Patience {
            patience: Duration::from_millis(300),
        },
        Away::default(),
    );
    let mut tries = 0;
    while outage.wait(failure()).await.is_ok() {
        // A server that takes the connection and breaks it at once is none.
        outage.opened();
        tries += 1;
        assert!(tries < 10, "it has an end");
    }
    assert!(tries > 0);
    outage.progress();
    assert!(outage.wait(failure()).await.is_ok());
    let wrong = Failure::wrong("no such job");
    assert!(outage.wait(wrong).await.is_err(), "that does not pass");
    let mut none = Outage::new(
        Patience {
            patience: Duration::ZERO,
        },
        Away::default(),
    );
    assert!(none.wait(failure()).await.is_err());
}
