//! What all jobs of a batch tell, as one stream of newline-delimited JSON, as fast as its reader takes it.

use super::{Batch, BatchView, MemberView};
use crate::jobs::lock;
use crate::jobs::output::{KEEP_ALIVE, Lines, Now};
use crate::server::{App, stopped};
use axum::body::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::io;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Jobs whose output is read at a time: as many as a batch may have running, so that none of these waits for another.
const READERS: usize = super::MAX_CONCURRENCY as usize;
/// Pieces of output, of at most about a megabyte each, that are in memory at a time.
const PIECES: usize = 4;
/// How the last line of a job's own stream begins.
const END: &[u8] = b"{\"type\":\"end\"";

type Piece = io::Result<Bytes>;
/// The `data` of a job's result, where it has any.
type Data = Option<Box<RawValue>>;

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Ended {
        #[serde(flatten)]
        member: MemberView,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Data,
    },
    Summary {
        batch: BatchView<'a>,
    },
}

/// Where a member stands for one who reads.
struct Told {
    agent: String,
    instance: String,
    token: String,
    started: bool,
}

/// The lines of a batch from its beginning; with `follow` until it is over.
pub fn lines(
    app: &Arc<App>,
    batch: Arc<Batch>,
    follow: bool,
    to_viewer: bool,
) -> mpsc::Receiver<Piece> {
    let (out, lines) = mpsc::channel(PIECES);
    let teller = Teller {
        app: app.clone(),
        batch,
        out,
        to_viewer,
        room: Arc::new(Semaphore::new(PIECES)),
    };
    // Ends with its reader: what it sends is not taken any more.
    tokio::spawn(async move { teller.tell(follow).await });
    lines
}

#[derive(Clone)]
struct Teller {
    app: Arc<App>,
    batch: Arc<Batch>,
    out: mpsc::Sender<Piece>,
    to_viewer: bool,
    room: Arc<Semaphore>,
}

impl Teller {
    async fn tell(self, follow: bool) {
        let mut changed = self.batch.changed.subscribe();
        let mut stop = self.app.stop.clone();
        let mut readers = JoinSet::new();
        let mut next = 0;
        loop {
            changed.borrow_and_update();
            let over = self.batch.is_over();
            while readers.len() < READERS
                && let Some((at, told)) = self.member(next)
            {
                next += 1;
                let teller = self.clone();
                readers.spawn(async move { teller.member_to_the_end(at, told, follow).await });
            }
            let all_told = self.member(next).is_none() && readers.is_empty();
            if all_told && over {
                let batch = self.batch.view(false).told(self.to_viewer);
                let summary = line(&Line::Summary { batch });
                let _ = self.out.send(Ok(summary)).await;
                return;
            }
            if all_told && !follow {
                return;
            }
            tokio::select! {
                Some(read) = readers.join_next() => {
                    if matches!(read, Ok(false)) {
                        return;
                    }
                }
                waited = timeout(KEEP_ALIVE, changed.changed()) => {
                    if waited.is_err() && self.out.send(Ok(Bytes::from_static(b"\n"))).await.is_err() {
                        return;
                    }
                }
                () = self.out.closed() => return,
                () = stopped(&mut stop) => return,
            }
        }
    }

    /// The member that was the `n`th to be started, or to end without that.
    fn member(&self, n: usize) -> Option<(usize, Told)> {
        let standing = lock(&self.batch.standing);
        let at = *standing.order.get(n)?;
        let member = &standing.members[at];
        let told = Told {
            agent: member.agent.clone(),
            instance: member.instance.clone(),
            token: member.token.clone(),
            started: member.started,
        };
        Some((at, told))
    }

    /// False where the reader has gone, or the output cannot be read.
    async fn member_to_the_end(&self, at: usize, told: Told, follow: bool) -> bool {
        let mut data = None;
        if told.started && !self.job(&told, follow, &mut data).await {
            return false;
        }
        let mut changed = self.batch.changed.subscribe();
        let member = loop {
            changed.borrow_and_update();
            let member = {
                let member = &lock(&self.batch.standing).members[at];
                member.end.is_some().then(|| MemberView::from(member))
            };
            match member {
                Some(member) => break member,
                None if !follow => return true,
                None => {
                    let _ = changed.changed().await;
                }
            }
        };
        self.out
            .send(Ok(line(&Line::Ended { member, data })))
            .await
            .is_ok()
    }

    async fn job(&self, told: &Told, follow: bool, data: &mut Data) -> bool {
        let stop = self.app.stop.clone();
        let opened = Lines::open(&self.app.jobs, &told.token, follow, stop).await;
        let mut lines = match opened {
            Ok(Some(lines)) => lines,
            // It was pruned with its output.
            Ok(None) => return true,
            Err(e) => return self.broken(io::Error::other(e)).await,
        };
        let mut changed = self.batch.changed.subscribe();
        loop {
            let piece = {
                let Ok(_room) = self.room.acquire().await else {
                    return false;
                };
                match lines.now().await {
                    Now::Lines(Ok(piece)) => {
                        let piece = labelled(&piece, told, data);
                        if !piece.is_empty() && self.out.send(Ok(piece)).await.is_err() {
                            return false;
                        }
                        true
                    }
                    Now::Lines(Err(e)) => return self.broken(e).await,
                    Now::Nothing => false,
                    Now::Over => return true,
                }
            };
            if piece {
                continue;
            }
            if !follow {
                return true;
            }
            // Of a large batch much changes: nothing is read for that.
            loop {
                if self.is_given_up(told) {
                    return true;
                }
                tokio::select! {
                    () = lines.news() => break,
                    _ = changed.changed() => {}
                }
            }
        }
    }

    /// Whether the batch waits for a job no longer that has not ended.
    fn is_given_up(&self, told: &Told) -> bool {
        self.batch.is_over() && self.app.jobs.open(&told.token).is_some()
    }

    async fn broken(&self, e: io::Error) -> bool {
        let _ = self.out.send(Err(e)).await;
        false
    }
}

/// Says whose each line is, and leaves out the last one, which `ended` takes the place of, with its `data`.
fn labelled(piece: &[u8], told: &Told, data: &mut Data) -> Bytes {
    #[derive(Serialize)]
    struct Whose<'a> {
        agent: &'a str,
        instance: &'a str,
        job: &'a str,
    }
    let whose = Whose {
        agent: &told.agent,
        instance: &told.instance,
        job: &told.token,
    };
    let mut label = serde_json::to_vec(&whose).unwrap_or_default();
    label.pop();
    label.push(b',');
    let mut text = Vec::with_capacity(piece.len() + 4 * label.len());
    // Every line is an object with something in it, and JSON has no line end within.
    for line in piece.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(END) {
            *data = data_of(line);
        } else if let Some(rest) = line.strip_prefix(b"{") {
            text.extend_from_slice(&label);
            text.extend_from_slice(rest);
        }
    }
    text.into()
}

/// What is in a job's last line.
fn data_of(line: &[u8]) -> Data {
    #[derive(Deserialize)]
    struct End {
        job: Job,
    }
    #[derive(Deserialize)]
    struct Job {
        result: Option<JobResult>,
    }
    #[derive(Deserialize)]
    struct JobResult {
        data: Data,
    }
    let end: End = serde_json::from_slice(line).ok()?;
    end.job.result?.data
}

fn line(line: &Line<'_>) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// As a stream for an answer.
pub fn stream(
    lines: mpsc::Receiver<Piece>,
) -> impl futures_util::Stream<Item = Piece> + Send + 'static {
    futures_util::stream::unfold(lines, |mut lines| async move {
        lines.recv().await.map(|piece| (piece, lines))
    })
}
