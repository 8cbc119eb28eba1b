//! Pass `normalize-pooling`: every mean over the whole image becomes `GlobalAveragePool`.
//!
//! For x of shape `[N, C, H, W]` (or with one more spatial axis) the following are one mean per image and channel:
//!
//! * `ReduceMean` over the axes {2, 3}: kept as axes of length 1 it is `GlobalAveragePool`, else that with a
//!   `Flatten` behind it, whose `[N, C]` is the same shape.
//! * `AveragePool` whose kernel is as large as the image and that pads nothing: there is a single position.
//!
//! Behind an `AveragePool` with dilations stands a `Sum` of its result alone. onnxruntime's pool on integers has no
//! dilations; it would take this one for it, between quantizers, and then refuse the model. The sum keeps them apart.
//! Dilations of 1, which it refuses as well, are left out.
//!
//! Integer kernels exist for `GlobalAveragePool` only. A mean over the last axes of a value of rank 3 is left: it is
//! normalization of a sequence, not pooling. Declined: unknown rank, axes that are not constant, unknown image size of
//! an `AveragePool`, and elements that are not known to be floating-point.

use crate::ir::{AttributeProto, DataType, Graph, Model, Node, NodeId, NodeProto, ValueId};
use crate::pass::{Found, Outcome, Pass, PassError, Plan, Rewrite};

/// Writes means over whole images as `GlobalAveragePool`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NormalizePooling;

impl Pass for NormalizePooling {
    fn name(&self) -> &'static str {
        "normalize-pooling"
    }

    fn about(&self) -> &'static str {
        "means over the whole image become GlobalAveragePool"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let graph = &model.graph;
        let mut plan = Plan::default();
        for (id, node) in graph.nodes().filter(|(_, n)| n.domain().is_empty()) {
            plan.add(graph, node.label(graph), find(graph, id, node))?;
        }
        Ok(plan.apply(&mut model.graph))
    }
}

fn find(graph: &Graph, id: NodeId, node: &Node) -> Found {
    if node.op() == "AveragePool" && node.ints("dilations").iter().any(|&d| d != 1) {
        return Ok(kept_apart(graph, id, node));
    }
    let site = match node.op() {
        "ReduceMean" => mean_site(graph, node)?,
        "AveragePool" => pool_site(graph, node)?,
        _ => None,
    };
    let without_dilations = || {
        let mut rewrite = Rewrite::default().keeping(id);
        rewrite.remove_attribute(id, "dilations");
        rewrite
    };
    let dilated = node.op() == "AveragePool" && node.attribute("dilations").is_some();
    Ok(site.map(|site| rewrite(graph, id, &site)).or_else(|| dilated.then(without_dilations)))
}

/// A mean over the whole image.
struct Site {
    input: ValueId,
    output: ValueId,
    /// Whether the spatial axes go.
    flat: bool,
}

fn mean_site(graph: &Graph, node: &Node) -> Result<Option<Site>, &'static str> {
    let (Some(input), Some(output)) = (node.input(0), node.output(0)) else { return Ok(None) };
    let axes = match node.input(1) {
        Some(value) => graph.constant(value).and_then(|t| t.to_i64().ok()).ok_or("its axes are not constant")?,
        None => node.ints("axes").to_vec(),
    };
    if axes.len() < 2 || axes.iter().any(|&axis| axis == 0 || axis == 1) {
        return Ok(None);
    }
    let rank = graph.value(input).shape().ok_or("rank unknown")?.len() as i64;
    let mut axes: Vec<i64> = axes.into_iter().map(|axis| if axis < 0 { axis + rank } else { axis }).collect();
    axes.sort_unstable();
    if rank > 5 || !axes.into_iter().eq(2..rank) {
        return Ok(None);
    }
    floating(graph, input)?;
    Ok(Some(Site { input, output, flat: node.int_or("keepdims", 1) == 0 }))
}

fn pool_site(graph: &Graph, node: &Node) -> Result<Option<Site>, &'static str> {
    let (Some(input), Some(output)) = (node.input(0), node.output(0)) else { return Ok(None) };
    let padded = node.ints("pads").iter().any(|&p| p != 0)
        || node.string("auto_pad").is_some_and(|mode| !matches!(mode, "NOTSET" | "VALID"));
    if padded {
        return Ok(None);
    }
    let shape = graph.value(input).shape().ok_or("rank unknown")?;
    let image = shape.get(2..).unwrap_or_default();
    let kernel = node.ints("kernel_shape");
    if kernel.len() != image.len() {
        return Ok(None);
    }
    let sizes = image.iter().zip(kernel);
    if sizes.clone().any(|(size, &k)| size.is_some_and(|size| size as i64 != k)) {
        return Ok(None);
    }
    if image.contains(&None) {
        return Err("the size of its input is unknown");
    }
    floating(graph, input)?;
    Ok(Some(Site { input, output, flat: false }))
}

/// A pool with a sum of one operand behind it, unless it has one.
fn kept_apart(graph: &Graph, id: NodeId, node: &Node) -> Option<Rewrite> {
    let (input, output) = (node.input(0)?, node.output(0)?);
    let apart = graph.only_use(output).is_some_and(|reader| {
        let reader = graph.node(reader.node);
        reader.is("Sum") && reader.inputs().len() == 1
    });
    if apart {
        return None;
    }
    let (name, stem) = (node.label(graph), graph.value(output).name());
    let mut rewrite = Rewrite::of(id);
    let pool = NodeProto::of("AveragePool", name, node.attributes().to_vec());
    let pooled = rewrite.named_op(pool, &[input.into()], format!("{stem}_pooled"));
    rewrite.node(NodeProto::of("Sum", &format!("{name}_apart"), Vec::new()), &[pooled], Some(output));
    Some(rewrite)
}

fn floating(graph: &Graph, value: ValueId) -> Result<(), &'static str> {
    let known = graph.value(value).element_type().is_some_and(DataType::is_float);
    if known { Ok(()) } else { Err("its elements are not known to be floating-point") }
}

fn rewrite(graph: &Graph, id: NodeId, site: &Site) -> Rewrite {
    let node = graph.node(id);
    let name = node.label(graph);
    let mut rewrite = Rewrite::of(id).dropping(node.input(1));
    let pool = NodeProto::of("GlobalAveragePool", name, Vec::new());
    if !site.flat {
        rewrite.node(pool, &[site.input.into()], Some(site.output));
        return rewrite;
    }
    let stem = format!("{}_pooled", graph.value(site.output).name());
    let pooled = rewrite.named_op(pool, &[site.input.into()], stem);
    let flatten = NodeProto::of("Flatten", &format!("{name}_flatten"), vec![AttributeProto::int("axis", 1)]);
    rewrite.node(flatten, &[pooled], Some(site.output));
    rewrite
}
