//! Screens, and what is on them.

use std::future::IntoFuture;

use bytes::Bytes;
use reqwest::Method;

use super::{Computer, sized};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ScreenId, WindowId};
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::transport::request::Call;
use crate::wire::{Point, ScreenConnection, ScreenSize, ScreenView, Size};

/// How every PNG begins.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

impl Computer {
    /// All screens.
    pub fn screens(&self) -> Operation<Vec<ScreenView>> {
        let call = self.call_anywhere("computer.screens", Method::GET, &["screens"]);
        self.data::<Option<Vec<ScreenView>>>(call).map(Option::unwrap_or_default)
    }

    /// Adds a screen, of this size or one that the server chooses. There are at most 8.
    pub fn create_screen(&self, size: Option<Size>) -> Operation<ScreenView> {
        let call = self.call_anywhere("computer.create_screen", Method::POST, &["screens"]);
        let checked = size.map_or(Ok(()), sized);
        self.data(call).json(&ScreenSize::new(size)).checked(checked)
    }

    /// One of the screens. Nothing is sent.
    pub fn screen(&self, id: impl Into<ScreenId>) -> Screen {
        Screen { computer: self.clone(), id: id.into() }
    }
}

/// One screen of a desktop. Made with [`Computer::screen`].
#[derive(Debug, Clone)]
pub struct Screen {
    computer: Computer,
    id: ScreenId,
}

impl Screen {
    /// Its name.
    pub fn id(&self) -> &ScreenId {
        &self.id
    }

    fn call(&self, operation: &'static str, method: Method, rest: &[&str]) -> Call {
        let mut segments = vec!["screens", self.id.as_str()];
        segments.extend(rest);
        self.computer.call_anywhere(operation, method, &segments)
    }

    /// What the server says about it.
    pub fn get(&self) -> Operation<ScreenView> {
        self.computer.data(self.call("computer.screen.get", Method::GET, &[]))
    }

    /// Gives it another size.
    pub fn resize(&self, size: impl Into<Size>) -> Operation<ScreenView> {
        let size = size.into();
        self.computer
            .data(self.call("computer.screen.resize", Method::POST, &["resize"]))
            .json(&ScreenSize::new(Some(size)))
            .checked(sized(size))
    }

    /// Removes it.
    pub fn delete(&self) -> Operation<()> {
        let call = self.call("computer.screen.delete", Method::DELETE, &[]);
        Operation::acknowledged(self.computer.sandbox.client().clone(), call)
    }

    /// A link for a person to look at it. Who has the link gets in; a new one ends the one
    /// before for new viewers.
    ///
    /// # Errors
    ///
    /// `Conflict`: ingress is off; see [`Sandbox::set_ingress`](crate::Sandbox::set_ingress).
    pub fn connect(&self) -> Operation<ScreenConnection> {
        self.computer.data(self.call("computer.screen.connect", Method::GET, &["connect"]))
    }
}

/// Takes a picture. Made with [`Computer::screenshot`]; gives a PNG.
///
/// # Errors
///
/// `RateLimited`: too many in a short time. `Protocol`: what came is not a PNG.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct Screenshot {
    computer: Computer,
    window: Option<WindowId>,
    part: Option<(Point, Size)>,
    options: RequestOptions,
}

impl Screenshot {
    pub(super) fn new(computer: Computer) -> Self {
        Self { computer, window: None, part: None, options: RequestOptions::new() }
    }

    /// Of this window alone.
    pub fn window(mut self, id: impl Into<WindowId>) -> Self {
        self.window = Some(id.into());
        self
    }

    /// Of this part alone, in pixels.
    pub fn part(mut self, at: impl Into<Point>, size: impl Into<Size>) -> Self {
        self.part = Some((at.into(), size.into()));
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }
}

impl IntoFuture for Screenshot {
    type Output = Result<Bytes>;
    type IntoFuture = Pending<Bytes>;

    fn into_future(self) -> Pending<Bytes> {
        let mut call = self.computer.call("computer.screenshot", Method::GET, &["screenshot"]);
        call.accept = "image/png";
        if let Some(window) = &self.window {
            call = call.query("window_id", window.as_str());
        }
        if let Some((at, size)) = self.part {
            call = call
                .query("x", &at.x.to_string())
                .query("y", &at.y.to_string())
                .query("width", &size.width.to_string())
                .query("height", &size.height.to_string());
        }
        let checked = self.part.map_or(Ok(()), |(_, size)| sized(size));
        Operation::new(self.computer.sandbox.client().clone(), call, |reply| {
            if reply.body.starts_with(PNG) {
                return Ok(reply.body);
            }
            let message = "the answer is not a PNG";
            Err(reply.head.stamp(Error::new(ErrorKind::Protocol, message)))
        })
        .checked(checked)
        .with(self.options)
        .into_future()
    }
}
