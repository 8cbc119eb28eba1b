//! Sums over samples that have the same bits wherever the samples are cut into parts.
//!
//! Floating-point addition is not associative. Pieces of the data are therefore added as the leaves of a binary tree over
//! all of them: pieces 2k and 2k + 1 of one level make piece k of the next. A part of the data holds the largest whole
//! subtrees that it covers, at most two per level, and parts that meet complete the subtrees between them. What the whole
//! adds up to follows from the number of pieces alone.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What can be added to, in order.
pub(super) trait Sum {
    /// Adds what comes later.
    fn add(&mut self, later: &Self);
}

/// A sum over consecutive pieces of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Dyadic<T> {
    /// In order, each beginning where the one before ends.
    subtrees: Vec<Subtree<T>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Subtree<T> {
    level: u32,
    /// Its number among those of its level: it covers pieces `number << level .. (number + 1) << level`.
    number: u64,
    sum: T,
}

impl<T> Default for Dyadic<T> {
    fn default() -> Self {
        Self { subtrees: Vec::new() }
    }
}

impl<T: Sum + Clone + Default> Dyadic<T> {
    /// The sum over one piece.
    pub(super) fn piece(number: u64, sum: T) -> Self {
        Self { subtrees: vec![Subtree { level: 0, number, sum }] }
    }

    /// Appends the pieces that come next.
    pub(super) fn append(&mut self, later: Self) {
        for subtree in later.subtrees {
            self.subtrees.push(subtree);
            self.complete();
        }
    }

    /// Joins neighbours at the end as long as they are the halves of a larger subtree.
    fn complete(&mut self) {
        while let [.., left, right] = &self.subtrees[..]
            && left.level == right.level
            && left.number % 2 == 0
            && right.number == left.number + 1
        {
            let Some(right) = self.subtrees.pop() else { return };
            if let Some(left) = self.subtrees.last_mut() {
                left.sum.add(&right.sum);
                (left.level, left.number) = (left.level + 1, left.number / 2);
            }
        }
    }

    /// Whether it is the sum over exactly these pieces.
    pub(super) fn covers(&self, pieces: Range<u64>) -> bool {
        let end = self.subtrees.iter().try_fold(pieces.start, |next, subtree| {
            let size = 1_u64.checked_shl(subtree.level)?;
            let begins = subtree.number.checked_mul(size)? == next;
            begins.then(|| next.checked_add(size))?
        });
        end == Some(pieces.end)
    }

    /// The sum over all pieces.
    pub(super) fn total(&self) -> T {
        let mut sums = self.subtrees.iter().map(|subtree| &subtree.sum);
        let mut total = sums.next().cloned().unwrap_or_default();
        sums.for_each(|sum| total.add(sum));
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Sum for f32 {
        fn add(&mut self, later: &Self) {
            *self += later;
        }
    }

    fn sum(values: &[f32], from: usize) -> Dyadic<f32> {
        let mut sum = Dyadic::default();
        for (at, &value) in values.iter().enumerate() {
            sum.append(Dyadic::piece((from + at) as u64, value));
        }
        sum
    }

    proptest! {
        #[test]
        fn any_cut_has_the_same_bits(
            values in proptest::collection::vec(-1e6_f32..1e6, 1..70),
            cuts in proptest::collection::vec(0_usize..70, 0..5),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(values.len())).collect();
            cuts.extend([0, values.len()]);
            cuts.sort_unstable();
            let mut parts = Dyadic::default();
            for ends in cuts.windows(2) {
                parts.append(sum(&values[ends[0]..ends[1]], ends[0]));
            }
            let whole = sum(&values, 0);
            prop_assert_eq!(parts.total().to_bits(), whole.total().to_bits());
            prop_assert!(parts == whole);
            prop_assert!(whole.covers(0..values.len() as u64));
            prop_assert!(!whole.covers(0..values.len() as u64 + 1) && !whole.covers(1..values.len() as u64));
            prop_assert!(whole.subtrees.len() <= 7, "as many as 70 has ones in binary, at most");
        }
    }

    #[test]
    fn no_subtree_from_a_file_is_too_large_to_count() {
        for (level, number) in [(64, 0), (63, 2), (200, 1), (0, u64::MAX)] {
            let sum = Dyadic { subtrees: vec![Subtree { level, number, sum: 1.0_f32 }] };
            assert!(!sum.covers(0..u64::MAX) && !sum.covers(number..0), "{level} {number}");
        }
    }

    #[test]
    fn values_are_added_as_a_tree() {
        let values = [1.0, 33_554_432.0, -33_554_432.0, 1.0];
        assert_eq!(values.iter().sum::<f32>(), 1.0);
        // (1 + 2²⁵) + (−2²⁵ + 1), where 1 is too small to count.
        assert_eq!(sum(&values, 0).total(), 0.0);
    }
}
