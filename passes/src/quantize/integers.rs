//! Integer weights, as passes receive them.

use crate::ir::{DataType, TensorProto};
use bytes::Bytes;

/// The integers of a weight. Clones, and tensors made from them, share the bytes, so that a model of many gigabytes
/// holds them once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Integers(Bytes);

impl Integers {
    /// Their number.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The integers, one after another.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = i8> + '_ {
        self.0.iter().map(|byte| byte.cast_signed())
    }

    /// An int8 tensor of the integers.
    pub fn to_tensor(&self, name: &str, shape: &[usize]) -> TensorProto {
        TensorProto::from_raw(name, DataType::Int8, shape, self.0.clone())
    }
}

impl From<Vec<i8>> for Integers {
    fn from(integers: Vec<i8>) -> Self {
        integers.into_iter().collect()
    }
}

impl FromIterator<i8> for Integers {
    fn from_iter<I: IntoIterator<Item = i8>>(integers: I) -> Self {
        Self(integers.into_iter().map(i8::cast_unsigned).collect())
    }
}

/// The transpose of a matrix of so many rows.
pub(crate) fn transposed<T: Copy>(values: &[T], rows: usize) -> Vec<T> {
    let columns = values.len() / rows.max(1);
    (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect()
}

/// Integers of 1, 2, 4 or 8 bits, from the low end of each byte; bits above are cut off.
pub(crate) fn packed(integers: &[u8], bits: u8) -> Vec<u8> {
    let mask = u8::MAX >> (8 - bits.clamp(1, 8));
    let byte = |chunk: &[u8]| chunk.iter().zip(0..).fold(0, |byte, (q, at)| byte | (q & mask) << (at * bits));
    integers.chunks(usize::from(8 / bits.clamp(1, 8))).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_hold_the_same_bytes() {
        let integers = Integers::from(vec![-128, -1, 0, 127]);
        let tensor = integers.to_tensor("w", &[2, 2]);
        assert_eq!(tensor, TensorProto::from_i8("w", &[2, 2], &[-128, -1, 0, 127]));
        assert!(integers.iter().eq([-128, -1, 0, 127]));
        assert_eq!(tensor.raw_data.unwrap().as_ptr(), integers.0.as_ptr());
    }

    #[test]
    fn bytes_fill_from_the_low_end() {
        assert_eq!(packed(&[1, 2, 0xff], 4), [0x21, 0x0f]);
        assert_eq!(packed(&[3, 0, 1, 2, 1], 2), [0b10_01_00_11, 1]);
        assert_eq!(packed(&[7, 255], 8), [7, 255]);
        assert_eq!(transposed(&[1, 2, 3, 4, 5, 6], 2), [1, 4, 2, 5, 3, 6]);
    }
}
