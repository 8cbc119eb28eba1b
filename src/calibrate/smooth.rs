//! Factors for the channels of what products read, so that one scale serves all of them (Xiao et al., *`SmoothQuant`*,
//! arXiv 2211.10438, with the strength of the smoothing sought per activation).
//!
//! X·W = (X·S⁻¹)·(S·W), S = diag(s). Candidates are s = max|x|^α / max|w|^β per channel, x over samples and w over all
//! weights that read the channel, for several α, and β = 1 − α (equation (4)) or 0. Which one loses least is estimated by
//! what rounding changes in the layers' outputs, errors of different channels taken as independent:
//!
//! E = Σ s²·h·(x/s − Q(x/s))² + Σ m/s²·(s·w − Q(s·w))²
//!
//! over rows of X that were kept, with h the squares of a channel's weights and m those of its activations, both summed.
//! Each layer counts relative to the variance of its output. Q has the grid of the plan, its range on the activations is
//! sought by the same error; weights have one scale per output channel. Factors are used where they halve E at least, and
//! where they make it smaller on the first half of the rows as well as on the second, and where factors and ranges taken from
//! one half make E smaller on the other. They are found on half of the samples at most: on those that a channel was divided
//! by the largest value of, the ranges of all channels end alike, and ranges that see no other samples would clip each.
//!
//! Only activations that float nodes compute are divided: where an integer kernel writes them, a product in between would
//! cost more than it gains. Those of a layer normalization on integers that products alone read are divided as well: the
//! factors go into its scale and offset.

use super::CalibrateError;
use crate::data::Dataset;
use crate::execute::ExecuteError;
use crate::execute::fold::Pool;
use crate::execute::masks::Masked;
use crate::execute::segment::{Ran, Segment};
use crate::execute::stages::Limit;
use crate::quant::lanes::sums;
use crate::quant::{Affine, GridSpec, Range, round_half_even};
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::WeightBits;
use indexmap::IndexMap;
use msq_passes::SmoothActivations;
use msq_passes::analysis::{Layer, LayerOp, Role};
use msq_passes::ir::{Model, Use, ValueId};
use rayon::prelude::*;

/// Samples that are looked at, evenly spread; half of all at most.
const SAMPLES: usize = 32;
/// Rows of an activation that are kept of all samples, about.
const ROWS: usize = 256;
/// Factors are used where they leave at most this share of the error.
const GAIN: f64 = 0.5;
/// The largest share of the error on each half of the rows alone, and on either half with factors and ranges of the other.
const PART_GAIN: f64 = 0.8;
/// Exponents of the activations' maxima.
const STRENGTHS: [f32; 7] = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// Shares of an end of the range that are tried.
const SHARES: [f32; 6] = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4];
/// A channel counts as at least this share of the largest one.
const LEAST: f32 = 1e-4;

/// The factors of the activations that gain by them, by name.
pub(crate) fn factors(
    model: &Model,
    scheme: &Scheme,
    data: &Dataset,
    runtime: &Runtime,
) -> Result<IndexMap<String, Vec<f32>>, CalibrateError> {
    let sites = sites(model, scheme)?;
    if sites.is_empty() || data.is_empty() || Limit::of(model, runtime.memory).is_some() {
        return Ok(IndexMap::new());
    }
    // Channels divided by their largest values are all equally large on these samples alone. Ranges must see others.
    let samples = |each: usize| (ROWS / each).max(SAMPLES).min(data.len().div_ceil(2));
    let rows: Vec<Rows> = rows(model, scheme, &sites, (data, &samples), runtime)?;
    let chosen = |(site, rows): (&Site, &Rows)| Some((site.name.clone(), site.best(rows)?));
    Ok(sites.par_iter().zip(&rows).filter_map(chosen).collect::<Vec<_>>().into_iter().collect())
}

/// An activation and the weights that multiply it.
pub(super) struct Site {
    pub(super) name: String,
    pub(super) channels: usize,
    pub(super) grid: GridSpec,
    pub(super) readers: Vec<Reader>,
}

/// A weight, one row per channel of the activation.
pub(super) struct Reader {
    pub(super) rows: Vec<f32>,
    pub(super) columns: usize,
    /// The largest integer, if the weight becomes integers.
    pub(super) most: Option<f32>,
}

/// What is kept of the rows of an activation.
pub(super) trait Kept: Clone + Default + Send {
    /// Rows of an activation that are kept of all samples, about.
    const ROWS: usize;

    /// Adds the rows of a sample that count, of which about `wanted` may be kept.
    fn observe(&mut self, rows: &[&[f32]], wanted: usize);

    /// Adds what was kept of later samples.
    fn append(&mut self, later: Self);
}

/// Rows of an activation, and the largest magnitude of each channel in all that was seen.
#[derive(Clone, Debug, Default)]
struct Rows {
    values: Vec<f32>,
    most: Vec<f32>,
}

/// Activations that float nodes compute, or layer normalizations alone, and that products with a matrix read.
pub(super) fn sites(model: &Model, scheme: &Scheme) -> Result<Vec<Site>, CalibrateError> {
    let mut layers: IndexMap<ValueId, Vec<&Layer>> = IndexMap::new();
    for layer in scheme.placement.layers() {
        layers.entry(layer.input).or_default().push(layer);
    }
    let mut found = Vec::new();
    for (value, readers) in layers {
        if readers.iter().all(|layer| is_product(model, scheme, layer)) && is_free(model, scheme, value) {
            found.extend(site(model, scheme, value, &readers)?);
        }
    }
    Ok(found)
}

/// Whether a layer multiplies the last axis of its input with a matrix of its own.
fn is_product(model: &Model, scheme: &Scheme, layer: &Layer) -> bool {
    let own = !scheme.is_stored_elsewhere(&layer.name) && scheme.given_weight_scales(model, layer).is_none();
    SmoothActivations::is_product(&model.graph, layer) && layer.weights() > 0 && own
}

/// Whether a quantized value is computed in float, has a range of its own, and is read on integers by layers alone.
fn is_free(model: &Model, scheme: &Scheme, value: ValueId) -> bool {
    let (graph, placement) = (&model.graph, &scheme.placement);
    let Some((producer, _)) = graph.value(value).producer() else { return false };
    let in_float = !placement.nodes.contains_key(&producer) && !placement.absorbed.contains_key(&producer);
    let is_layer =
        |reader: &Use| matches!(placement.nodes.get(&reader.node), Some(Role::Layer(layer)) if layer.input == value);
    let is_float = |reader: &Use| !placement.nodes.contains_key(&reader.node);
    let all_layers = !graph.is_output(value) && graph.value(value).uses().iter().all(is_layer);
    let in_norm = all_layers && graph.node(producer).is("LayerNormalization");
    let layers_alone = graph.value(value).uses().iter().all(|reader| is_layer(reader) || is_float(reader));
    let own = placement.root(value) == value && !scheme.is_given(value) && scheme.coverage.sees(model, value);
    (in_float || in_norm) && layers_alone && own && graph.value(value).captures().is_empty()
}

fn site(model: &Model, scheme: &Scheme, value: ValueId, layers: &[&Layer]) -> Result<Option<Site>, CalibrateError> {
    let mut readers = Vec::new();
    for layer in layers {
        let Some(tensor) = model.constant(layer.weight) else { return Ok(None) };
        let (stored, [first, second]) = (tensor?.to_f32()?, [layer.shape[0], layer.shape[1]]);
        let transposed = layer.op == LayerOp::Gemm && model.graph.node(layer.node).int_or("transB", 0) != 0;
        let columns = if transposed { first } else { second };
        let rows = if transposed {
            (0..second)
                .flat_map(|row| (0..first).map(move |column| (row, column)))
                .map(|(r, c)| stored[c * second + r])
                .collect()
        } else {
            stored
        };
        let most = match scheme.layer_plan(layer).weights {
            WeightBits::Float => None,
            bits => Some(((1_u32 << bits.width().clamp(2, 8).saturating_sub(1)) - 1) as f32),
        };
        readers.push(Reader { rows, columns, most });
    }
    let channels = readers.first().map_or(0, |reader| reader.rows.len() / reader.columns);
    if readers.iter().any(|reader| reader.rows.len() != channels * reader.columns) {
        return Ok(None);
    }
    let grid = GridSpec::new(scheme.target.activations.into(), scheme.bits(value))?;
    Ok(Some(Site { name: model.graph.value(value).name().to_owned(), channels, grid, readers }))
}

/// Runs some samples and keeps rows of every activation: of as many samples as the function says of the number of rows that
/// each has.
pub(super) fn rows<K: Kept>(
    model: &Model,
    scheme: &Scheme,
    sites: &[Site],
    (data, samples): (&Dataset, &dyn Fn(usize) -> usize),
    runtime: &Runtime,
) -> Result<Vec<K>, CalibrateError> {
    let names: Vec<String> = sites.iter().map(|site| site.name.clone()).collect();
    let segment = Segment::yielding(&scheme.coverage.part(model), &names)?;
    let pool = Pool::new(&segment, runtime);
    let of = |ran: Ran, (at, site): (usize, &Site)| ran.shape(at).iter().product::<usize>() / site.channels.max(1);
    let count = |ran: Ran| sites.iter().enumerate().map(|site| of(ran, site)).min().unwrap_or(1);
    // Of vectors one row is all there is of a sample.
    let each = pool.once(&data.sample(0)?, count)?.clamp(1, K::ROWS);
    let data = data.split(samples(each)).1;
    let masked = Masked::new(&scheme.masks, &data);
    let wanted = K::ROWS.div_ceil(data.len());
    runtime.begin("smooth", data.len() as u64);
    let mut total = vec![K::default(); sites.len()];
    let visit = |part: &mut Vec<K>, sample: usize, ran: Ran| {
        let kept = masked.sample(sample).map_err(ExecuteError::from)?;
        for (at, (rows, site)) in part.iter_mut().zip(sites).enumerate() {
            let (values, shape) = (ran.values(at)?, ran.shape(at));
            let positions = kept.as_ref().and_then(|kept| kept.of(&site.name, shape));
            if shape.last() == Some(&site.channels) {
                let keeps = |row: usize| positions.as_ref().is_none_or(|p| p.keeps(row * site.channels));
                let all = values.chunks_exact(site.channels).enumerate();
                let counting: Vec<&[f32]> = all.filter(|(row, _)| keeps(*row)).map(|(_, row)| row).collect();
                rows.observe(&counting, wanted);
            }
        }
        Ok::<(), CalibrateError>(())
    };
    let merge = |part: Vec<K>| {
        total.iter_mut().zip(part).for_each(|(rows, part)| rows.append(part));
        Ok(())
    };
    pool.fold(&data, runtime, || vec![K::default(); sites.len()], visit, merge)?;
    runtime.end();
    Ok(total)
}

impl Kept for Rows {
    const ROWS: usize = ROWS;

    /// The extremes of all rows, and some of these rows, evenly spread.
    fn observe(&mut self, rows: &[&[f32]], wanted: usize) {
        for row in rows {
            self.most.resize(row.len(), 0.0);
            self.most.iter_mut().zip(*row).for_each(|(most, value)| *most = most.max(value.abs()));
        }
        let count = wanted.min(rows.len());
        self.values.extend((0..count).flat_map(|at| rows[at * rows.len() / count]));
    }

    fn append(&mut self, later: Self) {
        self.most.resize(later.most.len().max(self.most.len()), 0.0);
        self.most.iter_mut().zip(&later.most).for_each(|(most, other)| *most = most.max(*other));
        self.values.extend(later.values);
    }
}

impl Site {
    /// The factors that lose least, if they lose much less than none, and no more on rows that neither they nor the range
    /// were taken from.
    fn best(&self, rows: &Rows) -> Option<Vec<f32>> {
        let finite = rows.values.iter().chain(&rows.most).all(|value| value.is_finite());
        if !finite || rows.values.is_empty() {
            return None;
        }
        let objective = Objective::new(self, rows.values.clone())?;
        let none = vec![1.0; self.channels];
        let base = objective.error(&none);
        let weights = self.largest_weights();
        let betas = |alpha: f32| if alpha < 1.0 { vec![0.0, 1.0 - alpha] } else { vec![0.0] };
        let candidates = STRENGTHS.iter().flat_map(|&alpha| betas(alpha).into_iter().map(move |beta| (alpha, beta)));
        let mut best: Option<(f64, Strength, Vec<f32>)> = None;
        for strength in candidates {
            let Some(factors) = balanced(&rows.most, &weights, strength) else { continue };
            let error = objective.error(&factors);
            if best.as_ref().is_none_or(|(least, ..)| error < *least) {
                best = Some((error, strength, factors));
            }
        }
        let (error, strength, factors) = best?;
        tracing::debug!(value = self.name, gain = 10.0 * (base / error).log10(), "factors");
        // Rows of one sample stay together: the first may be like no other.
        let half = rows.values.len() / self.channels / 2 * self.channels;
        let (first, second) = rows.values.split_at(half);
        // What a few rows gain alone is no gain.
        let gains = |own: &[f32]| {
            let part = Objective::new(self, own.to_vec());
            part.is_some_and(|part| part.error(&factors) <= PART_GAIN * part.error(&none))
        };
        if error > GAIN * base || !gains(first) || !gains(second) {
            return None;
        }
        // A channel divided by its largest value clips the first larger one: with few rows and many channels that is
        // sure to come.
        let mut unseen = [0.0; 2];
        for [seen, other] in [[first, second], [second, first]] {
            let [seen, other] = [Objective::new(self, seen.to_vec())?, Objective::new(self, other.to_vec())?];
            let own = balanced(&seen.largest(), &weights, strength)?;
            for (total, factors) in unseen.iter_mut().zip([&own, &none]) {
                *total += other.error_on(factors, seen.range(factors).1);
            }
        }
        (unseen[0] <= PART_GAIN * unseen[1]).then_some(factors)
    }

    fn largest_weights(&self) -> Vec<f32> {
        let mut most = vec![0.0_f32; self.channels];
        for reader in &self.readers {
            for (most, row) in most.iter_mut().zip(reader.rows.chunks_exact(reader.columns)) {
                *most = row.iter().fold(*most, |most, weight| most.max(weight.abs()));
            }
        }
        most
    }
}

/// α and β.
type Strength = (f32, f32);

/// Factors a^α / w^β whose geometric mean is 1; none where they are not normal numbers.
fn balanced(activations: &[f32], weights: &[f32], (alpha, beta): Strength) -> Option<Vec<f32>> {
    let floor = |values: &[f32]| LEAST * values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let (least, lightest) = (floor(activations), floor(weights));
    let logs: Vec<f32> = activations
        .iter()
        .zip(weights)
        .map(|(a, w)| alpha * a.max(least).log2() - beta * w.max(lightest).log2())
        .collect();
    let mean = logs.iter().map(|&log| f64::from(log)).sum::<f64>() / logs.len().max(1) as f64;
    let factors: Vec<f32> = logs.iter().map(|log| (log - mean as f32).exp2()).collect();
    factors.iter().all(|factor| factor.is_normal() && factor.recip().is_normal()).then_some(factors)
}

/// The error of rounding, as a function of the factors.
struct Objective<'a> {
    site: &'a Site,
    rows: Vec<f32>,
    /// Squares of each channel's weights and activations, summed; of the weights, relative to the layers' outputs.
    weights: Vec<f64>,
    activations: Vec<f64>,
    /// What the squared errors of each reader count.
    shares: Vec<f64>,
}

impl<'a> Objective<'a> {
    fn new(site: &'a Site, rows: Vec<f32>) -> Option<Self> {
        let count = (rows.len() / site.channels) as f64;
        let mut sums = vec![[0.0_f64; 2]; site.channels];
        for row in rows.chunks_exact(site.channels) {
            for ([sum, squares], &value) in sums.iter_mut().zip(row) {
                *sum += f64::from(value);
                *squares += f64::from(value).powi(2);
            }
        }
        let activations: Vec<f64> = sums.iter().map(|[_, squares]| *squares).collect();
        let mut weights = vec![0.0; site.channels];
        let mut shares = Vec::new();
        for reader in &site.readers {
            let squares = |row: &[f32]| row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
            let own: Vec<f64> = reader.rows.chunks_exact(reader.columns).map(squares).collect();
            let variance = |[sum, squares]: &[f64; 2]| (squares - sum * sum / count).max(0.0);
            let power: f64 = sums.iter().zip(&own).map(|(sums, own)| variance(sums) * own).sum();
            let share = if power > 0.0 { power.recip() } else { 0.0 };
            weights.iter_mut().zip(&own).for_each(|(total, own)| *total += share * own);
            shares.push(share);
        }
        shares.iter().any(|&share| share > 0.0).then_some(Self { site, rows, weights, activations, shares })
    }

    /// With the best range.
    fn error(&self, factors: &[f32]) -> f64 {
        self.range(factors).0 + self.of_weights(factors)
    }

    /// With a range that may have been chosen on other rows.
    fn error_on(&self, factors: &[f32], range: Range) -> f64 {
        let (divided, counts) = self.divided(factors);
        squared_error(&divided, &counts, self.site.grid.affine(range)) + self.of_weights(factors)
    }

    /// The largest magnitude of each channel.
    fn largest(&self) -> Vec<f32> {
        let mut most = vec![0.0_f32; self.site.channels];
        for row in self.rows.chunks_exact(self.site.channels) {
            most.iter_mut().zip(row).for_each(|(most, value)| *most = most.max(value.abs()));
        }
        most
    }

    /// The rows divided by the factors, and what the squared error of each channel then counts.
    fn divided(&self, factors: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let reciprocals: Vec<f32> = factors.iter().map(|factor| factor.recip()).collect();
        let divided = self.rows.iter().zip(reciprocals.iter().cycle()).map(|(x, by)| x * by).collect();
        let counts = self.weights.iter().zip(factors).map(|(h, s)| (h * f64::from(*s).powi(2)) as f32).collect();
        (divided, counts)
    }

    /// The range of least error on the activations, and that error: its upper end is sought first, then its lower one.
    fn range(&self, factors: &[f32]) -> (f64, Range) {
        let (divided, counts) = self.divided(factors);
        let whole = divided.iter().fold(Range::default(), |r, &x| Range::new(r.min.min(x), r.max.max(x)));
        let error = |range: Range| squared_error(&divided, &counts, self.site.grid.affine(range));
        let mut best = (error(whole), whole);
        let mut seek = |narrowed: &dyn Fn(Range, f32) -> Range| {
            let from = best.1;
            for share in SHARES {
                let range = narrowed(from, share);
                let found = error(range);
                if found < best.0 {
                    best = (found, range);
                }
            }
        };
        seek(&|range, share| Range::new(range.min, range.max * share));
        seek(&|range, share| Range::new(range.min * share, range.max));
        best
    }

    fn of_weights(&self, factors: &[f32]) -> f64 {
        let mut total = 0.0;
        for (reader, share) in self.site.readers.iter().zip(&self.shares) {
            let Some(most) = reader.most else { continue };
            let mut steps = vec![0.0_f32; reader.columns];
            for (row, factor) in reader.rows.chunks_exact(reader.columns).zip(factors) {
                steps.iter_mut().zip(row).for_each(|(step, weight)| *step = step.max((weight * factor).abs()));
            }
            for step in &mut steps {
                *step = (*step / most).max(f32::MIN_POSITIVE);
            }
            let rows = reader.rows.chunks_exact(reader.columns).zip(factors).zip(&self.activations);
            for ((row, &factor), squares) in rows {
                let [lost] = sums(row, &steps, |weight, step| {
                    let scaled = weight * factor;
                    let apart = scaled - round_half_even(scaled / step) * step;
                    [f64::from(apart * apart)]
                });
                total += share * squares / f64::from(factor).powi(2) * lost;
            }
        }
        total
    }
}

/// Σ counts·(x − Q(x))², the counts repeating for every row.
fn squared_error(values: &[f32], counts: &[f32], grid: Affine) -> f64 {
    let lost = |x: f32, count: f32| {
        let apart = x - grid.fake_quantize(x);
        [f64::from(count * (apart * apart))]
    };
    values.chunks_exact(counts.len().max(1)).map(|row| sums(row, counts, lost)[0]).sum()
}

#[cfg(test)]
mod tests;
