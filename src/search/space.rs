//! The plans a search chooses from: a rung of one ladder for every layer.

use crate::quant::weight_grid::WeightGrid;
use crate::scheme::bit_plan::{ActivationBits, BitPlan, LayerPlan, WeightBits};
use crate::scheme::bits::Activations;
use crate::scheme::options::Options;
use crate::search::SearchError;
use indexmap::IndexMap;
use msq_passes::analysis::Layer;
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
    /// What the plans say of nodes and values.
    beside: BitPlan,
}

#[derive(Clone, Debug)]
struct SpaceLayer {
    name: String,
    weights: usize,
    macs: u64,
    /// Its plan on each rung.
    rungs: Vec<LayerPlan>,
}

/// The rungs of a ladder of weights, from most bits to fewest. At 2 bits weights are a codebook, which costs a few bytes a
/// layer and errs less.
pub(crate) fn ladder(weights: &[WeightBits], activations: Activations) -> Vec<LayerPlan> {
    let rung = |&weights: &WeightBits| {
        let activations = match activations {
            Activations::Same => weights.same_of_activations(),
            Activations::Fixed(activations) => activations,
        };
        let grid = (weights == WeightBits::whole(2)).then_some(WeightGrid::Codebook);
        LayerPlan { weights, activations, grid, ..LayerPlan::default() }
    };
    weights.iter().map(rung).collect()
}

impl Space {
    /// All layers may have any rung, the first and the last ones as the options say.
    pub(crate) fn new(
        model: &Model,
        layers: &[Layer],
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
            macs: layer.macs_per_sample(&model.graph).unwrap_or(0),
            rungs: plans.iter().map(|plan| plan.layer(&layer.name).unwrap_or_default()).collect(),
        };
        let beside = options.scheme.plan.with_layers(IndexMap::new());
        Ok(Self { layers: layers.iter().map(layer).collect(), rungs, beside })
    }

    /// The same, but some layers compute in float on every rung, with integer weights.
    pub(crate) fn with_float(&self, layers: &[usize]) -> Self {
        let mut space = self.clone();
        for &layer in layers {
            space.layers[layer].rungs.iter_mut().for_each(|rung| rung.activations = ActivationBits::Float);
        }
        space
    }

    /// The same with what a plan repairs: layers that compute in float, nodes in float and ranges.
    pub(crate) fn repaired(&self, plan: &BitPlan) -> Self {
        let is_float = |name: &str| plan.layer(name).is_some_and(|layer| layer.activations == ActivationBits::Float);
        let float: Vec<usize> = (0..self.len()).filter(|&layer| is_float(self.name(layer))).collect();
        let mut space = Self { beside: plan.with_layers(IndexMap::new()), ..self.with_float(&float) };
        for layer in &mut space.layers {
            if plan.layer(&layer.name).is_some_and(|layer| layer.weights == WeightBits::Float) {
                layer.rungs.fill(LayerPlan::FLOAT);
            }
        }
        space
    }

    /// Whether any layer computes on integers on the first rung.
    pub(crate) fn is_on_integers(&self) -> bool {
        let integers = |layer: &SpaceLayer| layer.rungs.first().is_some_and(|r| r.activations != ActivationBits::Float);
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
        self.beside.with_layers(layers.collect())
    }

    /// What a layer takes on a rung; of [`Measure::FileBytes`], its weights.
    pub(crate) fn cost(&self, measure: Measure, layer: usize, rung: usize) -> u64 {
        let SpaceLayer { weights, macs, rungs, .. } = &self.layers[layer];
        let rung = rungs[rung];
        let activation = match rung.activations {
            ActivationBits::Float => 32,
            ActivationBits::Bits(bits) => u64::from(bits),
        };
        match measure {
            Measure::PackedBytes | Measure::FileBytes => rung.packed_bytes(*weights) as u64,
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
