//! Numbers of bits, and the words that stand in for them in text and JSON.

use crate::quant::BitRate;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// Bits of a layer's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightBits {
    /// Not quantized.
    Float,
    /// −1 and 1 times a scale: 1 bit on disk.
    Binary,
    /// −1, 0 and 1 times a scale: 1.6 bits on disk.
    Ternary,
    /// 1 to 8, in quarters of a bit; which of them, the grid says.
    Bits(BitRate),
}

/// Bits of the activation a layer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationBits {
    /// Not quantized: the layer computes in float, whatever its weights are stored as.
    Float,
    /// 2 to 8, or 16.
    Bits(u8),
    /// 8, on a range found at run time, for each input anew.
    Dynamic,
}

impl ActivationBits {
    /// Whether the value that a layer reads has a quantizer with stored parameters.
    pub fn is_static(self) -> bool {
        matches!(self, Self::Bits(_))
    }
}

impl WeightBits {
    /// A whole number of bits.
    pub const fn whole(bits: u8) -> Self {
        Self::Bits(BitRate::whole(bits))
    }

    /// Bits that number the integers one weight has to choose from, rounded up; 0 for float.
    pub(crate) fn width(self) -> u8 {
        match self {
            Self::Float => 0,
            Self::Binary => 1,
            Self::Ternary => 2,
            Self::Bits(rate) => rate.ceil(),
        }
    }

    /// Bits per weight on disk in twentieths of a bit, the largest unit of both 1.6 and quarters.
    pub(crate) fn twentieths(self) -> u64 {
        match self {
            Self::Float => 640,
            Self::Ternary => 32,
            Self::Binary => 20,
            Self::Bits(rate) => 5 * u64::from(rate.quarters()),
        }
    }

    /// The same number of bits for an activation, rounded up; at least 2.
    pub fn same_of_activations(self) -> ActivationBits {
        match self {
            Self::Float => ActivationBits::Float,
            Self::Ternary | Self::Binary => ActivationBits::Bits(2),
            Self::Bits(rate) => ActivationBits::Bits(rate.ceil().max(2)),
        }
    }
}

/// Bits of activations, or a word.
pub(crate) fn parse_activation_bits<T>(text: &str, words: &[(&str, T)], number: impl Fn(u8) -> T) -> Result<T, String>
where
    T: Copy,
{
    if text == "16" {
        return Ok(number(16));
    }
    parse_bits(text, words, number).map_err(|reason| reason.replace("2 to 8,", "2 to 8, 16,"))
}

/// The number, or the word that stands for a choice without one.
pub(crate) fn parse_bits<T>(text: &str, words: &[(&str, T)], number: impl Fn(u8) -> T) -> Result<T, String>
where
    T: Copy,
{
    if let Some((_, choice)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*choice);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    match text.parse() {
        Ok(bits @ 2..=8) => Ok(number(bits)),
        _ => Err(format!("`{text}` is none of 2 to 8, {}", known.join(", "))),
    }
}

impl FromStr for WeightBits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "binary" => Ok(Self::Binary),
            "ternary" => Ok(Self::Ternary),
            "float" => Ok(Self::Float),
            _ => BitRate::parse(text)
                .map(Self::Bits)
                .ok_or_else(|| format!("`{text}` is none of 1 to 8, below 3 also in quarters, binary, ternary, float")),
        }
    }
}

impl FromStr for ActivationBits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_activation_bits(text, &[("float", Self::Float), ("dynamic", Self::Dynamic)], Self::Bits)
    }
}

impl fmt::Display for WeightBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float => f.write_str("float"),
            Self::Binary => f.write_str("binary"),
            Self::Ternary => f.write_str("ternary"),
            Self::Bits(rate) => rate.fmt(f),
        }
    }
}

impl fmt::Display for ActivationBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float => f.write_str("float"),
            Self::Dynamic => f.write_str("dynamic"),
            Self::Bits(bits) => write!(f, "{bits}"),
        }
    }
}

/// A number or a word in JSON.
#[derive(Deserialize)]
#[serde(untagged)]
pub(in crate::scheme) enum NumberOrWord {
    Number(serde_json::Number),
    Word(String),
}

impl fmt::Display for NumberOrWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Word(word) => word.fmt(f),
        }
    }
}

/// JSON of a type that is a number of bits or a word: what `Display` and `FromStr` say, numbers without quotes.
macro_rules! number_or_word {
    ($bits:ident, $number:tt, $words:tt) => {
        impl serde::Serialize for $bits {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let text = self.to_string();
                match (text.parse(), text.parse()) {
                    (Ok(bits), _) => serializer.serialize_u8(bits),
                    (_, Ok(bits)) => serializer.serialize_f64(bits),
                    _ => serializer.serialize_str(&text),
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $bits {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = crate::scheme::bit_plan::NumberOrWord::deserialize(deserializer)?.to_string();
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $bits {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($bits).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "anyOf": [$number, { "enum": $words }] })
            }
        }
    };
}
pub(in crate::scheme) use number_or_word;

number_or_word!(
    WeightBits,
    { "type": "number", "minimum": 1, "maximum": 8, "multipleOf": 0.25 },
    ["float", "ternary", "binary"]
);
number_or_word!(ActivationBits, { "type": "integer", "minimum": 2, "maximum": 8 }, [16, "float", "dynamic"]);
