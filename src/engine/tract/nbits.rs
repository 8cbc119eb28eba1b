//! `MatMulNBits` of onnxruntime as a product with floats, because tract does not know it.
//!
//! B is `[N, ⌈K/block⌉, block·bits/8]` bytes, integers u of an output channel from the low end of each byte;
//! `W_kn = (u_nk − z_nb)·s_nb`, b = ⌊k / block⌋, z = 2^(bits−1) where no zero points are given. Activations stay float, which
//! accuracy levels may round.

use msq_passes::ir::{DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};

/// The name of the operator.
const OPERATOR: &str = "MatMulNBits";

/// Whether a node is one that [`fold`] replaces.
pub(super) fn is_replaced(graph: &Graph, node: &Node) -> bool {
    node.op() == OPERATOR && weight(graph, node).is_some()
}

/// Replaces every product with constant weights.
pub(super) fn fold(model: &mut Model) {
    let graph = &model.graph;
    let found: Vec<(NodeId, TensorProto)> = graph
        .nodes()
        .filter(|(_, node)| node.op() == OPERATOR)
        .filter_map(|(id, node)| Some((id, weight(graph, node)?)))
        .collect();
    for (id, weight) in found {
        replace(&mut model.graph, id, weight);
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

/// The weight `[K, N]`; `None` where it cannot be read.
fn weight(graph: &Graph, node: &Node) -> Option<TensorProto> {
    let size = |name, default: Option<i64>| usize::try_from(node.int(name).or(default)?).ok();
    let (inputs, channels) = (size("K", None)?, size("N", None)?);
    let (block, bits) = (size("block_size", None).filter(|&block| block > 0)?, size("bits", Some(4))?);
    let per = 8_usize.checked_div(bits).filter(|&per| per * bits == 8)?;
    let constant = |slot| graph.initializer(node.input(slot)?).filter(|tensor| !tensor.is_external());
    if node.input(4).is_some() {
        return None;
    }
    let (blocks, words) = (inputs.div_ceil(block), constant(1)?.to_i64().ok()?);
    let scales = constant(2)?.to_f32().ok()?;
    let zero_points = match node.input(3) {
        None => None,
        Some(_) => Some(ZeroPoints::read(constant(3)?, blocks)?),
    };
    let width = blocks * block / per;
    if words.len() != channels * width || scales.len() != channels * blocks {
        return None;
    }
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
            values[input * channels + channel] = (digit(channel, input, width, &words)? - zero) * scales[group];
        }
    }
    let name = graph.fresh_name(&format!("{}_weight", graph.value(node.output(0)?).name()));
    Some(TensorProto::from_f32(&name, &[inputs, channels], &values))
}

/// Zero points, packed as the integers are, or one float per block.
enum ZeroPoints {
    Words(Vec<i64>),
    Floats(Vec<f32>),
}

impl ZeroPoints {
    fn read(tensor: &TensorProto, blocks: usize) -> Option<Self> {
        match tensor.element_type()? {
            DataType::Uint8 => Some(Self::Words(tensor.to_i64().ok()?)),
            _ if tensor.is_float() && blocks > 0 => Some(Self::Floats(tensor.to_f32().ok()?)),
            _ => None,
        }
    }
}
