//! The help texts.

use crate::config::{DEFAULT_FILE, OVERRIDES};
use std::fmt::Write as _;

const COMMANDS: &str = "\
Usage: triton [OPTIONS] COMMAND

Commands:
  run                 the agent itself: connects to Poseidon and serves the local socket
  status [--json]     what the running agent does
  exec -- CMD [ARG…]  run a command as a job of the agent; see 'triton help exec'
  identifier          print the identifier to register with Poseidon (a secret);
                      --fingerprint prints what Poseidon shows of it
  check-config        read the configuration and say what is wrong with it
  doctor              walk through the phases of connecting and say what is wrong
  help [COMMAND]      this text

Options, all of them also settings in the configuration file:
  -c, --config FILE
";

const EXEC: &str = "\
Usage: triton exec [OPTIONS] -- CMD [ARG…]
       triton exec [OPTIONS] --shell TEXT

Runs a command as a job of the agent, streams its output and ends with its exit code. Ctrl-C cancels
the job (SIGTERM to its process group, SIGKILL after the grace); a second Ctrl-C kills it at once.

Options:
  --shell TEXT     give TEXT to /bin/sh -c
  --stdin          send standard input (up to 700 KiB) to the command
  --env NAME=VALUE add to its environment; may be repeated
  --cwd DIR        its working folder
  --user USER      run as this user        --group GROUP  and this group
  --timeout SEC    end it after so long
  --nice N         its niceness (-20 to 19)
  --memory BYTES   limit of each process's address space

Exit codes: the command's own; 124 timed out; 125 triton itself failed; 126 the command cannot be
executed; 127 it was not found; 128+N ended by signal N; 130 cancelled.
";

pub fn text(topic: Option<&str>) -> String {
    let mut text = if topic == Some("exec") {
        EXEC.to_owned() + "\nOptions of every command:\n  -c, --config FILE\n"
    } else {
        COMMANDS.to_owned()
    };
    for over in OVERRIDES {
        let name = match over.flag {
            Some(flag) => format!("--{flag} {}", over.value),
            None => "(environment only)".to_owned(),
        };
        let _ = writeln!(text, "  {name:<24}{:<24}{}", over.variable, over.help);
    }
    let _ = writeln!(
        text,
        "  -h, --help              -V, --version\n\n\
         Settings come from defaults, then {DEFAULT_FILE} (or --config, TRITON_CONFIG), then the\n\
         environment, then flags. Exit codes: 0 done, 1 failed, 2 wrong command line."
    );
    text
}
