//! The story of a run: prepare, place, calibrate, search where bits are to be found, solve, lower, verify, finish.
//!
//! | phase | takes | promises the next |
//! |---|---|---|
//! | prepare | a float model as exported | the same function in canonical form: layers with names, constants folded |
//! | place | the model, options | a [`Scheme`]: every choice resolved, layer by layer |
//! | bound masks | samples | where a target runs integers alone, scores whose masks a quantizer can hold |
//! | smooth | a scheme, samples | the same function, channels of what products read divided where that loses less |
//! | calibrate | the scheme, samples | parameters of every quantizer, statistics of every layer's input |
//! | search | the scheme's room for choice, a target | a bit plan that keeps to the target |
//! | solve | weights, statistics | integers, scales and a bias for every layer |
//! | lower | all of that | a QDQ graph that says what it computes |
//! | verify | the float and the QDQ graph | how far their outputs are apart |
//! | guard | a loss that is too large | a bit plan that loses less; the phases from place on are done again for it |
//! | finish | the QDQ graph | the form, packing and names of the file |

mod cross_validation;
pub(crate) mod details;
mod guard;
mod held_out;
mod layers;
mod masks;
mod notes;
mod opset;
mod search;
mod smooth;
mod typical;
mod verify;

pub(crate) use search::{measure_part, search_and_quantize, search_only};

use crate::calibrate::magnitudes::{magnitudes, without_squares};
use crate::calibrate::observe::{Observed, Seen, Watch, see, see_shard, seen_by};
use crate::calibrate::synthetic::refuse_foreign_ids;
use crate::calibrate::{CalibrateError, Shard, ShardStatistics};
use crate::data::Dataset;
use crate::error::Error;
use crate::execute::coverage::{Coverage, refused_empty};
use crate::execute::masks::Masks;
use crate::execute::segment::text_outputs;
use crate::execute::stages::Limit;
use crate::execute::unroll::unrolled;
use crate::lower::{Shortened, finish, half_precision, simulated};
use crate::measure::CustomMetric;
use crate::measure::outputs::Outputs;
use crate::prepare::{PrepareError, admit, equalize, fuse_functions, prepare};
use crate::report::outputs::text_note;
use crate::report::{LearningReport, Quality, Report};
use crate::runtime::Runtime;
use crate::scheme::bit_plan::BitPlan;
use crate::scheme::options::{Float16, Format, Options, RoundingMode};
use crate::scheme::{Scheme, metadata, refuse_unknown, refuse_unknown_operators};
use crate::solve::network::{Biases, Solved, quantize_graph, round_layers};
use crate::solve::reconstruct::reconstruct;
use crate::solve::reconstruction::learn;
use crate::solve::{Solver, SolverRow, solver};
use cross_validation::Folds;
use indexmap::IndexMap;
use msq_passes::Magnitude;
use msq_passes::ir::{DataType, FileSet, Model, save_model};
use opset::{raise_opset, raise_quantized};
use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;
use typical::state_typical_shapes;

/// Factor that widens ranges observed on synthetic inputs: real inputs reach further.
const SYNTHETIC_MARGIN: f32 = 1.25;

/// A quantized model and the report of its making.
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

    /// Adds the model to files that are written together; returns its bytes, external data included.
    pub fn add_to(&self, files: &mut FileSet, path: impl AsRef<Path>) -> Result<u64, Error> {
        Ok(files.add_model(&self.model, path.as_ref())?)
    }
}

/// The inputs of calibration and solving.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calibration<'a> {
    /// The samples.
    pub data: &'a Dataset,
    /// Whether the samples are synthetic.
    pub synthetic: bool,
    /// The solver that a library user gives, in the place of the one that the options name.
    pub solver: Option<&'a dyn Solver>,
    /// Why there are no samples, where nothing can feed the model.
    pub unfed: Option<&'a str>,
    /// The caller's own metric.
    pub metric: Option<&'a CustomMetric>,
    /// What was counted of the samples elsewhere, in parts, so that they are not run here for that.
    pub statistics: Option<&'a [ShardStatistics]>,
}

impl Calibration<'_> {
    fn margin(&self) -> f32 {
        if self.synthetic { SYNTHETIC_MARGIN } else { 1.0 }
    }
}

/// Quantizes a float model with calibration data.
pub(crate) fn quantize(
    mut model: Model,
    calibration: Calibration,
    options: &Options,
    runtime: &Runtime,
) -> Result<Quantized, Error> {
    let prepared = Prepared::new(&mut model, options, runtime)?;
    let data = in_states(&model, calibration.data, options, runtime)?;
    let calibration = Calibration { data: &data, ..calibration };
    state_typical_shapes(&mut model, calibration, runtime);
    prepared.quantize(model, calibration, None, options, runtime)
}

/// Counts what a part of the samples says of the activations: [`quantize`] goes on from all parts.
pub(crate) fn count(
    mut model: Model,
    calibration: Calibration,
    shard: Shard,
    options: &Options,
    runtime: &Runtime,
) -> Result<ShardStatistics, Error> {
    Prepared::new(&mut model, options, runtime)?;
    let data = in_states(&model, calibration.data, options, runtime)?;
    let calibration = Calibration { data: &data, ..calibration };
    state_typical_shapes(&mut model, calibration, runtime);
    let plan = planned(&mut model, options, runtime)?;
    let (kept, _) = held_out::split(&model, &plan, calibration, None, options)?;
    let calibration = Calibration { data: &kept, ..calibration };
    masks::bound_masks(&mut model, calibration, options, runtime)?;
    smooth::smooth(&mut model, &plan, calibration, options, runtime)?;
    let watch = watch(calibration, options);
    let see = |scheme: &Scheme| see_shard(&model, scheme, (&kept, shard), watch, runtime);
    Ok(seen_in_scheme(&model, &plan, calibration, options, runtime, see)?.1)
}

/// The samples with the states that the float network has in them, those of one shape one after the other.
fn in_states<'d>(
    model: &Model,
    data: &'d Dataset,
    options: &Options,
    runtime: &Runtime,
) -> Result<Cow<'d, Dataset>, Error> {
    match unrolled(model, data, runtime)? {
        Cow::Owned(frames) => Ok(Cow::Owned(frames.grouped(options.verify.verify)?)),
        same @ Cow::Borrowed(_) => Ok(same),
    }
}

/// The bits of the layers of a prepared model, whose operator set is raised to what they need.
fn planned(model: &mut Model, options: &Options, runtime: &Runtime) -> Result<BitPlan, Error> {
    // Layers have their names now.
    let plan = resolved_plan(model, options)?;
    let wide = plan.is_wide() || options.scheme.encodings.is_wide();
    if wide && matches!(options.output.format, Format::Qlinear | Format::Integer) {
        return Err(Error::WideFormat { format: options.output.format });
    }
    raise_opset(model, &plan, wide, &options.output, runtime)?;
    Ok(plan)
}

/// Facts of a float model from before it was prepared.
struct Prepared {
    start: Instant,
    float_bytes: u64,
    opset: i64,
    /// Whether most of its weights were float16.
    half: bool,
    /// What a user should know of how the model was taken in.
    notes: Vec<String>,
}

impl Prepared {
    /// Brings the model into its canonical form.
    fn new(model: &mut Model, options: &Options, runtime: &Runtime) -> Result<Self, Error> {
        let start = Instant::now();
        let unknown = options.scheme.encodings.unknown(model);
        let float_bytes = model.stored_bytes();
        let opset = model.opset("").unwrap_or_default();
        let half = is_half(model);
        let mut notes = notes::fixed(&options.prepare.fix_input);
        notes.extend(admit(model, options.prepare.freeze_initializers, runtime.passes())?);
        if metadata::is_own_result(model) {
            return Err(PrepareError::OwnResult.into());
        }
        let operators: HashSet<String> = model.graph.nodes().map(|(_, node)| node.op().to_owned()).collect();
        let kept = &options.scheme.keep_float;
        prepare(model, options.prepare.batch_norm, kept, &*runtime.backend(), runtime.passes())?;
        if options.scheme.profile.integers_only {
            fuse_functions(model, kept, &*runtime.backend(), runtime.passes())?;
        }
        refuse_unknown_operators(kept, &operators, model)?;
        if options.prepare.equalize.unwrap_or(!options.scheme.profile.per_channel) {
            equalize(model, runtime.passes())?;
        }
        refuse_unknown(&unknown, model)?;
        check_choices(options)?;
        Ok(Self { start, float_bytes, opset, half, notes })
    }

    /// Calibrates, solves, lowers and verifies: on the samples of `validation`, or else on some of those calibrated on.
    fn quantize(
        &self,
        mut model: Model,
        calibration: Calibration,
        validation: Option<&Dataset>,
        options: &Options,
        runtime: &Runtime,
    ) -> Result<Quantized, Error> {
        let plan = planned(&mut model, options, runtime)?;
        if !calibration.synthetic {
            refuse_foreign_ids(&model, calibration.data)?;
        }
        let pool = thread_pool(runtime)?;
        let (kept, held_out) = held_out::split(&model, &plan, calibration, validation, options)?;
        let calibration = Calibration { data: &kept, ..calibration };
        pool.install(|| masks::bound_masks(&mut model, calibration, options, runtime))?;
        let smoothed = pool.install(|| smooth::smooth(&mut model, &plan, calibration, options, runtime))?;
        let float = model;
        let masks = Masks::chosen(&float, options.calibrate.masks);
        let outputs =
            Outputs::of(&float, &options.measure.output_kinds, masks, 0)?.scored(calibration.metric.is_some());
        let validation = validation.or(held_out.as_ref());
        if options.verify.verify > 0 {
            [Some(&kept), validation].into_iter().flatten().try_for_each(|data| outputs.check_labels(&float, data))?;
        }
        let calibrating = Instant::now();
        let (scheme, seen) = calibrate(&float, &plan, calibration, options, runtime)?;
        let calibrate_seconds = calibrating.elapsed().as_secs_f64();
        let magnitudes = match options.output.float16 {
            Some(Float16::All) if calibration.synthetic => {
                without_squares(&float, magnitudes(&float, &scheme, &kept, runtime)?)
            }
            Some(Float16::All) => magnitudes(&float, &scheme, &kept, runtime)?,
            _ => IndexMap::new(),
        };
        let (float, outputs, pool, magnitudes) = (&float, &outputs, &pool, &magnitudes);
        // What was float16 is stored so again where runtimes make float32 of it when they load the file.
        let as_before = (self.half && scheme.target.folds_decoders).then_some(Float16::Weights);
        let float16 = options.output.float16.or(as_before);
        let run = Run { float, outputs, calibration, validation, options, pool, float16, magnitudes, runtime };
        let made = run.make(scheme, &seen)?;
        let (made, repair) = guard::guarded(run, made, &seen)?;
        let Made { scheme, observed, solved, learning, mut model, quality, .. } = made;
        let data = calibration.data;
        let mut layers = layers::reports(float, &scheme, &solved);
        if options.verify.details && scheme.coverage.is_whole() && Limit::of(float, runtime.memory).is_none() {
            let run = details::Run { float, quantized: &model, scheme: &scheme, observed: &observed, solved: &solved };
            details::add(&mut layers, run, validation.unwrap_or(data), runtime)?;
        }
        // After the comparison: the engine does not run every form, and no form changes the function.
        let mut kept = layers::mark_float(&mut layers, &model, &scheme);
        kept.extend(layers::kept(&scheme));
        let halves = half_precision(float, &scheme, float16, magnitudes);
        let operands = notes::float_operands(&model);
        let (Shortened { values: names, nodes }, halved) =
            finish(&mut model, (float, &scheme), halves, runtime.passes())?;
        let plan = scheme.carried_out(float);
        metadata::write(&mut model, &plan, nodes.as_deref());
        metadata::write_fixed_inputs(&mut model, &options.prepare.fix_input);
        let mut report = Report {
            opset: self.opset,
            float_bytes: self.float_bytes,
            bytes: model.stored_bytes(),
            samples: data.len(),
            data: data.describe(),
            synthetic: calibration.synthetic,
            calibrate_seconds,
            seconds: self.start.elapsed().as_secs_f64(),
            options: options.clone(),
            plan,
            names,
            layers,
            float_layers: layers::float_reports(float, &scheme),
            stored: layers::stored_reports(&scheme, &solved),
            notes: self.notes.iter().cloned().chain(layers::notes(&scheme, &solved)).collect(),
            kept,
            float16: halved.filter(|made| options.output.float16.is_some() || made.constants > 0).map(layers::halved),
            learning,
            quality,
            repair,
            search: None,
        };
        report.notes.extend(notes::of_data(calibration, report.float16.as_ref())?);
        report.notes.extend(operands);
        report.notes.extend(text_note(&text_outputs(float)));
        report.notes.extend(smooth::note(smoothed));
        report.notes.extend(layers::growth(&report));
        Ok(Quantized { model, report })
    }
}

/// Whether most elements of the floats that a model stores are float16.
fn is_half(model: &Model) -> bool {
    let attributes =
        model.graph.nodes().filter(|(_, node)| node.is("Constant")).flat_map(|(_, node)| node.attributes());
    let initializers = model.graph.initializers().map(|(_, tensor)| tensor);
    let (mut half, mut all) = (0, 0);
    for tensor in initializers.chain(attributes.filter_map(|attribute| attribute.t.as_ref())) {
        let elements = if tensor.is_float() { tensor.element_count().unwrap_or_default() } else { 0 };
        all += elements;
        if tensor.element_type() == Some(DataType::Float16) {
            half += elements;
        }
    }
    2 * half > all
}

/// Pool for what runs in parallel besides the engine.
fn thread_pool(runtime: &Runtime) -> Result<rayon::ThreadPool, Error> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(runtime.threads).build();
    pool.map_err(|e| Error::Threads { threads: runtime.threads, reason: e.to_string() })
}

/// What a run works with once the model is prepared.
/// With the float model come its outputs, as they are compared.
#[derive(Clone, Copy)]
struct Run<'a> {
    float: &'a Model,
    outputs: &'a Outputs,
    calibration: Calibration<'a>,
    validation: Option<&'a Dataset>,
    options: &'a Options,
    pool: &'a rayon::ThreadPool,
    /// What of the result becomes float16.
    float16: Option<Float16>,
    /// How large the values of the float model are, where it is to compute in float16.
    magnitudes: &'a IndexMap<String, Magnitude>,
    runtime: &'a Runtime<'a>,
}

/// A quantized graph, as QDQ, and how it was made.
struct Made {
    scheme: Scheme,
    observed: Observed,
    solved: Solved,
    learning: Option<LearningReport>,
    model: Model,
    quality: Option<Quality>,
    /// Parts of the data that were compared with ranges from the others, where that was done.
    folds: Option<Folds>,
}

impl Run<'_> {
    /// Chooses ranges, solves, lowers and verifies.
    fn make(self, scheme: Scheme, seen: &Seen) -> Result<Made, Error> {
        let Run { float, outputs, calibration, validation, pool, runtime, .. } = self;
        let mut observed = seen.observed(float, &scheme, pool)?;
        let (solved, learning) =
            pool.install(|| solve((float, outputs), &scheme, &mut observed, calibration, runtime))?;
        let model = self.lowered(&scheme, &observed, &solved)?;
        let folds = cross_validation::folds(self, &scheme, seen, (&observed, &solved))?;
        let quality = if let Some(folds) = &folds {
            Some(cross_validation::quality(self, &scheme, folds)?)
        } else {
            let rounded = self.rounded(&scheme, &model)?;
            let of_calibration = (calibration.data, &seen.outputs[..]);
            let outputs = (outputs, calibration.metric);
            let compared = rounded.as_ref().unwrap_or(&model);
            verify::verify(compared, float, outputs, &scheme, validation, of_calibration, runtime)?
        };
        Ok(Made { scheme, observed, solved, learning, model, quality, folds })
    }

    /// The QDQ graph.
    fn lowered(self, scheme: &Scheme, observed: &Observed, solved: &Solved) -> Result<Model, Error> {
        let mut model = self.float.clone();
        quantize_graph(&mut model, scheme, observed, solved, Biases::Half, self.runtime.passes())?;
        if scheme.is_wide() {
            // Where a repair wants it; what the plan says was known before.
            raise_quantized(&mut model, self.runtime)?;
        }
        Ok(model)
    }

    /// The same with the roundings of float16, where there are such.
    fn rounded(self, scheme: &Scheme, model: &Model) -> Result<Option<Model>, Error> {
        let halves = half_precision(self.float, scheme, self.float16, self.magnitudes);
        Ok(halves.map(|halves| simulated(model, halves)).transpose()?)
    }
}

/// Resolves the scheme and observes the activations, for as much of the model as the engine runs.
fn calibrate(
    model: &Model,
    plan: &BitPlan,
    calibration: Calibration,
    options: &Options,
    runtime: &Runtime,
) -> Result<(Scheme, Seen), Error> {
    let (watch, data) = (watch(calibration, options), calibration.data);
    let see = |scheme: &Scheme| match calibration.statistics {
        Some(parts) => seen_by(parts, model, scheme, data, watch, runtime),
        None => see(model, scheme, data, watch, runtime),
    };
    seen_in_scheme(model, plan, calibration, options, runtime, see)
}

/// How activations are looked at.
fn watch(calibration: Calibration, options: &Options) -> Watch {
    Watch {
        observer: options.calibrate.observer,
        margin: calibration.margin(),
        outputs: options.verify.verify,
        distributions: options.verify.details,
    }
}

/// The scheme for as much of the model as the engine runs, and what `see` sees of it.
fn seen_in_scheme<T>(
    model: &Model,
    plan: &BitPlan,
    calibration: Calibration,
    options: &Options,
    runtime: &Runtime,
    see: impl Fn(&Scheme) -> Result<T, CalibrateError>,
) -> Result<(Scheme, T), Error> {
    let mut coverage = match calibration.unfed {
        Some(reason) => Coverage::nothing(model, reason.to_owned()),
        None => Coverage::within(model, runtime.memory),
    };
    loop {
        let scheme = Scheme::within(model, plan, options, coverage)?;
        scheme.check_encodings(model)?;
        match see(&scheme) {
            Ok(seen) => {
                if let Some(note) = scheme.coverage.note() {
                    tracing::warn!("{note}");
                }
                return Ok((scheme, seen));
            }
            Err(error) => {
                let part = || scheme.coverage.part(model);
                if let Some(refused) = error.of_engine().and_then(|_| refused_empty(&part(), calibration.data, runtime))
                {
                    return Err(refused.into());
                }
                let less = error.of_engine().and_then(|e| scheme.coverage.less(model, calibration.data, runtime, e));
                coverage = less.ok_or(error)?;
            }
        }
    }
}

/// Solves every layer: without statistics first, then by statistics of its input where the solver needs them; and says what
/// layers learned meanwhile.
fn solve(
    (model, outputs): (&Model, &Outputs),
    scheme: &Scheme,
    observed: &mut Observed,
    calibration: Calibration,
    runtime: &Runtime,
) -> Result<(Solved, Option<LearningReport>), Error> {
    let of_scheme;
    let solver = if let Some(given) = calibration.solver {
        given
    } else {
        of_scheme = solver(scheme)?;
        of_scheme.as_ref()
    };
    let mut solved = round_layers(model, scheme, observed, solver)?;
    reconstruct(model, scheme, observed, &mut solved, calibration.data, solver, runtime)?;
    let learned = match solver.learning() {
        Some(how) => {
            learn((model, outputs), scheme, (observed, &mut solved), calibration.data, (solver, how), runtime)?
        }
        None => None,
    };
    Ok((solved, learned))
}

/// Refuses forms that the target does not run, and contradictory choices.
fn check_choices(options: &Options) -> Result<(), Error> {
    let profile = &options.scheme.profile;
    let refused = match options.output.format {
        Format::Qlinear if !profile.qlinear => Some("QLinearConv and its kin"),
        Format::Integer if !profile.integer => Some("ConvInteger and its kin"),
        Format::Nbits if !profile.contrib || profile.blocks.is_none() => Some("MatMulNBits"),
        _ if options.output.functions && !profile.functions => Some("functions of the model"),
        _ => None,
    };
    let solver = options.solve.solver.as_ref().map(SolverRow::of).transpose()?;
    if options.solve.rounding == RoundingMode::Stochastic && solver.is_some_and(|row| !row.has_option("rounding")) {
        return Err(Error::StochasticSolver);
    }
    match refused {
        Some(form) => Err(Error::Target { profile: profile.name, form }),
        None => Ok(()),
    }
}

/// The plan for the layers of this model, with the bits of the first and the last layers and those that encodings give.
fn resolved_plan(model: &Model, options: &Options) -> Result<BitPlan, Error> {
    let chosen = &options.scheme;
    let plan = chosen.plan.resolved(model, chosen.first_last_bits, &chosen.profile)?;
    let plan = plan.with_fitting_products(model, &chosen.profile);
    let plan = if options.takes_trellis(model) { plan.with_trellis() } else { plan };
    if chosen.encodings.tensors.is_empty() {
        return Ok(plan);
    }
    let scheme = Scheme::new(model, &plan, options)?;
    Ok(chosen.encodings.planned(model, &scheme.placement, &plan)?)
}
