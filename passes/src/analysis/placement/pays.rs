//! Where integers do not pay: layers and regions that the target's prices say run slower on integers than in float.
//!
//! With prices f and q of a node in float and on integers:
//!
//! * A layer is left in float, and with it the operators behind it that join the integers because of it alone, such as its
//!   activation, where q > 1.5·f: q with the quantizers that only it needs, f with those that a float node between
//!   integer ones needs, and the changes of the layout there.
//! * A region, that is nodes joined by quantized values, is left in float where the sum of its q, with the quantizers at
//!   its borders, is more than 1.1 times the sum of its f.
//!
//! Convolutions that the file gives more channels (`widths`) have the price of those.
//!
//! Both only where the difference, of a layer or of all such regions, is more than 6 µs, or 3 % of a network that takes 20 µs
//! and more in float, or 3 µs in one that takes less: less cannot be told from noise. Regions that are each a little slower
//! are not let add up (`network`). Where lengths are open, those of a typical sample count ([`Model::typical_shape`]), and one
//! where only the first axis is open. Without either there is no price, and the layer stays on integers.

use super::Role;
use super::convolution::ConvolutionShape;
use super::draft::Draft;
use crate::analysis::{Layer, LayerOp};
use crate::ir::{Graph, Model, Node, NodeId, Use, ValueId};
use crate::ops::reads_shape;
use crate::target::{Counted, OperatorPrice, Prices};
use indexmap::{IndexMap, IndexSet};
use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;

/// Differences of at most so many nanoseconds leave a layer, or all regions, on integers.
const SLACK: f64 = 6_000.0;
/// The same as a share of what the network takes in float, where that is less.
const SLACK_SHARE: f64 = 0.03;
/// Nanoseconds in float below which it is [`SMALL_SLACK`]: a run of any network takes the runtime some microseconds beside
/// its nodes, and nodes between few others find their code in the cache.
const SMALL: f64 = 20_000.0;
/// What is allowed such a network.
const SMALL_SLACK: f64 = 3_000.0;
/// How many times slower a layer on integers has to be to stay float among others that do not.
const LAYER_RATIO: f64 = 1.5;
/// How many times slower a region on integers has to be to stay float.
const REGION_RATIO: f64 = 1.1;
/// Nodes that a border between float and integers inside a region adds: a quantizer and two changes of the layout.
const BORDER_NODES: f64 = 3.0;

/// What the nodes of a draft cost.
pub(super) struct Account<'a> {
    pub(super) draft: &'a Draft<'a>,
    model: &'a Model,
    pub(super) graph: &'a Graph,
    pub(super) prices: &'a Prices,
    /// What a weight of a product in float takes because the network has so many.
    far: f64,
    /// So many more output and input channels that convolutions on integers get.
    more: HashMap<NodeId, [usize; 2]>,
    /// Differences of at most so many nanoseconds make none.
    pub(super) slack: f64,
}

/// What a node costs, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) float: f64,
    pub(super) integer: f64,
}

impl Cost {
    /// How many times as long integers take.
    pub(super) fn ratio(self) -> f64 {
        self.integer / self.float.max(1.0)
    }

    /// How much longer integers take.
    pub(super) fn lost(self) -> f64 {
        self.integer - self.float
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.float += other.float;
        self.integer += other.integer;
    }
}

/// Nodes joined by quantized values.
#[derive(Clone, Debug, Default)]
pub(super) struct Region {
    pub(super) layers: Vec<NodeId>,
    pub(super) cost: Cost,
}

/// A layer with what follows it into float.
#[derive(Clone, Debug)]
struct Followed {
    /// What they cost together.
    cost: Cost,
    /// Whether nothing follows the layer.
    alone: bool,
    /// Of the values they write, those that others read.
    read: IndexSet<ValueId>,
}

impl<'a> Account<'a> {
    /// With so many more output and input channels of convolutions on integers.
    pub(super) fn new(
        model: &'a Model,
        draft: &'a Draft<'a>,
        prices: &'a Prices,
        more: HashMap<NodeId, [usize; 2]>,
    ) -> Self {
        let weights: usize = draft.layers.values().map(Layer::weights).sum();
        let is_far = (weights * size_of::<f32>()) as f64 > prices.far.near_bytes;
        let far = if is_far { prices.far.weight } else { 0.0 };
        let mut account = Self { draft, model, graph: &model.graph, prices, far, more, slack: SMALL_SLACK };
        let float = account.float_network();
        if float >= SMALL {
            account.slack = SLACK.min(SLACK_SHARE * float);
        }
        account
    }

    /// Layers to leave in float, with the reason.
    pub(super) fn slower(&self) -> Vec<(NodeId, String)> {
        let alone = self.slow_layers();
        if alone.is_empty() { self.slow_regions() } else { alone }
    }

    fn slow_layers(&self) -> Vec<(NodeId, String)> {
        let slow = |(&id, role): (&NodeId, &Role)| {
            let Role::Layer(layer) = role else { return None };
            let Followed { cost, alone, read } = self.with_followers(layer)?;
            let float = cost.float + self.borders(layer, &read);
            let integer = cost.integer + self.own_quantizers(layer, &read);
            let slow = integer > LAYER_RATIO * float && integer - float > self.slack;
            let what = if alone { "its integer kernel" } else { "its integer kernel with those behind it" };
            slow.then(|| (id, reason(what, Cost { float, integer })))
        };
        self.draft.roles.iter().filter_map(slow).collect()
    }

    /// A layer with the operators behind it that join the integers because of it alone.
    fn with_followers(&self, layer: &Layer) -> Option<Followed> {
        let mut cost = self.layer(layer)?;
        let mut written: IndexSet<ValueId> = self.draft.written(layer.node).into_iter().collect();
        let mut nodes = HashSet::from([layer.node]);
        let mut next: Vec<ValueId> = written.iter().copied().collect();
        while let Some(value) = next.pop() {
            for reader in self.graph.value(value).uses() {
                let node = self.graph.node(reader.node);
                let joins = matches!(self.draft.roles.get(&reader.node), Some(Role::Arithmetic | Role::Movement));
                let inner = |input: &ValueId| written.contains(input) || self.graph.constant(*input).is_some();
                if !joins || nodes.contains(&reader.node) || !node.inputs().iter().flatten().all(inner) {
                    continue;
                }
                let own = self.operator(node)?;
                cost += own;
                nodes.insert(reader.node);
                let outputs = self.draft.written(reader.node);
                written.extend(&outputs);
                next.extend(outputs);
            }
        }
        // What nobody else reads needs no quantizer in either form.
        written.retain(|&value| {
            let outside = |reader: &Use| !nodes.contains(&reader.node);
            self.graph.value(value).uses().iter().any(outside) || self.graph.is_output(value)
        });
        Some(Followed { cost, alone: nodes.len() == 1, read: written })
    }

    /// What the quantizers and the changes of the layout cost that a layer in float needs where its neighbours stay on
    /// integers; `read` is what others read of it.
    fn borders(&self, layer: &Layer, read: &IndexSet<ValueId>) -> f64 {
        let Prices { integer_node, movement, .. } = self.prices;
        let side = |value: ValueId, price: f64| {
            let elements = self.elements(value).unwrap_or(0.0);
            let readers = self.graph.value(value).uses().iter().filter(|reader| self.draft.is_on_integers(reader.node));
            // Layers and sums read different layouts.
            let more = readers.count().saturating_sub(1) as f64 * (integer_node + 2.0 * movement.integer * elements);
            BORDER_NODES * integer_node + elements * (price + 2.0 * movement.float) + more
        };
        let before = self.graph.value(layer.input).producer().is_some_and(|(id, _)| self.draft.is_on_integers(id));
        let before = if before { side(layer.input, self.prices.dequantize) } else { 0.0 };
        let behind = read.iter().filter(|&&value| self.draft.feeds_integers(value));
        before + behind.map(|&value| side(value, self.prices.quantize)).sum::<f64>()
    }

    /// What the quantizers cost that only this layer needs on integers, with the change of the layout before and behind
    /// convolutions.
    fn own_quantizers(&self, layer: &Layer, read: &IndexSet<ValueId>) -> f64 {
        let change = |value: ValueId| {
            let elements = self.elements(value).unwrap_or(0.0);
            let layout = self.prices.integer_node + self.prices.movement.integer * elements;
            let same = self.changed_already(value).is_some();
            if layer.op.is_convolution() && !same { layout } else { 0.0 }
        };
        let input = self.graph.value(layer.input);
        let is_written = input.producer().is_some_and(|(id, _)| self.draft.is_on_integers(id));
        let readers = input.uses().iter().filter(|reader| self.draft.is_on_integers(reader.node)).count();
        let before = if is_written || readers > 1 { 0.0 } else { self.quantizers(layer.input) + change(layer.input) };
        let left = read.iter().filter(|&&value| !self.draft.feeds_integers(value));
        before + left.map(|&value| self.quantizers(value) + change(value)).sum::<f64>()
    }

    fn slow_regions(&self) -> Vec<(NodeId, String)> {
        let regions = self.regions();
        let slow: Vec<&Region> = regions.iter().filter(|region| region.cost.ratio() > REGION_RATIO).collect();
        // Many small ones add up.
        let slow = if slow.iter().map(|region| region.cost.lost()).sum::<f64>() > self.slack {
            slow
        } else {
            self.adding_up(&regions)
        };
        let float = slow.into_iter().flat_map(|Region { layers, cost }| {
            layers.iter().map(|&id| (id, reason("the part of the model around it on integers", *cost)))
        });
        float.collect()
    }

    /// Nodes joined by quantized values, where all of them have prices.
    pub(super) fn regions(&self) -> Vec<Region> {
        let mut regions: IndexMap<usize, Region> = IndexMap::new();
        let mut groups = Groups::default();
        for (&id, role) in &self.draft.roles {
            for value in self.quantized_values(id, role) {
                groups.join(Member::Node(id), Member::Value(value));
            }
        }
        let mut unknown = Vec::new();
        for (&id, role) in &self.draft.roles {
            let region = groups.of(Member::Node(id));
            let Some(cost) = self.node(id, role) else {
                unknown.push(region);
                continue;
            };
            let entry = regions.entry(region).or_default();
            entry.layers.extend(matches!(role, Role::Layer(_)).then_some(id));
            entry.cost += cost;
        }
        for &value in &self.draft.quantized {
            if let Some(region) = regions.get_mut(&groups.of(Member::Value(value))) {
                region.cost.integer += self.quantizers(value);
                region.cost += self.reordering(value);
            }
        }
        regions.retain(|region, _| !unknown.contains(region));
        regions.into_values().collect()
    }

    /// The quantizer before a value that no integer kernel writes, and the dequantizers behind one that float nodes
    /// read.
    fn quantizers(&self, value: ValueId) -> f64 {
        let Some(elements) = self.elements(value).filter(|_| self.graph.constant(value).is_none()) else { return 0.0 };
        let v = self.graph.value(value);
        let written = v.producer().is_some_and(|(id, _)| self.draft.is_on_integers(id));
        let is_float = |reader: &&Use| {
            let node = self.graph.node(reader.node);
            !self.draft.is_on_integers(reader.node) && !reads_shape(node.domain(), node.op())
        };
        let floats = v.uses().iter().filter(is_float).count() + usize::from(self.graph.is_output(value));
        let price = |each: f64| self.prices.node + each * elements;
        if written {
            floats as f64 * price(self.prices.dequantize) + self.planar_resizes(value)
        } else {
            price(self.prices.quantize)
        }
    }

    /// What linear `Resize` nodes in float take more because a node on integers writes what they read.
    fn planar_resizes(&self, value: ValueId) -> f64 {
        let readers = self.graph.value(value).uses().iter().map(|reader| self.graph.node(reader.node));
        let linear = readers.filter(|node| node.is("Resize") && node.string("mode") == Some("linear"));
        let written = linear.filter_map(|node| self.elements(node.output(0)?));
        written.sum::<f64>() * self.prices.planar_resize
    }

    fn quantized_values(&self, id: NodeId, role: &Role) -> Vec<ValueId> {
        let node = self.graph.node(id);
        let read = match role {
            Role::Layer(layer) => vec![layer.input],
            _ => node.inputs().iter().flatten().copied().collect(),
        };
        let all = read.into_iter().chain(self.draft.written(id));
        all.filter(|value| self.draft.quantized.contains(value)).collect()
    }

    fn node(&self, id: NodeId, role: &Role) -> Option<Cost> {
        let node = self.graph.node(id);
        match role {
            Role::Layer(layer) => self.layer(layer),
            // Nothing is quantized for these: the runtime's kernel is the one that it would take anyway.
            Role::Product | Role::Index => Some(Cost::default()),
            Role::ResidualSum { .. } | Role::Arithmetic | Role::Movement => {
                let cost = self.operator(node)?;
                Some(Cost { float: cost.float + self.absorbed(id), ..cost })
            }
        }
    }

    pub(super) fn layer(&self, layer: &Layer) -> Option<Cost> {
        let Prices { float_convolution, float_product, integer_gemm, integer_product, .. } = self.prices;
        let cost = if layer.op.is_convolution() {
            let shape = ConvolutionShape::of(self.graph, layer, self.macs(layer)?)?;
            let integer = self.integer_convolution(layer, self.more.get(&layer.node).copied().unwrap_or_default())?;
            Cost { float: shape.price(float_convolution), integer }
        } else {
            let weights = (layer.weights() as f64).max(1.0);
            let columns = layer.axis.map_or(1.0, |axis| (layer.shape[axis] as f64).max(1.0));
            let product = [self.macs(layer)? / weights, weights / columns, columns];
            let by = if layer.op == LayerOp::Gemm { integer_gemm } else { integer_product };
            let writes_integers = self.draft.written(layer.node).iter().any(|v| self.draft.quantized.contains(v));
            let integer = if writes_integers { by.integers } else { by.floats };
            let split = self.prices.node * f64::from(u8::from(self.loses_activation(layer)));
            Cost { float: float_product.of(product) + self.far * weights, integer: integer.of(product) + split }
        };
        let float = self.prices.node + cost.float + self.absorbed(layer.node);
        Some(Cost { float, integer: self.prices.integer_node + cost.integer })
    }

    /// What a convolution with so many more output and input channels costs on integers.
    pub(super) fn integer_convolution(&self, layer: &Layer, more: [usize; 2]) -> Option<f64> {
        let shape = ConvolutionShape::of(self.graph, layer, self.macs(layer)?)?;
        Some(shape.widened(more).price(&self.prices.integer_convolution))
    }

    fn price(&self, node: &Node) -> &OperatorPrice {
        self.prices.operators.iter().find(|price| node.is(price.op)).unwrap_or(&self.prices.movement)
    }

    pub(super) fn operator(&self, node: &Node) -> Option<Cost> {
        let price = self.price(node);
        let written = self.elements(node.output(0)?)?;
        let elements = match price.counted {
            Counted::Output => written,
            Counted::Input => self.elements(node.input(0)?)?,
            Counted::Windows => written * window(node),
        };
        let (integer, position) =
            if self.is_planar_pool(node) { (price.planar, 0.0) } else { (price.integer, price.position) };
        let fused =
            self.is_fused_in_float(node) || matches!(node.op(), "Relu" | "Clip") && self.is_fused_activation(node);
        let alone = self.prices.node * f64::from(u8::from(!self.is_fused_activation(node)));
        let each = if self.is_bias(node) { 0.0 } else { price.float };
        let float = if fused { 0.0 } else { alone + each * elements };
        let repeated = if self.repeats_channels(node) { self.prices.repeated } else { 0.0 };
        let by_position = (repeated + position) * self.positions(node)?;
        let rows = self.repeated_rows(node) * self.prices.repeated;
        let scattered = if self.scatters_channels(node) { self.prices.scattered * written } else { 0.0 };
        let moved = by_position + rows + scattered;
        Some(Cost { float, integer: self.prices.integer_node + integer * elements + moved })
    }

    /// Whether another float kernel does the node's work too: x·σ(x) is one operator, as is x·clip(x + c, 0, h), which a
    /// convolution takes in, and a convolution adds what it is given.
    pub(super) fn is_fused_in_float(&self, node: &Node) -> bool {
        let Some([a, b]) = node.two_inputs() else { return false };
        let producer = |value: ValueId| self.graph.value(value).producer().map(|(id, _)| self.graph.node(id));
        let gate = |value: ValueId, x: ValueId| {
            producer(value).is_some_and(|gate| gate.is("Sigmoid") && gate.input(0) == Some(x))
        };
        let is_convolution = |value: ValueId| producer(value).is_some_and(|node| node.is("Conv"));
        let convolution = |value: ValueId| is_convolution(value) && self.graph.only_use(value).is_some();
        let shifts = |value: ValueId, x: ValueId| {
            producer(value).is_some_and(|sum| sum.is("Add") && sum.inputs().contains(&Some(x)))
        };
        let clips = |value: ValueId, x: ValueId| {
            let clip = producer(value).filter(|clip| clip.is("Clip"));
            is_convolution(x) && clip.and_then(|clip| clip.input(0)).is_some_and(|sum| shifts(sum, x))
        };
        let clipped = || {
            let reader = node.output(0).and_then(|sum| self.graph.only_use(sum)).map(|only| self.graph.node(only.node));
            let gated = reader.filter(|clip| clip.is("Clip")).and_then(|clip| clip.output(0));
            gated.and_then(|gate| self.graph.only_use(gate)).is_some_and(|only| self.graph.node(only.node).is("Mul"))
        };
        match node.op() {
            "Mul" => gate(a, b) || gate(b, a) || clips(a, b) || clips(b, a),
            "Add" => convolution(a) || convolution(b) || clipped(),
            _ => false,
        }
    }

    /// Elements of a value for one sample.
    pub(super) fn elements(&self, value: ValueId) -> Option<f64> {
        self.shape(value).map(|shape| shape.into_iter().map(|length| length as f64).product())
    }

    /// Multiply-accumulates of a layer for one sample.
    fn macs(&self, layer: &Layer) -> Option<f64> {
        layer.macs(&self.shape(layer.output)?).map(|macs| macs as f64)
    }

    /// The shape of a value for one sample.
    pub(super) fn shape(&self, value: ValueId) -> Option<Vec<usize>> {
        self.model.sample_shape(value)
    }
}

/// Positions of a pool's kernel.
fn window(pool: &Node) -> f64 {
    pool.ints("kernel_shape").iter().product::<i64>() as f64
}

fn reason(what: &str, cost: Cost) -> String {
    format!(
        "{what} would be slower, quantizers counted: about {} µs, {} in float",
        whole(cost.integer),
        whole(cost.float)
    )
}

fn whole(nanoseconds: f64) -> String {
    format!("{:.0}", (nanoseconds / 1_000.0).max(1.0))
}

/// A node or a value in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Member {
    Node(NodeId),
    Value(ValueId),
}

/// Members that are joined, directly or through others.
#[derive(Default)]
struct Groups {
    numbers: HashMap<Member, usize>,
    parents: Vec<usize>,
}

impl Groups {
    fn number(&mut self, member: Member) -> usize {
        let next = self.parents.len();
        let number = *self.numbers.entry(member).or_insert(next);
        if number == next {
            self.parents.push(next);
        }
        number
    }

    fn of(&mut self, member: Member) -> usize {
        let mut at = self.number(member);
        while self.parents[at] != at {
            at = self.parents[at];
        }
        at
    }

    fn join(&mut self, a: Member, b: Member) {
        let (a, b) = (self.of(a), self.of(b));
        self.parents[a.max(b)] = a.min(b);
    }
}
