//! How values of flags are read, where their type alone does not say.

/// A number that is not 0.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "expected a whole number of 1 or more".to_owned())?;
    if number > 0 { Ok(number) } else { Err("must be 1 or more".to_owned()) }
}

/// A number of processes.
pub(crate) fn processes(text: &str) -> Result<usize, String> {
    let number = at_least_one(text)?;
    if number <= 32 { Ok(number) } else { Err("must be 32 or fewer, the samples of a mini-batch".to_owned()) }
}

/// A number above 0.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|error: std::num::ParseFloatError| error.to_string())?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err("must be above 0".to_owned()) }
}
