//! Access tokens (api.md 4.12).

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use createos_sdk::wire::{AccessToken, AccessTokenView};

use super::Front;
use super::answer::{Answer, ok, success};
use super::body;
use super::path::Id;
use super::view::needed_time;
use crate::core::{CoreError, NewToken};

pub(super) async fn create(State(front): State<Front>, Id(id): Id, body: Body) -> Answer {
    body::ignore(body).await;
    ok(shown_once(front.core().create_token(&id).await?)?)
}

pub(super) async fn rotate(State(front): State<Front>, Id(id): Id, body: Body) -> Answer {
    body::ignore(body).await;
    ok(shown_once(front.core().rotate_token(&id).await?)?)
}

pub(super) async fn get(State(front): State<Front>, Id(id): Id) -> Answer {
    let mut view = AccessTokenView::none();
    if let Some(record) = front.core().token(&id).await? {
        view.enabled = true;
        view.token_hint = Some(record.hint);
        view.created_at = Some(needed_time(record.created_at, "token")?);
        view.rotated_at = record.rotated_at.map(|at| needed_time(at, "token")).transpose()?;
    }
    ok(view)
}

pub(super) async fn revoke(State(front): State<Front>, Id(id): Id, body: Body) -> Answer {
    body::ignore(body).await;
    front.core().revoke_token(&id).await?;
    Ok(success(StatusCode::OK, AccessTokenView::none()))
}

fn shown_once(NewToken { token, record }: NewToken) -> Result<AccessToken, CoreError> {
    let mut shown = AccessToken::new(token, needed_time(record.created_at, "token")?);
    shown.rotated_at = record.rotated_at.map(|at| needed_time(at, "token")).transpose()?;
    Ok(shown)
}
