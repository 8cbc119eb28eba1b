//! Flags of the search for bits, and `msq-onnx search`.

use super::CommonArgs;
use super::config::ConfigArgs;
use super::data::DataArgs;
use super::document::{self, this_run};
use super::form::FormArgs;
use super::given::Given;
use super::interrupt;
use super::output::{self, Usage, line, table};
use super::paths;
use super::run::RunArgs;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Command};
use msq_onnx::calibrate::Shard;
use msq_onnx::report::Document;
use msq_onnx::report::numbers::{bytes, counted, loss};
use msq_onnx::runtime::ErrorKind;
use msq_onnx::search::imprint::Pyramid;
use msq_onnx::search::{FrontPoint, Imprinting, Method, Metrics, Outcome, SearchOptions, Target};
use msq_onnx::{BitPlan, Error, MeasureOptions, Options, Quantized, Quantizer, WeightBits};
use msq_passes::ir::{FileSet, write_file};
use std::path::{Path, PathBuf};

/// Samples a search runs on by default.
pub(crate) const SAMPLES: usize = 1024;

/// What the plan has to keep to, and how it is sought.
#[derive(Args, Debug)]
#[command(next_help_heading = "Search")]
pub(crate) struct SearchArgs {
    /// Pack the weights at least so many times: bytes of the float weights over bytes of the packed ones
    #[arg(long, value_name = "F", value_parser = positive, group = "target")]
    target_ratio: Option<f64>,
    /// Bits per weight on average, at most; a ternary weight counts 1.6
    #[arg(long, value_name = "F", value_parser = positive, group = "target")]
    target_bits: Option<f64>,
    /// Size of the file on disk, at most: 90KB, 2MiB
    #[arg(long, value_name = "SIZE", value_parser = output::parse_bytes, group = "target")]
    target_size: Option<u64>,
    /// The smallest model that loses no more: of the metric of --metric-command, else of accuracy with labels, else by the
    /// worst output: share of other answers, boxes or sequences, of the variance of the worst channel of values, or 1 −
    /// cosine of embeddings: 1%
    #[arg(long, value_name = "P%", value_parser = percent, group = "target")]
    max_drop: Option<f64>,
    /// Multiply-accumulates times bits of weight times bits of activation, at most, relative to 8 bits everywhere: 25%
    #[arg(long, value_name = "P%", value_parser = percent, group = "target")]
    target_bit_ops: Option<f64>,
    /// Data that plans are measured on, half of them for what is stated of the result; two quarters of --calib if not given
    #[arg(long, value_name = "PATH")]
    valid: Option<PathBuf>,
    /// Scales of MSQ's pyramid
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,2,4")]
    pyramid: Vec<usize>,
    #[command(flatten)]
    options: SearchOptions,
}

/// A command with [`SearchArgs`]: the names of the methods.
pub(crate) fn completed(command: Command) -> Command {
    let values = Method::all().map(|method| PossibleValue::new(method.name()).help(method.row().help));
    let methods = PossibleValuesParser::new(values).try_map(|name| name.parse::<Method>());
    command.mut_arg("search", |arg| arg.value_parser(methods))
}

fn positive(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if value > 0.0 && value.is_finite() { Ok(value) } else { Err("give a number above 0".to_owned()) }
}

/// A share, from `1%` or `0.01`.
fn percent(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number.trim(), 100.0));
    let value: f64 = number.parse().map_err(|_| format!("`{text}` is no share: give 1% or 0.01"))?;
    let share = value / unit;
    match share {
        // 1 could be meant as either.
        _ if unit == 1.0 && share >= 1.0 => Err(format!("write {text}%, or a share below 1 such as 0.01")),
        0.0..=1.0 => Ok(share),
        _ => Err(format!("`{text}` is not between 0 and 100 %")),
    }
}

impl Given<SearchArgs> {
    /// The search asked for, if a target is; or one for `unless_given`.
    pub(crate) fn options(
        &self,
        form: &FormArgs,
        unless_given: Option<Target>,
    ) -> anyhow::Result<Option<SearchOptions>> {
        let targets = [
            self.target_ratio.map(Target::Ratio),
            self.target_bits.map(Target::Bits),
            self.target_size.map(Target::Size),
            self.max_drop.map(Target::MaxDrop),
            self.target_bit_ops.map(Target::MacBits),
        ];
        let Some(target) = targets.into_iter().flatten().next().or(unless_given) else {
            return match self.flags().next() {
                Some(flag) => {
                    Err(Usage(format!("{flag} has nothing to search for: add a target, --target-ratio 8 for one"))
                        .into())
                }
                None => Ok(None),
            };
        };
        if let Some(flag) = form.fixes_bits() {
            return Err(Usage(format!("{flag} says what weights become, so there is nothing to search for")).into());
        }
        let options = &self.options;
        if options.ladder.iter().flatten().any(|bits| *bits == WeightBits::Float) {
            return Err(Usage(
                "--ladder takes numbers of bits, ternary and binary: --skip leaves layers float".to_owned(),
            )
            .into());
        }
        let pyramid = Pyramid::new(self.pyramid.clone()).map_err(|error| Usage(format!("--pyramid: {error}")))?;
        let imprinting = Imprinting { pyramid, ..options.imprinting.clone() };
        Ok(Some(SearchOptions {
            target,
            activations: form.activations(),
            grid: form.grid(),
            imprinting,
            ..options.clone()
        }))
    }
}

impl SearchArgs {
    /// The file it names.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &Path> {
        self.valid.iter().chain(&self.options.measurements).map(PathBuf::as_path)
    }

    /// With the data that plans are measured on, if other data is named for that.
    pub(crate) fn applied<'a>(&self, quantizer: Quantizer<'a>, data: &DataArgs) -> anyhow::Result<Quantizer<'a>> {
        let Some(path) = &self.valid else { return Ok(quantizer) };
        let other = data.open_other(path, &quantizer.inputs())?;
        Ok(quantizer.validation(other))
    }
}

/// Arguments of `search`.
#[derive(Args, Debug)]
pub(crate) struct SearchCommand {
    /// The float model
    model: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    search: Given<SearchArgs>,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    measure: MeasureOptions,
    /// Measure only a part of what layers cost alone, 1/8 to 8/8 for eight machines with the same data and options, and
    /// write it to --output: the searches that take it as --measurements need not
    #[arg(long, value_name = "PART", conflicts_with_all = ["front", "save_plan"])]
    shard: Option<Shard>,
    /// Write what was found, as JSON
    #[arg(short, long, value_name = "PATH", help_heading = "Output")]
    output: Option<PathBuf>,
    /// Write the models of the front into this folder, named by bits and size
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    front: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Searches, and writes the front.
pub(crate) fn run(args: &SearchCommand) -> anyhow::Result<std::process::ExitCode> {
    let cancellation = interrupt::cancellation()?;
    let options = Options { seed: args.run.seed, measure: args.measure.clone(), ..args.form.options(true)? };
    if args.shard.is_some() && args.output.is_none() {
        return Err(Usage("--shard writes down what it measures: add --output".to_owned()).into());
    }
    if let Some(path) = args.output.as_deref().filter(|path| path.extension().is_some_and(|end| end == "onnx")) {
        return Err(Usage(format!(
            "search writes no model: -o is a JSON document, `{}` is the name of a model; for one leave out `search`, or give \
             --front DIR",
            path.display()
        ))
        .into());
    }
    let Some(search) = args.search.options(&args.form, Some(Target::default()))? else {
        return Err(Usage("name a target".to_owned()).into());
    };
    let model = msq_onnx::load(&args.model)?;
    let reads = args.data.reads().chain(args.form.reads()).chain(args.search.reads()).chain(args.config.reads());
    let writes = args.output.iter().chain(&args.form.save_plan).map(PathBuf::as_path);
    paths::check(&model, reads.chain([args.model.as_path()]), writes)?;
    let progress = args.run.progress.shown(&args.common);
    let quantizer = args
        .run
        .applied(Quantizer::new(model))
        .options(options.clone())
        .progress(&*progress)
        .cancellation(&cancellation);
    let quantizer = args.data.applied(quantizer, SAMPLES, args.run.seed)?;
    let quantizer = args.search.applied(quantizer, &args.data)?;
    if !args.data.is_given() {
        tracing::warn!(
            "no calibration data: what is measured here is measured on made-up inputs; give real ones with --calib"
        );
    }
    let kept = args.output.as_deref().map(Kept::beside);
    let search = SearchOptions { journal: kept.as_ref().map(|kept| kept.journal.clone()), ..search };
    if let (Some(shard), Some(output), Some(kept)) = (args.shard, &args.output, &kept) {
        let quantizer = quantizer.search_options(search.clone());
        return measure(args, quantizer, shard, (output, kept)).map(|()| std::process::ExitCode::SUCCESS);
    }
    let found = quantizer.clone().search_options(search).search();
    let found = found.map_err(|error| stopped(error, kept.as_ref()))?;
    let run = this_run(&args.model, args.output.as_deref(), Some(args.run.seed));
    let found = Document::new(run, found);
    let json = document::text(&found)?;
    let found = found.found;
    let mut files = FileSet::default();
    if let Some(path) = &args.output {
        files.add(path, json.as_bytes()).map_err(Error::from)?;
    }
    if let Some(path) = &args.form.save_plan {
        files.add(path, found.plan.to_json().as_bytes()).map_err(Error::from)?;
    }
    match &args.front {
        Some(folder) => write_front(&found, folder, files, |plan| {
            let mut options = options.clone();
            options.scheme.plan = plan.clone();
            quantizer.clone().options(options).run()
        })?,
        None => files.commit().map_err(Error::from)?,
    }
    if let Some(kept) = &kept {
        // Everything is written: what a search could go on from is not needed any more.
        kept.remove();
    }
    if args.common.json {
        output::print(&json)?;
    } else if !args.common.quiet {
        let mut text = text(&found);
        let folder =
            args.front.iter().map(|folder| format!("{}, {}", folder.display(), counted(found.front.len(), "model")));
        let files = args.output.iter().chain(&args.form.save_plan).map(|path| path.display().to_string());
        let written: Vec<String> = files.chain(folder).collect();
        if !written.is_empty() {
            line(&mut text, "wrote", &written.join(" · "));
        }
        output::print(&text)?;
    }
    Ok(exit_code(&found))
}

/// What `--shard` prints with `--json`.
#[derive(serde::Serialize)]
struct PartReport {
    shard: Shard,
    /// Costs in this part: layers times rungs.
    costs: usize,
    /// Bytes written.
    bytes: usize,
}

/// Measures a part of what layers cost alone, and writes it.
fn measure(
    args: &SearchCommand,
    quantizer: Quantizer,
    shard: Shard,
    (output, kept): (&PathBuf, &Kept),
) -> anyhow::Result<()> {
    let costs = quantizer.measure(shard).map_err(|error| kept.stopped(error))?;
    let failed = |error: std::io::Error| Error::Write { path: kept.journal.clone(), reason: error.to_string() };
    let measurements = std::fs::read(&kept.journal).map_err(failed)?;
    write_file(output, &measurements).map_err(Error::from)?;
    // All of it is in the output.
    kept.remove();
    let report = PartReport { shard, costs, bytes: measurements.len() };
    if args.common.json {
        output::print(&document::text(&report)?)?;
    } else if !args.common.quiet {
        let mut text = String::new();
        line(&mut text, "measured", &format!("{} of layers, part {shard}", counted(costs, "cost")));
        line(&mut text, "wrote", &format!("{} ({})", output.display(), bytes(report.bytes as u64)));
        output::print(&text)?;
    }
    Ok(())
}

/// Solves the plans of the front and writes them with the other files, all of them or none.
fn write_front(
    found: &Outcome,
    folder: &Path,
    files: FileSet,
    solve: impl Fn(&BitPlan) -> Result<Quantized, Error>,
) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::Write { path: folder.to_owned(), reason: e.to_string() };
    let is_new = !folder.exists();
    std::fs::create_dir_all(folder).map_err(failed)?;
    let written = with_front(found, folder, files, solve).and_then(|files| Ok(files.commit()?));
    if written.is_err() && is_new {
        let _ = std::fs::remove_dir(folder);
    }
    written
}

/// The files, and the models of the front.
fn with_front(
    found: &Outcome,
    folder: &Path,
    mut files: FileSet,
    solve: impl Fn(&BitPlan) -> Result<Quantized, Error>,
) -> Result<FileSet, Error> {
    for point in &found.front {
        let name = format!("{:.2}-bits-{}.onnx", point.bits, point.packed_bytes);
        solve(&point.plan)?.add_to(&mut files, folder.join(name))?;
    }
    Ok(files)
}

/// The files in which a search writes down what it found, and whether they were there before it began.
pub(crate) struct Kept {
    /// What was measured.
    pub(crate) journal: PathBuf,
    /// The best plan so far, where that is written.
    pub(crate) best: Option<PathBuf>,
    from_before: bool,
}

impl Kept {
    /// The journal beside an output.
    pub(crate) fn beside(output: &Path) -> Self {
        let journal = beside(output, ".search.jsonl");
        Self { from_before: journal.exists(), journal, best: None }
    }

    /// The plan as well.
    pub(crate) fn with_plan(self, output: &Path) -> Self {
        Self { best: Some(beside(output, ".plan.json")), ..self }
    }

    /// An error that says what is kept, where a search was cancelled. What a run wrote that cannot succeed is removed.
    pub(crate) fn stopped(&self, error: Error) -> anyhow::Error {
        let kind = error.kind();
        let error = anyhow::Error::from(error);
        match kind {
            ErrorKind::Cancelled if self.journal.exists() => error.context(format!(
                "cancelled; what was measured is in `{}`: the same command goes on from there",
                self.journal.display()
            )),
            ErrorKind::Usage | ErrorKind::Model | ErrorKind::Data if !self.from_before => {
                self.remove();
                error
            }
            _ => error,
        }
    }

    /// Removes the files, which nothing goes on from.
    pub(crate) fn remove(&self) {
        for path in std::iter::once(&self.journal).chain(&self.best) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// An error of a run that may have written down what it found.
pub(crate) fn stopped(error: Error, kept: Option<&Kept>) -> anyhow::Error {
    match kept {
        Some(kept) => kept.stopped(error),
        None => error.into(),
    }
}

/// A path of the output with an ending of its own.
pub(crate) fn beside(output: &Path, ending: &str) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    output.with_file_name(name)
}

/// 5 where the target was not reached.
pub(crate) fn exit_code(found: &Outcome) -> std::process::ExitCode {
    if found.reached { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::from(5) }
}

fn text(found: &Outcome) -> String {
    let mut text = String::new();
    summary(&mut text, found);
    let rows: Vec<Vec<String>> = found.front.iter().map(row).collect();
    text.push('\n');
    let head = ["bits", "weights", "distance", "lost", "agreement", "accuracy", "from"];
    text.push_str(&table(&head, &rows, &[0, 1, 2, 3, 4, 5]));
    text
}

fn row(point: &FrontPoint) -> Vec<String> {
    let percent = |share: Option<f64>| share.map_or_else(String::new, |share| format!("{:.1} %", 100.0 * share));
    let Metrics { distance, lost, agreement, accuracy, .. } = point.metrics;
    vec![
        format!("{:.2}", point.bits),
        bytes(point.packed_bytes),
        format!("{distance:.4}"),
        loss(lost, 1),
        percent(agreement),
        percent(accuracy),
        point.method.clone(),
    ]
}

/// Lines about a search.
pub(crate) fn summary(text: &mut String, found: &Outcome) {
    let chosen = format!("{} · {:.2} bits a weight · distance {:.4}", found.chosen, found.bits, found.metrics.distance);
    line(text, "search", &chosen);
    let others: Vec<String> = found
        .proposals
        .iter()
        .filter(|other| other.method != found.chosen && found.method != "uniform")
        .filter(|other| (other.bits - found.bits).abs() < 0.2)
        .map(|other| format!("{} {:.4} at {:.2} bits", other.method, other.metrics.distance, other.bits))
        .take(3)
        .collect();
    if !others.is_empty() {
        line(text, "", &format!("beside it: {}", others.join(", ")));
    }
    let saved = 100.0 * (1.0 - found.passes.run / found.passes.full.max(1.0));
    let passes = format!("{:.0} passes of a sample instead of {:.0}", found.passes.run, found.passes.full);
    line(text, "", &format!("{passes}, {saved:.0} % saved"));
    if !found.reached {
        let nearest = found.nearest.as_ref().map_or_else(String::new, |nearest| format!(": {nearest}"));
        line(text, "", &format!("the target is out of reach: {}; this is the nearest plan{nearest}", found.target));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What a run wrote that cannot succeed goes; what was there before it, or can be gone on from, stays.
    #[test]
    fn files_of_a_search_that_failed() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.onnx");
        let written = |error: Error, from_before: bool| {
            let kept = Kept { from_before, ..Kept::beside(&output).with_plan(&output) };
            for path in std::iter::once(&kept.journal).chain(&kept.best) {
                std::fs::write(path, "x").unwrap();
            }
            let _ = kept.stopped(error);
            let left = std::fs::read_dir(folder.path()).unwrap().count();
            kept.remove();
            left
        };
        let full = || Error::Write { path: output.clone(), reason: "the disk is full".to_owned() };
        assert_eq!(written(Error::StochasticSolver, false), 0);
        assert_eq!(written(Error::StochasticSolver, true), 2);
        assert_eq!(written(full(), false), 2);
    }
}
