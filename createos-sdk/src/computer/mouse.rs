//! Pointing and clicking.

use std::future::IntoFuture;

use reqwest::Method;

use super::Computer;
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::wire::{
    MouseButton, MouseClick, MouseDrag, MousePress, MouseScroll, Point, ScrollDirection,
};

/// The mouse of a desktop. Made with [`Computer::mouse`].
///
/// Places are pixels from the upper left corner of the screen.
#[derive(Debug, Clone)]
pub struct Mouse {
    computer: Computer,
}

impl Mouse {
    pub(super) fn new(computer: Computer) -> Self {
        Self { computer }
    }

    fn act(&self, operation: &'static str, segment: &str) -> Operation<()> {
        self.computer.act(operation, Method::POST, &["mouse", segment])
    }

    /// Moves the pointer.
    pub fn move_to(&self, x: i32, y: i32) -> Operation<()> {
        self.act("computer.mouse.move", "move").json(&Point::new(x, y))
    }

    /// Clicks: once, with the left button, where the pointer is, unless the builder is told
    /// otherwise.
    pub fn click(&self) -> Click {
        let (mouse, request) = (self.clone(), MouseClick::new());
        Click { mouse, request, options: RequestOptions::new() }
    }

    /// Turns the wheel by as much as the server finds usual.
    pub fn scroll(&self, direction: ScrollDirection) -> Operation<()> {
        self.act("computer.mouse.scroll", "scroll").json(&MouseScroll::new(direction, None))
    }

    /// Turns the wheel by so many notches.
    pub fn scroll_by(&self, direction: ScrollDirection, notches: u32) -> Operation<()> {
        let checked = match notches {
            0 => Err(Error::invalid_argument("notches", "must be larger than 0")),
            _ => Ok(()),
        };
        self.act("computer.mouse.scroll", "scroll")
            .json(&MouseScroll::new(direction, Some(notches)))
            .checked(checked)
    }

    /// Drags with the left button from one place to another.
    pub fn drag(&self, from: impl Into<Point>, to: impl Into<Point>) -> Operation<()> {
        self.act("computer.mouse.drag", "drag").json(&MouseDrag::new(from.into(), to.into()))
    }

    /// Holds a button down.
    pub fn down(&self, button: MouseButton) -> Operation<()> {
        self.act("computer.mouse.down", "down").json(&MousePress::new(Some(button)))
    }

    /// Lets a button go.
    pub fn up(&self, button: MouseButton) -> Operation<()> {
        self.act("computer.mouse.up", "up").json(&MousePress::new(Some(button)))
    }
}

/// A click. Made with [`Mouse::click`].
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct Click {
    mouse: Mouse,
    request: MouseClick,
    options: RequestOptions,
}

impl Click {
    /// Moves the pointer here first.
    pub fn at(mut self, x: i32, y: i32) -> Self {
        (self.request.x, self.request.y) = (Some(x), Some(y));
        self
    }

    /// With this button.
    pub fn button(mut self, button: MouseButton) -> Self {
        self.request.button = Some(button);
        self
    }

    /// So many times in quick succession: 2 is a double click.
    pub fn count(mut self, times: u32) -> Self {
        self.request.count = Some(times);
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }
}

impl IntoFuture for Click {
    type Output = Result<()>;
    type IntoFuture = Pending<()>;

    fn into_future(self) -> Pending<()> {
        let checked = match self.request.count {
            Some(0) => Err(Error::invalid_argument("count", "must be larger than 0")),
            _ => Ok(()),
        };
        self.mouse
            .act("computer.mouse.click", "click")
            .json(&self.request)
            .checked(checked)
            .with(self.options)
            .into_future()
    }
}
