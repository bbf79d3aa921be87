//! Headless Chromium, driven through `chromedriver`.

use super::http;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long something on the page may take; CI machines are slow.
const PATIENCE: Duration = Duration::from_secs(30);
/// Key of an element's reference in `WebDriver`'s JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Enter, in `WebDriver`'s private use area.
pub const ENTER: &str = "\u{E007}";
/// Arrow up.
pub const UP: &str = "\u{E013}";

/// Gathers what must not happen, from before the page's first line of code.
const WATCH: &str = "window.trouble = [];
addEventListener('securitypolicyviolation', (e) => trouble.push(`CSP: ${e.violatedDirective} ${e.blockedURI}`));
addEventListener('error', (e) => trouble.push(`error: ${e.message} ${e.filename}:${e.lineno}`));
addEventListener('unhandledrejection', (e) => trouble.push(`rejection: ${e.reason}`));";

/// A browser with one window; it ends with this value.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one. `None` where there is none to start, which is said; an error if `TRITON_REQUIRE_BROWSER=1`.
    pub fn start() -> Option<Self> {
        let chromium = find(
            "CHROMIUM",
            &["chromium", "chromium-browser", "google-chrome"],
        );
        let driver = find("CHROMEDRIVER", &["chromedriver"]);
        let (Some(chromium), Some(driver)) = (chromium, driver) else {
            let reason =
                "no Chromium with chromedriver (Debian: apt-get install chromium chromium-driver)";
            assert!(
                std::env::var("TRITON_REQUIRE_BROWSER").as_deref() != Ok("1"),
                "a browser is required: {reason}"
            );
            // Past the test harness, which would keep what a passing test prints to itself.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
            return None;
        };
        Some(Self::launch(&chromium, &driver))
    }

    fn launch(chromium: &Path, driver: &Path) -> Self {
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let mut child = Command::new(driver)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, rest) = line.split_once("successfully on port ")?;
                rest.trim_end_matches('.').parse::<u16>().ok()
            })
            .expect("chromedriver says its port");
        // It must never wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Self {
            driver: child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            session: String::new(),
            profile,
        };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--lang=en-GB",
            &format!("--user-data-dir={}", browser.profile.path().display()),
        ];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let answer = browser.send("POST", "/session", Some(&capabilities));
        let id = answer["sessionId"].as_str().expect("a session");
        browser.session = format!("/session/{id}");
        browser.cdp(
            "Page.addScriptToEvaluateOnNewDocument",
            &json!({"source": WATCH}),
        );
        browser.look(false);
        browser.size(1200, 800);
        browser
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, mut answer) = http::request(self.address, method, path, None, body)
            .unwrap_or_else(|e| panic!("chromedriver: {method} {path}: {e}"));
        assert!(
            status == 200,
            "chromedriver: {method} {path}: {status} {answer}"
        );
        answer["value"].take()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.send("POST", &format!("{}{path}", self.session), Some(body))
    }

    fn cdp(&self, command: &str, parameters: &Value) -> Value {
        self.post(
            "/goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        )
    }

    /// Runs `source` before the page's own code, from the next load on.
    pub fn before_load(&self, source: &str) {
        self.cdp(
            "Page.addScriptToEvaluateOnNewDocument",
            &json!({"source": source}),
        );
    }

    /// Opens an address.
    pub fn go(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    /// Loads the page again.
    pub fn reload(&self) {
        self.post("/refresh", &json!({}));
    }

    /// Size of the page's window in CSS pixels.
    pub fn size(&self, width: u32, height: u32) {
        let mobile = width < 600;
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}),
        );
    }

    /// Dark or light.
    pub fn look(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        self.cdp(
            "Emulation.setEmulatedMedia",
            &json!({"features": [{"name": "prefers-color-scheme", "value": value}]}),
        );
    }

    /// The value of a JavaScript expression.
    pub fn eval(&self, expression: &str) -> Value {
        self.post(
            "/execute/sync",
            &json!({"script": format!("return ({expression});"), "args": []}),
        )
    }

    /// Text of the first element that matches.
    pub fn text(&self, selector: &str) -> String {
        let value = self.eval(&format!(
            "document.querySelector({})?.textContent",
            json!(selector)
        ));
        value.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true.
    pub fn until(&self, what: &str, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.eval(&format!("Boolean({expression})")) != json!(true) {
            assert!(
                Instant::now() < deadline,
                "not in time: {what}: {expression}\non the page:\n{}\ntrouble: {}",
                self.eval("document.body.innerText")
                    .as_str()
                    .unwrap_or_default(),
                self.eval("window.trouble")
            );
            std::thread::sleep(Duration::from_millis(40));
        }
    }

    /// Waits until the text of an element contains `part`.
    pub fn until_text(&self, selector: &str, part: &str) {
        let expression = format!(
            "document.querySelector({})?.textContent.includes({})",
            json!(selector),
            json!(part)
        );
        self.until(part, &expression);
    }

    fn element(&self, selector: &str) -> String {
        let found = self.post(
            "/element",
            &json!({"using": "css selector", "value": selector}),
        );
        let id = found[ELEMENT].as_str().expect("an element");
        format!("/element/{id}")
    }

    /// Clicks as a person does: the element must be visible.
    pub fn click(&self, selector: &str) {
        self.post(&format!("{}/click", self.element(selector)), &json!({}));
    }

    /// Types into an element.
    pub fn keys(&self, selector: &str, text: &str) {
        self.post(
            &format!("{}/value", self.element(selector)),
            &json!({"text": text}),
        );
    }

    /// Saves what is to be seen.
    pub fn screenshot(&self, path: &Path) {
        use base64::Engine as _;
        let picture = self.cdp("Page.captureScreenshot", &json!({"format": "png"}));
        let data = picture["data"].as_str().expect("a picture");
        let bytes = base64::engine::general_purpose::STANDARD.decode(data);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        std::fs::write(path, bytes.expect("base64")).expect("the picture is written");
    }

    /// Fails if anything went wrong on the page since its load; console errors with `but` in them are expected.
    pub fn no_trouble(&self, but: Option<&str>) {
        assert_eq!(self.eval("window.trouble"), json!([]));
        let entries = self.post("/se/log", &json!({"type": "browser"}));
        let bad: Vec<&str> = entries
            .as_array()
            .expect("a list")
            .iter()
            .filter(|entry| entry["level"] == "SEVERE")
            .filter_map(|entry| entry["message"].as_str())
            .filter(|message| but.is_none_or(|but| !message.contains(but)))
            .collect();
        assert!(bad.is_empty(), "errors on the console: {bad:#?}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium, which would outlive a killed chromedriver.
        if !self.session.is_empty() {
            let _ = http::request(self.address, "DELETE", &self.session, None, None);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn find(variable: &str, names: &[&str]) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    let folders = std::env::var_os("PATH")?;
    names.iter().find_map(|name| {
        std::env::split_paths(&folders)
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    })
}
