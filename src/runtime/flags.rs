//! How values of flags are read, where their type alone does not say.

use std::num::{NonZero, ParseIntError};

/// A number that is not 0.
pub(crate) fn at_least_one(text: &str) -> Result<usize, ParseIntError> {
    text.parse().map(NonZero::get)
}

/// A number above 0.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|error: std::num::ParseFloatError| error.to_string())?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err("must be above 0".to_owned()) }
}
