//! Writes a first corpus for the targets that read files, from what the repository's tests read.

use msq_passes::ir::{ModelProto, encode_model, text};
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = |target: &str| -> std::io::Result<PathBuf> {
        let folder = here.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    };
    let (model, texts) = (corpus("model")?, corpus("text")?);
    for (index, fixture) in msq_fuzz::fixtures().iter().enumerate() {
        // The weights are noise: a corpus of short files is fuzzed faster.
        let short = without_long_tensors(fixture.clone());
        fs::write(model.join(index.to_string()), encode_model(&short))?;
        fs::write(texts.join(index.to_string()), text::print(&short))?;
    }
    let plan = corpus("plan")?;
    fs::write(plan.join("0"), r#"{"version": 1, "default": {"weights": 4, "activations": 8}, "layers": {}}"#)?;
    let layer = r#"{"weights": "ternary", "activations": "float", "grid": "codebook", "packing": "int4"}"#;
    fs::write(plan.join("1"), format!(r#"{{"version": 1, "layers": {{"conv1": {layer}, "a.b": {layer}}}}}"#))?;
    Ok(())
}

fn without_long_tensors(mut model: ModelProto) -> ModelProto {
    const LONG: usize = 64;
    let tensors = model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    tensors.filter(|t| t.raw_data.as_ref().is_some_and(|raw| raw.len() > LONG)).for_each(|t| t.raw_data = None);
    model
}
