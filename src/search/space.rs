//! The plans a search chooses from: a rung of one ladder for every layer.

use crate::quant::BitRate;
use crate::quant::weight_grid::WeightGrid;
use crate::scheme::WIDE;
use crate::scheme::bit_plan::{ActivationBits, BitPlan, LayerPlan, WeightBits};
use crate::scheme::bits::Activations;
use crate::scheme::options::Options;
use crate::search::SearchError;
use indexmap::IndexMap;
use msq_passes::analysis::{Layer, layers};
use msq_passes::ir::Model;

/// The rung of each layer, 0 the one with the most bits.
pub(crate) type Rungs = Vec<usize>;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Bytes of all weights as they are packed.
    PackedBytes,
    /// Twentieths of a bit of all weights together, a ternary weight 1.6 bits.
    TwentiethBits,
    /// Bytes of the file.
    FileBytes,
    /// Multiply-accumulates times twentieths of a bit of the weight times bits of the activation.
    MacBits,
}

/// Layers and rungs.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    layers: Vec<SpaceLayer>,
    /// The rungs as they are, without what is said of first and last layers.
    rungs: Vec<LayerPlan>,
    /// Layers that the options leave in float.
    left_out: Vec<String>,
    /// What the plans say of nodes and values.
    beside: BitPlan,
}

#[derive(Clone, Debug)]
struct SpaceLayer {
    name: String,
    weights: usize,
    channels: usize,
    macs: u64,
    /// Its plan on each rung.
    rungs: Vec<LayerPlan>,
}

/// What is asked of the rungs that all layers have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ladder<'a> {
    /// Bits of weights, from most to fewest.
    pub(crate) weights: Option<&'a [WeightBits]>,
    /// Bits of activations.
    pub(crate) activations: Activations,
    /// The grid of the rungs whose bits it has.
    pub(crate) grid: Option<WeightGrid>,
    /// Whether trellis codes are the grid of few bits unless another is asked for.
    pub(crate) trellis: bool,
}

impl Ladder<'_> {
    /// Quarters of a bit of the usual ladder where trellis codes are used.
    const TRELLIS: [u8; 13] = [32, 28, 24, 20, 16, 12, 10, 9, 8, 7, 6, 5, 4];

    fn weights(&self) -> Vec<WeightBits> {
        if let Some(weights) = self.weights {
            return weights.to_vec();
        }
        if self.is_coded() {
            return Self::TRELLIS.map(|quarters| WeightBits::Bits(BitRate::of_quarters(quarters))).to_vec();
        }
        [8, 7, 6, 5, 4, 3, 2].map(WeightBits::whole).into_iter().chain([WeightBits::Ternary]).collect()
    }

    fn is_coded(&self) -> bool {
        self.grid.map_or(self.trellis, |grid| grid == WeightGrid::Trellis)
    }

    /// The rungs. Without trellis codes, weights of 2 bits are a codebook unless a grid is asked for: it costs a few bytes
    /// per layer and errs less.
    pub(crate) fn rungs(&self) -> Vec<LayerPlan> {
        let rung = |weights: WeightBits| {
            let activations = match self.activations {
                Activations::Same => weights.same_of_activations(),
                Activations::Fixed(activations) => activations,
            };
            let grid = match weights {
                WeightBits::Bits(rate) => {
                    let asked = self.grid.filter(|grid| grid.fault(rate).is_none());
                    let coded = self.is_coded() && WeightGrid::Trellis.fault(rate).is_none();
                    let listed = (rate == BitRate::whole(2)).then_some(WeightGrid::Codebook);
                    asked.or(if coded { Some(WeightGrid::Trellis) } else { listed })
                }
                _ => None,
            };
            LayerPlan { weights, activations, grid, ..LayerPlan::default() }
        };
        self.weights().into_iter().map(rung).collect()
    }
}

impl Space {
    /// All layers of `searched` may have any rung, the first and the last ones as the options say; the others of the model are
    /// float.
    pub(crate) fn new(
        model: &Model,
        searched: &[Layer],
        rungs: Vec<LayerPlan>,
        options: &Options,
    ) -> Result<Self, SearchError> {
        let resolved = |&rung: &LayerPlan| {
            BitPlan::uniform(rung).resolved(model, options.scheme.first_last_bits, &options.scheme.profile)
        };
        let plans: Vec<BitPlan> = rungs.iter().map(resolved).collect::<Result<_, _>>()?;
        let layer = |layer: &Layer| SpaceLayer {
            name: layer.name.clone(),
            weights: layer.weights(),
            channels: layer.channels(),
            macs: layer.macs_per_sample(&model.graph).unwrap_or(0),
            rungs: plans.iter().map(|plan| plan.layer(&layer.name).unwrap_or_default()).collect(),
        };
        let is_searched = |name: &String| searched.iter().any(|layer| layer.name == *name);
        let left_out = layers(model).into_iter().map(|layer| layer.name).filter(|name| !is_searched(name)).collect();
        let beside = options.scheme.plan.with_layers(IndexMap::new());
        Ok(Self { layers: searched.iter().map(layer).collect(), rungs, left_out, beside })
    }

    /// The space in which some layers compute in float on every rung, with integer weights.
    pub(crate) fn with_float(&self, layers: &[usize]) -> Self {
        let mut space = self.clone();
        for &layer in layers {
            space.layers[layer].rungs.iter_mut().for_each(|rung| rung.activations = ActivationBits::Float);
        }
        space
    }

    /// The space with what a plan repairs: layers that compute in float, nodes in float and ranges.
    pub(crate) fn repaired(&self, plan: &BitPlan) -> Self {
        let is_float = |name: &str| plan.layer(name).is_some_and(|layer| !layer.activations.is_static());
        let float: Vec<usize> = (0..self.len()).filter(|&layer| is_float(self.name(layer))).collect();
        let mut space = Self { beside: plan.with_layers(IndexMap::new()), ..self.with_float(&float) };
        for layer in &mut space.layers {
            let Some(repaired) = plan.layer(&layer.name) else { continue };
            if repaired.weights == WeightBits::Float {
                layer.rungs.fill(LayerPlan::FLOAT);
            } else if repaired.activations == ActivationBits::Bits(WIDE) {
                layer.rungs.iter_mut().for_each(|rung| rung.activations = repaired.activations);
            }
        }
        space
    }

    /// Whether any layer computes on integers on the first rung.
    pub(crate) fn is_on_integers(&self) -> bool {
        let integers = |layer: &SpaceLayer| layer.rungs.first().is_some_and(|r| r.activations.is_static());
        self.layers.iter().any(integers)
    }

    /// Number of layers.
    pub(crate) fn len(&self) -> usize {
        self.layers.len()
    }

    /// Number of rungs.
    pub(crate) fn rungs(&self) -> usize {
        self.rungs.len()
    }

    /// Name of a layer.
    pub(crate) fn name(&self, layer: usize) -> &str {
        &self.layers[layer].name
    }

    /// Number of weights of a layer.
    pub(crate) fn weights(&self, layer: usize) -> usize {
        self.layers[layer].weights
    }

    /// Multiply-accumulates of a layer; none where its shapes are not known.
    pub(crate) fn macs(&self, layer: usize) -> u64 {
        self.layers[layer].macs
    }

    /// Multiply-accumulates of all layers, a weight one at least.
    pub(crate) fn macs_at_least(&self) -> u64 {
        self.layers.iter().map(|layer| layer.macs.max(layer.weights as u64)).sum()
    }

    /// Bits of the weights on a rung.
    pub(crate) fn bits(&self, rung: usize) -> WeightBits {
        self.rungs[rung].weights
    }

    /// The rungs around one of a fraction of a bit, if a whole number of bits stands on either side of it on the same
    /// grid, and its share of the way from the upper to the lower one.
    pub(crate) fn between(&self, rung: usize) -> Option<(usize, usize, f64)> {
        let whole = |plan: &LayerPlan| matches!(plan.weights, WeightBits::Bits(rate) if rate.as_whole().is_some());
        let here = self.rungs.get(rung).filter(|plan| plan.weight_grid() == WeightGrid::Trellis && !whole(plan))?;
        let is_end = |&at: &usize| whole(&self.rungs[at]) && self.rungs[at].weight_grid() == here.weight_grid();
        let above = (0..rung).rev().find(|&at| whole(&self.rungs[at])).filter(is_end)?;
        let below = (rung + 1..self.rungs()).find(|&at| whole(&self.rungs[at])).filter(is_end)?;
        let bits = |at: usize| self.rungs[at].weights.twentieths() as f64;
        Some((above, below, (bits(above) - bits(rung)) / (bits(above) - bits(below))))
    }

    /// The next rung below, without those of fractions of a bit that have whole numbers on either side.
    pub(crate) fn next_whole(&self, rung: usize) -> Option<usize> {
        (rung + 1..self.rungs()).find(|&at| self.between(at).is_none())
    }

    /// Every layer at the first rung.
    pub(crate) fn top(&self) -> Rungs {
        vec![0; self.len()]
    }

    /// Every layer at the last rung.
    pub(crate) fn bottom(&self) -> Rungs {
        vec![self.rungs() - 1; self.len()]
    }

    /// The plan with these rungs.
    pub(crate) fn plan(&self, rungs: &[usize]) -> BitPlan {
        let layers = self.layers.iter().zip(rungs).map(|(layer, &rung)| (layer.name.clone(), layer.rungs[rung]));
        let left_out = self.left_out.iter().map(|name| (name.clone(), LayerPlan::FLOAT));
        self.beside.with_layers(layers.chain(left_out).collect())
    }

    /// What a layer takes on a rung; of [`Measure::FileBytes`], its weights.
    pub(crate) fn cost(&self, measure: Measure, layer: usize, rung: usize) -> u64 {
        let SpaceLayer { weights, channels, macs, rungs, .. } = &self.layers[layer];
        let rung = rungs[rung];
        let activation = match rung.activations {
            ActivationBits::Float => 32,
            ActivationBits::Bits(bits) => u64::from(bits),
            ActivationBits::Dynamic => 8,
        };
        match measure {
            Measure::PackedBytes | Measure::FileBytes => rung.packed_bytes(*weights, *channels) as u64,
            Measure::TwentiethBits => *weights as u64 * rung.weights.twentieths(),
            Measure::MacBits => macs * rung.weights.twentieths() * activation,
        }
    }

    /// What all layers take; of [`Measure::FileBytes`], their weights.
    pub(crate) fn total(&self, measure: Measure, rungs: &[usize]) -> u64 {
        rungs.iter().enumerate().map(|(layer, &rung)| self.cost(measure, layer, rung)).sum()
    }

    /// Bytes of all weights as they are packed.
    pub(crate) fn packed_bytes(&self, rungs: &[usize]) -> u64 {
        self.total(Measure::PackedBytes, rungs)
    }

    /// Bits of a weight on average.
    pub(crate) fn average_bits(&self, rungs: &[usize]) -> f64 {
        let weights: usize = self.layers.iter().map(|layer| layer.weights).sum();
        self.total(Measure::TwentiethBits, rungs) as f64 / (20.0 * weights.max(1) as f64)
    }

    /// Bytes of the weights as floats.
    pub(crate) fn float_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| 4 * layer.weights as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LADDER: Ladder =
        Ladder { weights: None, activations: Activations::Fixed(ActivationBits::Bits(8)), grid: None, trellis: true };

    fn written(ladder: Ladder) -> String {
        let rung = |plan: LayerPlan| match plan.grid {
            Some(grid) => format!("{} {grid}", plan.weights),
            None => plan.weights.to_string(),
        };
        ladder.rungs().into_iter().map(rung).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_ladder_has_the_grids_of_its_target() {
        assert_eq!(
            written(LADDER),
            "8, 7, 6, 5, 4 trellis, 3 trellis, 2.5 trellis, 2.25 trellis, 2 trellis, 1.75 trellis, 1.5 trellis, \
             1.25 trellis, 1 trellis"
        );
        let plain = Ladder { trellis: false, ..LADDER };
        assert_eq!(written(plain), "8, 7, 6, 5, 4, 3, 2 codebook, ternary");
        let of = |grid| written(Ladder { grid: Some(grid), ..LADDER });
        assert_eq!(of(WeightGrid::Full), "8 full, 7 full, 6 full, 5 full, 4 full, 3 full, 2 full, ternary");
        assert_eq!(
            of(WeightGrid::Codebook),
            "8, 7 codebook, 6 codebook, 5 codebook, 4 codebook, 3 codebook, 2 codebook, ternary"
        );
        assert_eq!(written(Ladder { grid: Some(WeightGrid::Trellis), ..plain }), written(LADDER));
        let weights = [WeightBits::whole(8), WeightBits::whole(2), WeightBits::Ternary];
        assert_eq!(written(Ladder { weights: Some(&weights), ..LADDER }), "8, 2 trellis, ternary");
    }

    #[test]
    fn fractions_stand_between_whole_numbers() {
        let space = |weights: Option<&[WeightBits]>| Space {
            layers: Vec::new(),
            rungs: Ladder { weights, ..LADDER }.rungs(),
            left_out: Vec::new(),
            beside: BitPlan::of_layers(IndexMap::new()),
        };
        let usual = space(None);
        assert_eq!(usual.between(6), Some((5, 8, 0.5)));
        assert_eq!(usual.between(11), Some((8, 12, 0.75)));
        assert_eq!([0, 3, 4, 5, 8, 12].map(|rung| usual.between(rung)), [None; 6]);
        assert_eq!((usual.next_whole(5), usual.next_whole(6), usual.next_whole(12)), (Some(8), Some(8), None));
        // What has no whole number of bits on either side is measured.
        let quarters = ["8", "2.5", "1.75"].map(|bits| bits.parse().unwrap());
        let open = space(Some(&quarters));
        assert_eq!([0, 1, 2].map(|rung| open.between(rung)), [None; 3]);
        assert_eq!(open.next_whole(0), Some(1));
    }
}
