//! A TCP proxy whose faults can be switched while it runs. Threads and std only: one thread accepts, two pump each
//! connection.

use super::port::Port;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How soon a pump notices that the fault has changed.
const TICK: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToAgent,
}

/// What is wrong with the network. It holds for connections that stand as well as for new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Each piece comes so much later.
    Delay(Duration),
    /// So many bytes a second in each direction.
    Slow(u64),
    /// One byte at a time.
    Bytes,
    /// Nothing passes, and nothing is lost: what is sent waits in the buffers, as on a link that is down.
    Stall,
    /// The same for each connection after so many bytes to the server.
    StallAfter(u64),
    /// One direction is thrown away. A connection that has lost bytes never passes any in that direction again, as
    /// behind a router that has forgotten it.
    Swallow(Direction),
    /// New connections are accepted, and that is all that ever happens to them.
    HalfOpen,
    /// New connections are refused.
    Refuse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// RST to both sides: what is under way is lost.
    Reset,
    /// FIN to both sides.
    Close,
}

/// Forwards connections of `url`'s address to a server.
pub struct Proxy {
    shared: Arc<Shared>,
    port: Arc<Port>,
}

struct Shared {
    target: SocketAddr,
    fault: Mutex<Fault>,
    links: Mutex<Vec<Arc<Link>>>,
    accepted: AtomicUsize,
    stop: AtomicBool,
}

/// One connection through the proxy.
#[derive(Default)]
struct Link {
    ended: AtomicBool,
    /// Accepted by a half-open proxy.
    dead: bool,
    to_server: AtomicU64,
    to_agent: AtomicU64,
    swallowed: [AtomicBool; 2],
    /// Directions that have come to their end.
    done: AtomicUsize,
    /// The agent's and the server's, to make the end an RST.
    sockets: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn to(target: SocketAddr) -> Self {
        let port = Arc::new(Port::hold());
        let shared = Arc::new(Shared {
            target,
            fault: Mutex::new(Fault::None),
            links: Mutex::default(),
            accepted: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let proxy = Self { shared, port };
        let (shared, port) = (Arc::clone(&proxy.shared), Arc::clone(&proxy.port));
        // Bound here already, so that the first connection finds it.
        let listener = listen(port.address);
        thread::spawn(move || accept(&shared, &port, listener));
        proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Puts a fault in force in place of the last one.
    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
        // Who asks for a refusal can count on it from here.
        if fault == Fault::Refuse {
            let deadline = Instant::now() + super::PATIENCE;
            while TcpStream::connect(self.address()).is_ok() {
                assert!(Instant::now() < deadline, "the port still listens");
                thread::sleep(TICK);
            }
        }
    }

    /// Ends all connections that stand.
    pub fn cut(&self, how: Cut) {
        for link in std::mem::take(&mut *self.shared.links.lock().unwrap()) {
            link.cut(how);
        }
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections that stand.
    pub fn standing(&self) -> usize {
        let mut links = self.shared.links.lock().unwrap();
        links.retain(|link| !link.over());
        links.len()
    }

    /// Bytes that those have passed to the server and to the agent.
    pub fn passed(&self) -> (u64, u64) {
        let links = self.shared.links.lock().unwrap();
        links.iter().fold((0, 0), |(server, agent), link| {
            (
                server + link.to_server.load(Ordering::SeqCst),
                agent + link.to_agent.load(Ordering::SeqCst),
            )
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.cut(Cut::Reset);
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn accept(shared: &Arc<Shared>, port: &Port, listener: TcpListener) {
    let mut listener = Some(listener);
    while !shared.stop.load(Ordering::SeqCst) {
        let fault = *shared.fault.lock().unwrap();
        if fault == Fault::Refuse {
            listener = None;
            thread::sleep(TICK);
            continue;
        }
        let listener = listener.get_or_insert_with(|| listen(port.address));
        match listener.accept() {
            Ok((stream, _)) => {
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                stream.set_nonblocking(false).unwrap();
                connect(shared, stream, fault == Fault::HalfOpen);
            }
            Err(_) => thread::sleep(TICK),
        }
    }
}

fn connect(shared: &Arc<Shared>, agent: TcpStream, dead: bool) {
    let mut ends = vec![agent];
    if !dead {
        // A server that is down refuses: so does its proxy, as far as it still can.
        let Ok(server) = TcpStream::connect(shared.target) else {
            reset_at_close(&ends[0]);
            return;
        };
        ends.push(server);
    }
    for socket in &ends {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(TICK)).unwrap();
        socket.set_write_timeout(Some(TICK)).unwrap();
    }
    let copy = |n: usize| ends[n].try_clone().unwrap();
    let far = usize::from(!dead);
    let pumps = [
        (copy(0), copy(far), Direction::ToServer),
        (copy(far), copy(0), Direction::ToAgent),
    ];
    let link = Arc::new(Link {
        dead,
        sockets: Mutex::new(ends),
        ..Link::default()
    });
    {
        let mut links = shared.links.lock().unwrap();
        links.retain(|link| !link.over());
        links.push(Arc::clone(&link));
    }
    for (from, to, direction) in pumps {
        let (shared, link) = (Arc::clone(shared), Arc::clone(&link));
        thread::spawn(move || pump(&shared, &link, from, to, direction));
    }
}

impl Link {
    fn over(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn cut(&self, how: Cut) {
        for socket in self.sockets.lock().unwrap().drain(..) {
            match how {
                Cut::Reset => reset_at_close(&socket),
                Cut::Close => drop(socket.shutdown(Shutdown::Both)),
            }
        }
        // The pumps drop their ends within a tick: the last one closes the socket.
        self.ended.store(true, Ordering::SeqCst);
    }

    /// Nothing more comes in one direction; the other may have something to say still.
    fn done(&self, to: &TcpStream, swallowed: bool) {
        if !swallowed {
            let _ = to.shutdown(Shutdown::Write);
        }
        if self.dead || self.done.fetch_add(1, Ordering::SeqCst) == 1 {
            self.sockets.lock().unwrap().clear();
            self.ended.store(true, Ordering::SeqCst);
        }
    }

    /// Whether nothing may pass now.
    fn stalls(&self, fault: Fault) -> bool {
        match fault {
            Fault::Stall => true,
            Fault::StallAfter(bytes) => self.to_server.load(Ordering::SeqCst) >= bytes,
            _ => false,
        }
    }
}

fn pump(
    shared: &Shared,
    link: &Link,
    mut from: TcpStream,
    mut to: TcpStream,
    direction: Direction,
) {
    let passed = match direction {
        Direction::ToServer => &link.to_server,
        Direction::ToAgent => &link.to_agent,
    };
    let swallowed = &link.swallowed[direction as usize];
    let mut buffer = vec![0; 16 << 10];
    while !link.over() {
        let fault = *shared.fault.lock().unwrap();
        if link.stalls(fault) {
            thread::sleep(TICK);
            continue;
        }
        let most = match fault {
            Fault::Bytes => 1,
            // Ten pieces a second.
            Fault::Slow(rate) => usize::try_from(rate / 10).unwrap().clamp(1, buffer.len()),
            _ => buffer.len(),
        };
        let n = match from.read(&mut buffer[..most]) {
            Ok(0) => return link.done(&to, swallowed.load(Ordering::SeqCst)),
            Ok(n) => n,
            Err(e) if waits(&e) => continue,
            Err(_) => return link.cut(Cut::Reset),
        };
        // The fault may have come while the read waited.
        let fault = *shared.fault.lock().unwrap();
        if fault == Fault::Swallow(direction) {
            swallowed.store(true, Ordering::SeqCst);
        }
        if link.dead || swallowed.load(Ordering::SeqCst) {
            continue;
        }
        match fault {
            Fault::Delay(wait) => rest(link, wait),
            Fault::Slow(rate) => {
                rest(
                    link,
                    Duration::from_secs(n as u64) / u32::try_from(rate).unwrap(),
                );
            }
            _ => {}
        }
        let mut rest = &buffer[..n];
        while !rest.is_empty() && !link.over() {
            let fault = *shared.fault.lock().unwrap();
            if link.stalls(fault) {
                thread::sleep(TICK);
                continue;
            }
            let most = match (fault, direction) {
                (Fault::StallAfter(bytes), Direction::ToServer) => {
                    let room = bytes - passed.load(Ordering::SeqCst);
                    usize::try_from(room).unwrap().min(rest.len())
                }
                _ => rest.len(),
            };
            match to.write(&rest[..most]) {
                Ok(n) => {
                    rest = &rest[n..];
                    passed.fetch_add(n as u64, Ordering::SeqCst);
                }
                Err(e) if waits(&e) => {}
                Err(_) => return link.cut(Cut::Reset),
            }
        }
    }
}

fn waits(e: &std::io::Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// Sleeps unless the link ends.
fn rest(link: &Link, wait: Duration) {
    let until = Instant::now() + wait;
    while !link.over() && Instant::now() < until {
        thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
    }
}

/// The last close of this socket sends an RST.
fn reset_at_close(socket: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the descriptor is open and the pointer is to a local of the size that is named.
    #[allow(unsafe_code)]
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            libc::socklen_t::try_from(size_of::<libc::linger>()).unwrap(),
        );
    }
}
