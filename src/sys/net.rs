//! Addresses of the network interfaces.

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Name and address of every interface that has one. Link-local IPv6 addresses are left out: each interface has
/// one, and it reaches nobody from afar.
pub fn addresses() -> Vec<(String, IpAddr)> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the pointer is to a live pointer, which is looked at only where the call succeeds.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut next = first;
    while !next.is_null() {
        // SAFETY: the list's elements live until freeifaddrs.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        if let Some(address) = address(entry.ifa_addr) {
            // SAFETY: the name is a string with NUL that lives as long as the list.
            let name = unsafe { CStr::from_ptr(entry.ifa_name) };
            found.push((name.to_string_lossy().into_owned(), address));
        }
    }
    // SAFETY: the list came from getifaddrs and is not used any more.
    unsafe { libc::freeifaddrs(first) };
    found
}

fn address(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: not null; every socket address begins with its family.
    let family = unsafe { (*address).sa_family };
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is one of these, which may lie unaligned.
            let v4: libc::sockaddr_in =
                unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6: libc::sockaddr_in6 =
                unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            let v6 = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            (!v6.is_unicast_link_local()).then_some(v6.into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_loopback_is_there() {
        let loopback = "127.0.0.1".parse::<std::net::IpAddr>().unwrap();
        let found = super::addresses();
        assert!(found.contains(&("lo".to_owned(), loopback)), "{found:?}");
    }
}
