//! Which nodes are faster in float: of all choices, the one that takes least.
//!
//! With x = 1 for a node of a draft on integers and 0 in float, the network takes
//!
//! Σ q·x + f·(1 − x) + Σ E·(1 − w)·max(r) + L·w·max(1 − r) + O·w
//!
//! with prices q and f of each node, and for each quantized value, whose writer has x = w and whose readers have x = r, E, of the quantizer and changes of the layout in front of
//! readers on integers, L, of the dequantizer and those in front of readers in float, and O, of the same for nodes
//! that are in float anyway. All terms are submodular, so that the least of all choices is a minimum cut of a graph (Kolmogorov
//! and Zabih, "What energy functions can be minimized via graph cuts?", 2004): integers are on the side of the source, and each
//! maximum has a vertex of its own. Operators that are no layers join the integers only where what they read is written there,
//! or is quantized for a layer.
//!
//! Prices are not exact: q counts as a [`RATIO`]th of it, and parts in float that save less than [`LEAST`] are left on integers.

use super::Role;
use super::pays::{Account, Cost, Groups, reason};
use crate::analysis::Layer;
use crate::ir::{NodeId, Use, ValueId};
use crate::ops::reads_shape;
use indexmap::IndexMap;
use petgraph::algo::maximum_flow::dinics;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use petgraph::{Incoming, Outgoing};
use std::collections::{HashMap, HashSet};

/// How many times slower integers have to be.
const RATIO: f64 = 1.1;
/// Nanoseconds that a part in float has to save.
const LEAST: f64 = 5_000.0;
/// More than any node takes, in nanoseconds: a quarter of an hour.
const MOST: f64 = (1_u64 << 40) as f64;
/// More than any network takes.
const NEVER: u64 = 1 << 60;

/// Prices of nodes, where they are known.
type Costs = IndexMap<NodeId, Option<Cost>>;

/// What a quantized value costs where float and integers meet.
#[derive(Clone, Debug)]
struct Border {
    /// The node of the draft that writes it.
    writer: Option<NodeId>,
    /// The nodes of the draft that read it.
    readers: Vec<NodeId>,
    /// Where readers are on integers and the writer is not.
    enter: f64,
    /// Where the writer is on integers and readers are not.
    leave: f64,
    /// Where the writer is on integers, for readers that never are.
    outside: f64,
    /// Whether it is quantized for no layer.
    joined: bool,
}

impl Account<'_> {
    /// Layers that are faster in float, with what is around them, and operators behind nodes that are not, with the reason.
    pub(super) fn faster_in_float(&self) -> Vec<(NodeId, String)> {
        let borders = self.borders();
        let costs: Costs = self.draft.roles.iter().map(|(&id, role)| (id, self.node(id, role))).collect();
        let float = self.least(&discounted(&costs), &borders);
        let mut slower = Vec::new();
        for part in parts(&float, &borders) {
            let others: HashSet<NodeId> = float.iter().filter(|id| !part.contains(*id)).copied().collect();
            let lost = total(&costs, &borders, &others) - total(&costs, &borders, &float);
            if lost <= self.slack.max(LEAST) {
                continue;
            }
            let in_float: f64 = part.iter().filter_map(|id| costs[id]).map(|cost| cost.float).sum();
            let cost = Cost { float: in_float, integer: in_float + lost };
            let what =
                if part.len() == 1 { "its integer kernel" } else { "the part of the model around it on integers" };
            // Other operators are in float where what they read is.
            let reads_integers = |id: &NodeId| {
                let mut written = borders.iter().filter(|border| border.readers.contains(id)).filter_map(|b| b.writer);
                written.any(|writer| !part.contains(&writer))
            };
            let is_told = |id: &&NodeId| self.draft.layers.contains_key(*id) || reads_integers(id);
            slower.extend(part.iter().filter(is_told).map(|&id| (id, reason(what, cost))));
        }
        slower
    }

    /// The nodes that are in float in the choice that takes least, in the order of the draft.
    fn least(&self, costs: &Costs, borders: &[Border]) -> Vec<NodeId> {
        let mut network = Network::default();
        let vertices: IndexMap<NodeId, NodeIndex> = costs.keys().map(|&id| (id, network.vertex())).collect();
        for (id, cost) in costs {
            match cost {
                Some(cost) => {
                    network.edge(network.integers, vertices[id], cost.float);
                    network.edge(vertices[id], network.floats, cost.integer);
                }
                None => network.bind(network.integers, vertices[id]),
            }
        }
        for border in borders {
            let writer = border.writer.map(|id| vertices[&id]);
            let entered = network.vertex();
            network.edge(entered, writer.unwrap_or(network.floats), border.enter);
            for reader in &border.readers {
                network.bind(vertices[reader], entered);
            }
            let Some(writer) = writer else { continue };
            network.edge(writer, network.floats, border.outside);
            let left = network.vertex();
            network.edge(writer, left, border.leave);
            for reader in &border.readers {
                network.bind(left, vertices[reader]);
                if border.joined && !self.draft.layers.contains_key(reader) {
                    network.bind(vertices[reader], writer);
                }
            }
        }
        let floats = network.side_of_floats();
        vertices.into_iter().filter(|(_, vertex)| floats.contains(vertex)).map(|(id, _)| id).collect()
    }

    fn borders(&self) -> Vec<Border> {
        let written = |&id: &NodeId| self.draft.written(id).into_iter().map(move |value| (value, id));
        let writers: HashMap<ValueId, NodeId> = self.draft.roles.keys().flat_map(written).collect();
        let quantized = self.draft.quantized.iter().filter(|&&value| self.graph.constant(value).is_none());
        quantized.filter_map(|&value| self.border(value, writers.get(&value).copied())).collect()
    }

    fn border(&self, value: ValueId, writer: Option<NodeId>) -> Option<Border> {
        let elements = self.elements(value)?;
        let price = |each: f64| self.prices.node + each * elements;
        let when = |happens: bool, price: f64| if happens { price } else { 0.0 };
        let v = self.graph.value(value);
        let reads = |reader: &&Use| match self.draft.roles.get(&reader.node) {
            Some(Role::Layer(layer)) => layer.input == value,
            role => role.is_some(),
        };
        let mut readers: Vec<NodeId> = v.uses().iter().filter(reads).map(|reader| reader.node).collect();
        readers.dedup();
        let stays_float = |reader: &&Use| {
            let node = self.graph.node(reader.node);
            !self.draft.is_on_integers(reader.node) && !reads_shape(node.domain(), node.op())
        };
        let floats = v.uses().iter().filter(stays_float).count() + usize::from(self.graph.is_output(value));
        let convolution = |id: &NodeId| self.draft.layers.get(id).filter(|layer| layer.op.is_convolution());
        let convolutions: Vec<&Layer> = readers.iter().filter_map(convolution).collect();
        let is_convolved = writer.as_ref().and_then(convolution).is_some();
        // Channels together in front of convolutions on integers and behind them, blocks in front of those in float.
        let together = price(self.prices.movement.integer);
        let copied = price(self.prices.movement.float);
        let at_border = self.reordering(value).integer;
        let lies_in_blocks = self.blocked.contains(&value);
        let reads_blocks = convolutions.iter().any(|layer| self.reads_blocks(layer));
        let enter = price(self.prices.quantize)
            + if writer.is_none() { at_border } else { when(!convolutions.is_empty(), together) }
            + when(lies_in_blocks && !self.is_copied_out(value), copied);
        let leave = price(self.prices.dequantize)
            + self.planar_resizes(value)
            + when(is_convolved && self.changed_already(value).is_none(), together)
            + when(lies_in_blocks && reads_blocks, copied);
        let outside = floats as f64 * price(self.prices.dequantize)
            + when(floats > 0, self.planar_resizes(value) + when(writer.is_some(), at_border));
        let is_read = |role: &Role| matches!(role, Role::Layer(layer) if layer.input == value);
        let joined = !self.draft.roles.values().any(is_read);
        Some(Border { writer, readers, enter, leave, outside, joined })
    }
}

/// A graph whose minimum cut is wanted.
struct Network {
    graph: DiGraph<(), u64>,
    /// The source.
    integers: NodeIndex,
    /// The sink.
    floats: NodeIndex,
}

impl Default for Network {
    fn default() -> Self {
        let mut graph = DiGraph::new();
        let (integers, floats) = (graph.add_node(()), graph.add_node(()));
        Self { graph, integers, floats }
    }
}

impl Network {
    fn vertex(&mut self) -> NodeIndex {
        self.graph.add_node(())
    }

    /// What it costs in nanoseconds that the one is on integers and the other in float.
    fn edge(&mut self, integers: NodeIndex, floats: NodeIndex, price: f64) {
        self.graph.add_edge(integers, floats, price.clamp(0.0, MOST).round() as u64);
    }

    /// The other is on integers where the one is.
    fn bind(&mut self, one: NodeIndex, other: NodeIndex) {
        self.graph.add_edge(one, other, NEVER);
    }

    /// The side of the sink: all from where it is reached by edges that could take more.
    fn side_of_floats(&self) -> HashSet<NodeIndex> {
        let (_, flows) = dinics(&self.graph, self.integers, self.floats);
        let mut side = HashSet::from([self.floats]);
        let mut next = vec![self.floats];
        while let Some(vertex) = next.pop() {
            let into = self.graph.edges_directed(vertex, Incoming);
            let spare = into.filter(|edge| flows[edge.id().index()] < *edge.weight()).map(|edge| edge.source());
            let out = self.graph.edges_directed(vertex, Outgoing);
            let back = out.filter(|edge| flows[edge.id().index()] > 0).map(|edge| edge.target());
            next.extend(spare.chain(back).filter(|&vertex| side.insert(vertex)));
        }
        side
    }
}

/// Prices with which integers are preferred.
fn discounted(costs: &Costs) -> Costs {
    let discount = |cost: Cost| Cost { integer: cost.integer / RATIO, ..cost };
    costs.iter().map(|(&id, &cost)| (id, cost.map(discount))).collect()
}

/// Nodes that hang together by values.
fn parts(nodes: &[NodeId], borders: &[Border]) -> Vec<Vec<NodeId>> {
    let mut groups = Groups::default();
    for border in borders {
        let mut members = border.writer.iter().chain(&border.readers).filter(|id| nodes.contains(id));
        let Some(&first) = members.next() else { continue };
        members.for_each(|&other| groups.join(first, other));
    }
    let mut parts: IndexMap<usize, Vec<NodeId>> = IndexMap::new();
    for &id in nodes {
        parts.entry(groups.of(id)).or_default().push(id);
    }
    parts.into_values().collect()
}

/// What a choice costs, by the nodes that it has in float.
fn total<'a>(costs: &Costs, borders: &[Border], float: impl IntoIterator<Item = &'a NodeId>) -> f64 {
    let float: HashSet<NodeId> = float.into_iter().copied().collect();
    let on_integers = |id: &NodeId| !float.contains(id);
    let node = |(id, cost): (&NodeId, &Option<Cost>)| {
        cost.map_or(0.0, |cost| if on_integers(id) { cost.integer } else { cost.float })
    };
    let border = |border: &Border| {
        let written = border.writer.as_ref().is_some_and(on_integers);
        if written {
            border.outside + if border.readers.iter().all(on_integers) { 0.0 } else { border.leave }
        } else if border.readers.iter().any(on_integers) {
            border.enter
        } else {
            0.0
        }
    };
    costs.iter().map(node).sum::<f64>() + borders.iter().map(border).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::super::draft::Draft;
    use super::*;
    use crate::ir::{import, text};
    use crate::target::Profile;

    /// Four convolutions, a pool and a sum, of so many channels and positions.
    fn network(channels: usize, size: usize) -> String {
        let half = size / 2;
        format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,3,{size},{size}] x) => (float[1,8,{half},{half}] y)
             <float[{channels},3,3,3] u = {{}}, float[{channels},{channels},1,1] v = {{}},
              float[{channels},1,3,3] w = {{}}, float[8,{channels},1,1] z = {{}},
              float[1,{channels},{size},{size}] a, float[1,{channels},{half},{half}] b,
              float[1,{channels},{half},{half}] c, float[1,{channels},{half},{half}] d,
              float[1,{channels},{half},{half}] e> {{
               a = Conv <pads = [1, 1, 1, 1]> (x, u)  b = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
               c = Conv (b, v)  d = Conv <group = {channels}, pads = [1, 1, 1, 1]> (c, w)  e = Add (b, d)
               y = Conv (e, z) }}"
        )
    }

    #[test]
    fn no_choice_takes_less() {
        let profile = Profile::ORT_CPU;
        let mut differ = HashSet::new();
        for (channels, size) in [(4, 8), (8, 32), (16, 16), (24, 56), (40, 28), (64, 12), (128, 64)] {
            let model = import(text::parse(&network(channels, size)).unwrap()).unwrap();
            let draft = Draft::new(&model, &profile, HashMap::new()).drawn();
            let account = Account::new(&model, &draft, profile.prices.unwrap(), HashMap::new());
            let borders = account.borders();
            let costs: Costs = draft.roles.iter().map(|(&id, role)| (id, account.node(id, role))).collect();
            assert_eq!(costs.len(), 6);
            let nodes: Vec<NodeId> = costs.keys().copied().collect();
            let allowed = |float: &[NodeId]| {
                borders.iter().filter(|border| border.joined).all(|border| {
                    let joins = |id: &&NodeId| !draft.layers.contains_key(*id) && !float.contains(id);
                    let reader = border.readers.iter().find(joins);
                    reader.is_none() || border.writer.is_none_or(|writer| !float.contains(&writer))
                })
            };
            let subset = |chosen: usize| -> Vec<NodeId> {
                let is_chosen = |(at, &id): (usize, &NodeId)| (chosen >> at & 1 == 1).then_some(id);
                nodes.iter().enumerate().filter_map(is_chosen).collect()
            };
            let all = (0..1 << nodes.len()).map(subset).filter(|float| allowed(float));
            let best = all.map(|float| total(&costs, &borders, &float)).fold(f64::INFINITY, f64::min);
            let found = account.least(&costs, &borders);
            let reached = total(&costs, &borders, &found);
            // Prices are whole nanoseconds in the cut.
            assert!(reached <= best + 20.0, "{channels} channels of {size}×{size}: {reached} and {best}");
            differ.insert(found.len());
        }
        assert!(differ.len() > 1, "{differ:?}");
    }
}
