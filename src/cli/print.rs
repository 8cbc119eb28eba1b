//! `msq-onnx print`: the model as text.

use super::output;
use clap::Args;
use msq_passes::ir;
use std::path::PathBuf;

/// Arguments of `print`.
#[derive(Args, Debug)]
pub(crate) struct PrintArgs {
    /// The model
    model: PathBuf,
    /// Print the graph in Graphviz' DOT language instead
    #[arg(long)]
    dot: bool,
}

/// Prints the model in the ONNX textual syntax.
pub(crate) fn run(args: &PrintArgs) -> anyhow::Result<()> {
    let model = msq_onnx::load(&args.model)?;
    if args.dot {
        return output::print(&msq_passes::analysis::dot(&model.graph));
    }
    output::print(&ir::text::print(&ir::export(&model)))
}
