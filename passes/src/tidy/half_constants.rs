//! Pass `half-constants`: float vectors whose elements are float16 numbers are stored as such. No value changes.
//!
//! ```text
//! a, b, c = Split(Cast<float>(halves), lengths)
//! ```
//!
//! A float32 initializer of one dimension and at least 8 elements becomes a part of one float16 pool if every element
//! is zero (of either sign) or a normal float16 number. These numbers convert back bit for bit; subnormal numbers do
//! not on every machine, since some flush them to zero. A value keeps its name by becoming an output of `Split`, so its
//! readers, sub-graphs included, do not change. The added nodes read only constants: runtimes evaluate them when they
//! load a model. A single constant needs no `Split`.
//!
//! The pool is written only if the 2 bytes saved per element are more than the size of the nodes, names included: about
//! 100 bytes, and at most 12 per constant. Names are short for that reason.
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
        let constants: Vec<Constant> = graph.initializers().filter_map(|(v, t)| constant(graph, v, t)).collect();
        let elements: usize = constants.iter().map(|c| c.halves.len()).sum();
        if 2 * elements <= POOL_BYTES + CONSTANT_BYTES * constants.len() {
            return Ok(outcome);
        }
        for constant in &constants {
            graph.take_initializer(constant.value);
            outcome.count();
        }
        match &constants[..] {
            [only] => alone(graph, only),
            all => pool(graph, all),
        }
        Ok(outcome)
    }
}

/// An initializer that float16 represents exactly.
struct Constant {
    value: ValueId,
    halves: Vec<f16>,
}

fn constant(graph: &Graph, value: ValueId, tensor: &TensorProto) -> Option<Constant> {
    let fits = tensor.element_type() == Some(DataType::Float) && tensor.dims.len() == 1 && !tensor.is_external();
    if !fits || graph.is_input(value) || graph.is_output(value) || !graph.is_used(value) {
        return None;
    }
    let floats = tensor.to_f32().ok().filter(|floats| floats.len() >= SHORTEST)?;
    let halves = floats.into_iter().map(exact).collect::<Option<_>>()?;
    Some(Constant { value, halves })
}

/// The float16 number with the same value, if it is zero or normal.
fn exact(float: f32) -> Option<f16> {
    let half = f16::from_f32(float);
    let same = half.to_f32().to_bits() == float.to_bits();
    (same && (float == 0.0 || half.is_normal())).then_some(half)
}

fn tensor<'a>(name: &str, halves: impl Iterator<Item = &'a f16>) -> TensorProto {
    let raw: Vec<u8> = halves.flat_map(|half| half.to_le_bytes()).collect();
    TensorProto::from_raw(name, DataType::Float16, &[raw.len() / 2], raw)
}

fn to_float() -> Vec<AttributeProto> {
    vec![AttributeProto::int("to", i64::from(DataType::Float.number()))]
}

fn alone(graph: &mut Graph, constant: &Constant) {
    let stem = graph.value(constant.value).name().to_owned();
    let halves = graph.add_initializer(tensor("halves", constant.halves.iter()));
    let cast = NodeProto::of("Cast", &stem, to_float());
    graph.add_node(cast, &[Some(halves)], &[Some(constant.value)]);
}

fn pool(graph: &mut Graph, constants: &[Constant]) {
    let halves = graph.add_initializer(tensor("halves", constants.iter().flat_map(|c| &c.halves)));
    let floats = graph.add_op("Cast", &[Some(halves)], to_float(), "floats");
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
            assert_eq!(exact(float).map(|half| half.to_f32().to_bits()), Some(float.to_bits()));
        }
        let subnormal = smallest_normal / 2.0;
        for float in [0.1, 65505.0, 65536.0, 1.0 / 2048.0 + 1.0, subnormal, 1e-30, f32::INFINITY, f32::NAN] {
            assert_eq!(exact(float), None, "{float}");
        }
    }
}
