//! The gradients that the pass `differentiate` writes, beside central differences: each rule on small graphs, and whole
//! networks. The engine runs what it knows; onnxruntime checks and runs all of them.

use crate::common::arrays::{Npy, write_npz};
use crate::common::python::{python, ran};
use crate::common::random_network::random_network;
use crate::common::{Scratch, models, repository};
use msq_onnx::data::Array;
use msq_onnx::engine::standard;
use msq_passes::ir::{self, Model, TypeProto, ValueId};
use msq_passes::{Differentiate, pipelines};
use std::collections::{BTreeMap, BTreeSet};

/// Half the length of a difference.
const STEP: f32 = 1.0 / 256.0;
/// More rows than any input has.
const ROWS: usize = 64;
/// Operator sets of the cases: the oldest that the rules take, and a newer one.
const OLD: i64 = 13;
const NEW: i64 = 20;

/// Graphs by name: operator set, and the graph. Every input that is a float is differentiated.
const CASES: &str = include_str!("gradients.txt");

struct Case {
    name: String,
    model: Model,
    /// Names and shapes of the inputs that are differentiated.
    inputs: Vec<(String, Vec<usize>)>,
    /// Inputs of integers, with their elements.
    others: BTreeMap<String, Array>,
}

/// Numbers apart from each other and from 0, so that no maximum, bound or root lies within a step.
fn apart(seed: u64, count: usize) -> Vec<f32> {
    let mut order: Vec<(u64, usize)> = (0..count).map(|i| (noise(seed, i), i)).collect();
    order.sort_unstable();
    let mut values = vec![0.0; count];
    for (rank, (_, at)) in order.into_iter().enumerate() {
        values[at] = (rank as f32 + 0.5) / count as f32 * 3.7 - 1.85 + 0.003;
    }
    values
}

fn noise(seed: u64, at: usize) -> u64 {
    let mut x =
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(at as u64 + 1).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^= x >> 29;
    x = x.wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 32)
}

/// Numbers between −1 and 1.
fn uniform(seed: u64, count: usize) -> Vec<f32> {
    (0..count).map(|at| (noise(seed, at) >> 40) as f32 / 8_388_608.0 - 1.0).collect()
}

fn fixed(model: &Model, value: ValueId) -> Vec<usize> {
    model.graph.value(value).shape().unwrap().into_iter().map(|axis| axis.unwrap()).collect()
}

fn name(model: &Model, value: ValueId) -> String {
    model.graph.value(value).name().to_owned()
}

/// States the types of inner values: the engine's, those of the file where it knows none.
fn annotate(model: &mut Model) {
    if let Ok(facts) = standard().infer(model) {
        facts.annotate(model);
    }
}

fn case(name_of_case: &str, opset: i64, text: &str) -> Case {
    let text = format!("<ir_version: 8, opset_import: [\"\": {opset}]>\ng {text}");
    let mut proto = models::parse(&text);
    models::fill(&mut proto);
    let mut model = ir::import(proto).unwrap();
    ir::check(&model).unwrap();
    annotate(&mut model);
    let is_float = |value: &ValueId| model.graph.value(*value).element_type().unwrap().is_float();
    let (floats, integers): (Vec<ValueId>, Vec<ValueId>) = model.graph.inputs().partition(is_float);
    let inputs = floats.into_iter().map(|value| (name(&model, value), fixed(&model, value))).collect();
    let other = |value| {
        let shape = fixed(&model, value);
        let elements: Vec<i64> =
            (0..shape.iter().product::<usize>() as i64).map(|i| [2, -1, 0, 2, 1][i as usize % 5]).collect();
        let array = match model.graph.value(value).element_type().unwrap() {
            ir::DataType::Bool => {
                Array::new(shape, msq_onnx::data::ArrayData::Bool(elements.iter().map(|&n| n > 0).collect()))
            }
            _ => Array::new(shape, msq_onnx::data::ArrayData::I64(elements)),
        };
        (name(&model, value), array.unwrap())
    };
    let others = integers.into_iter().map(other).collect();
    Case { name: name_of_case.to_owned(), model, inputs, others }
}

fn cases() -> Vec<Case> {
    let blocks = CASES.split("\n\n").map(str::trim).filter(|block| !block.is_empty() && !block.starts_with("//"));
    blocks
        .map(|block| {
            let (head, text) = block.split_once('\n').unwrap();
            let (opset, name) = head.strip_prefix("# ").unwrap().split_once(' ').unwrap();
            let opset = if opset == "old" { OLD } else { NEW };
            case(name, opset, text)
        })
        .collect()
}

impl Case {
    fn differentiated(&self) -> Model {
        let mut model = self.model.clone();
        let seeds: Vec<String> = model.graph.outputs().map(|value| name(&model, value)).collect();
        let wanted = self.inputs.iter().map(|(name, _)| name.clone()).collect();
        let records = pipelines::differentiate(seeds, wanted).run(&mut model).unwrap();
        for record in records {
            assert_eq!(record.outcome.declined, Vec::new(), "{}", self.name);
        }
        ir::check(&model).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        model
    }

    /// Points, directions and seeds: inputs of the differentiated model at the point, ahead and behind.
    fn feeds(&self, model: &Model) -> [Vec<Array>; 3] {
        [0.0, STEP, -STEP].map(|step| {
            let feed = |(at, value): (usize, ValueId)| {
                let (name, seed) = (name(model, value), 100 + at as u64);
                if let Some(other) = self.others.get(&name) {
                    return other.clone();
                }
                let shape = fixed(model, value);
                let count = shape.iter().product();
                let mut values = apart(seed, count);
                if self.inputs.iter().any(|(input, _)| *input == name) {
                    if self.name.ends_with("positive") {
                        for v in &mut values {
                            *v = v.abs() + 0.3;
                        }
                    }
                    let direction = uniform(seed + 50, count);
                    values.iter_mut().zip(direction).for_each(|(v, d)| *v += step * d);
                } else {
                    values = uniform(seed, count);
                }
                Array::from_f32(shape, values).unwrap()
            };
            model.graph.runtime_inputs().enumerate().map(feed).collect()
        })
    }

    /// Compares the gradients at the point with the difference of the outputs ahead and behind.
    fn agrees(&self, model: &Model, feeds: &[Vec<Array>; 3], outputs: &[Vec<Vec<f32>>; 3]) -> Result<(), String> {
        let own = self.model.graph.outputs().len();
        let seeds = &feeds[0][self.inputs.len() + self.others.len()..];
        let weighed = |outputs: &[Vec<f32>]| -> f64 {
            let one = |(output, seed): (&Vec<f32>, &Array)| -> f64 {
                output.iter().zip(seed.to_f32()).map(|(&y, u)| f64::from(y) * f64::from(u)).sum()
            };
            outputs[..own].iter().zip(seeds).map(one).sum()
        };
        let wanted = (weighed(&outputs[1]) - weighed(&outputs[2])) / f64::from(2.0 * STEP);
        let (mut found, mut size) = (0.0, 0.0);
        for (at, value) in model.graph.runtime_inputs().enumerate() {
            let Some(input) = self.inputs.iter().position(|(input, _)| *input == name(model, value)) else { continue };
            let gradient = &outputs[0][own + input];
            assert_eq!(gradient.len(), feeds[0][at].to_f32().len(), "{}", self.name);
            for (g, d) in gradient.iter().zip(uniform(150 + at as u64, gradient.len())) {
                found += f64::from(*g) * f64::from(d);
                size += (f64::from(*g) * f64::from(d)).abs();
            }
        }
        let magnitude: f64 = outputs[0][..own].iter().flatten().map(|&y| f64::from(y).abs()).sum();
        let allowed = 4e-3 * size + 1e-4 * magnitude;
        if (wanted - found).abs() <= allowed {
            return Ok(());
        }
        Err(format!("{}: gradients give {found}, differences {wanted}, terms of {size}", self.name))
    }
}

/// The outputs of a model at three points; or why the engine does not run it.
fn run(model: &Model, feeds: &[Vec<Array>; 3]) -> Result<[Vec<Vec<f32>>; 3], String> {
    if let Some((_, reason)) = standard().unknown(model).first() {
        return Err(reason.clone());
    }
    let shapes: Vec<Vec<usize>> = feeds[0].iter().map(|array| array.shape().to_vec()).collect();
    let plan = standard().load(model, &shapes).map_err(|error| error.to_string())?;
    let mut session = plan.session().map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for feed in feeds {
        let outputs = session.run(feed).map_err(|error| error.to_string())?;
        found.push(outputs.iter().map(|output| output.to_f32().unwrap()).collect());
    }
    Ok(found.try_into().unwrap())
}

#[test]
fn rules_agree_with_differences_in_the_engine() {
    let (mut left, mut wrong) = (Vec::new(), Vec::new());
    for case in cases() {
        let model = case.differentiated();
        let feeds = case.feeds(&model);
        match run(&model, &feeds) {
            Ok(outputs) => wrong.extend(case.agrees(&model, &feeds, &outputs).err()),
            Err(_) => left.push(case.name),
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    // The engine runs the operators themselves no better.
    assert_eq!(left, ["Mean"], "not run by the engine");
}

/// The model with another input in front, that nothing reads. The script takes as many rows of every input as the first one
/// has.
fn with_rows(mut model: Model) -> Model {
    let inputs: Vec<(ValueId, TypeProto)> =
        model.graph.runtime_inputs().map(|value| (value, model.graph.value(value).ty().unwrap().clone())).collect();
    let rows = model.graph.add_value("rows");
    let rows = (rows, TypeProto::tensor(ir::DataType::Float, &[Some(ROWS)]));
    model.graph.set_inputs([rows].into_iter().chain(inputs).collect());
    model
}

#[test]
fn rules_agree_with_differences_in_onnxruntime() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    let mut made = Vec::new();
    for (at, case) in cases().into_iter().enumerate() {
        let model = case.differentiated();
        let feeds = case.feeds(&model);
        let path = scratch.path(&format!("{at}.onnx"));
        ir::save_model(&with_rows(model.clone()), &path).unwrap();
        for (point, feed) in feeds.iter().enumerate() {
            let names: Vec<String> = model.graph.runtime_inputs().map(|value| name(&model, value)).collect();
            let array = |array: &Array| match array.dtype() {
                ir::DataType::Bool => Npy::new(
                    "|b1",
                    array.shape(),
                    &array.to_f32().iter().map(|&v| u8::from(v > 0.0)).collect::<Vec<u8>>(),
                ),
                ir::DataType::Int64 => {
                    let bytes: Vec<u8> = array.to_f32().iter().flat_map(|&v| (v as i64).to_le_bytes()).collect();
                    Npy::new("<i8", array.shape(), &bytes)
                }
                _ => Npy::floats(array.shape(), &array.to_f32()),
            };
            let rows = ("rows", Npy::floats(&[ROWS], &[0.0; ROWS]));
            let arrays: Vec<(&str, Npy)> =
                names.iter().map(String::as_str).zip(feed.iter().map(array)).chain([rows]).collect();
            write_npz(&scratch.path(&format!("{at}-{point}.npz")), &arrays);
        }
        made.push((case, model, feeds, path));
    }
    let files: Vec<_> = (0..made.len()).flat_map(|at| (0..3).map(move |point| (at, point))).collect();
    let data: Vec<_> = files.iter().map(|(at, point)| scratch.path(&format!("{at}-{point}.npz"))).collect();
    let runs: Vec<_> = files.iter().zip(&data).map(|(&(at, _), data)| (made[at].3.as_path(), data.as_path())).collect();
    let ran = ran("survey", &runs).unwrap();
    let mut wrong = Vec::new();
    for ((case, model, feeds, _), ran) in made.iter().zip(ran.chunks(3)) {
        let outputs = [0, 1, 2].map(|point: usize| {
            let output = |value| ran[point].outputs[&name(model, value)].clone();
            model.graph.outputs().map(output).collect::<Vec<_>>()
        });
        wrong.extend(case.agrees(model, feeds, &outputs).err());
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_rule_has_a_case() {
    let met: BTreeSet<String> = cases()
        .iter()
        .flat_map(|case| case.model.graph.nodes().map(|(_, node)| node.op().to_owned()).collect::<Vec<_>>())
        .collect();
    // Rounding has no difference to compare with: it has a test of its own.
    let own = ["QuantizeLinear", "DequantizeLinear"];
    let missing: Vec<&str> = Differentiate::operators().filter(|op| !met.contains(*op) && !own.contains(op)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

/// A network by its input: gradients of a random combination of its outputs.
fn network(name_of_case: &str, mut model: Model, shape: &[usize]) -> Case {
    let input = model.graph.runtime_inputs().next().unwrap();
    let axes: Vec<Option<usize>> = shape.iter().map(|&n| Some(n)).collect();
    model.graph.set_inputs(vec![(input, TypeProto::tensor(ir::DataType::Float, &axes))]);
    model.graph.clear_value_info();
    pipelines::lift().run(&mut model).unwrap();
    let facts = standard().infer(&model).unwrap();
    facts.annotate(&mut model);
    pipelines::fold(facts.constants).run(&mut model).unwrap();
    annotate(&mut model);
    pipelines::canonicalize(true, &[]).run(&mut model).unwrap();
    annotate(&mut model);
    let inputs = vec![(name(&model, input), shape.to_vec())];
    Case { name: name_of_case.to_owned(), model, inputs, others: BTreeMap::new() }
}

#[test]
fn whole_networks_agree_with_differences() {
    let digits = network("digits", models::digits_model(), &[1, 1, 8, 8]);
    let text = std::fs::read_to_string(repository("tests/networks/squeeze_and_excite.onnxtxt")).unwrap();
    let mut proto = models::parse(&text);
    models::fill(&mut proto);
    let squeezed = ir::import(proto).unwrap();
    let shape = squeezed.graph.runtime_inputs().next().unwrap();
    let shape: Vec<usize> = squeezed.graph.value(shape).shape().unwrap().iter().map(|n| n.unwrap_or(1)).collect();
    let mut networks = vec![digits, network("squeeze_and_excite", squeezed, &shape)];
    for seed in 0..12 {
        let mut proto = models::parse(&random_network(seed));
        models::fill(&mut proto);
        networks.push(network(&format!("random {seed}"), ir::import(proto).unwrap(), &[1, 4, 12, 12]));
    }
    let mut wrong = Vec::new();
    for case in networks {
        let model = case.differentiated();
        let feeds = case.feeds(&model);
        let outputs = run(&model, &feeds).unwrap_or_else(|reason| panic!("{}: {reason}", case.name));
        wrong.extend(case.agrees(&model, &feeds, &outputs).err());
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Inside the range the gradient passes as if nothing were rounded; outside it is 0.
#[test]
fn rounding_is_the_identity_inside_the_range() {
    let text =
        "(float[2,3] x) => (float[2,3] y) <float[3] s = {0.01, 0.1, 0.5}, int8[3] z = {0, 100, -100}, int8[2,3] q>
        { q = QuantizeLinear(x, s, z)
          y = DequantizeLinear(q, s, z) }";
    let case = case("rounding", OLD, text);
    let model = case.differentiated();
    let x = Array::from_f32(vec![2, 3], vec![1.2, 2.6, -20.0, -1.3, -22.0, 113.6]).unwrap();
    let seed = Array::from_f32(vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let mut session = standard().load(&model, &[vec![2, 3], vec![2, 3]]).unwrap().session().unwrap();
    let outputs = session.run(&[x, seed]).unwrap();
    let gradient = outputs[1].to_f32().unwrap();
    for (found, wanted) in gradient.iter().zip([1.0, 2.0, 0.0, 0.0, 5.0, 0.0]) {
        assert!((found - wanted).abs() < 1e-5, "{gradient:?}");
    }
}
