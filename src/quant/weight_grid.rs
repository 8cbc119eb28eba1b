//! The integers weights may be rounded to, by name.

use super::BitRate;
use msq_passes::TrellisRate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The integers weights are rounded to, for b bits.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema,
)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum WeightGrid {
    /// −(2^(b−1) − 1) to 2^(b−1) − 1.
    Narrow,
    /// −2^(b−1) to 2^(b−1) − 1.
    Full,
    /// −2^(b−1) to 2^(b−1) − 1 with a zero point that follows the range; of weights with one scale per block.
    Asymmetric,
    /// −2^(b−1) to 2^(b−1) − 1, scales 2^−FL: fixed point of Gupta et al. (2015).
    FixedPoint,
    /// −(2^(b−1) − 1) to 2^(b−1) − 1, scales 2^(1−b) times a power of two: Wu et al. (2018).
    Wage,
    /// −1 and 1: Rastegari et al. (2016). Of `binary` weights.
    Sign,
    /// 0, ±1, ±2, ±4 and so on, as many as b bits number.
    PowerOfTwo,
    /// Sums of b factors with either sign, chosen for the layer: Guo et al. (2017), Lin et al. (2017).
    BinaryBases,
    /// 2^b integers of 8 bits, chosen for the layer.
    Codebook,
    /// Integers of a trellis code, also of 1 bit and of quarters of a bit. Layers of fewer than 8 output channels get a
    /// `codebook`.
    Trellis,
}

impl WeightGrid {
    /// Whether weights are numbers in a list when they are packed.
    pub fn is_list(self) -> bool {
        matches!(self, Self::Sign | Self::PowerOfTwo | Self::BinaryBases | Self::Codebook)
    }

    /// The most bits it takes.
    pub fn most_bits(self) -> u8 {
        match self {
            Self::Sign => 1,
            // ±64 is the largest power of two that has its negative among integers of 8 bits, and fits.
            // Of a trellis of more bits 256 windows are too few.
            Self::PowerOfTwo | Self::Trellis => 4,
            // A list has 128 entries at most, and a channel that computes nothing adds 0.
            Self::BinaryBases => 6,
            Self::Codebook => 7,
            Self::Narrow | Self::Full | Self::Asymmetric | Self::FixedPoint | Self::Wage => 8,
        }
    }

    /// What is wrong with so many bits, if anything. Ternary and binary weights count as 2 bits and 1.
    pub(crate) fn fault(self, rate: BitRate) -> Option<String> {
        let most = self.most_bits();
        let fits = match self {
            Self::Trellis => TrellisRate::of_quarters(rate.quarters()).is_some(),
            Self::Sign => rate == BitRate::whole(1),
            _ => rate.as_whole().is_some_and(|bits| (2..=most).contains(&bits)),
        };
        (!fits).then(|| match self {
            Self::Sign => "grid `sign` takes weights that are \"binary\"".to_owned(),
            Self::Trellis => {
                let rates = (0..=u8::MAX).filter_map(TrellisRate::of_quarters);
                let rates: Vec<String> = rates.map(|rate| BitRate::of_quarters(rate.quarters()).to_string()).collect();
                format!("grid `trellis` takes weights of {} bits", rates.join(", "))
            }
            _ if rate.as_whole().is_none() => format!("grid `{self}` takes whole numbers of bits, 2 to {most}"),
            _ => format!("grid `{self}` takes weights of 2 to {most} bits"),
        })
    }
}
