//! Arrays in and out of tract.

use crate::data::{Array, ArrayData};
use crate::engine::{EngineError, Value};
use msq_passes::ir::DataType;
use tract_onnx::prelude::{Datum, DatumType, IntoTensor, TDim, TValue, Tensor, tract_ndarray::ArrayD};

/// Element types both sides know.
const TYPES: [(DataType, DatumType); 12] = [
    (DataType::Float, DatumType::F32),
    (DataType::Double, DatumType::F64),
    (DataType::Float16, DatumType::F16),
    (DataType::Int8, DatumType::I8),
    (DataType::Uint8, DatumType::U8),
    (DataType::Int16, DatumType::I16),
    (DataType::Uint16, DatumType::U16),
    (DataType::Int32, DatumType::I32),
    (DataType::Uint32, DatumType::U32),
    (DataType::Int64, DatumType::I64),
    (DataType::Uint64, DatumType::U64),
    (DataType::Bool, DatumType::Bool),
];

pub(super) fn datum_type(element: DataType) -> Option<DatumType> {
    TYPES.iter().find(|(ours, _)| *ours == element).map(|&(_, theirs)| theirs)
}

/// Dimensions, which tract computes with symbolically, are int64 in ONNX.
pub(super) fn data_type(datum: DatumType) -> Option<DataType> {
    if datum == TDim::datum_type() {
        return Some(DataType::Int64);
    }
    TYPES.iter().find(|(_, theirs)| *theirs == datum).map(|&(ours, _)| ours)
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

fn tensor<T: Datum + Clone>(shape: &[usize], values: &[T]) -> Result<Tensor, EngineError> {
    let array = ArrayD::from_shape_vec(shape, values.to_vec()).map_err(EngineError::run)?;
    Ok(array.into_tensor())
}

fn elements<T: Datum + Clone>(tensor: &Tensor) -> Result<Vec<T>, EngineError> {
    let plain = tensor.try_as_plain_ram().map_err(EngineError::run)?;
    Ok(plain.as_slice::<T>().map_err(EngineError::run)?.to_vec())
}

/// One output of a run, shared with the session that made it.
#[derive(Debug)]
pub(super) struct TractValue(pub(super) TValue);

impl Value for TractValue {
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn as_f32(&self) -> Option<&[f32]> {
        self.0.try_as_plain_ram().ok()?.as_slice::<f32>().ok()
    }

    fn to_array(&self) -> Result<Array, EngineError> {
        let unknown = || EngineError::Run { reason: format!("no array holds {:?}", self.0.datum_type()) };
        let element = data_type(self.0.datum_type()).ok_or_else(unknown)?;
        let datum = datum_type(element).ok_or_else(unknown)?;
        let cast = self.0.cast_to_dt(datum).map_err(EngineError::run)?;
        let data = match element {
            DataType::Float => ArrayData::F32(elements(&cast)?),
            DataType::Double => ArrayData::F64(elements(&cast)?),
            DataType::Float16 => ArrayData::F16(elements(&cast)?),
            DataType::Int8 => ArrayData::I8(elements(&cast)?),
            DataType::Uint8 => ArrayData::U8(elements(&cast)?),
            DataType::Int16 => ArrayData::I16(elements(&cast)?),
            DataType::Uint16 => ArrayData::U16(elements(&cast)?),
            DataType::Int32 => ArrayData::I32(elements(&cast)?),
            DataType::Uint32 => ArrayData::U32(elements(&cast)?),
            DataType::Int64 => ArrayData::I64(elements(&cast)?),
            DataType::Uint64 => ArrayData::U64(elements(&cast)?),
            DataType::Bool => ArrayData::Bool(elements(&cast)?),
            _ => return Err(unknown()),
        };
        Array::new(self.shape().to_vec(), data).map_err(EngineError::run)
    }

    fn to_f32(&self) -> Result<Vec<f32>, EngineError> {
        let cast = self.0.cast_to::<f32>().map_err(EngineError::run)?;
        let plain = cast.try_as_plain_ram().map_err(EngineError::run)?;
        Ok(plain.as_slice::<f32>().map_err(EngineError::run)?.to_vec())
    }
}
