//! Pass `unfuse-contrib`: fused operators of onnxruntime (domain `com.microsoft`) become operators of the default domain.
//!
//! onnxruntime's optimizers write such nodes into files (`onnxruntime.transformers.optimizer`, optimum from O1 on, sessions
//! with `optimized_model_filepath`), and onnxruntime fuses again what it reads written out. Here layers, biases and
//! activations have to be seen one by one. With act an activation and r the sum that is normalized:
//!
//! ```text
//! FusedMatMul<α>(A, B)                = α · MatMul(A', B')              ' as transposed by transA, transBatchA, …
//! FusedGemm(A, B, C)                  = act(Gemm(A, B, C))
//! FusedConv(X, W, B, Z)               = act(Conv(X, W, B) + Z)
//! Gelu(x), BiasGelu(x, b)             = ½·z·(1 + erf(z/√2)),            z = x + b
//! FastGelu(x, b)                      = ½·z·(1 + tanh(√(2/π)·(z + 0.044715·z³)))
//! SkipLayerNormalization(x, s, γ, β, b)           = LayerNormalization(r, γ, β),     r = x + s + b
//! SkipSimplifiedLayerNormalization(x, s, γ, b)    = γ·r / √(mean(r²) + ε)
//! EmbedLayerNormalization(i, t, W, P, T, γ, β)    = LayerNormalization(r, γ, β),     r = W[i] + P[0…] + T[t]
//! Attention(x, W, b)                  = heads of q, k, v = x·W + b
//! MultiHeadAttention(q, k, v)         = softmax(scale·q·kᵀ + mask)·v    per head
//! ```
//!
//! A mask holds `mask_filter_value` where a key counts for nothing, and the lowest float where a query looks ahead. Sums are
//! added in another order; nothing else is rounded. Semantics: `core/graph/contrib_ops` and the CPU kernels of onnxruntime.
//!
//! Declined: what is in the table above but has a past, packed keys, outputs for training, a mask of another form, ranks or
//! widths that are not known, another type than float32; operator sets before 13, and before 17 for `LayerNormalization`.
//! Not changed: `QuickGelu`, which the engine knows.

mod activations;
mod attention;
mod axes;
mod mask;
mod norms;
mod products;
mod writer;

use crate::ir::{DataType, Graph, Model, Node, NodeId};
use crate::pass::{Found, Outcome, Pass, PassError, in_turn};
use writer::Writer;

const CONTRIB: &str = "com.microsoft";

/// Writes fused operators of onnxruntime as operators of the default domain.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnfuseContrib;

/// What writes an operator out, from what operator set on.
struct Rule {
    domain: &'static str,
    op: &'static str,
    since: i64,
    found: fn(Writer) -> Found,
}

/// The first operator set whose operators read axes and splits from inputs, and take the forms that are written here.
const USUAL: i64 = 13;
/// The first operator set with `LayerNormalization`.
const LAYER_NORM: i64 = 17;

const fn rule(op: &'static str, since: i64, found: fn(Writer) -> Found) -> Rule {
    Rule { domain: CONTRIB, op, since, found }
}

const RULES: [Rule; 13] = [
    rule("Attention", USUAL, attention::packed),
    rule("BiasGelu", USUAL, activations::gelu),
    rule("EmbedLayerNormalization", LAYER_NORM, norms::embedding),
    rule("FastGelu", USUAL, activations::fast_gelu),
    rule("FusedConv", USUAL, products::conv),
    rule("FusedGemm", USUAL, products::gemm),
    rule("FusedMatMul", USUAL, products::mat_mul),
    rule("Gelu", USUAL, activations::gelu),
    rule("MultiHeadAttention", USUAL, attention::multi_head),
    // onnxruntime has it in the default domain.
    Rule { domain: "", op: "SimplifiedLayerNormalization", since: USUAL, found: norms::simplified },
    rule("SkipLayerNormalization", LAYER_NORM, norms::skip),
    rule("SkipSimplifiedLayerNormalization", USUAL, norms::skip_simplified),
    rule("TransposeMatMul", USUAL, products::mat_mul),
];

impl UnfuseContrib {
    /// The operator set that is needed to write out what can be written out; `None` where there is nothing.
    pub fn needed_opset(model: &Model) -> Option<i64> {
        let nodes = model.graph.nodes();
        let needed = nodes.filter_map(|(id, node)| {
            let rule = rule_of(node)?;
            matches!(describe(model, id, rule), Ok(Some(_))).then_some(rule.since)
        });
        needed.max()
    }
}

impl Pass for UnfuseContrib {
    fn name(&self) -> &'static str {
        "unfuse-contrib"
    }

    fn about(&self) -> &'static str {
        "fused operators of onnxruntime become operators of the default domain"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        // Ranks behind nodes that are written out already are known: what was fused reads them.
        let nodes = model.graph.node_ids().collect();
        in_turn(model, nodes, found)
    }
}

fn found(model: &Model, id: NodeId) -> Found {
    let Some(rule) = rule_of(model.graph.node(id)) else { return Ok(None) };
    let rewrite = describe(model, id, rule)?;
    if model.opset("").is_none_or(|opset| opset < rule.since) {
        return Err(format!("operator set {} or later is needed", rule.since).into());
    }
    Ok(rewrite)
}

fn rule_of(node: &Node) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.op == node.op() && rule.domain == node.domain())
}

fn describe(model: &Model, id: NodeId, rule: &Rule) -> Found {
    let graph = &model.graph;
    let node = graph.node(id);
    if node.inputs().iter().flatten().any(|&value| is_other_float(graph, value)) {
        return Err("it computes in another type than float32".into());
    }
    (rule.found)(Writer::new(graph, id, model.opset("").unwrap_or_default()))
}

fn is_other_float(graph: &Graph, value: crate::ir::ValueId) -> bool {
    let constant = graph.constant(value).and_then(crate::ir::TensorProto::element_type);
    let element = constant.or_else(|| graph.value(value).element_type());
    matches!(element, Some(DataType::Float16 | DataType::Bfloat16 | DataType::Double))
}
