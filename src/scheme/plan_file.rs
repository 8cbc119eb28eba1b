//! Bit plans in files.

use super::SchemeError;
use super::bit_plan::BitPlan;
use msq_passes::ir::write_file;
use std::path::Path;

impl BitPlan {
    /// Reads a plan: a JSON document, or a model (`.onnx`) that was quantized with it.
    pub fn load(path: &Path) -> Result<Self, SchemeError> {
        let failed = |reason: String| SchemeError::BadPlan { path: path.to_owned(), reason };
        let plan = if path.extension().is_some_and(|ending| ending == "onnx") {
            let model = msq_passes::ir::load_model(path).map_err(|error| failed(error.to_string()))?;
            let plan = super::metadata::plan(&model);
            plan.unwrap_or_else(|| Err("it is a model without a plan in its metadata".to_owned()))
        } else {
            std::fs::read_to_string(path).map_err(|e| e.to_string()).and_then(|text| Self::parse(&text))
        };
        plan.map_err(failed)
    }

    /// Writes the plan as a JSON document; the file appears in one step, when it is complete.
    pub fn save(&self, path: &Path) -> Result<(), SchemeError> {
        Ok(write_file(path, self.to_json().as_bytes())?)
    }
}
