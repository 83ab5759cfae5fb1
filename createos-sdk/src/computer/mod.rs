//! The desktop of a sandbox: looking at it, and using it like a person (api.md 5.5).
//!
//! It needs a root filesystem with a desktop, such as `desktop:1`, and is there some seconds
//! after the sandbox runs: see [`Computer::wait_until_ready`].
//!
//! ```no_run
//! # async fn run(client: createos_sdk::Client) -> createos_sdk::Result<()> {
//! let sandbox = client.create_sandbox("s-2vcpu-4gb").rootfs("desktop:1").await?;
//! let computer = sandbox.computer();
//! computer.wait_until_ready().await?;
//! computer.open("https://example.org").await?;
//! computer.mouse().click().at(200, 120).await?;
//! computer.keyboard().type_text("hello").await?;
//! computer.keyboard().press(["Return"]).await?;
//! let png = computer.screenshot().await?;
//! # Ok(()) }
//! ```
//!
//! # Errors
//!
//! Besides the usual ones, all calls fail with `Unsupported` where there is no desktop, and
//! with `Conflict` and the message `desktop_unavailable` while it starts, or when an action
//! could not be done. Actions are never repeated by themselves, except where nothing was done.

mod clipboard;
mod keyboard;
mod mouse;
mod screen;
mod window;

use std::future::IntoFuture;
use std::ops::ControlFlow;
use std::time::Duration;

use reqwest::Method;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::id::ScreenId;
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::poll::Poll;
use crate::sandbox::Sandbox;
use crate::transport::request::Call;
use crate::wire::{LaunchApplication, OpenTarget, Point, Size};

pub use self::clipboard::Clipboard;
pub use self::keyboard::{Keyboard, TypeText};
pub use self::mouse::{Click, Mouse};
pub use self::screen::{Screen, Screenshot};
pub use self::window::{Window, Windows};

const BUDGET: Duration = Duration::from_secs(120);

/// The desktop of one sandbox, on one of its screens. Made with [`Sandbox::computer`].
#[derive(Debug, Clone)]
pub struct Computer {
    sandbox: Sandbox,
    screen: Option<ScreenId>,
}

impl Computer {
    /// The same desktop, on this screen. Without it, it is the server's default, `screen-0`.
    pub fn on_screen(&self, screen: impl Into<ScreenId>) -> Self {
        Self { sandbox: self.sandbox.clone(), screen: Some(screen.into()) }
    }

    /// A call to `…/computer/<segments>` on the chosen screen.
    fn call(&self, operation: &'static str, method: Method, segments: &[&str]) -> Call {
        let call = self.call_anywhere(operation, method, segments);
        match &self.screen {
            Some(screen) => call.query("screen_id", screen.as_str()),
            None => call,
        }
    }

    /// A call that does not depend on the chosen screen.
    fn call_anywhere(&self, operation: &'static str, method: Method, segments: &[&str]) -> Call {
        let mut path = vec!["computer"];
        path.extend(segments);
        self.sandbox.call(operation, method, &path)
    }

    fn data<T: DeserializeOwned + Send + 'static>(&self, call: Call) -> Operation<T> {
        Operation::data(self.sandbox.client().clone(), call)
    }

    /// A question about the chosen screen.
    fn get<T: DeserializeOwned + Send + 'static>(
        &self,
        operation: &'static str,
        segments: &[&str],
    ) -> Operation<T> {
        self.data(self.call(operation, Method::GET, segments))
    }

    /// An action on the chosen screen, without a body.
    fn act(&self, operation: &'static str, method: Method, segments: &[&str]) -> Operation<()> {
        let call = self.call(operation, method, segments);
        Operation::acknowledged(self.sandbox.client().clone(), call)
    }

    /// The pixels of the screen, as PNG.
    pub fn screenshot(&self) -> Screenshot {
        Screenshot::new(self.clone())
    }

    /// The size of the screen.
    pub fn screen_size(&self) -> Operation<Size> {
        self.get("computer.screen_size", &["screen"])
    }

    /// Where the pointer is.
    pub fn cursor(&self) -> Operation<Point> {
        self.get("computer.cursor", &["cursor"])
    }

    /// What is copied and can be pasted.
    pub fn clipboard(&self) -> Clipboard {
        Clipboard::new(self.clone())
    }

    /// Opens a web address or a file with the program that is set for it.
    pub fn open(&self, target: impl Into<String>) -> Operation<()> {
        let target = target.into();
        let checked = filled("target", &target);
        self.act("computer.open", Method::POST, &["open"])
            .json(&OpenTarget::new(target))
            .checked(checked)
    }

    /// Starts a program of the desktop.
    pub fn launch(&self, application: impl Into<String>) -> Operation<()> {
        self.start(LaunchApplication::new(application))
    }

    /// Starts a program of the desktop that opens an address or a file.
    pub fn launch_with(
        &self,
        application: impl Into<String>,
        uri: impl Into<String>,
    ) -> Operation<()> {
        let mut request = LaunchApplication::new(application);
        request.uri = Some(uri.into());
        self.start(request)
    }

    fn start(&self, request: LaunchApplication) -> Operation<()> {
        let checked = filled("application", &request.application);
        self.act("computer.launch", Method::POST, &["launch"]).json(&request).checked(checked)
    }

    /// Its mouse.
    pub fn mouse(&self) -> Mouse {
        Mouse::new(self.clone())
    }

    /// Its keyboard.
    pub fn keyboard(&self) -> Keyboard {
        Keyboard::new(self.clone())
    }

    /// Waits until the desktop is there. See [`WaitUntilReady`].
    pub fn wait_until_ready(&self) -> WaitUntilReady {
        WaitUntilReady { computer: self.clone(), budget: BUDGET, options: RequestOptions::new() }
    }
}

impl Sandbox {
    /// Its desktop (api.md 5.5). Nothing is sent.
    pub fn computer(&self) -> Computer {
        Computer { sandbox: self.clone(), screen: None }
    }
}

/// Refuses text that is empty or could not be a C string.
fn filled(field: &str, text: &str) -> Result<()> {
    let why = match () {
        () if text.trim().is_empty() => "is empty",
        () if text.contains('\0') => "contains a NUL character",
        () => return Ok(()),
    };
    Err(Error::invalid_argument(field, why))
}

fn sized(size: Size) -> Result<()> {
    match size {
        Size { width: 0, .. } => Err(Error::invalid_argument("width", "must be larger than 0")),
        Size { height: 0, .. } => Err(Error::invalid_argument("height", "must be larger than 0")),
        _ => Ok(()),
    }
}

/// Waits until the desktop of a sandbox is there. Made with [`Computer::wait_until_ready`];
/// gives the size of its screen.
///
/// # Errors
///
/// `Unsupported`: this root filesystem has no desktop. `Conflict`: the sandbox does not run.
/// `NotFound`: there is no such sandbox. `Timeout`: not within the [`budget`](Self::budget).
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct WaitUntilReady {
    computer: Computer,
    budget: Duration,
    options: RequestOptions,
}

impl WaitUntilReady {
    /// Longest time to wait. Default 120 s.
    pub fn budget(mut self, limit: Duration) -> Self {
        self.budget = limit;
        self
    }

    /// Sets options of each question. A deadline shortens the budget.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<Size> {
        let poll = Poll {
            operation: "computer.wait",
            resource: self.computer.sandbox.id().to_string(),
            awaited: "ready",
            budget: self.budget,
            options: self.options,
        };
        poll.until(|options| async {
            match self.computer.screen_size().with(options.clone()).await {
                Ok(size) => Ok(ControlFlow::Break(size)),
                Err(error) if is_starting(&error) => {
                    Ok(ControlFlow::Continue(error.message().to_owned()))
                }
                // The screen has not appeared yet, or there is no sandbox at all.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.computer.sandbox.refresh().with(options).await?;
                    Ok(ControlFlow::Continue(error.message().to_owned()))
                }
                Err(error) => Err(error),
            }
        })
        .await
    }
}

/// Whether this says that the desktop is still booting, and not that the sandbox is in a wrong
/// state.
fn is_starting(error: &Error) -> bool {
    let says = |text: &str| text.contains("desktop_unavailable");
    error.kind() == ErrorKind::Conflict && (says(error.message()) || error.code().is_some_and(says))
}

impl IntoFuture for WaitUntilReady {
    type Output = Result<Size>;
    type IntoFuture = Pending<Size>;

    fn into_future(self) -> Pending<Size> {
        Pending::new(self.run())
    }
}
