//! Convolutions and matrix products.

use super::Fusion;
use super::site::{Input, Site, parameters, triple};
use crate::analysis::quantized::Quantized;
use crate::ir::{AttributeProto, DataType, Node, NodeId, TensorProto, ValueId};

/// Types of activation and weight that runtimes have kernels for; the result is of the activation's type.
const KERNELS: [(DataType, DataType); 3] =
    [(DataType::Uint8, DataType::Uint8), (DataType::Uint8, DataType::Int8), (DataType::Int8, DataType::Int8)];

impl Fusion<'_> {
    pub(super) fn convolution(&self, id: NodeId, node: &Node) -> Result<Site, String> {
        let (x, w) = (self.qdq.activation(node, 0)?, self.qdq.operand(node, 1)?);
        let (quantizer, y) = self.qdq.quantizer(node)?;
        kernel(&x, &w, Some(&y))?;
        if !w.per_tensor() && !w.lies_along(0, self.qdq.rank(w.integers)) {
            return Err(format!("its weight has its scales along axis {}, not its output channels", w.axis));
        }
        if w.common_zero_point().is_none() {
            return Err("its weight's zero points differ".to_owned());
        }
        let mut inputs = [triple(&x), triple(&w)].concat();
        inputs.extend(parameters(&y));
        inputs.extend(node.input(2).map(|bias| self.bias(bias, &x, &w)).transpose()?);
        let attributes = node.attributes().to_vec();
        Ok(Site { node: id, quantizer: Some(quantizer), domain: "", operator: "QLinearConv", attributes, inputs })
    }

    pub(super) fn product(&self, id: NodeId, node: &Node) -> Result<Site, String> {
        let (a, b) = (self.qdq.activation(node, 0)?, self.qdq.operand(node, 1)?);
        let (quantizer, y) = self.qdq.quantizer(node)?;
        kernel(&a, &b, Some(&y))?;
        let rank = self.qdq.rank(b.integers);
        let columns = rank == Some(2) && b.lies_along(1, rank);
        if !b.per_tensor() && !columns {
            return Err("its right operand has more than one scale, but not one per column of a matrix".to_owned());
        }
        let mut inputs = triple(&a).to_vec();
        inputs.extend(self.columns(&b));
        inputs.extend(parameters(&y));
        let attributes = Vec::new();
        Ok(Site { node: id, quantizer: Some(quantizer), domain: "", operator: "QLinearMatMul", attributes, inputs })
    }

    /// `QGemm` writes floats where it is given no output scale.
    pub(super) fn layer(&self, id: NodeId, node: &Node) -> Result<Site, String> {
        let (a, b) = (self.qdq.activation(node, 0)?, self.qdq.operand(node, 1)?);
        kernel(&a, &b, None)?;
        if node.float_or("alpha", 1.0) != 1.0 || (node.input(2).is_some() && node.float_or("beta", 1.0) != 1.0) {
            return Err("its product or bias has a factor, which `normalize-gemm` folds".to_owned());
        }
        let transposed = node.int_or("transB", 0) != 0;
        if !b.per_tensor() && !b.lies_along(usize::from(!transposed), Some(2)) {
            return Err(format!("its weight has its scales along axis {}, not its outputs", b.axis));
        }
        let bias = node.input(2).map(|bias| self.bias(bias, &a, &b)).transpose()?;
        let output = self.qdq.quantizer(node).ok().filter(|(_, y)| y.element == a.element);
        let mut inputs = triple(&a).to_vec();
        inputs.extend(self.columns(&b));
        inputs.extend(bias.or_else(|| output.is_some().then_some(Input::Absent)));
        inputs.extend(output.iter().flat_map(|(_, y)| parameters(y)));
        let kept = |a: &&AttributeProto| matches!(a.name(), "transA" | "transB");
        let attributes = node.attributes().iter().filter(kept).cloned().collect();
        let quantizer = output.map(|(quantizer, _)| quantizer);
        Ok(Site { node: id, quantizer, domain: super::CONTRIB, operator: "QGemm", attributes, inputs })
    }

    /// A weight whose zero points, for `QLinearMatMul` and `QGemm`, must be as many as its scales.
    fn columns(&self, b: &Quantized) -> [Input; 3] {
        let [integers, scale, zero_point] = triple(b);
        if b.per_tensor() || b.zero_point.is_some() {
            return [integers, scale, zero_point];
        }
        let name = format!("{}_zero_point", self.qdq.model.graph.value(b.integers).name());
        let zeros = TensorProto::from_raw(&name, b.element, &[b.scales.len()], vec![0; b.scales.len()]);
        [integers, scale, Input::tensor(zeros)]
    }

    /// The bias in steps of activation scale × weight scale: the integers there are if they are on this grid, else
    /// the constant rounded to it.
    fn bias(&self, bias: ValueId, x: &Quantized, w: &Quantized) -> Result<Input, String> {
        let steps: Vec<f32> = w.scales.iter().map(|scale| scale * x.scales[0]).collect();
        if let Ok(Some(b)) = self.qdq.dequantized(bias, &[DataType::Int32])
            && b.common_zero_point() == Some(0)
            && equal(&b.scales, &steps)
            && self.qdq.rank(b.integers).is_none_or(|rank| rank == 1)
        {
            return Ok(Input::Value(b.integers));
        }
        let name = self.qdq.model.graph.value(bias).name();
        let constant =
            self.qdq.floats(bias).map_err(|reason| format!("its bias `{name}` cannot be rounded: {reason}"))?;
        let count = constant.values.len();
        if constant.shape.len() != 1 || (steps.len() != 1 && steps.len() != count) {
            return Err(format!("its bias `{name}` is no vector over the outputs"));
        }
        let pairs = constant.values.iter().zip(steps.iter().cycle());
        let integers: Option<Vec<i32>> = pairs.map(|(&value, &step)| rounded(value, step)).collect();
        let integers =
            integers.ok_or_else(|| format!("its bias `{name}` is too large for the scale of its products"))?;
        Ok(Input::tensor(TensorProto::from_i32(&format!("{name}_quantized"), &[count], &integers)))
    }
}

/// Whether two lists are equal, a single number standing for as many as there are.
fn equal(a: &[f32], b: &[f32]) -> bool {
    let broadcast = a.len() == b.len() || a.len() == 1 || b.len() == 1;
    broadcast && (0..a.len().max(b.len())).all(|i| a[i % a.len()] == b[i % b.len()])
}

/// The number of steps, ties to even, if a sum of products can be added to it in 32 bits: kernels wrap around.
fn rounded(value: f32, step: f32) -> Option<i32> {
    const LARGEST: f64 = (1 << 30) as f64;
    let steps = (f64::from(value) / f64::from(step)).round_ties_even();
    (steps.abs() <= LARGEST).then_some(steps as i32)
}

fn kernel(x: &Quantized, w: &Quantized, y: Option<&Quantized>) -> Result<(), String> {
    let written = y.map_or(x.element, |y| y.element);
    if KERNELS.contains(&(x.element, w.element)) && written == x.element {
        return Ok(());
    }
    Err(format!("there is no kernel for {} × {} → {written}", x.element, w.element))
}
