//! A quantizer and the dequantizer behind it as one operator.
//!
//! The engine runs `QuantizeLinear` and `DequantizeLinear` value by value through bytes. Where the bytes go nowhere else,
//!
//! `y = s·round(clamp(x/s, l − z, u − z))`, l to u the range of the byte,
//!
//! is the same number, since the ends are integers: one pass over floats. Rounding to even is done by adding and taking
//! away 1.5·2^23, which is exact for what is clamped so.
//!
//! tract 0.23 makes a table of 256 results of what lies between a dequantizer and a quantizer, if it keeps the axes, and
//! takes a Softmax for a function of single elements. So the dequantizers are operators of our own, which it leaves alone.

// Compiled into the function that chose the vectors.
#![allow(clippy::inline_always)]

use super::own::rewrite;
use crate::engine::EngineError;
use pulp::{Arch, Simd, WithSimd};
use tract_onnx::tract_core::internal::{Datum, DatumType, Tensor, TractResult, format_err};
use tract_onnx::tract_core::model::{TypedModel, TypedModelPatch, TypedNode};
use tract_onnx::tract_core::ops::element_wise::{ElementWiseMiniOp, ElementWiseOp};
use tract_onnx::tract_core::ops::quant::{DequantizeLinearF32, QuantizeLinearI8, QuantizeLinearU8};

/// 1.5·2^23: numbers of this size have no digits behind the point.
const NO_FRACTION: f32 = 12_582_912.0;

/// The operator.
#[derive(Clone, Debug, PartialEq)]
struct FakeQuantize {
    /// 1/s of the quantizer.
    inverse: f32,
    /// s of the dequantizer.
    scale: f32,
    /// l − z and u − z.
    low: f32,
    high: f32,
}

impl Eq for FakeQuantize {}

impl ElementWiseMiniOp for FakeQuantize {
    fn name(&self) -> String {
        "FakeQuantize".to_owned()
    }

    fn eval_in_place(&self, tensor: &mut Tensor, _: Option<DatumType>) -> TractResult<()> {
        let mut plain = tensor.try_as_plain_ram_mut()?;
        Arch::new().dispatch(Quantized { values: plain.as_slice_mut::<f32>()?, by: self });
        Ok(())
    }
}

/// Values to be quantized, with the vectors that the processor has. The result does not depend on them.
struct Quantized<'a> {
    values: &'a mut [f32],
    by: &'a FakeQuantize,
}

impl WithSimd for Quantized<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let &FakeQuantize { inverse, scale, low, high } = self.by;
        for value in self.values {
            // In this order NaN becomes the lower end.
            let clamped = (*value * inverse).max(low).min(high);
            *value = ((clamped + NO_FRACTION) - NO_FRACTION) * scale;
        }
    }
}

/// `y = (x − z)·s`, s a float and z an integer.
#[derive(Clone, Debug, PartialEq)]
struct Dequantize {
    scale: f32,
    zero_point: i32,
}

impl Eq for Dequantize {}

impl Dequantize {
    fn of<T: Datum + Copy + Into<i32>>(&self, integers: &Tensor) -> TractResult<Tensor> {
        let plain = integers.try_as_plain_ram()?;
        let float = |&x: &T| (x.into() - self.zero_point) as f32 * self.scale;
        let floats: Vec<f32> = plain.as_slice::<T>()?.iter().map(float).collect();
        Tensor::from_shape(integers.shape(), &floats)
    }
}

impl ElementWiseMiniOp for Dequantize {
    fn name(&self) -> String {
        "Dequantize".to_owned()
    }

    fn output_type(&self, _: DatumType) -> Option<DatumType> {
        Some(f32::datum_type())
    }

    fn eval_out_of_place(&self, tensor: &Tensor, _: Option<DatumType>) -> TractResult<Tensor> {
        match tensor.datum_type() {
            DatumType::U8 => self.of::<u8>(tensor),
            DatumType::I8 => self.of::<i8>(tensor),
            DatumType::I32 => self.of::<i32>(tensor),
            other => Err(format_err!("integers of type {other:?} are not dequantized")),
        }
    }
}

/// Replaces the dequantizers of a model that is not yet decluttered.
pub(super) fn replace(model: &mut TypedModel) -> Result<(), EngineError> {
    rewrite(model, "dequantize", |model, node, op: &DequantizeLinearF32| {
        let own = Dequantize { scale: op.scale, zero_point: op.zero_point };
        TypedModelPatch::replace_single_op(model, node, &node.inputs, ElementWiseOp(Box::new(own), None)).map(Some)
    })
}

/// Replaces pairs whose bytes nothing else reads.
pub(super) fn fuse(model: &mut TypedModel) -> Result<(), EngineError> {
    rewrite(model, "fake-quantize", fused)
}

fn fused(model: &TypedModel, node: &TypedNode, op: &ElementWiseOp) -> TractResult<Option<TypedModelPatch>> {
    let (inverse, zero_point, low, high) = if let Some(op) = op.0.downcast_ref::<QuantizeLinearU8>() {
        (op.scale, i32::from(op.zero_point), 0, 255)
    } else if let Some(op) = op.0.downcast_ref::<QuantizeLinearI8>() {
        (op.scale, i32::from(op.zero_point), -128, 127)
    } else {
        return Ok(None);
    };
    let float = model.outlet_fact(node.inputs[0])?.datum_type == f32::datum_type();
    let next = model.single_succ(node.id)?.filter(|_| float && !model.outputs.contains(&node.id.into()));
    let next = next.and_then(|next| next.op_as::<ElementWiseOp>());
    let Some(dequantizer) = next.and_then(|next| next.0.downcast_ref::<Dequantize>()) else { return Ok(None) };
    if dequantizer.zero_point != zero_point {
        return Ok(None);
    }
    let end = |end: i32| (end - zero_point) as f32;
    let fake = FakeQuantize { inverse, scale: dequantizer.scale, low: end(low), high: end(high) };
    TypedModelPatch::fuse_with_next(model, node, ElementWiseOp(Box::new(fake), None)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::tract_core::internal::tensor1;
    use tract_onnx::tract_core::ops::quant::{quantize_linear_f32_i8, quantize_linear_f32_u8};

    #[test]
    fn the_same_as_through_bytes() {
        let inverse = 1.0 / 0.037_f32;
        let mut values: Vec<f32> = (-40_000..40_000).map(|i| i as f32 * 0.000_37).collect();
        // Halfway between steps, at the ends, far out.
        values.extend((-300..300).map(|i| (i as f32 + 0.5) * 0.037));
        values.extend([0.0, -0.0, 1e9, -1e9, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE]);
        for zero_point in [0, 3, 128, 255] {
            let (low, high) = (-zero_point as f32, (255 - zero_point) as f32);
            let fake = FakeQuantize { inverse, scale: 0.037, low, high };
            let mut tensor = tensor1(&values);
            fake.eval_in_place(&mut tensor, None).unwrap();
            let found = tensor.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec();
            for (&value, found) in values.iter().zip(found) {
                // Beyond int32 the engine's own sum would overflow.
                let byte = quantize_linear_f32_u8(value.clamp(-1e6, 1e6), inverse, zero_point);
                assert_eq!(found, (i32::from(byte) - zero_point) as f32 * 0.037, "{value} {zero_point}");
            }
        }
        let fake = FakeQuantize { inverse, scale: 0.037, low: -128.0 - 7.0, high: 127.0 - 7.0 };
        let mut tensor = tensor1(&values);
        fake.eval_in_place(&mut tensor, None).unwrap();
        for (&value, &found) in values.iter().zip(tensor.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap()) {
            let byte = quantize_linear_f32_i8(value.clamp(-1e6, 1e6), inverse, 7);
            assert_eq!(found, (i32::from(byte) - 7) as f32 * 0.037, "{value}");
        }
    }
}
