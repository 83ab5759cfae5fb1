//! Running commands (api.md 4.11).

mod bounded;
mod command;
mod output;
mod quick;
mod stream;

pub use self::command::Command;
pub use self::output::{ExitStatus, Output};
pub use self::stream::{ExecEvent, ExecStream};
