//! Windows.

use std::future::IntoFuture;

use reqwest::Method;

use super::{Computer, sized};
use crate::error::Result;
use crate::id::WindowId;
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::wire::{Point, Size, WindowGeometry, WindowView};

impl Computer {
    /// The windows on the screen.
    pub fn windows(&self) -> Windows {
        let (computer, options) = (self.clone(), RequestOptions::new());
        Windows { computer, application: None, options }
    }

    /// The window that has the focus.
    pub fn current_window(&self) -> Operation<WindowView> {
        self.get("computer.current_window", &["windows", "current"])
    }

    /// One of the windows. Nothing is sent.
    pub fn window(&self, id: impl Into<WindowId>) -> Window {
        Window { computer: self.clone(), id: id.into() }
    }
}

/// Lists windows. Made with [`Computer::windows`].
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct Windows {
    computer: Computer,
    application: Option<String>,
    options: RequestOptions,
}

impl Windows {
    /// Only those of this program.
    pub fn application(mut self, name: impl Into<String>) -> Self {
        self.application = Some(name.into());
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }
}

impl IntoFuture for Windows {
    type Output = Result<Vec<WindowView>>;
    type IntoFuture = Pending<Vec<WindowView>>;

    fn into_future(self) -> Self::IntoFuture {
        let mut call = self.computer.call("computer.windows", Method::GET, &["windows"]);
        if let Some(application) = &self.application {
            call = call.query("application", application);
        }
        self.computer
            .data::<Option<Vec<WindowView>>>(call)
            .map(Option::unwrap_or_default)
            .with(self.options)
            .into_future()
    }
}

/// One window of a desktop. Made with [`Computer::window`]. A window that is gone is
/// `NotFound`.
#[derive(Debug, Clone)]
pub struct Window {
    computer: Computer,
    id: WindowId,
}

impl Window {
    /// Its id.
    pub fn id(&self) -> &WindowId {
        &self.id
    }

    fn act(&self, operation: &'static str, segment: &str) -> Operation<()> {
        self.computer.act(operation, Method::POST, &["windows", self.id.as_str(), segment])
    }

    /// What the server says about it.
    pub fn get(&self) -> Operation<WindowView> {
        self.computer.get("computer.window.get", &["windows", self.id.as_str()])
    }

    /// Where it is and how large.
    pub fn geometry(&self) -> Operation<WindowGeometry> {
        let segments = ["windows", self.id.as_str(), "geometry"];
        self.computer.get("computer.window.geometry", &segments)
    }

    /// Gives it the focus.
    pub fn focus(&self) -> Operation<()> {
        self.act("computer.window.focus", "focus")
    }

    /// Makes it as large as the screen.
    pub fn maximize(&self) -> Operation<()> {
        self.act("computer.window.maximize", "maximize")
    }

    /// Hides it.
    pub fn minimize(&self) -> Operation<()> {
        self.act("computer.window.minimize", "minimize")
    }

    /// Takes [`maximize`](Self::maximize) or [`minimize`](Self::minimize) back.
    pub fn restore(&self) -> Operation<()> {
        self.act("computer.window.restore", "restore")
    }

    /// Moves its upper left corner here.
    pub fn move_to(&self, x: i32, y: i32) -> Operation<()> {
        self.act("computer.window.move", "move").json(&Point::new(x, y))
    }

    /// Gives it another size.
    pub fn resize(&self, size: impl Into<Size>) -> Operation<()> {
        let size = size.into();
        self.act("computer.window.resize", "resize").json(&size).checked(sized(size))
    }

    /// Closes it.
    pub fn close(&self) -> Operation<()> {
        let segments = ["windows", self.id.as_str()];
        self.computer.act("computer.window.close", Method::DELETE, &segments)
    }
}
