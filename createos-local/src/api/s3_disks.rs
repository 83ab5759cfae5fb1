//! S3 disks, and where they are attached (api.md 4.17, 5.7).

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use createos_sdk::Timestamp;
use createos_sdk::wire::{
    AttachedDisk, CreateDisk, DeletedDisk, DetachedDisk, DiskAttachment, DiskMount, DiskView,
    MountStatus, PatchDisk,
};

use super::Front;
use super::answer::{Answer, ok, success};
use super::body;
use super::path::{Disk, Id};
use super::query::Query;
use crate::core::Seen;
use crate::runtime::MountState;
use crate::store::S3Disk;

pub(super) async fn create(State(front): State<Front>, body: Body) -> Answer {
    let request: CreateDisk = body::read_json(body).await?;
    let disk = front.core().create_s3_disk(request).await?;
    Ok(success(StatusCode::CREATED, view(disk)))
}

pub(super) async fn list(State(front): State<Front>, query: Query) -> Answer {
    let disks = front.core().s3_disks().await?;
    ok(query.page().of(disks.into_iter().map(view).collect()))
}

pub(super) async fn get(State(front): State<Front>, Disk(key): Disk) -> Answer {
    ok(view(front.core().s3_disk(&key).await?))
}

pub(super) async fn patch(State(front): State<Front>, Disk(key): Disk, body: Body) -> Answer {
    // That it does not exist is told before what is wrong with the request.
    front.core().s3_disk(&key).await?;
    let request: PatchDisk = body::read_json(body).await?;
    ok(view(front.core().rotate_s3_keys(&key, request.credentials).await?))
}

pub(super) async fn delete(State(front): State<Front>, Disk(key): Disk, body: Body) -> Answer {
    body::ignore(body).await;
    front.core().delete_s3_disk(&key).await?;
    ok(DeletedDisk::new())
}

pub(super) async fn attached(State(front): State<Front>, Id(id): Id, query: Query) -> Answer {
    let seen = front.core().attachments(&id).await?;
    ok(query.page().of(seen.into_iter().map(row).collect()))
}

pub(super) async fn attach(State(front): State<Front>, Id(id): Id, body: Body) -> Answer {
    front.core().get_existing(&id).await?;
    let request: DiskMount = body::read_json(body).await?;
    front.core().attach_disk(&id, request).await?;
    ok(AttachedDisk::new(id))
}

pub(super) async fn detach(
    State(front): State<Front>,
    Id(id): Id,
    Disk(key): Disk,
    query: Query,
    body: Body,
) -> Answer {
    body::ignore(body).await;
    front.core().detach_disk(&id, &key, query.get("mount_path")).await?;
    ok(DetachedDisk::new())
}

fn view(disk: S3Disk) -> DiskView {
    let mut view = DiskView::new(disk.id, disk.name, disk.config, Timestamp::now());
    view.created_at = Timestamp::try_from(disk.created_at).ok();
    view
}

fn row(Seen { attachment, state }: Seen) -> DiskAttachment {
    let (disk, path) = (attachment.disk, attachment.mount_path);
    let mut row = DiskAttachment::new(disk.id, disk.name, disk.config, path);
    row.sub_path = Some(attachment.sub_path).filter(|path| !path.is_empty());
    (row.mount_status, row.mount_error) = match state {
        MountState::Pending => (MountStatus::Pending, None),
        MountState::Mounted => (MountStatus::Mounted, None),
        MountState::Failed(why) => (MountStatus::Error, Some(why)),
        MountState::Unmounting => (MountStatus::Unmounting, None),
    };
    row
}
