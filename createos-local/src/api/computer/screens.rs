//! Screens, and links to look at them.

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use createos_sdk::wire::{Ack, ScreenConnection, ScreenSize, ScreenView, Size};
use createos_sdk::{ScreenId as WireId, Timestamp};

use super::super::Front;
use super::super::answer::{Answer, Fail, ok};
use super::super::body::{ignore, read_optional_json};
use super::super::path::{Id, segment};
use crate::core::{CoreError, Desktop, OpenScreen, ScreenId};

const PAGE: &str = "/vnc.html";

/// The desktop of the sandbox that a path names.
pub(in super::super) struct Whole(Desktop);

impl FromRequestParts<Front> for Whole {
    type Rejection = Fail;

    async fn from_request_parts(parts: &mut Parts, front: &Front) -> Result<Self, Fail> {
        let Id(id) = Id::from_request_parts(parts, front).await?;
        Ok(Self(front.core().desktop(&id).await?))
    }
}

/// The screen that a path names.
pub(in super::super) struct Named(ScreenId);

impl FromRequestParts<Front> for Named {
    type Rejection = Fail;

    async fn from_request_parts(parts: &mut Parts, _: &Front) -> Result<Self, Fail> {
        let text = segment(parts, |name| name == "screen").await.unwrap_or_default();
        Ok(Self(ScreenId::parse(Some(&text))?))
    }
}

fn id_of(screen: ScreenId) -> Result<WireId, CoreError> {
    let id = screen.to_string().parse();
    id.map_err(|_| CoreError::Internal("a screen's name is no id".to_owned()))
}

fn view(seen: OpenScreen) -> Result<ScreenView, CoreError> {
    let size = Size::new(seen.width, seen.height);
    Ok(ScreenView::new(id_of(seen.id)?, seen.id.number(), size))
}

pub(super) async fn list(Whole(desktop): Whole) -> Answer {
    let screens = desktop.screens().await?;
    ok(screens.into_iter().map(view).collect::<Result<Vec<_>, _>>()?)
}

pub(super) async fn create(Whole(desktop): Whole, body: Body) -> Answer {
    ok(view(desktop.create_screen(size(body).await?).await?)?)
}

pub(super) async fn get(Whole(desktop): Whole, Named(screen): Named) -> Answer {
    ok(view(desktop.screen(screen).await?)?)
}

pub(super) async fn resize(Whole(desktop): Whole, Named(screen): Named, body: Body) -> Answer {
    ok(view(desktop.resize_screen(screen, size(body).await?).await?)?)
}

async fn size(body: Body) -> Result<ScreenSize, Fail> {
    let size: Option<Option<ScreenSize>> = read_optional_json(body).await?;
    Ok(size.flatten().unwrap_or_default())
}

pub(super) async fn delete(Whole(desktop): Whole, Named(screen): Named, body: Body) -> Answer {
    ignore(body).await;
    desktop.delete_screen(screen).await?;
    ok(Ack::new())
}

pub(super) async fn connect(
    State(front): State<Front>,
    Id(id): Id,
    Whole(desktop): Whole,
    Named(screen): Named,
) -> Answer {
    let viewer = desktop.connect(screen).await?;
    let port = viewer.port.get();
    let mut connection = ScreenConnection::new(id_of(screen)?, port, PAGE, viewer.token.clone());
    connection.expires_at = Timestamp::try_from(viewer.ends).ok();
    connection.url = front.url_of_port(&id, viewer.port).map(|address| {
        let token = viewer.token.expose();
        let query = format!("autoconnect=true&resize=scale&path=websockify%3Ftoken%3D{token}");
        format!("{address}{PAGE}?{query}").into()
    });
    ok(connection)
}
