//! Products that decode what a network says instead of computing it: their constants are written by hand, not learned.
//!
//! | form | product | written by |
//! |---|---|---|
//! | mean of a distribution | Σ pᵢ·(a + b·i) over a `Softmax` p, one output: distances to the sides of a box | detectors with distributions (GFL, `YOLOv8` and later, `NanoDet`, `RTMDet`) |
//! | corners | (x, y, w, h)·M with a 4×4 matrix M of 0, ±½ and ±1 | exporters that put non-maximum suppression into the graph |
//!
//! What they read and write are positions in pixels, up to the size of the image. A step of 8 bits would be several
//! pixels, and the nodes before them, which put boxes together with scores, would be drawn onto integers as well. The
//! products themselves are too small to gain anything. So they are no layers: nothing quantizes them.
//!
//! Between the `Softmax` and its mean only movements may stand.

use crate::ir::{Graph, Node, ValueId};
use crate::ops::LayerOp;

/// The most weights such a product has: a distribution over so many positions.
const MOST: usize = 1024;
/// The fewest positions of a distribution.
const FEWEST: usize = 3;

/// What a product with a constant decodes, if it does.
pub(crate) fn decodes(graph: &Graph, node: &Node) -> Option<&'static str> {
    LayerOp::of(node)?;
    let (input, weight) = (node.input(0)?, node.input(1)?);
    let tensor = graph.constant(weight)?;
    let shape = tensor.shape().ok()?;
    let count = shape.iter().product::<usize>();
    let matrix = shape == [4, 4];
    let one_output = match (node.op(), shape.as_slice()) {
        ("Conv", [outputs, inputs, ..]) => *outputs == 1 && *inputs == count,
        ("MatMul", [_] | [_, 1]) => true,
        ("Gemm", &[rows, columns]) => 1 == if node.int_or("transB", 0) == 0 { columns } else { rows },
        _ => false,
    };
    let mean = one_output && (FEWEST..=MOST).contains(&count);
    let distribution = || mean && is_distribution(graph, input);
    if !(matrix || distribution()) {
        return None;
    }
    let weights = tensor.to_f32().ok()?;
    if matrix {
        return turns_corners(&weights).then_some("it turns boxes into corners, whose pixels 8 bits would round");
    }
    has_even_steps(&weights).then_some("it decodes positions from distributions, which 8 bits would round")
}

/// Whether a value is a `Softmax`, moved or not.
fn is_distribution(graph: &Graph, mut value: ValueId) -> bool {
    while let Some((producer, _)) = graph.value(value).producer() {
        let node = graph.node(producer);
        if !node.domain().is_empty() {
            return false;
        }
        match node.op() {
            "Softmax" => return true,
            "Reshape" | "Transpose" | "Squeeze" | "Unsqueeze" | "Flatten" | "Identity" | "Cast" | "Dropout" => {}
            _ => return false,
        }
        let Some(input) = node.input(0) else { return false };
        value = input;
    }
    false
}

/// Whether the weights are a + b·i with b ≠ 0.
fn has_even_steps(weights: &[f32]) -> bool {
    let [first, .., last] = weights else { return false };
    let step = (last - first) / (weights.len() - 1) as f32;
    let near = |(i, weight): (usize, &f32)| (weight - (first + step * i as f32)).abs() <= 1e-3 * step.abs();
    step != 0.0 && weights.iter().enumerate().all(near)
}

/// Whether a matrix halves sizes, and all it does besides is to add and subtract.
fn turns_corners(weights: &[f32]) -> bool {
    let plain = |weight: &f32| [0.0, 0.5, 1.0].contains(&weight.abs());
    weights.iter().all(plain) && weights.iter().any(|weight| weight.abs() == 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::layers;
    use crate::ir::{import, text};

    /// The number of layers, and what the last node decodes.
    fn found(constants: &str, nodes: &str) -> (usize, Option<&'static str>) {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,4,4,10] x) => (float y) <{constants}> {{ {nodes} }}"
        );
        let model = import(text::parse(&text).unwrap_or_else(|e| panic!("{e}: {text}"))).unwrap();
        let last = model.graph.nodes().last().unwrap().1;
        (layers(&model).len(), decodes(&model.graph, last))
    }

    const TABLE: &str = "float[1,4,1,1] w = {0, 1, 2, 3}";
    const MEAN: &str = "p = Softmax<axis = 1>(x) q = Transpose<perm = [0, 1, 3, 2]>(p) y = Conv(q, w)";

    #[test]
    fn means_of_distributions() {
        let positions = Some("it decodes positions from distributions, which 8 bits would round");
        assert_eq!(found(TABLE, MEAN), (0, positions));
        // A scaled table, on either side of zero, and one whose steps were rounded to half precision.
        assert_eq!(found("float[1,4,1,1] w = {-4, -2, 0, 2}", MEAN), (0, positions));
        assert_eq!(found("float[1,4,1,1] w = {0, 0.3333, 0.6667, 1}", MEAN), (0, positions));
        let product = "p = Softmax<axis = 3>(x) y = MatMul(p, w)";
        assert_eq!(found("float[10,1] w = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}", product), (0, positions));
        assert_eq!(found("float[10] w = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}", product), (0, positions));
    }

    #[test]
    fn layers_that_only_look_alike() {
        // Learned weights, several outputs, no distribution, something between, an average.
        assert_eq!(found("float[1,4,1,1] w = {0, 1.1, 2, 3}", MEAN), (1, None));
        assert_eq!(found("float[2,4,1,1] w = {0, 1, 2, 3, 4, 5, 6, 7}", MEAN), (1, None));
        assert_eq!(found(TABLE, "y = Conv(x, w)"), (1, None));
        assert_eq!(found(TABLE, "p = Softmax<axis = 1>(x) q = Relu(p) y = Conv(q, w)"), (1, None));
        assert_eq!(
            found("float[4,1,1,1] w = {0, 1, 2, 3}", "p = Softmax<axis = 1>(x) y = Conv<group = 4>(p, w)"),
            (1, None)
        );
        assert_eq!(found("float[1,4,1,1] w = {0.25, 0.25, 0.25, 0.25}", MEAN), (1, None));
    }

    #[test]
    fn corners_from_centres_and_sizes() {
        let product = "b = Transpose<perm = [0, 1, 3, 2]>(x) y = MatMul(b, w)";
        let matrix = "float[4,4] w = {1, 0, 1, 0, 0, 1, 0, 1, -0.5, 0, 0.5, 0, 0, -0.5, 0, 0.5}";
        assert_eq!(found(matrix, product), (0, Some("it turns boxes into corners, whose pixels 8 bits would round")));
        let signs = "float[4,4] w = {1, 0, 1, 0, 0, 1, 0, 1, -1, 0, 1, 0, 0, -1, 0, 1}";
        assert_eq!(found(signs, product), (1, None));
        let learned = "float[4,4] w = {1, 0, 1, 0, 0, 1, 0, 1, -0.5, 0, 0.5, 0, 0, -0.5, 0, 0.6}";
        assert_eq!(found(learned, product), (1, None));
    }
}
