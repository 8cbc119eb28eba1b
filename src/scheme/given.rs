//! Applies encodings to a float model: the encoding of a tensor overrides calibration and the bit plan.
//!
//! * An activation with a quantizer of its own gets scale, zero point and bits. Unsigned and signed integers are the
//!   same grid with zero points 2^(b−1) apart. Where the target requires zero points of 0 and the encoding's is
//!   another, and where the quantizer replaces a clamp that the encoding exceeds, the target's grid is laid over the
//!   common range.
//! * A weight gets scales and bits. Its zero points must be 0, up to the one integer by which full and narrow grids
//!   differ, and its grid must leave scales free; otherwise only the bits are used.
//!
//! Names that the model does not have are errors. A warning names tensors that stay in float or share the parameters of
//! another tensor.

use super::SchemeError;
use super::encodings::{Encoding, Encodings};
use super::resolved::Scheme;
use crate::quant::weight_grid::WeightGrid;
use crate::quant::{GridSpec, Range, WIDE_BITS};
use crate::runtime::names;
use crate::scheme::bit_plan::{ActivationBits, BitPlan, WeightBits};
use msq_passes::analysis::{Layer, Placement, layers};
use msq_passes::ir::{Graph, Model, ValueId};
use msq_passes::{ActivationQuantizer, Profile, WideActivations};

/// Tensors that a warning names.
const NAMED: usize = 8;

impl Encodings {
    fn of(&self, graph: &Graph, value: ValueId) -> Option<&Encoding> {
        self.tensors.get(graph.value(value).name())
    }

    /// Names that the model does not have.
    pub(crate) fn unknown(&self, model: &Model) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).filter(|name| model.graph.find(name).is_none()).collect()
    }

    /// Bits of the values that have their own parameters.
    pub(crate) fn activation_bits(&self, graph: &Graph, placement: &Placement) -> Vec<(ValueId, u8)> {
        let given = |value| Some((value, self.of(graph, value)?.bits));
        placement.roots().filter_map(given).collect()
    }

    /// The plan with the bits of the encodings. Refuses impossible numbers.
    pub(crate) fn planned(&self, model: &Model, placement: &Placement, plan: &BitPlan) -> Result<BitPlan, SchemeError> {
        let fault = |(name, encoding): (&String, &Encoding)| Some(refused(name, &encoding.fault()?));
        if let Some(error) = self.tensors.iter().find_map(fault) {
            return Err(error);
        }
        let mut planned = plan.clone();
        for layer in layers(model) {
            let before = plan.layer(&layer.name).unwrap_or_default();
            let weight = self.of(&model.graph, layer.weight).filter(|_| before.weights != WeightBits::Float);
            let mut after = before;
            if let Some(weight) = weight.filter(|weight| before.weights.width() != weight.bits) {
                refuse_bits(model.graph.value(layer.weight).name(), weight)?;
                after = before.with_weight_bits(weight.bits);
            }
            if self.of(&model.graph, layer.weight).is_some() {
                // Its scales are one per channel or tensor.
                after = after.without_blocks();
            }
            let read = self.of(&model.graph, placement.root(layer.input));
            if let (Some(read), ActivationBits::Bits(_)) = (read, before.activations) {
                after.activations = ActivationBits::Bits(read.bits);
            }
            if after != before {
                planned.layers.insert(layer.name, after);
            }
        }
        Ok(planned)
    }

    /// Refuses encodings that no grid can represent, and warns of encodings that are not used.
    pub(super) fn check(&self, model: &Model, scheme: &Scheme) -> Result<(), SchemeError> {
        let mut unused = Vec::new();
        for (name, encoding) in &self.tensors {
            if !self.is_used(model, scheme, (name, encoding))? {
                unused.push(name);
            }
        }
        if !unused.is_empty() {
            let names = names::first(NAMED, &unused);
            tracing::warn!("encodings of {names} are not used: no quantizer of their own stands there");
        }
        Ok(())
    }

    fn is_used(
        &self,
        model: &Model,
        scheme: &Scheme,
        (name, encoding): (&str, &Encoding),
    ) -> Result<bool, SchemeError> {
        let Some(value) = model.graph.find(name) else { return Ok(false) };
        let count = encoding.scales.len();
        if let Some(&root) = scheme.placement.values.get(&value) {
            if root != value {
                return Ok(self.of(&model.graph, root) == Some(encoding));
            }
            refuse_activation(name, encoding, &scheme.target)?;
            return if count == 1 { Ok(true) } else { Err(refused(name, "an activation has one scale")) };
        }
        if let Some(layer) = scheme.layers().find(|layer| layer.weight == value) {
            let channels = layer.axis.map_or(1, |axis| layer.shape[axis]);
            if count != 1 && count != channels {
                let reason = format!("it has {count} scales, layer `{}` has {channels} channels", layer.name);
                return Err(refused(name, &reason));
            }
            if self.weight_scales(model, layer, scheme).is_none() {
                tracing::warn!(
                    "encodings of `{name}`: its grid differs from the plan's, so that only its bits are used"
                );
            }
            return Ok(true);
        }
        // The scales of biases follow from those of inputs and weights.
        Ok(layers(model).iter().any(|layer| layer.bias == Some(value)))
    }

    /// The parameters of a value that has its own, if an encoding gives them.
    pub(crate) fn quantizer(
        &self,
        model: &Model,
        placement: &Placement,
        value: ValueId,
        grid: GridSpec,
    ) -> Option<ActivationQuantizer> {
        let clamp = placement.is_clamped(&model.graph, value).then(|| {
            let bound = placement.bound_of(&model.graph, value);
            Range::new(0.0, bound.unwrap_or(f32::INFINITY))
        });
        self.of(&model.graph, value)?.on(grid, clamp)
    }

    /// The scales of a layer's weight, one per channel or one per tensor as the target requires, if an encoding gives
    /// them and they fit.
    pub(super) fn weight_scales(&self, model: &Model, layer: &Layer, scheme: &Scheme) -> Option<Vec<f32>> {
        let encoding = self.of(&model.graph, layer.weight)?;
        let plan = scheme.layer_plan(layer);
        let free = matches!(plan.weight_grid(), WeightGrid::Narrow | WeightGrid::Full);
        let half = if encoding.signed { 0 } else { encoding.half() };
        let centered = encoding.zero_points.iter().all(|zero_point| (zero_point - half).abs() <= 1);
        let channels = layer.axis.filter(|_| scheme.target.per_channel).map_or(1, |axis| layer.shape[axis]);
        let scales = match encoding.scales[..] {
            [scale] => vec![scale; channels],
            _ if encoding.scales.len() == channels => encoding.scales.clone(),
            _ => return None,
        };
        (free && centered && plan.weights.width() == encoding.bits).then_some(scales)
    }
}

/// Refuses names that the prepared model does not have either: equalization adds tensors.
pub(crate) fn refuse_unknown(unknown: &[&str], model: &Model) -> Result<(), SchemeError> {
    match unknown.iter().find(|name| model.graph.find(name).is_none()) {
        Some(name) => Err(refused(name, "the model has no such tensor")),
        None => Ok(()),
    }
}

impl Encoding {
    /// The encoding as a quantizer; where a grid has other bits, as where a layer quantizes the value again, that grid over
    /// the same range. `clamp` is the range to which the quantizer saturates.
    fn on(&self, grid: GridSpec, clamp: Option<Range>) -> Option<ActivationQuantizer> {
        let signed = grid.quantized_min() < 0;
        let shift = match (self.signed, signed) {
            (true, false) => self.half(),
            (false, true) => -self.half(),
            _ => 0,
        };
        let (&scale, zero_point) = (self.scales.first()?, self.zero_points.first()? + shift);
        let range = self.ranges().next()?;
        let kept = clamp.map_or(range, |clamp| Range::new(range.min.max(clamp.min), range.max.min(clamp.max)));
        if kept == range && self.bits == grid.bits() && (!grid.is_symmetric() || zero_point == 0) {
            return Some(ActivationQuantizer { scale, zero_point, signed, bits: self.bits });
        }
        let affine = grid.affine(kept);
        Some(ActivationQuantizer { scale: affine.scale, zero_point: affine.zero_point, signed, bits: grid.bits() })
    }
}

/// Refuses bits that activations of the target do not have.
fn refuse_activation(name: &str, encoding: &Encoding, target: &Profile) -> Result<(), SchemeError> {
    if encoding.bits != WIDE_BITS {
        return refuse_bits(name, encoding);
    }
    match target.wide_activations {
        WideActivations::Refused => {
            Err(refused(name, &format!("`{}` does not run activations of 16 bits", target.name)))
        }
        WideActivations::Float | WideActivations::Kernels => Ok(()),
    }
}

fn refuse_bits(name: &str, encoding: &Encoding) -> Result<(), SchemeError> {
    let bits = encoding.bits;
    if (2..=8).contains(&bits) {
        return Ok(());
    }
    Err(refused(name, &format!("{bits} bits are not supported, 2 to 8 are; leave it out to have it calibrated")))
}

fn refused(name: &str, reason: &str) -> SchemeError {
    SchemeError::EncodedTensor { tensor: name.to_owned(), reason: reason.to_owned() }
}
