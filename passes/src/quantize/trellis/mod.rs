//! Trellis codes: weights as windows of a string of bits (Marcellin and Fischer 1990; in this "bit-shift" form Tseng et al.
//! 2024, QTIP).
//!
//! A column of n weights at R bits each is one **circular** string of `8·⌈n·R/8⌉` bits. Weight i is
//!
//! `q_i = T[window_i]`, `window_i` the 8 bits that end at bit `⌊(i+1)·R⌋`, earlier bits wrapping round to the end,
//!
//! T a table of 256 integers. Neighbours share 8 − R bits, so that the 2^R choices of each weight together come close to
//! 2^8 levels. What fills the last byte belongs to the wrap and costs nothing.
//!
//! Integers that a code made are turned back into a string without knowing how they were found ([`TrellisCode::pack`]): few
//! windows have the same entry, and of those few follow each other.

mod tables;

/// Bits of a window, L.
const WINDOW: usize = 8;

/// Number of windows, 2^L.
pub const WINDOWS: usize = 1 << WINDOW;

/// Bits per weight, R, in quarters of a bit: those there are tables for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct TrellisRate(u8);

/// A code: a rate and its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrellisCode {
    rate: TrellisRate,
    /// T.
    table: &'static [i8; WINDOWS],
}

impl TrellisRate {
    /// The rate of so many quarters of a bit; `None` where there is no table for it.
    pub const fn of_quarters(quarters: u8) -> Option<Self> {
        match quarters {
            4..=10 | 12 | 16 => Some(Self(quarters)),
            _ => None,
        }
    }

    /// The rate in quarters of a bit.
    pub fn quarters(self) -> u8 {
        self.0
    }

    /// The bit behind the window of element `i`: ⌊(i+1)·R⌋.
    pub(super) fn end(self, i: usize) -> usize {
        (i + 1) * usize::from(self.0) / 4
    }

    /// Bytes of a column of so many weights.
    pub fn bytes(self, length: usize) -> usize {
        (length * usize::from(self.0)).div_ceil(4 * WINDOW)
    }

    /// The bits that are new at each element of a column, those that fill the last byte at the first.
    pub fn steps(self, length: usize) -> impl Iterator<Item = usize> {
        let bits = WINDOW * self.bytes(length);
        (0..length).map(move |i| match i {
            0 => self.end(0) + bits - self.end(length - 1),
            i => self.end(i) - self.end(i - 1),
        })
    }
}

impl TrellisCode {
    /// Columns of fewer weights are not worth a string: what fills its last byte is too much of it.
    pub const SHORTEST: usize = 8;

    /// The code of a rate, with the table learned on Gaussian columns.
    pub fn new(rate: TrellisRate) -> Self {
        let listed = tables::TABLES.iter().find(|(quarters, _)| *quarters == rate.0);
        // A rate exists only with its table.
        let table = listed.map_or(&tables::TABLES[0].1, |(_, table)| table);
        Self { rate, table }
    }

    /// The rate.
    pub fn rate(&self) -> TrellisRate {
        self.rate
    }

    /// T.
    pub fn table(&self) -> &'static [i8; WINDOWS] {
        self.table
    }

    /// The string of a column of integers; `None` where no string has them.
    pub fn pack(&self, integers: &[i8]) -> Option<Vec<u8>> {
        let steps: Vec<usize> = self.rate.steps(integers.len()).collect();
        let windows = |q: i8| (0..WINDOWS).filter(move |&window| self.table[window] == q);
        let path = windows(*integers.first()?).find_map(|first| self.path(first, integers, &steps))?;
        let bytes = self.rate.bytes(integers.len());
        let bits = WINDOW * bytes;
        let mut string = vec![0_u8; bytes];
        for (i, window) in path.into_iter().enumerate() {
            for back in 0..WINDOW {
                let bit = (self.rate.end(i) + bits - 1 - back) % bits;
                string[bit / 8] |= ((window >> back & 1) as u8) << (7 - bit % 8);
            }
        }
        Some(string)
    }

    /// Windows that have the integers, from `first` round to it.
    fn path(&self, first: usize, integers: &[i8], steps: &[usize]) -> Option<Vec<usize>> {
        // Windows that can be reached at each element, with the place of the one before.
        let mut reached: Vec<Vec<(usize, usize)>> = vec![vec![(first, 0)]];
        for (&q, &step) in integers.iter().zip(steps).skip(1) {
            let before = reached.last()?;
            let follows = |window: usize| Some((window, before.iter().position(|(b, _)| fits(*b, window, step))?));
            let next: Vec<_> = (0..WINDOWS).filter(|&w| self.table[w] == q).filter_map(follows).collect();
            reached.push(next);
        }
        let mut at = reached.last()?.iter().position(|(last, _)| fits(*last, first, steps[0]))?;
        let mut path = vec![0; integers.len()];
        for (window, reached) in path.iter_mut().zip(&reached).rev() {
            (*window, at) = *reached.get(at)?;
        }
        Some(path)
    }

    /// The integers of a column.
    pub fn unpack(&self, string: &[u8], length: usize) -> Vec<i8> {
        let bits = WINDOW * string.len();
        let bit = |at: usize| usize::from(string[at % bits / 8] >> (7 - at % 8) & 1);
        let window = |i: usize| {
            let start = self.rate.end(i) + bits - WINDOW;
            (0..WINDOW).fold(0, |window, at| window << 1 | bit(start + at))
        };
        (0..length).map(|i| self.table[window(i)]).collect()
    }
}

/// Whether `window` may follow `before` with so many new bits.
fn fits(before: usize, window: usize, step: usize) -> bool {
    let kept = WINDOW.saturating_sub(step);
    window >> (WINDOW - kept) == before & ((1 << kept) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes() -> impl Iterator<Item = TrellisCode> {
        (0..=32).filter_map(TrellisRate::of_quarters).map(TrellisCode::new)
    }

    #[test]
    fn every_string_comes_back_as_integers() {
        assert!(codes().map(|code| code.rate.0).eq(tables::TABLES.iter().map(|(rate, _)| *rate)));
        for code in codes() {
            for length in (1..=34).chain([64, 255]) {
                let bytes = code.rate.bytes(length);
                let string: Vec<u8> = (0..bytes).map(|i| (i * 151 + length * 57 + 23) as u8).collect();
                let integers = code.unpack(&string, length);
                let packed = code.pack(&integers).unwrap();
                assert_eq!(packed.len(), bytes);
                assert_eq!(code.unpack(&packed, length), integers, "{:?} {length}", code.rate);
                assert_eq!(code.rate.steps(length).sum::<usize>(), 8 * bytes);
            }
        }
    }

    #[test]
    fn what_no_string_has_is_refused() {
        for code in codes() {
            let missing = (i8::MIN..=i8::MAX).find(|q| !code.table.contains(q)).unwrap();
            assert_eq!(code.pack(&[missing]), None);
            assert_eq!(code.pack(&[]), None);
        }
        // Entries of windows 0 and 255 cannot follow each other with two new bits.
        let code = TrellisCode::new(TrellisRate::of_quarters(8).unwrap());
        let ends = [code.table[0], code.table[255]];
        let far: Vec<i8> = ends.into_iter().cycle().take(16).collect();
        assert_eq!(code.pack(&far), None);
    }

    #[test]
    fn tables_are_centered_and_spread() {
        for code in codes() {
            let (mean, square) = code.table.iter().fold((0.0, 0.0), |(mean, square), &q| {
                (mean + f64::from(q) / 256.0, square + f64::from(q).powi(2) / 256.0)
            });
            assert!(mean.abs() < 6.0 && (24.0..42.0).contains(&square.sqrt()), "{:?} {mean} {square}", code.rate);
            assert!(!code.table.contains(&-128));
        }
    }
}
