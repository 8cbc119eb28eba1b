//! Reading and building tensor messages.

use super::{DataType, StringStringEntryProto, TensorProto};
use bytes::Bytes;
use half::{bf16, f16};

/// Why a tensor's elements cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorError {
    /// The element type is missing or unknown to the format.
    #[error("tensor `{name}`: element type {number} is not one of the format's")]
    UnknownType {
        /// The tensor.
        name: String,
        /// What the file says.
        number: i32,
    },
    /// A negative dimension, or more elements than fit in memory.
    #[error("tensor `{name}`: shape {dims:?} is not possible")]
    BadShape {
        /// The tensor.
        name: String,
        /// What the file says.
        dims: Vec<i64>,
    },
    /// The number of elements present differs from the shape.
    #[error("tensor `{name}`: shape {dims:?} of {element} needs {expected} elements, the file holds {found}")]
    WrongLength {
        /// The tensor.
        name: String,
        /// Its shape.
        dims: Vec<i64>,
        /// Its element type.
        element: DataType,
        /// Elements that the shape requires.
        expected: usize,
        /// Elements present.
        found: usize,
    },
    /// The caller cannot read this element type.
    #[error("tensor `{name}`: elements are {element}, {wanted} wanted")]
    WrongType {
        /// The tensor.
        name: String,
        /// Its element type.
        element: DataType,
        /// The types that the caller can read.
        wanted: &'static str,
    },
    /// The elements are in a file that has not been read.
    #[error("tensor `{name}`: its elements are in an external file that is not loaded")]
    External {
        /// The tensor.
        name: String,
    },
}

impl TensorProto {
    /// A tensor from its little-endian bytes.
    pub fn from_raw(name: &str, element: DataType, shape: &[usize], raw: impl Into<Bytes>) -> Self {
        Self {
            dims: shape.iter().map(|&n| n as i64).collect(),
            data_type: Some(element.number()),
            name: Some(name.to_owned()),
            raw_data: Some(raw.into()),
            ..Self::default()
        }
    }

    /// A float tensor.
    pub fn from_f32(name: &str, shape: &[usize], values: &[f32]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::from_raw(name, DataType::Float, shape, raw)
    }

    /// An int64 tensor.
    pub fn from_i64(name: &str, shape: &[usize], values: &[i64]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::from_raw(name, DataType::Int64, shape, raw)
    }

    /// An int32 tensor.
    pub fn from_i32(name: &str, shape: &[usize], values: &[i32]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::from_raw(name, DataType::Int32, shape, raw)
    }

    /// An int8 tensor.
    pub fn from_i8(name: &str, shape: &[usize], values: &[i8]) -> Self {
        let raw: Vec<u8> = values.iter().map(|v| v.to_le_bytes()[0]).collect();
        Self::from_raw(name, DataType::Int8, shape, raw)
    }

    /// A uint8 tensor.
    pub fn from_u8(name: &str, shape: &[usize], values: &[u8]) -> Self {
        Self::from_raw(name, DataType::Uint8, shape, values.to_vec())
    }

    /// The element type, if the format knows it.
    pub fn element_type(&self) -> Option<DataType> {
        self.data_type.and_then(DataType::from_number)
    }

    /// The shape, checked: no negative dimension, and an element count that fits.
    pub fn shape(&self) -> Result<Vec<usize>, TensorError> {
        let bad = || TensorError::BadShape { name: self.name().to_owned(), dims: self.dims.clone() };
        let shape = self.dims.iter().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>().map_err(|_| bad())?;
        // Callers count bits, of which the widest type has 128 per element. They also multiply only some of the axes,
        // so an axis of length 0 must not hide an overflow of the others.
        shape.iter().try_fold(128_usize, |n, &d| n.checked_mul(d.max(1))).ok_or_else(bad)?;
        Ok(shape)
    }

    /// Number of elements of the shape.
    pub fn element_count(&self) -> Result<usize, TensorError> {
        Ok(self.shape()?.iter().product())
    }

    /// Whether the elements are in a file beside the model.
    pub fn is_external(&self) -> bool {
        self.data_location == Some(1)
    }

    /// Says that the elements are `length` bytes from `offset` on in another file; those that are here are let go of.
    pub fn refer(&mut self, location: &str, offset: u64, length: usize) {
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
        self.external_data = vec![
            entry("location", location.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", length.to_string()),
        ];
        self.raw_data = None;
        self.data_location = Some(1);
    }

    /// Whether the elements are of a floating-point type that a weight can have.
    pub fn is_float(&self) -> bool {
        self.element_type().is_some_and(DataType::is_float)
    }

    /// Bytes of the elements in `raw_data` form; `None` for strings.
    pub fn byte_count(&self) -> Option<usize> {
        let bits = self.element_type()?.bits()?;
        Some((self.element_count().ok()? * bits).div_ceil(8))
    }

    /// The elements as `f32`; exact for float, float16 and bfloat16, rounded for double.
    pub fn to_f32(&self) -> Result<Vec<f32>, TensorError> {
        let element = self.readable()?;
        let values = match (element, &self.raw_data) {
            (DataType::Float, Some(raw)) => words(raw, f32::from_le_bytes),
            (DataType::Float, None) => self.float_data.clone(),
            (DataType::Double, Some(raw)) => words(raw, |b| f64::from_le_bytes(b) as f32),
            (DataType::Double, None) => self.double_data.iter().map(|&v| v as f32).collect(),
            (DataType::Float16, Some(raw)) => words(raw, |b| f16::from_le_bytes(b).to_f32()),
            (DataType::Float16, None) => self.int32_data.iter().map(|&v| f16::from_bits(v as u16).to_f32()).collect(),
            (DataType::Bfloat16, Some(raw)) => words(raw, |b| bf16::from_le_bytes(b).to_f32()),
            (DataType::Bfloat16, None) => self.int32_data.iter().map(|&v| bf16::from_bits(v as u16).to_f32()).collect(),
            _ => return Err(self.wrong_type(element, "a floating-point type")),
        };
        self.checked(element, values)
    }

    /// The elements of a double tensor.
    pub fn to_f64(&self) -> Result<Vec<f64>, TensorError> {
        let element = self.readable()?;
        let values = match (element, &self.raw_data) {
            (DataType::Double, Some(raw)) => words(raw, f64::from_le_bytes),
            (DataType::Double, None) => self.double_data.clone(),
            _ => return Err(self.wrong_type(element, "double")),
        };
        self.checked(element, values)
    }

    /// The elements of an integer or bool tensor as `i64`.
    pub fn to_i64(&self) -> Result<Vec<i64>, TensorError> {
        let element = self.readable()?;
        let values = match (element, &self.raw_data) {
            (DataType::Int64, Some(raw)) => words(raw, i64::from_le_bytes),
            (DataType::Int64, None) => self.int64_data.clone(),
            (DataType::Int32, Some(raw)) => words(raw, |b| i64::from(i32::from_le_bytes(b))),
            (DataType::Int16, Some(raw)) => words(raw, |b| i64::from(i16::from_le_bytes(b))),
            (DataType::Uint16, Some(raw)) => words(raw, |b| i64::from(u16::from_le_bytes(b))),
            (DataType::Uint32, Some(raw)) => words(raw, |b| i64::from(u32::from_le_bytes(b))),
            (DataType::Uint32, None) => self.uint64_data.iter().map(|&v| v as i64).collect(),
            (DataType::Int8, Some(raw)) => words(raw, |b| i64::from(i8::from_le_bytes(b))),
            (DataType::Uint8 | DataType::Bool, Some(raw)) => words(raw, |b: [u8; 1]| i64::from(b[0])),
            (
                DataType::Int32
                | DataType::Int16
                | DataType::Uint16
                | DataType::Int8
                | DataType::Uint8
                | DataType::Bool,
                None,
            ) => self.int32_data.iter().map(|&v| i64::from(v)).collect(),
            _ => return Err(self.wrong_type(element, "an integer type of at least 8 bits")),
        };
        self.checked(element, values)
    }

    /// The element of a float tensor with exactly one.
    pub fn scalar_f32(&self) -> Option<f32> {
        (self.element_count() == Ok(1)).then(|| self.to_f32().ok()?.first().copied()).flatten()
    }

    /// A tensor of the same name and floating-point type with the given elements, rounded to that type.
    #[must_use]
    pub fn with_f32(&self, shape: &[usize], values: &[f32]) -> Self {
        let raw: Vec<u8> = match self.element_type() {
            Some(DataType::Float16) => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            Some(DataType::Bfloat16) => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            Some(DataType::Double) => values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
            _ => return Self::from_f32(self.name(), shape, values),
        };
        Self::from_raw(self.name(), self.element_type().unwrap_or(DataType::Float), shape, raw)
    }

    fn readable(&self) -> Result<DataType, TensorError> {
        if self.is_external() {
            return Err(TensorError::External { name: self.name().to_owned() });
        }
        self.element_type().ok_or_else(|| TensorError::UnknownType {
            name: self.name().to_owned(),
            number: self.data_type.unwrap_or(0),
        })
    }

    fn wrong_type(&self, element: DataType, wanted: &'static str) -> TensorError {
        TensorError::WrongType { name: self.name().to_owned(), element, wanted }
    }

    fn checked<T>(&self, element: DataType, values: Vec<T>) -> Result<Vec<T>, TensorError> {
        let expected = self.element_count()?;
        if values.len() == expected {
            return Ok(values);
        }
        let (name, dims) = (self.name().to_owned(), self.dims.clone());
        Err(TensorError::WrongLength { name, dims, element, expected, found: values.len() })
    }
}

/// Little-endian words of `N` bytes; an incomplete last word is dropped and shows as a wrong length.
fn words<const N: usize, T>(raw: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks::<N>().0.iter().map(|&word| decode(word)).collect()
}
