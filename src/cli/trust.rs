//! `triton trust`: the device's own key, and whom it obeys. It reads and writes the state folder itself, so it works
//! without the daemon.

use super::{print, printable};
use crate::config::Config;
use crate::dates;
use crate::error::{Error, Result};
use crate::link::settings::poseidon_keys;
use crate::local::client::Client;
use crate::message::Message;
use crate::message::payload::{RESULT, TRUST_RELOAD};
use crate::message::sign::{KeyId, PublicKey};
use crate::sys::poll::after;
use crate::trust::files::{Files, Pin};
use serde_json::json;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The daemon answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether so many words make an act.
pub fn is_act(word: &str, words: usize) -> bool {
    match word {
        "" | "show" | "reset" | "rotate" => words <= 1,
        "accept" => true,
        _ => false,
    }
}

pub fn run(config: &Config, act: &str, key: Option<&str>, as_json: bool) -> Result<u8> {
    let files = Files::new(&config.state);
    match act {
        "accept" => accept(config, &files, key)?,
        "reset" => {
            if files.reset()? {
                print("Poseidon's key is forgotten.\n");
            } else {
                print("No key of Poseidon's was pinned here.\n");
            }
            if config.trust.poseidon_keys.is_empty() {
                print("The next Poseidon that has approved this device by its key is pinned.\n");
            } else {
                print("Those of trust.poseidon_keys stay in force.\n");
            }
        }
        "rotate" => {
            let device = files.rotate()?;
            let id = device.key.public().id();
            print(&format!(
                "This device has a new key, {id}; Poseidon takes it with the next connection.\n"
            ));
        }
        _ => return show(config, &files, as_json),
    }
    tell_the_daemon(config)
}

fn show(config: &Config, files: &Files, as_json: bool) -> Result<u8> {
    let device = files.device()?;
    let own = device.key.public();
    let pin = files.pin();
    let refused = files.refused();
    let configured = poseidon_keys(config)?;
    if as_json {
        let key = |key: &PublicKey| json!({ "keyId": key.id().to_string(), "publicKey": key.to_string() });
        let mut report = json!({
            "device": key(&own),
            "configured": configured.iter().map(key).collect::<Vec<_>>(),
            "refused": refused,
        });
        match &pin {
            Ok(pin) => report["pinned"] = pin.as_ref().map(|pin| key(&pin.key)).into(),
            Err(e) => report["problem"] = e.to_string().into(),
        }
        print(&format!("{report:#}\n"));
        return Ok(u8::from(pin.is_err()));
    }
    let mut out = format!("this device  {}  {own}\n", own.id());
    if !device.keys.is_empty() {
        out.push_str("             a new key, which Poseidon has not seen yet\n");
    }
    for key in &configured {
        let _ = writeln!(
            out,
            "Poseidon     {}  {key}  by trust.poseidon_keys",
            key.id()
        );
    }
    match &pin {
        Ok(Some(pin)) => {
            let _ = writeln!(out, "Poseidon     {}  {}  pinned", pin.key.id(), pin.key);
        }
        Ok(None) if configured.is_empty() => {
            out.push_str(
                "Poseidon     none is pinned: this device obeys any that it connects to\n",
            );
        }
        Ok(None) => {}
        Err(e) => {
            let _ = writeln!(out, "Poseidon     {}", printable(&e.to_string()));
        }
    }
    if let Some(refused) = refused {
        let key = refused.public_key.parse::<PublicKey>();
        let id = key.map_or_else(|_| "damaged".to_owned(), |key| key.id().to_string());
        let _ = writeln!(
            out,
            "refused      {id}  {}  at {}, {}",
            printable(&refused.public_key),
            printable(&refused.place),
            dates::utc(refused.time)
        );
    }
    print(&out);
    Ok(u8::from(pin.is_err()))
}

fn accept(config: &Config, files: &Files, wanted: Option<&str>) -> Result<()> {
    let refused = files.refused();
    let offered = refused.and_then(|refused| refused.public_key.parse::<PublicKey>().ok());
    let key = match wanted {
        None => offered.ok_or_else(|| {
            Error::new("no Poseidon was refused here: name a KEY, as 'poseidon trust show' prints it")
        })?,
        Some(text) => match (text.parse::<PublicKey>(), text.parse::<KeyId>()) {
            (Ok(key), _) => key,
            (_, Ok(id)) => offered.filter(|key| key.id() == id).ok_or_else(|| {
                Error::new(format!(
                    "the key {id} is not that of the Poseidon that was refused last; give the whole KEY, as 'poseidon \
                     trust show' prints it"
                ))
            })?,
            _ => {
                return Err(Error::new(
                    "accept takes a KEY (32 bytes in base64) or the id of the one that was refused last (16 hex digits)",
                ));
            }
        },
    };
    if !config.trust.poseidon_keys.is_empty() && !poseidon_keys(config)?.contains(&key) {
        return Err(Error::new(
            "trust.poseidon_keys says whom this device obeys: put the key there",
        ));
    }
    let passed = Vec::new();
    files.set_pin(&Pin { key, passed })?;
    print(&format!(
        "This device obeys the Poseidon of the key {}.\n",
        key.id()
    ));
    Ok(())
}

/// One that runs connects anew and reads what was changed; where none runs, the next one reads it.
fn tell_the_daemon(config: &Config) -> Result<u8> {
    match UnixStream::connect(&config.socket) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            print("No agent runs here; the next one goes by it.\n");
            return Ok(0);
        }
        _ => {}
    }
    let told = Client::connect(&config.socket, config.limits.message_bytes)
        .and_then(|mut client| client.ask(&Message::new(TRUST_RELOAD), after(PATIENCE)));
    match told {
        Ok(answer) if answer.kind == RESULT => Ok(0),
        Ok(answer) => Err(Error::new(format!(
            "it is stored, but the agent that runs does not take it up (it answers {}): restart it",
            printable(&answer.kind)
        ))),
        Err(e) => Err(Error::because(
            "it is stored, but the agent that runs was not told: restart it",
            e,
        )),
    }
}
