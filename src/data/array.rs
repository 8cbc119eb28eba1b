//! Arrays as the model takes them: a shape and typed elements, row-major.

use half::f16;
use msq_passes::ir::DataType;

use super::element::{Element, Number};

/// A dense row-major array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    data: ArrayData,
}

/// The elements of an [`Array`].
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum ArrayData {
    F32(Vec<f32>),
    F64(Vec<f64>),
    F16(Vec<f16>),
    I8(Vec<i8>),
    U8(Vec<u8>),
    I16(Vec<i16>),
    U16(Vec<u16>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    I64(Vec<i64>),
    U64(Vec<u64>),
    Bool(Vec<bool>),
}

/// Evaluates an expression with the typed vector of an [`ArrayData`].
macro_rules! with_elements {
    ($data:expr, $elements:ident => $body:expr) => {
        match $data {
            ArrayData::F32($elements) => $body,
            ArrayData::F64($elements) => $body,
            ArrayData::F16($elements) => $body,
            ArrayData::I8($elements) => $body,
            ArrayData::U8($elements) => $body,
            ArrayData::I16($elements) => $body,
            ArrayData::U16($elements) => $body,
            ArrayData::I32($elements) => $body,
            ArrayData::U32($elements) => $body,
            ArrayData::I64($elements) => $body,
            ArrayData::U64($elements) => $body,
            ArrayData::Bool($elements) => $body,
        }
    };
}

/// Like [`with_elements`], but the result is the vector of an [`ArrayData`] of the same type.
macro_rules! map_elements {
    ($data:expr, $elements:ident => $body:expr) => {
        match $data {
            ArrayData::F32($elements) => ArrayData::F32($body),
            ArrayData::F64($elements) => ArrayData::F64($body),
            ArrayData::F16($elements) => ArrayData::F16($body),
            ArrayData::I8($elements) => ArrayData::I8($body),
            ArrayData::U8($elements) => ArrayData::U8($body),
            ArrayData::I16($elements) => ArrayData::I16($body),
            ArrayData::U16($elements) => ArrayData::U16($body),
            ArrayData::I32($elements) => ArrayData::I32($body),
            ArrayData::U32($elements) => ArrayData::U32($body),
            ArrayData::I64($elements) => ArrayData::I64($body),
            ArrayData::U64($elements) => ArrayData::U64($body),
            ArrayData::Bool($elements) => ArrayData::Bool($body),
        }
    };
}

/// A shape and a number of elements that do not match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shape {shape:?} does not hold {elements} elements")]
pub struct LengthError {
    /// The shape.
    pub shape: Vec<usize>,
    /// The number of elements.
    pub elements: usize,
}

/// An element that another type cannot hold, or a type that no array has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value} does not fit `{dtype}`")]
pub struct CastError {
    /// The element, as text.
    pub value: String,
    /// The requested type.
    pub dtype: DataType,
}

/// The number of elements of a shape; `None` when it overflows.
pub(super) fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim))
}

/// Whether arrays of this element type exist.
pub(super) fn is_supported(dtype: DataType) -> bool {
    width(dtype).is_some()
}

/// Bytes per element; `None` for types that arrays cannot have.
pub(super) fn width(dtype: DataType) -> Option<usize> {
    Some(match dtype {
        DataType::Int8 | DataType::Uint8 | DataType::Bool => 1,
        DataType::Float16 | DataType::Int16 | DataType::Uint16 => 2,
        DataType::Float | DataType::Int32 | DataType::Uint32 => 4,
        DataType::Double | DataType::Int64 | DataType::Uint64 => 8,
        _ => return None,
    })
}

impl Array {
    /// An array of this shape; an error when the number of elements differs.
    pub fn new(shape: Vec<usize>, data: ArrayData) -> Result<Self, LengthError> {
        let elements = data.len();
        if count(&shape) == Some(elements) { Ok(Self { shape, data }) } else { Err(LengthError { shape, elements }) }
    }

    /// An array of `f32`.
    pub fn from_f32(shape: Vec<usize>, data: Vec<f32>) -> Result<Self, LengthError> {
        Self::new(shape, ArrayData::F32(data))
    }

    /// Decodes elements from their bytes. `None` when the type has no array form or the length is wrong.
    pub(super) fn from_bytes(dtype: DataType, big_endian: bool, shape: Vec<usize>, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != count(&shape)?.checked_mul(width(dtype)?)? {
            return None;
        }
        Self::new(shape, ArrayData::from_bytes(dtype, big_endian, bytes)?).ok()
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major.
    pub fn data(&self) -> &ArrayData {
        &self.data
    }

    /// The shape and the elements.
    pub fn into_parts(self) -> (Vec<usize>, ArrayData) {
        (self.shape, self.data)
    }

    /// The same elements in another shape.
    pub fn reshape(self, shape: Vec<usize>) -> Result<Self, LengthError> {
        Self::new(shape, self.data)
    }

    /// This array followed by another one along the first axis; the other axes and the type must be equal.
    pub(crate) fn concat(mut self, below: &Self) -> Result<Self, LengthError> {
        let refused = LengthError { shape: below.shape.clone(), elements: below.len() };
        let (Some((rows, row)), Some((more, row_below))) = (self.shape.split_first(), below.shape.split_first()) else {
            return Err(refused);
        };
        let shape = [&[rows + more], row].concat();
        if row != row_below || !self.data.append(&below.data) {
            return Err(refused);
        }
        Self::new(shape, self.data)
    }

    /// The element type.
    pub fn dtype(&self) -> DataType {
        self.data.dtype()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every element as `f32`, rounded where `f32` cannot hold it.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            ArrayData::F32(v) => v.clone(),
            ArrayData::U8(v) => v.iter().map(|&x| f32::from(x)).collect(),
            data => data.numbers().map(|n| n.real() as f32).collect(),
        }
    }

    /// The same values in another element type.
    ///
    /// Values do not change: a float becomes an integer only when it is whole, an integer must be in range, and a bool
    /// takes 0 and 1. Floats may round when they become narrower, but not to an infinity.
    pub fn cast(self, dtype: DataType) -> Result<Self, CastError> {
        if self.dtype() == dtype {
            return Ok(self);
        }
        let fits = !matches!(self.data, ArrayData::F64(_));
        let data =
            if fits && dtype == DataType::Float { ArrayData::F32(self.to_f32()) } else { self.data.cast(dtype)? };
        Ok(Self { shape: self.shape, data })
    }

    /// The elements that are whole numbers of 64 bits.
    pub(crate) fn integers(&self) -> impl Iterator<Item = i64> + '_ {
        self.data.numbers().filter_map(i64::from_number)
    }

    /// The first element that is NaN or infinite: its index and value.
    pub fn first_non_finite(&self) -> Option<(usize, f32)> {
        self.first_of(|value| !value.is_finite())
    }

    /// The first float of a kind: its index and value.
    pub(crate) fn first_of(&self, wanted: impl Fn(f32) -> bool) -> Option<(usize, f32)> {
        match &self.data {
            ArrayData::F32(v) => v.iter().copied().enumerate().find(|&(_, x)| wanted(x)),
            ArrayData::F16(v) => v.iter().map(|x| x.to_f32()).enumerate().find(|&(_, x)| wanted(x)),
            // A finite double may be an infinite float.
            ArrayData::F64(v) => {
                let float = |x: f64| if x.is_finite() { (x as f32).clamp(f32::MIN, f32::MAX) } else { x as f32 };
                v.iter().map(|&x| float(x)).enumerate().find(|&(_, x)| wanted(x))
            }
            _ => None,
        }
    }
}

impl ArrayData {
    /// The number of elements.
    pub fn len(&self) -> usize {
        with_elements!(self, v => v.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    pub fn dtype(&self) -> DataType {
        match self {
            Self::F32(_) => DataType::Float,
            Self::F64(_) => DataType::Double,
            Self::F16(_) => DataType::Float16,
            Self::I8(_) => DataType::Int8,
            Self::U8(_) => DataType::Uint8,
            Self::I16(_) => DataType::Int16,
            Self::U16(_) => DataType::Uint16,
            Self::I32(_) => DataType::Int32,
            Self::U32(_) => DataType::Uint32,
            Self::I64(_) => DataType::Int64,
            Self::U64(_) => DataType::Uint64,
            Self::Bool(_) => DataType::Bool,
        }
    }

    fn from_bytes(dtype: DataType, big_endian: bool, bytes: &[u8]) -> Option<Self> {
        Some(match dtype {
            DataType::Float => Self::F32(words(bytes, big_endian, f32::from_le_bytes)),
            DataType::Double => Self::F64(words(bytes, big_endian, f64::from_le_bytes)),
            DataType::Float16 => Self::F16(words(bytes, big_endian, f16::from_le_bytes)),
            DataType::Int8 => Self::I8(words(bytes, big_endian, i8::from_le_bytes)),
            DataType::Uint8 => Self::U8(bytes.to_vec()),
            DataType::Int16 => Self::I16(words(bytes, big_endian, i16::from_le_bytes)),
            DataType::Uint16 => Self::U16(words(bytes, big_endian, u16::from_le_bytes)),
            DataType::Int32 => Self::I32(words(bytes, big_endian, i32::from_le_bytes)),
            DataType::Uint32 => Self::U32(words(bytes, big_endian, u32::from_le_bytes)),
            DataType::Int64 => Self::I64(words(bytes, big_endian, i64::from_le_bytes)),
            DataType::Uint64 => Self::U64(words(bytes, big_endian, u64::from_le_bytes)),
            DataType::Bool => Self::Bool(bytes.iter().map(|&b| b != 0).collect()),
            _ => return None,
        })
    }

    /// The elements as little-endian bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I8(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U8(v) => v.clone(),
            Self::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::Bool(v) => v.iter().map(|&x| u8::from(x)).collect(),
        }
    }

    /// Appends the elements of `more`; returns false and changes nothing when they have another type.
    fn append(&mut self, more: &Self) -> bool {
        macro_rules! append {
            ($($variant:ident)*) => {
                match (self, more) {
                    $((Self::$variant(to), Self::$variant(from)) => to.extend_from_slice(from),)*
                    _ => return false,
                }
            };
        }
        append!(F32 F64 F16 I8 U8 I16 U16 I32 U32 I64 U64 Bool);
        true
    }

    /// Element `i` of the result is element `index(i)` of this array; indices past the end are skipped.
    pub(super) fn gather(&self, index: impl Fn(usize) -> usize) -> Self {
        map_elements!(self, v => (0..v.len()).filter_map(|i| v.get(index(i)).copied()).collect())
    }

    /// Every element, widened without loss (except for integers above 2^53 read as reals).
    pub(super) fn numbers(&self) -> Box<dyn Iterator<Item = Number> + '_> {
        with_elements!(self, v => Box::new(v.iter().map(|&x| x.number())))
    }

    /// `dtype` elements with the same values.
    fn cast(&self, dtype: DataType) -> Result<Self, CastError> {
        Ok(match dtype {
            DataType::Float => Self::F32(self.collect(dtype)?),
            DataType::Double => Self::F64(self.collect(dtype)?),
            DataType::Float16 => Self::F16(self.collect(dtype)?),
            DataType::Int8 => Self::I8(self.collect(dtype)?),
            DataType::Uint8 => Self::U8(self.collect(dtype)?),
            DataType::Int16 => Self::I16(self.collect(dtype)?),
            DataType::Uint16 => Self::U16(self.collect(dtype)?),
            DataType::Int32 => Self::I32(self.collect(dtype)?),
            DataType::Uint32 => Self::U32(self.collect(dtype)?),
            DataType::Int64 => Self::I64(self.collect(dtype)?),
            DataType::Uint64 => Self::U64(self.collect(dtype)?),
            DataType::Bool => Self::Bool(self.collect(dtype)?),
            _ => return Err(CastError { value: format!("`{}` data", self.dtype()), dtype }),
        })
    }

    fn collect<T: Element>(&self, dtype: DataType) -> Result<Vec<T>, CastError> {
        self.numbers().map(|n| T::from_number(n).ok_or_else(|| CastError { value: n.text(), dtype })).collect()
    }
}

/// Decodes fixed-width words. An incomplete last word is dropped; callers check the length.
fn words<T, const N: usize>(bytes: &[u8], big_endian: bool, decode: fn([u8; N]) -> T) -> Vec<T> {
    let (words, _) = bytes.as_chunks::<N>();
    let convert = |word: &[u8; N]| {
        let mut word = *word;
        if big_endian {
            word.reverse();
        }
        decode(word)
    };
    words.iter().map(convert).collect()
}
