//! How a layer is to be rounded, and the result.

use super::{LayerStatistics, Solver};
use crate::quant::{Affine, Granularity, Sqnr};
use crate::scheme::bit_plan::LayerPlan;
use msq_passes::analysis::ChannelAffine;
use msq_passes::{BiasForm, QuantizedLayer};

/// How a layer is rounded.
// The flags are independent of each other.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounding<'a> {
    /// Bits and grid of the weights.
    pub plan: LayerPlan,
    /// How much of the weight shares a scale. Weights without an axis of channels have one scale.
    pub granularity: Granularity,
    /// Whether scales are rounded to half precision.
    pub half_scales: bool,
    /// Whether the bias takes back what rounding does to the mean of the layer's output.
    pub bias_correction: bool,
    /// Seed of whatever is drawn at random.
    pub seed: u64,
    /// The grid of the bias.
    pub bias: BiasForm,
    /// Whether a bias on the grid of int32 is written as the floats it stands for: a runtime that rounds biases by
    /// itself finds the same integers, and one that does not adds the same numbers.
    pub bias_as_floats: bool,
    /// The batch-norm the layer takes in.
    pub affine: Option<&'a ChannelAffine>,
    /// The solver.
    pub solver: &'a dyn Solver,
    /// The statistics that the solver needs of the layer's input; `None` where there are none.
    pub statistics: Option<&'a LayerStatistics>,
    /// Whether a `Relu` or a clip at zero follows the layer.
    pub rectified: bool,
    /// Scales that the weight has to have, one per channel or one for all; `None` where they are free.
    pub scales: Option<&'a [f32]>,
    /// Least scales that other layers with the same weight need, one per channel; empty where there are none.
    pub least: &'a [f32],
}

/// A layer with integer weights, and how close they are.
#[derive(Clone, Debug)]
pub(crate) struct Rounded {
    /// Integers, scales, bias.
    pub layer: QuantizedLayer,
    /// Floats of half precision that a runtime which rounds biases by itself rounds to the bias.
    pub half_bias: Option<Vec<f32>>,
    /// Weights against their rounding error.
    pub weight_sqnr: Sqnr,
    /// What the layer computes against its error, where the solver knows.
    pub output_sqnr: Option<Sqnr>,
    /// The scale that the layer's input has to have, where that is another than before.
    pub input_scale: Option<f32>,
    /// Whether the solver was worse than rounding to nearest on held-out samples, so that this is rounded to nearest.
    pub fell_back: bool,
    /// Why the solver could not take the layer, so that it is rounded to nearest; `None` where it could.
    pub unsolved: Option<String>,
}

/// The input and the output of a layer, as far as rounding depends on them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerInput<'a> {
    /// Scale of the quantizer of the input; 1 where it has none.
    pub scale: f32,
    /// The quantizer of the input, where its scale may be changed.
    pub quantizer: Option<Affine>,
    /// Mean of each channel of the input; empty if not known.
    pub means: &'a [f64],
    /// Scale of the quantizer of the output, where it has one.
    pub output_scale: Option<f32>,
}
