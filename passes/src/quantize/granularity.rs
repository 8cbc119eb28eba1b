//! How much of a weight shares a scale. In text and JSON: `tensor`, `channel`, or `block:32` for blocks of 32.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// How much of a weight shares a scale, and a zero point where there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// All of it.
    Tensor,
    /// Each output channel.
    #[default]
    Channel,
    /// Each block of so many consecutive values of an output channel; the last block of a channel may be shorter.
    Block(usize),
}

impl Granularity {
    /// The number of scales of a weight of so many channels, each of `size` values.
    pub fn scales(self, channels: usize, size: usize) -> usize {
        match self {
            Self::Tensor => 1,
            Self::Channel => channels,
            Self::Block(block) => channels * size.div_ceil(block.max(1)),
        }
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor => f.write_str("tensor"),
            Self::Channel => f.write_str("channel"),
            Self::Block(size) => write!(f, "block:{size}"),
        }
    }
}

impl FromStr for Granularity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let block = || text.strip_prefix("block:")?.parse().ok().filter(|&size: &usize| size > 0).map(Self::Block);
        match text {
            "tensor" => Ok(Self::Tensor),
            "channel" => Ok(Self::Channel),
            _ => block().ok_or_else(|| format!("`{text}` is none of tensor, channel, block:N")),
        }
    }
}

impl Serialize for Granularity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Granularity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Granularity {
    fn schema_name() -> Cow<'static, str> {
        "Granularity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(tensor|channel|block:[1-9][0-9]*)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_written() {
        for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(32)] {
            assert_eq!(granularity.to_string().parse(), Ok(granularity));
        }
        for wrong in ["block", "block:0", "block:x", "row"] {
            assert!(wrong.parse::<Granularity>().unwrap_err().contains("none of tensor, channel, block:N"));
        }
    }
}
