//! The URL of a Poseidon.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Stands in a URL for the identifier, as the first Triton's servers expect it.
pub const PLACEHOLDER: &str = "{identifier}";

/// Longest URL that is accepted.
const URL_LIMIT: usize = 2048;

/// A parsed URL. Its `Display` shows neither the identifier nor a query, which may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl Target {
    /// Whether the connection is encrypted (`wss`, `https`).
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The host: a name, or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, with brackets around an IPv6 address.
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// What belongs in the `Host` header: the port only where it is not the scheme's own.
    pub fn host_header(&self) -> String {
        if self.port == default_port(self.tls) {
            let mut text = self.authority();
            text.truncate(text.rfind(':').unwrap_or(text.len()));
            text
        } else {
            self.authority()
        }
    }

    /// Whether the URL says where the identifier goes. If so it does not go into a header.
    pub fn has_placeholder(&self) -> bool {
        self.path.contains(PLACEHOLDER)
    }

    /// Path and query of the request, with the identifier, percent-encoded, in its place.
    pub fn request_path(&self, identifier: &str) -> String {
        if self.has_placeholder() {
            self.path.replace(PLACEHOLDER, &percent_encode(identifier))
        } else {
            self.path.clone()
        }
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        let (path, query) = match self.path.split_once('?') {
            Some((path, _)) => (path, "?…"),
            None => (self.path.as_str(), ""),
        };
        write!(f, "{scheme}://{}{path}{query}", self.host_header())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// What is wrong with a URL. The text does not repeat the URL, which may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetError(String);

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TargetError {}

fn wrong(text: impl Into<String>) -> TargetError {
    TargetError(text.into())
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(url: &str) -> Result<Self, TargetError> {
        if url.len() > URL_LIMIT {
            return Err(wrong(format!("is longer than {URL_LIMIT} characters")));
        }
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| wrong("is no URL: it must begin with wss:// or ws://"))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "wss" | "https" => true,
            "ws" | "http" => false,
            _ => {
                return Err(wrong(
                    "has an unknown scheme: it must begin with wss:// or ws:// (or https://, http://)",
                ));
            }
        };
        // A fragment never leaves the client.
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (place, path) = rest.split_at(end);
        if place.contains('@') {
            return Err(wrong(
                "holds a user name or password: leave it out; the device proves itself by its identifier",
            ));
        }
        let (host, port) = split_authority(place, default_port(tls))?;
        Ok(Self {
            tls,
            host,
            port,
            path: checked_path(path)?,
        })
    }
}

/// Splits `host`, `host:port`, `[IPv6]` or `[IPv6]:port`, and checks both.
pub(crate) fn split_authority(
    place: &str,
    default_port: u16,
) -> Result<(String, u16), TargetError> {
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest
            .split_once(']')
            .ok_or_else(|| wrong("has a [ without its ]"))?;
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => {}
            _ => return Err(wrong("has no IPv6 address between [ and ]")),
        }
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(wrong("has something other than a :port behind the ]")),
        }
    } else {
        match place.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(wrong("holds an IPv6 address without [ ] around it"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        }
    };
    if host.is_empty() {
        return Err(wrong("has no host"));
    }
    // 253 is the longest name that DNS can carry.
    if host.len() > 253 {
        return Err(wrong("has a host name of more than 253 characters"));
    }
    if !host.is_ascii() {
        return Err(wrong(
            "has letters outside ASCII in its host: write it in its xn-- form",
        ));
    }
    if let Some(bad) = host
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':')))
    {
        return Err(wrong(format!("has a host with the character {bad:?}")));
    }
    let port = match port {
        None | Some("") => default_port,
        Some(text) => match text.parse() {
            Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => port,
            _ => return Err(wrong("has a port that is no number from 1 to 65535")),
        },
    };
    Ok((host.to_ascii_lowercase(), port))
}

/// The path as it goes into the request line: nothing in it can end the line.
fn checked_path(path: &str) -> Result<String, TargetError> {
    let mut clean = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        clean.push('/');
    }
    for c in path.chars() {
        match c {
            '{' | '}' | '!'..='~' => clean.push(c),
            c if c.is_ascii() => {
                return Err(wrong("has a blank or a control character in its path"));
            }
            c => clean.push_str(&percent_encode(c.encode_utf8(&mut [0; 4]))),
        }
    }
    let without = clean.replace(PLACEHOLDER, "");
    if without.contains(['{', '}']) {
        return Err(wrong(
            "has braces in its path that are not {identifier}, the one placeholder there is",
        ));
    }
    Ok(clean)
}

/// Encodes all but RFC 3986's unreserved characters.
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for digit in [byte >> 4, byte & 15] {
                let digit = char::from_digit(u32::from(digit), 16).unwrap_or('0');
                encoded.push(digit.to_ascii_uppercase());
            }
        }
    }
    encoded
}

/// Decodes `%41`; what is no such sequence stays as it is.
pub(super) fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes
            .get(at + 1..at + 3)
            .and_then(|d| std::str::from_utf8(d).ok())
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|d| u8::from_str_radix(d, 16).ok());
        match digits {
            Some(value) if byte == b'%' => {
                decoded.push(value);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(url: &str) -> Target {
        url.parse().unwrap()
    }

    #[test]
    fn it_reads_urls() {
        for (url, shown, host, port, tls) in [
            (
                "wss://a.example",
                "wss://a.example/",
                "a.example",
                443,
                true,
            ),
            (
                "WS://A.example/x",
                "ws://a.example/x",
                "a.example",
                80,
                false,
            ),
            (
                "https://a:8443/t?key=1#f",
                "wss://a:8443/t?…",
                "a",
                8443,
                true,
            ),
            ("http://[::1]:80/", "ws://[::1]/", "::1", 80, false),
            ("ws://[fe80::1]", "ws://[fe80::1]/", "fe80::1", 80, false),
            (
                "wss://192.0.2.1?x",
                "wss://192.0.2.1/?…",
                "192.0.2.1",
                443,
                true,
            ),
        ] {
            let target = target(url);
            assert_eq!(target.to_string(), shown);
            assert_eq!(
                (target.host(), target.port(), target.tls()),
                (host, port, tls)
            );
        }
    }

    #[test]
    fn it_says_what_is_wrong_and_does_not_repeat_secrets() {
        for (url, text) in [
            ("a.example", "wss://"),
            ("ftp://a", "unknown scheme"),
            ("wss://", "no host"),
            ("wss://user:hush@a/", "user name"),
            ("wss://a:0/", "65535"),
            ("wss://a:99999/", "65535"),
            ("wss://a:+1/", "65535"),
            ("wss://::1/", "[ ]"),
            ("wss://[::1/", "without its ]"),
            ("wss://[a]/", "IPv6"),
            ("wss://[::1]x/", "behind the ]"),
            ("wss://bücher.example", "xn--"),
            ("wss://a b/", "' '"),
            ("wss://a/\r\nx: y", "control"),
            ("wss://a/{id}", "placeholder"),
        ] {
            let error = url.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(text), "{url}: {error}");
            assert!(!error.contains("hush"));
        }
    }

    #[test]
    fn the_identifier_goes_where_the_placeholder_is() {
        let target = target("wss://a/triton/{identifier}?x=1");
        assert!(target.has_placeholder());
        assert_eq!(target.request_path("a/b c"), "/triton/a%2Fb%20c?x=1");
        assert_eq!(target.to_string(), "wss://a/triton/{identifier}?…");
    }

    proptest! {
        #[test]
        fn nothing_breaks_the_request_line(url in "wss://\\PC{0,40}", identifier in "\\PC*") {
            if let Ok(target) = url.parse::<Target>() {
                let path = target.request_path(&identifier);
                prop_assert!(path.starts_with('/'));
                prop_assert!(path.bytes().all(|b| (b'!'..=b'~').contains(&b)));
            }
        }

        #[test]
        fn percent_encoding_is_undone(text in "\\PC*") {
            prop_assert_eq!(percent_decode(&percent_encode(&text)), text.into_bytes());
        }
    }
}
