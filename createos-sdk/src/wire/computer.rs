//! The desktop of a sandbox (api.md 5.5).

use serde::{Deserialize, Serialize};

use super::open_enum;
use crate::id::{ScreenId, WindowId};
use crate::secret::Secret;
use crate::time::Timestamp;

open_enum! {
    /// A button of the mouse.
    pub enum MouseButton {
        /// The first one.
        Left = "left",
        /// The wheel.
        Middle = "middle",
        /// The one for menus.
        Right = "right",
    }
}

open_enum! {
    /// Where the wheel is turned to.
    pub enum ScrollDirection {
        /// Towards the beginning.
        Up = "up",
        /// Towards the end.
        Down = "down",
    }
}

/// A place on a screen, in pixels from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Point {
    /// To the right.
    pub x: i32,
    /// Down.
    pub y: i32,
}

impl Point {
    /// A place.
    pub fn new(x: i32, y: i32) -> Self {
        Self { x, y }
    }
}

impl From<(i32, i32)> for Point {
    fn from((x, y): (i32, i32)) -> Self {
        Self { x, y }
    }
}

/// A size in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Size {
    /// From left to right.
    pub width: u32,
    /// From top to bottom.
    pub height: u32,
}

impl Size {
    /// A size.
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }
}

impl From<(u32, u32)> for Size {
    fn from((width, height): (u32, u32)) -> Self {
        Self { width, height }
    }
}

/// Body that makes or resizes a screen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScreenSize {
    /// Width in pixels; absent is the server's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height in pixels; absent is the server's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
}

impl ScreenSize {
    /// The server's choice, or this size.
    pub fn new(size: Option<Size>) -> Self {
        Self { width: size.map(|size| size.width), height: size.map(|size| size.height) }
    }
}

/// What the clipboard holds, as answer and as body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClipboardText {
    /// The text. It may be anything somebody copied, so it does not show.
    pub text: Secret,
}

impl ClipboardText {
    /// This text.
    pub fn new(text: impl Into<Secret>) -> Self {
        Self { text: text.into() }
    }
}

/// Body that opens an address or a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OpenTarget {
    /// A web address or a path.
    pub target: String,
}

impl OpenTarget {
    /// Opens this.
    pub fn new(target: impl Into<String>) -> Self {
        Self { target: target.into() }
    }
}

/// Body that starts a program of the desktop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LaunchApplication {
    /// Its name.
    pub application: String,
    /// What it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

impl LaunchApplication {
    /// Starts it with nothing to open.
    pub fn new(application: impl Into<String>) -> Self {
        Self { application: application.into(), uri: None }
    }
}

/// Body of a click. What is absent is the server's choice: the left button, where the pointer
/// is, once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MouseClick {
    /// The button.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub button: Option<MouseButton>,
    /// To the right, in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<i32>,
    /// Down, in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<i32>,
    /// How often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

impl MouseClick {
    /// One click where the pointer is.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Body of a turn of the wheel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MouseScroll {
    /// Where to.
    pub direction: ScrollDirection,
    /// How many notches; absent is the server's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<u32>,
}

impl MouseScroll {
    /// A turn in this direction.
    pub fn new(direction: ScrollDirection, amount: Option<u32>) -> Self {
        Self { direction, amount }
    }
}

/// Body of a drag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MouseDrag {
    /// Where the button goes down.
    pub from: Point,
    /// Where it goes up.
    pub to: Point,
}

impl MouseDrag {
    /// A drag from one place to another.
    pub fn new(from: Point, to: Point) -> Self {
        Self { from, to }
    }
}

/// Body that holds a button down or lets it go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MousePress {
    /// The button; absent is the left one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub button: Option<MouseButton>,
}

impl MousePress {
    /// This button.
    pub fn new(button: Option<MouseButton>) -> Self {
        Self { button }
    }
}

/// Body that types a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TypeText {
    /// The text. It may be a password, so it does not show.
    pub text: Secret,
    /// Milliseconds between two keys; absent is the server's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_in_ms: Option<u64>,
}

impl TypeText {
    /// Types this text.
    pub fn new(text: impl Into<Secret>) -> Self {
        Self { text: text.into(), delay_in_ms: None }
    }
}

/// Body that presses keys together, or holds them down, or lets them go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Keys {
    /// Their names, such as `ctrl` and `l`.
    pub keys: Vec<String>,
}

impl Keys {
    /// These keys.
    pub fn new(keys: Vec<String>) -> Self {
        Self { keys }
    }
}

/// A window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WindowView {
    /// Its id.
    pub id: WindowId,
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

impl WindowView {
    /// A window without a title.
    pub fn new(id: WindowId) -> Self {
        Self { id, title: None }
    }
}

/// Where a window is and how large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WindowGeometry {
    /// The window.
    pub id: WindowId,
    /// Its left edge, in pixels; negative when it is beyond the screen's.
    pub x: i32,
    /// Its upper edge.
    pub y: i32,
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
    /// The number of the screen it is on.
    pub screen: i32,
}

impl WindowGeometry {
    /// A window on the first screen.
    pub fn new(id: WindowId, at: Point, size: Size) -> Self {
        Self { id, x: at.x, y: at.y, width: size.width, height: size.height, screen: 0 }
    }
}

/// A virtual screen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScreenView {
    /// Its name.
    pub screen_id: ScreenId,
    /// Its X display, such as `:0`.
    pub display: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Port of its VNC server inside the sandbox.
    pub vnc_port: u16,
    /// Port of its web page inside the sandbox.
    pub novnc_port: u16,
}

impl ScreenView {
    /// A screen with the ports that its number gives it.
    pub fn new(screen_id: ScreenId, number: u16, size: Size) -> Self {
        Self {
            screen_id,
            display: format!(":{number}"),
            width: size.width,
            height: size.height,
            vnc_port: 5900 + number,
            novnc_port: 6080 + number,
        }
    }
}

/// A way for a person to look at a screen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScreenConnection {
    /// The screen.
    pub screen_id: ScreenId,
    /// Port of its web page inside the sandbox.
    pub port: u16,
    /// Path of the page.
    pub path: String,
    /// What lets a viewer in.
    pub token: Secret,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The whole link. The token is in it, so knowing it is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Secret>,
}

impl ScreenConnection {
    /// A connection without a ready-made link.
    pub fn new(
        screen_id: ScreenId,
        port: u16,
        path: impl Into<String>,
        token: impl Into<Secret>,
    ) -> Self {
        let (path, token) = (path.into(), token.into());
        Self { screen_id, port, path, token, expires_at: None, url: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::both_ways;
    use super::*;

    #[test]
    fn mouse_and_keyboard() {
        assert_eq!(both_ways::<MouseClick>("{}"), MouseClick::new());
        both_ways::<MouseClick>(r#"{"button":"right","x":1,"y":2,"count":2}"#);
        both_ways::<MouseScroll>(r#"{"direction":"down","amount":3}"#);
        both_ways::<MouseScroll>(r#"{"direction":"sideways"}"#);
        both_ways::<MouseDrag>(r#"{"from":{"x":1,"y":2},"to":{"x":3,"y":4}}"#);
        both_ways::<MousePress>("{}");
        both_ways::<MousePress>(r#"{"button":"middle"}"#);
        let typed: TypeText = both_ways(r#"{"text":"hunter2","delay_in_ms":5}"#);
        assert!(!format!("{typed:?}").contains("hunter2"));
        both_ways::<Keys>(r#"{"keys":["ctrl","l"]}"#);
    }

    #[test]
    fn screens_and_windows() {
        both_ways::<Point>(r#"{"x":-1,"y":20}"#);
        both_ways::<Size>(r#"{"width":1280,"height":800}"#);
        assert_eq!(both_ways::<ScreenSize>("{}"), ScreenSize::new(None));
        both_ways::<ScreenSize>(r#"{"width":1280,"height":800}"#);
        both_ways::<WindowView>(r#"{"id":"0x1"}"#);
        both_ways::<WindowView>(r#"{"id":"0x1","title":"Files"}"#);
        both_ways::<WindowGeometry>(
            r#"{"id":"0x1","x":-5,"y":0,"width":10,"height":20,"screen":0}"#,
        );
        let screen: ScreenView = both_ways(
            r#"{"screen_id":"screen-0","display":":0","width":1280,"height":800,"vnc_port":5900,
                "novnc_port":6080}"#,
        );
        assert_eq!(screen, ScreenView::new(screen.screen_id.clone(), 0, Size::new(1280, 800)));
        both_ways::<OpenTarget>(r#"{"target":"https://example.org"}"#);
        both_ways::<LaunchApplication>(r#"{"application":"firefox","uri":"https://example.org"}"#);
    }

    #[test]
    fn what_is_copied_and_links_do_not_show() {
        let copied: ClipboardText = both_ways(r#"{"text":"hunter2"}"#);
        assert!(!format!("{copied:?}").contains("hunter2"));
        let link: ScreenConnection = both_ways(
            r#"{"screen_id":"screen-0","port":6080,"path":"/vnc.html","token":"hunter2",
                "expires_at":"2026-08-02T10:00:00Z","url":"https://example.org/?t=hunter2"}"#,
        );
        assert!(!format!("{link:?}").contains("hunter2"));
    }
}
