//! The integers a weight may take.

use crate::quant::{GridSpec, round_half_even_f64};

/// The integers a weight may take, in rising order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Levels {
    /// All from the first to the last.
    Uniform(f64, f64),
    /// A list, with the middles between its entries.
    Entries(Vec<f64>, Vec<f64>),
}

impl Levels {
    /// All integers of a grid.
    pub(super) fn uniform(grid: GridSpec) -> Self {
        Self::Uniform(f64::from(grid.quantized_min()), f64::from(grid.quantized_max()))
    }

    /// A list in any order.
    pub(super) fn entries(mut entries: Vec<f64>) -> Self {
        entries.sort_by(f64::total_cmp);
        entries.dedup();
        let middles = entries.windows(2).map(|pair| f64::midpoint(pair[0], pair[1])).collect();
        Self::Entries(entries, middles)
    }

    /// A list of integers.
    pub(super) fn listed(integers: &[i8]) -> Self {
        Self::entries(integers.iter().copied().map(f64::from).collect())
    }

    /// The level nearest to `value`; in the middle of a list, the upper one, as sign(0) is 1.
    #[inline]
    pub(super) fn nearest(&self, value: f64) -> f64 {
        match self {
            // In this order NaN becomes an end of the grid.
            Self::Uniform(low, high) => round_half_even_f64(value.max(*low).min(*high)),
            Self::Entries(entries, middles) => {
                entries.get(middles.partition_point(|&middle| middle <= value)).copied().unwrap_or(0.0)
            }
        }
    }

    /// The levels on either side of `value`; an end twice beyond it, a level twice that is hit.
    pub(super) fn neighbours(&self, value: f64) -> (f64, f64) {
        match self {
            Self::Uniform(low, high) => {
                let value = value.max(*low).min(*high);
                (value.floor(), value.ceil())
            }
            Self::Entries(entries, _) => {
                let above = entries.partition_point(|&entry| entry < value).min(entries.len().saturating_sub(1));
                let high = entries.get(above).copied().unwrap_or(0.0);
                let below = entries.get(above.saturating_sub(1)).copied().unwrap_or(0.0);
                let low = if high <= value { high } else { below };
                (low, high)
            }
        }
    }

    /// The magnitude up to which no weight of either sign is clipped.
    pub(super) fn reach(&self) -> f64 {
        match self {
            Self::Uniform(low, high) => high.min(-low),
            Self::Entries(entries, _) => {
                let [first, last] = [entries.first(), entries.last()].map(|end| end.copied().unwrap_or(0.0));
                last.min(-first)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_enclose_the_value() {
        let list = Levels::listed(&[4, -4, 1, -1, 0]);
        let grid = Levels::Uniform(-8.0, 7.0);
        for (value, low, high) in [(-9.0, -4.0, -4.0), (-4.0, -4.0, -4.0), (-3.0, -4.0, -1.0), (0.5, 0.0, 1.0)] {
            assert_eq!(list.neighbours(value), (low, high), "{value}");
        }
        assert_eq!(list.neighbours(4.5), (4.0, 4.0));
        assert_eq!(grid.neighbours(-2.25), (-3.0, -2.0));
        assert_eq!(grid.neighbours(-3.0), (-3.0, -3.0));
        assert_eq!(grid.neighbours(7.5), (7.0, 7.0));
        assert_eq!((list.reach(), grid.reach()), (4.0, 7.0));
    }
}
