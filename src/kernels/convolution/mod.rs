//! Float convolutions of one sample, rows of channels: `[C, H, W]`.
//!
//! `y[o, p] = f(b[o] + Σ_k W[o, k]·x[k, p])`, k over the channels and taps that an output reads.
//!
//! Weights are packed once. The input is taken as [`Planes`], in which every term of a sum is a row of neighbouring
//! values; no matrix of columns is built. Bits do not depend on the processor's vectors: see `product::tile`.

// What runs on vectors must be compiled into the function that chose them, and its loops are written out: see `product::tile`.
#![allow(clippy::inline_always, clippy::needless_range_loop)]

mod depthwise;
mod planes;
mod window;

#[cfg(test)]
mod tests;

pub(crate) use window::{Axis, Window};

use super::product::{Activation, Panels, Product, SLACK};
use depthwise::Depthwise;
use planes::Planes;
use pulp::Arch;
use std::sync::Arc;

/// Values of a band's planes: a quarter of a second-level cache.
const PLANES: usize = 1 << 16;

/// Room that a convolution works in, to be used again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch {
    planes: Vec<f32>,
    tile: Vec<f32>,
}

/// A convolution with its weights.
#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    window: Window,
    bias: Vec<f32>,
    activation: Activation,
    planes: Planes,
    /// Shared by copies.
    weights: Arc<Weights>,
}

/// Weights as the kernels read them.
#[derive(Clone, Debug)]
enum Weights {
    /// One output channel per group of one channel, `[C, taps]`.
    Depthwise(Vec<f32>),
    /// One matrix per group.
    Groups(Vec<Panels>),
}

impl Convolution {
    /// Packs weights `[O, I / groups, H, W]`; `None` where they do not fit the window.
    pub(crate) fn new(mut window: Window, weights: &[f32], bias: Vec<f32>) -> Option<Self> {
        // A column is a row that lies the same way in memory; vectors run along rows.
        let [tall, wide] = window.axes;
        if wide == Axis::SINGLE {
            window.axes = [wide, tall];
        }
        let Window { inputs, outputs, groups, .. } = window;
        let divides = groups > 0 && inputs % groups == 0 && outputs % groups == 0 && outputs > 0 && inputs > 0;
        let fits = || weights.len() == outputs * window.depth() && bias.len() == outputs;
        if !divides || window.axes.iter().any(Axis::is_empty) || !fits() {
            return None;
        }
        let depthwise = groups == inputs && outputs == inputs && window.depth() > 1;
        let per_group = inputs / groups;
        let planes = Planes::new(&window, per_group, PLANES);
        let weights = if depthwise {
            Weights::Depthwise(weights.to_vec())
        } else {
            let matrix = outputs / groups * window.depth();
            Weights::Groups(weights.chunks_exact(matrix).map(|group| Panels::new(group, window.depth())).collect())
        };
        Some(Self { window, bias, activation: Activation::Identity, planes, weights: Arc::new(weights) })
    }

    /// The convolution with a function of every output.
    pub(crate) fn with_activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// The function of every output.
    pub(crate) fn activation(&self) -> Activation {
        self.activation
    }

    /// Its shape.
    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// Computes one sample, `[C, H, W]`.
    pub(crate) fn run(&self, input: &[f32], output: &mut [f32], scratch: &mut Scratch) {
        let [tall, wide] = self.window.axes;
        let per_group = self.window.inputs / self.window.groups * tall.input * wide.input;
        let written = self.window.outputs / self.window.groups * self.window.output_plane();
        let groups = input.chunks_exact(per_group.max(1)).zip(output.chunks_exact_mut(written.max(1)));
        for (group, (input, output)) in groups.enumerate() {
            match &*self.weights {
                Weights::Depthwise(weights) => self.run_channel(group, weights, input, output, scratch),
                Weights::Groups(panels) => self.run_group(group, &panels[group], input, output, scratch),
            }
        }
    }

    fn run_channel(&self, channel: usize, weights: &[f32], input: &[f32], output: &mut [f32], scratch: &mut Scratch) {
        let (width, taps) = (self.window.axes[1].output, self.planes.offsets().len());
        // All channels have their padding at the same places.
        let padded = channel > 0 && self.planes.band() == self.window.axes[0].output;
        for (band, output) in output.chunks_mut(self.planes.band() * width).enumerate() {
            self.planes.fill(input, band * self.planes.band(), depthwise::SLACK, padded, &mut scratch.planes);
            Arch::new().dispatch(Depthwise {
                weights: &weights[channel * taps..][..taps],
                bias: self.bias[channel],
                activation: self.activation,
                source: &scratch.planes,
                offsets: self.planes.offsets(),
                stride: self.planes.width(),
                width,
                output,
                scratch: &mut scratch.tile,
            });
        }
    }

    fn run_group(&self, group: usize, panels: &Panels, input: &[f32], output: &mut [f32], scratch: &mut Scratch) {
        let [tall, wide] = self.window.axes;
        let plane = self.window.output_plane();
        let bias = &self.bias[group * panels.rows()..][..panels.rows()];
        if tall.is_pointwise() && wide.is_pointwise() {
            let offsets: Vec<usize> = (0..panels.depth()).map(|channel| channel * plane).collect();
            let scratch = &mut scratch.tile;
            let (activation, width) = (self.activation, plane);
            let (source, offsets) = (input, &offsets[..]);
            Arch::new().dispatch(Product {
                panels,
                bias,
                activation,
                source,
                offsets,
                stride: width,
                height: 1,
                width,
                output,
                plane,
                end: plane,
                scratch,
            });
            return;
        }
        for first in (0..tall.output).step_by(self.planes.band()) {
            self.planes.fill(input, first, SLACK, false, &mut scratch.planes);
            Arch::new().dispatch(Product {
                panels,
                bias,
                activation: self.activation,
                source: &scratch.planes,
                offsets: self.planes.offsets(),
                stride: self.planes.width(),
                height: self.planes.band().min(tall.output - first),
                width: wide.output,
                output: &mut output[first * wide.output..],
                plane,
                end: plane - first * wide.output,
                scratch: &mut scratch.tile,
            });
        }
    }
}
