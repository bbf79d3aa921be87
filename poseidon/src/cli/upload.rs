//! Content on its way to the server: what it has already is not sent.

use crate::cli::bars::Bars;
use crate::cli::client::{Client, Failure};
use crate::cli::follow::{Away, Outage, Patience};
use axum::body::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use triton::message::id;

/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;
/// Files that are hashed without a bar.
const SMALL: u64 = 16 << 20;

/// Content with its hash.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) sha256: String,
    pub(super) size: u64,
    place: Place,
}

#[derive(Clone)]
enum Place {
    File(PathBuf),
    Bytes(Bytes),
}

impl Source {
    /// Reads a file to know its hash. Ctrl-C gets its turn between the pieces.
    pub(super) async fn of_file(path: &Path, bars: &Bars) -> Result<Self, String> {
        let failed = |e: io::Error| format!("cannot read {}: {e}", path.display());
        let mut file = File::open(path).map_err(failed)?;
        let expected = file.metadata().map_err(failed)?.len();
        let name = format!("reading {}", path.display());
        let mut bar = (expected > SMALL).then(|| bars.of_bytes(&name, expected));
        let (mut hash, mut size) = (Sha256::new(), 0);
        let mut piece = vec![0; PIECE];
        loop {
            let n = file.read(&mut piece).map_err(failed)?;
            if n == 0 {
                break;
            }
            hash.update(&piece[..n]);
            size += n as u64;
            if let Some(bar) = &mut bar {
                bar.set(size, "");
            }
            tokio::task::yield_now().await;
        }
        Ok(Self {
            sha256: id::hex(&hash.finalize()),
            size,
            place: Place::File(path.to_owned()),
        })
    }

    /// A file whose hash was taken before.
    pub(super) fn known(sha256: &str, size: u64, path: PathBuf) -> Self {
        Self {
            sha256: sha256.to_owned(),
            size,
            place: Place::File(path),
        }
    }

    pub(super) fn of_bytes(bytes: Vec<u8>) -> Self {
        Self {
            sha256: id::hex(&Sha256::digest(&bytes)),
            size: bytes.len() as u64,
            place: Place::Bytes(bytes.into()),
        }
    }

    /// The fields by which a request names it.
    pub(super) fn named(&self) -> Map<String, Value> {
        let fields = json!({"ref": format!("sha256:{}", self.sha256), "size": self.size, "sha256": self.sha256});
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    fn name(&self) -> String {
        match &self.place {
            Place::File(path) => path.display().to_string(),
            Place::Bytes(_) => "the list of files".to_owned(),
        }
    }
}

/// The way of content to the server.
pub(super) struct Uploads<'a> {
    client: Client,
    patience: Patience,
    bars: &'a Bars,
}

impl<'a> Uploads<'a> {
    pub(super) fn new(client: &Client, patience: Patience, bars: &'a Bars) -> Self {
        Self {
            client: client.clone(),
            patience,
            bars,
        }
    }

    /// Sends what the server does not have, each content once.
    pub(super) async fn send(&mut self, sources: Vec<Source>) -> Result<(), String> {
        let mut seen = HashSet::new();
        let total = sources.iter().map(|source| source.size).sum();
        let mut bar = self.bars.of_bytes("to Poseidon", total);
        let mut before = 0;
        for source in sources {
            if seen.insert(source.sha256.clone()) {
                let step = |done: u64| bar.set(before + done, "");
                self.one(&source, step)
                    .await
                    .map_err(|failure| format!("{} is not sent: {failure}", source.name()))?;
            }
            before += source.size;
            bar.set(before, "");
        }
        Ok(())
    }

    async fn one(&mut self, source: &Source, mut step: impl FnMut(u64)) -> Result<(), Failure> {
        let path = format!("/blobs/{}", source.sha256);
        let mut outage = Outage::new(self.patience, Away::default());
        loop {
            let failure = match self.attempt(&path, source, &mut step).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            outage.wait(failure).await?;
            self.client = self.client.again();
        }
    }

    async fn attempt(
        &self,
        path: &str,
        source: &Source,
        step: &mut impl FnMut(u64),
    ) -> Result<(), Failure> {
        if self.client.try_has(path).await? {
            return Ok(());
        }
        let sent = Arc::new(AtomicU64::new(0));
        let upload = async {
            let _: Value = match &source.place {
                Place::Bytes(bytes) => self.client.try_put(path, bytes.clone()).await?,
                Place::File(file) => {
                    let file = File::open(file)
                        .map_err(|e| Failure::wrong(format!("it cannot be read: {e}")))?;
                    let size = source.size;
                    self.client.try_put_file(path, file, size, &sent).await?
                }
            };
            Ok(())
        };
        tokio::pin!(upload);
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                done = &mut upload => return done,
                _ = tick.tick() => step(sent.load(Ordering::Relaxed)),
            }
        }
    }
}
