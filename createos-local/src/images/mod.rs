//! Root filesystems that were imported.

// Only an engine's reading of it is in use until there is an import.
#[allow(dead_code)]
mod shelf;

pub(crate) use self::shelf::{Shelf, full_name};
