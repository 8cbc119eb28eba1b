//! A random network, which the tests of folders above use as well.

#![allow(clippy::unwrap_used)]

use crate::calibrate::ObserverKind;
use crate::calibrate::observe::{Observed, Watch, see};
use crate::data::random::Random;
use crate::data::{Array, Dataset, InputSpec, Sample};
use crate::engine::standard;
use crate::prepare::{annotate, prepare};
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::{BitPlan, LayerPlan};
use crate::{BatchNorm, Options};
use msq_passes::Profile;
use msq_passes::ir::{Model, import, text};

/// A small network with weights and samples drawn at random, calibrated: all activations that the profile can have on
/// integers are.
pub(crate) struct RandomNetwork {
    pub(crate) model: Model,
    pub(crate) data: Dataset,
    pub(crate) scheme: Scheme,
    pub(crate) observed: Observed,
}

impl RandomNetwork {
    /// `network` is a graph in the text form, whose floats are left empty; `every` is the plan of each layer. Weights are
    /// uniform with the variance 2 by the number of inputs, elements of samples are normal.
    pub(crate) fn new(network: &str, samples: usize, every: LayerPlan) -> Self {
        let mut proto = text::parse(&format!("<ir_version: 8, opset_import: [\"\": 17]> g {network}")).unwrap();
        let mut random = Random::new(3, 0, 0);
        for tensor in proto.graph.as_mut().unwrap().initializer.iter_mut().filter(|tensor| tensor.is_float()) {
            let shape = tensor.shape().unwrap();
            let reach = (6.0 / shape.iter().skip(1).product::<usize>() as f32).sqrt();
            tensor.float_data = (0..shape.iter().product()).map(|_| random.between(-reach, reach)).collect();
        }
        let mut model = import(proto).unwrap();
        prepare(&mut model, BatchNorm::Fold, &[], &*standard(), None).unwrap();
        annotate(&mut model, &*standard());
        let shape: Vec<usize> = InputSpec::of(&model)[0].shape.iter().flatten().map(|n| n.unwrap_or(1)).collect();
        let sample = |_| {
            let values = (0..shape.iter().product()).map(|_| random.normal()).collect();
            Sample { arrays: vec![Array::from_f32(shape.clone(), values).unwrap()] }
        };
        let data = Dataset::stored((0..samples).map(sample).collect());
        let mut options = Options::default().with_plan(&BitPlan::uniform(every));
        // Layers as small are faster in float, and activations would stay so.
        options.scheme.profile = Profile { prices: None, ..Profile::ORT_CPU };
        let scheme = Scheme::new(&model, &options.scheme.plan, &options).unwrap();
        let watch = Watch { observer: ObserverKind::default(), margin: 1.0, outputs: 16, distributions: false };
        let seen = see(&model, &scheme, &data, watch, &Runtime::with_threads(2)).unwrap();
        let observed = seen.observed(&model, &scheme).unwrap();
        Self { model, data, scheme, observed }
    }
}
