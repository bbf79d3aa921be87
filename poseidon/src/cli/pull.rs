//! `poseidon pull`: a file or a folder of a device, whole or not at all.

mod tree;

use super::bars::{Bar, Bars};
use super::client::{Client, Failure, segment};
use super::follow::{Away, Outage, Patience};
use super::jobs::outcome;
use super::place::{Place, interrupted, last_part};
use super::tables::{bytes, clean};
use crate::time::now;
use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs::{File, FileTimes, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;
use triton::message::id;
use triton::transfer;

/// The server waits for its device for two minutes, unless it was told otherwise; who is silent for longer is gone.
const SILENCE: Duration = Duration::from_mins(5);

#[derive(Args)]
// Each is a flag of the command line, on or off by itself.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Pull {
    /// The device, or several with commas between them, a colon and the path of a file, or of a folder with --recursive
    #[arg(value_name = "NAME:/PATH", value_parser = Place::parse)]
    place: Place,
    /// File or folder for it, the current folder if absent; `-` is standard output. Files of several devices are called DEVICE-FILE
    #[arg(value_name = "LOCAL")]
    local: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long, short)]
    force: bool,
    /// Take the file that a symbolic link points to
    #[arg(long, conflicts_with = "recursive")]
    follow: bool,
    /// Fetch a folder and all that is in it, to where nothing is yet. Symbolic links are made as links, whatever they point to,
    /// and never followed; pipes, sockets and devices are named and left out. The top folder's own time is not fetched
    #[arg(long, short, conflicts_with = "force")]
    recursive: bool,
    /// With --recursive: refuse a folder with symbolic links in it
    #[arg(long, requires = "recursive")]
    no_links: bool,
    #[command(flatten)]
    patience: Patience,
}

impl Pull {
    pub(super) async fn run(self, client: &Client) -> Result<ExitCode, String> {
        if self.place.names.is_empty() {
            return Err("no device is named before the colon: NAME:/path".to_owned());
        }
        if self.place.path.ends_with('/') && !self.recursive {
            return Err(format!(
                "{} names a folder: --recursive fetches it, and 'poseidon ls' lists it",
                clean(&self.place.path)
            ));
        }
        tokio::select! {
            all = self.all(client) => all,
            code = interrupted() => Ok(ExitCode::from(code)),
        }
    }

    async fn all(&self, client: &Client) -> Result<ExitCode, String> {
        let several = self.place.names.len() > 1;
        if several && self.to_stdout() {
            return Err("the files of several devices do not go to standard output".to_owned());
        }
        if self.recursive && self.to_stdout() {
            return Err("a folder does not go to standard output".to_owned());
        }
        let bars = Bars::new();
        let mut code = ExitCode::SUCCESS;
        for name in &self.place.names {
            let done = self.one(client, name, several, &bars).await;
            match done {
                Ok(()) => {}
                Err(e) if several => {
                    bars.say(&format!("{}: {e}", clean(name)));
                    code = ExitCode::FAILURE;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(code)
    }

    fn to_stdout(&self) -> bool {
        self.local.as_deref() == Some(Path::new("-"))
    }

    async fn one(
        &self,
        client: &Client,
        name: &str,
        several: bool,
        bars: &Bars,
    ) -> Result<(), String> {
        let started = now();
        if self.recursive {
            let target = self.target(name, several)?;
            return self.tree(client, name, &target, bars).await;
        }
        let mut fetch = Fetch::new(self, client, name, &self.place.path);
        if self.to_stdout() {
            return Ok(fetch.run(Out::Stdout, bars).await?);
        }
        let target = self.target(name, several)?;
        let shown = target.display();
        if target.exists() && !self.force {
            return Err(format!("{shown} is there already: --force replaces it"));
        }
        let folder = match target.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let failed = |e: std::io::Error| format!("cannot write {shown}: {e}");
        let file = tempfile::Builder::new()
            .prefix(".poseidon-pull-")
            .tempfile_in(folder)
            .map_err(failed)?;
        fetch.run(Out::File(file.as_file()), bars).await?;
        place(file, &target, &fetch, self.force).map_err(failed)?;
        let rate = fetch.given as f64 / (now() - started).max(0.001);
        bars.say(&format!(
            "{}: {} to {shown}, {}/s",
            clean(name),
            bytes(&json!(fetch.given)),
            bytes(&json!(rate))
        ));
        Ok(())
    }

    fn target(&self, name: &str, several: bool) -> Result<PathBuf, String> {
        let file = match last_part(&self.place.path) {
            // All of a device.
            "" => "root",
            file => file,
        };
        // What a device is called must not lead elsewhere.
        let plain: String = name
            .chars()
            .map(|c| if c == '/' || c.is_control() { '_' } else { c })
            .collect();
        let file = if several {
            format!("{plain}-{file}")
        } else {
            file.to_owned()
        };
        let Some(local) = &self.local else {
            return Ok(PathBuf::from(file));
        };
        let folder = local.is_dir() || local.as_os_str().as_encoded_bytes().ends_with(b"/");
        if folder {
            return Ok(local.join(file));
        }
        if several {
            return Err(format!(
                "{} is no folder, and the files of several devices need one",
                local.display()
            ));
        }
        Ok(local.clone())
    }
}

/// As with a file that was made here: what the user gives to nobody stays theirs.
fn umask() -> u32 {
    let mask = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    rustix::process::umask(mask);
    mask.bits()
}

/// Syncs a whole file and gives it its name.
fn place(file: NamedTempFile, target: &Path, of: &Fetch<'_>, force: bool) -> std::io::Result<()> {
    of.describe(file.as_file())?;
    file.as_file().sync_all()?;
    if force {
        file.persist(target).map_err(|e| e.error)?;
    } else {
        file.persist_noclobber(target).map_err(|e| e.error)?;
    }
    let folder = target.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Sets the time of a file or a folder, where the device tells one.
fn set_time(file: &File, mtime: Option<SystemTime>) -> std::io::Result<()> {
    match mtime {
        Some(time) => file.set_times(FileTimes::new().set_modified(time)),
        None => Ok(()),
    }
}

/// Where a file goes.
#[derive(Clone, Copy)]
enum Out<'a> {
    Stdout,
    /// It is empty.
    File(&'a File),
}

impl Out<'_> {
    /// What comes next, at `offset`.
    fn write(self, data: &[u8], offset: u64) -> std::io::Result<()> {
        match self {
            Self::Stdout => std::io::stdout().write_all(data),
            Self::File(file) => transfer::write_with_holes(file, data, offset),
        }
    }

    /// All has come.
    fn finish(self, size: u64) -> std::io::Result<()> {
        match self {
            Self::Stdout => std::io::stdout().flush(),
            // A hole at the end has not made it longer.
            Self::File(file) => file.set_len(size),
        }
    }
}

/// A file on its way, over as many connections as it takes.
struct Fetch<'a> {
    pull: &'a Pull,
    client: Client,
    name: &'a str,
    path: &'a str,
    /// It is one of many: the server or the device may be away before the first answer as well.
    patient: bool,
    given: u64,
    hash: Sha256,
    /// Of the last answer.
    tag: Option<String>,
    job: Option<String>,
    size: u64,
    mode: u32,
    mtime: Option<SystemTime>,
    /// The last answer came to its end.
    complete: bool,
    bar: Option<Bar>,
}

impl<'a> Fetch<'a> {
    fn new(pull: &'a Pull, client: &Client, name: &'a str, path: &'a str) -> Self {
        Self {
            pull,
            client: client.clone(),
            name,
            path,
            patient: false,
            given: 0,
            hash: Sha256::new(),
            tag: None,
            job: None,
            size: 0,
            mode: 0o600,
            mtime: None,
            complete: false,
            bar: None,
        }
    }

    async fn run(&mut self, out: Out<'_>, bars: &Bars) -> Result<(), Failure> {
        let mut outage = Outage::new(self.pull.patience, Away::default());
        loop {
            let before = self.given;
            let failure = match self.connection(out, bars, &mut outage).await {
                Ok(()) => match self.verify().await {
                    Ok(()) => break,
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            if self.tag.is_none() && !self.patient {
                // The first answer: nothing was going on that could be gone on with.
                return Err(failure);
            }
            if self.given > before {
                outage.progress();
            }
            outage.wait(self.why(failure).await).await?;
            self.client = self.client.again();
        }
        self.bar = None;
        out.finish(self.given).map_err(|e| cannot_write(&e))
    }

    /// Reads what one connection brings.
    async fn connection(
        &mut self,
        out: Out<'_>,
        bars: &Bars,
        outage: &mut Outage,
    ) -> Result<(), Failure> {
        if self.complete {
            return Ok(());
        }
        let path = format!(
            "/agents/{}/file?path={}&offset={}&follow={}",
            segment(self.name),
            segment(self.path),
            self.given,
            self.pull.follow
        );
        let mut pieces = self.client.try_bytes(&path, self.tag.as_deref()).await?;
        let header = |name: &str| {
            let value = pieces.headers.get(name);
            value
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        self.job = header("triton-job");
        self.size = header("triton-size")
            .and_then(|size| size.parse().ok())
            .ok_or_else(|| Failure::wrong("the server does not say how large the file is"))?;
        let mode = header("triton-mode").and_then(|mode| u32::from_str_radix(&mode, 8).ok());
        self.mode = mode.unwrap_or(0o600);
        let mtime = header("triton-mtime").and_then(|mtime| mtime.parse().ok());
        self.mtime = mtime.and_then(|mtime| transfer::time(mtime).ok());
        if self.tag.is_none() {
            self.tag = Some(header("etag").unwrap_or_else(|| "*".to_owned()));
            let label = if self.patient { self.path } else { self.name };
            self.bar = Some(bars.of_bytes(&clean(label), self.size));
        } else {
            outage.opened();
        }
        while let Some(data) = pieces.next(SILENCE).await? {
            out.write(&data, self.given).map_err(|e| cannot_write(&e))?;
            self.hash.update(&data);
            self.given += data.len() as u64;
            if let Some(bar) = &mut self.bar {
                bar.set(self.given, "");
            }
        }
        self.complete = true;
        Ok(())
    }

    /// Gives a file the mode and the time that it has there.
    fn describe(&self, file: &File) -> std::io::Result<()> {
        let mode = self.mode & 0o777 & !umask();
        file.set_permissions(Permissions::from_mode(mode))?;
        set_time(file, self.mtime)
    }

    /// Whether what came is what the device has read, by the end of its last job.
    async fn verify(&self) -> Result<(), Failure> {
        let Some(job) = self.ended_job().await? else {
            return Err(Failure::broken(
                "the server ended the file before its job ended",
            ));
        };
        let expected = job["result"]["data"]["sha256"].as_str();
        let own = id::hex(&self.hash.clone().finalize());
        if expected == Some(own.as_str()) {
            return Ok(());
        }
        Err(Failure::wrong(format!(
            "what came of {} has the SHA-256 {own}, and the device says {}: the file is not kept",
            clean(self.path),
            expected.map_or("nothing".to_owned(), clean)
        )))
    }

    async fn ended_job(&self) -> Result<Option<Value>, Failure> {
        let Some(job) = &self.job else {
            return Ok(None);
        };
        let path = format!("/jobs/{}", segment(job));
        let job: Value = self.client.try_get(&path).await?;
        Ok((job["state"] == "ended").then_some(job))
    }

    /// Why the file broke off, where its job tells more.
    async fn why(&self, failure: Failure) -> Failure {
        if !failure.is_open() {
            return failure;
        }
        match self.ended_job().await {
            Ok(Some(job)) if !job["error"].is_null() => Failure::wrong(outcome(&job)),
            _ => failure,
        }
    }
}

fn cannot_write(e: &std::io::Error) -> Failure {
    Failure::wrong(format!("cannot write what came: {e}"))
}
