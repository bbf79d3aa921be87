//! Any line as an event, with and without a syslog prefix: what is read can be written, and means the same then.
#![no_main]

use libfuzzer_sys::fuzz_target;
use triton::cef::{parse, syslog};

fuzz_target!(|input: &[u8]| {
    let Ok(line) = std::str::from_utf8(input) else {
        return;
    };
    let now = 1_795_255_200.0;
    let event = match syslog::split(line, now, 3_600) {
        Ok((prefix, event)) => {
            assert!(line.ends_with(event) && event.starts_with("CEF:"));
            assert!(prefix.time.is_none_or(f64::is_finite));
            event
        }
        Err(fault) => {
            assert!(fault.at <= line.len());
            line
        }
    };
    match parse(event) {
        Ok(read) => {
            let written = read.line().expect("what was read can be written");
            assert_eq!(parse(&written).as_ref(), Ok(&read));
        }
        Err(fault) => assert!(fault.at <= event.len() && !fault.what.is_empty()),
    }
});
