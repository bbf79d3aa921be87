//! Files on a device's page: a listing, a download, an upload.

use super::device::{Device, health};
use super::world::World;
use serde_json::{Value, json};
use triton::message::Message;
use triton::message::text::{decode, encode};

/// What is saved is kept in `window.saved`; the browser asks nobody where to.
const SAVE: &str = "
    window.saved = [];
    const make = URL.createObjectURL;
    URL.createObjectURL = (blob) => {
        blob.arrayBuffer().then((bytes) => window.saved.push(new TextDecoder().decode(bytes)));
        return make.call(URL, blob);
    };
    const click = HTMLAnchorElement.prototype.click;
    HTMLAnchorElement.prototype.click = function () {
        if (this.download) window.savedAs = this.download;
        else click.call(this);
    };";

const CHOOSE: &str = "(() => {
    const transfer = new DataTransfer();
    transfer.items.add(new File(['hello device'], 'motd'));
    const input = document.getElementById('files-choose');
    input.files = transfer.files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
})()";

fn payload(message: &Message) -> Value {
    message.read().expect("JSON")
}

fn list(device: &Device, entries: &[Value]) -> String {
    let job = device.next("file.list");
    let lines: Vec<_> = entries.iter().map(Value::to_string).collect();
    let lines = lines.join("\n") + "\n";
    device.reply(&job, "accepted", &json!({}));
    device.output(&job, "stdout", 0, &lines);
    let result = json!({"status": "succeeded", "data": {"more": false}});
    device.reply(&job, "result", &result);
    payload(&job)["path"].as_str().expect("a path").to_owned()
}

#[test]
fn lists_downloads_and_uploads() {
    let world = world!();
    let browser = &world.browser;
    browser.before_load(SAVE);
    let device = world.device(1, "gate-lyon", "gate", &health(12, 40, 30));
    world.sign_in();
    world.open("gate-lyon");

    // The root, then a folder by its name; text is text.
    browser.click("#files-form button[type=submit]");
    let folder = json!({"name": "etc", "type": "directory", "mode": "0755", "owner": "root", "group": "root"});
    let link = json!({"name": "<img src=x onerror=window.pwned=1>", "type": "symlink", "target": "busybox"});
    assert_eq!(list(&device, &[link, folder]), "/");
    browser.until_text("#files", "etc/");
    browser.until_text("#files", "<img src=x onerror=window.pwned=1> → busybox");
    browser.eval("[...document.querySelectorAll('#files .link')].find((b) => b.textContent === 'etc/').click()");
    let hosts = json!({"name": "hosts", "type": "file", "size": 12, "mode": "0644", "owner": "root",
        "group": "root", "mtime": 1_700_000_000});
    assert_eq!(list(&device, std::slice::from_ref(&hosts)), "/etc");
    browser.until_text("#files", "hosts");
    browser.until_text("#files", "0644");
    browser.until_text("#files-note", "1 entry");
    browser.until(
        "the path",
        "document.getElementById('files-path').value === '/etc'",
    );

    // A download, whose end says that it is whole.
    browser.click("#files tr button:not(.link)");
    let job = device.next("file.get");
    assert_eq!(payload(&job)["path"], "/etc/hosts");
    device.reply(&job, "accepted", &json!({}));
    let offer =
        json!({"ref": job.id, "offset": 0, "size": 12, "mode": "0644", "mtime": 1_700_000_000});
    device.reply(&job, "data.offer", &offer);
    let request = device.next("data.request");
    let piece = json!({"ref": job.id, "offset": 0, "data": encode(b"hello master"), "eof": true});
    device.reply(&request, "data.response", &piece);
    assert_eq!(payload(&device.next("data.request"))["length"], 0);
    let hash = poseidon::blobs::sha256(b"hello master");
    let result = json!({"status": "succeeded", "data": {"size": 12, "sha256": hash}});
    device.reply(&job, "result", &result);
    browser.until(
        "it is saved",
        "window.savedAs === 'hosts' && window.saved[0] === 'hello master'",
    );
    browser.until_text("#jobs", "file.get /etc/hosts");

    // One that breaks off is not saved, and the page says why.
    browser.click("#files tr button:not(.link)");
    let job = device.next("file.get");
    device.reply(&job, "data.offer", &offer_of(&job.id));
    device.next("data.request");
    let error = json!({"code": "changed", "message": "it grew meanwhile"});
    device.reply(&job, "error", &error);
    browser.until_text("#files-error", "it grew meanwhile");
    assert_eq!(browser.eval("window.saved.length"), 1);

    // An upload goes where the field says.
    browser.eval(CHOOSE);
    browser.until(
        "the target",
        "document.getElementById('files-target').value === '/etc/motd'",
    );
    browser.click("#files-send button");
    let job = device.next("file.put");
    let request = payload(&job);
    assert_eq!(
        (request["path"].as_str(), request["size"].as_u64()),
        (Some("/etc/motd"), Some(12))
    );
    device.reply(&job, "accepted", &json!({}));
    let ask = json!({"ref": request["ref"], "offset": 0, "length": 65536});
    device.reply(&job, "data.request", &ask);
    let response = payload(&device.next("data.response"));
    let data = decode(response["data"].as_str().expect("base64"));
    assert_eq!(data.as_deref(), Some(b"hello device".as_slice()));
    device.reply(&job, "progress", &json!({"percent": 50, "message": ""}));
    browser.until_text("#files-progress", "To the device 50 %");
    world.screenshot("files");
    let data = json!({"path": "/etc/motd", "size": 12, "changed": true});
    device.reply(
        &job,
        "result",
        &json!({"status": "succeeded", "data": data}),
    );
    assert_eq!(list(&device, &[hosts]), "/etc");
    browser.until_text("#files-note", "/etc/motd is written");

    // What the device refuses is said.
    browser.eval("document.getElementById('files-path').value = ''");
    browser.keys("#files-path", "/nowhere");
    browser.click("#files-form button[type=submit]");
    let job = device.next("file.list");
    let error = json!({"code": "not-found", "message": "there is no /nowhere"});
    device.reply(&job, "error", &error);
    browser.until_text("#files-error", "there is no /nowhere");
    assert_eq!(browser.eval("window.pwned ?? null"), Value::Null);
    // The blob that is not there yet, and the file that broke off.
    browser.no_trouble(Some("Failed to load resource"));
}

fn offer_of(token: &str) -> Value {
    json!({"ref": token, "offset": 0, "size": 12, "mode": "0644", "mtime": 1_700_000_000})
}
