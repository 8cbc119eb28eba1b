//! What the engine would compute otherwise than onnxruntime without saying so, and which is therefore not run.
//!
//! Such nodes are named to the user as ones that the engine does not know, in sub-graphs and functions too, and nothing is
//! concluded from them: no constant is folded through one. What is put right before or in tract is not among them (the
//! folder `operators`, [`super::attention`], [`super::quantize`]).

use super::{attention, operators};
use msq_passes::ir::{AttributeProto, DataType, Graph, Node, NodeProto, TensorProto};

/// A node of a graph, a sub-graph or a function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    domain: &'a str,
    op: &'a str,
    attributes: &'a [AttributeProto],
    /// Which of the first inputs are given.
    inputs: [bool; 8],
    outputs: usize,
}

/// One way to differ.
struct Difference {
    op: &'static str,
    holds: fn(&Seen) -> bool,
    /// Completes "the engine computes the operator of a node otherwise …".
    says: &'static str,
}

/// All ways to differ. Each has a test below.
const DIFFERENCES: [Difference; 8] = [
    Difference {
        op: "Attention",
        holds: |node| node.is_standard() && attention::is_wrong(|name| node.int(name), |slot| node.has_input(slot)),
        says: "with windows or behind a past",
    },
    Difference {
        // The operator of the same name in another domain.
        op: "Attention",
        holds: |node| !node.is_standard(),
        says: "where it is onnxruntime's",
    },
    Difference {
        op: "BatchNormalization",
        holds: |node| node.int("training_mode").is_some_and(|mode| mode != 0),
        says: "in training",
    },
    Difference {
        op: "MultiHeadAttention",
        holds: |node| {
            let fills = node.float("mask_filter_value").is_some_and(|value| value != -10_000.0);
            fills || node.int("unidirectional").is_some_and(|one| one != 0)
        },
        says: "where it looks back alone or fills masks in with a number of its own",
    },
    Difference {
        op: "MaxPool",
        holds: |node| {
            let is_dilated = node.ints("dilations").iter().any(|&dilation| dilation != 1);
            let is_same = node.string("auto_pad").is_some_and(|padding| padding.starts_with("SAME"));
            is_dilated && is_same && node.outputs > 1
        },
        says: "with places of maxima under dilated kernels with `SAME` padding",
    },
    Difference {
        op: "QuantizeLinear",
        holds: |node| {
            let usual = [0, i64::from(DataType::Uint8.number())];
            !node.has_input(2) && node.int("output_dtype").is_some_and(|element| !usual.contains(&element))
        },
        says: "into another type than uint8 without a zero point",
    },
    Difference {
        op: "Resize",
        holds: |node| {
            let is_crop = node.string("coordinate_transformation_mode") == Some("tf_crop_and_resize");
            let keeps = node.string("keep_aspect_ratio_policy").is_some_and(|policy| policy != "stretch");
            is_crop && (keeps || node.int("antialias").is_some_and(|smooths| smooths != 0))
        },
        says: "where it crops and smooths, or crops and keeps proportions",
    },
    Difference {
        op: "Split",
        holds: |node| node.int("num_outputs").is_some_and(|count| usize::try_from(count) != Ok(node.outputs)),
        says: "with another number of outputs than it says",
    },
];

impl<'a> Seen<'a> {
    /// A node of the main graph.
    pub(super) fn node(node: &'a Node) -> Self {
        let inputs = std::array::from_fn(|slot| node.input(slot).is_some());
        let outputs = node.outputs().iter().flatten().count();
        Self { domain: node.domain(), op: node.op(), attributes: node.attributes(), inputs, outputs }
    }

    /// A node of a sub-graph or a function.
    pub(super) fn proto(node: &'a NodeProto) -> Self {
        let inputs = std::array::from_fn(|slot| node.input.get(slot).is_some_and(|name| !name.is_empty()));
        let outputs = node.output.iter().filter(|name| !name.is_empty()).count();
        Self { domain: node.domain(), op: node.op_type(), attributes: &node.attribute, inputs, outputs }
    }

    /// How the engine computes the node otherwise, if it does.
    pub(super) fn difference(&self) -> Option<&'static str> {
        let found = DIFFERENCES.iter().find(|difference| difference.op == self.op && (difference.holds)(self));
        found.map(|difference| difference.says)
    }

    /// What of a recurrent layer the engine does not compute.
    pub(super) fn unknown_activation(&self) -> Option<String> {
        if !["LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"].contains(&self.op) {
            return None;
        }
        let names = self.attribute("activations").map_or(&[][..], |attribute| &attribute.strings);
        let names = names.iter().map(|name| String::from_utf8_lossy(name).into_owned());
        names.into_iter().find(|name| !operators::knows_activation(name))
    }

    pub(super) fn op(&self) -> &'a str {
        self.op
    }

    fn is_standard(&self) -> bool {
        self.domain.is_empty() || self.domain == "ai.onnx"
    }

    fn has_input(&self, slot: usize) -> bool {
        self.inputs.get(slot).copied().unwrap_or(false)
    }

    fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.attributes.iter().find(|attribute| attribute.name() == name)
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.i
    }

    fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name)?.f
    }

    fn ints(&self, name: &str) -> &'a [i64] {
        self.attribute(name).map_or(&[], |attribute| &attribute.ints)
    }

    fn string(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.attribute(name)?.s.as_deref()?).ok()
    }
}

/// Whether a `Dropout` drops at random: it trains, and its share is not known to be none.
pub(super) fn drops(graph: &Graph, node: &Node) -> bool {
    let constant = |slot: usize| graph.constant(node.input(slot)?);
    let trains = constant(2).and_then(first).is_some_and(|trains| trains != 0.0);
    let share = if node.input(1).is_some() { constant(1).and_then(first) } else { Some(0.5) };
    node.op() == "Dropout" && trains && share != Some(0.0)
}

/// The first element of a tensor.
fn first(tensor: &TensorProto) -> Option<f64> {
    let element = tensor.element_type()?;
    let numbers = if element == DataType::Bool { tensor.to_i64().ok()?.first().map(|&flag| flag as f64) } else { None };
    numbers.or_else(|| tensor.to_f32().ok()?.first().copied().map(f64::from))
}

#[cfg(test)]
mod tests {
    use super::super::load::unknown;
    use msq_passes::ir;

    /// Why a node is not run, where it is in the main graph, in a sub-graph, and in a function.
    fn said(node: &str) -> [Option<String>; 3] {
        let inputs =
            "float[1,2,4,4] x, float[1,2,4,4] a, float[1,2,4,4] b, float[1,2,4,4] p, float[1,2,4,4] q, float[2] s";
        let head = "<ir_version: 10, opset_import: [\"\": 23, \"com.microsoft\": 1, \"local\": 1]>";
        let plain = format!("{head}\n g ({inputs}) => (float y)\n {{\n{node}\n}}");
        let branch = format!(
            "c = Equal (s, s)\n y = If (c) <then_branch = t () => (float y) {{ {node} }}, else_branch = e () => (float z) {{ z = Neg (x) }}>"
        );
        let inner = format!("{head}\n g ({inputs}) => (float y)\n {{\n{branch}\n}}");
        let called = format!(
            "{head}\n g ({inputs}) => (float y)\n {{ y = local.f (x, a, b, p, q, s) }}\n\
             <domain: \"local\", opset_import: [\"\": 23, \"com.microsoft\": 1]>\n f (x, a, b, p, q, s) => (y)\n {{\n{node}\n}}"
        );
        [plain, inner, called].map(|text| {
            let model = ir::import(ir::text::parse(&text).unwrap()).unwrap();
            unknown(&model).into_iter().next().map(|(_, reason)| reason)
        })
    }

    #[track_caller]
    fn is_named(node: &str) {
        for reason in said(node) {
            let reason = reason.unwrap_or_else(|| panic!("nothing is said of {node}"));
            assert!(reason.contains("otherwise"), "{reason}");
        }
    }

    #[track_caller]
    fn is_run(node: &str) {
        assert_eq!(said(node), [None, None, None], "{node}");
    }

    #[test]
    fn what_differs_is_named_wherever_it_is() {
        is_named("y = BatchNormalization <training_mode = 1> (x, s, s, s, s)");
        is_named("y = com.microsoft.Attention <num_heads = 2> (x, a, b)");
        is_named("y = com.microsoft.MultiHeadAttention <num_heads = 2, unidirectional = 1> (x, a, b)");
        is_named("y, i = MaxPool <kernel_shape = [2, 2], dilations = [2, 2], auto_pad = \"SAME_UPPER\"> (x)");
        is_named("y = Resize <coordinate_transformation_mode = \"tf_crop_and_resize\", antialias = 1> (x, s, s)");
        is_named("y, i = Split <num_outputs = 3> (x)");
        is_named("y = QuantizeLinear <output_dtype = 22> (x, s)");
    }

    #[test]
    fn what_does_not_is_run() {
        is_run("y = BatchNormalization (x, s, s, s, s)");
        is_run("y = com.microsoft.MultiHeadAttention <num_heads = 2> (x, a, b)");
        is_run("y, i = MaxPool <kernel_shape = [2, 2]> (x)");
        is_run("y, i = Split <num_outputs = 2> (x)");
        is_run("y = QuantizeLinear (x, s)");
        is_run("y = Celu <alpha = 2.0> (x)");
        is_run("y = Attention <is_causal = 1> (x, a, b)");
    }

    /// In the main graph it is put right.
    #[test]
    fn windows_and_the_past_are_put_right_in_the_main_graph_alone() {
        for node in
            ["y = Attention <left_window_size = 1> (x, a, b)", "y = Attention <is_causal = 1> (x, a, b, , p, q)"]
        {
            let [main, inner, called] = said(node);
            assert_eq!(main, None);
            assert!(inner.is_some_and(|reason| reason.contains("otherwise")));
            assert!(called.is_some_and(|reason| reason.contains("otherwise")));
        }
    }

    #[test]
    fn activations_that_are_not_known() {
        for op in ["RNN", "com.microsoft.DynamicQuantizeLSTM"] {
            for reason in said(&format!("y = {op} <hidden_size = 2, activations = [\"Gelu\"]> (x, a, b)")) {
                assert!(reason.is_some_and(|reason| reason.contains("Gelu")));
            }
        }
    }

    #[test]
    fn dropout_in_training() {
        let of = |share: &str| {
            let text = format!(
                "<ir_version: 10, opset_import: [\"\": 17]>\n g (float[2] x) => (float[2] y)\n\
                 <float r = {{{share}}}, bool t = {{1}}>\n {{ y = Dropout (x, r, t) }}"
            );
            unknown(&ir::import(ir::text::parse(&text).unwrap()).unwrap()).len()
        };
        assert_eq!([of("0.5"), of("0.0")], [1, 0]);
    }
}
