//! All 32 bits.

use super::bits::take;

pub(super) fn encode(values: &[f32], bytes: &mut Vec<u8>) {
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

pub(super) fn decode(len: usize, bytes: &mut &[u8]) -> Option<Vec<f32>> {
    let (values, _) = take(bytes, 4 * len)?.as_chunks();
    Some(values.iter().map(|&value| f32::from_le_bytes(value)).collect())
}
