//! A device without a battery boots in 1970.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Where Debian's package `faketime` has what shows a process another time.
const LIBRARY: &str = "/usr/lib/*/faketime/libfaketimeMT.so.1";

fn library() -> Option<String> {
    let listed = Command::new("sh")
        .args(["-c", &format!("ls {LIBRARY}")])
        .output();
    let path = stdout(&listed.unwrap()).lines().next()?.to_owned();
    Some(path)
}

/// An authority and a certificate for 127.0.0.1, from 2020 on.
fn certificate(folder: &Path) -> [PathBuf; 3] {
    let from = rcgen::date_time_ymd(2020, 1, 1);
    let mut own = CertificateParams::new(Vec::new()).unwrap();
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    own.not_before = from;
    let authority = CertifiedIssuer::self_signed(own, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    // A name of its own: OpenSSL takes a certificate with the name of its issuer for self-signed.
    params
        .distinguished_name
        .push(DnType::CommonName, "poseidon");
    params.not_before = from;
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let files = ["ca", "cert", "key"].map(|name| folder.join(format!("{name}.pem")));
    fs::write(&files[0], authority.pem()).unwrap();
    fs::write(&files[1], certificate.pem()).unwrap();
    fs::write(&files[2], key.serialize_pem()).unwrap();
    files
}

/// What shows the agent another time; none, with the reason printed, where that cannot be done here.
fn usable_library() -> Option<String> {
    let Some(library) = library() else {
        skip("there is no libfaketime (Debian: apt-get install faketime)");
        return None;
    };
    let linked = Command::new("ldd")
        .arg(env!("CARGO_BIN_EXE_triton"))
        .output();
    if !linked.is_ok_and(|linked| linked.status.success()) {
        println!("skipped: a static program cannot be shown another time");
        return None;
    }
    Some(library)
}

#[test]
fn in_1970_tls_waits_for_the_time_and_says_so() {
    let Some(library) = usable_library() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let [ca, cert, key] = certificate(folder.path());
    let poseidon = Poseidon::with(&["--tls-cert", text(&cert), "--tls-key", text(&key)]);
    let said = poseidon.run(&[
        "register",
        "a-device",
        "--name",
        "router",
        "--ca-file",
        text(&ca),
    ]);
    assert!(said.status.success(), "{said:?}");
    let time = folder.path().join("time");
    fs::write(&time, "@1970-01-01 00:01:00").unwrap();
    let mut agent = Agent::new()
        .with(&[
            "--url",
            &format!("wss://{}", poseidon.address()),
            "--ca-file",
            text(&ca),
        ])
        .with_variable("TRITON_IDENTIFIER", "a-device")
        .with_variable("LD_PRELOAD", &library)
        .with_variable("FAKETIME_TIMESTAMP_FILE", text(&time))
        .with_variable("FAKETIME_NO_CACHE", "1")
        .with_variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .with_variable("TZ", "UTC");
    agent.start();
    agent.wait_for_log("not valid yet");
    eventually("it tries again", || {
        (agent.log().matches("cannot connect: tls: ").count() >= 2).then_some(())
    });
    let log = agent.log();
    for part in ["clock", "1970", "NTP"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    // The rest works meanwhile, and what is stored has a time.
    let agent_run = |words: &[&str]| {
        let output = agent.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        stdout(&output)
    };
    assert_eq!(agent_run(&["exec", "--", "echo", "hi"]), "hi\n");
    agent_run(&["put", "21.5"]);
    assert!(agent_run(&["history"]).contains("1970"));
    assert_eq!(agent.status()["link"]["state"], "waiting");
    // NTP has spoken. The wait is short, so nobody has to be told.
    fs::write(&time, "+0").unwrap();
    agent.wait_for_link("connected");
    // What was stored in 1970 arrives.
    let arrived = || stdout(&poseidon.run(&["history", "router", "--ca-file", text(&ca)]));
    eventually("the value arrives", || {
        arrived().contains("21.5").then_some(())
    });
    assert!(agent.stop().success());
}

/// A clock in 1970 is not believed: nothing runs by it, and nothing is made up for when the time is known.
#[test]
fn in_1970_nothing_runs_by_the_clock_but_what_runs_at_boot() {
    let Some(library) = usable_library() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (time, config, boot, tick) = (path("time"), path("config"), path("boot"), path("tick"));
    fs::write(&time, "@1970-01-01 00:01:00").unwrap();
    let entries = format!(
        "[schedule.boot]\ncron = \"@reboot\"\ncommand = [\"touch\", {boot:?}]\n\
         [schedule.tick]\ncron = \"* * * * * *\"\ncatch_up = true\nshell = \"echo x >> {}\"\n",
        text(&tick)
    );
    fs::write(&config, entries).unwrap();
    let mut agent = Agent::new()
        .with_variable("TRITON_CONFIG", text(&config))
        .with_variable("LD_PRELOAD", &library)
        .with_variable("FAKETIME_TIMESTAMP_FILE", text(&time))
        .with_variable("FAKETIME_NO_CACHE", "1")
        .with_variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .with_variable("TZ", "UTC");
    agent.start();
    agent.wait_until_it_serves();
    eventually("what runs at boot", || boot.exists().then_some(()));
    let planned = || {
        let list = agent.run(&["schedule", "--json"]).stdout;
        let list: serde_json::Value = serde_json::from_slice(&list).unwrap_or_default();
        list["entries"][1]["next"].clone()
    };
    assert!(planned().is_null() && !tick.exists());
    // NTP has spoken. No library can make the kernel say so; that the configuration is read anew is as good.
    fs::write(&time, "+0").unwrap();
    agent.signal(libc::SIGHUP);
    eventually("it runs", || tick.exists().then_some(()));
    let history = stdout(&agent.run(&["history", "--code", "103"]));
    assert_eq!(history, "", "nothing was missed");
    assert!(agent.stop().success());
}
