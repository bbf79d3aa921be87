//! A request that a plugin answers, as a job: the worker's side, and what lies between it and the plugin.

use super::{Hub, lock};
use crate::job::task::Told;
use crate::job::{Context, Stop, Task};
use crate::message::payload::{self, Cancel, ErrorCode, Stream};
use crate::message::text::decode;
use crate::message::{Message, VERSION};
use crate::outbox::Outbox;
use crate::sys::wake::Wake;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Messages of a plugin that wait for the worker of their job at most.
const WAITING: usize = 16;
/// And their bytes; one more may pass, so that none is stuck.
const WAITING_BYTES: usize = 128 * 1024;
/// Messages that wait for a plugin at most; with more a request is refused.
const INPUT: usize = 64;
/// Most bytes of a result's `data`: it has to fit what the journal keeps free for a job's end.
const DATA: usize = 8 * 1024;
/// Longest text of a result or a progress, in characters; the rest is cut off.
const TEXT: usize = 1_000;

/// The code of the `error` of a job whose plugin ended.
pub const PLUGIN_ENDED: &str = "plugin-ended";

/// A running plugin, for those that have work for it.
#[derive(Debug)]
pub struct Inlet {
    outbox: Arc<Outbox>,
    /// None: the plugin has ended.
    jobs: Mutex<Option<Vec<Arc<Channel>>>>,
}

/// From a plugin to one job.
#[derive(Debug)]
struct Channel {
    token: String,
    queue: Mutex<Queue>,
    /// The worker's.
    wake: Arc<Wake>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    /// Why no more will come.
    ended: Option<String>,
}

fn weight(message: &Message) -> usize {
    message.payload.as_ref().map_or(0, String::len)
}

impl Inlet {
    /// To a plugin that reads what is in `outbox`.
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Self {
            outbox,
            jobs: Mutex::new(Some(Vec::new())),
        }
    }

    /// Hands a message of the plugin to the job whose conversation it belongs to. It comes back where there is no room
    /// now; where there is no such job any more it is dropped. `last`: the plugin has ended, and what it left is little.
    pub fn route(&self, message: Message, last: bool) -> Result<(), Message> {
        let channel = lock(&self.jobs)
            .iter()
            .flatten()
            .find(|c| c.token == message.conversation_id)
            .map(Arc::clone);
        let Some(channel) = channel else {
            log::debug!("a plugin's {} belongs to no job", message.kind);
            return Ok(());
        };
        let mut queue = lock(&channel.queue);
        if !last && (queue.messages.len() >= WAITING || queue.bytes >= WAITING_BYTES) {
            return Err(message);
        }
        queue.bytes += weight(&message);
        queue.messages.push_back(message);
        drop(queue);
        channel.wake.ring();
        Ok(())
    }

    /// The plugin has ended: no job is handed to it any more, and those it has end.
    pub fn close(&self, why: &str) {
        let jobs = lock(&self.jobs).take();
        for channel in jobs.into_iter().flatten() {
            lock(&channel.queue).ended = Some(why.to_owned());
            channel.wake.ring();
        }
    }

    /// How many jobs it has.
    pub fn jobs(&self) -> usize {
        lock(&self.jobs).as_ref().map_or(0, Vec::len)
    }

    fn open(&self, request: Message, wake: &Arc<Wake>) -> Result<Arc<Channel>, payload::Error> {
        let mut jobs = lock(&self.jobs);
        let Some(jobs) = jobs.as_mut() else {
            return Err(ended("it ended before the request reached it"));
        };
        if !self.outbox.is_online() {
            return Err(ended("it has closed its input, so it takes no requests"));
        }
        if self.outbox.len() >= INPUT {
            let text = format!("{INPUT} messages wait for the plugin already");
            return Err(payload::Error::new(ErrorCode::Busy, text));
        }
        let channel = Arc::new(Channel {
            token: request.id.clone(),
            queue: Mutex::default(),
            wake: Arc::clone(wake),
        });
        jobs.push(Arc::clone(&channel));
        self.outbox.push(request);
        Ok(channel)
    }

    fn leave(&self, channel: &Arc<Channel>) {
        if let Some(jobs) = lock(&self.jobs).as_mut() {
            jobs.retain(|c| !Arc::ptr_eq(c, channel));
        }
    }
}

fn ended(why: &str) -> payload::Error {
    let code = ErrorCode::Other(PLUGIN_ENDED.to_owned());
    payload::Error::new(code, format!("the plugin does not do it: {why}"))
}

/// A request for a plugin.
#[derive(Debug)]
pub struct Ask {
    /// Where the plugin is found.
    pub hub: Arc<Hub>,
    /// The request's type.
    pub kind: String,
    /// What is asked.
    pub payload: Option<String>,
}

impl Task for Ask {
    fn name(&self) -> &str {
        &self.kind
    }

    fn run(&self, context: &Context<'_>) -> Result<Option<Value>, Stop> {
        // By the type, and now: the plugin may have been started anew since the request came.
        let inlet = match self.hub.find(&self.kind) {
            Some((_, Some(inlet))) => inlet,
            Some((name, None)) => return Err(ended(&format!("{name} does not run now")).into()),
            None => return Err(ended("none acts on this type any more").into()),
        };
        let token = context.token().to_owned();
        let request = Message {
            kind: self.kind.clone(),
            version: VERSION,
            id: token.clone(),
            conversation_id: token,
            payload: self.payload.clone(),
            signature: None,
        };
        let channel = inlet.open(request, context.wake())?;
        let done = self.follow(context, &inlet, &channel);
        inlet.leave(&channel);
        // What it left in the channel no longer keeps the plugin's output waiting.
        self.hub.wake.ring();
        done
    }
}

impl Ask {
    /// Until its end. One that is to end is told so, and has its grace to do it.
    fn follow(
        &self,
        context: &Context<'_>,
        inlet: &Inlet,
        channel: &Channel,
    ) -> Result<Option<Value>, Stop> {
        let mut leaving: Option<(Stop, Instant)> = None;
        loop {
            if let Err(stop) = context.check()
                && leaving.is_none()
            {
                let (grace, _) = context
                    .ordered()
                    .unwrap_or((self.hub.settings.grace, false));
                let cancel = Cancel {
                    job: channel.token.clone(),
                    grace_seconds: Some(grace.as_secs_f64()),
                };
                inlet.outbox.push(Message::with(payload::CANCEL, &cancel));
                leaving = Some((stop, Instant::now() + grace));
            }
            if let Some((stop, until)) = &leaving {
                let at_once = context.ordered().is_some_and(|(_, again)| again);
                if at_once || *until <= Instant::now() {
                    return Err(stop.clone());
                }
            }
            let next = {
                let mut queue = lock(&channel.queue);
                let next = queue.messages.pop_front();
                queue.bytes -= next.as_ref().map_or(0, weight);
                next.ok_or_else(|| queue.ended.clone())
            };
            match (next, &leaving) {
                (Ok(message), None) => {
                    // Its thread may have waited for room.
                    self.hub.wake.ring();
                    match take(context, &message) {
                        // It was told to end meanwhile, which is seen to above.
                        Ok(()) | Err(Stop::Ended) => {}
                        Err(stop) => return Err(stop),
                    }
                }
                (Ok(message), Some((stop, _))) => {
                    self.hub.wake.ring();
                    if matches!(message.kind.as_str(), payload::RESULT | payload::ERROR) {
                        return Err(stop.clone());
                    }
                }
                (Err(Some(_)), Some((stop, _))) => return Err(stop.clone()),
                (Err(Some(why)), None) => return Err(ended(&why).into()),
                (Err(None), leaving) => {
                    let deadline = leaving.as_ref().map(|(_, until)| *until);
                    context.pause(deadline.or(context.timeout_at()));
                }
            }
        }
    }
}

/// Something that the plugin says of the job.
fn take(context: &Context<'_>, message: &Message) -> Result<(), Stop> {
    let kind = message.kind.as_str();
    let invalid = |why: String| {
        let text = format!("the plugin answers with a {kind} that makes no sense: {why}");
        Stop::failed(ErrorCode::Invalid, text)
    };
    if kind == payload::ERROR {
        let error: payload::Error = message.read().map_err(|e| invalid(e.to_string()))?;
        return Err(Stop::Failed(error));
    }
    let said: Value = message.read().map_err(|e| invalid(e.to_string()))?;
    let text = |value: &Value| {
        let text = value.as_str()?;
        Some(text.chars().take(TEXT).collect::<String>())
    };
    match kind {
        payload::OUTPUT => {
            let data = said["data"].as_str().unwrap_or_default();
            let bytes = match said["encoding"].as_str() {
                None | Some("utf8") => Some(data.as_bytes().to_vec()),
                Some("base64") => decode(data),
                Some(_) => None,
            };
            let bytes = bytes.ok_or_else(|| invalid("its data".to_owned()))?;
            let stream = if said["stream"] == "stderr" {
                Stream::Stderr
            } else {
                Stream::Stdout
            };
            context.output_on(stream, &bytes)
        }
        payload::PROGRESS => {
            let percent = said["percent"].as_f64().unwrap_or_default();
            let text = text(&said["message"]).unwrap_or_default();
            context.progress(percent.clamp(0.0, 100.0), text);
            Ok(())
        }
        _ => {
            let succeeded = match said["status"].as_str() {
                Some("succeeded") => true,
                Some("failed") => false,
                _ => return Err(invalid("its status is succeeded or failed".to_owned())),
            };
            let data = Some(said["data"].clone()).filter(|data| !data.is_null());
            let length = data.as_ref().map_or(0, |data| data.to_string().len());
            if length > DATA {
                let text = format!(
                    "the plugin's result has {length} bytes of data, more than {DATA}; what is larger goes as output"
                );
                return Err(Stop::failed(ErrorCode::TooLarge, text));
            }
            Err(Stop::Told(Box::new(Told {
                succeeded,
                message: text(&said["message"]),
                data,
            })))
        }
    }
}
