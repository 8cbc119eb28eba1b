//! The story: prepare, tap, calibrate, solve, lower, verify.

use crate::agreement::Agreement;
use crate::data::{Array, Dataset, InputSpec};
use crate::engine::{Output, Pool, Visitor};
use crate::lower::{Biases, finish, packings, quantize_graph};
use crate::observe::{Observed, observe};
use crate::prepare::{annotate, prepare, refuse_quantized};
use crate::progress::Progress;
use crate::reconstruct::reconstruct;
use crate::report::{Quality, Report};
use crate::work::Work;
use crate::{Error, Format, Options, RoundingMode, Solver};
use msq_passes::analysis::layers;
use msq_passes::ir::{Model, encoded_len, export};
use msq_passes::{Manager, UpgradeOpset};
use std::time::Instant;

/// Ranges seen on made-up inputs are widened by this much: real inputs reach further.
const SYNTHETIC_MARGIN: f32 = 1.25;

/// A quantized model and what is to be said of it.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The model, ready to be saved.
    pub model: Model,
    /// What was done.
    pub report: Report,
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
pub fn quantize(
    mut model: Model,
    data: &Dataset,
    synthetic: bool,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Quantized, Error> {
    let start = Instant::now();
    refuse_quantized(&model)?;
    let float_bytes = encoded_len(&export(&model)) as u64;
    let opset = model.opset("").unwrap_or_default();
    prepare(&mut model, options.batch_norm)?;
    check_choices(options)?;
    options.plan.check(layers(&model).iter().map(|l| l.name.as_str()), &options.profile)?;
    raise_opset(&mut model, options)?;
    let work = Work::new(&model, options)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build();
    let pool = pool.map_err(|e| Error::Threads { threads: options.threads, reason: e.to_string() })?;
    let calibration = Instant::now();
    let margin = if synthetic { SYNTHETIC_MARGIN } else { 1.0 };
    let observed = observe(&model, work.watched(), data, options, margin, &pool, progress)?;
    let calibrate_seconds = calibration.elapsed().as_secs_f64();
    let mut solved = pool.install(|| work.round(&model, &observed, options))?;
    pool.install(|| reconstruct(&model, &work, &observed, &mut solved, data, options, progress))?;
    let float = model.clone();
    quantize_graph(&mut model, &work.placement, &observed, &solved, Biases::Half)?;
    let quality = verify(&model, data, &observed, options, progress)?;
    // Exact, and not all of it runs in the engine: after the comparison.
    let names = finish(&mut model, work.packings.clone(), options)?;
    let report = Report {
        opset,
        float_bytes,
        bytes: encoded_len(&export(&model)) as u64,
        samples: data.len(),
        data: data.describe(),
        synthetic,
        calibrate_seconds,
        seconds: start.elapsed().as_secs_f64(),
        plan: work.plan(&float, options),
        names,
        layers: work.reports(&float, &solved, options),
        float_layers: work.float_layers(&float),
        notes: work.notes(options),
        kept: work.placement.kept.clone(),
        quality,
    };
    Ok(Quantized { model, report })
}

/// Refuses forms the target does not run, and choices that contradict each other.
fn check_choices(options: &Options) -> Result<(), Error> {
    let profile = &options.profile;
    let refused = match options.format {
        Format::Qlinear if !profile.qlinear => Some("QLinearConv and its kin"),
        Format::Integer if !profile.integer => Some("ConvInteger and its kin"),
        _ if options.functions && !profile.functions => Some("functions of the model"),
        _ => None,
    };
    if options.rounding == RoundingMode::Stochastic && options.solver.is_some_and(|solver| solver != Solver::Round) {
        return Err(Error::StochasticSolver);
    }
    match refused {
        Some(form) => Err(Error::Target { profile: profile.name, form }),
        None => Ok(()),
    }
}

/// Types narrower than a byte need a newer operator set than most models state.
fn raise_opset(model: &mut Model, options: &Options) -> Result<(), Error> {
    let packings = packings(layers(model).iter(), &options.plan);
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

/// Runs the quantized model on the samples whose float outputs were kept.
fn verify(
    model: &Model,
    data: &Dataset,
    observed: &Observed,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Option<Quality>, Error> {
    if observed.outputs.is_empty() {
        return Ok(None);
    }
    let data = data.range(0, observed.outputs.len());
    progress.begin("verify", data.len() as u64);
    let mut total = Agreement::default();
    let pool = Pool::new(model, options.threads);
    let comparer = || Comparer { reference: &observed.outputs };
    pool.run(&data, progress, comparer, |part| total.merge(&part))?;
    progress.end();
    Ok(Some(Quality { samples: data.len(), agreement: total.figures() }))
}

struct Comparer<'a> {
    reference: &'a [Vec<Vec<f32>>],
}

impl Visitor for Comparer<'_> {
    type Shard = Agreement;
    type Error = Error;

    fn begin(&mut self) -> Agreement {
        Agreement::default()
    }

    fn visit(&mut self, shard: &mut Agreement, index: usize, _: &[Array], outputs: &[Output]) -> Result<(), Error> {
        for (reference, output) in self.reference[index].iter().zip(outputs) {
            let width = output.shape().last().copied().unwrap_or(0);
            shard.observe(reference, &output.to_f32()?, width);
        }
        Ok(())
    }
}
