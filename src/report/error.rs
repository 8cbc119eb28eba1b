//! Why a report cannot be made.

use crate::runtime::ErrorKind;

/// Why a report cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The page cannot be written.
    #[error("the report cannot be written: {reason}")]
    Page {
        /// Why.
        reason: String,
    },
}

impl ReportError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}
