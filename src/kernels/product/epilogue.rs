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
    /// `x / (1 + exp(−x))`.
    Silu,
    /// `x · clamp(x + shift, low, high) · scale + offset`, the hard swish with 3, 0, 6, 1/6 and 0.
    Gate {
        /// What is added inside.
        shift: f32,
        /// The lower end.
        low: f32,
        /// The upper end.
        high: f32,
        /// The factor of the product.
        scale: f32,
        /// What is added at the end.
        offset: f32,
    },
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, simd: S, value: S::f32s) -> S::f32s {
        match self {
            Self::Identity => value,
            Self::Clamp { low, high } => clamp(simd, value, low, high),
            Self::Silu => {
                let below = simd.add_f32s(simd.splat_f32s(1.0), exp(simd, simd.neg_f32s(value)));
                simd.div_f32s(value, below)
            }
            Self::Gate { shift, low, high, scale, offset } => {
                let gate = clamp(simd, simd.add_f32s(value, simd.splat_f32s(shift)), low, high);
                simd.mul_add_f32s(simd.mul_f32s(value, gate), simd.splat_f32s(scale), simd.splat_f32s(offset))
            }
        }
    }
}

/// In this order the second operand is returned where it is not a number.
#[inline(always)]
fn clamp<S: Simd>(simd: S, value: S::f32s, low: f32, high: f32) -> S::f32s {
    simd.min_f32s(simd.splat_f32s(high), simd.max_f32s(simd.splat_f32s(low), value))
}

/// Exponents are cut off where powers of two leave the range of normal numbers.
const LARGEST_EXPONENT: f32 = 87.0;
/// Adding it leaves the nearest integer in the lowest bits.
const ROUNDING: f32 = 12_582_912.0;
/// ln 2 in two parts, the first of few enough bits that its multiples are exact.
const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
/// Of `(exp(r) − 1 − r) / r²` where `|r| ≤ ln 2 / 2`, highest power first (Cephes, `expf`).
const POLYNOMIAL: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// `exp(x) = 2^n · exp(r)`, `n` the integer nearest to `x / ln 2`; within two units in the last place.
#[inline(always)]
fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let x = clamp(simd, x, -LARGEST_EXPONENT, LARGEST_EXPONENT);
    let rounding = simd.splat_f32s(ROUNDING);
    let shifted = simd.mul_add_f32s(x, simd.splat_f32s(std::f32::consts::LOG2_E), rounding);
    let n = simd.sub_f32s(shifted, rounding);
    let mut r = x;
    for part in LN_2 {
        r = simd.mul_add_f32s(n, simd.splat_f32s(-part), r);
    }
    let mut sum = simd.splat_f32s(POLYNOMIAL[0]);
    for factor in &POLYNOMIAL[1..] {
        sum = simd.mul_add_f32s(sum, r, simd.splat_f32s(*factor));
    }
    let sum = simd.mul_add_f32s(simd.mul_f32s(r, r), sum, simd.add_f32s(r, simd.splat_f32s(1.0)));
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(sum), exponent))
}
