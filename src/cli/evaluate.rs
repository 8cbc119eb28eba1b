//! `msq-onnx evaluate`: accuracy, agreement, error of each layer.

use super::CommonArgs;
use super::config::ConfigArgs;
use super::data::DataArgs;
use super::document::{self, this_run};
use super::output::{self, Usage, line, table};
use super::paths;
use super::progress::Bars;
use clap::Args;
use msq_onnx::evaluate::{Evaluation, evaluate};
use msq_onnx::report::Document;
use msq_onnx::{Options, input_specs};
use std::num::NonZero;
use std::path::PathBuf;

/// Arguments of `evaluate`.
#[derive(Args, Debug)]
pub(crate) struct EvaluateArgs {
    /// The model
    model: PathBuf,
    /// The model to compare with, usually the float one
    #[arg(long, value_name = "MODEL")]
    reference: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// Save the model's outputs for all samples, stacked, in an .npz
    #[arg(long, value_name = "PATH")]
    save_outputs: Option<PathBuf>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Evaluates a model.
pub(crate) fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let mut reads = vec![args.model.as_path()];
    reads.extend(args.data.reads().chain(args.config.reads()).chain(args.reference.as_deref()));
    paths::check(&reads, &args.save_outputs.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    let model = msq_onnx::load(&args.model)?;
    let reference = args.reference.as_deref().map(msq_onnx::load).transpose()?;
    let Some(data) = args.data.open(&input_specs(&model))? else {
        return Err(Usage("evaluate needs data: add --calib PATH".to_owned()).into());
    };
    if reference.is_none() && !data.has_labels() && args.save_outputs.is_none() {
        return Err(Usage("the data has no labels: add --labels, or --reference to compare with".to_owned()).into());
    }
    let bars = Bars::new(!args.common.quiet && !args.common.json);
    let threads = args.threads.map_or_else(|| Options::default().threads, NonZero::get);
    let found = evaluate(&model, reference.as_ref(), &data, args.save_outputs.as_deref(), threads, &bars)?;
    if args.common.json {
        return output::print(&document::text(&Document::new(this_run(&args.model, None, None), found))?);
    }
    output::print(&text(&found))
}

fn text(found: &Evaluation) -> String {
    let mut text = String::new();
    line(&mut text, "samples", &found.samples.to_string());
    if let Some(accuracy) = found.accuracy {
        line(&mut text, "accuracy", &format!("{:.2} %", 100.0 * accuracy));
    }
    if let Some(accuracy) = found.reference_accuracy {
        line(&mut text, "reference", &format!("{:.2} %", 100.0 * accuracy));
    }
    if let Some(figures) = found.agreement {
        if let Some(same) = figures.same_argmax {
            line(&mut text, "agreement", &format!("{:.2} %", 100.0 * same));
        }
        if let Some(divergence) = figures.divergence {
            line(&mut text, "KL", &format!("{divergence:.5} nats"));
        }
        line(&mut text, "output", &figures.sqnr.map_or("equal".to_owned(), |s| format!("{s:.1} dB")));
    }
    if !found.values.is_empty() {
        let rows: Vec<Vec<String>> = found
            .values
            .iter()
            .map(|v| vec![v.name.clone(), v.sqnr.map_or("exact".to_owned(), |s| format!("{s:.1}"))])
            .collect();
        text.push('\n');
        text.push_str(&table(&["value", "SQNR dB"], &rows, &[1]));
    }
    text
}
