//! The passes that prepare a model keep its function: on digits after each of them, on every fixture of the passes
//! that the engine can run after all of them.

use crate::common::random_network::random_network;
use crate::common::{digits, models, repository};
use msq_onnx::data::InputSpec;
use msq_onnx::data::{Array, ArrayData, DataOptions, Dataset};
use msq_onnx::engine::{EngineError, standard};
use msq_passes::ir::{self, DataType, Model};
use msq_passes::{CleanNames, PassError, PassObserver, Pipeline, Record, UpgradeOpset, pipelines, run_pass};
use std::sync::Mutex;

const TOLERANCE: f32 = 1e-4;

/// Calls a function with the model after each pass.
struct After<F>(Mutex<F>);

impl<F: FnMut(&str, &Model) + Send> PassObserver for After<F> {
    fn after(&self, _: &str, record: &Record, model: &Model) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        (self.0.lock().unwrap())(record.pass, model);
        Ok(())
    }
}

/// Prepares a model as quantizing does, equalizes its channels and shortens its names; hands the model to `after` with
/// the name of each pass.
fn prepare(model: &mut Model, after: impl FnMut(&str, &Model) + Send) -> Result<(), PassError> {
    let after = After(Mutex::new(after));
    let run = |pipeline: Pipeline, model: &mut Model| pipeline.observed(Some(&after)).run(model);
    run(pipelines::lift(), model)?;
    let facts = standard().infer(model).unwrap();
    facts.annotate(model);
    run(pipelines::fold(facts.constants), model)?;
    standard().infer(model).unwrap().annotate(model);
    run(pipelines::canonicalize(true, &[]), model)?;
    run(pipelines::equalize(), model)?;
    run(pipelines::rename(CleanNames { strip: true }), model)?;
    Ok(())
}

fn outputs(model: &Model, samples: &[Vec<Array>]) -> Result<Vec<Vec<f32>>, EngineError> {
    let shapes: Vec<Vec<usize>> = samples[0].iter().map(|a| a.shape().to_vec()).collect();
    let mut session = standard().load(model, &shapes)?.session()?;
    let mut all = Vec::new();
    for inputs in samples {
        for output in session.run(inputs)? {
            all.push(output.to_f32()?);
        }
    }
    Ok(all)
}

#[track_caller]
fn close(wanted: &[Vec<f32>], found: &[Vec<f32>], what: &str) {
    assert_eq!(wanted.len(), found.len(), "{what}");
    for (wanted, found) in wanted.iter().zip(found) {
        assert_eq!(wanted.len(), found.len(), "{what}");
        for (w, f) in wanted.iter().zip(found) {
            let same = w == f || (w.is_nan() && f.is_nan());
            assert!(same || (w - f).abs() <= TOLERANCE * w.abs().max(1.0), "{what}: {w} became {f}");
        }
    }
}

#[test]
fn every_pass_keeps_the_function_of_digits() {
    let mut model = models::digits_model();
    let data = Dataset::open(&digits("test.npz"), &InputSpec::of(&model), &DataOptions::default()).unwrap();
    let samples: Vec<_> = (0..data.len()).step_by(20).map(|i| data.sample(i).unwrap().arrays).collect();
    let wanted = outputs(&model, &samples).unwrap();
    prepare(&mut model, |pass, model| close(&wanted, &outputs(model, &samples).unwrap(), pass)).unwrap();
    let left = model.graph.nodes().filter(|(_, node)| node.is("BatchNormalization")).count();
    assert_eq!(left, 0, "all batch-norms are folded");
    assert_eq!(model.graph.node_ids().len(), 22);
}

/// A fixture with elements where it leaves them open: positive where its comments ask for that.
fn fixture(text: &str) -> Option<Model> {
    let mut proto = ir::text::parse(text).ok()?;
    models::fill(&mut proto);
    for line in text.lines().filter(|l| l.contains("# fill positive")) {
        let name = line.split_once(" = ")?.0.split_whitespace().last()?;
        let tensor = models::initializer(&mut proto, name.trim_matches('"'));
        tensor.float_data.iter_mut().for_each(|v| *v = 0.5 + v.abs());
    }
    let model = ir::import(proto).ok()?;
    ir::check(&model).is_ok().then_some(model)
}

/// Inputs for every input of the model, open axes of length 2.
fn inputs(model: &Model) -> Option<Vec<Array>> {
    let input = |spec: msq_onnx::data::InputSpec| {
        let shape: Vec<usize> = spec.shape?.into_iter().map(|n| n.unwrap_or(2)).collect();
        let count = shape.iter().product::<usize>();
        let floats = (0..count).map(|i| (i * 37 % 101) as f32 / 25.0 - 2.0);
        let data = match spec.dtype {
            DataType::Float => ArrayData::F32(floats.collect()),
            DataType::Double => ArrayData::F64(floats.map(f64::from).collect()),
            DataType::Int64 => ArrayData::I64((0..count as i64).map(|i| 1 + i % 2).collect()),
            DataType::Bool => ArrayData::Bool((0..count).map(|i| i % 2 == 0).collect()),
            _ => return None,
        };
        Array::new(shape, data).ok()
    };
    InputSpec::of(model).into_iter().map(input).collect()
}

/// Fixtures that the engine computes otherwise than the format says: its Swish knows no `alpha`, and its products of
/// doubles take their factors for floats.
const ENGINE_DIFFERS: [&str; 2] = ["swish-alpha", "double-beyond-the-range"];

#[test]
fn every_fixture_keeps_its_function() {
    let mut compared = 0;
    for path in crate::common::files(&repository("testdata/passes"), "onnxtxt") {
        if ENGINE_DIFFERS.iter().any(|name| path.file_stem().is_some_and(|stem| stem == *name)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let Some(mut model) = fixture(&text) else { continue };
        let Some(samples) = inputs(&model).map(|inputs| vec![inputs]) else { continue };
        // What the engine cannot run cannot be compared.
        let Ok(wanted) = outputs(&model, &samples) else { continue };
        let name = path.display().to_string();
        let prepared = prepare(&mut model, |pass, model| {
            let found = outputs(model, &samples).unwrap_or_else(|e| panic!("{name} after {pass}: {e}"));
            close(&wanted, &found, &format!("{name} after {pass}"));
        });
        match prepared {
            Ok(()) => compared += 1,
            Err(error) => panic!("{name}: {error}"),
        }
    }
    assert!(compared >= 80, "only {compared} fixtures could be compared");
}

#[test]
fn every_random_network_keeps_its_function() {
    for seed in 0..60 {
        let text = random_network(seed);
        let mut proto = models::parse(&text);
        models::fill(&mut proto);
        let mut model = ir::import(proto).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let samples = vec![inputs(&model).unwrap()];
        let wanted = outputs(&model, &samples).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert!(wanted.iter().flatten().any(|v| *v != 0.0), "{text}");
        let after = |pass: &str, model: &Model| {
            let found = outputs(model, &samples).unwrap_or_else(|e| panic!("after {pass}: {e}\n{text}"));
            close(&wanted, &found, &format!("after {pass}\n{text}"));
        };
        prepare(&mut model, after).unwrap_or_else(|e| panic!("{e}\n{text}"));
    }
}

#[test]
fn raising_to_the_highest_operator_set_keeps_the_function() {
    let mut compared = 0;
    for path in crate::common::files(&repository("testdata/passes"), "onnxtxt") {
        let Some(mut model) = fixture(&std::fs::read_to_string(&path).unwrap()) else { continue };
        let Some(samples) = inputs(&model).map(|inputs| vec![inputs]) else { continue };
        let Ok(wanted) = outputs(&model, &samples) else { continue };
        // Errors are what other tests are about, here only what changes counts.
        let Ok(record) = run_pass(&UpgradeOpset::to(21), &mut model, true) else { continue };
        // The engine does not know every operator set of every operator.
        let Ok(found) = outputs(&model, &samples) else { continue };
        close(&wanted, &found, &path.display().to_string());
        compared += usize::from(record.outcome.changed > 1);
    }
    assert!(compared >= 10, "only {compared} fixtures could be compared");
}
