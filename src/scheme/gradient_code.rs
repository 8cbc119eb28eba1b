//! The codes of gradients by name. What each does is in `solve::gradient_code`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The most bits of a code whose bits can be chosen.
const MOST_BITS: u8 = 8;

/// How the gradients that processes exchange are encoded.
///
/// Written `float`, `onebit`, `threshold:T`, `qsgd:BITS`, `terngrad` and `dorefa:BITS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
#[non_exhaustive]
pub enum GradientCode {
    /// All 32 bits.
    #[default]
    Float,
    /// Signs with two values per bucket, and error feedback (Seide et al. 2014).
    OneBit,
    /// Only where what has added up is beyond a threshold, in root mean squares of a tensor's first gradient (Strom 2015).
    Threshold(f32),
    /// So many bits of magnitude and a sign, at random in proportion to the norm (Alistarh et al. 2017).
    Qsgd(u8),
    /// −1, 0 or 1, at random in proportion to the largest magnitude (Wen et al. 2017).
    TernGrad,
    /// So many bits on an even grid, rounded at random (Zhou et al. 2016).
    DoReFa(u8),
}

/// A name that no code has.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{name}` is no code of gradients, use `float`, `onebit`, `threshold:T` with T above 0, `qsgd:BITS`, `terngrad` or \
     `dorefa:BITS` with 1 to {MOST_BITS} bits"
)]
pub struct ParseGradientCodeError {
    name: String,
}

impl FromStr for GradientCode {
    type Err = ParseGradientCodeError;

    fn from_str(name: &str) -> Result<Self, ParseGradientCodeError> {
        let bits = |text: &str| text.parse().ok().filter(|bits| (1..=MOST_BITS).contains(bits));
        let positive = |text: &str| text.parse().ok().filter(|value: &f32| *value > 0.0 && value.is_finite());
        match name.split_once(':').unwrap_or((name, "")) {
            ("float", "") => Some(Self::Float),
            ("onebit", "") => Some(Self::OneBit),
            ("threshold", value) => positive(value).map(Self::Threshold),
            ("qsgd", value) => bits(value).map(Self::Qsgd),
            ("terngrad", "") => Some(Self::TernGrad),
            ("dorefa", value) => bits(value).map(Self::DoReFa),
            _ => None,
        }
        .ok_or_else(|| ParseGradientCodeError { name: name.to_owned() })
    }
}

impl TryFrom<String> for GradientCode {
    type Error = ParseGradientCodeError;

    fn try_from(name: String) -> Result<Self, ParseGradientCodeError> {
        name.parse()
    }
}

impl From<GradientCode> for String {
    fn from(code: GradientCode) -> Self {
        code.to_string()
    }
}

impl fmt::Display for GradientCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Float => formatter.pad("float"),
            Self::OneBit => formatter.pad("onebit"),
            Self::Threshold(value) => write!(formatter, "threshold:{value}"),
            Self::Qsgd(bits) => write!(formatter, "qsgd:{bits}"),
            Self::TernGrad => formatter.pad("terngrad"),
            Self::DoReFa(bits) => write!(formatter, "dorefa:{bits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::GradientCode;

    #[test]
    fn names_are_read_back() {
        for name in ["float", "onebit", "threshold:2.5", "qsgd:4", "terngrad", "dorefa:8"] {
            assert_eq!(name.parse::<GradientCode>().unwrap().to_string(), name);
        }
        for name in ["", "qsgd", "qsgd:0", "qsgd:9", "dorefa:", "threshold:0", "threshold:inf", "float:1", "1bit"] {
            assert!(name.parse::<GradientCode>().is_err(), "{name}");
        }
    }
}
