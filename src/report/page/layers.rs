//! The layers in graph order: rows of the table, and three lanes of bars, one above the other.

use super::svg::{Chart, Mark, Scale, bars, px, tick_text};
use crate::report::numbers::{count, counted, decibels, grouped, percent};
use crate::report::{LayerReport, Report};
use crate::scheme::bit_plan::WeightBits;

/// A row of the table.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub layer: &'a LayerReport,
    /// Position in the graph, from 1.
    pub position: usize,
    /// Bits of a weight, for sorting and for bars.
    pub bits: f64,
    /// Share of the bytes of all weights.
    pub share: f64,
    /// Whether its values are shown below.
    pub worst: bool,
}

/// Rows of all layers, as the plan orders them.
pub(super) fn rows(report: &Report) -> Vec<Row<'_>> {
    let mut layers: Vec<&LayerReport> = report.layers.iter().chain(&report.float_layers).collect();
    let total = layers.iter().map(|layer| layer.bytes).sum::<usize>().max(1) as f64;
    layers.sort_by_key(|layer| report.plan.layers.get_index_of(&layer.name));
    let rows = layers.into_iter().enumerate().map(|(at, layer)| Row {
        layer,
        position: at + 1,
        bits: bits(layer),
        share: layer.bytes as f64 / total,
        worst: layer.weight_distribution.is_some(),
    });
    rows.collect()
}

fn bits(layer: &LayerReport) -> f64 {
    layer.weight_bits.unwrap_or(WeightBits::Float).twentieths() as f64 / 20.0
}

impl Row<'_> {
    /// Bits of weights and of the input, in words.
    pub(super) fn bits_text(&self) -> String {
        let weights = self.layer.weight_bits.unwrap_or(WeightBits::Float);
        match (weights, self.layer.activation_bits) {
            (WeightBits::Float, _) => "float".to_owned(),
            (weights, None) => format!("{weights} / float"),
            (weights, Some(bits)) => format!("{weights} / {bits}"),
        }
    }

    pub(super) fn shape_text(&self) -> String {
        self.layer.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("×")
    }

    pub(super) fn weights_text(&self) -> String {
        count(self.layer.weights as u64)
    }

    pub(super) fn bytes_text(&self) -> String {
        grouped(self.layer.bytes as u64)
    }

    pub(super) fn macs_text(&self) -> String {
        self.layer.macs.map_or_else(|| "?".to_owned(), count)
    }

    /// The error in words; rounding without loss is called exact.
    pub(super) fn error_text(&self) -> String {
        match self.layer.sqnr() {
            _ if self.layer.weight_bits.is_none() => "–".to_owned(),
            Some(ratio) => format!("{ratio:.1}"),
            None => "exact".to_owned(),
        }
    }

    /// All figures of the layer, on one line.
    pub(super) fn tip(&self) -> String {
        let layer = self.layer;
        let errors =
            [("weights", layer.weight_sqnr), ("alone", layer.output_sqnr), ("in the network", layer.network_sqnr)];
        let errors = errors.iter().filter_map(|(what, ratio)| Some(format!("{what} {}", decibels((*ratio)?))));
        let size = format!("{} B ({})", self.bytes_text(), percent(self.share, 1));
        let shape = format!("{} {}", layer.op.name(), self.shape_text());
        let parts = [layer.name.clone(), shape, format!("bits {}", self.bits_text()), size];
        parts.into_iter().chain(errors).collect::<Vec<_>>().join(" · ")
    }
}

const WIDTH: f64 = 960.0;
const LEFT: f64 = 36.0;
const LANE: f64 = 84.0;
const GAP: f64 = 34.0;
const TOP: f64 = 24.0;

/// A lane of bars.
struct Lane {
    heading: &'static str,
    class: &'static str,
    /// The number at full height.
    most: f64,
    ticks: Vec<f64>,
    values: Vec<f64>,
}

/// Bits, bytes and errors of all layers.
pub(super) fn chart(rows: &[Row]) -> Chart {
    let bits: Vec<f64> = rows.iter().map(|row| row.bits.min(8.0)).collect();
    let shares: Vec<f64> = rows.iter().map(|row| 100.0 * row.share).collect();
    let most = |values: &[f64]| values.iter().copied().fold(1.0, f64::max);
    let errors: Vec<f64> = rows.iter().map(|row| row.layer.sqnr().unwrap_or(0.0).max(0.0)).collect();
    let best = most(&errors);
    // A layer with exact weights has no error; float layers have no bar.
    let exact = |row: &Row| row.layer.weight_bits.is_some() && row.layer.sqnr().is_none();
    let errors = rows.iter().zip(errors).map(|(row, ratio)| if exact(row) { best } else { ratio }).collect();
    let lane = |heading, class, most: f64, values| {
        let ticks = if class == "bits" { vec![0.0, 4.0, 8.0] } else { Scale::linear((0.0, most), (0.0, 1.0)).ticks(3) };
        Lane { heading, class, most, ticks, values }
    };
    let lanes = [
        lane("bits of a weight", "bits", 8.0, bits),
        lane("share of the weights' bytes, %", "bytes", most(&shares), shares),
        lane("signal to error, dB: more is better", "error", best, errors),
    ];
    let step = (WIDTH - LEFT) / rows.len().max(1) as f64;
    let mut marks = Vec::new();
    for (at, lane) in lanes.iter().enumerate() {
        draw(&mut marks, lane, rows, TOP + at as f64 * (LANE + GAP), step);
    }
    let height = TOP + 3.0 * (LANE + GAP) - GAP + 4.0;
    marks.extend(rows.iter().enumerate().map(|(at, row)| Mark::Place {
        row: row.position,
        x: px(LEFT + at as f64 * step),
        y: 0.0,
        width: px(step),
        height,
        tip: row.tip(),
    }));
    Chart {
        id: "layer-chart".to_owned(),
        title: "Layers in graph order".to_owned(),
        description: format!(
            "Bits, share of bytes and signal-to-error ratio of {}; the table below has the numbers",
            counted(rows.len(), "layer")
        ),
        width: WIDTH,
        height,
        marks,
    }
}

fn draw(marks: &mut Vec<Mark>, lane: &Lane, rows: &[Row], top: f64, step: f64) {
    let scale = Scale::linear((0.0, lane.most), (top + LANE, top));
    marks.push(Mark::text("heading", LEFT, top - 9.0, lane.heading.to_owned()));
    for &tick in &lane.ticks {
        let y = px(scale.at(tick));
        marks.push(Mark::Path { class: "grid", path: super::svg::line([(LEFT, y), (WIDTH, y)].into_iter()) });
        marks.push(Mark::text("left", LEFT - 8.0, y + 4.0, tick_text(tick)));
    }
    let gap = (0.2 * step).min(3.0);
    let bar = |(at, value): (usize, f64)| {
        let y = scale.at(value);
        [LEFT + at as f64 * step + gap / 2.0, y, step - gap, top + LANE - y]
    };
    // Float layers have another class, and so have the errors of the layers whose values are shown.
    let apart = |row: &Row| if lane.class == "error" { row.worst } else { row.layer.weight_bits.is_none() };
    for (class, wanted) in [(lane.class, false), (if lane.class == "error" { "worst" } else { "float" }, true)] {
        let values = lane.values.iter().copied().enumerate().filter(|(at, _)| apart(&rows[*at]) == wanted);
        marks.push(Mark::Path { class, path: bars(values.map(bar)) });
    }
}
