//! The metadata of a written model, which records how it was quantized:
//!
//! | key | value |
//! |---|---|
//! | `msq-onnx.version` | the version that wrote it |
//! | `msq-onnx.plan` | the bit plan of the run, as JSON: the entry of most layers as `default`, the others by name |
//!
//! Layers have their names in the float model, even if the file has other names.

use super::SchemeError;
use super::bit_plan::BitPlan;
use msq_passes::ir::Model;

const VERSION: &str = "msq-onnx.version";
const PLAN: &str = "msq-onnx.plan";

/// Writes the version of this tool and the plan.
pub(crate) fn write(model: &mut Model, plan: &BitPlan) {
    let version = env!("CARGO_PKG_VERSION");
    model.set_producer("msq-onnx", version);
    model.set_metadata(VERSION, version);
    model.set_metadata(PLAN, &plan.compact().to_line());
}

/// The plan that a model was quantized with; `None` for a model without one.
pub fn plan(model: &Model) -> Option<Result<BitPlan, String>> {
    model.metadata(PLAN).map(BitPlan::parse)
}

/// The plan that a model was quantized with; a damaged plan is an error.
pub(crate) fn readable_plan(model: &Model) -> Result<Option<BitPlan>, SchemeError> {
    plan(model).transpose().map_err(|reason| SchemeError::DamagedPlan { reason })
}

/// Whether the names of inner values were shortened when this tool wrote the model.
pub(crate) fn is_stripped(model: &Model) -> bool {
    // Without shortened names, every node has a name.
    model.metadata(VERSION).is_some() && model.graph.nodes().all(|(_, node)| node.name().is_empty())
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
        write(&mut model, &full);
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
        write(&mut model, &BitPlan::of_layers(same.into_iter().collect()));
        assert_eq!(model.metadata(PLAN), Some("{\"version\":1,\"default\":{\"weights\":8,\"activations\":8}}"));
        assert!(!is_stripped(&model), "its node has a name");
    }

    #[test]
    fn a_damaged_plan_is_an_error() {
        let said = plan(&model(", metadata_props: [\"msq-onnx.plan\": \"{}\"]")).unwrap().unwrap_err();
        assert!(said.contains("missing field `version`"), "{said}");
    }
}
