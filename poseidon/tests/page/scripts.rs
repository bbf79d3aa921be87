//! A device's scripts on the page: written, changed, reverted; two who write at once.

use super::browser::ENTER;
use super::device::health;
use super::world::World;
use serde_json::{Value, json};

const MARKUP: &str = "<img src=x onerror=window.pwned=4>";

fn texts(selector: &str) -> String {
    format!(
        "[...document.querySelectorAll({})].map((e) => e.textContent).join()",
        json!(selector)
    )
}

/// Puts text into a field as typing does, whatever was there.
fn write(world: &World, id: &str, text: &str) {
    world.browser.eval(&format!(
        "document.getElementById({}).value = {}",
        json!(id),
        json!(text)
    ));
}

fn files(world: &World) -> Value {
    world.api("GET", "/repositories/gate-lyon", &Value::Null)
}

fn content(world: &World, path: &str) -> Value {
    // The page's own eyes: raw content is no JSON.
    let token = &world.token;
    world.browser.eval(&format!(
        "(() => {{ const x = new XMLHttpRequest(); x.open('GET', '/api/v1/repositories/gate-lyon/files/{path}', false);
         x.setRequestHeader('Authorization', 'Bearer {token}'); x.send(); return x.responseText; }})()"
    ))
}

#[test]
fn scripts_are_written_changed_and_reverted() {
    let world = world!();
    let browser = &world.browser;
    let _device = world.device(1, "gate-lyon", "gate", &health(12, 40, 30));
    world.sign_in();
    world.open("gate-lyon");
    browser.until_text("#scripts-empty", "None yet");
    browser.click("#scripts-new");
    browser.keys("#editor-path", "../x");
    browser.keys("#editor-comment", "none");
    browser.click("#editor-save");
    browser.until_text("#editor-note", "no part of it begins with a dot");
    write(&world, "editor-path", "net/up.sh");
    browser.keys(
        "#editor-text",
        &format!("#!/bin/sh{ENTER}echo \"<b>up</b>\"{ENTER}"),
    );
    write(&world, "editor-comment", MARKUP);
    browser.click("#editor-save");
    browser.until_text("#editor-note", "Saved as revision 1");
    let list = texts("#scripts code");
    browser.until("it is listed", &format!("{list} === 'net/up.sh'"));
    browser.until_text("#scripts-revision", "Revision 1");
    browser.until_text("#scripts-comment", MARKUP);
    assert_eq!(
        content(&world, "net/up.sh"),
        json!("#!/bin/sh\necho \"<b>up</b>\"\n")
    );
    assert_eq!(files(&world)["files"][0]["mode"], "0755");
    browser.click("#editor-save");
    browser.until_text("#editor-note", "Nothing has changed");
    browser.keys("#editor-text", "echo more\n");
    browser.click("#editor-exec");
    browser.keys("#editor-comment", &format!("more{ENTER}"));
    browser.until_text("#editor-note", "Saved as revision 2");
    assert_eq!(files(&world)["files"][0]["mode"], "0644");
    world.screenshot("scripts");

    // An older revision: to be read, and to go back to.
    browser.click("#revisions-box summary");
    browser.until(
        "both are there",
        "document.querySelectorAll('#revisions li').length === 2",
    );
    browser.until_text("#revisions", MARKUP);
    browser.click("#revisions li:last-child button");
    browser.until(
        "it is an older one",
        "!document.getElementById('scripts-older').hidden",
    );
    browser.click("#scripts button");
    browser.until("it is shown", "!document.getElementById('editor').hidden");
    assert_eq!(
        browser.eval("document.getElementById('editor-text').readOnly"),
        json!(true)
    );
    assert_eq!(
        browser.eval("document.getElementById('editor-text').value.includes('more')"),
        json!(false)
    );
    browser.click("#scripts-revert");
    browser.click("#scripts-revert");
    browser.until_text("#scripts-revision", "Revision 3");
    browser.until(
        "three are there",
        "document.querySelectorAll('#revisions li').length === 3",
    );
    assert_eq!(files(&world)["files"][0]["mode"], "0755");
    browser.size(360, 740);
    assert_eq!(
        browser.eval("document.documentElement.scrollWidth"),
        json!(360)
    );
    world.screenshot("scripts-phone");
    browser.size(1200, 800);

    browser.click("#scripts button");
    browser.until(
        "it can be written",
        "!document.getElementById('editor-text').readOnly",
    );
    browser.click("#editor-delete");
    browser.click("#editor-delete");
    browser.until("it is gone", &format!("{list} === ''"));
    browser.until_text("#scripts-revision", "Revision 4");
    assert_eq!(files(&world)["files"], json!([]));
    assert_eq!(browser.eval("window.pwned"), Value::Null);
    // The first save was refused, and the browser says so.
    browser.no_trouble(Some("400"));
}

#[test]
fn who_writes_at_the_same_time_is_not_overwritten() {
    let world = world!();
    let browser = &world.browser;
    let _device = world.device(1, "gate-lyon", "gate", &health(12, 40, 30));
    let blobs = world.server.as_ref().expect("it runs").app().blobs.clone();
    let put = |files: &[(&str, &[u8])]| {
        let put = |(path, content): &(&str, &[u8])| {
            let hash = blobs.put(content).expect("it is stored");
            json!({"path": path, "sha256": hash, "mode": "0640"})
        };
        let files: Vec<_> = files.iter().map(put).collect();
        world.api("POST", "/repositories/gate-lyon", &json!({"files": files}));
    };
    put(&[("a", b"one\r\ntwo\r\n"), ("b", b"b"), ("c", b"\xff\0")]);
    world.sign_in();
    world.open("gate-lyon");
    let list = texts("#scripts code");
    browser.until("all are listed", &format!("{list} === 'a,b,c'"));
    // What is no text is not to be changed here.
    browser.click("#scripts li:nth-child(3) button");
    browser.until_text("#editor-note", "It is no text");
    assert!(browser.eval("document.getElementById('editor-save').hidden") == json!(true));
    browser.click("#scripts li:first-child button");
    let value = "document.getElementById('editor-text').value";
    browser.until("it is shown", &format!("{value} === 'one\\ntwo\\n'"));
    // Another script is changed: this one can be saved on top of that, with its line ends and its mode.
    put(&[("a", b"one\r\ntwo\r\n"), ("b", b"other"), ("d", b"d")]);
    browser.until("the list follows", &format!("{list} === 'a,b,d'"));
    write(&world, "editor-text", "one\n2\n");
    browser.click("#editor-save");
    browser.until_text("#editor-note", "Saved as revision 3");
    let now = files(&world);
    assert_eq!(content(&world, "a"), json!("one\r\n2\r\n"));
    assert_eq!(now["files"][0]["mode"], "0640");
    assert_eq!(now["files"].as_array().map(Vec::len), Some(3));
    // This one is changed: what is written stays in the box, and nothing is overwritten by surprise.
    put(&[("a", b"theirs")]);
    write(&world, "editor-text", "mine\n");
    browser.click("#editor-save");
    browser.until_text("#editor-note", "somebody else has changed this script");
    assert_eq!(browser.eval(value), json!("mine\n"));
    assert_eq!(content(&world, "a"), json!("theirs"));
    browser.click("#editor-save");
    browser.until_text("#editor-note", "Saved as revision 5");
    assert_eq!(content(&world, "a"), json!("mine\r\n"));
    browser.no_trouble(Some("409"));
}
