//! `GridSample` of images, with linear and cubic weights.
//!
//! A place x takes the two or four pixels around it along each axis. Beyond the border there are zeros, or the border is
//! repeated: each coordinate is held within the image. tract 0.23 holds x itself within the image, which gives other cubic
//! weights near the border, and allocates for every value. Other modes, and what is no image, are left to it.

use super::{Built, Evaluate, tracts, tracts_expansion, wire_floats};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumExt, OutletId, TValue, Tensor};
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedFact, TypedModel, ensure, tvec};
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, expand};

/// How steep cubic weights are, which the operator set gives.
const A: f32 = -0.75;
/// Places whose pixels and weights are held at once, for all channels.
const PLACES: usize = 1024;

/// The operator before types are known.
#[derive(Clone, Debug)]
struct GridSample {
    sampled: Sampled,
    tracts: Box<dyn Expansion>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sampled {
    /// Whether four pixels are taken along an axis, not two.
    is_cubic: bool,
    /// Whether the border is repeated beyond itself, where otherwise are zeros.
    repeats_border: bool,
    /// Whether −1 and 1 are the centres of the pixels at the ends, not their outer edges.
    aligns_corners: bool,
}

pub(super) fn build(context: &ParsingContext, node: &NodeProto) -> Built {
    let is_cubic = match node.get_attr_opt::<&str>("mode")?.unwrap_or("linear") {
        "linear" | "bilinear" => false,
        "cubic" | "bicubic" => true,
        _ => return tracts(context, node),
    };
    let repeats_border = match node.get_attr_opt::<&str>("padding_mode")?.unwrap_or("zeros") {
        "zeros" => false,
        "border" => true,
        _ => return tracts(context, node),
    };
    let aligns_corners = node.get_attr_opt::<i64>("align_corners")?.unwrap_or(0) != 0;
    let sampled = Sampled { is_cubic, repeats_border, aligns_corners };
    Ok((expand(GridSample { sampled, tracts: tracts_expansion(context, node)? }), Vec::new()))
}

impl Expansion for GridSample {
    fn name(&self) -> StaticName {
        Sampled::NAME.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.tracts.rules(solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let image = model.outlet_fact(inputs[0])?;
        if image.rank() != 4 {
            return self.tracts.wire(prefix, model, inputs);
        }
        let element = image.datum_type;
        wire_floats(prefix, model, self.sampled, inputs, element)
    }
}

/// The weights of four pixels, of which the second lies this far before the place.
fn cubic(share: f32) -> [f32; 4] {
    let near = |t: f32| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
    let far = |t: f32| ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A;
    [far(share + 1.0), near(share), near(1.0 - share), far(2.0 - share)]
}

impl Sampled {
    /// The pixels around a coordinate of an axis, each with its weight.
    fn around(self, coordinate: f32, length: usize) -> impl Iterator<Item = (usize, f32)> + Clone {
        let n = length as f32;
        let x = if self.aligns_corners {
            f32::midpoint(coordinate, 1.0) * (n - 1.0)
        } else {
            ((coordinate + 1.0) * n - 1.0) / 2.0
        };
        let (first, share) = (x.floor(), x - x.floor());
        let (first, weights, count) =
            if self.is_cubic { (first - 1.0, cubic(share), 4) } else { (first, [1.0 - share, share, 0.0, 0.0], 2) };
        (0..count).map(move |step| {
            let at = first + step as f32;
            let within = at.clamp(0.0, n - 1.0);
            let counts = self.repeats_border || at == within;
            (within as usize, if counts { weights[step] } else { 0.0 })
        })
    }

    /// The pixels around a place of an image and their weights, row by row.
    fn taps(self, place: &[f32], height: usize, width: usize) -> impl Iterator<Item = (usize, f32)> {
        let (across, down) = (self.around(place[0], width), self.around(place[1], height));
        down.flat_map(move |(row, over)| across.clone().map(move |(column, w)| (row * width + column, over * w)))
    }
}

impl Evaluate for Sampled {
    const NAME: &'static str = "GridSample";

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs[0].rank() == 4 && inputs[1].rank() == 4, "samples are of images");
        let (x, grid) = (&inputs[0].shape, &inputs[1].shape);
        Ok(tvec!(f32::fact(&[x[0].clone(), x[1].clone(), grid[1].clone(), grid[2].clone()])))
    }

    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let (x, grid) = (inputs[0].try_as_plain_ram()?, inputs[1].try_as_plain_ram()?);
        let (x, grid) = (x.as_slice::<f32>()?, grid.as_slice::<f32>()?);
        let &[batch, channels, height, width] = inputs[0].shape() else { return Ok(TVec::new()) };
        let (rows, columns) = (inputs[1].shape()[1], inputs[1].shape()[2]);
        ensure!(height > 0 && width > 0, "nothing to sample from");
        let (pixels, places) = (height * width, rows * columns);
        let each = if self.is_cubic { 16 } else { 4 };
        let mut result = vec![0.0; batch * channels * places];
        for b in 0..batch {
            let grid = &grid[b * places * 2..][..places * 2];
            for (part, grid) in grid.chunks(PLACES * 2).enumerate() {
                let taps: Vec<(usize, f32)> =
                    grid.chunks_exact(2).flat_map(|place| self.taps(place, height, width)).collect();
                for channel in b * channels..(b + 1) * channels {
                    let image = &x[channel * pixels..][..pixels];
                    let output = &mut result[channel * places + part * PLACES..][..grid.len() / 2];
                    for (value, taps) in output.iter_mut().zip(taps.chunks_exact(each)) {
                        *value = taps.iter().map(|&(pixel, weight)| weight * image[pixel]).sum();
                    }
                }
            }
        }
        Ok(tvec!(Tensor::from_shape(&[batch, channels, rows, columns], &result)?))
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::{assert_close, run};

    #[test]
    fn weights_beyond_the_border() {
        let node = "y = GridSample <mode = \"cubic\", padding_mode = \"border\", align_corners = 1> (x, g)";
        // The columns 0, 1, 2 at x = −0.5: weights of places −2, −1, 0, 1, of which the first three are column 0.
        let grid = "float[1,1,1,2] g = {-1.5, -1.0}";
        let values: [(&[usize], &[f32]); 1] = [(&[1, 1, 1, 3], &[1.0, 2.0, 4.0])];
        let beyond = super::cubic(0.5)[3];
        assert_close(&run("float[1,1,1,3] x", grid, node, &values), &[1.0 + beyond]);
    }

    /// Columns 0, 1, 2 at x = 0.5, 1.75, −0.5 and beyond: of zeros beyond the border, and of the border repeated.
    #[test]
    fn linear_weights() {
        let grid = "float[1,1,4,2] g = {-0.5, 0.0, 0.75, 0.0, -1.5, 0.0, 9.0, 0.0}";
        let values: [(&[usize], &[f32]); 1] = [(&[1, 2, 1, 3], &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0])];
        let of = |padding: &str| {
            let node =
                format!("y = GridSample <mode = \"linear\", padding_mode = \"{padding}\", align_corners = 1> (x, g)");
            run("float[1,2,1,3] x", grid, &node, &values)
        };
        assert_close(&of("zeros"), &[1.5, 3.5, 0.5, 0.0, 12.0, 28.0, 4.0, 0.0]);
        assert_close(&of("border"), &[1.5, 3.5, 1.0, 4.0, 12.0, 28.0, 8.0, 32.0]);
    }
}
