//! From a plan to a process.

use super::Settings;
use super::request::Process;
use crate::message::payload::{self, ErrorCode};
use crate::service;
use crate::sys::process::{self, Nice, Pid, Setup, Step};
use crate::sys::user::{self, Identity, LookupError};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Where programs are looked for if the agent itself was started without a PATH, as init may do.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A started job.
pub(super) struct Started {
    pub at: Instant,
    pub child: Child,
    pub pid: Pid,
    /// None where the kernel has none.
    pub pidfd: Option<OwnedFd>,
    /// The pipes do not block.
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// Starts a process. The error says which part failed, and what may help.
pub(super) fn spawn(
    plan: &Process,
    token: &str,
    settings: &Settings,
) -> Result<Started, payload::Error> {
    let identity = identity(plan)?;
    let mut command = Command::new(&plan.argv[0]);
    command
        .args(&plan.argv[1..])
        .stdin(if plan.stdin.is_some() {
            Stdio::piped()
        } else {
            nothing()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    set_environment(&mut command, plan, token, settings, identity.as_ref());
    process::prepare(
        &mut command,
        Setup {
            identity,
            directory: plan.directory.clone(),
            nice: plan
                .nice
                .map_or(Nice::AtLeast(settings.nice), Nice::Exactly),
            oom_score_adj: settings.oom_score_adj,
            memory: plan.memory,
        },
    );
    let at = Instant::now();
    let mut child = command.spawn().map_err(|e| explain(e, plan))?;
    match take_pipes(&mut child) {
        Ok((pid, [stdin, stdout, stderr])) => Ok(Started {
            at,
            child,
            pid,
            // Without one (an old kernel, no descriptors left) the exit is found by looking.
            pidfd: settings.pidfd.then(|| process::pidfd(pid).ok()).flatten(),
            stdin,
            stdout,
            stderr,
        }),
        Err(error) => {
            // Linux gives no reason to come here; but no process may be left behind unwatched.
            let _ = child.kill();
            let _ = child.wait();
            Err(payload::Error::new(
                ErrorCode::Io,
                format!("the pipes of the process cannot be used: {error}"),
            ))
        }
    }
}

/// What a program reads that is given nothing.
fn nothing() -> Stdio {
    match File::open("/dev/null") {
        Ok(null) => null.into(),
        // A device whose /dev is broken has to be repaired: a pipe that nobody writes to is as empty.
        Err(_) => io::pipe().map_or_else(|_| Stdio::null(), |(reader, _)| reader.into()),
    }
}

fn take_pipes(child: &mut Child) -> io::Result<(Pid, [Option<OwnedFd>; 3])> {
    let pid = Pid::try_from(child.id()).map_err(io::Error::other)?;
    let pipes = [
        child.stdin.take().map(OwnedFd::from),
        child.stdout.take().map(OwnedFd::from),
        child.stderr.take().map(OwnedFd::from),
    ];
    for pipe in pipes.iter().flatten() {
        process::set_nonblocking(pipe.as_fd())?;
    }
    Ok((pid, pipes))
}

fn identity(plan: &Process) -> Result<Option<Identity>, payload::Error> {
    let found = user::lookup(plan.user.as_deref(), plan.group.as_deref()).map_err(|error| {
        let code = match error {
            LookupError::Unknown(_) => ErrorCode::NotFound,
            LookupError::Io(..) => ErrorCode::Io,
        };
        payload::Error::new(code, error.to_string())
    })?;
    // Who asks to be who it is already needs no right.
    let own = user::effective_uid();
    Ok(found.filter(|id| own == 0 || plan.group.is_some() || id.uid != Some(own)))
}

fn set_environment(
    command: &mut Command,
    plan: &Process,
    token: &str,
    settings: &Settings,
    identity: Option<&Identity>,
) {
    hide_own_variables(command);
    if let Some(identity) = identity.filter(|identity| identity.uid.is_some()) {
        if let Some(account) = &identity.account {
            command
                .env("HOME", &account.home)
                .env("USER", &account.name)
                .env("LOGNAME", &account.name)
                .env("SHELL", &account.shell);
        } else {
            // A user that is a number only has no home; the agent's would be the wrong one.
            command.env("HOME", "/");
            for name in ["USER", "LOGNAME", "SHELL"] {
                command.env_remove(name);
            }
        }
    }
    command.envs(plan.env.iter().map(|(name, value)| (name, value)));
    let own: &[(OsString, OsString)] = &settings.environment;
    command.envs(own.iter().map(|(name, value)| (name, value)));
    command.env("TRITON_JOB", token);
}

/// The agent's own settings, its identifier among them, are nothing for what it starts.
pub(crate) fn hide_own_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_bytes().starts_with(b"TRITON_") {
            command.env_remove(name);
        }
    }
    for name in service::VARIABLES {
        command.env_remove(name);
    }
    if std::env::var_os("PATH").is_none_or(|path| path.is_empty()) {
        command.env("PATH", DEFAULT_PATH);
    }
}

fn explain(error: io::Error, plan: &Process) -> payload::Error {
    let (step, error) = process::failed_step(error);
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    let (code, message) = match step {
        Step::Start => return explain_start(&error, plan),
        Step::Memory => (
            ErrorCode::Io,
            format!("the memory limit cannot be set: {error}"),
        ),
        Step::Priority if denied => (
            ErrorCode::Refused,
            format!(
                "the agent may not set nice to {}: {error}",
                plan.nice.unwrap_or(0)
            ),
        ),
        Step::Priority => (ErrorCode::Io, format!("nice cannot be set: {error}")),
        Step::Identity => {
            let user = plan
                .user
                .as_deref()
                .map(|name| format!("the user {name:?}"));
            let group = plan
                .group
                .as_deref()
                .map(|name| format!("the group {name:?}"));
            let who: Vec<String> = user.into_iter().chain(group).collect();
            let who = who.join(" and ");
            if denied {
                let hint = "; it does not run as root";
                let hint = if user::effective_uid() == 0 { "" } else { hint };
                (
                    ErrorCode::Refused,
                    format!("the agent may not run jobs as {who}{hint} ({error})"),
                )
            } else {
                (ErrorCode::Io, format!("cannot become {who}: {error}"))
            }
        }
        Step::Directory => {
            let code = match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorCode::NotFound,
                io::ErrorKind::PermissionDenied => ErrorCode::Refused,
                _ => ErrorCode::Io,
            };
            let path = plan.directory.to_string_lossy();
            (code, format!("cannot enter the folder {path:?}: {error}"))
        }
    };
    payload::Error::new(code, message)
}

fn explain_start(error: &io::Error, plan: &Process) -> payload::Error {
    let program = &plan.argv[0];
    let said = |code, why: &str| {
        payload::Error::new(code, format!("cannot run {program:?}: {why} ({error})"))
    };
    match error.raw_os_error() {
        Some(libc::ENOENT) if !program.contains('/') => {
            said(ErrorCode::NotFound, "no such program in PATH")
        }
        Some(libc::ENOENT) if Path::new(program).is_absolute() && Path::new(program).exists() => {
            said(
                ErrorCode::NotFound,
                "the interpreter or loader that it asks for is missing",
            )
        }
        Some(libc::ENOENT | libc::ENOTDIR) => said(ErrorCode::NotFound, "no such program"),
        // A folder of PATH that the user may not enter hides that the program is nowhere at all.
        Some(libc::EACCES) if !program.contains('/') && !is_in_path(program, plan) => {
            said(ErrorCode::NotFound, "no such program in PATH")
        }
        Some(libc::EACCES | libc::EPERM) => {
            said(ErrorCode::Refused, "it is not executable for that user")
        }
        Some(libc::ENOEXEC) => said(
            ErrorCode::Invalid,
            "it is no program of this processor, and no script with a #! line",
        ),
        Some(libc::E2BIG) => said(
            ErrorCode::TooLarge,
            "arguments and environment are longer than the system takes",
        ),
        Some(libc::EMFILE | libc::ENFILE) => {
            said(ErrorCode::Io, "there are no file descriptors left")
        }
        Some(libc::EAGAIN | libc::ENOMEM) => said(
            ErrorCode::Io,
            "there is no memory or no process left; try again later",
        ),
        _ => said(ErrorCode::Io, "the system refused"),
    }
}

fn is_in_path(program: &str, plan: &Process) -> bool {
    let own = plan.env.iter().find(|(name, _)| name == "PATH");
    let path = match own {
        Some((_, path)) => OsString::from(path),
        None => std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()),
    };
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Work;
    use crate::job::request::{self, Act};

    fn plan(json: &str) -> Process {
        let command = Work::Command(serde_json::from_str(json).unwrap());
        let plan = request::check("t", command, None, &Settings::default()).unwrap();
        match plan.act {
            Act::Process(process) => process,
            Act::Task(_) => panic!("a command is a process"),
        }
    }

    fn error(json: &str) -> payload::Error {
        match spawn(&plan(json), "t", &Settings::default()) {
            Ok(_) => panic!("{json} was started"),
            Err(error) => error,
        }
    }

    #[test]
    fn each_way_to_fail_has_its_own_words() {
        for (json, code, said) in [
            (
                r#"{"argv":["no-such-program"]}"#,
                ErrorCode::NotFound,
                "in PATH",
            ),
            (
                r#"{"argv":["/no/such/program"]}"#,
                ErrorCode::NotFound,
                "no such program",
            ),
            (
                r#"{"argv":["/etc/passwd"]}"#,
                ErrorCode::Refused,
                "not executable",
            ),
            (
                r#"{"argv":["true"],"cwd":"/no/such"}"#,
                ErrorCode::NotFound,
                "\"/no/such\"",
            ),
            (
                r#"{"argv":["true"],"cwd":"/etc/passwd"}"#,
                ErrorCode::NotFound,
                "enter",
            ),
            (
                r#"{"argv":["true"],"user":"no-such"}"#,
                ErrorCode::NotFound,
                "no user \"no-such\"",
            ),
            (
                r#"{"argv":["true"],"group":"no-such"}"#,
                ErrorCode::NotFound,
                "no group",
            ),
        ] {
            let error = error(json);
            assert_eq!(error.code, code, "{json}: {}", error.message);
            assert!(error.message.contains(said), "{json}: {}", error.message);
        }
        let mut long = plan(r#"{"argv":["true"]}"#);
        long.argv.push("x".repeat(200_000));
        let error = spawn(&long, "t", &Settings::default()).err().unwrap();
        assert_eq!(error.code, ErrorCode::TooLarge);
    }

    #[test]
    fn a_missing_interpreter_is_not_a_missing_program() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let error = error(&format!(r#"{{"argv":[{script:?}]}}"#));
        assert_eq!(error.code, ErrorCode::NotFound);
        assert!(error.message.contains("interpreter"), "{}", error.message);
    }
}
