//! A directory kept the same here and in a sandbox, by the real engine.

#[path = "sync/basics.rs"]
mod basics;
#[path = "sync/faults.rs"]
mod faults;
#[path = "sync/model.rs"]
mod model;
#[path = "sync/support.rs"]
mod support;
