//! A service manager, as far as the agent sees one: the socket that it tells, and a way to hold one thread of it.

use super::{PATIENCE, eventually};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use tempfile::TempDir;

pub struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Self { socket, folder }
    }

    pub fn address(&self) -> String {
        self.folder.path().join("notify").display().to_string()
    }

    /// The next message.
    #[track_caller]
    pub fn next(&self) -> String {
        self.next_within(PATIENCE)
            .expect("the agent tells something")
    }

    pub fn next_within(&self, time: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let mut buffer = [0; 4096];
        let count = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..count]).into_owned())
    }

    /// Reads until a message holds `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        let mut seen = Vec::new();
        eventually(&format!("the manager is told {text:?}"), || {
            let message = self.next();
            let found = message.contains(text).then(|| message.clone());
            seen.push(message);
            assert!(seen.len() < 1000, "never {text:?}: {seen:?}");
            found
        })
    }

    /// Reads what has come, without waiting.
    pub fn drain(&self) {
        while self.next_within(Duration::from_millis(1)).is_some() {}
    }
}

/// One thread of a child, stopped; the others go on. It goes on too when this is dropped.
pub struct Held(i32);

impl Held {
    /// Holds the thread of that name.
    #[track_caller]
    pub fn of(pid: u32, name: &str) -> Self {
        let tid = eventually(&format!("there is a thread {name}"), || {
            fs::read_dir(format!("/proc/{pid}/task"))
                .unwrap()
                .flatten()
                .find(|task| {
                    fs::read_to_string(task.path().join("comm"))
                        .is_ok_and(|comm| comm.trim() == name)
                })
                .map(|task| task.file_name().to_str().unwrap().parse().unwrap())
        });
        ask(libc::PTRACE_SEIZE, tid);
        ask(libc::PTRACE_INTERRUPT, tid);
        // SAFETY: no status is asked for.
        #[allow(unsafe_code)]
        let waited = unsafe { libc::waitpid(tid, std::ptr::null_mut(), libc::__WALL) };
        assert_eq!(waited, tid, "{}", std::io::Error::last_os_error());
        Self(tid)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        ask(libc::PTRACE_DETACH, self.0);
    }
}

#[track_caller]
fn ask(what: libc::c_uint, tid: i32) {
    // SAFETY: requests that take neither an address nor data, for a thread of a child.
    #[allow(unsafe_code)]
    let result = unsafe {
        #[allow(
            clippy::unnecessary_cast,
            reason = "its type differs between C libraries"
        )]
        libc::ptrace(what as _, tid, 0usize, 0usize)
    };
    assert_eq!(
        result,
        0,
        "ptrace of the agent's thread: {}",
        std::io::Error::last_os_error()
    );
}
