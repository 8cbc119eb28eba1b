//! What a run may use and whom it tells, as opposed to what it is to do: threads, memory, progress, passes, cancellation.
//!
//! A [`Runtime`] is handed through every phase. Nothing in it changes a result: the same input, options and seed give the
//! same bytes with any number of threads and within any memory that is enough.

#[cfg(feature = "cli")]
pub(crate) mod flags;
mod kind;
pub(crate) mod memory;
pub(crate) mod names;
mod peers;
pub mod progress;

pub use kind::ErrorKind;
pub use peers::{PeerError, Peers};

use msq_passes::PassObserver;
use progress::{Cancellation, Progress, Silent};
use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Multiply-accumulates that count one second where work is counted instead of timed, so that results depend on no clock:
/// about what two cores do.
pub(crate) const MACS_PER_SECOND: f64 = 1.5e10;

/// Locks what threads share. A thread that panics meanwhile is an error of its own: what it held is taken as it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The run was cancelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// What a run may use and whom it tells.
#[derive(Clone)]
pub struct Runtime<'a> {
    /// Number of threads.
    pub threads: usize,
    /// Bytes of activations and plans that the engine may hold at once; no limit where `None`.
    pub memory: Option<u64>,
    /// Receives the progress of the run.
    progress: &'a dyn Progress,
    /// Is shown what each pass leaves of the model that is written.
    passes: Option<&'a dyn PassObserver>,
    /// Ends the run early.
    cancellation: Cancellation,
    /// Other processes that share the learning.
    peers: Option<Arc<dyn Peers>>,
    /// What runs models. This folder is below those that know models and only hands it on: the engine puts it in and
    /// takes it out.
    carried: Option<Arc<dyn Any + Send + Sync>>,
}

impl Default for Runtime<'_> {
    /// All cores, no limit on memory, nobody is told.
    fn default() -> Self {
        Self::with_threads(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }
}

impl<'a> Runtime<'a> {
    /// So many threads, no limit on memory, nobody is told.
    pub fn with_threads(threads: usize) -> Self {
        Self {
            threads,
            memory: None,
            progress: &Silent,
            passes: None,
            cancellation: Cancellation::default(),
            peers: None,
            carried: None,
        }
    }

    /// Sets a limit on memory, in bytes.
    #[must_use]
    pub fn memory(self, memory: Option<u64>) -> Self {
        Self { memory, ..self }
    }

    /// Sets who is told of the progress.
    #[must_use]
    pub fn progress(self, progress: &'a dyn Progress) -> Self {
        Self { progress, ..self }
    }

    /// Sets the flag that ends the run.
    #[must_use]
    pub fn cancellation(self, cancellation: &Cancellation) -> Self {
        Self { cancellation: cancellation.clone(), ..self }
    }

    /// Sets who is shown the model after each pass that makes the written file.
    #[must_use]
    pub fn pass_observer(self, observer: &'a dyn PassObserver) -> Self {
        Self { passes: Some(observer), ..self }
    }

    /// Sets the other processes that share the learning.
    #[must_use]
    pub fn peers(self, peers: Arc<dyn Peers>) -> Self {
        Self { peers: Some(peers), ..self }
    }

    /// The processes that share the learning, if there are others.
    pub(crate) fn shared_with(&self) -> Option<&dyn Peers> {
        self.peers.as_deref()
    }

    /// Who is shown what passes leave.
    pub(crate) fn passes(&self) -> Option<&'a dyn PassObserver> {
        self.passes
    }

    /// A copy that reports no progress, for a part of a phase whose steps are not those reported.
    #[must_use]
    pub fn silent(&self) -> Runtime<'static> {
        Runtime {
            progress: &Silent,
            passes: None,
            threads: self.threads,
            memory: self.memory,
            cancellation: self.cancellation.clone(),
            peers: self.peers.clone(),
            carried: self.carried.clone(),
        }
    }

    /// Sets what a folder above hands on through the runtime.
    pub(crate) fn carrying(self, carried: Arc<dyn Any + Send + Sync>) -> Self {
        Self { carried: Some(carried), ..self }
    }

    /// What is handed on, if anything.
    pub(crate) fn carried(&self) -> Option<&(dyn Any + Send + Sync)> {
        self.carried.as_deref()
    }

    /// A phase of `steps` steps begins; the one before is over.
    pub fn begin(&self, phase: &'static str, steps: u64) {
        self.progress.begin(phase, steps);
    }

    /// Reports that `steps` more steps are done. Fails if the run is to end.
    pub fn step(&self, steps: u64) -> Result<(), Cancelled> {
        self.progress.advance(steps);
        if self.cancellation.is_cancelled() || self.progress.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// The last phase is over.
    pub fn end(&self) {
        self.progress.end();
    }
}

impl std::fmt::Debug for Runtime<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("threads", &self.threads).field("memory", &self.memory).finish_non_exhaustive()
    }
}
