//! JSON documents and their schemas.

use super::keys::as_flags;
use super::lint::Linted;
use super::output;
use clap::{Args, ValueEnum};
use msq_onnx::compare::SideBySide;
use msq_onnx::evaluate::Evaluation;
use msq_onnx::inspect::Inspection;
use msq_onnx::report::{Document, Report, Run};
use msq_onnx::search::Outcome;
use serde::Serialize;
use std::path::Path;

/// This run.
pub(crate) fn this_run(model: &Path, output: Option<&Path>, seed: Option<u64>) -> Run {
    Run {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        arguments: std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect(),
        model: model.display().to_string(),
        output: output.map(|path| path.display().to_string()),
        seed,
    }
}

/// The text of a document.
pub(crate) fn text<T: Serialize>(document: &T) -> anyhow::Result<String> {
    Ok(format!("{}\n", as_flags(&serde_json::to_string_pretty(document)?)))
}

/// Arguments of `schema`.
#[derive(Args, Debug)]
pub(crate) struct SchemaArgs {
    /// The command whose document is meant
    #[arg(value_enum, default_value = "quantize")]
    command: Documented,
}

/// The commands that take `--json`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Documented {
    Quantize,
    Search,
    Inspect,
    Evaluate,
    Compare,
    Lint,
}

/// Prints the schema of a document.
pub(crate) fn run(args: &SchemaArgs) -> anyhow::Result<()> {
    let schema = match args.command {
        Documented::Quantize => Document::<Report>::schema("msq-onnx --json"),
        Documented::Search => Document::<Outcome>::schema("msq-onnx search --json"),
        Documented::Inspect => Document::<Inspection>::schema("msq-onnx inspect --json"),
        Documented::Evaluate => Document::<Evaluation>::schema("msq-onnx evaluate --json"),
        Documented::Compare => Document::<SideBySide>::schema("msq-onnx compare --json"),
        Documented::Lint => Document::<Linted>::schema("msq-onnx lint --json"),
    };
    output::print(&text(&schema)?)
}
