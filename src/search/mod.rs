//! Searching for the bits of every layer.

pub mod allocate;
