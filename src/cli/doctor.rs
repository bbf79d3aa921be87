//! `triton doctor`: walks the phases of connecting and says what is wrong.

mod journal;

use super::args::Args;
use super::{load, logging, print, printable, status};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::identity;
use crate::link::settings::LinkSettings;
use crate::link::{Connection, Incoming, Kind, Options, Outcome, Resolver, Step, connect, tls};
use crate::local::client::Client;
use crate::message::payload::{AgentVersion, Bye, Hello, WELCOME, Welcome};
use crate::message::{ErrorCode, Message, payload};
use crate::sys::clock;
use crate::sys::poll::{IN, OUT, PollSet, after};
use crate::sys::wake::Wake;
use crate::thread::Crew;
use crate::trust::{Trust, Worth};
use std::sync::Arc;
use std::time::Duration;

/// A line of the report, marked as good, bad or mere information.
fn say(mark: &str, what: &str, text: &str) {
    print(&format!("{mark:<5}{what:<11}{}\n", printable(text)));
}

pub fn run(args: &Args) -> Result<u8> {
    logging::start(log::LevelFilter::Warn);
    let config = match load(args) {
        Ok(config) => config,
        Err(e) => {
            say("BAD", "config", &e.to_string());
            return Ok(1);
        }
    };
    say("ok", "config", "read");
    let mut good = identity_is_good(&config);
    good &= clock_is_good();
    let daemon = status::ask(&config);
    match &daemon {
        Ok(status) => {
            let link = status["link"]["state"].as_str().unwrap_or("unknown");
            say(
                "ok",
                "daemon",
                &format!("it runs as process {}; Poseidon: {link}", status["pid"]),
            );
            if let Some(error) = status["link"]["lastError"].as_str() {
                say("", "", &format!("its last error: {error}"));
            }
        }
        Err(e) => {
            // None that runs is no fault here; one that takes connections and says nothing is.
            let hangs = Client::connect(&config.socket, config.limits.message_bytes).is_ok();
            say(if hangs { "BAD" } else { "info" }, "daemon", &e.to_string());
            good &= !hangs;
        }
    }
    good &= journal::is_good(&config, daemon.as_ref().ok());
    if config.url.is_empty() {
        say("info", "url", "none is configured: the agent works offline");
        return Ok(u8::from(!good));
    }
    good &= walk(&config)?;
    Ok(u8::from(!good))
}

fn identity_is_good(config: &Config) -> bool {
    match identity::identifier(config) {
        Ok((identifier, _)) => {
            let text = format!("{} (fingerprint)", identifier.fingerprint());
            say("ok", "identifier", &text);
            true
        }
        Err(e) => {
            say("BAD", "identifier", &e.to_string());
            false
        }
    }
}

fn clock_is_good() -> bool {
    let good = tls::clock_year(clock::now()) >= tls::BUILD_YEAR;
    let synced = match clock::synced() {
        Some(true) => "synchronised",
        Some(false) => "not synchronised",
        None => "nobody knows whether synchronised",
    };
    if good {
        say("ok", "clock", synced);
    } else {
        let text = format!(
            "it stands before {}: certificates will not be valid yet; set it, or run an NTP client",
            tls::BUILD_YEAR
        );
        say("BAD", "clock", &text);
    }
    good
}

fn walk(config: &Config) -> Result<bool> {
    let settings = match LinkSettings::from_config(config) {
        Ok(settings) => settings,
        Err(e) => {
            say("BAD", "settings", &e.to_string());
            return Ok(false);
        }
    };
    say("info", "tls", &format!("by {}", tls::LIBRARY));
    let wake = || Wake::new().map_err(|e| Error::because("cannot create a wake-up", e));
    let stop = Arc::new(wake()?);
    let crew = Crew::new(|_| {});
    let mut resolver =
        Resolver::new(crew).map_err(|e| Error::because("cannot look up names", e))?;
    let mut observer = |step: Step| match step.outcome {
        Outcome::Begun => {}
        Outcome::Done => say("ok", &step.phase.to_string(), &step.text),
        Outcome::Failed => say("BAD", &step.phase.to_string(), &step.text),
    };
    let trust = Trust::new(&config.state);
    let options = Options {
        device_key: trust.prepare(&settings.poseidon_keys),
        ..settings.options.clone()
    };
    match connect(&options, &mut resolver, &stop, &mut observer) {
        Err(e) => {
            if e.kind == Kind::Unregistered {
                let id = &settings.fingerprint;
                let text = format!("let it in with 'poseidon approve {id} --name NAME'");
                say("", "", &text);
            }
            Ok(false)
        }
        Ok(connection) => greet(connection, config, &settings, &trust),
    }
}

/// `hello` and `welcome`, as the daemon would. A trial does not take the place of the daemon.
fn greet(
    mut connection: Connection,
    config: &Config,
    settings: &LinkSettings,
    trust: &Trust,
) -> Result<bool> {
    let hello = Hello {
        agent: AgentVersion::own(),
        instance: identity::instance(&config.state)?.id,
        time: clock::now(),
        probe: true,
        ..Hello::default()
    };
    let limit = settings.options.deadlines.hello;
    let hello = trust.hello(&hello, connection.challenge());
    let answer = send(&mut connection, &hello)
        .and_then(|()| wait_for_welcome(&mut connection, settings.options.message_limit, limit));
    let good = match answer {
        Ok(Some((message, welcome))) => {
            let verdict = trust.examine(&message, &welcome, connection.peer());
            if let Worth::Foreign(reason) = verdict {
                say("BAD", "trust", &reason);
                return Ok(false);
            }
            if verdict == Worth::Trusted {
                say("ok", "trust", "it is the Poseidon that this device obeys");
            }
            let name = welcome.name.unwrap_or_default();
            say(
                "ok",
                "hello",
                &format!("Poseidon calls this device {name:?}"),
            );
            true
        }
        Ok(None) => {
            let text = format!(
                "no welcome within {} s: a plain server, which knows the first Triton's format only",
                limit.as_secs()
            );
            say("info", "hello", &text);
            true
        }
        Err(reason) => {
            say("BAD", "hello", &reason);
            false
        }
    };
    let bye = Bye {
        reason: "the doctor has seen enough".to_owned(),
    };
    let _ = send(&mut connection, &Message::with(payload::BYE, &bye));
    let _ = connection.close(1000, "");
    Ok(good)
}

fn send(connection: &mut Connection, message: &Message) -> Result<(), String> {
    let text = message.encode().map_err(|e| e.to_string())?;
    connection.send(text).map_err(|e| e.to_string())
}

fn wait_for_welcome(
    connection: &mut Connection,
    limit: usize,
    patience: Duration,
) -> Result<Option<(Message, Welcome)>, String> {
    let deadline = after(patience);
    loop {
        while let Some(incoming) = connection.receive().map_err(|e| e.to_string())? {
            match incoming {
                Incoming::Text(text) => {
                    let message =
                        Message::decode(text.as_bytes(), limit).map_err(|e| e.to_string())?;
                    if message.kind == WELCOME {
                        let welcome = message.read().map_err(|e| e.to_string())?;
                        return Ok(Some((message, welcome)));
                    }
                    if message.kind == payload::ERROR {
                        let error: payload::Error = message.read().map_err(|e| e.to_string())?;
                        if error.code == ErrorCode::Untrusted {
                            let text = error.message;
                            return Err(format!("Poseidon does not believe this device: {text}"));
                        }
                    }
                }
                Incoming::Close { code, reason } => {
                    return Err(format!(
                        "the server closed the connection ({code} {reason:?})"
                    ));
                }
                _ => {}
            }
        }
        let drained = connection.flush().map_err(|e| e.to_string())?;
        let mut set = PollSet::new();
        set.add(connection.fd(), if drained { IN } else { IN | OUT });
        if !set.wait(Some(deadline)).map_err(|e| e.to_string())? {
            return Ok(None);
        }
    }
}
