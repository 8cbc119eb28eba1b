//! What tract decides of lengths that are not known.
//!
//! A length left open is a symbol n, and tract computes with it: n + 1, 2·n. That is right for sums and products. But it also
//! answers whether n is 1 or n is above 3, namely no, unless the words are the same, and takes the branch of that answer. What
//! follows from such an answer is no constant, and a plan for any length would be wrong for some.

use crate::engine::extent::{Extent, extent, is_random};
use msq_passes::ir::{Graph, Node, NodeId, ValueId};
use std::collections::HashSet;

/// Operators on lengths, where a result that is a number is one for all lengths.
const ARITHMETIC: [&str; 18] = [
    "Shape",
    "Size",
    "Gather",
    "Slice",
    "Concat",
    "Split",
    "Squeeze",
    "Unsqueeze",
    "Reshape",
    "Flatten",
    "Transpose",
    "Identity",
    "Cast",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "ReduceProd",
];

/// Operators that compare numbers.
const COMPARISONS: [&str; 5] = ["Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"];

/// Whether both operands being numbers is not needed to answer: no length is negative.
fn is_sure(graph: &Graph, node: &Node) -> bool {
    let negative = |value: &ValueId| {
        let elements = graph.constant(*value).and_then(|tensor| tensor.to_i64().ok());
        elements.is_some_and(|elements| elements.iter().all(|&element| element < 0))
    };
    node.is("Equal") && node.inputs().iter().flatten().any(negative)
}

/// Of values that tract takes for constants, those that are: what they are computed from is constant, or lengths that only
/// arithmetic was done with.
pub(super) fn constants(graph: &Graph, taken: &HashSet<ValueId>) -> HashSet<ValueId> {
    let mut found: HashSet<ValueId> = graph.initializers().map(|(value, _)| value).collect();
    for (_, node) in graph.nodes() {
        let read = || node.inputs().iter().flatten().chain(node.captures());
        let decided = |slot: usize| node.input(slot).is_some_and(|value| found.contains(&value));
        let holds = read().all(|value| found.contains(value))
            || ARITHMETIC.contains(&node.op())
            || is_sure(graph, node)
            || (node.is("Where") && decided(0));
        if holds && !is_random(node.op()) {
            let written = node.outputs().iter().flatten().filter(|value| taken.contains(value));
            found.extend(written.copied().collect::<Vec<_>>());
        }
    }
    found
}

/// The values whose types tract may have from an answer of its own: `taken` are those it takes for constants, of which these
/// are.
pub(super) fn unsure_types(graph: &Graph, taken: &HashSet<ValueId>, constants: &HashSet<ValueId>) -> HashSet<ValueId> {
    let answered = |value: Option<ValueId>| value.is_some_and(|v| taken.contains(&v) && !constants.contains(&v));
    let mut unsure = HashSet::new();
    for (_, node) in graph.nodes() {
        let by_answer = match extent(node.op()) {
            Extent::Values(slots) => slots.iter().any(|&slot| answered(node.input(slot))),
            Extent::Steps => node.inputs().iter().any(|&value| answered(value)),
            Extent::Shapes | Extent::Open => false,
        };
        if by_answer || node.inputs().iter().flatten().chain(node.captures()).any(|value| unsure.contains(value)) {
            unsure.extend(node.outputs().iter().flatten().copied());
        }
    }
    unsure
}

/// The first node that compares a length that is computed from the shape of what a sample brings.
pub(super) fn compares_lengths(graph: &Graph) -> Option<NodeId> {
    let mut lengths: HashSet<ValueId> = HashSet::new();
    for (id, node) in graph.nodes() {
        let reads = node.inputs().iter().flatten().any(|value| lengths.contains(value));
        if reads && COMPARISONS.contains(&node.op()) && !is_sure(graph, node) {
            return Some(id);
        }
        let is_length = match node.op() {
            "Shape" | "Size" => node.input(0).is_some_and(|value| graph.constant(value).is_none()),
            "Min" | "Max" | "Mod" | "Where" | "Neg" | "Abs" => reads,
            op => reads && ARITHMETIC.contains(&op),
        };
        if is_length {
            lengths.extend(node.outputs().iter().flatten());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Length, standard};
    use msq_passes::ir::{Model, import, text};

    fn model(nodes: &str) -> Model {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]>
             g (float[n,32] x) => (bool c)
             <int64 zero = {{0}}, int64 one = {{1}}, int64[2] minus = {{-1, -1}}, int64[2] ones = {{1, 1}}> {{ {nodes} }}"
        );
        import(text::parse(&text).unwrap()).unwrap()
    }

    fn constants_of(model: &Model) -> Vec<String> {
        let mut names: Vec<String> = standard().infer(model).unwrap().constants.into_keys().collect();
        names.sort();
        names
    }

    #[test]
    fn open_lengths_are_not_compared() {
        for op in COMPARISONS {
            let model = model(&format!(
                "s = Shape (x)\n n = Gather (s, zero)\n k = Gather (s, one)\n c = {op} (n, one)\n d = {op} (k, one)"
            ));
            assert_eq!(constants_of(&model), ["d", "k"], "{op}");
            assert!(compares_lengths(&model.graph).is_some());
            let plan = standard().load_any_length(&model, &[vec![Length::Free(0), Length::Fixed(32)]]);
            assert!(plan.unwrap().is_none());
        }
    }

    /// As exporters write `expand`: a length of −1 stands for one that stays.
    #[test]
    fn no_length_is_negative() {
        let model = model("s = Shape (x)\n c = Equal (s, minus)\n t = Where (c, ones, s)\n y = Expand (x, t)");
        assert_eq!(constants_of(&model), ["c"]);
        assert!(compares_lengths(&model.graph).is_none());
    }

    /// Neither is the shape that a branch has which was taken for such an answer, nor that of what follows.
    #[test]
    fn types_behind_an_answer_are_open() {
        let branches = "s = Shape (x)\n n = Gather (s, zero)\n c = Equal (n, one)
            y = If (c) <then_branch = a () => (float[32] p) { p = Squeeze (x, list) }, else_branch = b () => (float[n,32] q) { q = Neg (x) }>
            z = Relu (y)";
        let model = model(&branches.replace("list", "one"));
        let types = standard().infer(&model).unwrap().types;
        assert!(!types.contains_key("y") && !types.contains_key("z"), "{types:?}");
        assert!(types.contains_key("s"));
    }

    /// What is decided by a comparison is open as well.
    #[test]
    fn what_follows_from_an_answer_is_open() {
        let nodes = "s = Shape (x)\n n = Gather (s, zero)\n c = Greater (n, one)\n d = Not (c)\n e = Cast <to = 7> (d)\n f = Add (e, one)";
        assert_eq!(constants_of(&model(nodes)), Vec::<String>::new());
    }
}
