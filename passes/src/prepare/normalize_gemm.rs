//! Pass `normalize-gemm`: every fully connected layer becomes a plain `Gemm`, y = x·W + b with a bias vector.
//!
//! * `Gemm` computes α·x·W + β·c. A constant W takes α in, a constant c takes β in, and a c of one element or of
//!   shape `[1, N]` becomes the vector `[N]` that broadcasting makes of it: α = β = 1 is left. Computed in f64 and
//!   rounded once.
//! * `Add(MatMul(x, W), b)` with constant W of shape `[K, N]` and constant b is `Gemm(x, W, b)` when x has rank 2;
//!   for other ranks `Gemm` is not defined. Where x has more axes, a b of shape `[1, …, N]` becomes the vector `[N]`.
//! * `Add(MatMul(x, W), c)` with any other c, such as another product, is `Add(Gemm(x, W), c)` when x has rank 2.
//!   onnxruntime joins a product and a sum to one `Gemm` before it looks for integers, has no integer kernel for one
//!   whose c is computed, and unpacks W in every run; a `Gemm` it leaves apart.
//!
//! Integer kernels exist for exactly this form. Declined: transposed x, operands that are not constant, that are
//! shared with another node and would have to change, or that are doubles (their values pass through f32), a bias that
//! is no vector over the outputs, a product somebody else reads, and x of unknown rank.

use crate::ir::{DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError, Rewrite, in_turn};

/// Makes fully connected layers plain `Gemm`s.
#[derive(Clone, Copy, Debug, Default)]
pub struct NormalizeGemm;

impl Pass for NormalizeGemm {
    fn name(&self) -> &'static str {
        "normalize-gemm"
    }

    fn about(&self) -> &'static str {
        "fully connected layers become plain Gemms with a bias vector"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let nodes = model.graph.node_ids().collect();
        in_turn(model, nodes, |model, id| {
            let node = model.graph.node(id);
            let site = match node.op() {
                "Gemm" if node.is("Gemm") => gemm_site(&model.graph, node)?,
                "Add" if node.is("Add") => add_site(&model.graph, node)?,
                "MatMul" if node.is("MatMul") => product_site(&model.graph, node),
                _ => None,
            };
            Ok(site.map(|site| rewrite(model, id, &site)).transpose()?)
        })
    }
}

/// What has to change at a node.
enum Site {
    Gemm {
        weight: Option<ValueId>,
        bias: Option<Bias>,
    },
    MatMul {
        matmul: NodeId,
        product: ValueId,
        bias: Bias,
    },
    /// A row that becomes a vector.
    Row(Bias),
    /// A product that stays apart from the sum behind it.
    Product,
}

/// A bias and the shape it is to have.
struct Bias {
    value: ValueId,
    shape: Vec<usize>,
}

fn gemm_site(graph: &Graph, node: &Node) -> Result<Option<Site>, String> {
    let (Some(weight), bias) = (node.input(1), node.input(2)) else { return Ok(None) };
    let scales_weight = node.float_or("alpha", 1.0) != 1.0;
    let scales_bias = bias.is_some() && node.float_or("beta", 1.0) != 1.0;
    if node.int_or("transA", 0) != 0 {
        return Err("its input is transposed".into());
    }
    let [rows, columns] = constant_shape(graph, weight)?[..] else { return Err("its weight is no matrix".into()) };
    let outputs = if node.int_or("transB", 0) == 0 { columns } else { rows };
    let bias = bias.map(|value| bias_site(graph, value, outputs, scales_bias)).transpose()?.flatten();
    if scales_weight {
        changeable(graph, weight)?;
    }
    if !scales_weight && bias.is_none() {
        return Ok(None);
    }
    Ok(Some(Site::Gemm { weight: scales_weight.then_some(weight), bias }))
}

/// The bias as a vector over the outputs; nothing if it is one already and keeps its values.
fn bias_site(graph: &Graph, value: ValueId, outputs: usize, scaled: bool) -> Result<Option<Bias>, String> {
    let shape = constant_shape(graph, value)?;
    let row = [1, outputs].contains(shape.last().unwrap_or(&1)) && shape.iter().rev().skip(1).all(|&n| n == 1);
    if !row || shape.len() > 2 {
        return Err(format!("its bias `{}` is no vector over the outputs", graph.value(value).name()));
    }
    if shape == [outputs] && !scaled {
        return Ok(None);
    }
    changeable(graph, value)?;
    Ok(Some(Bias { value, shape: vec![outputs] }))
}

fn add_site(graph: &Graph, add: &Node) -> Result<Option<Site>, String> {
    let (Some(a), Some(b)) = (add.input(0), add.input(1)) else { return Ok(None) };
    let (sum, bias) = if graph.constant(b).is_some() { (a, b) } else { (b, a) };
    let Some((matmul, _)) = graph.value(sum).producer() else { return Ok(None) };
    let node = graph.node(matmul);
    let (Some(input), Some(weight)) = (node.input(0), node.input(1)) else { return Ok(None) };
    if !node.is("MatMul") || graph.constant(weight).is_none() || graph.constant(bias).is_none() {
        return Ok(None);
    }
    let [_, outputs] = constant_shape(graph, weight)?[..] else { return Ok(None) };
    match [input, sum].iter().find_map(|&v| graph.value(v).shape()).map(|s| s.len()) {
        Some(2) => {}
        Some(rank) => return Ok(row_site(graph, bias, outputs, rank)),
        None => return Err(format!("the rank of `{}` is unknown", graph.value(input).name())),
    }
    let bias = bias_site(graph, bias, outputs, false)?.unwrap_or_else(|| Bias { value: bias, shape: vec![outputs] });
    Ok(Some(Site::MatMul { matmul, product: sum, bias }))
}

/// A row of as many axes as the product, or fewer, as the vector that broadcasting makes of it: the runtime joins that.
fn row_site(graph: &Graph, value: ValueId, outputs: usize, rank: usize) -> Option<Site> {
    let shape = constant_shape(graph, value).ok()?;
    let row = shape.last() == Some(&outputs) && shape.iter().rev().skip(1).all(|&n| n == 1);
    let shortened = row && (2..=rank).contains(&shape.len()) && changeable(graph, value).is_ok();
    shortened.then(|| Site::Row(Bias { value, shape: vec![outputs] }))
}

/// A product that only a sum reads, in which the other operand cannot be the bias.
fn product_site(graph: &Graph, node: &Node) -> Option<Site> {
    let (input, weight, output) = (node.input(0)?, node.input(1)?, node.output(0)?);
    let sum = graph.node(graph.only_use(output)?.node);
    let matrix = constant_shape(graph, weight).is_ok_and(|shape| shape.len() == 2);
    let rank = [input, output].iter().find_map(|&value| graph.value(value).shape()).map(|shape| shape.len());
    let apart = sum.is("Add") && matrix && rank == Some(2) && graph.constant(input).is_none();
    (apart && !matches!(add_site(graph, sum), Ok(Some(_)))).then_some(Site::Product)
}

fn constant_shape(graph: &Graph, value: ValueId) -> Result<Vec<usize>, String> {
    let tensor = graph.constant(value).ok_or_else(|| format!("`{}` is not constant", graph.value(value).name()))?;
    tensor.shape().map_err(|e| e.to_string())
}

/// Whether the constant's elements can be computed anew.
fn changeable(graph: &Graph, value: ValueId) -> Result<(), String> {
    match graph.constant(value).and_then(TensorProto::element_type) {
        Some(DataType::Float | DataType::Float16 | DataType::Bfloat16) => Ok(()),
        _ => Err(format!("`{}` is not floating-point of at most 32 bits", graph.value(value).name())),
    }
}

fn rewrite(model: &Model, id: NodeId, site: &Site) -> Result<Rewrite, PassError> {
    let node = model.graph.node(id);
    let factor = |name| f64::from(node.float_or(name, 1.0));
    match site {
        Site::Gemm { weight, bias } => {
            let mut rewrite = Rewrite::default().keeping(id);
            if let &Some(weight) = weight {
                let shape = model.graph.constant(weight).map(TensorProto::shape).transpose()?.unwrap_or_default();
                scale(model, &mut rewrite, weight, &shape, factor("alpha"))?;
            }
            if let Some(bias) = bias {
                scale(model, &mut rewrite, bias.value, &bias.shape, factor("beta"))?;
            }
            rewrite.remove_attribute(id, "alpha");
            rewrite.remove_attribute(id, "beta");
            Ok(rewrite)
        }
        Site::MatMul { matmul, product, bias } => {
            let mut rewrite = Rewrite::of(*matmul).and(id).private(*product);
            scale(model, &mut rewrite, bias.value, &bias.shape, 1.0)?;
            let layer = model.graph.node(*matmul);
            let gemm = NodeProto::of("Gemm", layer.label(&model.graph), Vec::new());
            let inputs = [layer.input(0).into(), layer.input(1).into(), bias.value.into()];
            rewrite.node(gemm, &inputs, node.output(0));
            Ok(rewrite)
        }
        Site::Row(bias) => {
            let mut rewrite = Rewrite::default().keeping(id);
            scale(model, &mut rewrite, bias.value, &bias.shape, 1.0)?;
            Ok(rewrite)
        }
        Site::Product => {
            let mut rewrite = Rewrite::of(id);
            let gemm = NodeProto::of("Gemm", node.label(&model.graph), Vec::new());
            rewrite.node(gemm, &[node.input(0).into(), node.input(1).into()], node.output(0));
            Ok(rewrite)
        }
    }
}

/// Multiplies a constant and gives it a shape, repeating a single element as often as needed.
fn scale(model: &Model, rewrite: &mut Rewrite, value: ValueId, shape: &[usize], factor: f64) -> Result<(), PassError> {
    let Some(old) = model.constant(value).transpose()? else { return Ok(()) };
    if factor == 1.0 && old.shape()? == shape {
        return Ok(());
    }
    let mut values: Vec<f32> = old.to_f32()?.iter().map(|&v| (f64::from(v) * factor) as f32).collect();
    if let [single] = values[..] {
        values = vec![single; shape.iter().product()];
    }
    rewrite.set_constant(value, old.with_f32(shape, &values));
    Ok(())
}
