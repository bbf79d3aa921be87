//! `agent.update` as far as the restart: fetch, prove, take the old program's place.

use super::{Pending, Settings, hash, owner, signature};
use crate::acts::Acts;
use crate::job::{Context, Stop, Task};
use crate::message::payload::ErrorCode;
use crate::sys::poll::after;
use crate::sys::process;
use crate::sys::space::space;
use crate::transfer::{Content, Meter, Pace, fetch, no_space};
use serde::Deserialize;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

/// Largest program.
const PROGRAM_LIMIT: u64 = 64 << 20;
/// Room that is left on the file system.
const ROOM: u64 = 256 * 1024;
/// How long one proof may take; connecting has deadlines of its own.
const PROOF: Duration = Duration::from_mins(3);
/// What of a failed proof's words is told.
const WORDS: usize = 4_096;
/// How often a proof is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The payload.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Request {
    #[serde(rename = "ref")]
    pub reference: String,
    pub size: u64,
    pub sha256: String,
    pub signature: String,
    #[serde(default)]
    pub version: String,
}

/// Replaces the program.
#[derive(Debug)]
pub struct Update {
    /// What it goes by.
    pub settings: Arc<Settings>,
    /// What is asked for.
    pub request: Request,
    /// The job's conversation.
    pub conversation: String,
    /// How content is fetched.
    pub pace: Pace,
    /// What restarts the agent at the end.
    pub acts: Arc<Acts>,
    /// One at a time.
    pub gate: Arc<Mutex<()>>,
}

/// A name beside the program's, on the same file system.
pub(super) fn beside(program: &Path, what: &str) -> PathBuf {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    program.with_file_name(format!(".{name}.{what}"))
}

/// What was renamed in a file's folder is on the disk.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn io_error(act: &str, path: &Path, error: &io::Error) -> Stop {
    Stop::failed(
        ErrorCode::Io,
        format!("cannot {act} {}: {error}", path.display()),
    )
}

fn refused(text: impl Into<String>) -> Stop {
    Stop::failed(ErrorCode::Refused, text)
}

/// What the kernel goes by when it starts a program: the magic, class and byte order of ELF, and its machine
/// (elf(5): `e_ident`, `e_machine`).
fn kind(program: &Path) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut head = Vec::new();
    File::open(program)?.take(20).read_to_end(&mut head)?;
    let machine = head.get(18..).unwrap_or_default().to_vec();
    head.truncate(6);
    Ok((head, machine))
}

/// Removes the new file unless it has taken the program's place.
struct New(PathBuf);

impl Drop for New {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Task for Update {
    fn name(&self) -> &'static str {
        "agent.update"
    }

    fn run(&self, context: &Context<'_>) -> Result<Option<Value>, Stop> {
        let under_way = || Stop::failed(ErrorCode::Busy, "another update is under way");
        let _one = match self.gate.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(held)) => held.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(under_way()),
        };
        // Until the restart, and while a new program has not had its welcome.
        if Pending::load(&self.settings.state).is_some() {
            return Err(under_way());
        }
        let new_program = self.check()?;
        let program = &self.settings.program;
        let old_hash = hash(program).map_err(|e| io_error("read", program, &e))?;
        let version = &self.request.version;
        if old_hash == new_program.sha256 {
            return Ok(Some(json!({"version": version, "changed": false})));
        }
        let new = New(beside(program, "new"));
        self.fetch(context, &new_program, &new.0)?;
        self.prove(context, &new.0)?;
        context.check()?;
        self.take_place(context, &new.0, &new_program.sha256)?;
        self.acts.restart_within(context.token());
        Err(Stop::GoesOn)
    }
}

impl Update {
    fn check(&self) -> Result<Content, Stop> {
        let Settings { keys, program, .. } = &*self.settings;
        let Request {
            sha256,
            version,
            signature: signed,
            ..
        } = &self.request;
        if keys.is_empty() {
            return Err(refused(
                "updates are off on this device: update.keys has no key that may sign them",
            ));
        }
        if let Some(manager) = owner(Path::new("/"), program) {
            return Err(refused(format!(
                "{} belongs to a package of {manager}: update it by that",
                program.display()
            )));
        }
        if version.len() > 64 || version.contains(char::is_control) {
            return Err(Stop::failed(
                ErrorCode::Invalid,
                "version has 64 bytes at most and no control character",
            ));
        }
        let content = Content {
            reference: self.request.reference.clone(),
            size: self.request.size,
            sha256: sha256.clone(),
        };
        content.check()?;
        if content.size > PROGRAM_LIMIT {
            let text = format!(
                "the program has {} bytes, {PROGRAM_LIMIT} are allowed",
                content.size
            );
            return Err(Stop::failed(ErrorCode::TooLarge, text));
        }
        // Before a single byte is asked for.
        if !signature::is_signed(keys, sha256, version, signed) {
            return Err(Stop::failed(
                ErrorCode::Untrusted,
                "no key of update.keys has signed this program and version",
            ));
        }
        Ok(content)
    }

    fn fetch(&self, context: &Context<'_>, program: &Content, new: &Path) -> Result<(), Stop> {
        let folder = new.parent().unwrap_or(Path::new("/"));
        if let Some(space) = space(folder)
            && space.available < program.size.saturating_add(ROOM)
        {
            let text = format!(
                "{} has {} bytes free; the new program needs {} beside the old one",
                folder.display(),
                space.available,
                program.size.saturating_add(ROOM)
            );
            return Err(Stop::failed(no_space(), text));
        }
        // What an earlier try has left is not trusted.
        let _ = std::fs::remove_file(new);
        let file = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(new)
            .map_err(|e| io_error("create", new, &e))?;
        let mut meter = Meter::new(program.size);
        fetch(context, program, &file, 0, &self.pace, &mut meter)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o755))
            .and_then(|()| file.sync_all())
            .map_err(|e| io_error("write", new, &e))
    }

    /// The new program shows that it runs here, understands the configuration and reaches Poseidon, while the old one
    /// goes on.
    fn prove(&self, context: &Context<'_>, new: &Path) -> Result<(), Stop> {
        // What the kernel refuses, execvp(3) gives to the shell: an empty file runs, and fails at nothing.
        let kind = |path| kind(path).map_err(|e| io_error("read", path, &e));
        if kind(new)? != kind(&self.settings.program)? {
            return Err(refused(
                "the new file is no program for this kind of processor",
            ));
        }
        let said = run(context, new, "--version", &["--version".into()])?;
        let version = &self.request.version;
        let called = said.trim().strip_prefix("triton ");
        if called.is_none_or(|called| !version.is_empty() && called != version) {
            return Err(refused(format!(
                "the new program calls itself {:?}, and what was signed is \"triton {version}\"",
                said.trim()
            )));
        }
        // With the arguments that this process was started with.
        let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        for command in ["check-config", "doctor"] {
            let place = arguments
                .iter()
                .position(|a| a == "run" || a == "check-config");
            let place =
                place.ok_or_else(|| refused("this agent was not started by 'triton run'"))?;
            arguments[place] = command.into();
            run(context, new, command, &arguments)?;
        }
        Ok(())
    }

    fn take_place(&self, context: &Context<'_>, new: &Path, sha256: &str) -> Result<(), Stop> {
        let Settings { program, state, .. } = &*self.settings;
        let old = beside(program, "old");
        let pending = Pending {
            token: context.token().to_owned(),
            conversation: self.conversation.clone(),
            sha256: sha256.to_owned(),
            version: self.request.version.clone(),
            from: env!("CARGO_PKG_VERSION").to_owned(),
            program: program.clone(),
            old: old.clone(),
            starts: 0,
            told: false,
            failed: None,
        };
        let _ = std::fs::remove_file(&old);
        std::fs::hard_link(program, &old)
            // A file system without links.
            .or_else(|_| std::fs::copy(program, &old).map(|_| ()))
            .and_then(|()| File::open(&old)?.sync_all())
            .map_err(|e| io_error("keep the old program as", &old, &e))?;
        let failed = |stop: Stop| {
            let _ = std::fs::remove_file(&old);
            stop
        };
        if let Err(e) = pending.store(state) {
            return Err(failed(Stop::failed(ErrorCode::Io, e.to_string())));
        }
        if let Err(e) = std::fs::rename(new, program) {
            Pending::remove(state);
            return Err(failed(io_error("replace", program, &e)));
        }
        // It has the new program; if the folder cannot be synced, a power cut may bring the old one back, and the note
        // tells that.
        if let Err(e) = sync_folder(program) {
            log::error!("{} cannot be synced: {e}", program.display());
        }
        Ok(())
    }
}

/// Runs the new program; what it said, or why it failed. `what` is said of it: its arguments may hold secrets.
fn run(
    context: &Context<'_>,
    new: &Path,
    what: &str,
    arguments: &[OsString],
) -> Result<String, Stop> {
    let failed = |why: &str| refused(format!("the new program fails at '{what}': {why}"));
    let mut command = Command::new(new);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    process::as_a_fresh_process(&mut command);
    let mut child = command.spawn().map_err(|e| failed(&e.to_string()))?;
    let mut said = Words::of(child.stdout.take());
    let mut complaint = Words::of(child.stderr.take());
    let ended = wait(context, &mut child, &mut [&mut said, &mut complaint]);
    if !matches!(ended, Ok(Some(_))) {
        let _ = child.kill();
        let _ = child.wait();
    }
    let Some(status) = ended? else {
        return Err(failed(&format!(
            "it takes longer than {} s",
            PROOF.as_secs()
        )));
    };
    if status.success() {
        return Ok(said.text());
    }
    Err(failed(&format!(
        "{status}: {} {}",
        said.text().trim(),
        complaint.text().trim()
    )))
}

/// The beginning of what a child says. All of it is read, so that it need not wait; who holds the pipe behind it is not
/// waited for.
struct Words {
    pipe: Option<File>,
    bytes: Vec<u8>,
}

impl Words {
    fn of<T: Into<OwnedFd>>(pipe: Option<T>) -> Self {
        let pipe = pipe.map(|pipe| File::from(pipe.into()));
        Self {
            pipe: pipe.filter(|pipe| process::set_nonblocking(pipe.as_fd()).is_ok()),
            bytes: Vec::new(),
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 512];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    let room = WORDS.saturating_sub(self.bytes.len());
                    self.bytes.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                _ => self.pipe = None,
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

fn wait(
    context: &Context<'_>,
    child: &mut Child,
    words: &mut [&mut Words],
) -> Result<Option<ExitStatus>, Stop> {
    let until = after(PROOF);
    loop {
        let status = child.try_wait();
        // After it has ended, what it said is in the pipes.
        for one in &mut *words {
            one.read();
        }
        match status {
            Ok(Some(status)) => return Ok(Some(status)),
            Ok(None) if until <= Instant::now() => return Ok(None),
            Ok(None) => context.sleep_until(after(LOOK))?,
            Err(e) => {
                let text = format!("cannot wait for the new program: {e}");
                return Err(Stop::failed(ErrorCode::Io, text));
            }
        }
    }
}
