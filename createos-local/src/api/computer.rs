//! The desktop of a sandbox (api.md 5.5).

mod input;
mod screens;
mod windows;

use axum::Router;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use createos_sdk::wire::{Ack, ClipboardText, LaunchApplication, OpenTarget, Point, Size};

use super::Front;
use super::answer::{Answer, Fail, ok};
use super::body;
use super::path::Id;
use super::query::Query;
use crate::core::{CoreError, Desktop, ScreenId, View};

/// One screen of a sandbox's desktop: what nearly every route is about. That there is none is
/// told before what is wrong with the request.
pub(super) struct Seat {
    desktop: Desktop,
    screen: ScreenId,
    query: Query,
}

impl FromRequestParts<Front> for Seat {
    type Rejection = Fail;

    async fn from_request_parts(parts: &mut Parts, front: &Front) -> Result<Self, Fail> {
        let Id(id) = Id::from_request_parts(parts, front).await?;
        let query = Query::parse(parts.uri.query().unwrap_or(""));
        let desktop = front.core().desktop(&id).await?;
        let screen = ScreenId::parse(query.get("screen_id"))?;
        Ok(Self { desktop, screen, query })
    }
}

pub(super) fn router() -> Router<Front> {
    let path = |rest: &str| format!("/v1/sandboxes/{{id}}/computer{rest}");
    Router::new()
        .route(&path("/screenshot"), get(screenshot))
        .route(&path("/screen"), get(size))
        .route(&path("/cursor"), get(cursor))
        .route(&path("/clipboard"), get(clipboard).put(copy))
        .route(&path("/open"), post(open))
        .route(&path("/launch"), post(launch))
        .route(&path("/mouse/move"), post(input::move_pointer))
        .route(&path("/mouse/click"), post(input::click))
        .route(&path("/mouse/scroll"), post(input::scroll))
        .route(&path("/mouse/drag"), post(input::drag))
        .route(&path("/mouse/down"), post(input::button_down))
        .route(&path("/mouse/up"), post(input::button_up))
        .route(&path("/keyboard/type"), post(input::type_text))
        .route(&path("/keyboard/press"), post(input::press))
        .route(&path("/keyboard/down"), post(input::key_down))
        .route(&path("/keyboard/up"), post(input::key_up))
        .route(&path("/windows"), get(windows::list))
        .route(&path("/windows/current"), get(windows::current))
        .route(&path("/windows/{window}"), get(windows::get).delete(windows::close))
        .route(&path("/windows/{window}/geometry"), get(windows::geometry))
        .route(&path("/windows/{window}/focus"), post(windows::focus))
        .route(&path("/windows/{window}/maximize"), post(windows::maximize))
        .route(&path("/windows/{window}/minimize"), post(windows::minimize))
        .route(&path("/windows/{window}/restore"), post(windows::restore))
        .route(&path("/windows/{window}/move"), post(windows::move_to))
        .route(&path("/windows/{window}/resize"), post(windows::resize))
        .route(&path("/screens"), get(screens::list).post(screens::create))
        .route(&path("/screens/{screen}"), get(screens::get).delete(screens::delete))
        .route(&path("/screens/{screen}/resize"), post(screens::resize))
        .route(&path("/screens/{screen}/connect"), get(screens::connect))
}

async fn size(seat: Seat) -> Answer {
    let (width, height) = seat.desktop.size(seat.screen).await?;
    ok(Size::new(width, height))
}

async fn cursor(seat: Seat) -> Answer {
    let (x, y) = seat.desktop.cursor(seat.screen).await?;
    ok(Point::new(x, y))
}

async fn screenshot(seat: Seat) -> Answer {
    let view = View {
        window: seat
            .query
            .get("window_id")
            .filter(|id| !id.is_empty())
            .map(windows::id)
            .transpose()?,
        x: number(&seat.query, "x")?,
        y: number(&seat.query, "y")?,
        width: size_of(&seat.query, "width")?,
        height: size_of(&seat.query, "height")?,
    };
    let png = seat.desktop.screenshot(seat.screen, view).await?;
    let mut response = Response::new(Body::from(png));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("image/png"));
    Ok(response)
}

fn number(query: &Query, name: &str) -> Result<Option<i32>, CoreError> {
    let Some(text) = query.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let wrong = |_| CoreError::field(name, "must be a whole number of pixels");
    text.parse().map(Some).map_err(wrong)
}

fn size_of(query: &Query, name: &str) -> Result<Option<u32>, CoreError> {
    match number(query, name)?.map(u32::try_from) {
        None => Ok(None),
        Some(Ok(size)) if size > 0 => Ok(Some(size)),
        Some(_) => Err(CoreError::field(name, "must be larger than 0")),
    }
}

async fn clipboard(seat: Seat) -> Answer {
    ok(ClipboardText::new(seat.desktop.clipboard(seat.screen).await?))
}

async fn copy(seat: Seat, body: Body) -> Answer {
    let request: ClipboardText = body::read_json(body).await?;
    seat.desktop.copy(seat.screen, request.text.expose()).await?;
    ok(Ack::new())
}

async fn open(seat: Seat, body: Body) -> Answer {
    let request: OpenTarget = body::read_json(body).await?;
    seat.desktop.open(seat.screen, &request.target).await?;
    ok(Ack::new())
}

async fn launch(seat: Seat, body: Body) -> Answer {
    let request: LaunchApplication = body::read_json(body).await?;
    let uri = request.uri.as_deref().filter(|uri| !uri.is_empty());
    seat.desktop.launch(seat.screen, &request.application, uri).await?;
    ok(Ack::new())
}
