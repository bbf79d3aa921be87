//! `triton script ls`: what can be run here. It reads the state folder itself, so it needs no daemon.

use super::print;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::scripts;
use serde_json::json;
use std::fmt::Write as _;

pub fn list(config: &Config, as_json: bool) -> Result<u8> {
    let (revision, found) = scripts::list(&config.state)
        .map_err(|e| Error::at("read the scripts in the state folder", &config.state, e))?;
    if as_json {
        let list: Vec<_> = found
            .iter()
            .map(|(name, size)| json!({ "name": name, "size": size }))
            .collect();
        let text = json!({ "revision": revision, "scripts": list });
        print(&format!("{text}\n"));
        return Ok(0);
    }
    match &revision {
        Some(revision) => eprintln!("revision {revision}"),
        None => eprintln!("there are no scripts: no revision has been brought to this device"),
    }
    let mut text = String::new();
    for (name, size) in &found {
        let _ = writeln!(text, "{size:>9}  {name}");
    }
    print(&text);
    Ok(0)
}
