//! Events of devices on the page, and plots of what their heartbeats say.

use super::device::{Device, health};
use super::world::World;
use serde_json::json;

fn report(device: &Device, first: u64, lines: &[&str]) {
    let now = poseidon::time::now();
    let event = |(n, line): (u64, &&str)| json!({"sequence": n, "time": now - 60.0, "stored": now, "host": "gate", "source": "command", "cef": line});
    let events: Vec<_> = (first..).zip(lines).map(event).collect();
    device.send("events", &json!({"events": events, "last": 99}));
}

#[test]
fn shows_events_live_and_finds_them() {
    let world = world!();
    let browser = &world.browser;
    let device = world.journaled(1, "gate-lyon", "gate", &health(12, 40, 30));
    report(
        &device,
        1,
        &[
            "CEF:0|Acme|Wall|1|7|Login <b>failed</b>|9|src=10.0.0.1 msg=<img src\\=x onerror\\=alert(1)>",
            "CEF:0|Acme|Wall|1|8|Link up|2|dev=eth0",
            "<script>window.hacked = 1</script> is no CEF",
        ],
    );
    world.sign_in();
    browser.click("a[href='#/events']");
    let count = "document.querySelectorAll('#events-list li').length";
    browser.until("all are listed", &format!("{count} === 3"));
    assert_eq!(browser.eval("document.title"), json!("Events · Poseidon"));
    let first = "document.querySelector('#events-list li')";
    browser.until_text("#events-list", "Acme Wall: Login <b>failed</b>");
    browser.until_text(
        "#events-list",
        "<script>window.hacked = 1</script> is no CEF",
    );
    assert_eq!(
        browser.eval(&format!("{first}.querySelector('.level').textContent")),
        json!("?")
    );
    browser.until_text("#events-kept", "of 2.00 GiB kept");
    assert_eq!(
        browser.eval("document.getElementById('events-siem').hidden"),
        json!(true)
    );
    // A press shows the whole line.
    browser.eval("document.querySelectorAll('#events-list .what')[2].click()");
    browser.until_text(
        "#events-list li:nth-child(3) .line",
        "src=10.0.0.1 msg=<img",
    );
    world.screenshot("events");
    // What comes is there by itself.
    report(&device, 4, &["CEF:0|Other|Sensor|1|9|Too hot|7|n=4"]);
    browser.until("it comes", &format!("{count} === 4"));
    browser.until_text("#events-list li:first-child", "Other Sensor: Too hot");
    // Filters, each kept in the address.
    browser.keys("#events-text", "login fail*");
    browser.until("one fits", &format!("{count} === 1"));
    browser.until(
        "the address has it",
        "location.hash === '#/events?text=login+fail*'",
    );
    // What does not fit does not come.
    report(
        &device,
        5,
        &[
            "CEF:0|Other|Sensor|1|9|Too cold|7|n=5",
            "CEF:0|Acme|Wall|1|7|Login failed|7|n=6",
        ],
    );
    browser.until("one more fits", &format!("{count} === 2"));
    browser.eval("document.getElementById('events-severity').value = '9'");
    browser.eval("document.getElementById('events-severity').dispatchEvent(new Event('input', { bubbles: true }))");
    browser.until("one is severe", &format!("{count} === 1"));
    browser.go(&world.url("#/events?vendor=other"));
    browser.until("two are of the vendor", &format!("{count} === 2"));
    assert_eq!(
        browser.eval("document.getElementById('events-vendor').value"),
        json!("other")
    );
    browser.go(&world.url("#/events?on=nobody-*"));
    browser.until_text("#events-note", "Nothing fits.");
    browser.go(&world.url("#/events?text=%22---"));
    browser.until_text("#events-trouble", "there is no word in it");
    // A link goes to the device, and back to its events.
    browser.go(&world.url("#/events"));
    browser.until("all are listed", &format!("{count} === 6"));
    browser.eval(&format!("{first}.querySelector('.device').click()"));
    browser.until_text("#device-name", "gate-lyon");
    browser.until_text("#plots", "system:load");
    browser.click("#plots-events");
    browser.until(
        "all are its own",
        &format!("location.hash.includes('on=gate-lyon') && {count} === 6"),
    );
    browser.size(360, 740);
    let width = "document.documentElement.scrollWidth";
    assert_eq!(browser.eval(width), json!(360));
    // No word of the bar is broken.
    assert_eq!(
        browser.eval("document.querySelector('.bar').offsetHeight"),
        json!(52)
    );
    world.screenshot("events-phone");
    assert_eq!(browser.eval("window.hacked ?? null"), json!(null));
    // One of the searches was refused.
    browser.no_trouble(Some("400"));
}

#[test]
fn plots_what_heartbeats_said() {
    let world = world!();
    let browser = &world.browser;
    let mut beat = health(12, 40, 30);
    beat["metrics"] = json!([{"name": "queue/mail", "value": 7.5, "unit": "<b>"}, {"name": "vast", "value": 1e30}]);
    let device = world.device(1, "gate-lyon", "gate", &beat);
    let app = world.server.as_ref().expect("it runs").app().clone();
    let key = poseidon::agents::Key {
        identifier: poseidon::agents::hash(&super::world::identifier(1)),
        instance: format!("{:032x}", 1),
    };
    // An hour of heartbeats, with a gap.
    let now = poseidon::time::now();
    for minute in (5..60).rev().filter(|minute| !(20..30).contains(minute)) {
        beat["metrics"][0]["value"] = json!(minute);
        let fields = beat.as_object().expect("an object");
        app.metrics
            .take(&key, fields, now - f64::from(minute) * 60.0);
    }
    world.sign_in();
    world.open("gate-lyon");
    let plot =
        "[...document.querySelectorAll('.plot')].find((p) => p.textContent.includes('queue/mail'))";
    browser.until("it is plotted", &format!("{plot} !== undefined"));
    browser.eval("document.getElementById('plots-span').value = '3600'");
    browser.eval("document.getElementById('plots-span').dispatchEvent(new Event('change'))");
    let path = format!("{plot}.querySelector('path').getAttribute('d')");
    browser.until(
        "each minute has its point",
        &format!("({path}.match(/L/g) ?? []).length > 30"),
    );
    // One that stays the same is a line, however large it is.
    let vast = "[...document.querySelectorAll('.plot')].find((p) => p.textContent.includes('vast')).querySelector('path').getAttribute('d')";
    let drawn = browser.eval(&format!("{vast}.length > 100 && !{vast}.includes('NaN')"));
    assert_eq!(drawn, json!(true));
    // Over the gap there is no line.
    let pieces = browser.eval(&format!("({path}.match(/M/g) ?? []).length"));
    assert!(pieces.as_u64().expect("a number") >= 2, "{pieces}");
    browser.until(
        "text stays text",
        &format!("{plot}.textContent.includes('59 <b>')"),
    );
    world.screenshot("plots");
    device.send("heartbeat", &health(77, 40, 30));
    browser.no_trouble(None);
}
