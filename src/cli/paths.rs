//! What is written must be none of what is read, and no two things may go into one file.

use super::output::Usage;
use msq_onnx::Error;
use msq_passes::ir::{Model, check_writable};
use std::path::{Path, PathBuf};

/// Refuses outputs that are inputs, or each other, or that cannot be written: now rather than after the work. The files
/// that hold weights of the model are inputs, too.
pub(crate) fn check<'a>(
    model: &Model,
    reads: impl IntoIterator<Item = &'a Path>,
    writes: impl IntoIterator<Item = &'a Path>,
) -> anyhow::Result<()> {
    let (reads, weights): (Vec<&Path>, Vec<PathBuf>) = (reads.into_iter().collect(), weights(model));
    let writes: Vec<&Path> = writes.into_iter().collect();
    for (at, write) in writes.iter().enumerate() {
        refuse_input(write, reads.iter().copied().chain(weights.iter().map(PathBuf::as_path)))?;
        if writes[..at].iter().any(|other| is_same(other, write)) {
            let path = write.display();
            return Err(Usage(format!("`{path}` is named for two outputs; choose another name for one")).into());
        }
        if *write == Path::new("-") {
            let reason = "`-`: output goes to a file, written in one step; one of this name is `./-`";
            return Err(Usage(reason.to_owned()).into());
        }
        check_writable(write).map_err(Error::from)?;
    }
    Ok(())
}

/// Refuses to write over a file that is read.
pub(crate) fn refuse_input<'a>(write: &Path, mut reads: impl Iterator<Item = &'a Path>) -> Result<(), Error> {
    if reads.any(|read| is_same(read, write)) {
        return Err(Error::OverwritesInput { path: write.to_path_buf() });
    }
    Ok(())
}

/// The files that hold weights of a model.
pub(crate) fn weights(model: &Model) -> Vec<PathBuf> {
    let Some(folder) = model.folder() else { return Vec::new() };
    let external = model.graph.initializers().flat_map(|(_, tensor)| &tensor.external_data);
    let mut files: Vec<PathBuf> =
        external.filter(|entry| entry.key() == "location").map(|entry| folder.path().join(entry.value())).collect();
    files.dedup();
    files
}

/// Whether two paths name one file, which need not be there.
fn is_same(a: &Path, b: &Path) -> bool {
    let found = |path: &Path| {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        path.canonicalize().ok().or_else(|| Some(folder.canonicalize().ok()?.join(path.file_name()?)))
    };
    found(a).zip(found(b)).is_some_and(|(a, b)| a == b)
}
