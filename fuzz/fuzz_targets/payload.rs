//! Any text is read as a payload, JSON or XML, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use triton::message::Message;
use triton::message::payload::{
    Cancel, Command, Error, Heartbeat, Hello, JobResult, Output, Welcome,
};

fuzz_target!(|text: &str| {
    let message = Message {
        payload: Some(text.to_owned()),
        ..Message::new("x")
    };
    let _ = message.read::<Command>();
    let _ = message.read::<Cancel>();
    let _ = message.read::<Hello>();
    let _ = message.read::<Welcome>();
    let _ = message.read::<Heartbeat>();
    let _ = message.read::<JobResult>();
    let _ = message.read::<Error>();
    if let Ok(output) = message.read::<Output>() {
        let _ = output.into_bytes();
    }
});
