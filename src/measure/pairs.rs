//! Layers and values of two models that are the same, whatever they are called.

use super::MeasureError;
use super::inspect::{Located, located_layers};
use crate::prepare::{BatchNorm, FreezeInitializers, admit, prepare, refuse_quantized};
use crate::runtime::Runtime;
use msq_passes::analysis::LayerOp;
use msq_passes::ir::{Model, ValueId};
use std::collections::HashMap;

/// Depthwise layers get channels up to a multiple of so many.
const MULTIPLE: usize = 16;

/// The layers of a reference and a model, each in the form in which the two can be compared.
pub(super) fn both_canonical(models: [&mut Model; 2], runtime: &Runtime) -> Result<[Vec<Located>; 2], MeasureError> {
    let [first, second] = models;
    let keeps_norms = [has_batch_norms(first), has_batch_norms(second)];
    Ok([canonical(first, keeps_norms[1], runtime)?, canonical(second, keeps_norms[0], runtime)?])
}

/// Copies of two models, and names of values of both: the second name, and that in the first model.
type Paired = ([Model; 2], Vec<(String, String)>);

/// Copies of a reference and a model in which what paired layers compute has a second name that both know, and for each
/// such name that of the reference.
pub(super) fn by_layers(reference: &Model, model: &Model, runtime: &Runtime) -> Result<Paired, MeasureError> {
    let (mut first, mut second) = (reference.clone(), model.clone());
    let layers = both_canonical([&mut first, &mut second], runtime)?;
    let mut names = Vec::new();
    for (at, (a, b)) in paired(&layers[0], &layers[1]).into_iter().enumerate() {
        let (name, own) = (format!("computes {at}"), first.graph.value(a.output).name().to_owned());
        if name_value(&mut first, a.output, &name) && name_value(&mut second, b.output, &name) {
            names.push((name, own));
        }
    }
    Ok(([first, second], names))
}

fn has_batch_norms(model: &Model) -> bool {
    model.graph.nodes().any(|(_, node)| node.is("BatchNormalization"))
}

/// The layers of a model: of a float one in the form in which it is quantized, with batch-norms as in the other model.
fn canonical(model: &mut Model, keep_norms: bool, runtime: &Runtime) -> Result<Vec<Located>, MeasureError> {
    crate::prepare::check(model)?;
    let quantized = located_layers(model);
    if quantized.iter().any(|layer| !layer.layer.is_float()) {
        return Ok(quantized);
    }
    // Written out on integers, a model has layers that are not recognized as such, and is no float model to take in.
    if refuse_quantized(model).is_ok() {
        admit(model, FreezeInitializers::default(), None)?;
    }
    prepare(model, if keep_norms { BatchNorm::Affine } else { BatchNorm::Fold }, &[], &*runtime.backend(), None)?;
    Ok(located_layers(model))
}

/// Pairs of layers: by name if the second model has all names of the first, else by order where the sizes agree, else
/// those with the same name.
pub(super) fn paired<'a>(a: &'a [Located], b: &'a [Located]) -> Vec<(&'a Located, &'a Located)> {
    let by_name: HashMap<&str, &Located> = b.iter().map(|layer| (layer.layer.name.as_str(), layer)).collect();
    let named = a.iter().filter_map(|layer| Some((layer, *by_name.get(layer.layer.name.as_str())?)));
    let named: Vec<_> = named.filter(|(a, b)| are_alike(a, b)).collect();
    let alike = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| are_alike(a, b));
    if named.len() < a.len() && alike { a.iter().zip(b).collect() } else { named }
}

/// Whether layers have as many weights, or the second one the channels that `widen-channels` adds.
fn are_alike(a: &Located, b: &Located) -> bool {
    let (narrow, wide) = (&a.layer.shape, &b.layer.shape);
    let widened = || {
        let is_more = |(&few, &many): (&usize, &usize)| many == few || many == few.next_multiple_of(MULTIPLE);
        let channels = narrow.iter().zip(wide).take(2).all(is_more);
        a.layer.op == LayerOp::Conv && narrow.len() == wide.len() && channels && narrow.get(2..) == wide.get(2..)
    };
    a.layer.weights == b.layer.weights || widened()
}

/// Gives a value a second name, by which both models know it; not if a model has the name for something else.
pub(super) fn name_value(model: &mut Model, value: ValueId, name: &str) -> bool {
    let named = model.graph.add_op("Identity", &[Some(value)], Vec::new(), name);
    model.graph.value(named).name() == name
}
