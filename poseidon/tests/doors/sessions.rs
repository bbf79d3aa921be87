//! Signing in to the page.

use crate::common::*;
use crate::{Told, ask, bearer, token};
use serde_json::{Value, json};

async fn log_in(url: &str, token: &str, head: &[&str]) -> Told {
    let body = json!({"token": token}).to_string();
    ask(url, "POST", "/login", head, &body).await
}

fn cookie(told: &Told) -> String {
    let mut lines = told.head.lines();
    let line = lines
        .find_map(|l| l.strip_prefix("set-cookie: "))
        .expect("a cookie");
    format!("cookie: other=1; {}", line.split(';').next().unwrap())
}

#[tokio::test]
async fn a_session_is_a_cookie_that_acts_with_its_csrf_token_only() {
    let mut rig = rig().await;
    let key = token(&rig, "ops", "operator", &["gate-*"]).await;
    let told = log_in(rig.url(), &key, &[]).await;
    assert_eq!(told.status, 200, "{}", told.body);
    for part in [
        "poseidon=",
        "HttpOnly",
        "SameSite=Strict",
        "Path=/",
        "Max-Age=86400",
    ] {
        assert!(told.head.contains(part), "{part}: {}", told.head);
    }
    assert!(!told.head.contains("Secure"), "{}", told.head);
    assert!(!told.body.contains(&key));
    let cookie = cookie(&told);
    let me = told.json();
    assert_eq!(
        (&me["name"], &me["role"], &me["on"]),
        (&json!("ops"), &json!("operator"), &json!(["gate-*"]))
    );
    let csrf = format!("x-csrf-token: {}", me["csrfToken"].as_str().unwrap());
    let ask_by = async |method: &str, path: &str, head: &[&str]| {
        let head: Vec<&str> = std::iter::once(cookie.as_str())
            .chain(head.iter().copied())
            .collect();
        ask(rig.url(), method, path, &head, "").await.status
    };
    assert_eq!(ask_by("GET", "/me", &[]).await, 200);
    assert_eq!(ask_by("GET", "/events", &[]).await, 200);
    assert_eq!(ask_by("GET", "/tokens", &[]).await, 403);
    let cancel = "/jobs/none/cancel";
    let address = rig.url().to_owned();
    let origin = format!("origin: {address}");
    for (head, status) in [
        (vec![], 403),
        (vec!["x-csrf-token: wrong"], 403),
        (vec!["x-csrf-token: "], 403),
        (vec![csrf.as_str()], 404),
        (
            vec![csrf.as_str(), &origin, "sec-fetch-site: same-origin"],
            404,
        ),
        (vec![csrf.as_str(), "origin: http://evil.example"], 403),
        (vec![csrf.as_str(), "origin: null"], 403),
        (vec![csrf.as_str(), "sec-fetch-site: same-site"], 403),
        (vec![csrf.as_str(), "sec-fetch-site: cross-site"], 403),
    ] {
        assert_eq!(ask_by("POST", cancel, &head).await, status, "{head:?}");
    }
    for method in ["PUT", "DELETE"] {
        assert_eq!(ask_by(method, "/data/gate-1/key", &[]).await, 403);
        assert_eq!(ask_by(method, "/data/gate-1/key", &[&csrf]).await, 404);
    }
    assert_eq!(
        ask_by("GET", "/agents", &["sec-fetch-site: cross-site"]).await,
        403
    );
    // A token given along is what counts, and a name that was rebound has no cookie.
    assert_eq!(ask_by("GET", "/me", &[&bearer("wrong")]).await, 401);
    let rebound = ["host: evil.example", "origin: http://evil.example"];
    assert_eq!(
        ask(rig.url(), "GET", "/agents", &rebound, "").await.status,
        401
    );

    // It survives a restart, and ends by a logout.
    rig.restart().await;
    let at = rig.url().to_owned();
    assert_eq!(ask(&at, "GET", "/me", &[&cookie], "").await.status, 200);
    assert_eq!(
        ask(&at, "POST", "/logout", &[&cookie], "").await.status,
        403
    );
    let out = ask(&at, "POST", "/logout", &[&cookie, &csrf], "").await;
    assert!(
        out.status == 200 && out.head.contains("Max-Age=0"),
        "{}",
        out.head
    );
    assert_eq!(ask(&at, "GET", "/me", &[&cookie], "").await.status, 401);
}

#[tokio::test]
async fn a_session_ends_with_its_token() {
    let rig = rig().await;
    let key = token(&rig, "ops", "viewer", &[]).await;
    let cookie = cookie(&log_in(rig.url(), &key, &[]).await);
    assert_eq!(
        ask(rig.url(), "GET", "/agents", &[&cookie], "")
            .await
            .status,
        200
    );
    rig.client.delete("/tokens/ops").await.unwrap();
    assert_eq!(
        ask(rig.url(), "GET", "/agents", &[&cookie], "")
            .await
            .status,
        401
    );
    assert_eq!(log_in(rig.url(), &key, &[]).await.status, 401);
}

#[tokio::test]
async fn wrong_logins_are_all_answered_alike_and_run_out() {
    let rig = rig_with(|settings| settings.plain = true).await;
    let removed = token(&rig, "removed", "admin", &[]).await;
    rig.client.delete("/tokens/removed").await.unwrap();
    let from = |n: u8| format!("x-forwarded-for: 192.0.2.{n}");
    let mut answers = Vec::new();
    for wrong in [
        removed.as_str(),
        "x",
        "",
        "ptk_ä",
        "00000000000000000000000000000000",
    ] {
        let told = log_in(rig.url(), wrong, &[&from(1)]).await;
        assert!(!told.head.contains("set-cookie"), "{}", told.head);
        answers.push((told.status, told.body));
    }
    assert!(
        answers.iter().all(|a| *a == answers[0] && a.0 == 401),
        "{answers:?}"
    );
    let evil = ["origin: http://evil.example"];
    assert_eq!(log_in(rig.url(), "x", &evil).await.status, 403);
    assert_eq!(
        ask(rig.url(), "POST", "/login", &[&from(1)], "nonsense")
            .await
            .status,
        400
    );
    let mut last = None;
    for _ in 0..20 {
        last = Some(log_in(rig.url(), "x", &[&from(1)]).await);
    }
    let last = last.unwrap();
    assert_eq!(last.status, 429);
    assert!(last.head.contains("retry-after: "), "{}", last.head);
    // Neither is a right one let in from there, nor anybody else kept out.
    let admin = rig.server.as_ref().unwrap().data.admin_token().unwrap();
    assert_eq!(log_in(rig.url(), &admin, &[&from(1)]).await.status, 429);
    assert_eq!(log_in(rig.url(), &admin, &[&from(2)]).await.status, 200);
    // The log has those that were looked at, without what was given.
    let acts: Value = rig
        .client
        .get("/audit?act=session&limit=1000")
        .await
        .unwrap();
    let acts = acts["acts"].as_array().unwrap();
    let wrong = acts.iter().filter(|a| a["status"] == 401).count();
    assert!((5..=12).contains(&wrong), "{wrong}");
    assert_eq!(acts[0]["who"], "local");
    assert_eq!(acts[0]["address"], "192.0.2.2");
    assert!(!acts.iter().any(|act| act.to_string().contains("ptk_")));
}

#[tokio::test]
async fn who_is_no_trusted_proxy_is_not_believed() {
    let rig = rig().await;
    let told = log_in(
        rig.url(),
        "x",
        &["x-forwarded-for: 192.0.2.7", "x-forwarded-proto: https"],
    )
    .await;
    assert_eq!(told.status, 401);
    assert!(
        !told.head.contains("strict-transport-security"),
        "{}",
        told.head
    );
    let acts: Value = rig.client.get("/audit?act=session.login").await.unwrap();
    assert_eq!(acts["acts"][0]["address"], "127.0.0.1");
}

#[tokio::test]
async fn behind_a_proxy_that_ends_tls_the_cookie_is_for_tls_only() {
    let rig =
        rig_with(|settings| settings.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]).await;
    let admin = rig.server.as_ref().unwrap().data.admin_token().unwrap();
    let tls = "x-forwarded-proto: https";
    let told = log_in(rig.url(), &admin, &[tls]).await;
    for part in [
        "__Host-poseidon=",
        "; Secure",
        "strict-transport-security: max-age=",
    ] {
        assert!(told.head.contains(part), "{part}: {}", told.head);
    }
    let cookie = cookie(&told);
    assert_eq!(
        ask(rig.url(), "GET", "/me", &[&cookie, tls], "")
            .await
            .status,
        200
    );
    // Another host could set one without the prefix.
    let plain = cookie.replace("__Host-", "");
    assert_eq!(
        ask(rig.url(), "GET", "/me", &[&plain, tls], "")
            .await
            .status,
        401
    );
}
