//! Writes a first corpus for the targets that read models, from the fixtures of the repository's tests.

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
    Ok(())
}

fn without_long_tensors(mut model: ModelProto) -> ModelProto {
    const LONG: usize = 64;
    let tensors = model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    tensors.filter(|t| t.raw_data.as_ref().is_some_and(|raw| raw.len() > LONG)).for_each(|t| t.raw_data = None);
    model
}
