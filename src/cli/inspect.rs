//! `msq-onnx inspect`: layers and what can be done with them.

use super::CommonArgs;
use super::document::{self, this_run};
use super::output::{self, table};
use clap::Args;
use msq_onnx::inspect::{Inspection, inspect};
use msq_onnx::report::Document;
use msq_onnx::report::numbers::{bytes, count};
use std::path::PathBuf;

/// Arguments of `inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The model
    model: PathBuf,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Shows a model's layers.
pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let model = msq_onnx::load(&args.model)?;
    let found = inspect(model)?;
    if args.common.json {
        return output::print(&document::text(&Document::new(this_run(&args.model, None, None), found))?);
    }
    output::print(&text(&found))
}

fn text(found: &Inspection) -> String {
    let mut text = format!(
        "{} · IR {} · opset {} · {} nodes · {}\n",
        found.producer,
        found.ir_version,
        found.opset,
        found.nodes,
        bytes(found.bytes)
    );
    for (kind, values) in [("input", &found.inputs), ("output", &found.outputs)] {
        for value in values {
            text.extend([kind, " `", &value.name, "` ", &value.ty, "\n"]);
        }
    }
    let rows: Vec<Vec<String>> = found
        .layers
        .iter()
        .map(|l| {
            let shape: Vec<String> = l.shape.iter().map(ToString::to_string).collect();
            vec![
                l.name.clone(),
                l.op.name().to_owned(),
                shape.join("×"),
                count(l.weights as u64),
                l.macs.map_or_else(|| "?".to_owned(), count),
                l.bits.clone(),
                l.reason.clone().unwrap_or_else(|| "int8".to_owned()),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(&["layer", "op", "weight", "weights", "MACs", "bits", "runs as"], &rows, &[3, 4]));
    if !found.kept.is_empty() {
        text.push_str("\nstays float\n");
        for kept in &found.kept {
            text.extend(["  ", &kept.op, " `", &kept.node, "`: ", &kept.reason, "\n"]);
        }
    }
    text
}
