//! The desktop of a sandbox.

use std::time::Duration;

use createos::{
    ComputerButtonRequest, ComputerClickRequest, ComputerCreateScreenRequest, ComputerDragRequest,
    ComputerLaunchRequest, ComputerListWindowsOptions, ComputerOpenRequest, ComputerPoint,
    ComputerScreenOptions, ComputerScreenshotOptions, ComputerScrollRequest, ComputerTypeRequest,
    ComputerWindowMoveRequest, ComputerWindowResizeRequest,
};
use createos_sdk::wire::{MouseButton, ScrollDirection, Size};
use createos_sdk::{ScreenId, WindowId};

use super::recorder::Pair;

fn on_screen() -> ComputerScreenOptions {
    ComputerScreenOptions { screen_id: Some("screen-1".into()), ..Default::default() }
}

fn screen_id() -> ScreenId {
    "screen-1".parse().unwrap()
}

pub(crate) async fn run(pair: &mut Pair) {
    let (theirs, ours) = (pair.instance.computer(), pair.sandbox.computer().on_screen(screen_id()));
    let part = ComputerScreenshotOptions {
        screen: on_screen(),
        window_id: Some("0x1a".into()),
        x: Some(1),
        y: Some(2),
        width: Some(3),
        height: Some(4),
    };
    let window: WindowId = "0x1a".parse().unwrap();
    let shot = ours.screenshot().window(window).part((1, 2), Size::new(3, 4));
    pair.same("computer.screenshot", theirs.screenshot(part), shot).await;
    pair.same("computer.screen", theirs.screen(on_screen()), ours.screen_size()).await;
    pair.same("computer.cursor", theirs.cursor(on_screen()), ours.cursor()).await;
    let plain = pair.sandbox.computer();
    let nowhere = ComputerScreenOptions::default();
    pair.same("computer.cursor.default", theirs.cursor(nowhere), plain.cursor()).await;
    pair.same("computer.clipboard", theirs.clipboard(on_screen()), ours.clipboard().read()).await;
    let write = ours.clipboard().write("x");
    pair.same("computer.set_clipboard", theirs.set_clipboard("x", on_screen()), write).await;
    let target = ComputerOpenRequest { target: "/tmp".into() };
    pair.same("computer.open", theirs.open(target, on_screen()), ours.open("/tmp")).await;
    let launch = ComputerLaunchRequest { application: "a".into(), uri: Some("u".into()) };
    let launched = (theirs.launch(launch, on_screen()), ours.launch_with("a", "u"));
    pair.same("computer.launch", launched.0, launched.1).await;
    mouse(pair).await;
    keyboard(pair).await;
    windows(pair).await;
    screens(pair).await;
}

async fn mouse(pair: &mut Pair) {
    let theirs = pair.instance.computer().mouse();
    let ours = pair.sandbox.computer().on_screen(screen_id()).mouse();
    let point = |x, y| ComputerPoint { x, y };
    let moved = theirs.move_to(point(3, 4), on_screen());
    pair.same("mouse.move", moved, ours.move_to(3, 4)).await;
    let click = ComputerClickRequest {
        button: Some("right".into()),
        x: Some(3),
        y: Some(4),
        count: Some(2),
    };
    let clicked = ours.click().at(3, 4).button(MouseButton::Right).count(2);
    pair.same("mouse.click", theirs.click(click, on_screen()), clicked).await;
    let here = ComputerClickRequest::default();
    pair.same("mouse.click.here", theirs.click(here, on_screen()), ours.click()).await;
    let scroll = ComputerScrollRequest { direction: "up".into(), amount: 3 };
    let scrolled = ours.scroll_by(ScrollDirection::Up, 3);
    pair.same("mouse.scroll", theirs.scroll(scroll, on_screen()), scrolled).await;
    let drag = ComputerDragRequest { from: point(1, 2), to: point(3, 4) };
    pair.same("mouse.drag", theirs.drag(drag, on_screen()), ours.drag((1, 2), (3, 4))).await;
    let left = || ComputerButtonRequest { button: "left".into() };
    pair.same("mouse.down", theirs.down(left(), on_screen()), ours.down(MouseButton::Left)).await;
    pair.same("mouse.up", theirs.up(left(), on_screen()), ours.up(MouseButton::Left)).await;
}

async fn keyboard(pair: &mut Pair) {
    let theirs = pair.instance.computer().keyboard();
    let ours = pair.sandbox.computer().on_screen(screen_id()).keyboard();
    let text = ComputerTypeRequest { text: "hi".into(), delay_ms: Some(20) };
    let typing = ours.type_text("hi").delay(Duration::from_millis(20));
    pair.same("keyboard.type", theirs.type_text(text, on_screen()), typing).await;
    let keys = || vec!["ctrl".to_owned(), "l".to_owned()];
    pair.same("keyboard.press", theirs.press(keys(), on_screen()), ours.press(keys())).await;
    pair.same("keyboard.down", theirs.down(keys(), on_screen()), ours.down(keys())).await;
    pair.same("keyboard.up", theirs.up(keys(), on_screen()), ours.up(keys())).await;
}

async fn windows(pair: &mut Pair) {
    let theirs = pair.instance.computer().windows();
    let ours = pair.sandbox.computer().on_screen(screen_id());
    let list = ComputerListWindowsOptions { screen: on_screen(), application: Some("a b".into()) };
    pair.same("window.list", theirs.list(list), ours.windows().application("a b")).await;
    pair.same("window.current", theirs.current(on_screen()), ours.current_window()).await;
    let id = "0x1a";
    let window = ours.window(id.parse::<WindowId>().unwrap());
    pair.same("window.get", theirs.get(id, on_screen()), window.get()).await;
    pair.same("window.geometry", theirs.geometry(id, on_screen()), window.geometry()).await;
    pair.same("window.focus", theirs.focus(id, on_screen()), window.focus()).await;
    pair.same("window.maximize", theirs.maximize(id, on_screen()), window.maximize()).await;
    pair.same("window.minimize", theirs.minimize(id, on_screen()), window.minimize()).await;
    pair.same("window.restore", theirs.restore(id, on_screen()), window.restore()).await;
    let to = ComputerWindowMoveRequest { x: 1, y: 2 };
    pair.same("window.move", theirs.move_to(id, to, on_screen()), window.move_to(1, 2)).await;
    let size = ComputerWindowResizeRequest { width: 3, height: 4 };
    let resized = window.resize(Size::new(3, 4));
    pair.same("window.resize", theirs.resize(id, size, on_screen()), resized).await;
    pair.same("window.close", theirs.close(id, on_screen()), window.close()).await;
}

async fn screens(pair: &mut Pair) {
    let (theirs, ours) = (pair.instance.computer().screens(), pair.sandbox.computer());
    pair.same("screen.list", theirs.list(), ours.screens()).await;
    let size = || ComputerCreateScreenRequest { width: 800, height: 600 };
    let created = ours.create_screen(Some(Size::new(800, 600)));
    pair.same("screen.create", theirs.create(size()), created).await;
    let id = "screen-1".into();
    let screen = ours.screen(screen_id());
    pair.same("screen.get", theirs.get(&id), screen.get()).await;
    pair.same("screen.connect", theirs.connect(&id), screen.connect()).await;
    let resized = screen.resize(Size::new(800, 600));
    pair.same("screen.resize", theirs.resize(&id, size()), resized).await;
    pair.same("screen.delete", theirs.delete(&id), screen.delete()).await;
}
