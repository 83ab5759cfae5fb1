//! OpenSSH on this side of a sandbox (cli.md 2.11, 3.5, 3.6): which key, whether it may be
//! added to the sandbox, and how `ssh` is called.

pub(crate) mod admit;
pub(crate) mod client;
pub(crate) mod gateway;
pub(crate) mod key;
pub(crate) mod server;
pub(crate) mod user;
