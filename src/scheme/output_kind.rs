//! What a model's outputs hold, where the caller says so, and how results are scored.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What an output holds, which decides how it is compared with the float network's.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema,
)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum OutputKind {
    /// Scores of classes, one row per sample or position; the largest, or with `Sigmoid` each above one half, is the
    /// answer.
    Scores,
    /// Numbers: coordinates, maps, signals, states.
    Values,
    /// Boxes with scores and classes.
    Boxes,
    /// Vectors of which only the direction counts.
    Embedding,
    /// Scores of symbols along a sequence.
    Sequence,
}

/// An output and what it holds, written `NAME=KIND`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct OutputChoice {
    /// The name of the output.
    pub output: String,
    /// What it holds.
    pub kind: OutputKind,
}

/// Text that is no `NAME=KIND`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not NAME=KIND with a kind of scores, values, boxes, embedding, sequence")]
pub struct OutputChoiceError {
    text: String,
}

impl FromStr for OutputChoice {
    type Err = OutputChoiceError;

    fn from_str(text: &str) -> Result<Self, OutputChoiceError> {
        let error = || OutputChoiceError { text: text.to_owned() };
        // Names of outputs may hold an `=` themselves.
        let (output, kind) = text.rsplit_once('=').filter(|(output, _)| !output.is_empty()).ok_or_else(error)?;
        Ok(Self { output: output.to_owned(), kind: kind.parse().map_err(|_| error())? })
    }
}

impl TryFrom<String> for OutputChoice {
    type Error = OutputChoiceError;

    fn try_from(text: String) -> Result<Self, OutputChoiceError> {
        text.parse()
    }
}

impl From<OutputChoice> for String {
    fn from(choice: OutputChoice) -> Self {
        choice.to_string()
    }
}

impl fmt::Display for OutputChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.output, self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_an_equals_sign() {
        let choice: OutputChoice = "a=b=boxes".parse().unwrap();
        assert_eq!((choice.output.as_str(), choice.kind), ("a=b", OutputKind::Boxes));
        assert_eq!(choice.to_string().parse(), Ok(choice));
        for text in ["", "boxes", "=boxes", "a=box", "a="] {
            assert!(text.parse::<OutputChoice>().is_err(), "{text}");
        }
    }
}
