//! How values of flags are read, where their type alone does not say.

use std::num::{NonZero, ParseIntError};

/// A number that is not 0.
pub(crate) fn at_least_one(text: &str) -> Result<usize, ParseIntError> {
    text.parse().map(NonZero::get)
}
