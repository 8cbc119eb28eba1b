//! Runs a data set through a model on several threads.
//!
//! Samples are dealt out in shards of fixed size, so that what a shard yields never depends on the number of
//! threads; the caller merges shards in their order. A model with dynamic axes gets a plan for each set of shapes the
//! data brings.

use crate::data::{Array, DataError, Dataset};
use crate::engine::stopped;
use crate::engine::{EngineError, Output, Plan, Session};
use crate::runtime::Runtime;
use msq_passes::ir::Model;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Samples in a shard.
pub const SHARD: usize = 4;
/// Plans kept for different input shapes.
const PLANS: usize = 8;

type Shapes = Vec<Vec<usize>>;

/// What a worker does with the samples dealt to it.
pub trait Visitor: Send {
    /// What a shard leaves.
    type Shard: Send;
    /// Why a sample is refused.
    type Error: Send + From<EngineError> + From<DataError>;

    /// Called before the first sample of each shard.
    fn begin(&mut self) -> Self::Shard;

    /// Called with every sample and what the model made of it.
    fn visit(
        &mut self,
        shard: &mut Self::Shard,
        index: usize,
        inputs: &[Array],
        outputs: &[Output],
    ) -> Result<(), Self::Error>;
}

/// A model to be run on a data set.
pub struct Pool<'a> {
    model: &'a Model,
    threads: usize,
    plans: Mutex<Vec<(Shapes, Plan)>>,
}

impl<'a> Pool<'a> {
    /// A pool of at most `threads` workers.
    pub fn new(model: &'a Model, threads: usize) -> Self {
        Self { model, threads: threads.max(1), plans: Mutex::new(Vec::new()) }
    }

    /// The same with another number of workers, what was loaded included.
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// Runs every sample. `visitor` makes one visitor a worker; `merge` gets the shards in order. Returns the
    /// visitors, in no order. The error of the lowest sample wins.
    pub fn run<V: Visitor>(
        &self,
        data: &Dataset,
        runtime: &Runtime,
        visitor: impl Fn() -> V + Sync,
        merge: impl FnMut(V::Shard) + Send,
    ) -> Result<Vec<V>, V::Error> {
        let shards = data.len().div_ceil(SHARD);
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let done = Mutex::new(Merger { next: 0, waiting: BTreeMap::new(), merge });
        let work = |mut visitor: V| -> Result<V, (usize, V::Error)> {
            let mut lane = self.lane();
            loop {
                let shard = next.fetch_add(1, Ordering::Relaxed);
                if shard >= shards || stop.load(Ordering::Relaxed) {
                    return Ok(visitor);
                }
                let range = shard * SHARD..data.len().min((shard + 1) * SHARD);
                let mut found = visitor.begin();
                for index in range {
                    let ran = one(&mut lane, data, index, &mut visitor, &mut found);
                    ran.inspect_err(|_| stop.store(true, Ordering::Relaxed)).map_err(|e| (index, e))?;
                    runtime
                        .step(1)
                        .inspect_err(|_| stop.store(true, Ordering::Relaxed))
                        .map_err(|e| (index, EngineError::from(e).into()))?;
                }
                done.lock().unwrap_or_else(PoisonError::into_inner).add(shard, found);
            }
        };
        let workers = self.threads.min(shards).max(1);
        let results: Vec<_> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(|| work(visitor()))).collect();
            handles.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
        });
        collect(results)
    }

    /// A lane of this pool, for a caller that runs samples itself.
    pub fn lane(&self) -> Lane<'_, 'a> {
        Lane { pool: self, sessions: Vec::new() }
    }

    /// The plan for these shapes, built once whichever worker comes first.
    fn plan(&self, shapes: &Shapes) -> Result<Plan, EngineError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = plans.iter().find(|(s, _)| s == shapes) {
            return Ok(plan.clone());
        }
        let plan = Plan::build(self.model, shapes)?;
        plans.truncate(PLANS - 1);
        plans.insert(0, (shapes.clone(), plan.clone()));
        Ok(plan)
    }
}

/// One thread's sessions, one for each set of shapes it met lately.
pub struct Lane<'p, 'a> {
    pool: &'p Pool<'a>,
    sessions: Vec<(Shapes, Session)>,
}

impl Lane<'_, '_> {
    /// Runs one sample.
    pub fn run(&mut self, inputs: &[Array]) -> Result<Vec<Output>, EngineError> {
        let shapes: Shapes = inputs.iter().map(|a| a.shape().to_vec()).collect();
        let known = self.sessions.iter().position(|(s, _)| *s == shapes);
        let at = if let Some(at) = known {
            at
        } else {
            self.sessions.truncate(PLANS - 1);
            let session = self.pool.plan(&shapes)?.session()?;
            self.sessions.insert(0, (shapes, session));
            0
        };
        self.sessions[at].1.run(inputs)
    }
}

fn one<V: Visitor>(
    lane: &mut Lane,
    data: &Dataset,
    index: usize,
    visitor: &mut V,
    shard: &mut V::Shard,
) -> Result<(), V::Error> {
    let sample = data.sample(index)?;
    let outputs = lane.run(&sample.arrays)?;
    visitor.visit(shard, index, &sample.arrays, &outputs)
}

/// Hands shards on in their order, keeping those that come early.
struct Merger<S, F> {
    next: usize,
    waiting: BTreeMap<usize, S>,
    merge: F,
}

impl<S, F: FnMut(S)> Merger<S, F> {
    fn add(&mut self, index: usize, shard: S) {
        self.waiting.insert(index, shard);
        while let Some(shard) = self.waiting.remove(&self.next) {
            (self.merge)(shard);
            self.next += 1;
        }
    }
}

type Joined<V, E> = std::thread::Result<Result<V, (usize, E)>>;

fn collect<V: Visitor>(results: Vec<Joined<V, V::Error>>) -> Result<Vec<V>, V::Error> {
    let mut visitors = Vec::new();
    let mut first: Option<(usize, V::Error)> = None;
    for result in results {
        match result {
            Ok(Ok(visitor)) => visitors.push(visitor),
            Ok(Err((index, error))) => {
                if first.as_ref().is_none_or(|(at, _)| index < *at) {
                    first = Some((index, error));
                }
            }
            Err(panic) => return Err(EngineError::Run { reason: stopped(&*panic) }.into()),
        }
    }
    match first {
        Some((_, error)) => Err(error),
        None => Ok(visitors),
    }
}
