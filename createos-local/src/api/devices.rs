//! Devices (api.md 5.9).

use axum::Extension;
use axum::body::Body;
use axum::extract::{RawPathParams, State as Shared};
use axum::http::StatusCode;
use createos_sdk::wire::{
    Ack, AttachDeviceNetwork, CreateDevice, DeviceNetwork, DeviceSession, DeviceView, Page,
};

use super::Front;
use super::answer::{Answer, Fail, ok, success};
use super::body;
use super::path::{Segment, named};
use super::query::Query;
use super::server::Arrival;
use super::view::needed_time;
use crate::store::Device;

/// What relays the traffic of devices: this machine.
const HOST: &str = "local";

pub(super) async fn create(Shared(front): Shared<Front>, body: Body) -> Answer {
    let request: CreateDevice = body::read_json(body).await?;
    let device = front.core().create_device(request).await?;
    Ok(success(StatusCode::CREATED, view(device)?))
}

pub(super) async fn list(Shared(front): Shared<Front>, query: Query) -> Answer {
    let page = query.page();
    let (rows, total) = front.core().devices(page.limit, page.offset).await?;
    let rows = rows.into_iter().map(view).collect::<Result<_, _>>()?;
    ok(Page::<DeviceView>::new(rows, total, page.limit.into(), page.offset))
}

pub(super) async fn get(Shared(front): Shared<Front>, Segment(key): Segment) -> Answer {
    ok(view(front.core().device(&key).await?)?)
}

pub(super) async fn delete(
    Shared(front): Shared<Front>,
    Segment(key): Segment,
    body: Body,
) -> Answer {
    body::ignore(body).await;
    front.core().remove_device(&key).await?;
    ok(Ack::new())
}

/// A bare array (api.md 1.9).
pub(super) async fn networks(Shared(front): Shared<Front>, Segment(key): Segment) -> Answer {
    let links = front.core().device_links(&key).await?;
    let rows = links.into_iter().map(|link| {
        let at = needed_time(link.attached_at, "device")?;
        Ok(DeviceNetwork::new(link.network, link.name, at))
    });
    ok(rows.collect::<Result<Vec<_>, Fail>>()?)
}

pub(super) async fn attach(
    Shared(front): Shared<Front>,
    Segment(key): Segment,
    body: Body,
) -> Answer {
    front.core().device(&key).await?;
    let request: AttachDeviceNetwork = body::read_json(body).await?;
    front.core().attach_device(&key, &request.network_id).await?;
    ok(Ack::new())
}

pub(super) async fn detach(
    Shared(front): Shared<Front>,
    params: RawPathParams,
    body: Body,
) -> Answer {
    body::ignore(body).await;
    let (device, network) = (named(&params, "device"), named(&params, "network"));
    front.core().detach_device(device, network).await?;
    ok(Ack::new())
}

pub(super) async fn open_session(
    Shared(front): Shared<Front>,
    Segment(key): Segment,
    arrival: Option<Extension<Arrival>>,
    body: Body,
) -> Answer {
    body::ignore(body).await;
    let arrival = arrival.and_then(|Extension(Arrival(addr))| addr);
    let session = front.core().open_session(&key, arrival).await?;
    let crate::core::DeviceSession { id, device, config, expires_at } = session;
    let end = needed_time(expires_at, "session")?;
    let view = DeviceSession::new(id, device, HOST, config, end);
    Ok(success(StatusCode::CREATED, view))
}

pub(super) async fn renew_session(
    Shared(front): Shared<Front>,
    params: RawPathParams,
    body: Body,
) -> Answer {
    body::ignore(body).await;
    let (device, session) = (named(&params, "device"), named(&params, "session"));
    front.core().renew_session(device, session).await?;
    ok(Ack::new())
}

pub(super) async fn close_session(
    Shared(front): Shared<Front>,
    params: RawPathParams,
    body: Body,
) -> Answer {
    body::ignore(body).await;
    let (device, session) = (named(&params, "device"), named(&params, "session"));
    front.core().close_session(device, session).await?;
    ok(Ack::new())
}

fn view(device: Device) -> Result<DeviceView, Fail> {
    let Device { spec, ip, created_at, seen } = device;
    let created_at = needed_time(created_at, "device")?;
    let mut view = DeviceView::new(spec.id, spec.name, ip.to_string(), spec.pubkey, created_at);
    view.hostname = spec.hostname;
    view.os = spec.os;
    view.last_seen_at = seen.map(|at| needed_time(at, "device")).transpose()?;
    Ok(view)
}
