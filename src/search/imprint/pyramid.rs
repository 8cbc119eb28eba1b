//! Activations to features of fixed size: (9) and (11).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Range;

use super::ImprintError;
use super::axis_map::{AxisMap, along};

/// The largest scale.
pub const MAX_SCALE: usize = 64;
/// The most spatial axes: those of a volume.
const MAX_AXES: usize = 3;

/// The scales that activations are pooled to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<usize>", into = "Vec<usize>")]
#[schemars(with = "Vec<usize>")]
pub struct Pyramid {
    scales: Vec<usize>,
}

/// Where the channels of an activation are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channels {
    /// `[1, C, …]`, as convolutions have them.
    #[default]
    First,
    /// `[1, …, C]`, as sequences `[1, T, C]` have them.
    Last,
}

/// Shapes of pooled maps, which say how features are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The shape of each scale, without the axis of samples.
    pub(super) shapes: Vec<Vec<usize>>,
    axes: Range<usize>,
    /// The extent every spatial axis is resized to.
    size: usize,
}

/// The features `e^d` of one sample at one layer, for every scale d, kept pooled.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    pub(super) layout: Layout,
    /// The pooled map of each scale.
    pub(super) maps: Vec<Vec<f32>>,
    /// The length of each resized map.
    pub(super) norms: Vec<f64>,
}

impl TryFrom<Vec<usize>> for Pyramid {
    type Error = ImprintError;

    fn try_from(scales: Vec<usize>) -> Result<Self, ImprintError> {
        Self::new(scales)
    }
}

impl From<Pyramid> for Vec<usize> {
    fn from(pyramid: Pyramid) -> Self {
        pyramid.scales
    }
}

impl Default for Pyramid {
    /// Scales 1, 2 and 4.
    fn default() -> Self {
        Self { scales: vec![1, 2, 4] }
    }
}

impl Pyramid {
    /// A pyramid of the given scales, each from 1 to [`MAX_SCALE`].
    pub fn new(scales: Vec<usize>) -> Result<Self, ImprintError> {
        if scales.is_empty() || scales.iter().any(|scale| !(1..=MAX_SCALE).contains(scale)) {
            return Err(ImprintError::Scales { scales });
        }
        Ok(Self { scales })
    }

    /// The scales, in the order of the features.
    pub fn scales(&self) -> &[usize] {
        &self.scales
    }

    /// Features of one sample's activation: `[1, C]`, or `[1, C, …]` and `[1, …, C]` with up to three spatial axes.
    ///
    /// At scale d each spatial axis, depth as well, is pooled to d bins, or kept where it is shorter, and resized
    /// linearly to the largest scale: bilinearly for an image. Without spatial axes the feature of every scale is the
    /// activation itself.
    pub fn features(&self, values: &[f32], shape: &[usize], channels: Channels) -> Result<Features, ImprintError> {
        let Some((1, sample @ [_, ..])) = shape.split_first() else { return Err(bad_shape(values, shape)) };
        let rank = sample.len();
        if rank > 1 + MAX_AXES || values.is_empty() || count(sample) != Some(values.len()) {
            return Err(bad_shape(values, shape));
        }
        let axes = match channels {
            Channels::First => 1..rank,
            Channels::Last => 0..rank - 1,
        };
        let size = self.scales.iter().copied().max().unwrap_or(1);
        let mut features = Features { layout: Layout { shapes: vec![], axes, size }, maps: vec![], norms: vec![] };
        let pooled = self.pooled(values, sample, &features.layout.axes);
        for (&scale, pooled) in self.scales.iter().zip(pooled) {
            features.push(scale, pooled, sample);
        }
        if features.norms.iter().any(|norm| !norm.is_finite()) {
            return Err(ImprintError::NonFinite);
        }
        Ok(features)
    }
}

impl Pyramid {
    /// The pooled map of each scale. Where bins of one scale are made up of equally large bins of another that divide
    /// every axis, they are means of those, not of all the values again.
    fn pooled(&self, values: &[f32], sample: &[usize], axes: &Range<usize>) -> Vec<Vec<f64>> {
        let pool = |values: &[f64], shape: &[usize], scale: usize| {
            along(values, shape, axes.clone(), |extent| AxisMap::pooling(extent, scale.min(extent)))
        };
        let finest = self.scales.iter().copied().max().unwrap_or(1);
        let divides = sample[axes.clone()].iter().all(|extent| extent.is_multiple_of(finest));
        let finest_map = along(values, sample, axes.clone(), |extent| AxisMap::pooling(extent, finest.min(extent)));
        let finest_shape = pooled_shape(sample, axes, finest);
        let of_scale = |&scale: &usize| {
            if scale == finest {
                finest_map.clone()
            } else if divides && finest.is_multiple_of(scale) {
                pool(&finest_map, &finest_shape, scale)
            } else {
                along(values, sample, axes.clone(), |extent| AxisMap::pooling(extent, scale.min(extent)))
            }
        };
        self.scales.iter().map(of_scale).collect()
    }
}

/// The shape of a sample whose axes are pooled to so many bins.
fn pooled_shape(sample: &[usize], axes: &Range<usize>, scale: usize) -> Vec<usize> {
    let mut shape = sample.to_vec();
    shape[axes.clone()].iter_mut().for_each(|extent| *extent = scale.min(*extent));
    shape
}

impl Features {
    /// Adds a scale.
    fn push(&mut self, scale: usize, pooled: Vec<f64>, sample: &[usize]) {
        let shape = pooled_shape(sample, &self.layout.axes, scale);
        let map: Vec<f32> = pooled.into_iter().map(|value| value as f32).collect();
        self.layout.shapes.push(shape);
        self.norms.push(self.layout.norm(self.maps.len(), &map));
        self.maps.push(map);
    }
}

impl Layout {
    /// `RᵀR·e` of a pooled map e: what a pooled map is multiplied with for the product of the two resized ones.
    pub(super) fn dual<T: Copy + Into<f64>>(&self, scale: usize, map: &[T]) -> Vec<f64> {
        along(map, &self.shapes[scale], self.axes.clone(), |extent| AxisMap::resizing(extent, self.size).gram())
    }

    /// |R·e| of a pooled map e.
    pub(super) fn norm<T: Copy + Into<f64>>(&self, scale: usize, map: &[T]) -> f64 {
        // Rounding may leave the square of a tiny length below zero; NaN must stay.
        let square = dot(map, &self.dual(scale, map));
        if square < 0.0 { 0.0 } else { square.sqrt() }
    }

    /// Declines features that were pooled to other shapes.
    pub(super) fn check(&self, found: &Self) -> Result<(), ImprintError> {
        if self == found {
            return Ok(());
        }
        Err(ImprintError::Layout { expected: self.shapes.clone(), found: found.shapes.clone() })
    }
}

/// The product of two vectors, summed in eight interleaved parts, which the compiler turns into vector adds; the order
/// is fixed.
pub(super) fn dot<T: Copy + Into<f64>>(a: &[T], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut parts = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        parts.iter_mut().zip(a.iter().zip(b)).for_each(|(part, (&a, b))| *part += a.into() * b);
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, b)| a.into() * b).sum();
    parts.iter().sum::<f64>() + rest
}

fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |count, &extent| count.checked_mul(extent))
}

fn bad_shape(values: &[f32], shape: &[usize]) -> ImprintError {
    ImprintError::Shape { shape: shape.to_vec(), length: values.len() }
}
