//! Elements of a tensor, wherever they are stored.
//!
//! A tensor's elements are in `raw_data`, little endian and packed, or in the typed field of its element type. This
//! module reads both as lanes: the numbers of an element, two for complex types, else one. A lane is a code of some
//! bits and a [`Kind`] that gives the code its meaning.

use bytes::Bytes;

use crate::ir::{DataType, TensorProto};

/// The meaning of the bits of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Two's complement.
    Signed,
    /// Unsigned integers, booleans, and the bits of floats of 8 bits and fewer.
    Unsigned,
    /// IEEE half precision.
    Half,
    /// bfloat16.
    Brain,
    /// IEEE single precision.
    Single,
    /// IEEE double precision.
    Double,
    /// Strings.
    Text,
}

/// How the elements of a type are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The meaning of a lane.
    pub(super) kind: Kind,
    /// Lanes per element.
    pub(super) lanes: usize,
    /// Bits per lane.
    pub(super) bits: usize,
}

impl Layout {
    pub(super) fn of(data_type: DataType) -> Self {
        let lanes = if matches!(data_type, DataType::Complex64 | DataType::Complex128) { 2 } else { 1 };
        let kind = match data_type {
            DataType::Int2 | DataType::Int4 | DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                Kind::Signed
            }
            DataType::Float16 => Kind::Half,
            DataType::Bfloat16 => Kind::Brain,
            DataType::Float | DataType::Complex64 => Kind::Single,
            DataType::Double | DataType::Complex128 => Kind::Double,
            DataType::String => Kind::Text,
            _ => Kind::Unsigned,
        };
        Self { kind, lanes, bits: data_type.bits().unwrap_or(0) / lanes }
    }

    /// The least and the greatest integer a lane of this layout holds.
    pub(super) fn integer_range(self) -> (i128, i128) {
        match self.kind {
            Kind::Signed => (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1),
            _ => (0, (1 << self.bits) - 1),
        }
    }

    /// Bytes that this many lanes take in `raw_data`.
    pub(super) fn raw_len(self, lanes: usize) -> Option<usize> {
        Some(lanes.checked_mul(self.bits)?.div_ceil(8))
    }

    fn element(self, code: u64) -> Element<'static> {
        match self.kind {
            Kind::Signed => {
                let shift = 64 - self.bits;
                Element::Integer(i128::from(((code << shift) as i64) >> shift))
            }
            Kind::Half => Element::Coded { code: code as u16, value: half::f16::from_bits(code as u16).to_f32() },
            Kind::Brain => Element::Coded { code: code as u16, value: half::bf16::from_bits(code as u16).to_f32() },
            Kind::Single => Element::Single(f32::from_bits(code as u32)),
            Kind::Double => Element::Double(f64::from_bits(code)),
            Kind::Unsigned | Kind::Text => Element::Integer(i128::from(code)),
        }
    }
}

/// A lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Element<'a> {
    /// An integer, or the bits of a float of 8 bits and fewer.
    Integer(i128),
    /// A float of 16 bits: the syntax writes its bits.
    Coded { code: u16, value: f32 },
    /// A float.
    Single(f32),
    /// A double.
    Double(f64),
    /// A string.
    Text(&'a [u8]),
}

/// The number of elements of a shape; `None` when an axis is negative or the product does not fit.
pub(super) fn element_count(dims: &[i64]) -> Option<usize> {
    if dims.contains(&0) {
        return dims.iter().all(|&dim| dim >= 0).then_some(0);
    }
    dims.iter().try_fold(1_usize, |count, &dim| count.checked_mul(usize::try_from(dim).ok()?))
}

enum Source<'a> {
    Raw(&'a [u8]),
    /// Integers that hold one lane each, or a byte of packed lanes.
    Int32(&'a [i32], bool),
    Int64(&'a [i64]),
    Uint64(&'a [u64]),
    Single(&'a [f32]),
    Double(&'a [f64]),
    Text(&'a [Bytes]),
}

/// The lanes of a tensor.
pub(super) struct Elements<'a> {
    layout: Layout,
    len: usize,
    source: Source<'a>,
}

impl<'a> Elements<'a> {
    /// The lanes of a tensor, or what is wrong with its data.
    pub(super) fn read(tensor: &'a TensorProto) -> Result<Self, String> {
        let data_type = tensor.data_type.and_then(DataType::from_number).ok_or("unknown element type")?;
        let layout = Layout::of(data_type);
        let count = element_count(&tensor.dims).ok_or("impossible shape")?;
        let len = count.checked_mul(layout.lanes).ok_or("impossible shape")?;
        let source = Source::of(tensor, layout, data_type);
        let (have, need) = source.extent(layout, len).ok_or("impossible shape")?;
        if have == need {
            return Ok(Self { layout, len, source });
        }
        let unit = if matches!(source, Source::Raw(_)) { "bytes" } else { "values" };
        Err(if have == 0 { "no data".to_owned() } else { format!("{have} {unit} of data where {need} are due") })
    }

    /// How the lanes are laid out.
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Whether all lanes have the same bits; not for strings.
    pub(super) fn is_uniform(&self) -> bool {
        (1..self.len).all(|index| self.code(index) == self.code(0))
    }

    /// How many lanes there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The lanes in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Element<'a>> + '_ {
        (0..self.len).map(|index| match self.source {
            Source::Text(strings) => Element::Text(&strings[index]),
            _ => self.layout.element(self.code(index)),
        })
    }

    /// The bits of a lane; `index` is below `len`, and `read` has checked that the source is long enough.
    fn code(&self, index: usize) -> u64 {
        let bits = self.layout.bits;
        match self.source {
            Source::Raw(bytes) => unpack(bits, index, |at| bytes[at]),
            Source::Int32(values, true) => unpack(bits, index, |at| values[at] as u8),
            Source::Int32(values, false) => u64::from(values[index] as u32) & (u64::MAX >> (64 - bits)),
            Source::Int64(values) => values[index] as u64,
            Source::Uint64(values) => values[index] & (u64::MAX >> (64 - bits)),
            Source::Single(values) => u64::from(values[index].to_bits()),
            Source::Double(values) => values[index].to_bits(),
            Source::Text(_) => 0,
        }
    }
}

impl<'a> Source<'a> {
    fn of(tensor: &'a TensorProto, layout: Layout, data_type: DataType) -> Self {
        let raw = tensor.raw_data.as_deref().filter(|raw| !raw.is_empty());
        match (raw, layout.kind) {
            (_, Kind::Text) => Self::Text(&tensor.string_data),
            (Some(raw), _) => Self::Raw(raw),
            (None, Kind::Single) => Self::Single(&tensor.float_data),
            (None, Kind::Double) => Self::Double(&tensor.double_data),
            (None, _) => match data_type {
                DataType::Int64 => Self::Int64(&tensor.int64_data),
                DataType::Uint32 | DataType::Uint64 => Self::Uint64(&tensor.uint64_data),
                // Six bits are the exception: one value per entry.
                _ => Self::Int32(&tensor.int32_data, layout.bits == 2 || layout.bits == 4),
            },
        }
    }

    /// The number of bytes or values present, and the number that `lanes` need.
    fn extent(&self, layout: Layout, lanes: usize) -> Option<(usize, usize)> {
        Some(match self {
            Self::Raw(bytes) => (bytes.len(), layout.raw_len(lanes)?),
            Self::Int32(values, true) => (values.len(), layout.raw_len(lanes)?),
            Self::Int32(values, false) => (values.len(), lanes),
            Self::Int64(values) => (values.len(), lanes),
            Self::Uint64(values) => (values.len(), lanes),
            Self::Single(values) => (values.len(), lanes),
            Self::Double(values) => (values.len(), lanes),
            Self::Text(values) => (values.len(), lanes),
        })
    }
}

/// Lane `index` of a little-endian bit stream, least significant bits first; lanes may straddle two bytes.
fn unpack(bits: usize, index: usize, byte: impl Fn(usize) -> u8) -> u64 {
    let first_bit = index * bits;
    let (first, last) = (first_bit / 8, (first_bit + bits - 1) / 8);
    let window = (first..=last).rev().fold(0_u64, |window, at| (window << 8) | u64::from(byte(at)));
    (window >> (first_bit % 8)) & (u64::MAX >> (64 - bits))
}

/// Builds `raw_data` lane by lane.
pub(super) struct Packer {
    bits: usize,
    bytes: Vec<u8>,
    pending: u64,
    pending_bits: usize,
}

impl Packer {
    pub(super) fn new(layout: Layout) -> Self {
        Self { bits: layout.bits, bytes: Vec::new(), pending: 0, pending_bits: 0 }
    }

    /// Appends the low bits of `code`.
    pub(super) fn push(&mut self, code: u64) {
        if self.bits >= 8 {
            self.bytes.extend(&code.to_le_bytes()[..self.bits / 8]);
            return;
        }
        self.pending |= (code & ((1 << self.bits) - 1)) << self.pending_bits;
        self.pending_bits += self.bits;
        if self.pending_bits >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.pending_bits -= 8;
        }
    }

    /// The bytes, the last one padded with zeros.
    pub(super) fn finish(mut self) -> Bytes {
        if self.pending_bits > 0 {
            self.bytes.push(self.pending as u8);
        }
        Bytes::from(self.bytes)
    }
}
