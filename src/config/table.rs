//! All settings, by name. What the environment and flags can give stands in the order of the help, the settings
//! of a section together.
//!
//! A new setting is a field of [`Config`](super::Config) with its default, and a line here.

use super::setting::Kind::{
    AnyPath, Former, List, Number, Path, Rules, Schedule, Switch, Table, Text,
};
use super::setting::Number::{I32, SomeI32, SomeU32, U32, U64, Usize};
use super::setting::{Kind, One, Outside, Setting};
use super::{LogTo, check};
use crate::message::SMALLEST_LIMIT;
use crate::policy::Action;

/// Longest deadline of a phase, in seconds.
const LONGEST: i64 = 600;

/// Least that `limits.message_bytes` may be.
#[allow(clippy::cast_possible_wrap)]
const SMALLEST_MESSAGE: i64 = SMALLEST_LIMIT as i64;

/// All settings.
pub static SETTINGS: &[Setting] = &[
    Setting {
        key: "url",
        kind: List(One::OrMore, |config, urls| {
            urls.iter().try_for_each(|u| check::url(u))?;
            config.url = urls;
            Ok(())
        }),
        outside: Some(Outside {
            variable: "TRITON_URL",
            flag: Some("url"),
            value: "URL",
            help: "where Poseidon is (ws, wss, http, https); several by comma or by repeating",
        }),
    },
    Setting {
        key: "identifier_file",
        kind: AnyPath(|c| &mut c.identifier_file),
        outside: Some(Outside {
            variable: "TRITON_IDENTIFIER_FILE",
            flag: Some("identifier-file"),
            value: "FILE",
            help: "file with the identifier; the default is one generated in the state folder",
        }),
    },
    Setting {
        key: "identifier",
        kind: Text(|config, text| {
            crate::identity::check_identifier(text)?;
            config.identifier = Some(text.to_owned());
            Ok(())
        }),
        outside: Some(Outside {
            variable: "TRITON_IDENTIFIER",
            // No flag: everyone may read the arguments of a process.
            flag: None,
            value: "IDENTIFIER",
            help: "the identifier itself",
        }),
    },
    Setting {
        key: "state",
        kind: Path(|config, path| {
            config.state = path;
            Ok(())
        }),
        outside: Some(Outside {
            variable: "TRITON_STATE",
            flag: Some("state"),
            value: "DIR",
            help: "folder of the agent's own files",
        }),
    },
    Setting {
        key: "socket",
        kind: Path(|config, path| {
            check::socket_length(&path)?;
            config.socket = path;
            Ok(())
        }),
        outside: Some(Outside {
            variable: "TRITON_SOCKET",
            flag: Some("socket"),
            value: "PATH",
            help: "the local socket",
        }),
    },
    Setting {
        key: "socket_group",
        kind: Text(|config, text| {
            config.socket_group = Some(text.to_owned());
            Ok(())
        }),
        outside: Some(Outside {
            variable: "TRITON_SOCKET_GROUP",
            flag: Some("socket-group"),
            value: "GROUP",
            help: "group that may use the socket",
        }),
    },
    Setting {
        key: "heartbeat_seconds",
        kind: Number(1, 86_400, SomeU32(|c| &mut c.heartbeat_seconds)),
        outside: Some(Outside {
            variable: "TRITON_HEARTBEAT",
            flag: Some("heartbeat"),
            value: "SECONDS",
            help: "time between heartbeats; Poseidon goes by it, unless it is set there for this device",
        }),
    },
    Setting {
        key: "tls.ca_file",
        kind: AnyPath(|c| &mut c.tls.ca_file),
        outside: Some(Outside {
            variable: "TRITON_CA_FILE",
            flag: Some("ca-file"),
            value: "FILE",
            help: "authorities to trust (PEM), in place of the system's",
        }),
    },
    Setting {
        key: "tls.pins",
        kind: List(One::IsNoList, |config, pins| {
            pins.iter().try_for_each(|p| check::pin(p))?;
            config.tls.pins = pins;
            Ok(())
        }),
        outside: Some(Outside {
            variable: "TRITON_PIN",
            flag: Some("pin"),
            value: "PIN",
            help: "sha256//BASE64 or hex of the server's public key; several by comma or by repeating",
        }),
    },
    Setting {
        key: "proxy.url",
        kind: Text(|config, text| {
            check::proxy_url(text)?;
            config.proxy.url = Some(text.to_owned());
            Ok(())
        }),
        outside: Some(Outside {
            variable: "TRITON_PROXY",
            flag: Some("proxy"),
            value: "URL",
            help: "HTTP proxy, or none; the default is https_proxy and no_proxy of the environment",
        }),
    },
    only_file(
        "proxy.no_proxy",
        Text(|config, text| {
            config.proxy.no_proxy = Some(text.to_owned());
            Ok(())
        }),
    ),
    Setting {
        key: "log",
        kind: Text(|config, text| {
            config.log = text
                .parse()
                .map_err(|_| "expected one of error, warn, info, debug, trace, off".to_owned())?;
            Ok(())
        }),
        outside: Some(Outside {
            variable: "TRITON_LOG",
            flag: Some("log"),
            value: "LEVEL",
            help: "error, warn, info, debug, trace or off",
        }),
    },
    Setting {
        key: "log_to",
        kind: Text(|config, text| {
            config.log_to = match text {
                "stderr" => LogTo::Stderr,
                "syslog" => LogTo::Syslog,
                _ => return Err("expected one of stderr, syslog".to_owned()),
            };
            Ok(())
        }),
        outside: Some(Outside {
            variable: "TRITON_LOG_TO",
            flag: Some("log-to"),
            value: "WHERE",
            help: "stderr or syslog, for the daemon's log",
        }),
    },
    only_file(
        "oom_score_adj",
        Number(-1_000, 1_000, SomeI32(|c| &mut c.oom_score_adj)),
    ),
    only_file(
        "labels",
        Table(|config, labels| {
            check::labels(&labels)?;
            config.labels = labels;
            Ok(())
        }),
    ),
    only_file("schedule", Schedule),
    only_file(
        "policy.profile",
        Text(|config, name| config.policy.set_profile(name)),
    ),
    only_file(
        "policy.file",
        Path(|config, path| {
            config.policy.file = Some(path);
            Ok(())
        }),
    ),
    only_file("policy.allow", Rules(Action::Allow)),
    only_file("policy.deny", Rules(Action::Deny)),
    only_file(
        "connect.dns_seconds",
        Number(1, LONGEST, U64(|c| &mut c.connect.dns_seconds)),
    ),
    only_file(
        "connect.tcp_seconds",
        Number(1, LONGEST, U64(|c| &mut c.connect.tcp_seconds)),
    ),
    only_file(
        "connect.proxy_seconds",
        Number(1, LONGEST, U64(|c| &mut c.connect.proxy_seconds)),
    ),
    only_file(
        "connect.tls_seconds",
        Number(1, LONGEST, U64(|c| &mut c.connect.tls_seconds)),
    ),
    only_file(
        "connect.http_seconds",
        Number(1, LONGEST, U64(|c| &mut c.connect.http_seconds)),
    ),
    only_file(
        "connect.hello_seconds",
        Number(1, LONGEST, U64(|c| &mut c.connect.hello_seconds)),
    ),
    only_file(
        "connect.pong_seconds",
        Number(1, LONGEST, U64(|c| &mut c.connect.pong_seconds)),
    ),
    only_file(
        "jobs.workers",
        Number(1, 64, Usize(|c| &mut c.jobs.workers)),
    ),
    only_file("jobs.queue", Number(0, 1_000, Usize(|c| &mut c.jobs.queue))),
    only_file(
        "jobs.grace_seconds",
        Number(0, 3_600, U64(|c| &mut c.jobs.grace_seconds)),
    ),
    only_file(
        "jobs.timeout_seconds",
        Number(0, 31_536_000, U64(|c| &mut c.jobs.timeout_seconds)),
    ),
    only_file(
        "jobs.collect_bytes",
        Number(4_096, 262_144, Usize(|c| &mut c.jobs.collect_bytes)),
    ),
    only_file("jobs.nice", Number(0, 19, I32(|c| &mut c.jobs.nice))),
    only_file(
        "jobs.oom_score_adj",
        Number(0, 1_000, I32(|c| &mut c.jobs.oom_score_adj)),
    ),
    only_file("jobs.remembered", Former(|c| &mut c.jobs.remembered)),
    only_file(
        "journal.folder",
        Path(|config, path| {
            config.journal.folder = Some(path);
            Ok(())
        }),
    ),
    only_file(
        "journal.bytes",
        Number(65_536, 1_073_741_824, U64(|c| &mut c.journal.bytes)),
    ),
    only_file(
        "journal.memory_bytes",
        Number(32_768, 16_777_216, Usize(|c| &mut c.journal.memory_bytes)),
    ),
    only_file("journal.sync", Switch(|c| &mut c.journal.sync)),
    only_file(
        "scripts.interpreters",
        Table(|config, table| {
            check::interpreters(&table)?;
            config.scripts.interpreters.extend(table);
            Ok(())
        }),
    ),
    only_file(
        "engine.pipe",
        Path(|config, path| {
            config.engine.pipe = Some(path);
            Ok(())
        }),
    ),
    only_file(
        "system.reboot_command",
        List(One::IsNoList, |config, words| {
            check::words(&words)?;
            config.system.reboot_command = words;
            Ok(())
        }),
    ),
    only_file(
        "system.shutdown_command",
        List(One::IsNoList, |config, words| {
            check::words(&words)?;
            config.system.shutdown_command = words;
            Ok(())
        }),
    ),
    only_file(
        "update.keys",
        List(One::IsNoList, |config, keys| {
            for key in &keys {
                check::public_key(key)?;
            }
            config.update.keys = keys;
            Ok(())
        }),
    ),
    only_file(
        "update.confirm_seconds",
        Number(5, 86_400, U64(|c| &mut c.update.confirm_seconds)),
    ),
    only_file(
        "trust.poseidon_keys",
        List(One::IsNoList, |config, keys| {
            for key in &keys {
                check::public_key(key)?;
            }
            config.trust.poseidon_keys = keys;
            Ok(())
        }),
    ),
    only_file(
        "plugins.off",
        List(One::IsNoList, |config, names| {
            crate::plugin::builtin::check_off(&names)?;
            config.plugins.off = names;
            Ok(())
        }),
    ),
    only_file(
        "plugins.folder",
        Path(|config, path| {
            config.plugins.folder = path;
            Ok(())
        }),
    ),
    only_file(
        "plugins.hello_seconds",
        Number(1, LONGEST, U64(|c| &mut c.plugins.hello_seconds)),
    ),
    only_file(
        "plugins.patience_seconds",
        Number(1, LONGEST, U64(|c| &mut c.plugins.patience_seconds)),
    ),
    only_file(
        "plugins.rate",
        Number(1, 10_000, U64(|c| &mut c.plugins.rate)),
    ),
    only_file(
        "files.window_bytes",
        Number(65_536, 2_097_152, U64(|c| &mut c.files.window_bytes)),
    ),
    only_file(
        "files.idle_seconds",
        Number(1, 86_400, U64(|c| &mut c.files.idle_seconds)),
    ),
    only_file(
        "files.manifest_entries",
        Number(1, 100_000, Usize(|c| &mut c.files.manifest_entries)),
    ),
    only_file(
        "files.reserve_bytes",
        Number(0, 1_073_741_824, U64(|c| &mut c.files.reserve_bytes)),
    ),
    only_file(
        "events.line_bytes",
        Number(1_024, 65_536, Usize(|c| &mut c.events.line_bytes)),
    ),
    only_file(
        "events.batch_bytes",
        Number(1_024, 262_144, Usize(|c| &mut c.events.batch_bytes)),
    ),
    only_file(
        "events.rate",
        Number(1, 10_000, U32(|c| &mut c.events.rate)),
    ),
    only_file(
        "events.syslog_udp",
        Text(|config, text| {
            config.events.syslog_udp = Some(check::datagram_address(text)?);
            Ok(())
        }),
    ),
    only_file(
        "events.syslog_unix",
        Path(|config, path| {
            check::socket_length(&path)?;
            config.events.syslog_unix = Some(path);
            Ok(())
        }),
    ),
    only_file(
        "events.files",
        List(One::IsNoList, |config, paths| {
            config.events.files = check::followed(paths)?;
            Ok(())
        }),
    ),
    only_file(
        "relay.listen",
        Text(|config, text| {
            config.relay.listen = Some(check::listen_address(text)?);
            Ok(())
        }),
    ),
    only_file(
        "relay.connections",
        Number(1, 256, Usize(|c| &mut c.relay.connections)),
    ),
    only_file("metrics.max", Number(1, 256, Usize(|c| &mut c.metrics.max))),
    only_file(
        "limits.message_bytes",
        Number(
            SMALLEST_MESSAGE,
            16_777_216,
            Usize(|c| &mut c.limits.message_bytes),
        ),
    ),
    only_file(
        "limits.output_bytes",
        Number(32_768, 16_777_216, Usize(|c| &mut c.limits.output_bytes)),
    ),
    only_file(
        "limits.control_messages",
        Number(64, 10_000, Usize(|c| &mut c.limits.control_messages)),
    ),
    only_file(
        "limits.local_clients",
        Number(1, 64, Usize(|c| &mut c.limits.local_clients)),
    ),
];

const fn only_file(key: &'static str, kind: Kind) -> Setting {
    Setting {
        key,
        kind,
        outside: None,
    }
}
