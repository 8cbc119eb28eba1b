//! What onnxruntime wants of layers: `Conv`, `Gemm`, `MatMul`.
//!
//! A float weight or bias of a `Conv` or `Gemm` is no obstacle where input and output are quantized: the session
//! rounds it itself, weights to one scale per tensor. The bias scale of a `Conv` must be `s_x·s_w` within 1 %, that of a
//! `Gemm` is never looked at. Products write integers, or floats where no quantizer is near. A product whose weight
//! alone is quantized runs in a kernel of its own where scales lie along the columns.

use super::ProductWithBias;
use super::links::{Links, Output};
use super::types::{TYPES_DIFFER, is_byte, same_type};
use crate::analysis::quantized::Parameters;
use crate::ir::{DataType, Node, ValueId};
use crate::target::ActivationGrid;

/// How far a bias scale may be from `s_x·s_w`.
const BIAS_SCALE_TOLERANCE: f32 = 0.0101;

/// Operands of a layer as onnxruntime sees them.
struct Operands {
    weight: ValueId,
    bias: Option<ValueId>,
    /// The axis along which output channels lie in the weight.
    axis: i64,
}

pub(super) fn conv(links: &Links, node: &Node) -> Result<(), String> {
    let (Some(data), Some(weight)) = (node.input(0), node.input(1)) else { return Ok(()) };
    let output = quantized_output(links.output(node))?;
    let input = data_operand(links, data)?;
    if !is_byte(output.element) {
        return Err("its output is not of 8 bits".to_owned());
    }
    if !same_type(input.element, output.element) {
        return Err(TYPES_DIFFER.to_owned());
    }
    let operands = Operands { weight, bias: node.input(2), axis: 0 };
    let weight = weight_operand(links, &operands)?;
    signed_data(links, &input, weight.as_ref())?;
    match (operands.bias.map(|bias| (bias, links.source(bias))), weight) {
        (None, _) => Ok(()),
        (Some((_, Some(_))), None) => Err("its weight is float and its bias quantized".to_owned()),
        (Some((_, Some(bias))), Some(weight)) => {
            is_int32(&bias)?;
            bias_scale(links, &input, &weight, &bias)
        }
        (Some((bias, None)), weight) => rounded_bias(links, bias, weight, operands.axis),
    }
}

pub(super) fn gemm(links: &Links, node: &Node) -> Result<(), String> {
    let (Some(data), Some(weight)) = (node.input(0), node.input(1)) else { return Ok(()) };
    let axis = i64::from(node.int_or("transB", 0) == 0);
    let scaled = node.float_or("alpha", 1.0) != 1.0 || node.float_or("beta", 1.0) != 1.0;
    let operands = Operands { weight, bias: node.input(2), axis };
    if node.input(2).is_some() && scaled && links.source(data).is_some() {
        return Err("it has a bias, and alpha or beta is not 1".to_owned());
    }
    let plain = !scaled && node.int_or("transA", 0) == 0 && axis == 1;
    fully_connected(links, data, &operands, links.output(node), plain)
}

/// A `MatMul` and an `Add`, by now a `Gemm`.
pub(super) fn product_with_bias(links: &Links, product: &ProductWithBias) -> Result<(), String> {
    let graph = links.view.graph;
    let (node, sum) = (graph.node(product.product), graph.node(product.sum));
    let (Some(data), Some(weight)) = (node.input(0), node.input(1)) else { return Ok(()) };
    let operands = Operands { weight, bias: Some(product.bias), axis: 1 };
    fully_connected(links, data, &operands, links.output(sum), true)
}

/// `plain`: no factor, nothing transposed, so that the kernel for quantized weights alone may take it.
fn fully_connected(
    links: &Links,
    data: ValueId,
    operands: &Operands,
    output: Output,
    plain: bool,
) -> Result<(), String> {
    let Some(input) = links.source(data) else {
        let alone = plain && matches!(output, Output::Float) && weight_alone(links, operands.weight);
        return if alone { Ok(()) } else { Err(float_operand(links, data)) };
    };
    let weight = weight_operand(links, operands)?;
    if !is_byte(input.element) {
        return Err("its input is not of 8 bits".to_owned());
    }
    if input.zero_point.is_none() || weight.is_some_and(|w| w.zero_point.is_none()) {
        return Err("its input or weight has no zero point".to_owned());
    }
    if is_signed(&input) && weight.is_some_and(|w| !is_signed(&w)) {
        return Err("its data is int8 and its weight uint8".to_owned());
    }
    let writes_integers = match output {
        Output::Quantized(quantizer) if !same_type(input.element, quantizer.element) => {
            return Err(TYPES_DIFFER.to_owned());
        }
        Output::Quantized(_) => true,
        Output::Float => false,
        Output::Blocked(reason) => return Err(reason),
    };
    match (operands.bias.map(|bias| (bias, links.source(bias))), weight) {
        (_, None) | (Some((_, None)), _) if !writes_integers => {
            Err("its weight or bias is float and its output not quantized".to_owned())
        }
        (Some((_, Some(_))), None) => Err("its weight is float and its bias quantized".to_owned()),
        (None, _) => Ok(()),
        (Some((_, Some(bias))), Some(_)) => is_int32(&bias),
        (Some((bias, None)), weight) => rounded_bias(links, bias, weight, operands.axis),
    }
}

pub(super) fn matmul(links: &Links, node: &Node) -> Result<(), String> {
    let (Some(left), Some(right)) = (node.input(0), node.input(1)) else { return Ok(()) };
    let output = links.output(node);
    let (Some(a), Some(b)) = (links.source(left), links.source(right)) else {
        let alone = matches!(output, Output::Float) && links.source(left).is_none() && weight_alone(links, right);
        let float = if links.source(left).is_none() { left } else { right };
        return if alone { Ok(()) } else { Err(float_operand(links, float)) };
    };
    if !is_byte(a.element) || !is_byte(b.element) {
        return Err("an operand is not of 8 bits".to_owned());
    }
    signed_data(links, &a, Some(&b))?;
    match output {
        Output::Blocked(reason) => Err(reason),
        Output::Quantized(quantizer) if !same_type(a.element, quantizer.element) => Err(TYPES_DIFFER.to_owned()),
        _ => Ok(()),
    }
}

fn is_signed(of: &Parameters) -> bool {
    of.element == Some(DataType::Int8)
}

/// int8 data has kernels on ARM only, and there with int8 weights.
fn signed_data(links: &Links, data: &Parameters, weight: Option<&Parameters>) -> Result<(), String> {
    if !is_signed(data) {
        return Ok(());
    }
    if links.view.profile.activations == ActivationGrid::Unsigned {
        return Err("its data stays int8, since several nodes read it, and kernels on x86 take uint8".to_owned());
    }
    let fits = weight.is_none_or(is_signed);
    fits.then_some(()).ok_or_else(|| "its data is int8 and its weight uint8".to_owned())
}

fn float_operand(links: &Links, value: ValueId) -> String {
    format!("operand `{}` is float", links.view.name(value))
}

fn quantized_output(output: Output) -> Result<Parameters, String> {
    match output {
        Output::Quantized(quantizer) => Ok(quantizer),
        Output::Float => Err("its output is not quantized".to_owned()),
        Output::Blocked(reason) => Err(reason),
    }
}

fn data_operand(links: &Links, value: ValueId) -> Result<Parameters, String> {
    let Some(input) = links.source(value) else { return Err(float_operand(links, value)) };
    if !is_byte(input.element) {
        return Err(format!("operand `{}` is not of 8 bits", links.view.name(value)));
    }
    if !links.has_one_scale(&input) {
        return Err(format!("operand `{}` has one scale per channel", links.view.name(value)));
    }
    Ok(input)
}

/// The weight's integers; nothing for a float weight the session rounds itself.
fn weight_operand(links: &Links, operands: &Operands) -> Result<Option<Parameters>, String> {
    let Some(weight) = links.source(operands.weight) else {
        let constant = links.view.is_constant(operands.weight);
        return if constant { Ok(None) } else { Err(float_operand(links, operands.weight)) };
    };
    if weight.block != 0 {
        return Err("its weight has scales by block".to_owned());
    }
    match weight.element {
        element if is_byte(element) => Ok(Some(weight)),
        Some(element) => Err(format!("its weight is {element}, not int8 or uint8")),
        None => Ok(Some(weight)),
    }
}

fn is_int32(bias: &Parameters) -> Result<(), String> {
    let wide = matches!(bias.element, None | Some(DataType::Int32));
    wide.then_some(()).ok_or_else(|| "its bias is not int32".to_owned())
}

/// `s_b = s_x·s_w`, for every channel.
fn bias_scale(links: &Links, input: &Parameters, weight: &Parameters, bias: &Parameters) -> Result<(), String> {
    let view = links.view;
    let (Some(input), Some(weights), Some(biases)) =
        (view.float(input.scale), view.floats(weight.scale), view.floats(bias.scale))
    else {
        return Ok(());
    };
    let channels = weights.len().max(biases.len());
    let at = |scales: &[f32], i: usize| scales.get(if scales.len() == 1 { 0 } else { i }).copied();
    let fits = (0..channels).all(|i| {
        let (Some(weight), Some(bias)) = (at(&weights, i), at(&biases, i)) else { return false };
        (bias - input * weight).abs() <= BIAS_SCALE_TOLERANCE * (input * weight).abs()
    });
    fits.then_some(()).ok_or_else(|| "the scale of its bias is not input scale × weight scale".to_owned())
}

/// A float bias is rounded by the session if it is a constant vector whose scales it can tell.
fn rounded_bias(links: &Links, bias: ValueId, weight: Option<Parameters>, axis: i64) -> Result<(), String> {
    if !links.view.is_constant(bias) {
        return Err(format!("its bias `{}` is computed", links.view.name(bias)));
    }
    let Some(weight) = weight else { return Ok(()) };
    let turned = weight.axis != axis && !links.has_one_scale(&weight);
    if turned { Err(format!("its weight has scales along axis {}, not {axis}", weight.axis)) } else { Ok(()) }
}

/// Whether the kernel for quantized weights and float data takes the weight: a matrix with scales per column, by block
/// along its rows, or one scale; neither is read by anyone else.
fn weight_alone(links: &Links, value: ValueId) -> bool {
    let Some(weight) = links.view.dequantized(value).filter(|w| links.view.is_constant(w.integers)) else {
        return false;
    };
    let matrix = links.view.shape(weight.integers).is_some_and(|s| s.len() == 2);
    let narrow = matches!(
        weight.element,
        Some(DataType::Int8 | DataType::Uint8 | DataType::Int4 | DataType::Uint4 | DataType::Int2 | DataType::Uint2)
    );
    let scales = match weight.block {
        0 => weight.axis == 1 || links.has_one_scale(&weight),
        block => weight.axis == 0 && block >= 16 && block.count_ones() == 1,
    };
    // The kernel takes the tensors as its own, which it cannot where somebody else reads them too.
    let alone = [weight.integers, weight.scale].iter().all(|&v| links.view.graph.only_use(v).is_some());
    matrix && narrow && scales && alone
}
