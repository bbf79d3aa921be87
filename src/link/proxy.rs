//! Which HTTP proxy to use, if any.

use super::target::{Target, authority, percent_decode, split_authority};
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::net::IpAddr;
use std::str::FromStr;
use std::{fmt, io};

/// Whether to go through a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// Where to look for one.
    pub source: ProxySource,
    /// Hosts that are reached directly; `None` asks `no_proxy` and `NO_PROXY`, for a configured proxy as well, as
    /// curl does. Nothing else is exempt, not even localhost.
    pub no_proxy: Option<String>,
}

/// Where to look for a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ProxySource {
    /// As curl does: `https_proxy` or `HTTPS_PROXY` for wss, `http_proxy` for ws (not `HTTP_PROXY`, which a
    /// CGI request could set), else `all_proxy` or `ALL_PROXY`. Unlike there, ws goes through `https_proxy` too
    /// where there is no `http_proxy`: it is asked to CONNECT either way.
    #[default]
    Environment,
    /// No proxy, whatever the environment says.
    Direct,
    /// This one, whatever the environment says.
    Via(Proxy),
}

impl From<ProxySource> for ProxySettings {
    fn from(source: ProxySource) -> Self {
        Self {
            source,
            no_proxy: None,
        }
    }
}

/// An HTTP proxy that is asked to CONNECT. Its `Display` does not show the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<Secret>,
}

impl Proxy {
    /// Name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of the `Proxy-Authorization` header, where the URL held credentials.
    pub(super) fn authorization(&self) -> Option<&Secret> {
        self.authorization.as_ref()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", authority(&self.host, self.port))
    }
}

impl FromStr for Proxy {
    type Err = String;

    /// Reads `http://host:port`, `http://user:password@host:port` or `host:port`. Without a port it is 80. The
    /// error does not repeat the URL, which may hold a password.
    fn from_str(url: &str) -> Result<Self, String> {
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => {
                return Err(
                    "has an unknown scheme: only http:// proxies (CONNECT) are known".into(),
                );
            }
            None => url,
        };
        let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (credentials, place) = match place.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, place),
        };
        let (host, port) = split_authority(place, 80).map_err(|error| error.to_string())?;
        let authorization = credentials.map(|credentials| {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            let mut plain = percent_decode(user);
            plain.push(b':');
            plain.extend(percent_decode(password));
            Secret::new(format!("Basic {}", STANDARD.encode(plain)))
        });
        Ok(Self {
            host,
            port,
            authorization,
        })
    }
}

impl ProxySettings {
    /// The proxy for `target`; `environment` looks up a variable.
    pub(super) fn for_target(
        &self,
        target: &Target,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> io::Result<Option<Proxy>> {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                let value = environment(name)?;
                let value = value.trim();
                (!value.is_empty()).then(|| (*name, value.to_owned()))
            })
        };
        let from_environment = || {
            let names: &[&str] = if target.tls() {
                &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
            } else {
                &[
                    "http_proxy",
                    "https_proxy",
                    "HTTPS_PROXY",
                    "all_proxy",
                    "ALL_PROXY",
                ]
            };
            first(names)
        };
        let no_proxy = || first(&["no_proxy", "NO_PROXY"]).map(|(_, list)| list);
        let exempt = self.no_proxy.clone().or_else(no_proxy);
        if exempt.is_some_and(|list| is_exempt(&list, target.host(), target.port())) {
            return Ok(None);
        }
        let (name, url) = match &self.source {
            ProxySource::Direct => return Ok(None),
            ProxySource::Via(proxy) => return Ok(Some(proxy.clone())),
            ProxySource::Environment => match from_environment() {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        match url.parse() {
            Ok(proxy) => Ok(Some(proxy)),
            Err(why) => Err(io::Error::other(format!(
                "the URL in the variable {name} {why}"
            ))),
        }
    }
}

/// Whether `no_proxy` names the host: `*`, the name itself, a domain above it (with or without a leading dot),
/// an address, a network such as `192.0.2.0/24`, each with or without a port.
fn is_exempt(list: &str, host: &str, port: u16) -> bool {
    let host = host.trim_end_matches('.');
    let address = host.parse::<IpAddr>().ok();
    list.split([',', ' ', '\t']).any(|entry| {
        if entry == "*" {
            return true;
        }
        let (entry, only_port) = split_port(entry);
        if only_port.is_some_and(|only| only != port) {
            return false;
        }
        match address {
            Some(address) => covers(entry, address),
            None => names(entry, host),
        }
    })
}

/// Takes a port off: `a:1`, `[::1]:1`. The colons of a bare IPv6 address are none.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some((inner, rest)) = entry
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        return (
            inner,
            rest.strip_prefix(':').and_then(|port| port.parse().ok()),
        );
    }
    match entry.split_once(':') {
        Some((name, port)) => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        None => (entry, None),
    }
}

fn names(entry: &str, host: &str) -> bool {
    let entry = entry.strip_prefix('*').unwrap_or(entry);
    let entry = entry.trim_start_matches('.').trim_end_matches('.');
    let Some(at) = host.len().checked_sub(entry.len()) else {
        return false;
    };
    !entry.is_empty()
        && host.is_char_boundary(at)
        && host[at..].eq_ignore_ascii_case(entry)
        && (at == 0 || host.as_bytes()[at - 1] == b'.')
}

fn covers(entry: &str, address: IpAddr) -> bool {
    let (network, length) = match entry.split_once('/') {
        Some((network, length)) => (network, length.parse::<u32>().ok()),
        None => (entry, Some(128)),
    };
    let (Ok(network), Some(length)) = (network.parse::<IpAddr>(), length) else {
        return false;
    };
    // The top `length` bits must agree; shifting all bits out is "no bit is compared".
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.checked_shr(32 - length.min(32)).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.checked_shr(128 - length.min(128)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_and_passwords_are_not_shown() {
        let proxy: Proxy = "http://us%65r:p%40ss:word@Proxy.example:3128/"
            .parse()
            .unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("proxy.example", 3128));
        let value = proxy.authorization().unwrap().reveal();
        assert_eq!(
            value,
            format!("Basic {}", STANDARD.encode("user:p@ss:word"))
        );
        assert_eq!(proxy.to_string(), "http://proxy.example:3128");
        assert!(!format!("{proxy:?}").contains(value));
        assert_eq!("proxy".parse::<Proxy>().unwrap().port(), 80);
        assert_eq!("[::1]:8080".parse::<Proxy>().unwrap().host(), "::1");
        for url in ["socks5://hush@a", "http://hush@", "http://hush:a@b:x"] {
            assert!(!url.parse::<Proxy>().unwrap_err().contains("hush"));
        }
    }

    fn chosen(url: &str, environment: &[(&str, &str)]) -> Option<String> {
        let lookup = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        ProxySettings::default()
            .for_target(&url.parse().unwrap(), &lookup)
            .unwrap()
            .map(|proxy| proxy.host)
    }

    #[test]
    fn the_environment_is_read_as_curl_reads_it() {
        let all = [
            ("HTTP_PROXY", "cgi"),
            ("https_proxy", "lower"),
            ("HTTPS_PROXY", "upper"),
            ("ALL_PROXY", "all"),
        ];
        assert_eq!(chosen("wss://a", &all).unwrap(), "lower");
        assert_eq!(chosen("wss://a", &all[2..]).unwrap(), "upper");
        assert_eq!(chosen("ws://a", &all).unwrap(), "lower");
        assert_eq!(chosen("ws://a", &all[3..]).unwrap(), "all");
        assert_eq!(chosen("ws://a", &all[..1]), None);
        assert_eq!(
            chosen("ws://a", &[("http_proxy", "plain")]).unwrap(),
            "plain"
        );
        assert_eq!(
            chosen("wss://a", &[("https_proxy", ""), ("HTTPS_PROXY", "u")]).unwrap(),
            "u"
        );
        assert_eq!(chosen("wss://localhost", &all).unwrap(), "lower");
        assert_eq!(
            chosen("wss://a", &[("https_proxy", "p"), ("NO_PROXY", "a")]),
            None
        );
    }

    #[test]
    fn the_configuration_wins_over_the_environment() {
        let environment = |name: &str| match name {
            "https_proxy" => Some("environment".to_owned()),
            "no_proxy" => Some("a".to_owned()),
            _ => None,
        };
        let chosen = |settings: &ProxySettings, url: &str| {
            let proxy = settings.for_target(&url.parse().unwrap(), &environment);
            proxy.unwrap().map(|proxy| proxy.host)
        };
        let mut settings = ProxySettings::from(ProxySource::Via("own".parse().unwrap()));
        assert_eq!(chosen(&settings, "wss://b").unwrap(), "own");
        assert_eq!(chosen(&settings, "wss://a"), None);
        settings.no_proxy = Some("b".to_owned());
        assert_eq!(chosen(&settings, "wss://b"), None);
        assert_eq!(chosen(&settings, "wss://a").unwrap(), "own");
        settings.no_proxy = Some(String::new());
        settings.source = ProxySource::Environment;
        assert_eq!(chosen(&settings, "wss://a").unwrap(), "environment");
        settings.source = ProxySource::Direct;
        assert_eq!(chosen(&settings, "wss://b"), None);
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let lookup = |name: &str| (name == "ALL_PROXY").then(|| "socks5://hush@a".to_owned());
        let error = ProxySettings::default()
            .for_target(&"wss://a".parse().unwrap(), &lookup)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("ALL_PROXY") && !error.contains("hush"),
            "{error}"
        );
    }

    #[test]
    fn exempt_hosts() {
        for (list, host, port, exempt) in [
            ("*", "a", 443, true),
            ("a.example", "a.example", 443, true),
            ("example", "a.EXAMPLE", 443, true),
            (".example", "a.example", 443, true),
            ("*.example", "a.example", 443, true),
            ("example", "anexample", 443, false),
            ("b, example", "a.example", 443, true),
            ("a.example:80", "a.example", 443, false),
            ("a.example:443", "a.example", 443, true),
            ("192.0.2.1", "192.0.2.1", 443, true),
            ("192.0.2.0/24", "192.0.2.200", 443, true),
            ("192.0.2.0/24", "192.0.3.1", 443, false),
            ("0.0.0.0/0", "203.0.113.1", 443, true),
            ("2001:db8::/32", "2001:db8::5", 443, true),
            ("[::1]", "::1", 443, true),
            ("[::1]:80", "::1", 443, false),
            ("::1", "::1", 443, true),
            ("2.1", "192.0.2.1", 443, false),
            ("192.0.2.0/x", "192.0.2.1", 443, false),
            (".", "a", 443, false),
            ("", "a", 443, false),
            ("ü", "xn--abc", 443, false),
        ] {
            assert_eq!(is_exempt(list, host, port), exempt, "{list} {host}");
        }
    }
}
