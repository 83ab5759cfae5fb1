//! What the account uses.

use std::time::Duration;

use serde_json::{Value, json};

use super::rig::{Rig, SHAPE};

async fn used(rig: &Rig) -> Value {
    rig.get("/v1/metrics").await.data()
}

fn seconds(metrics: &Value) -> f64 {
    metrics["run_seconds"].as_f64().unwrap()
}

#[tokio::test]
async fn what_runs_is_counted_while_it_runs_and_stays_counted() {
    let rig = Rig::new().await;
    let nothing = used(&rig).await;
    assert_eq!((seconds(&nothing), &nothing["vcpu_running"]), (0.0, &json!(0.0)));
    let id = rig.sandbox().await;
    let half = json!({"shape": "s-0.5vcpu-1gb"});
    let other = rig.call("POST", "/v1/sandboxes", Some(half)).await.data();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let now = used(&rig).await;
    assert_eq!((&now["sandboxes_running"], &now["sandboxes_total"]), (&json!(2), &json!(2)));
    assert_eq!((&now["vcpu_running"], &now["mem_mib_running"]), (&json!(1.5), &json!(1280)));
    assert_eq!(now["disk_mib_total"], 20_480);
    assert!(seconds(&now) >= 0.6, "{now}");
    // Each by its size: SHAPE has one CPU and 256 MiB.
    assert!(SHAPE.contains("256mb"));
    let (vcpu, mem) = (now["vcpu_seconds"].as_f64(), now["mem_mib_seconds"].as_f64());
    let each = seconds(&now) / 2.0;
    assert!((vcpu.unwrap() - each * 1.5).abs() < 0.5, "{now}");
    assert!((mem.unwrap() - each * 1280.0).abs() < 500.0, "{now}");

    // A paused one uses nothing more, nor does one that has gone.
    rig.call("POST", &format!("/v1/sandboxes/{id}/pause"), None).await;
    rig.until(&id, "paused").await;
    let gone = format!("/v1/sandboxes/{}", other["id"].as_str().unwrap());
    assert_eq!(rig.call("DELETE", &gone, None).await.status, 200);
    let before = used(&rig).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let after = used(&rig).await;
    assert_eq!(seconds(&before), seconds(&after));
    assert_eq!((&after["sandboxes_paused"], &after["vcpu_running"]), (&json!(1), &json!(0.0)));

    // It survives the engine, and what an engine did not see is not counted.
    let running = rig.sandbox().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let rig = rig.restart(|_, _| std::thread::sleep(Duration::from_secs(2))).await;
    assert_eq!(rig.status(&running).await, "error");
    let kept = seconds(&used(&rig).await);
    assert!(kept >= seconds(&after) + 0.1 && kept < seconds(&after) + 1.9, "{kept}");
}

#[tokio::test]
async fn a_time_is_seen_in_its_parts() {
    let rig = Rig::new().await;
    rig.sandbox().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let day = rig.get("/v1/metrics/timeseries").await.data();
    assert_eq!((&day["step_seconds"], day["points"].as_array().unwrap().len()), (&json!(3600), 24));
    let points = day["points"].as_array().unwrap();
    assert_eq!(points[0]["run_seconds"], 0.0);
    assert!(seconds(&points[23]) >= 0.2, "{day}");
    let past = "/v1/metrics/timeseries?from=2026-01-01T00:00:00Z&to=2026-01-01T00:01:00Z&step=7";
    let past = rig.get(past).await.data();
    assert_eq!(past["points"].as_array().unwrap().len(), 9);
    assert_eq!(past["points"][1]["ts"], "2026-01-01T00:00:07Z");
    for (query, field) in [
        ("from=yesterday", "from"),
        ("to=1", "to"),
        ("step=0", "step"),
        ("step=-1", "step"),
        ("step=x", "step"),
        ("step=1", "step"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
    ] {
        let refused = rig.get(&format!("/v1/metrics/timeseries?{query}")).await;
        assert_eq!(refused.status, 400, "{query}: {refused:?}");
        assert!(refused.json()["data"][field].is_string(), "{query}: {refused:?}");
    }
}
