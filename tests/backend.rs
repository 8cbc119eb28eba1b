//! A back end of a user's own: a few operators in plain Rust, one of which no other engine knows. All phases run through
//! it, and nothing in the library names the one that is built in.

use crate::common::{files, models, repository};
use msq_onnx::data::{Array, Dataset, InputSpec, SyntheticOptions};
use msq_onnx::engine::{Backend, EngineError, Facts, Output, Plan, Session};
use msq_onnx::evaluate::evaluate;
use msq_onnx::runtime::Runtime;
use msq_onnx::search::{SearchOptions, Target};
use msq_onnx::{BitPlan, LayerPlan, MeasureOptions, Options, Quantizer, WeightBits, made_up};
use msq_passes::ir::{DataType, Model, Node, NodeId, TensorProto, TypeProto, ValueId, import};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Operators it knows.
const OPERATORS: [&str; 12] = [
    "MatMul",
    "Gemm",
    "Add",
    "Mul",
    "Relu",
    "Clip",
    "Cast",
    "Identity",
    "Shortcut",
    "QuantizeLinear",
    "DequantizeLinear",
    "Softmax",
];

/// Values as doubles, which hold every integer of a quantized network.
#[derive(Clone, Debug)]
struct Tensor {
    shape: Vec<usize>,
    values: Vec<f64>,
    /// Of zero points.
    unsigned: bool,
}

impl Tensor {
    fn new(shape: Vec<usize>, values: Vec<f64>) -> Self {
        Self { shape, values, unsigned: false }
    }
}

/// The back end, and how many models it loaded.
#[derive(Debug, Default)]
struct Tiny {
    loaded: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct TinyPlan(Arc<Model>);

#[derive(Debug)]
struct TinySession(Arc<Model>);

impl Backend for Tiny {
    fn name(&self) -> &'static str {
        "tiny"
    }

    fn version(&self) -> &'static str {
        "1"
    }

    fn load(&self, model: &Model, _: &[Vec<usize>]) -> Result<Arc<dyn Plan>, EngineError> {
        if let Some((_, reason)) = self.unknown(model).into_iter().next() {
            return Err(EngineError::Load { reason });
        }
        self.loaded.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(TinyPlan(Arc::new(model.clone()))))
    }

    fn infer(&self, model: &Model) -> Result<Facts, EngineError> {
        let outputs = model.graph.nodes().flat_map(|(_, node)| node.outputs().iter().flatten().copied());
        let ty = |value: ValueId| {
            (model.graph.value(value).name().to_owned(), TypeProto::tensor(DataType::Float, &[None, None]))
        };
        Ok(Facts { types: outputs.map(ty).collect(), ..Facts::default() })
    }

    fn unknown(&self, model: &Model) -> Vec<(NodeId, String)> {
        let unknown = model.graph.nodes().filter(|(_, node)| !OPERATORS.contains(&node.op()));
        unknown.map(|(id, node)| (id, format!("no operator `{}`", node.op()))).collect()
    }
}

impl Plan for TinyPlan {
    fn session(&self) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(TinySession(Arc::clone(&self.0))))
    }
}

impl Session for TinySession {
    fn run(&mut self, inputs: &[Array]) -> Result<Vec<Output>, EngineError> {
        let graph = &self.0.graph;
        let float = |v: &f32| f64::from(*v);
        let mut known: HashMap<ValueId, Tensor> = HashMap::new();
        for (value, tensor) in graph.initializers() {
            known.insert(value, constant(tensor));
        }
        for (value, array) in graph.runtime_inputs().zip(inputs) {
            let values = array.to_f32().iter().map(float).collect();
            known.insert(value, Tensor::new(array.shape().to_vec(), values));
        }
        for (_, node) in graph.nodes() {
            let read: Vec<&Tensor> = node.inputs().iter().flatten().map(|value| &known[value]).collect();
            let made = computed(node, &read);
            known.insert(node.output(0).unwrap(), made);
        }
        let output = |value: ValueId| {
            let Tensor { shape, values, .. } = known[&value].clone();
            Array::from_f32(shape, values.into_iter().map(|v| v as f32).collect()).unwrap()
        };
        Ok(graph.outputs().map(|value| Output::new(output(value))).collect())
    }
}

fn constant(tensor: &TensorProto) -> Tensor {
    let values = match tensor.to_f32() {
        Ok(values) if tensor.is_float() => values.into_iter().map(f64::from).collect(),
        _ => tensor.to_i64().unwrap().into_iter().map(|v| v as f64).collect(),
    };
    let unsigned = tensor.element_type() == Some(DataType::Uint8);
    Tensor { unsigned, ..Tensor::new(tensor.shape().unwrap(), values) }
}

fn computed(node: &Node, read: &[&Tensor]) -> Tensor {
    let x = read[0];
    let one = |f: &dyn Fn(f64) -> f64| Tensor::new(x.shape.clone(), x.values.iter().map(|&v| f(v)).collect());
    match node.op() {
        "Identity" | "Cast" => x.clone(),
        "Relu" => one(&|v| v.max(0.0)),
        // What makes it a network that no other engine runs: x + 0.1·x².
        "Shortcut" => one(&|v| f64::from((v + 0.1 * v * v) as f32)),
        "Clip" => one(&|v| v.max(read[1].values[0]).min(read[2].values[0])),
        "Add" => spread(x, read[1], |a, b| f64::from((a + b) as f32)),
        "Mul" => spread(x, read[1], |a, b| f64::from((a * b) as f32)),
        "MatMul" => product(x, read[1], false),
        "Gemm" => {
            let product = product(x, read[1], node.int_or("transB", 0) == 1);
            read.get(2).map_or(product.clone(), |bias| spread(&product, bias, |a, b| f64::from((a + b) as f32)))
        }
        "QuantizeLinear" | "DequantizeLinear" => quantizer(node, read),
        "Softmax" => {
            let mut made = x.clone();
            for row in made.values.chunks_mut(x.shape[1]) {
                let sum: f64 = row.iter().map(|v| v.exp()).sum();
                for v in row.iter_mut() {
                    *v = f64::from((v.exp() / sum) as f32);
                }
            }
            made
        }
        other => panic!("{other} is not in the list"),
    }
}

/// b is as large as a, or a row of it, or a scalar.
fn spread(a: &Tensor, b: &Tensor, f: impl Fn(f64, f64) -> f64) -> Tensor {
    let values = a.values.iter().zip(b.values.iter().cycle()).map(|(&a, &b)| f(a, b)).collect();
    Tensor::new(a.shape.clone(), values)
}

fn product(a: &Tensor, b: &Tensor, transposed: bool) -> Tensor {
    let (rows, inner) = (a.shape[0], a.shape[1]);
    let columns = b.shape[usize::from(!transposed)];
    let weight = |k: usize, c: usize| if transposed { b.values[c * inner + k] } else { b.values[k * columns + c] };
    let entry = |at: usize| {
        let (row, column) = (at / columns, at % columns);
        f64::from((0..inner).map(|k| a.values[row * inner + k] * weight(k, column)).sum::<f64>() as f32)
    };
    Tensor::new(vec![rows, columns], (0..rows * columns).map(entry).collect())
}

/// Scales are one per tensor or one per entry of an axis.
fn quantizer(node: &Node, read: &[&Tensor]) -> Tensor {
    let (x, scale, zero) = (read[0], &read[1].values, read.get(2).map_or(&[0.0][..], |zero| &zero.values));
    let axis = usize::try_from(node.int_or("axis", 1)).unwrap();
    let inner: usize = x.shape.iter().skip(axis + 1).product();
    let of = |values: &[f64], at: usize| values[at / inner % values.len()];
    let unsigned = read.get(2).is_some_and(|zero| zero.unsigned);
    let (low, high) = if unsigned { (0.0, 255.0) } else { (-128.0, 127.0) };
    let value = |(at, &v): (usize, &f64)| {
        if node.is("DequantizeLinear") {
            return f64::from((v - of(zero, at)) as f32 * of(scale, at) as f32);
        }
        (f64::from((v as f32 / of(scale, at) as f32).round_ties_even()) + of(zero, at)).clamp(low, high)
    };
    Tensor::new(x.shape.clone(), x.values.iter().enumerate().map(value).collect())
}

/// Two layers with an operator between them that only the tiny back end knows.
fn network() -> Model {
    let mut proto = models::parse(
        "<ir_version: 8, opset_import: [\"\": 17, \"acme\": 1]>
        g (float[N,6] x) => (float[N,4] y) <float[6,8] a = {}, float[4,8] b = {}, float[4] c = {0.5, -0.25, 0, 1}>
        { t0 = MatMul (x, a)  t1 = acme.Shortcut (t0)  y = Gemm <transB = 1> (t1, b, c) }",
    );
    models::fill(&mut proto);
    import(proto).unwrap()
}

fn data(model: &Model, backend: &dyn Backend) -> Dataset {
    let options = SyntheticOptions { count: 24, ..SyntheticOptions::default() };
    assert_eq!(InputSpec::of(model).len(), 1);
    made_up(model, &options, backend).unwrap()
}

#[test]
fn all_phases_run_through_a_back_end_of_ones_own() {
    let model = network();
    let backend = Arc::new(Tiny::default());
    let data = data(&model, &*backend);
    for bits in [8, 4] {
        let plan = BitPlan::uniform(LayerPlan { weights: WeightBits::whole(bits), ..LayerPlan::default() });
        let mut options = Options::default();
        options.scheme.plan = plan;
        let before = backend.loaded.load(Ordering::Relaxed);
        let quantizer = Quantizer::new(model.clone()).calibration(data.clone()).options(options);
        let small = quantizer.backend(backend.clone()).run().unwrap();
        assert!(backend.loaded.load(Ordering::Relaxed) > before, "another engine ran");
        let report = &small.report;
        assert_eq!(
            (report.layers.len(), report.notes.iter().filter(|note| !note.contains("than the float model")).count()),
            (2, usize::from(bits < 8)),
            "{:?} {:?}",
            report.kept,
            report.notes
        );
        assert!(report.layers.iter().all(|layer| layer.activation_bits == Some(8)), "{:?}", report.layers);
        let quality = report.quality.as_ref().unwrap();
        assert!(quality.agreement.sqnr.unwrap() > [30.0, 12.0][usize::from(bits == 4)], "{bits} bits: {quality:?}");
    }
}

#[test]
fn a_search_and_a_comparison_too() {
    let model = network();
    let backend = Arc::new(Tiny::default());
    let data = data(&model, &*backend);
    let search = SearchOptions { method: "ilp".parse().unwrap(), samples: 4, ..SearchOptions::new(Target::Bits(5.0)) };
    let quantizer = Quantizer::new(model.clone()).calibration(data.clone()).search_options(search);
    let small = quantizer.backend(backend.clone()).run().unwrap();
    assert!(small.report.search.unwrap().reached);
    let runtime = Runtime::with_threads(2).with_backend(backend);
    let found = evaluate(&model, Some(&model), &data, &MeasureOptions::default(), None, &runtime).unwrap();
    assert_eq!((found.samples, found.agreement.unwrap().sqnr), (24, None));
    // The engine that is built in does not know the operator.
    let said = evaluate(&model, None, &data, &MeasureOptions::default(), None, &Runtime::with_threads(1))
        .unwrap_err()
        .to_string();
    assert!(said.contains("acme.Shortcut"), "{said}");
}

/// The word is also the name of a target.
#[test]
fn nothing_else_names_the_engine_built_in() {
    let (source, own) = (repository("src"), repository("src/engine/tract"));
    let names = ["tract_onnx", "tract_core", "tract_hir", "TRACT_VERSION", "tract::"];
    for file in files(&source, "rs").iter().filter(|file| !file.starts_with(&own)) {
        let chooses = file.ends_with("engine/mod.rs");
        for (at, line) in std::fs::read_to_string(file).unwrap().lines().enumerate() {
            let names_it = names.iter().any(|name| line.contains(name)) && !(chooses && line.contains("tract::Tract"));
            let is_comment = line.trim_start().starts_with("//");
            let speaks_of_it =
                is_comment && !chooses && line.split(|c: char| !c.is_alphanumeric()).any(|w| w == "tract");
            let speaks_of_target = line.contains("qnn");
            assert!(!names_it && (!speaks_of_it || speaks_of_target), "{}:{}: {line}", file.display(), at + 1);
        }
    }
}
