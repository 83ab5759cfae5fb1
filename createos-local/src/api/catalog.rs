//! Shapes and root filesystems (api.md 3.4, 3.5).

use axum::extract::State;
use createos_sdk::wire::{RootfsCatalog, RootfsEntry, Shape};

use super::Front;
use super::answer::{Answer, ok};
use super::query::Query;

pub(super) async fn shapes(State(front): State<Front>, query: Query) -> Answer {
    let shapes = front.core().catalog().shapes().iter().map(|shape| {
        let mut row = Shape::new(shape.id, shape.vcpu, shape.mem_mib, shape.disk_mib);
        row.cpu_quota_pct = shape.cpu_quota_pct;
        row
    });
    ok(query.page().of(shapes.collect()))
}

pub(super) async fn rootfs(State(front): State<Front>) -> Answer {
    let catalog = front.core().catalog();
    let own = catalog.rootfs().iter().map(|rootfs| rootfs.name.clone());
    let images = front.core().images().await?;
    let names = own.chain(images.iter().map(|image| image.name.clone())).collect();
    let default = catalog.default_rootfs().map_or("", |rootfs| &rootfs.name);
    let mut answer = RootfsCatalog::new(names, default);
    answer.entries = catalog
        .rootfs()
        .iter()
        .map(|rootfs| {
            let mut entry = RootfsEntry::new(rootfs.name.as_str());
            entry.description = Some(rootfs.description.clone());
            entry
        })
        .chain(images.into_iter().map(|image| {
            let mut entry = RootfsEntry::new(image.name.as_str());
            entry.description = Some("imported".to_owned());
            entry
        }))
        .collect();
    ok(answer)
}
