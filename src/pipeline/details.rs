//! Details of layers in a report: the error of each layer's output in the quantized network, and the values of the
//! worst layers on their grids.

use crate::calibrate::observe::Observed;
use crate::data::Dataset;
use crate::error::Error;
use crate::measure::evaluate::{Request, compare};
use crate::report::{Distribution, LayerReport};
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::scheme::options::MeasureOptions;
use crate::solve::Solved;
use crate::solve::target_weight;
use msq_passes::analysis::Layer;
use msq_passes::ir::Model;
use msq_passes::{ActivationQuantizer, QuantizedLayer};
use std::collections::HashMap;

/// Samples the networks are compared on.
const SAMPLES: usize = 64;
/// Layers whose values are shown.
const WORST: usize = 6;

/// A run so far.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub float: &'a Model,
    /// The QDQ graph, whose values have their names in the float model.
    pub quantized: &'a Model,
    pub scheme: &'a Scheme,
    pub observed: &'a Observed,
    pub solved: &'a Solved,
}

/// Adds the details to the layers of the report.
pub(crate) fn add(layers: &mut [LayerReport], run: Run, data: &Dataset, runtime: &Runtime) -> Result<(), Error> {
    let by_name: HashMap<&str, &Layer> = run.scheme.layers().map(|layer| (layer.name.as_str(), layer)).collect();
    let errors = errors(&by_name, run, &data.range(0, SAMPLES), runtime)?;
    for layer in &mut *layers {
        layer.network_sqnr = errors.get(&layer.name).copied();
    }
    let mut worst: Vec<&mut LayerReport> = layers.iter_mut().filter(|layer| layer.sqnr().is_some()).collect();
    worst.sort_by(|a, b| a.sqnr().unwrap_or_default().total_cmp(&b.sqnr().unwrap_or_default()));
    for report in worst.into_iter().take(WORST) {
        let Some((layer, rounded)) = by_name.get(report.name.as_str()).zip(run.solved.get(&report.name)) else {
            continue;
        };
        let affine = run.scheme.placement.affine_of(run.float, layer).transpose()?;
        let weight = target_weight(run.float, layer, affine.as_ref())?;
        report.weight_distribution = Some(weight_distribution(layer, &weight, &rounded.layer));
        report.input_distribution = input_distribution(run, layer);
    }
    Ok(())
}

/// Signal-to-noise ratio of each layer's output, by the layer's name; `None` where the output is exact.
fn errors(
    layers: &HashMap<&str, &Layer>,
    run: Run,
    data: &Dataset,
    runtime: &Runtime,
) -> Result<HashMap<String, f64>, Error> {
    let (float, graph) = (run.float, &run.float.graph);
    let outputs: Vec<_> = graph.outputs().collect();
    let written = |layer: &Layer| run.scheme.placement.written_by(graph, layer);
    let values = run.scheme.layers().map(written).filter(|value| !outputs.contains(value));
    let mut names: Vec<String> = values.map(|value| graph.value(value).name().to_owned()).collect();
    names.retain(|name| run.quantized.graph.find(name).is_some());
    names.sort_unstable();
    names.dedup();
    let options = MeasureOptions::default();
    let request = Request {
        options: &options,
        shared: &names,
        masks: !run.scheme.masks.is_off(),
        labels: false,
        save_outputs: None,
    };
    let found = compare(run.quantized, Some(float), data, request, runtime)?;
    let inner: HashMap<&str, f64> = found.values.iter().filter_map(|v| Some((v.name.as_str(), v.sqnr?))).collect();
    let error = |layer: &Layer| match outputs[..] {
        // A graph output cannot be tapped, but it is compared anyway.
        [output] if output == written(layer) => found.agreement?.sqnr,
        _ => inner.get(graph.value(written(layer)).name()).copied(),
    };
    Ok(layers.values().filter_map(|layer| Some((layer.name.clone(), error(layer)?))).collect())
}

/// Weights in steps of their channel's scale.
fn weight_distribution(layer: &Layer, weight: &[f32], quantized: &QuantizedLayer) -> Distribution {
    let axis = layer.axis.filter(|_| quantized.scales.len() > 1);
    let inner = axis.map_or(weight.len(), |axis| layer.shape[axis + 1..].iter().product()).max(1);
    let scales = quantized.scales.iter().cycle().flat_map(|&scale| std::iter::repeat_n(scale, inner));
    let steps: Vec<f64> = weight.iter().zip(scales).map(|(&w, s)| f64::from(w) / f64::from(s)).collect();
    let mut grid: Vec<f64> = quantized.weight.iter().map(f64::from).collect();
    grid.sort_by(f64::total_cmp);
    grid.dedup();
    let ends = || steps.iter().chain(&grid).copied();
    let (min, max) = (ends().fold(f64::INFINITY, f64::min), ends().fold(f64::NEG_INFINITY, f64::max));
    Distribution { grid, ..Distribution::count(min, max, steps.into_iter().map(|step| (step, 1))) }
}

/// A layer's input on the grid of its quantizer; `None` where it has no quantizer or its input was not counted.
fn input_distribution(run: Run, layer: &Layer) -> Option<Distribution> {
    let Run { float, scheme, observed, .. } = run;
    let quantizer @ ActivationQuantizer { scale, zero_point, .. } =
        observed.read_by(float, &scheme.placement, layer).filter(|_| scheme.is_on_integers(layer))?;
    let (low, high) = quantizer.interval();
    let grid = (low..=high).map(|q| f64::from(q - zero_point) * f64::from(scale)).collect();
    let seen = observed.distributions.get(float.graph.value(scheme.placement.root(layer.input)).name())?;
    Some(Distribution { grid, ..seen.clone() })
}
