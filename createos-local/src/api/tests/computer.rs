//! Desktops over a scripted machine: refusals, and X servers that mean no good.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use createos_sdk::SandboxId;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use x11rb_protocol::protocol::xproto::{ImageOrder, Screen, Setup};
use x11rb_protocol::x11_utils::Serialize as _;

use super::rig::{Rig, SHAPE};
use crate::core::fake::Fake;

/// Every route of api.md 5.5.
const ROUTES: [(&str, &str); 34] = [
    ("GET", "/screenshot"),
    ("GET", "/screen"),
    ("GET", "/cursor"),
    ("GET", "/clipboard"),
    ("PUT", "/clipboard"),
    ("POST", "/open"),
    ("POST", "/launch"),
    ("POST", "/mouse/move"),
    ("POST", "/mouse/click"),
    ("POST", "/mouse/scroll"),
    ("POST", "/mouse/drag"),
    ("POST", "/mouse/down"),
    ("POST", "/mouse/up"),
    ("POST", "/keyboard/type"),
    ("POST", "/keyboard/press"),
    ("POST", "/keyboard/down"),
    ("POST", "/keyboard/up"),
    ("GET", "/windows"),
    ("GET", "/windows/current"),
    ("GET", "/windows/0x7"),
    ("GET", "/windows/0x7/geometry"),
    ("POST", "/windows/0x7/focus"),
    ("POST", "/windows/0x7/maximize"),
    ("POST", "/windows/0x7/minimize"),
    ("POST", "/windows/0x7/restore"),
    ("POST", "/windows/0x7/move"),
    ("POST", "/windows/0x7/resize"),
    ("DELETE", "/windows/0x7"),
    ("GET", "/screens"),
    ("POST", "/screens"),
    ("GET", "/screens/screen%2D0"),
    ("POST", "/screens/screen%2D0/resize"),
    ("DELETE", "/screens/screen%2D0"),
    ("GET", "/screens/screen%2D0/connect"),
];

async fn with_desktop() -> (Rig, SandboxId) {
    let rig = Rig::with_desktop().await;
    let id = rig.sandbox_with(json!({"rootfs": "desktop:1"})).await;
    (rig, id)
}

fn path(id: &SandboxId, rest: &str) -> String {
    format!("/v1/sandboxes/{id}/computer{rest}")
}

#[tokio::test]
async fn an_image_without_a_desktop_says_which_has_one() {
    let rig = Rig::with_desktop().await;
    let id = rig.sandbox().await;
    for (method, rest) in ROUTES {
        let refused = rig.call(method, &path(&id, rest), None).await;
        assert_eq!(refused.status, 501, "{method} {rest}: {refused:?}");
        assert!(refused.message().contains("desktop:1"), "{refused:?}");
        let unknown = "sb-01k4m2c9zq8v7n5t3r1p0x6y2w".parse().unwrap();
        assert_eq!(rig.call(method, &path(&unknown, rest), None).await.status, 404, "{rest}");
        let wrong = rig.call("PATCH", &path(&id, rest), None).await;
        assert_eq!(wrong.status, 405, "{rest}");
    }
    assert_eq!(rig.get(&path(&id, "/nothing")).await.status, 404);
}

#[tokio::test]
async fn a_machine_without_the_programs_says_how_to_get_them() {
    let rig = Rig::new().await;
    let create = async |body: Value| rig.call("POST", "/v1/sandboxes", Some(body)).await;
    let refused = create(json!({"shape": SHAPE, "rootfs": "desktop:1"})).await;
    assert_eq!(refused.status, 501, "{refused:?}");
    assert!(refused.message().contains("get some"), "{refused:?}");
    assert_eq!(create(json!({"shape": "none", "rootfs": "desktop:1"})).await.status, 400);
    assert_eq!(create(json!({"shape": SHAPE, "rootfs": "desktop:2"})).await.status, 400);
    assert_eq!(rig.get("/v1/rootfs").await.data()["rootfs"], json!(["devbox:1"]));
    let rig = Rig::with_desktop().await;
    assert_eq!(rig.get("/v1/rootfs").await.data()["rootfs"], json!(["devbox:1", "desktop:1"]));
}

#[tokio::test]
async fn a_desktop_that_is_not_there_yet_is_told_from_a_screen_that_never_was() {
    let (rig, id) = with_desktop().await;
    let missing = rig.get(&path(&id, "/screen")).await;
    assert_eq!(missing.status, 404, "{missing:?}");
    // The session has said that it should be there.
    let kept = "/var/lib/createos-desktop/screen-0".to_owned();
    rig.fake.disk.lock().unwrap().get_mut(&id).unwrap().insert(kept, Bytes::from("1280x800\n"));
    for (method, rest, body) in [
        ("GET", "/screen", None),
        ("GET", "/cursor", None),
        ("GET", "/clipboard", None),
        ("POST", "/mouse/click", None),
        ("POST", "/mouse/click", Some(Value::Null)),
        ("POST", "/mouse/click", Some(json!({}))),
        ("POST", "/keyboard/press", Some(json!({"keys": ["ctrl", "l"]}))),
        ("GET", "/windows", None),
        ("POST", "/windows/0x7/focus", Some(Value::Null)),
        ("GET", "/screens/screen%2D0", None),
    ] {
        let starting = rig.call(method, &path(&id, rest), body).await;
        assert_eq!(starting.status, 409, "{rest}: {starting:?}");
        assert_eq!(starting.json()["data"], "desktop_unavailable", "{rest}");
    }
    assert_eq!(rig.get(&path(&id, "/screens")).await.data(), json!([]));
    assert_eq!(rig.get(&path(&id, "/screens/screen-1")).await.status, 404);
    let off = rig.get(&path(&id, "/screens/screen-0/connect")).await;
    assert_eq!((off.status, &off.json()["data"]), (409, &json!("ingress is not enabled")));
    rig.call("POST", &format!("/v1/sandboxes/{id}/pause"), None).await;
    rig.until(&id, "paused").await;
    for (method, rest) in ROUTES {
        let paused = rig.call(method, &path(&id, rest), None).await;
        assert_eq!(paused.status, 409, "{rest}: {paused:?}");
        assert!(paused.message().contains("paused"), "{rest}: {paused:?}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_by_its_field() {
    let (rig, id) = with_desktop().await;
    let long = "a".repeat((64 << 10) + 1);
    for (method, rest, body, field) in [
        ("GET", "/screen?screen_id=screen-8", Value::Null, "screen_id"),
        ("GET", "/cursor?screen_id=0", Value::Null, "screen_id"),
        ("GET", "/screens/first", Value::Null, "screen_id"),
        ("GET", "/screenshot?x=a", Value::Null, "x"),
        ("GET", "/screenshot?width=0", Value::Null, "width"),
        ("GET", "/screenshot?height=-1", Value::Null, "height"),
        ("POST", "/mouse/move", json!({"x": 1}), "body"),
        ("POST", "/mouse/move", json!({"x": "1", "y": 1}), "x"),
        ("POST", "/mouse/click", json!({"x": 1}), "y"),
        ("POST", "/mouse/click", json!({"button": "fourth"}), "button"),
        ("POST", "/mouse/click", json!({"count": 0}), "count"),
        ("POST", "/mouse/click", json!({"count": 21}), "count"),
        ("POST", "/mouse/down", json!({"button": ""}), "button"),
        ("POST", "/mouse/scroll", json!({"direction": "left"}), "direction"),
        ("POST", "/mouse/scroll", json!({"direction": "up", "amount": 101}), "amount"),
        ("POST", "/mouse/drag", json!({"from": {"x": 1, "y": 1}}), "body"),
        ("POST", "/keyboard/type", json!({"text": ""}), "text"),
        ("POST", "/keyboard/type", json!({"text": "a\u{0}"}), "text"),
        ("POST", "/keyboard/type", json!({"text": long}), "text"),
        ("POST", "/keyboard/type", json!({"text": "ab", "delay_in_ms": 1_800_001}), "delay_in_ms"),
        ("POST", "/keyboard/type", json!({"text": "a", "delay_in_ms": u64::MAX}), "delay_in_ms"),
        ("POST", "/keyboard/press", json!({"keys": []}), "keys"),
        ("POST", "/keyboard/up", json!({"keys": ["nokey"]}), "keys"),
        ("POST", "/keyboard/down", json!({"keys": vec!["a"; 17]}), "keys"),
        ("POST", "/windows/0x7/move", json!({"x": 1_000_000, "y": 1}), "x"),
        ("POST", "/windows/0x7/resize", json!({"width": 0, "height": 1}), "width"),
        ("POST", "/open", json!({"target": ""}), "target"),
        ("POST", "/open", json!({"target": "--help"}), "target"),
        ("POST", "/launch", json!({"application": "-x"}), "application"),
        ("POST", "/launch", json!({"application": "a", "uri": "-x"}), "uri"),
        ("PUT", "/clipboard", json!({"text": 7}), "text"),
        ("POST", "/screens", json!({"width": 63}), "width"),
        ("POST", "/screens", json!({"width": 4096, "height": 4096}), "height"),
        ("POST", "/screens/screen-0/resize", json!({"height": 5000}), "height"),
    ] {
        let body = (!body.is_null()).then_some(body);
        let refused = rig.call(method, &path(&id, rest), body).await;
        assert_eq!(refused.status, 400, "{rest}: {refused:?}");
        assert!(refused.json()["data"][field].is_string(), "{rest}: {refused:?}");
        assert!(refused.body.len() < 1000, "{rest}");
    }
    for id_of_none in ["current-not", "0xzz", "99999999999", "-1"] {
        let unknown = rig.get(&path(&id, &format!("/windows/{id_of_none}"))).await;
        assert_eq!(unknown.status, 404, "{unknown:?}");
    }
}

/// What an X server says first.
fn greeting() -> Vec<u8> {
    let screen = Screen { root: 1, width_in_pixels: 100, height_in_pixels: 100, ..SCREEN };
    let mut setup = Setup {
        status: 1,
        protocol_major_version: 11,
        protocol_minor_version: 0,
        length: 0,
        release_number: 1,
        resource_id_base: 0,
        resource_id_mask: 0xff,
        motion_buffer_size: 0,
        maximum_request_length: 0xffff,
        image_byte_order: ImageOrder::LSB_FIRST,
        bitmap_format_bit_order: ImageOrder::LSB_FIRST,
        bitmap_format_scanline_unit: 32,
        bitmap_format_scanline_pad: 32,
        min_keycode: 8,
        max_keycode: 255,
        vendor: Vec::new(),
        pixmap_formats: Vec::new(),
        roots: vec![screen],
    };
    setup.length = (setup.serialize().len() as u16 - 8) / 4;
    setup.serialize()
}

const SCREEN: Screen = Screen {
    root: 1,
    default_colormap: 0,
    white_pixel: 0,
    black_pixel: 0,
    current_input_masks: x11rb_protocol::protocol::xproto::EventMask::NO_EVENT,
    width_in_pixels: 0,
    height_in_pixels: 0,
    width_in_millimeters: 0,
    height_in_millimeters: 0,
    min_installed_maps: 0,
    max_installed_maps: 0,
    root_visual: 0,
    backing_stores: x11rb_protocol::protocol::xproto::BackingStore::NOT_USEFUL,
    save_unders: false,
    root_depth: 24,
    allowed_depths: Vec::new(),
};

/// An X server that says this to everyone, and then nothing.
fn serve(fake: &Fake, dir: &Path, name: &str, says: Vec<u8>, goes_on: bool) {
    let place: PathBuf = dir.join(name);
    let listener = UnixListener::bind(&place).unwrap();
    fake.sockets.lock().unwrap().insert("/tmp/.X11-unix/X0".to_owned(), place);
    tokio::spawn(async move {
        while let Ok((visitor, _)) = listener.accept().await {
            tokio::spawn(talk(visitor, says.clone(), goes_on));
        }
    });
}

async fn talk(mut visitor: UnixStream, says: Vec<u8>, goes_on: bool) {
    let mut greeting = [0; 12];
    let _ = visitor.read_exact(&mut greeting).await;
    while visitor.write_all(&says).await.is_ok() && goes_on {}
    // Held open, and read from.
    let _ = visitor.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn x_servers_that_lie_or_stall_cost_nobody_else_anything() {
    let (rig, id) = with_desktop().await;
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    // An answer that is announced with 16 GiB, one to no question, and half of one.
    let mut huge = greeting();
    huge.extend([1, 0, 1, 0, 0xff, 0xff, 0xff, 0xff]);
    huge.extend([0; 24]);
    let mut other = greeting();
    other.extend([1, 0, 9, 0]);
    other.extend([0; 28]);
    let mut failed = vec![0, 4, 11, 0, 0, 0, 1, 0];
    failed.extend(b"no!!");
    let endless = [greeting(), vec![2; 32]].concat();
    for (name, says, goes_on) in [
        ("nonsense", vec![0xff; 300_000], false),
        ("refuses", failed, false),
        ("huge", huge, false),
        ("other", other, false),
        ("endless", endless, true),
    ] {
        serve(&rig.fake, dir.path(), name, says, goes_on);
        let refused = rig.get(&path(&id, "/cursor")).await;
        assert_eq!(refused.status, 409, "{name}: {refused:?}");
        assert_eq!(refused.json()["data"], "desktop_unavailable", "{name}: {refused:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());

    // One that says nothing is given up after a while, and others are served meanwhile.
    serve(&rig.fake, dir.path(), "silent", Vec::new(), false);
    let cursor = path(&id, "/cursor");
    let stalled = rig.get(&cursor);
    let served = async {
        for _ in 0..10 {
            assert_eq!(rig.exec(&id, json!({"cmd": "echo"})).await.status, 200);
        }
        Instant::now()
    };
    let (stalled, served) = tokio::join!(stalled, served);
    assert_eq!(stalled.json()["data"], "desktop_unavailable", "{stalled:?}");
    assert!(served.elapsed() > Duration::from_secs(1));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(rig.fake.has_desktop.load(Ordering::SeqCst));
}
