//! Names for sandboxes: whichever server they ask, the engine answers.

mod answer;
mod names;
mod stream;

pub(super) use answer::{Transport, answer};
pub(crate) use names::Names;
#[allow(unused_imports, reason = "private networks have names of their own")]
pub(crate) use names::Zone;
pub(super) use stream::serve_stream;

/// The port of every name server.
pub(super) const PORT: u16 = 53;
