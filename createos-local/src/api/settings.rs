//! What a sandbox is set to: egress, bandwidth, disks (api.md 4.14, 4.15, 4.17).

use axum::extract::State;
use createos_sdk::wire::{Bandwidth, DiskAttachment, Egress};

use super::Front;
use super::answer::{Answer, ok};
use super::path::Id;
use super::query::Query;
use super::view::QUOTA_BYTES;

pub(super) async fn egress(State(front): State<Front>, Id(id): Id) -> Answer {
    let sandbox = front.core().get_existing(&id).await?;
    ok(Egress::new(id, sandbox.spec.egress))
}

/// Sandboxes have no way out yet, so nothing has been used.
pub(super) async fn bandwidth(State(front): State<Front>, Id(id): Id) -> Answer {
    front.core().get_existing(&id).await?;
    ok(Bandwidth::new(id, QUOTA_BYTES, 0, 0))
}

/// No disk can be attached yet; clients ask before every transfer (api.md 4.13).
pub(super) async fn disks(State(front): State<Front>, Id(id): Id, query: Query) -> Answer {
    front.core().get_existing(&id).await?;
    ok(query.page().of(Vec::<DiskAttachment>::new()))
}
