//! The snippets of the repository's README, compiled, so that they stay true.
//!
//! The examples themselves are in `examples/examples/`.
#![doc = include_str!("../../README.md")]
