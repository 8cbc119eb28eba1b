//! Scales, zero points and bits that this or another tool supplies for tensors.

use crate::quant::{Range, WIDE_BITS};
use indexmap::{IndexMap, IndexSet};

/// Parameters of a tensor: x ≈ (q − zero point)·scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoding {
    /// One scale, or one per slice along the axis; positive and normal.
    pub scales: Vec<f32>,
    /// One zero point per scale.
    pub zero_points: Vec<i32>,
    /// Whether q is in −2^(b−1) … 2^(b−1) − 1 rather than in 0 … 2^b − 1.
    pub signed: bool,
    /// The bits b.
    pub bits: u8,
    /// The axis along which scales lie, where there are several and it is known.
    pub axis: Option<i64>,
}

/// Parameters of the tensors of a model, by their names in the float model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encodings {
    /// By tensor.
    pub tensors: IndexMap<String, Encoding>,
    /// The tensors that are constants, where that is known.
    pub parameters: IndexSet<String>,
}

impl Encoding {
    /// One scale for all elements.
    pub(crate) fn per_tensor(scale: f32, zero_point: i32, signed: bool, bits: u8) -> Self {
        Self { scales: vec![scale], zero_points: vec![zero_point], signed, bits, axis: None }
    }

    /// The ends of the integers.
    pub(crate) fn interval(&self) -> (i32, i32) {
        let half = 1 << (self.bits.clamp(1, 31) - 1);
        if self.signed { (-half, half - 1) } else { (0, half - 1 + half) }
    }

    /// Whether q is signed and all zero points are 0.
    pub(crate) fn is_symmetric(&self) -> bool {
        self.signed && self.zero_points.iter().all(|&zero_point| zero_point == 0)
    }

    /// The offset that turns signed integers into unsigned ones when added, and unsigned into signed when subtracted.
    pub(crate) fn half(&self) -> i32 {
        1 << (self.bits.clamp(1, 31) - 1)
    }

    /// The range of each slice, in real numbers.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range> + '_ {
        let (low, high) = self.interval();
        self.scales.iter().zip(&self.zero_points).map(move |(&scale, &zero_point)| {
            let end = |q: i32| ((f64::from(q) - f64::from(zero_point)) * f64::from(scale)) as f32;
            Range::new(end(low), end(high))
        })
    }

    /// What is wrong with the numbers, if anything.
    pub(crate) fn fault(&self) -> Option<String> {
        let (low, high) = self.interval();
        if self.scales.is_empty() || self.scales.len() != self.zero_points.len() {
            return Some(format!("{} scales and {} zero points", self.scales.len(), self.zero_points.len()));
        }
        if !(1..=31).contains(&self.bits) {
            return Some(format!("{} bits are not supported", self.bits));
        }
        if let Some(scale) = self.scales.iter().find(|scale| !(scale.is_normal() && **scale > 0.0)) {
            return Some(format!("scale {scale} is not a positive number of single precision"));
        }
        let outside = self.zero_points.iter().find(|zero_point| !(low..=high).contains(zero_point));
        outside.map(|zero_point| format!("zero point {zero_point} is outside {low} to {high}"))
    }
}

impl Encodings {
    /// Whether any tensor that is not known to be a constant has 16 bits.
    pub(crate) fn is_wide(&self) -> bool {
        let mut activations = self.tensors.iter().filter(|(name, _)| !self.parameters.contains(*name));
        activations.any(|(_, encoding)| encoding.bits == WIDE_BITS)
    }

    /// Adds a tensor; a repeated name is an error.
    pub(crate) fn add(&mut self, name: String, encoding: Encoding) -> Result<(), String> {
        if self.tensors.contains_key(&name) {
            return Err(format!("tensor `{name}` is named twice"));
        }
        self.tensors.insert(name, encoding);
        Ok(())
    }
}
