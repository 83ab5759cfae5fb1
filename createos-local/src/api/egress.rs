//! Outbound rules and traffic (api.md 4.14, 4.15).

use axum::body::Body;
use axum::extract::State;
use createos_sdk::SandboxId;
use createos_sdk::wire::{Bandwidth, Egress, RechargeBandwidth, SetEgress};

use super::Front;
use super::answer::{Answer, ok};
use super::body;
use super::path::Id;
use crate::net::Traffic;

pub(super) async fn get(State(front): State<Front>, Id(id): Id) -> Answer {
    let sandbox = front.core().get_existing(&id).await?;
    ok(Egress::new(id, sandbox.spec.egress))
}

pub(super) async fn set(State(front): State<Front>, Id(id): Id, body: Body) -> Answer {
    // That it does not exist is told before what is wrong with the request.
    front.core().get_existing(&id).await?;
    let request: Option<SetEgress> = body::read_optional_json(body).await?;
    let rules = request.map(|request| request.egress).unwrap_or_default();
    let sandbox = front.core().set_egress(&id, rules).await?;
    ok(Egress::new(id, sandbox.spec.egress))
}

pub(super) async fn bandwidth(State(front): State<Front>, Id(id): Id) -> Answer {
    let traffic = front.core().traffic(&id).await?;
    ok(view(id, traffic))
}

pub(super) async fn recharge(State(front): State<Front>, Id(id): Id, body: Body) -> Answer {
    front.core().get_existing(&id).await?;
    let request: RechargeBandwidth = body::read_json(body).await?;
    let traffic = front.core().recharge(&id, request.add_bytes).await?;
    ok(view(id, traffic))
}

fn view(id: SandboxId, traffic: Traffic) -> Bandwidth {
    let count = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    Bandwidth::new(id, traffic.quota, count(traffic.sent), count(traffic.received))
}
