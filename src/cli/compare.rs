//! `msq-onnx compare`: two models side by side, and where their difference starts.

use super::CommonArgs;
use super::config::ConfigArgs;
use super::data::DataArgs;
use super::document::{self, this_run};
use super::output::{self, Usage, line, table};
use super::progress::Bars;
use clap::Args;
use msq_onnx::compare::{SideBySide, compare};
use msq_onnx::report::Document;
use msq_onnx::report::numbers::{bytes, count};
use msq_onnx::{Options, input_specs};
use std::num::NonZero;
use std::path::PathBuf;

/// Arguments of `compare`.
#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// The reference, usually the float model
    reference: PathBuf,
    /// The other model
    model: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Compares two models.
pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let (reference, model) = (msq_onnx::load(&args.reference)?, msq_onnx::load(&args.model)?);
    let Some(data) = args.data.open(&input_specs(&reference))? else {
        return Err(Usage("compare needs data: add --calib PATH".to_owned()).into());
    };
    let bars = Bars::new(!args.common.quiet && !args.common.json);
    let threads = args.threads.map_or_else(|| Options::default().threads, NonZero::get);
    let found = compare(&reference, &model, &data, threads, &bars)?;
    if args.common.json {
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
    if let (Some(before), Some(after)) = (found.reference.accuracy, found.model.accuracy) {
        line(&mut text, "accuracy", &format!("{:.2} % → {:.2} %", 100.0 * before, 100.0 * after));
    }
    if let Some(same) = found.agreement.same_argmax {
        line(&mut text, "agreement", &format!("{:.2} %", 100.0 * same));
    }
    if let Some(divergence) = found.agreement.divergence {
        line(&mut text, "KL", &format!("{divergence:.5} nats"));
    }
    line(&mut text, "output", &decibels(found.agreement.sqnr, " dB"));
    if let Some(start) = &found.starts {
        let place = if start.in_weights { "the weights of" } else { "what is read by" };
        let (before, after) = (decibels(start.before, " dB"), start.after);
        line(
            &mut text,
            "error",
            &format!("most comes in at {place} `{}`: {before} before, {after:.1} dB behind", start.layer),
        );
    }
    let cells = |layer: &msq_onnx::compare::LayerPair| {
        let bits = if layer.bits[0] == layer.bits[1] { layer.bits[0].clone() } else { layer.bits.join(" → ") };
        let sqnr = [layer.input_sqnr, layer.output_sqnr].map(|sqnr| decibels(sqnr, ""));
        let [reads, computes] = sqnr;
        vec![layer.name.clone(), layer.op.name().to_owned(), count(layer.weights as u64), bits, reads, computes]
    };
    let rows: Vec<Vec<String>> = found.layers.iter().map(cells).collect();
    text.push('\n');
    text.push_str(&table(&["layer", "op", "weights", "bits", "reads dB", "computes dB"], &rows, &[2, 4, 5]));
    text
}

fn decibels(sqnr: Option<f64>, unit: &str) -> String {
    sqnr.map_or_else(|| "equal".to_owned(), |sqnr| format!("{sqnr:.1}{unit}"))
}
