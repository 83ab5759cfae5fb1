//! Typing and pressing keys.

use std::future::IntoFuture;
use std::time::Duration;

use reqwest::Method;

use super::{Computer, filled};
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::secret::Secret;
use crate::wire::{self, Keys};

/// The keyboard of a desktop. Made with [`Computer::keyboard`].
#[derive(Debug, Clone)]
pub struct Keyboard {
    computer: Computer,
}

impl Keyboard {
    pub(super) fn new(computer: Computer) -> Self {
        Self { computer }
    }

    /// Types a text, key by key.
    pub fn type_text(&self, text: impl Into<Secret>) -> TypeText {
        TypeText {
            computer: self.computer.clone(),
            request: wire::TypeText::new(text),
            delay: None,
            options: RequestOptions::new(),
        }
    }

    /// Presses keys together and lets them go, such as `["ctrl", "l"]`.
    pub fn press<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) -> Operation<()> {
        self.keys("computer.keyboard.press", "press", keys)
    }

    /// Holds keys down.
    pub fn down<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) -> Operation<()> {
        self.keys("computer.keyboard.down", "down", keys)
    }

    /// Lets keys go.
    pub fn up<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) -> Operation<()> {
        self.keys("computer.keyboard.up", "up", keys)
    }

    fn keys<K: Into<String>>(
        &self,
        operation: &'static str,
        segment: &str,
        keys: impl IntoIterator<Item = K>,
    ) -> Operation<()> {
        let keys: Vec<String> = keys.into_iter().map(Into::into).collect();
        let checked = match keys.is_empty() {
            true => Err(Error::invalid_argument("keys", "no key was given")),
            false => keys.iter().try_for_each(|key| filled("keys", key)),
        };
        self.computer
            .act(operation, Method::POST, &["keyboard", segment])
            .json(&Keys::new(keys))
            .checked(checked)
    }
}

/// Types a text. Made with [`Keyboard::type_text`]. The text does not show in `Debug`.
///
/// It may take any time: no limit is set unless the options give one.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct TypeText {
    computer: Computer,
    request: wire::TypeText,
    delay: Option<Duration>,
    options: RequestOptions,
}

impl TypeText {
    /// The time between two keys, in whole milliseconds. Default: the server's.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }
}

impl IntoFuture for TypeText {
    type Output = Result<()>;
    type IntoFuture = Pending<()>;

    fn into_future(mut self) -> Pending<()> {
        let mut checked = match self.request.text.expose() {
            "" => Err(Error::invalid_argument("text", "is empty")),
            text if text.contains('\0') => {
                Err(Error::invalid_argument("text", "contains a NUL character"))
            }
            _ => Ok(()),
        };
        if let Some(delay) = self.delay {
            match u64::try_from(delay.as_millis()) {
                Ok(ms) => self.request.delay_in_ms = Some(ms),
                Err(_) => checked = Err(Error::invalid_argument("delay", "is too long")),
            }
        }
        let segments = ["keyboard", "type"];
        let mut call = self.computer.call("computer.keyboard.type", Method::POST, &segments);
        call.pace = crate::transport::request::Pace::Unlimited;
        Operation::acknowledged(self.computer.sandbox.client().clone(), call)
            .json(&self.request)
            .checked(checked)
            .with(self.options)
            .into_future()
    }
}
