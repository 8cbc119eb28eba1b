//! Bits per weight, which trellis codes have in quarters of a bit.

use std::fmt;

/// Bits per weight, a multiple of a quarter of a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BitRate(u8);

impl BitRate {
    /// So many quarters of a bit.
    pub const fn of_quarters(quarters: u8) -> Self {
        Self(quarters)
    }

    /// A whole number of bits, at most 63.
    pub const fn whole(bits: u8) -> Self {
        Self(bits.saturating_mul(4))
    }

    /// A decimal number from 1 to 8.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let quarters = text.parse::<f64>().ok()? * 4.0;
        (quarters.fract() == 0.0 && (4.0..=32.0).contains(&quarters)).then_some(Self(quarters as u8))
    }

    /// The rate in quarters of a bit.
    pub const fn quarters(self) -> u8 {
        self.0
    }

    /// The rate where it is a whole number of bits.
    pub const fn as_whole(self) -> Option<u8> {
        if self.0.is_multiple_of(4) { Some(self.0 / 4) } else { None }
    }

    /// The rate rounded up to a whole number of bits.
    pub const fn ceil(self) -> u8 {
        self.0.div_ceil(4)
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (f64::from(self.0) / 4.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_quarters_from_1_to_8() {
        for quarters in 4..=32 {
            let rate = BitRate::of_quarters(quarters);
            assert_eq!(BitRate::parse(&rate.to_string()), Some(rate));
            assert_eq!(rate.as_whole().is_some(), quarters % 4 == 0);
            assert!(rate <= BitRate::whole(rate.ceil()) && rate > BitRate::whole(rate.ceil() - 1));
        }
        assert_eq!(BitRate::parse("1.75"), Some(BitRate::of_quarters(7)));
        assert_eq!(BitRate::parse("2.0"), Some(BitRate::whole(2)));
        for wrong in ["", "0.75", "8.25", "1.3", "-2", "NaN", "inf", "1e9", "two"] {
            assert_eq!(BitRate::parse(wrong), None, "{wrong}");
        }
    }
}
