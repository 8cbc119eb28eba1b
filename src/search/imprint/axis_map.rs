//! Linear maps along one axis of a tensor: adaptive average pooling and bilinear resizing are such maps, the same one
//! for every line of values along the axis, and over several axes one after the other.

use std::ops::Range;

/// A matrix whose rows each read a run of the axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AxisMap {
    extent: usize,
    /// First entry that is not zero, and the entries from there on.
    rows: Vec<(usize, Vec<f64>)>,
}

impl AxisMap {
    /// Adaptive average pooling: bin i of n is the mean from ⌊i·extent/n⌋ to before ⌈(i+1)·extent/n⌉.
    pub(super) fn pooling(extent: usize, bins: usize) -> Self {
        let bin = |i: usize| {
            let (start, end) = (i * extent / bins, ((i + 1) * extent).div_ceil(bins));
            (start, vec![1.0 / (end - start) as f64; end - start])
        };
        Self { extent, rows: (0..bins).map(bin).collect() }
    }

    /// Linear interpolation between the centres of pixels: value i is taken at (i + ½)·extent/size − ½, within the map.
    pub(super) fn resizing(extent: usize, size: usize) -> Self {
        let row = |i: usize| {
            let place = ((i as f64 + 0.5) * extent as f64 / size as f64 - 0.5).clamp(0.0, (extent - 1) as f64);
            let below = place as usize;
            let share = place - below as f64;
            (below, if share > 0.0 { vec![1.0 - share, share] } else { vec![1.0] })
        };
        Self { extent, rows: (0..size).map(row).collect() }
    }

    /// `MᵀM` of this matrix M.
    pub(super) fn gram(&self) -> Self {
        let mut rows = vec![(0, vec![0.0; self.extent]); self.extent];
        for (start, weights) in &self.rows {
            for (a, wa) in weights.iter().enumerate() {
                for (b, wb) in weights.iter().enumerate() {
                    rows[start + a].1[start + b] += wa * wb;
                }
            }
        }
        Self { extent: self.extent, rows }
    }

    /// The number of values that each line becomes.
    fn len(&self) -> usize {
        self.rows.len()
    }

    /// Maps the axis behind which `inner` values lie together.
    fn apply(&self, values: &[f64], inner: usize) -> Vec<f64> {
        let mut result = vec![0.0; values.len() / self.extent * self.len()];
        let blocks = values.chunks_exact(self.extent * inner).zip(result.chunks_exact_mut(self.len() * inner));
        for (block, mapped) in blocks {
            if inner == 1 {
                for ((start, weights), sum) in self.rows.iter().zip(mapped) {
                    *sum = weights.iter().zip(&block[*start..]).map(|(weight, value)| weight * value).sum();
                }
                continue;
            }
            for ((start, weights), sums) in self.rows.iter().zip(mapped.chunks_exact_mut(inner)) {
                for (weight, line) in weights.iter().zip(block[start * inner..].chunks_exact(inner)) {
                    sums.iter_mut().zip(line).for_each(|(sum, value)| *sum += weight * value);
                }
            }
        }
        result
    }
}

/// Maps each of `axes` of a tensor by what `map` gives for its extent; no extent is zero.
pub(super) fn along<T: Copy + Into<f64>>(
    values: &[T],
    shape: &[usize],
    axes: Range<usize>,
    map: impl Fn(usize) -> AxisMap,
) -> Vec<f64> {
    let mut shape = shape.to_vec();
    let mut result: Vec<f64> = values.iter().map(|&value| value.into()).collect();
    for axis in axes {
        let map = map(shape[axis]);
        result = map.apply(&result, shape[axis + 1..].iter().product());
        shape[axis] = map.len();
    }
    result
}
