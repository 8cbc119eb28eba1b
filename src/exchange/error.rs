//! Why encodings cannot be read or written.

use crate::prepare::PrepareError;
use crate::runtime::ErrorKind;
use crate::scheme::SchemeError;
use msq_passes::ir::{SaveError, TensorError};
use std::path::PathBuf;

/// Why encodings cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// A file of encodings cannot be read.
    #[error("`{path}`: {reason}", path = path.display())]
    BadEncodings {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A quantized model has no encodings that can be given.
    #[error("the model has no encodings to export: {reason}")]
    NoEncodings {
        /// Why.
        reason: String,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// A tensor of the model is damaged.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The plan in the model's metadata is damaged.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// The model is invalid.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}

impl ExchangeError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BadEncodings { .. } => ErrorKind::Usage,
            Self::NoEncodings { .. } | Self::Tensor(_) => ErrorKind::Model,
            Self::Save(_) => ErrorKind::Other,
            Self::Scheme(error) => error.kind(),
            Self::Prepare(error) => error.kind(),
        }
    }
}
