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
#[path = "page/world.rs"]
mod world;

macro_rules! world {
    () => {
        match World::new() {
            Some(world) => world,
            None => return,
        }
    };
}

#[path = "page/batches.rs"]
mod batches;
#[path = "page/commands.rs"]
mod commands;
#[path = "page/events.rs"]
mod events;
#[path = "page/files.rs"]
mod files;
#[path = "page/offline.rs"]
mod offline;
#[path = "page/schedule.rs"]
mod schedule;
#[path = "page/scripts.rs"]
mod scripts;

use browser::ENTER;
use device::{health, hello};
use serde_json::{Value, json};
use std::path::Path;
use world::{World, identifier, row, serve};

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
        (".c-address", "203.0.113.1"),
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
        seen == "just now" || seen.ends_with(" s ago"),
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
        let hostname = if os.starts_with("OpenWrt") {
            "OpenWrt"
        } else {
            name
        };
        let mut said = hello(&format!("{number:032x}"), hostname);
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
