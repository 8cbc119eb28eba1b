//! The story of a run: prepare, place, calibrate, search where bits are to be found, solve, lower, verify, finish.
//!
//! | phase | takes | promises the next |
//! |---|---|---|
//! | prepare | a float model as exported | the same function in canonical form: layers with names, constants folded |
//! | place | the model, options | a [`Scheme`]: every choice resolved, layer by layer |
//! | bound masks | samples | where a target runs integers alone, scores whose masks a quantizer can hold |
//! | smooth | a scheme, samples | the same function, channels of what products read divided where that loses less |
//! | split | a scheme, samples | channels that quantizers may clip, with ranges for all others |
//! | calibrate | the scheme, samples | parameters of every quantizer, statistics of every layer's input |
//! | search | the scheme's room for choice, a target | a bit plan that keeps to the target |
//! | solve | weights, statistics | integers, scales and a bias for every layer |
//! | lower | all of that | a QDQ graph that says what it computes |
//! | verify | the float and the QDQ graph | how far their outputs are apart |
//! | guard | a loss that is too large | a bit plan that loses less; the phases from place on are done again for it |
//! | finish | the QDQ graph | the form, packing and names of the file |

mod balance;
mod calibration;
mod cross_validation;
mod data_notes;
pub(crate) mod details;
mod floats;
mod guard;
mod held_out;
mod layers;
mod masks;
mod notes;
mod opset;
mod outliers;
mod plan;
mod search;
mod smooth;
mod typical;
mod verify;

pub(crate) use calibration::Calibration;
pub(crate) use search::{measure_part, search_and_quantize, search_only};

use crate::calibrate::magnitudes::{magnitudes, without_squares};
use crate::calibrate::observe::{Observed, Seen, see_shard};
use crate::calibrate::synthetic::refuse_foreign_ids;
use crate::calibrate::{Shard, ShardStatistics};
use crate::data::Dataset;
use crate::error::Error;
use crate::execute::masks::Masks;
use crate::execute::segment::text_outputs;
use crate::execute::stages::Limit;
use crate::execute::unroll::unrolled;
use crate::lower::{Shortened, finish, half_precision, simulated};
use crate::measure::outputs::Outputs;
use crate::prepare::{PrepareError, admit, equalize, fuse_functions, prepare};
use crate::report::outputs::text_note;
use crate::report::{LearningReport, Quality, Report};
use crate::runtime::Runtime;
use crate::scheme::options::{Float16, Options};
use crate::scheme::{Scheme, metadata, refuse_unknown, refuse_unknown_operators};
use crate::solve::layerwise::solve_layerwise;
use crate::solve::network::{Biases, Solved, quantize_graph, round_layers};
use crate::solve::reconstruction::learn;
use crate::solve::solver;
use calibration::{calibrate, seen_in_scheme, watch};
use cross_validation::Folds;
use indexmap::IndexMap;
use msq_passes::Magnitude;
use msq_passes::ir::{DataType, FileSet, Model, save_model};
use opset::raise_quantized;
use plan::{check_choices, planned};
use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;
use typical::state_typical_shapes;

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

/// Quantizes a float model with calibration data.
pub(crate) fn quantize(
    mut model: Model,
    calibration: Calibration,
    options: &Options,
    runtime: &Runtime,
) -> Result<Quantized, Error> {
    let (prepared, data) = begin(&mut model, calibration, options, runtime)?;
    let calibration = Calibration { data: &data, ..calibration };
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
    let (_, data) = begin(&mut model, calibration, options, runtime)?;
    let calibration = Calibration { data: &data, ..calibration };
    let plan = planned(&mut model, options, runtime)?;
    let (kept, _) = held_out::split(&model, &plan, calibration, None, options)?;
    let calibration = Calibration { data: &kept, ..calibration };
    masks::bound_masks(&mut model, calibration, options, runtime)?;
    balance::balance(&mut model, &plan, options, runtime)?;
    smooth::smooth(&mut model, &plan, calibration, options, runtime)?;
    let watch = watch(calibration, options);
    let see = |scheme: &Scheme| see_shard(&model, scheme, (&kept, shard), watch, runtime);
    Ok(seen_in_scheme(&model, &plan, calibration, options, runtime, see)?.1)
}

/// What every run begins with: the model in its canonical form and with the shapes that a typical sample gives its values;
/// and the calibration samples in the states that this model has in them.
fn begin<'d>(
    model: &mut Model,
    calibration: Calibration<'d>,
    options: &Options,
    runtime: &Runtime,
) -> Result<(Prepared, Cow<'d, Dataset>), Error> {
    let prepared = Prepared::new(model, options, runtime)?;
    let data = in_states(model, calibration.data, options, runtime)?;
    state_typical_shapes(model, Calibration { data: &data, ..calibration }, runtime);
    Ok((prepared, data))
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
        let opset = model.opset("");
        let half = is_half(model);
        let mut notes = notes::fixed(&options.prepare.fix_input);
        notes.extend(notes::unknown_operator(model));
        notes.extend(notes::branches(model));
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
        model.let_go_of_file();
        let opset = opset.or(model.opset("")).unwrap_or_default();
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
        let (kept, held_out) = held_out::split(&model, &plan, calibration, validation, options)?;
        let calibration = Calibration { data: &kept, ..calibration };
        masks::bound_masks(&mut model, calibration, options, runtime)?;
        let balanced = balance::balance(&mut model, &plan, options, runtime)?;
        let smoothed = smooth::smooth(&mut model, &plan, calibration, options, runtime)?;
        let options = &outliers::split(&model, &plan, calibration, options, runtime)?;
        let float = model;
        let masks = Masks::chosen(&float, options.calibrate.masks);
        let outputs = Outputs::of(&float, &options.measure.output_kinds, masks, 0)?.fed_back(calibration.data.links());
        let outputs = outputs.scored(calibration.metric.is_some());
        let validation = validation.or(held_out.as_ref().map(|held_out| &held_out.compared));
        let others = held_out.as_ref().map(|held_out| &held_out.others);
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
        let (float, outputs, magnitudes) = (&float, &outputs, &magnitudes);
        // What was float16 is stored so again where runtimes make float32 of it when they load the file.
        let as_before = (self.half && scheme.target.folds_decoders).then_some(Float16::Weights);
        let float16 = options.output.float16.or(as_before);
        let compared = None;
        let run =
            Run { float, outputs, calibration, validation, others, compared, options, float16, magnitudes, runtime };
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
        kept.extend(layers::kept(&scheme, &model));
        let halves = half_precision(float, &scheme, float16, magnitudes);
        let operands = notes::float_operands(&model);
        let staying = floats::staying(float, &model);
        let (Shortened { values: names, nodes }, halved) =
            finish(&mut model, (float, &scheme), halves, runtime.passes())?;
        let plan = scheme.carried_out(float);
        metadata::write(&mut model, &plan, nodes.as_deref());
        metadata::write_fixed_inputs(&mut model, &options.prepare.fix_input);
        let unused = notes::unused_format(&model, &scheme);
        let made_of = layers::notes(&scheme, &solved, (&model, unused.is_none()));
        let mut report = Report {
            opset: self.opset,
            float_bytes: self.float_bytes,
            bytes: model.stored_bytes(),
            samples: data.len(),
            data: data.describe(),
            preprocessing: data.preprocessing(),
            synthetic: calibration.synthetic,
            calibrate_seconds,
            seconds: self.start.elapsed().as_secs_f64(),
            options: options.clone(),
            plan,
            names,
            layers,
            float_layers: layers::float_reports(float, &scheme),
            stored: layers::stored_reports(&scheme, &solved),
            notes: self.notes.iter().cloned().chain(made_of).collect(),
            kept,
            float16: halved.filter(|made| options.output.float16.is_some() || made.constants > 0).map(layers::halved),
            learning,
            quality,
            repair,
            search: None,
        };
        report.notes.extend(data_notes::of_data(float, calibration, &seen, report.float16.as_ref())?);
        report.notes.extend(notes::made_up_ranges(calibration.synthetic, &scheme));
        report.notes.extend(unused);
        report.notes.extend(operands);
        report.notes.extend(notes::wider_tables(&scheme, &report.stored));
        report.notes.extend(notes::lookups(scheme.lookups));
        report.notes.extend(text_note(&text_outputs(float)));
        report.notes.extend(balance::note(balanced));
        report.notes.extend(smooth::note(smoothed));
        report.notes.extend(outliers::note(options));
        report.notes.extend(layers::growth(&report, staying.as_deref()));
        report.notes.extend(notes::chosen(&report));
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

/// What a run works with once the model is prepared.
/// With the float model come its outputs, as they are compared.
#[derive(Clone, Copy)]
struct Run<'a> {
    float: &'a Model,
    outputs: &'a Outputs,
    calibration: Calibration<'a>,
    validation: Option<&'a Dataset>,
    /// More samples that are held out.
    others: Option<&'a Dataset>,
    /// The places of the samples that a repaired result is compared on, each with ranges from others, where it was judged so.
    compared: Option<&'a [usize]>,
    options: &'a Options,
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
        let Run { float, outputs, calibration, validation, runtime, .. } = self;
        let mut observed = seen.observed(float, &scheme)?;
        let (solved, learning) = solve((float, outputs), &scheme, &mut observed, calibration, runtime)?;
        let model = self.lowered(&scheme, &observed, &solved)?;
        // What was judged so before it was repaired is compared so again.
        let divides = self.compared.is_some() || cross_validation::is_needed(self, &scheme, seen, &observed)?;
        let made_of = (&observed, &solved);
        let folds = divides.then(|| cross_validation::folds(self, &scheme, made_of)).transpose()?;
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

    /// The QDQ graph with the roundings of float16, where the file has any.
    fn rounded(self, scheme: &Scheme, model: &Model) -> Result<Option<Model>, Error> {
        let halves = half_precision(self.float, scheme, self.float16, self.magnitudes);
        Ok(halves.map(|halves| simulated(model, halves)).transpose()?)
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
    solve_layerwise(model, scheme, observed, &mut solved, calibration.data, solver, runtime)?;
    let learned = match solver.learning() {
        Some(how) => {
            learn((model, outputs), scheme, (observed, &mut solved), calibration.data, (solver, how), runtime)?
        }
        None => None,
    };
    Ok((solved, learned))
}
