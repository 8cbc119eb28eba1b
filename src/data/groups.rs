//! Samples in groups, where each group is run by a network of its own.

use super::source::spread;
use super::{DataError, Dataset};
use std::ops::Range;

/// Samples, one group after the other.
#[derive(Clone, Debug)]
pub(crate) struct Groups {
    data: Dataset,
    /// The place behind the last sample of each group.
    ends: Vec<usize>,
}

impl Groups {
    /// All samples in one group.
    pub(crate) fn one(data: Dataset) -> Self {
        Self { ends: vec![data.len()], data }
    }

    /// The first samples of the data in a group, the next ones in another, and so on: as many as `lengths` says.
    pub(crate) fn new(data: Dataset, lengths: impl IntoIterator<Item = usize>) -> Self {
        let end = |sum: &mut usize, length: usize| {
            *sum += length;
            Some(*sum)
        };
        Self { data, ends: lengths.into_iter().scan(0, end).collect() }
    }

    /// The samples of all groups.
    pub(crate) fn data(&self) -> &Dataset {
        &self.data
    }

    /// How many groups there are.
    pub(crate) fn count(&self) -> usize {
        self.ends.len()
    }

    /// The places of each group among all samples. A group may have none.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        std::iter::once(0).chain(self.ends.iter().copied()).zip(&self.ends).map(|(start, &end)| start..end)
    }

    /// How many different shapes the samples of each group have, summed over the groups.
    pub(crate) fn shapes(&self) -> Result<usize, DataError> {
        self.ranges().map(|range| self.data.range(range.start, range.end).shapes()).sum()
    }

    /// So many samples, evenly spread over all and so over each group, in the same groups; and the places of all others.
    pub(crate) fn spread(&self, wanted: usize) -> (Self, Vec<usize>) {
        let taken = spread(self.data.len(), wanted);
        let before = |end: usize| taken.partition_point(|&place| place < end);
        let ends = self.ends.iter().map(|&end| before(end)).collect();
        let others = (0..self.data.len()).filter(|place| taken.binary_search(place).is_err()).collect();
        (Self { data: self.data.subset(&taken), ends }, others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Array, Sample};

    fn groups(lengths: &[usize]) -> Groups {
        let sample = |at: usize| Sample { arrays: vec![Array::from_f32(vec![1], vec![at as f32]).unwrap()] };
        let count = lengths.iter().sum();
        Groups::new(Dataset::stored((0..count).map(sample).collect()), lengths.iter().copied())
    }

    #[test]
    fn as_many_are_taken_of_each_group() {
        let all = groups(&[10, 10, 10, 10]);
        let (some, others) = all.spread(24);
        assert_eq!(some.ranges().map(|range| range.len()).collect::<Vec<_>>(), [6, 6, 6, 6]);
        assert_eq!((some.data().len(), others.len()), (24, 16));
        let taken: Vec<f32> = (0..24).map(|at| some.data().sample(at).unwrap().arrays[0].to_f32()[0]).collect();
        assert!(taken.iter().all(|&value| !others.contains(&(value as usize))), "{taken:?} {others:?}");
        assert!(taken[6..12].iter().all(|value| (10.0..20.0).contains(value)), "{taken:?}");
    }

    #[test]
    fn where_all_are_wanted_groups_stay() {
        let (same, others) = groups(&[3, 3, 2, 2]).spread(16);
        assert_eq!(same.ranges().collect::<Vec<_>>(), [0..3, 3..6, 6..8, 8..10]);
        assert!(others.is_empty());
    }

    #[test]
    fn a_group_may_be_empty() {
        let (some, _) = groups(&[2, 2]).spread(1);
        assert_eq!(some.ranges().collect::<Vec<_>>(), [0..1, 1..1]);
    }
}
