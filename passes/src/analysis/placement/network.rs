//! What the whole network costs, and regions that are each a little slower on integers than in float.
//!
//! With F what all nodes take in float, and q and f what a region takes on integers and in float: where F + Σ (q − f) over
//! all regions is more than 1.03·F, regions are left in float, the one with the largest q / f first, until it is not.
//! Differences of less than the slack (`pays`) are none. Operators without a price of their own count as ones that move
//! elements: F is too small rather than too large.

use super::Role;
use super::pays::{Account, Cost, Region};
use crate::analysis::Layer;
use crate::ir::{Node, NodeId, ValueId};
use crate::ops::is_recurrent;

/// How many times as long as in float a network may take.
const NETWORK_RATIO: f64 = 1.03;

/// Activations that convolutions in float take in.
const CONVOLVED: [&str; 6] = ["Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"];
/// Activations that `Gemm` in float takes in.
const FUSED: [&str; 10] =
    ["Elu", "HardSigmoid", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"];

impl Account<'_> {
    /// Nanoseconds of all nodes in float.
    pub(super) fn float_network(&self) -> f64 {
        let price = |(id, node): (NodeId, &Node)| {
            let written: Vec<ValueId> = node.outputs().iter().flatten().copied().collect();
            self.in_float(id, node).unwrap_or(self.prices.node) + self.copies(id, &written)
        };
        self.graph.nodes().map(price).sum()
    }

    /// Nanoseconds of all nodes as the draft places them.
    pub(super) fn network(&self) -> f64 {
        self.float_network() + self.regions().iter().map(|region| region.cost.lost()).sum::<f64>()
    }

    /// Regions slower than in float without which the network is not.
    pub(super) fn adding_up<'r>(&self, regions: &'r [Region]) -> Vec<&'r Region> {
        let lost: f64 = regions.iter().map(|region| region.cost.lost()).sum();
        if lost > self.slack { worst(self.float_network(), regions) } else { Vec::new() }
    }

    fn in_float(&self, id: NodeId, node: &Node) -> Option<f64> {
        if let Some(layer) = self.draft.layers.get(&id) {
            return Some(self.layer(layer)?.float);
        }
        let (weight, product) = (self.prices.float_product.weight, self.prices.float_product.product);
        if is_recurrent(node.domain(), node.op()) {
            let weights = self.elements(node.input(1)?)? + self.elements(node.input(2)?)?;
            let steps = *self.shape(node.input(0)?)?.first()? as f64;
            return Some(self.prices.node + steps * weights * (weight + product));
        }
        if node.is("MatMul") {
            let inner = *self.shape(node.input(0)?)?.last()? as f64;
            return Some(self.prices.node + self.elements(node.output(0)?)? * inner * product);
        }
        Some(self.operator(node)?.float)
    }

    /// What the nodes that a quantizer takes in behind a node on integers cost in float. Convolutions, and `Gemm`, take them
    /// in there too.
    pub(super) fn absorbed(&self, id: NodeId) -> f64 {
        let mut node = self.graph.node(id);
        if node.is("Conv") || node.is("Gemm") || self.is_fused_in_float(node) {
            return 0.0;
        }
        let mut price = 0.0;
        while let Some(reader) = node.output(0).and_then(|value| self.graph.only_use(value)) {
            if !self.draft.is_on_integers(reader.node) || self.draft.roles.contains_key(&reader.node) {
                break;
            }
            node = self.graph.node(reader.node);
            price += self.operator(node).map_or(self.prices.node, |cost| cost.float);
        }
        price
    }

    /// Whether a layer in float takes in the activation behind it, which on integers stays a node in float.
    pub(super) fn loses_activation(&self, layer: &Layer) -> bool {
        let reader = self.graph.only_use(layer.output).map(|reader| reader.node);
        reader.is_some_and(|reader| {
            !self.draft.is_on_integers(reader) && self.is_fused_activation(self.graph.node(reader))
        })
    }

    /// Whether an activation is part of the layer before it in float.
    pub(super) fn is_fused_activation(&self, node: &Node) -> bool {
        let Some(read) = node.input(0).filter(|&read| self.graph.only_use(read).is_some()) else { return false };
        let Some((producer, _)) = self.graph.value(read).producer() else { return false };
        let producer = self.graph.node(producer);
        let taken_in = |ops: &[&str]| node.domain().is_empty() && ops.contains(&node.op());
        let convolved = producer.is("Conv") || producer.is("Add") && self.is_fused_in_float(producer);
        producer.is("Gemm") && taken_in(&FUSED) || convolved && taken_in(&CONVOLVED)
    }

    /// What changing the layout of a value costs on integers at the border of a region, before and behind convolutions, and
    /// what a change of the file's own saves there in either form.
    pub(super) fn reordering(&self, value: ValueId) -> Cost {
        let Some(elements) = self.elements(value).filter(|_| self.graph.constant(value).is_none()) else {
            return Cost::default();
        };
        let v = self.graph.value(value);
        let producer = v.producer().map(|(id, _)| id).filter(|&id| self.draft.is_on_integers(id));
        let behind =
            v.uses().iter().any(|reader| !self.draft.is_on_integers(reader.node)) || self.graph.is_output(value);
        let copied = match producer {
            Some(_) if !behind => return Cost::default(),
            Some(_) => {
                let mut layers = self.draft.layers.values().filter(|layer| layer.op.is_convolution());
                if !layers.any(|layer| self.draft.written(layer.node).contains(&value)) {
                    return Cost::default();
                }
                self.is_copied_out(value)
            }
            None => {
                let reads = |layer: &&Layer| layer.op.is_convolution() && layer.input == value;
                let roles = v.uses().iter().filter_map(|reader| self.draft.roles.get(&reader.node));
                let layers = roles.filter_map(|role| if let Role::Layer(layer) = role { Some(layer) } else { None });
                let Some(reader) = layers.into_iter().find(reads) else { return Cost::default() };
                self.reads_blocks(reader) && !self.blocked.contains(&value)
            }
        };
        let price = |each: f64| self.prices.node + each * elements;
        let Some(transposition) = self.changed_already(value) else {
            return Cost { float: 0.0, integer: price(self.prices.movement.integer) };
        };
        // Of two changes of the layout, one into the other, nothing is left; in float one.
        let saved = price(self.prices.movement.float);
        Cost { float: if transposition.beside && copied { -saved } else { 0.0 }, integer: -saved }
    }
}

/// Regions slower than in float without which a network that takes so long in float is not.
fn worst(float: f64, regions: &[Region]) -> Vec<&Region> {
    let mut lost: f64 = regions.iter().map(|region| region.cost.lost()).sum();
    let mut slow: Vec<&Region> = regions.iter().filter(|region| region.cost.lost() > 0.0).collect();
    slow.sort_by(|a, b| b.cost.ratio().total_cmp(&a.cost.ratio()));
    let is_worst = |region: &&Region| {
        let adds_up = lost > (NETWORK_RATIO - 1.0) * float;
        lost -= region.cost.lost();
        adds_up
    };
    slow.into_iter().take_while(is_worst).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Placement;
    use crate::ir::{import, text};
    use crate::target::Profile;

    fn region(float: f64, integer: f64) -> Region {
        Region { layers: Vec::new(), cost: Cost { float, integer } }
    }

    fn left(float: f64, regions: &[Region]) -> Vec<f64> {
        worst(float, regions).into_iter().map(|region| region.cost.integer).collect()
    }

    #[test]
    fn regions_that_add_up_leave_the_worst_first() {
        let regions = [region(100.0, 105.0), region(100.0, 109.0), region(100.0, 90.0), region(100.0, 101.0)];
        // 5 % of 100, and less than 3 % without the worst.
        assert_eq!(left(100.0, &regions), [109.0]);
        assert_eq!(left(1_000.0, &regions), [0.0; 0]);
        assert_eq!(left(100.0, &regions[..2]), [109.0, 105.0]);
        // What is faster is left alone.
        assert_eq!(left(10.0, &regions[2..3]), [0.0; 0]);
    }

    /// How many layers of a network are on integers.
    fn on_integers(text: &str) -> usize {
        let model = import(text::parse(text).unwrap_or_else(|e| panic!("{e}: {text}"))).unwrap();
        Placement::new(&model, &Profile::ORT_CPU, |_, _, _| None).layers().count()
    }

    /// Steps of a decoder: what a product on one row saves, its quantizer takes.
    #[test]
    fn small_products_of_one_row_stay_in_float() {
        let steps = |width: usize| {
            let all = |of: fn(usize, usize) -> String| (0..16).map(|at| of(at, width)).collect::<Vec<_>>();
            let values = all(|at, width| format!("float[1,{width}] a{at}, float[1,{width}] b{at}")).join(", ");
            let nodes = all(|at, _| format!("a{at} = MatMul (x, u)  b{at} = Tanh (a{at})")).join("  ");
            let joined = all(|at, _| format!("b{at}")).join(", ");
            format!(
                "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,{width}] x) => (float[16,{width}] y)
                 <float[{width},{width}] u = {{}}, {values}> {{ {nodes} y = Concat <axis = 0> ({joined}) }}"
            )
        };
        assert_eq!(on_integers(&steps(48)), 0);
        assert_eq!(on_integers(&steps(512)), 16);
    }

    /// The shape that was stated for a value is its shape where the file has none.
    #[test]
    fn shapes_of_typical_samples_have_prices() {
        let text = "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,T,32] x) => (float[N,T,32] y)
             <float[32,32] u = {}, float[32,32] v = {}> {
               a = MatMul (x, u)  b = Exp (a)  c = MatMul (b, v)  d = Exp (c)  e = MatMul (d, u)  f = Exp (e)
               h = MatMul (f, v)  i = Exp (h)  j = MatMul (i, u)  k = Exp (j)  y = MatMul (k, v) }";
        let mut model = import(text::parse(text).unwrap()).unwrap();
        let layers =
            |model: &crate::ir::Model| Placement::new(model, &Profile::ORT_CPU, |_, _, _| None).layers().count();
        assert_eq!(layers(&model), 6);
        let values = ["x", "a", "b", "c", "d", "e", "f", "h", "i", "j", "k", "y"];
        model.set_typical_shapes(values.map(|name| (name.to_owned(), vec![1, 2, 32])).into());
        assert_eq!(layers(&model), 0);
    }
}
