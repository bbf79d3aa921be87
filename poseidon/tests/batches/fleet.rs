//! Many simulated agents, and whatever comes to any of them.

use crate::common::*;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use std::time::Duration;
use triton::message::{Message, payload};

/// Time in which what should not come would have come.
const QUIET: Duration = Duration::from_millis(150);

pub struct Fleet {
    pub agents: Vec<Option<Agent>>,
    sequences: Vec<u64>,
}

impl Fleet {
    /// So many instances of what is registered: i0, i1 and so on, each with a label `n`.
    pub async fn of(rig: &Rig, number: usize) -> Self {
        let mut fleet = Self {
            agents: (0..number).map(|_| None).collect(),
            sequences: vec![0; number],
        };
        for at in 0..number {
            fleet.come(rig, at).await;
        }
        fleet
    }

    pub async fn come(&mut self, rig: &Rig, at: usize) {
        let mut agent = Agent::connect(rig.url(), Some(IDENTIFIER), "/triton")
            .await
            .unwrap();
        let mut more = journal(&format!("j{at}"));
        more["labels"] = json!({"n": at.to_string()});
        agent.hello_with(&format!("i{at}"), more).await;
        self.agents[at] = Some(agent);
    }

    /// All come back, as after the server was away.
    pub async fn again(&mut self, rig: &Rig) {
        for at in 0..self.agents.len() {
            self.come(rig, at).await;
        }
    }

    pub fn leave(&mut self, at: usize) {
        self.agents[at] = None;
    }

    /// The next request that comes to any of them.
    pub async fn next(&mut self) -> (usize, Message) {
        within(self.any()).await
    }

    async fn any(&mut self) -> (usize, Message) {
        loop {
            let each = self
                .agents
                .iter_mut()
                .enumerate()
                .filter_map(|(at, agent)| {
                    let agent = agent.as_mut()?;
                    Some(
                        async move { (at, agent.next().await.expect("it is connected")) }
                            .boxed_local(),
                    )
                });
            let ((at, message), ..) = futures_util::future::select_all(each).await;
            // A name that changes comes in a further welcome.
            if ![payload::ACK, payload::WELCOME].contains(&message.kind.as_str()) {
                return (at, message);
            }
        }
    }

    /// Nobody is asked for anything: what Poseidon has decided so far has had its time to arrive.
    pub async fn nothing_more(&mut self, rig: &Rig) {
        // A call that goes through the store comes behind what the driver has stored.
        let _: Value = rig.client.get("/batches").await.unwrap();
        let came = tokio::time::timeout(QUIET, self.any()).await;
        assert!(came.is_err(), "{came:?}");
    }

    async fn record(&mut self, at: usize, job: &str, kind: &str, payload: Value) {
        self.sequences[at] += 1;
        let sequence = self.sequences[at];
        let agent = self.agents[at].as_mut().unwrap();
        agent.record(job, kind, sequence, payload).await;
    }

    /// Returns when it is acknowledged.
    pub async fn accept(&mut self, at: usize, job: &str) {
        self.record(at, job, payload::ACCEPTED, json!({})).await;
        let through = self.sequences[at];
        self.agents[at].as_mut().unwrap().acked(through).await;
    }

    pub async fn result(&mut self, at: usize, job: &str, result: Value) {
        self.record(at, job, payload::RESULT, result).await;
    }

    pub async fn succeed(&mut self, at: usize, job: &str) {
        self.result(at, job, json!({"status": "succeeded", "exitCode": 0}))
            .await;
    }

    pub async fn fail(&mut self, at: usize, job: &str, said: &str) {
        let tail = json!({"stderr": {"data": format!("{said}\n"), "encoding": "utf8"}});
        let result = json!({"status": "failed", "exitCode": 3, "tail": tail});
        self.result(at, job, result).await;
    }

    pub async fn output(&mut self, at: usize, job: &Message, text: &str) {
        let agent = self.agents[at].as_mut().unwrap();
        agent.output(job, 0, text.as_bytes()).await;
    }
}
