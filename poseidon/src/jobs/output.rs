//! A job's output as newline-delimited JSON, as fast as its reader takes it.

use super::spool::{Piece, Reader};
use super::{JobView, Jobs, Live, Written};
use crate::server::stopped;
use crate::store::{Job, JobState};
use axum::body::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use triton::message::payload::{self, Stream};
use triton::message::text::Data;

/// An empty line so often keeps proxies from closing a silent stream.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Output {
        stream: Stream,
        offset: u64,
        #[serde(flatten)]
        data: Data,
    },
    Gap {
        stream: Stream,
        offset: u64,
        length: u64,
    },
    End {
        job: JobView<'a>,
    },
}

/// What a reader finds.
pub enum Now {
    /// Whole lines.
    Lines(io::Result<Bytes>),
    /// Nothing more than there was; the job goes on.
    Nothing,
    /// All was told.
    Over,
}

/// The lines of one reader.
pub struct Lines {
    jobs: Arc<Jobs>,
    token: String,
    live: Option<(Arc<Live>, watch::Receiver<Written>)>,
    reader: Option<Reader>,
    follow: bool,
    stop: watch::Receiver<bool>,
    done: bool,
    to_viewer: bool,
}

impl Lines {
    /// Lines of a job; `None` where there is no such job. They end early when `stop` becomes true.
    pub async fn open(
        jobs: &Arc<Jobs>,
        token: &str,
        follow: bool,
        stop: watch::Receiver<bool>,
    ) -> crate::store::Result<Option<Self>> {
        let mut live = jobs.open(token);
        // A job that is not open must be stored; its path is only made from a token that is known.
        if live.is_none() {
            if jobs.get(token).await?.is_none() {
                return Ok(None);
            }
            // It may have been opened meanwhile; if not, it has ended.
            live = jobs.open(token);
        }
        let live = live.map(|live| {
            let written = live.written();
            (live, written)
        });
        Ok(Some(Self {
            reader: Some(Reader::new(jobs.path(token))),
            jobs: jobs.clone(),
            token: token.to_owned(),
            live,
            follow,
            stop,
            done: false,
            to_viewer: false,
        }))
    }

    /// For who sees no content, if so.
    pub fn told(self, to_viewer: bool) -> Self {
        Self { to_viewer, ..self }
    }

    /// The next lines; `None` at the end.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            match self.now().await {
                Now::Lines(lines) => return Some(lines),
                Now::Over => return None,
                Now::Nothing if !self.follow => {
                    self.done = true;
                    return None;
                }
                Now::Nothing => {
                    let mut stop = self.stop.clone();
                    tokio::select! {
                        waited = tokio::time::timeout(KEEP_ALIVE, self.news()) => {
                            if waited.is_err() {
                                return Some(Ok(Bytes::from_static(b"\n")));
                            }
                        }
                        () = stopped(&mut stop) => {
                            self.done = true;
                            return None;
                        }
                    }
                }
            }
        }
    }

    /// What there is now, without waiting for more.
    pub async fn now(&mut self) -> Now {
        if self.done {
            return Now::Over;
        }
        // What is written is noted before reading: what comes in between is found in the next round.
        let written = self.live.as_mut().map(|(_, w)| *w.borrow_and_update());
        let pieces = match self.read().await {
            Ok(pieces) => pieces,
            Err(e) => {
                self.done = true;
                log::error!("the output of job {} cannot be read: {e}", self.token);
                return Now::Lines(Err(e));
            }
        };
        if !pieces.is_empty() {
            return Now::Lines(Ok(render(pieces)));
        }
        match written {
            Some(Written { ended: false, .. }) => Now::Nothing,
            _ => Now::Lines(self.end().await),
        }
    }

    /// Returns when there is more than `now` has told.
    pub async fn news(&mut self) {
        if let Some((_, changes)) = &mut self.live {
            let _ = changes.changed().await;
        }
    }

    async fn read(&mut self) -> io::Result<Vec<Piece>> {
        let Some(mut reader) = self.reader.take() else {
            return Ok(Vec::new());
        };
        let (reader, pieces) = tokio::task::spawn_blocking(move || {
            let pieces = reader.read();
            (reader, pieces)
        })
        .await
        .map_err(io::Error::other)?;
        self.reader = Some(reader);
        pieces
    }

    async fn end(&mut self) -> io::Result<Bytes> {
        self.done = true;
        let job: Option<Job> = match &self.live {
            Some((live, _)) => Some(live.job()),
            None => self.jobs.get(&self.token).await.map_err(io::Error::other)?,
        };
        let Some(job) = job else {
            return Ok(Bytes::new());
        };
        let mut text = Vec::new();
        if let Some(reader) = &mut self.reader {
            let totals = [job.stdout_bytes, job.stderr_bytes];
            text.extend_from_slice(&render(collected(&job, reader.rest(totals))));
        }
        if job.state == JobState::Ended {
            push(
                &mut text,
                &Line::End {
                    job: JobView::from(&job).told(self.to_viewer),
                },
            );
        }
        Ok(text.into())
    }
}

/// Of a job whose output was not to be sent as it came, the result has the end of it in place of the gap that is there.
fn collected(job: &Job, rest: Vec<Piece>) -> Vec<Piece> {
    #[derive(Deserialize)]
    struct Asked {
        output: payload::OutputMode,
    }
    let asked: Option<Asked> = serde_json::from_str(job.request.get()).ok();
    if asked.is_none_or(|asked| asked.output != payload::OutputMode::Collect) {
        return rest;
    }
    let result = job.result.as_deref().map(RawValue::get);
    let Some(Ok(result)) = result.map(serde_json::from_str::<payload::JobResult>) else {
        return rest;
    };
    let payload::Tail { stdout, stderr } = result.tail;
    let mut tails = [stdout, stderr].map(|tail| tail.into_bytes().unwrap_or_default());
    let fill = |piece| match piece {
        Piece::Gap {
            stream,
            offset,
            length,
        } => {
            let mut bytes = std::mem::take(&mut tails[stream as usize]);
            let missing = length.saturating_sub(bytes.len() as u64);
            let known = usize::try_from(length - missing).unwrap_or(0);
            bytes.drain(..bytes.len() - known);
            let gap = (missing > 0).then_some(Piece::Gap {
                stream,
                offset,
                length: missing,
            });
            let output = (known > 0).then_some(Piece::Output {
                stream,
                offset: offset + missing,
                bytes,
            });
            [gap, output]
        }
        piece => [Some(piece), None],
    };
    rest.into_iter().flat_map(fill).flatten().collect()
}

fn render(pieces: Vec<Piece>) -> Bytes {
    let mut text = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Output {
                stream,
                offset,
                bytes,
            } => push(
                &mut text,
                &Line::Output {
                    stream,
                    offset,
                    data: Data::from_bytes(&bytes),
                },
            ),
            Piece::Gap {
                stream,
                offset,
                length,
            } => push(
                &mut text,
                &Line::Gap {
                    stream,
                    offset,
                    length,
                },
            ),
            Piece::Progress(json) => {
                if let Ok(mut progress) =
                    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&json)
                {
                    progress.insert("type".to_owned(), "progress".into());
                    push(&mut text, &progress);
                }
            }
        }
    }
    text.into()
}

fn push(text: &mut Vec<u8>, line: &impl Serialize) {
    let start = text.len();
    // Writing plain data to memory does not fail; if it did, no half line may stay.
    if serde_json::to_writer(&mut *text, line).is_ok() {
        text.push(b'\n');
    } else {
        text.truncate(start);
    }
}
