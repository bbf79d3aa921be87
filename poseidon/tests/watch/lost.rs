//! Commands whose answer is lost on the way: what they start is started once.

use crate::common::*;
use crate::{Watcher, data};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use triton::message::payload;

/// What happens to the first `POST` through a gate.
#[derive(Clone, Copy, PartialEq)]
enum First {
    /// The answer never leaves it: the connection is cut when it comes.
    AnswerLost,
    /// The answer never leaves it, and the connection stands.
    AnswerHeld,
    /// The request never leaves it.
    RequestLost,
}

/// Stands between a command and its server.
struct Gate {
    url: String,
    /// Where connections go; nowhere from that `POST` on, until it is opened.
    server: Arc<Mutex<Option<String>>>,
}

impl Gate {
    async fn of(rig: &Rig, first: First) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Arc::new(Mutex::new(Some(address(rig))));
        let known = server.clone();
        tokio::spawn(async move {
            let mut first = Some(first);
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut method = [0; 4];
                let is_post = client.peek(&mut method).await.is_ok() && method == *b"POST";
                let first = first.take_if(|_| is_post);
                let server: Option<String> = match first {
                    Some(_) => known.lock().unwrap().take(),
                    None => known.lock().unwrap().clone(),
                };
                tokio::spawn(async move {
                    let Some(server) = server else { return };
                    if let Some(first) = first {
                        return lose(client, server, first).await;
                    }
                    if let Ok(mut server) = TcpStream::connect(server).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { url, server }
    }

    async fn is_lost(&self) {
        let taken = async || self.server.lock().unwrap().is_none().then_some(());
        eventually("the first request comes", taken).await;
    }

    fn open(&self, rig: &Rig) {
        *self.server.lock().unwrap() = Some(address(rig));
    }

    fn watch(&self, rig: &Rig, arguments: &[&str]) -> Watcher {
        Watcher::start(&data(rig), &[&["--url", &self.url], arguments].concat())
    }
}

fn address(rig: &Rig) -> String {
    rig.url().strip_prefix("http://").unwrap().to_owned()
}

async fn lose(mut client: TcpStream, server: String, first: First) {
    let mut buffer = vec![0; 1 << 16];
    if first == First::RequestLost {
        let _ = client.read(&mut buffer).await;
        return;
    }
    let mut server = TcpStream::connect(server).await.unwrap();
    loop {
        let mut answer = [0; 1];
        tokio::select! {
            read = client.read(&mut buffer) => match read {
                Ok(n) if n > 0 => server.write_all(&buffer[..n]).await.unwrap(),
                _ => return,
            },
            _ = server.read(&mut answer) => break,
        }
    }
    if first == First::AnswerHeld {
        // Until the command gives up.
        let _ = client.read(&mut buffer).await;
    }
}

/// The agents' requests, each accepted.
async fn accept(agents: &mut [Agent]) -> Vec<triton::message::Message> {
    let mut all = Vec::new();
    for agent in agents {
        all.push(crate::accept(agent).await);
    }
    all
}

async fn count(rig: &Rig, what: &str) -> usize {
    let all: Value = rig.client.get(&format!("/{what}")).await.unwrap();
    all[what].as_array().unwrap().len()
}

#[tokio::test]
async fn what_was_started_is_followed_and_runs_once() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agents = vec![rig.agent("i1").await];
    let mut made = (0, 0);
    for several in [false, true] {
        if several {
            agents.push(rig.agent("i2").await);
        }
        for batch in [false, true] {
            let gate = Gate::of(&rig, First::AnswerLost).await;
            let whom = if batch {
                &["--on", "box"][..]
            } else {
                &["box"]
            };
            let line = [&["run"], whom, &["--", "x"]].concat();
            let watcher = gate.watch(&rig, &line);
            let jobs = accept(&mut agents).await;
            gate.open(&rig);
            for (agent, job) in agents.iter_mut().zip(&jobs) {
                agent.output(job, 0, b"done\n").await;
                agent.succeed(job, 5).await;
            }
            let (mut lines, code, said) = watcher.end().await;
            lines.sort_unstable();
            let wanted: &[&str] = if several {
                &["box/i1: done", "box/i2: done"]
            } else {
                &["done"]
            };
            assert_eq!(
                (lines, code),
                (wanted.iter().map(|l| (*l).to_owned()).collect(), Some(0)),
                "{said}"
            );
            assert!(said.contains("trying again for 60 s"), "{said}");
            for agent in &mut agents {
                agent.nothing_came().await;
            }
            made.0 += agents.len();
            made.1 += usize::from(batch);
            assert_eq!(
                (count(&rig, "jobs").await, count(&rig, "batches").await),
                made
            );
        }
    }
}

#[tokio::test]
async fn a_server_that_was_killed_meanwhile_knows_what_it_had_started() {
    let mut rig = daemon().await;
    rig.register("box").await;
    // The device is in the store a moment after it came: a batch of the next server knows it then.
    while rig.client.get::<Value>("/agents/box").await.is_err() {
        drop(rig.journaled("i1", "j").await);
        tokio::time::sleep(Duration::from_millis(300)).await;
        rig.kill().await;
    }
    for (line, what) in [
        (&["run", "box", "--", "x"][..], "jobs"),
        (&["run", "--on", "box", "--", "x"], "batches"),
    ] {
        let (mut agent, _) = rig.journaled("i1", "j").await;
        let gate = Gate::of(&rig, First::AnswerLost).await;
        let watcher = gate.watch(&rig, line);
        let first = agent.expect(payload::COMMAND).await;
        rig.kill().await;
        drop(agent);
        let (mut agent, _) = rig.journaled("i1", "j").await;
        gate.open(&rig);
        // Sent again to the journal that has it, under the token that it knows.
        let job = crate::accept(&mut agent).await;
        assert_eq!(job.id, first.id);
        agent.output(&job, 0, b"done\n").await;
        agent.succeed(&job, 5).await;
        let (lines, code, said) = watcher.end().await;
        assert_eq!((lines, code), (vec!["done".to_owned()], Some(0)), "{said}");
        assert!(said.contains("the server is back"), "{said}");
        agent.nothing_came().await;
        assert_eq!(count(&rig, what).await, 1);
    }
}

#[tokio::test]
async fn what_never_came_is_started_when_the_device_is_back() {
    let mut rig = daemon().await;
    rig.register("box").await;
    drop(rig.agent("i1").await);
    let gate = Gate::of(&rig, First::RequestLost).await;
    let watcher = gate.watch(&rig, &["run", "box", "--", "x"]);
    gate.is_lost().await;
    rig.kill().await;
    gate.open(&rig);
    let mut agent = rig.agent("i1").await;
    let job = crate::accept(&mut agent).await;
    agent.succeed(&job, 0).await;
    let (_, code, said) = watcher.end().await;
    assert_eq!(code, Some(0), "{said}");
    agent.nothing_came().await;
    assert_eq!(count(&rig, "jobs").await, 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_at_once() {
    let rig = rig().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let line = ["--url", &url, "run", "box", "--", "x"];
    let (_, code, said) = Watcher::start(&data(&rig), &line).end().await;
    assert_eq!(code, Some(1));
    assert!(said.contains("Does the server run?"), "{said}");
    for part in ["trying again", "whether"] {
        assert!(!said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn ctrl_c_cancels_what_was_started_without_an_answer() {
    let rig = rig().await;
    rig.register("box").await;
    let mut agents = [rig.agent("i1").await, rig.agent("i2").await];
    for line in [
        &["run", "box", "--", "x"][..],
        &["run", "box", "--detach", "--", "x"],
        &["run", "--on", "box", "--", "x"],
    ] {
        let gate = Gate::of(&rig, First::AnswerHeld).await;
        let watcher = gate.watch(&rig, line);
        let jobs = accept(&mut agents).await;
        gate.open(&rig);
        watcher.signal(rustix::process::Signal::INT);
        for (agent, job) in agents.iter_mut().zip(&jobs) {
            agent.expect(payload::CANCEL).await;
            let result = json!({"status": "cancelled", "signal": 15});
            agent.send(&job.reply("result", &result)).await;
        }
        let (lines, code, said) = watcher.end().await;
        assert_eq!((lines, code), (vec![], Some(130)), "{said}");
        assert!(said.contains("it was started; 'poseidon "), "{said}");
    }
    // Where nothing was started there is nothing to cancel.
    let gate = Gate::of(&rig, First::RequestLost).await;
    let mut watcher = gate.watch(&rig, &["run", "box", "--", "x"]);
    let mut said = BufReader::new(watcher.child.stderr.take().unwrap()).lines();
    let mut says = async |part: &str| loop {
        let line = within(said.next_line()).await.unwrap().expect("more");
        if line.contains(part) {
            break;
        }
    };
    says("trying again").await;
    watcher.signal(rustix::process::Signal::INT);
    says("cancelling").await;
    gate.open(&rig);
    says("nothing was started").await;
    assert_eq!(watcher.end().await.1, Some(130));
    for agent in &mut agents {
        agent.nothing_came().await;
    }
}

#[tokio::test]
async fn a_push_to_several_is_sent_again_too() {
    let rig = rig().await;
    rig.register("box").await;
    let other = "another-identifier-of-some-length";
    let body = json!({"identifier": other, "name": "other"});
    let _: Value = rig.client.post("/identifiers", &body).await.unwrap();
    let mut agents = vec![rig.agent("i1").await];
    let connected = Agent::connect(rig.url(), Some(other), "/triton").await;
    agents.push(connected.unwrap());
    agents[1].hello("i2").await;
    let file = rig.dir.path().join("conf");
    std::fs::write(&file, "x").unwrap();
    let push = ["push", file.to_str().unwrap(), "box,other:/etc/"];
    let gate = Gate::of(&rig, First::AnswerLost).await;
    let watcher = gate.watch(&rig, &push);
    for agent in &mut agents {
        let job = agent.expect("file.put").await;
        agent.succeed(&job, 0).await;
    }
    gate.open(&rig);
    let (_, code, said) = watcher.end().await;
    assert_eq!(code, Some(0), "{said}");
    for agent in &mut agents {
        agent.nothing_came().await;
    }
    assert_eq!(count(&rig, "jobs").await, 2);
}
