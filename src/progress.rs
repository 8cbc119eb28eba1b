//! How a long run tells its caller where it is.

/// Receives the progress of a run. Called from several threads.
pub trait Progress: Sync {
    /// A phase of `steps` steps begins; the one before is over.
    fn begin(&self, phase: &'static str, steps: u64);

    /// `steps` more steps are done.
    fn advance(&self, steps: u64);

    /// The last phase is over.
    fn end(&self) {}
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &'static str, _: u64) {}

    fn advance(&self, _: u64) {}
}
