//! Dequantizers of constants, computed before tract sees the model, and those of blocks.
//!
//! `y = (x − z)·s`, one scale and zero point for all, one per index along an axis, or one per block along an axis. tract
//! computes the same number with three operators that broadcast; a network of integer weights takes a tenth of the time
//! to load without them. Blocks it does not know: where their integers are computed or fed, scales and zero points are
//! repeated over their blocks by a `Gather`.

use super::lowering::Lowering;
use crate::engine::EngineError;
use msq_passes::ir::{AttributeProto, DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId, axis_of};

/// Every dequantizer whose inputs are constants, in whose place comes its result. tract would run it.
pub(super) struct Constants;

impl Lowering for Constants {
    fn mends(&self, _: &Graph, _: NodeId) -> bool {
        false
    }

    fn lower(&self, model: &mut Model) -> Result<(), EngineError> {
        let graph = &model.graph;
        let folded: Vec<(NodeId, ValueId, TensorProto)> = graph
            .nodes()
            .filter_map(|(id, node)| folded(graph, node).map(|(value, tensor)| (id, value, tensor)))
            .collect();
        for (node, value, tensor) in folded {
            let inputs: Vec<ValueId> = model.graph.node(node).inputs().iter().flatten().copied().collect();
            model.graph.remove_node(node);
            for input in inputs {
                model.graph.remove_value(input);
            }
            if !model.graph.is_output(value) {
                model.graph.set_initializer(value, tensor);
                continue;
            }
            // Outputs are written by a node.
            let name = model.graph.fresh_name(&format!("{}_dequantized", tensor.name()));
            let constant = model.graph.add_initializer(TensorProto { name: Some(name.clone()), ..tensor });
            model.graph.add_node(NodeProto::of("Identity", &name, Vec::new()), &[Some(constant)], &[Some(value)]);
        }
        Ok(())
    }
}

/// Every other dequantizer of blocks.
pub(super) struct Blocked;

impl Lowering for Blocked {
    fn mends(&self, graph: &Graph, id: NodeId) -> bool {
        Site::of(graph, id).is_some()
    }

    fn lower(&self, model: &mut Model) -> Result<(), EngineError> {
        let graph = &mut model.graph;
        let nodes: Vec<NodeId> = graph.node_ids().collect();
        let sites: Vec<Site> = nodes.into_iter().filter_map(|id| Site::of(graph, id)).collect();
        if sites.is_empty() {
            return Ok(());
        }
        for site in sites {
            site.replace(graph);
        }
        graph.sort().map_err(EngineError::load)
    }
}

/// A dequantizer of blocks along an axis, counted from the front.
struct Site {
    node: NodeId,
    axis: i64,
    block: i64,
    integers: ValueId,
    scale: ValueId,
    zero_point: Option<ValueId>,
    element: DataType,
    result: ValueId,
}

impl Site {
    fn of(graph: &Graph, id: NodeId) -> Option<Self> {
        let node = graph.node(id);
        if !node.is("DequantizeLinear")
            || !node.domain().is_empty()
            || node.int("output_dtype").is_some_and(|ty| ty != 0)
        {
            return None;
        }
        let block = node.int("block_size").filter(|&block| block > 0)?;
        let (integers, scale, result) = (node.input(0)?, node.input(1)?, node.output(0)?);
        let constant = graph.constant(scale);
        let declared = |value| graph.value(value).shape().map(|shape| shape.len());
        let rank =
            constant.map(|tensor| tensor.dims.len()).or_else(|| declared(scale)).or_else(|| declared(integers))?;
        let axis = i64::try_from(axis_of(node.int_or("axis", 1), rank)?).ok()?;
        let element = constant.and_then(TensorProto::element_type).or_else(|| graph.value(scale).element_type())?;
        Some(Self { node: id, axis, block, integers, scale, zero_point: node.input(2), element, result })
    }

    fn replace(self, graph: &mut Graph) {
        let stem = graph.value(self.result).name().to_owned();
        graph.remove_node(self.node);
        let constant = |graph: &mut Graph, name: &str, value: i64| {
            let name = graph.fresh_name(&format!("{stem}_{name}"));
            graph.add_initializer(TensorProto::from_i64(&name, &[], &[value]))
        };
        let op = |graph: &mut Graph, op: &str, inputs: &[ValueId], attributes: Vec<AttributeProto>| {
            let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
            graph.add_op(op, &inputs, attributes, &format!("{stem}_{}", op.to_lowercase()))
        };
        let (zero, one) = (constant(graph, "first", 0), constant(graph, "one", 1));
        let (axis, block) = (constant(graph, "axis", self.axis), constant(graph, "block", self.block));
        let shape = op(graph, "Shape", &[self.integers], Vec::new());
        let length = op(graph, "Gather", &[shape, axis], Vec::new());
        let places = op(graph, "Range", &[zero, length, one], Vec::new());
        let blocks = op(graph, "Div", &[places, block], Vec::new());
        let repeated = |graph: &mut Graph, value| {
            op(graph, "Gather", &[value, blocks], vec![AttributeProto::int("axis", self.axis)])
        };
        let float = |graph: &mut Graph, value| {
            op(graph, "Cast", &[value], vec![AttributeProto::int("to", i64::from(self.element.number()))])
        };
        let mut steps = float(graph, self.integers);
        if let Some(zero_point) = self.zero_point {
            let zero_point = repeated(graph, zero_point);
            let zero_point = float(graph, zero_point);
            steps = op(graph, "Sub", &[steps, zero_point], Vec::new());
        }
        let scale = repeated(graph, self.scale);
        let name = graph.fresh_name(&format!("{stem}_scaled"));
        graph.add_node(NodeProto::of("Mul", &name, Vec::new()), &[Some(steps), Some(scale)], &[Some(self.result)]);
    }
}

/// What a dequantizer yields, and its result; `None` where it stays.
fn folded(graph: &Graph, node: &Node) -> Option<(ValueId, TensorProto)> {
    if !node.is("DequantizeLinear") || !node.domain().is_empty() {
        return None;
    }
    let result = node.output(0)?;
    let constant = |slot| graph.initializer(node.input(slot)?).filter(|tensor| !tensor.is_external());
    let (integers, scale) = (constant(0)?, constant(1).filter(|tensor| tensor.is_float())?);
    if node.int("output_dtype").is_some_and(|ty| ty != 0) || scale.element_type() != Some(DataType::Float) {
        return None;
    }
    let zero_points = match node.input(2) {
        Some(_) => Some(constant(2)?.to_i64().ok()?),
        None => None,
    };
    let (shape, scales) = (integers.shape().ok()?, scale.to_f32().ok()?);
    let mut floats = as_floats(integers).filter(|floats| floats.len() == shape.iter().product::<usize>())?;
    if let block @ 1.. = node.int_or("block_size", 0) {
        let axis = axis_of(node.int_or("axis", 1), shape.len())?;
        let blocks = Blocks { axis, block: usize::try_from(block).ok()?, scales, zero_points };
        blocks.scale(&mut floats, &shape, &scale.shape().ok()?)?;
        return Some((result, TensorProto::from_f32(graph.value(result).name(), &shape, &floats)));
    }
    let (channels, inner) = match (scale.dims.len(), scales.len()) {
        (_, 1) => (1, floats.len().max(1)),
        (1, channels) => {
            let axis = axis_of(node.int_or("axis", 1), shape.len())?;
            if shape[axis] != channels {
                return None;
            }
            (channels, shape[axis + 1..].iter().product::<usize>().max(1))
        }
        _ => return None,
    };
    if zero_points.as_ref().is_some_and(|zero_points| zero_points.len() != channels) {
        return None;
    }
    for (at, part) in floats.chunks_mut(inner).enumerate() {
        let channel = at % channels;
        let (scale, zero_point) = (scales[channel], zero_points.as_ref().map_or(0.0, |z| z[channel] as f32));
        for value in part {
            *value = (*value - zero_point) * scale;
        }
    }
    let name = graph.value(result).name();
    Some((result, TensorProto::from_f32(name, &shape, &floats)))
}

/// Scales and zero points of blocks along an axis.
struct Blocks {
    axis: usize,
    block: usize,
    scales: Vec<f32>,
    zero_points: Option<Vec<i64>>,
}

impl Blocks {
    /// Dequantizes the values of a tensor of a shape, whose scales have another; `None` where these do not fit.
    fn scale(&self, values: &mut [f32], shape: &[usize], of_scales: &[usize]) -> Option<()> {
        let blocks = shape[self.axis].div_ceil(self.block);
        let mut expected = shape.to_vec();
        expected[self.axis] = blocks;
        if expected != of_scales || self.zero_points.as_ref().is_some_and(|z| z.len() != self.scales.len()) {
            return None;
        }
        let inner: usize = shape[self.axis + 1..].iter().product::<usize>().max(1);
        for (at, value) in values.iter_mut().enumerate() {
            let (within, place, outer) = (at % inner, at / inner % shape[self.axis], at / inner / shape[self.axis]);
            let group = (outer * blocks + place / self.block) * inner + within;
            let zero_point = self.zero_points.as_ref().map_or(0.0, |z| z[group] as f32);
            *value = (*value - zero_point) * self.scales[group];
        }
        Some(())
    }
}

/// The elements of an integer tensor; those of bytes without another copy that is eight times as large.
fn as_floats(integers: &TensorProto) -> Option<Vec<f32>> {
    match (integers.element_type()?, &integers.raw_data) {
        (DataType::Int8, Some(raw)) => Some(raw.iter().map(|&byte| f32::from(byte.cast_signed())).collect()),
        (DataType::Uint8, Some(raw)) => Some(raw.iter().map(|&byte| f32::from(byte)).collect()),
        _ => Some(integers.to_i64().ok()?.into_iter().map(|value| value as f32).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tract::testing;
    use msq_passes::ir;

    /// The initializer that a dequantizer with these attributes becomes.
    fn result(inputs: &str, attributes: &str) -> Option<Vec<f32>> {
        let text = format!(
            "<ir_version: 10, opset_import: [\"\" : 21]>\n\
             g (float[2,3] x) => (float[2,3] y)\n\
             <int8[2,3] w = {{1, -2, 3, 4, -5, 6}}, float one = {{0.5}}, float[3] three = {{1, 2, 4}},\n\
              float[2] two = {{1, 10}}, int8 z = {{1}}, int8[2] zs = {{0, -1}},\n\
              float[2,2] blocks = {{1, 10, 2, 20}}, int8[2,2] bz = {{0, 1, -1, 0}}, float[1,3] rows = {{1, 2, 3}}>\n\
             {{\n d = DequantizeLinear{attributes} ({inputs})\n y = Add (x, d)\n}}"
        );
        let mut model = ir::import(ir::text::parse(&text).unwrap()).unwrap();
        Constants.lower(&mut model).unwrap();
        let value = model.graph.find("d").unwrap();
        model.graph.initializer(value).map(|tensor| tensor.to_f32().unwrap())
    }

    #[test]
    fn constants_are_dequantized_along_their_axis() {
        assert_eq!(result("w, one", "").unwrap(), [0.5, -1.0, 1.5, 2.0, -2.5, 3.0]);
        assert_eq!(result("w, one, z", "").unwrap(), [0.0, -1.5, 1.0, 1.5, -3.0, 2.5]);
        assert_eq!(result("w, three", "").unwrap(), [1.0, -4.0, 12.0, 4.0, -10.0, 24.0]);
        assert_eq!(result("w, two, zs", " <axis = 0>").unwrap(), [1.0, -2.0, 3.0, 50.0, -40.0, 70.0]);
        assert_eq!(result("w, two, zs", " <axis = -2>").unwrap(), [1.0, -2.0, 3.0, 50.0, -40.0, 70.0]);
    }

    #[test]
    fn blocks_are_dequantized_along_their_axis() {
        assert_eq!(result("w, blocks", " <block_size = 2>").unwrap(), [1.0, -2.0, 30.0, 8.0, -10.0, 120.0]);
        assert_eq!(
            result("w, blocks, bz", " <block_size = 2, axis = -1>").unwrap(),
            [1.0, -2.0, 20.0, 10.0, -8.0, 120.0]
        );
        assert_eq!(result("w, rows", " <axis = 0, block_size = 2>").unwrap(), [1.0, -4.0, 9.0, 4.0, -10.0, 18.0]);
    }

    /// The integers of blocks are fed, so that they cannot be folded; an output is computed nonetheless.
    #[test]
    fn blocks_of_what_is_fed() {
        let constants = "float[2,2] blocks = {1, 10, 2, 20}, int8[2,2] bz = {0, 1, -1, 0}, float[1,3] rows = {1, 2, 3}";
        let run = |axis: i64, inputs: &str| {
            let dequantized = format!("y = DequantizeLinear <axis = {axis}, block_size = 2> (w, {inputs})");
            let nodes = format!("w = Cast <to = 3> (x)\n{dequantized}");
            testing::run("float[2,3] x", constants, &nodes, &[(&[2, 3], &[1.0, -2.0, 3.0, 4.0, -5.0, 6.0])])
        };
        assert_eq!(run(1, "blocks"), [1.0, -2.0, 30.0, 8.0, -10.0, 120.0]);
        assert_eq!(run(-1, "blocks, bz"), [1.0, -2.0, 20.0, 10.0, -8.0, 120.0]);
        assert_eq!(run(0, "rows"), [1.0, -4.0, 9.0, 4.0, -10.0, 18.0]);
    }

    #[test]
    fn results_that_are_outputs_are_folded_too() {
        let text = "<ir_version: 10, opset_import: [\"\": 21]>\n g (float[2] x) => (float[2] d, float[2] y)\n\
                    <int8[2] w = {1, -2}, float one = {0.5}>\n {\n d = DequantizeLinear (w, one)\n y = Add (x, d)\n}";
        let mut model = ir::import(ir::text::parse(text).unwrap()).unwrap();
        Constants.lower(&mut model).unwrap();
        let ops: Vec<&str> = model.graph.nodes().map(|(_, node)| node.op()).collect();
        assert_eq!(ops.len(), 2);
        assert!(ops.contains(&"Identity") && !ops.contains(&"DequantizeLinear"));
        let outputs: Vec<&str> = model.graph.outputs().map(|value| model.graph.value(value).name()).collect();
        assert_eq!(outputs, ["d", "y"]);
    }

    #[test]
    fn what_does_not_fit_stays() {
        assert!(result("w, two", "").is_none());
        assert!(result("w, three, zs", "").is_none());
        assert!(result("w, three", " <block_size = 1>").is_none());
    }
}
