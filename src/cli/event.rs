//! `triton event` and `triton metric`: what scripts have to say about the device.

use super::words::Words;
use super::{history, print, unexpected};
use crate::cef::{self, Cef, Severity, syslog};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::local::client::Client;
use crate::message::Message;
use crate::message::payload::{self, ErrorCode};
use crate::sys::clock;
use crate::sys::poll::after;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// How long the daemon may take to bring events to the disk; a worn flash is slow.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of standard input that go together, and their bytes.
const BATCH: usize = 100;
const BATCH_BYTES: usize = 64 * 1024;
/// Read at once from there.
const PIECE: usize = 64 * 1024;
/// What a line is made of where it is not given, and the field of the header.
const FIELDS: [&str; 6] = [
    "vendor",
    "product",
    "device-version",
    "signature",
    "name",
    "severity",
];
/// What 'triton event' takes besides.
pub const OPTIONS: &[&str] = &[
    "vendor",
    "product",
    "device-version",
    "signature",
    "name",
    "severity",
    "host",
];

pub fn run(config: &Config, words: &Words) -> Result<u8> {
    let built = FIELDS.iter().any(|field| words.option(field).is_some());
    let line = match &words.list[..] {
        _ if built => build(words)?,
        [one] if one == "-" => return from_stdin(config, words.option("host")),
        [one] => one.clone(),
        _ => {
            return Err(Error::new(
                "event takes one line (in quotes), - for standard input, or --vendor, --product, --signature, --name, \
                 --severity and KEY=VALUE…; see 'triton help event'",
            ));
        }
    };
    check(config, line.as_bytes()).map_err(Error::new)?;
    let mut client = Client::connect(&config.socket, config.limits.message_bytes)?;
    let answer = send(&mut client, &event(&line, words.option("host")))?;
    if answer.kind == payload::ERROR {
        return Err(history::refusal(&answer));
    }
    let sequence = history::stored(&answer)?;
    print(&format!("{sequence}\n"));
    Ok(0)
}

/// A line of what the options and words say.
fn build(words: &Words) -> Result<String> {
    let given = |field: &str| words.option(field);
    for field in FIELDS.iter().filter(|field| **field != "device-version") {
        if given(field).is_none() {
            return Err(Error::new(format!("--{field} is missing")));
        }
    }
    let text = |field: &str| given(field).unwrap_or_default().into();
    let severity = Severity::parse(given("severity").unwrap_or_default());
    let mut extension = Vec::new();
    for word in &words.list {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| Error::new(format!("{word:?} is not KEY=VALUE")))?;
        extension.push((key.into(), value.into()));
    }
    let event = Cef {
        version: 0,
        vendor: text("vendor"),
        product: text("product"),
        device_version: text("device-version"),
        signature: text("signature"),
        name: text("name"),
        severity: severity.ok_or_else(|| {
            Error::new("--severity is 0 to 10, Unknown, Low, Medium, High or Very-High")
        })?,
        extension,
    };
    let line = event.to_string();
    event
        .line()
        .map_err(|fault| Error::new(format!("this makes no event: {fault}, in {line:?}")))
}

/// What is wrong with a line, in the daemon's words.
fn check(config: &Config, line: &[u8]) -> std::result::Result<(), String> {
    let most = config.events.line_bytes;
    if line.len() > most {
        return Err(format!(
            "it is longer than {most} bytes (events.line_bytes)"
        ));
    }
    let line = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
    let event = syslog::split(line, clock::now(), 0);
    let checked = event.and_then(|(_, event)| {
        cef::parse(event).map_err(|mut fault| {
            fault.at += line.len() - event.len();
            fault
        })
    });
    checked
        .map(|_| ())
        .map_err(|fault| format!("no CEF event: {fault}"))
}

fn event(line: &str, host: Option<&str>) -> Value {
    json!({ "cef": line, "host": host })
}

fn send(client: &mut Client, asked: &Value) -> Result<Message> {
    let answer = client.ask(&Message::with(payload::EVENT, asked), after(PATIENCE))?;
    match answer.kind.as_str() {
        payload::RESULT | payload::ERROR => Ok(answer),
        other => Err(unexpected(other)),
    }
}

/// Sends each line as it comes; what is wrong with one is said with its number, and the others go.
fn from_stdin(config: &Config, host: Option<&str>) -> Result<u8> {
    let failed = |e| Error::because("cannot read standard input", e);
    let input = std::io::stdin().as_fd().try_clone_to_owned();
    let mut input = BufReader::with_capacity(PIECE, File::from(input.map_err(failed)?));
    let mut client = Client::connect(&config.socket, config.limits.message_bytes)?;
    let (mut number, mut bad) = (0_u32, false);
    let mut batch: Vec<(u32, Value)> = Vec::new();
    let mut bytes = 0;
    loop {
        let mut line = Vec::new();
        // One byte more than may be, and the end of the line.
        let most = config.events.line_bytes as u64 + 3;
        let n = (&mut input).take(most).read_until(b'\n', &mut line);
        let ended = n.map_err(failed)? == 0;
        if !ended {
            number = number.saturating_add(1);
            if line.pop_if(|b| *b == b'\n').is_none() && line.len() as u64 == most {
                skip_line(&mut input).map_err(failed)?;
            }
            line.pop_if(|b| *b == b'\r');
            match check(config, &line) {
                _ if line.is_empty() => {}
                Ok(()) => {
                    bytes += line.len();
                    batch.push((number, event(&String::from_utf8_lossy(&line), host)));
                }
                Err(why) => {
                    eprintln!("triton: line {number}: {why}");
                    bad = true;
                }
            }
        }
        // What there is goes before more is waited for.
        let waits = ended || input.buffer().is_empty();
        if !batch.is_empty() && (waits || batch.len() >= BATCH || bytes >= BATCH_BYTES) {
            bad |= send_batch(&mut client, &mut batch)?;
            bytes = 0;
        }
        if ended {
            return Ok(u8::from(bad));
        }
    }
}

fn skip_line(input: &mut BufReader<File>) -> std::io::Result<()> {
    loop {
        let piece = input.fill_buf()?;
        let end = piece.iter().position(|b| *b == b'\n');
        let n = end.map_or(piece.len(), |at| at + 1);
        input.consume(n);
        if n == 0 || end.is_some() {
            return Ok(());
        }
    }
}

/// Whether one of them was refused. They go together; where that is refused, one by one, to find out which.
fn send_batch(client: &mut Client, batch: &mut Vec<(u32, Value)>) -> Result<bool> {
    let events: Vec<&Value> = batch.iter().map(|(_, event)| event).collect();
    let mut bad = false;
    if send(client, &json!({ "events": events }))?.kind == payload::ERROR {
        for (number, event) in batch.iter() {
            let answer = send(client, event)?;
            if answer.kind == payload::ERROR {
                let refused = history::refusal(&answer);
                let error: Option<payload::Error> = answer.read().ok();
                if error.is_some_and(|e| e.code == ErrorCode::Busy) {
                    let said =
                        format!("line {number} and those behind it are not stored: {refused}");
                    return Err(Error::new(said));
                }
                eprintln!("triton: line {number}: {refused}");
                bad = true;
            }
        }
    }
    batch.clear();
    Ok(bad)
}

/// `triton metric`.
pub fn metric(config: &Config, words: &Words) -> Result<u8> {
    let seconds = |text: &str| {
        let seconds = text.parse::<f64>().ok();
        seconds.ok_or_else(|| Error::new("--ttl takes a number of seconds"))
    };
    let ttl = words.option("ttl").map(seconds).transpose()?;
    let value = match (&words.list[..], words.option("remove")) {
        ([_], Some(_)) => None,
        ([_, value], None) => Some(
            value
                .parse::<f64>()
                .ok()
                .filter(|value| value.is_finite())
                .ok_or_else(|| Error::new(format!("{value:?} is no number")))?,
        ),
        _ => {
            return Err(Error::new(
                "metric takes NAME VALUE, or NAME and --remove; see 'triton help metric'",
            ));
        }
    };
    let asked = json!({
        "name": words.list.first(),
        "value": value,
        "ttl": ttl,
        "unit": words.option("unit"),
    });
    let request = Message::with(payload::METRIC, &asked);
    let mut client = Client::connect(&config.socket, config.limits.message_bytes)?;
    let answer = client.ask(&request, after(PATIENCE))?;
    match answer.kind.as_str() {
        payload::RESULT => Ok(0),
        payload::ERROR => Err(history::refusal(&answer)),
        other => Err(unexpected(other)),
    }
}
