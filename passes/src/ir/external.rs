//! Tensors stored in files beside the model.
//!
//! Locations are relative paths inside the model's folder: absolute paths, `..` and links that lead out are refused. A
//! tensor's elements are read at their offset when they are needed (`pread`), never the whole file: memory is bounded
//! by the largest tensor, and a file that shrinks meanwhile is an error instead of a bus fault. A memory map would need
//! `unsafe`. A `checksum` entry is preserved but not verified.

use super::{TensorProto, tensor::TensorError};
use bytes::Bytes;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// Why a tensor's external elements cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExternalError {
    /// The model did not come from a folder.
    #[error("tensor `{tensor}`: its elements are in an external file, and the model comes from no folder")]
    NoFolder {
        /// The tensor.
        tensor: String,
    },
    /// A location outside the model's folder.
    #[error("tensor `{tensor}`: external location `{location}` is not inside the model's folder")]
    Outside {
        /// The tensor.
        tensor: String,
        /// The location stated.
        location: String,
    },
    /// An entry is missing or not a number.
    #[error("tensor `{tensor}`: external data entry `{key}` is missing or malformed")]
    BadEntry {
        /// The tensor.
        tensor: String,
        /// The entry.
        key: &'static str,
    },
    /// The file is too short or the stated length does not fit the shape.
    #[error("tensor `{tensor}`: needs {needed} bytes at offset {offset} of `{location}`, which has {found}")]
    Short {
        /// The tensor.
        tensor: String,
        /// The file.
        location: String,
        /// First byte.
        offset: u64,
        /// Bytes that the shape requires.
        needed: u64,
        /// Bytes stated or present.
        found: u64,
    },
    /// The file cannot be read.
    #[error("tensor `{tensor}`: cannot read `{location}`: {source}")]
    Read {
        /// The tensor.
        tensor: String,
        /// The file.
        location: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The tensor's own message is damaged.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// The folder a model came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
}

/// Where one tensor's bytes are.
struct Location<'a> {
    name: &'a str,
    offset: u64,
    length: u64,
}

impl Folder {
    pub(super) fn new(path: &Path) -> std::io::Result<Self> {
        Ok(Self { path: path.canonicalize()? })
    }

    /// The folder's absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A copy of the tensor with its elements read into `raw_data`.
    pub fn load(&self, tensor: &TensorProto) -> Result<TensorProto, ExternalError> {
        let at = locate(tensor)?;
        let raw = self.read(tensor.name(), &at)?;
        let inline = TensorProto { data_location: None, external_data: Vec::new(), ..tensor.clone() };
        Ok(TensorProto { raw_data: Some(raw), ..inline })
    }

    fn read(&self, tensor: &str, at: &Location) -> Result<Bytes, ExternalError> {
        let failed = |source| ExternalError::Read { tensor: tensor.to_owned(), location: at.name.to_owned(), source };
        let path = self.resolve(tensor, at.name)?;
        // Opening a pipe would wait for its other end, and a device has no end.
        if !path.metadata().map_err(failed)?.is_file() {
            return Err(failed(std::io::Error::other("it is not a file")));
        }
        let mut file = File::open(path).map_err(failed)?;
        let present = file.metadata().map_err(failed)?.len();
        if at.offset.checked_add(at.length).is_none_or(|end| end > present) {
            let (tensor, location) = (tensor.to_owned(), at.name.to_owned());
            let found = present.saturating_sub(at.offset);
            return Err(ExternalError::Short { tensor, location, offset: at.offset, needed: at.length, found });
        }
        file.seek(SeekFrom::Start(at.offset)).map_err(failed)?;
        let mut raw = Vec::new();
        raw.try_reserve_exact(at.length as usize).map_err(|e| failed(e.into()))?;
        raw.resize(at.length as usize, 0);
        file.read_exact(&mut raw).map_err(failed)?;
        Ok(raw.into())
    }

    fn resolve(&self, tensor: &str, location: &str) -> Result<PathBuf, ExternalError> {
        let outside = || ExternalError::Outside { tensor: tensor.to_owned(), location: location.to_owned() };
        let relative = Path::new(location);
        let plain = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !plain || location.is_empty() {
            return Err(outside());
        }
        let resolved = self.path.join(relative).canonicalize().map_err(|source| ExternalError::Read {
            tensor: tensor.to_owned(),
            location: location.to_owned(),
            source,
        })?;
        if resolved.starts_with(&self.path) { Ok(resolved) } else { Err(outside()) }
    }
}

fn locate(tensor: &TensorProto) -> Result<Location<'_>, ExternalError> {
    let bad = |key| ExternalError::BadEntry { tensor: tensor.name().to_owned(), key };
    let entry =
        |key: &str| tensor.external_data.iter().find(|e| e.key() == key).map(super::StringStringEntryProto::value);
    let number = |key: &'static str| entry(key).map(|v| v.parse::<u64>().map_err(|_| bad(key))).transpose();
    let name = entry("location").ok_or_else(|| bad("location"))?;
    let offset = number("offset")?.unwrap_or(0);
    let count = tensor.element_count()?;
    let element = tensor.element_type().and_then(super::DataType::bits);
    let needed = element.map(|bits| (count as u64 * bits as u64).div_ceil(8)).ok_or_else(|| bad("data_type"))?;
    let length = number("length")?.unwrap_or(needed);
    if length != needed {
        let (tensor, location) = (tensor.name().to_owned(), name.to_owned());
        return Err(ExternalError::Short { tensor, location, offset, needed, found: length });
    }
    Ok(Location { name, offset, length })
}
