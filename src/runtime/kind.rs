//! Whose fault an error is.

/// Whose fault an error is, and so where a caller should look. Every error enum of the library has a `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The options are wrong, contradict each other, or do not fit the model.
    Usage,
    /// The model is invalid, or of a form that is not supported.
    Model,
    /// The data is damaged or does not fit the model.
    Data,
    /// The caller ended the run.
    Cancelled,
    /// Anything else: the system refused something, or the fault is ours.
    Other,
}
