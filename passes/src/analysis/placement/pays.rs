//! Where integers do not pay: layers and regions that the target's prices say run slower on integers than in float.
//!
//! With prices f and q of a node in float and on integers:
//!
//! * Of all choices of nodes in float the one that takes least is looked for (`cut`), and layers in it are left in float, where
//!   they save 5 µs with what is around them.
//! * A region, that is nodes joined by quantized values, is left in float where the sum of its q, with the quantizers at
//!   its borders, is more than 1.1 times the sum of its f.
//!
//! Convolutions that the file gives more channels (`widths`) have the price of those. In float, copies into blocks of channels
//! and out of them have the price of what moves elements (`blocks`).
//!
//! Both only where the difference, of a part or of all such regions, is more than 6 µs, or 3 % of a network that takes 20 µs
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
use indexmap::IndexMap;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
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
/// How many times slower a region on integers has to be to stay float.
const REGION_RATIO: f64 = 1.1;

/// What the nodes of a draft cost.
pub(super) struct Account<'a> {
    pub(super) draft: &'a Draft<'a>,
    model: &'a Model,
    pub(super) graph: &'a Graph,
    pub(super) prices: &'a Prices,
    /// What a weight in float takes more because the network has so many.
    far: f64,
    /// The same of a convolution on integers.
    far_integer: f64,
    /// Values that lie in blocks where everything is in float.
    pub(super) blocked: HashSet<ValueId>,
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

impl<'a> Account<'a> {
    /// With so many more output and input channels of convolutions on integers.
    pub(super) fn new(
        model: &'a Model,
        draft: &'a Draft<'a>,
        prices: &'a Prices,
        more: HashMap<NodeId, [usize; 2]>,
    ) -> Self {
        let weights: usize = draft.layers.values().map(Layer::weights).sum();
        let far_when = |bytes: usize, price: f64| if bytes as f64 > prices.far.near_bytes { price } else { 0.0 };
        let mut account = Self {
            draft,
            model,
            graph: &model.graph,
            prices,
            far: far_when(weights * size_of::<f32>(), prices.far.weight),
            far_integer: far_when(weights, prices.far.integer),
            blocked: HashSet::new(),
            more,
            slack: SMALL_SLACK,
        };
        account.blocked = account.blocked_values();
        let float = account.float_network();
        if float >= SMALL {
            account.slack = SLACK.min(SLACK_SHARE * float);
        }
        account
    }

    /// Layers to leave in float, with the reason.
    pub(super) fn slower(&self) -> Vec<(NodeId, String)> {
        let faster = self.faster_in_float();
        if faster.is_empty() { self.slow_regions() } else { faster }
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
        let mut groups: Groups<Member> = Groups::default();
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
    pub(super) fn planar_resizes(&self, value: ValueId) -> f64 {
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

    pub(super) fn node(&self, id: NodeId, role: &Role) -> Option<Cost> {
        let node = self.graph.node(id);
        let copies = self.copies(id, &self.draft.written(id));
        match role {
            Role::Layer(layer) => self.layer(layer).map(|cost| Cost { float: cost.float + copies, ..cost }),
            // Nothing is quantized for these: the runtime's kernel is the one that it would take anyway.
            Role::Product | Role::Index => Some(Cost::default()),
            Role::ResidualSum { .. } | Role::Arithmetic | Role::Movement => {
                let cost = self.operator(node)?;
                Some(Cost { float: cost.float + self.absorbed(id) + copies, ..cost })
            }
        }
    }

    pub(super) fn layer(&self, layer: &Layer) -> Option<Cost> {
        let Prices { float_convolution, float_product, integer_gemm, integer_product, .. } = self.prices;
        let cost = if layer.op.is_convolution() {
            let shape = self.convolution(layer)?;
            let integer = self.integer_convolution(layer, self.more.get(&layer.node).copied().unwrap_or_default())?;
            let weights = shape.weights_inside();
            let float = shape.price(float_convolution) + self.far * weights;
            Cost { float, integer: integer + self.far_integer * weights }
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
        let shape = self.convolution(layer)?;
        Some(shape.widened(more).price(&self.prices.integer_convolution))
    }

    fn convolution(&self, layer: &Layer) -> Option<ConvolutionShape> {
        ConvolutionShape::of(self.graph, layer, self.macs(layer)?, self.shape(layer.input).as_deref())
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
        let in_blocks = node.input(0).is_some_and(|read| self.blocked.contains(&read));
        let float = if in_blocks { price.float } else { price.float_planar };
        let each = if self.is_bias(node) { 0.0 } else { float };
        let float = match fused {
            true if self.is_hard_swish(node) => self.prices.hard_swish * elements,
            true => 0.0,
            false => alone + each * elements,
        };
        let repeated = if self.repeats_channels(node) { self.prices.repeated } else { 0.0 };
        let by_position = (repeated + position) * self.positions(node)?;
        let rows = self.repeated_rows(node) * self.prices.repeated;
        let scattered = if self.scatters_channels(node) { self.prices.scattered * written } else { 0.0 };
        let moved = by_position + rows + scattered;
        Some(Cost { float, integer: self.prices.integer_node + integer * elements + moved })
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

pub(super) fn reason(what: &str, cost: Cost) -> String {
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
pub(super) struct Groups<M> {
    numbers: HashMap<M, usize>,
    parents: Vec<usize>,
}

impl<M> Default for Groups<M> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), parents: Vec::new() }
    }
}

impl<M: Eq + Hash> Groups<M> {
    fn number(&mut self, member: M) -> usize {
        let next = self.parents.len();
        let number = *self.numbers.entry(member).or_insert(next);
        if number == next {
            self.parents.push(next);
        }
        number
    }

    pub(super) fn of(&mut self, member: M) -> usize {
        let mut at = self.number(member);
        while self.parents[at] != at {
            at = self.parents[at];
        }
        at
    }

    pub(super) fn join(&mut self, a: M, b: M) {
        let (a, b) = (self.of(a), self.of(b));
        self.parents[a.max(b)] = a.min(b);
    }
}
