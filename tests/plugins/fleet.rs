//! Plugins seen from Poseidon.

use crate::rig::Rig;
use crate::support::poseidon::Poseidon;
use serde_json::json;

const GPIO: &str = r#"
say hello '' '{"plugin":{"version":"1.2"},"types":["gpio.set"]}'
while hear; do
    [ $type = gpio.set ] && say output $conversation '{"data":"pin high\n"}' &&
        say result $conversation '{"status":"succeeded","data":{"pin":7}}'
done"#;

#[test]
fn poseidon_asks_ends_and_starts_them() {
    let poseidon = Poseidon::start();
    let mut rig = Rig::unstarted("off = [\"engine\"]");
    rig.put("gpio", GPIO);
    let output = rig.agent.run(&["identifier"]);
    let identifier = String::from_utf8(output.stdout).unwrap();
    poseidon.register(identifier.trim(), "attic");
    rig.agent = rig.agent.with(&["--url", &poseidon.url()]);
    let rig = rig.start();
    poseidon.wait_for("attic", "up");
    rig.wait_for("gpio", "running");
    let state = |name: &str| {
        let list = poseidon.json(&["modules", "attic", "--json"]);
        let all = list["modules"].as_array().unwrap();
        let found = all.iter().find(|m| m["name"] == name).unwrap();
        found["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (state("gpio").as_str(), state("engine").as_str()),
        ("running", "off")
    );
    let output = poseidon.run(&[
        "ask",
        "attic",
        "--type",
        "gpio.set",
        "--payload",
        r#"{"pin":7}"#,
    ]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said, "pin high\n{\"pin\":7}\n");
    assert!(
        poseidon
            .run(&["modules", "attic", "kill", "gpio"])
            .status
            .success()
    );
    assert_eq!(state("gpio"), "stopped");
    let output = poseidon.run(&["ask", "attic", "--type", "gpio.set"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("gpio has been stopped, see 'triton module ls'"),
        "{output:?}"
    );
    assert!(
        poseidon
            .run(&["modules", "attic", "start", "gpio"])
            .status
            .success()
    );
    rig.wait_for("gpio", "running");
    for (module, why) in [("none", "no plugin"), ("command", "built in")] {
        let output = poseidon.run(&["modules", "attic", "kill", module]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{said}");
    }
    // What the agent told when it came, or what came later.
    let plugins = poseidon.json(&["show", "attic", "--json"])["hello"]["plugins"].clone();
    let engine = plugins
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["name"] == "engine");
    assert_eq!(engine.unwrap()["state"], json!("off"), "{plugins}");
}
