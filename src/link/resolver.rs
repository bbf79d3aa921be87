//! Host names to addresses, with a deadline.
//!
//! The system's resolver cannot be interrupted, so it runs on a thread of its own: one at most, however many
//! queries time out, and none while nothing is asked. A query that is still under way is joined by the next
//! one for the same host.

use super::stream::Patience;
use crate::sys::poll::IN;
use crate::sys::wake::Wake;
use crate::thread::{Crew, SMALL_STACK};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// getaddrinfo of glibc keeps answers of up to 64 KiB on its stack, and loads libraries.
const STACK: usize = 2 * SMALL_STACK;

/// Addresses of one host that are tried at most.
pub const ADDRESS_LIMIT: usize = 8;

/// An answer that came after its deadline serves the next attempt if it is not older than this: else a
/// resolver that needs longer than the deadline would never be of use.
const LATE_ANSWER: Duration = Duration::from_mins(1);

type Answer = Result<Vec<IpAddr>, String>;
type Lookup = dyn Fn(&str) -> Answer + Send + Sync;

/// Resolves host names.
pub struct Resolver {
    crew: Crew,
    shared: Arc<Shared>,
}

struct Shared {
    lookup: Box<Lookup>,
    state: Mutex<State>,
    /// Rung when `answer` is new.
    answered: Wake,
}

#[derive(Default)]
struct State {
    /// The host that the thread is asking for; `None` where there is no thread.
    busy: Option<String>,
    next: Option<String>,
    answer: Option<(String, Instant, Answer)>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body of the thread: asks until nothing more is wanted.
    fn run(&self, mut host: String) {
        loop {
            let answer = (self.lookup)(&host);
            let mut state = self.state();
            state.answer = Some((host, Instant::now(), answer));
            state.busy = state.next.take();
            let next = state.busy.clone();
            drop(state);
            self.answered.ring();
            match next {
                Some(next) => host = next,
                None => return,
            }
        }
    }
}

impl Resolver {
    /// A resolver that asks the system. `crew` starts its thread when a name must be resolved.
    pub fn new(crew: Crew) -> io::Result<Self> {
        Self::with(crew, system_lookup)
    }

    /// A resolver that asks `lookup`, for tests.
    pub fn with(
        crew: Crew,
        lookup: impl Fn(&str) -> Result<Vec<IpAddr>, String> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Ok(Self {
            crew,
            shared: Arc::new(Shared {
                lookup: Box::new(lookup),
                state: Mutex::default(),
                answered: Wake::new()?,
            }),
        })
    }

    /// The addresses of `host` in the order in which to try them: at least one, at most 8. The
    /// error says what went wrong; `TimedOut` and `ConnectionAborted` (a stop) come from `patience`.
    pub fn resolve(&mut self, host: &str, patience: &Patience) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        self.ask(host)?;
        loop {
            if let Some(answer) = self.take_answer(host) {
                return match answer {
                    Ok(found) if found.is_empty() => Err(io::Error::other("it has no address")),
                    Ok(found) => Ok(in_order(&found)),
                    Err(text) => Err(io::Error::other(text)),
                };
            }
            patience.wait(self.shared.answered.as_fd(), IN)?;
            self.shared.answered.clear();
        }
    }

    /// Takes the answer for `host`. The answer for another host is left: it may serve later.
    fn take_answer(&self, host: &str) -> Option<Answer> {
        let mut state = self.shared.state();
        match &state.answer {
            Some((of, _, _)) if of == host => state.answer.take().map(|(_, _, answer)| answer),
            _ => None,
        }
    }

    fn ask(&self, host: &str) -> io::Result<()> {
        let mut state = self.shared.state();
        if let Some((of, when, answer)) = &state.answer {
            if of == host && answer.is_ok() && when.elapsed() < LATE_ANSWER {
                return Ok(());
            }
            state.answer = None;
        }
        match &state.busy {
            Some(busy) if busy == host => state.next = None,
            Some(_) => state.next = Some(host.to_owned()),
            None => {
                state.busy = Some(host.to_owned());
                drop(state);
                let shared = Arc::clone(&self.shared);
                let host = host.to_owned();
                if let Err(error) = self.crew.spawn("resolver", STACK, move || shared.run(host)) {
                    self.shared.state().busy = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

fn system_lookup(host: &str) -> Answer {
    match (host, 0).to_socket_addrs() {
        Ok(found) => Ok(found.map(|address| address.ip()).collect()),
        Err(error) => {
            let text = error.to_string();
            // std's text begins with "failed to lookup address information: ".
            let text = text
                .rsplit_once("information: ")
                .map_or(text.as_str(), |(_, why)| why);
            Err(text.to_owned())
        }
    }
}

/// Without duplicates, the two families in turn, beginning with the one that the system prefers: so a dead
/// route of one family costs one time-out, and the limit leaves no family out.
fn in_order(found: &[IpAddr]) -> Vec<IpAddr> {
    let Some(first) = found.first() else {
        return Vec::new();
    };
    let mut queues: [VecDeque<IpAddr>; 2] = Default::default();
    for address in found {
        let queue = &mut queues[usize::from(address.is_ipv4() != first.is_ipv4())];
        if !queue.contains(address) && queue.len() < ADDRESS_LIMIT {
            queue.push_back(*address);
        }
    }
    let mut order = Vec::new();
    while order.len() < ADDRESS_LIMIT {
        let before = order.len();
        for queue in &mut queues {
            order.extend(queue.pop_front());
        }
        if order.len() == before {
            break;
        }
    }
    order.truncate(ADDRESS_LIMIT);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn patience(ms: u64) -> Patience {
        Patience {
            deadline: Instant::now() + Duration::from_millis(ms),
            stop: Arc::new(Wake::new().unwrap()),
        }
    }

    fn crew() -> Crew {
        Crew::new(|name| panic!("{name} panicked"))
    }

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn literals_need_no_thread() {
        let mut resolver = Resolver::with(crew(), |_| panic!("asked")).unwrap();
        for literal in ["192.0.2.1", "2001:db8::1"] {
            let found = resolver.resolve(literal, &patience(0)).unwrap();
            assert_eq!(found, [literal.parse::<IpAddr>().unwrap()]);
        }
        assert!(resolver.shared.state().busy.is_none());
    }

    #[test]
    fn the_system_knows_localhost_and_not_nonsense() {
        let mut resolver = Resolver::new(crew()).unwrap();
        let found = resolver.resolve("localhost", &patience(10_000)).unwrap();
        assert!(found.iter().all(IpAddr::is_loopback));
    }

    #[test]
    fn errors_and_empty_answers_are_told() {
        let mut resolver = Resolver::with(crew(), |host| match host {
            "empty" => Ok(vec![]),
            _ => Err("no such name".into()),
        })
        .unwrap();
        for (host, text) in [("a", "no such name"), ("empty", "no address")] {
            let error = resolver.resolve(host, &patience(10_000)).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn time_outs_share_one_thread_and_a_late_answer_serves() {
        let (go, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let (asked, asks) = mpsc::channel();
        let mut resolver = Resolver::with(crew(), move |host| {
            asked.send(host.to_owned()).unwrap();
            gate.lock().unwrap().recv().unwrap();
            Ok(vec![LOCAL])
        })
        .unwrap();
        for host in ["slow", "slow", "other", "slow", "other"] {
            let error = resolver.resolve(host, &patience(1)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        // "slow" is answered, then "other", which waited.
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(
            resolver.resolve("other", &patience(10_000)).unwrap(),
            [LOCAL]
        );
        assert_eq!(asks.try_iter().collect::<Vec<_>>(), ["slow", "other"]);
        go.send(()).unwrap();
        assert_eq!(
            resolver.resolve("slow", &patience(10_000)).unwrap(),
            [LOCAL]
        );
        assert_eq!(asks.try_iter().count(), 1);
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let (_go, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let mut resolver = Resolver::with(crew(), move |_| {
            let _ = gate.lock().unwrap().recv();
            Ok(vec![LOCAL])
        })
        .unwrap();
        let patience = patience(60_000);
        patience.stop.ring();
        let error = resolver.resolve("slow", &patience).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[test]
    fn families_take_turns() {
        let all: Vec<IpAddr> = (1..=10)
            .map(|n| format!("2001:db8::{n}"))
            .chain(["192.0.2.1".into(), "192.0.2.1".into(), "192.0.2.2".into()])
            .map(|text| text.parse().unwrap())
            .collect();
        let order = in_order(&all);
        let v4: Vec<bool> = order.iter().map(IpAddr::is_ipv4).collect();
        assert_eq!(v4, [false, true, false, true, false, false, false, false]);
    }
}
