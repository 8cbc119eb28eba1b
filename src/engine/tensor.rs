//! Arrays in and out of tract.

use super::EngineError;
use crate::data::{Array, ArrayData};
use tract_onnx::prelude::{DatumType, IntoTensor, Tensor, tract_ndarray::ArrayD};

fn tensor<T: tract_onnx::prelude::Datum + Clone>(shape: &[usize], values: &[T]) -> Result<Tensor, EngineError> {
    let array = ArrayD::from_shape_vec(shape, values.to_vec()).map_err(EngineError::run)?;
    Ok(array.into_tensor())
}

/// An array as tract takes it.
pub(super) fn to_tract(array: &Array) -> Result<Tensor, EngineError> {
    let shape = array.shape();
    match array.data() {
        ArrayData::F32(v) => tensor(shape, v),
        ArrayData::F64(v) => tensor(shape, v),
        ArrayData::F16(v) => tensor(shape, v),
        ArrayData::I8(v) => tensor(shape, v),
        ArrayData::U8(v) => tensor(shape, v),
        ArrayData::I16(v) => tensor(shape, v),
        ArrayData::U16(v) => tensor(shape, v),
        ArrayData::I32(v) => tensor(shape, v),
        ArrayData::U32(v) => tensor(shape, v),
        ArrayData::I64(v) => tensor(shape, v),
        ArrayData::U64(v) => tensor(shape, v),
        ArrayData::Bool(v) => tensor(shape, v),
    }
}
