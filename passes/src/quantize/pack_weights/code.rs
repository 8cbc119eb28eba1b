//! The arithmetic of packing: integers as digits of words.
//!
//! An integer q of a grid that starts at `low` is the digit d = q − low of some base B. A word holds g digits,
//! `Σ_k d_k·B^k`. Widths that divide 8, and the base 3, fill words of 8 or of 16 bits:
//!
//! | base | digits in 8 bits | in 16 bits | bits per weight |
//! |---|---|---|---|
//! | 2 | 8 | 16 | 1 |
//! | 3 | 5 | 10 | 1.6 |
//! | 4 | 4 | 8 | 2 |
//! | 16 | 2 | 4 | 4 |
//!
//! The other widths leave s bits of a word of 16 bits free. The words of a group carry one more row of g digits there:
//! s bits of it each, the lowest in the first word.
//!
//! | base | digits | free bits | words per group | weights per group |
//! |---|---|---|---|---|
//! | 8 | 4 | 4 | 3 | 16 |
//! | 32 | 3 | 1 | 15 | 48 |
//! | 64 | 2 | 4 | 3 | 8 |
//! | 128 | 2 | 2 | 7 | 16 |
//!
//! A table of one row of g digits per value of a word turns words back into digits: wide words because an index of 32
//! bits per word is most of what unpacking keeps in memory.

/// How integers are written as digits of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Code {
    /// The base B.
    pub(super) base: usize,
    /// Digits g per word.
    pub(super) digits: usize,
    /// Bytes of a word.
    pub(super) width: usize,
    /// Words that share one more row of digits in their free bits; 0 where no bits are free.
    pub(super) group: usize,
}

impl Code {
    /// Ternary: five trits per byte. `wide` words have two bytes.
    pub(super) const fn ternary(wide: bool) -> Self {
        Self::filling(3, 5, wide)
    }

    /// Integers of 1 to 7 bits. `wide` words have two bytes, as those of 3, 5, 6 and 7 bits always do.
    pub(super) fn of_bits(bits: u8, wide: bool) -> Option<Self> {
        let grouped = |digits, group| Some(Self { base: 1 << bits, digits, width: 2, group });
        match bits {
            1 | 2 | 4 => Some(Self::filling(1 << bits, 8 / usize::from(bits), wide)),
            3 => grouped(4, 3),
            5 => grouped(3, 15),
            6 => grouped(2, 3),
            7 => grouped(2, 7),
            _ => None,
        }
    }

    const fn filling(base: usize, digits_per_byte: usize, wide: bool) -> Self {
        let width = if wide { 2 } else { 1 };
        Self { base, digits: width * digits_per_byte, width, group: 0 }
    }

    /// Values of the digits of a word: `B^g`.
    pub(super) const fn rows(self) -> usize {
        self.base.pow(self.digits as u32)
    }

    /// Bits that a word of a group has for the additional row.
    pub(super) fn free_bits(self) -> usize {
        self.rows().ilog2() as usize / self.group.max(1)
    }

    /// Digits of the words that stand or fall together: a group, or a word.
    fn unit(self) -> usize {
        if self.group == 0 { self.digits } else { (self.group + 1) * self.digits }
    }

    /// The number of digits after `count` digits are packed and unpacked, padding included.
    pub(super) fn padded(self, count: usize) -> usize {
        count.next_multiple_of(self.unit())
    }

    /// Bytes of the words for `count` digits.
    pub(super) fn bytes(self, count: usize) -> usize {
        count.div_ceil(self.unit()) * self.group.max(1) * self.width
    }

    /// The words of the digits, which are below the base; zeros pad the last group.
    pub(super) fn pack(self, digits: &[usize]) -> Vec<usize> {
        let word = |digits: &[usize]| digits.iter().rev().fold(0, |word, digit| word * self.base + digit);
        if self.group == 0 {
            return digits.chunks(self.digits).map(word).collect();
        }
        let mut words = Vec::with_capacity(self.bytes(digits.len()) / self.width);
        let bits = self.free_bits();
        for unit in digits.chunks(self.unit()) {
            let mut rows = unit.chunks(self.digits).map(word).chain(std::iter::repeat(0));
            let start = words.len();
            words.extend(rows.by_ref().take(self.group));
            let more = rows.next().unwrap_or(0);
            for (at, word) in words[start..].iter_mut().enumerate() {
                *word += (more >> (at * bits) & ((1 << bits) - 1)) * self.rows();
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arithmetic of the unpacking graph.
    fn unpack(code: Code, words: &[usize]) -> Vec<usize> {
        let row = |word: usize| (0..code.digits).map(move |k| word / code.base.pow(k as u32) % code.base);
        if code.group == 0 {
            return words.iter().copied().flat_map(row).collect();
        }
        let group = |words: &[usize]| {
            let step = 1 << code.free_bits();
            let more = words.iter().rev().fold(0, |more, word| more * step + word / code.rows());
            words.iter().copied().chain([more]).flat_map(row).collect::<Vec<usize>>()
        };
        words.chunks(code.group).flat_map(group).collect()
    }

    #[test]
    fn digits_come_back() {
        let of_bits = |bits| [false, true].map(move |wide| Code::of_bits(bits, wide));
        for code in (1..=7).flat_map(of_bits).flatten().chain([Code::ternary(false), Code::ternary(true)]) {
            assert!(code.rows() <= 1 << (8 * code.width), "{code:?}");
            for count in 0..110 {
                let digits: Vec<usize> = (0..count).map(|i| (i * i + 5 * i + 3) % code.base).collect();
                let words = code.pack(&digits);
                assert_eq!(words.len() * code.width, code.bytes(count), "{code:?}");
                assert!(words.iter().all(|word| *word < 1 << (8 * code.width)), "{code:?}");
                let back = unpack(code, &words);
                assert_eq!(back.len(), code.padded(count), "{code:?}");
                assert_eq!(back[..count], digits, "{code:?}");
            }
        }
    }

    #[test]
    fn groups_waste_no_bit() {
        for bits in 1..=7 {
            for code in [false, true].into_iter().filter_map(|wide| Code::of_bits(bits, wide)) {
                assert_eq!(8 * code.bytes(code.unit()), code.unit() * usize::from(bits), "{code:?}");
            }
        }
    }
}
