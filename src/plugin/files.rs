//! `file.put`, `directory.put`, `file.get` and `file.list`: each is a job.

use super::{Peer, Plugin};
use crate::config::Config;
use crate::job::{Pool, Task, Work};
use crate::message::payload::{
    self, Bounds, DIRECTORY_PUT, Error, FILE_GET, FILE_LIST, FILE_PUT, FileRequest,
};
use crate::message::{ErrorCode, Message};
use crate::thread::{Crew, SMALL_STACK};
use crate::transfer::directory::PutDirectory;
use crate::transfer::get::Get;
use crate::transfer::list::List;
use crate::transfer::put::Put;
use crate::transfer::{Files as Shared, leftovers};
use std::sync::Arc;
use std::time::SystemTime;

/// Makes tasks of requests.
pub struct Files {
    pool: Arc<Pool>,
    shared: Arc<Shared>,
}

/// What transfers share, by the configuration. What earlier ones have left behind is swept on a thread.
pub fn shared(config: &Config, crew: &Crew) -> Arc<Shared> {
    let files = Shared::new(
        super::data::pace(config),
        config.files.reserve_bytes,
        config.files.manifest_entries,
        config.state.join("transfers"),
    );
    let notes = files.notes.clone();
    // Mostly there is nothing to sweep. Where there is, its disk may hang, and nobody waits for that.
    if notes.exists()
        && let Err(e) = crew.spawn("sweep", SMALL_STACK, move || {
            leftovers::sweep(&notes, SystemTime::now());
        })
    {
        log::warn!("what transfers have left behind stays until the next start: {e}");
    }
    Arc::new(files)
}

impl Files {
    /// Carries them out on `pool`.
    pub fn new(pool: Arc<Pool>, shared: Arc<Shared>) -> Self {
        Self { pool, shared }
    }

    fn task(&self, message: &Message) -> Result<(Arc<dyn Task>, Bounds), Error> {
        let unreadable = |e: payload::PayloadError| Error::new(ErrorCode::Invalid, e.to_string());
        let request: FileRequest = message.read().map_err(unreadable)?;
        let bounds = message.read().map_err(unreadable)?;
        let shared = Arc::clone(&self.shared);
        let task: Arc<dyn Task> = match message.kind.as_str() {
            FILE_PUT => Arc::new(Put::new(shared, request)?),
            DIRECTORY_PUT => Arc::new(PutDirectory::new(shared, request)?),
            FILE_GET => Arc::new(Get::new(shared, request)?),
            _ => Arc::new(List::new(request)?),
        };
        Ok((task, bounds))
    }
}

impl Plugin for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn types(&self) -> &'static [&'static str] {
        &[FILE_PUT, DIRECTORY_PUT, FILE_GET, FILE_LIST]
    }

    fn handle(&self, message: &Message, from: &Peer) {
        match self.task(message) {
            Ok((task, bounds)) => self
                .pool
                .submit(from.request(message, Work::Task(task, bounds))),
            Err(error) => from.outbox.push(message.reply(payload::ERROR, &error)),
        }
    }
}
