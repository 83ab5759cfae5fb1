//! Windows, as the window manager knows them (EWMH).

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use x11rb_protocol::protocol::xproto::{
    AtomEnum, ClientMessageEvent, EventMask, GetGeometryRequest, GetPropertyReply,
    GetPropertyRequest, SendEventRequest, TranslateCoordinatesRequest,
};
use x11rb_protocol::x11_utils::Serialize as _;

use super::{Display, Rect, XError};

/// How long the window manager may take for what it is asked.
const PATIENCE: Duration = Duration::from_secs(2);
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// A window has its place after fewer steps.
const STEPS: u32 = 25;
/// More windows than this are not listed.
const MAX_WINDOWS: u32 = 512;
/// The longest text of a window that is read, in units of four bytes.
const MAX_TEXT: u32 = 1024;

/// No border is wider.
const MAX_BORDER: i32 = 64;

/// Whoever asks is no program of the desktop but its user.
const FROM_USER: u32 = 2;
const ICONIC: u32 = 3;
const REMOVE: u32 = 0;
const ADD: u32 = 1;

/// A window and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) id: u32,
    pub(crate) title: Option<String>,
    /// The names of its program: of this one, and of its kind.
    pub(crate) class: Vec<String>,
}

/// How a window is to be.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Active,
    Minimized,
    Maximized(bool),
    Closed,
}

impl Display {
    /// Whether a window manager is at work.
    pub(crate) async fn is_managed(&mut self) -> Result<bool, XError> {
        let check = self.property(self.root, "_NET_SUPPORTING_WM_CHECK", 1).await?;
        let window = check.value32().and_then(|mut values| values.next());
        // One that has ended leaves its mark; its window has gone with it.
        let Some(window) = window.filter(|window| *window != 0) else { return Ok(false) };
        match self.ask(GetGeometryRequest { drawable: window }).await {
            Ok(_) => Ok(true),
            Err(XError::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All windows, the oldest first.
    pub(crate) async fn windows(&mut self) -> Result<Vec<Window>, XError> {
        let mut windows = Vec::new();
        for id in self.window_ids().await? {
            match self.describe(id).await {
                Ok(window) => windows.push(window),
                // It was closed meanwhile.
                Err(XError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(windows)
    }

    pub(crate) async fn window(&mut self, id: u32) -> Result<Window, XError> {
        self.check_window(id).await?;
        self.describe(id).await.map_err(gone)
    }

    /// The window that has the focus.
    pub(crate) async fn current_window(&mut self) -> Result<Window, XError> {
        let id = self.active().await?.ok_or(XError::NoWindow)?;
        self.describe(id).await.map_err(gone)
    }

    /// Where a window is, without its frame.
    pub(crate) async fn geometry(&mut self, id: u32) -> Result<Rect, XError> {
        self.check_window(id).await?;
        self.place_of(id).await
    }

    async fn place_of(&mut self, id: u32) -> Result<Rect, XError> {
        let size = self.ask(GetGeometryRequest { drawable: id }).await.map_err(gone)?;
        let dst_window = self.root;
        let at = self.ask(TranslateCoordinatesRequest {
            src_window: id,
            dst_window,
            src_x: 0,
            src_y: 0,
        });
        let at = at.await.map_err(gone)?;
        Ok(Rect {
            x: at.dst_x.into(),
            y: at.dst_y.into(),
            width: size.width.into(),
            height: size.height.into(),
        })
    }

    /// Whether a window is hidden by [`Self::minimize`].
    pub(crate) async fn is_minimized(&mut self, id: u32) -> Result<bool, XError> {
        let state = self.property(id, "WM_STATE", 1).await.map_err(gone)?;
        Ok(state.value32().and_then(|mut values| values.next()) == Some(ICONIC))
    }

    pub(crate) async fn focus(&mut self, id: u32) -> Result<(), XError> {
        self.check_window(id).await?;
        self.tell(id, "_NET_ACTIVE_WINDOW", [FROM_USER, 0, 0, 0, 0]).await?;
        self.until(id, Outcome::Active, "does not get the focus").await
    }

    pub(crate) async fn maximize(&mut self, id: u32) -> Result<(), XError> {
        self.check_window(id).await?;
        if self.is_minimized(id).await? {
            self.focus(id).await?;
        }
        self.set_maximized(id, true).await
    }

    pub(crate) async fn minimize(&mut self, id: u32) -> Result<(), XError> {
        self.check_window(id).await?;
        self.tell(id, "WM_CHANGE_STATE", [ICONIC, 0, 0, 0, 0]).await?;
        self.until(id, Outcome::Minimized, "cannot be minimized").await
    }

    /// Takes back what [`Self::minimize`] did, or else what [`Self::maximize`] did.
    pub(crate) async fn restore(&mut self, id: u32) -> Result<(), XError> {
        self.check_window(id).await?;
        if self.is_minimized(id).await? {
            return self.focus(id).await;
        }
        self.set_maximized(id, false).await
    }

    pub(crate) async fn move_window(&mut self, id: u32, (x, y): (i32, i32)) -> Result<(), XError> {
        const X_AND_Y: u32 = 0b0011 << 8;
        self.place(id, [X_AND_Y, x as u32, y as u32, 0, 0]).await?;
        // Window managers differ in what they count a border to.
        let got = self.place_of(id).await?;
        let (off_x, off_y) = (x - got.x, y - got.y);
        if (off_x, off_y) == (0, 0) || off_x.abs().max(off_y.abs()) > MAX_BORDER {
            return Ok(());
        }
        self.place(id, [X_AND_Y, (x + off_x) as u32, (y + off_y) as u32, 0, 0]).await
    }

    pub(crate) async fn resize_window(
        &mut self,
        id: u32,
        (width, height): (u32, u32),
    ) -> Result<(), XError> {
        const WIDTH_AND_HEIGHT: u32 = 0b1100 << 8;
        self.place(id, [WIDTH_AND_HEIGHT, 0, 0, width, height]).await
    }

    /// Asks a window to close. Its program may want to ask something first.
    pub(crate) async fn close(&mut self, id: u32) -> Result<(), XError> {
        self.check_window(id).await?;
        self.tell(id, "_NET_CLOSE_WINDOW", [0, FROM_USER, 0, 0, 0]).await?;
        match self.until(id, Outcome::Closed, "stays").await {
            Ok(()) | Err(XError::Unfit(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn place(&mut self, id: u32, data: [u32; 5]) -> Result<(), XError> {
        /// What is given is the place of the window, and not that of its frame.
        const STATIC_GRAVITY: u32 = 10;
        self.check_window(id).await?;
        // One that fills the screen cannot be anywhere else.
        self.set_maximized(id, false).await?;
        let before = self.place_of(id).await?;
        let mut data = data;
        data[0] |= STATIC_GRAVITY | FROM_USER << 12;
        self.tell(id, "_NET_MOVERESIZE_WINDOW", data).await?;
        // It may be there already, and it may not want that size.
        let limit = Instant::now() + PATIENCE / 4;
        while self.place_of(id).await? == before && Instant::now() < limit {
            sleep(BETWEEN_LOOKS).await;
        }
        self.settle(id).await
    }

    /// Waits until a window stays where it is: it gets its place and its frame in steps.
    async fn settle(&mut self, id: u32) -> Result<(), XError> {
        let mut last = self.place_of(id).await?;
        for _ in 0..STEPS {
            sleep(BETWEEN_LOOKS * 2).await;
            let now = self.place_of(id).await?;
            if now == last {
                break;
            }
            last = now;
        }
        Ok(())
    }

    async fn set_maximized(&mut self, id: u32, wanted: bool) -> Result<(), XError> {
        let vertical = self.atom("_NET_WM_STATE_MAXIMIZED_VERT").await?;
        let horizontal = self.atom("_NET_WM_STATE_MAXIMIZED_HORZ").await?;
        if self.is_so(id, Outcome::Maximized(wanted)).await? {
            return Ok(());
        }
        let action = if wanted { ADD } else { REMOVE };
        self.tell(id, "_NET_WM_STATE", [action, vertical, horizontal, FROM_USER, 0]).await?;
        self.until(id, Outcome::Maximized(wanted), "does not change its size").await?;
        self.settle(id).await
    }

    /// Tells the window manager what is wanted of a window.
    async fn tell(&mut self, id: u32, what: &'static str, data: [u32; 5]) -> Result<(), XError> {
        let what = self.atom(what).await?;
        let event = ClientMessageEvent::new(32, id, what, data).serialize();
        self.send(SendEventRequest {
            propagate: false,
            destination: self.root,
            event_mask: EventMask::SUBSTRUCTURE_REDIRECT | EventMask::SUBSTRUCTURE_NOTIFY,
            event: Cow::Owned(event),
        })
        .await?;
        self.sync().await
    }

    /// Waits until the window manager has done what it was told.
    async fn until(&mut self, id: u32, wanted: Outcome, otherwise: &str) -> Result<(), XError> {
        let limit = Instant::now() + PATIENCE;
        while !self.is_so(id, wanted).await? {
            if Instant::now() > limit {
                return Err(XError::Unfit(format!("the window {otherwise}")));
            }
            sleep(BETWEEN_LOOKS).await;
        }
        Ok(())
    }

    async fn is_so(&mut self, id: u32, wanted: Outcome) -> Result<bool, XError> {
        Ok(match wanted {
            Outcome::Active => self.active().await? == Some(id),
            Outcome::Minimized => self.is_minimized(id).await?,
            Outcome::Closed => !self.window_ids().await?.contains(&id),
            Outcome::Maximized(wanted) => {
                let vertical = self.atom("_NET_WM_STATE_MAXIMIZED_VERT").await?;
                let horizontal = self.atom("_NET_WM_STATE_MAXIMIZED_HORZ").await?;
                let state = self.property(id, "_NET_WM_STATE", MAX_TEXT).await.map_err(gone)?;
                let states: Vec<u32> = state.value32().into_iter().flatten().collect();
                (states.contains(&vertical) && states.contains(&horizontal)) == wanted
            }
        })
    }

    async fn active(&mut self) -> Result<Option<u32>, XError> {
        let active = self.property(self.root, "_NET_ACTIVE_WINDOW", 1).await?;
        let active = active.value32().and_then(|mut values| values.next());
        Ok(active.filter(|window| *window != 0))
    }

    async fn window_ids(&mut self) -> Result<Vec<u32>, XError> {
        let list = self.property(self.root, "_NET_CLIENT_LIST", MAX_WINDOWS).await?;
        Ok(list.value32().into_iter().flatten().collect())
    }

    async fn check_window(&mut self, id: u32) -> Result<(), XError> {
        let known = self.window_ids().await?.contains(&id);
        known.then_some(()).ok_or(XError::NoWindow)
    }

    async fn describe(&mut self, id: u32) -> Result<Window, XError> {
        let name = self.property(id, "_NET_WM_NAME", MAX_TEXT).await?;
        let title = match text(&name) {
            Some(title) => Some(title),
            None => {
                let name = self.property(id, "WM_NAME", MAX_TEXT).await?;
                let bytes = name.value.iter().map(|byte| char::from(*byte));
                // Latin-1, unless it says that it is UTF-8.
                let latin = name.type_ == u32::from(AtomEnum::STRING);
                if latin {
                    Some(bytes.collect()).filter(|t: &String| !t.is_empty())
                } else {
                    text(&name)
                }
            }
        };
        let class = self.property(id, "WM_CLASS", MAX_TEXT).await?;
        let class = class.value.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let class = class.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        Ok(Window { id, title, class })
    }

    async fn property(
        &mut self,
        window: u32,
        name: &'static str,
        long_length: u32,
    ) -> Result<GetPropertyReply, XError> {
        let property = self.atom(name).await?;
        self.ask(GetPropertyRequest {
            delete: false,
            window,
            property,
            type_: AtomEnum::ANY.into(),
            long_offset: 0,
            long_length,
        })
        .await
    }
}

fn text(property: &GetPropertyReply) -> Option<String> {
    let text = String::from_utf8_lossy(&property.value).into_owned();
    (property.format == 8 && !text.is_empty()).then_some(text)
}

/// What a refusal means that names a window.
fn gone(error: XError) -> XError {
    match error {
        XError::Refused(_) => XError::NoWindow,
        other => other,
    }
}
