//! What the account uses (api.md 5.10). Unofficial: no public source says what is in it, or
//! how to ask.

use std::time::{Duration, SystemTime};

use axum::extract::State;
use createos_sdk::Timestamp;
use serde_json::{Value, json};

use super::Front;
use super::answer::{Answer, Fail, ok};
use super::query::Query;
use crate::core::Window;
use crate::store::Used;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

pub(super) async fn metrics(State(front): State<Front>) -> Answer {
    let account = front.core().account_usage().await?;
    let (counts, now) = (account.counts, account.now);
    let mut answer = json!({
        "ts": Timestamp::now(),
        "sandboxes_running": counts.running,
        "sandboxes_paused": counts.paused,
        "sandboxes_total": counts.running + counts.paused + counts.other,
        "vcpu_running": now.vcpu,
        "mem_mib_running": now.mem_mib,
        "disk_mib_total": now.disk_mib,
    });
    add(&mut answer, account.used);
    ok(answer)
}

pub(super) async fn timeseries(State(front): State<Front>, query: Query) -> Answer {
    let to = time(&query, "to")?.unwrap_or_else(SystemTime::now);
    let from = time(&query, "from")?.or_else(|| to.checked_sub(DAY)).unwrap_or(to);
    let step = match query.get("step").filter(|text| !text.is_empty()) {
        None => HOUR,
        Some(text) => {
            let wrong = |_| Fail::field("step", "must be a whole number of seconds");
            Duration::from_secs(text.parse::<u32>().map_err(wrong)?.into())
        }
    };
    let window = Window::new(from, to, step)?;
    let used = front.core().used(window).await?;
    let points = used.into_iter().zip(0u32..).map(|(used, index)| {
        let at = window.from + window.step * index;
        let mut point = json!({ "ts": Timestamp::try_from(at).ok() });
        add(&mut point, used);
        point
    });
    ok(json!({
        "from": Timestamp::try_from(from).ok(),
        "to": Timestamp::try_from(to).ok(),
        "step_seconds": step.as_secs(),
        "points": points.collect::<Vec<Value>>(),
    }))
}

fn add(answer: &mut Value, used: Used) {
    let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
    answer["run_seconds"] = rounded(used.run_seconds).into();
    answer["vcpu_seconds"] = rounded(used.vcpu_seconds).into();
    answer["mem_mib_seconds"] = rounded(used.mem_mib_seconds).into();
}

fn time(query: &Query, name: &str) -> Result<Option<SystemTime>, Fail> {
    let Some(text) = query.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let read: Result<Timestamp, _> = serde_json::from_value(Value::String(text.to_owned()));
    let wrong = |_| Fail::field(name, "must be a time such as 2026-08-02T10:00:00Z");
    Ok(Some(read.map_err(wrong)?.to_system_time()))
}
