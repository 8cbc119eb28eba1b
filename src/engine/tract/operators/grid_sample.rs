//! `GridSample` with cubic weights and the border repeated.
//!
//! A place x takes the sixteen pixels around it, each coordinate held within the image. tract 0.23 holds x itself within the
//! image before, which gives other weights near the border. Other modes are left to it.

use super::{Built, Evaluate, tracts, tracts_expansion, wire_floats};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumExt, OutletId, TValue, Tensor};
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedFact, TypedModel, ensure, tvec};
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, expand};

/// How steep the weights are, which the operator set gives.
const A: f32 = -0.75;

/// The operator before types are known.
#[derive(Clone, Debug)]
struct GridSample {
    sampled: Sampled,
    tracts: Box<dyn Expansion>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sampled {
    /// Whether −1 and 1 are the centres of the pixels at the ends, not their outer edges.
    aligns_corners: bool,
}

pub(super) fn build(context: &ParsingContext, node: &NodeProto) -> Built {
    let mode = node.get_attr_opt::<&str>("mode")?.unwrap_or("linear");
    let padding = node.get_attr_opt::<&str>("padding_mode")?.unwrap_or("zeros");
    if !["bicubic", "cubic"].contains(&mode) || padding != "border" {
        return tracts(context, node);
    }
    let sampled = Sampled { aligns_corners: node.get_attr_opt::<i64>("align_corners")?.unwrap_or(0) != 0 };
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
        let element = model.outlet_fact(inputs[0])?.datum_type;
        wire_floats(prefix, model, self.sampled, inputs, element)
    }
}

/// The weights of four pixels, of which the second lies this far before the place.
fn weights(share: f32) -> [f32; 4] {
    let near = |t: f32| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
    let far = |t: f32| ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A;
    [far(share + 1.0), near(share), near(1.0 - share), far(2.0 - share)]
}

impl Sampled {
    /// The pixels around a coordinate of an axis, each with its weight.
    fn around(self, coordinate: f32, length: usize) -> [(usize, f32); 4] {
        let n = length as f32;
        let x = if self.aligns_corners {
            f32::midpoint(coordinate, 1.0) * (n - 1.0)
        } else {
            ((coordinate + 1.0) * n - 1.0) / 2.0
        };
        let weights = weights(x - x.floor());
        [0, 1, 2, 3].map(|step| ((x.floor() + step as f32 - 1.0).clamp(0.0, n - 1.0) as usize, weights[step]))
    }
}

impl Evaluate for Sampled {
    const NAME: &'static str = "GridSample";

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs[0].rank() == 4 && inputs[1].rank() == 4, "cubic samples are of images");
        let (x, grid) = (&inputs[0].shape, &inputs[1].shape);
        Ok(tvec!(f32::fact(&[x[0].clone(), x[1].clone(), grid[1].clone(), grid[2].clone()])))
    }

    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let (x, grid) = (inputs[0].try_as_plain_ram()?, inputs[1].try_as_plain_ram()?);
        let (x, grid) = (x.as_slice::<f32>()?, grid.as_slice::<f32>()?);
        let &[batch, channels, height, width] = inputs[0].shape() else { return Ok(TVec::new()) };
        let (rows, columns) = (inputs[1].shape()[1], inputs[1].shape()[2]);
        ensure!(height > 0 && width > 0, "nothing to sample from");
        let mut result = vec![0.0; batch * channels * rows * columns];
        for b in 0..batch {
            for place in 0..rows * columns {
                let at = (b * rows * columns + place) * 2;
                let (across, down) = (self.around(grid[at], width), self.around(grid[at + 1], height));
                for channel in b * channels..(b + 1) * channels {
                    let image = &x[channel * height * width..][..height * width];
                    let row =
                        |row: usize| across.iter().map(|&(column, w)| w * image[row * width + column]).sum::<f32>();
                    result[channel * rows * columns + place] = down.iter().map(|&(line, w)| w * row(line)).sum();
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
        let beyond = super::weights(0.5)[3];
        assert_close(&run("float[1,1,1,3] x", grid, node, &values), &[1.0 + beyond]);
    }
}
