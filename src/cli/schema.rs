//! `msq-onnx schema`: the schemas of JSON documents.

use super::document::text;
use super::lint::Linted;
use super::output;
use clap::{Args, ValueEnum};
use msq_onnx::compare::SideBySide;
use msq_onnx::evaluate::Evaluation;
use msq_onnx::inspect::Inspection;
use msq_onnx::report::{Document, Report};
use msq_onnx::search::Outcome;

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
