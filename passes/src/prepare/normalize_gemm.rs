//! Pass `normalize-gemm`: every fully connected layer becomes a plain `Gemm`, y = x·W + b with a bias vector.
//!
//! * `Gemm` computes α·x·W + β·c. A constant W takes α in, a constant c takes β in, and a c of one element or of
//!   shape `[1, N]` becomes the vector `[N]` that broadcasting makes of it: α = β = 1 is left. Computed in f64 and
//!   rounded once.
//! * `Add(MatMul(x, W), b)` with constant W of shape `[K, N]` and constant b is `Gemm(x, W, b)` when x has rank 2;
//!   for other ranks `Gemm` is not defined.
//!
//! Integer kernels exist for exactly this form. Declined: transposed x, operands that are not constant, that are
//! shared with another node and would have to change, or that are doubles (their values pass through f32), a bias that
//! is no vector over the outputs, a product somebody else reads, and x of unknown rank.

use crate::ir::{DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};

/// Makes fully connected layers plain `Gemm`s.
#[derive(Clone, Copy, Debug, Default)]
pub struct NormalizeGemm;

impl Pass for NormalizeGemm {
    fn name(&self) -> &'static str {
        "normalize-gemm"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let nodes: Vec<NodeId> = model.graph.node_ids().collect();
        for id in nodes {
            let graph = &model.graph;
            let node = graph.node(id);
            let site = match node.op() {
                "Gemm" if node.is("Gemm") => gemm_site(graph, node),
                "Add" if node.is("Add") => add_site(graph, node),
                _ => continue,
            };
            match site {
                Ok(Some(site)) => {
                    rewrite(model, id, &site)?;
                    outcome.count();
                }
                Ok(None) => {}
                Err(reason) => outcome.decline(node.label(graph), reason),
            }
        }
        Ok(outcome)
    }
}

/// What has to change at a node.
enum Site {
    Gemm { weight: Option<ValueId>, bias: Option<Bias> },
    MatMul { matmul: NodeId, bias: Bias },
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
        Some(_) => return Ok(None),
        None => return Err(format!("the rank of `{}` is unknown", graph.value(input).name())),
    }
    if graph.only_use(sum).is_none() {
        return Err(format!("the product `{}` is read elsewhere too", graph.value(sum).name()));
    }
    let bias = bias_site(graph, bias, outputs, false)?.unwrap_or_else(|| Bias { value: bias, shape: vec![outputs] });
    Ok(Some(Site::MatMul { matmul, bias }))
}

fn constant_shape(graph: &Graph, value: ValueId) -> Result<Vec<usize>, String> {
    let tensor = graph.constant(value).ok_or_else(|| format!("`{}` is not constant", graph.value(value).name()))?;
    tensor.shape().map_err(|e| e.to_string())
}

/// Whether the constant's elements may be replaced.
fn changeable(graph: &Graph, value: ValueId) -> Result<(), String> {
    let name = graph.value(value).name();
    if graph.only_use(value).is_none() {
        return Err(format!("`{name}` is shared with another node"));
    }
    match graph.constant(value).and_then(TensorProto::element_type) {
        Some(DataType::Float | DataType::Float16 | DataType::Bfloat16) => Ok(()),
        _ => Err(format!("`{name}` is not floating-point of at most 32 bits")),
    }
}

fn rewrite(model: &mut Model, id: NodeId, site: &Site) -> Result<(), PassError> {
    match site {
        Site::Gemm { weight, bias } => {
            let factor = |name| f64::from(model.graph.node(id).float_or(name, 1.0));
            let (alpha, beta) = (factor("alpha"), factor("beta"));
            if let &Some(weight) = weight {
                let shape = model.graph.constant(weight).map(TensorProto::shape).transpose()?.unwrap_or_default();
                scale(model, weight, &shape, alpha)?;
            }
            if let Some(bias) = bias {
                scale(model, bias.value, &bias.shape, beta)?;
            }
            model.graph.remove_attribute(id, "alpha");
            model.graph.remove_attribute(id, "beta");
        }
        Site::MatMul { matmul, bias } => {
            scale(model, bias.value, &bias.shape, 1.0)?;
            join(&mut model.graph, *matmul, id, bias.value);
        }
    }
    Ok(())
}

/// Multiplies a constant and gives it a shape, repeating a single element as often as needed.
fn scale(model: &mut Model, value: ValueId, shape: &[usize], factor: f64) -> Result<(), PassError> {
    let Some(old) = model.constant(value).transpose()? else { return Ok(()) };
    if factor == 1.0 && old.shape()? == shape {
        return Ok(());
    }
    let mut values: Vec<f32> = old.to_f32()?.iter().map(|&v| (f64::from(v) * factor) as f32).collect();
    if let [single] = values[..] {
        values = vec![single; shape.iter().product()];
    }
    let new = old.with_f32(shape, &values);
    drop(old);
    model.graph.set_initializer(value, new);
    Ok(())
}

/// Replaces a `MatMul` and the `Add` behind it.
fn join(graph: &mut Graph, matmul: NodeId, add: NodeId, bias: ValueId) {
    let node = graph.node(matmul);
    let name = node.label(graph).to_owned();
    let (input, weight, sum) = (node.input(0), node.input(1), node.output(0));
    let output = graph.node(add).output(0);
    graph.remove_node(matmul);
    graph.remove_node(add);
    graph.add_node(NodeProto::of("Gemm", &name, Vec::new()), &[input, weight, Some(bias)], &[output]);
    if let Some(sum) = sum {
        graph.remove_value(sum);
    }
}
