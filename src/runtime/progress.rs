//! How a long run tells its caller where it is, and how the caller ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Receives the progress of a run. Called from several threads.
pub trait Progress: Sync {
    /// A phase of `steps` steps begins; the one before is over.
    fn begin(&self, phase: &'static str, steps: u64);

    /// `steps` more steps are done.
    fn advance(&self, steps: u64);

    /// The last phase is over.
    fn end(&self) {}

    /// Whether the run is to end early. Asked at every step.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &'static str, _: u64) {}

    fn advance(&self, _: u64) {}
}

/// Ends a run early, from another thread or a signal handler. Clones share what they say.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// Asks the run to end.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the run is to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag behind it, for those who can only set one.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}
