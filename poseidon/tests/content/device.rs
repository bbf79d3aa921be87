//! A device that hands out one file, well or badly.

use crate::common::*;
use crate::sha256;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinHandle;
use triton::message::payload::{self, DataRequest, DataResponse};
use triton::message::{Message, text};

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    None,
    /// Nothing comes after the offer.
    Silent,
    /// Not even an offer.
    NoOffer,
    OfferForOther,
    OfferBehindEnd,
    MoreThanAsked,
    OtherOffset,
    NoBase64,
    EarlyEnd,
    Empty,
    OtherRef,
    WrongHash,
}

/// Counts of what it was asked.
#[derive(Default)]
pub struct Counts {
    /// Bytes asked for.
    pub asked: AtomicU64,
    pub cancels: AtomicU64,
    pub connections: AtomicU64,
}

pub struct Device {
    pub counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
pub struct Behaviour {
    pub file: Vec<u8>,
    pub lie: Lie,
    /// The connection is cut after so many answers, and another one made.
    pub cut_after: Option<u64>,
    /// Answers come in pieces of at most so many bytes.
    pub piece: usize,
    /// With which its request is refused.
    pub refuse: Option<(&'static str, &'static str)>,
}

impl Behaviour {
    pub fn good(file: &[u8]) -> Self {
        Self {
            file: file.to_vec(),
            lie: Lie::None,
            cut_after: None,
            piece: usize::MAX,
            refuse: None,
        }
    }
}

impl Device {
    /// Connects as the instance `i1`, with a journal as the real one.
    pub fn start(url: impl Fn() -> String + Send + 'static, behaviour: Behaviour) -> Self {
        let counts = Arc::new(Counts::default());
        let kept = counts.clone();
        let task = tokio::spawn(async move {
            // The request of the job that runs, kept over reconnects.
            let mut job = None;
            loop {
                let connected = Agent::try_connect(&url(), IDENTIFIER).await;
                let Some(mut agent) = connected else {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    continue;
                };
                kept.connections.fetch_add(1, Ordering::SeqCst);
                serve(&mut agent, &behaviour, &kept, &mut job).await;
            }
        });
        Self { counts, task }
    }

    pub async fn up(&self) {
        let seen = &self.counts.connections;
        eventually("it connects", async || {
            (seen.load(Ordering::SeqCst) > 0).then_some(())
        })
        .await;
    }
}

/// Until the connection ends.
async fn serve(
    agent: &mut Agent,
    behaviour: &Behaviour,
    counts: &Counts,
    job: &mut Option<Message>,
) {
    let mut answers = 0;
    let size = behaviour.file.len();
    while let Some(message) = agent.try_next().await {
        match message.kind.as_str() {
            payload::FILE_GET => {
                if let Some((code, reason)) = behaviour.refuse {
                    let error = json!({"code": code, "message": reason});
                    agent.try_send(&message.reply(payload::ERROR, &error)).await;
                    continue;
                }
                agent
                    .try_send(&message.reply(payload::ACCEPTED, &json!({})))
                    .await;
                let request: serde_json::Value = message.read().unwrap();
                let offset = request["offset"].as_u64().unwrap();
                let mut offer = json!({
                    "ref": message.id, "offset": offset, "size": size, "mode": "0640", "mtime": 1_700_000_000.5,
                });
                match behaviour.lie {
                    Lie::OfferForOther => offer["offset"] = (offset + 1).into(),
                    Lie::OfferBehindEnd => offer["ref"] = "other".into(),
                    _ => {}
                }
                if behaviour.lie != Lie::NoOffer {
                    agent
                        .try_send(&message.reply(payload::DATA_OFFER, &offer))
                        .await;
                }
                *job = Some(message);
            }
            payload::DATA_REQUEST => {
                let request: DataRequest = message.read().unwrap();
                counts.asked.fetch_add(request.length, Ordering::SeqCst);
                if behaviour.lie == Lie::Silent {
                    continue;
                }
                if request.length == 0 {
                    let Some(job) = job.take() else { continue };
                    let mut hash = sha256(&behaviour.file);
                    if behaviour.lie == Lie::WrongHash {
                        hash = "0".repeat(64);
                    }
                    let data = json!({"path": "/x", "size": size, "sha256": hash});
                    let result = json!({"status": "succeeded", "data": data});
                    agent.try_send(&job.reply(payload::RESULT, &result)).await;
                    continue;
                }
                if behaviour.cut_after.is_some_and(|after| answers >= after) {
                    return;
                }
                answers += 1;
                agent.try_send(&answer(&message, &request, behaviour)).await;
            }
            payload::CANCEL => {
                counts.cancels.fetch_add(1, Ordering::SeqCst);
                let done = json!({});
                agent.try_send(&message.reply(payload::RESULT, &done)).await;
                if let Some(job) = job.take() {
                    let result = json!({"status": "cancelled"});
                    agent.try_send(&job.reply(payload::RESULT, &result)).await;
                }
            }
            _ => {}
        }
    }
}

fn answer(message: &Message, request: &DataRequest, behaviour: &Behaviour) -> Message {
    let file = &behaviour.file;
    let start = usize::try_from(request.offset).unwrap();
    let length = usize::try_from(request.length)
        .unwrap()
        .min(behaviour.piece);
    let end = (start + length).min(file.len());
    let mut response = DataResponse {
        reference: request.reference.clone(),
        offset: request.offset,
        data: text::encode(&file[start..end]),
        eof: end == file.len(),
        sha256: None,
    };
    match behaviour.lie {
        Lie::MoreThanAsked => response.data = text::encode(&vec![0; length + 1]),
        Lie::OtherOffset => response.offset += 1,
        Lie::NoBase64 => response.data = "?".repeat(40),
        Lie::EarlyEnd => {
            response.data = text::encode(&file[start..end - 1]);
            response.eof = true;
        }
        Lie::Empty => response.data = String::new(),
        Lie::OtherRef => "other".clone_into(&mut response.reference),
        _ => {}
    }
    message.reply(payload::DATA_RESPONSE, &response)
}
