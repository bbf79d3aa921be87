use super::*;
use crate::job::Task;
use crate::message::payload::{Bounds, Cancel, JobResult, Status};
use crate::transfer::stage::{Stage, honest};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug)]
struct Fetching {
    content: Content,
    path: PathBuf,
    pace: Pace,
}

impl Task for Fetching {
    fn name(&self) -> &'static str {
        "fetching"
    }

    fn run(&self, context: &Context<'_>) -> Result<Option<serde_json::Value>, Stop> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(&self.path)
            .unwrap();
        let there = file.metadata().unwrap().len();
        let mut meter = Meter::new(self.content.size);
        let resumed = fetch(context, &self.content, &file, there, &self.pace, &mut meter)?;
        Ok(Some(serde_json::json!({ "resumed": resumed })))
    }
}

struct Case {
    stage: Stage,
    path: PathBuf,
    bytes: Vec<u8>,
    _folder: tempfile::TempDir,
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn content(bytes: &[u8]) -> Content {
    let sha256 = id::hex(&Sha256::digest(bytes));
    Content {
        reference: format!("sha256:{sha256}"),
        size: bytes.len() as u64,
        sha256,
    }
}

impl Case {
    /// Begins to fetch `bytes` behind what is there.
    fn begin(bytes: Vec<u8>, there: &[u8], content: Content, idle: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, there).unwrap();
        let stage = Stage::new();
        let task = Fetching {
            content,
            path: path.clone(),
            pace: Pace::new(1 << 20, 32, 1 << 20, idle),
        };
        stage.begin(Arc::new(task), Bounds::default());
        Self {
            stage,
            path,
            bytes,
            _folder: folder,
        }
    }

    fn honestly(bytes: Vec<u8>, there: &[u8]) -> Self {
        let content = content(&bytes);
        Self::begin(bytes, there, content, Duration::from_mins(1))
    }

    fn serve(
        &self,
        mut answer: impl FnMut(&Stage, DataResponse),
    ) -> Result<JobResult, payload::Error> {
        self.stage
            .serve(|stage, request| answer(stage, honest(&self.bytes, request)))
    }

    #[track_caller]
    fn arrives(&self, resumed: usize, answer: impl FnMut(&Stage, DataResponse)) {
        let result = self.serve(answer).unwrap();
        assert_eq!(result.status, Status::Succeeded);
        assert_eq!(result.data.unwrap()["resumed"], resumed);
        assert!(std::fs::read(&self.path).unwrap() == self.bytes);
    }
}

#[test]
fn content_of_any_length_arrives() {
    for length in [0, 1, 4_095, 65_536, 65_537, 3_000_000] {
        Case::honestly(noise(length), b"").arrives(0, |stage, response| stage.give(&response));
    }
}

#[test]
fn several_requests_are_on_their_way_but_no_more_than_the_window() {
    let case = Case::honestly(noise(5_000_000), b"");
    let (mut held, mut most) = (Vec::new(), 0);
    case.arrives(0, |stage, response| {
        held.push(response);
        most = most.max(held.len());
        // As soon as no more come.
        if held.len() == 16 || held.iter().any(|r| r.eof) {
            for response in held.drain(..).rev() {
                stage.give(&response);
            }
        }
    });
    assert_eq!(most, 16);
}

#[test]
fn short_answers_are_asked_on() {
    let case = Case::honestly(noise(200_000), b"");
    case.arrives(0, |stage, mut response| {
        let data = text::decode(&response.data).unwrap();
        if data.len() > 9_000 {
            response.data = text::encode(&data[..9_000]);
            response.eof = false;
        }
        stage.give(&response);
    });
}

#[test]
fn it_goes_on_behind_what_is_there() {
    let bytes = noise(300_000);
    for there in [1, 4_096, 123_457, 300_000] {
        let mut asked = u64::MAX;
        Case::honestly(bytes.clone(), &bytes[..there]).arrives(there, |stage, response| {
            asked = asked.min(response.offset);
            stage.give(&response);
        });
        assert!(asked >= there as u64);
    }
    // More than all of it: what is behind does not stay.
    let longer = [&bytes[..], b"more"].concat();
    Case::honestly(bytes.clone(), &longer).arrives(300_000, |_, _| panic!("nothing is missing"));
}

#[test]
fn what_is_there_and_wrong_costs_a_second_transfer_only() {
    let bytes = noise(300_000);
    let mut there = bytes[..200_000].to_vec();
    there[77] ^= 1;
    Case::honestly(bytes, &there).arrives(0, |stage, response| stage.give(&response));
}

#[test]
fn a_lost_connection_costs_what_was_on_its_way() {
    for lost_between in [false, true] {
        let case = Case::honestly(noise(4_000_000), b"");
        let mut count = 0;
        case.arrives(0, |stage, response| {
            count += 1;
            if count % 20 == 0 {
                // This answer is lost, and others that were asked for.
                stage.outbox.set_online(false);
                if lost_between {
                    std::thread::sleep(Duration::from_millis(5));
                }
                stage.outbox.set_online(true);
                return;
            }
            stage.give(&response);
        });
    }
}

#[test]
fn zeros_become_a_hole() {
    let mut bytes = vec![0; 3 << 20];
    bytes[1_000_000..1_000_100].fill(7);
    bytes[2_000_000] = 1;
    let case = Case::honestly(bytes, b"");
    case.arrives(0, |stage, response| stage.give(&response));
    let metadata = std::fs::metadata(&case.path).unwrap();
    assert!(metadata.blocks() * 512 < 100_000, "{}", metadata.blocks());
    // What was there does not show through.
    let case = Case::honestly(vec![0; 100_000], &noise(200_000));
    case.arrives(0, |stage, response| stage.give(&response));
}

#[test]
fn a_peer_that_lies_is_found_out() {
    type Lie = fn(&mut DataResponse);
    let bytes = noise(200_000);
    let lies: [(&str, Lie); 8] = [
        ("no base64", |r| r.data.push('!')),
        ("not asked for: \"x\"", |r| "x".clone_into(&mut r.reference)),
        ("not asked for", |r| r.offset += 1),
        ("not asked for", |r| r.offset = u64::MAX),
        ("not asked for", |r| {
            r.data = text::encode(&vec![1; PIECE + 1]);
        }),
        ("nothing came at", |r| r.data.clear()),
        ("ends after", |r| r.eof = true),
        ("SHA-256 is", |r| {
            r.data
                .replace_range(0..1, if r.data.starts_with('A') { "B" } else { "A" });
        }),
    ];
    for (said, lie) in lies {
        let case = Case::honestly(bytes.clone(), b"");
        let error = case.serve(|stage, mut response| {
            lie(&mut response);
            stage.give(&response);
        });
        let error = error.unwrap_err();
        assert_eq!(error.code, ErrorCode::Invalid, "{error:?}");
        assert!(error.message.contains(said), "{said}: {error:?}");
    }
}

#[test]
fn a_size_that_lies_is_found_out() {
    let bytes = noise(100_000);
    for (size, said) in [(100_001, "ends after 100000"), (99_999, "goes on behind")] {
        let content = Content {
            size,
            ..content(&bytes)
        };
        let case = Case::begin(bytes.clone(), b"", content, Duration::from_mins(1));
        let error = case.serve(|stage, response| stage.give(&response));
        let error = error.unwrap_err();
        assert!(error.message.contains(said), "{error:?}");
    }
}

#[test]
fn a_peer_that_refuses_or_is_silent_ends_it() {
    let case = Case::honestly(noise(10), b"");
    let error = payload::Error::new(ErrorCode::NotFound, "no such content");
    let error = case.stage.serve(|stage, _| {
        let message = Message::within("job", payload::ERROR, &error);
        stage.pool.deliver(message, &stage.outbox).unwrap();
    });
    let error = error.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
    assert!(error.message.ends_with("no such content"), "{error:?}");

    let silent = content(b"x");
    let case = Case::begin(Vec::new(), b"", silent, Duration::from_millis(30));
    let result = case.serve(|_, _| {}).unwrap();
    assert_eq!(result.status, Status::TimedOut);
    assert!(result.message.unwrap().contains("files.idle_seconds"));
}

#[test]
fn a_cancel_is_heard_while_it_waits() {
    let case = Case::honestly(noise(10), b"");
    let result = case.serve(|stage, _| {
        let cancel = Cancel {
            job: "job".to_owned(),
            grace_seconds: None,
        };
        stage.pool.cancel(&cancel).unwrap();
    });
    assert_eq!(result.unwrap().status, Status::Cancelled);
}

#[test]
fn what_is_announced_is_checked() {
    let good = content(b"x");
    good.check().unwrap();
    for bad in [
        Content {
            reference: String::new(),
            ..good.clone()
        },
        Content {
            reference: "x".repeat(513),
            ..good.clone()
        },
        Content {
            reference: "a\nb".to_owned(),
            ..good.clone()
        },
        Content {
            sha256: good.sha256.to_uppercase(),
            ..good.clone()
        },
        Content {
            sha256: "ab".to_owned(),
            ..good.clone()
        },
        Content {
            size: u64::MAX,
            ..good.clone()
        },
    ] {
        assert_eq!(bad.check().unwrap_err().code, ErrorCode::Invalid, "{bad:?}");
    }
}

/// Fetches one file behind the other, as `directory.put` does.
#[derive(Debug)]
struct Two {
    contents: [Content; 2],
    pace: Pace,
}

impl Task for Two {
    fn name(&self) -> &'static str {
        "two"
    }

    fn run(&self, context: &Context<'_>) -> Result<Option<serde_json::Value>, Stop> {
        for content in &self.contents {
            let file = tempfile::tempfile().unwrap();
            fetch(context, content, &file, 0, &self.pace, &mut Meter::silent())?;
        }
        Ok(None)
    }
}

#[test]
fn what_comes_twice_for_one_file_does_not_disturb_the_next() {
    let files = [noise(300_000), noise(200_000)];
    let stage = Stage::new();
    let task = Two {
        contents: [content(&files[0]), content(&files[1])],
        pace: Pace::new(1 << 20, 32, 1 << 20, Duration::from_mins(1)),
    };
    let [first, second] = task.contents.clone();
    stage.begin(Arc::new(task), Bounds::default());
    let (mut held, mut cut) = (Vec::new(), false);
    let result = stage.serve(|stage, request| {
        let bytes = &files[usize::from(request.reference == second.reference)];
        let response = honest(bytes, request);
        if cut {
            stage.give(&response);
            return;
        }
        let last = response.eof;
        held.push(response);
        if last {
            // All answers come in spite of the cut, and again to the requests that are made anew.
            cut = true;
            stage.outbox.set_online(false);
            std::thread::sleep(Duration::from_millis(20));
            stage.outbox.set_online(true);
            while stage.outbox.is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            }
            for response in held.drain(..) {
                assert_eq!(response.reference, first.reference);
                stage.give(&response);
            }
        }
    });
    assert_eq!(result.unwrap().status, Status::Succeeded);
}

#[test]
fn no_more_requests_are_on_their_way_than_their_queue_holds() {
    let bytes = noise(600_000);
    let stage = Stage::new();
    let task = Two {
        contents: [content(&bytes), content(b"")],
        pace: Pace::new(1 << 20, 3, 1 << 20, Duration::from_mins(1)),
    };
    stage.begin(Arc::new(task), Bounds::default());
    let (mut held, mut most) = (Vec::new(), 0);
    let result = stage.serve(|stage, request| {
        held.push(honest(&bytes, request));
        most = most.max(held.len());
        if held.len() == 3 || held.iter().any(|r| r.eof) {
            for response in held.drain(..) {
                stage.give(&response);
            }
        }
    });
    assert_eq!(result.unwrap().status, Status::Succeeded);
    assert_eq!(most, 3);
}
