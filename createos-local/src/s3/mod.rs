//! S3: a small client, and a file system over it for sandboxes.
//!
//! The client speaks plain S3 with keys as they are. Every answer is bounded in size and in
//! time, and read strictly: servers are not trusted.

mod answer;
mod client;
mod error;
mod fs;
mod transfer;

pub(crate) use client::{Access, Client};
pub(crate) use error::S3Error;
pub(crate) use fs::{Health, Service, Volume};
