//! A central instance that gives content and takes files, and cuts the connection as often as it is told.

use crate::support::agent::Agent;
use crate::support::fake::{Fake, Peer, sequence};
use crate::support::{eventually, local};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use triton::message::payload::{self, DataRequest, DataResponse, PIECE, Welcome};
use triton::message::{Message, id, text};

/// What a job ended with: its `result`, or its `error`.
pub type End = Result<Value, Value>;

/// What becomes of an answer on its way.
pub type Twist = Box<dyn FnMut(&DataRequest, DataResponse) -> Option<DataResponse> + Send>;

#[derive(Default)]
struct State {
    /// How many there were. What a dead one has left unread is nobody's, and it takes no order of its successor.
    connections: usize,
    contents: BTreeMap<String, Arc<Vec<u8>>>,
    orders: VecDeque<Message>,
    ends: BTreeMap<String, End>,
    output: BTreeMap<String, Vec<u8>>,
    progress: Vec<f64>,
    offers: Vec<Value>,
    /// Files that are fetched from the agent, by the ref.
    taken: BTreeMap<String, Vec<u8>>,
    acked: u64,
    /// Bytes given or taken since the last cut, in all, and after how many the connection is cut.
    passed: u64,
    given: u64,
    cut_after: Option<u64>,
    cuts: usize,
    twist: Option<Twist>,
}

pub struct Central {
    fake: Fake,
    state: Arc<Mutex<State>>,
}

pub fn sha256(bytes: &[u8]) -> String {
    id::hex(&Sha256::digest(bytes))
}

/// Bytes that no two places have alike.
pub fn noise(length: usize) -> Vec<u8> {
    let mut random = crate::support::random::Random::new(length as u64);
    let words = std::iter::repeat_with(|| random.next().to_le_bytes());
    words.take(length / 8 + 1).flatten().take(length).collect()
}

impl Central {
    pub fn new() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let its = Arc::clone(&state);
        let fake = Fake::websocket(move |peer| serve(peer, &its));
        Self { fake, state }
    }

    /// An agent of it that is connected.
    pub fn agent(&self) -> Agent {
        self.agent_with("")
    }

    pub fn agent_with(&self, settings: &str) -> Agent {
        let mut agent = Agent::new();
        self.configure(&mut agent, settings);
        agent.start();
        agent.wait_for_link("connected");
        agent
    }

    /// Has the agent connect here.
    pub fn configure(&self, agent: &mut Agent, settings: &str) {
        let file = agent.folder().join("triton.toml");
        std::fs::write(&file, settings).unwrap();
        let arguments = ["--config", file.to_str().unwrap(), "--url", &self.fake.url];
        let taken = std::mem::replace(agent, Agent::new());
        *agent = taken.with(&arguments);
    }

    pub fn twist(
        &self,
        twist: impl FnMut(&DataRequest, DataResponse) -> Option<DataResponse> + Send + 'static,
    ) {
        self.state.lock().unwrap().twist = Some(Box::new(twist));
    }

    pub fn straight(&self) {
        self.state.lock().unwrap().twist = None;
    }

    pub fn cut_after(&self, bytes: u64) {
        self.state.lock().unwrap().cut_after = Some(bytes);
    }

    pub fn cuts(&self) -> usize {
        self.state.lock().unwrap().cuts
    }

    /// Bytes that were given to agents.
    pub fn given(&self) -> u64 {
        self.state.lock().unwrap().given
    }

    pub fn progress(&self) -> Vec<f64> {
        self.state.lock().unwrap().progress.clone()
    }

    pub fn offers(&self) -> Vec<Value> {
        self.state.lock().unwrap().offers.clone()
    }

    pub fn output(&self, token: &str) -> String {
        let state = self.state.lock().unwrap();
        let bytes = state.output.get(token).cloned().unwrap_or_default();
        String::from_utf8(bytes).unwrap()
    }

    pub fn taken(&self, token: &str) -> Vec<u8> {
        self.state.lock().unwrap().taken[token].clone()
    }

    /// Has content, and how a request names it.
    pub fn have(&self, bytes: Vec<u8>) -> Value {
        let hash = sha256(&bytes);
        let reference = format!("sha256:{hash}");
        let size = bytes.len();
        let contents = &mut self.state.lock().unwrap().contents;
        contents.insert(reference.clone(), Arc::new(bytes));
        json!({"ref": reference, "size": size, "sha256": hash})
    }

    /// Sends a request; returns its token.
    pub fn ask(&self, kind: &str, payload: &Value) -> String {
        let message = Message::with(kind, payload);
        let token = message.id.clone();
        self.state.lock().unwrap().orders.push_back(message);
        token
    }

    pub fn end_now(&self, token: &str) -> Option<End> {
        self.state.lock().unwrap().ends.get(token).cloned()
    }

    /// Waits for the end of a job.
    #[track_caller]
    pub fn end(&self, token: &str) -> End {
        eventually("the job ends", || self.end_now(token))
    }

    /// The same, while the agent's waits after a cut are cut short.
    #[track_caller]
    pub fn end_with_nudges(&self, token: &str, agent: &Agent) -> End {
        let begun = Instant::now();
        loop {
            if let Some(end) = self.end_now(token) {
                return end;
            }
            assert!(begun.elapsed() < Duration::from_mins(5), "{}", agent.log());
            let status = local::status(&agent.socket());
            if status.is_some_and(|s| s["link"]["state"] == "waiting") {
                agent.signal(libc::SIGHUP);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    pub fn run(&self, kind: &str, payload: &Value) -> End {
        let token = self.ask(kind, payload);
        self.end(&token)
    }

    /// Asks for `file.put` with `more` fields, and waits for its end.
    #[track_caller]
    pub fn put(&self, path: &Path, bytes: &[u8], more: Value) -> End {
        self.run("file.put", &self.put_of(path, bytes, more))
    }

    pub fn put_of(&self, path: &Path, bytes: &[u8], more: Value) -> Value {
        let mut request = self.have(bytes.to_vec());
        request["path"] = path.to_str().unwrap().into();
        merge(&mut request, more);
        request
    }
}

pub fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// The `data` of a result that succeeded.
#[track_caller]
pub fn data(end: End) -> Value {
    let result = end.expect("a result");
    assert_eq!(result["status"], "succeeded", "{result}");
    result["data"].clone()
}

/// Code and message of an error.
#[track_caller]
pub fn error(end: End) -> (String, String) {
    let error = end.expect_err("an error");
    let text = |field: &str| error[field].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}

/// One connection.
fn serve(mut peer: Peer, state: &Mutex<State>) {
    let (mine, welcome) = {
        let mut state = state.lock().unwrap();
        state.connections += 1;
        let acked = Some(state.acked);
        let welcome = Welcome {
            acked,
            ..Welcome::default()
        };
        (state.connections, welcome)
    };
    if peer.welcome(&welcome).is_none() {
        return;
    }
    let stream = peer.socket.get_ref();
    stream
        .set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    loop {
        loop {
            let mut state = state.lock().unwrap();
            if state.connections != mine {
                return;
            }
            let Some(order) = state.orders.pop_front() else {
                break;
            };
            drop(state);
            peer.send(&order);
        }
        let message = match peer.socket.read() {
            Ok(tungstenite::Message::Text(text)) => text,
            Err(tungstenite::Error::Io(e))
                if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                continue;
            }
            Ok(tungstenite::Message::Close(_)) | Err(_) => return,
            Ok(_) => continue,
        };
        let message = Message::decode(message.as_bytes(), 4 << 20).unwrap();
        if !act(&mut peer, state, &message) {
            return;
        }
    }
}

/// False where the connection is to be cut.
fn act(peer: &mut Peer, state: &Mutex<State>, message: &Message) -> bool {
    let payload: Value = message.read().unwrap_or_default();
    let mut guard = state.lock().unwrap();
    let it = &mut *guard;
    let token = message.conversation_id.clone();
    if let Some(number) = sequence(message) {
        it.acked = it.acked.max(number);
        peer.ack(number);
    }
    let mut moved = 0;
    match message.kind.as_str() {
        payload::DATA_REQUEST => {
            let request: DataRequest = message.read().unwrap();
            let Some(content) = it.contents.get(&request.reference) else {
                let text = "no such content";
                peer.send(&message.reply_error(payload::ErrorCode::NotFound, text));
                return true;
            };
            let answer = honest(content, &request);
            let answer = match &mut it.twist {
                Some(twist) => twist(&request, answer),
                None => Some(answer),
            };
            if let Some(answer) = answer {
                moved = text::decode(&answer.data).map_or(0, |d| d.len() as u64);
                it.given += moved;
                peer.send(&message.reply(payload::DATA_RESPONSE, &answer));
            }
        }
        payload::DATA_OFFER => {
            let size = payload["size"].as_u64().unwrap();
            let have = it.taken.entry(token).or_default().len() as u64;
            let from = payload["offset"].as_u64().unwrap() + have;
            it.offers.push(payload);
            // Several at once, as a real one does.
            for at in 0..4 {
                take(peer, message, from + at * PIECE as u64, size);
            }
            if from == size {
                has_all(peer, message);
            }
        }
        payload::DATA_RESPONSE => {
            let response: DataResponse = message.read().unwrap();
            let bytes = text::decode(&response.data).unwrap();
            moved = bytes.len() as u64;
            let offer = it.offers.last().unwrap();
            let first = offer["offset"].as_u64().unwrap();
            let size = offer["size"].as_u64().unwrap();
            let file = it.taken.get_mut(&token).unwrap();
            if response.offset == first + file.len() as u64 {
                file.extend(bytes);
                take(peer, message, response.offset + 4 * PIECE as u64, size);
                if first + file.len() as u64 == size {
                    has_all(peer, message);
                }
            }
        }
        payload::OUTPUT => {
            let output: payload::Output = message.read().unwrap();
            let bytes = output.into_bytes().unwrap();
            it.output.entry(token).or_default().extend(bytes);
        }
        payload::PROGRESS => it.progress.push(payload["percent"].as_f64().unwrap()),
        payload::RESULT => drop(it.ends.insert(token, Ok(payload))),
        payload::ERROR => drop(it.ends.insert(token, Err(payload))),
        _ => {}
    }
    it.passed += moved;
    if it.cut_after.is_some_and(|after| it.passed >= after) {
        it.passed = 0;
        it.cuts += 1;
        return false;
    }
    true
}

/// Asks for a piece of a file of the agent's.
fn take(peer: &mut Peer, message: &Message, offset: u64, size: u64) {
    if offset < size {
        ask(peer, message, offset, PIECE as u64);
    }
}

fn has_all(peer: &mut Peer, message: &Message) {
    ask(peer, message, 0, 0);
}

fn ask(peer: &mut Peer, message: &Message, offset: u64, length: u64) {
    let request = DataRequest {
        reference: message.conversation_id.clone(),
        offset,
        length,
    };
    peer.send(&message.reply(payload::DATA_REQUEST, &request));
}

fn honest(content: &[u8], request: &DataRequest) -> DataResponse {
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
