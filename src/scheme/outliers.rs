//! Activations of which products read in float what the quantizer clips of a few channels.

use crate::quant::{GridSpec, Range};
use msq_passes::ActivationQuantizer;

/// Channels of an activation that its quantizer may clip, and the range that it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Outliers {
    /// Channels along the last axis, in ascending order.
    pub channels: Vec<usize>,
    /// What the other channels reach.
    pub range: Range,
}

impl Outliers {
    /// The quantizer of the activation.
    pub(crate) fn quantizer(&self, grid: GridSpec) -> ActivationQuantizer {
        let affine = grid.affine(self.range);
        let signed = grid.quantized_min() < 0;
        ActivationQuantizer { scale: affine.scale, zero_point: affine.zero_point, signed, bits: grid.bits() }
    }
}
