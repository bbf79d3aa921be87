//! Where a call comes from: the address behind proxies, and the page that a browser makes it for.

use axum::http::{HeaderMap, HeaderName, header};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Hops of `X-Forwarded-For` that are looked at.
const MAX_HOPS: usize = 16;
const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// An address, or a network of them, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text} is no address and no network: 192.0.2.1, 10.0.0.0/8 or fd00::/8 is expected"
            )
        };
        let (base, bits) = text
            .split_once('/')
            .map_or((text, None), |(base, bits)| (base, Some(bits)));
        let base: IpAddr = base.parse().map_err(|_| wrong())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| wrong())?,
            None => most,
        };
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { base, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl Network {
    /// Whether an address is in it.
    pub fn has(&self, ip: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.base, ip.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                base.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                base.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// What the way of a call says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The address of who calls, as far as proxies that are trusted tell.
    pub peer: SocketAddr,
    /// It came by TLS as far as the proxy.
    pub tls: bool,
}

/// Who calls: what a trusted proxy saw. Words of others count for nothing.
pub fn way(headers: &HeaderMap, peer: SocketAddr, tls: bool, trusted: &[Network]) -> Way {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.has(ip));
    if !is_trusted(peer.ip()) {
        return Way { peer, tls };
    }
    let tls = tls
        || headers
            .get(FORWARDED_PROTO)
            .is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
    let mut ip = peer.ip();
    // From the end on, for what is before it are the client's own words.
    let lines: Vec<&str> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .map(|line| line.to_str().unwrap_or(""))
        .collect();
    let hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
    for hop in hops.take(MAX_HOPS) {
        let Ok(hop) = hop.trim().parse::<IpAddr>() else {
            break;
        };
        ip = hop;
        if !is_trusted(ip) {
            break;
        }
    }
    Way {
        peer: SocketAddr::new(ip, peer.port()),
        tls,
    }
}

/// Whether a call that a cookie vouches for was made by Poseidon's own page, as far as the browser tells. `acts` where it
/// changes something.
pub fn is_own(headers: &HeaderMap, acts: bool) -> Result<(), &'static str> {
    if let Some(site) = headers.get(&FETCH_SITE) {
        // `none` is a person who typed the address.
        let fits = site == "same-origin" || (site == "none" && !acts);
        if !fits {
            return Err("the browser makes this call for another site");
        }
    }
    match headers.get(header::ORIGIN) {
        None => Ok(()),
        Some(origin) => {
            let origin = origin.to_str().unwrap_or("");
            let host = headers
                .get(header::HOST)
                .and_then(|host| host.to_str().ok())
                .unwrap_or("");
            let of = origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"));
            if of.is_some_and(|of| !host.is_empty() && of.eq_ignore_ascii_case(host)) {
                Ok(())
            } else {
                Err(
                    "the page that makes this call is of another origin than the host that it calls; a proxy in front must pass Host on",
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let trusted = [
            "127.0.0.0/8".parse().unwrap(),
            "10.1.0.0/16".parse().unwrap(),
        ];
        let from = |peer: &str, lines: &[(&str, &str)]| {
            let peer: SocketAddr = peer.parse().unwrap();
            let way = way(&headers(lines), peer, false, &trusted);
            (way.peer.ip().to_string(), way.tls)
        };
        let of = |ip: &str, tls| (ip.to_owned(), tls);
        let spoofed = [
            ("x-forwarded-for", "192.0.2.9"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(from("198.51.100.1:5", &spoofed), of("198.51.100.1", false));
        assert_eq!(from("127.0.0.1:5", &spoofed), of("192.0.2.9", true));
        // What a client says of itself comes before what the proxies add.
        for (lines, ip) in [
            (vec!["1.1.1.1, 192.0.2.9"], "192.0.2.9"),
            (vec!["1.1.1.1, 192.0.2.9, 10.1.2.3"], "192.0.2.9"),
            (vec!["1.1.1.1", "192.0.2.9"], "192.0.2.9"),
            (vec!["1.1.1.1, nonsense"], "127.0.0.1"),
            (vec![""], "127.0.0.1"),
            (vec![], "127.0.0.1"),
            (vec!["2001:db8::1"], "2001:db8::1"),
        ] {
            let lines: Vec<_> = lines.into_iter().map(|l| ("x-forwarded-for", l)).collect();
            assert_eq!(from("127.0.0.1:5", &lines), of(ip, false), "{lines:?}");
        }
    }

    #[test]
    fn networks_have_their_addresses() {
        for (network, inside, outside) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("10.0.0.0/8", "::ffff:10.255.0.1", "11.0.0.0"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("::/0", "::1", "127.0.0.1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.has(inside.parse().unwrap()), "{network} {inside}");
            assert!(
                !network.has(outside.parse().unwrap()),
                "{network} {outside}"
            );
        }
        for wrong in [
            "",
            "proxy",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/-1",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn calls_of_other_pages_are_told() {
        let own = |acts, lines: &[(&str, &str)]| is_own(&headers(lines), acts).is_ok();
        let host = ("host", "poseidon.example:8787");
        assert!(own(true, &[host]));
        assert!(own(
            true,
            &[host, ("origin", "http://poseidon.example:8787")]
        ));
        assert!(own(
            true,
            &[host, ("origin", "https://POSEIDON.example:8787")]
        ));
        assert!(own(true, &[host, ("sec-fetch-site", "same-origin")]));
        assert!(own(false, &[host, ("sec-fetch-site", "none")]));
        for origin in [
            "null",
            "http://poseidon.example",
            "http://poseidon.example:8788",
            "http://evil.example",
            "http://poseidon.example:8787.evil.example",
            "",
        ] {
            assert!(!own(true, &[host, ("origin", origin)]), "{origin}");
        }
        assert!(!own(true, &[("origin", "http://")]));
        for site in ["cross-site", "same-site", "none", "nonsense"] {
            assert!(!own(true, &[host, ("sec-fetch-site", site)]), "{site}");
        }
        assert!(!own(false, &[host, ("sec-fetch-site", "same-site")]));
    }
}
