//! A layer of the graph as a solver's problem, and the solution as integers, scales and a bias.
//!
//! The bias becomes int32 at scale `s_x·s`; where that would overflow, s is raised until it fits, which costs nothing: it
//! happens only to channels whose weights are negligible beside their bias.
//!
//! **Batch-norm as an affine.** A layer y = γ'·(W·x + b) + β', γ' and β' a channel's factor and offset, keeps the grid of W:
//! W ≈ s·q is rounded as it is, and since an integer accumulator is worth `s_x·s`, y = `s_x·(γ'·s)`·acc + (γ'·b + β'): the
//! factor goes into the scale. A negative γ' goes into the integers first, W·sign(γ'), because scales are positive; for
//! γ' = 0 the integers are 0.

use super::bias::round_bias;
use super::bias_correction::mean_shift;
use super::random::seed_of;
use super::registry::taking;
use super::rounding::{LayerInput, Rounded, Rounding};
use super::rows::Rows;
use super::{Group, Problem, Solution, SolveError, Solver, Statistics, Unit, held_out, planned, redundancy, trellis};
use crate::quant;
use crate::quant::weight_grid::WeightGrid;
use crate::quant::{Granularity, QuantizedWeight, Sqnr, ZERO_CHANNEL_SCALE, minimum_weight_scales};
use msq_passes::analysis::{ChannelAffine, Layer, LayerOp};
use msq_passes::ir::Model;
use msq_passes::{BiasForm, LayerBias, QuantizedLayer};

/// Rounds the weights and bias of a layer. The bias is corrected for the shift of the mean that rounding causes.
pub(crate) fn round_layer(
    model: &Model,
    layer: &Layer,
    input: LayerInput,
    rounding: Rounding,
) -> Result<Rounded, SolveError> {
    let weight = constant(model, layer.weight)?.unwrap_or_default();
    let bias = layer.bias.map(|bias| constant(model, bias)).transpose()?.flatten();
    let target = Target::new(model, layer, &weight, bias, rounding.affine)?;
    let floor = match rounding.scales {
        Some(given) => given.to_vec(),
        None => floor(&target, layer, input.scale, rounding),
    };
    let fit = target.round(layer, &floor, input, rounding).map_err(|error| error.of(&layer.name))?;
    let Fit { weight: rounded, shift, output_sqnr, input_scale, fell_back } = fit;
    let input = LayerInput { scale: input_scale.unwrap_or(input.scale), ..input };
    let weight_sqnr = rounded.sqnr(&target.weight);
    let bias = match shift {
        _ if !rounding.bias_correction => target.bias.clone(),
        Some(shift) => target.shifted_bias(&shift),
        None => target.corrected_bias(model, layer, &rounded, input.means),
    };
    let bias = bias.map(|b| round_bias(b, layer, &rounded.scales, input, rounding)).transpose()?;
    let (bias, half_bias) = bias.map_or((None, None), |(bias, halves)| (Some(bias), halves));
    let QuantizedWeight { data, granularity, scales, zero_points, .. } = rounded;
    let layer = QuantizedLayer { weight: data.into(), granularity, scales, zero_points, bias };
    Ok(Rounded { layer, half_bias, weight_sqnr, output_sqnr, input_scale, fell_back, unsolved: None })
}

/// The same integers behind another quantizer of the input: the bias, which stood for multiples of `before` times the
/// weights' scales, is written anew.
pub(crate) fn rebias(
    solved: &Rounded,
    layer: &Layer,
    before: f32,
    input: LayerInput,
    rounding: Rounding,
) -> Result<Rounded, SolveError> {
    let scales = &solved.layer.scales;
    let floats = |bias: &LayerBias| match bias {
        LayerBias::Float(values) => values.clone(),
        LayerBias::Int32(integers) => {
            let step = |scale: &f32| f64::from(*scale) * f64::from(before);
            integers.iter().zip(scales.iter().cycle()).map(|(&q, s)| (f64::from(q) * step(s)) as f32).collect()
        }
    };
    let bias = solved.layer.bias.as_ref().map(floats);
    let bias = bias.map(|bias| round_bias(bias, layer, scales, input, rounding)).transpose()?;
    let (bias, half_bias) = bias.map_or((None, None), |(bias, halves)| (Some(bias), halves));
    Ok(Rounded { layer: QuantizedLayer { bias, ..solved.layer.clone() }, half_bias, ..solved.clone() })
}

/// The weights a layer is to have, the batch-norm it takes in multiplied into them.
pub(crate) fn target_weight(
    model: &Model,
    layer: &Layer,
    affine: Option<&ChannelAffine>,
) -> Result<Vec<f32>, SolveError> {
    let weight = constant(model, layer.weight)?.unwrap_or_default();
    Ok(Target::new(model, layer, &weight, None, affine)?.weight.into_owned())
}

/// Integers that fit a layer.
struct Fit {
    weight: QuantizedWeight,
    /// What to add to the bias of each channel, where the solver knows.
    shift: Option<Vec<f64>>,
    output_sqnr: Option<Sqnr>,
    input_scale: Option<f32>,
    fell_back: bool,
}

/// What the layer is to compute, the batch-norm taken in.
struct Target<'a> {
    /// Weights as they stand, a channel's sign changed where its factor is negative.
    own: std::borrow::Cow<'a, [f32]>,
    /// Factors without sign, one per channel; none without a batch-norm.
    factors: Vec<f64>,
    /// Weights times factors.
    weight: std::borrow::Cow<'a, [f32]>,
    bias: Option<Vec<f32>>,
}

impl<'a> Target<'a> {
    fn new(
        model: &Model,
        layer: &Layer,
        weight: &'a [f32],
        bias: Option<Vec<f32>>,
        affine: Option<&ChannelAffine>,
    ) -> Result<Self, SolveError> {
        let Some((ChannelAffine { factor, offset }, axis)) = affine.zip(layer.axis) else {
            return Ok(Self { own: weight.into(), factors: Vec::new(), weight: weight.into(), bias });
        };
        let inner: usize = layer.shape[axis + 1..].iter().product::<usize>().max(1);
        let factor_of = |i: usize| factor[i / inner % factor.len()];
        let own = weight.iter().enumerate().map(|(i, &w)| if factor_of(i) < 0.0 { -w } else { w });
        let scaled: Vec<f32> = weight.iter().enumerate().map(|(i, &w)| (f64::from(w) * factor_of(i)) as f32).collect();
        let old = |c: usize| bias.as_ref().map_or(0.0, |b| f64::from(b[c]));
        let shifted: Vec<f32> =
            factor.iter().zip(offset).enumerate().map(|(c, (f, o))| (old(c) * f + o) as f32).collect();
        if let Some((index, &value)) = scaled.iter().chain(&shifted).enumerate().find(|(_, v)| !v.is_finite()) {
            // Statistics that are finite each can give infinite weights together.
            let tensor = model.graph.value(layer.weight).name().to_owned();
            return Err(SolveError::NonFiniteWeight { tensor, index, value });
        }
        let factors = factor.iter().map(|f| f.abs()).collect();
        Ok(Self { own: own.collect(), factors, weight: scaled.into(), bias: Some(shifted) })
    }

    /// Integers and scales of the weight, the factors in the scales.
    fn round(&self, layer: &Layer, floor: &[f32], input: LayerInput, rounding: Rounding) -> Result<Fit, SolveError> {
        let own_floor: Vec<f32> = if self.factors.is_empty() {
            floor.to_vec()
        } else {
            floor.iter().zip(&self.factors).map(|(&s, &f)| quant::ratio(s, f)).collect()
        };
        let mut fit = self.solve(layer, &own_floor, input, rounding)?;
        if !self.factors.is_empty() {
            self.scale(&mut fit.weight, layer, is_trellis(rounding));
        }
        if rounding.half_scales {
            halve(
                &mut fit.weight,
                (rounding.solver.rounds_to_nearest() && !is_trellis(rounding)).then_some(&*self.weight),
            );
        }
        Ok(fit)
    }

    /// Integers and scales of the weight without the factors.
    fn solve(&self, layer: &Layer, floor: &[f32], input: LayerInput, rounding: Rounding) -> Result<Fit, SolveError> {
        let axis = layer.axis.filter(|_| rounding.granularity != Granularity::Tensor);
        let granularity = if axis.is_some() { rounding.granularity } else { Granularity::Tensor };
        self.check_granularity(granularity, rounding)?;
        let layout = match rounding.statistics {
            Some(statistics) => Rows::Groups(statistics.geometry()),
            // Columns of a trellis code are those of channels, whatever they share.
            None => Rows::Channels(&layer.shape, if is_trellis(rounding) { layer.axis } else { axis }),
        };
        let rows: Vec<Vec<f32>> = (0..layout.groups()).map(|group| layout.of(&self.own, group)).collect();
        let statistics = |group| rounding.statistics.map_or(Statistics::Nothing, |all| all.group(group));
        let groups: Vec<Group> =
            rows.iter().enumerate().map(|(group, weights)| Group { weights, statistics: statistics(group) }).collect();
        let channels = match (axis, layer.axis) {
            (Some(axis), _) => layer.shape[axis],
            (None, Some(axis)) if is_trellis(rounding) => layer.shape[axis],
            _ => 1,
        };
        let size = match layout {
            Rows::Groups(geometry) => geometry.inputs(),
            Rows::Channels(..) => self.own.len() / channels.max(1),
        };
        let levels = planned::levels(rounding.plan, &rows, if axis.is_some() { size } else { self.own.len() });
        let grid = planned::grid(rounding.plan, &levels, if layer.axis.is_some() { channels } else { 0 })?;
        if !rounding.solver.takes(&grid) {
            return Err(SolveError::grid(rounding.solver, rounding.plan.weight_grid(), &taking(&grid)));
        }
        let bias = self.own_bias();
        let problem = Problem {
            granularity,
            centered: rounding.bias_correction && self.bias.is_some(),
            least_scales: floor,
            fixed_scales: rounding.scales.is_some(),
            bias: &bias,
            rectified: rounding.rectified,
            input: input.quantizer,
            seed: seed_of(rounding.seed, &layer.name),
            ..Problem::new(&groups, size, grid)
        };
        let held_out = rounding.statistics.map_or(&[][..], super::LayerStatistics::held_out);
        let problem = Problem { redundancy: redundancy::of(&problem, held_out)?, ..problem };
        let solution = only(rounding.solver.solve_unit(&Unit { layers: &[problem] })?, rounding.solver)?;
        let (solution, fell_back) = better(solution, &problem, layer, rounding)?;
        check_counts(
            rounding.solver,
            &solution,
            self.own.len(),
            granularity.scales(self.own.len() / size.max(1), size),
        )?;
        let mut data = vec![0; self.own.len()];
        for (group, integers) in solution.integers.chunks(rows.first().map_or(1, Vec::len).max(1)).enumerate() {
            layout.put(integers, group, &mut data);
        }
        let weight = QuantizedWeight {
            data,
            granularity,
            scales: solution.scales,
            zero_points: solution.zero_points,
            shape: layer.shape.clone(),
            axis,
            grid: grid.spec(),
        };
        let scaled = |(c, shift): (usize, f64)| shift * self.factors.get(c).copied().unwrap_or(1.0);
        let shift = solution.bias_shift.map(|shift| shift.into_iter().enumerate().map(scaled).collect());
        let output_sqnr = shift.is_some().then_some(solution.ratio);
        Ok(Fit { weight, shift, output_sqnr, input_scale: solution.input_scale, fell_back })
    }

    /// Refuses scales that the solver does not take, or with which the layer cannot be written: a batch-norm multiplies
    /// one scale per channel, and so does the grid of an int32 bias.
    fn check_granularity(&self, granularity: Granularity, rounding: Rounding) -> Result<(), SolveError> {
        let refused = |reason: String| Err(SolveError::Granularity { granularity, reason });
        match granularity {
            _ if !rounding.solver.takes_granularity(granularity) => {
                refused(format!("solver `{}` does not take them", rounding.solver.name()))
            }
            Granularity::Block(_) if !self.factors.is_empty() => refused("the layer takes in a batch-norm".to_owned()),
            Granularity::Block(_) if self.bias.is_some() && rounding.bias == BiasForm::Int32 => {
                refused("its bias is written as int32".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The bias as it stands before the factors.
    fn own_bias(&self) -> Vec<f32> {
        let own = |(c, &bias): (usize, &f32)| quant::ratio(bias, self.factors.get(c).copied().unwrap_or(1.0));
        self.bias.iter().flatten().enumerate().map(own).collect()
    }

    /// Multiplies the scales by the factors. Channels whose factor is 0 become 0; integers of a trellis code, which cannot be
    /// changed one by one, get a scale next to nothing.
    fn scale(&self, rounded: &mut QuantizedWeight, layer: &Layer, coded: bool) {
        let Some(axis) = layer.axis else { return };
        let scales = rounded.scales.iter().cycle().zip(&self.factors);
        let others = scales.clone().map(|(&s, &f)| (f64::from(s) * f) as f32);
        let none = if coded { trellis::negligible_scale(others) } else { ZERO_CHANNEL_SCALE };
        rounded.scales =
            scales.map(|(&s, &f)| if f == 0.0 { none } else { quant::normal_scale(f64::from(s) * f) }).collect();
        (rounded.axis, rounded.granularity) = (Some(axis), Granularity::Channel);
        let inner: usize = layer.shape[axis + 1..].iter().product::<usize>().max(1);
        if coded {
            return;
        }
        for (i, q) in rounded.data.iter_mut().enumerate() {
            if self.factors[i / inner % self.factors.len()] == 0.0 {
                *q = 0;
            }
        }
    }

    /// The bias and what is to be added to it.
    fn shifted_bias(&self, shift: &[f64]) -> Option<Vec<f32>> {
        let bias = self.bias.as_ref()?;
        Some(bias.iter().zip(shift).map(|(&b, shift)| (f64::from(b) + shift) as f32).collect())
    }

    /// The bias, less what rounding adds to the mean of each channel.
    fn corrected_bias(
        &self,
        model: &Model,
        layer: &Layer,
        rounded: &QuantizedWeight,
        means: &[f64],
    ) -> Option<Vec<f32>> {
        let mut bias = self.bias.clone()?;
        let node = model.graph.node(layer.node);
        let groups = usize::try_from(node.int_or("group", 1)).unwrap_or(1);
        let plain = layer.op != LayerOp::ConvTranspose && layer.weight_slot == 1 && node.int_or("transA", 0) == 0;
        let shift = plain.then(|| mean_shift(layer, groups, &self.weight, &rounded.dequantize(), means)).flatten();
        bias.iter_mut().zip(shift.unwrap_or_default()).for_each(|(b, shift)| *b = (f64::from(*b) - shift) as f32);
        Some(bias)
    }
}

/// The solution, or weights rounded to nearest where those are better on samples that the solver has not seen; and whether
/// they are.
fn better(
    mut solution: Solution,
    problem: &Problem,
    layer: &Layer,
    rounding: Rounding,
) -> Result<(Solution, bool), SolveError> {
    let held_out = rounding.statistics.map_or(&[][..], super::LayerStatistics::held_out);
    let Some(compared) = held_out::compare(problem, &solution, held_out)? else { return Ok((solution, false)) };
    if compared.found.noise > compared.nearest.noise {
        let (found, nearest) = (compared.found.decibels(), compared.nearest.decibels());
        let (layer, solver) = (&layer.name, rounding.solver.name());
        tracing::info!(layer, solver, found, nearest, "worse than rounding to nearest on held-out samples");
        return Ok((compared.rounded, true));
    }
    solution.ratio = compared.found;
    solution.plain_ratio = compared.nearest;
    Ok((solution, false))
}

/// Whether the plan asks for a trellis code.
fn is_trellis(rounding: Rounding) -> bool {
    rounding.plan.weight_grid() == WeightGrid::Trellis
}

/// The solution of a unit of one layer.
fn only(solutions: Vec<Solution>, solver: &dyn Solver) -> Result<Solution, SolveError> {
    let found = solutions.len();
    let [solution] = <[Solution; 1]>::try_from(solutions).map_err(|_| SolveError::Count {
        solver: solver.name().to_owned(),
        of: "solutions",
        expected: 1,
        found,
    })?;
    Ok(solution)
}

/// Refuses a solution of the wrong size.
fn check_counts(solver: &dyn Solver, solution: &Solution, integers: usize, scales: usize) -> Result<(), SolveError> {
    let zero_points = if solution.zero_points.is_empty() { 0 } else { scales };
    let counts = [
        ("integers", integers, solution.integers.len()),
        ("scales", scales, solution.scales.len()),
        ("zero points", zero_points, solution.zero_points.len()),
    ];
    match counts.into_iter().find(|(_, expected, found)| expected != found) {
        Some((of, expected, found)) => Err(SolveError::Count { solver: solver.name().to_owned(), of, expected, found }),
        None => Ok(()),
    }
}

/// The least scales with which the int32 bias does not overflow, one per channel or one for all.
fn floor(target: &Target, layer: &Layer, input_scale: f32, rounding: Rounding) -> Vec<f32> {
    let own = target.bias.as_deref().filter(|_| rounding.bias == BiasForm::Int32);
    let mut floor = own.map(|bias| minimum_weight_scales(bias, input_scale)).unwrap_or_default();
    if floor.is_empty() {
        floor = rounding.least.to_vec();
    }
    if rounding.least.len() == floor.len() {
        floor.iter_mut().zip(rounding.least).for_each(|(floor, least)| *floor = floor.max(*least));
    } else {
        floor.extend_from_slice(rounding.least);
    }
    if floor.is_empty() {
        return floor;
    }
    let one_scale = rounding.granularity == Granularity::Tensor || layer.axis.is_none();
    if one_scale && target.factors.is_empty() { vec![floor.into_iter().fold(0.0, f32::max)] } else { floor }
}

/// The smallest scale that a pool of half constants has room for; no channel of such a scale counts.
const LEAST_HALF: f32 = 1.0 / (1_u64 << 38) as f32;

/// Rounds the scales to half precision, and integers that are the nearest ones for `weight` to what is nearest then. Scales
/// below 2^−38 become 2^−38 where that is below 2^−16 of the largest.
pub(super) fn halve(rounded: &mut QuantizedWeight, weight: Option<&[f32]>) {
    let largest = rounded.scales.iter().copied().fold(0.0, f32::max);
    let least = if LEAST_HALF < largest / 65_536.0 { LEAST_HALF } else { 0.0 };
    for scale in &mut rounded.scales {
        *scale = quant::round_to_half(*scale).max(least);
    }
    let Some(weight) = weight else { return };
    let mut allowed = rounded.data.clone();
    allowed.sort_unstable();
    allowed.dedup();
    let groups: Vec<usize> = (0..weight.len()).map(|at| rounded.group_of(at)).collect();
    for ((q, &w), group) in rounded.data.iter_mut().zip(weight).zip(groups) {
        let zero = rounded.zero_points.get(group).map_or(0.0, |&z| f64::from(z));
        let value = f64::from(w) / f64::from(rounded.scales[group]) + zero;
        let distance = |q: &&i8| (f64::from(**q) - value).abs();
        // A last place of a half moves a weight to a neighbour at most.
        let at = allowed.binary_search(q).unwrap_or(0);
        let near = &allowed[at.saturating_sub(1)..(at + 2).min(allowed.len())];
        *q = near.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).copied().unwrap_or(*q);
    }
}

fn constant(model: &Model, value: msq_passes::ir::ValueId) -> Result<Option<Vec<f32>>, SolveError> {
    model.constant(value).map(|tensor| Ok(tensor?.to_f32()?)).transpose()
}
