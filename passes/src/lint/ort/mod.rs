//! Which nodes of a quantized model an onnxruntime session on the CPU computes in float, and why.
//!
//! onnxruntime matches `DequantizeLinear → operator → QuantizeLinear` and puts an integer kernel in its place. Before
//! that it gives every reader a `DequantizeLinear` of its own, moves quantizers across operators that only move data
//! (`links`), rounds float biases and weights of layers that read and write integers, and turns a product and a sum
//! into one `Gemm`. Predicted is what its version 1.32 does with every optimization switched on; `tests/lint.rs` compares
//! with the version pinned in `tests/runtime/requirements.txt`.

mod kernels;
mod layers;
mod links;
mod shapes;
mod types;

use super::view::View;
use crate::analysis::quantized::{is_dequantizer, is_quantizer};
use crate::ir::{Model, Node, NodeId, ValueId};
use crate::target::{Profile, RuleId};
use indexmap::IndexMap;
use links::Links;

/// A node that onnxruntime computes in float.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FloatNode {
    /// The node's name, or its output's.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Why no integer kernel takes it.
    pub reason: String,
}

/// The nodes of the model that an onnxruntime session on an x86 CPU computes in float, in graph order. Nodes that only
/// move data are left out, except where quantizers stand on both sides and disagree.
pub fn predict_float(model: &Model) -> Vec<FloatNode> {
    predict(&View::new(model, &Profile::ORT_CPU))
}

/// The nodes of the model that the target computes in float; none where it does not check that.
pub fn predict_float_on(model: &Model, profile: &Profile) -> Vec<FloatNode> {
    let checked = profile.listed(RuleId::StaysFloat).is_some();
    if checked { predict(&View::new(model, profile)) } else { Vec::new() }
}

pub(super) fn predict(view: &View) -> Vec<FloatNode> {
    let links = Links { view };
    let mut reasons: IndexMap<NodeId, String> = IndexMap::new();
    let products = products_with_bias(view);
    for (id, node) in view.graph.nodes() {
        if !computes_floats(view, id) {
            continue;
        }
        let verdict = match products.iter().find(|p| p.product == id || p.sum == id) {
            Some(product) => layers::product_with_bias(&links, product),
            None => kernels::verdict(&links, node),
        };
        if let Err(reason) = verdict {
            reasons.insert(id, reason);
        }
    }
    let float = |(id, reason): (NodeId, String)| FloatNode {
        node: view.label(id),
        op: view.graph.node(id).op().to_owned(),
        reason,
    };
    reasons.into_iter().map(float).collect()
}

/// Nodes at which a session fails: pools with `dilations`, be they 1, that become `QLinearAveragePool`, and `Pad`s with
/// axes between convolutions, whose padding is put into another order as if it were for every axis.
pub(super) fn refused(view: &View) -> Vec<(String, String)> {
    let links = Links { view };
    let dilated = |node: &Node| node.attribute("dilations").is_some();
    let found = view.graph.nodes().filter_map(|(id, node)| {
        let message = if node.is("AveragePool") && dilated(node) && kernels::verdict(&links, node).is_ok() {
            "onnxruntime puts QLinearAveragePool in its place, which refuses the attribute `dilations`"
        } else if node.is("Pad") && node.input(3).is_some() && links.is_beside_convolution(node) {
            "onnxruntime changes the layout around convolutions on integers, and takes its pads for those of every axis"
        } else {
            return None;
        };
        Some((view.label(id), message.to_owned()))
    });
    found.collect()
}

/// Whether the node writes floats that depend on the model's inputs.
fn computes_floats(view: &View, id: NodeId) -> bool {
    let node = view.graph.node(id);
    let Some(output) = node.output(0) else { return false };
    let float = match view.element_of(output) {
        Some(element) => element.is_float(),
        None => crate::analysis::LayerOp::of(node).is_some(),
    };
    let border = is_dequantizer(node) || is_quantizer(node);
    float && !border && node.domain().is_empty() && !view.is_constant(output)
}

/// A `MatMul` and the `Add` behind it, which onnxruntime makes one `Gemm` before anything else.
struct ProductWithBias {
    product: NodeId,
    sum: NodeId,
    /// Which operand of the sum the product is.
    slot: usize,
    /// The other operand of the sum, which may be computed.
    bias: ValueId,
}

fn products_with_bias(view: &View) -> Vec<ProductWithBias> {
    let products = view.graph.nodes().filter(|(_, node)| node.is("MatMul"));
    let mut found: IndexMap<NodeId, ProductWithBias> = IndexMap::new();
    for joined in products.filter_map(|(product, _)| product_and_sum(view, product)) {
        // Of two products in a sum the second operand is visited first.
        if found.get(&joined.sum).is_none_or(|other| other.slot < joined.slot) {
            found.insert(joined.sum, joined);
        }
    }
    found.into_values().collect()
}

/// Joined are products of two axes with a row of the bias for all or for each of their rows, and those of other ranks,
/// all of whose lengths are known, with a vector.
fn product_and_sum(view: &View, product: NodeId) -> Option<ProductWithBias> {
    let node = view.graph.node(product);
    let reader = view.graph.only_use(node.output(0)?)?;
    let sum = view.graph.node(reader.node);
    let bias = sum.two_inputs().filter(|_| sum.is("Add"))?[1 - reader.slot];
    let stored = |value: ValueId| view.dequantized(value).map_or(value, |q| q.integers);
    let weight = node.input(1).filter(|&v| view.is_constant(v))?;
    let [_, columns] = view.shape(stored(weight))?[..] else { return None };
    let data = shapes::of(view, node.input(0)?);
    let matrix = data.as_ref().is_none_or(|shape| shape.len() == 2);
    let known = || data.as_ref().is_some_and(|shape| shape.iter().all(Option::is_some));
    let fits = if view.is_constant(bias) {
        let shape = view.shape(stored(bias))?;
        let row = shape.last() == Some(&columns) && shape.iter().rev().skip(1).all(|&n| n == 1);
        row && if matrix { shape.len() <= 2 } else { shape.len() == 1 && known() }
    } else {
        let shape = shapes::of(view, bias)?;
        let last = shape.last().copied().flatten() == Some(columns);
        last && if matrix { data.is_some() && shape.len() <= 2 } else { shape.len() == 1 && known() }
    };
    fits.then_some(ProductWithBias { product, sum: reader.node, slot: reader.slot, bias })
}
