//! Outputs of whole numbers: answers, or values that were rounded.
//!
//! An integer that `ArgMax`, `TopK`, a comparison and the like write is an answer: another one is wrong, however near. One
//! that is a `Cast` of floats, with `Round` or `Clip` before it or nothing, is a value on a grid, as the grey levels of an
//! image are, unless it takes so few values that they are classes.

use msq_passes::ir::{DataType, Graph, ValueId};

/// Nodes that a walk passes at most.
const DEPTH: usize = 64;
/// Different numbers above which rounded floats are values; a scale of ten ratings and zero is below.
const MANY: u32 = 16;
/// The same for images of one or three channels, where fewer are a mask.
const OF_IMAGE: u32 = 2;

/// Whether the value is floats that were converted to integers, and no answer that an operator chose.
pub(crate) fn is_rounded(graph: &Graph, value: ValueId) -> bool {
    let is_float = |value: ValueId| graph.value(value).element_type().is_none_or(DataType::is_float);
    let (mut at, mut converted) = (value, false);
    for _ in 0..DEPTH {
        let Some(node) = graph.value(at).producer().map(|(node, _)| graph.node(node)) else { break };
        let computed = || node.inputs().iter().flatten().copied().filter(|&v| graph.constant(v).is_none());
        let next = match node.op() {
            "QuantizeLinear" => return true,
            "Cast" => node.input(0).inspect(|&input| converted |= is_float(input)),
            "Identity" | "Round" | "Floor" | "Ceil" | "Clip" | "Relu" | "Neg" | "Abs" | "Reshape" | "Flatten"
            | "Squeeze" | "Unsqueeze" | "Transpose" | "Slice" | "Pad" | "Expand" | "Tile" | "Split" => node.input(0),
            "Add" | "Sub" | "Mul" | "Div" | "Min" | "Max" | "Gather" if computed().count() == 1 => computed().next(),
            // An operator that chooses, counts or compares.
            _ if !is_float(at) => return false,
            _ => break,
        };
        let Some(next) = next else { break };
        at = next;
    }
    converted
}

/// How many different numbers an output holds: those that differ in their last eight bits, at most 256.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DistinctNumbers([u64; 4]);

impl DistinctNumbers {
    /// Adds a sample.
    pub(crate) fn observe(&mut self, values: &[f32]) {
        for &value in values {
            let number = (value as i64).rem_euclid(256) as usize;
            self.0[number / 64] |= 1 << (number % 64);
        }
    }

    /// Adds what a later part has seen.
    pub(crate) fn merge(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own |= other);
    }

    /// Whether they are too many for classes, in an output of some shape.
    pub(crate) fn are_values(self, shape: &[usize]) -> bool {
        let is_image = matches!(shape, [_, 1 | 3, _, _] | [_, _, _, 1 | 3]);
        self.0.iter().map(|word| word.count_ones()).sum::<u32>() > if is_image { OF_IMAGE } else { MANY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir::{import, text};

    fn rounded(element: &str, nodes: &str) -> bool {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,4] x) => ({element}[N,4] y)
             <float low = {{0.0}}, float high = {{255.0}}, int64 one = {{1}}, float[4,4] w = {{}}, int64[4] table = {{5, 6, 7, 8}},
              int64[1] k = {{4}}, uint8 zero = {{0}}> {{ h = MatMul (x, w) {nodes} }}"
        );
        let mut model = import(text::parse(&text).unwrap()).unwrap();
        crate::prepare::annotate(&mut model, &*crate::engine::standard());
        is_rounded(&model.graph, model.graph.find("y").unwrap())
    }

    #[test]
    fn casts_of_floats_are_rounded_values() {
        assert!(rounded("uint8", "m = Mul (h, high) r = Round (m) c = Clip (r, low, high) y = Cast <to = 2> (c)"));
        assert!(rounded("int32", "y = Cast <to = 6> (h)"));
        assert!(rounded("int64", "f = Floor (h) c = Cast <to = 6> (f) l = Cast <to = 7> (c) y = Add (l, one)"));
        assert!(rounded("uint8", "y = QuantizeLinear (h, high, zero)"));
        assert!(rounded("int64", "y = Cast <to = 7> (x)"));
    }

    #[test]
    fn what_operators_choose_are_answers() {
        assert!(!rounded("int64", "y = ArgMax <axis = 1> (h)"));
        assert!(!rounded("int32", "a = ArgMax <axis = 1> (h) y = Cast <to = 6> (a)"));
        assert!(!rounded(
            "int32",
            "a = ArgMax <axis = 1> (h) f = Cast <to = 1> (a) r = Round (f) y = Cast <to = 6> (r)"
        ));
        assert!(!rounded("int64", "v, y = TopK <axis = 1> (h, k)"));
        assert!(!rounded("int64", "v, i = TopK <axis = 1> (h, k) y = Gather (table, i)"));
        assert!(!rounded("bool", "y = Greater (h, low)"));
        assert!(!rounded("int32", "g = Greater (h, low) y = Cast <to = 6> (g)"));
    }

    #[test]
    fn a_few_numbers_are_classes() {
        let seen = |values: &[f32], shape: &[usize]| {
            let mut found = DistinctNumbers::default();
            for &value in values {
                let mut part = DistinctNumbers::default();
                part.observe(&[value]);
                found.merge(part);
            }
            found.are_values(shape)
        };
        let grey: Vec<f32> = (0..40).map(|v| v as f32).collect();
        assert!(seen(&grey, &[1, 40]) && seen(&grey, &[1, 8, 5, 1]));
        assert!(!seen(&[0.0, 1.0, 0.0], &[1, 1, 1, 3]) && seen(&[0.0, -1.0, 7.0], &[1, 1, 1, 3]));
        assert!(!seen(&[1.0, 2.0, 3.0, 4.0, 5.0], &[1, 5]));
    }
}
