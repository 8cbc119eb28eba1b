//! The story: prepare, tap, calibrate, search where bits are to be found, solve, lower, verify.

pub(crate) mod details;
pub(crate) mod work;

use crate::calibrate::observe::{Observed, observe};
use crate::data::{Array, Dataset, InputSpec};
use crate::engine::Output;
use crate::exchange::refuse_unknown;
use crate::execute::coverage::Coverage;
use crate::execute::stages::{Limit, Stages};
use crate::execute::{Lane, Pool, Visitor};
use crate::lower::{Biases, finish, packings, quantize_graph};
use crate::measure::comparison::{Comparison, Found};
use crate::pipeline::work::Work;
use crate::prepare::{annotate, equalize, prepare, refuse_quantized};
use crate::report::{Quality, Report};
use crate::runtime::Runtime;
use crate::scheme::metadata;
use crate::search::{Outcome, Parts, SearchOptions, Target};
use crate::solve::reconstruct::reconstruct;
use crate::{BitPlan, Error, Format, Options, RoundingMode, Solver};
use msq_passes::analysis::layers;
use msq_passes::ir::{Model, save_model};
use msq_passes::{Manager, UpgradeOpset};
use std::path::Path;
use std::time::Instant;

/// Ranges seen on made-up inputs are widened by this much: real inputs reach further.
const SYNTHETIC_MARGIN: f32 = 1.25;
/// How often a target is tightened that the finished file misses.
const TIGHTER: usize = 4;

/// A quantized model and what is to be said of it.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The model, ready to be saved.
    pub model: Model,
    /// What was done.
    pub report: Report,
}

impl Quantized {
    /// Writes the model, in one step when it is complete; returns the bytes written, external data included.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<u64, Error> {
        Ok(save_model(&self.model, path.as_ref())?)
    }
}

/// The inputs a caller must feed.
pub fn input_specs(model: &Model) -> Vec<InputSpec> {
    let spec = |v| {
        let value = model.graph.value(v);
        let dtype = value.element_type().unwrap_or(msq_passes::ir::DataType::Float);
        InputSpec { name: value.name().to_owned(), dtype, shape: value.shape() }
    };
    model.graph.runtime_inputs().map(spec).collect()
}

/// Quantizes a float model with calibration data, or with made-up data if `synthetic` says so.
pub(crate) fn quantize(
    mut model: Model,
    data: &Dataset,
    synthetic: bool,
    options: &Options,
    runtime: &Runtime,
) -> Result<Quantized, Error> {
    let prepared = Prepared::new(&mut model, options)?;
    prepared.quantize(model, data, None, synthetic, options, runtime)
}

/// Looks for the bits of every layer of a float model, on data in two parts, and quantizes it. What the search promises
/// is checked on the result: a file that is still too large, or that loses more than it may, is sought again with a
/// target as much tighter.
pub(crate) fn search_and_quantize(
    mut model: Model,
    [calibration, validation]: [&Dataset; 2],
    synthetic: bool,
    options: &Options,
    search: &SearchOptions,
    runtime: &Runtime,
) -> Result<Quantized, Error> {
    let prepared = Prepared::new(&mut model, options)?;
    let mut wanted = search.clone();
    let mut attempts = TIGHTER;
    let mut resumed = None;
    let mut nearest = None;
    loop {
        let mut outcome = seek(&model, [calibration, validation], synthetic, options, &wanted, runtime)?;
        let found = options.with_plan(&outcome.plan);
        let mut quantized =
            prepared.quantize(model.clone(), calibration, Some(validation), synthetic, &found, runtime)?;
        let (sought, tighter) = (outcome.reached, tighter(search.target, wanted.target, &quantized.report));
        // What is checked on the file counts, not what the search made of it or of a tighter target.
        let checked = matches!(search.target, Target::Size(_) | Target::MaxDrop(_));
        outcome.reached = tighter.is_none() && (checked || sought);
        outcome.target = search.target.to_string();
        // Later attempts go on from the first one's measurements.
        outcome.resumed = *resumed.get_or_insert(outcome.resumed);
        quantized.report.search = Some(outcome);
        let best = nearer(search.target, nearest.take(), quantized);
        match tighter {
            Some(target) if sought && attempts > 1 => wanted.target = target,
            _ => return Ok(best),
        }
        nearest = Some(best);
        attempts -= 1;
    }
}

/// The one of two attempts that keeps to the target or misses it by less; the later one where they are equal.
fn nearer(target: Target, before: Option<Quantized>, now: Quantized) -> Quantized {
    let missed = |quantized: &Quantized| match target {
        Target::Size(asked) => quantized.report.bytes.saturating_sub(asked) as f64,
        Target::MaxDrop(asked) => quantized.report.quality.map_or(0.0, |quality| (quality.lost - asked).max(0.0)),
        Target::Ratio(_) | Target::Bits(_) | Target::MacBits(_) => 0.0,
    };
    match before {
        Some(before) if missed(&before) < missed(&now) => before,
        _ => now,
    }
}

/// Looks for the bits of every layer of a float model.
pub(crate) fn search_only(
    mut model: Model,
    parts: [&Dataset; 2],
    synthetic: bool,
    options: &Options,
    search: &SearchOptions,
    runtime: &Runtime,
) -> Result<Outcome, Error> {
    Prepared::new(&mut model, options)?;
    seek(&model, parts, synthetic, options, search, runtime)
}

fn seek(
    model: &Model,
    [calibration, validation]: [&Dataset; 2],
    synthetic: bool,
    options: &Options,
    search: &SearchOptions,
    runtime: &Runtime,
) -> Result<Outcome, Error> {
    if !options.scheme.encodings.tensors.is_empty() {
        return Err(Error::Search { reason: "encodings say what the bits are".to_owned() });
    }
    let margin = if synthetic { SYNTHETIC_MARGIN } else { 1.0 };
    let pool = thread_pool(runtime)?;
    pool.install(|| crate::search::search(model, Parts { calibration, validation, margin }, options, search, runtime))
}

/// The target to seek with instead, where the one asked for is missed by the file or its answers.
fn tighter(asked: Target, sought: Target, report: &Report) -> Option<Target> {
    match (asked, sought) {
        (Target::Size(asked), Target::Size(sought)) if report.bytes > asked => {
            Some(Target::Size(sought.saturating_sub(report.bytes - asked)))
        }
        (Target::MaxDrop(asked), Target::MaxDrop(sought)) => {
            let lost = report.quality?.lost;
            // In proportion: what is lost in full grows with what was lost in the search, from nothing on.
            (lost > asked).then(|| Target::MaxDrop(sought * (asked / lost).max(0.0)))
        }
        _ => None,
    }
}

/// What is known of a float model before it is prepared.
struct Prepared {
    start: Instant,
    float_bytes: u64,
    opset: i64,
}

impl Prepared {
    /// Brings the model into its canonical form.
    fn new(model: &mut Model, options: &Options) -> Result<Self, Error> {
        let start = Instant::now();
        refuse_quantized(model)?;
        let unknown = options.scheme.encodings.unknown(model);
        let float_bytes = model.stored_bytes();
        let opset = model.opset("").unwrap_or_default();
        prepare(model, options.prepare.batch_norm)?;
        if options.prepare.equalize.unwrap_or(!options.scheme.profile.per_channel) {
            equalize(model)?;
        }
        refuse_unknown(&unknown, model)?;
        check_choices(options)?;
        Ok(Self { start, float_bytes, opset })
    }

    /// Calibrates, solves, lowers and verifies: on the samples of `validation`, or else on some of `data`.
    fn quantize(
        &self,
        mut model: Model,
        data: &Dataset,
        validation: Option<&Dataset>,
        synthetic: bool,
        options: &Options,
        runtime: &Runtime,
    ) -> Result<Quantized, Error> {
        // Layers have their names now.
        let plan = options.scheme.plan.resolved(&model, options.scheme.first_last_bits, &options.scheme.profile)?;
        let plan = with_given_bits(&model, &options.with_plan(&plan))?;
        let options = &options.with_plan(&plan);
        raise_opset(&mut model, options)?;
        let pool = thread_pool(runtime)?;
        let calibration = Instant::now();
        let margin = if synthetic { SYNTHETIC_MARGIN } else { 1.0 };
        let (work, mut observed) = calibrate(&model, data, margin, options, &pool, runtime)?;
        let calibrate_seconds = calibration.elapsed().as_secs_f64();
        let mut solved = pool.install(|| work.round(&model, &observed, options))?;
        pool.install(|| reconstruct(&model, &work, &mut observed, &mut solved, data, options, runtime))?;
        let float = model.clone();
        quantize_graph(&mut model, &work.placement, &observed, &solved, Biases::Half)?;
        let quality = match validation {
            _ if !work.coverage.is_whole() => None,
            Some(data) => Some(verify(&model, &float, data, runtime)?),
            None if observed.outputs.is_empty() => None,
            None => verify_outputs(&model, &observed.outputs, data, Limit::of(&float, runtime.memory), runtime)?,
        };
        let mut layers = work.reports(&float, &solved, options);
        if options.verify.details && work.coverage.is_whole() && Limit::of(&float, runtime.memory).is_none() {
            let run =
                details::Run { float: &float, quantized: &model, work: &work, observed: &observed, solved: &solved };
            details::add(&mut layers, run, validation.unwrap_or(data), runtime)?;
        }
        // Exact, and not all of it runs in the engine: after the comparison.
        let names = finish(&mut model, work.packings.clone(), options)?;
        let plan = work.plan(&float, options);
        metadata::write(&mut model, &plan);
        let report = Report {
            opset: self.opset,
            float_bytes: self.float_bytes,
            bytes: model.stored_bytes(),
            samples: data.len(),
            data: data.describe(),
            synthetic,
            calibrate_seconds,
            seconds: self.start.elapsed().as_secs_f64(),
            plan,
            names,
            layers,
            float_layers: work.float_layers(&float),
            notes: work.notes(options),
            kept: work.placement.kept.clone(),
            quality,
            search: None,
        };
        Ok(Quantized { model, report })
    }
}

fn thread_pool(runtime: &Runtime) -> Result<rayon::ThreadPool, Error> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(runtime.threads).build();
    pool.map_err(|e| Error::Threads { threads: runtime.threads, reason: e.to_string() })
}

/// Decides what is done to which layer, and observes the activations: of as much of the model as the engine runs.
fn calibrate(
    model: &Model,
    data: &Dataset,
    margin: f32,
    options: &Options,
    pool: &rayon::ThreadPool,
    runtime: &Runtime,
) -> Result<(Work, Observed), Error> {
    let mut coverage = Coverage::within(model, runtime.memory);
    loop {
        let work = Work::within(model, options, coverage)?;
        options.scheme.encodings.check(model, &work, options)?;
        match observe(model, work.watched(), data, options, margin, pool, runtime) {
            Ok(observed) => {
                if let Some(note) = work.coverage.note() {
                    tracing::warn!("{note}");
                }
                return Ok((work, observed));
            }
            Err(Error::Engine(error)) => match work.coverage.less(model, &error) {
                Some(less) => coverage = less,
                None => return Err(error.into()),
            },
            Err(error) => return Err(error),
        }
    }
}

/// Refuses forms the target does not run, and choices that contradict each other.
fn check_choices(options: &Options) -> Result<(), Error> {
    let profile = &options.scheme.profile;
    let refused = match options.output.format {
        Format::Qlinear if !profile.qlinear => Some("QLinearConv and its kin"),
        Format::Integer if !profile.integer => Some("ConvInteger and its kin"),
        _ if options.output.functions && !profile.functions => Some("functions of the model"),
        _ => None,
    };
    if options.solve.rounding == RoundingMode::Stochastic
        && options.solve.solver.is_some_and(|solver| solver != Solver::Round)
    {
        return Err(Error::StochasticSolver);
    }
    match refused {
        Some(form) => Err(Error::Target { profile: profile.name, form }),
        None => Ok(()),
    }
}

/// The plan, with the bits that encodings give.
fn with_given_bits(model: &Model, options: &Options) -> Result<BitPlan, Error> {
    if options.scheme.encodings.tensors.is_empty() {
        return Ok(options.scheme.plan.clone());
    }
    let work = Work::new(model, options)?;
    options.scheme.encodings.planned(model, &work.placement, &options.scheme.plan)
}

/// Types narrower than a byte need a newer operator set than most models state.
fn raise_opset(model: &mut Model, options: &Options) -> Result<(), Error> {
    let packings = packings(layers(model).iter(), &options.scheme.plan);
    let wanted = packings.values().map(|packing| packing.lowest_opset()).max().unwrap_or_default();
    if model.opset("").unwrap_or_default() >= wanted {
        return Ok(());
    }
    if wanted > UpgradeOpset::HIGHEST {
        return Err(Error::NoOpset { wanted, reason: "the model has to be exported at that opset".to_owned() });
    }
    let records = Manager::new().with(UpgradeOpset::to(wanted)).run(model)?;
    annotate(model);
    let declined = records.iter().flat_map(|record| &record.outcome.declined).next();
    declined.map_or(Ok(()), |d| Err(Error::NoOpset { wanted, reason: format!("`{}`: {}", d.site, d.reason) }))
}

/// Runs the quantized model beside the float model and compares it.
fn verify(model: &Model, float: &Model, data: &Dataset, runtime: &Runtime) -> Result<Quality, Error> {
    runtime.begin("verify", data.len() as u64);
    let mut total = Comparison::default();
    let float = Pool::new(float, runtime.threads);
    let comparer = || Comparer { data, float: float.lane() };
    let pool = Pool::new(model, runtime.threads);
    pool.run(data, runtime, comparer, |part: Comparison| total.merge(&part))?;
    runtime.end();
    Ok(quality(&total, data.len(), true))
}

/// Runs the quantized model on the first samples and compares it with the float model's outputs. What of a large model
/// cannot be run is not compared.
fn verify_outputs(
    model: &Model,
    float: &[Vec<Vec<f32>>],
    data: &Dataset,
    limit: Option<Limit>,
    runtime: &Runtime,
) -> Result<Option<Quality>, Error> {
    let stages = match Stages::new(model, limit.map(Limit::quantized)) {
        Ok(stages) => stages,
        Err(error) => {
            tracing::warn!("the result was not compared: {error}");
            return Ok(None);
        }
    };
    runtime.begin("verify", (stages.len() * float.len()) as u64);
    let mut total = Comparison::default();
    let found = stages.run(&data.range(0, float.len()), runtime)?;
    for (index, (float, sample)) in float.iter().zip(&found).enumerate() {
        let values: Vec<Vec<f32>> = sample.arrays.iter().map(Array::to_f32).collect();
        let found: Vec<Found> = values.iter().zip(&sample.arrays).map(|(v, a)| Found::of(v, a.shape())).collect();
        total.observe(float, &found, data.labels(index));
    }
    runtime.end();
    Ok(Some(quality(&total, found.len(), false)))
}

fn quality(total: &Comparison, samples: usize, held_out: bool) -> Quality {
    let (verdict, float_accuracy) = (total.verdict(), total.float_accuracy());
    Quality {
        samples,
        held_out,
        agreement: total.figures(),
        accuracy: verdict.accuracy,
        float_accuracy,
        lost: verdict.lost(float_accuracy),
    }
}

struct Comparer<'a, 'p> {
    data: &'a Dataset,
    float: Lane<'p, 'a>,
}

impl Visitor for Comparer<'_, '_> {
    type Shard = Comparison;
    type Error = Error;

    fn begin(&mut self) -> Comparison {
        Comparison::default()
    }

    fn visit(
        &mut self,
        shard: &mut Comparison,
        index: usize,
        inputs: &[Array],
        outputs: &[Output],
    ) -> Result<(), Error> {
        let values = |outputs: &[Output]| outputs.iter().map(Output::to_f32).collect::<Result<Vec<_>, _>>();
        let (float, values) = (values(&self.float.run(inputs)?)?, values(outputs)?);
        let found = values.iter().zip(outputs).map(|(values, output)| Found::of(values, output.shape()));
        shard.observe(&float, &found.collect::<Vec<_>>(), self.data.labels(index));
        Ok(())
    }
}
