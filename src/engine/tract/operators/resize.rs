//! `Resize` and `Upsample` where tract computes other numbers than onnxruntime.
//!
//! An axis of length n becomes one of length m; place i of m lies at x of n:
//!
//! * aligned corners: `x = i·(n − 1)/(m − 1)`. tract takes n·scale for m where scales are given, which is no integer then.
//! * a crop of an image between shares a and b, unless it keeps its size, which onnxruntime copies: `x = a·(n − 1) + i·(b − a)·(n − 1)/(m − 1)`; what lies beyond the image has a
//!   value of its own.
//! * `Resize` of operator set 10, and `Upsample`: `x = i/scale`, rounded down to the nearest, or up where the axis shrinks.
//!
//!
//! Everything else is left to tract. Axes are resized one after the other, which for linear and cubic weights is the same as
//! all at once.

use super::{Built, Evaluate, around, axis, integers, tracts, wire_floats};
use tract_onnx::model::{ParsingContext, optional_inputs};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumExt, OutletId, TDim, TValue, Tensor, ToDim};
use tract_onnx::tract_core::internal::{
    StaticName, TVec, TractResult, TypedFact, TypedModel, bail, ensure, format_err, tvec,
};
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{DimLike, Expansion, check_output_arity, expand};

/// Where a place of the result lies in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coordinates {
    AlignedCorners,
    Crop,
    /// i / scale, as operator set 10 has it.
    Simple,
}

/// What is made of the values around a place.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Nearest(Rounding),
    Linear,
    Cubic { a: f32, excludes_outside: bool },
}

/// Which of two places is the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounding {
    HalfDown,
    HalfUp,
    Floor,
    Ceil,
    /// Up where the axis shrinks, down where it grows.
    ByScale,
}

/// The operator before shapes are known.
#[derive(Clone, Debug, PartialEq)]
struct Resize {
    coordinates: Coordinates,
    mode: Mode,
    /// The value beyond the image of a crop.
    beyond: f32,
    axes: Option<Vec<i64>>,
    crop: Option<usize>,
    scales: Option<usize>,
    sizes: Option<usize>,
    /// Scales that are an attribute.
    fixed_scales: Option<Vec<f32>>,
}

/// One axis that is resized.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    at: usize,
    length: usize,
    scale: f32,
    /// The shares of the image where a crop begins and ends.
    crop: [f32; 2],
}

/// The operator with the axes whose length changes, or that are cropped.
#[derive(Clone, Debug, PartialEq)]
struct Resized {
    coordinates: Coordinates,
    mode: Mode,
    beyond: f32,
    axes: Vec<Axis>,
}

pub(super) fn build(context: &ParsingContext, node: &NodeProto) -> Built {
    let is_old = context.onnx_operator_set_version <= 10 || node.op_type == "Upsample";
    let given: Vec<Option<usize>> = optional_inputs(node).take(4).collect();
    let is_scaled = node.input.get(2).is_some_and(|name| !name.is_empty());
    let has_sizes = given[3].is_some();
    let named = node.get_attr_opt::<&str>("coordinate_transformation_mode")?.unwrap_or("half_pixel");
    let stretches = !super::is_other(node, "keep_aspect_ratio_policy", "stretch")?;
    let smooths = node.get_attr_opt::<i64>("antialias")?.unwrap_or(0) != 0;
    let coordinates = match named {
        _ if is_old => Coordinates::Simple,
        "align_corners" if is_scaled && !has_sizes => Coordinates::AlignedCorners,
        "tf_crop_and_resize" => Coordinates::Crop,
        _ => return tracts(context, node),
    };
    if smooths || !stretches {
        return tracts(context, node);
    }
    let rounding = match node.get_attr_opt::<&str>("nearest_mode")?.unwrap_or("round_prefer_floor") {
        _ if is_old => Rounding::ByScale,
        "round_prefer_floor" => Rounding::HalfDown,
        "round_prefer_ceil" => Rounding::HalfUp,
        "floor" => Rounding::Floor,
        "ceil" => Rounding::Ceil,
        other => bail!("nearest_mode {other} is not known"),
    };
    let excludes_outside = node.get_attr_opt::<i64>("exclude_outside")?.unwrap_or(0) != 0;
    let mode = match node.get_attr_opt::<&str>("mode")?.unwrap_or("nearest") {
        "nearest" => Mode::Nearest(rounding),
        "linear" | "bilinear" => Mode::Linear,
        "cubic" => Mode::Cubic { a: node.get_attr_opt("cubic_coeff_a")?.unwrap_or(-0.75), excludes_outside },
        other => bail!("mode {other} is not known"),
    };
    // Before operator set 11 the second input is the scales, and before 9 they are an attribute.
    let [crop, scales, sizes] = if is_old { [None, given[1], None] } else { [given[1], given[2], given[3]] };
    let fixed_scales = match scales {
        Some(_) => None,
        None => node.get_attr_opt_slice::<f32>("scales")?.map(<[f32]>::to_vec),
    };
    let beyond = node.get_attr_opt("extrapolation_value")?.unwrap_or(0.0);
    let axes = node.get_attr_opt_vec("axes")?;
    Ok((expand(Resize { coordinates, mode, beyond, axes, crop, scales, sizes, fixed_scales }), Vec::new()))
}

impl Resize {
    /// The axes that numbers are given for.
    fn axes(&self, rank: usize) -> TractResult<Vec<usize>> {
        match &self.axes {
            Some(axes) => axes.iter().map(|&number| axis(number, rank)).collect(),
            None => Ok((0..rank).collect()),
        }
    }

    /// The lengths of the result by scales.
    fn scaled(&self, shape: &[TDim], scales: &[f32]) -> TractResult<Vec<TDim>> {
        let mut lengths = shape.to_vec();
        let axes = self.axes(shape.len())?;
        ensure!(axes.len() == scales.len(), "{} scales of {} axes", scales.len(), axes.len());
        for (axis, &scale) in axes.into_iter().zip(scales).filter(|(_, scale)| **scale != 1.0) {
            lengths[axis] = ((shape[axis].to_i64()? as f32 * scale).floor() as i64).to_dim();
        }
        Ok(lengths)
    }

    /// The lengths of the result by sizes.
    fn sized(&self, shape: &[TDim], sizes: &Tensor) -> TractResult<Vec<TDim>> {
        let mut lengths = shape.to_vec();
        let sizes = sizes.cast_to::<TDim>()?;
        let sizes = sizes.try_as_plain_ram()?.as_slice::<TDim>()?.to_vec();
        let axes = self.axes(shape.len())?;
        ensure!(axes.len() == sizes.len(), "{} sizes of {} axes", sizes.len(), axes.len());
        axes.into_iter().zip(sizes).for_each(|(axis, size)| lengths[axis] = size);
        Ok(lengths)
    }
}

/// Floats of a constant input.
fn floats(model: &TypedModel, input: OutletId) -> TractResult<Vec<f32>> {
    let constant = model.outlet_fact(input)?.konst.clone().ok_or_else(|| format_err!("scales are not constant"))?;
    Ok(constant.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
}

impl Expansion for Resize {
    fn name(&self) -> StaticName {
        Resized::NAME.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.equals(&inputs[0].rank, &outputs[0].rank)?;
        if let Some(scales) = &self.fixed_scales {
            return solver.given(&inputs[0].shape, move |solver, shape| {
                solver.equals(&outputs[0].shape, TVec::from(self.scaled(&shape, scales)?))
            });
        }
        let Some(given) = self.sizes.or(self.scales) else { bail!("neither scales nor sizes") };
        solver.given_2(&inputs[0].shape, &inputs[given].value, move |solver, shape, numbers| {
            if self.sizes.is_some() {
                return solver.equals(&outputs[0].shape, TVec::from(self.sized(&shape, &numbers)?));
            }
            let scales = numbers.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
            // Lengths that are open have no product with a fraction.
            let Ok(lengths) = self.scaled(&shape, &scales) else { return Ok(()) };
            solver.equals(&outputs[0].shape, TVec::from(lengths))
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let fact = model.outlet_fact(inputs[0])?;
        let (element, shape) = (fact.datum_type, fact.shape.to_tvec());
        let places = self.axes(shape.len())?;
        let mut scales = vec![1.0; shape.len()];
        let lengths = if let Some(sizes) = self.sizes {
            let sizes = integers(model, inputs[sizes])?.ok_or_else(|| format_err!("sizes are not constant"))?;
            let lengths = self.sized(&shape, &Tensor::from_shape(&[sizes.len()], &sizes)?)?;
            for (scale, (to, from)) in scales.iter_mut().zip(lengths.iter().zip(&shape)) {
                *scale = if to == from { 1.0 } else { to.to_i64()? as f32 / from.to_i64()? as f32 };
            }
            lengths
        } else {
            let given = match (&self.fixed_scales, self.scales) {
                (Some(scales), _) => scales.clone(),
                (None, Some(slot)) => floats(model, inputs[slot])?,
                (None, None) => bail!("neither scales nor sizes"),
            };
            let lengths = self.scaled(&shape, &given)?;
            places.iter().zip(given).for_each(|(&axis, scale)| scales[axis] = scale);
            lengths
        };
        let mut crops = vec![[0.0, 1.0]; shape.len()];
        // onnxruntime copies what keeps its size, whatever the crop.
        let keeps = scales.iter().all(|scale| *scale == 1.0);
        if let (Coordinates::Crop, Some(crop), false) = (self.coordinates, self.crop, keeps) {
            let numbers = floats(model, inputs[crop])?;
            ensure!(numbers.len() == 2 * places.len(), "{} ends of a crop of {} axes", numbers.len(), places.len());
            for (at, &axis) in places.iter().enumerate() {
                crops[axis] = [numbers[at], numbers[places.len() + at]];
            }
        }
        let mut axes = Vec::new();
        for axis in 0..shape.len() {
            if lengths[axis] != shape[axis] || crops[axis] != [0.0, 1.0] {
                let length = lengths[axis].to_usize()?;
                axes.push(Axis { at: axis, length, scale: scales[axis], crop: crops[axis] });
            }
        }
        let resized = Resized { coordinates: self.coordinates, mode: self.mode, beyond: self.beyond, axes };
        wire_floats(prefix, model, resized, &inputs[..1], element)
    }
}

impl Resized {
    /// Where a place of an axis lies in the input of length n.
    fn coordinate(&self, axis: Axis, place: usize, n: usize) -> f32 {
        let (i, last) = (place as f32, (n - 1) as f32);
        let [from, to] = axis.crop;
        match self.coordinates {
            Coordinates::Simple => i / axis.scale,
            Coordinates::AlignedCorners if axis.length == 1 => 0.0,
            Coordinates::AlignedCorners => i * last / (axis.length - 1) as f32,
            Coordinates::Crop if axis.length == 1 => 0.5 * (from + to) * last,
            Coordinates::Crop => from * last + i * (to - from) * last / (axis.length - 1) as f32,
        }
    }

    /// The places around, each with its weight.
    fn weights(&self, axis: Axis, x: f32, n: usize) -> Vec<(usize, f32)> {
        let last = (n - 1) as f32;
        let at = |x: f32| x.clamp(0.0, last) as usize;
        match self.mode {
            Mode::Nearest(rounding) => {
                let nearest = match rounding {
                    // Halves go down, or up.
                    Rounding::HalfDown => (x - 0.5).ceil(),
                    Rounding::HalfUp => (x + 0.5).floor(),
                    Rounding::Ceil => x.ceil(),
                    Rounding::ByScale if axis.scale < 1.0 => x.ceil(),
                    Rounding::Floor | Rounding::ByScale => x.floor(),
                };
                vec![(at(nearest), 1.0)]
            }
            Mode::Linear => {
                let x = x.clamp(0.0, last);
                let share = x - x.floor();
                vec![(at(x.floor()), 1.0 - share), (at(x.floor() + 1.0), share)]
            }
            Mode::Cubic { a, excludes_outside } => {
                let share = x - x.floor();
                let near = |t: f32| ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0;
                let far = |t: f32| ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a;
                let mut weights = [far(share + 1.0), near(share), near(1.0 - share), far(2.0 - share)];
                let places = [-1.0, 0.0, 1.0, 2.0].map(|step| x.floor() + step);
                if excludes_outside {
                    let inside = |place: f32| (0.0..=last).contains(&place);
                    weights.iter_mut().zip(places).filter(|(_, p)| !inside(*p)).for_each(|(weight, _)| *weight = 0.0);
                    let sum: f32 = weights.iter().sum();
                    weights = weights.map(|weight| weight / sum);
                }
                places.into_iter().zip(weights).map(|(place, weight)| (at(place), weight)).collect()
            }
        }
    }
}

impl Evaluate for Resized {
    const NAME: &'static str = "Resize";

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        self.axes.iter().for_each(|axis| shape[axis.at] = axis.length.to_dim());
        Ok(tvec!(f32::fact(&*shape)))
    }

    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let mut shape = inputs[0].shape().to_vec();
        let mut values = inputs[0].try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        ensure!(!values.is_empty(), "nothing to resize");
        let mut outside = Vec::new();
        for &axis in &self.axes {
            let (before, n, behind) = around(&shape, axis.at);
            let mut resized = vec![0.0; before * axis.length * behind];
            for place in 0..axis.length {
                let x = self.coordinate(axis, place, n);
                if self.coordinates == Coordinates::Crop && !(0.0..=(n - 1) as f32).contains(&x) {
                    outside.push((axis.at, place));
                }
                for (from, weight) in self.weights(axis, x, n) {
                    for block in 0..before {
                        let source = &values[(block * n + from) * behind..][..behind];
                        let to = &mut resized[(block * axis.length + place) * behind..][..behind];
                        to.iter_mut().zip(source).for_each(|(to, value)| *to += weight * value);
                    }
                }
            }
            shape[axis.at] = axis.length;
            values = resized;
        }
        for (axis, place) in outside {
            let (before, n, behind) = around(&shape, axis);
            for block in 0..before {
                values[(block * n + place) * behind..][..behind].fill(self.beyond);
            }
        }
        Ok(tvec!(Tensor::from_shape(&shape, &values)?))
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::{assert_close, run_shaped};

    #[track_caller]
    fn check(attributes: &str, constants: &str, inputs: &str, length: usize, expected: &[f32]) {
        let node = format!("y = Resize <{attributes}> (x, {inputs})");
        let values: [(&[usize], &[f32]); 1] = [(&[1, 1, 4], &[1.0, 2.0, 3.0, 4.0])];
        let (shape, y) = run_shaped("float[1,1,4] x", constants, &node, &values);
        assert_eq!(shape, [1, 1, length]);
        assert_close(&y, expected);
    }

    #[test]
    fn aligned_corners_with_scales() {
        let aligned = "coordinate_transformation_mode = \"align_corners\"";
        let scales = "float[3] s = {1.0, 1.0, 0.6}";
        // floor(4·0.6) is 2: both corners.
        check(&format!("{aligned}, mode = \"linear\""), scales, ", s", 2, &[1.0, 4.0]);
        check(&format!("{aligned}, mode = \"cubic\""), scales, ", s", 2, &[1.0, 4.0]);
        check(aligned, "float[3] s = {1.0, 1.0, 1.3}", ", s", 5, &[1.0, 2.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn crops() {
        let crop =
            "coordinate_transformation_mode = \"tf_crop_and_resize\", extrapolation_value = -1.0, mode = \"linear\"";
        let region = "float[6] c = {0.0, 0.0, 0.5, 1.0, 1.0, 1.5}, int64[3] n = {1, 1, 3}";
        check(crop, region, "c, , n", 3, &[2.5, 4.0, -1.0]);
        let inside = "float[6] c = {0.0, 0.0, 0.0, 1.0, 1.0, 0.5}, float[3] s = {1.0, 1.0, 1.75}";
        check(crop, inside, "c, s", 7, &[1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5]);
        check(
            crop,
            "float[6] c = {0.0, 0.0, 0.0, 1.0, 1.0, 0.5}, float[3] s = {1.0, 1.0, 1.0}",
            "c, s",
            4,
            &[1.0, 2.0, 3.0, 4.0],
        );
    }
}
