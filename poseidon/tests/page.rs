//! The page in headless Chromium, with a real Poseidon and devices made by the test.
//!
//! Skips, and says so, where there is no browser; `TRITON_REQUIRE_BROWSER=1` makes that a failure. Screenshots of the
//! last run are in `target/page`.

#[path = "page/browser.rs"]
mod browser;
#[path = "page/device.rs"]
mod device;
#[path = "page/http.rs"]
mod http;

use browser::{Browser, ENTER, UP};
use device::{Device, health, hello};
use poseidon::server::{Server, Settings, start};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::runtime::Runtime;

/// One browser at a time: several would make each other slow.
static ONE: Mutex<()> = Mutex::new(());

/// What would be run if a device's text were taken as markup.
const MARKUP: &str = "<script>window.pwned=1</script><img src=x onerror=\"window.pwned=2\">";

/// The same as a name, which has no slash.
const MARKUP_NAME: &str = "<img src=x onerror=window.pwned=3>";

/// A Poseidon with its browser.
struct World {
    browser: Browser,
    server: Option<Server>,
    runtime: Runtime,
    address: SocketAddr,
    token: String,
    data: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    fn new() -> Option<Self> {
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

    fn url(&self, fragment: &str) -> String {
        format!("http://{}/{fragment}", self.address)
    }

    /// Opens the page as the link with the token does.
    fn sign_in(&self) {
        self.browser
            .go(&self.url(&format!("#token={}", self.token)));
        self.browser.until_text("#link-state", "live");
    }

    fn api(&self, method: &str, path: &str, body: &Value) -> Value {
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

    fn connect(&self, number: u8, hello: &Value) -> Result<Device, u16> {
        Device::connect(&self.runtime, self.address, &identifier(number), hello)
    }

    /// A registered device that is up.
    fn device(&self, number: u8, name: &str, hostname: &str, health: &Value) -> Device {
        let body = json!({"identifier": identifier(number), "name": name, "attributes": {"site": "Hamburg"}});
        self.api("POST", "/identifiers", &body);
        let hello = hello(&format!("{number:032x}"), hostname);
        let device = self.connect(number, &hello).expect("it is registered");
        device.send("heartbeat", health);
        device
    }

    /// Opens a device's page by its link.
    fn open(&self, name: &str) {
        let browser = &self.browser;
        browser.until("the device is listed", &row(name, ""));
        browser.eval(&format!("{}.querySelector('a').click()", row(name, "")));
        browser.until_text("#device-name", name);
    }

    fn screenshot(&self, name: &str) {
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

fn serve(runtime: &Runtime, data: &Path, listen: &str) -> Server {
    let mut settings = Settings::new(data.to_owned());
    listen.clone_into(&mut settings.listen);
    runtime.block_on(start(settings)).expect("Poseidon starts")
}

fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or(root, PathBuf::from)
        .join("page")
}

fn identifier(number: u8) -> String {
    format!("{number:064x}")
}

/// Expression for the row of a device, or for what `selector` finds in it.
fn row(name: &str, selector: &str) -> String {
    let find = format!(
        "[...document.querySelectorAll('#agents tbody tr')].find((r) => r.querySelector('.c-name a').textContent === {})",
        json!(name)
    );
    match selector {
        "" => find,
        _ => format!("{find}?.querySelector({})?.textContent", json!(selector)),
    }
}

macro_rules! world {
    () => {
        match World::new() {
            Some(world) => world,
            None => return,
        }
    };
}

#[test]
fn follows_the_fleet() {
    let world = world!();
    let browser = &world.browser;
    // A browser's clock that is a day ahead: ages come from Poseidon's.
    browser.before_load("const real = Date.now; Date.now = () => real.call(Date) + 864e5;");
    world.sign_in();
    assert_eq!(
        browser.eval("location.href"),
        json!(world.url("#/")),
        "no token in the address"
    );
    browser.until_text("#empty", "No device yet");

    let first = world.device(1, "gate-lyon", "gate", &health(12, 40, 30));
    let second = world.device(2, "pi-roof", "pi", &health(55, 20, 93));
    browser.until(
        "both are listed",
        "document.querySelectorAll('#agents tbody tr').length === 2",
    );
    for (selector, part) in [
        (".state", "Up"),
        (".c-address", "127.0.0.1"),
        (".c-system", "OpenWrt 24.10.2 · aarch64"),
        (".c-load", "12 %"),
        (".c-memory", "40 %"),
        (".c-disk", "30 %"),
    ] {
        browser.until(
            part,
            &format!("{}?.includes({})", row("gate-lyon", selector), json!(part)),
        );
    }
    let seen = browser.eval(&row("gate-lyon", ".c-seen .value"));
    let seen = seen.as_str().unwrap_or_default();
    assert!(
        seen == "now" || seen.ends_with(" s ago"),
        "last seen {seen:?}"
    );
    assert_eq!(browser.text("#count-up"), "2");

    // A live update changes the row in place: focus and selection stay.
    browser.eval(&format!(
        "(window.kept = {0}, {0}.querySelector('a').focus())",
        row("gate-lyon", "")
    ));
    first.send("heartbeat", &health(77, 40, 30));
    browser.until(
        "the load changes",
        &format!("{}?.includes('77 %')", row("gate-lyon", ".c-load")),
    );
    let same = format!(
        "window.kept === {} && document.activeElement === kept.querySelector('a')",
        row("gate-lyon", "")
    );
    assert_eq!(browser.eval(&same), json!(true));

    // Sorting, by the keyboard.
    let order =
        "[...document.querySelectorAll('#agents .c-name a')].map((a) => a.textContent).join()";
    assert_eq!(browser.eval(order), json!("gate-lyon,pi-roof"));
    browser.keys("th.c-name button", ENTER);
    assert_eq!(browser.eval(order), json!("pi-roof,gate-lyon"));
    let sorted = "document.querySelector('th.c-name').getAttribute('aria-sort')";
    assert_eq!(browser.eval(sorted), json!("descending"));
    // Filtering.
    browser.keys("#filter", "roof");
    browser.until("the filter works", &format!("{order} === 'pi-roof'"));
    browser.keys("#filter", &"\u{E003}".repeat(4));
    browser.until(
        "the filter is gone",
        &format!("{order} === 'pi-roof,gate-lyon'"),
    );

    drop(second);
    browser.until(
        "it goes down",
        &format!("{} === 'Down'", row("pi-roof", ".state")),
    );
    browser.until(
        "it is counted",
        "document.getElementById('count-down').textContent === '1'",
    );
    browser.click(".chip[data-state=down]");
    browser.until("only what is down", &format!("{order} === 'pi-roof'"));
    browser.click(".chip[data-state='']");
    world.screenshot("fleet");

    browser.reload();
    browser.until(
        "still signed in",
        "document.querySelectorAll('#agents tbody tr').length === 2",
    );
    browser.no_trouble(None);
}

#[test]
fn refuses_a_wrong_token() {
    let world = world!();
    let browser = &world.browser;
    browser.go(&world.url(""));
    browser.until("the form", "!document.getElementById('login').hidden");
    world.screenshot("sign-in");
    browser.go(&world.url("#token=wrong"));
    browser.until_text("#login-error", "does not accept");
    assert_eq!(browser.eval("location.hash"), json!("#/"));
    browser.keys("#token", "not the töken either");
    browser.keys("#token", ENTER);
    browser.until(
        "the field is empty again",
        "document.getElementById('token').value === ''",
    );
    browser.until_text("#login-error", "does not accept");
    assert_eq!(
        browser.eval("document.getElementById('fleet').hidden"),
        json!(true)
    );
    browser.keys("#token", &world.token);
    browser.keys("#token", ENTER);
    browser.until_text("#link-state", "live");
    assert_eq!(
        browser.eval("document.getElementById('login').hidden"),
        json!(true)
    );
    browser.click("#sign-out");
    browser.until("the form", "!document.getElementById('login').hidden");
    assert_eq!(browser.eval("sessionStorage.length"), json!(0));
    browser.no_trouble(Some("401"));
}

#[test]
fn lets_a_device_in_and_keeps_another_out() {
    let world = world!();
    let browser = &world.browser;
    world.sign_in();
    let hello = hello("aa", "new-gate");
    assert_eq!(world.connect(1, &hello).err(), Some(403));
    browser.until_text("#pending", "triton/0.1.0");
    browser.keys("#pending input", "gate-");
    // More news does not disturb what is being typed.
    assert_eq!(world.connect(1, &hello).err(), Some(403));
    browser.until_text("#pending", "2 tries");
    assert_eq!(world.connect(2, &hello).err(), Some(403));
    browser.until(
        "two wait",
        "document.querySelectorAll('#pending li').length === 2",
    );
    world.screenshot("pending");
    let first = "#pending li:has(input:focus)";
    browser.keys(&format!("{first} input"), "oslo");
    browser.keys(&format!("{first} input"), ENTER);
    browser.until_text("#notice", "gate-oslo is approved");
    browser.until(
        "one waits",
        "document.querySelectorAll('#pending li').length === 1",
    );
    let device = world.connect(1, &hello).expect("it is approved");
    device.send("heartbeat", &health(5, 5, 5));
    browser.until(
        "it is listed",
        &format!("{} === 'Up'", row("gate-oslo", ".state")),
    );

    browser.click("#pending .danger");
    browser.click("#pending .danger.armed");
    browser.until("nobody waits", "document.getElementById('pending').hidden");
    assert_eq!(world.connect(2, &hello).err(), Some(403));
    assert_eq!(
        world.api("GET", "/pending", &Value::Null)["pending"],
        json!([])
    );
    browser.no_trouble(None);
}

#[test]
fn runs_a_command_and_cancels_another() {
    let world = world!();
    let browser = &world.browser;
    let device = world.device(1, "gate-lyon", "gate", &health(12, 40, 30));
    world.sign_in();
    world.open("gate-lyon");
    for part in [
        "/overlay",
        "br-lan",
        "cpu-thermal",
        "1,312 of 97,000",
        "16.0 MiB of 128 MiB",
    ] {
        browser.until_text("#facts", part);
    }
    browser.until_text("#tiles", "3 d 1 h");

    browser.keys("#timeout", "30");
    browser.keys("#command", "opkg update");
    browser.keys("#command", ENTER);
    let job = device.next("command");
    let request: Value = job.read().expect("JSON");
    assert_eq!(request["shell"], "opkg update");
    assert_eq!(request["timeoutSeconds"].as_f64(), Some(30.0));
    device.reply(&job, "accepted", &json!({}));
    device.output(&job, "stdout", 0, "first \u{1b}[32mgreen\u{1b}[0m line\n");
    browser.until_text("#job-output", "first green line\n");
    assert_eq!(
        browser.text("#job-output .stdout"),
        "first green line\n",
        "no escape sequences"
    );
    // A character in two pieces, and an escape sequence in two pieces.
    device.bytes(&job, "stdout", 26, b"caf\xc3");
    device.bytes(&job, "stdout", 30, b"\xa9\x1b[3");
    device.bytes(&job, "stdout", 34, b"1m!\n");
    device.output(&job, "stderr", 0, "warning: nothing new\n");
    device.reply(
        &job,
        "progress",
        &json!({"percent": 40, "message": "unpacking"}),
    );
    browser.until_text("#job-output", "café!\n");
    browser.until_text("#job-output .stderr", "warning: nothing new");
    browser.until_text("#job-progress", "40 % · unpacking");
    browser.until_text("#job-status", "running");
    world.screenshot("device-running");
    let result = json!({"status": "failed", "exitCode": 3, "elapsedMs": 1234, "stdoutBytes": 38, "stderrBytes": 21});
    device.reply(&job, "result", &result);
    browser.until_text("#job-status", "failed · exit code 3 · 1.2 s");
    browser.until(
        "nothing to cancel",
        "document.getElementById('job-cancel').hidden",
    );

    // The history of the box; another command, cancelled.
    browser.keys("#command", UP);
    assert_eq!(
        browser.eval("document.getElementById('command').value"),
        json!("opkg update")
    );
    browser.keys("#command", " && reboot");
    browser.keys("#command", ENTER);
    let second = device.next("command");
    device.reply(&second, "accepted", &json!({}));
    device.output(&second, "stdout", 0, "waiting\n");
    browser.until_text("#job-output", "waiting");
    browser.until_text("#job-status", "running");
    browser.click("#job-cancel");
    let cancel = device.next("cancel");
    let cancelled: Value = cancel.read().expect("JSON");
    assert_eq!(cancelled["job"], second.id);
    device.reply(
        &second,
        "result",
        &json!({"status": "cancelled", "signal": 15, "elapsedMs": 20}),
    );
    browser.until_text("#job-status", "cancelled · signal 15");

    // The first one again.
    browser.until(
        "two jobs",
        "document.querySelectorAll('#jobs li').length === 2",
    );
    browser.click("#jobs li:last-child button");
    browser.until_text("#job-output", "café!");
    browser.until_text("#job-status", "exit code 3");

    drop(device);
    browser.until_text("#device-state", "Down");
    browser.keys("#command", &format!("true{ENTER}"));
    browser.until_text("#run-error", "Not started");
    world.screenshot("device-down");
    browser.no_trouble(Some("409"));
}

#[test]
fn keeps_the_output_bounded() {
    let world = world!();
    let browser = &world.browser;
    let device = world.device(1, "gate", "gate", &health(12, 40, 30));
    world.sign_in();
    world.open("gate");
    browser.keys("#command", &format!("yes{ENTER}"));
    let job = device.next("command");
    device.reply(&job, "accepted", &json!({}));
    let piece = "0123456789abcde\n".repeat(2048);
    for i in 0..100 {
        device.output(&job, "stdout", i * piece.len(), &piece);
    }
    device.output(&job, "stdout", 100 * piece.len(), "the end");
    device.reply(
        &job,
        "result",
        &json!({"status": "succeeded", "exitCode": 0, "elapsedMs": 9}),
    );
    browser.until_text("#job-bytes", "stdout 3.13 MiB");
    browser.until_text("#job-output", "the end");
    browser.until_text("#job-dropped", "not shown");
    let lines =
        browser.eval("document.getElementById('job-output').textContent.split('\\n').length");
    assert!(
        (5_000..=10_001).contains(&lines.as_u64().unwrap_or(0)),
        "{lines} lines"
    );
    browser.no_trouble(None);
}

#[test]
fn shows_what_a_device_says_as_text() {
    let world = world!();
    let browser = &world.browser;
    let mut health = health(12, 40, 30);
    for (list, field) in [
        ("fileSystems", "name"),
        ("fileSystems", "mount"),
        ("interfaces", "name"),
        ("temperatures", "label"),
    ] {
        health[list][0][field] = json!(MARKUP);
    }
    health["interfaces"][0]["addresses"] = json!([MARKUP]);
    let device = world.device(1, MARKUP_NAME, MARKUP, &health);
    world.sign_in();
    browser.until("the name is text", &row(MARKUP_NAME, ""));
    browser.until(
        "the host name is text",
        &format!(
            "{}.includes({})",
            row(MARKUP_NAME, ".c-system"),
            json!(MARKUP)
        ),
    );
    world.open(MARKUP_NAME);
    browser.until_text("#facts", MARKUP);
    browser.keys("#command", &format!("{MARKUP}{ENTER}"));
    let job = device.next("command");
    device.reply(&job, "accepted", &json!({}));
    device.output(&job, "stdout", 0, MARKUP);
    device.output(&job, "stderr", 0, MARKUP);
    device.reply(&job, "progress", &json!({"percent": 10, "message": MARKUP}));
    browser.until_text("#job-output .stdout", MARKUP);
    browser.until_text("#job-output .stderr", MARKUP);
    browser.until_text("#job-progress", MARKUP);
    device.reply(&job, "error", &json!({"code": MARKUP, "message": MARKUP}));
    browser.until_text("#job-status", MARKUP);
    browser.until_text("#jobs", MARKUP);
    world.screenshot("markup");
    let foreign = "document.querySelectorAll('img:not(.brand img), body script, [onerror]').length";
    assert_eq!(browser.eval(foreign), json!(0));
    assert_eq!(browser.eval("window.pwned"), Value::Null);
    browser.no_trouble(None);
}

#[test]
fn fits_a_phone() {
    let world = world!();
    let browser = &world.browser;
    let long = "a-name-that-has-no-end-".repeat(3)[..64].to_owned();
    let _device = world.device(1, &long, &long, &health(12, 40, 80));
    let _other = world.device(2, "pi-roof", "pi", &health(30, 20, 95));
    assert_eq!(world.connect(3, &hello("cc", "new")).err(), Some(403));
    browser.size(360, 740);
    world.sign_in();
    browser.until(
        "both are listed",
        "document.querySelectorAll('#agents tbody tr').length === 2",
    );
    let width = "document.documentElement.scrollWidth";
    assert_eq!(browser.eval(width), json!(360), "the fleet");
    // Nothing is cut off, either, but text that ends in dots.
    let outside = "[...document.querySelectorAll('button, input, .meter, .value')]
        .filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > 360).length";
    assert_eq!(browser.eval(outside), json!(0));
    world.screenshot("fleet-phone");
    world.open(&long);
    browser.until_text("#facts", "br-lan");
    assert_eq!(browser.eval(width), json!(360), "the device");
    assert_eq!(browser.eval(outside), json!(0));
    world.screenshot("device-phone");
    browser.look(true);
    world.screenshot("device-phone-dark");
    browser.no_trouble(None);
}

#[test]
fn says_when_poseidon_is_away_and_comes_back() {
    let mut world = world!();
    let device = world.device(1, "gate-lyon", "gate", &health(12, 40, 30));
    world.sign_in();
    world.browser.until("it is listed", &row("gate-lyon", ""));
    let server = world.server.take().expect("it runs");
    world.runtime.block_on(server.stop());
    drop(device);
    world
        .browser
        .until_text("#banner", "Not connected to Poseidon");
    world.browser.until_text("#link-state", "not connected");
    assert_eq!(
        world.browser.eval(&row("gate-lyon", ".state")),
        json!("Up"),
        "what was known stays"
    );
    world.screenshot("not-connected");
    let listen = world.address.to_string();
    world.server = Some(serve(&world.runtime, world.data.path(), &listen));
    world.browser.until_text("#link-state", "live");
    world.browser.until(
        "the banner goes",
        "document.getElementById('banner').hidden",
    );
    world.browser.until(
        "it is down now",
        &format!("{} === 'Down'", row("gate-lyon", ".state")),
    );
    assert_eq!(world.browser.eval("window.trouble"), json!([]));
}

/// Nothing in the page's code can make markup or code out of text.
#[test]
fn has_no_way_to_make_markup() {
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
    let mut files = 0;
    for entry in std::fs::read_dir(web).expect("the page's folder") {
        let path = entry.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("text");
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "setHTML",
            "document.write",
            "DOMParser",
            "createContextualFragment",
            "eval(",
            "new Function",
            "srcdoc",
            " style=",
            "javascript:",
        ] {
            assert!(!text.contains(word), "{word} in {}", path.display());
        }
        files += 1;
    }
    assert!(files > 3);
}

/// Makes the picture for the README: `cargo test -p poseidon --test page -- --ignored picture`.
#[test]
#[ignore = "writes docs/page.png"]
fn picture() {
    let world = world!();
    let devices = [
        (
            "gate-hamburg",
            "OpenWrt 24.10.2",
            "aarch64",
            health(14, 46, 31),
        ),
        ("gate-lyon", "OpenWrt 24.10.2", "mips", health(6, 62, 84)),
        (
            "kiosk-014",
            "Debian GNU/Linux 12",
            "x86_64",
            health(38, 57, 68),
        ),
        (
            "pi-greenhouse",
            "Raspberry Pi OS 12",
            "aarch64",
            health(22, 28, 45),
        ),
        (
            "pi-roof",
            "Raspberry Pi OS 12",
            "armv7l",
            health(81, 71, 93),
        ),
        (
            "depot-router",
            "OpenWrt 24.10.2",
            "armv7l",
            health(9, 35, 22),
        ),
    ];
    let mut up = Vec::new();
    for (number, (name, os, arch, health)) in (1..).zip(devices) {
        world.api(
            "POST",
            "/identifiers",
            &json!({"identifier": identifier(number), "name": name}),
        );
        let mut said = hello(&format!("{number:032x}"), name);
        said["os"] = json!(os);
        said["arch"] = json!(arch);
        let device = world.connect(number, &said).expect("it is registered");
        device.send("heartbeat", &health);
        up.push(device);
    }
    assert_eq!(world.connect(99, &hello("new", "new")).err(), Some(403));
    up.remove(3);
    world.browser.size(1200, 640);
    world.sign_in();
    let all = "document.querySelectorAll('#agents tbody tr').length === 6";
    world.browser.until("all are listed", all);
    world.browser.until(
        "one is down",
        "document.getElementById('count-down').textContent === '1'",
    );
    std::thread::sleep(std::time::Duration::from_secs(2));
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/page.png");
    world.browser.screenshot(&docs);
}
