//! Routes of the API that this engine does not have yet: a refusal that names the feature,
//! never a pretended success.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::Front;
use super::answer::Fail;
use super::body;
use crate::core::NOT_YET;

const GET: MethodFilter = MethodFilter::GET;

fn refusal(feature: &str) -> Fail {
    Fail::new(StatusCode::NOT_IMPLEMENTED, format!("{feature} is not available: {NOT_YET}"))
}

/// A feature of the account.
fn of_account(methods: MethodFilter, feature: &'static str) -> MethodRouter<Front> {
    on(methods, move |body| async move {
        body::ignore(body).await;
        refusal(feature)
    })
}

pub(super) fn router() -> Router<Front> {
    let metrics = |methods| of_account(methods, "reading metrics");
    Router::new().route("/v1/metrics", metrics(GET)).route("/v1/metrics/timeseries", metrics(GET))
}
