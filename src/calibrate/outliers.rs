//! Channels of what products read whose values a quantizer had better clip, the products reading in float what is missing:
//! the channels and the range that pass `split-outliers` is made for (Dettmers et al., *`LLM.int8()`*, arXiv 2208.07339,
//! section 3, with channels and ranges found on samples).
//!
//! For k = 1, 2, 4 … the k channels O that reach furthest are left out of the range, which all others fit. The error in the
//! outputs of the products is estimated by
//!
//! E = Σ h·(x − Q(x))², of channels in O with x limited to the range of Q, since the rest of x is exact,
//!
//! over rows of X that were kept, h being the squares of a channel's weights, each product relative to the variance of its
//! output. Massive values are in few rows: of every sample the rows with the largest values are kept, and some of the
//! others, which count for all. Channels and ranges of one half of the rows are judged on the other half: activations in
//! which ever other channels are large would be clipped by what was found on few samples.
//!
//! What is left of E must be half of what the best range of all channels leaves, and what is gained more than the small
//! product is worth, for each product that reads the activation.

use super::CalibrateError;
use super::smooth::{Kept, Site, rows, sites};
use crate::data::Dataset;
use crate::execute::stages::Limit;
use crate::quant::lanes::sums;
use crate::quant::{Affine, Range};
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::scheme::outliers::Outliers;
use indexmap::IndexMap;
use msq_passes::ir::Model;
use rayon::prelude::*;

/// Samples that are looked at, evenly spread.
const SAMPLES: usize = 64;
/// Rows of an activation that are kept of all samples, about.
const ROWS: usize = 512;
/// One of so many rows that are kept is among those with the largest values of a sample.
const LARGEST: usize = 4;
/// Numbers of channels that are tried.
const COUNTS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// At most one of so many channels is split.
const SHARE: usize = 8;
/// Channels are split where they leave at most this share of the error.
const GAIN: f64 = 0.5;
/// The share of the variance of a product's output that has to be gained for a small product, and per channel of it.
/// At a fifth of it the encoder in docs/transformers.md gains little more, and takes 3 % longer.
const PRICE: f64 = 5e-4;
const PRICE_PER_CHANNEL: f64 = 0.05 * PRICE;
/// Shares of an end of the range that are tried where nothing is split.
const SHARES: [f32; 8] = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2];

/// The channels to split of activations that gain by it, and their ranges, by name.
pub(crate) fn outliers(
    model: &Model,
    scheme: &Scheme,
    data: &Dataset,
    runtime: &Runtime,
) -> Result<IndexMap<String, Outliers>, CalibrateError> {
    let sites: Vec<Site> = sites(model, scheme)?.into_iter().filter(|site| can_be_split(model, scheme, site)).collect();
    if sites.is_empty() || data.is_empty() || Limit::of(model, runtime.memory).is_some() {
        return Ok(IndexMap::new());
    }
    let samples = |each: usize| (ROWS / each).max(SAMPLES).min(data.len());
    let rows: Vec<Rows> = rows(model, scheme, &sites, (data, &samples), runtime)?;
    let chosen = |(site, rows): (&Site, &Rows)| Some((site.name.clone(), best(site, rows)?));
    Ok(sites.par_iter().zip(&rows).filter_map(chosen).collect::<Vec<_>>().into_iter().collect())
}

/// Whether the pass can split an activation: float nodes compute it, 8 bits hold it for all its readers, which are products
/// with integer weights whose outputs are float.
fn can_be_split(model: &Model, scheme: &Scheme, site: &Site) -> bool {
    let (graph, placement) = (&model.graph, &scheme.placement);
    let Some(value) = graph.find(&site.name) else { return false };
    let on_integers = |node| placement.nodes.contains_key(&node) || placement.absorbed.contains_key(&node);
    let in_float = graph.value(value).producer().is_some_and(|(producer, _)| !on_integers(producer));
    let mut readers = placement.layers().filter(|layer| layer.input == value);
    in_float
        && scheme.bits(value) == 8
        && site.readers.iter().all(|reader| reader.most.is_some())
        && readers.all(|layer| {
            let written = placement.written_by(graph, layer);
            let float = ![layer.output, written].iter().any(|output| placement.values.contains_key(output));
            float && layer.is_matrix_product(graph) && scheme.requantized_bits(layer).is_none()
        })
}

/// Rows of an activation, channel after channel.
#[derive(Clone, Debug, Default)]
struct Rows {
    values: Vec<f32>,
    /// For how many rows each counts.
    counts: Vec<f32>,
    /// What each channel reaches in all rows, zero included.
    reach: Vec<Range>,
}

impl Kept for Rows {
    const ROWS: usize = ROWS;

    fn observe(&mut self, rows: &[&[f32]], wanted: usize) {
        for row in rows {
            self.reach.resize(row.len(), Range::default());
            self.reach.iter_mut().zip(*row).for_each(|(reach, &value)| *reach = reach.union(Range::new(value, value)));
        }
        let largest = |row: &&[f32]| row.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let mut order: Vec<&[f32]> = rows.to_vec();
        order.sort_by_cached_key(|row| std::cmp::Reverse(largest(row).to_bits()));
        let (top, others) = order.split_at(wanted.div_ceil(LARGEST).min(order.len()));
        let count = wanted.saturating_sub(top.len()).min(others.len());
        for row in top {
            self.push(row, 1.0);
        }
        for at in 0..count {
            self.push(others[at * others.len() / count], others.len() as f32 / count as f32);
        }
    }

    fn append(&mut self, later: Self) {
        self.reach.resize(later.reach.len().max(self.reach.len()), Range::default());
        self.reach.iter_mut().zip(&later.reach).for_each(|(reach, other)| *reach = reach.union(*other));
        self.values.extend(later.values);
        self.counts.extend(later.counts);
    }
}

impl Rows {
    fn push(&mut self, row: &[f32], count: f32) {
        self.values.extend(row);
        self.counts.push(count);
    }

    fn iter(&self) -> impl Iterator<Item = (&[f32], f32)> {
        self.values.chunks_exact(self.reach.len().max(1)).zip(self.counts.iter().copied())
    }

    /// The rows before and from this one on, each with what its own rows reach.
    fn split_at(&self, row: usize) -> [Self; 2] {
        let part = |rows: std::ops::Range<usize>| {
            let mut part = Self { reach: vec![Range::default(); self.reach.len()], ..Self::default() };
            for (row, count) in self.iter().skip(rows.start).take(rows.len()) {
                part.reach
                    .iter_mut()
                    .zip(row)
                    .for_each(|(reach, &value)| *reach = reach.union(Range::new(value, value)));
                part.push(row, count);
            }
            part
        };
        [part(0..row), part(row..self.counts.len())]
    }

    /// The channels that reach furthest, in ascending order, and what the others reach.
    fn without(&self, count: usize) -> (Vec<usize>, Range) {
        let furthest = |channel: usize| self.reach[channel].max.max(-self.reach[channel].min);
        let mut order: Vec<usize> = (0..self.reach.len()).collect();
        order.sort_by(|&a, &b| furthest(b).total_cmp(&furthest(a)));
        let (first, others) = order.split_at(count.min(order.len()));
        let range = others.iter().fold(Range::default(), |range, &channel| range.union(self.reach[channel]));
        let mut channels = first.to_vec();
        channels.sort_unstable();
        (channels, range)
    }
}

/// What each squared error of a channel counts: relative to the variances of the outputs, all products together.
fn weights(site: &Site, rows: &Rows) -> Option<Vec<f64>> {
    let mut sums = vec![[0.0_f64; 2]; site.channels];
    let total: f64 = rows.counts.iter().map(|&count| f64::from(count)).sum();
    for (row, count) in rows.iter() {
        for ([sum, squares], &value) in sums.iter_mut().zip(row) {
            *sum += f64::from(count) * f64::from(value);
            *squares += f64::from(count) * f64::from(value).powi(2);
        }
    }
    let mut weights = vec![0.0; site.channels];
    for reader in &site.readers {
        let squares = |row: &[f32]| row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
        let own: Vec<f64> = reader.rows.chunks_exact(reader.columns).map(squares).collect();
        let variance = |[sum, squares]: &[f64; 2]| ((squares - sum * sum / total) / total).max(0.0);
        let power: f64 = sums.iter().zip(&own).map(|(sums, own)| variance(sums) * own).sum();
        if power > 0.0 {
            weights.iter_mut().zip(&own).for_each(|(weight, own)| *weight += own / power);
        }
    }
    weights.iter().any(|&weight| weight > 0.0).then_some(weights)
}

/// The channels and the range that gain most, if they gain enough.
fn best(site: &Site, rows: &Rows) -> Option<Outliers> {
    let count = rows.counts.len();
    if count < 2 || rows.reach.len() != site.channels || !rows.values.iter().all(|value| value.is_finite()) {
        return None;
    }
    let weights = weights(site, rows)?;
    let halves = rows.split_at(count / 2);
    let total: f64 = rows.counts.iter().map(|&count| f64::from(count)).sum();
    // Chosen on one half, judged on the other.
    let judged = |choose: &dyn Fn(&Rows) -> (Vec<usize>, Range)| {
        let [first, second] = &halves;
        let one = |(seen, other): (&Rows, &Rows)| {
            let (channels, range) = choose(seen);
            error(other, &weights, site.grid.affine(range), &channels)
        };
        [(first, second), (second, first)].into_iter().map(one).sum::<f64>() / total
    };
    let whole = judged(&|seen| (Vec::new(), narrowed(seen, &weights, site)));
    let mut found: Option<(f64, usize)> = None;
    for split in COUNTS.into_iter().filter(|split| split * SHARE <= site.channels) {
        let left = judged(&|seen| seen.without(split));
        let price = site.readers.len() as f64 * (PRICE + split as f64 * PRICE_PER_CHANNEL);
        let gain = whole - left - price;
        if left <= GAIN * whole && gain > found.map_or(0.0, |(gain, _)| gain) {
            found = Some((gain, split));
        }
    }
    let (gain, split) = found?;
    tracing::debug!(value = site.name, split, whole, gain, "outliers");
    let (channels, range) = rows.without(split);
    Some(Outliers { channels, range })
}

/// Σ counts·weights·(x − Q(x))²; of the channels split, with x limited to what Q represents.
fn error(rows: &Rows, weights: &[f64], grid: Affine, split: &[usize]) -> f64 {
    let range = grid.range();
    let mut limits = vec![Range::new(f32::MIN, f32::MAX); weights.len()];
    for &channel in split {
        limits[channel] = range;
    }
    let weights: Vec<f32> = weights.iter().map(|&weight| weight as f32).collect();
    let mut limited = vec![0.0; weights.len()];
    let mut lost = |row: &[f32]| {
        let each = limited.iter_mut().zip(row).zip(&limits);
        each.for_each(|((to, x), limit)| *to = x.max(limit.min).min(limit.max));
        sums(&limited, &weights, |x, weight| {
            let apart = f64::from(x - grid.fake_quantize(x));
            [f64::from(weight) * (apart * apart)]
        })[0]
    };
    rows.iter().map(|(row, count)| f64::from(count) * lost(row)).sum()
}

/// The range of least error where nothing is split: its upper end is sought first, then its lower one.
fn narrowed(rows: &Rows, weights: &[f64], site: &Site) -> Range {
    let error = |range: Range| error(rows, weights, site.grid.affine(range), &[]);
    let whole = rows.without(0).1;
    let mut best = (error(whole), whole);
    for end in 0..2 {
        let from = best.1;
        for share in SHARES {
            let range =
                if end == 0 { Range::new(from.min, from.max * share) } else { Range::new(from.min * share, from.max) };
            let found = error(range);
            if found < best.0 {
                best = (found, range);
            }
        }
    }
    best.1
}

#[cfg(test)]
mod tests;
