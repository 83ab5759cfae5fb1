//! The desktop: all 34 routes, and waiting until it is there.

use std::time::Duration;

use createos_sdk::computer::Computer;
use createos_sdk::wire::{MouseButton, ScrollDirection, Size};
use createos_sdk::{ErrorKind, RequestOptions, Result, ScreenId, WindowId};
use serde_json::{Value, json};
use wiremock::matchers::{any, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::golden::{check, header, only};
use super::{ID, answering, fail, sandbox, success, view};

fn route(rest: &str) -> String {
    format!("/v1/sandboxes/{ID}/computer/{rest}")
}

fn computer(server: &MockServer) -> Computer {
    sandbox(&server.uri()).computer()
}

fn screen() -> ScreenId {
    "screen-1".parse().unwrap()
}

fn window() -> WindowId {
    "0x1a".parse().unwrap()
}

/// Checks that a call is acknowledged, and what it sends.
macro_rules! acts {
    ($call:expr, $method:literal, $rest:literal, $body:expr) => {{
        let server = answering(success(json!({"ok": true}))).await;
        let call: fn(Computer) -> _ = $call;
        call(computer(&server)).await?;
        check(&only(&server).await, $method, &route($rest), "", $body);
    }};
}

/// The same for a question; gives its answer.
macro_rules! asks {
    ($answer:expr, $call:expr, $method:literal, $rest:literal, $query:literal, $body:expr) => {{
        let server = answering(success($answer)).await;
        let call: fn(Computer) -> _ = $call;
        let answer = call(computer(&server)).await?;
        check(&only(&server).await, $method, &route($rest), $query, $body);
        answer
    }};
}

const NONE: Option<Value> = None;

#[tokio::test]
async fn programs_and_clipboard() -> Result<()> {
    let target = Some(json!({"target": "https://example.org"}));
    acts!(|it| it.open("https://example.org"), "POST", "open", target);
    let body = Some(json!({"application": "firefox"}));
    acts!(|it| it.launch("firefox"), "POST", "launch", body);
    let body = Some(json!({"application": "firefox", "uri": "https://example.org"}));
    acts!(|it| it.launch_with("firefox", "https://example.org"), "POST", "launch", body);
    acts!(|it| it.clipboard().write("x"), "PUT", "clipboard", Some(json!({"text": "x"})));
    let read = |it: Computer| it.clipboard().read();
    let text = asks!(json!({"text": "planted"}), read, "GET", "clipboard", "", NONE);
    assert_eq!(text.expose(), "planted");
    Ok(())
}

#[tokio::test]
async fn mouse() -> Result<()> {
    acts!(|it| it.mouse().move_to(3, 4), "POST", "mouse/move", Some(json!({"x": 3, "y": 4})));
    acts!(|it| it.mouse().click(), "POST", "mouse/click", Some(json!({})));
    let body = Some(json!({"button": "right", "x": 3, "y": 4, "count": 2}));
    let click = |it: Computer| it.mouse().click().at(3, 4).button(MouseButton::Right).count(2);
    acts!(click, "POST", "mouse/click", body);
    let body = Some(json!({"direction": "down"}));
    acts!(|it| it.mouse().scroll(ScrollDirection::Down), "POST", "mouse/scroll", body);
    let body = Some(json!({"direction": "up", "amount": 3}));
    acts!(|it| it.mouse().scroll_by(ScrollDirection::Up, 3), "POST", "mouse/scroll", body);
    let body = Some(json!({"from": {"x": 1, "y": 2}, "to": {"x": 3, "y": 4}}));
    acts!(|it| it.mouse().drag((1, 2), (3, 4)), "POST", "mouse/drag", body);
    let body = || Some(json!({"button": "left"}));
    acts!(|it| it.mouse().down(MouseButton::Left), "POST", "mouse/down", body());
    acts!(|it| it.mouse().up(MouseButton::Left), "POST", "mouse/up", body());
    Ok(())
}

#[tokio::test]
async fn keyboard() -> Result<()> {
    let body = Some(json!({"text": "hi"}));
    acts!(|it| it.keyboard().type_text("hi"), "POST", "keyboard/type", body);
    let body = Some(json!({"text": "hi", "delay_in_ms": 20}));
    let typing = |it: Computer| it.keyboard().type_text("hi").delay(Duration::from_millis(20));
    acts!(typing, "POST", "keyboard/type", body);
    let keys = || Some(json!({"keys": ["ctrl", "l"]}));
    acts!(|it| it.keyboard().press(["ctrl", "l"]), "POST", "keyboard/press", keys());
    acts!(|it| it.keyboard().down(["ctrl", "l"]), "POST", "keyboard/down", keys());
    acts!(|it| it.keyboard().up(["ctrl", "l"]), "POST", "keyboard/up", keys());
    Ok(())
}

#[tokio::test]
async fn windows() -> Result<()> {
    let one = || json!({"id": "0x1a", "title": "Files"});
    let list = |it: Computer| it.windows().application("a b");
    let rows = asks!(json!([one()]), list, "GET", "windows", "application=a+b", NONE);
    assert_eq!((&rows[0].id, rows[0].title.as_deref()), (&window(), Some("Files")));
    assert!(asks!(json!(null), |it| it.windows(), "GET", "windows", "", NONE).is_empty());
    asks!(one(), |it| it.current_window(), "GET", "windows/current", "", NONE);
    asks!(one(), |it| it.window(window()).get(), "GET", "windows/0x1a", "", NONE);
    let geometry = json!({"id": "0x1a", "x": -1, "y": 2, "width": 3, "height": 4, "screen": 0});
    let ask = |it: Computer| it.window(window()).geometry();
    assert_eq!(asks!(geometry, ask, "GET", "windows/0x1a/geometry", "", NONE).x, -1);
    acts!(|it| it.window(window()).focus(), "POST", "windows/0x1a/focus", NONE);
    acts!(|it| it.window(window()).maximize(), "POST", "windows/0x1a/maximize", NONE);
    acts!(|it| it.window(window()).minimize(), "POST", "windows/0x1a/minimize", NONE);
    acts!(|it| it.window(window()).restore(), "POST", "windows/0x1a/restore", NONE);
    let body = Some(json!({"x": 1, "y": 2}));
    acts!(|it| it.window(window()).move_to(1, 2), "POST", "windows/0x1a/move", body);
    let body = Some(json!({"width": 3, "height": 4}));
    acts!(|it| it.window(window()).resize((3, 4)), "POST", "windows/0x1a/resize", body);
    acts!(|it| it.window(window()).close(), "DELETE", "windows/0x1a", NONE);
    Ok(())
}

#[tokio::test]
async fn screens() -> Result<()> {
    let one = || {
        json!({"screen_id": "screen-1", "display": ":1", "width": 1280, "height": 800,
               "vnc_port": 5901, "novnc_port": 6081})
    };
    let rows = asks!(json!([one()]), |it| it.screens(), "GET", "screens", "", NONE);
    assert_eq!(rows[0].screen_id, screen());
    let create = |it: Computer| it.create_screen(None);
    asks!(one(), create, "POST", "screens", "", Some(json!({})));
    let size = || Some(json!({"width": 1280, "height": 800}));
    let create = |it: Computer| it.create_screen(Some(Size::new(1280, 800)));
    asks!(one(), create, "POST", "screens", "", size());
    asks!(one(), |it| it.screen(screen()).get(), "GET", "screens/screen-1", "", NONE);
    let resize = |it: Computer| it.screen(screen()).resize((1280, 800));
    asks!(one(), resize, "POST", "screens/screen-1/resize", "", size());
    acts!(|it| it.screen(screen()).delete(), "DELETE", "screens/screen-1", NONE);
    let link = json!({"screen_id": "screen-1", "port": 6081, "path": "/vnc.html",
        "token": "planted", "url": "https://example.org/?t=planted"});
    let connect = |it: Computer| it.screen(screen()).connect();
    let link = asks!(link, connect, "GET", "screens/screen-1/connect", "", NONE);
    assert!(!format!("{link:?}").contains("planted"));
    assert_eq!(link.url.unwrap().expose(), "https://example.org/?t=planted");
    let server = answering(fail(409, "ingress is not enabled")).await;
    let error = connect(computer(&server)).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Conflict, "ingress is not enabled"));

    let ask = |it: Computer| it.screen_size();
    let size = asks!(json!({"width": 1280, "height": 800}), ask, "GET", "screen", "", NONE);
    assert_eq!(size, Size::new(1280, 800));
    let cursor = asks!(json!({"x": 1, "y": 2}), |it| it.cursor(), "GET", "cursor", "", NONE);
    assert_eq!((cursor.x, cursor.y), (1, 2));
    Ok(())
}

#[tokio::test]
async fn the_chosen_screen_goes_with_every_call_but_those_about_screens() -> Result<()> {
    let server = answering(success(json!({"ok": true}))).await;
    let on = computer(&server).on_screen(screen());
    on.mouse().click().await?;
    on.windows().application("x").with(RequestOptions::new()).await.unwrap_err();
    on.clipboard().write("x").await?;
    on.screen(screen()).delete().await?;
    let requests = server.received_requests().await.unwrap();
    let queries: Vec<_> = requests.iter().map(|it| it.url.query().unwrap_or_default()).collect();
    let expected =
        ["screen_id=screen-1", "screen_id=screen-1&application=x", "screen_id=screen-1", ""];
    assert_eq!(queries, expected);
    Ok(())
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";

#[tokio::test]
async fn screenshots_are_png() -> Result<()> {
    let png = || ResponseTemplate::new(200).set_body_raw(PNG, "image/png");
    let server = answering(png()).await;
    assert_eq!(computer(&server).screenshot().await?, PNG);
    let request = only(&server).await;
    check(&request, "GET", &route("screenshot"), "", NONE);
    assert_eq!(header(&request, "accept"), Some("image/png"));

    let server = answering(png()).await;
    let part = computer(&server).on_screen(screen()).screenshot().window(window());
    part.part((1, 2), (3, 4)).await?;
    let query = "screen_id=screen-1&window_id=0x1a&x=1&y=2&width=3&height=4";
    check(&only(&server).await, "GET", &route("screenshot"), query, NONE);

    let server = answering(success(json!({"ok": true}))).await;
    let error = computer(&server).screenshot().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    let limited = ResponseTemplate::new(429).insert_header("retry-after", "1");
    let server = answering(limited).await;
    let once = RequestOptions::new().retry(createos_sdk::RetryPolicy::none());
    let error = computer(&server).screenshot().with(once).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    Ok(())
}

#[tokio::test]
async fn what_a_desktop_did_is_not_done_twice() {
    let server = answering(ResponseTemplate::new(503)).await;
    let it = computer(&server);
    for error in [
        it.mouse().click().await.unwrap_err(),
        it.keyboard().type_text("planted").await.unwrap_err(),
        it.window(window()).focus().await.unwrap_err(),
        it.create_screen(None).await.unwrap_err(),
    ] {
        assert!(error.may_have_acted() && error.attempts() == 1, "{error}");
        assert!(!format!("{error:?}").contains("planted"));
    }
    assert!(!format!("{:?}", it.keyboard().type_text("planted")).contains("planted"));
    assert!(!format!("{:?}", it.clipboard().write("planted")).contains("planted"));
}

#[tokio::test]
async fn bad_arguments_of_the_desktop_are_refused_before_any_traffic() {
    let server = answering(ResponseTemplate::new(500)).await;
    let it = computer(&server);
    let none: [&str; 0] = [];
    let errors = [
        ("target", it.open(" ").await.unwrap_err()),
        ("target", it.open("a\0").await.unwrap_err()),
        ("application", it.launch("").await.unwrap_err()),
        ("count", it.mouse().click().count(0).await.unwrap_err()),
        ("notches", it.mouse().scroll_by(ScrollDirection::Up, 0).await.unwrap_err()),
        ("text", it.keyboard().type_text("").await.unwrap_err()),
        ("text", it.keyboard().type_text("a\0").await.unwrap_err()),
        ("delay", it.keyboard().type_text("a").delay(Duration::MAX).await.unwrap_err()),
        ("keys", it.keyboard().press(none).await.unwrap_err()),
        ("keys", it.keyboard().down([""]).await.unwrap_err()),
        ("width", it.window(window()).resize((0, 1)).await.unwrap_err()),
        ("height", it.screen(screen()).resize((1, 0)).await.unwrap_err()),
        ("height", it.create_screen(Some(Size::new(1, 0))).await.unwrap_err()),
        ("width", it.screenshot().part((0, 0), (0, 1)).await.unwrap_err()),
    ];
    for (field, error) in errors {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.message().starts_with(field), "{field}: {error}");
        assert!(error.operation().is_some_and(|name| name.starts_with("computer.")), "{error}");
    }
    assert!(server.received_requests().await.unwrap().is_empty());
}

/// A server whose sandbox is there, and whose screen answers `first` once and then `then`.
async fn booting(first: ResponseTemplate, then: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    let at = |rest: &str| Mock::given(path(rest));
    let sandbox = format!("/v1/sandboxes/{ID}");
    at(&sandbox).respond_with(success(view("running"))).mount(&server).await;
    at(&route("screen")).respond_with(first).up_to_n_times(1).mount(&server).await;
    at(&route("screen")).respond_with(then).mount(&server).await;
    server
}

#[tokio::test]
async fn the_desktop_is_waited_for() {
    let there = || success(json!({"width": 1280, "height": 800}));
    for starting in [
        fail(409, "desktop_unavailable"),
        fail(404, "screen not found"),
        ResponseTemplate::new(503),
        there(),
    ] {
        let server = booting(starting, there()).await;
        let size = computer(&server).wait_until_ready().await.unwrap();
        assert_eq!(size, Size::new(1280, 800));
    }
    let coded = ResponseTemplate::new(409).set_body_json(json!({"status": "fail",
        "data": {"code": "desktop_unavailable", "message": "not yet"}}));
    let server = booting(coded, there()).await;
    computer(&server).wait_until_ready().await.unwrap();
}

#[tokio::test]
async fn what_will_never_be_there_is_not_waited_for() {
    for (answer, kind) in [
        (ResponseTemplate::new(501), ErrorKind::Unsupported),
        (fail(409, "sandbox is not running"), ErrorKind::Conflict),
        (fail(401, "no"), ErrorKind::NotAuthenticated),
    ] {
        let server = booting(answer.clone(), answer).await;
        let error = computer(&server).wait_until_ready().await.unwrap_err();
        assert_eq!(error.kind(), kind);
    }
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(fail(404, "sandbox not found")).mount(&server).await;
    let error = computer(&server).wait_until_ready().await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::NotFound, Some("sandbox.get")));

    let server = booting(fail(404, "no screen"), fail(409, "desktop_unavailable")).await;
    let waiting = computer(&server).wait_until_ready().budget(Duration::from_millis(400));
    let error = waiting.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.message().contains("desktop_unavailable"), "{error}");
}
