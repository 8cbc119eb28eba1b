//! JSON documents.

use super::keys::as_flags;
use msq_onnx::report::Run;
use serde::Serialize;
use std::path::Path;

/// This run.
pub(crate) fn this_run(model: &Path, output: Option<&Path>, seed: Option<u64>) -> Run {
    Run {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        arguments: std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect(),
        model: model.display().to_string(),
        output: output.map(|path| path.display().to_string()),
        seed,
    }
}

/// The text of a document.
pub(crate) fn text<T: Serialize>(document: &T) -> anyhow::Result<String> {
    Ok(format!("{}\n", as_flags(&serde_json::to_string_pretty(document)?)))
}
