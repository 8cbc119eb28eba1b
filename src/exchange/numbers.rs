//! Numbers and objects of JSON documents.

use serde_json::{Map, Value};

/// An integer, which some tools write as 114.0.
pub(super) fn integer(number: f64) -> Result<i32, String> {
    let whole = number.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number);
    if whole { Ok(number as i32) } else { Err(format!("{number} is no offset: give an integer")) }
}

/// An object with its keys in this order.
pub(super) fn object<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
