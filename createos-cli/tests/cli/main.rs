//! The command as its users run it: the built binary against a real engine,
//! against a scripted control plane, and on a real pseudo-terminal.
#![cfg(target_os = "linux")]

mod compat;
mod completion;
mod devices;
mod engine;
mod exec;
mod images;
mod life;
mod look;
mod manual;
mod matrix;
mod mutagen;
mod offload;
mod process;
mod prompts;
mod refusals;
mod resources;
mod seed;
mod self_signal;
mod shell;
mod sign_in;
mod ssh;
mod support;
mod sync;
mod tunnel;
