//! A run as an HTML page: one self-contained file, with charts as SVG.
//!
//! The page depends only on the report, so the same run gives the same page except for the seconds it took. The
//! templates escape every name. Sorting, filtering and tooltips need the page's script; all text is readable without
//! it.

mod histogram;
mod layers;
mod search;
mod svg;

use super::numbers::{bytes, counted, decibels, loss, percent};
use super::outputs::{reading, words};
use super::{Document, Quality, Report, Run};
use crate::report::ReportError;
use crate::report::search::Step;
use crate::scheme::output_kind::OutputKind;
use askama::Template;
use layers::Row;
use svg::Chart;

/// The page.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    run: &'a Run,
    report: &'a Report,
    rows: Vec<Row<'a>>,
    layers: Chart,
    worst: Vec<Worst<'a>>,
}

/// A figure of the verdict.
struct Tile {
    heading: &'static str,
    figure: String,
    note: String,
}

/// A layer whose values are shown, and the charts of these.
struct Worst<'a> {
    name: &'a str,
    error: String,
    charts: Vec<(&'static str, Chart)>,
}

/// Writes the page.
pub fn render(document: &Document<Report>) -> Result<String, ReportError> {
    let Document { run, found: report, .. } = document;
    let rows = layers::rows(report);
    let (layers, worst) = (layers::chart(&rows), worst(&rows));
    let page = Page { run, report, rows, layers, worst };
    page.render().map_err(|reason| ReportError::Page { reason: reason.to_string() })
}

/// The layers with distributions, from the largest error on.
fn worst<'a>(rows: &[Row<'a>]) -> Vec<Worst<'a>> {
    let mut shown: Vec<&Row> = rows.iter().filter(|row| row.worst).collect();
    let error = |row: &Row| row.layer.sqnr().unwrap_or(f64::INFINITY);
    shown.sort_by(|a, b| error(a).total_cmp(&error(b)));
    let one = |row: &Row<'a>| {
        let charts = [
            ("weights", "Weights, in steps of their channel", &row.layer.weight_distribution),
            ("reads", "What it reads", &row.layer.input_distribution),
        ];
        let chart = |(id, caption, found): (&str, _, &Option<_>)| {
            let title = format!("{}: {caption}", row.layer.name);
            let found = found.as_ref()?;
            Some((caption, histogram::chart(format!("{id}-{}", row.position), title, found)))
        };
        let charts = charts.into_iter().filter_map(chart).collect();
        Worst { name: &row.layer.name, error: row.error_text(), charts }
    };
    shown.into_iter().map(one).collect()
}

impl Page<'_> {
    fn ratio(&self) -> String {
        format!("{:.1}×", self.report.float_bytes as f64 / self.report.bytes.max(1) as f64)
    }

    fn sizes(&self) -> String {
        format!("{} → {}", bytes(self.report.float_bytes), bytes(self.report.bytes))
    }

    /// The largest share of one layer in the bytes of all weights.
    fn most(&self) -> f64 {
        self.rows.iter().map(|row| row.share).fold(0.001, f64::max)
    }

    /// The figures at the top.
    fn tiles(&self) -> Vec<Tile> {
        let report = self.report;
        let (integers, all) = (report.on_integers(), report.layer_count());
        let mut tiles = vec![
            Tile { heading: "Smaller", figure: self.ratio(), note: self.sizes() },
            Tile {
                heading: "Bits",
                figure: format!("{:.2}", report.bits_on_disk()),
                note: format!("a weight on disk; activations {}", report.activations()),
            },
        ];
        tiles.extend(report.quality.iter().flat_map(quality_tiles));
        tiles.push(Tile {
            heading: "Integers",
            figure: format!("{integers} of {all}"),
            note: format!("layers {}, as predicted for the target", report.integer_words()),
        });
        tiles
    }

    /// The data on which the plan was compared.
    fn compared(&self) -> Option<String> {
        let quality = self.report.quality.as_ref()?;
        let noun = if self.report.synthetic { "made-up sample" } else { "sample" };
        let which = match (quality.cross_validated, quality.held_out) {
            _ if quality.chosen_by => " that the plan was chosen by",
            (_, true) if self.report.is_chosen() => " that nothing was chosen by",
            (true, _) => "",
            (false, true) => " not calibrated on",
            (false, false) => " calibrated on",
        };
        let ranges = if quality.cross_validated { ", each with ranges from others" } else { "" };
        Some(format!("{}{which}{ranges}", counted(quality.samples, noun)))
    }

    /// What each output holds, and how far it is from float.
    fn outputs(&self) -> Vec<[String; 2]> {
        let outputs = self.report.quality.iter().flat_map(|quality| &quality.outputs);
        outputs.map(|output| [reading(output), words(output)]).collect()
    }

    /// What to be warned of. Made-up samples say too little for that.
    fn warnings(&self) -> Vec<&str> {
        let measured = self.report.quality.iter().filter(|_| !self.report.synthetic);
        measured.flat_map(|quality| &quality.warnings).map(String::as_str).collect()
    }

    fn command(&self) -> String {
        let words = std::iter::once("msq-onnx".to_owned()).chain(self.run.arguments.iter().map(|word| quoted(word)));
        words.collect::<Vec<_>>().join(" ")
    }

    /// The last part of the model's path.
    fn name(&self) -> &str {
        self.run.model.rsplit(['/', '\\']).next().unwrap_or_default()
    }

    fn front(&self) -> Option<Chart> {
        self.report.search.as_ref().map(search::front)
    }

    fn accuracies(&self) -> Option<Chart> {
        self.report.search.as_ref().and_then(|found| search::layer_accuracies(&found.steps))
    }

    /// The steps of MSQ that are drawn, each with the class of its line.
    fn steps(&self) -> Vec<(&'static str, &Step)> {
        self.report.search.as_ref().map_or_else(Vec::new, |found| search::shown(&found.steps))
    }
}

fn quality_tiles(quality: &Quality) -> Vec<Tile> {
    let figures = quality.agreement;
    let mut tiles = Vec::new();
    if let Some((own, float)) = quality.accuracy.zip(quality.float_accuracy) {
        let note = format!("{} before", percent(float, 2));
        tiles.push(Tile { heading: "Accuracy", figure: percent(own, 2), note });
    }
    if let Some(same) = figures.same_argmax {
        let note = "of answers are those of float".to_owned();
        tiles.push(Tile { heading: "Agreement", figure: percent(same, 1), note });
    }
    if let Some(divergence) = figures.divergence {
        let note = "nats from float, on average".to_owned();
        tiles.push(Tile { heading: "KL", figure: format!("{divergence:.4}"), note });
    }
    let worst = quality.outputs.iter().filter(|output| output.kind == OutputKind::Values);
    if let Some(worst) = worst.max_by(|a, b| a.lost.total_cmp(&b.lost)) {
        let exact = if worst.varies() { "exact" } else { "constant" };
        let figure = worst.worst_sqnr.map_or(exact.to_owned(), decibels);
        let channel = worst.worst_channel.map_or_else(String::new, |channel| format!(", channel {channel}"));
        let note = format!("signal to error of the worst channel: {}{channel}", worst.name);
        tiles.push(Tile { heading: "Output", figure, note });
    }
    if let Some(most) = quality.lost_at_most.filter(|_| !quality.chosen_by) {
        let note = match loss(most, 2) {
            _ if most >= 1.0 => "these samples cannot tell how much others lose".to_owned(),
            most => format!("on other samples no more than {most}, with 95 % confidence"),
        };
        tiles.push(Tile { heading: "Loss", figure: loss(quality.lost, 2), note });
    }
    tiles
}

/// A word of a command line, quoted for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,%+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::LayerReport;
    use crate::scheme::bit_plan::{BitPlan, LayerPlan, WeightBits};
    use msq_passes::analysis::LayerOp;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(["--skip", "a b", "it's", ""].map(quoted), ["--skip", "'a b'", r"'it'\''s'", "''"]);
    }

    fn layer(at: usize) -> LayerReport {
        LayerReport {
            name: format!("/encoder/layers.{at}/attention/output/dense/MatMul"),
            op: LayerOp::MatMul,
            shape: vec![768, 768],
            weights: 768 * 768,
            macs: Some(1 << 30),
            weight_bits: (!at.is_multiple_of(7)).then_some(WeightBits::whole(8)),
            activation_bits: (!at.is_multiple_of(7)).then_some(8),
            stays_float: None,
            bytes: 768 * 768,
            weight_sqnr: Some(40.0),
            output_sqnr: None,
            network_sqnr: Some(-3.0 + at as f64),
            weight_distribution: None,
            input_distribution: None,
        }
    }

    fn document(layers: usize) -> Document<Report> {
        let (quantized, float) = (0..layers).map(layer).partition(|layer| layer.weight_bits.is_some());
        let report = Report {
            options: crate::Options::default(),
            opset: 17,
            float_bytes: 0,
            bytes: 0,
            samples: 1,
            data: "1 sample".to_owned(),
            preprocessing: None,
            synthetic: true,
            calibrate_seconds: 0.0,
            seconds: 0.0,
            plan: BitPlan::of_layers((0..layers).map(|at| (layer(at).name, LayerPlan::default())).collect()),
            names: indexmap::IndexMap::new(),
            layers: quantized,
            float_layers: float,
            stored: Vec::new(),
            notes: Vec::new(),
            kept: Vec::new(),
            float16: None,
            learning: None,
            quality: None,
            search: None,
            repair: None,
        };
        Document::new(Run::default(), report)
    }

    /// Float layers stand where the graph has them.
    #[test]
    fn layers_are_in_the_order_of_the_graph() {
        let document = document(15);
        let rows = layers::rows(&document.found);
        let bits: Vec<f64> = rows.iter().map(|row| row.bits).collect();
        assert_eq!(bits, [&[32.0][..], &[8.0; 6], &[32.0], &[8.0; 6], &[32.0]].concat());
        assert!(rows.iter().enumerate().all(|(at, row)| row.layer.name == layer(at).name && row.position == at + 1));
        assert_eq!(rows[3].share, 1.0 / 15.0);
    }

    #[test]
    fn pages_of_large_models_stay_small() {
        let page = render(&document(600)).unwrap();
        assert!(page.matches("<tr id=").count() == 600 && page.len() < 1_000_000, "{} bytes", page.len());
        assert!(!page.contains("NaN") && !page.contains("inf"));
        render(&document(0)).unwrap();
    }
}
