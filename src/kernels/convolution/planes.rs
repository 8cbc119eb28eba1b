//! Channels of a convolution's input, padded and split by stride, a band of output rows at a time.
//!
//! With stride s the taps of a kernel fall into s² phases of the input: positions that are equal modulo s. In planes of
//! one phase each, a tap reads for neighbouring outputs neighbouring values, whatever the stride:
//!
//! `plane[phase][y − y0 + t_y][x + t_x]`, `(t_y, t_x)` the tap's position in its phase,
//!
//! so one offset per tap says where the row of outputs starts that reads it. Padding is written out as zeros.

use super::window::{Axis, Window};

/// The layout of the planes of one group's channels.
#[derive(Clone, Debug)]
pub(super) struct Planes {
    axes: [Axis; 2],
    channels: usize,
    /// Phases that some tap lies in.
    phases: Vec<[usize; 2]>,
    /// Rows of a plane.
    rows: usize,
    /// Values in a row of a plane.
    width: usize,
    /// Output rows of a band.
    band: usize,
    /// Where each product of a sum starts reading: channel by channel, tap by tap.
    offsets: Vec<usize>,
    /// What the rows of each phase take from the input.
    spans: Vec<Span>,
}

impl Planes {
    /// Planes of so many channels with at most `budget` values, if one output row takes no more.
    pub(super) fn new(window: &Window, channels: usize, budget: usize) -> Self {
        let axes = window.axes;
        let taps = |axis: &Axis| (0..axis.kernel).map(|tap| axis.tap(tap)).collect::<Vec<_>>();
        let [tall, wide] = [taps(&axes[0]), taps(&axes[1])];
        let mut phases: Vec<[usize; 2]> =
            tall.iter().flat_map(|(y, _)| wide.iter().map(move |(x, _)| [*y, *x])).collect();
        phases.sort_unstable();
        phases.dedup();
        let width = axes[1].output + axes[1].reach();
        let row = (channels * phases.len() * width).max(1);
        let band = (budget / row).saturating_sub(axes[0].reach()).clamp(1, axes[0].output.max(1));
        let rows = band + axes[0].reach();
        let mut offsets = Vec::with_capacity(channels * tall.len() * wide.len());
        for channel in 0..channels {
            for (phase_y, y) in &tall {
                for (phase_x, x) in &wide {
                    let phase = phases.iter().position(|phase| phase == &[*phase_y, *phase_x]).unwrap_or(0);
                    offsets.push(((channel * phases.len() + phase) * rows + y) * width + x);
                }
            }
        }
        let spans = phases.iter().map(|&[_, phase]| Span::new(&axes[1], phase, width)).collect();
        Self { axes, channels, phases, rows, width, band, offsets, spans }
    }

    /// Output rows of a band.
    pub(super) fn band(&self) -> usize {
        self.band
    }

    /// Values in a row of a plane, which is the distance between output rows.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Where each product of a sum starts reading.
    pub(super) fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// Writes the planes for the output rows from `first` on. `to` gets `slack` values more than are in the planes. Where
    /// it holds the planes of other channels and the same rows, `padded` says that its padding can stay.
    pub(super) fn fill(&self, input: &[f32], first: usize, slack: usize, padded: bool, to: &mut Vec<f32>) {
        let [tall, wide] = &self.axes;
        let plane = self.rows * self.width;
        to.resize(self.channels * self.phases.len() * plane + slack, 0.0);
        let sources = input.chunks_exact((tall.input * wide.input).max(1)).take(self.channels);
        for (source, planes) in sources.zip(to.chunks_exact_mut(self.phases.len() * plane)) {
            for (&[phase, _], (span, plane)) in
                self.phases.iter().zip(self.spans.iter().zip(planes.chunks_exact_mut(plane)))
            {
                let mut y = (first * tall.stride + phase).wrapping_sub(tall.before);
                for row in plane.chunks_exact_mut(self.width) {
                    // Above the input the position has wrapped around.
                    if y < tall.input {
                        span.fill(&source[y * wide.input..][..wide.input], padded, row);
                    } else if !padded {
                        row.fill(0.0);
                    }
                    y = y.wrapping_add(tall.stride);
                }
            }
        }
    }
}

/// The part of a row of a phase that lies in the input.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// Where it starts in the row.
    start: usize,
    /// Values.
    count: usize,
    /// Where it starts in the input.
    at: usize,
    /// Distance between its values in the input.
    stride: usize,
}

impl Span {
    fn new(axis: &Axis, phase: usize, width: usize) -> Self {
        let start = axis.before.saturating_sub(phase).div_ceil(axis.stride).min(width);
        let at = (start * axis.stride + phase).saturating_sub(axis.before).min(axis.input);
        let count = (axis.input - at).div_ceil(axis.stride).min(width - start);
        Self { start, count, at, stride: axis.stride }
    }

    #[inline]
    fn fill(&self, source: &[f32], padded: bool, row: &mut [f32]) {
        if !padded {
            row[..self.start].fill(0.0);
            row[self.start + self.count..].fill(0.0);
        }
        let (source, row) = (&source[self.at..], &mut row[self.start..self.start + self.count]);
        match self.stride {
            1 => row.copy_from_slice(&source[..self.count]),
            2 => every_second(source, row),
            stride => row.iter_mut().zip(source.iter().step_by(stride)).for_each(|(to, from)| *to = *from),
        }
    }
}

/// Copies every second value, eight at a time.
#[inline]
fn every_second(source: &[f32], row: &mut [f32]) {
    let whole = source.len() / 16 * 8;
    let (row, rest) = row.split_at_mut(whole.min(row.len() / 8 * 8));
    for (to, from) in row.as_chunks_mut::<8>().0.iter_mut().zip(source.as_chunks::<16>().0) {
        for at in 0..8 {
            to[at] = from[2 * at];
        }
    }
    let source = &source[2 * row.len()..];
    rest.iter_mut().zip(source.iter().step_by(2)).for_each(|(to, from)| *to = *from);
}
