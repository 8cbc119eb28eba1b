//! A layer and a solver: what is refused, and that scales of every granularity reach the layer as written.

use super::layer::round_layer;
use super::round::Round;
use super::rounding::{LayerInput, Rounding};
use super::{Problem, Solution, SolveError, Solver, StatisticsKind};
use crate::quant::weight_grid::WeightGrid;
use crate::quant::{Granularity, QuantizedWeight, Sqnr};
use crate::scheme::bit_plan::{LayerPlan, WeightBits};
use msq_passes::analysis::layers;
use msq_passes::{BiasForm, QuantizedLayer, ir};

/// Rounds to nearest, on uniform grids alone.
#[derive(Debug)]
struct Plain;

impl Solver for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn statistics(&self) -> StatisticsKind {
        StatisticsKind::Nothing
    }

    fn solve(&self, problem: &Problem) -> Result<Solution, SolveError> {
        Round::default().solve(problem)
    }
}

/// Maps the values of each block from its least to its largest onto −128 to 127.
#[derive(Debug)]
struct Asymmetric {
    /// Scales left out of each solution.
    missing: usize,
}

impl Solver for Asymmetric {
    fn name(&self) -> &'static str {
        "asymmetric"
    }

    fn statistics(&self) -> StatisticsKind {
        StatisticsKind::Nothing
    }

    fn takes_granularity(&self, _: Granularity) -> bool {
        true
    }

    fn solve(&self, problem: &Problem) -> Result<Solution, SolveError> {
        let weights = problem.weights();
        let length = match problem.granularity {
            Granularity::Tensor => weights.len(),
            Granularity::Channel => problem.size,
            Granularity::Block(size) => size,
        };
        let (mut integers, mut scales, mut zero_points) = (Vec::new(), Vec::new(), Vec::new());
        let rows: Vec<&[f32]> = match problem.granularity {
            Granularity::Tensor => vec![&weights],
            _ => weights.chunks(problem.size).collect(),
        };
        for block in rows.into_iter().flat_map(|row| row.chunks(length)) {
            let low = block.iter().copied().fold(0.0_f32, f32::min);
            let high = block.iter().copied().fold(0.0_f32, f32::max);
            let scale = ((high - low) / 255.0).max(f32::MIN_POSITIVE);
            let zero = (-128.0 - low / scale).round();
            integers.extend(block.iter().map(|w| (w / scale + zero).round().clamp(-128.0, 127.0) as i8));
            scales.push(scale);
            zero_points.push(zero as i8);
        }
        scales.truncate(scales.len() - self.missing);
        let ratio = Sqnr::default();
        Ok(Solution { integers, scales, zero_points, bias_shift: None, input_scale: None, ratio, plain_ratio: ratio })
    }
}

const SHAPE: [usize; 2] = [6, 3];

/// 18 weights of different signs and sizes, and a layer `fc` with them.
fn model(bias: &str) -> ir::Model {
    let weights: Vec<String> = weights().iter().map(ToString::to_string).collect();
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17]> graph (float[1, 6] x) => (float[1, 3] y)
        <float[6, 3] w = {{{}}}, float[3] b = {{1, 2, 3}}> {{ [fc] y = {bias} }}",
        weights.join(", ")
    );
    ir::import(ir::text::parse(&text).unwrap()).unwrap()
}

fn weights() -> Vec<f32> {
    (0..18_i16).map(|i| f32::from((i * 37) % 29 - 9) * 0.03125 * f32::from(1 + i % 3)).collect()
}

fn solve(
    model: &ir::Model,
    solver: &dyn Solver,
    grid: WeightGrid,
    granularity: Granularity,
    bias: BiasForm,
) -> Result<QuantizedLayer, SolveError> {
    let plan = LayerPlan { weights: WeightBits::whole(4), grid: Some(grid), ..LayerPlan::default() };
    let rounding = Rounding {
        plan,
        granularity,
        half_scales: false,
        bias_correction: true,
        seed: 0,
        bias,
        bias_as_floats: false,
        affine: None,
        solver,
        statistics: None,
        rectified: false,
        scales: None,
        least: &[],
    };
    let input = LayerInput { scale: 1.0, quantizer: None, means: &[], output_scale: None };
    round_layer(model, &layers(model)[0], input, rounding).map(|rounded| rounded.layer)
}

#[test]
fn a_solver_that_does_not_take_the_grid_is_refused() {
    let model = model("MatMul(x, w)");
    let solve = |grid| solve(&model, &Plain, grid, Granularity::Channel, BiasForm::Float);
    assert!(solve(WeightGrid::Full).is_ok());
    let said = solve(WeightGrid::PowerOfTwo).unwrap_err().to_string();
    let others = "`round`, `gram`, `block`, `pd-quant`, `distill` do";
    assert_eq!(said, format!("layer `fc`: solver `plain` does not take grid `power-of-two`; {others}"));
}

#[test]
fn scales_that_cannot_be_are_refused() {
    let block = Granularity::Block(4);
    let said = |model: &ir::Model, solver: &dyn Solver| {
        solve(model, solver, WeightGrid::Full, block, BiasForm::Int32).unwrap_err().to_string()
    };
    let prefix = "layer `fc`: scales of granularity Block(4) are not possible: ";
    let (plain, biased) = (model("MatMul(x, w)"), model("Gemm(x, w, b)"));
    assert_eq!(said(&plain, &Plain), format!("{prefix}solver `plain` does not take them"));
    assert_eq!(said(&biased, &Asymmetric { missing: 0 }), format!("{prefix}its bias is written as int32"));
    let short = said(&plain, &Asymmetric { missing: 1 });
    assert_eq!(short, "layer `fc`: solver `asymmetric` gave 5 scales instead of 6");
}

/// Channels are columns of the weight here: blocks run down a column.
#[test]
fn scales_and_zero_points_of_every_granularity_give_the_weights_back() {
    let model = model("MatMul(x, w)");
    for (granularity, count) in
        [(Granularity::Tensor, 1), (Granularity::Channel, 3), (Granularity::Block(4), 6), (Granularity::Block(2), 9)]
    {
        let layer = solve(&model, &Asymmetric { missing: 0 }, WeightGrid::Full, granularity, BiasForm::Float).unwrap();
        assert_eq!((layer.granularity, layer.scales.len(), layer.zero_points.len()), (granularity, count, count));
        let axis = (granularity != Granularity::Tensor).then_some(1);
        let written = QuantizedWeight {
            data: layer.weight.iter().collect(),
            granularity,
            scales: layer.scales.clone(),
            zero_points: layer.zero_points.clone(),
            shape: SHAPE.to_vec(),
            axis,
            grid: crate::quant::GridSpec::WEIGHT_S8,
        };
        for (at, (found, wanted)) in written.dequantize().iter().zip(weights()).enumerate() {
            let step = layer.scales[written.group_of(at)];
            assert!((found - wanted).abs() <= 0.51 * step, "{granularity:?} {at}: {found} {wanted} {step}");
            // Row by row in storage order; the place within a channel is the row.
            let (row, channel) = (at / SHAPE[1], at % SHAPE[1]);
            let group = match granularity {
                Granularity::Tensor => 0,
                Granularity::Channel => channel,
                Granularity::Block(size) => channel * SHAPE[0].div_ceil(size) + row / size,
            };
            assert_eq!(written.group_of(at), group);
        }
    }
}
