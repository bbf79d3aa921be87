//! Sockets: what `std::net` does not offer.

use std::io;
use std::mem::size_of;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Who is at the other end of a Unix socket, as the kernel noted when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Process id.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// The credentials of the peer of a connected Unix socket.
pub fn peer_credentials(stream: &UnixStream) -> io::Result<Credentials> {
    let mut found = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = length_of::<libc::ucred>();
    // SAFETY: the kernel writes at most `length` bytes into `found`, which is that long and outlives the call.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Credentials {
        pid: found.pid,
        uid: found.uid,
        gid: found.gid,
    })
}

/// Begins to connect and does not wait: the stream is non-blocking; when poll(2) says it is writable,
/// [`TcpStream::take_error`] tells how it went.
pub fn begin_connect(address: &SocketAddr) -> io::Result<TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the result is checked below.
    let fd = unsafe { libc::socket(family, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let result = match address {
        SocketAddr::V4(v4) => {
            // SAFETY: plain numbers; all bits zero is a valid value.
            let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            raw.sin_family = family_number(family);
            raw.sin_port = v4.port().to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            // SAFETY: pointer and length describe `raw`, which outlives the call.
            unsafe {
                libc::connect(
                    fd,
                    (&raw const raw).cast(),
                    length_of::<libc::sockaddr_in>(),
                )
            }
        }
        SocketAddr::V6(v6) => {
            // SAFETY: plain numbers; all bits zero is a valid value.
            let mut raw: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            raw.sin6_family = family_number(family);
            raw.sin6_port = v6.port().to_be();
            raw.sin6_addr.s6_addr = v6.ip().octets();
            raw.sin6_flowinfo = v6.flowinfo();
            raw.sin6_scope_id = v6.scope_id();
            // SAFETY: pointer and length describe `raw`, which outlives the call.
            unsafe {
                libc::connect(
                    fd,
                    (&raw const raw).cast(),
                    length_of::<libc::sockaddr_in6>(),
                )
            }
        }
    };
    if result < 0 {
        let error = io::Error::last_os_error();
        // An interrupted connect goes on in the background like one in progress.
        if !matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) {
            return Err(error);
        }
    }
    Ok(stream)
}

/// Bounds the bytes that the kernel takes but has not sent yet. What waits above it waits in the agent's own
/// queues, where control overtakes output.
pub fn set_unsent_limit(stream: &TcpStream, bytes: u32) -> io::Result<()> {
    set_tcp(stream, libc::TCP_NOTSENT_LOWAT, bytes)
}

/// Ends the connection with an error where sent data stays unacknowledged for so long.
pub fn set_user_timeout(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    let ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    set_tcp(stream, libc::TCP_USER_TIMEOUT, ms)
}

/// Asks the peer's kernel for a sign of life after `idle` of silence, then every `interval`; after `count` without an
/// answer the connection ends with an error.
pub fn set_keepalive(
    stream: &TcpStream,
    idle: Duration,
    interval: Duration,
    count: u32,
) -> io::Result<()> {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    set_tcp(stream, libc::TCP_KEEPIDLE, seconds(idle))?;
    set_tcp(stream, libc::TCP_KEEPINTVL, seconds(interval))?;
    set_tcp(stream, libc::TCP_KEEPCNT, count)?;
    set(stream, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)
}

/// Bytes that were written and that the other side's kernel has not acknowledged.
pub fn unacknowledged(stream: &impl AsRawFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int to the pointer, which is valid for that.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

fn set_tcp(stream: &TcpStream, option: libc::c_int, value: u32) -> io::Result<()> {
    set(stream, libc::IPPROTO_TCP, option, value)
}

fn set(stream: &TcpStream, level: libc::c_int, option: libc::c_int, value: u32) -> io::Result<()> {
    // SAFETY: pointer and length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length_of::<u32>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// For structures of at most 28 bytes.
#[allow(clippy::cast_possible_truncation)]
fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// `AF_INET` is 2 and `AF_INET6` is 10.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn family_number(family: libc::c_int) -> libc::sa_family_t {
    family as libc::sa_family_t
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::{OUT, after, wait_one};
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    #[test]
    fn the_peer_of_a_unix_socket_is_known() {
        let (one, _two) = UnixStream::pair().unwrap();
        let peer = peer_credentials(&one).unwrap();
        assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
    }

    #[test]
    fn it_connects_without_waiting_over_both_families() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                // A container without IPv6.
                continue;
            };
            let address = listener.local_addr().unwrap();
            let stream = begin_connect(&address).unwrap();
            wait_one(stream.as_fd(), OUT, after(Duration::from_secs(5))).unwrap();
            assert!(stream.take_error().unwrap().is_none());
            assert_eq!(stream.peer_addr().unwrap(), address);
            set_unsent_limit(&stream, 16 * 1024).unwrap();
            set_user_timeout(&stream, Duration::from_secs(30)).unwrap();
            set_keepalive(&stream, Duration::from_mins(1), Duration::from_secs(10), 6).unwrap();
        }
    }
}
