//! The summary of a quantization run.

use super::output::line;
use super::search;
use msq_onnx::WeightBits;
use msq_onnx::report::numbers::{bytes, count};
use msq_onnx::report::repair::Repair;
use msq_onnx::search::Metrics;
use msq_onnx::report::{Document, Report};
use std::path::Path;

/// What is said of a run.
pub(crate) fn summary(document: &Document<Report>, page: Option<&Path>) -> String {
    let (run, report) = (&document.run, &document.found);
    let mut text = String::new();
    line(&mut text, "model", &model_line(&run.model, report));
    if let Some(bits) = bits_line(report) {
        line(&mut text, "bits", &bits);
    }
    line(&mut text, "calibrate", &format!("{} · {:.1} s", report.data, report.calibrate_seconds));
    if let Some(found) = &report.search {
        search::summary(&mut text, found);
    }
    let ratio = report.float_bytes as f64 / report.bytes.max(1) as f64;
    let sizes = [report.float_bytes, report.bytes].map(bytes);
    line(&mut text, "size", &format!("{} → {} on disk ({ratio:.1}×)", sizes[0], sizes[1]));
    if let Some(quality) = quality_line(report) {
        line(&mut text, "quality", &quality);
    }
    if let Some(repair) = &report.repair {
        line(&mut text, "repair", &repaired(repair));
    }
    if report.synthetic {
        line(&mut text, "", "not verified: synthetic inputs show little of what real ones would (data goes in by --calib)");
    }
    if differs(report) {
        let hint = "some answers differ: `msq-onnx compare IN OUT --calib DATA` shows where the error starts, --skip and \
                    --keep-float leave layers float";
        line(&mut text, "", hint);
    }
    runs_as(&mut text, report);
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

/// What was repaired, and at what cost.
fn repaired(repair: &Repair) -> String {
    let lost = |metrics: &Metrics| metrics.distance;
    let share = |share: f64| format!("{:.1} %", 100.0 * share);
    let mut done = Vec::new();
    if repair.ranges > 0 {
        done.push(format!("other ranges for {} values", repair.ranges));
    }
    let layers = repair.float_layers.len();
    if layers > 0 {
        done.push(format!("{layers} layers in float"));
    }
    if !repair.float_operators.is_empty() {
        done.push(format!("{} in float", repair.float_operators.join(", ")));
    }
    let cost = if repair.float_work > 0.0 {
        format!(", {} of the work", share(repair.float_work))
    } else {
        String::new()
    };
    let done = if done.is_empty() { "nothing that was tried helps".to_owned() } else { done.join(", ") + &cost };
    let moved = format!("distance {:.4} → {:.4}", lost(&repair.before), lost(&repair.after));
    let reached = if repair.reached { String::new() } else { format!("; more than {} is still lost", share(repair.allowed)) };
    format!("{done}: {moved} on {} samples, {} trials{reached}", repair.samples, repair.trials.len())
}

/// Bits of weights and activations, where they are not all 8.
fn bits_line(report: &Report) -> Option<String> {
    let plain = report.layers.iter().all(|l| l.weight_bits == Some(WeightBits::Bits(8)));
    let (average, activations) = (report.bits_on_disk(), report.activations());
    let said = format!("weights {average:.2} on disk on average, activations {activations}");
    (!plain || activations != "8").then_some(said)
}

fn quality_line(report: &Report) -> Option<String> {
    let quality = report.quality?;
    let figures = quality.agreement;
    let on = if quality.held_out {
        format!("on {} samples not calibrated on", quality.samples)
    } else {
        format!("on {} of the samples", quality.samples)
    };
    let accuracy = quality.accuracy.zip(quality.float_accuracy);
    let parts = [
        accuracy.map(|(own, float)| format!("accuracy {:.2} % (float {:.2})", 100.0 * own, 100.0 * float)),
        figures.same_argmax.map(|a| format!("agreement with float {:.1} %", 100.0 * a)),
        figures.divergence.map(|d| format!("KL {d:.4}")),
        figures.sqnr.map(|s| format!("output {s:.1} dB")),
    ];
    Some(format!("{} {on}", parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")))
}

/// Whether more than one answer in a hundred is another one on real data.
fn differs(report: &Report) -> bool {
    let same = report.quality.and_then(|quality| quality.agreement.same_argmax);
    !report.synthetic && same.is_some_and(|same| same < 0.99)
}

fn model_line(model: &str, report: &Report) -> String {
    let layers = report.layer_count();
    let weights: usize = report.layers.iter().chain(&report.float_layers).map(|l| l.weights).sum();
    let macs: Option<u64> = report.layers.iter().chain(&report.float_layers).map(|l| l.macs).sum();
    let macs = macs.map_or_else(String::new, |macs| format!(" · {} MACs", count(macs)));
    format!("{model} · opset {} · {layers} layers · {} weights{macs}", report.opset, count(weights as u64))
}

fn runs_as(text: &mut String, report: &Report) {
    let (int8, all) = (report.on_integers(), report.layer_count());
    let stored = report.layers.len() - int8;
    let stored = if stored > 0 { format!(", {stored} float with integer weights") } else { String::new() };
    if int8 == 0 && report.layers.len() == all {
        // As asked for: what else stays float is everything.
        line(text, "runs as", &format!("float, {all} of {all} layers with integer weights"));
        return;
    }
    let rest = if report.kept.is_empty() { "nothing stays float".to_owned() } else { "stays float:".to_owned() };
    line(text, "runs as", &format!("{int8} of {all} layers int8{stored}; {rest}"));
    for kept in report.kept.iter().take(8) {
        line(text, "", &format!("{} `{}`: {}", kept.op, kept.node, kept.reason));
    }
    if report.kept.len() > 8 {
        line(text, "", &format!("and {} more (--json lists all)", report.kept.len() - 8));
    }
}
