//! Any text is read as a configuration or refused with a line number.
#![no_main]

use libfuzzer_sys::fuzz_target;
use triton::config::Config;

fuzz_target!(|text: &str| {
    if let Err(error) = Config::from_toml(text) {
        let (line, _) = error.split_once(':').expect("a line number");
        line.parse::<usize>().expect("a line number");
    }
});
