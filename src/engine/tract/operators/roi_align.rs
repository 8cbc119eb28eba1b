//! `RoiAlign`: regions of images, each resampled to one size (He et al., *Mask R-CNN*, arXiv 1703.06870, §3). tract 0.23 does
//! not know it.
//!
//! A region is cut into `height × width` bins, and a bin is the mean, or the largest, of samples spread evenly over it, each
//! interpolated between the four pixels around. As in onnxruntime, the largest is that of the four weighed pixels of all samples.

use super::{Built, Evaluate, wire_back};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumExt, DatumType, OutletId, TValue, Tensor, ToDim};
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedFact, TypedModel, bail, ensure, tvec};
use tract_onnx::tract_core::ops::cast::wire_cast;
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, check_input_arity, check_output_arity, expand};

/// The operator set since which coordinates are those of pixels' centres unless the node says otherwise.
const HALF_PIXEL_SINCE: i64 = 16;

#[derive(Clone, Debug, PartialEq)]
struct RoiAlign {
    /// Bins of a region, down and across.
    bins: [usize; 2],
    /// Samples of a bin along an axis; 0 for one per pixel.
    samples: usize,
    /// What coordinates of regions are multiplied with.
    scale: f32,
    /// Whether coordinates are taken from the centre of the first pixel.
    centred: bool,
    largest: bool,
}

pub(super) fn build(context: &ParsingContext, node: &NodeProto) -> Built {
    let length =
        |name: &str| -> TractResult<usize> { Ok(usize::try_from(node.get_attr_opt::<i64>(name)?.unwrap_or(1))?) };
    let old = context.onnx_operator_set_version < HALF_PIXEL_SINCE;
    let centred = match node.get_attr_opt::<&str>("coordinate_transformation_mode")? {
        None => !old,
        Some("half_pixel") => true,
        Some("output_half_pixel") => false,
        Some(other) => bail!("coordinates `{other}`"),
    };
    let largest = match node.get_attr_opt::<&str>("mode")? {
        None | Some("avg") => false,
        Some("max") => true,
        Some(other) => bail!("mode `{other}`"),
    };
    let operator = RoiAlign {
        bins: [length("output_height")?, length("output_width")?],
        samples: usize::try_from(node.get_attr_opt::<i64>("sampling_ratio")?.unwrap_or(0))?,
        scale: node.get_attr_opt("spatial_scale")?.unwrap_or(1.0),
        centred,
        largest,
    };
    Ok((expand(operator), Vec::new()))
}

impl Expansion for RoiAlign {
    fn name(&self) -> StaticName {
        Self::NAME.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 3)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        for (proxy, rank) in [(&inputs[0], 4), (&inputs[1], 2), (&inputs[2], 1), (&outputs[0], 4)] {
            solver.equals(&proxy.rank, rank)?;
        }
        solver.equals(&inputs[1].shape[0], &inputs[2].shape[0])?;
        solver.equals(&inputs[1].shape[1], 4.to_dim())?;
        solver.equals(&outputs[0].shape[0], &inputs[1].shape[0])?;
        solver.equals(&outputs[0].shape[1], &inputs[0].shape[1])?;
        solver.equals(&outputs[0].shape[2], self.bins[0].to_dim())?;
        solver.equals(&outputs[0].shape[3], self.bins[1].to_dim())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let element = model.outlet_fact(inputs[0])?.datum_type;
        let mut cast = wire_cast(format!("{prefix}.floats"), model, &inputs[..2], DatumType::F32)?;
        cast.extend(wire_cast(format!("{prefix}.indices"), model, &inputs[2..], DatumType::I64)?);
        wire_back(prefix, model, super::Evaluated(self.clone()), &cast, element)
    }
}

/// The four pixels around a place with their weights; none outside the image by more than a pixel.
fn around([y, x]: [f32; 2], [height, width]: [usize; 2]) -> [(usize, f32); 4] {
    let outside = |at: f32, length: usize| at < -1.0 || at > length as f32;
    if outside(y, height) || outside(x, width) {
        return [(0, 0.0); 4];
    }
    let pair = |at: f32, length: usize| {
        let at = at.max(0.0);
        let low = (at as usize).min(length - 1);
        let share = if low + 1 < length { at - low as f32 } else { 0.0 };
        [(low, 1.0 - share), ((low + 1).min(length - 1), share)]
    };
    let ([top, bottom], [left, right]) = (pair(y, height), pair(x, width));
    [(top, left), (top, right), (bottom, left), (bottom, right)]
        .map(|(row, column)| (row.0 * width + column.0, row.1 * column.1))
}

impl RoiAlign {
    /// The samples of every bin of a region, bin by bin, and how many each has.
    fn places(&self, region: &[f32], image: [usize; 2]) -> (Vec<[(usize, f32); 4]>, usize) {
        let shift = if self.centred { 0.5 } else { 0.0 };
        let at = |place: usize| region[place] * self.scale - shift;
        let axis = |first: usize, bins: usize| {
            let (start, end) = (at(first), at(first + 2));
            // Without the shift, regions have at least the size of a pixel.
            let length = if self.centred { end - start } else { (end - start).max(1.0) };
            let samples = if self.samples > 0 { self.samples } else { (length / bins as f32).ceil().max(0.0) as usize };
            (start, length / bins as f32, samples)
        };
        let ((top, tall, rows), (left, wide, columns)) = (axis(1, self.bins[0]), axis(0, self.bins[1]));
        let place = |start: f32, bin: usize, size: f32, at: usize, samples: usize| {
            start + bin as f32 * size + (at as f32 + 0.5) * size / samples as f32
        };
        let mut found = Vec::with_capacity(self.bins[0] * self.bins[1] * rows * columns);
        for bin in 0..self.bins[0] * self.bins[1] {
            let (down, across) = (bin / self.bins[1], bin % self.bins[1]);
            for at in 0..rows * columns {
                let y = place(top, down, tall, at / columns, rows);
                let x = place(left, across, wide, at % columns, columns);
                found.push(around([y, x], image));
            }
        }
        (found, rows * columns)
    }

    /// A bin of a channel.
    fn bin(&self, image: &[f32], samples: &[[(usize, f32); 4]]) -> f32 {
        let parts = samples.iter().flatten().map(|&(pixel, weight)| weight * image[pixel]);
        if self.largest {
            return parts.reduce(f32::max).unwrap_or(0.0);
        }
        parts.sum::<f32>() / samples.len().max(1) as f32
    }
}

impl Evaluate for RoiAlign {
    const NAME: &'static str = "RoiAlign";

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [down, across] = self.bins.map(|length| length.to_dim());
        Ok(tvec!(f32::fact(&[inputs[1].shape[0].clone(), inputs[0].shape[1].clone(), down, across])))
    }

    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let plain = (inputs[0].try_as_plain_ram()?, inputs[1].try_as_plain_ram()?, inputs[2].try_as_plain_ram()?);
        let (images, regions, owners) =
            (plain.0.as_slice::<f32>()?, plain.1.as_slice::<f32>()?, plain.2.as_slice::<i64>()?);
        let &[batch, channels, height, width] = inputs[0].shape() else { bail!("images have four axes") };
        ensure!(height > 0 && width > 0 || owners.is_empty(), "there are no pixels");
        let (plane, bins) = (height * width, self.bins[0] * self.bins[1]);
        let mut result = Vec::with_capacity(owners.len() * channels * bins);
        for (region, &owner) in regions.chunks_exact(4).zip(owners) {
            let owner = usize::try_from(owner).ok().filter(|&owner| owner < batch);
            let Some(owner) = owner else { bail!("a region is of an image that is not there") };
            let (places, each) = self.places(region, [height, width]);
            for image in images[owner * channels * plane..].chunks_exact(plane).take(channels) {
                let bin = |at: usize| self.bin(image, &places[at * each..][..each]);
                result.extend((0..bins).map(bin));
            }
        }
        Ok(tvec!(Tensor::from_shape(&[owners.len(), channels, self.bins[0], self.bins[1]], &result)?))
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::{assert_close, run_shaped};

    const INPUTS: &str = "float[1,1,4,4] x, float[r,4] rois";
    const OWNERS: &str = "int64[1] owners = {0}";

    fn aligned(attributes: &str, roi: &[f32]) -> (Vec<usize>, Vec<f32>) {
        let image: Vec<f32> = (0..16).map(|i| i as f32).collect();
        let values: [(&[usize], &[f32]); 2] = [(&[1, 1, 4, 4], &image), (&[1, 4], roi)];
        run_shaped(INPUTS, OWNERS, &format!("y = RoiAlign <{attributes}> (x, rois, owners)"), &values)
    }

    /// On a slope every bin is the value at its centre.
    #[test]
    fn bins_of_a_slope() {
        let (shape, values) = aligned("output_height = 2, output_width = 2, sampling_ratio = 2", &[1.0, 1.0, 3.0, 3.0]);
        assert_eq!(shape, [1, 1, 2, 2]);
        // Centres at pixels 1 and 2.
        assert_close(&values, &[5.0, 6.0, 9.0, 10.0]);
        let old = "output_height = 1, output_width = 1, coordinate_transformation_mode = \"output_half_pixel\"";
        assert_close(&aligned(old, &[1.0, 1.0, 2.0, 2.0]).1, &[7.5]);
    }

    #[test]
    fn outside_is_nothing() {
        assert_close(&aligned("sampling_ratio = 1", &[8.0, 8.0, 9.0, 9.0]).1, &[0.0]);
        assert_close(&aligned("mode = \"max\", sampling_ratio = 1", &[1.0, 1.0, 2.0, 2.0]).1, &[5.0]);
    }
}
