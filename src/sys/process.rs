//! Child processes: what runs between fork and exec, and how an exit is seen without being taken away.

use super::user::Identity;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Id of a process, and of the group it leads.
pub type Pid = libc::pid_t;
/// Asks a process to end.
pub const TERM: i32 = libc::SIGTERM;
/// Ends it.
pub const KILL: i32 = libc::SIGKILL;

/// Where the start of a child failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Making pipes, forking, or executing the program.
    Start,
    /// Setting the memory limit.
    Memory,
    /// Setting the priority.
    Priority,
    /// Becoming another user or group.
    Identity,
    /// Entering the working folder.
    Directory,
}

// A child's failure reaches the parent as one number. Error numbers are small: the step goes above them.
const STEP_SHIFT: u32 = 16;
const STEPS: [Step; 5] = [
    Step::Start,
    Step::Memory,
    Step::Priority,
    Step::Identity,
    Step::Directory,
];

/// Takes apart an error of `spawn` of a [`prepare`]d command.
pub fn failed_step(error: io::Error) -> (Step, io::Error) {
    let Some(code) = error.raw_os_error().and_then(|c| u32::try_from(c).ok()) else {
        return (Step::Start, error);
    };
    let step = usize::try_from(code >> STEP_SHIFT).ok();
    match step.and_then(|s| STEPS.get(s)) {
        Some(Step::Start) | None => (Step::Start, error),
        Some(step) => {
            let code = i32::try_from(code & ((1 << STEP_SHIFT) - 1)).unwrap_or(0);
            (*step, io::Error::from_raw_os_error(code))
        }
    }
}

/// How nice a process is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nice {
    /// This, or it does not start.
    Exactly(i32),
    /// This where the agent itself is not nicer, and where it may.
    AtLeast(i32),
}

/// What a child does to itself before it becomes the program.
#[derive(Debug)]
pub struct Setup {
    /// User and groups.
    pub identity: Option<Identity>,
    /// Working folder; entered as the user it runs as.
    pub directory: CString,
    /// Priority, -20 to 19.
    pub nice: Nice,
    /// Its place in the kernel's line when memory runs out.
    pub oom_score_adj: i32,
    /// Limit of its address space in bytes.
    pub memory: Option<u64>,
}

/// Makes `command`'s child lead a process group of its own, with the signals as a fresh process has them, and set up
/// as `setup` says.
pub fn prepare(command: &mut Command, setup: Setup) {
    command.process_group(0);
    let score = behind_own(setup.oom_score_adj);
    // SAFETY: `set_up` makes system calls only, on memory made before the fork. It does not allocate, lock or
    // panic, which a child of a process with threads must not do.
    unsafe { command.pre_exec(move || set_up(&setup, score.as_bytes())) };
}

/// Gives `command`'s child the signals and the place in the line for memory of a fresh process. Else it has those of the
/// agent, which blocks SIGTERM and SIGHUP, and may stand before all others.
pub fn as_a_fresh_process(command: &mut Command) {
    let score = behind_own(0);
    let fresh = move || {
        reset_signals();
        volunteer_for_oom(score.as_bytes());
        Ok(())
    };
    // SAFETY: as in `prepare`.
    unsafe { command.pre_exec(fresh) };
}

/// Has the kernel kill `command`'s child when the thread that starts it ends, as all threads of a killed agent do.
pub fn end_with_parent(command: &mut Command) {
    // SAFETY: numbers only.
    let parent = unsafe { libc::getpid() };
    let bind = move || {
        // SAFETY: numbers only, as in `prepare`.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // It may have ended before that.
        // SAFETY: numbers only.
        if unsafe { libc::getppid() } != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: as in `prepare`.
    unsafe { command.pre_exec(bind) };
}

/// A child has never a safer place than the agent that started it.
fn behind_own(oom_score_adj: i32) -> String {
    let own = self::oom_score_adj().unwrap_or(i32::MIN);
    oom_score_adj.max(own).to_string()
}

fn set_up(setup: &Setup, oom_score_adj: &[u8]) -> io::Result<()> {
    reset_signals();
    volunteer_for_oom(oom_score_adj);
    if let Some(memory) = setup.memory {
        step(Step::Memory, limit_memory(memory))?;
    }
    match setup.nice {
        Nice::Exactly(nice) => step(Step::Priority, set_nice(nice))?,
        Nice::AtLeast(nice) => {
            // SAFETY: numbers only. The cast is between the C libraries' ideas of an enum's type. An error is -1,
            // which is a niceness too: then setting it fails as well, or is right.
            #[allow(clippy::unnecessary_cast)]
            let own = unsafe { libc::getpriority(libc::PRIO_PROCESS as _, 0) };
            if own < nice {
                set_nice(nice);
            }
        }
    }
    if let Some(identity) = &setup.identity {
        step(Step::Identity, become_(identity))?;
    }
    // SAFETY: the string ends with a NUL.
    step(Step::Directory, unsafe {
        libc::chdir(setup.directory.as_ptr())
    })
}

fn step(step: Step, result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        return Ok(());
    }
    let code = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    Err(io::Error::from_raw_os_error(
        ((step as i32) << STEP_SHIFT) | code,
    ))
}

fn reset_signals() {
    // Exec keeps what is ignored (Rust ignores SIGPIPE; a caller's nohup SIGHUP) and what is blocked.
    for signal in 1..32 {
        // SAFETY: numbers only; fails for KILL and STOP, which nobody can change anyway.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: a signal set is plain numbers; the pointers are live.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

fn set_nice(nice: i32) -> libc::c_int {
    // SAFETY: numbers only. The cast is between the C libraries' ideas of an enum's type.
    #[allow(clippy::unnecessary_cast)]
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS as _, 0, nice)
    }
}

/// Where a process's place in the kernel's line is, when memory runs out: -1000 never, 1000 first.
const OOM_SCORE_ADJ: &CStr = c"/proc/self/oom_score_adj";

/// A job should go, not the agent. Also where it is the agent's own place that is inherited: raising one's score needs
/// no right. Written by the child: written by the parent, it would come after the program has begun to take memory.
/// Without `/proc` nobody has a place of his own, the agent neither.
fn volunteer_for_oom(score: &[u8]) {
    // SAFETY: a string with NUL, a live buffer with its length, and a descriptor of our own.
    unsafe {
        let fd = libc::open(OOM_SCORE_ADJ.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, score.as_ptr().cast(), score.len());
            libc::close(fd);
        }
    }
}

/// This process's own place in that line.
pub fn oom_score_adj() -> io::Result<i32> {
    let text = std::fs::read_to_string(oom_score_adj_path())?;
    text.trim().parse().map_err(io::Error::other)
}

/// Moves this process, and what it starts. Forward needs a right.
pub fn set_oom_score_adj(score: i32) -> io::Result<()> {
    std::fs::write(oom_score_adj_path(), score.to_string())
}

fn oom_score_adj_path() -> &'static Path {
    Path::new(OsStr::from_bytes(OOM_SCORE_ADJ.to_bytes()))
}

// `rlim_t` has 32 bits in some C libraries.
#[allow(
    clippy::unnecessary_cast,
    clippy::cast_possible_truncation,
    clippy::useless_conversion
)]
fn limit_memory(bytes: u64) -> libc::c_int {
    let limit = bytes.min(u64::from(libc::rlim_t::MAX)) as libc::rlim_t;
    let limit = libc::rlimit {
        rlim_cur: limit,
        rlim_max: limit,
    };
    // SAFETY: the pointer is to a live `rlimit`.
    unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }
}

/// Groups first, the user last: afterwards there is no right left to change groups.
fn become_(identity: &Identity) -> libc::c_int {
    // SAFETY: the list is live and its length right; else numbers only.
    unsafe {
        if libc::setgroups(identity.groups.len(), identity.groups.as_ptr()) != 0 {
            return -1;
        }
        if libc::setgid(identity.gid) != 0 {
            return -1;
        }
        identity.uid.map_or(0, |uid| libc::setuid(uid))
    }
}

/// A descriptor that becomes readable when the process ends. Linux 5.3 and later.
pub fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: numbers only; the kernel sets close-on-exec by itself.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the child `pid` has ended. It is not reaped: until it is, its id and its group's stay its own.
pub fn has_exited(pid: Pid) -> io::Result<bool> {
    let id = libc::id_t::try_from(pid).map_err(io::Error::other)?;
    loop {
        // SAFETY: `siginfo_t` is plain data, for which zero is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live `siginfo_t`.
        let result = unsafe {
            libc::waitid(
                libc::P_PID,
                id,
                &raw mut info,
                libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
            )
        };
        if result == 0 {
            // SAFETY: waitid fills the fields of SIGCHLD, or leaves the zeros.
            return Ok(unsafe { info.si_pid() } != 0);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether the group has living members besides its leader. Read from `/proc`: kill(2) would count the leader, which
/// is a zombie until it is reaped.
pub fn has_other_members(group: Pid) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return false;
    };
    processes.flatten().any(|process| {
        let name = process.file_name();
        let pid = name.to_str().and_then(|name| name.parse::<Pid>().ok());
        if pid.is_none_or(|pid| pid == group) {
            return false;
        }
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // proc_pid_stat(5): the name, in brackets, may hold anything; behind it state, parent, group.
        let mut fields = stat
            .rsplit_once(')')
            .map_or("", |(_, rest)| rest)
            .split_ascii_whitespace();
        let alive = fields
            .next()
            .is_some_and(|state| !matches!(state, "Z" | "X"));
        alive && fields.nth(1).and_then(|field| field.parse().ok()) == Some(group)
    })
}

/// Sends a signal to every member of a process group. Only while the group's leader is not reaped: later the
/// number may be somebody else's.
pub fn signal_group(group: Pid, signal: i32) {
    // 0 would be our own group, 1 (as -1) every process there is.
    if group > 1 {
        // SAFETY: numbers only. It can fail where no member is left, which is fine.
        unsafe { libc::kill(-group, signal) };
    }
}

/// Makes reads and writes of this end of a pipe return instead of waiting.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: numbers only, on a live descriptor.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Undoes an ignored SIGCHLD inherited from whoever started us: with it, the kernel reaps our children itself and
/// their exit status is lost.
pub fn keep_children_waitable() {
    // SAFETY: numbers only; the default of SIGCHLD does nothing to us.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// This program's file. To be asked at the start: later it may have been replaced, and have another name.
pub fn program() -> PathBuf {
    std::fs::read_link("/proc/self/exe").unwrap_or_default()
}
