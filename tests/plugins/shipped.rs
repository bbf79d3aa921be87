//! The plugins of the project, and the one of the guide: by the shells and the Lua that routers have.

use crate::rig::Rig;
use crate::support::poseidon::Poseidon;
use crate::support::{eventually, local};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use triton::message::Message;

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("plugins")
        .join(name);
    fs::read_to_string(path).unwrap()
}

/// A tree like that of a router.
fn tree(folder: &Path) -> PathBuf {
    let root = folder.join("root");
    for (path, content) in [
        ("sys/class/thermal/thermal_zone0/temp", "48312\n"),
        ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
        ("sys/class/thermal/thermal_zone1/temp", "-5\n"),
        ("sys/class/thermal/thermal_zone1/type", "a \"b\" & <c>\n"),
        ("sys/class/thermal/thermal_zone2/temp", "none\n"),
        ("sys/class/hwmon/hwmon0/temp1_input", "0051000"),
        ("sys/class/hwmon/hwmon0/name", "ath10k_hwmon\n"),
        ("sys/class/net/eth0/speed", "1000\n"),
        ("sys/class/net/eth1/speed", "-1\n"),
        (
            "proc/net/wireless",
            "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n\
             face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n\
             wlan0: 0000   54.  -56.  -256        0      0      0      0      0        0\n",
        ),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

const METRICS: [(&str, f64); 6] = [
    ("speed/eth0", 1000.0),
    ("temperature/a__b_____c_.1", -0.005),
    ("temperature/ath10k_hwmon.temp1", 51.0),
    ("temperature/cpu-thermal.0", 48.312),
    ("wireless/wlan0.level", -56.0),
    ("wireless/wlan0.link", 54.0),
];

#[test]
fn sysfs_reads_a_router_by_each_shell() {
    let folder = tempfile::tempdir().unwrap();
    let root = tree(folder.path());
    let script = folder.path().join("sysfs");
    fs::write(&script, shipped("sysfs")).unwrap();
    for shell in [&["dash"][..], &["busybox", "ash"], &["bash"]] {
        let mut child = Command::new(shell[0])
            .args(&shell[1..])
            .arg(&script)
            .env("SYSFS_ROOT", &root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = BTreeMap::new();
        for line in lines.take(1 + METRICS.len()) {
            let message = Message::decode(line.unwrap().as_bytes(), 65_536).unwrap();
            let said: Value = message.read().unwrap();
            if message.kind == "metric" {
                let name = said["name"].as_str().unwrap().to_owned();
                seen.insert(name, said["value"].as_f64().unwrap());
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let expected: BTreeMap<_, _> = METRICS.map(|(n, v)| (n.to_owned(), v)).into();
        assert_eq!(seen, expected, "{shell:?}");
    }
}

#[test]
fn what_sysfs_reads_is_in_poseidons_heartbeats() {
    let poseidon = Poseidon::with(&["--heartbeat-seconds", "1"]);
    let mut rig = Rig::unstarted("");
    rig.put("sysfs", &shipped("sysfs"));
    let root = tree(rig.agent.folder());
    let output = rig.agent.run(&["identifier"]);
    poseidon.register(String::from_utf8(output.stdout).unwrap().trim(), "router");
    rig.agent = rig
        .agent
        .with(&["--url", &poseidon.url()])
        .with_variable("SYSFS_ROOT", root.to_str().unwrap())
        .with_variable("SYSFS_SECONDS", "1");
    let rig = rig.start();
    eventually("metrics in the heartbeat", || {
        let shown = poseidon.run(&["show", "router", "--json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).ok()?;
        let metrics = shown["health"]["metrics"].as_array()?.clone();
        let has = |(name, value): &(&str, f64)| {
            metrics
                .iter()
                .any(|m| m["name"] == *name && m["value"] == *value)
        };
        METRICS.iter().all(has).then_some(())
    });
    assert_eq!(rig.module("sysfs")["state"], "running");
}

const LOG: &str = r"Sat Nov 21 10:00:00 2026 authpriv.info dropbear[1234]: Child connection from 192.168.1.7:50222
Sat Nov 21 10:00:01 2026 authpriv.warn dropbear[1234]: Bad password attempt for 'root' from 192.168.1.7:50222
Sat Nov 21 10:00:02 2026 authpriv.warn dropbear[1234]: Bad password attempt for 'a=b|c\ from 9.9.9.9:1' from <192.168.1.8:50223>
Sat Nov 21 10:00:03 2026 authpriv.warn dropbear[1235]: Login attempt for nonexistent user from fe80::1:50224
Sat Nov 21 10:00:04 2026 authpriv.notice dropbear[1236]: Password auth succeeded for 'root' from 192.168.1.9:50225
Sat Nov 21 10:00:05 2026 kern.warn kernel: [  123.4] drop wan in: IN=eth1 OUT= MAC=00:11 SRC=203.0.113.9 DST=198.51.100.2 LEN=40 PROTO=TCP SPT=4711 DPT=22
Sat Nov 21 10:00:06 2026 daemon.notice hostapd: wlan0: AP-STA-POSSIBLE-PSK-MISMATCH aa:bb:cc:dd:ee:ff
Sat Nov 21 10:00:07 2026 auth.info sshd[77]: Failed password for invalid user bob from 192.0.2.1 port 40000 ssh2
Sat Nov 21 10:00:08 2026 kern.err kernel: [  999.9] Out of memory: Killed process 42 (luci) total-vm:1kB
Sat Nov 21 10:00:09 2026 daemon.info dnsmasq[1]: nothing of interest
";

const EVENTS: [&str; 8] = [
    "CEF:0|OpenWrt|dropbear|1|auth-failed|Login failed|6|src=192.168.1.7 spt=50222 suser=root app=ssh",
    r"CEF:0|OpenWrt|dropbear|1|auth-failed|Login failed|6|src=192.168.1.8 spt=50223 suser=a\=b|c\\ from 9.9.9.9:1 app=ssh",
    "CEF:0|OpenWrt|dropbear|1|auth-failed|Login failed|6|src=fe80::1 spt=50224 app=ssh",
    "CEF:0|OpenWrt|dropbear|1|auth-succeeded|Login|3|src=192.168.1.9 spt=50225 suser=root app=ssh",
    "CEF:0|OpenWrt|firewall|1|drop|Packet refused|4|act=drop src=203.0.113.9 dst=198.51.100.2 proto=TCP spt=4711 dpt=22 deviceInboundInterface=eth1",
    "CEF:0|OpenWrt|hostapd|1|wrong-key|Station wrong-key|6|smac=aa:bb:cc:dd:ee:ff deviceInboundInterface=wlan0",
    "CEF:0|OpenWrt|sshd|1|auth-failed|Login failed|6|src=192.0.2.1 spt=40000 suser=bob app=ssh",
    "CEF:0|OpenWrt|kernel|1|out-of-memory|Out of memory|8|spid=42 sproc=luci",
];

#[test]
fn logread_makes_events_of_the_log() {
    let mut rig = Rig::unstarted("");
    let lua = ["lua5.1", "lua"].into_iter().find(|lua| {
        let version = Command::new(lua).arg("-v").output();
        version.is_ok_and(|v| v.status.success())
    });
    let lua = lua.expect("a test needs Lua: apt-get install lua5.1");
    let text = shipped("logread").replacen("env lua", &format!("env {lua}"), 1);
    rig.put("logread", &text);
    let log = rig.agent.folder().join("log.txt");
    fs::write(&log, LOG).unwrap();
    let command = format!("cat {}; exec sleep 1000", log.display());
    rig.agent = rig.agent.with_variable("LOGREAD_COMMAND", &command);
    let rig = rig.start();
    let events = eventually("all events", || {
        let all = local::history(&rig.agent.socket()).ok()?;
        let all = all.into_iter().filter(|r| r.code == 101);
        let all: Vec<Value> = all
            .map(|r| serde_json::from_str(r.data.get()).unwrap())
            .collect();
        (all.len() >= EVENTS.len()).then_some(all)
    });
    let lines: Vec<_> = events.iter().map(|e| e["cef"].as_str().unwrap()).collect();
    assert_eq!(lines, EVENTS);
    assert!(
        events.iter().all(|e| e["source"] == "plugin/logread"),
        "{events:?}"
    );
}

/// What the guide shows, as it stands there.
#[test]
fn the_guides_example_works_by_each_shell() {
    let guide = include_str!("../../docs/plugins.md");
    let begin = guide.find("```sh\n").unwrap() + 6;
    let example = &guide[begin..begin + guide[begin..].find("```").unwrap()];
    for shell in ["/bin/dash", "/usr/bin/env -S busybox ash"] {
        let rig = Rig::unstarted("");
        rig.put("lines", &example.replacen("/bin/sh", shell, 1));
        let rig = rig.start();
        rig.wait_for("lines", "running");
        let path = rig.agent.folder().join("three");
        fs::write(&path, "1\n2\n3\n").unwrap();
        let ask = |path: &Path| rig.module_ask("lines.count", &format!("{{\"path\":{path:?}}}"));
        let (code, out, err) = ask(&path);
        assert_eq!((code, out.trim()), (0, r#"{"lines":3}"#), "{shell}: {err}");
        let (code, _, err) = ask(Path::new("/none"));
        assert!(
            code != 0 && err.contains("cannot be read"),
            "{shell}: {err}"
        );
    }
}
