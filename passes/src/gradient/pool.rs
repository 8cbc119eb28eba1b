//! Pools.

use super::site::{Handed, Site};
use super::window::Window;
use crate::ir::{AttributeProto, ValueId};

fn window(site: &Site) -> Result<(Window, Vec<usize>, Vec<usize>), String> {
    let (image, positions) = (site.shape(site.input(0)?)?, site.shape(site.output()?)?);
    let kernel: Vec<usize> =
        site.node.ints("kernel_shape").iter().map(|&n| usize::try_from(n).unwrap_or(1).max(1)).collect();
    Ok((Window::of(&site.node, &kernel, &image, &positions)?, image, positions))
}

/// Each element of a window gets an equal share: a transposed convolution, channel by channel, of dY over the counts.
pub(super) fn average(site: &mut Site) -> Handed {
    let (window, image, positions) = window(site)?;
    let pads = match site.node.int_or("count_include_pad", 0) {
        0 => [vec![0; window.kernel.len()], vec![0; window.kernel.len()]],
        // What `ceil_mode` adds behind the padding does not count.
        _ if site.node.ints("pads").is_empty() => window.pads.clone(),
        _ => {
            let (front, behind) = site.node.ints("pads").split_at(window.kernel.len());
            [front.to_vec(), behind.to_vec()]
        }
    };
    let shares: Vec<f32> = window.counts(&pads).into_iter().map(|count| 1.0 / count.max(1.0)).collect();
    let mut shape = positions;
    (shape[0], shape[1]) = (1, 1);
    let shares = site.tensor(&shape, &shares);
    let g = site.gradient()?;
    let shared = site.mul(g, shares);
    let channels = image[1];
    let ones = vec![1.0; channels * window.elements()];
    let kernel = site.tensor(&[&[channels, 1], &window.kernel[..]].concat(), &ones);
    Ok(vec![Some(site.op_with("ConvTranspose", &[shared, kernel], window.transposed(channels)))])
}

pub(super) fn global_average(site: &mut Site) -> Handed {
    let shape = site.shape(site.input(0)?)?;
    let (g, count) = (site.gradient()?, shape[2..].iter().product::<usize>());
    let axes: Vec<usize> = (2..shape.len()).collect();
    Ok(vec![Some(site.spread(g, &shape, &axes, 1.0 / count as f32))])
}

/// To the largest elements, in equal shares.
pub(super) fn global_max(site: &mut Site) -> Handed {
    let (x, y, g) = (site.input(0)?, site.output()?, site.gradient()?);
    let rank = site.shape(x)?.len();
    let to = i64::from(site.element().number());
    let equal = site.op("Equal", &[x, y]);
    let taken = site.op_with("Cast", &[equal], vec![AttributeProto::int("to", to)]);
    let count = site.reduce(taken, &(2..rank).collect::<Vec<usize>>());
    let share = site.op("Div", &[g, count]);
    Ok(vec![Some(site.mul(taken, share))])
}

/// To the largest element of each window, the first of equal ones.
///
/// A convolution whose kernels have a single 1 lays the elements of each window side by side, `[N, C·K, …]`; dY stands at
/// the largest, and the transposed convolution lays it back, summing where windows overlap.
pub(super) fn max(site: &mut Site) -> Handed {
    let (window, image, positions) = window(site)?;
    let g = site.gradient()?;
    let (channels, elements) = (image[1], window.elements());
    let mut ones = vec![0.0; channels * elements * elements];
    (0..channels * elements).for_each(|row| ones[row * elements + row % elements] = 1.0);
    let kernel = site.tensor(&[&[channels * elements, 1], &window.kernel[..]].concat(), &ones);
    let padded = padded(site, &window)?;
    let none = vec![0; window.kernel.len()];
    let laid = site.op_with("Conv", &[padded, kernel], window.attributes(channels, [&none, &none]));
    let area = positions[2..].iter().product::<usize>();
    let columns = site.reshape(laid, &[image[0], channels, elements, area]);
    let best =
        site.op_with("ArgMax", &[columns], vec![AttributeProto::int("axis", 2), AttributeProto::int("keepdims", 1)]);
    let numbers: Vec<i64> = (0..elements as i64).collect();
    let numbers = site.constant(crate::ir::TensorProto::from_i64("", &[elements, 1], &numbers));
    let taken = site.op("Equal", &[best, numbers]);
    let flat = site.reshape(g, &[image[0], channels, 1, area]);
    let placed = site.masked(taken, flat);
    let mut shape = positions;
    shape[1] = channels * elements;
    let placed = site.reshape(placed, &shape);
    Ok(vec![Some(site.op_with("ConvTranspose", &[placed, kernel], window.transposed(channels)))])
}

/// The image with the least float around it.
fn padded(site: &mut Site, window: &Window) -> Result<ValueId, String> {
    let x = site.input(0)?;
    let side = |pads: &[i64]| [&[0, 0], pads].concat();
    let behind: Vec<i64> = window.pads[1].iter().map(|&behind| behind.max(0)).collect();
    let pads = [side(&window.pads[0]), side(&behind)].concat();
    if pads.iter().all(|&pad| pad == 0) {
        return Ok(x);
    }
    let least = match site.element() {
        crate::ir::DataType::Float16 => -65504.0,
        _ => f32::MIN / 2.0,
    };
    let (pads, least) = (site.vector(&pads), site.scalar(least));
    Ok(site.op("Pad", &[x, pads, least]))
}
