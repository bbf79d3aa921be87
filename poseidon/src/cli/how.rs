//! How a process is run on devices: the options of `run` and `script`.

use super::commands::pair;
use crate::time::now;
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;
use triton::message::text::encode;

/// Longest standard input: it travels inside the request.
const STDIN_LIMIT: u64 = 512 << 10;
/// How a process is run.
#[derive(Args)]
pub(super) struct How {
    /// Kill it after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// Run as this user
    #[arg(long)]
    user: Option<String>,
    /// Run as this group
    #[arg(long)]
    group: Option<String>,
    /// Run in this folder
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Add to the environment; can be repeated
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Its niceness (-20 to 19); the device's jobs.nice unless given
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-20..=19))]
    nice: Option<i32>,
    /// Limit of each process's address space
    #[arg(long, value_name = "BYTES")]
    memory: Option<u64>,
    /// Let it wait on the device until then, by the device's clock: a Unix time, a date or date and time in UTC
    /// (2026-11-21T10:00:00Z), or how long from now (90s, 15m, 2h, 3d)
    #[arg(long, value_name = "TIME", value_parser = ahead)]
    not_before: Option<f64>,
    /// What becomes of its output: sent as it comes; collected on the device, which sends the last 64 KiB of each
    /// stream (`jobs.collect_bytes`) with the end; or discarded but for its last 4 KiB, which the job's result has
    #[arg(long, value_name = "MODE", value_parser = ["stream", "collect", "discard"])]
    output: Option<String>,
    /// Hand standard input to it, up to 512 KiB
    #[arg(long)]
    stdin: bool,
}

impl How {
    /// Adds what was given to the payload of a request, an object.
    pub(super) fn add_to(&self, payload: &mut Value) -> Result<(), String> {
        for (field, value) in [
            ("user", &self.user),
            ("group", &self.group),
            ("cwd", &self.cwd),
        ] {
            if let Some(value) = value {
                payload[field] = json!(value);
            }
        }
        for (field, value) in [
            ("timeoutSeconds", self.timeout.map(|n| json!(n))),
            ("nice", self.nice.map(|n| json!(n))),
            ("memoryBytes", self.memory.map(|n| json!(n))),
            ("notBefore", self.not_before.map(|n| json!(n))),
            ("output", self.output.as_ref().map(|mode| json!(mode))),
        ] {
            if let Some(value) = value {
                payload[field] = value;
            }
        }
        if !self.env.is_empty() {
            let env: BTreeMap<_, _> = self.env.iter().cloned().collect();
            payload["env"] = json!(env);
        }
        if self.stdin {
            let mut input = Vec::new();
            std::io::stdin()
                .take(STDIN_LIMIT + 1)
                .read_to_end(&mut input)
                .map_err(|e| format!("cannot read standard input: {e}"))?;
            if input.len() as u64 > STDIN_LIMIT {
                return Err(format!(
                    "standard input has more than the {STDIN_LIMIT} bytes that fit into a request"
                ));
            }
            payload["stdin"] = json!(encode(&input));
        }
        Ok(())
    }
}

/// A point in time that may come, as a Unix time.
fn ahead(text: &str) -> Result<f64, String> {
    if let Some(length) = triton::dates::length(text) {
        return Ok(now() + length.as_secs_f64());
    }
    triton::dates::parse(text, now()).ok_or_else(|| {
        "a Unix time, a date (2026-11-21), a date and time (2026-11-21T10:00:00Z) or a length of time from now (90s, 15m, 2h, 3d) is expected"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ahead_is_a_date_or_so_long_from_now() {
        assert_eq!(ahead("1700000000"), Ok(1_700_000_000.0));
        assert_eq!(ahead("2023-11-14T22:13:20Z"), Ok(1_700_000_000.0));
        let later = ahead("2h").unwrap() - now();
        assert!((7_190.0..=7_200.0).contains(&later), "{later}");
        assert!(ahead("soon").is_err() && ahead("-2h").is_err());
    }
}
