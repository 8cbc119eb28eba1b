//! Constants of a quantized graph: stored, written by `Constant` nodes, computed by a few operators, or inferred.

use super::{InferredFacts, QuantizedGraph};
use crate::ir::{TensorProto, ValueId};
use std::borrow::Cow;

impl<F: InferredFacts> QuantizedGraph<'_, F> {
    /// A constant that nodes compute from constants, as it was inferred.
    pub fn computed(&self, value: ValueId) -> Option<&TensorProto> {
        self.inferred.constant(self.name(value))
    }

    /// A constant, stored, written by a `Constant` node or inferred; nothing for one that cannot be read.
    pub fn constant(&self, value: ValueId) -> Option<Cow<'_, TensorProto>> {
        if let Some(stored) = self.stored(value) {
            return stored.ok();
        }
        let node = || self.producer(value).filter(|node| node.is("Constant"))?.constant();
        self.computed(value).map(Cow::Borrowed).or_else(|| node().map(Cow::Owned))
    }

    /// The shape of a value, where all of it is known: of a constant, an inferred one, or one that follows from a
    /// constant that is cast or reshaped.
    pub fn shape(&self, value: ValueId) -> Option<Vec<usize>> {
        if let Some(tensor) = self.graph.constant(value) {
            return tensor.shape().ok();
        }
        if let Some(shape) = self.inferred.shape(self.name(value)) {
            return Some(shape);
        }
        let node = self.producer(value)?;
        match node.op() {
            "Cast" | "Identity" | "Sub" => self.shape(node.input(0)?),
            "Reshape" => {
                let shape = self.constant(node.input(1)?)?.to_i64().ok()?;
                shape.into_iter().map(|n| usize::try_from(n).ok()).collect()
            }
            "Transpose" => {
                let shape = self.shape(node.input(0)?)?;
                let given =
                    node.ints("perm").iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<Vec<_>>>()?;
                let order = if given.is_empty() { (0..shape.len()).rev().collect() } else { given };
                order.into_iter().map(|axis| shape.get(axis).copied()).collect()
            }
            "Constant" => self.constant(value)?.shape().ok(),
            _ => None,
        }
    }

    /// Constant floats: readable as they are, cast, or products of such, as scales in half precision are.
    pub(crate) fn floats(&self, value: ValueId) -> Option<Vec<f32>> {
        if let Some(tensor) = self.constant(value) {
            return tensor.to_f32().ok();
        }
        let node = self.producer(value)?;
        match node.op() {
            "Cast" | "Identity" | "Reshape" => self.floats(node.input(0)?),
            "Mul" => {
                let (a, b) = (self.floats(node.input(0)?)?, self.floats(node.input(1)?)?);
                match (a.len(), b.len()) {
                    (_, 1) => Some(a.iter().map(|x| x * b[0]).collect()),
                    (1, _) => Some(b.iter().map(|x| x * a[0]).collect()),
                    (m, n) if m == n => Some(a.iter().zip(&b).map(|(x, y)| x * y).collect()),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The one constant float a value holds.
    pub(crate) fn float(&self, value: ValueId) -> Option<f32> {
        match self.floats(value)?[..] {
            [only] => Some(only),
            _ => None,
        }
    }
}
