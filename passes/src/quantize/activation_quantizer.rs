//! The quantizer of an activation.

use crate::ir::{DataType, TensorProto};

/// Quantization parameters of an activation: x ≈ (q − `zero_point`)·`scale` with q an integer in 8 or 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ActivationQuantizer {
    /// Size of a step, positive and normal.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: i32,
    /// Whether q is in −2^(b−1) to 2^(b−1) − 1 rather than in 0 to 2^b − 1.
    pub signed: bool,
    /// The bits b, 2 to 8, or 16.
    pub bits: u8,
}

impl ActivationQuantizer {
    /// The ends of the integers.
    pub fn interval(&self) -> (i32, i32) {
        let half = 1 << self.bits.clamp(1, 16).saturating_sub(1);
        if self.signed { (-half, half - 1) } else { (0, 2 * half - 1) }
    }

    /// Whether q takes two bytes.
    pub fn is_wide(&self) -> bool {
        self.bits > 8
    }

    /// The type of q.
    pub fn element(&self) -> DataType {
        match (self.is_wide(), self.signed) {
            (false, false) => DataType::Uint8,
            (false, true) => DataType::Int8,
            (true, false) => DataType::Uint16,
            (true, true) => DataType::Int16,
        }
    }

    /// A tensor of integers q; those beyond the type become its ends.
    pub fn tensor(&self, name: &str, shape: &[usize], integers: &[i32]) -> TensorProto {
        let element = self.element();
        // In two's complement the low bytes of an integer are that integer in fewer bits.
        let (low, high) = Self { bits: if self.is_wide() { 16 } else { 8 }, ..*self }.interval();
        let width = if self.is_wide() { 2 } else { 1 };
        let bytes = integers.iter().flat_map(|q| q.clamp(&low, &high).to_le_bytes().into_iter().take(width));
        TensorProto::from_raw(name, element, shape, bytes.collect::<Vec<u8>>())
    }
}
