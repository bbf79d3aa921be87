//! Any text is read as a payload, JSON or XML, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use triton::message::Message;
use triton::message::payload::{
    Cancel, Command, DataRequest, DataResponse, Error, FileRequest, Heartbeat, Hello, JobResult,
    Output, Welcome,
};
use triton::transfer::manifest::Manifest;

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
    let _ = message.read::<DataRequest>();
    let _ = message.read::<DataResponse>();
    let _ = Manifest::read(text, 100);
    if let Ok(request) = message.read::<FileRequest>()
        && let Some(entries) = request.entries
    {
        let _ = Manifest::check(entries.0, 100);
    }
    if let Ok(output) = message.read::<Output>() {
        let _ = output.into_bytes();
    }
});
