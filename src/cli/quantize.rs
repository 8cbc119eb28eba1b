//! The main command: quantize a model.

use super::CommonArgs;
use super::config::ConfigArgs;
use super::data::{self, DataArgs};
use super::form::FormArgs;
use super::interrupt;
use super::output::{self, Usage, bytes, count, line};
use super::progress::Bars;
use super::run::RunArgs;
use super::search::{self, SearchArgs};
use clap::Args;
use msq_onnx::report::Report;
use msq_onnx::search::SearchOptions;
use msq_onnx::{Error, Options, Quantized, Quantizer, WeightBits};
use msq_passes::ir::check_writable;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of the main command.
#[derive(Args, Debug)]
pub(crate) struct QuantizeArgs {
    /// The float model
    #[arg(required_unless_present = "input")]
    model: Option<PathBuf>,
    /// The float model, as a flag
    #[arg(short = 'i', long, value_name = "MODEL", conflicts_with = "model")]
    input: Option<PathBuf>,
    /// Where the quantized model goes; replaced in one step when it is complete
    #[arg(short, long, value_name = "MODEL", required = true)]
    output: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    form: FormArgs,
    /// Shorten inner names and drop node names, documentation and attributes that say nothing; where weights are packed
    /// this is so anyway
    #[arg(long, help_heading = "Output", conflicts_with = "keep_names")]
    strip_names: bool,
    /// Keep names where weights are packed
    #[arg(long, help_heading = "Output")]
    keep_names: bool,
    #[command(flatten)]
    run: RunArgs,
    /// Compare this many samples with the float model afterwards; 0 for none
    #[arg(long, value_name = "N", default_value_t = 16, help_heading = "Run")]
    verify: usize,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Quantizes a model and writes it.
pub(crate) fn run(args: &QuantizeArgs) -> anyhow::Result<ExitCode> {
    let (input, output) = (input(args)?, output_path(args)?);
    refuse_overwrite(input, output)?;
    let options = options(args)?;
    let search = args.search.options(&args.form, None)?;
    let model = msq_onnx::load(input)?;
    // Now rather than after the work.
    check_writable(output).map_err(Error::from)?;
    if let Some(path) = &args.form.save_plan {
        check_writable(path).map_err(Error::from)?;
    }
    let bars = Bars::new(!args.common.quiet && !args.common.json);
    let cancellation = interrupt::cancellation()?;
    let quantizer = Quantizer::new(model).options(options).progress(&bars).cancellation(&cancellation);
    let samples = if search.is_some() { search::SAMPLES } else { data::SAMPLES };
    let mut quantizer = args.data.applied(quantizer, samples, args.run.seed)?;
    if let Some(search) = search {
        let (journal, best) = (Some(search::journal(output)), Some(search::best(output)));
        let search = SearchOptions { journal, best, ..search };
        quantizer = args.search.applied(quantizer, &args.data)?.search_options(search);
    }
    let quantized = quantizer.run().map_err(|error| search::stopped(error, &search::journal(output)))?;
    if quantized.report.synthetic && !args.common.quiet {
        tracing::warn!("no calibration data: activation ranges come from made-up inputs; give real ones with --calib");
    }
    let written = quantized.save(output)?;
    if let Some(path) = &args.form.save_plan {
        quantized.report.plan.save(path)?;
    }
    for path in [search::journal(output), search::best(output)] {
        if quantized.report.search.is_some() {
            // The model is there: what a search could go on from is not needed any more.
            let _ = std::fs::remove_file(path);
        }
    }
    show(args, input, output, &quantized, written)?;
    Ok(quantized.report.search.as_ref().map_or(ExitCode::SUCCESS, search::exit_code))
}

fn input(args: &QuantizeArgs) -> anyhow::Result<&Path> {
    let path = args.model.as_deref().or(args.input.as_deref());
    path.ok_or_else(|| Usage("no model is named".to_owned()).into())
}

fn output_path(args: &QuantizeArgs) -> anyhow::Result<&Path> {
    args.output.as_deref().ok_or_else(|| Usage("no output is named: add -o out.onnx".to_owned()).into())
}

fn refuse_overwrite(input: &Path, output: &Path) -> Result<(), Error> {
    let same = |a: &Path, b: &Path| a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b);
    if same(input, output) {
        return Err(Error::OverwritesInput { path: output.to_owned() });
    }
    Ok(())
}

fn options(args: &QuantizeArgs) -> Result<Options, Error> {
    Ok(Options {
        verify: args.verify,
        strip_names: (args.strip_names || args.keep_names).then_some(args.strip_names),
        ..args.run.applied(args.form.options()?)
    })
}

fn show(args: &QuantizeArgs, input: &Path, output: &Path, quantized: &Quantized, written: u64) -> anyhow::Result<()> {
    let report = &quantized.report;
    if args.common.json {
        return output::print(&format!("{}\n", serde_json::to_string_pretty(report)?));
    }
    if args.common.quiet {
        return Ok(());
    }
    let mut text = String::new();
    line(&mut text, "model", &model_line(input, report));
    if let Some(bits) = bits_line(report) {
        line(&mut text, "bits", &bits);
    }
    line(&mut text, "calibrate", &format!("{} · {:.1} s", report.data, report.calibrate_seconds));
    if let Some(found) = &report.search {
        search::summary(&mut text, found);
    }
    let float = std::fs::metadata(input).map_or(report.float_bytes, |m| m.len());
    let ratio = float as f64 / written.max(1) as f64;
    line(&mut text, "size", &format!("{} → {} on disk ({ratio:.1}×)", bytes(float), bytes(written)));
    if let Some(quality) = quality_line(report) {
        line(&mut text, "quality", &quality);
    }
    if differs(report) {
        line(&mut text, "", "some answers differ: `msq-onnx evaluate OUT --reference IN` shows where the error");
        line(&mut text, "", "starts, --skip and --keep-float leave layers float");
    }
    runs_as(&mut text, report);
    for (i, note) in report.notes.iter().enumerate() {
        line(&mut text, if i == 0 { "note" } else { "" }, note);
    }
    line(&mut text, "wrote", &format!("{} · {:.1} s", output.display(), report.seconds));
    output::print(&text)
}

/// Bits of weights and activations, where they are not all 8.
fn bits_line(report: &Report) -> Option<String> {
    let weights: usize = report.layers.iter().map(|l| l.weights).sum();
    let bytes: usize = report.layers.iter().map(|l| l.bytes).sum();
    let mut activations: Vec<u8> = report.layers.iter().filter_map(|l| l.activation_bits).collect();
    activations.sort_unstable();
    activations.dedup();
    let plain = report.layers.iter().all(|l| l.weight_bits == Some(WeightBits::Bits(8)));
    if plain && activations == [8] {
        return None;
    }
    let average = 8.0 * bytes as f64 / weights.max(1) as f64;
    let activations = match activations[..] {
        [] => "float".to_owned(),
        [one] => one.to_string(),
        [least, .., most] => format!("{least} to {most}"),
    };
    Some(format!("weights {average:.2} on disk on average, activations {activations}"))
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

fn model_line(input: &Path, report: &Report) -> String {
    let layers = report.layers.len() + report.float_layers.len();
    let weights: usize = report.layers.iter().chain(&report.float_layers).map(|l| l.weights).sum();
    let macs: Option<u64> = report.layers.iter().chain(&report.float_layers).map(|l| l.macs).sum();
    let macs = macs.map_or_else(String::new, |macs| format!(" · {} MACs", count(macs)));
    format!("{} · opset {} · {layers} layers · {} weights{macs}", input.display(), report.opset, count(weights as u64))
}

fn runs_as(text: &mut String, report: &Report) {
    let int8 = report.layers.iter().filter(|layer| layer.activation_bits.is_some()).count();
    let (stored, all) = (report.layers.len() - int8, report.layers.len() + report.float_layers.len());
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
