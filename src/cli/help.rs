//! The help texts.

use crate::config::{DEFAULT_FILE, SETTINGS};
use std::fmt::Write as _;

const COMMANDS: &str = "\
Usage: triton [OPTIONS] COMMAND

Commands:
  run                 the agent itself: connects to Poseidon and serves the local socket
  status [--json]     what the running agent does
  exec -- CMD [ARG…]  run a command as a job of the agent; see 'triton help exec'
  jobs [--json]       the jobs that run or wait, whoever asked for them
  cancel TOKEN [--grace SECONDS]
                      end one of them (the beginning of its token will do): SIGTERM,
                      after the grace SIGKILL; a second time, SIGKILL at once
  history             what happened here; see 'triton help history'
  put [KEY] DATA      store a value in the history; see 'triton help put'
  event LINE|-, metric NAME VALUE
                      a CEF event, a number for the heartbeat; see 'triton help event'
  script ls|run       the scripts of this device; see 'triton help script'
  progress PERCENT [TEXT], get NAME
                      from within a job: how far it is, data that Poseidon has
                      for this device; see 'triton help inside'
  schedule [--json]   what runs by the device's own clock, when next, and how it ended last
  policy show|test    what Poseidon may ask for here; see 'triton help policy'
  agent reload|restart|exit, system reboot|shutdown [--delay SECONDS]
                      as Poseidon may ask; Ctrl-C within the delay cancels
  engine COMMAND [--pipe PATH]
                      one line into the pipe of a monitoring engine (engine.pipe)
  trust [show|accept|reset|rotate]
                      this device's key, and whom it obeys; see 'triton help trust'
  module ls [--json] | kill NAME | start NAME | ask TYPE [JSON]
                      plugins: those there are; one that is external ended, started,
                      or asked for something
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
  --nice N         its niceness (-20 to 19); jobs.nice unless given
  --memory BYTES   limit of each process's address space

Exit codes: the command's own; 124 timed out; 125 triton itself failed; 126 the command cannot be
executed; 127 it was not found; 128+N ended by signal N; 130 cancelled.
";

const SCRIPT: &str = "\
Usage: triton script ls [--json]
       triton script run [OPTIONS] NAME [ARG…]

'ls' lists the scripts that Poseidon has brought to this device, with their bytes. 'run' runs one as
a job of the agent, also offline, with the options, the output and the exit codes of 'triton exec'.

A script is run by its #! line, else by the program that scripts.interpreters names for its
extension, in the folder of its revision. It finds that folder in TRITON_SCRIPTS, its own name in
TRITON_SCRIPT, and each attribute of the device in TRITON_ATTRIBUTE_KEY.
";

const INSIDE: &str = "\
Usage: triton progress [--job TOKEN] PERCENT [TEXT]
       triton get [--to FILE] NAME

For what runs as a job. 'progress' says how far the job in TRITON_JOB is, which Poseidon and 'triton
exec' show at once; of many the last counts. 'get' prints what Poseidon has for this device under
NAME: 'attributes' (all of them, in JSON), 'attribute/KEY', or a file or secret that was given to it.
With --to it is written to FILE, whole or not at all, for its owner only. A connection that is lost
on the way is waited for for a minute; without one to begin with, it fails with 'offline'.

Exit codes: 0 done, 1 not, for the reason that is said, 2 wrong command line.
";

const HISTORY: &str = "\
Usage: triton history [OPTIONS]

Shows the journal of this device, oldest first: jobs that were accepted and how they ended, stored
values, events. Without options the newest 20. A line has the record's number, its time (UTC), what
it is, the token (of a job, or what a value was stored under) and the rest in short.

Options; records must fit all that are given:
  --token TOKEN    of this job, or stored under this token
  --code N         0 accepted, 1 ok, 2 failed, 101 event, 102 events dropped,
                   103 runs skipped, 200 value
  --since TIME     not older (etime, and --etime is the same): an age (90s, 15m, 2h, 3d), a date
                   in UTC (2026-11-21, 2026-11-21T10:00:00Z) or a Unix time
  --ctime TIME     stored at that time or after; it may have happened before
  --id N           behind record N
  --limit N        at most N (1 to 1000): the first with --id, else the newest
  --follow         go on with what comes, also over a restart of the agent, until Ctrl-C
  --json           one record a line, in JSON: id, token, code, etime, ctime, data
";

const PUT: &str = "\
Usage: triton put [OPTIONS] [KEY] DATA

Stores a value in the journal of this device, from which Poseidon gets it, now or when it can be
reached again, and prints the number of its record. DATA that is JSON is stored as such, any other
as a text; up to 64 KiB. With a KEY the value is {\"KEY\": DATA}. '-' reads DATA from standard input,
without the end of its last line; behind '--' it may begin with a dash. Works inside a job as it
stands.

Options:
  --token TOKEN    store it under this; else under the job this runs in (TRITON_JOB), else a new one
  --code N         what it is, by your own count: above 99, 200 unless given
  --json           print number and token in JSON

Exit codes: 0 stored and on the disk, 1 not stored, for the reason that is said, 2 wrong command line.
";

const TRUST: &str = "\
Usage: triton trust [show] [--json]
       triton trust accept [KEY|KEYID]
       triton trust reset
       triton trust rotate

'show' prints the id of this device's key, to compare with what Poseidon shows before it approves the
device; the key of the Poseidon that this device obeys; and the Poseidon that it refused last. 'accept'
binds the device to that one, or to a KEY (base64, as 'poseidon trust show' prints it). 'reset' forgets
Poseidon's key: the next Poseidon that has approved this device is pinned. 'rotate' gives the device a
new key, which the old one vouches for. All work without the daemon; one that runs connects anew.

For root and the agent's user. Exit codes: 0 done, 1 not, for the reason that is said, 2 wrong command
line.
";

const EVENT: &str = "\
Usage: triton event [--host HOST] 'CEF:0|…'
       triton event [--host HOST] -
       triton event --vendor V --product P [--device-version V] --signature ID --name N --severity S
                    [--host HOST] [KEY=VALUE…]
       triton metric NAME VALUE [--ttl SECONDS] [--unit U]
       triton metric NAME --remove

'event' stores an event in the journal of this device, from which Poseidon gets it, now or when it
can be reached again, and prints the number of its record. A syslog prefix before CEF: gives its time
and host; else they are now and this device. '-' takes lines from standard input as they come: what
is wrong with one is said with its number, and the others are stored. With --vendor and the others
the line is built, with all escapes: severity is 0 to 10, Unknown, Low, Medium, High or Very-High.

'metric' adds a number to the heartbeats, for --ttl seconds (300, at most 86400): who measures says it
again in time. NAME has up to 64 letters, digits, '.', '_', '-' and '/'. --remove takes it away.

Exit codes: 0 stored, 1 not (of '-': one or more of the lines), 2 wrong command line.
";

const POLICY: &str = "\
Usage: triton policy show [--json]
       triton policy test [--json] TYPE [OPTIONS] [-- CMD [ARG…]]
       triton policy test [--json] [TYPE] --message FILE

'show' prints the policy of the configuration, and how much the running agent has refused by it. 'test'
says whether a request of Poseidon's would be let through, by which rule (with file and line), and why
the others do not fit. Both read the configuration as it is now; SIGHUP puts it in force.

Options; what the request would have:
  -- CMD [ARG…]    the words of a command        --shell TEXT    a text for the shell
  --script NAME    a script                      --path PATH     a file or folder
  --user USER      to run as                     --group GROUP   and this group
  --env NAME=VALUE a variable; may be repeated   --cwd DIR       a working folder
  --stdin          something to read             --pipe PATH     an engine's pipe
  --message FILE   the payload, or the whole message; - is standard input

Exit codes: 0 allowed, 1 refused, 2 wrong command line, configuration or payload.
";

const SCHEDULE: &str = "\
Usage: triton schedule [--json]

Lists what runs by the device's own clock: the entries of its configuration ([schedule.NAME]) and those
that Poseidon has set, each with where it is FROM, its CRON line and zone, its NEXT and LAST time (UTC)
and how it ended last. NEXT is 'off' for an entry that is switched off, and 'never' where the device
cannot tell its times; STATUS says why. Times that were skipped: triton history --code 103.
";

const ENGINE: &str = "\
Usage: triton engine [--pipe PATH] COMMAND

Writes COMMAND, one line, into the pipe of a monitoring engine: engine.pipe of the configuration, or
PATH. It is a job of the agent, as the engine.command that Poseidon may ask for.

Exit codes: 0 written, 2 wrong command line; others not, for the reason that is said.
";

/// What `help` says of a command; none where there is no such command.
pub fn text(topic: Option<&str>) -> Option<String> {
    let own = match topic.map(|topic| topic.split(' ').next().unwrap_or(topic)) {
        Some("exec") => Some(EXEC),
        Some("history") => Some(HISTORY),
        Some("put") => Some(PUT),
        Some("event" | "metric") => Some(EVENT),
        Some("script") => Some(SCRIPT),
        Some("trust") => Some(TRUST),
        Some("policy") => Some(POLICY),
        Some("inside" | "progress" | "get") => Some(INSIDE),
        Some("schedule") => Some(SCHEDULE),
        Some("engine") => Some(ENGINE),
        // They are told with the others.
        None
        | Some(
            "agent" | "check-config" | "doctor" | "help" | "identifier" | "module" | "run"
            | "status" | "system" | "version",
        ) => None,
        Some(_) => return None,
    };
    let mut text = match own {
        Some(own) => own.to_owned() + "\nOptions of every command:\n  -c, --config FILE\n",
        None => COMMANDS.to_owned(),
    };
    for outside in SETTINGS.iter().filter_map(|s| s.outside.as_ref()) {
        let name = match outside.flag {
            Some(flag) => format!("--{flag} {}", outside.value),
            None => "(environment only)".to_owned(),
        };
        let _ = writeln!(text, "  {name:<24}{:<24}{}", outside.variable, outside.help);
    }
    let _ = writeln!(
        text,
        "  -h, --help              -V, --version\n\n\
         Settings come from defaults, then {DEFAULT_FILE} (or --config, TRITON_CONFIG), then the\n\
         environment, then flags. Exit codes: 0 done, 1 failed, 2 wrong command line."
    );
    Some(text)
}
