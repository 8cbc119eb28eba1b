//! `msq-onnx evaluate`: accuracy, agreement, error of each layer.

use super::document::{self, this_run};
use super::measure::{MeasureArgs, agreement, fixed_line, text_line};
use super::output::{self, Usage, line, table};
use super::paths;
use clap::Args;
use msq_onnx::Error;
use msq_onnx::evaluate::{Evaluation, evaluate};
use msq_onnx::report::Document;
use std::path::PathBuf;

/// Arguments of `evaluate`.
#[derive(Args, Debug)]
pub(crate) struct EvaluateArgs {
    /// The model
    model: PathBuf,
    /// The model to compare with, usually the float one
    #[arg(long, value_name = "MODEL")]
    reference: Option<PathBuf>,
    /// Save the model's outputs for all samples, stacked, in an .npz
    #[arg(long, value_name = "PATH")]
    save_outputs: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) measure: MeasureArgs,
}

/// Evaluates a model.
pub(crate) fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let mut model = msq_onnx::load(&args.model)?;
    let reads = args.measure.reads().chain([args.model.as_path()]).chain(args.reference.as_deref());
    paths::check(&model, reads, args.save_outputs.as_deref())?;
    let mut reference = args.reference.as_deref().map(msq_onnx::load).transpose()?;
    let fixed_inputs = args.measure.fix(&mut std::iter::once(&mut model).chain(&mut reference).collect::<Vec<_>>())?;
    let data = args.measure.open(&model, "evaluate")?;
    if reference.is_none()
        && !data.has_labels()
        && args.save_outputs.is_none()
        && args.measure.options.metric_command.is_none()
    {
        return Err(Usage("the data has no labels: add --labels, or --reference to compare with".to_owned()).into());
    }
    let (save, progress) = (args.save_outputs.as_deref(), args.measure.progress());
    let found =
        evaluate(&model, reference.as_ref(), &data, &args.measure.options, save, &args.measure.runtime(&*progress))
            .map_err(Error::from)?;
    let found = Evaluation { fixed_inputs, ..found };
    if args.measure.common.json {
        return output::print(&document::text(&Document::new(this_run(&args.model, None, None), found))?);
    }
    output::print(&text(&found))
}

fn text(found: &Evaluation) -> String {
    let mut text = String::new();
    line(&mut text, "samples", &found.samples.to_string());
    fixed_line(&mut text, &found.fixed_inputs);
    text_line(&mut text, &found.text_outputs);
    if let Some(accuracy) = found.accuracy {
        line(&mut text, "accuracy", &format!("{:.2} %", 100.0 * accuracy));
    }
    if let Some(accuracy) = found.reference_accuracy {
        line(&mut text, "reference", &format!("{:.2} %", 100.0 * accuracy));
    }
    for (heading, metric) in [("metric", found.metric), ("reference", found.reference_metric)] {
        if let Some(metric) = metric {
            line(&mut text, heading, &format!("{metric:.4}"));
        }
    }
    if let Some(lost) = found.lost {
        agreement(&mut text, &found.outputs, lost);
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
