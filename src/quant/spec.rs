//! Which integers a grid has, and the scale and zero point that lay them over a range of reals.
//!
//! A range is widened to hold zero. Then, with `q_min` and `q_max` the ends of the integer interval:
//!
//! * asymmetric: `s = (r_max − r_min) / (q_max − q_min)` and `z = clip(round(q_min − r_min/s), q_min, q_max)`,
//!   equations (3) and (4) of the MSQ paper; (4) is written from the lower end, which is the same number by (3) and gives
//!   exactly `q_min` for ranges that start at zero, whatever the rounding of s;
//! * symmetric: `s = max(|r_min|, |r_max|) / q_max` and `z = 0`. The extra integer of a full interval such as −128 is
//!   reached by clipping only.
//!
//! The quotients are taken in double precision, so no range of finite floats overflows.

use msq_passes::ActivationGrid;
use serde::{Deserialize, Serialize};

use super::{Affine, QuantError};

/// The narrowest grid.
pub const MINIMUM_BITS: u8 = 2;
/// The widest grid of weights, and the widest of activations but for [`WIDE_BITS`].
pub const MAXIMUM_BITS: u8 = 8;
/// The grid of activations that integers of two bytes hold.
pub const WIDE_BITS: u8 = 16;

/// Grids reach no further than this, so that their outermost reals are finite floats.
pub(super) const LARGEST_MAGNITUDE: f32 = f32::MAX / 2.0;

/// An interval of real values, in the units of the tensor. `min ≤ max` where this crate makes one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The lower end.
    pub min: f32,
    /// The upper end.
    pub max: f32,
}

impl Range {
    /// The range from `min` to `max`.
    pub const fn new(min: f32, max: f32) -> Self {
        Self { min, max }
    }

    /// The largest magnitude in the range.
    pub fn absolute_maximum(self) -> f32 {
        self.min.abs().max(self.max.abs())
    }

    /// The smallest range that holds this one, and zero. NaN counts as zero; ends beyond
    /// half of the largest float are drawn in to it, so that the ends of any grid on the range are finite.
    #[must_use]
    pub fn with_zero(self) -> Self {
        let [first, second] = [self.min, self.max].map(|end| if end.is_nan() { 0.0 } else { end });
        // Adding zero turns −0 into 0.
        let min = first.min(second).clamp(-LARGEST_MAGNITUDE, 0.0) + 0.0;
        let max = first.max(second).clamp(0.0, LARGEST_MAGNITUDE) + 0.0;
        Self { min, max }
    }

    /// How far it extends.
    pub(crate) fn width(self) -> f32 {
        self.max - self.min
    }

    /// The smallest range that holds both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// The integer interval of a grid and whether its zero point is free; b stands for the bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GridKind {
    /// 0 to 2^b − 1, the zero point follows the range: activations on x86.
    Unsigned,
    /// −2^(b−1) to 2^(b−1) − 1, the zero point follows the range.
    Signed,
    /// −2^(b−1) to 2^(b−1) − 1 with zero point 0: activations on ARM and `TensorRT`.
    Symmetric,
    /// −(2^(b−1) − 1) to 2^(b−1) − 1 with zero point 0: weights.
    SymmetricNarrow,
}

impl From<ActivationGrid> for GridKind {
    fn from(grid: ActivationGrid) -> Self {
        match grid {
            ActivationGrid::Unsigned => Self::Unsigned,
            ActivationGrid::Signed => Self::Signed,
            ActivationGrid::Symmetric => Self::Symmetric,
        }
    }
}

/// A grid before its scale is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "UncheckedGridSpec")]
pub struct GridSpec {
    kind: GridKind,
    bits: u8,
}

/// [`GridSpec`] as read from a file.
#[derive(Deserialize)]
struct UncheckedGridSpec {
    kind: GridKind,
    bits: u8,
}

impl TryFrom<UncheckedGridSpec> for GridSpec {
    type Error = QuantError;

    fn try_from(spec: UncheckedGridSpec) -> Result<Self, QuantError> {
        Self::new(spec.kind, spec.bits)
    }
}

impl GridSpec {
    /// Unsigned activations, 0 to 255.
    pub const ACTIVATION_U8: Self = Self { kind: GridKind::Unsigned, bits: 8 };
    /// Symmetric activations, −128 to 127.
    pub const ACTIVATION_S8: Self = Self { kind: GridKind::Symmetric, bits: 8 };
    /// Symmetric weights, −127 to 127.
    pub const WEIGHT_S8: Self = Self { kind: GridKind::SymmetricNarrow, bits: 8 };

    /// A grid of `bits` bits, 2 to 8; of activations also 16.
    pub fn new(kind: GridKind, bits: u8) -> Result<Self, QuantError> {
        let wide = bits == WIDE_BITS && kind != GridKind::SymmetricNarrow;
        if wide || (MINIMUM_BITS..=MAXIMUM_BITS).contains(&bits) {
            Ok(Self { kind, bits })
        } else {
            Err(QuantError::UnsupportedBits { bits })
        }
    }

    /// The narrow symmetric grid of weights: −(2^(b−1) − 1) to 2^(b−1) − 1.
    pub fn weight(bits: u8) -> Result<Self, QuantError> {
        Self::new(GridKind::SymmetricNarrow, bits)
    }

    /// The unsigned grid of activations: 0 to 2^b − 1.
    pub fn activation(bits: u8) -> Result<Self, QuantError> {
        Self::new(GridKind::Unsigned, bits)
    }

    /// The kind of integer interval.
    pub const fn kind(self) -> GridKind {
        self.kind
    }

    /// The width in bits.
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Whether the zero point is always 0.
    pub const fn is_symmetric(self) -> bool {
        matches!(self.kind, GridKind::Symmetric | GridKind::SymmetricNarrow)
    }

    /// The smallest integer of the grid.
    pub const fn quantized_min(self) -> i32 {
        match self.kind {
            GridKind::Unsigned => 0,
            GridKind::Signed | GridKind::Symmetric => -(1 << (self.bits - 1)),
            GridKind::SymmetricNarrow => 1 - (1 << (self.bits - 1)),
        }
    }

    /// The largest integer of the grid.
    pub const fn quantized_max(self) -> i32 {
        match self.kind {
            GridKind::Unsigned => (1 << self.bits) - 1,
            GridKind::Signed | GridKind::Symmetric | GridKind::SymmetricNarrow => (1 << (self.bits - 1)) - 1,
        }
    }

    /// The grid laid over `range`, which is widened to hold zero first.
    ///
    /// The scale is always a positive normal float. A range of nothing but zero is treated as `[0, 1]`: any scale
    /// represents it, and one of this size keeps the int32 bias of the layer behind it fine enough.
    pub fn affine(self, range: Range) -> Affine {
        let Range { min, max } = range.with_zero();
        let (min, max) = if min == max { (0.0, 1.0) } else { (f64::from(min), f64::from(max)) };
        let (lowest, highest) = (self.quantized_min(), self.quantized_max());
        let (scale, zero_point) = if self.is_symmetric() {
            (normal_scale(max.max(-min) / f64::from(highest)), 0)
        } else {
            let scale = normal_scale((max - min) / f64::from(highest - lowest));
            let zero_point = (f64::from(lowest) - min / f64::from(scale)).round_ties_even() as i32;
            (scale, zero_point.clamp(lowest, highest))
        };
        Affine { scale, zero_point, quantized_min: lowest, quantized_max: highest }
    }
}

/// `scale` as the nearest positive normal float; the smallest one for NaN.
pub(crate) fn normal_scale(scale: f64) -> f32 {
    let scale = if scale.is_nan() { 0.0 } else { scale as f32 };
    scale.clamp(f32::MIN_POSITIVE, f32::MAX)
}

/// What a scale is before a factor is taken in; 0, no limit at all, for a factor of 0.
pub(crate) fn ratio(scale: f32, factor: f64) -> f32 {
    if factor > 0.0 { (f64::from(scale) / factor).min(f64::from(f32::MAX)) as f32 } else { 0.0 }
}
