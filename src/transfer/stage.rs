//! For tests: a pool that carries out one task, and the peer that it speaks with.

use crate::job::{Origin, Pool, Request, Settings, Task, Work};
use crate::journal::{self, Journal};
use crate::message::Message;
use crate::message::payload::{
    self, Bounds, DATA_REQUEST, DATA_RESPONSE, DataRequest, DataResponse, JobResult, PIECE,
};
use crate::message::text;
use crate::outbox::{Limits, Outbox};
use crate::thread::Crew;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_mins(1);

pub struct Stage {
    pub pool: Arc<Pool>,
    pub outbox: Arc<Outbox>,
    _folder: tempfile::TempDir,
}

impl Stage {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&journal::Settings {
            folder: folder.path().join("journal"),
            state: folder.path().to_owned(),
            bytes: 4 << 20,
            memory_bytes: 4 << 20,
            sync: false,
            goes_on: None,
        });
        let crew = Crew::new(|name| panic!("{name} panicked"));
        let limits = Limits {
            control: 1_024,
            output_bytes: 128 << 10,
        };
        let outbox = Arc::new(Outbox::new(limits).unwrap());
        outbox.set_online(true);
        Self {
            pool: Pool::start(Settings::default(), &crew, Arc::new(journal.unwrap())),
            outbox,
            _folder: folder,
        }
    }

    /// Begins a task in the conversation `job`.
    pub fn begin(&self, task: Arc<dyn Task>, bounds: Bounds) {
        self.pool.submit(Request {
            token: "job".to_owned(),
            kind: task.name().to_owned(),
            conversation_id: "job".to_owned(),
            work: Work::Task(task, bounds),
            name: None,
            holds: None,
            sink: Arc::clone(&self.outbox),
            // So that the end comes here and not into the journal only.
            origin: Origin::Local,
        });
    }

    /// The next message of the task but progress.
    pub fn next(&self) -> Message {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.outbox.pop() {
                Some(message) if message.kind == payload::PROGRESS => {}
                Some(message) => return message,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
            assert!(Instant::now() < end, "the task says nothing");
        }
    }

    pub fn give(&self, response: &DataResponse) {
        let mut message = Message::within("job", DATA_RESPONSE, response);
        // What waits for a task is bounded.
        while let Err(back) = self.pool.deliver(message, &self.outbox) {
            if self.pool.running() == 0 {
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Answers requests until the task ends.
    pub fn serve(
        &self,
        mut answer: impl FnMut(&Self, &DataRequest),
    ) -> Result<JobResult, payload::Error> {
        loop {
            let message = self.next();
            match message.kind.as_str() {
                DATA_REQUEST => answer(self, &message.read().unwrap()),
                payload::RESULT => return Ok(message.read().unwrap()),
                payload::ERROR => return Err(message.read().unwrap()),
                payload::ACCEPTED | payload::OUTPUT => {}
                other => panic!("unexpected: {other}"),
            }
        }
    }
}

/// What an honest peer answers.
pub fn honest(content: &[u8], request: &DataRequest) -> DataResponse {
    let from = usize::try_from(request.offset).unwrap().min(content.len());
    let length = usize::try_from(request.length).unwrap().min(PIECE);
    let to = (from + length).min(content.len());
    DataResponse {
        reference: request.reference.clone(),
        offset: request.offset,
        data: text::encode(&content[from..to]),
        eof: to == content.len(),
        sha256: None,
    }
}
