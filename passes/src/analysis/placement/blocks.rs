//! How floats lie in memory: convolutions of two axes write blocks of channels, and change the layout where others are read.
//!
//! What such a convolution writes stays in blocks through pools, activations, sums of two values of one shape and the like.
//! Whoever else reads it, or the caller, reads a copy in the layout of the file, and a convolution behind such a reader
//! copies its input into blocks again.

use super::convolution::ConvolutionShape;
use super::pays::Account;
use crate::analysis::Layer;
use crate::ir::{Node, NodeId, ValueId};
use crate::ops::reads_shape;
use std::collections::HashSet;

/// Operators that read and write blocks.
const KEEP_BLOCKS: [&str; 7] = ["Clip", "HardSigmoid", "LeakyRelu", "Relu", "Resize", "Sigmoid", "Tanh"];
/// Those that do where the channels are whole vectors.
const KEEP_WHOLE: [&str; 4] = ["AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"];
/// Those that do where all they read are blocks of one shape.
const JOIN_BLOCKS: [&str; 3] = ["Add", "Sum", "Mul"];

impl Account<'_> {
    /// The values that lie in blocks where everything is in float.
    pub(super) fn blocked_values(&self) -> HashSet<ValueId> {
        let mut blocked = HashSet::new();
        for (id, node) in self.graph.nodes() {
            let keeps = match self.draft.layers.get(&id) {
                Some(layer) => self.takes_blocks(layer),
                None => self.keeps_blocks(node, &blocked),
            };
            if keeps {
                blocked.extend(node.output(0));
            }
        }
        blocked
    }

    /// Whether the float kernel of a layer computes in blocks.
    fn takes_blocks(&self, layer: &Layer) -> bool {
        let shape = ConvolutionShape::of(self.graph, layer, 0.0, None);
        self.graph.node(layer.node).is("Conv")
            && shape.is_some_and(|shape| shape.takes_blocks(&self.prices.float_convolution))
    }

    /// Whether the float kernel of a layer wants its input in blocks: it reads few channels as they lie.
    pub(super) fn reads_blocks(&self, layer: &Layer) -> bool {
        let channels = self.shape(layer.input).and_then(|shape| shape.get(1).copied());
        self.takes_blocks(layer)
            && channels.is_some_and(|count| count >= self.prices.float_convolution.direct_inputs[0])
    }

    fn keeps_blocks(&self, node: &Node, blocked: &HashSet<ValueId>) -> bool {
        let lanes = self.prices.float_convolution.lanes[1];
        let reads: Vec<ValueId> = node.inputs().iter().flatten().copied().collect();
        let in_blocks = |value: &ValueId| blocked.contains(value);
        let same = || {
            let mut shapes = reads.iter().map(|&value| self.shape(value));
            let first = shapes.next().flatten();
            first.is_some() && shapes.all(|shape| shape == first)
        };
        let whole = || {
            let channels = reads.iter().map(|&value| self.shape(value).and_then(|shape| shape.get(1).copied()));
            channels.into_iter().all(|count| count.is_some_and(|count| count.is_multiple_of(lanes)))
        };
        match node.op() {
            _ if !node.domain().is_empty() => false,
            // A convolution takes in what its hard swish consists of; x·σ(x) is an operator without a kernel for blocks.
            "Add" | "Mul" if self.is_in_hard_swish(node) => reads.iter().any(in_blocks),
            "Sigmoid" | "Mul" if self.is_in_swish(node) => false,
            op if KEEP_BLOCKS.contains(&op) => reads.first().is_some_and(in_blocks),
            op if KEEP_WHOLE.contains(&op) => reads.first().is_some_and(in_blocks) && whole(),
            op if JOIN_BLOCKS.contains(&op) => reads.iter().all(in_blocks) && same(),
            "Concat" => node.int_or("axis", 0) == 1 && reads.iter().all(in_blocks) && whole(),
            _ => false,
        }
    }

    /// Whether a value that lies in blocks is copied out of them, for others than convolutions.
    pub(super) fn is_copied_out(&self, value: ValueId) -> bool {
        let v = self.graph.value(value);
        let is_planar = |node: &Node| {
            let writes_blocks = node.output(0).is_some_and(|output| self.blocked.contains(&output));
            !writes_blocks && !reads_shape(node.domain(), node.op())
        };
        let planar = v.uses().iter().any(|reader| is_planar(self.graph.node(reader.node)));
        self.blocked.contains(&value) && (planar || self.graph.is_output(value))
    }

    /// What the copies take into blocks in front of a node in float, and out of them behind what it writes.
    pub(super) fn copies(&self, id: NodeId, written: &[ValueId]) -> f64 {
        let copy = |value: ValueId| self.prices.node + self.prices.movement.float * self.elements(value).unwrap_or(0.0);
        let behind: f64 = written.iter().filter(|&&value| self.is_copied_out(value)).map(|&value| copy(value)).sum();
        let layer = self.draft.layers.get(&id).filter(|layer| self.reads_blocks(layer));
        let read = layer.map(|layer| layer.input).filter(|read| !self.blocked.contains(read));
        // One copy is enough for all.
        let is_first = |value: &ValueId| {
            let mut readers = self.graph.value(*value).uses().iter().map(|reader| reader.node);
            let convolution = |id: &NodeId| self.draft.layers.get(id).is_some_and(|layer| self.reads_blocks(layer));
            readers.find(convolution) == Some(id)
        };
        behind + read.filter(is_first).map_or(0.0, copy)
    }
}

#[cfg(test)]
mod tests {
    use super::super::draft::Draft;
    use super::*;
    use crate::ir::{import, text};
    use crate::target::Profile;
    use std::collections::HashMap;

    /// The values that lie in blocks, those of them that are copied out, and the convolutions that copy theirs in.
    fn lie(shape: &str, weights: &str, nodes: &str, values: &str) -> [Vec<String>; 2] {
        let declared: Vec<String> = values.split(' ').map(|name| format!("float[{shape}] {name}")).collect();
        let source = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (float[{shape}] x) => (float[{shape}] y)
             <{weights}, {}> {{ {nodes} }}",
            declared.join(", ")
        );
        let model = import(text::parse(&source).unwrap_or_else(|e| panic!("{e}: {source}"))).unwrap();
        let draft = Draft::new(&model, &Profile::ORT_CPU, HashMap::new()).drawn();
        let account = Account::new(&model, &draft, Profile::ORT_CPU.prices.unwrap(), HashMap::new());
        let all: Vec<ValueId> = model.graph.nodes().filter_map(|(_, node)| node.output(0)).collect();
        let names = |keep: &dyn Fn(ValueId) -> bool| -> Vec<String> {
            all.iter().filter(|&&value| keep(value)).map(|&value| model.graph.value(value).name().to_owned()).collect()
        };
        [names(&|value| account.blocked.contains(&value)), names(&|value| account.is_copied_out(value))]
    }

    #[test]
    fn pools_and_sums_keep_blocks_and_others_read_copies() {
        let weights = "float[16,16,1,1] w = {}";
        let nodes = "a = Conv (x, w)  b = Relu (a)  c = Conv (b, w)  d = Add (b, c)  e = Exp (d)  y = Conv (e, w)";
        assert_eq!(lie("1,16,8,8", weights, nodes, "a b c d e"), [vec!["a", "b", "c", "d", "y"], vec!["d", "y"]]);
        // x·σ(x) is one operator, which reads a copy.
        let nodes = "a = Conv (x, w)  s = Sigmoid (a)  m = Mul (a, s)  y = Conv (m, w)";
        assert_eq!(lie("1,16,8,8", weights, nodes, "a s m"), [vec!["a", "y"], vec!["a", "y"]]);
    }

    #[test]
    fn groups_of_no_whole_vectors_have_no_blocks() {
        let nodes = "a = Conv (x, w)  y = Conv <group = 2> (a, v)";
        let weights = "float[16,16,1,1] w = {}, float[16,8,1,1] v = {}";
        assert_eq!(lie("1,16,8,8", weights, nodes, "a"), [vec!["a"], vec!["a"]]);
    }
}
