//! The daemon's side of the socket: one thread for all clients.

use super::{Line, Lines};
use crate::dispatch::Dispatcher;
use crate::error::{Error, Result};
use crate::job::Pool;
use crate::message::payload::{self, ErrorCode};
use crate::message::{DecodeError, Message};
use crate::outbox::{Limits, Outbox};
use crate::plugin::{Origin, Peer};
use crate::service::watchdog::{Part, Pulse};
use crate::sys::poll::{GONE, IN, OUT, PollSet};
use crate::sys::socket::peer_credentials;
use crate::sys::user;
use crate::sys::wake::Wake;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes read at once from a client.
const PIECE: usize = 8 * 1024;
/// How long a stopping agent waits for clients to take their last answers.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long no client is accepted after descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What the server needs to know.
#[derive(Clone)]
pub struct Settings {
    /// Where it listens.
    pub path: PathBuf,
    /// The group that may use it, besides root and the agent's own user.
    pub group: Option<String>,
    /// Clients at once.
    pub clients: usize,
    /// Bytes of one message.
    pub message_limit: usize,
    /// Bounds of each client's queues.
    pub queues: Limits,
}

/// The listening socket. Dropped, it removes its file if that is still its own.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
    gid: Option<u32>,
}

impl Socket {
    /// Listens at `settings.path`: 0600, or 0660 for the configured group. A socket that a dead agent left behind
    /// is replaced; one that answers is not.
    pub fn bind(settings: &Settings) -> Result<Self> {
        let path = &settings.path;
        let gid = Self::group(settings.group.as_deref())?;
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)
                .map_err(|e| Error::at("create the socket's folder", folder, e))?;
        }
        let listening = |e| Error::at("listen on", path, e);
        // Bound under another name and renamed when its mode is right: nobody connects in between.
        let temporary = path.with_extension(format!("{}", std::process::id()));
        match fs::symlink_metadata(path) {
            Ok(found) => {
                use std::os::unix::fs::FileTypeExt as _;
                if !found.file_type().is_socket() {
                    return Err(Error::new(format!(
                        "{} exists and is no socket; remove it, or name another path with --socket",
                        path.display()
                    )));
                }
                if UnixStream::connect(path).is_ok() {
                    return Err(Error::new(format!(
                        "another triton listens on {}; stop it, or name another path with --socket",
                        path.display()
                    )));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(listening(e)),
        }
        let _ = fs::remove_file(&temporary);
        let listener = UnixListener::bind(&temporary).map_err(listening)?;
        let prepare = || {
            if let Some(gid) = gid {
                std::os::unix::fs::chown(&temporary, None, Some(gid))?;
            }
            let mode = if gid.is_some() { 0o660 } else { 0o600 };
            fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
            listener.set_nonblocking(true)?;
            fs::rename(&temporary, path)?;
            fs::symlink_metadata(path).map(|m| m.ino())
        };
        match prepare() {
            Ok(inode) => Ok(Self {
                path: path.clone(),
                listener,
                inode,
                gid,
            }),
            Err(e) => {
                let _ = fs::remove_file(&temporary);
                Err(listening(e))
            }
        }
    }

    /// The number of the group that may use it.
    pub fn group(name: Option<&str>) -> Result<Option<u32>> {
        let Some(name) = name else { return Ok(None) };
        let found = user::lookup(None, Some(name))
            .map_err(|e| Error::because("the setting socket_group cannot be used", e))?;
        Ok(found.map(|identity| identity.gid))
    }

    fn may_use(&self, stream: &UnixStream) -> io::Result<bool> {
        let peer = peer_credentials(stream)?;
        if peer.uid == 0 || peer.uid == user::effective_uid() {
            return Ok(true);
        }
        let Some(gid) = self.gid else {
            return Ok(false);
        };
        let member = || user::lookup(Some(&peer.uid.to_string()), None);
        Ok(peer.gid == gid || member().is_ok_and(|i| i.is_some_and(|i| i.groups.contains(&gid))))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Ends the server from another thread.
pub struct Handle {
    stopping: AtomicBool,
    wake: Wake,
    /// Whether there is a server to ask.
    serving: AtomicBool,
    pulse: Pulse,
}

impl Handle {
    /// A handle for one server.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            stopping: AtomicBool::new(false),
            wake: Wake::new()?,
            serving: AtomicBool::new(false),
            pulse: Pulse::default(),
        })
    }

    /// Lets the server send what waits, briefly, and end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake.ring();
    }
}

impl Part for Handle {
    fn ask(&self) {
        self.pulse.ask();
        self.wake.ring();
    }

    fn silent(&self, now: Instant) -> Option<String> {
        let serving = self.serving.load(Ordering::Acquire);
        self.pulse.silent(now, "local").filter(|_| serving)
    }
}

/// Serves clients until stopped; the body of the thread `local`.
pub fn serve(
    socket: &Socket,
    settings: &Settings,
    dispatcher: &Dispatcher,
    pool: &Pool,
    handle: &Handle,
) {
    handle.serving.store(true, Ordering::Release);
    let mut clients: Vec<Client> = Vec::new();
    let mut accept_after: Option<Instant> = None;
    // Whether who comes next may have waited for a place.
    let mut crowded = false;
    let mut farewell: Option<Instant> = None;
    loop {
        handle.pulse.beat();
        if handle.stopping.load(Ordering::Acquire) {
            let end = *farewell.get_or_insert_with(|| Instant::now() + FAREWELL);
            if Instant::now() >= end || clients.iter().all(|c| !c.has_output()) {
                break;
            }
        }
        let mut set = PollSet::new();
        set.add(handle.wake.as_fd(), IN);
        if accept_after.is_some_and(|t| Instant::now() >= t) {
            accept_after = None;
        }
        let full = clients.len() >= settings.clients;
        let accepting = !full && accept_after.is_none();
        let listener = accepting.then(|| set.add(socket.listener.as_fd(), IN));
        let places: Vec<usize> = clients
            .iter()
            .map(|client| {
                set.add(client.outbox.wake().as_fd(), IN);
                set.add(client.stream.as_fd(), client.interest())
            })
            .collect();
        let deadline = farewell.into_iter().chain(accept_after).min();
        if let Err(e) = set.wait(deadline) {
            log::error!("the local socket fails: {e}; local commands do not work any more");
            break;
        }
        let ready: Vec<i16> = places.iter().map(|&place| set.ready(place)).collect();
        let somebody_waits = listener.is_some_and(|place| set.ready(place) != 0);
        handle.wake.clear();
        let mut at = 0;
        clients.retain_mut(|client| {
            let events = ready[at];
            at += 1;
            let stays = client.turn(events, settings.message_limit, dispatcher, &handle.pulse);
            if !stays {
                client.leave(pool);
            }
            stays
        });
        if full {
            crowded = true;
        } else if accepting && !somebody_waits {
            crowded = false;
        }
        if somebody_waits {
            match accept(socket, settings) {
                // Who has given up while it waited for a place would not know that its request was carried out after all.
                Ok(Some(client)) if crowded && is_gone(&client.stream) => {}
                Ok(Some(client)) => clients.push(client),
                Ok(None) => {}
                Err(e) => {
                    log::warn!("cannot accept a local client: {e}; trying again in a second");
                    accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                }
            }
        }
    }
    // Nobody is asked for a sign of life who is not there.
    handle.serving.store(false, Ordering::Release);
    for client in &clients {
        client.leave(pool);
    }
}

fn accept(socket: &Socket, settings: &Settings) -> io::Result<Option<Client>> {
    let stream = match socket.listener.accept() {
        Ok((stream, _)) => stream,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(e) => return Err(e),
    };
    if !socket.may_use(&stream)? {
        log::warn!("a local client without the right to use the socket was refused");
        return Ok(None);
    }
    stream.set_nonblocking(true)?;
    let outbox = Arc::new(Outbox::new(settings.queues)?);
    outbox.set_online(true);
    Ok(Some(Client {
        stream,
        outbox,
        lines: Lines::new(settings.message_limit),
        pending: Vec::new(),
        written: 0,
        input_ended: false,
        open: Vec::new(),
    }))
}

/// Whether the other end has closed, and waits for no answer.
fn is_gone(stream: &UnixStream) -> bool {
    let mut set = PollSet::new();
    let place = set.add(stream.as_fd(), 0);
    set.wait(Some(Instant::now())).is_ok() && set.ready(place) & GONE != 0
}

struct Client {
    stream: UnixStream,
    outbox: Arc<Outbox>,
    lines: Lines,
    /// The line that is being written, and how far.
    pending: Vec<u8>,
    written: usize,
    input_ended: bool,
    /// Conversations with an `accepted` whose end has not been sent.
    open: Vec<String>,
}

impl Client {
    fn has_output(&self) -> bool {
        self.written < self.pending.len() || self.outbox.has_work()
    }

    fn interest(&self) -> i16 {
        let mut events = 0;
        // Who does not read its answers is not asked for more requests.
        if !self.input_ended && !self.outbox.is_congested() {
            events |= IN;
        }
        if self.written < self.pending.len() {
            events |= OUT;
        }
        events
    }

    /// Reads, answers and writes as far as it goes without waiting. False: the client is gone.
    fn turn(&mut self, events: i16, limit: usize, dispatcher: &Dispatcher, pulse: &Pulse) -> bool {
        self.outbox.wake().clear();
        let readable = events & IN != 0 && !self.input_ended;
        if readable && self.read(limit, dispatcher, pulse).is_err() {
            return false;
        }
        if self.write().is_err() || events & GONE != 0 {
            return false;
        }
        !(self.input_ended && self.open.is_empty() && !self.has_output())
    }

    fn read(&mut self, limit: usize, dispatcher: &Dispatcher, pulse: &Pulse) -> io::Result<()> {
        let mut piece = [0; PIECE];
        match self.stream.read(&mut piece) {
            Ok(0) => {
                self.input_ended = true;
                // The last line may lack its end.
                self.lines.push(b"\n");
            }
            Ok(n) => self.lines.push(&piece[..n]),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(e) => return Err(e),
        }
        let peer = Peer {
            outbox: Arc::clone(&self.outbox),
            origin: Origin::Local,
        };
        while let Some(line) = self.lines.next_line() {
            // Each message may wait for the disk.
            pulse.beat();
            let decoded = match line {
                Line::Whole(bytes) => Message::decode(&bytes, limit),
                Line::TooLong => Err(too_long(limit)),
            };
            match decoded {
                Ok(message) => dispatcher.handle(&message, &peer),
                Err(e) => self.outbox.push(e.to_message()),
            }
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        loop {
            if self.written == self.pending.len() {
                self.pending.clear();
                self.written = 0;
                let Some(message) = self.outbox.pop() else {
                    return Ok(());
                };
                self.follow(&message);
                match message.encode() {
                    Ok(line) => self.pending = line.into_bytes(),
                    Err(e) => {
                        log::error!("a {} for a local client cannot be sent: {e}", message.kind);
                        continue;
                    }
                }
                self.pending.push(b'\n');
            }
            match self.stream.write(&self.pending[self.written..]) {
                Ok(n) => self.written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Notes which jobs have not ended, so that a client that only closed its sending side gets their ends.
    fn follow(&mut self, message: &Message) {
        match message.kind.as_str() {
            payload::ACCEPTED if !self.open.contains(&message.conversation_id) => {
                self.open.push(message.conversation_id.clone());
            }
            payload::RESULT | payload::ERROR => {
                self.open.retain(|open| *open != message.conversation_id);
            }
            _ => {}
        }
    }

    /// The client is gone: nobody waits for its jobs.
    fn leave(&self, pool: &Pool) {
        self.outbox.close();
        pool.cancel_of(&self.outbox);
    }
}

fn too_long(limit: usize) -> DecodeError {
    DecodeError {
        code: ErrorCode::TooLarge,
        reason: format!("the line is longer than the limit of {limit} bytes"),
        conversation_id: None,
    }
}
