//! The mouse: where it is, where it goes, and its buttons.

use std::time::Duration;

use tokio::time::sleep;
use x11rb_protocol::protocol::xproto::{
    BUTTON_PRESS_EVENT, BUTTON_RELEASE_EVENT, MOTION_NOTIFY_EVENT, QueryPointerRequest,
};
use x11rb_protocol::protocol::xtest::FakeInputRequest;

use super::{Display, XError};

/// Between two clicks and the steps of a drag: programs take what comes at once for one.
const BEAT: Duration = Duration::from_millis(15);
/// On its way a drag is seen in this many places.
const DRAG_STEPS: i32 = 8;

/// A button, as X counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Button {
    Left = 1,
    Middle = 2,
    Right = 3,
    WheelUp = 4,
    WheelDown = 5,
}

impl Display {
    /// Where the pointer is.
    pub(crate) async fn cursor(&mut self) -> Result<(i32, i32), XError> {
        let pointer = self.ask(QueryPointerRequest { window: self.root }).await?;
        Ok((pointer.root_x.into(), pointer.root_y.into()))
    }

    /// Moves the pointer, which must stay on the screen.
    pub(crate) async fn move_pointer(&mut self, (x, y): (i32, i32)) -> Result<(), XError> {
        self.step(x, y).await?;
        self.sync().await
    }

    /// Presses and lets go, so many times in quick succession.
    pub(crate) async fn click(&mut self, button: Button, count: u32) -> Result<(), XError> {
        for turn in 0..count {
            if turn > 0 {
                self.flush().await?;
                sleep(BEAT).await;
            }
            self.press(button, true).await?;
            self.press(button, false).await?;
        }
        self.sync().await
    }

    /// Holds a button down, or lets it go.
    pub(crate) async fn hold(&mut self, button: Button, down: bool) -> Result<(), XError> {
        self.press(button, down).await?;
        self.sync().await
    }

    /// Moves with the left button held down.
    pub(crate) async fn drag(&mut self, from: (i32, i32), to: (i32, i32)) -> Result<(), XError> {
        self.step(from.0, from.1).await?;
        self.press(Button::Left, true).await?;
        for done in 1..=DRAG_STEPS {
            self.sync().await?;
            sleep(BEAT).await;
            let between = |from: i32, to: i32| from + (to - from) * done / DRAG_STEPS;
            self.step(between(from.0, to.0), between(from.1, to.1)).await?;
        }
        self.press(Button::Left, false).await?;
        self.sync().await
    }

    async fn step(&mut self, x: i32, y: i32) -> Result<(), XError> {
        let side = |side: i32| i16::try_from(side).unwrap_or(i16::MAX);
        self.fake(MOTION_NOTIFY_EVENT, 0, (side(x), side(y))).await
    }

    async fn press(&mut self, button: Button, down: bool) -> Result<(), XError> {
        let kind = if down { BUTTON_PRESS_EVENT } else { BUTTON_RELEASE_EVENT };
        self.fake(kind, button as u8, (0, 0)).await
    }

    /// Queues input as if a device had made it.
    pub(super) async fn fake(
        &mut self,
        kind: u8,
        detail: u8,
        (root_x, root_y): (i16, i16),
    ) -> Result<(), XError> {
        // Without a window, places are those of the current screen.
        let root = if kind == MOTION_NOTIFY_EVENT { self.root } else { 0 };
        self.send(FakeInputRequest {
            type_: kind,
            detail,
            time: 0,
            root,
            root_x,
            root_y,
            deviceid: 0,
        })
        .await
    }
}
