//! The walk to a connection: every address of every URL in turn, phase by phase.

use super::head;
use super::proxy::Proxy;
use super::stream::{Patience, Socket, Stream, is_rung};
use super::upgrade::{self, explain_head};
use super::{ConnectError, Connection, Kind, Options, Phase, Resolver, Role, Target, spoken, tls};
use crate::sys::poll::after;
use crate::sys::wake::Wake;
use std::fmt;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Other failures that the final message repeats at most.
const REPEATED: usize = 6;

/// A step of the walk, for `triton doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The phase.
    pub phase: Phase,
    /// Where in the phase.
    pub outcome: Outcome,
    /// What is done, was found, or went wrong. One line; no secrets.
    pub text: String,
}

/// How far a [`Step`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It begins.
    Begun,
    /// It has succeeded.
    Done,
    /// It has failed; another address or URL may follow.
    Failed,
}

/// Connects to the first address of the first URL that works. What comes back is non-blocking; `hello` is up to
/// the session.
///
/// `stop` ends it within milliseconds when it is rung, with [`Kind::Stopped`]; it must not be cleared after.
/// Where all fails, the error tells about the try that came furthest, and its message about the others too.
pub fn connect(
    options: &Options,
    resolver: &mut Resolver,
    stop: &Arc<Wake>,
    observer: &mut dyn FnMut(Step),
) -> Result<Connection, ConnectError> {
    let mut walk = Walk {
        options,
        resolver: Some(resolver),
        stop,
        observer,
        failures: Vec::new(),
    };
    // It goes into a header line. Where it comes from has checked it; nobody may smuggle in a line end.
    let identifier = options.identifier.reveal();
    if identifier.is_empty() || !identifier.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ConnectError::new(
            Phase::Http,
            "the identifier is empty or holds blanks or characters outside ASCII",
        ));
    }
    for target in &options.urls {
        match walk.target(target) {
            Ok(connection) => return Ok(connection),
            Err(error) if error.kind == Kind::Stopped => return Err(error),
            Err(error) => walk.failures.push(error),
        }
    }
    Err(verdict(walk.failures))
}

/// The way that a connection took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub target: Target,
    /// The proxy on it.
    pub proxy: Option<Proxy>,
    /// Of the proxy, or else of the target's host.
    pub address: SocketAddr,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.proxy {
            Some(proxy) => write!(f, "{} through {proxy}", self.target),
            None => write!(f, "{} at {}", self.target, self.address),
        }
    }
}

/// Takes a known way again, only as far as to the server's own bytes: the phases tcp and proxy. For who carries somebody
/// else's connection. `stop` and errors as with [`connect`].
pub fn reach(options: &Options, route: &Route, stop: &Arc<Wake>) -> Result<Socket, ConnectError> {
    let mut walk = Walk {
        options,
        resolver: None,
        stop,
        observer: &mut |_| {},
        failures: Vec::new(),
    };
    walk.open(&route.target, route.proxy.as_ref(), &route.address)
}

/// The failure that came furthest, with the others in its message.
fn verdict(mut failures: Vec<ConnectError>) -> ConnectError {
    // The first among equals: `max_by_key` would take the last.
    let best = (0..failures.len())
        .rev()
        .max_by_key(|at| failures[*at].phase);
    let Some(best) = best else {
        return ConnectError::new(Phase::Dns, "no URL is configured");
    };
    let mut best = failures.remove(best);
    let mut others: Vec<String> = Vec::new();
    for other in &failures {
        let text = other.to_string();
        if !others.contains(&text) {
            others.push(text);
        }
    }
    let more = others.len().saturating_sub(REPEATED);
    others.truncate(REPEATED);
    if !others.is_empty() {
        best.message = format!("{}; also tried: {}", best.message, others.join("; "));
    }
    if more > 0 {
        best.message = format!("{}; and {more} more", best.message);
    }
    best
}

struct Walk<'a> {
    options: &'a Options,
    /// None where no name is looked up.
    resolver: Option<&'a mut Resolver>,
    stop: &'a Arc<Wake>,
    observer: &'a mut dyn FnMut(Step),
    /// Of the addresses and URLs before this one.
    failures: Vec<ConnectError>,
}

/// How a try at one address failed.
struct Failure {
    error: ConnectError,
    /// The server itself has answered: its other addresses would say the same.
    answered: bool,
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self {
            error,
            answered: false,
        }
    }
}

impl Walk<'_> {
    /// Tries the addresses of one URL. The error is the last one; those before are in `failures`.
    fn target(&mut self, target: &Target) -> Result<Connection, ConnectError> {
        let proxy = self
            .options
            .proxy
            .for_target(target, &|name| std::env::var(name).ok())
            .map_err(|error| ConnectError::new(Phase::Proxy, error.to_string()));
        let proxy = self.note(proxy)?;
        let (host, port) = match &proxy {
            Some(proxy) => (proxy.host(), proxy.port()),
            None => (target.host(), target.port()),
        };
        let addresses = self.resolve(host)?;
        let mut last = None;
        for ip in addresses {
            let address = SocketAddr::new(ip, port);
            match self.address(target, proxy.as_ref(), &address) {
                Ok(connection) => return Ok(connection),
                Err(failure) => {
                    if failure.error.kind == Kind::Stopped || failure.answered {
                        self.failures.extend(last);
                        return Err(failure.error);
                    }
                    self.failures.extend(last.replace(failure.error));
                }
            }
        }
        // The resolver gives at least one address.
        Err(last.unwrap_or_else(|| ConnectError::new(Phase::Dns, format!("{host} has no address"))))
    }

    fn resolve(&mut self, host: &str) -> Result<Vec<IpAddr>, ConnectError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let patience = self.begin(Phase::Dns, || format!("looking up {host}"));
        let result = match &mut self.resolver {
            Some(resolver) => resolver.resolve(host, &patience),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        let result = result.map_err(|error| {
            self.explain(
                Phase::Dns,
                &patience,
                &error,
                &format!("the name servers about {host}"),
                || {
                    format!(
                        "cannot look up {host}: {error}. Are the name and the name servers right?"
                    )
                },
            )
        });
        let addresses = self.note(result)?;
        self.done(Phase::Dns, || {
            let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("{host} is {}", list.join(", "))
        });
        Ok(addresses)
    }

    /// All phases with one address, which is the proxy's where there is one.
    fn address(
        &mut self,
        target: &Target,
        proxy: Option<&Proxy>,
        address: &SocketAddr,
    ) -> Result<Connection, Failure> {
        let socket = self.open(target, proxy, address)?;
        let place = match proxy {
            Some(proxy) => format!("{} through the proxy {proxy}", target.authority()),
            None if target.host().parse::<IpAddr>().is_ok() => target.authority(),
            None => format!("{} ({})", target.authority(), address.ip()),
        };
        let mut stream: Box<dyn Stream> = if target.tls() {
            self.tls(socket, target, &place)?
        } else {
            Box::new(socket)
        };
        let (tail, challenge) = self.http(&mut *stream, target, &place)?;
        stream.set_patience(None);
        let limit = self.options.message_limit;
        let mut connection = Connection::from_partially_read(stream, tail, Role::Client, limit);
        connection.set_route(
            Route {
                target: target.clone(),
                proxy: proxy.cloned(),
                address: *address,
            },
            challenge,
        );
        Ok(connection)
    }

    /// The phases before the server's own bytes.
    fn open(
        &mut self,
        target: &Target,
        proxy: Option<&Proxy>,
        address: &SocketAddr,
    ) -> Result<Socket, ConnectError> {
        let socket = self.tcp(address, proxy)?;
        match proxy {
            Some(proxy) => self.tunnel(socket, target, proxy),
            None => Ok(socket),
        }
    }

    fn tcp(&mut self, address: &SocketAddr, proxy: Option<&Proxy>) -> Result<Socket, ConnectError> {
        let place = match proxy {
            Some(_) => format!("{address} (the proxy)"),
            None => address.to_string(),
        };
        let patience = self.begin(Phase::Tcp, || format!("connecting to {place}"));
        let result = Socket::connect(address, patience.clone()).map_err(|error| {
            self.explain(Phase::Tcp, &patience, &error, &place, || match error.kind() {
                io::ErrorKind::ConnectionRefused => format!(
                    "{place} refused the connection: does the server run, and is the port right?"
                ),
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                    format!("there is no route to {place}: is the network up?")
                }
                _ => format!("cannot connect to {place}: {error}"),
            })
        });
        let socket = self.note(result)?;
        self.done(Phase::Tcp, || format!("connected to {place}"));
        Ok(socket)
    }

    /// Asks the proxy to connect to the target. Not one byte behind its answer is taken.
    fn tunnel(
        &mut self,
        mut socket: Socket,
        target: &Target,
        proxy: &Proxy,
    ) -> Result<Socket, ConnectError> {
        let wanted = target.authority();
        let patience = self.begin(Phase::Proxy, || format!("asking {proxy} for {wanted}"));
        socket.set_patience(Some(patience.clone()));
        let authorization = match proxy.authorization() {
            Some(value) => format!("Proxy-Authorization: {}\r\n", value.reveal()),
            None => String::new(),
        };
        let request = format!(
            "CONNECT {wanted} HTTP/1.1\r\nHost: {wanted}\r\nUser-Agent: {}\r\n{authorization}\r\n",
            self.options.user_agent
        );
        let result = socket
            .write_all(request.as_bytes())
            .map_err(head::HeadError::Io)
            .and_then(|()| head::read(&mut socket, 1));
        let result = match result {
            Ok((head, _)) if (200..300).contains(&head.status) => Ok(()),
            Ok((head, tail)) => {
                let body = upgrade::read_body(&mut socket, &head, tail, &patience);
                let secret = proxy.authorization().map_or("", |value| value.reveal());
                let hint = match head.status {
                    407 if proxy.authorization().is_some() => {
                        ": it does not accept the user name and password in its URL"
                    }
                    407 => ": it wants a user name and password: http://USER:PASSWORD@HOST:PORT",
                    403 | 405 => ": it does not allow this host or port",
                    502 | 504 => ": it does not reach the server",
                    503 => ": it is busy",
                    _ => "",
                };
                let status = head.status_line();
                let said = upgrade::said(&head, &body, secret);
                let text = format!("the proxy {proxy} answered {status} for {wanted}{hint}{said}");
                Err(ConnectError::new(Phase::Proxy, text))
            }
            Err(head::HeadError::Io(error)) => {
                let place = format!("the proxy {proxy}");
                Err(self.explain(Phase::Proxy, &patience, &error, &place, || {
                    format!("the connection to the proxy {proxy} broke: {error}")
                }))
            }
            Err(error) => {
                let text = format!("the proxy {proxy}: {}", explain_head(&error));
                Err(ConnectError::new(Phase::Proxy, text))
            }
        };
        self.note(result)?;
        self.done(Phase::Proxy, || {
            format!("{proxy} has connected to {wanted}")
        });
        Ok(socket)
    }

    fn tls(
        &mut self,
        mut socket: Socket,
        target: &Target,
        place: &str,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        let patience = self.begin(Phase::Tls, || format!("shaking hands with {place}"));
        socket.set_patience(Some(patience.clone()));
        let result = tls::handshake(&self.options.tls, target.host(), socket).map_err(|error| {
            // The libraries pass a time-out on in their own words, or not at all.
            if patience.is_over() || is_rung(self.stop) {
                let timed_out = io::ErrorKind::TimedOut.into();
                self.explain(Phase::Tls, &patience, &timed_out, place, String::new)
            } else {
                ConnectError {
                    message: format!("{place}: {}", error.message),
                    ..error
                }
            }
        });
        let secured = self.note(result)?;
        self.done(Phase::Tls, || secured.describe());
        Ok(secured.stream)
    }

    fn http(
        &mut self,
        stream: &mut dyn Stream,
        target: &Target,
        place: &str,
    ) -> Result<(Vec<u8>, Option<String>), Failure> {
        let patience = self.begin(Phase::Http, || format!("asking {target} for a WebSocket"));
        stream.set_patience(Some(patience.clone()));
        let mut answered = false;
        let result = upgrade::upgrade(stream, target, self.options, &patience).map_err(|failure| {
            match failure {
                upgrade::Failure::Io(error) => {
                    self.explain(Phase::Http, &patience, &error, place, || {
                        format!("{place}: the connection broke before the answer: {error}")
                    })
                }
                upgrade::Failure::Answered(error) => {
                    answered = true;
                    ConnectError {
                        message: format!("{place}: {}", error.message),
                        ..error
                    }
                }
            }
        });
        let answer = self
            .note(result)
            .map_err(|error| Failure { error, answered })?;
        self.done(Phase::Http, || "101, a WebSocket".to_owned());
        Ok(answer)
    }

    /// A phase begins: its patience.
    fn begin(&mut self, phase: Phase, text: impl FnOnce() -> String) -> Patience {
        (self.observer)(Step {
            phase,
            outcome: Outcome::Begun,
            text: text(),
        });
        Patience {
            deadline: after(self.options.deadlines.of(phase)),
            stop: Arc::clone(self.stop),
        }
    }

    fn done(&mut self, phase: Phase, text: impl FnOnce() -> String) {
        (self.observer)(Step {
            phase,
            outcome: Outcome::Done,
            text: text(),
        });
    }

    /// Tells the observer of a failure.
    fn note<T>(&mut self, result: Result<T, ConnectError>) -> Result<T, ConnectError> {
        if let Err(error) = &result {
            (self.observer)(Step {
                phase: error.phase,
                outcome: Outcome::Failed,
                text: error.message.clone(),
            });
        }
        result
    }

    /// An I/O error as a stop, as the time-out of its phase, or as `other` says.
    fn explain(
        &self,
        phase: Phase,
        patience: &Patience,
        error: &io::Error,
        place: &str,
        other: impl FnOnce() -> String,
    ) -> ConnectError {
        if is_rung(self.stop) {
            return ConnectError {
                phase,
                kind: Kind::Stopped,
                message: "stopped".into(),
            };
        }
        // The kernel has a time-out of its own, which says so too.
        let message = if error.kind() == io::ErrorKind::TimedOut && patience.is_over() {
            let limit = spoken(self.options.deadlines.of(phase));
            format!("no answer from {place} within {limit}")
        } else {
            other()
        };
        ConnectError::new(phase, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_the_first_of_those_that_came_furthest() {
        let http = |kind, text: &str| ConnectError {
            kind,
            ..ConnectError::new(Phase::Http, text)
        };
        let mut failures = vec![
            ConnectError::new(Phase::Tcp, "refused"),
            http(Kind::Unregistered, "403"),
            http(Kind::Other, "500"),
            ConnectError::new(Phase::Tcp, "refused"),
        ];
        let error = verdict(failures.clone());
        assert_eq!(error.kind, Kind::Unregistered);
        assert_eq!(
            error.to_string(),
            "http: 403; also tried: tcp: refused; http: 500"
        );
        for n in 0..20 {
            failures.push(ConnectError::new(Phase::Dns, n.to_string()));
        }
        assert!(verdict(failures).message.ends_with("; and 16 more"));
        assert_eq!(verdict(vec![]).phase, Phase::Dns);
    }
}
