//! The server: listens, answers, stops in order.

pub mod data;
pub mod life;
pub mod limits;
pub mod page;
pub mod tls;

use crate::agents::named::Manifests;
use crate::agents::registry::Registry;
use crate::agents::{provision, pull, recorder};
use crate::batches::{self, Batches};
use crate::blobs::{self, Blobs};
use crate::cef::{self, Cef, forward};
use crate::data::Data;
use crate::doors::Doors;
use crate::doors::audit::Audit;
use crate::doors::origin::{Network, way};
use crate::events::Events;
use crate::jobs::Jobs;
use crate::jobs::spool::Spools;
use crate::keyring::Keyring;
use crate::metrics::{self, Metrics};
use crate::repositories::Repositories;
use crate::schedules::Schedules;
use crate::secrets;
use crate::store::batches::BatchStore as _;
use crate::store::doors::DoorStore as _;
use crate::store::events::EventStore as _;
use crate::store::sqlite::Sqlite;
use crate::store::{Db, Store as _};
use crate::time::now;
use axum::Router;
use axum::body::Body;
use data::DataDir;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use limits::{Attempts, Peer, Tls};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt as _;

/// Connections beyond the agents: people, programs, devices that are not registered.
const MORE_CONNECTIONS: usize = 2000;
/// Connections that wait in the kernel for being accepted: after a restart all agents come at once. The kernel has
/// its own bound, `net.core.somaxconn`.
const BACKLOG: u32 = 4096;
/// Time for a TLS handshake, and for the head of a request.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// Largest head of a request, and a connection's buffer before it becomes a WebSocket.
const HEAD_BYTES: usize = 16 << 10;
/// Time for agents and readers to be told of the stop.
const STOP_WAIT: Duration = Duration::from_secs(3);
/// What changes with each heartbeat is stored so often.
const FLUSH: Duration = Duration::from_mins(1);
/// What comes and goes is stored together with what comes and goes at the same time.
const GATHER: Duration = Duration::from_millis(250);
/// Rows in one call to the store.
const BATCH: usize = 500;
/// Records that are deleted in one call to the store.
const PRUNE: u32 = 2000;
/// Ended jobs that are remembered.
const KEEP_JOBS: u64 = 100_000;

/// What a server is told at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address and port; port 0 takes a free one.
    pub listen: String,
    /// The data folder.
    pub data: PathBuf,
    /// Certificate chain and key, PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// A proxy in front ends TLS: plain is right on any address.
    pub plain: bool,
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed; with `plain` and none, those on this
    /// machine.
    pub trusted_proxies: Vec<Network>,
    /// Where the key is that secrets are encrypted with; `secret.key` in the data folder if nowhere.
    pub secret_key_file: Option<PathBuf>,
    /// Acts in the audit log that are kept…
    pub audit_rows: u64,
    /// …for so many days.
    pub audit_days: u32,
    /// Seconds between heartbeats.
    pub heartbeat_seconds: u32,
    /// Agents that may be connected.
    pub max_agents: usize,
    /// Bytes of output that are stored for a job.
    pub job_output_bytes: u64,
    /// Bytes of output that are stored in all.
    pub output_store_bytes: u64,
    /// Records of the agents' journals that are kept.
    pub history_records: u64,
    /// How long a file that is being fetched waits for a device that says nothing, or is away.
    pub file_patience: Duration,
    /// How long a batch waits for a device that went while its job ran.
    pub batch_patience: Duration,
    /// Bytes of one blob.
    pub blob_bytes: u64,
    /// Bytes of all blobs.
    pub blob_store_bytes: u64,
    /// Bytes of CEF events that are kept, with their index.
    pub events_bytes: u64,
    /// Where they are handed on to.
    pub siem: Option<forward::Settings>,
    /// Days for which metrics are kept.
    pub metrics_days: u32,
}

impl Settings {
    /// The defaults, for a data folder.
    pub fn new(data: PathBuf) -> Self {
        Self {
            listen: "127.0.0.1:8787".to_owned(),
            data,
            tls: None,
            plain: false,
            trusted_proxies: Vec::new(),
            secret_key_file: None,
            audit_rows: 100_000,
            audit_days: 365,
            heartbeat_seconds: 15,
            max_agents: 20_000,
            job_output_bytes: 2 << 30,
            output_store_bytes: 8 << 30,
            history_records: 100_000,
            file_patience: Duration::from_mins(2),
            batch_patience: Duration::from_mins(15),
            blob_bytes: 2 << 30,
            blob_store_bytes: 16 << 30,
            events_bytes: 2 << 30,
            siem: None,
            metrics_days: 30,
        }
    }
}

/// What all parts of a running server share.
pub struct App {
    /// As it was started.
    pub settings: Settings,
    /// The agents.
    pub registry: Registry,
    /// Poseidon's own key.
    pub keyring: Keyring,
    /// The jobs.
    pub jobs: Arc<Jobs>,
    /// Content by its hash.
    pub blobs: Arc<Blobs>,
    /// The scripts of each identifier.
    pub repositories: Repositories,
    /// What else it was given.
    pub data: Data,
    /// What its devices run by their own clocks.
    pub schedules: Schedules,
    /// What is asked of many devices at once.
    pub batches: Batches,
    /// CEF events.
    pub cef: Cef,
    /// What heartbeats say over time.
    pub metrics: Metrics,
    /// The store.
    pub db: Db,
    /// The fleet as it changes.
    pub events: Events,
    /// Room for records on their way into the store, in bytes.
    pub record_room: Arc<Semaphore>,
    /// Which content open jobs name.
    pub manifests: Manifests,
    /// Room for files that are being fetched.
    pub pull_room: Arc<Semaphore>,
    /// Failed attempts to connect.
    pub attempts: Attempts,
    /// Who may call, and as what.
    pub doors: Doors,
    /// What was done.
    pub audit: Audit,
    /// Becomes true when the server stops.
    pub stop: watch::Receiver<bool>,
}

/// A running server.
pub struct Server {
    /// Where it is reached from this machine.
    pub url: String,
    /// The real address and port.
    pub address: SocketAddr,
    /// The data folder; locked while the server runs.
    pub data: DataDir,
    app: Arc<App>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts a server.
pub async fn start(mut settings: Settings) -> Result<Server, String> {
    if settings.plain && settings.trusted_proxies.is_empty() {
        // The proxy that `plain` speaks of is on this machine, unless it is told where it is.
        settings.trusted_proxies = ["127.0.0.0/8", "::1"]
            .iter()
            .filter_map(|network| network.parse().ok())
            .collect();
    }
    let address = resolve(&settings).await?;
    let tls = match &settings.tls {
        Some((certificates, key)) => Some(tls::own(certificates, key)?),
        None => None,
    };
    let siem = match &settings.siem {
        Some(siem) => Some((siem.clone(), siem.target.connector(siem.ca.as_deref())?)),
        None => None,
    };
    raise_descriptor_limit();
    let data = DataDir::open(&settings.data)?;
    let token = data.admin_token()?;
    let listener = listen(address).map_err(|e| format!("cannot listen on {address}: {e}"))?;
    let address = listener
        .local_addr()
        .map_err(|e| format!("cannot listen on {address}: {e}"))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = if address.ip().is_unspecified() {
        format!("{scheme}://localhost:{}", address.port())
    } else {
        format!("{scheme}://{address}")
    };
    let fingerprint = tls.as_ref().map(|own| own.fingerprint.as_str());
    if let Err(e) = data.write_address(&url, fingerprint) {
        // On a full disk, say: agents and the API do not need the file.
        log::warn!("{e}; commands find this server with --url {url} only");
    }

    let path = data.path().join("poseidon.db");
    let failed = |e: String| format!("cannot use the store {}: {e}", path.display());
    let mut store = Sqlite::open(&path).map_err(|e| failed(e.to_string()))?;
    let mut snapshot = store.load().map_err(|e| failed(e.to_string()))?;
    let keyring = Keyring::open(data.path())?;
    let pins = snapshot
        .device_keys
        .iter()
        .filter(|key| key.instance.is_empty());
    let pinned: HashSet<&str> = pins.map(|key| key.identifier.as_str()).collect();
    keyring.tell_loss(pinned.len());
    let open_jobs = std::mem::take(&mut snapshot.open_jobs);
    let open_batches = store.open_batches().map_err(|e| failed(e.to_string()))?;
    let newest = store
        .event_state()
        .map_err(|e| failed(e.to_string()))?
        .newest;
    let keys = secrets::prepare(&data, settings.secret_key_file.as_deref(), &mut store)?;
    let tokens = store.tokens().map_err(|e| failed(e.to_string()))?;
    let sessions = store.sessions().map_err(|e| failed(e.to_string()))?;
    let db = Db::start(Box::new(store)).map_err(|e| failed(e.to_string()))?;
    let doors = Doors::new(db.clone(), &token, tokens, sessions).map_err(failed)?;
    let output = data.path().join("output");
    let spools = Spools::open(
        output.clone(),
        settings.job_output_bytes,
        settings.output_store_bytes,
    )
    .map_err(|e| format!("cannot use the folder {}: {e}", output.display()))?;
    let content = data.path().join("blobs");
    let blobs = Blobs::start(
        content.clone(),
        settings.blob_bytes,
        settings.blob_store_bytes,
    )
    .map_err(|e| format!("cannot use the folder {}: {e}", content.display()))?;
    let events = Events::default();
    let (stop, stopping) = watch::channel(false);
    let app = Arc::new(App {
        keyring,
        registry: Registry::new(snapshot, events.clone(), settings.heartbeat_seconds),
        jobs: Jobs::new(db.clone(), events.clone(), spools, open_jobs),
        blobs,
        repositories: Repositories::new(db.clone(), events.clone()),
        data: Data::new(db.clone(), keys),
        schedules: Schedules::new(db.clone(), events.clone()),
        cef: Cef::new(newest),
        metrics: Metrics::default(),
        batches: Batches::new(db.clone(), events.clone()),
        events,
        record_room: Arc::new(Semaphore::new(recorder::ALL_BYTES)),
        manifests: Manifests::default(),
        pull_room: Arc::new(Semaphore::new(pull::MAX_PULLS)),
        attempts: Attempts::default(),
        doors,
        audit: Audit::new(db.clone()),
        stop: stopping,
        db,
        settings,
    });
    batches::driver::resume(&app, app.batches.adopt(open_batches));
    let mut tasks = vec![
        tokio::spawn(accept(app.clone(), listener, tls.map(|own| own.acceptor))),
        tokio::spawn(flush(app.clone())),
        tokio::spawn(expire(app.clone())),
        tokio::spawn(provision::watch(app.clone())),
        tokio::spawn(cef::prune(app.clone())),
        tokio::spawn(metrics::keep(app.clone())),
    ];
    if let Some((siem, tls)) = siem {
        tasks.push(tokio::spawn(forward::run(app.clone(), siem, tls)));
    }
    Ok(Server {
        url,
        address,
        data,
        app,
        stop,
        tasks,
    })
}

impl Server {
    /// What the parts share, for tests and the demo.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Stops in order: no new connections, `bye` to the agents, the last state into the store.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        self.app.registry.close_all(None, "stopping");
        let deadline = Instant::now() + STOP_WAIT;
        while self.app.registry.connections() + self.app.batches.driven() > 0
            && Instant::now() < deadline
        {
            sleep(Duration::from_millis(10)).await;
        }
        for task in self.tasks {
            let _ = timeout(STOP_WAIT, task).await;
        }
        store_changed(&self.app, true).await;
        // Behind the rows of their instances.
        self.app.metrics.flush(&self.app, now()).await;
    }
}

/// Returns when the server stops.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the server is gone altogether.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn resolve(settings: &Settings) -> Result<SocketAddr, String> {
    let listen = &settings.listen;
    let address = tokio::net::lookup_host(listen)
        .await
        .map_err(|e| format!("--listen {listen}: {e}; an address and a port are expected"))?
        .next()
        .ok_or_else(|| format!("--listen {listen} is no address"))?;
    if settings.tls.is_none() && !settings.plain && !address.ip().is_loopback() {
        return Err(format!(
            "--listen {listen} can be reached from other machines, and without TLS everybody between could read the \
             identifiers and give commands: give --tls-cert and --tls-key, or --plain if a proxy in front ends TLS"
        ));
    }
    Ok(address)
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // As `TcpListener::bind` does it: a restart must not wait for old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Each agent is a descriptor; the soft limit of 1024 is meant for programs that use select(2).
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        log::warn!("the limit of open files stays as it is: {e}");
    }
}

async fn accept(app: Arc<App>, listener: TcpListener, tls: Option<tokio_rustls::TlsAcceptor>) {
    let router = crate::api::router(&app);
    let room = Arc::new(Semaphore::new(app.settings.max_agents + MORE_CONNECTIONS));
    let mut stop = app.stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => return,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of descriptors, most likely: the connection waits in the kernel meanwhile.
                log::error!("cannot accept a connection: {e}");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            log::warn!("too many connections, {address} is turned away");
            continue;
        };
        let (app, router, tls) = (app.clone(), router.clone(), tls.clone());
        tokio::spawn(async move {
            serve(&app, router, tls, socket, address).await;
            drop(permit);
        });
    }
}

async fn serve(
    app: &Arc<App>,
    router: Router,
    tls: Option<tokio_rustls::TlsAcceptor>,
    socket: TcpStream,
    address: SocketAddr,
) {
    if let Err(e) = socket.set_nodelay(true) {
        log::debug!("{address}: {e}");
    }
    let Some(tls) = tls else {
        return http(app, router, socket, address, false).await;
    };
    match timeout(HEAD_WAIT, tls.accept(socket)).await {
        Ok(Ok(socket)) => http(app, router, socket, address, true).await,
        Ok(Err(e)) => log::info!("{address}: the TLS handshake failed: {e}"),
        Err(_) => log::info!("{address}: the TLS handshake took too long"),
    }
}

async fn http<S>(app: &Arc<App>, router: Router, socket: S, address: SocketAddr, tls: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = app.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<_>| {
        let mut request = request.map(Body::new);
        let way = way(
            request.headers(),
            address,
            tls,
            &shared.settings.trusted_proxies,
        );
        request.extensions_mut().insert(Peer(way.peer));
        request.extensions_mut().insert(Tls(way.tls));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::pin!(connection);
    let mut stop = app.stop.clone();
    let served = tokio::select! {
        served = &mut connection => served,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            timeout(STOP_WAIT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(e) = served {
        log::debug!("{address}: {e}");
    }
}

async fn flush(app: Arc<App>) {
    let mut stop = app.stop.clone();
    let mut next = Instant::now() + FLUSH;
    loop {
        let all = tokio::select! {
            () = app.registry.changed.notified() => {
                sleep(GATHER).await;
                false
            }
            () = tokio::time::sleep_until(next) => {
                next = Instant::now() + FLUSH;
                true
            }
            () = stopped(&mut stop) => return,
        };
        store_changed(&app, all).await;
        if all && let Err(e) = app.jobs.prune(KEEP_JOBS).await {
            log::error!("old jobs are not deleted: {e}");
        }
        if all && let Err(e) = app.batches.prune().await {
            log::error!("old batches are not deleted: {e}");
        }
        if all {
            app.doors.sweep();
            let (rows, days) = (app.settings.audit_rows, app.settings.audit_days);
            if let Err(e) = app.audit.prune(rows, days).await {
                log::error!("old acts are not deleted from the audit log: {e}");
            }
        }
        if all && let Err(e) = prune_records(&app).await {
            log::error!("old records are not deleted: {e}");
        }
        if all {
            let now = std::time::SystemTime::now();
            match blobs::sweep::sweep(&app, now).await {
                Ok(0) => {}
                Ok(n) => log::info!("deleted {n} blobs that nothing refers to"),
                Err(e) => log::error!("old blobs are not deleted: {e}"),
            }
        }
    }
}

async fn expire(app: Arc<App>) {
    let mut stop = app.stop.clone();
    tokio::select! {
        () = app.jobs.watch_expiry() => {}
        () = stopped(&mut stop) => {}
    }
}

/// Keeps the newest records, a piece at a time, so that what else waits for the store comes in between.
async fn prune_records(app: &App) -> crate::store::Result<()> {
    let keep = app.settings.history_records;
    loop {
        let deleted = app
            .db
            .call(move |store| store.prune_records(keep, PRUNE))
            .await?;
        if deleted < PRUNE as usize || *app.stop.borrow() {
            return Ok(());
        }
    }
}

async fn store_changed(app: &App, all: bool) {
    if all {
        app.jobs.store_again().await;
    }
    for key in app.registry.take_evicted() {
        app.metrics.forget(&key);
        app.db
            .post(move |store| store.delete_instance(&key.identifier, &key.instance));
    }
    let rows = app.registry.take_changed(all);
    for batch in rows.chunks(BATCH) {
        let batch = batch.to_vec();
        if let Err(e) = app.db.call(move |store| store.put_instances(&batch)).await {
            log::error!("what is known of agents is not stored: {e}");
        }
    }
}
