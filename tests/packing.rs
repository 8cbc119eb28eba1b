//! Packed weights come back: what the graph unpacks is, integer for integer, what was packed. Asked are our engine,
//! onnx's reference implementation and onnxruntime, for every packing, for layers of every kind, alone and sharing a
//! pool, behind a `DequantizeLinear` and behind `Cast` and `Mul`, with and without functions.
//!
//! Our engine is left out where functions are called: it has none. Every other combination is asked of all three.

use crate::common::arrays::{Npy, write_npz};
use crate::common::python::{check_model, python};
use crate::common::{Scratch, args, models};
use msq_onnx::data::{Array, ArrayData};
use msq_onnx::engine::standard;
use msq_passes::ir::{self, Model, TensorProto, ValueId, save_model};
use msq_passes::{EliminateDeadNodes, PackWeights, Packing, TrellisCode, TrellisRate, run_pass};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

/// Shapes of weights and the layers that read them, `d` the weight.
const LAYERS: [(&[usize], &str); 14] = [
    (&[6, 2, 3, 3], "Conv<group: int = 3>(x, d)"),
    (&[5, 1, 3, 3], "Conv<group: int = 5>(x, d)"),
    (&[3, 2, 5], "Conv(x, d)"),
    (&[2, 3, 2, 1, 3], "Conv(x, d)"),
    (&[3, 4, 2, 2], "ConvTranspose(x, d)"),
    (&[4, 3, 1, 3], "ConvTranspose<group: int = 2>(x, d)"),
    (&[7, 5], "Gemm<transB: int = 1>(x, d)"),
    (&[5, 7], "Gemm<transA: int = 1>(x, d)"),
    (&[9, 3], "Gemm<transA: int = 1>(d, x)"),
    (&[11, 13], "MatMul(x, d)"),
    (&[3, 17], "MatMul(d, x)"),
    (&[2, 3, 5], "MatMul(x, d)"),
    (&[1, 1], "MatMul(x, d)"),
    (&[1, 1031], "MatMul(x, d)"),
];

const PACKINGS: [Packing; 14] = [
    Packing::Ternary,
    Packing::Bits(1),
    Packing::Bits(2),
    Packing::Bits(3),
    Packing::Bits(4),
    Packing::Bits(5),
    Packing::Bits(6),
    Packing::Bits(7),
    Packing::Codebook,
    Packing::Int4,
    Packing::Int2,
    trellis(6),
    trellis(8),
    trellis(12),
];

const fn trellis(quarters: u8) -> Packing {
    let Some(rate) = TrellisRate::of_quarters(quarters) else { panic!("no such rate") };
    Packing::Trellis(rate)
}

/// How integers become floats.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pattern {
    /// `DequantizeLinear`.
    Dequantized,
    /// `Cast` and `Mul`: the layer computes in float.
    WeightOnly,
}

/// A layer: its weight's shape and integers, how it reads them, how they are to be packed.
#[derive(Clone, Debug)]
struct Site {
    shape: Vec<usize>,
    call: &'static str,
    integers: Vec<i8>,
    packing: Packing,
}

impl Site {
    /// Integers that follow from the seed. The ends of the interval are among the first; a codebook has as many
    /// entries as the seed says.
    fn new((shape, call): (&[usize], &'static str), packing: Packing, seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as i32
        };
        let (low, high) = packing.interval();
        let (low, high) = (i32::from(low), i32::from(high));
        let entries: Vec<i32> = match packing {
            Packing::Codebook => (0..=(seed % 128) as i32).map(|i| (i * 89 + 31) % 256 - 128).collect(),
            _ => [low, high].into_iter().chain(low..=high).collect(),
        };
        if let Packing::Trellis(rate) = packing {
            let integers = coded(shape, rate, next);
            return Self { shape: shape.to_vec(), call, integers, packing };
        }
        let count = shape.iter().product();
        let pick = |i: usize| if i < 2 { entries[i % entries.len()] } else { entries[next() as usize % entries.len()] };
        let integers = (0..count).map(pick).map(|q| q as i8).collect();
        Self { shape: shape.to_vec(), call, integers, packing }
    }
}

/// Integers of a trellis code along an axis on which strings are shorter than bytes; any entries where there is none.
fn coded(shape: &[usize], rate: TrellisRate, mut next: impl FnMut() -> i32) -> Vec<i8> {
    let code = TrellisCode::new(rate);
    let count: usize = shape.iter().product();
    let axes: Vec<usize> = (0..shape.len()).filter(|&a| rate.bytes(shape[a]) < shape[a]).collect();
    if axes.is_empty() {
        return (0..count).map(|_| code.table()[next() as usize % 256]).collect();
    }
    let axis = axes[next() as usize % axes.len()];
    let (length, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let mut integers = vec![0; count];
    for column in 0..count / length {
        let string: Vec<u8> = (0..rate.bytes(length)).map(|_| next() as u8).collect();
        let start = column / inner * length * inner + column % inner;
        let places = (0..length).map(|i| start + i * inner);
        places.zip(code.unpack(&string, length)).for_each(|(at, q)| integers[at] = q);
    }
    integers
}

/// The layers in a model, their weights not yet packed.
fn unpacked(sites: &[Site], pattern: Pattern) -> Model {
    let opset = sites.iter().map(|site| site.packing.lowest_opset()).max().unwrap();
    let commas = |list: Vec<String>| list.join(", ");
    let numbered = |f: &dyn Fn(usize, &Site) -> String| -> Vec<String> {
        sites.iter().enumerate().map(|(i, site)| f(i, site)).collect()
    };
    let outputs = commas(numbered(&|i, _| format!("float y{i}")));
    let mut constants = vec!["float s = {0.5}".to_owned()];
    constants.extend(numbered(&|i, _| format!("int8[1] w{i} = {{0}}")));
    let nodes = numbered(&|i, site| {
        let scaled = match pattern {
            Pattern::Dequantized => format!("d{i} = DequantizeLinear(w{i}, s)"),
            Pattern::WeightOnly => format!("f{i} = Cast<to: int = 1>(w{i})\n d{i} = Mul(f{i}, s)"),
        };
        let call = site.call.replace("(d,", &format!("(d{i},")).replace("d)", &format!("d{i})"));
        format!("{scaled}\n [layer{i}] y{i} = {call}")
    });
    let (constants, nodes) = (commas(constants), nodes.join("\n"));
    let ir = msq_passes::ops::ir_version_of_opset(opset);
    let text = format!(
        "<ir_version: {ir}, opset_import: [\"\": {opset}]> graph (float[1] x) => ({outputs}) <{constants}> {{ {nodes} }}"
    );
    let mut model = ir::import(models::parse(&text)).unwrap();
    for (i, site) in sites.iter().enumerate() {
        let name = format!("w{i}");
        let value = model.graph.find(&name).unwrap();
        model.graph.set_initializer(value, TensorProto::from_i8(&name, &site.shape, &site.integers));
    }
    model
}

/// The model with packed weights, and what unpacking gives as its outputs, in the order of the sites.
fn packed(sites: &[Site], pattern: Pattern, functions: bool) -> Model {
    let mut model = unpacked(sites, pattern);
    let readers: Vec<_> =
        (0..sites.len()).map(|i| model.graph.only_use(model.graph.find(&format!("w{i}")).unwrap()).unwrap()).collect();
    let layers = sites.iter().enumerate().map(|(i, site)| (format!("layer{i}"), site.packing)).collect();
    let record = run_pass(&PackWeights { layers, functions }, &mut model, true).unwrap();
    assert_eq!(record.outcome.changed, sites.len());
    assert!((0..sites.len()).all(|i| model.graph.find(&format!("w{i}")).is_none()), "an int8 weight is left");
    let integers: Vec<ValueId> =
        readers.iter().map(|reader| model.graph.node(reader.node).input(reader.slot).unwrap()).collect();
    for (i, &value) in integers.iter().enumerate() {
        let shape: Vec<_> = sites[i].shape.iter().copied().map(Some).collect();
        model.graph.set_type(value, ir::TypeProto::tensor(ir::DataType::Int8, &shape));
        assert!(model.graph.rename(value, &format!("integers{i}")));
    }
    model.graph.set_outputs(&integers);
    run_pass(&EliminateDeadNodes, &mut model, true).unwrap();
    model
}

/// What our engine unpacks is what was packed.
#[track_caller]
fn comes_back_in_our_engine(model: &Model, sites: &[Site], what: &str) {
    let plan = standard().load(model, &[vec![1]]).unwrap_or_else(|e| panic!("{what}: {e}"));
    let x = Array::new(vec![1], ArrayData::F32(vec![0.0])).unwrap();
    let outputs = plan.session().unwrap().run(&[x]).unwrap();
    assert_eq!(outputs.len(), sites.len(), "{what}");
    for (site, output) in sites.iter().zip(outputs) {
        assert_eq!(output.shape(), site.shape, "{what}");
        let found: Vec<i8> = output.to_f32().unwrap().into_iter().map(|q| q as i8).collect();
        assert_eq!(found, site.integers, "{what}: {:?} {:?}", site.packing, site.shape);
    }
}

/// Every layer with this packing, sharing a pool where there is one.
fn together(packing: Packing) -> Vec<Site> {
    LAYERS.iter().enumerate().map(|(i, &layer)| Site::new(layer, packing, 3 + 17 * i as u64)).collect()
}

/// Layers alone: one of one weight, some of odd length.
fn alone(packing: Packing) -> impl Iterator<Item = Vec<Site>> {
    [1, 2, 8, 12, 13].into_iter().map(move |i| vec![Site::new(LAYERS[i], packing, 1 + 29 * i as u64)])
}

/// Every packing in one model. Two weights of one value are packed once: this tells them apart by their layers.
fn mixed() -> Vec<Site> {
    PACKINGS.iter().chain(&PACKINGS).zip(LAYERS.iter().cycle()).map(|(&p, &layer)| Site::new(layer, p, 77)).collect()
}

/// Whether the packing is written as a function where these are wanted.
fn has_function(packing: Packing) -> bool {
    matches!(packing, Packing::Ternary | Packing::Bits(_) | Packing::Trellis(_))
}

/// Weights that are unpacked alone, by tables of trellis codes and by words of two bytes, beside small ones of the same
/// codes.
fn large() -> Vec<Site> {
    let sites = [
        (&[2048, 256][..], "MatMul(x, d)", trellis(8)),
        (&[64, 1040], "Gemm<transB: int = 1>(x, d)", trellis(6)),
        (&[1024, 1025], "MatMul(x, d)", Packing::Bits(2)),
    ];
    let sites = sites.into_iter().enumerate();
    let mut sites: Vec<Site> =
        sites.map(|(i, (shape, call, packing))| Site::new((shape, call), packing, i as u64)).collect();
    for packing in [trellis(6), trellis(8), trellis(12), Packing::Bits(2)] {
        sites.extend(together(packing));
    }
    sites
}

/// Every model: what it is, its layers, the pattern, whether functions are wanted.
fn cases() -> Vec<(String, Vec<Site>, Pattern, bool)> {
    let mut cases = Vec::new();
    for pattern in [Pattern::Dequantized, Pattern::WeightOnly] {
        for packing in PACKINGS {
            cases.push((format!("{packing:?} together {pattern:?}"), together(packing), pattern, false));
            if has_function(packing) {
                cases.push((format!("{packing:?} functions {pattern:?}"), together(packing), pattern, true));
            }
        }
        cases.push((format!("mixed {pattern:?}"), mixed(), pattern, false));
        cases.push((format!("mixed functions {pattern:?}"), mixed(), pattern, true));
    }
    cases.push(("large".to_owned(), large(), Pattern::Dequantized, false));
    for packing in PACKINGS {
        let alone = alone(packing).enumerate();
        cases.extend(alone.map(|(i, sites)| (format!("{packing:?} alone {i}"), sites, Pattern::Dequantized, false)));
    }
    cases
}

#[test]
fn integers_come_back_in_our_engine() {
    let mut asked = 0;
    for (what, sites, pattern, functions) in cases() {
        let model = packed(&sites, pattern, functions);
        assert_eq!(model.has_functions(), functions, "{what}");
        if !functions {
            comes_back_in_our_engine(&model, &sites, &what);
            asked += 1;
        }
    }
    // Each packing twice together and five times alone, two mixtures, and large weights.
    assert_eq!(asked, PACKINGS.len() * 7 + 3);
}

#[test]
fn integers_come_back_in_onnx_and_onnxruntime() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    let inputs = scratch.path("inputs.npz");
    write_npz(&inputs, &[("x", Npy::floats(&[1], &[0.0]))]);
    let jobs: Vec<Value> = cases()
        .into_iter()
        .map(|(what, sites, pattern, functions)| {
            let (model, expected) = (scratch.path(&format!("{what}.onnx")), scratch.path(&format!("{what}.npz")));
            save_model(&packed(&sites, pattern, functions), &model).unwrap();
            write_expected(&expected, &sites);
            json!({"model": model, "expected": expected, "inputs": inputs, "runtimes": ["onnx", "onnxruntime"]})
        })
        .collect();
    let list = scratch.write("list.json", serde_json::to_vec(&jobs).unwrap());
    let report = check_model(args!["integers", list]).unwrap();
    assert_eq!(report["ok"], true, "{report}");
    let functions = PACKINGS.iter().filter(|&&packing| has_function(packing)).count();
    assert_eq!(report["models"], PACKINGS.len() * 7 + 5 + 2 * functions, "{report}");
    assert!(report["compared"].as_u64().unwrap() > 100_000, "{report}");
}

fn write_expected(path: &Path, sites: &[Site]) {
    let array = |site: &Site| {
        let bytes: Vec<u8> = site.integers.iter().map(|q| q.cast_unsigned()).collect();
        Npy::new("|i1", &site.shape, &bytes)
    };
    let names: Vec<String> = (0..sites.len()).map(|i| format!("integers{i}")).collect();
    let arrays: Vec<_> = names.iter().map(String::as_str).zip(sites.iter().map(array)).collect();
    write_npz(path, &arrays);
}

/// A check that cannot fail says nothing: one integer that differs is found.
#[test]
fn another_integer_is_noticed() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    let (model, expected, inputs) = (scratch.path("m.onnx"), scratch.path("e.npz"), scratch.path("i.npz"));
    let mut sites = together(Packing::Bits(5));
    save_model(&packed(&sites, Pattern::Dequantized, false), &model).unwrap();
    sites[3].integers[7] ^= 1;
    write_expected(&expected, &sites);
    write_npz(&inputs, &[("x", Npy::floats(&[1], &[0.0]))]);
    let job = json!([{"model": model, "expected": expected, "inputs": inputs, "runtimes": ["onnx", "onnxruntime"]}]);
    let list = scratch.write("list.json", job.to_string());
    let report = check_model(args!["integers", list]).unwrap();
    assert_eq!(report["faults"].as_array().unwrap().len(), 2, "{report}");
}

/// Tables serve networks of many weights: an operator on all weights of a code less, for a file of a few hundred bytes
/// more.
#[test]
fn many_weights_are_decoded_by_tables() {
    let operators = |sites: &[Site]| -> Vec<String> {
        let model = packed(sites, Pattern::Dequantized, false);
        model.graph.nodes().map(|(_, node)| node.op().to_owned()).collect()
    };
    let few = operators(&[Site::new(LAYERS[9], trellis(8), 1)]);
    assert!(!few.iter().any(|op| op == "Range"), "{few:?}");
    let many = operators(&large());
    assert!(many.iter().filter(|op| *op == "Range").count() > 3, "{many:?}");
}

/// The engine gets its models without calls.
#[test]
fn functions_come_back_in_our_engine() {
    for packing in [Packing::Bits(3), Packing::Bits(5)] {
        let sites = together(packing);
        comes_back_in_our_engine(&packed(&sites, Pattern::Dequantized, true), &sites, "functions");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any lengths, any packings beside each other.
    #[test]
    fn any_lengths_come_back(
        sizes in prop::collection::vec((1_usize..70, 1_usize..4, 0..PACKINGS.len(), any::<u64>()), 1..7),
        weight_only in any::<bool>(),
    ) {
        let site = |&(rows, columns, packing, seed): &(usize, usize, usize, u64)| {
            Site::new((&[rows, columns], "MatMul(x, d)"), PACKINGS[packing], seed)
        };
        let sites: Vec<Site> = sizes.iter().map(site).collect();
        let pattern = if weight_only { Pattern::WeightOnly } else { Pattern::Dequantized };
        comes_back_in_our_engine(&packed(&sites, pattern, false), &sites, "any");
    }
}
