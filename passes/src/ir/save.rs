//! Atomic writing: a model's file appears completely or not at all.

use super::files::{FileSet, SaveError, folder_of, temporary};
use super::{GraphProto, Model, ModelProto, TensorProto, encode_model, encoded_len, export};
use std::io::{BufWriter, Write};
use std::path::Path;
use tempfile::NamedTempFile;

/// Models beyond this size get an external data file: protobuf messages end at 2 GiB.
const LARGEST_INLINE: usize = 0x7fff_ffff - (1 << 20);
/// Tensors below this size stay in the model even when others are external.
const SMALLEST_EXTERNAL: usize = 1024;
/// Alignment of external tensors, so that a runtime can map them.
const ALIGNMENT: u64 = 4096;

/// Writes the model under a temporary name in the target's folder and renames it when it is complete. Returns the
/// bytes written. A model that has external tensors, or is too large for one message, gets its large tensors in
/// `<name>.data` beside it, which appears first.
pub fn save_model(model: &Model, path: &Path) -> Result<u64, SaveError> {
    let mut files = FileSet::default();
    let written = files.add_model(model, path)?;
    files.commit()?;
    Ok(written)
}

impl FileSet {
    /// Adds a model, with its external data; returns the bytes of both.
    pub fn add_model(&mut self, model: &Model, path: &Path) -> Result<u64, SaveError> {
        let name = path.file_name().ok_or_else(|| SaveError::NoFileName { path: path.to_owned() })?;
        let mut proto = export(model);
        let mut external = false;
        visit_tensors(&mut proto, &mut |t| {
            external |= t.is_external();
            Ok(())
        })?;
        let mut total = 0;
        if external || encoded_len(&proto) > LARGEST_INLINE {
            let location = format!("{}.data", name.to_string_lossy());
            let data = folder_of(path).join(&location);
            refuse_own_weights(model, &mut proto, &data)?;
            let (file, length) = move_out(model, &mut proto, &location, temporary(path)?, path)?;
            self.add_written(file, &data)?;
            total += length;
        }
        let bytes = encode_model(&proto);
        self.add(path, &bytes)?;
        Ok(total + bytes.len() as u64)
    }
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
        tensor.refer(location, start, raw.len());
        Ok(())
    })?;
    let file = writer.into_inner().map_err(|e| write(e.into_error()))?;
    Ok((file, offset))
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
