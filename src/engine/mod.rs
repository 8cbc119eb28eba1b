//! The engine: runs models, through whatever back end is given.
//!
//! A [`Backend`] turns a model and the shapes of its inputs into a [`Plan`], which all threads share; every thread has a
//! [`Session`] of its own and runs one sample at a time. Without running it, a back end says which types, shapes and
//! constants of a model it can infer ([`Facts`]) and which operators it does not know. Nothing above this folder knows
//! more of a back end than these traits. The one built in is in the folder `tract`; `stepwise` has it run models whose shapes
//! depend on values.
//!
//! A [`Runtime`] hands the back end down to every phase: [`Runtime::with_backend`], [`Runtime::backend`].

mod contained;
mod error;
mod extent;
mod facts;
mod output;
mod stepwise;
mod tract;

pub(crate) use contained::stopped;
pub use error::EngineError;
pub use facts::Facts;
pub use output::{Output, Value};

use crate::data::Array;
use crate::runtime::Runtime;
use msq_passes::ir::{Model, NodeId};
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// Something that runs ONNX models.
pub trait Backend: Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> &str;

    /// Its version.
    fn version(&self) -> &str;

    /// Prepares a model to be run on runtime inputs of these shapes, in the model's order. The plan's outputs are the
    /// graph outputs in their order, each with the bits it has when it is the only output, as far as fusions allow.
    fn load(&self, model: &Model, shapes: &[Vec<usize>]) -> Result<Arc<dyn Plan>, EngineError>;

    /// Prepares a model to be run on inputs of different lengths; `None` where the back end has no such plans or not of
    /// this model. Everything else is as for [`Backend::load`].
    fn load_any_length(&self, _: &Model, _: &[Vec<Length>]) -> Result<Option<Arc<dyn Plan>>, EngineError> {
        Ok(None)
    }

    /// What can be said of the values of a model without running it. An operator that is not known leaves what follows
    /// it open and is no error.
    fn infer(&self, model: &Model) -> Result<Facts, EngineError>;

    /// The nodes of the main graph that cannot be run, each with the reason, in graph order. A node that holds a
    /// sub-graph counts where something in the sub-graph is not known.
    fn unknown(&self, model: &Model) -> Vec<(NodeId, String)>;
}

/// The length of an axis of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Length {
    /// Always the same.
    Fixed(usize),
    /// Any; axes with the same number are as long as each other.
    Free(usize),
}

/// A model prepared for one set of input shapes, or for some lengths left free, shared by all threads.
pub trait Plan: Debug + Send + Sync {
    /// A session for one thread.
    fn session(&self) -> Result<Box<dyn Session>, EngineError>;
}

/// Looks at an output, of which it gets the place among the outputs.
pub type Visit<'a> = dyn FnMut(usize, &Output) -> ControlFlow<()> + 'a;

/// A plan being run by one thread.
pub trait Session: Debug {
    /// Runs the model once on the runtime inputs in their order. Nothing is left of the runs before, and the same inputs
    /// give the same bits. After an error the session is of no use.
    fn run(&mut self, inputs: &[Array]) -> Result<Vec<Output>, EngineError>;

    /// Runs the model once and shows every output, with its place among the outputs, in whatever order: as soon as it is
    /// computed, where the back end can, so that few of many outputs are held at a time. The same bits as by
    /// [`Session::run`]. Where `visit` breaks off, the run may end early, which is no error.
    fn show(&mut self, inputs: &[Array], visit: &mut Visit) -> Result<(), EngineError> {
        let outputs = self.run(inputs)?;
        let _ = outputs.iter().enumerate().try_for_each(|(at, output)| visit(at, output));
        Ok(())
    }

    /// Runs the model once and says how long each operator took, in the order of the run and by its kind in the back end;
    /// nothing where the back end does not tell.
    fn profile(&mut self, inputs: &[Array]) -> Result<Vec<(String, Duration)>, EngineError> {
        self.run(inputs).map(|_| Vec::new())
    }
}

/// The back end that is used where none is given.
pub fn standard() -> Arc<dyn Backend> {
    Arc::new(stepwise::Stepwise(tract::Tract))
}

/// What a [`Runtime`] carries for this folder.
struct Carried(Arc<dyn Backend>);

impl Runtime<'_> {
    /// Sets the back end that runs models.
    #[must_use]
    pub fn with_backend(self, backend: Arc<dyn Backend>) -> Self {
        self.carrying(Arc::new(Carried(backend)))
    }

    /// The back end that runs models.
    pub fn backend(&self) -> Arc<dyn Backend> {
        self.carried().and_then(|carried| carried.downcast_ref::<Carried>()).map_or_else(standard, |c| c.0.clone())
    }
}
