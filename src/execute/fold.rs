//! Every sample through a segment, what is found summed up: the one loop over data of this crate.
//!
//! Samples are dealt out in shards of fixed size. Each shard starts from nothing, sees its samples in order, and shards
//! are merged in their order, so what a fold yields has the same bits for any number of threads. Of several errors that
//! of the lowest sample counts; a sum that cannot be merged is an error of the shard's last sample. With a limit on memory
//! only as many threads run as fit, judged by the first sample. Samples of many lengths share one plan where the back end
//! has plans for that.

use super::ExecuteError;
use super::lengths::{self, Lengths};
use super::segment::{Place, Ran, Segment};
use crate::data::{Array, Dataset, Sample};
use crate::engine::{Backend, EngineError, Output, Plan, Session, Value, Visit, stopped};
use crate::runtime::{Runtime, lock};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::ScopedJoinHandle;

/// Samples in a shard.
pub(crate) const SHARD: usize = 4;
/// The least and the most plans kept for different input shapes: as many as fit [`PLAN_BYTES`].
const PLANS: usize = 8;
const MOST_PLANS: usize = 128;
const PLAN_BYTES: u64 = 256 << 20;
/// How often the engine holds a model: as read, as prepared, as loaded and as packed for the kernels.
pub(crate) const HELD: u64 = 4;

type Shapes = Vec<Vec<usize>>;
/// A plan, once somebody has built it.
type Slot = Arc<Mutex<Option<Arc<dyn Plan>>>>;

/// A segment to be run. One with dynamic axes gets a plan for each set of shapes that the data brings.
pub(crate) struct Pool<'a> {
    segment: &'a Segment,
    backend: Arc<dyn Backend>,
    /// The one used last comes first.
    plans: Mutex<Vec<(Shapes, Slot)>>,
    /// How many plans are kept.
    most: usize,
    /// A plan for the samples of many lengths, if the first data are such.
    general: OnceLock<Option<General>>,
}

impl std::fmt::Debug for Pool<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Pool").field("segment", self.segment).finish_non_exhaustive()
    }
}

/// A plan with lengths left free.
struct General {
    lengths: Lengths,
    plan: Arc<dyn Plan>,
}

impl<'a> Pool<'a> {
    /// Nothing is loaded before the first sample comes.
    pub(crate) fn new(segment: &'a Segment, runtime: &Runtime) -> Self {
        let each = (HELD * segment.model.stored_bytes()).max(1);
        let fitting = usize::try_from(PLAN_BYTES / each).unwrap_or(usize::MAX).clamp(PLANS, MOST_PLANS);
        let most = if runtime.memory.is_some() { PLANS } else { fitting };
        Self { segment, backend: runtime.backend(), plans: Mutex::new(Vec::new()), most, general: OnceLock::new() }
    }

    /// Runs every sample. `begin` makes an empty sum, `visit` adds a sample to it, given the sample's index, and `merge`
    /// gets the sums of shards in order.
    pub(crate) fn fold<S: Send, E: Send + From<ExecuteError>>(
        &self,
        data: &Dataset,
        runtime: &Runtime,
        begin: impl Fn() -> S + Sync,
        visit: impl Fn(&mut S, usize, Ran) -> Result<(), E> + Sync,
        merge: impl FnMut(S) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        self.prepare(data)?;
        let threads = threads_within(&[(self, data)], runtime)?;
        let one = |lane: &mut Lane, sum: &mut S, index: usize| {
            let sample = data.sample(index).map_err(ExecuteError::from)?;
            let outputs = lane.run(&sample.arrays).map_err(ExecuteError::from)?;
            visit(sum, index, self.ran(&sample, &outputs))
        };
        shards(data.len(), threads, runtime, || self.lane(), begin, one, merge)
    }

    /// Runs every sample, and shows each value that is wanted as soon as the engine has it, in whatever order, so that few
    /// are held at a time. `visit` gets the sample's index and the number of the value; otherwise as [`Pool::fold`].
    pub(crate) fn stream<S: Send, E: Send + From<ExecuteError>>(
        &self,
        data: &Dataset,
        runtime: &Runtime,
        begin: impl Fn() -> S + Sync,
        visit: impl Fn(&mut S, usize, usize, &dyn Value) -> Result<(), E> + Sync,
        merge: impl FnMut(S) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        self.prepare(data)?;
        let threads = threads_within(&[(self, data)], runtime)?;
        let places = &self.segment.places;
        let one = |lane: &mut Lane, sum: &mut S, index: usize| {
            let sample = data.sample(index).map_err(ExecuteError::from)?;
            for (at, place) in places.iter().enumerate() {
                if let Place::Input(input) = *place {
                    visit(sum, index, at, &sample.arrays[input])?;
                }
            }
            let mut failed = None;
            let mut look = |output: usize, value: &Output| {
                let mut wanted = (0..places.len()).filter(|&at| places[at] == Place::Output(output));
                match wanted.try_for_each(|at| visit(sum, index, at, value.value())) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                }
            };
            lane.show(&sample.arrays, &mut look).map_err(ExecuteError::from)?;
            failed.map_or(Ok(()), Err)
        };
        shards(data.len(), threads, runtime, || self.lane(), begin, one, merge)
    }

    /// Runs one sample and looks at what comes out.
    pub(crate) fn once<T>(&self, sample: &Sample, look: impl FnOnce(Ran) -> T) -> Result<T, ExecuteError> {
        let outputs = self.lane().run(&sample.arrays)?;
        Ok(look(self.ran(sample, &outputs)))
    }

    /// Runs sequences of samples, each from its beginning in one session. `one` gets the number of a sequence and what
    /// runs its samples; sequences are dealt out to threads as samples are.
    pub(crate) fn sequences<E: Send + From<ExecuteError>>(
        &self,
        count: usize,
        runtime: &Runtime,
        one: impl Fn(&mut Steps, usize) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let one = |lane: &mut Lane, (): &mut (), at: usize| one(&mut Steps { lane }, at);
        shards(count, runtime.threads, runtime, || self.lane(), || (), one, |()| Ok(()))
    }

    fn ran<'r>(&'r self, sample: &'r Sample, outputs: &'r [Output]) -> Ran<'r> {
        Ran { inputs: &sample.arrays, outputs, places: &self.segment.places }
    }

    fn lane(&self) -> Lane<'_, 'a> {
        Lane { pool: self, sessions: Vec::new(), general: None }
    }

    /// Builds one plan for samples of many lengths: a plan for each of them takes longer.
    fn prepare(&self, data: &Dataset) -> Result<(), ExecuteError> {
        if self.general.get().is_some() || self.segment.model.graph.outputs().len() == 0 {
            return Ok(());
        }
        let general = match Lengths::of(&data.sample_shapes()?) {
            None => None,
            Some(lengths) => {
                let plan = self.backend.load_any_length(&self.segment.model, lengths.shapes())?;
                plan.map(|plan| General { lengths, plan })
            }
        };
        // Few samples do not tell what others are like.
        if general.is_some() || data.len() > lengths::FEW {
            self.general.get_or_init(|| general);
        }
        Ok(())
    }

    /// The plan for these shapes, built once whichever worker comes first; others are built meanwhile.
    fn plan(&self, shapes: &Shapes) -> Result<Arc<dyn Plan>, EngineError> {
        let slot = {
            let mut plans = lock(&self.plans);
            let known = plans.iter().position(|(known, _)| known == shapes);
            let entry = known.map_or_else(|| (shapes.clone(), Slot::default()), |at| plans.remove(at));
            plans.truncate(self.most - 1);
            let slot = Arc::clone(&entry.1);
            plans.insert(0, entry);
            slot
        };
        let mut built = lock(&slot);
        if let Some(plan) = &*built {
            return Ok(Arc::clone(plan));
        }
        let plan = self.backend.load(&self.segment.model, shapes)?;
        *built = Some(Arc::clone(&plan));
        Ok(plan)
    }

    /// Bytes that one thread takes for a sample, about, and bytes of the model in the engine: every value that comes
    /// out, its copy, and about as much again inside the engine.
    pub(crate) fn need(&self, ran: Ran) -> (u64, u64) {
        let elements: usize = ran.outputs.iter().map(|output| output.shape().iter().product::<usize>()).sum();
        (12 * elements as u64, HELD * self.segment.model.stored_bytes())
    }
}

/// Runs the same samples through two networks side by side; each has its own data. `visit` gets what both make of a
/// sample; otherwise as [`Pool::fold`].
pub(crate) fn fold_pair<S: Send, E: Send + From<ExecuteError>>(
    [first, second]: [&Pool; 2],
    [data, other]: [&Dataset; 2],
    runtime: &Runtime,
    begin: impl Fn() -> S + Sync,
    visit: impl Fn(&mut S, usize, [Ran; 2]) -> Result<(), E> + Sync,
    merge: impl FnMut(S) -> Result<(), E> + Send,
) -> Result<(), E> {
    first.prepare(data)?;
    second.prepare(other)?;
    let threads = threads_within(&[(first, data), (second, other)], runtime)?;
    let run = |lane: &mut Lane, data: &Dataset, index| -> Result<(Sample, Vec<Output>), ExecuteError> {
        let sample = data.sample(index)?;
        let outputs = lane.run(&sample.arrays)?;
        Ok((sample, outputs))
    };
    let one = |lanes: &mut [Lane; 2], sum: &mut S, index: usize| {
        let (sample, outputs) = run(&mut lanes[0], data, index)?;
        let (other_sample, other_outputs) = run(&mut lanes[1], other, index)?;
        visit(sum, index, [first.ran(&sample, &outputs), second.ran(&other_sample, &other_outputs)])
    };
    shards(data.len(), threads, runtime, || [first.lane(), second.lane()], begin, one, merge)
}

/// As many threads as the memory allowed has room for, judged by the first sample; at least one.
fn threads_within(pools: &[(&Pool, &Dataset)], runtime: &Runtime) -> Result<usize, ExecuteError> {
    let Some(budget) = runtime.memory.filter(|_| runtime.threads > 1) else { return Ok(runtime.threads) };
    let (mut session, mut model) = (0, 0);
    for (pool, data) in pools.iter().filter(|(_, data)| !data.is_empty()) {
        let (values, weights) = pool.once(&data.sample(0)?, |ran| pool.need(ran))?;
        session += values;
        model += weights;
    }
    let fitting = budget.saturating_sub(model) / session.max(1);
    Ok(runtime.threads.min(usize::try_from(fitting).unwrap_or(usize::MAX)).max(1))
}

/// One thread's sessions, one for each set of shapes it met lately.
struct Lane<'p, 'a> {
    pool: &'p Pool<'a>,
    sessions: Vec<(Shapes, Box<dyn Session>)>,
    /// The session of the plan for many lengths.
    general: Option<Box<dyn Session>>,
}

/// Runs the samples of a sequence one after the other.
pub(crate) struct Steps<'l, 'p, 'a> {
    lane: &'l mut Lane<'p, 'a>,
}

impl Steps<'_, '_, '_> {
    /// Runs a sample and looks at what comes out.
    pub(crate) fn run<T>(&mut self, inputs: &[Array], look: impl FnOnce(Ran) -> T) -> Result<T, ExecuteError> {
        let outputs = self.lane.run(inputs)?;
        Ok(look(Ran { inputs, outputs: &outputs, places: &self.lane.pool.segment.places }))
    }
}

impl Lane<'_, '_> {
    fn run(&mut self, inputs: &[Array]) -> Result<Vec<Output>, EngineError> {
        // Where all that is wanted is fed.
        if self.pool.segment.model.graph.outputs().len() == 0 {
            return Ok(Vec::new());
        }
        let shapes = shapes(inputs);
        match self.any_length(&shapes, inputs)? {
            Some(outputs) => Ok(outputs),
            None => self.session(shapes)?.run(inputs),
        }
    }

    /// Runs a sample and shows what comes out. Samples of many lengths are run to the end before: where that fails, nothing
    /// must have been shown.
    fn show(&mut self, inputs: &[Array], visit: &mut Visit) -> Result<(), EngineError> {
        if self.pool.segment.model.graph.outputs().len() == 0 {
            return Ok(());
        }
        let shapes = shapes(inputs);
        if let Some(outputs) = self.any_length(&shapes, inputs)? {
            let _ = outputs.iter().enumerate().try_for_each(|(at, output)| visit(at, output));
            return Ok(());
        }
        self.session(shapes)?.show(inputs, visit)
    }

    /// What the plan for samples of many lengths yields, if there is one and it can.
    fn any_length(&mut self, shapes: &Shapes, inputs: &[Array]) -> Result<Option<Vec<Output>>, EngineError> {
        let Some(Some(general)) = self.pool.general.get() else { return Ok(None) };
        if !general.lengths.include(shapes) {
            return Ok(None);
        }
        let mut session = self.general.take().map_or_else(|| general.plan.session(), Ok)?;
        // Where a length cannot be left open after all, the sample gets a plan of its own.
        let Ok(outputs) = session.run(inputs) else { return Ok(None) };
        self.general = Some(session);
        Ok(Some(outputs))
    }

    /// The session for inputs of these shapes.
    fn session(&mut self, shapes: Shapes) -> Result<&mut dyn Session, EngineError> {
        if self.sessions.first().is_none_or(|(last, _)| *last != shapes) {
            let known = self.sessions.iter().position(|(known, _)| *known == shapes);
            let entry = if let Some(at) = known {
                self.sessions.remove(at)
            } else {
                let session = self.pool.plan(&shapes)?.session()?;
                (shapes, session)
            };
            self.sessions.truncate(self.pool.most - 1);
            self.sessions.insert(0, entry);
        }
        Ok(&mut *self.sessions[0].1)
    }
}

fn shapes(inputs: &[Array]) -> Shapes {
    inputs.iter().map(|array| array.shape().to_vec()).collect()
}

/// Deals samples out to threads in shards. `worker` makes what a thread works with.
fn shards<W, S: Send, E: Send + From<ExecuteError>>(
    samples: usize,
    threads: usize,
    runtime: &Runtime,
    worker: impl Fn() -> W + Sync,
    begin: impl Fn() -> S + Sync,
    one: impl Fn(&mut W, &mut S, usize) -> Result<(), E> + Sync,
    merge: impl FnMut(S) -> Result<(), E> + Send,
) -> Result<(), E> {
    let shards = samples.div_ceil(SHARD);
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let merger = Mutex::new(Merger { next: 0, waiting: BTreeMap::new(), merge });
    let shard = |worker: &mut W, shard: usize| -> Result<(), (usize, E)> {
        let range = shard * SHARD..samples.min((shard + 1) * SHARD);
        let last = range.end - 1;
        let mut sum = begin();
        for index in range {
            let seen = one(worker, &mut sum, index);
            let seen = seen.and_then(|()| Ok(runtime.step(1).map_err(ExecuteError::from)?));
            seen.map_err(|error| (index, error))?;
        }
        lock(&merger).add(shard, sum).map_err(|error| (last, error))
    };
    let work = || {
        let mut worker = worker();
        while !stop.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= shards {
                break;
            }
            shard(&mut worker, at).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    let others = threads.min(shards).saturating_sub(1);
    // This thread is one of them: each thread that allocates much keeps an arena of its own, and what is free in it.
    let results: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
        let own = catch_unwind(AssertUnwindSafe(work));
        std::iter::once(own).chain(others.into_iter().map(ScopedJoinHandle::join)).collect()
    });
    first_error(results)
}

/// Hands shards on in their order, keeping those that come early.
struct Merger<S, F> {
    next: usize,
    waiting: BTreeMap<usize, S>,
    merge: F,
}

impl<S, E, F: FnMut(S) -> Result<(), E>> Merger<S, F> {
    fn add(&mut self, index: usize, shard: S) -> Result<(), E> {
        self.waiting.insert(index, shard);
        while let Some(shard) = self.waiting.remove(&self.next) {
            // After an error no shard is the next one, and nothing more is merged.
            (self.merge)(shard)?;
            self.next += 1;
        }
        Ok(())
    }
}

fn first_error<E: From<ExecuteError>>(results: Vec<std::thread::Result<Result<(), (usize, E)>>>) -> Result<(), E> {
    let mut first: Option<(usize, E)> = None;
    for result in results {
        match result {
            Ok(Ok(())) => {}
            Ok(Err((index, error))) => {
                if first.as_ref().is_none_or(|(at, _)| index < *at) {
                    first = Some((index, error));
                }
            }
            Err(panic) => return Err(ExecuteError::from(EngineError::Run { reason: stopped(&*panic) }).into()),
        }
    }
    first.map_or(Ok(()), |(_, error)| Err(error))
}
