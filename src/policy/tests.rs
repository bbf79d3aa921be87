use super::*;
use serde_json::json;

fn config(toml: &str) -> Config {
    Config::from_toml(toml).unwrap_or_else(|why| panic!("{why}: {toml}"))
}

fn rules(toml: &str) -> Rules {
    Rules::new(&config(toml), Path::new("/usr/sbin/triton"))
}

/// What refuses a message, or what allows it.
fn judge(rules: &Rules, kind: &str, payload: &Value) -> Result<String, String> {
    judge_text(rules, kind, &payload.to_string())
}

fn judge_text(rules: &Rules, kind: &str, payload: &str) -> Result<String, String> {
    let message = Message {
        payload: Some(payload.to_owned()),
        ..Message::new(kind)
    };
    let asked = Asked::read(&message, rules.pipe()).unwrap_or_else(|_| Asked::unread(kind));
    let entries = asked.entries().iter().map(|entry| of_entry(entry));
    let mut last = None;
    for ask in std::iter::once(asked.ask()).chain(entries) {
        let verdict = rules.judge(&ask, &mut |_, _| {});
        if !verdict.allowed {
            return Err(verdict.rule);
        }
        last.get_or_insert(verdict.rule);
    }
    Ok(last.unwrap())
}

fn error(toml: &str) -> String {
    match Config::from_toml(toml) {
        Ok(_) => panic!("accepted: {toml}"),
        Err(why) => why,
    }
}

#[test]
fn without_a_policy_all_is_allowed() {
    let open = rules("");
    for kind in ["command", "system.reboot", "file.get", "x.y"] {
        assert!(
            judge(
                &open,
                kind,
                &json!({ "path": "/var/lib/triton/identifier" })
            )
            .is_ok()
        );
    }
}

#[test]
fn a_mistake_names_its_line_and_what_may_stand_there() {
    for (toml, parts) in [
        (
            "[policy]\nprofil = \"open\"",
            &[
                "2: ",
                "unknown field `profil`",
                "`profile`, `file`, `allow`, `deny`",
            ][..],
        ),
        (
            "[policy]\nprofile = \"closed\"",
            &["2: ", "one of open, scripts-only, read-only"],
        ),
        (
            "[policy.deny.x]\n",
            &["1: ", "policy.deny.x: a rule without a condition"],
        ),
        (
            "[policy.allow.x]\nwith = [\"stdin\"]",
            &["1: ", "without a condition"],
        ),
        (
            "[policy.deny.x]\ntypes = [\"command\"]",
            &["2: ", "unknown condition `types`", "type, script"],
        ),
        ("[policy.deny.x]\ntype = []", &["2: ", "fits nothing"]),
        (
            "[policy.deny.x]\ntype = [\n\"command\",\n7]",
            &["4: ", "a string"],
        ),
        ("[policy.deny.x]\ntype = 7", &["2: ", "a string, or a list"]),
        (
            "[policy.deny.x]\ntype = \"comand\"",
            &["2: ", "fits no message type"],
        ),
        (
            "[policy.deny.x]\ntype = \"file.putt\"",
            &["2: ", "fits no message type"],
        ),
        (
            "[policy.deny.x]\ntype = \"sytem.reboot\"",
            &["2: ", "did you mean \"system.reboot\"?"],
        ),
        (
            "[policy.deny.x]\ntype = \"sytem.*\"",
            &["2: ", "did you mean \"system.*\"?"],
        ),
        (
            "[policy.deny.x]\ntype = \"fil.*\"",
            &["did you mean \"file.*\"?"],
        ),
        (
            "[policy.deny.x]\ntype = \"File.put\"",
            &["did you mean \"file.put\"?"],
        ),
        (
            "[policy.deny.x]\ntype = \"schedul.set\"",
            &["did you mean \"schedule.set\"?"],
        ),
        (
            "[policy.deny.x]\ntype = \"modul.kill\"",
            &["did you mean \"module.kill\"?"],
        ),
        (
            "[policy.deny.x]\ntype = \"SYTSEM.reboot\"",
            &["did you mean \"system.reboot\"?"],
        ),
        (
            "[policy.deny.x]\ntype = \"nodes.*\"",
            &["fits no message type"],
        ),
        (
            "[policy.deny.x]\ntype = \"ack\"",
            &["2: ", "no policy is asked"],
        ),
        ("[policy.deny.x]\ntype = \"\"", &["2: ", "empty pattern"]),
        ("[policy.deny.x]\npath = \"etc\"", &["2: ", "absolute"]),
        (
            "[policy.deny.x]\npath = \"/etc/../x\"",
            &["2: ", "absolute"],
        ),
        ("[policy.deny.x]\npath = \"/etc/*\"", &["2: ", "no pattern"]),
        (
            "[policy.deny.x]\nscript = \"/backup\"",
            &["2: ", "no name of a script"],
        ),
        (
            "[policy.deny.x]\nscript = \"../x\"",
            &["2: ", "no name of a script"],
        ),
        (
            "[policy.deny.x]\nscript = \"./x.sh\"",
            &["no name of a script"],
        ),
        (
            "[policy.deny.x]\nscript = \"a/.secret*\"",
            &["no part of which begins with a dot"],
        ),
        (
            "[policy.deny.x]\nscript = \"a//b\"",
            &["no name of a script"],
        ),
        (
            "[policy.deny.x]\ncommand = \"rm  -rf *\"",
            &["2: ", "two blanks"],
        ),
        (
            "[policy.deny.x]\ncommand = \"echo $HOME\"",
            &["2: ", "single quotes"],
        ),
        ("[policy.deny.x]\nuser = \"ro*\"", &["2: ", "no user"]),
        ("[policy.deny.x]\nenv = \"A=b\"", &["2: ", "no variable"]),
        (
            "[policy.deny.x]\nwith = \"wings\"",
            &["2: ", "none of stdin, cwd, group"],
        ),
        ("[policy.deny.x]\ncommand = \" a\"", &["2: ", "blank"]),
        (
            "[policy.deny.x]\ncommand = \"shell:a\"",
            &["2: ", "shell = [\"a\"]"],
        ),
        (
            "[policy.deny.x]\ncommand = \"echo \\\"a b\\\"\"",
            &["2: ", "single quotes"],
        ),
        (
            "\n[policy.deny.x]\ncommand = \"a\"\nshell = \"a\"",
            &["2: ", "two rules"],
        ),
        (
            "[policy.deny.x]\ncommand = \"a\"\npath = \"/a\"",
            &["1: ", "can fit nothing", "command, path"],
        ),
        (
            "[policy.allow.x]\ntype = \"schedule.set\"\nscript = \"a\"",
            &["1: ", "can fit nothing"],
        ),
        (
            "[policy]\nprofile = \"scripts-only\"\n[policy.allow.x]\ncommand = \"a\"",
            &["3: ", "can allow nothing", "scripts-only"],
        ),
        (
            "[policy]\nprofile = \"read-only\"\n[policy.allow.x]\ntype = \"file.get\"",
            &["3: ", "can allow nothing"],
        ),
        (
            "[policy]\nfile = \"/p\"\ndeny.x.type = \"*\"",
            &["2: ", "takes the place"],
        ),
        ("[policy]\nfile = \"p\"", &["2: ", "absolute"]),
        (
            "[policy.deny.\"a b\"]\ntype = \"*\"",
            &["1: ", "name of a rule"],
        ),
        ("[policy]\ndeny = 7", &["2: ", "a table"]),
        ("[policy.deny]\nx = 7", &["2: ", "a table"]),
        (
            "[policy.deny.x]\ntype = \"*\"\n[policy.deny.x]\ntype = \"*\"",
            &["3: ", "duplicate"],
        ),
        ("policy = \"open\"", &["1: ", "a table"]),
    ] {
        let said = error(toml);
        for part in parts {
            assert!(said.contains(part), "{toml:?}: {said:?} lacks {part:?}");
        }
    }
    let many: Vec<String> = (0..=128)
        .map(|n| format!("[policy.deny.r{n}]\ntype = \"*\"\n"))
        .collect();
    let many = many.concat();
    assert!(error(&many).contains("at most 128 rules"));
}

#[test]
fn what_may_fit_something_is_taken() {
    for right in [
        "type = [\"gpio.*\", \"dat?.read\", \"*.*\", \"fixes.x\", \"a*.b\"]",
        "script = [\"*\", \"a/*/?b.sh\", \"*.sh\"]",
        "command = [\"*  *\", \"sh -c 'a  b'\", \"a ?x  y\", \"logger '$x'\", \"*$x\"]",
    ] {
        config(&format!("[policy.deny.x]\n{right}\n"));
    }
    let rules = rules("[policy.deny.x]\ncommand = [\"?a  b'\", \"* 'x  y'\"]");
    for argv in [json!(["a  b"]), json!(["sh", "x  y"])] {
        let said = judge(&rules, "command", &json!({"argv": argv}));
        assert!(said.is_err(), "{argv}");
    }
}

#[test]
fn a_deny_wins_and_with_allows_the_rest_is_refused() {
    let rules = rules(
        "[policy.allow.files]\ntype = \"file.*\"\npath = [\"/srv/\", \"/etc/config\"]\n\
         [policy.allow.uptime]\ncommand = [\"uptime\", \"uptime *\", \"/usr/bin/opkg update\"]\n\
         [policy.allow.sensors]\ntype = \"sensors.*\"\n\
         [policy.deny.secret]\npath = \"/srv/secret\"\n\
         [policy.deny.reboot]\ntype = \"system.*\"",
    );
    let said = |kind: &str, payload: Value| judge(&rules, kind, &payload);
    let allow = |name: &str| Ok(format!("allow.{name}"));
    let deny = |name: &str| Err(format!("deny.{name}"));
    let none = || Err("allow".to_owned());
    assert_eq!(said("file.put", json!({"path": "/srv/a"})), allow("files"));
    assert_eq!(said("file.get", json!({"path": "/srv"})), allow("files"));
    assert_eq!(said("file.get", json!({"path": "/srvs"})), none());
    assert_eq!(
        said("file.get", json!({"path": "/srv/../etc/passwd"})),
        none()
    );
    assert_eq!(said("file.get", json!({"path": ""})), none());
    assert_eq!(said("file.get", json!({})), none());
    assert_eq!(
        said("file.get", json!({"path": "/srv/secret/x"})),
        deny("secret")
    );
    // All below is concerned, in the same way whether the entries are named or not.
    assert_eq!(said("directory.put", json!({"path": "/srv/a"})), none());
    assert_eq!(
        said("command", json!({"argv": ["uptime", "-p"]})),
        allow("uptime")
    );
    assert_eq!(
        said("command", json!({"argv": ["/usr/bin/opkg", "update"]})),
        allow("uptime")
    );
    assert_eq!(said("command", json!({"argv": ["opkg", "update"]})), none());
    assert_eq!(said("command", json!({"argv": ["uptimed"]})), none());
    assert_eq!(said("command", json!({"argv": ["uptime -p"]})), none());
    assert_eq!(said("command", json!({"shell": "uptime"})), none());
    assert_eq!(
        said("command", json!({"shell": "uptime -p; reboot"})),
        none()
    );
    assert_eq!(said("system.reboot", json!({})), deny("reboot"));
    assert_eq!(said("sensors.read", json!({})), allow("sensors"));
    assert_eq!(said("agent.update", json!({})), none());
    for read in [
        "agent.status",
        "history.get",
        "schedule.list",
        "module.list",
    ] {
        assert_eq!(said(read, json!({})), Ok("reads".to_owned()));
    }
    for reply in [
        "data.request",
        "data.response",
        "ack",
        "welcome",
        "bye",
        "result",
        "ping",
    ] {
        assert_eq!(said(reply, json!({})), Ok("protocol".to_owned()));
    }
    // A payload that cannot be read is judged by its type, and never better than one that can.
    assert_eq!(judge_text(&rules, "command", "{\"argv\":7}"), none());
}

#[test]
fn a_folder_is_denied_with_what_lies_in_it() {
    let rules = rules("[policy.deny.x]\npath = \"/srv/a/secret\"\n[policy.allow.y]\ntype = \"*\"");
    let said = |kind: &str, path: &str| judge(&rules, kind, &json!({ "path": path })).is_ok();
    assert!(!said("directory.put", "/srv"));
    assert!(!said("directory.put", "/srv/a/secret/b"));
    assert!(said("directory.put", "/srv/b"));
    assert!(said("file.list", "/srv/a"));
    assert!(!said("file.list", "/srv/a/secret"));
}

#[test]
fn what_the_agent_lives_by_is_its_own() {
    let rules = rules(
        "state = \"/etc/triton\"\n[plugins]\nfolder = \"/opt/plugins\"\n[tls]\nca_file = \"/opt/ca.pem\"\n\
         [policy.deny.x]\ntype = \"system.*\"",
    );
    for (kind, path, allowed) in [
        ("file.put", "/etc/triton/schedule.json", false),
        ("file.get", "/etc/triton/identifier", false),
        ("directory.put", "/etc", false),
        ("directory.put", "/usr", false),
        ("file.put", "/usr/sbin/triton", false),
        ("file.put", "/etc/config/triton", false),
        ("file.put", "/opt/plugins/x", false),
        ("directory.put", "/opt", false),
        ("file.put", "/opt/ca.pem", false),
        ("file.put", "/etc/config/network", true),
        ("file.list", "/etc", true),
    ] {
        let said = judge(&rules, kind, &json!({ "path": path }));
        assert_eq!(said.is_ok(), allowed, "{kind} {path}: {said:?}");
        assert!(allowed || said == Err("own-files".to_owned()));
    }
}

#[test]
fn an_allowed_command_brings_nothing_that_was_not_named() {
    let plain = "[policy.allow.x]\ncommand = \"uptime\"\n";
    let more = "[policy.allow.x]\ncommand = \"uptime\"\nenv = [\"LANG\", \"LC_*\"]\nwith = [\"stdin\", \"cwd\"]\nuser = [\"0\", \"nobody\"]\n";
    for (extra, with_plain, with_more) in [
        (json!({}), true, true),
        (
            json!({"timeoutSeconds": 5, "nice": 3, "output": "collect"}),
            true,
            true,
        ),
        (json!({"env": {"LANG": "C", "LC_ALL": "C"}}), false, true),
        (
            json!({"env": {"LANG": "C", "LD_PRELOAD": "/tmp/x.so"}}),
            false,
            false,
        ),
        (json!({"stdin": ""}), false, true),
        (json!({"cwd": "/tmp"}), false, true),
        (json!({"group": "0"}), false, false),
        (json!({"user": "root"}), false, true),
        (json!({"user": "0"}), false, true),
        (json!({"user": "65534"}), false, true),
        (json!({"user": "daemon"}), false, false),
    ] {
        let mut request = extra;
        request["argv"] = json!(["uptime"]);
        for (toml, allowed) in [(plain, with_plain), (more, with_more)] {
            let said = judge(&rules(toml), "command", &request);
            assert_eq!(said.is_ok(), allowed, "{request} {toml}");
        }
    }
    // The same for scripts; a rule that lets any command through is not so particular.
    let script = rules("[policy.allow.x]\nscript = \"backup-*\"");
    let any = rules("[policy.allow.x]\ntype = \"command\"");
    assert!(
        judge(
            &script,
            "script",
            &json!({"name": "backup-a", "args": ["x"]})
        )
        .is_ok()
    );
    assert!(
        judge(
            &script,
            "script",
            &json!({"name": "backup-a", "env": {"PATH": "/tmp"}})
        )
        .is_err()
    );
    assert!(judge(&script, "script", &json!({"name": "restore"})).is_err());
    assert!(
        judge(
            &any,
            "command",
            &json!({"argv": ["a"], "env": {"A": "b"}, "cwd": "/"})
        )
        .is_ok()
    );
}

#[test]
fn denies_are_wide() {
    let rules = rules(
        "[policy.deny.reboot]\ncommand = [\"reboot\", \"reboot *\"]\n\
         [policy.deny.shell]\nshell = \"*reboot*\"\n\
         [policy.deny.preload]\nenv = [\"LD_*\"]\n\
         [policy.deny.input]\nwith = \"stdin\"\n\
         [policy.deny.root]\ntype = \"script\"\nuser = \"root\"",
    );
    let denied = |request: Value, rule: &str| {
        assert_eq!(
            judge(&rules, "command", &request),
            Err(format!("deny.{rule}")),
            "{request}"
        );
    };
    denied(json!({"argv": ["reboot"]}), "reboot");
    denied(json!({"argv": ["/sbin/reboot", "-f"]}), "reboot");
    denied(json!({"argv": ["reboot", "x".repeat(40_000)]}), "reboot");
    denied(json!({"shell": "true; reboot -f"}), "shell");
    denied(
        json!({"argv": ["a"], "env": {"A": "", "LD_X": ""}}),
        "preload",
    );
    denied(json!({"argv": ["a"], "stdin": ""}), "input");
    assert!(judge(&rules, "command", &json!({"argv": ["rebooted"]})).is_ok());
    assert!(judge(&rules, "script", &json!({"name": "a", "user": "nobody"})).is_ok());
    for user in [json!("root"), json!("0")] {
        assert!(judge(&rules, "script", &json!({"name": "a", "user": user})).is_err());
    }
    // Who names nobody runs as the agent does.
    let own = judge(&rules, "script", &json!({"name": "a"}));
    assert_eq!(own.is_err(), crate::sys::user::effective_uid() == 0);
}

#[test]
fn metrics_of_poseidons_are_a_matter_of_the_policy() {
    let metric = json!({"name": "a", "value": 1});
    let denied = rules("[policy.deny.m]\ntype = [\"metric\"]");
    assert!(judge(&denied, "metric", &metric).is_err());
    let allowed = rules("[policy.allow.m]\ntype = [\"metric\"]");
    assert!(judge(&allowed, "metric", &metric).is_ok());
    assert!(judge(&allowed, "event", &json!({})).is_err());
}

#[test]
fn the_profiles() {
    let scripts = rules("[policy]\nprofile = \"scripts-only\"");
    let reads = rules(
        "[policy]\nprofile = \"read-only\"\n[policy.allow.logs]\ntype = [\"file.get\", \"file.list\"]\npath = \"/var/log\"",
    );
    let entry = |what: Value| {
        let mut entry = json!({"name": "e", "cron": "@daily"});
        entry
            .as_object_mut()
            .unwrap()
            .extend(what.as_object().unwrap().clone());
        json!({"revision": "1", "entries": [{"name": "s", "cron": "@daily", "script": "a"}, entry]})
    };
    for (kind, payload, by_scripts, by_reads) in [
        ("agent.status", json!({}), true, true),
        ("history.get", json!({}), true, true),
        (
            "script",
            json!({"name": "a", "args": ["b"], "user": "nobody"}),
            true,
            false,
        ),
        (
            "script",
            json!({"name": "a", "env": {"PATH": "/tmp"}}),
            false,
            false,
        ),
        ("script", json!({"name": "a", "cwd": "/tmp"}), false, false),
        ("scripts.sync", json!({}), true, false),
        ("cancel", json!({"job": "x"}), true, false),
        ("command", json!({"argv": ["a"]}), false, false),
        ("command", json!({"shell": "a"}), false, false),
        ("schedule.set", entry(json!({"script": "b"})), true, false),
        (
            "schedule.set",
            entry(json!({"script": "b", "env": {"PATH": "/"}})),
            false,
            false,
        ),
        (
            "schedule.set",
            entry(json!({"command": ["b"]})),
            false,
            false,
        ),
        ("schedule.set", entry(json!({"shell": "b"})), false, false),
        (
            "file.get",
            json!({"path": "/var/log/messages"}),
            false,
            true,
        ),
        ("file.get", json!({"path": "/etc/passwd"}), false, false),
        (
            "file.put",
            json!({"path": "/var/log/messages"}),
            false,
            false,
        ),
        ("agent.update", json!({}), false, false),
        ("agent.exit", json!({}), false, false),
        ("event", json!({}), false, false),
        ("history.put", json!({}), false, false),
        ("plugin.type", json!({}), false, false),
    ] {
        assert_eq!(
            judge(&scripts, kind, &payload).is_ok(),
            by_scripts,
            "scripts-only {kind} {payload}"
        );
        assert_eq!(
            judge(&reads, kind, &payload).is_ok(),
            by_reads,
            "read-only {kind} {payload}"
        );
    }
    // A frozen set: what is there may run, and nothing else comes.
    let frozen = rules(
        "[policy]\nprofile = \"scripts-only\"\n[policy.deny.freeze]\ntype = \"scripts.sync\"",
    );
    assert_eq!(
        judge(&frozen, "scripts.sync", &json!({})),
        Err("deny.freeze".to_owned())
    );
    assert!(judge(&frozen, "script", &json!({"name": "a"})).is_ok());
}

#[test]
fn xml_and_doubled_keys_are_read_as_the_plugin_reads_them() {
    let rules =
        rules("[policy.allow.x]\ncommand = \"uptime\"\n[policy.allow.s]\ntype = \"schedule.set\"");
    let said = |kind: &str, text: &str| judge_text(&rules, kind, text).is_ok();
    assert!(said("command", "<c><argv>uptime</argv></c>"));
    assert!(!said(
        "command",
        "<c><argv>uptime</argv><argv>-p</argv></c>"
    ));
    assert!(!said("command", "<c><argv>reboot</argv></c>"));
    assert!(!said(
        "command",
        "<c><argv>uptime</argv><env><LD_PRELOAD>x</LD_PRELOAD></env></c>"
    ));
    // The plugin does not read them either, so they are not judged better than nothing.
    assert!(!said("command", r#"{"argv":["uptime"],"argv":["reboot"]}"#));
    assert!(!said("command", r#"{"Argv":["uptime"]}"#));
    assert!(!said("command", r#"["uptime"]"#));
    for (entry, allowed) in [
        ("<command>uptime</command>", true),
        ("<command>reboot</command>", false),
        ("<shell>uptime</shell>", false),
    ] {
        let text = format!(
            "<s><revision>1</revision><entries><name>a</name><cron>@daily</cron>{entry}</entries></s>"
        );
        assert_eq!(said("schedule.set", &text), allowed, "{entry}");
    }
    // Of two keys nobody picks one: it is judged by its type, and then it is invalid.
    let twice = r#"{"revision":"1","entries":[],"entries":[{"name":"a","cron":"@daily","command":["reboot"]}]}"#;
    assert!(said("schedule.set", twice));
    let message = Message {
        payload: Some(twice.to_owned()),
        ..Message::new("schedule.set")
    };
    assert!(message.read::<Value>().is_err());
}

#[test]
fn where_a_path_leads_is_judged_by_where_rules_lead() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let base = std::fs::canonicalize(folder.path()).unwrap();
    std::fs::create_dir(base.join("real")).unwrap();
    symlink("real", base.join("named")).unwrap();
    let named = base.join("named").display().to_string();
    let toml = |action: &str| format!("[policy.{action}.x]\npath = {named:?}\n");
    let judged = |toml: &str, path: &Path| {
        let ask = Ask {
            kind: "file.get",
            path: Some(path),
            real: true,
            ..Ask::default()
        };
        rules(toml).judge(&ask, &mut |_, _| {}).allowed
    };
    assert!(judged(&toml("allow"), &base.join("real/a")));
    assert!(!judged(&toml("allow"), &base.join("other/a")));
    assert!(!judged(&toml("deny"), &base.join("real/a")));
    assert!(judged(&toml("deny"), &base.join("other/a")));
}

#[test]
fn refusals_are_counted_and_named() {
    let policy = Policy::new(rules("[policy.deny.x]\ntype = \"command\""));
    let message = Message::with("command", &json!({"argv": ["a"]}));
    for _ in 0..3 {
        let refusal = policy.refusal(&message).unwrap();
        let error = policy.refuse(&refusal);
        assert_eq!(error.code, ErrorCode::Refused);
        assert!(error.message.contains("deny.x"), "{error:?}");
        assert_eq!(error.detail.unwrap()["policy"], "deny.x");
    }
    let wanted = json!({"profile": "open", "refused": 3, "rules": [{"name": "x", "action": "deny", "refused": 3}]});
    assert_eq!(policy.report(), wanted);
    // What was counted under rules that are gone goes; the sum stays.
    policy.replace(config("[policy.deny.y]\ntype = \"script\"").policy);
    assert!(policy.refusal(&message).is_none());
    assert_eq!(policy.report()["refused"], 3);
    assert_eq!(policy.report()["rules"][0]["refused"], 0);
}

#[test]
fn the_ready_policies_are_right() {
    for text in [
        include_str!("../../docs/policy/scripts-only.toml"),
        include_str!("../../docs/policy/read-only.toml"),
    ] {
        let bare = rules(text);
        assert_ne!(bare.settings().profile, Profile::Open);
        assert!(judge(&bare, "command", &json!({"argv": ["true"]})).is_err());
    }
    let frozen = include_str!("../../docs/policy/scripts-only.toml").replace("\n#[", "\n[");
    let frozen = rules(&frozen.replace("\n#type", "\ntype"));
    assert!(judge(&frozen, "scripts.sync", &json!({})).is_err());
}
