//! Bias correction: rounding a weight by ΔW shifts the mean of output channel o by `Σ_k` `ΔW_ok·E`[`x_k`]; the bias takes
//! the shift back. Exact in the mean, except at the borders of a padded convolution, where part of x is zero.
//! (Nagel et al., Data-free quantization, §4.2, with the means measured instead of derived.)

use msq_passes::analysis::{Layer, LayerOp};

/// What rounding adds to the mean of each output channel: `rounded − weight` applied to the mean input. Nothing where
/// the means do not fit the layer's input channels.
pub(super) fn mean_shift(
    layer: &Layer,
    groups: usize,
    weight: &[f32],
    rounded: &[f32],
    means: &[f64],
) -> Option<Vec<f64>> {
    let axis = layer.axis?;
    let outputs = layer.shape[axis];
    let inputs = weight.len() / outputs.max(1);
    let mut shift = vec![0.0; outputs];
    for (i, (&w, &r)) in weight.iter().zip(rounded).enumerate() {
        let (output, input) = match (layer.op, axis) {
            (LayerOp::Conv, _) => {
                let taps = inputs / layer.shape[1].max(1);
                let output = i / inputs;
                let group = output / (outputs / groups.max(1)).max(1);
                (output, group * layer.shape[1] + i % inputs / taps.max(1))
            }
            (_, 0) => (i / inputs, i % inputs),
            _ => (i % outputs, i / outputs),
        };
        shift[output] += (f64::from(r) - f64::from(w)) * means.get(input)?;
    }
    Some(shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir;

    fn layer(text: &str) -> (ir::Model, Layer) {
        let model = ir::import(ir::text::parse(text).unwrap()).unwrap();
        let layer = msq_passes::analysis::layers(&model).remove(0);
        (model, layer)
    }

    #[test]
    fn grouped_convolution_uses_its_group() {
        let (_, layer) = layer(
            "<ir_version: 8, opset_import: [\"\": 17]>\ng (float[1,4,1,1] x) => (float[1,2,1,1] y)\n<float[2,2,1,1] w = {1, 2, 3, 4}>\n{ y = Conv<group: int = 2>(x, w) }",
        );
        let shift = mean_shift(&layer, 2, &[1.0, 2.0, 3.0, 4.0], &[1.5, 2.0, 3.0, 4.25], &[1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(shift, Some(vec![0.5, 250.0]));
    }

    #[test]
    fn product_with_columns_as_outputs() {
        let (_, layer) = layer(
            "<ir_version: 8, opset_import: [\"\": 17]>\ng (float[1,2] x) => (float[1,2] y)\n<float[2,2] w = {1, 2, 3, 4}>\n{ y = MatMul(x, w) }",
        );
        let shift = mean_shift(&layer, 1, &[1.0, 2.0, 3.0, 4.0], &[1.5, 2.0, 3.0, 5.0], &[2.0, 10.0]);
        assert_eq!(shift, Some(vec![1.0, 10.0]));
    }
}
