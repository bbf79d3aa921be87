//! A device's schedule and its data on the page.

use super::device::{health, hello};
use super::world::{World, identifier};
use serde_json::{Value, json};

const MARKUP: &str = "<img src=x onerror=window.pwned=5>";

/// Puts text into a field as typing does, whatever was there.
fn write(world: &World, id: &str, text: &str) {
    world.browser.eval(&format!(
        "document.getElementById({}).value = {}",
        json!(id),
        json!(text)
    ));
}

#[test]
fn a_schedule_is_edited_and_the_devices_times_are_shown() {
    let world = world!();
    let browser = &world.browser;
    let body = json!({"identifier": identifier(1), "name": "gate-lyon", "attributes": {}});
    world.api("POST", "/identifiers", &body);
    let mut greeting = hello(&format!("{:032x}", 1), "gate");
    greeting["capabilities"] = json!(["command", "schedule.set", "schedule.list"]);
    greeting["schedule"] = json!({"revision": ""});
    let device = world.connect(1, &greeting).expect("it is registered");
    device.send("heartbeat", &health(12, 40, 30));
    let own = json!({"name": "own", "source": "config", "cron": "@hourly", "enabled": true, "next": 4e9,
                     "last": {"time": 1_700_000_000, "token": "t", "status": "failed"}});
    let before = json!({"revision": "", "entries": [own], "problem": null});
    device.always("schedule.list", &before);
    world.sign_in();
    world.open("gate-lyon");
    browser.until_text("#schedule", "own@hourlythe device’s own");
    browser.until_text("#schedule .job-status[data-mood=bad]", "failed");

    browser.click("#schedule-edit");
    write(&world, "schedule-text", "[{");
    browser.click("#schedule-save");
    browser.until_text("#schedule-note", "this is no JSON");
    write(
        &world,
        "schedule-text",
        r#"[{"name": "nightly", "cron": "61 2 * * *", "shell": "x"}]"#,
    );
    browser.click("#schedule-save");
    browser.until_text("#schedule-note", "entry 1 (nightly): cron: ");
    let entries =
        json!([{"name": "nightly", "cron": "15 2 * * *", "timeZone": "UTC", "shell": MARKUP}]);
    write(&world, "schedule-text", &entries.to_string());
    browser.click("#schedule-save");
    let asked = device.next("schedule.set");
    let payload: Value = asked.read().expect("JSON");
    assert_eq!(payload["entries"], entries);
    // The page looks at once, and again when the device has it.
    browser.until_text("#schedule-state", "about to get this");
    let nightly = json!({"name": "nightly", "source": "poseidon", "cron": "15 2 * * *", "timeZone": "UTC",
                         "enabled": true, "next": 4e9, "running": 1});
    let list =
        json!({"revision": payload["revision"], "entries": [nightly, own], "problem": MARKUP});
    device.always("schedule.list", &list);
    let done = json!({"status": "succeeded", "elapsedMs": 0, "data": {"revision": payload["revision"], "entries": 1}});
    device.reply(&asked, "result", &done);
    browser.until_text("#schedule li:first-child", "nightly15 2 * * * UTC<img");
    browser.until_text("#schedule li:first-child .job-status", "running");
    browser.until_text("#schedule li:first-child .next", "next in");
    browser.until_text("#schedule-state", "The device says: <img");
    assert_eq!(
        browser.eval("document.querySelectorAll('#schedule li').length"),
        json!(2)
    );
    world.screenshot("schedule");

    // Somebody else changes it while it is edited here.
    browser.click("#schedule-edit");
    world.api("PUT", "/schedules/gate-lyon", &json!({"entries": []}));
    write(&world, "schedule-text", "[]\n");
    write(&world, "schedule-text", &entries.to_string());
    browser.click("#schedule-save");
    browser.until_text("#schedule-note", "somebody else has changed the schedule");
    browser.click("#schedule-save");
    browser.until(
        "it is saved",
        "document.getElementById('schedule-form').hidden",
    );
    let stored = world.api("GET", "/schedules/gate-lyon", &Value::Null);
    assert_eq!(stored["entries"], entries);
    drop(device);
    browser.until_text("#schedule-state", "The device is down");
    browser.click("#schedule-edit");
    browser.click("#schedule-remove");
    browser.click("#schedule-remove");
    browser.until(
        "nothing is left",
        "!document.getElementById('schedule-empty').hidden",
    );
    let stored = world.api("GET", "/schedules/gate-lyon", &Value::Null);
    assert_eq!(stored["entries"], json!([]));
    assert_eq!(browser.eval("window.pwned"), Value::Null);
    browser.no_trouble(Some("40"));
}

#[test]
fn data_is_given_and_a_secret_is_not_shown() {
    let world = world!();
    let browser = &world.browser;
    let _device = world.device(1, "gate-lyon", "gate", &health(12, 40, 30));
    world.sign_in();
    world.open("gate-lyon");
    browser.until_text("#data-empty", "None yet");
    browser.click("#data-new");
    browser.keys("#data-key", "a/../b");
    browser.click("#data-save");
    browser.until_text("#data-note", "no part of it is");
    write(&world, "data-key", "motd");
    browser.keys("#data-text", MARKUP);
    browser.click("#data-save");
    browser.until_text("#data li", "motd");
    browser.click("#data-new");
    browser.keys("#data-key", "ssh/key");
    browser.keys("#data-text", "hidden-from-all");
    browser.click("#data-secret");
    browser.click("#data-save");
    browser.until_text("#data li:nth-child(2)", "ssh/keysecret");
    let listed = world.api("GET", "/data/gate-lyon", &Value::Null);
    assert_eq!(listed["data"][1]["secret"], true, "{listed}");
    assert_eq!(listed["data"][1]["size"], 15, "{listed}");

    // What is no secret comes back into the box as it is.
    browser.click("#data li:first-child button");
    let value = "document.getElementById('data-text').value";
    browser.until("it is shown", &format!("{value} === {}", json!(MARKUP)));
    write(&world, "data-text", "two\nlines\n");
    browser.click("#data-save");
    browser.until_text("#data li:first-child", "10 B");
    // A secret does not, and stays one.
    browser.click("#data li:nth-child(2) button");
    browser.until_text("#data-note", "A secret is not shown");
    assert_eq!(browser.eval(value), json!(""));
    assert_eq!(
        browser.eval("document.getElementById('data-secret').disabled"),
        json!(true)
    );
    assert_eq!(
        browser.eval("document.documentElement.innerHTML.includes('hidden-from')"),
        json!(false)
    );
    world.screenshot("data");
    browser.size(360, 740);
    assert_eq!(
        browser.eval("document.documentElement.scrollWidth"),
        json!(360)
    );
    browser.size(1200, 800);
    browser.click("#data-remove");
    browser.click("#data-remove");
    browser.until(
        "it is gone",
        "document.querySelectorAll('#data li').length === 1",
    );
    let listed = world.api("GET", "/data/gate-lyon", &Value::Null);
    assert_eq!(listed["data"][0]["key"], "motd");
    assert_eq!(browser.eval("window.pwned"), Value::Null);
    browser.no_trouble(None);
}
