//! `triton check-config`: what is wrong with the configuration, before the daemon finds out.

use super::args::Args;
use super::{load, logging, print};
use crate::error::{Error, Result};
use crate::identity;
use crate::link::{settings, tls};
use crate::local::server::Socket;
use std::fmt::Write as _;

pub fn run(args: &Args) -> Result<u8> {
    logging::start(log::LevelFilter::Warn);
    let config = load(args)?;
    let mut text = String::from("The configuration is right.\n");
    let urls = settings::targets(&config)?;
    for url in &urls {
        let _ = writeln!(text, "url         {url}");
    }
    if urls.is_empty() {
        text.push_str("url         none: the agent works offline, through the local socket\n");
    }
    let identifier = if config.identifier.is_some() {
        "given in the configuration or the environment".to_owned()
    } else if let Some(path) = &config.identifier_file {
        identity::identifier(&config)?;
        format!("from {}", path.display())
    } else {
        format!(
            "generated, in {}",
            config.state.join("identifier").display()
        )
    };
    let _ = writeln!(text, "identifier  {identifier}");
    let _ = writeln!(text, "state       {}", config.state.display());
    let _ = writeln!(text, "socket      {}", config.socket.display());
    let policy = &config.policy;
    let (profile, rules) = (policy.profile.as_str(), policy.rules.len());
    let from = policy.file.as_ref();
    let from = from.map_or(String::new(), |f| format!(", from {}", f.display()));
    let _ = writeln!(text, "policy      {profile}, {rules} rules{from}");
    for entry in &config.schedule {
        if let Some(Err(why)) = entry.zone() {
            return Err(Error::new(format!(
                "schedule.{}.time_zone: {why}",
                entry.name
            )));
        }
    }
    if let Some(file) = &config.tls.ca_file {
        std::fs::File::open(file).map_err(|e| Error::at("read the authorities in", file, e))?;
        // /dev/null stands for a file that is to come, as on OpenWrt before its certificates are there.
        if file.is_file() {
            tls::check(&settings::tls(&config)?)
                .map_err(|why| Error::new(format!("tls.ca_file: {why}")))?;
        }
    }
    Socket::group(config.socket_group.as_deref())?;
    // Where something is wrong, that is all that is said.
    policy.warn();
    print(&text);
    Ok(0)
}
