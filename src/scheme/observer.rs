//! The observers by name. What each does is in [`crate::calibrate`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The percentage used when none is given, that of onnxruntime.
pub const DEFAULT_PERCENTILE: f64 = 99.999;

/// A way to choose the range of an activation from its statistics.
///
/// Written `min-max`, `moving-average`, `percentile` (or `percentile:99.9`), `entropy`, `mse` and `cosine`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
#[non_exhaustive]
pub enum ObserverKind {
    /// From the smallest to the largest value.
    MinMax,
    /// The moving average of each sample's smallest and largest value.
    MovingAverage,
    /// The range that holds this many percent of the values.
    Percentile(f64),
    /// The range whose quantized distribution diverges least from the original.
    Entropy,
    /// The range with the least expected squared error.
    #[default]
    Mse,
    /// The range with which quantized values point in the direction of the values.
    Cosine,
}

/// A name that no observer has.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{name}` is no observer, use `min-max`, `moving-average`, `percentile`, `percentile:P` with P from 50 to 100, \
     `entropy`, `mse` or `cosine`"
)]
pub struct ParseObserverError {
    name: String,
}

impl FromStr for ObserverKind {
    type Err = ParseObserverError;

    fn from_str(name: &str) -> Result<Self, ParseObserverError> {
        let percentage = |text: &str| text.parse().ok().filter(|percent| (50.0..=100.0).contains(percent));
        match name {
            "min-max" => Some(Self::MinMax),
            "moving-average" => Some(Self::MovingAverage),
            "percentile" => Some(Self::Percentile(DEFAULT_PERCENTILE)),
            "entropy" => Some(Self::Entropy),
            "mse" => Some(Self::Mse),
            "cosine" => Some(Self::Cosine),
            _ => name.strip_prefix("percentile:").and_then(percentage).map(Self::Percentile),
        }
        .ok_or_else(|| ParseObserverError { name: name.to_owned() })
    }
}

impl TryFrom<String> for ObserverKind {
    type Error = ParseObserverError;

    fn try_from(name: String) -> Result<Self, ParseObserverError> {
        name.parse()
    }
}

impl From<ObserverKind> for String {
    fn from(kind: ObserverKind) -> Self {
        kind.to_string()
    }
}

impl fmt::Display for ObserverKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match *self {
            Self::MinMax => "min-max",
            Self::MovingAverage => "moving-average",
            Self::Percentile(DEFAULT_PERCENTILE) => "percentile",
            Self::Percentile(percent) => return write!(formatter, "percentile:{percent}"),
            Self::Entropy => "entropy",
            Self::Mse => "mse",
            Self::Cosine => "cosine",
        })
    }
}
