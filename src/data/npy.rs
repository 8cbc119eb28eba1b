//! The `.npy` form of `NumPy`: the header, and rows read at their offsets.
//!
//! An array in Fortran order is brought into rows once, in an unnamed temporary file: its rows lie scattered over all of it.
//!
//! The header is a Python dictionary with three fixed keys. It is parsed without recursion and with checked sizes,
//! because calibration files may be untrusted: no header makes the reader overflow, recurse or allocate by an unchecked
//! number.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use msq_passes::ir::DataType;

use super::array::{Array, count, width};
use super::error::{DataError, NpyError, Place, ShapeText};
use super::positional::PositionalFile;
use super::temporary::Spool;

/// The longest header read; `NumPy` itself stops at 10,000 characters.
const HEADER_LIMIT: usize = 1 << 20;
/// The largest array read: more is a broken or hostile header.
const SIZE_LIMIT: u64 = 64 << 30;
/// Bytes of rows that are brought into order at a time.
const BAND: usize = 64 << 20;

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) dtype: DataType,
    pub(super) big_endian: bool,
    pub(super) shape: Vec<usize>,
    /// Whether the first axis varies fastest.
    fortran: bool,
    /// Offset of the first element.
    pub(super) data_start: u64,
    /// Bytes of one element.
    width: usize,
}

impl Header {
    /// Reads a header; the reader is left at the first element.
    pub(super) fn read(reader: &mut impl Read) -> Result<Self, NpyError> {
        let mut fixed = [0; 8];
        read_header_bytes(reader, &mut fixed)?;
        let [0x93, b'N', b'U', b'M', b'P', b'Y', major, minor] = fixed else { return Err(NpyError::NotNpy) };
        let (length, prefix) = match (major, minor) {
            (1, 0) => {
                let mut length = [0; 2];
                read_header_bytes(reader, &mut length)?;
                (usize::from(u16::from_le_bytes(length)), 10)
            }
            (2 | 3, 0) => {
                let mut length = [0; 4];
                read_header_bytes(reader, &mut length)?;
                (u32::from_le_bytes(length) as usize, 12)
            }
            _ => return Err(NpyError::Version(major, minor)),
        };
        if length > HEADER_LIMIT {
            return Err(NpyError::HeaderLength(length));
        }
        let mut text = vec![0; length];
        read_header_bytes(reader, &mut text)?;
        parse(&String::from_utf8_lossy(&text), prefix + length as u64)
    }

    /// Bytes of all the elements.
    pub(super) fn payload(&self) -> Result<u64, NpyError> {
        let bytes = count(&self.shape).and_then(|n| n.checked_mul(self.width)).map(|n| n as u64);
        bytes.filter(|&n| n <= SIZE_LIMIT).ok_or_else(|| NpyError::TooLarge(ShapeText::of(&self.shape)))
    }

    /// Refuses data of another length than the header declares.
    pub(super) fn check_payload(&self, found: u64) -> Result<(), NpyError> {
        let wanted = self.payload()?;
        match found.cmp(&wanted) {
            std::cmp::Ordering::Less => Err(NpyError::Truncated { found, wanted }),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(NpyError::TooLong { found, wanted }),
        }
    }
}

/// Like `read_exact`, but a file that ends inside its header is not an `.npy` file.
fn read_header_bytes(reader: &mut impl Read, bytes: &mut [u8]) -> Result<(), NpyError> {
    reader.read_exact(bytes).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => NpyError::NotNpy,
        _ => NpyError::Read(e),
    })
}

/// The dictionary `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, keys in any order.
fn parse(text: &str, data_start: u64) -> Result<Header, NpyError> {
    let mut cursor = Cursor { rest: text };
    let (mut element, mut fortran, mut shape) = (None, None, None);
    cursor.expect('{')?;
    while !cursor.take('}') {
        let key = cursor.string()?;
        cursor.expect(':')?;
        match key {
            "descr" if cursor.peek() == Some('[') => return Err(NpyError::ElementType("record".to_owned())),
            "descr" => element = Some(element_type(cursor.string()?)?),
            "fortran_order" => fortran = Some(cursor.boolean()?),
            "shape" => shape = Some(cursor.tuple()?),
            _ => return Err(NpyError::Header(key.to_owned())),
        }
        if !cursor.take(',') && cursor.peek() != Some('}') {
            return Err(cursor.error());
        }
    }
    let (Some((dtype, big_endian)), Some(fortran), Some(shape)) = (element, fortran, shape) else {
        return Err(NpyError::Header("a missing key".to_owned()));
    };
    // The order has no meaning for one axis, and NumPy writes either.
    let fortran = fortran && shape.len() > 1;
    let width = width(dtype).ok_or_else(|| NpyError::ElementType(dtype.to_string()))?;
    let header = Header { dtype, big_endian, shape, fortran, data_start, width };
    header.payload()?;
    Ok(header)
}

/// The type string of `NumPy`: byte order, kind, bytes.
fn element_type(text: &str) -> Result<(DataType, bool), NpyError> {
    let (big_endian, kind) = match text.as_bytes().first() {
        Some(b'>') => (true, &text[1..]),
        Some(b'<' | b'|' | b'=') => (false, &text[1..]),
        _ => (false, text),
    };
    let dtype = match kind {
        "f2" => DataType::Float16,
        "f4" => DataType::Float,
        "f8" => DataType::Double,
        "i1" => DataType::Int8,
        "i2" => DataType::Int16,
        "i4" => DataType::Int32,
        "i8" => DataType::Int64,
        "u1" => DataType::Uint8,
        "u2" => DataType::Uint16,
        "u4" => DataType::Uint32,
        "u8" => DataType::Uint64,
        "b1" | "?" => DataType::Bool,
        _ if kind.starts_with('O') => return Err(NpyError::Objects),
        _ => return Err(NpyError::ElementType(text.to_owned())),
    };
    Ok((dtype, big_endian))
}

/// A reader of the few Python literals that headers use.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        self.peek();
        let Some(rest) = self.rest.strip_prefix(wanted) else { return false };
        self.rest = rest;
        true
    }

    fn expect(&mut self, wanted: char) -> Result<(), NpyError> {
        if self.take(wanted) { Ok(()) } else { Err(self.error()) }
    }

    fn string(&mut self) -> Result<&'a str, NpyError> {
        let quote = self.peek().filter(|c| matches!(c, '\'' | '"')).ok_or_else(|| self.error())?;
        let (text, rest) = self.rest.get(1..).and_then(|r| r.split_once(quote)).ok_or_else(|| self.error())?;
        self.rest = rest;
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool, NpyError> {
        self.peek();
        let (value, rest) = match (self.rest.strip_prefix("True"), self.rest.strip_prefix("False")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(self.error()),
        };
        self.rest = rest;
        Ok(value)
    }

    fn tuple(&mut self) -> Result<Vec<usize>, NpyError> {
        self.expect('(')?;
        let mut items = Vec::new();
        while !self.take(')') {
            items.push(self.integer()?);
            if !self.take(',') && self.peek() != Some(')') {
                return Err(self.error());
            }
        }
        Ok(items)
    }

    /// A length; Python 2 wrote them with an `L`.
    fn integer(&mut self) -> Result<usize, NpyError> {
        self.peek();
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let value = digits.parse().map_err(|_| self.error())?;
        self.rest = rest.strip_prefix('L').unwrap_or(rest);
        Ok(value)
    }

    fn error(&self) -> NpyError {
        NpyError::Header(self.rest.trim().chars().take(24).collect())
    }
}

/// Where element `place` of an array in C order lies in Fortran order.
fn fortran_offset(mut place: usize, axes: &[usize]) -> usize {
    let mut offset = 0;
    let mut stride: usize = axes.iter().product();
    for &axis in axes.iter().rev() {
        stride /= axis;
        offset += place % axis * stride;
        place /= axis;
    }
    offset
}

/// An array on disk whose first axis counts rows, read a few rows at a time.
#[derive(Debug)]
pub(super) struct Rows {
    file: PositionalFile,
    start: u64,
    header: Header,
    place: Place,
}

impl Rows {
    /// The array of an `.npy` file.
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let place = Place::file(path);
        let io_error = |source| DataError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io_error)?;
        let length = file.metadata().map_err(io_error)?.len();
        let npy = |reason| DataError::npy(&place, reason);
        let header = Header::read(&mut file).map_err(npy)?;
        header.check_payload(length.saturating_sub(header.data_start)).map_err(npy)?;
        Self::new(file, header.data_start, header, place.clone()).map_err(npy)
    }

    /// Elements that start at `start` of `file`; the caller checked that they are all there.
    pub(super) fn new(file: File, start: u64, header: Header, place: Place) -> Result<Self, NpyError> {
        let rows = Self { file: PositionalFile::new(file), start, header, place };
        if rows.header.fortran { rows.ordered(BAND) } else { Ok(rows) }
    }

    /// The rows of an array in Fortran order, one after the other in a temporary file. As many are written at a time as take
    /// `band` bytes.
    fn ordered(self, band: usize) -> Result<Self, NpyError> {
        let Header { ref shape, width, .. } = self.header;
        let (count, axes) = (shape[0], &shape[1..]);
        let places: usize = axes.iter().product();
        let mut spool = Spool::new()?;
        let rows_at_once = (band / (places * width).max(1)).clamp(1, count.max(1));
        let mut first = 0;
        while first < count && places > 0 {
            let rows = rows_at_once.min(count - first);
            let mut ordered = vec![0; rows * places * width];
            let mut column = vec![0; rows * width];
            for place in 0..places {
                let offset = fortran_offset(place, axes) * count + first;
                self.file.read_exact_at(&mut column, self.start + (offset * width) as u64)?;
                for (row, element) in column.chunks_exact(width).enumerate() {
                    let at = (row * places + place) * width;
                    ordered[at..at + width].copy_from_slice(element);
                }
            }
            spool.write_all(&ordered)?;
            first += rows;
        }
        let file = spool.finish()?;
        let header = Header { fortran: false, ..self.header };
        Ok(Self { file: PositionalFile::new(file), start: 0, header, place: self.place })
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.header.shape
    }

    pub(super) fn dtype(&self) -> DataType {
        self.header.dtype
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The whole array.
    pub(super) fn read_all(&self) -> Result<Array, DataError> {
        self.read_elements(0, self.header.shape.clone())
    }

    /// Rows `first .. first + rows`, the first axis kept.
    pub(super) fn read(&self, first: usize, rows: usize) -> Result<Array, DataError> {
        let mut shape = self.header.shape.clone();
        let Some(axis) = shape.first_mut() else { return self.read_all() };
        let end = first.checked_add(rows).filter(|end| end <= axis);
        end.ok_or(DataError::OutOfRange { index: first, len: *axis })?;
        *axis = rows;
        let row: usize = shape.iter().skip(1).product();
        self.read_elements(first * row, shape)
    }

    /// The product of `shape` and the offset are within the payload, which was checked.
    fn read_elements(&self, first: usize, shape: Vec<usize>) -> Result<Array, DataError> {
        let npy = |reason| DataError::npy(&self.place, reason);
        let width = self.header.width;
        let length = shape.iter().product::<usize>() * width;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|e| npy(NpyError::Read(e.into())))?;
        bytes.resize(length, 0);
        let offset = self.start + (first * width) as u64;
        self.file.read_exact_at(&mut bytes, offset).map_err(|e| npy(NpyError::Read(e)))?;
        let array = Array::from_bytes(self.header.dtype, self.header.big_endian, shape, &bytes);
        array.ok_or_else(|| npy(NpyError::ElementType(self.header.dtype.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_of_any_size_give_the_same_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let text = "{'descr': '|u1', 'fortran_order': True, 'shape': (5, 2, 3), }\n";
        let length = (text.len() as u16).to_le_bytes();
        let elements: Vec<u8> = (0..30).collect();
        std::fs::write(&path, [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes(), &elements].concat()).unwrap();
        for band in [0, 6, 7, 13, 1000] {
            let mut file = File::open(&path).unwrap();
            let header = Header::read(&mut file).unwrap();
            let place = Place::file(&path);
            let rows = Rows { file: PositionalFile::new(file), start: header.data_start, header, place };
            let array = rows.ordered(band).unwrap().read_all().unwrap();
            assert_eq!(array.to_f32()[..7], [0.0, 10.0, 20.0, 5.0, 15.0, 25.0, 1.0], "{band}");
            assert_eq!(array.to_f32()[24..], [4.0, 14.0, 24.0, 9.0, 19.0, 29.0], "{band}");
        }
    }
}
