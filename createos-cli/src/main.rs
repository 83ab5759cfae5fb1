//! The `createos` command.

fn main() {}
