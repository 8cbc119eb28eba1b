//! Layers: products with a matrix. The gradient by the input is the product with the transposed matrix.

use super::site::{Handed, Site};
use super::window::Window;
use crate::ir::{AttributeProto, TensorProto, ValueId};

/// Y = W∗X. By X the transposed convolution of dY with the same W; where every position is a window's first, that is
/// dY∗W′ with the kernel turned around and its channels exchanged.
pub(super) fn conv(site: &mut Site) -> Handed {
    site.only_before(1)?;
    let (x, weight, y, g) = (site.input(0)?, site.input(1)?, site.output()?, site.gradient()?);
    let (image, positions, filter) = (site.shape(x)?, site.shape(y)?, site.shape(weight)?);
    let window = Window::of(&site.node, filter.get(2..).unwrap_or_default(), &image, &positions)?;
    let group = usize::try_from(site.node.int_or("group", 1)).unwrap_or(1).max(1);
    let turned = site.graph.constant(weight).and_then(|tensor| turned(tensor, group));
    let name = turned_of(site.graph.value(weight).name());
    if let Some(turned) = turned.filter(|_| window.strides.iter().all(|&stride| stride == 1)) {
        let side = |pads: &[i64]| (0..pads.len()).map(|axis| window.reach(axis) - pads[axis]).collect::<Vec<i64>>();
        let pads = [side(&window.pads[0]), side(&window.pads[1])];
        if pads.iter().flatten().all(|&pad| pad >= 0) {
            let turned = site.graph.add_initializer(TensorProto { name: Some(name), ..turned });
            let attributes = window.attributes(group, [&pads[0], &pads[1]]);
            return Ok(vec![Some(site.op_with("Conv", &[g, turned], attributes))]);
        }
    }
    Ok(vec![Some(site.op_with("ConvTranspose", &[g, weight], window.transposed(group)))])
}

/// The name of W′.
pub(super) fn turned_of(weight: &str) -> String {
    format!("{weight}_turned_back")
}

/// W′ of `[C, M/g, …]` from W of `[M, C/g, …]`, each kernel turned around.
pub(super) fn turned(weight: &TensorProto, group: usize) -> Option<TensorProto> {
    let (shape, values) = (weight.shape().ok()?, weight.to_f32().ok()?);
    let (outputs, inputs) = (shape[0] / group, shape[1]);
    let kernel: usize = shape[2..].iter().product();
    let mut found = Vec::with_capacity(values.len());
    for at in 0..group * inputs {
        let (group, input) = (at / inputs, at % inputs);
        for output in 0..outputs {
            let row = ((group * outputs + output) * inputs + input) * kernel;
            found.extend(values[row..row + kernel].iter().rev());
        }
    }
    let mut turned = vec![group * inputs, outputs];
    turned.extend(&shape[2..]);
    Some(weight.with_f32(&turned, &found))
}

/// The transpose of a transposed convolution is the convolution.
pub(super) fn conv_transpose(site: &mut Site) -> Handed {
    site.only_before(1)?;
    let (x, weight, y, g) = (site.input(0)?, site.input(1)?, site.output()?, site.gradient()?);
    let (positions, image, filter) = (site.shape(x)?, site.shape(y)?, site.shape(weight)?);
    if !site.node.ints("output_shape").is_empty() || site.node.string("auto_pad").is_some_and(|mode| mode != "NOTSET") {
        return Err("there is no rule where its padding follows from the shape of its output".to_owned());
    }
    let window = Window::of(&site.node, filter.get(2..).unwrap_or_default(), &image, &positions)?;
    let group = usize::try_from(site.node.int_or("group", 1)).unwrap_or(1).max(1);
    let behind: Vec<i64> = window.pads[1].iter().map(|&behind| behind.max(0)).collect();
    let attributes = window.attributes(group, [&window.pads[0], &behind]);
    Ok(vec![Some(site.op_with("Conv", &[g, weight], attributes))])
}

/// Y = α·A·B + β·C.
pub(super) fn gemm(site: &mut Site) -> Handed {
    let (a, b, g) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let (alpha, beta) = (site.node.float_or("alpha", 1.0), site.node.float_or("beta", 1.0));
    let [turned_a, turned_b] = ["transA", "transB"].map(|name| site.node.int_or(name, 0) != 0);
    let mut handed = vec![None, None, None];
    let product = |site: &mut Site, operands: [(ValueId, bool); 2]| {
        let flags =
            ["transA", "transB"].iter().zip(operands).map(|(name, (_, on))| AttributeProto::int(name, i64::from(on)));
        let attributes = flags.chain([AttributeProto::float("alpha", alpha)]).collect();
        Some(site.op_with("Gemm", &operands.map(|(value, _)| value), attributes))
    };
    if site.wants(0) {
        handed[0] = if turned_a {
            product(site, [(b, turned_b), (g, true)])
        } else {
            product(site, [(g, false), (b, !turned_b)])
        };
    }
    if site.wants(1) {
        handed[1] = if turned_b {
            product(site, [(g, true), (a, turned_a)])
        } else {
            product(site, [(a, !turned_a), (g, false)])
        };
    }
    if site.wants(2) {
        let scaled = site.scale(g, beta);
        handed[2] = Some(site.for_input(scaled, 2)?);
    }
    Ok(handed)
}

/// dA = dY·Bᵀ and dB = Aᵀ·dY, summed over the axes along which an operand was repeated. An operand of one axis counts
/// as a row in front and as a column behind.
pub(super) fn matmul(site: &mut Site) -> Handed {
    let (a, b, g) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let (own_a, own_b) = (site.shape(a)?, site.shape(b)?);
    let (mut shape_a, mut shape_b) = (own_a.clone(), own_b.clone());
    if own_a.len() == 1 {
        shape_a.insert(0, 1);
    }
    if own_b.len() == 1 {
        shape_b.push(1);
    }
    let (rank_a, rank_b) = (shape_a.len(), shape_b.len());
    let batch = broadcast(&shape_a[..rank_a - 2], &shape_b[..rank_b - 2]);
    let [rows, inner, columns] = [shape_a[rank_a - 2], shape_a[rank_a - 1], shape_b[rank_b - 1]];
    let full = |matrix: [usize; 2]| [&batch[..], &matrix].concat();
    let as_matrix = |site: &mut Site, value, own: &[usize], shape: &[usize]| {
        if own == shape { value } else { site.reshape(value, shape) }
    };
    let a = as_matrix(site, a, &own_a, &shape_a);
    let b = as_matrix(site, b, &own_b, &shape_b);
    let g = if own_a.len() == 1 || own_b.len() == 1 { site.reshape(g, &full([rows, columns])) } else { g };
    let mut handed = vec![None, None];
    if site.wants(0) {
        let turned = swapped(site, b, rank_b);
        let product = site.op("MatMul", &[g, turned]);
        let sum = site.unbroadcast(product, &full([rows, inner]), &shape_a);
        handed[0] = Some(as_matrix(site, sum, &shape_a, &own_a));
    }
    if site.wants(1) {
        let turned = swapped(site, a, rank_a);
        let product = site.op("MatMul", &[turned, g]);
        let sum = site.unbroadcast(product, &full([inner, columns]), &shape_b);
        handed[1] = Some(as_matrix(site, sum, &shape_b, &own_b));
    }
    Ok(handed)
}

/// With the last two axes exchanged.
fn swapped(site: &mut Site, value: ValueId, rank: usize) -> ValueId {
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(rank - 2, rank - 1);
    site.transpose(value, &order)
}

fn broadcast(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let length = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    (0..rank).map(|axis| if length(a, axis) == 1 { length(b, axis) } else { length(a, axis) }).collect()
}
