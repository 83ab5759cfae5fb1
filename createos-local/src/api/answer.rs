//! Answers and refusals in their envelopes (api.md 1.8, 1.10).

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use createos_sdk::wire::{Envelope, Failure, FailureData};
use futures::{Stream, StreamExt as _};
use serde::Serialize;

use crate::core::{CoreError, shown};

/// What a handler returns.
pub(super) type Answer = Result<Response, Fail>;

/// A refusal: a status and its body.
#[derive(Debug)]
pub(super) struct Fail {
    status: StatusCode,
    body: Failure,
    retry_after: Option<u64>,
}

impl Fail {
    /// The request is at fault; one sentence says how.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, body: Failure::fail(message), retry_after: None }
    }

    /// One field of the request is at fault.
    pub(super) fn field(name: &str, why: impl Into<String>) -> Self {
        let body = Failure::field(name, why);
        Self { status: StatusCode::BAD_REQUEST, body, retry_after: None }
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    fn with_field(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    fn error(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, body: Failure::error(message, status.as_u16()), retry_after: None }
    }
}

impl From<CoreError> for Fail {
    fn from(error: CoreError) -> Self {
        let message = error.to_string();
        match error {
            CoreError::Invalid(fields) => {
                let mut fail = Self::new(StatusCode::BAD_REQUEST, message);
                fail.body.data = FailureData::Fields(fields);
                fail
            }
            CoreError::NoSandbox => Self::new(StatusCode::NOT_FOUND, message),
            CoreError::NoSuch { field, message } => {
                Self::field(field, message).with_field(StatusCode::NOT_FOUND)
            }
            CoreError::Forbidden { field, message } => {
                Self::field(field, message).with_field(StatusCode::FORBIDDEN)
            }
            CoreError::NotAvailable { field, message } => {
                Self::field(field, message).with_field(StatusCode::NOT_IMPLEMENTED)
            }
            CoreError::Conflict(_) => Self::new(StatusCode::CONFLICT, message),
            CoreError::Desktop(_) => {
                let mut fail = Self::new(StatusCode::CONFLICT, message);
                // Clients compare this text (api.md 5.5).
                fail.body.data = FailureData::Text("desktop_unavailable".to_owned());
                fail
            }
            CoreError::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, message),
            CoreError::Refused(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, message),
            CoreError::Busy { retry_seconds, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(retry_seconds)
            }
            CoreError::NoCapacity(_) => Self::error(StatusCode::SERVICE_UNAVAILABLE, message),
            // Not 503: clients repeat even an exec on 503, and this one may have been done.
            CoreError::NoListener(_) | CoreError::Lost(_) => {
                Self::error(StatusCode::BAD_GATEWAY, message)
            }
            CoreError::Internal(_) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, message),
        }
    }
}

impl IntoResponse for Fail {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &self.body);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A success with its data.
pub(super) fn success(status: StatusCode, data: impl Serialize) -> Response {
    json(status, &Envelope::success(data))
}

/// 200 with its data.
pub(super) fn ok(data: impl Serialize) -> Answer {
    Ok(success(StatusCode::OK, data))
}

/// Any body as JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let (status, text) = match serde_json::to_vec(body) {
        Ok(text) => (status, text),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            let text =
                r#"{"status":"error","message":"the answer could not be written","code":500}"#;
            (StatusCode::INTERNAL_SERVER_ERROR, text.into())
        }
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A body that comes piece by piece. After an error it breaks off, so that no client takes what
/// has come for the whole; what came before the error still arrives.
pub(super) fn streamed<E>(pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Body
where
    E: Into<axum::BoxError> + Send + 'static,
{
    Body::from_stream(pieces.then(async |piece| {
        if piece.is_err() {
            // hyper throws away what it has not written yet when a body fails, and writes it
            // when a body makes it wait.
            tokio::task::yield_now().await;
        }
        piece
    }))
}

/// Paths that are no route.
pub(super) async fn no_route(uri: Uri) -> Fail {
    Fail::new(StatusCode::NOT_FOUND, format!("no such route: {}", shown(uri.path())))
}

/// Routes asked with another method than they have.
pub(super) async fn wrong_method(method: axum::http::Method, uri: Uri) -> Fail {
    let message = format!("{method} is not a method of {}", shown(uri.path()));
    Fail::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
