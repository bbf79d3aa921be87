//! `engine.command`: one line into the named pipe of a monitoring engine.

use crate::job::{Context, Stop, Task};
use crate::message::payload::{ENGINE_COMMAND, Error, ErrorCode};
use crate::sys::poll;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a pipe takes whole or not at all, with the end of the line: more would mix with other writers' lines.
const LINE_LIMIT: usize = libc::PIPE_BUF;
/// How long a full pipe may take to get room.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is tried: poll(2) does not tell of too little room.
const PAUSE: Duration = Duration::from_millis(50);

/// The job.
#[derive(Debug)]
pub struct EngineCommand {
    pipe: PathBuf,
    line: String,
}

impl EngineCommand {
    /// Checks the line, and which pipe it goes to.
    pub fn new(command: &str, pipe: Option<PathBuf>) -> Result<Self, Error> {
        let invalid = |text: &str| Err(Error::new(ErrorCode::Invalid, text));
        let Some(pipe) = pipe else {
            return invalid("name the engine's pipe, here or by the setting engine.pipe");
        };
        if !pipe.is_absolute() || pipe.as_os_str().as_encoded_bytes().contains(&0) {
            return invalid("pipe must be an absolute path");
        }
        if command.is_empty() || command.contains(['\n', '\r', '\0']) {
            return invalid("command must be one line that is not empty, without a NUL");
        }
        if command.len() >= LINE_LIMIT {
            let text = format!(
                "command has {} bytes; a pipe takes {} whole",
                command.len(),
                LINE_LIMIT - 1
            );
            return Err(Error::new(ErrorCode::TooLarge, text));
        }
        Ok(Self {
            pipe,
            line: format!("{command}\n"),
        })
    }

    fn fail(&self, code: ErrorCode, why: &str) -> Stop {
        Stop::failed(code, format!("the pipe {}: {why}", self.pipe.display()))
    }

    fn explain(&self, error: &io::Error) -> Stop {
        let no_reader = || ErrorCode::Other("no-reader".to_owned());
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => self.fail(
                ErrorCode::NotFound,
                "it does not exist; does the engine run?",
            ),
            Some(libc::EACCES | libc::EPERM) => self.fail(
                ErrorCode::Refused,
                &format!("the agent may not write to it ({error})"),
            ),
            Some(libc::ELOOP) => self.fail(ErrorCode::Invalid, "it is a symbolic link"),
            Some(libc::ENXIO | libc::EPIPE) => {
                self.fail(no_reader(), "nobody reads it; does the engine run?")
            }
            _ => self.fail(ErrorCode::Io, &error.to_string()),
        }
    }

    /// Opens it without waiting for a reader, and only if it is a pipe: another file would take the line for ever.
    fn open(&self) -> Result<File, Stop> {
        let explain = |e: io::Error| self.explain(&e);
        let is_pipe = |found: &fs::Metadata| found.file_type().is_fifo();
        let found = fs::symlink_metadata(&self.pipe).map_err(explain)?;
        if found.is_symlink() {
            return Err(self.fail(ErrorCode::Invalid, "it is a symbolic link"));
        }
        let file = if is_pipe(&found) {
            let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
            let file = File::options()
                .write(true)
                .custom_flags(flags)
                .open(&self.pipe)
                .map_err(explain)?;
            // It may have been another one a moment ago.
            let opened = file.metadata().map_err(explain)?;
            is_pipe(&opened).then_some(file)
        } else {
            None
        };
        file.ok_or_else(|| self.fail(ErrorCode::Invalid, "it is no named pipe"))
    }
}

impl Task for EngineCommand {
    fn name(&self) -> &'static str {
        "engine.command"
    }

    fn run(&self, context: &Context<'_>) -> Result<Option<Value>, Stop> {
        let mut file = self.open()?;
        context.permit(ENGINE_COMMAND, &file, "")?;
        let end = poll::after(PATIENCE);
        loop {
            context.check()?;
            match file.write(self.line.as_bytes()) {
                Ok(_) => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.explain(&e)),
            }
            if Instant::now() >= end {
                return Err(self.fail(
                    ErrorCode::Busy,
                    "it has been full for 5 s: the engine does not read it",
                ));
            }
            context.sleep_until(poll::after(PAUSE))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_whole_line_is_taken() {
        let pipe = || Some(PathBuf::from("/run/engine.cmd"));
        let code = |command: &str, pipe| EngineCommand::new(command, pipe).unwrap_err().code;
        for command in ["", "a\nb", "a\r", "a\0b"] {
            assert_eq!(code(command, pipe()), ErrorCode::Invalid, "{command:?}");
        }
        assert_eq!(code("a", None), ErrorCode::Invalid);
        assert_eq!(code("a", Some("relative".into())), ErrorCode::Invalid);
        assert_eq!(code("a", Some("/a\0b".into())), ErrorCode::Invalid);
        assert_eq!(code(&"x".repeat(4096), pipe()), ErrorCode::TooLarge);
        assert_eq!(
            EngineCommand::new(&"x".repeat(4095), pipe())
                .unwrap()
                .line
                .len(),
            4096
        );
    }
}
