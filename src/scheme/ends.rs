//! The first and last layers of a network, where few bits cost most accuracy.
//!
//! The first layer's input is the picture itself, and the last layer's input is all that tells the answers apart; no
//! layer before the first or behind the last can compensate for errors. Where a plan has one entry for all layers,
//! separate entries for the first and last layers are derived from it:
//!
//! * first layers have no layer before them: their input is a graph input, possibly after moves, normalisation or sums;
//! * last layers have no layer after them, or reach a graph output through nodes that compute from one value alone.
//!
//! A path through a sum of two computed values does not count: otherwise, in a residual network that ends in a sum,
//! every layer along the residual path would be a last layer.

use super::SchemeError;
use crate::scheme::bit_plan::{ActivationBits, BitPlan, LayerPlan, WeightBits, number_or_word, parse_bits};
use msq_passes::analysis::{Layer, layers, stored_weights};
use msq_passes::ir::{Graph, Model, Node, NodeId, ValueId};
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

/// Bits of the first and last layers, where a plan names no layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EndBits {
    /// Activations of 8 bits where the plan has fewer; weights as the plan says.
    #[default]
    Activations,
    /// This number of bits for weights and activations; activations that are float or have 16 bits stay so.
    Bits(u8),
    /// The plan's entry for all layers.
    Same,
}

impl FromStr for EndBits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_bits(text, &[("same", Self::Same), ("activations", Self::Activations)], Self::Bits)
    }
}

impl fmt::Display for EndBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activations => f.write_str("activations"),
            Self::Same => f.write_str("same"),
            Self::Bits(bits) => write!(f, "{bits}"),
        }
    }
}

number_or_word!(EndBits, { "type": "integer", "minimum": 2, "maximum": 8 }, ["same", "activations"]);

impl EndBits {
    /// The plan of a first or last layer, given that of the other layers.
    fn applied(self, plan: LayerPlan) -> LayerPlan {
        let (bits, weights) = match self {
            Self::Same => return plan,
            Self::Activations => (8, plan.weights),
            Self::Bits(bits) => (bits, WeightBits::whole(bits)),
        };
        let activations = match plan.activations {
            kept @ (ActivationBits::Float | ActivationBits::Dynamic) => kept,
            // What was asked for beyond 8 bits is asked for at the ends as well.
            ActivationBits::Bits(all) if all > 8 => ActivationBits::Bits(all),
            ActivationBits::Bits(_) => ActivationBits::Bits(bits),
        };
        if weights == plan.weights {
            return LayerPlan { activations, ..plan };
        }
        // Grid and packing of the other layers may not fit these bits.
        LayerPlan { activations, ..plan.with_weight_bits(bits) }
    }
}

impl BitPlan {
    /// The plan with entries for the first and last layers of a prepared model, where they differ from the other
    /// layers. A plan that names layers is not changed.
    #[must_use]
    pub fn with_ends(&self, model: &Model, ends: EndBits) -> Self {
        let mut plan = self.clone();
        let Some(every) = self.default.filter(|_| self.layers.is_empty()) else { return plan };
        let at_end = ends.applied(every);
        if at_end != every {
            plan.layers = end_layers(model).into_iter().map(|name| (name, at_end)).collect();
        }
        plan
    }

    /// [`with_ends`](Self::with_ends), checked against the model's layers and the target.
    pub(crate) fn resolved(
        &self,
        model: &Model,
        ends: EndBits,
        profile: &msq_passes::Profile,
    ) -> Result<Self, SchemeError> {
        let plan = self.named(model)?;
        let mut names: Vec<String> = layers(model).into_iter().map(|layer| layer.name).collect();
        // A plan need not name the weights beside the layers.
        let beside = stored_weights(model).into_iter().map(|weight| weight.name);
        names.extend(beside.filter(|name| plan.layers.contains_key(name)));
        // The given plan first, so that a fault of all layers is not reported as a fault of one.
        plan.check(names.iter().map(String::as_str), profile)?;
        plan.check_nodes(model)?;
        let plan = plan.with_ends(model, ends);
        plan.check(names.iter().map(String::as_str), profile)?;
        Ok(plan)
    }
}

/// Names of the first and last layers, in graph order.
fn end_layers(model: &Model) -> Vec<String> {
    let graph = &model.graph;
    let layers = layers(model);
    let found: HashSet<NodeId> = layers.iter().map(|layer| layer.node).collect();
    // Nodes are in topological order, so one sweep in each direction suffices.
    let (mut behind, mut before, mut answers) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (id, node) in graph.nodes() {
        let mut producers = computed(graph, node);
        if producers.any(|producer| found.contains(&producer) || behind.contains(&producer)) {
            behind.insert(id);
        }
    }
    for (id, node) in graph.nodes().rev() {
        let readers = readers(graph, node);
        if readers.iter().any(|reader| found.contains(reader) || before.contains(reader)) {
            before.insert(id);
        }
        let alone = |reader: &NodeId| !found.contains(reader) && computed(graph, graph.node(*reader)).count() == 1;
        let is_output = node.outputs().iter().flatten().any(|&value| graph.is_output(value));
        if is_output || readers.iter().any(|reader| answers.contains(reader) && alone(reader)) {
            answers.insert(id);
        }
    }
    let is_first = |layer: &Layer| !behind.contains(&layer.node);
    let is_last = |layer: &Layer| !before.contains(&layer.node) || answers.contains(&layer.node);
    layers.into_iter().filter(|layer| is_first(layer) || is_last(layer)).map(|layer| layer.name).collect()
}

/// The nodes whose outputs a node reads.
fn computed<'a>(graph: &'a Graph, node: &'a Node) -> impl Iterator<Item = NodeId> + 'a {
    let read = node.inputs().iter().flatten().chain(node.captures());
    read.filter_map(|&value| graph.value(value).producer()).map(|(producer, _)| producer)
}

/// The nodes that read the outputs of a node.
fn readers(graph: &Graph, node: &Node) -> Vec<NodeId> {
    let of = |&value: &ValueId| {
        let value = graph.value(value);
        value.uses().iter().map(|u| u.node).chain(value.captures().iter().copied()).collect::<Vec<_>>()
    };
    node.outputs().iter().flatten().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{PackingForm, WeightGrid};
    use msq_passes::Profile;
    use msq_passes::ir::{import, text};

    /// A model whose layers are products with the matrix w, named as their nodes are.
    fn model(outputs: &str, nodes: &str) -> Model {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,2] x) => ({outputs}) \
             <float[2,2] w = {{1, 0, 0, 1}}> {{ {nodes} }}"
        );
        import(text::parse(&text).unwrap_or_else(|e| panic!("{e}: {text}"))).unwrap()
    }

    fn uniform(weights: u8, activations: u8) -> BitPlan {
        let (weights, activations) = (WeightBits::whole(weights), ActivationBits::Bits(activations));
        BitPlan::uniform(LayerPlan { weights, activations, ..LayerPlan::default() })
    }

    #[track_caller]
    fn ends(model: &Model, names: &[&str]) {
        assert_eq!(end_layers(model), names);
    }

    const CHAIN: &str = "i = Relu(x) [a] p = MatMul(i, w) q = Relu(p) [b] r = MatMul(q, w) [c] s = MatMul(r, w)
        y = Softmax(s)";

    #[test]
    fn a_chain() {
        let model = model("float y", CHAIN);
        ends(&model, &["a", "c"]);
        let plan = uniform(4, 4).with_ends(&model, EndBits::default());
        let wide = LayerPlan { weights: WeightBits::whole(4), ..LayerPlan::default() };
        assert_eq!(plan.layer("a"), Some(wide));
        assert_eq!(plan.layer("b"), uniform(4, 4).default);
        assert_eq!(plan.layer("c"), Some(wide));
        assert_eq!(plan.layers.len(), 2);
        let plan = uniform(2, 4).with_ends(&model, EndBits::Bits(6));
        let six = LayerPlan { weights: WeightBits::whole(6), activations: ActivationBits::Bits(6), ..wide };
        assert_eq!((plan.layer("a"), plan.layer("c")), (Some(six), Some(six)));
        assert_eq!(plan.layer("b"), uniform(2, 4).default);
    }

    #[test]
    fn one_layer_is_both() {
        ends(&model("float y", "[a] y = MatMul(x, w)"), &["a"]);
    }

    /// The sum's operands reach the output too, but only the layer behind all others is the last layer.
    #[test]
    fn a_residual_network() {
        let blocks = "[a] p = MatMul(x, w) [b] q = MatMul(p, w) r = Add(p, q) [c] s = MatMul(r, w) t = Add(r, s)";
        ends(&model("float t", blocks), &["a", "c"]);
        ends(&model("float y", &format!("{blocks} [d] y = MatMul(t, w)")), &["a", "d"]);
        // The sum of the input and a layer is behind that layer.
        ends(
            &model("float y", "[a] p = MatMul(x, w) q = Add(p, x) [b] r = MatMul(q, w) [c] y = MatMul(r, w)"),
            &["a", "c"],
        );
    }

    #[test]
    fn two_outputs() {
        let read_inside =
            "[a] p = MatMul(x, w) [b] q = MatMul(p, w) y = Relu(q) [c] r = MatMul(q, w) [d] z = MatMul(r, w)";
        ends(&model("float y, float z", read_inside), &["a", "b", "d"]);
        let heads = "[a] p = MatMul(x, w) [b] q = MatMul(p, w) [c] y = MatMul(q, w) [d] r = MatMul(q, w) z = Exp(r)";
        ends(&model("float y, float z", heads), &["a", "c", "d"]);
    }

    #[test]
    fn plans_that_are_left_as_they_are() {
        let model = model("float y", CHAIN);
        let mut named = uniform(4, 4);
        named.layers.insert("b".to_owned(), LayerPlan::FLOAT);
        let float = LayerPlan { activations: ActivationBits::Float, ..LayerPlan::default() };
        for (plan, ends) in [
            (uniform(4, 4), EndBits::Same),
            (uniform(4, 8), EndBits::Activations),
            (uniform(4, 16), EndBits::Activations),
            (BitPlan::uniform(float), EndBits::Activations),
            (named, EndBits::Bits(8)),
            (uniform(5, 5), EndBits::Bits(5)),
        ] {
            assert_eq!(plan.with_ends(&model, ends), plan);
        }
    }

    #[test]
    fn forms_that_other_bits_do_not_allow() {
        let model = model("float y", CHAIN);
        let check = |every: LayerPlan, ends| BitPlan::uniform(every).resolved(&model, ends, &Profile::ORT_CPU);
        let four = LayerPlan { weights: WeightBits::whole(4), ..LayerPlan::default() };
        let int4 = LayerPlan { packing: PackingForm::Int4, ..four };
        assert_eq!(check(int4, EndBits::Bits(8)).unwrap().layer("a"), Some(LayerPlan::default()));
        let codebook = LayerPlan { grid: Some(WeightGrid::Codebook), ..four };
        assert_eq!(check(codebook, EndBits::Bits(8)).unwrap().layer("a"), Some(LayerPlan::default()));
        let kept = LayerPlan { weights: WeightBits::whole(5), activations: ActivationBits::Bits(5), ..codebook };
        assert_eq!(check(codebook, EndBits::Bits(5)).unwrap().layer("a"), Some(kept));
        let float = LayerPlan { activations: ActivationBits::Float, ..four };
        let wide = LayerPlan { weights: WeightBits::whole(8), ..float };
        assert_eq!(check(float, EndBits::Bits(8)).unwrap().layer("c"), Some(wide));
        // A fault of every layer is reported as such, a fault of a first or last layer with its name.
        let fault = |every, ends| check(every, ends).unwrap_err().to_string();
        let three = LayerPlan { weights: WeightBits::whole(3), ..int4 };
        assert!(
            fault(three, EndBits::Bits(8)).contains("option") && !fault(three, EndBits::Bits(8)).contains("layer `")
        );
        assert!(fault(four, EndBits::Bits(9)).contains("`a`: weights of 9 bits"));
    }

    #[test]
    fn words() {
        assert_eq!("same".parse(), Ok(EndBits::Same));
        assert_eq!("6".parse(), Ok(EndBits::Bits(6)));
        for wrong in ["9", "1", "float", ""] {
            assert_eq!(wrong.parse::<EndBits>(), Err(format!("`{wrong}` is none of 2 to 8, same, activations")));
        }
    }
}
