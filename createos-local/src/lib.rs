//! The embedded CreateOS engine.

mod codec;
pub mod doctor;
#[path = "guest/protocol.rs"]
mod guest_protocol;
mod runtime;
#[path = "warden/protocol.rs"]
mod warden_protocol;
