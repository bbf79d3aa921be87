//! A man in the middle who ends TLS: he reads every message between agent and Poseidon, and alters, keeps back, repeats
//! and makes up what he likes. The heads of HTTP he passes on as they are.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use triton::message::Message;
use tungstenite::protocol::Role;
use tungstenite::{Error, Message as Frame, WebSocket};

/// How often he looks at both sides.
const TICK: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Agent,
    Poseidon,
}

/// What he makes of a message; several, or none.
type Rule = Box<dyn FnMut(To, Message) -> Vec<Message> + Send>;

pub struct Middle {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    rule: Mutex<Rule>,
    seen: Mutex<Vec<(To, String)>>,
    made_up: Mutex<Vec<(To, Message)>>,
    cut: AtomicBool,
}

impl Middle {
    /// Before the server at `target`. At first he only listens.
    pub fn before(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: target.parse().unwrap(),
            rule: Mutex::new(Box::new(|_, message| vec![message])),
            seen: Mutex::default(),
            made_up: Mutex::default(),
            cut: AtomicBool::new(false),
        });
        let middle = Self {
            address,
            shared: Arc::clone(&shared),
        };
        thread::spawn(move || {
            for agent in listener.incoming() {
                let (Ok(agent), shared) = (agent, Arc::clone(&shared)) else {
                    return;
                };
                thread::spawn(move || between(&shared, agent));
            }
        });
        middle
    }

    pub fn url(&self) -> String {
        format!("ws://{}/triton", self.address)
    }

    pub fn rule(&self, rule: impl FnMut(To, Message) -> Vec<Message> + Send + 'static) {
        *self.shared.rule.lock().unwrap() = Box::new(rule);
    }

    pub fn be_honest(&self) {
        self.rule(|_, message| vec![message]);
    }

    /// Puts a message into the stream.
    pub fn say(&self, to: To, message: Message) {
        self.shared.made_up.lock().unwrap().push((to, message));
    }

    /// Ends the connections that stand.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
    }

    /// All that has passed, as it came to him.
    pub fn seen(&self) -> Vec<(To, Message)> {
        let seen = self.shared.seen.lock().unwrap();
        let read = |(to, text): &(To, String)| {
            Some((*to, Message::decode(text.as_bytes(), 4 << 20).ok()?))
        };
        seen.iter().filter_map(read).collect()
    }

    /// The same as it was on the wire.
    pub fn wire(&self) -> String {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().map(|(_, text)| text.as_str()).collect()
    }
}

/// Reads a head and passes it on.
fn head(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(from.read(&mut byte), Ok(1)) || head.len() > 65_536 {
            return false;
        }
        head.push(byte[0]);
    }
    to.write_all(&head).is_ok() && (head.starts_with(b"GET") || head.starts_with(b"HTTP/1.1 101"))
}

fn between(shared: &Shared, mut agent: TcpStream) {
    let Ok(mut server) = TcpStream::connect(shared.target) else {
        return;
    };
    if !head(&mut agent, &mut server) {
        return;
    }
    if !head(&mut server, &mut agent) {
        // A refusal has a body.
        let _ = std::io::copy(&mut server, &mut agent);
        return;
    }
    for socket in [&agent, &server] {
        socket.set_nonblocking(true).unwrap();
    }
    let mut agent = WebSocket::from_raw_socket(agent, Role::Server, None);
    let mut server = WebSocket::from_raw_socket(server, Role::Client, None);
    loop {
        if shared.cut.swap(false, Ordering::SeqCst) {
            return;
        }
        let made_up = std::mem::take(&mut *shared.made_up.lock().unwrap());
        for (to, message) in made_up {
            let text = Frame::text(message.encode().unwrap());
            let side = if to == To::Agent {
                &mut agent
            } else {
                &mut server
            };
            if !write(side, text) {
                return;
            }
        }
        let going = pass(shared, To::Poseidon, &mut agent, &mut server)
            && pass(shared, To::Agent, &mut server, &mut agent);
        if !going {
            return;
        }
        thread::sleep(TICK);
    }
}

fn write(to: &mut WebSocket<TcpStream>, frame: Frame) -> bool {
    let mut outcome = to.send(frame);
    for _ in 0..5_000 {
        match outcome {
            Ok(()) => return true,
            Err(Error::Io(e)) if e.kind() == ErrorKind::WouldBlock => {
                thread::sleep(TICK);
                outcome = to.flush();
            }
            Err(_) => return false,
        }
    }
    false
}

/// What has come from one side, to the other.
fn pass(
    shared: &Shared,
    to: To,
    from: &mut WebSocket<TcpStream>,
    other: &mut WebSocket<TcpStream>,
) -> bool {
    loop {
        match from.read() {
            Ok(Frame::Text(text)) => {
                shared.seen.lock().unwrap().push((to, text.to_string()));
                let message = Message::decode(text.as_bytes(), 4 << 20).unwrap();
                let out = (shared.rule.lock().unwrap())(to, message);
                for message in out {
                    if !write(other, Frame::text(message.encode().unwrap())) {
                        return false;
                    }
                }
            }
            Ok(frame @ (Frame::Ping(_) | Frame::Pong(_))) => {
                if !write(other, frame) {
                    return false;
                }
            }
            Ok(_) => {}
            Err(Error::Io(e)) if e.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
}
