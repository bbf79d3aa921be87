//! Environment and flags over the file.

use super::{Config, check};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// A setting that the environment or a flag can give.
pub struct Override {
    /// The environment's name for it.
    pub variable: &'static str,
    /// The flag, without dashes.
    pub flag: Option<&'static str>,
    /// What its value is called in the help.
    pub value: &'static str,
    /// One line for the help.
    pub help: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
}

/// All of them, in the order of the help.
pub static OVERRIDES: &[Override] = &[
    Override {
        variable: "TRITON_URL",
        flag: Some("url"),
        value: "URL",
        help: "where Poseidon is (ws, wss, http, https); several by comma or by repeating",
        set: |config, text| {
            let urls = list(text);
            urls.iter().try_for_each(|u| check::url(u))?;
            config.url = urls;
            Ok(())
        },
    },
    Override {
        variable: "TRITON_IDENTIFIER_FILE",
        flag: Some("identifier-file"),
        value: "FILE",
        help: "file with the identifier; the default is one generated in the state folder",
        set: |config, text| {
            config.identifier_file = Some(absolute(text)?);
            config.identifier = None;
            Ok(())
        },
    },
    Override {
        variable: "TRITON_IDENTIFIER",
        // No flag: everyone may read the arguments of a process.
        flag: None,
        value: "IDENTIFIER",
        help: "the identifier itself",
        set: |config, text| {
            crate::identity::check_identifier(text)?;
            config.identifier = Some(text.to_owned());
            Ok(())
        },
    },
    Override {
        variable: "TRITON_STATE",
        flag: Some("state"),
        value: "DIR",
        help: "folder of the agent's own files",
        set: |config, text| {
            config.state = absolute(text)?;
            Ok(())
        },
    },
    Override {
        variable: "TRITON_SOCKET",
        flag: Some("socket"),
        value: "PATH",
        help: "the local socket",
        set: |config, text| {
            let path = absolute(text)?;
            check::socket_length(&path)?;
            config.socket = path;
            Ok(())
        },
    },
    Override {
        variable: "TRITON_SOCKET_GROUP",
        flag: Some("socket-group"),
        value: "GROUP",
        help: "group that may use the socket",
        set: |config, text| {
            config.socket_group = Some(text.to_owned());
            Ok(())
        },
    },
    Override {
        variable: "TRITON_HEARTBEAT",
        flag: Some("heartbeat"),
        value: "SECONDS",
        help: "time between heartbeats, unless Poseidon says otherwise",
        set: |config, text| {
            config.heartbeat_seconds = check::heartbeat(text)?;
            Ok(())
        },
    },
    Override {
        variable: "TRITON_CA_FILE",
        flag: Some("ca-file"),
        value: "FILE",
        help: "authorities to trust (PEM), in place of the system's",
        set: |config, text| {
            config.tls.ca_file = Some(absolute(text)?);
            Ok(())
        },
    },
    Override {
        variable: "TRITON_PIN",
        flag: Some("pin"),
        value: "PIN",
        help: "sha256//BASE64 or hex of the server's public key; several by comma or by repeating",
        set: |config, text| {
            let pins = list(text);
            pins.iter().try_for_each(|p| check::pin(p))?;
            config.tls.pins = pins;
            Ok(())
        },
    },
    Override {
        variable: "TRITON_PROXY",
        flag: Some("proxy"),
        value: "URL",
        help: "HTTP proxy, or none; the default is https_proxy and no_proxy of the environment",
        set: |config, text| {
            check::proxy_url(text)?;
            config.proxy.url = Some(text.to_owned());
            Ok(())
        },
    },
    Override {
        variable: "TRITON_LOG",
        flag: Some("log"),
        value: "LEVEL",
        help: "error, warn, info, debug, trace or off",
        set: |config, text| {
            config.log = check::level(text)?;
            Ok(())
        },
    },
    Override {
        variable: "TRITON_LOG_TO",
        flag: Some("log-to"),
        value: "WHERE",
        help: "stderr or syslog, for the daemon's log",
        set: |config, text| {
            config.log_to = check::log_to(text)?;
            Ok(())
        },
    },
];

fn list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Paths on the command line may be relative; the daemon must not depend on where it was started.
fn absolute(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(Path::new(text)).map_err(|e| format!("expected a path: {e}"))
}

pub(super) fn apply(
    config: &mut Config,
    environment: &dyn Fn(&str) -> Option<String>,
    flags: &[(&'static Override, String)],
) -> Result<()> {
    for over in OVERRIDES {
        // An empty variable is an unset one, as service files write it.
        if let Some(value) = environment(over.variable).filter(|v| !v.is_empty()) {
            (over.set)(config, &value).map_err(|reason| wrong(over.variable, &reason))?;
        }
    }
    for over in OVERRIDES {
        let mut values = flags
            .iter()
            .filter(|(o, _)| std::ptr::eq(*o, over))
            .map(|(_, value)| value.as_str());
        let Some(first) = values.next() else { continue };
        // A flag given again adds to a list, else the last one counts.
        let value = values.fold(first.to_owned(), |all, next| {
            if matches!(over.flag, Some("url" | "pin")) {
                format!("{all},{next}")
            } else {
                next.to_owned()
            }
        });
        let name = format!("--{}", over.flag.unwrap_or_default());
        (over.set)(config, &value).map_err(|reason| wrong(&name, &reason))?;
    }
    Ok(())
}

fn wrong(name: &str, reason: &str) -> Error {
    Error::new(format!("{name}: {reason}"))
}
