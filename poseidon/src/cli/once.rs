//! A request that starts something, sent again until its answer is there: under a token of its own nothing is started
//! twice, and what was started can be cancelled without an answer.

use super::client::{Client, Failure, segment};
use super::follow::{Away, Outage, Patience};
use super::run::{PARTING, cancel_at};
use crate::api::token;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use triton::message::id;

/// A request that was given up may be on its way still for so long.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// Between two looks whether it has come.
const LOOK: Duration = Duration::from_millis(200);

/// What `POST` to `/jobs` or `/batches` asks for.
pub(super) struct Once {
    path: &'static str,
    /// What to see it with.
    command: &'static str,
    token: String,
    body: Value,
}

impl Once {
    pub(super) fn jobs(body: Value) -> Self {
        Self::new("/jobs", "job", "token", body)
    }

    pub(super) fn batch(body: Value) -> Self {
        Self::new("/batches", "batch", "id", body)
    }

    fn new(path: &'static str, command: &'static str, field: &str, mut body: Value) -> Self {
        let token = id::random();
        body[field] = json!(token);
        Self {
            path,
            command,
            token,
            body,
        }
    }

    /// The answer. A server that was never reached is told at once; from the first loss of an answer on there is patience.
    pub(super) async fn send(&self, client: &Client, patience: Patience) -> Result<Value, Failure> {
        let mut client = client.clone();
        let mut outage = Outage::new(patience, Away::default());
        let mut lost = false;
        loop {
            let failure = match client.try_post(self.path, &self.body).await {
                Ok(answer) => {
                    outage.opened();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            lost |= failure.is_lost();
            if !lost {
                return Err(failure);
            }
            outage.wait(failure).await.map_err(|failure| {
                // The server looks for the token first of all: these say that it has not found it.
                if failure.is_offline() || failure.is_not_found() {
                    failure
                } else {
                    failure.and(&self.whether())
                }
            })?;
            client = client.again();
        }
    }

    /// The answer, or the exit code that `stop` tells: then what was started is cancelled, for nobody waits for it. A
    /// second `stop` does not wait for that either.
    pub(super) async fn send_until(
        &self,
        client: &Client,
        patience: Patience,
        mut stop: impl AsyncFnMut() -> u8,
    ) -> Result<Result<Value, ExitCode>, Failure> {
        let code = tokio::select! {
            answer = self.send(client, patience) => return answer.map(Ok),
            code = stop() => code,
        };
        eprintln!("poseidon: cancelling what may have been started; Ctrl-C again stops waiting");
        let said = tokio::select! {
            said = self.take_back(client, patience) => said,
            _ = stop() => self.whether(),
        };
        eprintln!("poseidon: interrupted; {said}");
        Ok(Err(ExitCode::from(code)))
    }

    /// Cancels what was started; says what is known of it.
    async fn take_back(&self, client: &Client, patience: Patience) -> String {
        match timeout(PARTING, self.cancel(client, patience.at_most(PARTING))).await {
            Ok(Ok(0)) => "nothing was started".to_owned(),
            Ok(Ok(_)) => format!("it was started; {} tells how it ended", self.tells()),
            Ok(Err(failure)) => failure.and(&self.whether()).to_string(),
            Err(_) => self.whether(),
        }
    }

    /// How many jobs or batches there were to cancel.
    async fn cancel(&self, client: &Client, patience: Patience) -> Result<usize, Failure> {
        let found = self.started(client, patience).await?;
        let away = Away::default();
        let each = found.iter().map(|path| {
            let outage = Outage::new(patience, away.clone());
            cancel_at(client.again(), format!("{path}/cancel"), outage)
        });
        futures_util::future::join_all(each).await;
        Ok(found.len())
    }

    /// The paths of what was started, as the server knows it.
    async fn started(&self, client: &Client, patience: Patience) -> Result<Vec<String>, Failure> {
        let mut client = client.again();
        let mut outage = Outage::new(patience, Away::default());
        let since = Instant::now();
        let mut found = Vec::new();
        loop {
            let token = token::nth(&self.token, found.len());
            let path = format!("{}/{}", self.path, segment(&token));
            match outage.get(&mut client, &path).await {
                Ok(_) => found.push(path),
                Err(e) if !e.is_not_found() => return Err(e),
                Err(_) if found.is_empty() && since.elapsed() < ON_ITS_WAY => sleep(LOOK).await,
                Err(_) => return Ok(found),
            }
        }
    }

    fn tells(&self) -> String {
        format!("'poseidon {} {}'", self.command, self.token)
    }

    /// What to say where nobody knows whether the server got it.
    fn whether(&self) -> String {
        format!("whether it was started, {} tells", self.tells())
    }
}
