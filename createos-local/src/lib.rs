//! The embedded CreateOS engine: real isolated sandboxes on this Linux machine, behind the
//! same HTTP API as the hosted control plane.
//!
//! ```no_run
//! # async fn example() -> Result<(), createos_local::EngineError> {
//! use createos_local::Engine;
//!
//! let engine = Engine::builder().ephemeral().start().await?;
//! println!("{} with key {:?}", engine.url(), engine.api_key());
//! engine.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Guests are kept in by namespaces, cgroups, seccomp and dropped capabilities, not by a
//! virtual machine. For hostile multi-tenant work use the hosted control plane.
//!
//! Inside, a request travels one way: `api` (HTTP) to `core` (the state machine) to `store`
//! (what survives) and `runtime` (processes and files).

mod api;
mod auth;
mod catalog;
mod codec;
mod core;
mod data_dir;
pub mod doctor;
mod engine;
mod error;
#[path = "guest/protocol.rs"]
mod guest_protocol;
pub mod images;
mod net;
#[path = "warden/network_protocol.rs"]
mod network_protocol;
mod relay;
mod retry;
mod runtime;
mod s3;
#[path = "warden/socket_protocol.rs"]
mod socket_protocol;
mod store;
mod tree;
mod vpn;
#[path = "warden/protocol.rs"]
mod warden_protocol;
mod web;
mod x11;

pub use crate::core::BuildLimits;
pub use crate::data_dir::default_data_dir;
pub use crate::engine::{Engine, EngineBuilder};
pub use crate::error::EngineError;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
