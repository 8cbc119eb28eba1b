//! What a convolution costs by its shape.

use crate::analysis::Layer;
use crate::ir::{Graph, Node};
use crate::target::ConvolutionPrices;

/// Values of columns that a second-level cache does not hold.
const FAR: f64 = 8e6;

/// A convolution in numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConvolutionShape {
    /// Output positions.
    positions: f64,
    /// Kernel positions.
    taps: usize,
    /// Of these, how many lie inside of the image: on average, and for one output position at least.
    inside: Inside,
    /// Rows of the kernel: positions but for the last axis.
    rows: usize,
    groups: usize,
    /// Input channels of a group.
    inputs: usize,
    /// Output channels of a group.
    outputs: usize,
    /// Axes of the kernel.
    axes: usize,
    /// Whether its positions are dilated along the last axis.
    dilated: bool,
    /// Whether it moves by several positions along the last axis.
    strided: bool,
}

/// Kernel positions inside of the image.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Inside {
    /// On average over output positions.
    mean: f64,
    /// Those that one output position at least has inside.
    met: f64,
}

impl Inside {
    /// Of a convolution that reads so many positions along each axis; nothing where it does not say how it pads them.
    fn of(node: &Node, kernel: &[usize], read: &[usize]) -> Option<Self> {
        let explicit = node.string("auto_pad").is_none_or(|mode| mode == "NOTSET");
        if !explicit || !node.is("Conv") || kernel.len() != read.len() {
            return None;
        }
        let attribute = |name: &str, at: usize, absent: i64| node.ints(name).get(at).copied().unwrap_or(absent);
        let mut all = Self { mean: 1.0, met: 1.0 };
        for (at, (&taps, &length)) in kernel.iter().zip(read).enumerate() {
            let (step, apart) = (attribute("strides", at, 1).max(1), attribute("dilations", at, 1));
            let (before, behind) = (attribute("pads", at, 0), attribute("pads", at + kernel.len(), 0));
            let (taps, length) = (i64::try_from(taps).ok()?, i64::try_from(length).ok()?);
            let outputs = (length + before + behind - apart * (taps - 1) - 1) / step + 1;
            // Output positions whose tap lies inside of the image: 0 ≤ at·step + tap·apart − before < length.
            let inside = |tap: i64| {
                let first = (before - tap * apart + step - 1).div_euclid(step).max(0);
                let last = (length - 1 + before - tap * apart).div_euclid(step).min(outputs - 1);
                (last - first + 1).max(0)
            };
            let counts = || (0..taps).map(inside);
            all.mean *= counts().sum::<i64>() as f64 / outputs.max(1) as f64;
            all.met *= counts().filter(|&count| count > 0).count() as f64;
        }
        Some(all)
    }
}

impl ConvolutionShape {
    /// `read` is the shape of the layer's input for one sample, where it is known; elsewhere all kernel positions count as inside.
    pub(super) fn of(graph: &Graph, layer: &Layer, macs: f64, read: Option<&[usize]>) -> Option<Self> {
        let node = graph.node(layer.node);
        let groups = usize::try_from(node.int_or("group", 1)).ok().filter(|&n| n > 0)?;
        let (outputs, inputs) = (*layer.shape.first()?, *layer.shape.get(1)?);
        let taps: usize = layer.shape.iter().skip(2).product();
        let inside = read.and_then(|read| Inside::of(node, layer.shape.get(2..)?, read.get(2..)?));
        let inside = inside.unwrap_or(Inside { mean: taps as f64, met: taps as f64 });
        let rows = layer.shape.iter().rev().skip(1).take(layer.shape.len().saturating_sub(3)).product();
        let (positions, axes) = (macs / layer.weights().max(1) as f64, layer.shape.len().saturating_sub(2));
        let steps = |name: &str| node.ints(name).last().is_some_and(|&step| step > 1);
        let (dilated, strided) = (steps("dilations"), steps("strides"));
        Some(Self { positions, taps, inside, rows, groups, inputs, outputs: outputs / groups, axes, dilated, strided })
    }

    /// With so many more output and input channels.
    pub(super) fn widened(self, [outputs, inputs]: [usize; 2]) -> Self {
        if self.inputs == 1 && self.outputs == 1 {
            return Self { groups: self.groups + outputs, ..self };
        }
        Self { outputs: self.outputs + outputs, inputs: self.inputs + inputs, ..self }
    }

    /// Whether the float kernel computes blocks of channels: there are two axes, and no groups but single channels, in fours, or
    /// whole vectors.
    pub(super) fn takes_blocks(&self, by: &ConvolutionPrices) -> bool {
        let is_whole = |channels: usize| channels.is_multiple_of(by.lanes[1]);
        let is_depthwise = self.inputs == 1 && self.outputs == 1 && self.groups.is_multiple_of(by.depthwise_multiple);
        self.axes == 2 && (self.groups == 1 || is_depthwise || is_whole(self.inputs) && is_whole(self.outputs))
    }

    /// Weights that are read where kernel positions outside of the image are left out.
    pub(super) fn weights_inside(&self) -> f64 {
        self.inside.met * (self.groups * self.inputs * self.outputs) as f64
    }

    /// Nanoseconds of its kernel.
    pub(super) fn price(&self, by: &ConvolutionPrices) -> f64 {
        let round_up = |count: usize, lanes: usize| (count.div_ceil(lanes) * lanes) as f64;
        let [positions, taps, rows] = [self.positions, self.taps as f64, self.rows as f64];
        let all = Inside { mean: taps, met: taps };
        let inside = if by.skips_padding && self.axes == 2 { self.inside } else { all };
        let weights = inside.met * (self.groups * self.inputs * self.outputs) as f64 * by.weight;
        if self.inputs == 1 && self.outputs == 1 {
            let uneven = !self.groups.is_multiple_of(by.depthwise_multiple);
            let kernel = &by.depthwise[self.axes.clamp(1, 3) - 1][usize::from(uneven)];
            let channels = round_up(self.groups, kernel.lanes);
            let each = positions * (inside.mean * (kernel.tap + kernel.product * channels) + kernel.output * channels);
            return each + taps * channels * kernel.weight;
        }
        let form = self.axes.clamp(1, 3) - 1;
        if self.groups > 1 {
            let is_whole = |channels: usize| channels.is_multiple_of(by.lanes[form]);
            let (inputs, whole) = (self.inputs as f64, is_whole(self.inputs) && is_whole(self.outputs));
            let kernel = &by.grouped[form][usize::from(!whole)];
            let gathered = if self.taps > 1 { rows * kernel.row + taps * inputs * kernel.column } else { 0.0 };
            let written = round_up(self.outputs, kernel.lanes) * (taps * inputs * kernel.product + kernel.output);
            return weights + self.groups as f64 * (kernel.group + positions * (gathered + written));
        }
        let [least, multiple] = by.direct_inputs;
        let direct = self.inputs >= least && self.inputs.is_multiple_of(multiple) && self.outputs >= by.direct_outputs;
        let (kernel, lanes) = (&by.kernels[form][usize::from(!direct)], by.lanes[form]);
        let fills = direct && by.fills_inputs && self.axes == 2;
        let inputs = if fills { round_up(self.inputs, lanes) } else { self.inputs as f64 };
        let outputs = round_up(self.outputs, lanes);
        let product = if self.outputs <= lanes { kernel.single_product } else { kernel.product };
        let columns = taps * inputs;
        let pieces = rows * kernel.row + if self.dilated { taps * kernel.dilated_tap } else { 0.0 };
        let far = if positions * columns > FAR { kernel.far_column } else { 0.0 };
        let strided = if self.strided { kernel.strided_column } else { 0.0 };
        let gathered = if self.taps > 1 { pieces + columns * (kernel.column + far + strided) } else { 0.0 };
        let fixed = kernel.position + taps * kernel.tap;
        let multiplied = inside.mean * inputs * product;
        weights + positions * (outputs * (multiplied + kernel.output) + gathered + fixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{import, text};

    /// Kernel positions inside of the image, by going through all of them.
    fn counted(length: i64, taps: i64, [step, apart, before, behind]: [i64; 4]) -> (f64, f64) {
        let outputs = (length + before + behind - apart * (taps - 1) - 1) / step + 1;
        let is_inside = |at: i64, tap: i64| (0..length).contains(&(at * step + tap * apart - before));
        let all = (0..outputs).map(|at| (0..taps).filter(|&tap| is_inside(at, tap)).count()).sum::<usize>();
        let met = (0..taps).filter(|&tap| (0..outputs).any(|at| is_inside(at, tap))).count();
        (all as f64 / outputs as f64, met as f64)
    }

    #[test]
    fn taps_outside_of_the_image_are_not_counted() {
        let cases = [
            (1, 3, [1, 1, 1, 1]),
            (2, 3, [1, 1, 1, 1]),
            (8, 3, [1, 1, 1, 1]),
            (7, 3, [2, 1, 1, 1]),
            (7, 5, [2, 1, 2, 1]),
            (9, 3, [1, 4, 4, 4]),
            (3, 7, [1, 1, 3, 3]),
            (10, 4, [3, 1, 0, 0]),
        ];
        for (length, taps, [step, apart, before, behind]) in cases {
            let source = format!(
                "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,1,{length}] x) => (float[1,1,N] y)
                 <float[1,1,{taps}] w = {{}}> {{
                   y = Conv <strides = [{step}], dilations = [{apart}], pads = [{before}, {behind}]> (x, w) }}"
            );
            let model = import(text::parse(&source).unwrap()).unwrap();
            let (_, node) = model.graph.nodes().next().unwrap();
            let found = Inside::of(node, &[taps as usize], &[length as usize]).unwrap();
            assert_eq!((found.mean, found.met), counted(length, taps, [step, apart, before, behind]), "{source}");
        }
    }
}
