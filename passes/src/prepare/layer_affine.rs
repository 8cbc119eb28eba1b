//! Folding a per-channel affine y = a·x + b into the layer x = W·u + c before it: y = (a·W)·u + (a·c + b).
//!
//! Computed in f64 and rounded once to the weight's type. Layers are `Conv`, `ConvTranspose`, `Gemm`, and `MatMul`
//! alone or followed by `Add` of a constant. The layer keeps its node; its weight and bias get other elements, and so
//! does the product behind a `MatMul`, so that only the layer may read them.

use crate::analysis::ChannelAffine;
use crate::ir::{Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Operand, PassError, Rewrite};

/// A layer that can take an affine in.
pub(crate) struct Site {
    pub(crate) layer: NodeId,
    /// The `Add` after a `MatMul`, and the product between the two.
    pub(crate) add: Option<(NodeId, ValueId)>,
    pub(crate) weight: ValueId,
    pub(crate) bias: Option<ValueId>,
    /// What the layer writes for the folded node to read.
    pub(crate) output: ValueId,
    /// Output channels.
    pub(crate) channels: usize,
}

/// The layer that computes `input`, or why there is none.
pub(crate) fn site_before(graph: &Graph, input: ValueId) -> Result<Site, String> {
    let (layer, _) = graph.value(input).producer().ok_or("its input is not computed by a layer")?;
    let found = match graph.node(layer).op() {
        _ if !graph.node(layer).domain().is_empty() => None,
        "Conv" | "ConvTranspose" | "Gemm" => {
            let node = graph.node(layer);
            node.input(1).map(|weight| Site {
                layer,
                add: None,
                weight,
                bias: node.input(2),
                output: input,
                channels: 0,
            })
        }
        "MatMul" => matmul_site(graph, layer, input)?,
        "Add" => add_site(graph, layer, input)?,
        _ => None,
    };
    let mut site = found.ok_or_else(|| format!("it follows {}, not a layer", graph.node(layer).op()))?;
    check_constants(graph, &mut site)?;
    Ok(site)
}

fn add_site(graph: &Graph, add: NodeId, output: ValueId) -> Result<Option<Site>, String> {
    let node = graph.node(add);
    let (Some(a), Some(b)) = (node.input(0), node.input(1)) else { return Ok(None) };
    let (sum, bias) = if graph.constant(b).is_some() { (a, b) } else { (b, a) };
    let Some((layer, _)) = graph.value(sum).producer() else { return Ok(None) };
    if !graph.node(layer).is("MatMul") || graph.constant(bias).is_none() {
        return Ok(None);
    }
    Ok(matmul_site(graph, layer, output)?.map(|site| Site { add: Some((add, sum)), bias: Some(bias), ..site }))
}

fn matmul_site(graph: &Graph, layer: NodeId, output: ValueId) -> Result<Option<Site>, String> {
    let node = graph.node(layer);
    let (Some(input), Some(weight)) = (node.input(0), node.input(1)) else { return Ok(None) };
    let ranks = [
        graph.value(input).shape().map(|s| s.len()),
        node.output(0).and_then(|v| graph.value(v).shape()).map(|s| s.len()),
    ];
    if !ranks.contains(&Some(2)) {
        return Err("the rank of the MatMul before it is not known to be 2".into());
    }
    Ok(Some(Site { layer, add: None, weight, bias: None, output, channels: 0 }))
}

fn check_constants(graph: &Graph, site: &mut Site) -> Result<(), String> {
    let node = graph.node(site.layer);
    for value in [Some(site.weight), site.bias].into_iter().flatten() {
        let name = graph.value(value).name();
        let tensor = graph.constant(value).ok_or_else(|| format!("`{name}` is not constant"))?;
        if !tensor.is_float() {
            return Err(format!("`{name}` is not floating-point"));
        }
    }
    let shape = constant_shape(graph, site.weight);
    site.channels = output_channels(node, &shape).ok_or("the layer before it has a weight of unusual shape")?;
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
pub(crate) fn channel_of<'a>(node: &Node, shape: &'a [usize]) -> Box<dyn Fn(usize) -> usize + 'a> {
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

/// The rewrite by which the layer takes in the affine that node `after` stands for and writes what `after` wrote.
pub(crate) fn fold(model: &Model, after: NodeId, site: &Site, affine: &ChannelAffine) -> Result<Rewrite, PassError> {
    let (weight, bias) = folded(model, site, affine)?;
    let (graph, output) = (&model.graph, model.graph.node(after).output(0));
    let mut rewrite = Rewrite::of(after).keeping(site.layer).private(site.output);
    rewrite.set_constant(site.weight, weight);
    let bias = if let Some(value) = site.bias {
        rewrite.set_constant(value, bias);
        Operand::Value(value)
    } else {
        let name = Some(format!("{}.bias", graph.value(site.weight).name()));
        rewrite.constant(TensorProto { name, ..bias })
    };
    if graph.node(site.layer).is("Gemm") {
        rewrite.remove_attribute(site.layer, "beta");
    }
    let last = match site.add {
        Some((add, product)) => {
            rewrite = rewrite.keeping(add).private(product);
            add
        }
        None if graph.node(site.layer).is("MatMul") => {
            let proto = NodeProto { op_type: Some("Add".into()), ..NodeProto::default() };
            rewrite.node(proto, &[site.output.into(), bias], output);
            return Ok(rewrite);
        }
        None => {
            rewrite.set_input(site.layer, 2, bias);
            site.layer
        }
    };
    if let Some(output) = output {
        rewrite.set_output(last, 0, output);
    }
    Ok(rewrite)
}

/// Weight and bias with the affine in them.
fn folded(model: &Model, site: &Site, affine: &ChannelAffine) -> Result<(TensorProto, TensorProto), PassError> {
    let ChannelAffine { factor, offset } = affine;
    let node = model.graph.node(site.layer);
    let beta = if node.is("Gemm") { f64::from(node.float_or("beta", 1.0)) } else { 1.0 };
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
    Ok((weight, bias))
}

pub(crate) fn constant(model: &Model, value: ValueId) -> Result<TensorProto, PassError> {
    match model.constant(value) {
        Some(tensor) => Ok(tensor?.into_owned()),
        None => Err(PassError::Input(format!("`{}` is not constant", model.graph.value(value).name()))),
    }
}
