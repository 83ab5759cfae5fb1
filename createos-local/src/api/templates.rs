//! Templates and their build logs (api.md 5.8).

use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use createos_sdk::Timestamp;
use createos_sdk::wire::{Ack, BuildFrame, CreateTemplate, Page, TemplateStatus, TemplateView};
use futures::Stream;

use super::Front;
use super::answer::{Answer, Fail, ok, streamed, success};
use super::body;
use super::ndjson;
use super::path::Segment;
use super::query::Query;
use crate::core::{CoreError, LogNext, TemplateLog};
use crate::store::Template;

/// The one attempt that there is to build a template.
const ATTEMPT: u64 = 1;

pub(super) async fn create(State(front): State<Front>, body: Body) -> Answer {
    let request: CreateTemplate = body::read_json(body).await?;
    let template = front.core().create_template(request).await?;
    Ok(success(StatusCode::CREATED, view(template)))
}

pub(super) async fn list(State(front): State<Front>, query: Query) -> Answer {
    let page = query.page();
    let found = front.core().list_templates(page.limit, page.offset).await?;
    let rows = found.rows.into_iter().map(view).collect();
    ok(Page::new(rows, found.total, page.limit.into(), page.offset))
}

pub(super) async fn get(
    State(front): State<Front>,
    reference: Result<Segment, Fail>,
    query: Query,
) -> Answer {
    let template = front.core().template(&name(reference)).await?;
    let with_text = query.get("include") == Some("dockerfile");
    let text = with_text.then(|| template.dockerfile.clone());
    let mut view = view(template);
    view.dockerfile = text;
    ok(view)
}

pub(super) async fn delete(
    State(front): State<Front>,
    reference: Result<Segment, Fail>,
    body: Body,
) -> Answer {
    body::ignore(body).await;
    front.core().delete_template(&name(reference)).await?;
    ok(Ack::new())
}

pub(super) async fn logs(
    State(front): State<Front>,
    reference: Result<Segment, Fail>,
    query: Query,
) -> Answer {
    let attempt = query.get("attempt").filter(|text| !text.is_empty());
    let mut log = front.core().template_log(&name(reference), attempt).await?;
    if query.is_true("follow") {
        return Ok(ndjson::answer(streamed(frames(log))));
    }
    let mut text = String::new();
    loop {
        let lines = log.lines().await?;
        if lines.is_empty() {
            break;
        }
        for line in lines {
            text.push_str(&line.line);
            text.push('\n');
        }
    }
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// What cannot be decoded names no template.
fn name(reference: Result<Segment, Fail>) -> String {
    reference.map(|Segment(text)| text).unwrap_or_default()
}

/// The lines of a log as they come, and the end.
fn frames(log: TemplateLog) -> impl Stream<Item = io::Result<Bytes>> {
    futures::stream::unfold(Some(log), |log| async {
        let mut log = log?;
        let next = match log.wait().await {
            Ok(next) => next,
            Err(CoreError::Lost(why)) => return Some((Err(io::Error::other(why)), None)),
            Err(error) => return Some((Err(io::Error::other(error.to_string())), None)),
        };
        let mut text = Vec::new();
        let mut is_last = false;
        for next in next {
            let frame = match next {
                LogNext::Line(line) => {
                    let mut frame = BuildFrame::line(ATTEMPT, line.level, line.line);
                    frame.ts = Timestamp::try_from(line.at).ok();
                    frame
                }
                LogNext::Ended(progress) => {
                    is_last = true;
                    BuildFrame::end(TemplateStatus::from(progress.as_str()))
                }
                LogNext::Cancelled => {
                    is_last = true;
                    BuildFrame::end(TemplateStatus::Cancelled)
                }
            };
            text.extend(ndjson::line(&frame));
        }
        Some((Ok(text.into()), (!is_last).then_some(log)))
    })
}

fn view(template: Template) -> TemplateView {
    let created = Timestamp::try_from(template.created_at).unwrap_or_else(|_| Timestamp::now());
    let mut view = TemplateView::new(template.id, template.name, created);
    view.base = template.base;
    view.status = TemplateStatus::from(template.progress.as_str());
    view.ext4_size_bytes = template.size_bytes;
    view.built_at = template.built_at.and_then(|time| Timestamp::try_from(time).ok());
    view
}
