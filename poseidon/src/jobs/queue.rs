//! Jobs that wait in the store for their agents.

use super::live::Live;
use super::{End, Jobs, lock};
use crate::agents::Key;
use crate::store::{Job, JobState, Result};
use crate::time::now;
use std::sync::Arc;
use std::time::Duration;
use triton::message::payload::{self, ErrorCode};

/// The clock may jump: what is due is looked for at least so often.
const LOOK: Duration = Duration::from_mins(1);

impl Jobs {
    /// Claims jobs of an instance that wait, oldest first, so that at most so many are on their way to it. Each must
    /// be given to [`Self::send_claimed`].
    pub fn claim_queued(&self, key: &Key, connection: u64, at_most: usize) -> Vec<Arc<Live>> {
        let open = self.all_open_of(&key.identifier, Some(&key.instance));
        let on_their_way = open
            .iter()
            .filter(|live| live.is_on_its_way(connection))
            .count();
        open.into_iter()
            .filter(|live| live.claim())
            .take(at_most.saturating_sub(on_their_way))
            .collect()
    }

    /// Whether jobs of an instance wait.
    pub fn has_queued(&self, key: &Key) -> bool {
        self.all_open_of(&key.identifier, Some(&key.instance))
            .iter()
            .any(|live| live.state() == JobState::Queued)
    }

    /// Notes durably that jobs are about to be sent to the agent with this journal, so that after a crash they are
    /// treated as sent.
    pub async fn about_to_send(&self, jobs: &[Arc<Live>], journal: Option<&str>) -> Result<()> {
        let tokens: Vec<String> = jobs.iter().map(|live| live.job().token).collect();
        let journal = journal.map(str::to_owned);
        self.db
            .call(move |store| store.send_jobs(&tokens, journal.as_deref()))
            .await
    }

    /// Hands a claimed job to a connection by `send`, which does not wait; false where that did not take it.
    pub fn send_claimed(
        &self,
        live: &Live,
        connection: u64,
        journal: Option<&str>,
        send: impl FnOnce(&Job) -> bool,
    ) -> bool {
        let taken = live.send_claimed(connection, journal, send, |job| self.unsend(job));
        if taken {
            self.publish(&live.job());
        }
        taken
    }

    /// Sends a new job by `send`, which does not wait. Where that does not take it, the job waits if it may, and else
    /// ends with the error.
    pub async fn send_new(
        self: &Arc<Self>,
        live: &Arc<Live>,
        connection: u64,
        send: impl FnOnce(&Job) -> std::result::Result<(), payload::Error>,
    ) {
        if let Err(error) = live.send_new(connection, send, |job| self.unsend(job)) {
            self.finish_whole(live, End::Error(error)).await;
        }
    }

    /// An agent had no room for a job that was sent. A job that may wait does; false for another.
    pub fn queue_again(&self, live: &Live) -> bool {
        if !live.queue_again(|job| self.unsend(job)) {
            return false;
        }
        self.publish(&live.job());
        self.queued.notify_one();
        true
    }

    /// If this is lost the job counts as sent, and the agent will be asked.
    fn unsend(&self, job: &Job) {
        let token = job.token.clone();
        self.db.post(move |store| store.queue_job(&token));
    }

    /// Ends a job that waits in the store, or is about to be sent; false where an agent may have it.
    pub async fn cancel_unsent(self: &Arc<Self>, live: &Arc<Live>) -> bool {
        let reason = "it was cancelled before it was sent";
        let error = payload::Error::new(ErrorCode::Other("cancelled".to_owned()), reason);
        self.end_unsent(live, error).await
    }

    /// Ends a job whose time in the store is over; false where it is not, or the job waits no more.
    pub async fn expire(self: &Arc<Self>, live: &Arc<Live>) -> bool {
        let due = live.job().expires.is_some_and(|expires| expires <= now());
        due && self.end_unsent(live, expired()).await
    }

    async fn end_unsent(self: &Arc<Self>, live: &Arc<Live>, error: payload::Error) -> bool {
        if !live.begin_end_unsent() {
            return false;
        }
        self.finish_whole(live, End::Error(error)).await;
        true
    }

    /// Ends queued jobs when their time is over, for ever.
    pub async fn watch_expiry(self: &Arc<Self>) {
        loop {
            let (due, next) = self.due();
            for live in due {
                self.expire(&live).await;
            }
            let wait = next.map_or(LOOK, |next| {
                Duration::try_from_secs_f64(next - now())
                    .unwrap_or_default()
                    .clamp(Duration::from_millis(10), LOOK)
            });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.queued.notified() => {}
            }
        }
    }

    /// Queued jobs whose time is over, and when it is for the next.
    fn due(&self) -> (Vec<Arc<Live>>, Option<f64>) {
        let now = now();
        let (mut due, mut next) = (Vec::new(), None);
        let open = lock(&self.open).all();
        for live in open {
            let standing = lock(&live.job);
            let (JobState::Queued, Some(expires)) = (standing.job.state, standing.job.expires)
            else {
                continue;
            };
            drop(standing);
            if expires <= now {
                due.push(live);
            } else {
                next = Some(next.map_or(expires, |next: f64| next.min(expires)));
            }
        }
        (due, next)
    }
}

/// How a job ends that the agent did not get in time.
pub fn expired() -> payload::Error {
    let reason = "the agent did not come in time";
    payload::Error::new(ErrorCode::Other("expired".to_owned()), reason)
}
