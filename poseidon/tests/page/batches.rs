//! Asking several devices at once: who, what, and watching it.

use super::device::health;
use super::world::{World, row};
use serde_json::{Value, json};

#[test]
fn asks_several_devices_and_watches_them() {
    let world = world!();
    let browser = &world.browser;
    let devices = [
        world.device(1, "gate-lyon", "gate", &health(12, 40, 30)),
        world.device(2, "gate-metz", "gate", &health(12, 40, 30)),
        world.device(3, "pi-roof", "pi", &health(12, 40, 30)),
    ];
    world.sign_in();
    browser.until("all are listed", &row("pi-roof", ""));
    browser.click("#many-open");
    browser.until_text("#many-count", "No device is selected");
    browser.keys("#many-on", "gate-*,colour=red");
    browser.until_text("#many-wrong", "character 8");
    browser.eval("document.getElementById('many-on').value = ''");
    browser.keys("#many-on", "gate-*");
    browser.until_text("#many-count", "2 devices selected");
    browser.until(
        "the error has gone",
        "document.getElementById('many-wrong').hidden",
    );
    // One more by ticking; one that both mean counts once.
    for name in ["pi-roof", "gate-lyon"] {
        browser.eval(&format!(
            "{}.querySelector('input.pick').click()",
            row(name, "")
        ));
    }
    browser.until_text("#many-count", "3 devices selected");
    browser.keys("#many-command", "opkg <b>update</b>");
    browser.keys("#many-canary", "1");
    world.screenshot("many");
    browser.click("#many-start");
    browser.until(
        "the batch is shown",
        "location.hash.startsWith('#/batches/')",
    );
    // Names come before selectors, in the order of ticking.
    let first = devices[2].next("command");
    let asked: Value = first.read().expect("JSON");
    assert_eq!(asked["shell"], "opkg <b>update</b>");
    browser.until_text("#batch-line", "2 waiting · 1 running");
    devices[2].reply(&first, "accepted", &json!({}));
    devices[2].output(&first, "stdout", 0, "first\nlast <i>line</i>\n");
    browser.until_text("#batch-members", "last <i>line</i>");
    devices[2].reply(
        &first,
        "progress",
        &json!({"percent": 40, "message": "unpacking"}),
    );
    browser.until_text("#batch-members", "running · 40 % · unpacking");
    devices[2].reply(
        &first,
        "result",
        &json!({"status": "succeeded", "exitCode": 0, "elapsedMs": 20}),
    );
    browser.until_text("#batch-members", "succeeded · 20 ms");
    let second = devices[0].next("command");
    let tail = json!({"stderr": {"data": "no space left\n", "encoding": "utf8"}});
    devices[0].reply(
        &second,
        "result",
        &json!({"status": "failed", "exitCode": 3, "elapsedMs": 5, "tail": tail}),
    );
    let third = devices[1].next("command");
    devices[1].reply(&third, "accepted", &json!({}));
    browser.until_text("#batch-members", "failed · exit code 3 · 5 ms");
    browser.until_text("#batch-members", "no space left");
    browser.until(
        "one runs",
        "document.querySelectorAll('#batch-members [data-mood=running]').length === 1",
    );
    world.screenshot("batch");
    browser.click("#batch-cancel");
    devices[1].next("cancel");
    devices[1].reply(
        &third,
        "result",
        &json!({"status": "cancelled", "signal": 15, "elapsedMs": 9}),
    );
    browser.until_text("#batch-status", "not all succeeded · stopped: cancelled");
    browser.until(
        "nothing to cancel",
        "document.getElementById('batch-cancel').hidden",
    );
    // The list, from there the batch again, and the job that failed on its device's page.
    browser.eval("document.querySelector('#batches .crumbs a:last-child').click()");
    browser.until_text("#batches-items", "1 succeeded · 1 failed · 1 cancelled");
    browser.click("#batches-items a");
    browser.until_text("#batch-members", "no space left");
    browser.eval(
        "[...document.querySelectorAll('#batch-members tbody tr')].find((r) => r.textContent.includes('gate-lyon')).querySelector('td:last-child a').click()",
    );
    browser.until_text("#device-name", "gate-lyon");
    browser.until_text("#job-status", "failed · exit code 3");
    assert_eq!(
        browser.eval("document.querySelectorAll('#batches b, #batches i').length"),
        json!(0)
    );
    browser.no_trouble(Some("400"));
}
