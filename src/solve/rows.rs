//! The weight of a layer as the rows `[O, K]` of a solver's problem.

use crate::kernels::Geometry;

/// How the rows of a solver's problem lie in a weight.
pub(super) enum Rows<'a> {
    /// As the layer reads its input, group by group.
    Groups(&'a Geometry),
    /// One row per index along an axis; without an axis, all weights are one row.
    Channels(&'a [usize], Option<usize>),
}

impl Rows<'_> {
    /// Number of groups.
    pub(super) fn groups(&self) -> usize {
        if let Self::Groups(geometry) = self { geometry.groups() } else { 1 }
    }

    /// The rows `[O, K]` of a group.
    pub(super) fn of<T: Copy>(&self, weight: &[T], group: usize) -> Vec<T> {
        match self {
            Self::Groups(geometry) => geometry.rows(weight, group),
            Self::Channels(shape, axis) => channel_order(shape, *axis).map(|i| weight[i]).collect(),
        }
    }

    /// Puts the rows of a group where they stand in a weight.
    pub(super) fn put<T: Copy>(&self, rows: &[T], group: usize, weight: &mut [T]) {
        match self {
            Self::Groups(geometry) => geometry.put_rows(rows, group, weight),
            Self::Channels(shape, axis) => {
                channel_order(shape, *axis).zip(rows).for_each(|(i, &value)| weight[i] = value);
            }
        }
    }
}

/// Indices into a tensor, one channel after another.
fn channel_order(shape: &[usize], axis: Option<usize>) -> impl Iterator<Item = usize> {
    let all: usize = shape.iter().product();
    let (channels, inner) = axis.map_or((1, all), |axis| (shape[axis], shape[axis + 1..].iter().product()));
    let outer = all / (channels * inner).max(1);
    let run = move |channel: usize, outer: usize| {
        (outer * channels + channel) * inner..(outer * channels + channel + 1) * inner
    };
    (0..channels).flat_map(move |channel| (0..outer).flat_map(move |outer| run(channel, outer)))
}
