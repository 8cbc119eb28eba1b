//! `msq-onnx compare`: two models side by side, and where their difference starts.

use super::document::{self, this_run};
use super::measure::{MeasureArgs, agreement, fixed_line, text_line};
use super::output::{self, line, table};
use clap::Args;
use msq_onnx::Error;
use msq_onnx::compare::{LayerPair, SideBySide, compare};
use msq_onnx::report::Document;
use msq_onnx::report::numbers::{bytes, count, decibels};
use std::path::PathBuf;

/// Arguments of `compare`.
#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// The reference, usually the float model
    reference: PathBuf,
    /// The other model
    model: PathBuf,
    #[command(flatten)]
    pub(crate) measure: MeasureArgs,
}

/// Compares two models.
pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let (mut reference, mut model) = (msq_onnx::load(&args.reference)?, msq_onnx::load(&args.model)?);
    let fixed_inputs = args.measure.fix(&mut [&mut reference, &mut model])?;
    let data = args.measure.open(&reference, "compare")?;
    let found =
        compare(&reference, &model, &data, &args.measure.options, &args.measure.runtime(&*args.measure.progress()))
            .map_err(Error::from)?;
    let found = SideBySide { fixed_inputs, ..found };
    if args.measure.common.json {
        return output::print(&document::text(&Document::new(this_run(&args.reference, None, None), found))?);
    }
    output::print(&text(&found))
}

fn text(found: &SideBySide) -> String {
    let mut text = String::new();
    let sizes = [&found.reference, &found.model].map(|side| side.bytes);
    let ratio = sizes[0] as f64 / sizes[1].max(1) as f64;
    line(&mut text, "size", &format!("{} → {} ({ratio:.1}×)", bytes(sizes[0]), bytes(sizes[1])));
    line(&mut text, "samples", &found.samples.to_string());
    fixed_line(&mut text, &found.fixed_inputs);
    text_line(&mut text, &found.text_outputs);
    if let (Some(before), Some(after)) = (found.reference.accuracy, found.model.accuracy) {
        line(&mut text, "accuracy", &format!("{:.2} % → {:.2} %", 100.0 * before, 100.0 * after));
    }
    if let (Some(before), Some(after)) = (found.reference.metric, found.model.metric) {
        line(&mut text, "metric", &format!("{before:.4} → {after:.4}"));
    }
    agreement(&mut text, &found.outputs, found.lost);
    if let Some(start) = &found.starts {
        let place = if start.in_weights { "the weights of" } else { "what is read by" };
        let before = start.before.map_or("equal".to_owned(), decibels);
        let said =
            format!("most comes in at {place} `{}`: {before} before, {} behind", start.layer, decibels(start.after));
        line(&mut text, "error", &said);
    }
    let cells = |layer: &LayerPair| {
        let bits = if layer.bits[0] == layer.bits[1] { layer.bits[0].clone() } else { layer.bits.join(" → ") };
        let sqnr = |sqnr: Option<f64>| sqnr.map_or("equal".to_owned(), |sqnr| format!("{sqnr:.1}"));
        let [reads, computes] = [layer.input_sqnr, layer.output_sqnr].map(sqnr);
        vec![layer.name.clone(), layer.op.name().to_owned(), count(layer.weights as u64), bits, reads, computes]
    };
    let rows: Vec<Vec<String>> = found.layers.iter().map(cells).collect();
    text.push('\n');
    text.push_str(&table(&["layer", "op", "weights", "bits", "reads dB", "computes dB"], &rows, &[2, 4, 5]));
    text
}
