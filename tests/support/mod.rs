//! What the tests of the real programs share: an agent, a Poseidon, a server that follows a script.
//!
//! Nothing here sleeps for a fixed time: `eventually` asks until the answer is right or the deadline is over.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod agent;
pub mod api;
pub mod fake;
pub mod ledger;
pub mod local;
pub mod manager;
pub mod middle;
pub mod place;
pub mod port;
pub mod poseidon;
pub mod proxy;
pub mod random;
pub mod rig;

use std::time::{Duration, Instant};

/// How long anything may take on a busy machine before it counts as never.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The first line that a child prints, and the rest of its output: dropped, the pipe is closed.
pub fn first_line(child: &mut std::process::Child) -> (String, impl std::io::Read + use<>) {
    use std::io::BufRead as _;
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    (line, stdout)
}

/// Sends a signal to a process of the test's own.
pub fn signal(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).unwrap();
    // SAFETY: no pointers; the process is a child that has not been waited for.
    #[allow(unsafe_code)]
    unsafe {
        libc::kill(pid, signal);
    }
}

/// Asks until there is an answer.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "did not happen: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
