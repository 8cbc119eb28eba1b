//! Generated contents for tensors that a text declares without data.
//!
//! A declaration such as `float[16,3,3,3] w = {}` gets numbers that depend only on its name, type, shape and the
//! comment that may follow on its line: they are the same on every platform, forever. Kinds:
//!
//! | comment                   | floats                            | integers                                     |
//! |---------------------------|-----------------------------------|----------------------------------------------|
//! | none, `# fill`            | `normal 0.1`                      | up to 8 bits: the whole range; else 0 and 1  |
//! | `# fill normal STD`       | near-normal, mean 0               | like floats, rounded                         |
//! | `# fill positive MEAN`    | uniform in 0.5 to 1.5 times MEAN  | like floats, rounded                         |
//! | `# fill uniform LOW HIGH` | uniform                           | uniform, both ends included                  |
//! | `# fill constant VALUE`   | VALUE                             | VALUE                                        |
//!
//! The defaults of STD and MEAN are 0.1 and 1. Strings become "0", "1" and so on. Text behind a colon is for human
//! readers.
//!
//! The generator is splitmix64 (Steele, Lea and Flood 2014), seeded with the FNV-1a hash of the name. A uniform number
//! is the upper 53 bits over 2^53; a near-normal one is the sum of twelve uniform ones minus six (variance 1, range
//! ±6). Only additions and products of doubles are involved, which IEEE 754 fixes to the bit; `ln` and `cos` are not.

use bytes::Bytes;

use super::elements::{Kind, Layout, Packer};
use super::lex::{Cursor, ParseError, Token};

/// Most elements of a filled tensor: a short declaration can request any number of them.
pub(super) const LARGEST_FILL: usize = 1 << 24;
/// Most elements all filled tensors of a text may have together.
pub(super) const LARGEST_TOTAL_FILL: usize = 1 << 26;
/// Number of elements that one string counts as, by the memory it takes.
pub(super) const STRING_COST: usize = 64;

/// A number, exact when it is an integer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number {
    integer: Option<i128>,
    real: f64,
}

impl Number {
    fn new(real: f64) -> Self {
        Self { integer: None, real }
    }

    /// The nearest integer, within what 64 bits hold with or without sign.
    fn as_integer(self) -> i128 {
        self.integer.unwrap_or(self.real.round() as i128).clamp(i128::from(i64::MIN), i128::from(u64::MAX))
    }
}

/// How to generate numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fill {
    /// The default of the type.
    Default,
    /// Near-normal with this standard deviation.
    Normal(f64),
    /// Uniform in 0.5 to 1.5 times this mean.
    Positive(f64),
    /// Uniform between two ends.
    Uniform(Number, Number),
    /// All the same.
    Constant(Number),
}

impl Fill {
    /// Parses the words behind `fill`.
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        let Token::Word(kind) = *cursor.peek() else { return Ok(Self::Default) };
        if !["normal", "positive", "uniform", "constant"].contains(&kind) {
            return Err(cursor.expected("`normal`, `positive`, `uniform` or `constant`"));
        }
        cursor.advance()?;
        Ok(match kind {
            "normal" => Self::Normal(optional_number(cursor)?.map_or(0.1, |number| number.real)),
            "positive" => Self::Positive(optional_number(cursor)?.map_or(1.0, |number| number.real)),
            "uniform" => Self::Uniform(number(cursor)?, number(cursor)?),
            _ => Self::Constant(number(cursor)?),
        })
    }

    /// Generates `lanes` numbers as `raw_data`.
    pub(super) fn raw_data(self, layout: Layout, lanes: usize, name: &str) -> Bytes {
        let mut random = Random::named(name);
        let mut packer = Packer::new(layout);
        let integers = matches!(layout.kind, Kind::Signed | Kind::Unsigned);
        for _ in 0..lanes {
            packer.push(if integers {
                self.integer(layout, &mut random)
            } else {
                self.float(layout.kind, &mut random)
            });
        }
        packer.finish()
    }

    fn integer(self, layout: Layout, random: &mut Random) -> u64 {
        let (least, greatest) = layout.integer_range();
        let value = match self {
            Self::Default if layout.bits <= 8 => random.integer(least, greatest),
            Self::Default => random.integer(0, 1),
            Self::Uniform(low, high) => random.integer(low.as_integer(), high.as_integer()),
            Self::Constant(value) => value.as_integer(),
            Self::Normal(_) | Self::Positive(_) => self.real(random).round() as i128,
        };
        value.clamp(least, greatest) as u64
    }

    fn float(self, kind: Kind, random: &mut Random) -> u64 {
        let value = self.real(random);
        match kind {
            Kind::Half => u64::from(half::f16::from_f64(value).to_bits()),
            Kind::Brain => u64::from(half::bf16::from_f64(value).to_bits()),
            Kind::Single => u64::from((value as f32).to_bits()),
            _ => value.to_bits(),
        }
    }

    fn real(self, random: &mut Random) -> f64 {
        match self {
            Self::Default => 0.1 * random.normal(),
            Self::Normal(deviation) => deviation * random.normal(),
            Self::Positive(mean) => mean * (0.5 + random.uniform()),
            Self::Uniform(low, high) => low.real + (high.real - low.real) * random.uniform(),
            Self::Constant(value) => value.real,
        }
    }
}

fn number(cursor: &mut Cursor<'_>) -> Result<Number, ParseError> {
    optional_number(cursor)?.ok_or_else(|| cursor.expected("a number"))
}

fn optional_number(cursor: &mut Cursor<'_>) -> Result<Option<Number>, ParseError> {
    let number = match *cursor.peek() {
        Token::Integer(literal) => literal.parse().ok().map(|real| Number { integer: literal.parse().ok(), real }),
        Token::Float(literal) | Token::Word(literal) => literal.parse().ok().map(Number::new),
        _ => None,
    };
    if number.is_some() {
        cursor.advance()?;
    }
    Ok(number)
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn named(name: &str) -> Self {
        let fnv = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fnv))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0 to 1, 1 excluded.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// Between two ends, both included; ends in the wrong order give the first.
    fn integer(&mut self, low: i128, high: i128) -> i128 {
        let span = u128::try_from(high.saturating_sub(low)).unwrap_or(0).min(u128::from(u64::MAX)) + 1;
        low + ((u128::from(self.next()) * span) >> 64) as i128
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ir::DataType;

    fn floats(fill: Fill, name: &str) -> Vec<f32> {
        let raw = fill.raw_data(Layout::of(DataType::Float), 4, name);
        raw.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    #[test]
    fn generator_is_splitmix64() {
        // The reference implementation's first outputs for seed 1234567.
        let mut random = Random(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn names_decide_the_numbers() {
        assert_eq!(floats(Fill::Default, "w"), floats(Fill::Normal(0.1), "w"));
        assert_ne!(floats(Fill::Default, "w"), floats(Fill::Default, "v"));
        assert!(floats(Fill::Positive(2.0), "w").iter().all(|v| (1.0..3.0).contains(v)));
    }

    #[test]
    fn integers_stay_in_range() {
        let layout = Layout::of(DataType::Int4);
        let raw = Fill::Normal(100.0).raw_data(layout, 3, "w");
        assert_eq!(raw.len(), 2);
        let (low, high) = (Number { integer: Some(-3), real: -3.0 }, Number { integer: Some(2), real: 2.0 });
        let raw = Fill::Uniform(low, high).raw_data(Layout::of(DataType::Int8), 1000, "w");
        let values: std::collections::BTreeSet<_> = raw.iter().map(|&byte| byte as i8).collect();
        assert_eq!(values.into_iter().collect::<Vec<_>>(), [-3, -2, -1, 0, 1, 2]);
    }
}
