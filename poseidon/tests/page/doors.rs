//! Who is signed in, and what they are shown.

use super::browser::ENTER;
use super::device::health;
use super::world::{World, row};
use serde_json::json;

/// Whether an element is to be seen.
fn shown(selector: &str) -> String {
    format!(
        "document.querySelector({})?.checkVisibility() === true",
        json!(selector)
    )
}

#[test]
fn keeps_no_token_and_shows_what_the_role_may() {
    let world = world!();
    let browser = &world.browser;
    let made = world.api(
        "POST",
        "/tokens",
        &json!({"name": "eyes", "role": "viewer", "on": ["gate-*"]}),
    );
    let token = made["token"].as_str().expect("a token");
    let _gate = world.device(1, "gate-lyon", "gate", &health(12, 40, 30));
    let _pi = world.device(2, "pi-roof", "pi", &health(55, 20, 93));
    browser.go(&world.url(""));
    browser.until("the form", &shown("#token"));
    browser.keys("#token", token);
    browser.keys("#token", ENTER);
    browser.until_text("#link-state", "live");
    browser.until_text("#who", "eyes · viewer · gate-*");
    browser.until(
        "its device",
        &format!("{} !== undefined", row("gate-lyon", "")),
    );
    assert_eq!(
        browser.eval("document.querySelectorAll('#agents tbody tr').length"),
        json!(1)
    );
    for hidden in ["#many-open", "#audit-link", "#token"] {
        assert_eq!(browser.eval(&shown(hidden)), json!(false), "{hidden}");
    }
    let kept = "[document.cookie, localStorage.length, sessionStorage.length, document.getElementById('token').value]";
    assert_eq!(browser.eval(kept), json!(["", 0, 0, ""]));
    // A link does not make somebody else of who is signed in.
    world
        .browser
        .go(&world.url(&format!("#token={}", world.token)));
    browser.until_text("#notice", "eyes is signed in");
    browser.until_text("#who", "eyes · viewer · gate-*");
    browser.reload();
    browser.until_text("#who", "eyes · viewer · gate-*");
    world.open("gate-lyon");
    for hidden in ["#run", "#files-form", "#forget"] {
        assert_eq!(browser.eval(&shown(hidden)), json!(false), "{hidden}");
    }
    world.screenshot("viewer");
    browser.reload();
    browser.until_text("#who", "eyes");
    browser.until_text("#link-state", "live");
    browser.no_trouble(Some("40"));
    // Who is out is out at once, and what was shown is gone.
    world.api("DELETE", "/tokens/eyes", &json!({}));
    browser.until("the form", &shown("#token"));
    browser.until_text("#login-error", "The session is over");
    assert_eq!(
        browser.eval("document.querySelectorAll('#agents tbody tr').length"),
        json!(0)
    );
}

#[test]
fn shows_an_admin_what_was_done() {
    let world = world!();
    let browser = &world.browser;
    world.sign_in();
    let _gate = world.device(1, "gate-lyon", "gate", &health(12, 40, 30));
    browser.until_text("#who", "local · admin");
    browser.click("#audit-link");
    browser.until_text("#audit-rows", "session.login");
    browser.until_text("#audit-rows", "identifiers.register");
    world.screenshot("audit");
    // A cookie alone acts for nobody but the page.
    let forged = "fetch('/api/v1/tokens', {method: 'POST', body: '{}'}).then((r) => { window.forged = r.status; }) && true";
    browser.eval(forged);
    browser.until("it is refused", "window.forged === 403");
    // Inline code does not run.
    let inline = "(() => { const s = document.createElement('script'); s.textContent = 'window.inline = 1'; document.body.append(s); return window.inline ?? 0; })()";
    assert_eq!(browser.eval(inline), json!(0));
    browser.click("#sign-out");
    browser.until("the form", &shown("#token"));
    browser.reload();
    browser.until("the form stays", &shown("#token"));
}
