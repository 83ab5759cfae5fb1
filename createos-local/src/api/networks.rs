//! Private networks (api.md 4.16, 5.6).

use axum::body::Body;
use axum::extract::{RawPathParams, State as Shared};
use axum::http::StatusCode;
use createos_sdk::wire::{Ack, CreateNetwork, NetworkMember, NetworkRef, NetworkView, Page};

use super::Front;
use super::answer::{Answer, Fail, ok, success};
use super::body;
use super::path::{Id, Segment, named};
use super::query::Query;
use super::view::{needed_time, status};
use crate::store::{Member, Network};

pub(super) async fn create(Shared(front): Shared<Front>, body: Body) -> Answer {
    let request: CreateNetwork = body::read_json(body).await?;
    let network = front.core().create_network(&request.name).await?;
    Ok(success(StatusCode::CREATED, view(&network)?))
}

pub(super) async fn list(Shared(front): Shared<Front>, query: Query) -> Answer {
    let page = query.page();
    let (rows, total) = front.core().networks(page.limit, page.offset).await?;
    let rows = rows.iter().map(|network| {
        let mut row = view(network)?;
        row.member_count = Some(network.members).filter(|members| *members > 0);
        Ok(row)
    });
    let rows = rows.collect::<Result<Vec<_>, Fail>>()?;
    ok(Page::new(rows, total, page.limit.into(), page.offset))
}

pub(super) async fn get(Shared(front): Shared<Front>, Segment(key): Segment) -> Answer {
    let network = front.core().network(&key).await?;
    let members = front.core().members(&network.id).await?;
    let mut view = view(&network)?;
    view.member_count = Some(members.len() as u64).filter(|members| *members > 0);
    view.members = members.into_iter().map(member).collect();
    ok(view)
}

pub(super) async fn delete(
    Shared(front): Shared<Front>,
    Segment(key): Segment,
    body: Body,
) -> Answer {
    body::ignore(body).await;
    front.core().remove_network(&key).await?;
    ok(Ack::new())
}

pub(super) async fn attach(Shared(front): Shared<Front>, Id(id): Id, body: Body) -> Answer {
    // That it does not exist is told before what is wrong with the request.
    front.core().get_existing(&id).await?;
    let request: NetworkRef = body::read_json(body).await?;
    front.core().attach_network(&id, &request.id).await?;
    ok(Ack::new())
}

pub(super) async fn detach(
    Shared(front): Shared<Front>,
    Id(id): Id,
    params: RawPathParams,
    body: Body,
) -> Answer {
    body::ignore(body).await;
    front.core().detach_network(&id, named(&params, "network")).await?;
    ok(Ack::new())
}

fn view(network: &Network) -> Result<NetworkView, Fail> {
    let created_at = needed_time(network.created_at, "network")?;
    Ok(NetworkView::new(network.id.clone(), &*network.name, created_at))
}

fn member(member: Member) -> NetworkMember {
    let mut row = NetworkMember::new(member.sandbox, status(member.state));
    row.ip = member.linked.then(|| member.ip.to_string());
    row.name = Some(member.name);
    row
}
