//! Where a process under test runs: namespaces of its own, as another user. Needs root.

use super::eventually;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// What stands before a program on its command line.
#[derive(Clone, Default)]
pub struct Place {
    prefix: Vec<String>,
    /// Whose view of the file system it has.
    holder: Option<u32>,
}

impl Place {
    pub fn new(prefix: &[&str]) -> Self {
        Self {
            prefix: prefix.iter().map(|&p| p.to_owned()).collect(),
            holder: None,
        }
    }

    /// The same, with more words before the program.
    pub fn before(&self, words: &[&str]) -> Self {
        let mut place = self.clone();
        place.prefix.extend(words.iter().map(|&w| w.to_owned()));
        place
    }

    /// A place within this one.
    pub fn then(&self, inner: &Self) -> Self {
        let mut place = self.clone();
        place.prefix.extend(inner.prefix.iter().cloned());
        place.holder = inner.holder.or(self.holder);
        place
    }

    /// A program here.
    pub fn command(&self, program: &Path) -> Command {
        match self.prefix.split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        }
    }

    /// A path there, as seen from here.
    pub fn path(&self, path: &Path) -> PathBuf {
        match self.holder {
            None => path.to_owned(),
            Some(pid) => PathBuf::from(format!("/proc/{pid}/root{}", path.display())),
        }
    }
}

/// Whether this machine lets us make namespaces. Where it must (`TRITON_REQUIRE_NAMESPACES`), a no is a failure.
pub fn possible(kind: &str) -> bool {
    let tried = Command::new("unshare").args([kind, "true"]).output();
    let no = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(e) => e.to_string(),
    };
    assert!(
        std::env::var_os("TRITON_REQUIRE_NAMESPACES").is_none(),
        "unshare {kind}: {no}"
    );
    println!("skipped: unshare {kind} is not possible here: {no}");
    false
}

/// A namespace, kept alive by a process that sleeps. It goes with that process.
pub struct Namespace {
    holder: Child,
    kind: &'static str,
}

impl Namespace {
    /// A network of its own.
    pub fn network() -> Self {
        Self::hold("net", &["--net"], "exec sleep 100000")
    }

    /// A small file system at `folder`, seen only in this namespace.
    pub fn with_disk(folder: &Path, bytes: u64) -> Self {
        fs::create_dir_all(folder).unwrap();
        let mount = format!(
            "mount -t tmpfs -o size={bytes} triton-test '{}' && exec sleep 100000",
            folder.display()
        );
        Self::hold("mnt", &["--mount"], &mount)
    }

    fn hold(kind: &'static str, flags: &[&str], line: &str) -> Self {
        let holder = Command::new("unshare")
            .args(flags)
            .args(["sh", "-c", line])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let namespace = Self { holder, kind };
        let comm = format!("/proc/{}/comm", namespace.pid());
        eventually("the namespace stands", || {
            (fs::read_to_string(&comm).is_ok_and(|c| c == "sleep\n")).then_some(())
        });
        namespace
    }

    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    pub fn place(&self) -> Place {
        let flag = match self.kind {
            "net" => "--net",
            _ => "--mount",
        };
        let flag = format!("{flag}=/proc/{}/ns/{}", self.pid(), self.kind);
        Place {
            prefix: vec!["nsenter".to_owned(), flag, "--".to_owned()],
            holder: (self.kind == "mnt").then_some(self.pid()),
        }
    }

    /// Runs a command in it that must succeed.
    #[track_caller]
    pub fn run(&self, line: &str) {
        let mut words = line.split(' ');
        let mut command = self.place().command(Path::new(words.next().unwrap()));
        succeed(command.args(words));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[track_caller]
pub fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Writes until a disk has no room left. The file that takes it is returned: remove it to end the want.
pub fn fill(folder: &Path) -> PathBuf {
    use std::io::Write as _;
    let path = folder.join("ballast");
    let mut file = fs::File::create(&path).unwrap();
    let mut piece = 64 << 10;
    while piece > 0 {
        match file.write(&vec![b'x'; piece]) {
            Ok(n) if n > 0 => {}
            _ => piece /= 2,
        }
    }
    path
}

/// Moves this thread, and what it starts, into a network of its own.
#[allow(unsafe_code)]
pub fn leave_the_network() {
    // SAFETY: no pointers; it changes this thread's view only.
    let left = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(left, 0, "{}", std::io::Error::last_os_error());
}

/// Limits a resource of a running process, as prlimit(1) writes it.
#[track_caller]
pub fn limit(pid: u32, what: &str) {
    limit_as(&Place::default(), pid, what);
}

/// The same for another user's process: not every root may do that itself.
#[track_caller]
pub fn limit_as(place: &Place, pid: u32, what: &str) {
    let mut prlimit = place.command(Path::new("prlimit"));
    succeed(prlimit.args(["--pid", &pid.to_string(), what]));
}

/// Users given out by this process.
static USERS: AtomicU32 = AtomicU32::new(0);

/// Another user without any process, who may nonetheless read and write everything: limits of a user's processes do not
/// bind root.
pub fn user() -> Option<Place> {
    // SAFETY: no arguments.
    #[allow(unsafe_code)]
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        println!("skipped: only root can start an agent as another user");
        return None;
    }
    let next = USERS.fetch_add(1, Ordering::SeqCst);
    let uid = (600_000 + std::process::id() % 100_000 * 10 + next).to_string();
    let words = [
        "setpriv",
        "--reuid",
        &uid,
        "--regid",
        &uid,
        "--clear-groups",
    ];
    let may = [
        "--inh-caps",
        "+dac_override",
        "--ambient-caps",
        "+dac_override",
    ];
    let place = Place::new(&[&words[..], &may, &["--"]].concat());
    let tried = place.command(Path::new("true")).output();
    match tried {
        Ok(output) if output.status.success() => Some(place),
        other => {
            assert!(
                std::env::var_os("TRITON_REQUIRE_NAMESPACES").is_none(),
                "setpriv: {other:?}"
            );
            println!("skipped: setpriv does not work here: {other:?}");
            None
        }
    }
}
