//! Windows.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use createos_sdk::WindowId;
use createos_sdk::wire::{Ack, Point, Size, WindowGeometry, WindowView};

use super::super::Front;
use super::super::answer::{Answer, Fail, ok};
use super::super::body::{ignore, read_json};
use super::super::path::segment;
use super::Seat;
use crate::core::{CoreError, Deed};
use crate::x11::Window;

/// A window that a path names.
pub(in super::super) struct Named(u32);

impl FromRequestParts<Front> for Named {
    type Rejection = Fail;

    async fn from_request_parts(parts: &mut Parts, _: &Front) -> Result<Self, Fail> {
        let text = segment(parts, |name| name == "window").await.unwrap_or_default();
        Ok(Self(id(&text)?))
    }
}

/// The number of a window, as this engine writes it or in decimal. Other text names none.
pub(super) fn id(text: &str) -> Result<u32, CoreError> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    let message = "there is no such window".to_owned();
    number.map_err(|_| CoreError::NoSuch { field: "window_id", message })
}

fn id_of(number: u32) -> Result<WindowId, CoreError> {
    let id = format!("{number:#x}").parse();
    id.map_err(|_| CoreError::Internal("a window's number is no id".to_owned()))
}

fn view(window: Window) -> Result<WindowView, CoreError> {
    let mut view = WindowView::new(id_of(window.id)?);
    view.title = window.title;
    Ok(view)
}

pub(super) async fn list(seat: Seat) -> Answer {
    let application = seat.query.get("application").filter(|name| !name.is_empty());
    let windows = seat.desktop.windows(seat.screen, application).await?;
    ok(windows.into_iter().map(view).collect::<Result<Vec<_>, _>>()?)
}

pub(super) async fn current(seat: Seat) -> Answer {
    ok(view(seat.desktop.current_window(seat.screen).await?)?)
}

pub(super) async fn get(seat: Seat, Named(id): Named) -> Answer {
    ok(view(seat.desktop.window(seat.screen, id).await?)?)
}

pub(super) async fn geometry(seat: Seat, Named(id): Named) -> Answer {
    let place = seat.desktop.geometry(seat.screen, id).await?;
    let (at, size) = (Point::new(place.x, place.y), Size::new(place.width, place.height));
    let mut geometry = WindowGeometry::new(id_of(id)?, at, size);
    geometry.screen = seat.screen.number().into();
    ok(geometry)
}

async fn act(seat: Seat, id: u32, deed: Deed) -> Answer {
    seat.desktop.act_on_window(seat.screen, id, deed).await?;
    ok(Ack::new())
}

pub(super) async fn focus(seat: Seat, Named(id): Named, body: Body) -> Answer {
    ignore(body).await;
    act(seat, id, Deed::Focus).await
}

pub(super) async fn maximize(seat: Seat, Named(id): Named, body: Body) -> Answer {
    ignore(body).await;
    act(seat, id, Deed::Maximize).await
}

pub(super) async fn minimize(seat: Seat, Named(id): Named, body: Body) -> Answer {
    ignore(body).await;
    act(seat, id, Deed::Minimize).await
}

pub(super) async fn restore(seat: Seat, Named(id): Named, body: Body) -> Answer {
    ignore(body).await;
    act(seat, id, Deed::Restore).await
}

pub(super) async fn move_to(seat: Seat, Named(id): Named, body: Body) -> Answer {
    let Point { x, y, .. } = read_json(body).await?;
    act(seat, id, Deed::Move { x, y }).await
}

pub(super) async fn resize(seat: Seat, Named(id): Named, body: Body) -> Answer {
    let Size { width, height, .. } = read_json(body).await?;
    act(seat, id, Deed::Resize { width, height }).await
}

pub(super) async fn close(seat: Seat, Named(id): Named, body: Body) -> Answer {
    ignore(body).await;
    act(seat, id, Deed::Close).await
}
