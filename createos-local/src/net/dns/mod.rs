//! Names for sandboxes: whichever server they ask, the engine answers.

mod answer;
mod names;
mod stream;

pub(crate) use answer::{Asker, FITS_TUNNEL, reply};
pub(super) use answer::{Transport, answer};
pub(crate) use names::{Names, Zone};
pub(super) use stream::serve_stream;

/// The port of every name server.
pub(crate) const PORT: u16 = 53;
