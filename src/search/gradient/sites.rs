//! Where errors arise: the values between which each layer lies, and the network with their gradients.

use crate::data::Sample;
use crate::execute::segment::{inputs, state_shapes_of};
use crate::runtime::Runtime;
use crate::search::SearchError;
use msq_passes::analysis::{Layer, Placement};
use msq_passes::ir::{Graph, Model, ValueId};
use msq_passes::{Differentiate, pipelines};

/// A layer between the value that its quantizer reads and the value that it writes.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// The value that is quantized for the layer.
    pub(super) read: String,
    /// What is compared in the float network: what the layer's operator writes, or that behind its activation.
    pub(super) written: String,
    /// What is compared in each quantized network, in front of its quantizer.
    pub(super) quantized: Vec<String>,
}

impl Site {
    /// The name of the gradient.
    pub(super) fn gradient(&self) -> String {
        Differentiate::gradient_of(&self.written)
    }
}

/// The site of each layer in quantized networks; nothing where one is not found in all of them.
pub(super) fn sites(
    model: &Model,
    placement: &Placement,
    layers: &[(Layer, String)],
    networks: &[Model],
) -> Option<Vec<Site>> {
    let name = |value| model.graph.value(value).name().to_owned();
    let site = |(layer, behind): &(Layer, String)| {
        let own = name(layer.output);
        let found = networks.iter().map(|network| counterpart(&model.graph, &network.graph, [&own, behind]));
        let (written, quantized): (Vec<String>, Vec<String>) = found.collect::<Option<Vec<_>>>()?.into_iter().unzip();
        let first = written.first().filter(|first| written.iter().all(|other| other == *first))?.clone();
        Some(Site { read: name(placement.root(layer.input)), written: first, quantized })
    };
    layers.iter().map(site).collect()
}

/// What a layer writes in the float network, and the same in a quantized one: what its operator writes, or, where only that
/// has a name in both, what stands behind its activation. A quantizer may have taken the activation's place.
fn counterpart(float: &Graph, quantized: &Graph, [own, behind]: [&String; 2]) -> Option<(String, String)> {
    let computed = |name: &String| quantized.find(name).filter(|&value| quantized.value(value).producer().is_some());
    let op =
        |graph: &Graph, value: ValueId| graph.value(value).producer().map(|(node, _)| graph.node(node).op().to_owned());
    let name = |value: ValueId| quantized.value(value).name().to_owned();
    if let Some(value) = computed(own) {
        return Some((own.clone(), name(unquantized(quantized, value))));
    }
    // A batch-norm that went into the layer's scales.
    let next = float.only_use(float.find(own)?).map(|reader| float.node(reader.node).op());
    if next == Some("BatchNormalization") {
        return None;
    }
    let value = unquantized(quantized, computed(behind)?);
    let activated = float.find(behind).is_some_and(|float_value| op(float, float_value) == op(quantized, value));
    Some((if activated { behind.clone() } else { own.clone() }, name(value)))
}

/// The value that became this one in a quantizer, or the value itself.
fn unquantized(graph: &Graph, value: ValueId) -> ValueId {
    let input = |value: ValueId, op: &str| {
        let node = graph.node(graph.value(value).producer()?.0);
        node.input(0).filter(|_| node.is(op))
    };
    let integers = input(value, "DequantizeLinear");
    let quantized = integers.map(|value| input(value, "Clip").unwrap_or(value));
    quantized.and_then(|value| input(value, "QuantizeLinear")).unwrap_or(value)
}

/// The network, for inputs of the shapes of a sample, with the gradients of what layers write, from the outputs given; or
/// why there are none.
pub(super) fn differentiated(
    model: &Model,
    sample: &Sample,
    seeds: &[String],
    sites: &[Site],
    runtime: &Runtime,
) -> Result<Result<Model, String>, SearchError> {
    let mut back = model.clone();
    debug_assert_eq!(inputs(model).len(), sample.arrays.len());
    state_shapes_of(sample, &mut back);
    runtime.backend().infer(&back)?.annotate(&mut back);
    let mut wanted: Vec<String> = sites.iter().map(|site| site.written.clone()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    match pipelines::differentiate(seeds.to_vec(), wanted).run(&mut back) {
        Ok(records) => {
            let mut declined = records.iter().flat_map(|record| &record.outcome.declined);
            let first = declined.next().map(|declined| format!("`{}`: {}", declined.site, declined.reason));
            Ok(first.map_or(Ok(back), Err))
        }
        Err(error) => Ok(Err(error.to_string())),
    }
}
