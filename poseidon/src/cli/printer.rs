//! A job's output on the terminal, or as JSON.

use super::client::Failure;
use super::follow::{Follower, News};
use super::jobs::outcome;
use super::progress;
use super::tables::{bytes, text};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncWriteExt as _, stderr, stdout};
use tokio::sync::Mutex;
use triton::message::payload::{Progress, Stream};
use triton::message::text::Data;

/// A line of a device among others is cut here, so that memory stays bounded.
const LINE_LIMIT: usize = 64 << 10;
/// Exit codes where a job has none of its own, those of `triton exec`.
const TIMED_OUT: u8 = 124;
const NO_CODE: u8 = 125;
const NOT_STARTED: u8 = 126;
const NOT_FOUND: u8 = 127;
const CANCELLED: u8 = 130;

/// Why printing ended before the job did.
pub(super) enum Broken {
    /// The server told no more.
    Lost(Failure),
    /// What it told cannot be written: its reader has gone.
    Unseen(String),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Lost(failure)
    }
}

impl From<Broken> for String {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Lost(failure) => failure.into(),
            Broken::Unseen(reason) => reason,
        }
    }
}

/// Prints one job.
#[derive(Default)]
pub(super) struct Printer {
    /// Told in each line of JSON, where several devices share the output.
    pub(super) job: Option<String>,
    /// Before each line, where several devices share the terminal.
    pub(super) prefix: Option<String>,
    pub(super) json: bool,
    /// The beginning of a line that has not ended, of each stream.
    pub(super) partial: [Vec<u8>; 2],
    /// Who holds it writes.
    pub(super) turn: Arc<Mutex<()>>,
}

impl Printer {
    /// Prints to the end and says how it was; returns the exit code.
    pub(super) async fn print(self, follower: Follower, name: String) -> Result<u8, Broken> {
        let json = self.json;
        let Some(job) = self.copy(follower).await? else {
            return Err(Failure::wrong("the output ended before the job did").into());
        };
        let result = &job["result"];
        if !json && !is_told(result["status"].as_str().unwrap_or(""), result) {
            eprintln!("poseidon: {name}: {}", outcome(&job));
        }
        if !json && result["message"].is_string() {
            eprintln!("poseidon: {name}: {}", text(&result["message"]));
        }
        Ok(exit_code(&job))
    }

    /// Prints what comes; returns the job if it ended.
    pub(super) async fn copy(mut self, mut follower: Follower) -> Result<Option<Value>, Broken> {
        let mut end = None;
        while let Some((raw, news)) = follower.next().await? {
            if let News::End(job) = &news {
                end = Some(job.clone());
            }
            self.take(&raw, news).await?;
        }
        self.finish().await?;
        Ok(end)
    }

    /// Prints one piece of news.
    pub(super) async fn take(&mut self, raw: &[u8], news: News) -> Result<(), Broken> {
        if self.json {
            return self.json(raw, &news).await;
        }
        match news {
            News::Output { stream, bytes, .. } => self.bytes(stream, &bytes).await,
            News::Gap {
                stream,
                offset,
                length,
            } => {
                let name = match stream {
                    Stream::Stdout => "stdout",
                    Stream::Stderr => "stderr",
                };
                let prefix = self.prefix.as_deref().unwrap_or("");
                progress::clear();
                eprintln!(
                    "poseidon: {prefix}{} of {name} are missing from byte {offset} on",
                    bytes(&json!(length))
                );
                Ok(())
            }
            News::End(job) => self.data(&job["result"]["data"]).await,
            News::Other => Ok(()),
            News::Progress(Progress { percent, message }) => {
                let _turn = self.turn.lock().await;
                progress::show(self.prefix.as_deref().unwrap_or(""), percent, &message);
                Ok(())
            }
        }
    }

    /// What the end of a job that is no process says, such as a plugin's answer.
    pub(super) async fn data(&mut self, data: &Value) -> Result<(), Broken> {
        if data.is_null() {
            return Ok(());
        }
        self.finish().await?;
        let line = format!("{data}\n");
        self.bytes(Stream::Stdout, line.as_bytes()).await
    }

    /// Nothing more comes: ends the lines that have not ended.
    pub(super) async fn finish(&mut self) -> Result<(), Broken> {
        progress::clear();
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.partial[stream as usize].is_empty() {
                self.bytes(stream, b"\n").await?;
            }
        }
        Ok(())
    }

    /// The server's line, without what was in an earlier one.
    async fn json(&self, raw: &[u8], news: &News) -> Result<(), Broken> {
        let mut value: Value = serde_json::from_slice(raw).unwrap_or_default();
        match news {
            News::Output { offset, bytes, .. } if value["offset"] != *offset => {
                let Data { data, encoding } = Data::from_bytes(bytes);
                value["offset"] = json!(offset);
                value["data"] = json!(data);
                value["encoding"] = json!(encoding);
            }
            News::Gap { offset, length, .. } => {
                value["offset"] = json!(offset);
                value["length"] = json!(length);
            }
            _ => {}
        }
        if let (Some(fields), Some(job)) = (value.as_object_mut(), &self.job) {
            fields.insert("jobId".to_owned(), job.clone().into());
        }
        self.write(Stream::Stdout, format!("{value}\n").as_bytes())
            .await
    }

    async fn bytes(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Broken> {
        let Some(prefix) = &self.prefix else {
            return self.write(stream, bytes).await;
        };
        let partial = &mut self.partial[stream as usize];
        let mut whole = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            partial.extend_from_slice(piece);
            if partial.ends_with(b"\n") || partial.len() > LINE_LIMIT {
                whole.extend_from_slice(prefix.as_bytes());
                whole.append(partial);
                if !whole.ends_with(b"\n") {
                    whole.push(b'\n');
                }
            }
        }
        self.write(stream, &whole).await
    }

    pub(super) async fn write(&self, stream: Stream, bytes: &[u8]) -> Result<(), Broken> {
        let turn = self.turn.lock().await;
        progress::clear();
        let written = match stream {
            Stream::Stdout => flushed(stdout(), bytes).await,
            Stream::Stderr => flushed(stderr(), bytes).await,
        };
        drop(turn);
        written.map_err(|e| Broken::Unseen(format!("cannot write the output: {e}")))
    }
}

async fn flushed(mut out: impl tokio::io::AsyncWrite + Unpin, bytes: &[u8]) -> std::io::Result<()> {
    out.write_all(bytes).await?;
    out.flush().await
}

/// Whether the exit code, with what the job wrote, says how it ended: one that is no process may have written nothing.
pub(super) fn is_told(status: &str, end: &Value) -> bool {
    match status {
        "succeeded" => true,
        "failed" => !end["exitCode"].is_null() || !end["signal"].is_null(),
        _ => false,
    }
}

/// As `triton exec` has it, whose codes are those of env(1), timeout(1) and the shell.
pub(super) fn exit_code(job: &Value) -> u8 {
    match job["error"]["code"].as_str() {
        Some("not-found") => return NOT_FOUND,
        Some("refused" | "io") => return NOT_STARTED,
        Some("cancelled") => return CANCELLED,
        _ => {}
    }
    let result = &job["result"];
    let ended = || match (result["exitCode"].as_u64(), result["signal"].as_u64()) {
        (Some(code), _) => Some(u8::try_from(code).unwrap_or(1)),
        (None, Some(signal)) => Some(u8::try_from(128 + signal.min(127)).unwrap_or(NO_CODE)),
        (None, None) => None,
    };
    match result["status"].as_str() {
        Some("timed-out") => TIMED_OUT,
        Some("cancelled") => CANCELLED,
        Some("succeeded") => ended().unwrap_or(0),
        Some("failed") => ended().unwrap_or(NO_CODE),
        _ => NO_CODE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_ends_the_command_as_triton_exec_ends() {
        let result = |result: Value| exit_code(&json!({"result": result, "error": null}));
        let error = |code: &str| exit_code(&json!({"result": null, "error": {"code": code}}));
        for (told, code) in [
            (json!({"status": "succeeded", "exitCode": 0}), 0),
            (json!({"status": "succeeded"}), 0),
            (json!({"status": "failed", "exitCode": 7}), 7),
            (json!({"status": "failed", "exitCode": 4096}), 1),
            (json!({"status": "failed", "signal": 9}), 137),
            (json!({"status": "failed"}), 125),
            // How it was ended is no news.
            (json!({"status": "timed-out", "signal": 15}), 124),
            (json!({"status": "timed-out", "exitCode": 0}), 124),
            (json!({"status": "cancelled", "signal": 15}), 130),
            (json!({"status": "interrupted"}), 125),
            (json!({"status": "expired"}), 125),
            (json!({}), 125),
        ] {
            assert_eq!(result(told.clone()), code, "{told}");
        }
        for (told, code) in [
            ("not-found", 127),
            ("refused", 126),
            ("io", 126),
            ("cancelled", 130),
            ("lost", 125),
            ("busy", 125),
        ] {
            assert_eq!(error(told), code, "{told}");
        }
    }
}
