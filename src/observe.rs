//! Parameters of every activation: taps, calibration, ranges.

use crate::calibrate::{Collected, ObserverKind, Statistics, TapSource, Taps, collect, widen};
use crate::data::Dataset;
use crate::progress::Progress;
use crate::quant::{GridSpec, Range};
use crate::{Error, Options};
use indexmap::IndexMap;
use msq_passes::analysis::Placement;
use msq_passes::ir::{Model, ValueId};
use msq_passes::{ActivationQuantizer, InsertTaps, Manager};

/// What calibration found.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Parameters by value name.
    pub activations: IndexMap<String, ActivationQuantizer>,
    /// Statistics by value name; constants have none.
    pub statistics: IndexMap<String, Statistics>,
    /// The float model's outputs for the first samples.
    pub outputs: Vec<Vec<Vec<f32>>>,
}

/// Runs the data through the model and chooses the parameters of every value that needs its own. Ranges are widened
/// by `margin` where the data is made up.
pub fn observe(
    model: &Model,
    placement: &Placement,
    data: &Dataset,
    options: &Options,
    margin: f32,
    progress: &dyn Progress,
) -> Result<Observed, Error> {
    if data.is_empty() {
        return Err(Error::NoSamples);
    }
    let (constants, tapped): (Vec<ValueId>, Vec<ValueId>) =
        placement.roots().partition(|&v| model.graph.constant(v).is_some());
    let name = |&v: &ValueId| model.graph.value(v).name().to_owned();
    let names: Vec<String> = tapped.iter().map(name).collect();
    let tapped_model = tap(model, &names)?;
    let taps = Taps {
        sources: sources(&tapped_model, &names),
        model: &tapped_model,
        names: names.clone(),
        outputs: model.graph.outputs().len(),
    };
    progress.begin("calibrate", data.len() as u64);
    let Collected { taps, outputs } = collect(&taps, data, options.verify, options.threads, progress)?;
    progress.end();
    let grid = if options.profile.signed_activations { GridSpec::ACTIVATION_S8 } else { GridSpec::ACTIVATION_U8 };
    let mut activations = IndexMap::new();
    for ((&value, name), statistics) in tapped.iter().zip(&names).zip(&taps) {
        let bound = placement.clamp_of(&model.graph, value).flatten();
        activations.insert(name.clone(), choose(statistics, options.observer, grid, margin, bound));
    }
    for value in constants {
        let Some(tensor) = model.constant(value) else { continue };
        let mut statistics = Statistics::new();
        statistics.observe(&tensor?.to_f32()?);
        activations.insert(name(&value), choose(&statistics, ObserverKind::MinMax, grid, 1.0, None));
    }
    Ok(Observed { activations, statistics: names.into_iter().zip(taps).collect(), outputs })
}

fn tap(model: &Model, names: &[String]) -> Result<Model, Error> {
    let mut tapped = model.clone();
    let values = names.iter().filter(|n| tapped.graph.find(n).is_some_and(|v| !tapped.graph.is_input(v)));
    let values = values.cloned().collect();
    Manager::new().with(InsertTaps { values }).run(&mut tapped)?;
    Ok(tapped)
}

/// Where each tap is found when the tapped model runs. Names come from the model, so each is found.
fn sources(tapped: &Model, names: &[String]) -> Vec<TapSource> {
    let position = |name: &str| {
        let value = tapped.graph.find(name)?;
        let input = tapped.graph.runtime_inputs().position(|v| v == value).map(TapSource::Input);
        input.or_else(|| tapped.graph.outputs().position(|v| v == value).map(TapSource::Output))
    };
    names.iter().map(|name| position(name).unwrap_or(TapSource::Output(0))).collect()
}

/// Parameters from statistics. The range never passes the bound of an absorbed clamp: the quantizer stands for it.
fn choose(
    statistics: &Statistics,
    observer: ObserverKind,
    grid: GridSpec,
    margin: f32,
    bound: Option<f32>,
) -> ActivationQuantizer {
    let range = widen(observer.range(statistics, grid), margin);
    let range = bound.map_or(range, |bound| Range::new(range.min, range.max.min(bound)));
    let affine = grid.affine(range);
    ActivationQuantizer { scale: affine.scale, zero_point: affine.zero_point, signed: affine.quantized_min < 0 }
}
