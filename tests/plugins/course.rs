//! What a plugin that behaves can do, and what becomes of one that does not.

use crate::rig::Rig;
use crate::support::local;
use serde_json::{Value, json};
use triton::message::payload::JobResult;

/// Answers `echo.say` with its payload, and other requests each in its own way.
const ECHO: &str = r#"
say hello '' '{"plugin":{"name":"echo","version":"7"},"types":["echo.say","echo.hang","echo.die","echo.fail","echo.flood","echo.last","echo.env"],"pings":false}'
while hear; do
    case $type in
        welcome) say log '' '{"level":"info","message":"welcomed"}' ;;
        echo.say)
            say progress "$conversation" '{"percent":50,"message":"half"}'
            say output "$conversation" '{"data":"one\n"}'
            say output "$conversation" '{"stream":"stderr","data":"dHdv","encoding":"base64"}'
            say result "$conversation" "{\"status\":\"succeeded\",\"message\":\"said\",\"data\":$payload}" ;;
        echo.fail) say result "$conversation" '{"status":"failed","message":"no luck"}' ;;
        echo.die) say output "$conversation" '{"data":"last words"}'; exit 3 ;;
        echo.env) say result "$conversation" "{\"status\":\"succeeded\",\"message\":\"$TRITON_PLUGIN $PWD ${TRITON_IDENTIFIER-none}\"}" ;;
        echo.flood) head -c 3000000 /dev/zero | tr '\0' 'x' | fold -w 30000 | while read -r text || [ "$text" ]; do
                say output "$conversation" "{\"data\":\"$text\"}"
            done
            say result "$conversation" '{"status":"succeeded"}' ;;
        echo.last)
            all=$(for n in $(seq 200); do say output "$conversation" '{"data":"x"}'; done
                say result "$conversation" '{"status":"succeeded"}')
            printf '%s\n' "$all"; exit 0 ;;
        cancel) say result "${payload##*job\":\"}" '{}' ;;
        bye) exit 0 ;;
    esac
done
"#;

#[test]
fn requests_of_a_plugins_types_are_jobs() {
    let rig = Rig::with("rate = 1000", &[("echo", ECHO)]);
    let module = rig.wait_for("echo", "running");
    assert_eq!(
        (&module["version"], &module["kind"]),
        (&json!("7"), &json!("external"))
    );
    rig.agent.wait_for_log("plugin echo: welcomed");
    let (code, out, err) = rig.module_ask("echo.say", r#"{"a":1}"#);
    assert_eq!((code, out.as_str()), (0, "one\n{\"a\":1}\n"), "{err}");
    assert!(err.contains("two") && err.contains("said"), "{err}");
    // In the journal as every job, its output counted.
    let history = local::history(&rig.agent.socket()).unwrap();
    let begun: Value = serde_json::from_str(history[0].data.get()).unwrap();
    assert_eq!(begun["what"], "echo.say");
    let end: JobResult = serde_json::from_str(history[1].data.get()).unwrap();
    assert_eq!((end.stdout_bytes, end.stderr_bytes), (4, 3));
    let (code, _, err) = rig.module_ask("echo.fail", "{}");
    assert!(code != 0 && err.contains("no luck"), "{code} {err}");
    let (_, _, err) = rig.module_ask("echo.env", "{}");
    assert!(err.contains("echo / none"), "{err}");
    // More than any queue holds: it waits for its reader, and nothing is lost.
    let (code, out, err) = rig.module_ask("echo.flood", "{}");
    assert_eq!((code, out.len()), (0, 3_000_000), "{err}");
    // It dies in a request: what it said first is heard.
    let (code, out, err) = rig.module_ask("echo.die", "{}");
    assert!(
        code != 0 && out == "last words" && err.contains("plugin-ended"),
        "{code} {out} {err}"
    );
    rig.wait_for_reason("echo", "exit status: 3");
    let module = rig.wait_for("echo", "running");
    assert_eq!(module["restarts"], 1);
    // It says much at once and goes: what came last was said too.
    let (code, out, err) = rig.module_ask("echo.last", "{}");
    assert_eq!((code, out.len()), (0, 200), "{err}");
    rig.wait_for_reason("echo", "exit status: 0");
    // A type that nobody has.
    let (code, _, err) = rig.module_ask("echo.nothing", "{}");
    assert!(code != 0 && err.contains("does not know"), "{err}");
}

#[test]
fn orders_for_plugins_that_are_not_there_are_answered() {
    let rig = Rig::with("", &[]);
    for answer in [rig.start_again("none"), rig.kill("none")] {
        let said = format!("{answer:?}");
        assert!(
            said.contains("there is no plugin") && said.contains("module.list"),
            "{said}"
        );
    }
}
