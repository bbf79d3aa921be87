//! The page while Poseidon or a device is away, and what devices recorded.

use super::browser::ENTER;
use super::device::{Device, health, hello};
use super::world::{World, identifier, row, serve};
use serde_json::{Value, json};

fn restart(world: &mut World, meanwhile: impl FnOnce(&World)) {
    let server = world.server.take().expect("it runs");
    world.runtime.block_on(server.stop());
    meanwhile(world);
    let listen = world.address.to_string();
    world.server = Some(serve(&world.runtime, world.data.path(), &listen));
}

fn back(world: &World) -> Device {
    let hello = hello(&format!("{:032x}", 1), "gate");
    world.connect(1, &hello).expect("it is registered")
}

#[test]
fn an_open_job_goes_on_when_poseidon_is_restarted() {
    let mut world = world!();
    let mut device = world.device(1, "gate-lyon", "gate", &health(12, 40, 30));
    world.sign_in();
    world.open("gate-lyon");
    world.browser.keys("#command", &format!("long{ENTER}"));
    let job = device.next("command");
    device.reply(&job, "accepted", &json!({}));
    // Cut within a character, and with an offset that the next connection cuts otherwise.
    device.bytes(&job, "stdout", 0, b"caf\xc3");
    device.output(&job, "stderr", 0, "warned\n");
    world.browser.until_text("#job-output .stderr", "warned");
    world
        .browser
        .eval("window.kept = document.querySelector('#job-output span')");
    let mut offset = 4;
    for (n, bytes) in [&b"\xa9 one\n"[..], b"two\n", b"three\n"]
        .iter()
        .enumerate()
    {
        drop(device);
        restart(&mut world, |world| {
            world.browser.until_text("#link-state", "not connected");
        });
        device = back(&world);
        device.bytes(&job, "stdout", offset, bytes);
        offset += bytes.len();
        let shown = ["one", "two", "three"][n];
        world.browser.until_text("#job-output", shown);
        world.browser.until_text("#link-state", "live");
    }
    let result = json!({"status": "failed", "exitCode": 3, "elapsedMs": 5, "stdoutBytes": offset, "stderrBytes": 7});
    device.reply(&job, "result", &result);
    let browser = &world.browser;
    browser.until_text("#job-status", "failed · exit code 3");
    let shown = |stream: &str| {
        let all = format!(
            "[...document.querySelectorAll('#job-output .{stream}')].map((e) => e.textContent).join('')"
        );
        browser.eval(&all)
    };
    assert_eq!(shown("stdout"), json!("café one\ntwo\nthree\n"));
    assert_eq!(shown("stderr"), json!("warned\n"));
    assert_eq!(
        browser.eval("kept.isConnected"),
        json!(true),
        "nothing is drawn again"
    );
    browser.until_text("#job-bytes", "stdout 20 B");
    assert_eq!(browser.eval("window.trouble"), json!([]));
}

/// Lets `answer`, an expression of `url` and `body`, answer calls for which it is not undefined.
fn stand_in(world: &World, answer: &str) {
    world.browser.before_load(&format!(
        "const real = window.fetch;
         window.asked = [];
         window.fetch = (url, options) => {{
           const body = options?.body === undefined ? null : JSON.parse(options.body);
           const answer = ({answer});
           if (answer === undefined) return real(url, options);
           asked.push([url, body]);
           return Promise.resolve(new Response(JSON.stringify(answer)));
         }};"
    ));
}

#[test]
fn shows_what_a_device_recorded_and_filters_it() {
    let world = world!();
    let browser = &world.browser;
    let record = |row: u64, code: u32, data: Value| {
        json!({"row": row, "id": row, "agent": "gate", "instance": "", "token": format!("<b>{row}</b>"), "code": code,
            "etime": 1_700_000_000, "ctime": 1_700_000_000, "received": 1_700_000_000, "data": data})
    };
    let all = json!([
        record(
            4,
            300,
            json!({"celsius": 51, "note": "<img src=x onerror=alert(1)>"})
        ),
        record(3, 2, json!({"status": "interrupted", "message": "power"})),
        record(
            2,
            1,
            json!({"status": "succeeded", "exitCode": 0, "elapsedMs": 12})
        ),
        record(1, 0, json!({"what": "<i>uname</i>", "origin": "poseidon"})),
    ]);
    let later = json!([record(5, 102, json!({"events": 7}))]);
    stand_in(
        &world,
        &format!(
            "!url.includes('/history?') ? undefined
             : url.includes('code=2') ? {{records: {all}.slice(1, 2), more: false}}
             : url.includes('after=4') ? {{records: window.later ? {later} : [], more: false}}
             : url.includes('after=') ? {{records: [], more: false}}
             : {{records: {all}, more: true}}"
        ),
    );
    let mut said = hello(&format!("{:032x}", 1), "gate");
    said["journal"] = json!({"id": "j", "state": "disk", "first": 1, "last": 4});
    let body = json!({"identifier": identifier(1), "name": "gate-lyon"});
    world.api("POST", "/identifiers", &body);
    let device = world.connect(1, &said).expect("it is registered");
    device.send("heartbeat", &health(12, 40, 30));
    world.sign_in();
    world.open("gate-lyon");
    browser.until_text("#history", "<i>uname</i> for poseidon");
    let words =
        "[...document.querySelectorAll('#history .job-status')].map((e) => e.textContent).join()";
    assert_eq!(browser.eval(words), json!("value 300,failed,ok,accepted"));
    browser.until_text("#history", "interrupted · power");
    browser.until_text("#history-note", "Older ones");
    browser.eval("window.later = true");
    browser.until(
        "what comes later is first",
        &format!("{words} === 'dropped,value 300,failed,ok,accepted'"),
    );
    browser.until_text("#history", "7 events, for want of room");
    world.screenshot("history");
    browser.keys("#history-filter", "failed");
    browser.until("one is left", &format!("{words} === 'failed'"));
    let first = "asked[0][0]";
    let instance = format!("{:032x}", 1);
    assert_eq!(
        browser.eval(first),
        json!(format!(
            "/api/v1/history?agent=gate-lyon%2F{instance}&limit=50"
        ))
    );
    // A press on one shows all about its token.
    browser.click("#history button");
    browser.until(
        "it asks for it",
        "asked.some(([url]) => url.includes('token=%3Cb%3E3%3C%2Fb%3E'))",
    );
    browser.size(360, 740);
    assert_eq!(
        browser.eval("document.documentElement.scrollWidth"),
        json!(360)
    );
    world.screenshot("history-phone");
    browser.no_trouble(None);
}

#[test]
fn shows_jobs_that_wait_and_two_devices_with_one_identity() {
    let world = world!();
    let browser = &world.browser;
    let device = world.device(1, "gate-lyon", "gate", &health(12, 40, 30));
    drop(device);
    let instance = format!("{:032x}", 1);
    let now = poseidon::time::now();
    let job = json!({"id": "0123", "agent": "gate-lyon", "instance": instance, "state": "queued", "created": now,
        "expires": now + 7300.0, "request": {"shell": "reboot"}, "result": null, "error": null});
    let collision =
        json!({"address": "192.0.2.7:1234", "hostname": "<b>twin</b>", "since": now, "last": now});
    stand_in(
        &world,
        &format!(
            "url.endsWith('/jobs') ? {{jobs: [{job}]}}
             : url.includes('/jobs/0123/') ? {{}}
             : undefined"
        ),
    );
    // The stream of events, with a collision in it.
    browser.before_load(&format!(
        "const parse = JSON.parse;
         JSON.parse = (text) => {{
           const value = parse(text);
           for (const agent of value?.agents ?? []) agent.collision = {collision};
           return value;
         }};"
    ));
    world.sign_in();
    browser.until(
        "it is down",
        &format!("{} === 'Down'", row("gate-lyon", ".state")),
    );
    browser.until(
        "the badge is there",
        &format!(
            "{}.querySelector('.badge').checkVisibility()",
            row("gate-lyon", "")
        ),
    );
    world.screenshot("collision");
    world.open("gate-lyon");
    browser.until_text("#device-collision", "203.0.113.1");
    browser.until_text("#device-collision", "192.0.2.7:1234 (<b>twin</b>)");
    browser.until_text("#device-collision", "remove the file “instance”");
    browser.click("#queue");
    browser.keys("#command", &format!("reboot{ENTER}"));
    browser.until_text(
        "#job-status",
        "queued until the device is back · expires in 2 h",
    );
    browser.until_text("#jobs", "queued until the device is back");
    let sent = browser.eval("asked.find(([url]) => url.endsWith('/jobs'))[1]");
    assert_eq!(sent["queue"], true);
    assert_eq!(sent["expiresSeconds"], 86_400);
    world.screenshot("queued");
    browser.size(360, 740);
    assert_eq!(
        browser.eval("document.documentElement.scrollWidth"),
        json!(360)
    );
    world.screenshot("queued-phone");
    browser.no_trouble(None);
}

#[test]
fn a_queued_job_runs_when_the_device_is_back() {
    let world = world!();
    let browser = &world.browser;
    drop(world.device(1, "gate-lyon", "gate", &health(12, 40, 30)));
    world.sign_in();
    browser.until(
        "it is down",
        &format!("{} === 'Down'", row("gate-lyon", ".state")),
    );
    world.open("gate-lyon");
    browser.click("#queue");
    browser.keys("#command", &format!("reboot{ENTER}"));
    browser.until_text(
        "#job-status",
        "queued until the device is back · expires in 23 h",
    );
    let device = back(&world);
    let job = device.next("command");
    device.reply(&job, "accepted", &json!({}));
    device.output(&job, "stdout", 0, "done\n");
    browser.until_text("#job-output", "done");
    device.reply(
        &job,
        "result",
        &json!({"status": "succeeded", "exitCode": 0, "elapsedMs": 5, "stdoutBytes": 5}),
    );
    browser.until_text("#job-status", "succeeded");
    browser.no_trouble(None);
}
