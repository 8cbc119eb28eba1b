//! What every layer adds to the distance on every rung, from gradients of the float network.
//!
//! A rounded layer, and the quantizer in front of it, put an error e on what the layer writes, which moves the outputs by
//! J·e. Where the outputs are compared by the divergence KL(p ‖ q), or by another distance with the second derivative F,
//! the distance is to second order
//!
//! `½·eᵀJᵀFJe = ½·E_s (g_s·e)²`, `g_s = Jᵀs`, for vectors s with `E ssᵀ = F` ([`seeds`]).
//!
//! The gradients g of all layers come from one run back ([`msq_passes::Differentiate`]). The errors e come from the layers
//! alone, each on the values that it reads in the float network: the network of a rung, cut in front of every layer. So
//! one run back and one run of each rung give what is otherwise measured by a run for every layer and rung.
//!
//! Costs are quadratic: they are too high where an error is so large that the outputs no longer follow it. Samples go
//! through in parts, whose inner values fit the memory for them; sums are taken in the order of samples.

mod seeds;
mod sites;

use super::SearchError;
use super::variants::Variants;
use crate::data::{Array, Dataset, Sample};
use crate::execute::fold::{Pool, SHARD};
use crate::execute::segment::{Ran, Segment, inputs};
use crate::measure::outputs::Outputs;
use crate::runtime::Runtime;
use crate::scheme::bit_plan::BitPlan;
use msq_passes::analysis::{Layer, Placement};
use msq_passes::ir::Model;
use seeds::{Ran as OutputRun, Seed, seeds};
use sites::{Site, differentiated, sites};

/// The share of the seeds' weight that is followed back.
const FOLLOWED: f64 = 0.99;

/// Costs by layer and plan; or why gradients give none.
pub(super) type Costs = Result<Vec<Vec<f64>>, String>;

/// A float network, and the data on which its outputs are compared.
pub(super) struct Network<'n> {
    pub model: &'n Model,
    pub placement: &'n Placement,
    /// In graph order, each with the name of the value it writes.
    pub layers: &'n [(Layer, String)],
    /// With what each output holds decided.
    pub outputs: &'n Outputs,
    pub data: &'n Dataset,
    /// Bytes of inner values that are held at once.
    pub budget: u64,
    pub seed: u64,
}

/// What each layer costs in each of some plans, every other layer in float.
pub(super) fn costs(
    network: &Network,
    variants: &mut Variants,
    plans: &[BitPlan],
    runtime: &Runtime,
) -> Result<Costs, SearchError> {
    let first = network.data.sample(0)?;
    let shapes: Vec<Vec<usize>> = first.arrays.iter().map(|array| array.shape().to_vec()).collect();
    let alike = |sample: &Sample| sample.arrays.iter().map(Array::shape).eq(shapes.iter().map(Vec::as_slice));
    let mut same = Vec::new();
    for index in 0..network.data.len() {
        if alike(&network.data.sample(index)?) {
            same.push(index);
        }
    }
    if 2 * same.len() < network.data.len() {
        return Ok(Err("samples have many shapes".to_owned()));
    }
    let data = network.data.subset(&same);
    let runs = outputs_of(network.model, &data, runtime)?;
    let starts = match seeds(network.outputs, &runs, &data, network.seed)? {
        Ok(seeds) => worthy(seeds),
        Err(reason) => return Ok(Err(reason)),
    };
    if starts.is_empty() {
        return Ok(Err("no sample has a gradient".to_owned()));
    }
    let mut rungs = Vec::new();
    for plan in plans {
        rungs.push(variants.build(plan)?);
    }
    let Some(sites) = sites(network.model, network.placement, network.layers, &rungs) else {
        return Ok(Err("a layer is not found in the quantized network".to_owned()));
    };
    let seeded: Vec<String> = network.outputs.list.iter().map(|spec| spec.name.clone()).collect();
    let back = match differentiated(network.model, &first, &seeded, &sites, runtime)? {
        Ok(back) => back,
        Err(reason) => return Ok(Err(reason)),
    };
    let followed = Followed { data: &data, starts: &starts, sites: &sites, back: &back, samples: same.len() };
    followed.costs(&rungs, network.budget, runtime)
}

/// The outputs of the float network.
fn outputs_of(model: &Model, data: &Dataset, runtime: &Runtime) -> Result<Vec<Vec<OutputRun>>, SearchError> {
    let whole = Segment::whole(model);
    let mut runs = Vec::new();
    let copy = |kept: &mut Vec<Vec<OutputRun>>, _, ran: Ran| -> Result<(), SearchError> {
        let output = |at| Ok(OutputRun { values: ran.values(at)?.into_owned(), shape: ran.shape(at).to_vec() });
        kept.push((0..ran.len()).map(output).collect::<Result<_, SearchError>>()?);
        Ok(())
    };
    let merge = |part: Vec<Vec<OutputRun>>| {
        runs.extend(part);
        Ok(())
    };
    Pool::new(&whole, runtime).fold(data, &runtime.silent(), Vec::new, copy, merge)?;
    Ok(runs)
}

/// The heaviest seeds, until they have nearly all of the weight; in the order in which they came.
fn worthy(seeds: Vec<Seed>) -> Vec<Seed> {
    let total: f64 = seeds.iter().map(|seed| seed.weight).sum();
    let mut order: Vec<usize> = (0..seeds.len()).collect();
    order.sort_by(|&a, &b| seeds[b].weight.total_cmp(&seeds[a].weight).then(a.cmp(&b)));
    let (mut reached, mut least) = (0.0, f64::INFINITY);
    for at in order {
        if reached >= FOLLOWED * total {
            break;
        }
        reached += seeds[at].weight;
        least = seeds[at].weight;
    }
    seeds.into_iter().filter(|seed| seed.weight >= least && seed.weight > 0.0).collect()
}

/// Everything that is run for the costs.
struct Followed<'f> {
    data: &'f Dataset,
    starts: &'f [Seed],
    sites: &'f [Site],
    /// The float network with the gradients of the sites.
    back: &'f Model,
    /// Samples that the seeds stand for.
    samples: usize,
}

impl Followed<'_> {
    fn costs(&self, rungs: &[Model], budget: u64, runtime: &Runtime) -> Result<Costs, SearchError> {
        let (read, wanted) = self.names();
        let fed = self.fed(0)?;
        let back = Segment::between(self.back, &inputs(self.back), &fed, &wanted)?;
        let pool = Pool::new(&back, runtime);
        let bytes = pool.once(&fed, |ran| ran.bytes(ran.len()))?;
        let at_once = usize::try_from(budget / bytes.max(1)).unwrap_or(usize::MAX) / SHARD * SHARD;
        let at_once = at_once.clamp(SHARD, self.starts.len().max(SHARD));
        // Of each rung what every layer makes of what it reads in the float network.
        let sample = pool.once(&fed, |ran| ran.sample(read.len()))??;
        let mut alone = Vec::new();
        for (at, rung) in rungs.iter().enumerate() {
            let written: Vec<String> = self.sites.iter().map(|site| site.quantized[at].clone()).collect();
            alone.push(Segment::between(rung, &read, &sample, &written)?);
        }
        let pools: Vec<Pool> = alone.iter().map(|segment| Pool::new(segment, runtime)).collect();
        let mut sums = vec![vec![0.0; self.sites.len()]; rungs.len()];
        for start in (0..self.starts.len()).step_by(at_once) {
            let part = start..(start + at_once).min(self.starts.len());
            let fed = Dataset::stored(part.map(|at| self.fed(at)).collect::<Result<_, _>>()?);
            let values = stored(&pool, &fed, runtime)?;
            let reads = values.iter().map(|sample| Sample { arrays: sample.arrays[..read.len()].to_vec() });
            let reads = Dataset::stored(reads.collect());
            for (pool, sums) in pools.iter().zip(&mut sums) {
                self.add(sums, pool, &reads, &values, runtime)?;
            }
        }
        let cost = |layer: usize| sums.iter().map(|sums| 0.5 * sums[layer] / self.samples as f64).collect();
        Ok(Ok((0..self.sites.len()).map(cost).collect()))
    }

    /// What layers read, each value once; and behind that what they write and its gradient, layer by layer.
    fn names(&self) -> (Vec<String>, Vec<String>) {
        let mut read: Vec<String> = Vec::new();
        for site in self.sites {
            if !read.contains(&site.read) {
                read.push(site.read.clone());
            }
        }
        let behind = self.sites.iter().flat_map(|site| [site.written.clone(), site.gradient()]);
        let wanted = read.iter().cloned().chain(behind).collect();
        (read, wanted)
    }

    /// The inputs of a run back.
    fn fed(&self, start: usize) -> Result<Sample, SearchError> {
        let seed = &self.starts[start];
        let mut sample = self.data.sample(seed.sample)?;
        sample.arrays.extend(seed.arrays.iter().cloned());
        Ok(sample)
    }

    /// Adds (g·e)² of some seeds, layer by layer: shard by shard, so that the sums do not depend on how many seeds go
    /// through at once.
    fn add(
        &self,
        total: &mut [f64],
        pool: &Pool,
        reads: &Dataset,
        values: &[Sample],
        runtime: &Runtime,
    ) -> Result<(), SearchError> {
        let visit = |sums: &mut Vec<f64>, index: usize, ran: Ran| -> Result<(), SearchError> {
            let behind = &values[index].arrays[values[index].arrays.len() - 2 * sums.len()..];
            for (layer, sum) in sums.iter_mut().enumerate() {
                let [float, gradient] = [0, 1].map(|at| behind[2 * layer + at].to_f32());
                let moved = along(&ran.values(layer)?, &float, &gradient);
                *sum += moved * moved;
            }
            Ok(())
        };
        let merge = |part: Vec<f64>| {
            total.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            Ok(())
        };
        pool.fold(reads, &runtime.silent(), || vec![0.0; self.sites.len()], visit, merge)
    }
}

/// g·(y − x).
fn along(quantized: &[f32], float: &[f32], gradient: &[f32]) -> f64 {
    let elements = quantized.iter().zip(float).zip(gradient);
    elements.map(|((&y, &x), &g)| f64::from(y - x) * f64::from(g)).sum()
}

/// The values wanted of every sample.
fn stored(pool: &Pool, data: &Dataset, runtime: &Runtime) -> Result<Vec<Sample>, SearchError> {
    let mut samples = Vec::new();
    let keep = |kept: &mut Vec<Sample>, _, ran: Ran| -> Result<(), SearchError> {
        kept.push(ran.sample(ran.len())?);
        Ok(())
    };
    let merge = |part: Vec<Sample>| {
        samples.extend(part);
        Ok(())
    };
    pool.fold(data, &runtime.silent(), Vec::new, keep, merge)?;
    Ok(samples)
}
