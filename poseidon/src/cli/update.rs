//! `poseidon signing-key` and `poseidon update`: new programs for agents.
//!
//! The key stays with the operator: the server gets signatures only, so that who takes the server over cannot give devices a
//! program of his own.

use super::bars::Bars;
use super::client::Client;
use super::many::Many;
use super::run::start;
use super::upload::{Source, Uploads};
use clap::Args;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use triton::message::payload::AGENT_UPDATE;
use triton::message::text::encode;
use triton::update::signed_text;

/// A key file is a hundred bytes long.
const KEY_LIMIT: u64 = 4096;

/// Makes a key that signs programs, or shows the public part of one.
#[derive(Args)]
pub(super) struct SigningKey {
    /// The file of the private key; made if it is not there
    file: PathBuf,
}

impl SigningKey {
    pub(super) fn run(self) -> Result<ExitCode, String> {
        let pair = match std::fs::symlink_metadata(&self.file) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let pair = make(&self.file)?;
                eprintln!(
                    "poseidon: wrote {}; keep it where the server cannot read it, and a copy of it",
                    self.file.display()
                );
                pair
            }
            _ => read(&self.file)?,
        };
        let public = encode(pair.public_key().as_ref());
        super::commands::print(&format!(
            "{public}\n\nDevices trust it by their configuration, /etc/triton/triton.toml:\n\n    [update]\n    keys = [\"{public}\"]\n"
        ))
    }
}

fn make(path: &Path) -> Result<Ed25519KeyPair, String> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| "the system gives no random numbers".to_owned())?;
    let write = || {
        let mut file = std::fs::File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(document.as_ref())?;
        file.sync_all()
    };
    write().map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    parse(document.as_ref(), path)
}

fn read(path: &Path) -> Result<Ed25519KeyPair, String> {
    let failed = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.len() > KEY_LIMIT || !metadata.is_file() {
        return Err(format!(
            "{} is no key of 'poseidon signing-key'",
            path.display()
        ));
    }
    if metadata.mode() & 0o077 != 0 {
        eprintln!("poseidon: others may read {}: chmod 600 it", path.display());
    }
    parse(&std::fs::read(path).map_err(failed)?, path)
}

fn parse(bytes: &[u8], path: &Path) -> Result<Ed25519KeyPair, String> {
    Ed25519KeyPair::from_pkcs8(bytes)
        .map_err(|_| format!("{} is no key of 'poseidon signing-key'", path.display()))
}

/// Gives agents a new program.
#[derive(Args)]
pub(super) struct Update {
    /// NAME or NAME/INSTANCE of each agent
    #[arg(required_unless_present = "on", value_name = "NAME")]
    names: Vec<String>,
    /// The program, for the processor of these devices
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// The private key that signs it: one whose public part is in update.keys of the devices
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The version that the program has to call itself; without it any will do
    #[arg(long, value_name = "VERSION", default_value = "")]
    release: String,
    /// Really, also where it is more than one device and no --canary
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    many: Many,
}

impl Update {
    pub(super) async fn run(self, client: &Client) -> Result<ExitCode, String> {
        let pair = read(&self.key)?;
        if !is_program(&self.file)? {
            return Err(format!(
                "{} is no program that a device could run (it is no ELF file): name the static binary, as cross/build.sh makes it",
                self.file.display()
            ));
        }
        if !self.yes && !self.many.has_canary() {
            self.many.only_one(client, &self.names, "update").await?;
        }
        let bars = Bars::new();
        let source = Source::of_file(&self.file, &bars).await?;
        let what = request(&pair, &source, &self.release);
        let mut uploads = Uploads::new(client, self.many.patience, &bars);
        uploads.send(vec![source]).await?;
        drop(bars);
        start(client, &self.many, &self.names, what).await
    }
}

/// Whether a file begins as programs do, elf(5); for which processor is the device's to see.
fn is_program(file: &Path) -> Result<bool, String> {
    let mut magic = Vec::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(4).read_to_end(&mut magic))
        .map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    Ok(magic == b"\x7fELF")
}

fn request(pair: &Ed25519KeyPair, source: &Source, release: &str) -> Value {
    let mut payload = source.named();
    let sha256 = payload["sha256"].as_str().unwrap_or_default();
    let signature = pair.sign(signed_text(sha256, release).as_bytes());
    payload.insert("signature".to_owned(), encode(signature.as_ref()).into());
    payload.insert("version".to_owned(), release.into());
    json!({"type": AGENT_UPDATE, "payload": payload})
}
