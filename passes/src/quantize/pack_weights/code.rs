//! The arithmetic of packing: integers as digits of words, words as planes of bytes.
//!
//! An integer q of a grid is the digit d = q − low of some base B. A word holds g digits, `Σ_k d_k·B^k`, so it is below
//! `B^g`. Widths that divide 8, and the base 3, fill a byte with a word:
//!
//! | base | digits | bits per weight |
//! |---|---|---|
//! | 3 | 5 | 1.6 |
//! | 4 | 4 | 2 |
//! | 16 | 2 | 4 |
//!
//! The other widths take words of 10 to 14 bits, cut into planes: the low byte of every word, then the next 4 bits (two
//! words per byte), then the next 2 bits (four words per byte).
//!
//! | base | digits | planes | bits per weight |
//! |---|---|---|---|
//! | 8 | 4 | 8 + 4 | 3 |
//! | 32 | 2 | 8 + 2 | 5 |
//! | 64 | 2 | 8 + 4 | 6 |
//! | 128 | 2 | 8 + 4 + 2 | 7 |
//!
//! A table of `B^g` rows of g digits turns a word back into its digits.

/// How integers are written as digits of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Code {
    /// The base B.
    pub(super) base: usize,
    /// Digits g per word.
    pub(super) digits: usize,
    /// Widths in bits of the planes after the low byte, from low to high.
    pub(super) high: &'static [usize],
}

impl Code {
    /// Ternary: five trits per byte.
    pub(super) const TERNARY: Self = Self { base: 3, digits: 5, high: &[] };

    /// Integers of 1 to 7 bits.
    pub(super) fn of_bits(bits: u8) -> Option<Self> {
        let (digits, high): (usize, &[usize]) = match bits {
            1 => (8, &[]),
            2 => (4, &[]),
            3 => (4, &[4]),
            4 => (2, &[]),
            5 => (2, &[2]),
            6 => (2, &[4]),
            7 => (2, &[4, 2]),
            _ => return None,
        };
        Some(Self { base: 1 << bits, digits, high })
    }

    /// The number of words for `count` digits, such that every plane ends with a whole byte.
    fn padded_words(self, count: usize) -> usize {
        let step = self.high.iter().map(|bits| 8 / bits).max().unwrap_or(1);
        count.div_ceil(self.digits).next_multiple_of(step)
    }

    /// The number of digits after `count` digits are packed and unpacked, padding included.
    pub(super) fn padded(self, count: usize) -> usize {
        self.padded_words(count) * self.digits
    }

    /// Bytes of all planes for `count` digits.
    pub(super) fn bytes(self, count: usize) -> usize {
        let words = self.padded_words(count);
        words + self.high.iter().map(|bits| words * bits / 8).sum::<usize>()
    }

    /// The planes of the digits, which are below the base; zeros pad the last word.
    pub(super) fn pack(self, digits: impl ExactSizeIterator<Item = usize>) -> Vec<Vec<u8>> {
        let mut words = vec![0_usize; self.padded_words(digits.len())];
        for (i, digit) in digits.enumerate() {
            words[i / self.digits] += digit * self.base.pow((i % self.digits) as u32);
        }
        let mut planes = vec![words.iter().map(|word| *word as u8).collect()];
        let mut shift = 8;
        for &bits in self.high {
            let byte = |words: &[usize]| -> u8 {
                let part = |(k, word): (usize, &usize)| ((word >> shift) & ((1 << bits) - 1)) << (k * bits);
                words.iter().enumerate().map(part).sum::<usize>() as u8
            };
            planes.push(words.chunks(8 / bits).map(byte).collect());
            shift += bits;
        }
        planes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arithmetic of the unpacking graph.
    fn unpack(code: Code, planes: &[Vec<u8>]) -> Vec<usize> {
        let word = |i: usize| {
            let mut word = usize::from(planes[0][i]);
            let mut shift = 8;
            for (plane, bits) in planes[1..].iter().zip(code.high) {
                let per = 8 / bits;
                word += (usize::from(plane[i / per]) >> (i % per * bits) & ((1 << bits) - 1)) << shift;
                shift += bits;
            }
            word
        };
        let digit = |i: usize| word(i / code.digits) / code.base.pow((i % code.digits) as u32) % code.base;
        (0..planes[0].len() * code.digits).map(digit).collect()
    }

    #[test]
    fn digits_come_back() {
        for code in (1..=7).filter_map(Code::of_bits).chain([Code::TERNARY]) {
            assert!(code.base.pow(code.digits as u32) <= 1 << (8 + code.high.iter().sum::<usize>()), "{code:?}");
            for count in 0..70 {
                let digits: Vec<usize> = (0..count).map(|i| (i * i + 5 * i + 3) % code.base).collect();
                let planes = code.pack(digits.iter().copied());
                assert_eq!(planes.iter().map(Vec::len).sum::<usize>(), code.bytes(count), "{code:?}");
                let back = unpack(code, &planes);
                assert_eq!(back.len(), code.padded(count), "{code:?}");
                assert_eq!(back[..count], digits, "{code:?}");
            }
        }
    }
}
