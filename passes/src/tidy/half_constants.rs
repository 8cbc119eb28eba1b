//! Pass `half-constants`: float vectors whose elements are float16 numbers are stored as such. No value changes.
//!
//! ```text
//! a, b, c = Split(Mul(Cast<float>(halves), 2^−k), lengths)
//! ```
//!
//! A float32 initializer of one dimension and at least 8 elements becomes a part of one float16 pool if every element
//! is zero (of either sign) or 2^−k times a normal float16 number. These numbers convert back bit for bit, since a product
//! with a power of two is exact; subnormal numbers do not on every machine, since some flush them to zero. k is the number
//! from 0 to 24 with which most elements fit: scales of weights are too small for float16 as they are. For k = 0 there is no
//! `Mul`. What does not fit may fill a second pool with another k. A value keeps its name by becoming an output of `Split`, so its readers, sub-graphs included, do not change. The
//! added nodes read only constants: runtimes evaluate them when they load a model. A single constant needs no `Split`.
//!
//! The pool is written only if the 2 bytes saved per element are more than the size of the nodes, names included: about
//! 100 bytes, 50 for `Mul`, and at most 12 per constant. Names are short for that reason.
//!
//! Not changed: graph inputs and outputs, external tensors, constants without readers, and initializers of sub-graphs.

use crate::ir::{AttributeProto, DataType, Graph, Model, NodeProto, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use half::f16;

/// Stores float vectors in float16 where that is exact.
#[derive(Clone, Copy, Debug, Default)]
pub struct HalfConstants;

/// Shorter constants are not changed.
const SHORTEST: usize = 8;

/// Bytes of the pool, `Cast` and `Split` in a file; about 40 fewer with names of one letter.
const POOL_BYTES: usize = 100;

/// Bytes of `Mul` and its factor, likewise.
const FACTOR_BYTES: usize = 50;

/// The largest exponent of the factor.
const LARGEST_EXPONENT: i32 = 24;

/// Most bytes of a constant's length and its name among the outputs, less those of the initializer's frame.
const CONSTANT_BYTES: usize = 12;

impl HalfConstants {
    /// The lowest opset whose `Split` takes lengths as an input.
    pub const LOWEST_OPSET: i64 = 13;
}

impl Pass for HalfConstants {
    fn name(&self) -> &'static str {
        "half-constants"
    }

    fn about(&self) -> &'static str {
        "float vectors that float16 holds exactly are stored as such"
    }

    fn requires(&self, model: &Model) -> Result<(), PassError> {
        match model.opset("") {
            Some(opset) if opset >= Self::LOWEST_OPSET => Ok(()),
            _ => Err(PassError::Requires { pass: "half-constants", earlier: "upgrade-opset" }),
        }
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let graph = &mut model.graph;
        let mut vectors: Vec<(ValueId, Vec<f32>)> =
            graph.initializers().filter_map(|(v, t)| Some((v, vector(graph, v, t)?))).collect();
        loop {
            let (exponent, constants) = pooled(&vectors);
            if saved(exponent, &constants) <= 0 {
                return Ok(outcome);
            }
            for constant in &constants {
                graph.take_initializer(constant.value);
                outcome.count();
            }
            match &constants[..] {
                [only] => alone(graph, only, exponent),
                all => pool(graph, all, exponent),
            }
            vectors.retain(|(value, _)| constants.iter().all(|constant| constant.value != *value));
        }
    }
}

/// An initializer that float16 represents exactly, the factor left out.
struct Constant {
    value: ValueId,
    halves: Vec<f16>,
}

/// The exponent k with which pooling saves most, the least one of equals, and the constants that fit then.
fn pooled(vectors: &[(ValueId, Vec<f32>)]) -> (i32, Vec<Constant>) {
    let fitting = |exponent: i32| -> Vec<Constant> {
        let halves = |vector: &[f32]| vector.iter().map(|&float| exact(float, exponent)).collect::<Option<_>>();
        vectors.iter().filter_map(|(value, vector)| Some(Constant { value: *value, halves: halves(vector)? })).collect()
    };
    let all = (0..=LARGEST_EXPONENT).map(|exponent| (exponent, fitting(exponent)));
    all.rev().max_by_key(|(exponent, constants)| saved(*exponent, constants)).unwrap_or_default()
}

/// Bytes that a pool saves.
fn saved(exponent: i32, constants: &[Constant]) -> i64 {
    let elements: usize = constants.iter().map(|c| c.halves.len()).sum();
    let factor = if exponent == 0 { 0 } else { FACTOR_BYTES };
    (2 * elements) as i64 - (POOL_BYTES + factor + CONSTANT_BYTES * constants.len()) as i64
}

/// The elements of a constant that may be pooled.
fn vector(graph: &Graph, value: ValueId, tensor: &TensorProto) -> Option<Vec<f32>> {
    let fits = tensor.element_type() == Some(DataType::Float) && tensor.dims.len() == 1 && !tensor.is_external();
    if !fits || graph.is_input(value) || graph.is_output(value) || !graph.is_used(value) {
        return None;
    }
    tensor.to_f32().ok().filter(|floats| floats.len() >= SHORTEST)
}

/// The float16 number with 2^exponent times the value, if it is zero or normal.
fn exact(float: f32, exponent: i32) -> Option<f16> {
    let scaled = float * 2.0_f32.powi(exponent);
    let half = f16::from_f32(scaled);
    let same = half.to_f32().to_bits() == scaled.to_bits() && (float == 0.0 || float.is_normal());
    (same && (float == 0.0 || half.is_normal())).then_some(half)
}

fn tensor<'a>(name: &str, halves: impl Iterator<Item = &'a f16>) -> TensorProto {
    let raw: Vec<u8> = halves.flat_map(|half| half.to_le_bytes()).collect();
    TensorProto::from_raw(name, DataType::Float16, &[raw.len() / 2], raw)
}

fn to_float() -> Vec<AttributeProto> {
    vec![AttributeProto::element("to", DataType::Float)]
}

fn alone(graph: &mut Graph, constant: &Constant, exponent: i32) {
    let stem = graph.value(constant.value).name().to_owned();
    let halves = graph.add_initializer(tensor("halves", constant.halves.iter()));
    if exponent == 0 {
        let cast = NodeProto::of("Cast", &stem, to_float());
        graph.add_node(cast, &[Some(halves)], &[Some(constant.value)]);
        return;
    }
    let floats = graph.add_op("Cast", &[Some(halves)], to_float(), "floats");
    let factor = factor(graph, exponent);
    graph.add_node(NodeProto::of("Mul", &stem, Vec::new()), &[Some(floats), Some(factor)], &[Some(constant.value)]);
}

fn factor(graph: &mut Graph, exponent: i32) -> ValueId {
    graph.add_initializer(TensorProto::from_f32("factor", &[], &[2.0_f32.powi(-exponent)]))
}

fn pool(graph: &mut Graph, constants: &[Constant], exponent: i32) {
    let halves = graph.add_initializer(tensor("halves", constants.iter().flat_map(|c| &c.halves)));
    let mut floats = graph.add_op("Cast", &[Some(halves)], to_float(), "floats");
    if exponent != 0 {
        let factor = factor(graph, exponent);
        floats = graph.add_op("Mul", &[Some(floats), Some(factor)], Vec::new(), "scaled");
    }
    let lengths: Vec<i64> = constants.iter().map(|c| c.halves.len() as i64).collect();
    let lengths = graph.add_initializer(TensorProto::from_i64("lengths", &[lengths.len()], &lengths));
    let outputs: Vec<Option<ValueId>> = constants.iter().map(|c| Some(c.value)).collect();
    let name = graph.fresh_name("split");
    graph.add_node(NodeProto::of("Split", &name, Vec::new()), &[Some(floats), Some(lengths)], &outputs);
}

#[cfg(test)]
mod tests {
    use super::exact;

    #[test]
    fn zeros_and_normal_numbers_of_float16_are_exact() {
        let smallest_normal = 2.0_f32.powi(-14);
        for float in [0.0, -0.0, 1.0, -1.5, 65504.0, 1.0 / 1024.0 + 1.0, smallest_normal] {
            assert_eq!(exact(float, 0).map(|half| half.to_f32().to_bits()), Some(float.to_bits()));
        }
        let subnormal = smallest_normal / 2.0;
        for float in [0.1, 65505.0, 65536.0, 1.0 / 2048.0 + 1.0, subnormal, 1e-30, f32::INFINITY, f32::NAN] {
            assert_eq!(exact(float, 0), None, "{float}");
        }
        for float in [subnormal, smallest_normal / 4096.0, -1.5, 0.0, -0.0] {
            assert_eq!(exact(float, 12).map(|half| half.to_f32() / 4096.0), Some(float));
        }
        for float in [16.0, smallest_normal / 8192.0, 0.1, 1e-40] {
            assert_eq!(exact(float, 12), None, "{float}");
        }
    }
}
