//! A device's page: commands, their output, and text that would like to be markup.

use super::browser::{ENTER, UP};
use super::device::health;
use super::world::{World, row};
use serde_json::{Value, json};

/// What would be run if a device's text were taken as markup.
const MARKUP: &str = "<script>window.pwned=1</script><img src=x onerror=\"window.pwned=2\">";

/// The same as a name, which has no slash.
const MARKUP_NAME: &str = "<img src=x onerror=window.pwned=3>";

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
    browser.click("#forget");
    browser.click("#forget.armed");
    browser.until("back at the fleet", "location.hash === '#/'");
    browser.until_text("#empty", "No device yet");
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
