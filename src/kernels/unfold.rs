//! Columns of an activation at some of a layer's positions.
//!
//! Not every position is needed to know how a layer's inputs correlate: neighbours see nearly the same. Of the positions
//! that count every so many are taken, see [`coprime_stride`]. Which ones depends on the sample's number, the shapes and
//! what a mask leaves out alone.

use super::{Geometry, Keep, KernelError, coprime_stride, start};
use crate::kernels::geometry::Walk;

/// Which positions are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Stride between the positions taken, about: it has no factor in common with their number.
    pub stride: usize,
    /// How many positions of a sample are taken at least, if it has as many.
    pub least: usize,
}

impl Sampling {
    /// Every position.
    pub const ALL: Self = Self { stride: 1, least: 0 };

    /// How many positions are taken of so many, about.
    pub(super) fn count(self, count: usize) -> usize {
        count / coprime_stride(count, self.stride, self.least)
    }

    /// The positions taken of `count`.
    fn positions(self, sample: usize, count: usize) -> impl Iterator<Item = usize> + Clone {
        let stride = coprime_stride(count, self.stride, self.least);
        (start(sample, stride)..count).step_by(stride)
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self { stride: 8, least: 32 }
    }
}

/// Where the columns of one sample stand in its values: row k of channel c's part and position p are at
/// `c·plane + indices[t][p]`.
#[derive(Clone, Debug)]
pub(super) struct Sites {
    /// Number of positions taken.
    pub(super) count: usize,
    taps: usize,
    /// Distance from one channel to the next.
    plane: usize,
    /// `[taps, count]`; [`PADDING`] outside.
    indices: Vec<usize>,
    channels: usize,
}

/// The index that stands for padding.
const PADDING: usize = usize::MAX;

/// An activation of shape `[N, C, …]` or `[…, C]` as a batch of samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub(super) samples: usize,
    /// Values of one sample.
    pub(super) length: usize,
    view: View,
}

#[derive(Clone, Copy, Debug)]
enum View {
    Window(Walk),
    /// So many rows of channels.
    Rows(usize),
}

impl Batch {
    /// The activation's samples, if the layer can read it.
    pub(super) fn new(geometry: &Geometry, shape: &[usize], length: usize) -> Result<Self, KernelError> {
        let odd = || KernelError::Shape { shape: shape.to_vec(), length };
        let channels = geometry.channels();
        if shape.iter().try_fold(1_usize, |a, &b| a.checked_mul(b)) != Some(length) {
            return Err(odd());
        }
        if let Some(window) = &geometry.window {
            let [samples, found, spatial @ ..] = shape else { return Err(odd()) };
            let walk = window.over(spatial).filter(|_| *found == channels).ok_or_else(odd)?;
            return Ok(Self { samples: *samples, length: length / samples.max(&1), view: View::Window(walk) });
        }
        let [before @ .., found] = shape else { return Err(odd()) };
        if *found != channels {
            return Err(odd());
        }
        let samples = before.first().copied().unwrap_or(1);
        let rows = before.iter().skip(1).product();
        Ok(Self { samples, length: rows * channels, view: View::Rows(rows) })
    }

    /// The samples of an activation as the float network has it and as the quantized network has it.
    pub(super) fn pair(
        geometry: &Geometry,
        shape: &[usize],
        float: &[f32],
        quantized: &[f32],
    ) -> Result<Self, KernelError> {
        if float.len() != quantized.len() {
            return Err(KernelError::Shape { shape: shape.to_vec(), length: float.len() });
        }
        Self::new(geometry, shape, quantized.len())
    }

    /// How many positions a sample has.
    pub(super) fn positions(&self) -> usize {
        match self.view {
            View::Window(walk) => walk.positions(),
            View::Rows(rows) => rows,
        }
    }

    /// Where the columns of the batch's sample `at` stand, whose number among all samples is `first + at`. `keep` is asked
    /// of elements of the whole batch.
    pub(super) fn sites(
        &self,
        geometry: &Geometry,
        (first, at): (usize, usize),
        sampling: Sampling,
        keep: Option<Keep>,
    ) -> Sites {
        let channels = geometry.channels();
        let counting = keep.map(|keep| {
            let counts = |&position: &usize| keep(at * self.length + self.element(position, channels));
            (0..self.positions()).filter(counts).collect::<Vec<usize>>()
        });
        let count = counting.as_ref().map_or(self.positions(), Vec::len);
        let number = |nth: usize| counting.as_ref().map_or(nth, |list| list[nth]);
        let taken: Vec<usize> = sampling.positions(first + at, count).map(number).collect();
        match self.view {
            View::Rows(_) => {
                let indices: Vec<usize> = taken.iter().map(|p| p * channels).collect();
                Sites { count: indices.len(), taps: 1, plane: 1, indices, channels }
            }
            View::Window(walk) => {
                let of_tap = |tap| taken.iter().map(move |&p| walk.index(p, tap).unwrap_or(PADDING));
                let indices = (0..walk.taps()).flat_map(of_tap).collect();
                let plane = walk.input.iter().product();
                Sites { count: taken.len(), taps: walk.taps(), plane, indices, channels }
            }
        }
    }

    /// An element of a sample that stands for a position: of a window the one in its middle.
    fn element(&self, position: usize, channels: usize) -> usize {
        match self.view {
            View::Rows(_) => position * channels,
            View::Window(walk) => {
                let taps = walk.taps();
                let middle = walk.index(position, taps / 2);
                middle.or_else(|| (0..taps).find_map(|tap| walk.index(position, tap))).unwrap_or(0)
            }
        }
    }
}

impl Sites {
    /// Copies positions `from` to `from + count` of the columns to `rows`, whose row k begins at `k·stride`.
    pub(super) fn copy(&self, sample: &[f32], from: usize, count: usize, rows: &mut [f32], stride: usize) {
        for (row, target) in rows.chunks_mut(stride).take(self.channels * self.taps).enumerate() {
            let (channel, tap) = (row / self.taps, row % self.taps);
            let plane = &sample[channel * self.plane..];
            let indices = &self.indices[tap * self.count + from..][..count];
            for (to, &index) in target.iter_mut().zip(indices) {
                *to = plane.get(index).copied().unwrap_or(0.0);
            }
        }
    }
}

/// All columns of an activation.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfolded {
    /// Number of columns P.
    pub positions: usize,
    /// `[G·K, P]`, sample after sample along P.
    pub values: Vec<f32>,
}

impl Unfolded {
    /// Unfolds the positions taken of an activation whose first sample has the number `first`.
    pub fn new(
        geometry: &Geometry,
        activation: &[f32],
        shape: &[usize],
        first: usize,
        sampling: Sampling,
    ) -> Result<Self, KernelError> {
        let batch = Batch::new(geometry, shape, activation.len())?;
        let sites: Vec<Sites> = (0..batch.samples).map(|i| batch.sites(geometry, (first, i), sampling, None)).collect();
        let positions: usize = sites.iter().map(|s| s.count).sum();
        let mut values = vec![0.0; geometry.groups() * geometry.inputs() * positions];
        let mut at = 0;
        for (sites, sample) in sites.iter().zip(activation.chunks(batch.length.max(1))) {
            if sites.count > 0 {
                sites.copy(sample, 0, sites.count, &mut values[at..], positions);
                at += sites.count;
            }
        }
        Ok(Self { positions, values })
    }
}
