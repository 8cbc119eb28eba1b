//! The metadata of a written model, which records how it was quantized:
//!
//! | key | value |
//! |---|---|
//! | `msq-onnx.version` | the version that wrote it; not where names were shortened |
//! | `msq-onnx.widened` | how many channels layers had that have more in the file, by `widen-channels` |
//! | `msq-onnx.plan` | the bit plan of the run, as JSON: the entry of most layers as `default`, the others by name |
//! | `msq-onnx.fixed-inputs` | inputs of the float model that are constants of this one, as a JSON list of `NAME=VALUE`; where there are some |
//!
//! Layers have their names in the float model, even if the file has other names. Where names were shortened, the plan is
//! written without names, as the entries of all layers in the order of the graph, unless it says more than that.

use super::SchemeError;
use super::bit_plan::{BitPlan, WeightBits};
use crate::prepare::FixedInput;
use msq_passes::ir::Model;

const VERSION: &str = "msq-onnx.version";
const PLAN: &str = "msq-onnx.plan";
const FIXED_INPUTS: &str = "msq-onnx.fixed-inputs";

const PRODUCER: &str = "msq-onnx";

/// Writes the version of this tool and the plan. `shortened` are the names that the nodes of the graph had in order, where
/// they have none now.
pub(crate) fn write(model: &mut Model, plan: &BitPlan, shortened: Option<&[String]>) {
    let version = env!("CARGO_PKG_VERSION");
    model.set_producer(PRODUCER, version);
    let sequence = shortened.and_then(|nodes| {
        let layers: Vec<String> = nodes.iter().filter(|node| plan.layers.contains_key(*node)).cloned().collect();
        plan.to_sequence(&layers)
    });
    if shortened.is_none() {
        model.set_metadata(VERSION, version);
    }
    let compact = plan.compact();
    let line = sequence.filter(|_| !compact.layers.is_empty()).or_else(|| compact.to_sequence(&[]));
    model.set_metadata(PLAN, &line.filter(|_| shortened.is_some()).unwrap_or_else(|| compact.to_line()));
}

/// Writes the inputs that are constants of the model, beside those that were constants before.
pub(crate) fn write_fixed_inputs(model: &mut Model, fixed: &[FixedInput]) {
    let all = [&fixed_inputs(model), fixed].concat();
    if !all.is_empty() {
        model.set_metadata(FIXED_INPUTS, &serde_json::to_string(&all).unwrap_or_default());
    }
}

/// The inputs of the float model that are constants of a model; none where what is written there cannot be read.
pub fn fixed_inputs(model: &Model) -> Vec<FixedInput> {
    model.metadata(FIXED_INPUTS).and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default()
}

/// The plan that a model was quantized with, without names where these were shortened; `None` for a model without one.
pub fn plan(model: &Model) -> Option<Result<BitPlan, String>> {
    let line = model.metadata(PLAN)?;
    Some(if line.starts_with('{') { BitPlan::parse(line) } else { BitPlan::parse_sequence(line) })
}

/// The plan that a model was quantized with; a damaged plan is an error.
pub(crate) fn readable_plan(model: &Model) -> Result<Option<BitPlan>, SchemeError> {
    plan(model).transpose().map_err(|reason| SchemeError::DamagedPlan { reason })
}

/// Whether a model was quantized by this tool: by a plan with integers, or one that cannot be read.
pub(crate) fn is_own_result(model: &Model) -> bool {
    let has_integers = |plan: BitPlan| {
        let layers = plan.layers.values().chain(&plan.sequence).chain(&plan.default);
        layers.into_iter().any(|layer| layer.weights != WeightBits::Float)
    };
    plan(model).is_some_and(|plan| plan.map_or(true, has_integers))
}

/// Whether the names of inner values were shortened when this tool wrote the model.
pub(crate) fn is_stripped(model: &Model) -> bool {
    // Without shortened names, every node has a name.
    let own = model.producer() == PRODUCER || model.metadata(VERSION).is_some();
    own && model.graph.nodes().all(|(_, node)| node.name().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::bit_plan::{LayerPlan, WeightBits};
    use msq_passes::ir::{import, text};

    fn model(metadata: &str) -> Model {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]{metadata}> g (float[N] x) => (float[N] y) {{ [relu] y = Relu(x) }}"
        );
        import(text::parse(&text).unwrap()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_the_rest_stays() {
        let four = LayerPlan { weights: WeightBits::whole(4), ..LayerPlan::default() };
        let named = [("a", four), ("b", LayerPlan::default()), ("c", four), ("d", LayerPlan::FLOAT)];
        let full = BitPlan::of_layers(named.map(|(name, layer)| (name.to_owned(), layer)).into_iter().collect());
        let mut model = model(", metadata_props: [\"license\": \"MIT\", \"msq-onnx.plan\": \"old\"]");
        write(&mut model, &full, None);
        let written = model.metadata(PLAN).unwrap();
        assert_eq!(
            written,
            "{\"version\":1,\"default\":{\"weights\":4,\"activations\":8},\"layers\":{\
             \"b\":{\"weights\":8,\"activations\":8},\"d\":{\"weights\":\"float\",\"activations\":\"float\"}}}"
        );
        let read = plan(&model).unwrap().unwrap();
        assert!(named.iter().all(|&(name, layer)| read.layer(name) == Some(layer)));
        assert_eq!(model.metadata("license"), Some("MIT"));
        assert_eq!(model.producer(), "msq-onnx");
    }

    #[test]
    fn a_plan_for_all_layers_is_short() {
        let mut model = model("");
        assert!(plan(&model).is_none() && !is_stripped(&model));
        let same = ["a", "b"].map(|name| (name.to_owned(), LayerPlan::default()));
        write(&mut model, &BitPlan::of_layers(same.into_iter().collect()), None);
        assert_eq!(model.metadata(PLAN), Some("{\"version\":1,\"default\":{\"weights\":8,\"activations\":8}}"));
        assert!(!is_stripped(&model), "its node has a name");
    }

    #[test]
    fn shortened_names_are_left_out_of_the_plan() {
        let named = |bits: &[u8]| -> BitPlan {
            let layer = |&bits: &u8| LayerPlan { weights: WeightBits::whole(bits), ..LayerPlan::default() };
            let named = ["a", "b", "c"].map(str::to_owned).into_iter().zip(bits.iter().map(layer));
            BitPlan::of_layers(named.collect())
        };
        let written = |plan: &BitPlan, nodes: [&str; 4]| {
            let mut model = model("");
            let nodes = nodes.map(str::to_owned);
            let id = model.graph.node_ids().next().unwrap();
            model.graph.set_node_name(id, None);
            write(&mut model, plan, Some(&nodes));
            assert!(is_stripped(&model) && model.metadata(VERSION).is_none());
            model.metadata(PLAN).unwrap().to_owned()
        };
        assert_eq!(written(&named(&[4, 8, 4]), ["a", "relu", "b", "c"]), "4 8 4");
        assert_eq!(written(&named(&[4, 4, 4]), ["a", "relu", "b", "c"]), "4 *");
        // In another order, or with a layer that is no node, names are needed.
        assert!(written(&named(&[4, 8, 4]), ["b", "relu", "a", "c"]).starts_with('{'));
        assert!(written(&named(&[4, 8, 4]), ["a", "relu", "b", "d"]).starts_with('{'));
        let read = plan(&model(", metadata_props: [\"msq-onnx.plan\": \"4 8 4\"]")).unwrap().unwrap();
        assert_eq!(read.sequence, named(&[4, 8, 4]).layers.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn fixed_inputs_are_remembered() {
        let mut model = model("");
        write_fixed_inputs(&mut model, &[]);
        assert!(model.metadata(FIXED_INPUTS).is_none() && fixed_inputs(&model).is_empty());
        let fixed = ["sr=16000", "cached=true"].map(|text| text.parse::<FixedInput>().unwrap());
        write_fixed_inputs(&mut model, &fixed[..1]);
        write_fixed_inputs(&mut model, &fixed[1..]);
        assert_eq!(model.metadata(FIXED_INPUTS), Some("[\"sr=16000\",\"cached=true\"]"));
        assert_eq!(fixed_inputs(&model), fixed);
        model.set_metadata(FIXED_INPUTS, "?");
        assert!(fixed_inputs(&model).is_empty());
    }

    #[test]
    fn a_damaged_plan_is_an_error() {
        let said = plan(&model(", metadata_props: [\"msq-onnx.plan\": \"{}\"]")).unwrap().unwrap_err();
        assert!(said.contains("missing field `version`"), "{said}");
        let said = plan(&model(", metadata_props: [\"msq-onnx.plan\": \"4 hexagonal\"]")).unwrap().unwrap_err();
        assert!(said.contains("hexagonal"), "{said}");
    }
}
