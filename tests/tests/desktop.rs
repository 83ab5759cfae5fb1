//! Desktops, used like a person: what is done to them is seen inside, and what happens
//! inside is seen on them.

use std::io::Cursor;
use std::time::Duration;

use bytes::Bytes;
use createos_sdk::computer::{Computer, Screen};
use createos_sdk::wire::{MouseButton, ScreenConnection, ScrollDirection, WindowView};
use createos_sdk::{ErrorKind, RequestOptions, RetryPolicy, Sandbox};
use createos_tests::{Fixture, sh, until};
use futures::StreamExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

/// Far more than anything takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A sandbox with a desktop that is there.
async fn desktop(fixture: &Fixture) -> (Sandbox, Computer) {
    let created = fixture.client.create_sandbox("s-1vcpu-1gb").rootfs("desktop:1").await;
    let sandbox = created.expect("a sandbox with a desktop");
    let computer = sandbox.computer();
    let size = computer.wait_until_ready().await.expect("the desktop comes up");
    assert_eq!((size.width, size.height), (1280, 800));
    (sandbox, computer)
}

async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Starts a program and waits until its window has the focus: keys typed before are lost.
async fn launch(computer: &Computer, application: &str) -> WindowView {
    computer.launch(application).await.expect("launch");
    let window = eventually("a window", async || {
        computer.windows().application(application).await.expect("windows").pop()
    })
    .await;
    computer.window(window.id.clone()).focus().await.expect("focus");
    window
}

/// Width, height, and the colours of all pixels.
fn decode(png: &Bytes) -> (u32, u32, Vec<u8>) {
    let mut reader = png::Decoder::new(Cursor::new(png)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("a picture");
    (info.width, info.height, pixels)
}

#[tokio::test]
async fn what_is_typed_arrives() {
    let fixture = Fixture::start().await;
    let (sandbox, computer) = desktop(&fixture).await;
    launch(&computer, "xterm").await;
    let keyboard = computer.keyboard();
    keyboard.type_text("cat >/tmp/typed\n").await.expect("type");
    // Keys of the keyboard, of other keyboards, and of none.
    let text = "Hello, World! ~`@#$%^&*()_+{}|:\"<>?[]\\;',./ äöüß ñ é € Ω ж я 漢字 かな 한글 😀🎉";
    keyboard.type_text(format!("{text}\n")).await.expect("type");
    keyboard.type_text("slowly").delay(Duration::from_millis(20)).await.expect("type");
    keyboard.press(["Return"]).await.expect("press");
    keyboard.press(["ctrl", "d"]).await.expect("press");
    let expected = format!("{text}\nslowly\n");
    until(&sandbox, "cat /tmp/typed", &expected).await;
    fixture.end().await;
}

/// Starts a terminal in which this script runs, and waits for the focus.
async fn terminal(sandbox: &Sandbox, computer: &Computer, script: &str) -> WindowView {
    let script = format!("#!/bin/sh\n{script}\n");
    sandbox.files().write("/workspace/script", script).await.expect("write");
    sh(sandbox, "chmod +x /workspace/script").await;
    computer.launch_with("xterm", "/workspace/script").await.expect("launch");
    let window = eventually("a window", async || {
        computer.windows().application("XTerm").await.expect("windows").pop()
    })
    .await;
    computer.window(window.id.clone()).focus().await.expect("focus");
    window
}

#[tokio::test]
async fn what_the_mouse_does_is_seen_inside() {
    let fixture = Fixture::start().await;
    let (sandbox, computer) = desktop(&fixture).await;
    // It tells of buttons, and of motion while one is down, with places in characters.
    let script =
        "stty raw -echo; printf '\\033[?1002h\\033[?1006h'; touch /tmp/mouse; exec cat >/tmp/mouse";
    let window = terminal(&sandbox, &computer, script).await;
    until(&sandbox, "test -e /tmp/mouse && echo ready", "ready\n").await;
    let at = computer.window(window.id).geometry().await.expect("geometry");
    // Characters are 6 by 13 pixels.
    let place = |column: i32, row: i32| (at.x + 2 + column * 6 + 3, at.y + 2 + row * 13 + 6);
    let told = "tr '\\033' '\\n' </tmp/mouse";
    let mouse = computer.mouse();

    let (x, y) = place(10, 4);
    mouse.click().at(x, y).await.expect("click");
    let mut seen = "\n[<0;11;5M\n[<0;11;5m".to_owned();
    until(&sandbox, told, &seen).await;
    assert_eq!(computer.cursor().await.expect("cursor"), (x, y).into());

    // Where the pointer is.
    mouse.click().button(MouseButton::Right).count(2).await.expect("click");
    seen += &"\n[<2;11;5M\n[<2;11;5m".repeat(2);
    until(&sandbox, told, &seen).await;
    mouse.scroll(ScrollDirection::Down).await.expect("scroll");
    mouse.scroll_by(ScrollDirection::Up, 1).await.expect("scroll");
    seen += &("\n[<65;11;5M".repeat(3) + "\n[<64;11;5M");
    until(&sandbox, told, &seen).await;

    let (x, y) = place(20, 6);
    mouse.move_to(x, y).await.expect("move");
    mouse.down(MouseButton::Middle).await.expect("down");
    mouse.up(MouseButton::Middle).await.expect("up");
    seen += "\n[<1;21;7M\n[<1;21;7m";
    until(&sandbox, told, &seen).await;

    mouse.drag(place(0, 0), place(40, 10)).await.expect("drag");
    let dragged = eventually("a drag", async || {
        let told = sh(&sandbox, told).await;
        told.strip_prefix(&seen).filter(|drag| drag.ends_with('m')).map(str::to_owned)
    })
    .await;
    assert!(dragged.starts_with("\n[<0;1;1M\n[<32;"), "{dragged:?}");
    assert!(dragged.ends_with("\n[<32;41;11M\n[<0;41;11m"), "{dragged:?}");

    for (x, y) in [(-1, 0), (0, -1), (1280, 0), (0, 800), (i32::MAX, i32::MIN)] {
        let refused = mouse.move_to(x, y).await.expect_err("beyond the screen");
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    }
    fixture.end().await;
}

/// A window without a frame, of one colour.
async fn coloured(sandbox: &Sandbox, colour: &str, geometry: &str, screen: u32) {
    let start = format!(
        "DISPLAY=:{screen} setsid xterm -bg '{colour}' -fg '{colour}' -cr '{colour}' -T '{colour}' \
         -geometry {geometry} -e sleep 1000 >/dev/null 2>&1 </dev/null &"
    );
    sh(sandbox, &start).await;
}

#[tokio::test]
async fn pictures_show_the_screen() {
    let fixture = Fixture::start().await;
    let (sandbox, computer) = desktop(&fixture).await;
    let before = computer.screenshot().await.expect("a picture");
    let (width, height, pixels) = decode(&before);
    assert_eq!((width, height, pixels.len()), (1280, 800, 1280 * 800 * 3));

    coloured(&sandbox, "#f00010", "40x10+100+50", 0).await;
    let window = eventually("a window", async || computer.windows().await.expect("windows").pop());
    let id = window.await.id;
    computer.window(id.clone()).focus().await.expect("focus");
    let red = [0xf0, 0x00, 0x10];
    let place = computer.window(id.clone()).geometry().await.expect("geometry");
    eventually("red", async || {
        let picture = computer.screenshot().window(id.clone()).await.expect("a picture");
        let (width, height, pixels) = decode(&picture);
        assert_eq!((width, height), (place.width, place.height));
        pixels.chunks(3).all(|pixel| pixel == red).then_some(())
    })
    .await;
    let after = computer.screenshot().await.expect("a picture");
    assert!(before != after);

    // A part of the screen, and of a window; what is beyond the screen is not in it.
    let part = computer.screenshot().part((place.x - 1, place.y + 5), (2, 1)).await.expect("part");
    let (width, height, pixels) = decode(&part);
    assert_eq!((width, height, &pixels[3..]), (2, 1, red.as_slice()));
    assert_ne!(&pixels[..3], red);
    let part = computer.screenshot().window(id.clone()).part((3, 4), (7, 5)).await.expect("part");
    assert_eq!((decode(&part).0, decode(&part).1), (7, 5));
    let part = computer.screenshot().part((1270, 790), (100, 100)).await.expect("part");
    assert_eq!((decode(&part).0, decode(&part).1), (10, 10));
    let beyond = computer.screenshot().part((1280, 0), (1, 1)).await.expect_err("beyond");
    assert_eq!(beyond.kind(), ErrorKind::InvalidArgument, "{beyond}");
    let none: createos_sdk::WindowId = "0x7".parse().expect("an id");
    let none = computer.screenshot().window(none).await.expect_err("no such window");
    assert_eq!(none.kind(), ErrorKind::NotFound, "{none}");

    // Too many at once: some are refused, with the time after which to come again.
    let once = RequestOptions::new().retry(RetryPolicy::none());
    let many = (0..40).map(|_| computer.screenshot().with(once.clone()).into_future());
    let many = futures::future::join_all(many).await;
    let refused: Vec<_> = many.into_iter().filter_map(Result::err).collect();
    assert!(!refused.is_empty());
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::RateLimited, "{error}");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    }
    fixture.end().await;
}

#[tokio::test]
async fn windows_are_found_and_moved() {
    let fixture = Fixture::start().await;
    let (sandbox, computer) = desktop(&fixture).await;
    assert!(computer.windows().await.expect("windows").is_empty());
    let none = computer.current_window().await.expect_err("no window");
    assert_eq!(none.kind(), ErrorKind::NotFound, "{none}");
    coloured(&sandbox, "#00ff00", "40x10+100+50", 0).await;
    coloured(&sandbox, "#0000ff", "40x10+500+50", 0).await;
    let find = async |title: &str| {
        let windows = computer.windows().application("xterm").await.expect("windows");
        let found = windows.into_iter().find(|window| window.title.as_deref() == Some(title));
        found.map(|window| computer.window(window.id))
    };
    let green = eventually("a green window", async || find("#00ff00").await).await;
    let blue = eventually("a blue window", async || find("#0000ff").await).await;
    assert!(computer.windows().application("firefox").await.expect("windows").is_empty());
    assert_eq!(green.get().await.expect("window").title.as_deref(), Some("#00ff00"));

    for window in [&green, &blue, &green] {
        window.focus().await.expect("focus");
        assert_eq!(&computer.current_window().await.expect("current").id, window.id());
    }
    green.move_to(200, 300).await.expect("move");
    let at = green.geometry().await.expect("geometry");
    assert_eq!((at.x, at.y, at.screen), (200, 300, 0));
    green.resize((400, 200)).await.expect("resize");
    let at = green.geometry().await.expect("geometry");
    assert_eq!((at.x, at.y), (200, 300));
    // A terminal is made of whole characters.
    assert!(at.width.abs_diff(400) < 7 && at.height.abs_diff(200) < 14, "{at:?}");

    green.maximize().await.expect("maximize");
    let large = green.geometry().await.expect("geometry");
    assert!(large.width > 1200 && large.height > 700, "{large:?}");
    green.restore().await.expect("restore");
    let restored = green.geometry().await.expect("geometry");
    assert_eq!((restored.x, restored.width, restored.height), (at.x, at.width, at.height));
    // The window manager may count its frame.
    assert!(restored.y.abs_diff(at.y) < 40, "{restored:?}");
    green.minimize().await.expect("minimize");
    let hidden = computer.screenshot().window(green.id()).await.expect_err("it is hidden");
    assert_eq!(hidden.kind(), ErrorKind::Conflict, "{hidden}");
    green.restore().await.expect("restore");
    assert_eq!(&computer.current_window().await.expect("current").id, green.id());

    green.close().await.expect("close");
    until(&sandbox, "pgrep -fc '#00ff0[0]' || :", "0\n").await;
    for gone in [green.get().await.map(drop), green.focus().await, green.move_to(1, 1).await] {
        assert_eq!(gone.expect_err("it is gone").kind(), ErrorKind::NotFound);
    }
    blue.get().await.expect("the other stays");
    fixture.end().await;
}

#[tokio::test]
async fn what_is_copied_can_be_pasted() {
    let fixture = Fixture::start().await;
    let (sandbox, computer) = desktop(&fixture).await;
    let clipboard = computer.clipboard();
    assert_eq!(clipboard.read().await.expect("read").expose(), "");
    let long = "0123456789ä\n".repeat(100_000);
    for text in
        ["plain", "Zeilen\nund \t Ümläute, 漢字 😀 'quotes' \"$(reboot)\" \\ -n\n", &long, ""]
    {
        clipboard.write(text).await.expect("write");
        assert!(clipboard.read().await.expect("read").expose() == text);
        assert!(sh(&sandbox, "DISPLAY=:0 xclip -o -selection clipboard || :").await == text);
    }
    sh(&sandbox, "printf inside | DISPLAY=:0 xclip -selection clipboard >/dev/null 2>&1").await;
    assert_eq!(clipboard.read().await.expect("read").expose(), "inside");
    fixture.end().await;
}

#[tokio::test]
async fn screens_come_and_go() {
    let fixture = Fixture::start().await;
    let (sandbox, computer) = desktop(&fixture).await;
    let first = computer.screens().await.expect("screens").pop().expect("the first");
    assert_eq!((first.screen_id.as_str(), first.display.as_str()), ("screen-0", ":0"));
    assert_eq!((first.vnc_port, first.novnc_port), (5900, 6080));

    let second = computer.create_screen(Some((1024, 768).into())).await.expect("create");
    assert_eq!((second.screen_id.as_str(), second.display.as_str()), ("screen-1", ":1"));
    assert_eq!((second.width, second.height), (1024, 768));
    assert_eq!((second.vnc_port, second.novnc_port), (5901, 6081));
    let on_second = computer.on_screen(&second.screen_id);
    assert_eq!(on_second.screen_size().await.expect("size"), (1024, 768).into());
    coloured(&sandbox, "#123456", "40x10+100+50", 1).await;
    let window = eventually("a window", async || on_second.windows().await.expect("windows").pop());
    let window = on_second.window(window.await.id);
    assert_eq!(window.geometry().await.expect("geometry").screen, 1);
    assert!(computer.windows().await.expect("windows").is_empty());

    let screen = computer.screen(&second.screen_id);
    for size in [(1920, 1080), (640, 480), (800, 600), (1000, 333)] {
        let resized = screen.resize(size).await.expect("resize");
        assert_eq!((resized.width, resized.height), size);
        let picture = on_second.screenshot().await.expect("a picture");
        assert_eq!((decode(&picture).0, decode(&picture).1), size);
    }
    window.get().await.expect("windows stay");
    for size in [(63, 600), (4097, 600), (4096, 4096)] {
        let refused = screen.resize(size).await.expect_err("too large or too small");
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    }
    screen.delete().await.expect("delete");
    assert_eq!(screen.get().await.expect_err("gone").kind(), ErrorKind::NotFound);
    let gone = on_second.cursor().await.expect_err("gone");
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
    assert_eq!(computer.screens().await.expect("screens").len(), 1);
    until(&sandbox, "pgrep -fc '[X]tigervnc :1|[s]ession run 1|[6]081' || :", "0\n").await;
    fixture.end().await;
}

#[tokio::test]
async fn programs_and_addresses_are_opened() {
    let fixture = Fixture::start().await;
    let created = fixture.client.create_sandbox("s-1vcpu-1gb").rootfs("desktop:1");
    let sandbox = created.env("BROWSER", "/workspace/browser").await.expect("a sandbox");
    let computer = sandbox.computer();
    computer.wait_until_ready().await.expect("the desktop comes up");
    let browser =
        "#!/bin/sh\nprintf '%s on %s\\n' \"$1\" \"$DISPLAY\" >>/tmp/opened\nexec sleep 1000\n";
    sandbox.files().write("/workspace/browser", browser).await.expect("write");
    sh(&sandbox, "chmod +x /workspace/browser").await;
    // No program is set for it, so the browser of the environment is asked.
    let address = "x-test://example.org/?a=b&c='$(touch /tmp/pwned)'";
    computer.open(address).await.expect("open");
    until(&sandbox, "cat /tmp/opened", &format!("{address} on :0\n")).await;
    computer.launch_with("/workspace/browser", "file:///x y").await.expect("launch");
    until(&sandbox, "tail -n1 /tmp/opened", "file:///x y on :0\n").await;
    let missing = computer.open("/no/such/file").await.expect_err("no such file");
    assert_eq!(missing.kind(), ErrorKind::InvalidArgument, "{missing}");
    for name in ["nosuchprogram", "xterm -e reboot", "-x", "a;b"] {
        let unknown = computer.launch(name).await.expect_err("no such program");
        assert_eq!(unknown.kind(), ErrorKind::InvalidArgument, "{unknown}");
    }
    let unknown = computer.keyboard().press(["ctrl", "nokey"]).await.expect_err("no such key");
    assert_eq!(unknown.kind(), ErrorKind::InvalidArgument, "{unknown}");
    assert_eq!(sh(&sandbox, "ls /tmp/pwned 2>/dev/null || :").await, "");
    fixture.end().await;
}

#[tokio::test]
async fn a_sandbox_without_a_desktop_says_so() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let refused = sandbox.computer().screenshot().await.expect_err("no desktop");
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    assert!(refused.message().contains("desktop:1"), "{refused}");
    fixture.end().await;
}

/// What a viewer hears first who comes with this token; `None` when it is not let in.
async fn greeted(url: &str, token: &str) -> Option<String> {
    let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).expect("a host");
    let port = host.rsplit(':').next().expect("a port");
    let stream = TcpStream::connect(format!("127.0.0.1:{port}")).await.expect("the engine");
    let request = format!("ws://{host}/websockify?token={token}");
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.ok()?;
    match timeout(PATIENCE, socket.next()).await.expect("an answer") {
        Some(Ok(Message::Binary(bytes))) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        _ => None,
    }
}

#[tokio::test]
async fn a_link_lets_in_until_there_is_another() {
    let fixture = Fixture::start().await;
    let (sandbox, computer) = desktop(&fixture).await;
    let screen = computer.screen(computer.screens().await.expect("screens").remove(0).screen_id);
    let off = screen.connect().await.expect_err("ingress is off");
    assert_eq!(off.kind(), ErrorKind::Conflict);
    assert!(off.message().contains("ingress is not enabled"), "{off}");
    sandbox.set_ingress(true).await.expect("ingress");

    let first = link(&screen).await;
    assert_eq!((first.port, first.path.as_str()), (6080, "/vnc.html"));
    let soon = std::time::SystemTime::now() + Duration::from_secs(1800);
    assert!(first.expires_at.expect("an end").to_system_time() > soon);
    let url = first.url.as_ref().expect("a link").expose().to_owned();
    assert!(url.contains(first.token.expose()) && url.contains("6080"), "{url}");
    let greeting = greeted(&url, first.token.expose()).await;
    assert!(greeting.expect("let in").starts_with("RFB 003.008"));
    for wrong in ["", "x", &"y".repeat(5000)] {
        assert_eq!(greeted(&url, wrong).await, None);
    }
    let second = link(&screen).await;
    assert_eq!(greeted(&url, first.token.expose()).await, None);
    assert!(greeted(&url, second.token.expose()).await.is_some());
    // Another screen has links of its own.
    let other = computer.create_screen(None).await.expect("another screen");
    let other = link(&computer.screen(other.screen_id)).await;
    assert_eq!(other.port, 6081);
    let other_url = other.url.as_ref().expect("a link").expose();
    assert!(greeted(other_url, other.token.expose()).await.is_some());
    assert_eq!(greeted(other_url, second.token.expose()).await, None);
    assert!(greeted(&url, second.token.expose()).await.is_some());
    fixture.end().await;
}

/// A link, once its page is there.
async fn link(screen: &Screen) -> ScreenConnection {
    eventually("a link", async || match screen.connect().await {
        Ok(connection) => Some(connection),
        Err(error) if error.message().contains("desktop_unavailable") => None,
        Err(error) => panic!("{error}"),
    })
    .await
}
