//! What is copied and can be pasted.

use reqwest::Method;

use super::Computer;
use crate::operation::Operation;
use crate::secret::Secret;
use crate::wire::ClipboardText;

/// The clipboard of a desktop. Made with [`Computer::clipboard`].
#[derive(Debug, Clone)]
pub struct Clipboard {
    computer: Computer,
}

impl Clipboard {
    pub(super) fn new(computer: Computer) -> Self {
        Self { computer }
    }

    /// The text it holds. It may be anything somebody copied, so it is a [`Secret`].
    pub fn read(&self) -> Operation<Secret> {
        self.computer
            .get::<ClipboardText>("computer.clipboard.read", &["clipboard"])
            .map(|clipboard| clipboard.text)
    }

    /// Replaces the text it holds. Safe to repeat.
    pub fn write(&self, text: impl Into<Secret>) -> Operation<()> {
        self.computer
            .act("computer.clipboard.write", Method::PUT, &["clipboard"])
            .json(&ClipboardText::new(text))
    }
}
