//! The embedded CreateOS engine.

mod codec;
#[path = "guest/protocol.rs"]
mod guest_protocol;
mod runtime;
#[path = "warden/protocol.rs"]
mod warden_protocol;
