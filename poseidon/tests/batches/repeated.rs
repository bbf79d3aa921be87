//! A batch whose answer was lost is asked for again under an id of the caller's own.

use crate::common::*;
use crate::fleet::Fleet;
use crate::{over, plan};
use serde_json::{Value, json};

const ID: &str = "ffeeddccbbaa99887766554433221100";

async fn post(rig: &Rig, more: &Value) -> (u16, Value) {
    let mut body = plan(more);
    body["id"] = json!(ID);
    let body = body.to_string();
    let (status, answer) = rig.ask("POST", "/batches", body.as_bytes()).await;
    (status, serde_json::from_slice(&answer).unwrap())
}

#[tokio::test]
async fn the_same_request_makes_one_batch() {
    let mut rig = rig().await;
    rig.register("gate").await;
    let mut fleet = Fleet::of(&rig, 2).await;
    let all = (0..12).map(|n| {
        let rig = &rig;
        // Every fourth wants something else.
        let canary = u32::from(n % 4 == 3);
        async move { (canary, post(rig, &json!({"canary": canary})).await) }
    });
    let all = futures_util::future::join_all(all).await;
    let (made, _) = all
        .iter()
        .find(|(_, (status, _))| *status == 201)
        .expect("one is made");
    for (canary, (status, answer)) in &all {
        if canary == made {
            assert!(matches!(status, 200 | 201), "{answer}");
            assert_eq!(answer["batch"]["id"], ID);
            assert_eq!(answer["batch"]["members"], Value::Null);
        } else {
            assert_eq!(
                (*status, &answer["error"]["code"]),
                (409, &json!("conflict"))
            );
        }
    }
    for _ in 0..2 {
        let (at, job) = fleet.next().await;
        fleet.succeed(at, &job.id).await;
    }
    over(&rig, ID).await;
    fleet.nothing_more(&rig).await;
    rig.restart().await;
    fleet.again(&rig).await;
    let (status, answer) = post(&rig, &json!({"canary": made})).await;
    assert_eq!((status, &answer["batch"]["state"]), (200, &json!("ended")));
    assert_eq!(answer["batch"]["counts"]["succeeded"], 2);
    for more in [
        json!({"canary": 2}),
        json!({"canary": made, "on": ["gate"]}),
        json!({"canary": made, "agents": ["gate"]}),
        json!({"canary": made, "command": {"argv": ["false"]}}),
    ] {
        assert_eq!(post(&rig, &more).await.0, 409, "{more}");
    }
    fleet.nothing_more(&rig).await;
    let list: Value = rig.client.get("/batches").await.unwrap();
    assert_eq!(list["batches"].as_array().unwrap().len(), 1);
    let wrong = plan(&json!({"id": "mine"})).to_string();
    rig.refused("POST", "/batches", wrong.as_bytes(), 400).await;
}
