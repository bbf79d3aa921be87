//! A Poseidon with a browser in front and devices behind.

use super::browser::Browser;
use super::device::{Device, hello};
use super::http;
use poseidon::server::{Server, Settings, start};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::runtime::Runtime;

/// One browser at a time: several would make each other slow.
static ONE: Mutex<()> = Mutex::new(());

/// A Poseidon with its browser.
pub struct World {
    pub browser: Browser,
    pub server: Option<Server>,
    pub runtime: Runtime,
    pub address: SocketAddr,
    pub token: String,
    pub data: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    pub fn new() -> Option<Self> {
        let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let browser = Browser::start()?;
        let runtime = Runtime::new().expect("a runtime");
        let data = tempfile::tempdir().expect("a folder");
        let server = serve(&runtime, data.path(), "127.0.0.1:0");
        Some(Self {
            browser,
            address: server.address,
            token: server.data.admin_token().expect("a token"),
            server: Some(server),
            runtime,
            data,
            _turn: turn,
        })
    }

    pub fn url(&self, fragment: &str) -> String {
        format!("http://{}/{fragment}", self.address)
    }

    /// Opens the page as the link with the token does.
    pub fn sign_in(&self) {
        self.browser
            .go(&self.url(&format!("#token={}", self.token)));
        self.browser.until_text("#link-state", "live");
    }

    pub fn api(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("/api/v1{path}");
        let (status, answer) =
            http::request(self.address, method, &path, Some(&self.token), Some(body))
                .expect("Poseidon answers");
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        answer
    }

    pub fn connect(&self, number: u8, hello: &Value) -> Result<Device, u16> {
        let from = format!("203.0.113.{number}");
        Device::connect(
            &self.runtime,
            self.address,
            &identifier(number),
            &from,
            hello,
        )
    }

    /// A registered device that is up.
    pub fn device(&self, number: u8, name: &str, hostname: &str, health: &Value) -> Device {
        let hello = hello(&format!("{number:032x}"), hostname);
        self.up(number, name, hello, health)
    }

    /// The same, with a journal.
    pub fn journaled(&self, number: u8, name: &str, hostname: &str, health: &Value) -> Device {
        let mut hello = hello(&format!("{number:032x}"), hostname);
        hello["journal"] = json!({"id": "j", "state": "disk", "first": 1, "last": 4});
        self.up(number, name, hello, health)
    }

    fn up(&self, number: u8, name: &str, hello: Value, health: &Value) -> Device {
        let body = json!({"identifier": identifier(number), "name": name, "attributes": {"site": "Hamburg"}});
        self.api("POST", "/identifiers", &body);
        let device = self.connect(number, &hello).expect("it is registered");
        device.send("heartbeat", health);
        device
    }

    /// Opens a device's page by its link.
    pub fn open(&self, name: &str) {
        let browser = &self.browser;
        browser.until("the device is listed", &row(name, ""));
        browser.eval(&format!("{}.querySelector('a').click()", row(name, "")));
        browser.until_text("#device-name", name);
    }

    pub fn screenshot(&self, name: &str) {
        self.browser
            .screenshot(&target().join(format!("{name}.png")));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }
}

pub fn serve(runtime: &Runtime, data: &Path, listen: &str) -> Server {
    let mut settings = Settings::new(data.to_owned());
    listen.clone_into(&mut settings.listen);
    // As behind a proxy, so that each device has an address of its own.
    settings.plain = true;
    runtime.block_on(start(settings)).expect("Poseidon starts")
}

pub fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or(root, PathBuf::from)
        .join("page")
}

pub fn identifier(number: u8) -> String {
    format!("{number:064x}")
}

/// Expression for the row of a device, or for what `selector` finds in it.
pub fn row(name: &str, selector: &str) -> String {
    let find = format!(
        "[...document.querySelectorAll('#agents tbody tr')].find((r) => r.querySelector('.c-name a').textContent === {})",
        json!(name)
    );
    match selector {
        "" => find,
        _ => format!("{find}?.querySelector({})?.textContent", json!(selector)),
    }
}
