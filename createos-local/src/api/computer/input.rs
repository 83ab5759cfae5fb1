//! Mouse and keyboard.

use axum::body::Body;
use createos_sdk::wire::{
    Ack, Keys, MouseClick, MouseDrag, MousePress, MouseScroll, Point, TypeText,
};

use super::super::answer::{Answer, ok};
use super::super::body::{read_json, read_optional_json};
use super::Seat;
use crate::x11::Press;

pub(super) async fn move_pointer(seat: Seat, body: Body) -> Answer {
    let to: Point = read_json(body).await?;
    seat.desktop.move_pointer(seat.screen, to).await?;
    ok(Ack::new())
}

pub(super) async fn click(seat: Seat, body: Body) -> Answer {
    let click: Option<Option<MouseClick>> = read_optional_json(body).await?;
    seat.desktop.click(seat.screen, click.flatten().unwrap_or_default()).await?;
    ok(Ack::new())
}

pub(super) async fn scroll(seat: Seat, body: Body) -> Answer {
    let scroll: MouseScroll = read_json(body).await?;
    seat.desktop.scroll(seat.screen, scroll).await?;
    ok(Ack::new())
}

pub(super) async fn drag(seat: Seat, body: Body) -> Answer {
    let drag: MouseDrag = read_json(body).await?;
    seat.desktop.drag(seat.screen, drag).await?;
    ok(Ack::new())
}

pub(super) async fn button_down(seat: Seat, body: Body) -> Answer {
    hold(seat, body, true).await
}

pub(super) async fn button_up(seat: Seat, body: Body) -> Answer {
    hold(seat, body, false).await
}

async fn hold(seat: Seat, body: Body, down: bool) -> Answer {
    let press: Option<Option<MousePress>> = read_optional_json(body).await?;
    seat.desktop.hold(seat.screen, press.flatten().unwrap_or_default().button, down).await?;
    ok(Ack::new())
}

pub(super) async fn type_text(seat: Seat, body: Body) -> Answer {
    let request: TypeText = read_json(body).await?;
    seat.desktop.type_text(seat.screen, request).await?;
    ok(Ack::new())
}

pub(super) async fn press(seat: Seat, body: Body) -> Answer {
    keys(seat, body, Press::Stroke).await
}

pub(super) async fn key_down(seat: Seat, body: Body) -> Answer {
    keys(seat, body, Press::Down).await
}

pub(super) async fn key_up(seat: Seat, body: Body) -> Answer {
    keys(seat, body, Press::Up).await
}

async fn keys(seat: Seat, body: Body, how: Press) -> Answer {
    let request: Keys = read_json(body).await?;
    seat.desktop.press_keys(seat.screen, &request.keys, how).await?;
    ok(Ack::new())
}
