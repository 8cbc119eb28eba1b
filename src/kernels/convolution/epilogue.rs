//! What becomes of a sum before it is written.

use pulp::Simd;

/// A function of every element of a layer's output.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Activation {
    /// The element itself.
    #[default]
    Identity,
    /// `min(max(x, low), high)`; what is not a number stays.
    Clamp {
        /// The lower end.
        low: f32,
        /// The upper end.
        high: f32,
    },
}

impl Activation {
    #[inline(always)]
    pub(super) fn apply<S: Simd>(self, simd: S, value: S::f32s) -> S::f32s {
        match self {
            Self::Identity => value,
            // In this order the second operand is returned where it is not a number.
            Self::Clamp { low, high } => {
                simd.min_f32s(simd.splat_f32s(high), simd.max_f32s(simd.splat_f32s(low), value))
            }
        }
    }
}
