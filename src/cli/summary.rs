//! The summary of a quantization run.

use super::measure::output_lines;
use super::output::line;
use super::search;
use msq_onnx::metrics::OutputMetrics;
use msq_onnx::report::numbers::{self, bytes, count, counted, grouped, short};
use msq_onnx::report::outputs::words;
use msq_onnx::report::{Document, FloatGroup, HalfReport, LearningReport, Quality, Report};
use msq_onnx::{Float16, WeightBits};
use msq_passes::analysis::StoredKind;
use std::path::Path;

/// Lines about what stays float, and operators named in one.
const GROUPS: usize = 8;
const OPERATORS: usize = 6;

/// What is said of a run.
pub(crate) fn summary(document: &Document<Report>, page: Option<&Path>) -> String {
    let (run, report) = (&document.run, &document.found);
    let mut text = String::new();
    line(&mut text, "model", &model_line(&run.model, report));
    if let Some(bits) = bits_line(report) {
        line(&mut text, "bits", &bits);
    }
    let prepared = report.preprocessing.as_ref().map_or_else(String::new, |how| format!(" · {how}"));
    line(&mut text, "calibrate", &format!("{}{prepared} · {:.1} s", report.data, report.calibrate_seconds));
    if let Some(found) = &report.search {
        search::summary(&mut text, found);
    }
    let ratio = report.float_bytes as f64 / report.bytes.max(1) as f64;
    let sizes = [report.float_bytes, report.bytes].map(bytes);
    line(&mut text, "size", &format!("{} → {} on disk ({ratio:.1}×)", sizes[0], sizes[1]));
    if let Some(learning) = report.learning.as_ref().filter(|learning| learning.processes > 1) {
        line(&mut text, "learning", &learned(learning));
    }
    if let Some(quality) = &report.quality {
        quality_lines(&mut text, quality, (report.synthetic, report.is_chosen()));
    }
    if let Some(repair) = &report.repair {
        line(&mut text, "repair", &repair.words(report));
    }
    runs_as(&mut text, report);
    stores(&mut text, report);
    if let Some(halves) = &report.float16 {
        let brains = report.options.output.float16 == Some(Float16::Bfloat16);
        float16(&mut text, if brains { "bfloat16" } else { "float16" }, halves);
    }
    for (i, note) in report.notes.iter().enumerate() {
        line(&mut text, if i == 0 { "note" } else { "" }, note);
    }
    let mut written = run.output.clone().unwrap_or_default();
    if let Some(page) = page {
        written.extend([", ", &page.display().to_string()]);
    }
    line(&mut text, "wrote", &format!("{written} · {:.1} s", report.seconds));
    text
}

/// What processes that learn together have exchanged.
fn learned(learning: &LearningReport) -> String {
    let [sent, float] = [learning.exchanged_bytes, learning.float_bytes].map(bytes);
    let code = learning.gradient_code;
    let rest =
        if learning.exchanged_bytes == learning.float_bytes { String::new() } else { format!(" of {float} as floats") };
    format!("{} processes · gradients as {code} · {sent} exchanged{rest}", learning.processes)
}

/// Bits of weights and activations, where they are not all 8. The average is over weights beside the layers as well.
fn bits_line(report: &Report) -> Option<String> {
    let beside = report.stored.iter().filter_map(|weight| weight.weight_bits);
    let mut bits = report.layers.iter().filter_map(|layer| layer.weight_bits).chain(beside);
    let plain = bits.all(|bits| bits == WeightBits::whole(8));
    let (average, activations) = (report.bits_on_disk(), report.activations());
    let said = format!("weights {average:.2} on disk on average, activations {activations}");
    (!report.layers.is_empty() && (!plain || activations != "8")).then_some(said)
}

fn quality_lines(text: &mut String, quality: &Quality, (synthetic, chosen): (bool, bool)) {
    let noun = if synthetic { "made-up sample" } else { "sample" };
    let on = if quality.chosen_by {
        format!("on {} that the plan was chosen by", counted(quality.samples, noun))
    } else if quality.cross_validated && !chosen {
        format!("on {}", counted(quality.samples, noun))
    } else if quality.held_out && chosen {
        format!("on {} that nothing was chosen by", counted(quality.samples, noun))
    } else if quality.held_out {
        format!("on {} not calibrated on", counted(quality.samples, noun))
    } else if synthetic {
        format!("on {}", counted(quality.samples, noun))
    } else {
        format!("on {}", counted(quality.samples, "calibration sample"))
    };
    let on = if quality.cross_validated { format!("{on}, each with ranges from others") } else { on };
    let accuracy = quality.accuracy.zip(quality.float_accuracy);
    let accuracy = accuracy.map(|(own, float)| format!("accuracy {:.2} % (float {:.2})", 100.0 * own, 100.0 * float));
    let one = match &quality.outputs[..] {
        [one] => Some(words(one)),
        [] => None,
        several => Some(format!("{} outputs, the worst loses {}", several.len(), numbers::loss(worst(several), 2))),
    };
    let metric = quality.metric.zip(quality.float_metric);
    let metric = metric.map(|(own, float)| format!("metric {own:.4} (float {float:.4})"));
    line(text, "quality", &[metric, accuracy, one, Some(on)].into_iter().flatten().collect::<Vec<_>>().join(" · "));
    output_lines(text, &quality.outputs);
    if let Some(most) = quality.lost_at_most.filter(|_| chosen && !synthetic) {
        line(text, "", &lost_line(quality.lost, most, quality.chosen_by));
    }
    if synthetic {
        line(text, "", "made-up samples say little: real ones (--calib) may fare better or worse");
        return;
    }
    for warning in &quality.warnings {
        line(text, "warning", warning);
    }
    if !quality.warnings.is_empty() && quality.outputs.iter().any(|output| output.compared) {
        let hint = "`msq-onnx compare IN OUT --calib DATA` shows where the error starts, --skip and --keep-float leave \
                    layers float";
        line(text, "", hint);
    }
}

/// What is lost on these samples, and at most on others.
fn lost_line(lost: f64, most: f64, chosen_by: bool) -> String {
    let others = match numbers::loss(most, 2) {
        _ if most >= 1.0 => "these samples cannot tell how much others lose".to_owned(),
        most if chosen_by => format!("on others more, perhaps over {most}"),
        most => format!("on others with 95 % confidence no more than {most}"),
    };
    format!("loses {} as --max-drop counts it; {others}", numbers::loss(lost, 2))
}

fn worst(outputs: &[OutputMetrics]) -> f64 {
    outputs.iter().map(|output| output.lost).fold(0.0, f64::max)
}

fn model_line(model: &str, report: &Report) -> String {
    let layers = report.layer_count();
    let weights: usize = report.layers.iter().chain(&report.float_layers).map(|l| l.weights).sum();
    let macs: Option<u64> = report.layers.iter().chain(&report.float_layers).map(|l| l.macs).sum();
    let macs = macs.map_or_else(String::new, |macs| format!(" · {} MACs", count(macs)));
    let layers = counted(layers, "layer");
    format!("{model} · opset {} · {layers} · {} weights{macs}", report.opset, count(weights as u64))
}

/// Weights beside the layers: how many of each kind are integers, of how many bits, and which large ones are not.
fn stores(text: &mut String, report: &Report) {
    let named = |kind, one: &str, many: &str| {
        let of_kind = || report.stored.iter().filter(move |weight| weight.kind == kind && weight.weight_bits.is_some());
        let (number, weights) = (of_kind().count(), of_kind().map(|weight| weight.weights).sum::<usize>());
        let mut bits: Vec<String> = of_kind().filter_map(|w| w.weight_bits).map(|bits| bits.to_string()).collect();
        bits.sort_unstable();
        bits.dedup();
        let bits = bits.join(" and ").replace('8', "int8");
        let what = if number == 1 { one } else { many };
        let bits = match &*bits {
            "int8" => bits,
            "ternary" | "binary" => format!("{bits} integers"),
            _ => format!("integers of {} bits", bits.replace("int8", "8")),
        };
        (number > 0).then(|| format!("{number} {what} ({} weights) as {bits}", count(weights as u64)))
    };
    let kinds = [
        named(StoredKind::Embedding, "embedding table", "embedding tables"),
        named(StoredKind::Recurrent, "recurrent weight", "recurrent weights"),
        named(StoredKind::Branch, "weight of a branch or loop", "weights of branches and loops"),
        named(StoredKind::Operator, "weight of another operator", "weights of other operators"),
    ];
    let kinds: Vec<String> = kinds.into_iter().flatten().collect();
    // Of smaller ones nobody asks.
    let float: Vec<_> = report.stored.iter().filter(|w| w.weight_bits.is_none() && w.weights >= 1024).collect();
    if !kinds.is_empty() {
        line(text, "stores", &kinds.join(", "));
    }
    for (at, weight) in float.iter().take(4).enumerate() {
        let reason = weight.reason.as_deref().unwrap_or_default();
        let head = if at == 0 && kinds.is_empty() { "stores" } else { "" };
        line(text, head, &format!("in float: {} `{}`: {reason}", weight.op, short(&weight.name)));
    }
}

/// What became float16 or bfloat16, and what did not.
fn float16(text: &mut String, head: &str, halves: &HalfReport) {
    let HalfReport { nodes, constants, bytes: size, left } = halves;
    let nodes = match nodes {
        0 => String::new(),
        1 => "1 node computes in it, ".to_owned(),
        _ => format!("{nodes} nodes compute in it, "),
    };
    let constants = counted(*constants, "constant");
    let rest = if left.is_empty() { "" } else { "; stays float:" };
    line(text, head, &format!("{nodes}{constants} of {}{rest}", bytes(*size as u64)));
    for left in left.iter().take(8) {
        line(text, "", &format!("`{}`: {}", short(&left.name), left.reason));
    }
    if left.len() > 8 {
        line(text, "", &format!("and {} more (--json lists all)", left.len() - 8));
    }
}

fn runs_as(text: &mut String, report: &Report) {
    let (int8, all) = (report.on_integers(), report.layer_count());
    if all == 0 {
        let inside = report.stored.iter().any(|weight| weight.kind == StoredKind::Branch);
        let where_else =
            if inside { "all layers are in branches and loops" } else { "no layer multiplies by a constant" };
        line(text, "runs as", &format!("float: {where_else}"));
        return;
    }
    if report.float16.is_some() && report.layers.is_empty() {
        line(text, "runs as", "float: no layer has integer weights");
        return;
    }
    let stored = report.layers.len() - int8;
    let stored = if stored > 0 { format!(", {stored} float with integer weights") } else { String::new() };
    if int8 == 0 && report.layers.len() == all && report.asks_for_floats() {
        // As asked for: what else stays float is everything.
        line(text, "runs as", &format!("float, {all} of {} with integer weights", counted(all, "layer")));
        return;
    }
    let words = report.integer_words();
    let rest = if report.kept.is_empty() { "nothing stays float".to_owned() } else { "stays float:".to_owned() };
    line(text, "runs as", &format!("{int8} of {} {words}{stored}; {rest}", counted(all, "layer")));
    let groups = report.float_groups();
    for group in groups.iter().take(GROUPS) {
        line(text, "", &float_group(group));
    }
    if groups.len() > GROUPS {
        let rest: usize = groups[GROUPS..].iter().map(|group| group.nodes.len()).sum();
        line(text, "", &format!("and {} more (--json lists all)", grouped(rest as u64)));
    }
}

/// A line for nodes that stay float for the same reason; of one node all is said.
fn float_group(group: &FloatGroup) -> String {
    match &group.nodes[..] {
        [one] => format!("{} `{}`: {}", one.op, short(&one.node), one.reason),
        _ if group.follows => format!("{}: {}", group.operators(OPERATORS), group.reason),
        _ => format!("{}: {} ({})", group.operators(OPERATORS), group.reason, group.names()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_excludes_nothing_is_not_stated() {
        assert!(lost_line(0.01, 0.05, false).ends_with("; on others with 95 % confidence no more than 5.00 %"));
        assert!(lost_line(0.01, 0.05, true).ends_with("; on others more, perhaps over 5.00 %"));
        for (most, chosen_by) in [(1.0, false), (7.5, false), (7.5, true)] {
            let said = lost_line(0.4, most, chosen_by);
            assert!(
                said.contains("40.00 %") && said.ends_with("; these samples cannot tell how much others lose"),
                "{said}"
            );
        }
    }
}
