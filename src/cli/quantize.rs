//! The main command: quantize a model.

use super::CommonArgs;
use super::calibrate;
use super::config::ConfigArgs;
use super::data::{self, DataArgs};
use super::document::{self, this_run};
use super::form::FormArgs;
use super::given::Given;
use super::interrupt;
use super::keys::as_flags;
use super::output::{self, Usage};
use super::passes::{self, PassArgs};
use super::paths;
use super::processes;
use super::run::RunArgs;
use super::search::{self, SearchArgs};
use super::summary::summary;
use clap::Args;
use msq_onnx::progress::{Progress, Silent};
use msq_onnx::report::{Document, Report, page};
use msq_onnx::search::SearchOptions;
use msq_onnx::{Error, MeasureOptions, Options, Quantized, Quantizer, RepairOptions, VerifyOptions};
use msq_passes::ir::{FileSet, Model};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of the main command.
#[derive(Args, Debug)]
pub(crate) struct QuantizeArgs {
    /// The float model
    #[arg(required_unless_present_any = ["input", "print_passes"])]
    model: Option<PathBuf>,
    /// The float model, as a flag
    #[arg(short = 'i', long, value_name = "MODEL", conflicts_with = "model")]
    input: Option<PathBuf>,
    /// Where the quantized model goes; replaced in one step when it is complete
    #[arg(short, long, value_name = "MODEL", required_unless_present = "print_passes")]
    output: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// What `calibrate` counted, all parts, with the same data and options: the data are not run again for that
    #[arg(long, value_name = "PATH", num_args = 1.., help_heading = "Data")]
    statistics: Vec<PathBuf>,
    #[command(flatten)]
    search: Given<SearchArgs>,
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
    #[command(flatten)]
    passes: PassArgs,
    #[command(flatten)]
    verify: VerifyOptions,
    #[command(flatten)]
    repair: RepairOptions,
    #[command(flatten)]
    measure: MeasureOptions,
    /// Write what was done as an HTML page: layers, errors, the search, the distributions of the worst layers
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    report: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// Which of several processes that learn together this is; only that of rank 0 writes and prints.
    #[arg(skip)]
    rank: usize,
}

impl QuantizeArgs {
    /// Makes these the arguments of a process of this rank.
    pub(crate) fn become_process(&mut self, rank: usize) {
        self.rank = rank;
        if rank > 0 {
            self.common = CommonArgs { json: false, quiet: true, verbose: 0 };
        }
    }

    /// What shows progress.
    fn progress(&self) -> Box<dyn Progress> {
        if self.rank == 0 { self.run.progress.shown(&self.common) } else { Box::new(Silent) }
    }
}

/// Quantizes a model and writes it.
pub(crate) fn run(args: &QuantizeArgs) -> anyhow::Result<ExitCode> {
    if args.passes.print_passes {
        return passes::print().map(|()| ExitCode::SUCCESS);
    }
    let cancellation = interrupt::cancellation()?;
    let (input, output) = (input(args)?, output_path(args)?);
    let search = args.search.options(&args.form, None)?;
    let options = options(args, search.is_some())?;
    let model = msq_onnx::load(input)?;
    check_paths(args, &model, input, output)?;
    let progress = args.progress();
    let dumps =
        args.passes.dumps(output, reads(args, input).map(Path::to_path_buf).chain(paths::weights(&model)).collect());
    let peers = processes::started(args.rank, &options.solve, &cancellation)?;
    let limits = args.run.shared_by(options.solve.solver_processes);
    let mut quantizer =
        limits.applied(Quantizer::new(model)).options(options).progress(&*progress).cancellation(&cancellation);
    if let Some(peers) = &peers {
        quantizer = quantizer.peers(peers.clone());
    }
    if args.rank == 0 {
        quantizer = quantizer.pass_observer(&dumps);
    }
    let samples = if search.is_some() { search::SAMPLES } else { data::SAMPLES };
    let mut quantizer = args.data.applied(quantizer, samples, args.run.seed)?;
    if !args.statistics.is_empty() {
        if search.is_some() {
            return Err(
                Usage("--statistics are of a run without a search: give a --plan that was found".to_owned()).into()
            );
        }
        if !args.data.is_given() {
            return Err(Usage("--statistics need the data they were counted on: add --calib".to_owned()).into());
        }
        quantizer = quantizer.statistics(calibrate::load(&args.statistics)?);
    }
    let kept = (search.is_some() && args.rank == 0).then(|| search::Kept::beside(output).with_plan(output));
    if let Some(search) = search {
        let journal = kept.as_ref().map(|kept| kept.journal.clone());
        let best = kept.as_ref().and_then(|kept| kept.best.clone());
        quantizer =
            args.search.applied(quantizer, &args.data)?.search_options(SearchOptions { journal, best, ..search });
    }
    let quantized = quantizer.run().map_err(|error| search::stopped(error, kept.as_ref()))?;
    if args.rank > 0 {
        return Ok(ExitCode::SUCCESS);
    }
    // Their results are this one.
    drop(peers);
    dumps.report();
    let ranges = quantized.report.plan.layers.values().any(|layer| layer.activations.is_static());
    if quantized.report.synthetic && ranges && !args.common.quiet {
        tracing::warn!(
            "no calibration data: activation ranges come from made-up inputs, and nothing is verified or repaired; give real \
             ones with --calib"
        );
    }
    let document = write(args, quantized, (input, output))?;
    if let Some(kept) = &kept {
        // Everything is written: what a search could go on from is not needed any more.
        kept.remove();
    }
    tell(args, &document)?;
    Ok(document.found.search.as_ref().map_or(ExitCode::SUCCESS, search::exit_code))
}

/// Writes the model, the plan and the page, all of them or none.
fn write(
    args: &QuantizeArgs,
    quantized: Quantized,
    (input, output): (&Path, &Path),
) -> anyhow::Result<Document<Report>> {
    let mut files = FileSet::default();
    let written = quantized.add_to(&mut files, output)?;
    if let Some(path) = &args.form.save_plan {
        files.add(path, quantized.report.plan.to_json().as_bytes()).map_err(Error::from)?;
    }
    let report = Report { bytes: written, ..quantized.report };
    let document = Document::new(this_run(input, Some(output), Some(args.run.seed)), report);
    if let Some(path) = &args.report {
        files.add(path, as_flags(&page::render(&document)?).as_bytes()).map_err(Error::from)?;
    }
    files.commit().map_err(Error::from)?;
    Ok(document)
}

/// Prints what was done.
fn tell(args: &QuantizeArgs, document: &Document<Report>) -> anyhow::Result<()> {
    if args.common.json {
        output::print(&document::text(document)?)?;
    } else if !args.common.quiet {
        output::print(&as_flags(&summary(document, args.report.as_deref())))?;
    }
    Ok(())
}

fn input(args: &QuantizeArgs) -> anyhow::Result<&Path> {
    let path = args.model.as_deref().or(args.input.as_deref());
    path.ok_or_else(|| Usage("no model is named".to_owned()).into())
}

fn output_path(args: &QuantizeArgs) -> anyhow::Result<&Path> {
    args.output.as_deref().ok_or_else(|| Usage("no output is named: add -o out.onnx".to_owned()).into())
}

/// The files that are read, but for the weights of the model.
fn reads<'a>(args: &'a QuantizeArgs, input: &'a Path) -> impl Iterator<Item = &'a Path> {
    let more = args.data.reads().chain(args.form.reads()).chain(args.search.reads()).chain(args.config.reads());
    more.chain(args.statistics.iter().map(PathBuf::as_path)).chain([input])
}

fn check_paths(args: &QuantizeArgs, model: &Model, input: &Path, output: &Path) -> anyhow::Result<()> {
    let dumps: Vec<PathBuf> = args.passes.writes(output).collect();
    let writes = args.form.save_plan.iter().chain(&args.report).chain(&dumps).map(PathBuf::as_path);
    paths::check(model, reads(args, input), writes.chain([output]))
}

fn options(args: &QuantizeArgs, searching: bool) -> Result<Options, Error> {
    let mut options = Options { seed: args.run.seed, measure: args.measure.clone(), ..args.form.options(searching)? };
    options.verify = VerifyOptions { details: args.report.is_some(), ..args.verify.clone() };
    options.repair = args.repair.clone();
    options.output.strip_names = (args.strip_names || args.keep_names).then_some(args.strip_names);
    Ok(options)
}
