//! Routes of the API that this engine does not have yet: a refusal that names the feature,
//! never a pretended success.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::Front;
use super::answer::Fail;
use super::body;
use super::path::Id;
use crate::core::NOT_YET;

const GET: MethodFilter = MethodFilter::GET;
const POST: MethodFilter = MethodFilter::POST;
const PUT: MethodFilter = MethodFilter::PUT;

fn refusal(feature: &str) -> Fail {
    Fail::new(StatusCode::NOT_IMPLEMENTED, format!("{feature} is not available: {NOT_YET}"))
}

/// A feature of one sandbox; that the sandbox does not exist is told first.
fn of_sandbox(methods: MethodFilter, feature: &'static str) -> MethodRouter<Front> {
    on(methods, move |front, id, body| refuse_for(front, id, body, feature))
}

async fn refuse_for(
    State(front): State<Front>,
    Id(id): Id,
    body: Body,
    feature: &'static str,
) -> Fail {
    body::ignore(body).await;
    match front.core().get(&id).await {
        Ok(_) => refusal(feature),
        Err(error) => error.into(),
    }
}

/// A feature of the account.
fn of_account(methods: MethodFilter, feature: &'static str) -> MethodRouter<Front> {
    on(methods, move |body| async move {
        body::ignore(body).await;
        refusal(feature)
    })
}

pub(super) fn router() -> Router<Front> {
    sandbox_settings().merge(account())
}

fn sandbox_settings() -> Router<Front> {
    let path = |rest: &str| format!("/v1/sandboxes/{{id}}{rest}");
    Router::new()
        .route(&path("/egress"), of_sandbox(PUT, "changing outbound rules"))
        .route(&path("/bandwidth/recharge"), of_sandbox(POST, "recharging bandwidth"))
}

fn account() -> Router<Front> {
    let metrics = |methods| of_account(methods, "reading metrics");
    Router::new().route("/v1/metrics", metrics(GET)).route("/v1/metrics/timeseries", metrics(GET))
}
