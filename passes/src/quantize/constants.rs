//! Constants as integers.

use crate::ir::TensorProto;
use crate::pass::PassError;
use crate::quantize::ActivationQuantizer;

/// The integers q ≈ v/u of values v in units u, which are repeated as often as it takes; nothing where a unit is subnormal
/// or a sum with such an integer may not fit 32 bits.
pub(super) fn in_units(values: &[f32], units: &[f64]) -> Option<Vec<i32>> {
    let integers = values.iter().zip(units.iter().cycle()).map(|(&value, unit)| (f64::from(value) / unit).round());
    let integers: Vec<f64> = integers.collect();
    let fits = |v: &f64| v.abs() < f64::from(1 << 30);
    let fit = integers.iter().all(fits) && units.iter().all(|&unit| (unit as f32).is_normal());
    fit.then(|| integers.into_iter().map(|v| v as i32).collect())
}

/// A constant operand on the integers of its quantizer: q = saturate(round(x/s) + z), ties to even, as
/// `QuantizeLinear` does it.
pub(super) fn quantize_constant(
    tensor: &TensorProto,
    name: &str,
    quantizer: ActivationQuantizer,
) -> Result<TensorProto, PassError> {
    let values = tensor.to_f32()?;
    let (low, high) = quantizer.interval();
    let integers: Vec<i32> = values
        .iter()
        .map(|v| (v / quantizer.scale).round_ties_even() as i32)
        .map(|q| q.saturating_add(quantizer.zero_point).clamp(low, high))
        .collect();
    Ok(quantizer.tensor(name, &tensor.shape()?, &integers))
}
