//! A small client of the X servers inside sandboxes.
//!
//! It speaks the core protocol, XTEST and RandR over one short-lived connection per call. The
//! server lives with the guest and may be the guest: what it says is bounded and strictly
//! parsed, and its callers limit the time that it may take.

mod display;
mod keyboard;
mod keysyms;
mod picture;
mod pointer;
mod resize;
mod window;

pub(crate) use display::{Display, XError};
pub(crate) use keyboard::Press;
pub(crate) use keysyms::{keysym_of_char, keysym_of_name};
pub(crate) use picture::Rect;
pub(crate) use pointer::Button;
pub(crate) use window::Window;

/// The longest side of a screen, and the most pixels of one: a picture of it is read whole.
pub(crate) const MAX_SIDE: u32 = 4096;
pub(crate) const MAX_PIXELS: u32 = 4096 * 2304;
