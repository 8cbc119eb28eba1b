//! ONNX tensors as arrays, from `raw_data` or from the typed field of their element type.

use half::f16;
use msq_passes::ir::{DataType, TensorProto};

use super::array::{Array, ArrayData, count, width};

/// A tensor that has no array form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// A type that arrays do not have.
    #[error("elements of type {0} are not read")]
    ElementType(String),
    /// A negative or overflowing dimension.
    #[error("shape {0:?} is not valid")]
    Shape(Vec<i64>),
    /// The elements are in another file.
    #[error("its elements are in an external file, which is not read here")]
    External,
    /// The number of elements differs from the shape.
    #[error("shape {shape:?} wants {wanted} {unit}, there are {found}")]
    Length {
        /// The shape.
        shape: Vec<usize>,
        /// The number required by the shape.
        wanted: usize,
        /// `bytes` or `elements`.
        unit: &'static str,
        /// The number present.
        found: usize,
    },
    /// An element outside its type, in a typed field that is wider.
    #[error("an element of `int32_data` does not fit `{0}`")]
    Value(DataType),
}

impl TryFrom<&TensorProto> for Array {
    type Error = TensorError;

    fn try_from(tensor: &TensorProto) -> Result<Self, TensorError> {
        if tensor.data_location.unwrap_or(0) != 0 || !tensor.external_data.is_empty() {
            return Err(TensorError::External);
        }
        let number = tensor.data_type.unwrap_or(0);
        let dtype = DataType::from_number(number).ok_or_else(|| TensorError::ElementType(number.to_string()))?;
        let width = width(dtype).ok_or_else(|| TensorError::ElementType(format!("`{dtype}`")))?;
        let bad_shape = || TensorError::Shape(tensor.dims.clone());
        let shape: Vec<usize> =
            tensor.dims.iter().map(|&d| usize::try_from(d)).collect::<Result<_, _>>().map_err(|_| bad_shape())?;
        let elements = count(&shape).ok_or_else(bad_shape)?;
        let Some(raw) = &tensor.raw_data else { return typed(tensor, dtype, shape, elements) };
        let wanted = elements.checked_mul(width).ok_or_else(bad_shape)?;
        let length = TensorError::Length { shape: shape.clone(), wanted, unit: "bytes", found: raw.len() };
        Self::from_bytes(dtype, false, shape, raw).ok_or(length)
    }
}

/// The elements of the typed field. The format keeps integers up to 32 bits, bool and the bits of `float16` in
/// `int32_data`, and `uint32` in `uint64_data`.
fn typed(tensor: &TensorProto, dtype: DataType, shape: Vec<usize>, elements: usize) -> Result<Array, TensorError> {
    let narrow = |data: &[i32]| ArrayData::I32(data.to_vec());
    let data = match dtype {
        DataType::Float => ArrayData::F32(tensor.float_data.clone()),
        DataType::Double => ArrayData::F64(tensor.double_data.clone()),
        DataType::Int64 => ArrayData::I64(tensor.int64_data.clone()),
        DataType::Uint64 | DataType::Uint32 => ArrayData::U64(tensor.uint64_data.clone()),
        DataType::Float16 => ArrayData::F16(halves(&tensor.int32_data).ok_or(TensorError::Value(dtype))?),
        _ => narrow(&tensor.int32_data),
    };
    let found = data.len();
    let length = TensorError::Length { shape: shape.clone(), wanted: elements, unit: "elements", found };
    Array::new(shape, data).map_err(|_| length)?.cast(dtype).map_err(|_| TensorError::Value(dtype))
}

fn halves(bits: &[i32]) -> Option<Vec<f16>> {
    bits.iter().map(|&b| u16::try_from(b).ok().map(f16::from_bits)).collect()
}
