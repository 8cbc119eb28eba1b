//! `msq-onnx calibrate`: the activations of a part of the data, looked at on one of several machines.

use super::CommonArgs;
use super::config::ConfigArgs;
use super::data::{self, DataArgs};
use super::document;
use super::form::FormArgs;
use super::interrupt;
use super::output::{self, Usage, line};
use super::paths;
use super::run::RunArgs;
use clap::Args;
use msq_onnx::calibrate::{Shard, ShardStatistics};
use msq_onnx::report::numbers::bytes;
use msq_onnx::{Error, Options, Quantizer, VerifyOptions};
use msq_passes::ir::write_file;
use std::ops::Range;
use std::path::PathBuf;

/// Arguments of `calibrate`.
#[derive(Args, Debug)]
pub(crate) struct CalibrateArgs {
    /// The float model
    model: PathBuf,
    /// Where the statistics go; replaced in one step
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Which part of the data to look at: 1/8 to 8/8 for eight machines, each with the same data and options
    #[arg(long, value_name = "PART", default_value_t = Shard::WHOLE)]
    shard: Shard,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    verify: VerifyOptions,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Report {
    shard: Shard,
    /// First sample and the one after the last.
    samples: Range<usize>,
    /// Samples in all parts.
    total: usize,
    /// Values looked at.
    values: usize,
    /// Bytes written.
    bytes: usize,
}

/// Looks at the activations and writes the statistics.
pub(crate) fn run(args: &CalibrateArgs) -> anyhow::Result<()> {
    if !args.data.is_given() {
        return Err(Usage("no data are named: add --calib".to_owned()).into());
    }
    if args.form.save_plan.is_some() {
        return Err(
            Usage("--save-plan is of the run that takes the --statistics: calibrate makes no plan".to_owned()).into()
        );
    }
    let options = Options { seed: args.run.seed, verify: args.verify.clone(), ..args.form.options(false)? };
    let model = msq_onnx::load(&args.model)?;
    let reads = args.data.reads().chain(args.form.reads()).chain(args.config.reads());
    paths::check(&model, reads.chain([args.model.as_path()]), [args.output.as_path()])?;
    let progress = args.run.progress.shown(&args.common);
    let cancellation = interrupt::cancellation()?;
    let quantizer =
        args.run.applied(Quantizer::new(model)).options(options).progress(&*progress).cancellation(&cancellation);
    let counted = args.data.applied(quantizer, data::SAMPLES, args.run.seed)?.count(args.shard)?;
    let file = counted.bytes().map_err(Error::from)?;
    write_file(&args.output, &file).map_err(Error::from)?;
    let report = Report {
        shard: args.shard,
        samples: counted.samples(),
        total: counted.total(),
        values: counted.values(),
        bytes: file.len(),
    };
    if args.common.json {
        output::print(&document::text(&report)?)?;
    } else if !args.common.quiet {
        output::print(&text(args, &report))?;
    }
    Ok(())
}

fn text(args: &CalibrateArgs, report: &Report) -> String {
    let mut text = String::new();
    let samples = match report.samples.len() {
        0 => format!("none of {}, which are too few for so many parts", report.total),
        _ => format!("{} to {} of {}", report.samples.start, report.samples.end - 1, report.total),
    };
    line(&mut text, "samples", &samples);
    line(&mut text, "values", &report.values.to_string());
    line(&mut text, "wrote", &format!("{} ({})", args.output.display(), bytes(report.bytes as u64)));
    text
}

/// Reads the statistics of all parts.
pub(crate) fn load(paths: &[PathBuf]) -> Result<Vec<ShardStatistics>, Error> {
    paths.iter().map(|path| Ok(ShardStatistics::load(path)?)).collect()
}
