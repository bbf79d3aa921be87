//! Following what a server tells, also while it is away for a moment: it may be restarted, killed, or behind a network
//! that breaks.

use super::client::{Client, Failure, Lines, segment};
use super::length;
use super::progress;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use triton::message::payload::{Progress, Stream};
use triton::message::text::{Data, Encoding};

/// Between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A connection that stood for this long was a good one: the next loss is a new one.
const STEADY: Duration = Duration::from_secs(5);

/// How long a server may be away.
#[derive(Args, Clone, Copy)]
pub(super) struct Patience {
    /// Once it was reached, try again for so long where the server does not answer, as while it is restarted: 90s, 15m, 2h; 0s gives up at once
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = length)]
    patience: Duration,
}

impl Patience {
    pub(super) fn at_most(self, limit: Duration) -> Self {
        let patience = self.patience.min(limit);
        Self { patience }
    }
}

/// Several that follow one server say only once that it is away.
#[derive(Clone, Default)]
pub(super) struct Away(Arc<AtomicUsize>);

/// The state of one that follows.
pub(super) struct Outage {
    limit: Duration,
    away: Away,
    /// When the server was first missed.
    since: Option<Instant>,
    /// Whether this one counts in `away`.
    told: bool,
    opened: Option<Instant>,
    pause: Duration,
}

impl Outage {
    pub(super) fn new(patience: Patience, away: Away) -> Self {
        Self {
            limit: patience.patience,
            away,
            since: None,
            told: false,
            opened: None,
            pause: FIRST_PAUSE,
        }
    }

    /// Waits before the next try. The failure comes back where it does not pass, or not in time.
    pub(super) async fn wait(&mut self, failure: Failure) -> Result<(), Failure> {
        if self.opened.take().is_some_and(|at| at.elapsed() >= STEADY) {
            self.progress();
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if !failure.passes() || since.elapsed() >= self.limit {
            return Err(failure);
        }
        if !std::mem::replace(&mut self.told, true)
            && self.away.0.fetch_add(1, Ordering::AcqRel) == 0
        {
            let seconds = self.limit.as_secs();
            progress::clear();
            eprintln!("poseidon: {failure}; trying again for {seconds} s");
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    /// The answer to a call, when the server gives it. From a loss on the client is another one.
    pub(super) async fn get(&mut self, client: &mut Client, path: &str) -> Result<Value, Failure> {
        loop {
            match client.try_get(path).await {
                Ok(answer) => {
                    self.opened();
                    self.progress();
                    return Ok(answer);
                }
                Err(failure) => self.wait(failure).await?,
            }
            *client = client.again();
        }
    }

    /// The server answers.
    pub(super) fn opened(&mut self) {
        self.opened = Some(Instant::now());
        if self.leave() {
            progress::clear();
            eprintln!("poseidon: the server is back");
        }
    }

    /// Something new came: whatever breaks from now on is a new loss.
    pub(super) fn progress(&mut self) {
        self.since = None;
        self.pause = FIRST_PAUSE;
    }

    /// Counts no longer; true for the last one.
    fn leave(&mut self) -> bool {
        std::mem::take(&mut self.told) && self.away.0.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A line of a job's output.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Line {
    Output {
        stream: Stream,
        offset: u64,
        data: String,
        encoding: Encoding,
    },
    Gap {
        stream: Stream,
        offset: u64,
        length: u64,
    },
    Progress(Progress),
    End {
        job: Value,
    },
    #[serde(other)]
    Other,
}

/// What of a job's output is new.
#[derive(Debug)]
pub(super) enum News {
    Output {
        stream: Stream,
        offset: u64,
        bytes: Vec<u8>,
    },
    Gap {
        stream: Stream,
        offset: u64,
        length: u64,
    },
    Progress(Progress),
    /// Told by the line as a whole.
    Other,
    End(Value),
}

/// How much of a job's output was taken. The server tells it from the beginning each time.
#[derive(Default)]
pub(super) struct Position {
    /// Bytes of each stream.
    streams: [u64; 2],
    /// Lines without an offset, and how many of them came on this connection.
    others: u64,
    passed: u64,
}

impl Position {
    /// Another connection begins.
    pub(super) fn again(&mut self) {
        self.passed = 0;
    }

    /// What of a line is new.
    pub(super) fn take(&mut self, line: Line) -> Result<Option<News>, Failure> {
        let news = match line {
            Line::End { job } => News::End(job),
            Line::Progress(_) | Line::Other if !self.is_new() => return Ok(None),
            Line::Progress(progress) => News::Progress(progress),
            Line::Other => News::Other,
            Line::Gap {
                stream,
                offset,
                length,
            } => {
                let Some((start, end)) = self.advance(stream, offset, length) else {
                    return Ok(None);
                };
                News::Gap {
                    stream,
                    offset: start,
                    length: end - start,
                }
            }
            Line::Output {
                stream,
                offset,
                data,
                encoding,
            } => {
                let mut bytes = Data { data, encoding }
                    .into_bytes()
                    .ok_or_else(|| Failure::wrong("the server sends wrong base64"))?;
                let Some((start, _)) = self.advance(stream, offset, bytes.len() as u64) else {
                    return Ok(None);
                };
                let known = usize::try_from(start.saturating_sub(offset)).unwrap_or(bytes.len());
                bytes.drain(..known.min(bytes.len()));
                News::Output {
                    stream,
                    offset: start,
                    bytes,
                }
            }
        };
        Ok(Some(news))
    }

    /// Whether the next line without an offset was not told yet.
    fn is_new(&mut self) -> bool {
        self.passed += 1;
        let new = self.passed > self.others;
        self.others = self.others.max(self.passed);
        new
    }

    /// Start and end of what is new of a range; `None` where all of it is known.
    fn advance(&mut self, stream: Stream, offset: u64, length: u64) -> Option<(u64, u64)> {
        let known = &mut self.streams[stream as usize];
        let end = offset.saturating_add(length);
        if end <= *known {
            return None;
        }
        let start = offset.max(*known);
        *known = end;
        Some((start, end))
    }
}

/// Reads a job's output, each piece once.
pub(super) struct Follower {
    client: Client,
    path: String,
    lines: Option<Lines>,
    position: Position,
    /// Only where the job is followed to its end.
    outage: Option<Outage>,
    ended: bool,
}

impl Follower {
    /// To the end of the job. `known` says that the server has answered before: then even the first try may fail.
    pub(super) async fn to_the_end(
        client: &Client,
        job: &str,
        outage: Outage,
        known: bool,
    ) -> Result<Self, Failure> {
        let path = format!("/jobs/{}/output?follow=true", segment(job));
        Self::open(client, path, Some(outage), known).await
    }

    /// What there is now.
    pub(super) async fn stored(client: &Client, job: &str) -> Result<Self, Failure> {
        let path = format!("/jobs/{}/output?follow=false", segment(job));
        Self::open(client, path, None, false).await
    }

    async fn open(
        client: &Client,
        path: String,
        outage: Option<Outage>,
        known: bool,
    ) -> Result<Self, Failure> {
        let lines = if known {
            None
        } else {
            Some(client.try_lines(&path).await?)
        };
        Ok(Self {
            client: client.clone(),
            path,
            lines,
            position: Position::default(),
            outage,
            ended: false,
        })
    }

    /// The next line as it came, and what of it is new; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(Vec<u8>, News)>, Failure> {
        loop {
            let failure = match self.line().await {
                Ok(Some(raw)) => {
                    let line = serde_json::from_slice(&raw).map_err(|e| {
                        Failure::wrong(format!("the server's answer cannot be read: {e}"))
                    })?;
                    let Some(news) = self.position.take(line)? else {
                        continue;
                    };
                    if let Some(outage) = &mut self.outage {
                        outage.progress();
                    }
                    self.ended |= matches!(news, News::End(_));
                    return Ok(Some((raw, news)));
                }
                Ok(None) if self.ended || self.outage.is_none() => return Ok(None),
                Ok(None) => Failure::broken("the server ended the stream before the job ended"),
                // The last line has come: what happens to the connection now is of no matter.
                Err(_) if self.ended => return Ok(None),
                Err(failure) => failure,
            };
            self.lines = None;
            let Some(outage) = &mut self.outage else {
                return Err(failure);
            };
            outage.wait(failure).await?;
            self.client = self.client.again();
        }
    }

    async fn line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let lines = if let Some(lines) = &mut self.lines {
            lines
        } else {
            let lines = self.client.try_lines(&self.path).await?;
            self.position.again();
            if let Some(outage) = &mut self.outage {
                outage.opened();
            }
            self.lines.insert(lines)
        };
        lines.next().await.map_err(Failure::broken)
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
