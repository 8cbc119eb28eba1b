//! Pass `lower-integer`: layers between quantizers become a sum of integer products and one affine in float.
//!
//! With x = (q − z)·s and w = (p − u)·t, where t is one number or one per output channel,
//!
//! Σ x·w + b = m·acc + b,  acc = Σ (q − z)(p − u) exact in int32,  m = s·t,
//!
//! so `Conv` becomes `ConvInteger`, `Cast`, `Mul` with m, `Add` of b, and `MatMul` and `Gemm` the same with
//! `MatMulInteger`. One multiplier and one offset per channel are all that is left in float; a batch-norm that was kept
//! out of the weights' grid is the same affine: γ' = γ·m/√(σ² + ε), β' = β − γμ/√(σ² + ε). m is one number if all are
//! equal, else of shape `[1, C, 1, …]` or `[N]`; an int32 bias is dequantized once and for all. Sums beyond 2²⁴ are
//! rounded by the cast, as float kernels round them.
//!
//! The result keeps its name, and whatever reads it stays: a `Relu`, a quantizer. Zero points of 0 are left out. A
//! transposed weight of `Gemm` gets a `Transpose` of its integers, which folds if they are constant.
//!
//! Declined, when any operand is dequantized: an operand that is not, scales or zero points that are not constant,
//! integers of other than 8 bits, scales along another axis than the outputs, zero points of a convolution's weight
//! that differ (onnxruntime takes one), a bias that is not constant, a weight of unknown rank where it matters, and a
//! `Gemm` with transposed input or factors.

use crate::analysis::LayerOp;
use crate::analysis::quantized::{Constant, Qdq, Quantized};
use crate::ir::{AttributeProto, DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Miss, Operand, Outcome, Pass, PassError, Plan, Rewrite};

/// Lowers layers to integer products.
#[derive(Clone, Copy, Debug, Default)]
pub struct LowerInteger;

impl Pass for LowerInteger {
    fn name(&self) -> &'static str {
        "lower-integer"
    }

    fn about(&self) -> &'static str {
        "layers between quantizers become integer products and a float affine, as ConvInteger"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let graph = &model.graph;
        let mut plan = Plan::default();
        let qdq = Qdq::new(model);
        for (id, node) in graph.nodes() {
            let found = site(&qdq, id, node).transpose().map_err(Miss::from);
            plan.add(graph, node.label(graph), found.map(|site| site.and_then(|site| rewrite(graph, site))))?;
        }
        Ok(plan.apply(&mut model.graph))
    }
}

/// A layer and the tensors of its affine.
struct Site {
    node: NodeId,
    operator: &'static str,
    attributes: Vec<AttributeProto>,
    x: ValueId,
    w: ValueId,
    /// Whether the weight's integers are to be transposed.
    transposed: bool,
    /// Of x and w, where they are not 0.
    zero_points: [Option<ZeroPoint>; 2],
    multiplier: TensorProto,
    offset: Option<TensorProto>,
}

/// A zero point as the integer operator wants it.
enum ZeroPoint {
    Value(ValueId),
    Tensor(Box<TensorProto>),
}

/// How the affine lies on a layer's output.
struct Layout {
    operator: &'static str,
    /// Axis of the weight along which outputs lie.
    axis: usize,
    /// Axes of the weight, where they are known.
    rank: Option<usize>,
}

fn site(qdq: &Qdq, id: NodeId, node: &Node) -> Option<Result<Site, String>> {
    let op = LayerOp::of(node).filter(|&op| op != LayerOp::ConvTranspose)?;
    qdq.reads_dequantized(node).then(|| layer(qdq, id, node, op))
}

fn layer(qdq: &Qdq, id: NodeId, node: &Node, op: LayerOp) -> Result<Site, String> {
    let (x, w) = (qdq.activation(node, 0)?, qdq.operand(node, 1)?);
    let convolution = op == LayerOp::Conv;
    let transposed = op == LayerOp::Gemm && node.int_or("transB", 0) != 0;
    plain(node, op)?;
    let layout = layout(qdq, node, op, &w, transposed);
    outputs(&w, &layout)?;
    let name = node.output(0).map_or("", |v| qdq.model.graph.value(v).name());
    let bias = node.input(2).map(|bias| qdq.floats(bias)).transpose()?;
    Ok(Site {
        node: id,
        operator: layout.operator,
        attributes: if convolution { node.attributes().to_vec() } else { Vec::new() },
        zero_points: [zero_point(&x, true)?, zero_point(&w, convolution)?],
        multiplier: multiplier(name, &x, &w, &layout)?,
        offset: bias.map(|bias| offset(name, bias, &layout)).transpose()?,
        x: x.integers,
        w: w.integers,
        transposed,
    })
}

/// `Gemm` can do more than a product and a sum.
fn plain(node: &Node, op: LayerOp) -> Result<(), String> {
    if op != LayerOp::Gemm {
        return Ok(());
    }
    if node.int_or("transA", 0) != 0 {
        return Err("its input is transposed".to_owned());
    }
    if node.float_or("alpha", 1.0) != 1.0 || (node.input(2).is_some() && node.float_or("beta", 1.0) != 1.0) {
        return Err("its product or bias has a factor, which `normalize-gemm` folds".to_owned());
    }
    Ok(())
}

fn layout(qdq: &Qdq, node: &Node, op: LayerOp, w: &Quantized, transposed: bool) -> Layout {
    let known = qdq.rank(w.integers);
    match op {
        LayerOp::Conv => {
            let spatial = node.ints("kernel_shape").len();
            let rank = known.or((spatial > 0).then_some(spatial + 2));
            Layout { operator: "ConvInteger", axis: 0, rank }
        }
        LayerOp::Gemm => Layout { operator: "MatMulInteger", axis: usize::from(!transposed), rank: Some(2) },
        _ => Layout { operator: "MatMulInteger", axis: 1, rank: known },
    }
}

/// Whether the weight's scales are one for each output of the layer.
fn outputs(w: &Quantized, layout: &Layout) -> Result<(), String> {
    let matrix = layout.operator == "ConvInteger" || layout.rank == Some(2);
    if w.per_tensor() || (matrix && w.lies_along(layout.axis, layout.rank)) {
        return Ok(());
    }
    Err(format!("its weight has its scales along axis {}, not its outputs", w.axis))
}

fn zero_point(quantized: &Quantized, scalar: bool) -> Result<Option<ZeroPoint>, String> {
    let common = quantized.common_zero_point();
    match quantized.zero_point {
        None => Ok(None),
        Some(_) if common == Some(0) => Ok(None),
        Some(value) if quantized.per_tensor() || !scalar => Ok(Some(ZeroPoint::Value(value))),
        Some(_) => {
            let zero = common.ok_or("its weight's zero points differ")?;
            let raw = zero.to_le_bytes()[..1].to_vec();
            let tensor = TensorProto::from_raw("zero_point", quantized.element, &[], raw);
            Ok(Some(ZeroPoint::Tensor(Box::new(tensor))))
        }
    }
}

/// The shape in which `count` numbers lie along the outputs.
fn along_outputs(layout: &Layout, count: usize) -> Result<Vec<usize>, String> {
    if layout.operator == "MatMulInteger" {
        return Ok(vec![count]);
    }
    let rank = layout.rank.ok_or("the rank of its weight is unknown")?;
    if rank < 2 {
        return Err("its weight has no axis of inputs".to_owned());
    }
    Ok((0..rank).map(|axis| if axis == 1 { count } else { 1 }).collect())
}

fn multiplier(name: &str, x: &Quantized, w: &Quantized, layout: &Layout) -> Result<TensorProto, String> {
    let steps: Vec<f32> = w.scales.iter().map(|scale| scale * x.scales[0]).collect();
    let name = format!("{name}_multiplier");
    if steps.iter().all(|&step| step == steps[0]) {
        return Ok(TensorProto::from_f32(&name, &[], &steps[..1]));
    }
    Ok(TensorProto::from_f32(&name, &along_outputs(layout, steps.len())?, &steps))
}

/// A convolution's bias is a vector; that of `Gemm` is broadcast as it is.
fn offset(name: &str, bias: Constant, layout: &Layout) -> Result<TensorProto, String> {
    let convolution = layout.operator == "ConvInteger";
    let shape = if convolution { along_outputs(layout, bias.values.len())? } else { bias.shape };
    Ok(TensorProto::from_f32(&format!("{name}_offset"), &shape, &bias.values))
}

fn rewrite(graph: &Graph, site: Site) -> Option<Rewrite> {
    let node = graph.node(site.node);
    let output = node.output(0)?;
    let stem = graph.value(output).name();
    let mut rewrite = Rewrite::of(site.node);
    let inputs = operands(graph, &mut rewrite, &site);
    let product = NodeProto::of(site.operator, node.name(), site.attributes);
    let accumulated = rewrite.named_op(product, &inputs, format!("{stem}_accumulated"));
    let cast = vec![AttributeProto::element("to", DataType::Float)];
    let mut value = rewrite.op("Cast", &[accumulated], cast, format!("{stem}_sum"));
    let mut constant = rewrite.constant(site.multiplier);
    let mut last = "Mul";
    if let Some(offset) = site.offset {
        let offset = rewrite.constant(offset);
        value = rewrite.op("Mul", &[value, constant], Vec::new(), format!("{stem}_scaled"));
        (constant, last) = (offset, "Add");
    }
    // The layer's name is taken, and often the output's.
    let name = graph.fresh_name(&format!("{stem}_affine"));
    rewrite.node(NodeProto::of(last, &name, Vec::new()), &[value, constant], Some(output));
    Some(rewrite)
}

/// Activation, weight and zero points; those at the end that are 0 are left out.
fn operands(graph: &Graph, rewrite: &mut Rewrite, site: &Site) -> Vec<Operand> {
    let mut w = site.w.into();
    if site.transposed {
        let name = format!("{}_transposed", graph.value(site.w).name());
        w = rewrite.op("Transpose", &[w], vec![AttributeProto::ints("perm", &[1, 0])], name);
    }
    let mut inputs = vec![site.x.into(), w];
    for zero_point in &site.zero_points {
        inputs.push(match zero_point {
            None => Operand::Absent,
            Some(ZeroPoint::Value(value)) => Operand::Value(*value),
            Some(ZeroPoint::Tensor(tensor)) => rewrite.constant(TensorProto::clone(tensor)),
        });
    }
    while inputs.last() == Some(&Operand::Absent) {
        inputs.pop();
    }
    inputs
}
