//! Bytes both ways between a node and Poseidon, until one of them has ended.

use crate::link::{Socket, Stream as _};
use crate::sys::poll::{GONE, IN, OUT, PollSet, after};
use crate::sys::socket::{set_keepalive, set_user_timeout};
use crate::sys::wake::Wake;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// Bytes under way in each direction, beside what the kernel holds. While a connection is silent it has none.
const BUFFER: usize = 16 * 1024;
/// Reads and writes of one direction before the other one has its turn.
const TURNS: usize = 8;
/// After one side has ended, and nothing more moves, the other has so long to do the same.
const PARTING: Duration = Duration::from_secs(30);
/// Both sides are asked for a sign of life after this silence: the agent and Poseidon notice a dead connection by
/// themselves, but where both are cut off at once nobody would end this one.
const IDLE: Duration = Duration::from_mins(2);
const PROBE: Duration = Duration::from_secs(20);
const PROBES: u32 = 3;

/// Bytes from the node to Poseidon and back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moved {
    pub up: u64,
    pub down: u64,
}

/// Carries until both sides have ended, one of them fails, or `stop` is rung; says which. `first` goes to `far` before
/// all else. `tell` hears how much it was whenever it waits.
pub fn carry(
    mut near: Socket,
    mut far: Socket,
    first: Vec<u8>,
    stop: &Wake,
    tell: &mut dyn FnMut(Moved),
) -> String {
    for socket in [&near, &far] {
        // The user time-out of the link's sockets is shorter, and would end it at the first probe.
        let alive = set_keepalive(socket.tcp(), IDLE, PROBE, PROBES)
            .and_then(|()| set_user_timeout(socket.tcp(), IDLE + PROBE * PROBES));
        if let Err(e) = alive {
            log::debug!("relay: cannot have a connection asked for life: {e}");
        }
    }
    let answered = near.write_all(b"HTTP/1.1 200 Connected\r\n\r\n");
    near.set_patience(None);
    far.set_patience(None);
    let mut up = Way {
        waiting: first,
        ..Way::default()
    };
    let mut down = Way::default();
    let ended = answered.and_then(|()| both(&mut near, &mut far, &mut up, &mut down, stop, tell));
    match ended {
        Ok(reason) => reason.to_owned(),
        Err(e) => e.to_string(),
    }
}

fn both(
    near: &mut Socket,
    far: &mut Socket,
    up: &mut Way,
    down: &mut Way,
    stop: &Wake,
    tell: &mut dyn FnMut(Moved),
) -> io::Result<&'static str> {
    let (mut parting, mut moved): (Option<Instant>, u64) = (None, 0);
    loop {
        up.turn(near, far)?;
        down.turn(far, near)?;
        tell(Moved {
            up: up.moved,
            down: down.moved,
        });
        if up.ended && down.ended && up.is_empty() && down.is_empty() {
            return Ok("both sides have ended");
        }
        if up.ended || down.ended {
            // Whoever still takes what is under way has time.
            let now = up.moved + down.moved;
            if parting.is_none() || now != moved {
                parting = Some(after(PARTING));
            }
            moved = now;
        }
        let mut set = PollSet::new();
        let stopped = set.add(stop.as_fd(), IN);
        let wanted = [up.reads() | down.writes(), down.reads() | up.writes()];
        // One that has gone is told for ever, also while what it has said before waits here or in the kernel for the other
        // side, so until that has gone on it is not asked.
        let near_place =
            (wanted[0] != 0 || up.is_empty()).then(|| set.add(near.as_fd(), wanted[0]));
        let far_place =
            (wanted[1] != 0 || down.is_empty()).then(|| set.add(far.as_fd(), wanted[1]));
        if !set.wait(parting)? {
            return Ok("one side has ended and the other did not follow");
        }
        if set.ready(stopped) != 0 {
            return Ok("the relay stops");
        }
        // What is wanted of a side that has gone fails by itself.
        for (place, wanted) in [near_place, far_place].into_iter().zip(wanted) {
            if wanted == 0 && place.is_some_and(|place| set.ready(place) & GONE != 0) {
                return Ok("one side has gone");
            }
        }
    }
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Read and not yet written from `at` on.
    waiting: Vec<u8>,
    at: usize,
    /// Nothing more comes.
    ended: bool,
    /// The other side was told.
    closed: bool,
    moved: u64,
}

impl Way {
    fn is_empty(&self) -> bool {
        self.at == self.waiting.len()
    }

    fn reads(&self) -> i16 {
        if self.is_empty() && !self.ended {
            IN
        } else {
            0
        }
    }

    fn writes(&self) -> i16 {
        if self.is_empty() { 0 } else { OUT }
    }

    /// Moves what can be moved without waiting.
    fn turn(&mut self, from: &mut Socket, to: &mut Socket) -> io::Result<()> {
        for _ in 0..TURNS {
            let step = if !self.is_empty() {
                self.write(to)
            } else if !self.ended {
                self.read(from)
            } else {
                break;
            };
            match step {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if self.is_empty() {
                        self.waiting = Vec::new();
                        self.at = 0;
                    }
                    return Ok(());
                }
                other => other?,
            }
        }
        if self.ended && self.is_empty() && !self.closed {
            self.closed = true;
            // It may have gone already; then there is nobody to tell.
            let _ = to.tcp().shutdown(Shutdown::Write);
        }
        Ok(())
    }

    fn read(&mut self, from: &mut Socket) -> io::Result<()> {
        self.waiting.resize(BUFFER, 0);
        // Nothing waits until it is known how much came.
        self.at = BUFFER;
        let n = from.read(&mut self.waiting)?;
        self.waiting.truncate(n);
        self.at = 0;
        self.ended = n == 0;
        Ok(())
    }

    fn write(&mut self, to: &mut Socket) -> io::Result<()> {
        let n = to.write(&self.waiting[self.at..])?;
        if n == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        self.at += n;
        self.moved += n as u64;
        Ok(())
    }
}
