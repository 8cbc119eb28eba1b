//! The lengths that a model leaves open, as its samples have them: what runs faster on integers depends on them.

use super::Calibration;
use crate::data::{Dataset, Sample};
use crate::execute::segment::state_shapes_of;
use crate::runtime::Runtime;
use msq_passes::ir::{Model, TypeProto};
use std::collections::HashMap;

/// States the shapes that values have for the sample of middle size, where more is open than the number of samples. Without
/// effect where samples are made up, and where the engine cannot tell: prices are unknown then.
pub(super) fn state_typical_shapes(model: &mut Model, calibration: Calibration, runtime: &Runtime) {
    let is_open = |(at, length): (usize, &Option<usize>)| at > 0 && length.is_none();
    let shapes = model.graph.runtime_inputs().map(|input| model.graph.value(input).shape());
    if calibration.synthetic || !shapes.flatten().any(|shape| shape.iter().enumerate().any(is_open)) {
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
