//! Create, list, get, destroy, pause, resume, fork (api.md 4.1 to 4.8).

use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use createos_sdk::wire::{CreateSandbox, DestroyedSandbox, ForkSandbox, Page};

use super::Front;
use super::answer::{Answer, Fail, ok, success};
use super::body;
use super::path::{Id, Segment};
use super::query::Query;
use super::view::status;
use crate::core::{CoreError, State, Transition, shown};
use crate::store::Sandbox;

/// Seconds a client should wait before its first poll. What takes no longer than a moment is
/// done when it is answered.
const POLL_AFTER: HeaderValue = HeaderValue::from_static("0");

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

pub(super) async fn pause(Shared(front): Shared<Front>, Id(id): Id, body: Body) -> Answer {
    body::ignore(body).await;
    let transition = front.core().pause(&id).await?;
    Ok(front.changed(transition))
}

pub(super) async fn resume(Shared(front): Shared<Front>, Id(id): Id, body: Body) -> Answer {
    body::ignore(body).await;
    let transition = front.core().resume(&id).await?;
    Ok(front.changed(transition))
}

pub(super) async fn fork(Shared(front): Shared<Front>, Id(id): Id, body: Body) -> Answer {
    front.core().forkable(&id).await?;
    let request: Option<ForkSandbox> = body::read_optional_json(body).await?;
    let child = front.core().fork(&id, request.unwrap_or_default()).await?;
    Ok(front.begun(StatusCode::ACCEPTED, child))
}

impl Front {
    fn changed(&self, transition: Transition) -> Response {
        match transition {
            Transition::Done(sandbox) => self.begun(StatusCode::OK, sandbox),
            Transition::Begun(sandbox) => self.begun(StatusCode::ACCEPTED, sandbox),
        }
    }

    fn begun(&self, code: StatusCode, sandbox: Sandbox) -> Response {
        let mut answer = success(code, self.view(sandbox));
        answer.headers_mut().insert("x-poll-after", POLL_AFTER);
        answer
    }
}
