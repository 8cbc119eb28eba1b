//! Pass `fuse-lstm`: an `LSTM` whose weights are stored as integers quantizes what it reads at run time.
//!
//! ```text
//! Y, Y_h, Y_c = LSTM(X, Mul(Cast<float>(W), s), Mul(Cast<float>(R), t), B, …)     W [D, 4·H, I], s [D, 4·H, 1]
//! Y, Y_h, Y_c = com.microsoft.DynamicQuantizeLSTM(X, Wᵀ, Rᵀ, B, …, s, 0, t, 0)
//! ```
//!
//! The kernel of onnxruntime wants `[D, I, 4·H]`: the integers go through a `Transpose`, which runtimes evaluate when they load
//! the model. It rounds X and the state of each step to 8 bits on the range that they have, and sums integers; with floats in
//! their place the function is the same. `GRU` and `RNN` have no such kernel.
//!
//! Declined: a hidden size below [`FuseLstm::SMALLEST`], with which the kernel is no faster than that of floats; weights that
//! are not both integers with one scale per channel; batches along the first axis and coupled gates, which the kernel does
//! not know.

use crate::ir::{AttributeProto, DataType, Graph, Model, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use indexmap::{IndexMap, IndexSet};

/// The domain of onnxruntime's own operators.
const CONTRIB: &str = "com.microsoft";

/// Inputs of an `LSTM`; those of the other operator go on with scales and zero points.
const INPUTS: usize = 8;

/// Lets layers quantize what they read at run time.
#[derive(Clone, Debug, Default)]
pub struct FuseLstm {
    /// Names of the nodes that are to do so.
    pub nodes: IndexSet<String>,
}

impl FuseLstm {
    /// The smallest hidden size of a layer that is faster so.
    pub const SMALLEST: usize = 128;
    /// The operator that quantizes what it reads.
    pub const OPERATOR: &'static str = "DynamicQuantizeLSTM";
}

impl Pass for FuseLstm {
    fn name(&self) -> &'static str {
        "fuse-lstm"
    }

    fn about(&self) -> &'static str {
        "LSTM with weights of integers becomes DynamicQuantizeLSTM of onnxruntime"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let mut sites = Vec::new();
        for (id, node) in model.graph.nodes().filter(|(_, node)| node.is("LSTM")) {
            let label = node.label(&model.graph);
            if !self.nodes.contains(label) {
                continue;
            }
            match Site::new(model, id)? {
                Ok(site) => sites.push(site),
                Err(reason) => outcome.decline(label, reason),
            }
        }
        if !sites.is_empty() && model.opset(CONTRIB).is_none() {
            model.set_opset(CONTRIB, 1);
        }
        let mut written = Written::default();
        for site in sites {
            site.write(&mut model.graph, &mut written);
            outcome.count();
        }
        Ok(outcome)
    }
}

/// A layer and its weights: W and R.
struct Site {
    node: NodeId,
    weights: [Weight; 2],
}

/// Integers of a weight and their scales `[D, 4·H]`.
struct Weight {
    integers: ValueId,
    scale: ValueId,
    scales: Vec<f32>,
    shape: [usize; 2],
}

impl Site {
    fn new(model: &Model, id: NodeId) -> Result<Result<Self, String>, PassError> {
        let node = model.graph.node(id);
        let hidden = usize::try_from(node.int_or("hidden_size", 0)).unwrap_or_default();
        let (below, smallest) = (hidden < FuseLstm::SMALLEST, FuseLstm::SMALLEST);
        let reason = match () {
            () if below => Some(format!("its hidden size is below {smallest}: it would not be faster")),
            () if node.int_or("layout", 0) != 0 => Some("its batches lie along the first axis".to_owned()),
            () if node.int_or("input_forget", 0) != 0 => Some("its gates are coupled".to_owned()),
            () => None,
        };
        if let Some(reason) = reason {
            return Ok(Err(reason));
        }
        let weights = (Weight::new(model, id, 1, hidden)?, Weight::new(model, id, 2, hidden)?);
        let (Some(input), Some(recurrent)) = weights else {
            return Ok(Err("its weights are not all integers with one scale per channel".to_owned()));
        };
        Ok(Ok(Self { node: id, weights: [input, recurrent] }))
    }

    fn write(self, graph: &mut Graph, written: &mut Written) {
        let node = graph.node(self.node);
        let (name, outputs) = (node.name().to_owned(), node.outputs().to_vec());
        let mut inputs: Vec<Option<ValueId>> = (0..INPUTS).map(|slot| node.input(slot)).collect();
        let unknown = |attribute: &&AttributeProto| matches!(attribute.name(), "layout" | "input_forget");
        let attributes = node.attributes().iter().filter(|attribute| !unknown(attribute)).cloned().collect();
        for (slot, weight) in (1..).zip(&self.weights) {
            inputs[slot] = Some(written.transposed(graph, weight.integers));
            inputs.extend(written.parameters(graph, weight).map(Some));
        }
        let mut proto = NodeProto::of(FuseLstm::OPERATOR, &name, attributes);
        proto.domain = Some(CONTRIB.to_owned());
        graph.remove_node(self.node);
        graph.add_node(proto, &inputs, &outputs);
    }
}

/// What was written for the weights, which layers may share.
#[derive(Default)]
struct Written {
    transposed: IndexMap<ValueId, ValueId>,
    parameters: IndexMap<ValueId, [ValueId; 2]>,
}

impl Written {
    /// The integers `[D, I, 4·H]`.
    fn transposed(&mut self, graph: &mut Graph, integers: ValueId) -> ValueId {
        *self.transposed.entry(integers).or_insert_with(|| {
            let name = format!("{}_transposed", graph.value(integers).name());
            graph.add_op("Transpose", &[Some(integers)], vec![AttributeProto::ints("perm", &[0, 2, 1])], &name)
        })
    }

    /// Scales and zero points `[D, 4·H]`.
    fn parameters(&mut self, graph: &mut Graph, weight: &Weight) -> [ValueId; 2] {
        *self.parameters.entry(weight.scale).or_insert_with(|| {
            let stem = graph.value(weight.integers).name();
            let [scale, zero_point] = ["scale", "zero_point"].map(|part| format!("{stem}_{part}"));
            let zeros = vec![0; weight.shape.iter().product()];
            let zero_points = TensorProto::from_i8(&zero_point, &weight.shape, &zeros);
            let scales = TensorProto::from_f32(&scale, &weight.shape, &weight.scales);
            [graph.add_initializer(scales), graph.add_initializer(zero_points)]
        })
    }
}

impl Weight {
    /// Input `slot` of a layer, if it is a product of integers and scales per channel.
    fn new(model: &Model, id: NodeId, slot: usize, hidden: usize) -> Result<Option<Self>, PassError> {
        let graph = &model.graph;
        let made = |value: Option<ValueId>, op: &str| {
            let node = graph.node(graph.value(value?).producer()?.0);
            node.is(op).then_some(node)
        };
        let Some(product) = made(graph.node(id).input(slot), "Mul") else { return Ok(None) };
        let (Some(cast), Some(scale)) = (made(product.input(0), "Cast"), product.input(1)) else { return Ok(None) };
        let to_float = cast.int_or("to", 0) == i64::from(DataType::Float.number());
        let (Some(integers), Some(tensor)) = (cast.input(0), model.constant(scale).transpose()?) else {
            return Ok(None);
        };
        let shape = tensor.shape()?;
        let &[directions, channels, 1] = &shape[..] else { return Ok(None) };
        let int8 = graph.constant(integers).is_none_or(|held| held.element_type() == Some(DataType::Int8));
        if !to_float || !int8 || channels != 4 * hidden || tensor.element_type() != Some(DataType::Float) {
            return Ok(None);
        }
        Ok(Some(Self { integers, scale, scales: tensor.to_f32()?, shape: [directions, channels] }))
    }
}
