//! The lengths that a model leaves open, as its samples have them: what runs faster on integers depends on them. A file
//! may say nothing of inner values although its inputs leave only the number of samples open, as behind a `Reshape` to a
//! computed shape.

use super::Calibration;
use crate::data::{Dataset, Sample};
use crate::execute::segment::state_shapes_of;
use crate::runtime::Runtime;
use msq_passes::ir::{Model, TypeProto, ValueId};
use std::collections::HashMap;

/// States the shapes that values have for the sample of middle size, where more is open than the number of samples. Without
/// effect where lengths of inputs are made up, and where the engine cannot tell: prices are unknown then.
pub(super) fn state_typical_shapes(model: &mut Model, calibration: Calibration, runtime: &Runtime) {
    let is_open =
        |shape: Option<Vec<Option<usize>>>| shape.is_none_or(|shape| shape.iter().skip(1).any(Option::is_none));
    let shape = |value: ValueId| model.graph.value(value).shape();
    let opens_inputs = model.graph.runtime_inputs().map(shape).any(is_open);
    let opens_inside =
        || model.graph.nodes().any(|(_, node)| node.outputs().iter().flatten().any(|&value| is_open(shape(value))));
    if (calibration.synthetic && opens_inputs) || !(opens_inputs || opens_inside()) {
        return;
    }
    let Some(sample) = middle(calibration.data) else { return };
    let mut fixed = model.clone();
    state_shapes_of(&sample, &mut fixed);
    let shapes = match runtime.backend().infer(&fixed) {
        Ok(facts) => facts.types.into_iter().filter_map(|(name, ty)| Some((name, whole(&ty)?))).collect(),
        Err(error) => {
            tracing::info!(%error, "shapes of a typical sample are not known");
            HashMap::new()
        }
    };
    model.set_typical_shapes(shapes);
}

/// The lengths of a shape that are all known. Of nothing no work could be counted: an axis of length zero counts as one.
fn whole(ty: &TypeProto) -> Option<Vec<usize>> {
    ty.shape()?.into_iter().map(|length| Some(length?.max(1))).collect()
}

/// The sample with the middle number of elements, the first where sizes are unknown.
fn middle(data: &Dataset) -> Option<Sample> {
    let shapes = data.sample_shapes().ok()?;
    let size = |shapes: &Vec<Vec<usize>>| shapes.iter().map(|shape| shape.iter().product::<usize>()).sum::<usize>();
    let mut order: Vec<usize> = (0..shapes.len()).collect();
    if shapes.iter().all(Option::is_some) {
        order.sort_by_key(|&at| shapes[at].as_ref().map(size));
        data.sample(*order.get(order.len() / 2)?).ok()
    } else {
        data.sample(0).ok()
    }
}
