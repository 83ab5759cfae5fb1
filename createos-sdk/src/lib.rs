//! Strongly typed async client for CreateOS sandboxes.
