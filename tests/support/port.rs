//! A port that stays the test's own while nobody listens on it.

use std::net::SocketAddr;

/// Holds a port of 127.0.0.1: bound, never listening, so that connecting to it is refused, the server under test can
/// bind it (both say `SO_REUSEADDR`) and no other test gets it meanwhile.
pub struct Port {
    fd: std::os::fd::OwnedFd,
    pub address: SocketAddr,
}

impl Port {
    #[allow(unsafe_code)]
    pub fn hold() -> Self {
        use std::os::fd::FromRawFd as _;
        let on: libc::c_int = 1;
        // SAFETY: plain libc calls on a socket of our own, with pointers to locals of the right size.
        unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0);
            let owned = std::os::fd::OwnedFd::from_raw_fd(fd);
            let set = libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_REUSEADDR,
                (&raw const on).cast(),
                size(&on),
            );
            assert_eq!(set, 0);
            let mut name: libc::sockaddr_in = std::mem::zeroed();
            name.sin_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap();
            name.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
            let mut length = size(&name);
            assert_eq!(libc::bind(fd, (&raw const name).cast(), length), 0);
            let named = libc::getsockname(fd, (&raw mut name).cast(), &raw mut length);
            assert_eq!(named, 0);
            Self {
                fd: owned,
                address: SocketAddr::from(([127, 0, 0, 1], u16::from_be(name.sin_port))),
            }
        }
    }
}

fn size<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(value)).unwrap()
}
