//! Times the engine: `engine_time MODEL SECONDS NAME=1x3x224x224 ...` prints the milliseconds of processor time of one
//! run, the median and the least of what fits into so many seconds, and of loading; below, the milliseconds of each kind
//! of operator in the fastest of ten runs. `bench/engine.py` calls it.

use msq_onnx::data::{Array, ArrayData};
use msq_passes::ir::DataType;
use msq_passes::pipelines;
use std::collections::BTreeMap;
use std::time::Instant;

/// Values that look random: floats of both signs, integers that are 0 or 1, as masks and kinds of tokens are.
fn input(element: Option<DataType>, shape: &[usize]) -> Option<Array> {
    let count = shape.iter().product::<usize>() as u32;
    let mixed = (0..count).map(|at| at.wrapping_mul(2_654_435_761).rotate_left(15) >> 8);
    let data = match element {
        Some(DataType::Float) => ArrayData::F32(mixed.map(|v| v as f32 / (1 << 23) as f32 - 1.0).collect()),
        Some(DataType::Int64) => ArrayData::I64(mixed.map(|v| i64::from(v % 2)).collect()),
        Some(DataType::Int32) => ArrayData::I32(mixed.map(|v| (v % 2) as i32).collect()),
        _ => return None,
    };
    Array::new(shape.to_vec(), data).ok()
}

/// Processor time of this thread where the system tells it, else time.
struct Clock(Instant, Option<u64>);

impl Clock {
    fn start() -> Self {
        Self(Instant::now(), Self::on_processor())
    }

    fn on_processor() -> Option<u64> {
        std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
    }

    fn milliseconds(&self) -> f64 {
        match (self.1, Self::on_processor()) {
            (Some(begin), Some(end)) => (end - begin) as f64 * 1e-6,
            _ => self.0.elapsed().as_secs_f64() * 1e3,
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, seconds, shapes @ ..] = &arguments[..] else { anyhow::bail!("engine_time MODEL SECONDS NAME=1x3x9x9") };
    let mut model = msq_onnx::load(model.as_ref())?;
    pipelines::lift().run(&mut model)?;
    let facts = msq_onnx::engine::standard().infer(&model)?;
    facts.annotate(&mut model);
    pipelines::fold(facts.constants).run(&mut model)?;
    msq_onnx::engine::standard().infer(&model)?.annotate(&mut model);
    pipelines::canonicalize(true, &[]).run(&mut model)?;
    let mut inputs = Vec::new();
    for value in model.graph.runtime_inputs() {
        let value = model.graph.value(value);
        let given = shapes.iter().find_map(|shape| shape.strip_prefix(value.name())?.strip_prefix('='));
        let Some(given) = given else { anyhow::bail!("no shape for `{}`", value.name()) };
        let shape = given.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        let Some(array) = input(value.element_type(), &shape) else { anyhow::bail!("cannot feed `{}`", value.name()) };
        inputs.push(array);
    }
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|array| array.shape().to_vec()).collect();
    let begin = Clock::start();
    let plan = msq_onnx::engine::standard().load(&model, &shapes)?;
    let loading = begin.milliseconds();
    let mut session = plan.session()?;
    let (limit, begin) = (seconds.parse::<f64>()?, Instant::now());
    let mut times = Vec::new();
    session.run(&inputs)?;
    while times.len() < 5 || begin.elapsed().as_secs_f64() < limit {
        // The system counts in ticks of some milliseconds.
        let (clock, from, mut runs) = (Clock::start(), Instant::now(), 0);
        while from.elapsed().as_secs_f64() < 0.15 {
            session.run(&inputs)?;
            runs += 1;
        }
        times.push(clock.milliseconds() / f64::from(runs));
    }
    times.sort_by(f64::total_cmp);
    let mut operators: BTreeMap<String, (u32, f64)> = BTreeMap::new();
    let mut least = f64::INFINITY;
    for _ in 0..10 {
        let run = session.profile(&inputs)?;
        let total: f64 = run.iter().map(|(_, time)| time.as_secs_f64()).sum();
        if total < least {
            (least, operators) = (total, BTreeMap::new());
            for (name, time) in run {
                let entry = operators.entry(name).or_default();
                *entry = (entry.0 + 1, entry.1 + time.as_secs_f64() * 1e3);
            }
        }
    }
    #[allow(clippy::print_stdout)]
    {
        println!("{:.3} {:.3} {loading:.1}", times[times.len() / 2], times[0]);
        for (name, (count, time)) in operators {
            println!("{name} {count} {time:.3}");
        }
    }
    Ok(())
}
