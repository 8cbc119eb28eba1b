//! `msq-onnx export-encodings`: the parameters of a quantized model, for other tools.

use super::CommonArgs;
use super::document;
use super::keys::as_flags;
use super::output::{self, line};
use super::paths;
use clap::Args;
use msq_onnx::exchange::{EncodingsFormat, LeftOut, read};
use msq_onnx::report::numbers::counted;
use std::path::PathBuf;

/// Tensors that the summary names.
const NAMED: usize = 8;

/// Arguments of `export-encodings`.
#[derive(Args, Debug)]
pub(crate) struct ExportEncodingsArgs {
    /// The quantized model, of this tool or another: float operators between quantizers, names kept
    model: PathBuf,
    /// Where the encodings go; replaced in one step
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// The format: aimet-0.6.1, aimet-1.0, aimet-2, ort or tensorrt
    #[arg(long, value_name = "NAME")]
    format: EncodingsFormat,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Report {
    format: String,
    activations: usize,
    parameters: usize,
    left_out: Vec<LeftOut>,
}

/// Writes the encodings of a model.
pub(crate) fn run(args: &ExportEncodingsArgs) -> anyhow::Result<()> {
    let model = msq_onnx::load(&args.model)?;
    paths::check(&model, [args.model.as_path()], [args.output.as_path()])?;
    let (encodings, left_out) = read(&model)?;
    encodings.save(&args.output, args.format)?;
    let parameters = encodings.parameters.len();
    let activations = encodings.tensors.len() - parameters;
    let report = Report { format: args.format.to_string(), activations, parameters, left_out };
    if args.common.json {
        return output::print(&document::text(&report)?);
    }
    if args.common.quiet {
        return Ok(());
    }
    output::print(&as_flags(&text(args, &report)))
}

fn text(args: &ExportEncodingsArgs, report: &Report) -> String {
    let mut text = String::new();
    let held = match args.format {
        EncodingsFormat::TensorRt => counted(report.activations, "activation"),
        _ => {
            format!("{}, {}", counted(report.activations, "activation"), counted(report.parameters, "parameter"))
        }
    };
    line(&mut text, "encodings", &held);
    for (at, left) in report.left_out.iter().take(NAMED).enumerate() {
        line(&mut text, if at == 0 { "left out" } else { "" }, &format!("`{}`: {}", left.tensor, left.reason));
    }
    if report.left_out.len() > NAMED {
        line(&mut text, "", &format!("and {} more (--json lists all)", report.left_out.len() - NAMED));
    }
    line(&mut text, "wrote", &args.output.display().to_string());
    text
}
