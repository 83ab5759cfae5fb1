//! The embedded CreateOS engine.
