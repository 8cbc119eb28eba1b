//! `msq-onnx inspect`: layers and what can be done with them.

use super::CommonArgs;
use super::document::{self, this_run};
use super::output::{self, table};
use clap::Args;
use msq_onnx::BitPlan;
use msq_onnx::inspect::{Inspection, inspect};
use msq_onnx::report::Document;
use msq_onnx::report::numbers::{bytes, count, counted};
use msq_onnx::{Error, FixedInput, fix_alike};
use std::path::PathBuf;

/// Arguments of `inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The model
    model: PathBuf,
    /// Make a constant of an input first, with one value for all its elements or one for each, separated by commas; may be
    /// given again
    #[arg(long, value_name = "NAME=VALUE")]
    fix_input: Vec<FixedInput>,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Shows a model's layers.
pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let mut model = msq_onnx::load(&args.model)?;
    fix_alike(&mut [&mut model], &args.fix_input).map_err(Error::from)?;
    let found = inspect(model).map_err(Error::from)?;
    if args.common.json {
        return output::print(&document::text(&Document::new(this_run(&args.model, None, None), found))?);
    }
    output::print(&text(&found))
}

fn text(found: &Inspection) -> String {
    let mut text = format!(
        "{} · IR {} · opset {} · {} · {}\n",
        format!("{} {}", found.producer, found.producer_version).trim(),
        found.ir_version,
        found.opset,
        counted(found.nodes, "node"),
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
                l.activation_bits.map_or_else(|| "float".to_owned(), |bits| bits.to_string()),
                l.reason.clone().unwrap_or_else(|| "int8".to_owned()),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(&["layer", "op", "weight", "weights", "MACs", "bits", "reads", "runs as"], &rows, &[3, 4]));
    if let Some(plan) = &found.plan {
        plan_lines(&mut text, found, plan);
    }
    if !found.kept.is_empty() {
        text.push_str("\nstays float\n");
        for kept in &found.kept {
            text.extend(["  ", &kept.op, " `", &kept.node, "`: ", &kept.reason, "\n"]);
        }
    }
    text
}

/// The plan, where names in the file do not show which layer got what.
fn plan_lines(text: &mut String, found: &Inspection, plan: &BitPlan) {
    let shown = |name: &String| found.layers.iter().any(|layer| layer.name == *name);
    if plan.layers.keys().all(shown) {
        return;
    }
    text.push_str("\nplan, by names of the float model\n");
    let named = plan.layers.iter().map(|(name, layer)| (format!("`{name}`"), layer));
    for (name, layer) in named.chain(plan.default.iter().map(|layer| ("others".to_owned(), layer))) {
        let (weights, activations) = (layer.weights.to_string(), layer.activations.to_string());
        text.extend(["  ", &name, ": weights ", &weights, ", activations ", &activations, "\n"]);
    }
}
