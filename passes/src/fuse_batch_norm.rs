//! Pass `fuse-batch-norm`: folds an inference-mode batch-norm into the layer before it.
//!
//! With running statistics μ, σ² a batch-norm is the per-channel affine y = a·x + b, where
//! a = γ/√(σ² + ε) and b = β − μ·a. A layer x = W·u + c with constant W and c absorbs it exactly:
//! y = (a·W)·u + (a·c + b). Computed in f64 and rounded once to the weight's type.
//!
//! Layers: `Conv`, `ConvTranspose`, `Gemm`, and `MatMul` followed by `Add` of a constant or by the batch-norm itself.
//! Declined: statistics that are not constant, training mode, a layer output somebody else reads, weights or biases
//! shared with another node or not constant, and a `MatMul` whose rank is not known to be 2 (the channel axis of a
//! batch-norm is axis 1).

use crate::ir::{Graph, Model, Node, NodeId, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};

/// Folds batch-norms into the layers before them.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuseBatchNorm;

impl Pass for FuseBatchNorm {
    fn name(&self) -> &'static str {
        "fuse-batch-norm"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let norms: Vec<NodeId> =
            model.graph.nodes().filter(|(_, n)| n.is("BatchNormalization")).map(|(id, _)| id).collect();
        for norm in norms {
            match site(model, norm) {
                Ok(site) => {
                    fuse(model, norm, &site)?;
                    outcome.count();
                }
                Err(reason) => outcome.decline(model.graph.node(norm).label(&model.graph), reason),
            }
        }
        Ok(outcome)
    }
}

/// A batch-norm with the layer it goes into.
struct Site {
    layer: NodeId,
    /// The `Add` between a `MatMul` and the batch-norm.
    add: Option<NodeId>,
    weight: ValueId,
    bias: Option<ValueId>,
    channels: usize,
}

fn site(model: &Model, norm: NodeId) -> Result<Site, String> {
    let graph = &model.graph;
    let node = graph.node(norm);
    if node.int_or("training_mode", 0) != 0 || node.outputs().iter().skip(1).any(Option::is_some) {
        return Err("it is in training mode".into());
    }
    let channels = statistics_length(graph, node)?;
    let input = node.input(0).ok_or("it has no input")?;
    let (layer, _) = graph.value(input).producer().ok_or("its input is not computed by a layer")?;
    if graph.only_use(input).is_none() {
        return Err(format!("its input `{}` is read elsewhere too", graph.value(input).name()));
    }
    let found = match graph.node(layer).op() {
        _ if !graph.node(layer).domain().is_empty() => None,
        "Conv" | "ConvTranspose" | "Gemm" => {
            let node = graph.node(layer);
            node.input(1).map(|weight| Site { layer, add: None, weight, bias: node.input(2), channels })
        }
        "MatMul" => matmul_site(graph, layer, None, channels)?,
        "Add" => add_site(graph, layer, channels)?,
        _ => None,
    };
    let site = found.ok_or_else(|| format!("it follows {}, not a layer", graph.node(layer).op()))?;
    check_constants(graph, &site)?;
    Ok(site)
}

fn statistics_length(graph: &Graph, norm: &Node) -> Result<usize, String> {
    let mut length = None;
    for slot in 1..5 {
        let value = norm.input(slot).ok_or("a statistic is missing")?;
        let tensor = graph.constant(value).ok_or_else(|| format!("`{}` is not constant", graph.value(value).name()))?;
        let [n] = tensor.shape().map_err(|e| e.to_string())?[..] else { return Err("a statistic is no vector".into()) };
        if *length.get_or_insert(n) != n {
            return Err("its statistics differ in length".into());
        }
    }
    length.ok_or_else(|| "a statistic is missing".into())
}

fn add_site(graph: &Graph, add: NodeId, channels: usize) -> Result<Option<Site>, String> {
    let node = graph.node(add);
    let (Some(a), Some(b)) = (node.input(0), node.input(1)) else { return Ok(None) };
    let (sum, bias) = if graph.constant(b).is_some() { (a, b) } else { (b, a) };
    let Some((layer, _)) = graph.value(sum).producer() else { return Ok(None) };
    if !graph.node(layer).is("MatMul") || graph.constant(bias).is_none() {
        return Ok(None);
    }
    if graph.only_use(sum).is_none() {
        return Err(format!("the layer's output `{}` is read elsewhere too", graph.value(sum).name()));
    }
    matmul_site(graph, layer, Some((add, bias)), channels)
}

fn matmul_site(
    graph: &Graph,
    layer: NodeId,
    add: Option<(NodeId, ValueId)>,
    channels: usize,
) -> Result<Option<Site>, String> {
    let node = graph.node(layer);
    let (Some(input), Some(weight)) = (node.input(0), node.input(1)) else { return Ok(None) };
    let ranks = [
        graph.value(input).shape().map(|s| s.len()),
        node.output(0).and_then(|v| graph.value(v).shape()).map(|s| s.len()),
    ];
    if !ranks.contains(&Some(2)) {
        return Err("the rank of the MatMul before it is not known to be 2".into());
    }
    Ok(Some(Site { layer, add: add.map(|(n, _)| n), weight, bias: add.map(|(_, v)| v), channels }))
}

fn check_constants(graph: &Graph, site: &Site) -> Result<(), String> {
    let node = graph.node(site.layer);
    for value in [Some(site.weight), site.bias].into_iter().flatten() {
        let name = graph.value(value).name();
        let tensor = graph.constant(value).ok_or_else(|| format!("`{name}` is not constant"))?;
        if !tensor.is_float() {
            return Err(format!("`{name}` is not floating-point"));
        }
        if graph.only_use(value).is_none() {
            return Err(format!("`{name}` is shared with another node"));
        }
    }
    let shape = constant_shape(graph, site.weight);
    let channels = output_channels(node, &shape).ok_or("the layer before it has a weight of unusual shape")?;
    if channels != site.channels {
        return Err(format!("it has {} channels, the layer before it has {channels}", site.channels));
    }
    let bias = site.bias.map(|v| constant_shape(graph, v)).unwrap_or_default();
    let elements: usize = bias.iter().product();
    let row = elements == 1 || (elements == site.channels && bias.last() == Some(&site.channels));
    if row { Ok(()) } else { Err("the layer's bias is no vector over the channels".into()) }
}

fn constant_shape(graph: &Graph, value: ValueId) -> Vec<usize> {
    graph.constant(value).and_then(|t| t.shape().ok()).unwrap_or_default()
}

fn output_channels(node: &Node, shape: &[usize]) -> Option<usize> {
    match (node.op(), shape) {
        ("Conv", [o, _, _, ..]) => Some(*o),
        ("ConvTranspose", [_, o, _, ..]) => o.checked_mul(usize::try_from(node.int_or("group", 1)).ok()?),
        ("Gemm", [a, b]) => Some(if node.int_or("transB", 0) == 0 { *b } else { *a }),
        ("MatMul", [_, n]) => Some(*n),
        _ => None,
    }
}

/// Output channel of every element of a weight, in storage order.
fn channel_of<'a>(node: &Node, shape: &'a [usize]) -> Box<dyn Fn(usize) -> usize + 'a> {
    let inner = |axis: usize| shape[axis + 1..].iter().product::<usize>().max(1);
    match node.op() {
        "Conv" => Box::new(move |i| i / inner(0)),
        "ConvTranspose" => {
            let group = usize::try_from(node.int_or("group", 1)).unwrap_or(1).max(1);
            let inputs = (shape[0] / group).max(1);
            Box::new(move |i| {
                let (row, column) = (i / inner(0), i / inner(1) % shape[1]);
                row / inputs * shape[1] + column
            })
        }
        "Gemm" if node.int_or("transB", 0) != 0 => Box::new(move |i| i / inner(0)),
        _ => Box::new(move |i| i % shape[1]),
    }
}

fn fuse(model: &mut Model, norm: NodeId, site: &Site) -> Result<(), PassError> {
    let (factor, offset) = affine(model, norm)?;
    let node = model.graph.node(site.layer);
    let is_gemm = node.is("Gemm");
    let beta = if is_gemm { f64::from(node.float_or("beta", 1.0)) } else { 1.0 };
    let weight = constant(model, site.weight)?;
    let shape = weight.shape()?;
    let channel = channel_of(node, &shape);
    let scaled: Vec<f32> =
        weight.to_f32()?.iter().enumerate().map(|(i, &w)| (f64::from(w) * factor[channel(i)]) as f32).collect();
    let weight = weight.with_f32(&shape, &scaled);
    let old = site.bias.map(|v| constant(model, v)?.to_f32().map_err(PassError::from)).transpose()?;
    let bias: Vec<f32> = (0..site.channels)
        .map(|c| {
            let old = old.as_ref().map_or(0.0, |b| f64::from(b[if b.len() == 1 { 0 } else { c }]));
            (beta * old * factor[c] + offset[c]) as f32
        })
        .collect();
    let bias = weight.with_f32(&[site.channels], &bias);
    model.graph.set_initializer(site.weight, weight);
    if is_gemm {
        model.graph.remove_attribute(site.layer, "beta");
    }
    attach(&mut model.graph, norm, site, bias);
    Ok(())
}

/// Puts the bias in place and lets the layer write what the batch-norm wrote.
fn attach(graph: &mut Graph, norm: NodeId, site: &Site, mut bias: TensorProto) {
    let output = graph.node(norm).output(0);
    let old = graph.node(norm).input(0);
    let value = site.bias.unwrap_or_else(|| {
        let name = format!("{}.bias", graph.value(site.weight).name());
        graph.add_value(&name)
    });
    bias.name = None;
    graph.set_initializer(value, bias);
    graph.remove_node(norm);
    let last = match (site.add, graph.node(site.layer).is("MatMul")) {
        (Some(add), _) => add,
        (None, false) => {
            graph.set_input(site.layer, 2, Some(value));
            site.layer
        }
        (None, true) => {
            let sum = graph.node(site.layer).output(0);
            let proto = crate::ir::NodeProto { op_type: Some("Add".into()), ..crate::ir::NodeProto::default() };
            graph.add_node(proto, &[sum, Some(value)], &[output]);
            return;
        }
    };
    if let (Some(output), Some(old)) = (output, old) {
        graph.set_output(last, 0, output);
        graph.remove_value(old);
    }
}

/// Factor γ/√(σ² + ε) and offset β − μ·factor of each channel.
fn affine(model: &Model, norm: NodeId) -> Result<(Vec<f64>, Vec<f64>), PassError> {
    let node = model.graph.node(norm);
    let epsilon = f64::from(node.float_or("epsilon", 1e-5));
    let statistic = |slot: usize| -> Result<Vec<f32>, PassError> {
        match node.input(slot) {
            Some(value) => Ok(constant(model, value)?.to_f32()?),
            None => Ok(Vec::new()),
        }
    };
    let (gamma, beta, mean, variance) = (statistic(1)?, statistic(2)?, statistic(3)?, statistic(4)?);
    let factor: Vec<f64> =
        gamma.iter().zip(&variance).map(|(&g, &v)| f64::from(g) / (f64::from(v) + epsilon).sqrt()).collect();
    let offset = factor.iter().zip(beta.iter().zip(&mean)).map(|(f, (&b, &m))| f64::from(b) - f64::from(m) * f);
    let offset = offset.collect();
    Ok((factor, offset))
}

fn constant(model: &Model, value: ValueId) -> Result<TensorProto, PassError> {
    match model.constant(value) {
        Some(tensor) => Ok(tensor?.into_owned()),
        None => Err(PassError::Input(format!("`{}` is not constant", model.graph.value(value).name()))),
    }
}
