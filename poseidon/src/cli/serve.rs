//! `poseidon serve`.

use crate::cef::forward::{self, Target};
use crate::doors::origin::Network;
use crate::server::{self, Settings, life};
use clap::Args;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use triton::service::notify::{self, Notify};

#[derive(Args)]
pub(super) struct Serve {
    /// Address and port; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8787", value_name = "ADDR")]
    listen: String,
    /// Certificate chain, PEM
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Key of the certificate, PEM
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// A proxy in front ends TLS: listen without it on any address
    #[arg(long, conflicts_with = "tls_cert")]
    plain: bool,
    /// Address or network of a proxy whose X-Forwarded-For and X-Forwarded-Proto are believed; can be repeated; with --plain and none, those on this machine
    #[arg(long, value_name = "ADDR")]
    trusted_proxy: Vec<Network>,
    /// File with the key that secrets are encrypted with; else secret.key in the data folder
    #[arg(long, env = "POSEIDON_SECRET_KEY_FILE", value_name = "FILE")]
    secret_key_file: Option<PathBuf>,
    /// Acts in the audit log that are kept; the oldest make room
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1000..), value_name = "N")]
    audit_rows: u64,
    /// Days for which they are kept
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500), value_name = "DAYS")]
    audit_days: u32,
    /// Seconds between an agent's heartbeats, unless the device asks for others or `poseidon set` has named some
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=3600), value_name = "SECONDS")]
    heartbeat_seconds: u32,
    /// Agents that may be connected at a time
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    max_agents: usize,
    /// Bytes of output that are stored for a job
    #[arg(long, default_value_t = 2 << 30, value_name = "BYTES")]
    job_output_bytes: u64,
    /// Bytes of output that are stored in all; the oldest make room
    #[arg(long, default_value_t = 8 << 30, value_name = "BYTES")]
    output_store_bytes: u64,
    /// Records of the agents' histories that are kept; the oldest make room
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    history_records: u64,
    /// A file that is being fetched waits so long for a device that says nothing or is away: 90s, 15m
    #[arg(long, default_value = "2m", value_parser = super::length, value_name = "DURATION")]
    file_patience: std::time::Duration,
    /// A batch waits so long for a device that went while its job ran, then that has failed: 90s, 15m
    #[arg(long, default_value = "15m", value_parser = super::length, value_name = "DURATION")]
    batch_patience: std::time::Duration,
    /// Bytes of one file that is pushed, or of data that is given
    #[arg(long, default_value_t = 2 << 30, value_name = "BYTES")]
    blob_bytes: u64,
    /// Bytes of all files, scripts and large data; what nothing refers to goes after a day
    #[arg(long, default_value_t = 16 << 30, value_name = "BYTES")]
    blob_store_bytes: u64,
    /// Bytes of CEF events that are kept, with their index; the oldest make room
    #[arg(long, default_value_t = 2 << 30, value_parser = clap::value_parser!(u64).range(1 << 20..), value_name = "BYTES")]
    events_bytes: u64,
    /// Hand events on to a SIEM, by syslog over TLS or TCP
    #[arg(
        long,
        env = "POSEIDON_SIEM",
        value_name = "tls://HOST:PORT|tcp://HOST:PORT"
    )]
    siem: Option<Target>,
    /// Certificates of the SIEM's own authority, PEM
    #[arg(long, requires = "siem", value_name = "FILE")]
    siem_ca: Option<PathBuf>,
    /// Only events of this severity and above, and those whose severity is unknown
    #[arg(long, requires = "siem", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=10), value_name = "N")]
    siem_severity: u8,
    /// Days for which metrics of heartbeats are kept, in steps of 15 minutes after the first
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650), value_name = "DAYS")]
    metrics_days: u32,
}

impl Serve {
    pub(super) async fn run(self, data: PathBuf) -> Result<ExitCode, String> {
        let variable = |name: &str| std::env::var_os(name);
        let mut notify = Notify::new(&variable);
        let broken = |e| format!("cannot wait for signals: {e}");
        let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
        let server = server::start(Settings {
            listen: self.listen,
            data,
            tls: self.tls_cert.zip(self.tls_key),
            plain: self.plain,
            trusted_proxies: self.trusted_proxy,
            secret_key_file: self.secret_key_file,
            audit_rows: self.audit_rows,
            audit_days: self.audit_days,
            heartbeat_seconds: self.heartbeat_seconds,
            max_agents: self.max_agents,
            job_output_bytes: self.job_output_bytes,
            output_store_bytes: self.output_store_bytes,
            history_records: self.history_records,
            file_patience: self.file_patience,
            batch_patience: self.batch_patience,
            blob_bytes: self.blob_bytes,
            blob_store_bytes: self.blob_store_bytes,
            events_bytes: self.events_bytes,
            siem: self.siem.map(|target| forward::Settings {
                target,
                ca: self.siem_ca,
                severity: self.siem_severity,
            }),
            metrics_days: self.metrics_days,
        })
        .await?;
        let scheme = server
            .url
            .split_once(':')
            .map_or("http", |(scheme, _)| scheme);
        let mut out = std::io::stdout();
        // Nobody may read it: the server runs all the same.
        let _ = writeln!(
            out,
            "Poseidon {} listens on {scheme}://{}\nThe admin token is in {}",
            env!("CARGO_PKG_VERSION"),
            server.address,
            server.data.token_path().display()
        )
        .and_then(|()| out.flush());
        notify.ready(&format!("listens on {scheme}://{}", server.address));
        let period = notify
            .is_heard()
            .then(|| notify::watchdog(&variable, std::process::id()))
            .flatten();
        let mut signs = period.map(|period| life::signs(server.app().db.clone(), period));
        let mut sign = async || match &mut signs {
            Some(signs) => signs.recv().await,
            None => std::future::pending().await,
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => break log::info!("SIGTERM: stopping"),
                _ = interrupt.recv() => break log::info!("SIGINT: stopping"),
                Some(()) = sign() => { notify.alive(); }
            }
        }
        notify.stopping();
        server.stop().await;
        Ok(ExitCode::SUCCESS)
    }
}
