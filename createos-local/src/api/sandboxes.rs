//! Create, list, get, destroy, resume (api.md 4.1 to 4.7).

use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{HeaderValue, StatusCode};
use createos_sdk::wire::{CreateSandbox, DestroyedSandbox, Page};

use super::Front;
use super::answer::{Answer, Fail, ok, success};
use super::body;
use super::path::{Id, Segment};
use super::query::Query;
use super::view::status;
use crate::core::{CoreError, Resumed, State, shown};

/// Seconds a client should wait before its first poll.
const POLL_AFTER: HeaderValue = HeaderValue::from_static("1");

pub(super) async fn create(Shared(front): Shared<Front>, body: Body) -> Answer {
    let request: CreateSandbox = body::read_json(body).await?;
    front.check_ingress(request.ingress_enabled)?;
    let sandbox = front.core().create(request).await?;
    Ok(success(StatusCode::CREATED, front.created(sandbox)))
}

pub(super) async fn list(Shared(front): Shared<Front>, query: Query) -> Answer {
    let wanted = query.get("status").filter(|word| !word.is_empty());
    let wanted = wanted.map(|word| {
        State::parse(word).ok_or_else(|| {
            let known = State::ALL.map(State::as_str).join(", ");
            Fail::field("status", format!("unknown status: {}; known are [{known}]", shown(word)))
        })
    });
    let page = query.page();
    let found = front.core().list(wanted.transpose()?, page.limit, page.offset).await?;
    let rows = found.rows.into_iter().map(|row| front.view(row)).collect();
    ok(Page::new(rows, found.total, page.limit.into(), page.offset))
}

pub(super) async fn get(Shared(front): Shared<Front>, Id(id): Id) -> Answer {
    ok(front.view(front.core().get(&id).await?))
}

pub(super) async fn by_ip(Shared(front): Shared<Front>, Segment(ip): Segment) -> Answer {
    let ip = ip.parse().map_err(|_| CoreError::NoSandbox)?;
    ok(front.view(front.core().get_by_ip(ip).await?))
}

pub(super) async fn destroy(Shared(front): Shared<Front>, Id(id): Id, body: Body) -> Answer {
    body::ignore(body).await;
    let sandbox = front.core().destroy(&id).await?;
    ok(DestroyedSandbox::new(id, status(sandbox.state)))
}

pub(super) async fn resume(Shared(front): Shared<Front>, Id(id): Id, body: Body) -> Answer {
    body::ignore(body).await;
    let (code, sandbox) = match front.core().resume(&id).await? {
        Resumed::Running(sandbox) => (StatusCode::OK, sandbox),
        Resumed::Accepted(sandbox) => (StatusCode::ACCEPTED, sandbox),
    };
    let mut answer = success(code, front.view(sandbox));
    answer.headers_mut().insert("x-poll-after", POLL_AFTER);
    Ok(answer)
}
