//! `MatMulNBits` of onnxruntime as a product with floats, because tract does not know it.
//!
//! B is `[N, ⌈K/block⌉, block·bits/8]` bytes, integers u of an output channel from the low end of each byte;
//! `W_kn = (u_nk − z_nb)·s_nb`, b = ⌊k / block⌋, z = 2^(bits−1) where no zero points are given. Activations stay float, which
//! accuracy levels may round.

use super::lowering::Lowering;
use crate::engine::EngineError;
use msq_passes::ir::{DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};

/// The name of the operator.
const OPERATOR: &str = "MatMulNBits";
const DOMAIN: &str = "com.microsoft";

/// Every product with constant weights.
pub(super) struct Products;

impl Lowering for Products {
    fn mends(&self, graph: &Graph, id: NodeId) -> bool {
        Weight::of(graph, graph.node(id)).is_some()
    }

    fn lower(&self, model: &mut Model) -> Result<(), EngineError> {
        let graph = &model.graph;
        let weight = |(id, node)| Some((id, Weight::of(graph, node)?.dequantized(graph, node)?));
        let found: Vec<(NodeId, TensorProto)> = graph.nodes().filter_map(weight).collect();
        for (id, weight) in found {
            replace(&mut model.graph, id, weight);
        }
        Ok(())
    }
}

fn replace(graph: &mut Graph, id: NodeId, weight: TensorProto) {
    let node = graph.node(id);
    let (name, input, bias, output) = (node.name().to_owned(), node.input(0), node.input(5), node.output(0));
    let constants: Vec<ValueId> = node.inputs().iter().skip(1).take(3).flatten().copied().collect();
    graph.remove_node(id);
    for value in constants {
        graph.remove_value(value);
    }
    let weight = graph.add_initializer(weight);
    let Some(bias) = bias else {
        graph.add_node(NodeProto::of("MatMul", &name, Vec::new()), &[input, Some(weight)], &[output]);
        return;
    };
    let product = graph.add_op("MatMul", &[input, Some(weight)], Vec::new(), &format!("{name}_product"));
    graph.add_node(NodeProto::of("Add", &name, Vec::new()), &[Some(product), Some(bias)], &[output]);
}

/// A constant weight in blocks, whose parts fit each other.
struct Weight<'a> {
    inputs: usize,
    channels: usize,
    block: usize,
    bits: usize,
    words: &'a TensorProto,
    scales: &'a TensorProto,
    zero_points: Option<&'a TensorProto>,
}

impl<'a> Weight<'a> {
    /// The product that a node is, if its weight can be read.
    fn of(graph: &'a Graph, node: &Node) -> Option<Self> {
        // With `g_idx` inputs are in an order of their own.
        if node.op() != OPERATOR || node.domain() != DOMAIN || node.input(4).is_some() {
            return None;
        }
        let size = |name, default: Option<i64>| usize::try_from(node.int(name).or(default)?).ok();
        let constant = |slot| graph.initializer(node.input(slot)?).filter(|tensor| !tensor.is_external());
        let weight = Self {
            inputs: size("K", None)?,
            channels: size("N", None)?,
            block: size("block_size", None).filter(|&block| block > 0)?,
            bits: size("bits", Some(4)).filter(|bits| [1, 2, 4, 8].contains(bits))?,
            words: constant(1)?,
            scales: constant(2)?,
            zero_points: constant(3),
        };
        let count = |tensor: &TensorProto| Some(tensor.shape().ok()?.iter().product::<usize>());
        let (blocks, per) = (weight.inputs.div_ceil(weight.block), weight.per_byte());
        let packed = |values: usize| weight.channels.checked_mul(values.div_ceil(per));
        let fits = count(weight.words) == packed(blocks.checked_mul(weight.block)?)
            && count(weight.scales) == weight.channels.checked_mul(blocks)
            && weight.zero_points.is_some() == node.input(3).is_some()
            && weight.zero_points.is_none_or(|tensor| match tensor.element_type() {
                Some(DataType::Uint8) => count(tensor) == packed(blocks),
                _ => tensor.is_float() && count(tensor) == count(weight.scales),
            });
        fits.then_some(weight)
    }

    fn per_byte(&self) -> usize {
        8 / self.bits
    }

    /// The weight `[K, N]` in floats.
    fn dequantized(&self, graph: &Graph, node: &Node) -> Option<TensorProto> {
        let Self { inputs, channels, block, bits, .. } = *self;
        let per = self.per_byte();
        let blocks = inputs.div_ceil(block);
        let (words, scales) = (self.words.to_i64().ok()?, self.scales.to_f32().ok()?);
        let zero_points = match self.zero_points {
            Some(tensor) => Some(ZeroPoints::read(tensor)?),
            None => None,
        };
        let digit = |row: usize, at: usize, width: usize, words: &[i64]| {
            let word = words.get(row * width + at / per)?;
            Some((word >> (at % per * bits) & ((1 << bits) - 1)) as f32)
        };
        let mut values = vec![0.0; inputs.checked_mul(channels)?];
        for channel in 0..channels {
            for input in 0..inputs {
                let group = channel * blocks + input / block;
                let zero = match &zero_points {
                    None => (1 << (bits - 1)) as f32,
                    Some(ZeroPoints::Floats(floats)) => *floats.get(group)?,
                    Some(ZeroPoints::Words(words)) => digit(channel, input / block, blocks.div_ceil(per), words)?,
                };
                let integer = digit(channel, input, (blocks * block).div_ceil(per), &words)?;
                values[input * channels + channel] = (integer - zero) * scales.get(group)?;
            }
        }
        let name = graph.fresh_name(&format!("{}_weight", graph.value(node.output(0)?).name()));
        Some(TensorProto::from_f32(&name, &[inputs, channels], &values))
    }
}

/// Zero points, packed as the integers are, or one float per block.
enum ZeroPoints {
    Words(Vec<i64>),
    Floats(Vec<f32>),
}

impl ZeroPoints {
    fn read(tensor: &TensorProto) -> Option<Self> {
        match tensor.element_type()? {
            DataType::Uint8 => Some(Self::Words(tensor.to_i64().ok()?)),
            _ => Some(Self::Floats(tensor.to_f32().ok()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir;

    /// A product of three inputs and two outputs, with blocks of 16 and weights of 4 bits.
    fn model(domain: &str, words: usize, zero_points: &str) -> Model {
        let bytes = vec!["154"; words].join(", ");
        let text = format!(
            "<ir_version: 10, opset_import: [\"\" : 21, \"{domain}\" : 1]>\n\
             g (float[1,3] x) => (float[1,2] y)\n\
             <uint8[2,1,{}] w = {{{bytes}}}, float[2,1] s = {{1, 2}}, uint8[2,1] z = {{9, 7}}, float[2,1] f = {{1.5, 0}}>\n\
             {{\n y = {domain}.MatMulNBits <K = 3, N = 2, bits = 4, block_size = 16> (x, w, s{zero_points})\n}}",
            words / 2
        );
        ir::import(ir::text::parse(&text).unwrap()).unwrap()
    }

    fn weight(mut model: Model) -> Option<Vec<f32>> {
        Products.lower(&mut model).unwrap();
        let (_, node) = model.graph.nodes().find(|(_, node)| node.op() == "MatMul")?;
        Some(model.graph.initializer(node.input(1)?)?.to_f32().unwrap())
    }

    #[test]
    fn integers_are_read_from_the_low_end() {
        let of = |zero_points| weight(model("com.microsoft", 16, zero_points)).unwrap();
        assert_eq!(of(""), [2.0, 4.0, 1.0, 2.0, 2.0, 4.0]);
        assert_eq!(of(", z"), [1.0, 6.0, 0.0, 4.0, 1.0, 6.0]);
        assert_eq!(of(", f"), [8.5, 20.0, 7.5, 18.0, 8.5, 20.0]);
    }

    #[test]
    fn other_operators_and_broken_weights_stay() {
        assert!(weight(model("acme", 16, "")).is_none());
        assert!(weight(model("com.microsoft", 14, "")).is_none());
    }
}
