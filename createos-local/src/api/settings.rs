//! What a sandbox is set to: ports, keys, sizes (api.md 4.4, 4.9, 4.10).

use axum::body::Body;
use axum::extract::State;
use createos_sdk::Timestamp;
use createos_sdk::wire::{
    AddSshPubkeys, Metrics, PatchSandbox, ResizeSandbox, ResizedSandbox, SshPubkeyCount,
};

use super::Front;
use super::answer::{Answer, ok};
use super::body;
use super::path::Id;

pub(super) async fn patch(State(front): State<Front>, Id(id): Id, body: Body) -> Answer {
    // That it does not exist is told before what is wrong with the request.
    front.core().get_existing(&id).await?;
    let request: PatchSandbox = body::read_json(body).await?;
    front.check_ingress(request.ingress_enabled)?;
    ok(front.view(front.core().patch(&id, request).await?))
}

pub(super) async fn ssh_pubkeys(State(front): State<Front>, Id(id): Id, body: Body) -> Answer {
    front.core().get_existing(&id).await?;
    let request: AddSshPubkeys = body::read_json(body).await?;
    let count = front.core().add_ssh_pubkeys(&id, &request.keys).await?;
    ok(SshPubkeyCount::new(count as u64))
}

pub(super) async fn resize(State(front): State<Front>, Id(id): Id, body: Body) -> Answer {
    front.core().get_existing(&id).await?;
    let request: ResizeSandbox = body::read_json(body).await?;
    let resized = front.core().resize(&id, request.disk_mib).await?;
    ok(ResizedSandbox::new(id, resized.spec.disk_mib))
}

/// Unofficial: no public source says what is in it (api.md 9.13).
pub(super) async fn metrics(State(front): State<Front>, Id(id): Id) -> Answer {
    let measured = front.core().metrics(&id).await?;
    let mut metrics = Metrics::new();
    metrics.set_text("id", id.as_str());
    metrics.set_number("cpu_pct", (measured.cpu_pct * 10.0).round() / 10.0);
    metrics.set_count("mem_used_bytes", measured.mem_used_bytes);
    metrics.set_count("mem_total_bytes", measured.mem_total_bytes);
    let traffic = front.core().traffic(&id).await?;
    metrics.set_count("net_sent_bytes", traffic.sent);
    metrics.set_count("net_received_bytes", traffic.received);
    metrics.set_text("ts", Timestamp::now().to_string());
    ok(metrics)
}
