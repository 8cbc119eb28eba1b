//! Atomic writing: a model's file appears completely or not at all.

use super::{
    ExternalError, GraphProto, Model, ModelProto, StringStringEntryProto, TensorProto, encode_model, encoded_len,
    export,
};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Models beyond this size get an external data file: protobuf messages end at 2 GiB.
const LARGEST_INLINE: usize = 0x7fff_ffff - (1 << 20);
/// Tensors below this size stay in the model even when others are external.
const SMALLEST_EXTERNAL: usize = 1024;
/// Alignment of external tensors, so that a runtime can map them.
const ALIGNMENT: u64 = 4096;

/// Why a model could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The file cannot be written.
    #[error("cannot write `{path}`: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The folder of the file does not exist.
    #[error("cannot write `{path}`: there is no folder `{folder}`", path = path.display(), folder = folder.display())]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
    /// The path names no file.
    #[error("cannot write `{path}`: it names no file", path = path.display())]
    NoFileName {
        /// The path.
        path: PathBuf,
    },
    /// A device, a pipe or a folder has the name.
    #[error("cannot write `{path}`: it is no ordinary file", path = path.display())]
    NoOrdinaryFile {
        /// The path.
        path: PathBuf,
    },
    /// The data file to be written is the one the model's own weights are read from.
    #[error("`{path}` holds the weights of the input; choose another name for the output", path = path.display())]
    OverwritesWeights {
        /// The file.
        path: PathBuf,
    },
    /// External elements of the input cannot be read.
    #[error(transparent)]
    External(#[from] ExternalError),
}

/// Writes the model under a temporary name in the target's folder and renames it when it is complete. Returns the
/// bytes written. A model that has external tensors, or is too large for one message, gets its large tensors in
/// `<name>.data` beside it, written first in the same way.
pub fn save_model(model: &Model, path: &Path) -> Result<u64, SaveError> {
    let write = |source| SaveError::Write { path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| SaveError::NoFileName { path: path.to_owned() })?;
    let folder = folder_of(path);
    let mut proto = export(model);
    let mut external = false;
    visit_tensors(&mut proto, &mut |t| {
        external |= t.is_external();
        Ok(())
    })?;
    let mut data = None;
    if external || encoded_len(&proto) > LARGEST_INLINE {
        let location = format!("{}.data", name.to_string_lossy());
        refuse_own_weights(model, &mut proto, &folder.join(&location))?;
        let file = temporary(folder).map_err(write)?;
        data = Some((move_out(model, &mut proto, &location, file, path)?, folder.join(location)));
    }
    let bytes = encode_model(&proto);
    let file = complete(folder, &bytes).map_err(write)?;
    let mut total = bytes.len() as u64;
    if let Some(((file, length), target)) = data {
        persist(file, &target)?;
        total += length;
    }
    persist(file, path)?;
    Ok(total)
}

fn persist(file: NamedTempFile, path: &Path) -> Result<(), SaveError> {
    refuse_special(path)?;
    let write = |source| SaveError::Write { path: path.to_owned(), source };
    file.persist(path).map(|_| ()).map_err(|e| write(e.error))
}

/// Refuses a path that is not a file, since a rename would replace a device, a pipe or a folder.
fn refuse_special(path: &Path) -> Result<(), SaveError> {
    match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => Err(SaveError::NoOrdinaryFile { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// Writes a file that appears completely or not at all.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), SaveError> {
    write_file_with(path, |file| file.write_all(bytes))
}

/// Writes a file piece by piece; it appears completely or not at all.
pub fn write_file_with(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<(), SaveError> {
    let failed = |source: std::io::Error| SaveError::Write { path: path.to_owned(), source };
    let mut file = temporary(folder_of(path)).map_err(|error| not_begun(path, &error))?;
    write(file.as_file_mut()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    persist(file, path)
}

/// A temporary file that holds these bytes.
fn complete(folder: &Path, bytes: &[u8]) -> std::io::Result<NamedTempFile> {
    let mut file = temporary(folder)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all())?;
    Ok(file)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Fails where [`save_model`] would: if the path names no file, or its folder takes no new file. Meant to be called
/// before long work.
pub fn check_writable(path: &Path) -> Result<(), SaveError> {
    if path.file_name().is_none() {
        return Err(SaveError::NoFileName { path: path.to_owned() });
    }
    refuse_special(path)?;
    temporary(folder_of(path)).map(|_| ()).map_err(|error| not_begun(path, &error))
}

/// Why a temporary file beside a file could not be made.
fn not_begun(path: &Path, error: &std::io::Error) -> SaveError {
    let (path, folder) = (path.to_owned(), folder_of(path));
    if error.kind() == std::io::ErrorKind::NotFound && !folder.exists() {
        return SaveError::NoFolder { folder: folder.to_owned(), path };
    }
    // Only the kind, because the text of the error names the temporary file.
    SaveError::Write { path, source: error.kind().into() }
}

/// A temporary file in the folder, with the permissions an ordinary new file would have.
fn temporary(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.prefix(".msq-onnx-").tempfile_in(folder)
}

/// Fails if one of the model's tensors is read from the file that is to be replaced.
fn refuse_own_weights(model: &Model, proto: &mut ModelProto, target: &Path) -> Result<(), SaveError> {
    let (Some(folder), Ok(target)) = (model.folder(), target.canonicalize()) else { return Ok(()) };
    visit_tensors(proto, &mut |tensor| {
        let location = tensor.external_data.iter().find(|e| e.key() == "location");
        let source = location.and_then(|l| folder.path().join(l.value()).canonicalize().ok());
        if tensor.is_external() && source.as_ref() == Some(&target) {
            return Err(SaveError::OverwritesWeights { path: target.clone() });
        }
        Ok(())
    })
}

/// Moves large tensors into the data file, one at a time.
fn move_out(
    model: &Model,
    proto: &mut ModelProto,
    location: &str,
    file: NamedTempFile,
    path: &Path,
) -> Result<(NamedTempFile, u64), SaveError> {
    let write = |source| SaveError::Write { path: path.to_owned(), source };
    let mut writer = BufWriter::new(file);
    let mut offset = 0_u64;
    visit_tensors(proto, &mut |tensor| {
        let Some(raw) = model.loaded(tensor)?.raw_data.clone() else { return Ok(()) };
        if raw.len() < SMALLEST_EXTERNAL && !tensor.is_external() {
            return Ok(());
        }
        let start = offset.next_multiple_of(ALIGNMENT);
        let padding = vec![0; (start - offset) as usize];
        writer.write_all(&padding).and_then(|()| writer.write_all(&raw)).map_err(write)?;
        offset = start + raw.len() as u64;
        set_external(tensor, location, start, raw.len());
        Ok(())
    })?;
    let file = writer.into_inner().map_err(|e| write(e.into_error()))?;
    file.as_file().sync_all().map_err(write)?;
    Ok((file, offset))
}

fn set_external(tensor: &mut TensorProto, location: &str, offset: u64, length: usize) {
    let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    tensor.external_data = vec![
        entry("location", location.to_owned()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ];
    tensor.raw_data = None;
    tensor.data_location = Some(1);
}

type Visit<'a> = &'a mut dyn FnMut(&mut TensorProto) -> Result<(), SaveError>;

/// Visits every tensor of the model: initializers and attributes, sub-graphs and functions included.
fn visit_tensors(model: &mut ModelProto, visit: Visit) -> Result<(), SaveError> {
    if let Some(graph) = &mut model.graph {
        visit_graph(graph, visit)?;
    }
    let nodes = model.functions.iter_mut().flat_map(|f| &mut f.node);
    nodes.flat_map(|n| &mut n.attribute).try_for_each(|a| visit_attribute(a, visit))
}

fn visit_graph(graph: &mut GraphProto, visit: Visit) -> Result<(), SaveError> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    graph.node.iter_mut().flat_map(|n| &mut n.attribute).try_for_each(|a| visit_attribute(a, visit))
}

fn visit_attribute(attribute: &mut super::AttributeProto, visit: Visit) -> Result<(), SaveError> {
    attribute.t.iter_mut().chain(&mut attribute.tensors).try_for_each(&mut *visit)?;
    attribute.g.iter_mut().chain(&mut attribute.graphs).try_for_each(|g| visit_graph(g, visit))
}
