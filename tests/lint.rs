//! What `lint` says about models: that onnxruntime leaves in float exactly what is predicted, and how the command
//! behaves.

use crate::common::arrays::{Npy, write_npz};
use crate::common::python::{check_model, python};
use crate::common::{Scratch, args, digits, models, msq, quantize_digits, repository};
use msq_passes::ir::{DataType, Model, ModelProto, ValueInfoProto, import, save_model};
use msq_passes::lint::{lint, predict_float};
use msq_passes::{Profile, Support};
use std::collections::{BTreeSet, HashSet};
use std::path::Path;

/// Operators whose fate is compared.
const COMPARED: [&str; 13] = [
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Gemm",
    "GlobalAveragePool",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "Sigmoid",
    "Softmax",
];

/// What is predicted to stay float, by node name.
fn predicted(model: &Model) -> BTreeSet<String> {
    let float = predict_float(model).into_iter().filter(|n| COMPARED.contains(&n.op.as_str()));
    float.map(|n| n.node).collect()
}

/// What no integer kernel of a session bears the name of. A node that another float node has taken in counts: its work
/// is done in float.
fn real(scratch: &Scratch, model: &Model) -> BTreeSet<String> {
    let path = scratch.path("named.onnx");
    save_model(model, &path).unwrap();
    let report = check_model(args!["fusion", path]).unwrap();
    let integer = report["integer"].as_array().unwrap_or_else(|| panic!("{report}"));
    let integer: HashSet<&str> = integer.iter().map(|name| name.as_str().unwrap()).collect();
    let constants = constants(model);
    let nodes = model.graph.nodes().filter(|(_, node)| {
        let kernel = integer.contains(node.name()) || integer.contains(&*fused_product(model, node));
        let folded = node.outputs().iter().flatten().all(|v| constants.contains(v));
        COMPARED.contains(&node.op()) && !kernel && !folded
    });
    nodes.map(|(_, node)| node.name().to_owned()).collect()
}

/// The name onnxruntime gives a product joined with the sum behind it; the node is either of the two.
fn fused_product(model: &Model, node: &msq_passes::ir::Node) -> String {
    let producers = node.inputs().iter().flatten().filter_map(|&v| model.graph.value(v).producer());
    let product = producers.map(|(id, _)| model.graph.node(id)).find(|n| node.is("Add") && n.is("MatMul"));
    format!("{}/MatMulAddFusion", product.unwrap_or(node).name())
}

fn constants(model: &Model) -> HashSet<msq_passes::ir::ValueId> {
    let mut found: HashSet<_> = model.graph.initializers().map(|(value, _)| value).collect();
    for (_, node) in model.graph.nodes() {
        if node.inputs().iter().flatten().all(|v| found.contains(v)) {
            found.extend(node.outputs().iter().flatten());
        }
    }
    found
}

/// Gives every node its first output's name: no name is missing or there twice.
fn name_nodes(model: &mut Model) {
    let ids: Vec<_> = model.graph.node_ids().collect();
    for id in ids {
        let output = model.graph.node(id).output(0).unwrap();
        let name = model.graph.value(output).name().to_owned();
        model.graph.set_node_name(id, Some(name));
    }
}

#[track_caller]
fn is_predicted(scratch: &Scratch, path: &Path) {
    let mut model = msq_onnx::load(path).unwrap();
    name_nodes(&mut model);
    assert_eq!(predicted(&model), real(scratch, &model), "{}: predicted, real", path.display());
}

#[test]
fn digits_as_predicted() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    let ways: [&[std::ffi::OsString]; 5] = [
        args![],
        args!["--calib", digits("calib.npz"), "--strip-names"],
        args!["--calib", digits("calib.npz"), "--act-bits", "4"],
        args!["--skip", "res.conv2.conv", "--skip", "head"],
        args!["--keep-float", "Gemm"],
    ];
    for more in ways {
        is_predicted(&scratch, &quantize_digits(&scratch, "out.onnx", more));
    }
    assert!(predicted(&models::digits_model()).contains("head"), "a float model stays float");
}

/// Networks with an `If` whose condition is constant: onnxruntime puts the branch in its place, the linter does not.
const UNFOLDED: [&str; 1] = ["branches"];

#[test]
fn networks_as_predicted() {
    if python().is_none() {
        return;
    }
    for file in crate::common::files(&repository("tests/networks"), "onnxtxt") {
        if UNFOLDED.iter().any(|name| file.file_stem().is_some_and(|stem| stem == *name)) {
            continue;
        }
        let scratch = Scratch::new();
        let mut proto = models::parse(&std::fs::read_to_string(&file).unwrap());
        models::fill(&mut proto);
        let float = models::write(&scratch.path("float.onnx"), &proto);
        let output = scratch.path(file.file_name().unwrap().to_str().unwrap());
        msq(args![float, "-o", output, "-q"]).ok();
        is_predicted(&scratch, &output);
    }
}

/// A graph of few nodes on `x`: `xq` is `x` quantized, `a` a quantized matrix; `$t` quantizes `t` into the output.
fn small(body: &str) -> ModelProto {
    const HEAD: &str = "<ir_version: 10, opset_import: [\"\": 21]> g (float[1,4,8,8] x) => (float y)
<float s = {0.05}, float s2 = {0.1}, float zero = {0}, float full = {12.75}, uint8 z = {0}, uint8 z7 = {7},
int8 iz = {0}, int8[4,4,1,1] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7},
uint8[4,4,1,1] wu = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7},
uint8[4] wz = {3,3,3,3}, float[4] ws = {0.1,0.1,0.1,0.1},
int4[4,4,1,1] w4 = {}, int4[32,4] m4 = {}, float[2,4] bls = {},
int32[4] b = {1,2,3,4}, float[4] bs = {0.005,0.005,0.005,0.005}, float[4] far = {0.1,0.1,0.1,0.1},
float[4] fb = {1,2,3,4}, float[4] near = {0.00503,0.00503,0.00503,0.00503}, uint8 three = {3},
int8[4,4] m = {1,2,3,4,1,2,3,4,1,2,3,4,1,2,3,4},
float[4,4] fm = {1,2,3,4,1,2,3,4,1,2,3,4,1,2,3,4},
int8[4,4] m2 = {4,2,3,4,1,2,3,4,1,2,3,4,1,2,3,4}, int8[4] mz = {0,0,0,0},
int8[4] table = {-2,-1,1,2},
int64[4] shape = {1,4,4,16}, int64[4] wide = {2,4,8,8}, int64[4] four = {1,2,1,1}, float[4] twice = {1,1,2,2},
int64[8] pads = {0,0,1,1,0,0,1,1}, int64[4] some = {1,1,1,1}, int64[2] last = {2,3},
int64[1,2,1,1] pick = {3,0}, int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i32 = {32},
int64[4,4,1,1] index = {0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3}>
{ q = QuantizeLinear(x, s, z) xq = DequantizeLinear(q, s, z)
wd = DequantizeLinear <axis = 0> (w, ws) bd = DequantizeLinear <axis = 0> (b, bs)
md = DequantizeLinear <axis = 1> (m, ws, mz) ";
    // Only where it is read: the session removes kernels nobody reads.
    const MATRIX: &str = "p = GlobalAveragePool(xq) pq = QuantizeLinear(p, s, z) pd = DequantizeLinear(pq, s, z)
f = Flatten(pd) fq = QuantizeLinear(f, s, z) a = DequantizeLinear(fq, s, z) ";
    let (open, body) = body.strip_prefix("open ").map_or((false, body), |body| (true, body));
    let matrix = if body.contains("(a,") { MATRIX } else { "" };
    let quantized = |zero: &str| format!("o = QuantizeLinear(t, s, {zero}) y = DequantizeLinear(o, s, {zero})");
    let body = body.replace("$t7", &quantized("z7")).replace("$t", &quantized("z"));
    let head = if open { HEAD.replacen("[1,4,8,8]", "[N,4,8,8]", 1) } else { HEAD.to_owned() };
    let mut proto = models::parse(&format!("{head}{matrix}{body} }}"));
    let graph = models::graph(&mut proto);
    for tensor in &mut graph.initializer {
        let count = tensor.element_count().unwrap();
        if tensor.element_type() == Some(DataType::Int4) {
            tensor.int32_data.clear();
            tensor.raw_data = Some(vec![0x21; count / 2].into());
        } else if tensor.name() == "bls" {
            tensor.float_data = vec![0.1; count];
        }
    }
    // The rank of the output is the body's business.
    graph.output[0].r#type = Some(msq_passes::ir::TypeProto::tensor(DataType::Float, &[]));
    if let Some(msq_passes::ir::TypeValue::Tensor(tensor)) = &mut graph.output[0].r#type.as_mut().unwrap().value {
        tensor.shape = None;
    }
    proto
}

/// The body, and what of it stays float.
const SMALL: &[(&str, &str)] = &[
    ("t = Conv(xq, wd, bd) $t", ""),
    ("r = Conv(xq, wd, bd) t = Relu(r) $t", ""),
    ("r = Conv(xq, wd, bd) t = Relu(r) $t7", "r"),
    ("r = Conv(xq, wd, bd) t = Clip(r, zero, full) $t", ""),
    ("r = Conv(xq, wd, bd) t = Clip(r, zero, s2) $t", "r"),
    ("y = Conv(xq, wd, bd)", "y"),
    ("r = Conv(xq, wd, bd) t = Add(r, xq) $t", "r t"),
    ("t = Conv(xq, wd, fb) $t", ""),
    ("fw = Cast <to = 1> (w) t = Conv(xq, fw, fb) $t", ""),
    ("fw = Cast <to = 1> (w) t = Conv(xq, fw, bd) $t", "t"),
    ("bf = DequantizeLinear <axis = 0> (b, far) t = Conv(xq, wd, bf) $t", "t"),
    ("bf = DequantizeLinear <axis = 0> (b, near) t = Conv(xq, wd, bf) $t", ""),
    ("c = Mul(ws, s) bf = DequantizeLinear <axis = 0> (b, c) t = Conv(xq, wd, bf) $t", ""),
    ("u = DequantizeLinear <axis = 0> (wu, ws, wz) t = Conv(xq, u, bd) $t", ""),
    ("v = DequantizeLinear <axis = 0> (w4, ws) t = Conv(xq, v, bd) $t", "t"),
    ("c = Cast <to = 3> (w4) v = DequantizeLinear <axis = 0> (c, ws) t = Conv(xq, v, bd) $t", ""),
    ("c = Gather(table, index) v = DequantizeLinear <axis = 0> (c, ws) t = Conv(xq, v, bd) $t", ""),
    ("t = Conv(x, wd, bd) $t", "t"),
    ("t = ConvTranspose(xq, wd) $t", "t"),
    ("r = Reshape(xq, shape) t = Conv(r, wd, bd) $t", ""),
    ("r = Conv(xq, wd, bd) t = Reshape(r, shape) $t", ""),
    ("r = Conv(xq, wd, bd) t = Flatten(r) $t", "r"),
    ("r = Conv(xq, wd, bd) t = MaxPool <kernel_shape = [2, 2]> (r) $t", ""),
    ("t = MaxPool <kernel_shape = [2, 2]> (xq) $t7", "t"),
    ("t = MaxPool <kernel_shape = [2, 2]> (x) $t", ""),
    (
        "r = Conv(xq, wd, bd) h = Tanh(r) rq = QuantizeLinear(r, s, z)
      d = DequantizeLinear(rq, s, z) t = Add(d, h) $t",
        "r t",
    ),
    ("t = Add(xq, xq) $t", ""),
    ("t = Add(xq, x) $t", "t"),
    ("t = Add(xq, s2) $t", "t"),
    ("c = DequantizeLinear(three, s, z) t = Mul(xq, c) $t", ""),
    ("y = Add(xq, xq)", "y"),
    ("i = QuantizeLinear(x, s, iz) xi = DequantizeLinear(i, s, iz) t = Add(xq, xi) $t", ""),
    ("i = QuantizeLinear(x, s, iz) xi = DequantizeLinear(i, s, iz) t = Conv(xi, wd, bd) $t", ""),
    ("i = QuantizeLinear(x, s, iz) xi = DequantizeLinear(i, s, iz) t = Add(xi, xi) $t", "t"),
    (
        "i = QuantizeLinear(x, s, iz) xi = DequantizeLinear(i, s, iz) r = Conv(xi, wd, bd) j = QuantizeLinear(r, s, iz)
      d = DequantizeLinear(j, s, iz) t = Add(d, xi) $t",
        "r t",
    ),
    ("c = DequantizeLinear(iz, s, iz) t = Add(xq, c) $t", "t"),
    ("t = AveragePool <kernel_shape = [2, 2]> (xq) $t", ""),
    ("y = AveragePool <kernel_shape = [2, 2]> (xq)", "y"),
    ("t = Concat <axis = 1> (xq, x) $t", "t"),
    ("t = Concat <axis = 1> (xq, xq) $t", ""),
    ("t = Softmax(xq) $t", ""),
    ("y = Gemm(a, md, bd)", ""),
    ("y = Gemm(a, md, fb)", "y"),
    ("t = Gemm(a, md, fb) $t", ""),
    ("t = Gemm(a, fm, fb) $t", ""),
    ("n = DequantizeLinear <axis = 1> (m, ws) y = Gemm(a, n, bd)", "y"),
    ("t = Gemm <alpha = 0.5> (a, md, bd) $t", "t"),
    ("bf = DequantizeLinear <axis = 0> (b, far) t = Gemm(a, md, bf) $t", ""),
    ("y = MatMul(a, md)", ""),
    ("r = MatMul(a, md) t = Relu(r) $t7", "r"),
    ("t = MatMul(a, fm) $t", "t"),
    ("r = MatMul(a, md) y = Add(r, fb)", "r y"),
    ("r = MatMul(a, md) t = Add(r, fb) $t", ""),
    // A computed operand is no bias on integers: the first product is joined with the sum.
    ("n = DequantizeLinear <axis = 1> (m2, ws, mz) r = MatMul(a, md) u = MatMul(a, n) y = Add(r, u)", "u y"),
    ("n = DequantizeLinear <axis = 1> (m2, ws, mz) r = Gemm(a, md) u = Gemm(a, n) y = Add(r, u)", "y"),
    // Of three axes: joined where all lengths are known.
    ("l = Unsqueeze(a, i0) r = MatMul(l, md) y = Add(r, fb)", "r y"),
    ("l = Unsqueeze(a, i0) r = MatMul(l, md) y = Add(r, bd)", ""),
    ("l = Unsqueeze(a, i0) k = Concat <axis = 1> (l, l) r = MatMul(l, md) y = Add(r, k)", "k y"),
    ("open l = Unsqueeze(a, i0) r = MatMul(l, md) y = Add(r, fb)", "y"),
    // A clamp that one float node reads.
    ("r = MatMul(a, md) u = Relu(r) y = Tanh(u)", "r"),
    ("r = MatMul(a, md) u = Relu(r) v = Tanh(u) y = Add(u, v)", "y"),
    (
        "n = Flatten(x) l = Slice(n, i0, i32, i1) v = DequantizeLinear <axis = 0, block_size = 16> (m4, bls)
      y = MatMul(l, v)",
        "",
    ),
    ("g = GlobalAveragePool(x) l = Flatten(g) y = MatMul(l, md)", "g y"),
    ("g = GlobalAveragePool(x) l = Flatten(g) n = DequantizeLinear(m2, s2) y = MatMul(l, n)", "g"),
    ("g = GlobalAveragePool(x) l = Flatten(g) t = MatMul(l, md) $t", "g t"),
];

#[test]
fn small_graphs_as_predicted() {
    for (body, expected) in SMALL {
        let scratch = Scratch::new();
        let mut model = import(small(body)).unwrap();
        name_nodes(&mut model);
        let predicted = predicted(&model);
        // The prediction is for x86, where int8 data has no kernels.
        if cfg!(target_arch = "x86_64") && python().is_some() {
            assert_eq!(predicted, real(&scratch, &model), "{body}: predicted, real");
        }
        assert_eq!(predicted.into_iter().collect::<Vec<_>>().join(" "), *expected, "{body}");
    }
}

/// A node of every operator that quantizers are placed around and that is no layer, between quantizers with equal
/// parameters or on integers, as this program writes it.
const KERNELS: &[(&str, &str)] = &[
    ("Add", "t = Add(xq, xq) $t"),
    ("Mul", "t = Mul(xq, xq) $t"),
    ("Sigmoid", "t = Sigmoid(xq) $t"),
    ("LeakyRelu", "t = LeakyRelu(xq) $t"),
    ("GlobalAveragePool", "t = GlobalAveragePool(xq) $t"),
    ("AveragePool", "t = AveragePool <kernel_shape = [2, 2]> (xq) $t"),
    ("Concat", "t = Concat <axis = 1> (xq, xq) $t"),
    ("Where", "c = Less(x, zero) n = DequantizeLinear(z, s, z) t = Where(c, xq, n) $t"),
    ("MaxPool", "t = MaxPool <kernel_shape = [2, 2]> (xq) $t"),
    ("Reshape", "t = Reshape(xq, shape) $t"),
    ("Flatten", "t = Flatten(xq) $t"),
    ("Transpose", "t = Transpose <perm = [0, 2, 3, 1]> (xq) $t"),
    ("Squeeze", "t = Squeeze(xq, i0) $t"),
    ("Unsqueeze", "t = Unsqueeze(xq, i0) $t"),
    ("Slice", "t = Slice(q, i1, i32, i1) y = DequantizeLinear(t, s, z)"),
    ("Pad", "t = Pad(q, pads, z) y = DequantizeLinear(t, s, z)"),
    ("DepthToSpace", "t = DepthToSpace <blocksize = 2> (q) y = DequantizeLinear(t, s, z)"),
    ("Expand", "t = Expand(xq, wide) $t"),
    ("Gather", "t = Gather <axis = 1> (xq, i1) $t"),
    ("GatherElements", "t = GatherElements <axis = 1> (xq, pick) $t"),
    ("ReduceMax", "t = ReduceMax(xq, i1) $t"),
    ("ReduceMin", "t = ReduceMin(xq, i1) $t"),
    ("Resize", "t = Resize <mode = \"nearest\"> (xq, \"\", twice) $t"),
    (
        "Split",
        "t, u = Split <axis = 1, num_outputs = 2> (xq) o = QuantizeLinear(t, s, z) y = DequantizeLinear(o, s, z)
      p = QuantizeLinear(u, s, z) v = DequantizeLinear(p, s, z) y2 = Tanh(v)",
    ),
    ("Tile", "t = Tile(xq, four) $t"),
    ("MatMul", "l = Transpose <perm = [0, 1, 3, 2]> (xq) t = MatMul(xq, l) $t"),
    ("MatMul", "l = Transpose <perm = [0, 1, 3, 2]> (xq) y = MatMul(xq, l)"),
];

#[test]
fn every_kernel_is_one_of_the_runtime() {
    let rows = Profile::ORT_CPU.all_kernels().filter(|kernel| {
        let moves = matches!(kernel.support, Support::Arithmetic | Support::Movement);
        kernel.placed && (moves || kernel.two_activations)
    });
    let rows: BTreeSet<&str> = rows.map(|kernel| kernel.op).collect();
    assert_eq!(rows, KERNELS.iter().map(|(op, _)| *op).collect());
    for (op, body) in KERNELS {
        let scratch = Scratch::new();
        let mut proto = small(body);
        if *op == "Split" {
            let output = models::graph(&mut proto).output[0].clone();
            models::graph(&mut proto).output.push(ValueInfoProto { name: Some("y2".to_owned()), ..output });
        }
        let mut model = import(proto).unwrap();
        name_nodes(&mut model);
        let found: Vec<String> = predict_float(&model).into_iter().map(|float| float.node).collect();
        let site = if body.contains("y = MatMul") { "y" } else { "t" };
        assert!(!found.contains(&site.to_owned()), "{op}: predicted float");
        if !cfg!(target_arch = "x86_64") || python().is_none() {
            continue;
        }
        let path = scratch.path("named.onnx");
        save_model(&model, &path).unwrap();
        let report = check_model(args!["fusion", path]).unwrap();
        let integer = report["integer"].as_array().unwrap();
        // What only says that the same bytes have another shape may be joined with what is beside it.
        let free = ["Reshape", "Squeeze", "Unsqueeze", "Flatten"].contains(op) && report["float"][0].is_null();
        assert!(free || integer.iter().any(|name| name == site), "{op}: {report}");
    }
}

/// What the linter says of files that a session refuses, and of their neighbours that it takes.
#[test]
fn refused_as_predicted() {
    const PADDED: &str = "r = Conv(xq, wd, bd) o = QuantizeLinear(r, s, z) p = Pad(o, PADS, z, AXES)
      d = DequantizeLinear(p, s, z) t = Conv(d, wd, bd) e = QuantizeLinear(t, s, z) y = DequantizeLinear(e, s, z)";
    let padded = PADDED.replace("PADS", "some").replace("AXES", "last");
    let everywhere = PADDED.replace("PADS", "pads").replace(", AXES", "");
    for (body, refused) in [
        ("t = AveragePool <kernel_shape = [2, 2], dilations = [2, 2]> (xq) $t", true),
        ("t = AveragePool <kernel_shape = [2, 2], dilations = [1, 1]> (xq) $t", true),
        ("t = AveragePool <kernel_shape = [2, 2]> (xq) $t", false),
        ("y = AveragePool <kernel_shape = [2, 2], dilations = [2, 2]> (xq)", false),
        (padded.as_str(), true),
        (everywhere.as_str(), false),
        ("t = Pad(q, some, z, last) y = DequantizeLinear(t, s, z)", false),
    ] {
        let scratch = Scratch::new();
        let model = import(small(body)).unwrap();
        let found = lint(&model, &Profile::ORT_CPU);
        assert_eq!(found.iter().any(|f| f.rule == "operator-refused"), refused, "{body}: {found:?}");
        if python().is_some() {
            let path = scratch.path("refused.onnx");
            save_model(&model, &path).unwrap();
            let (data, outputs) = (scratch.path("x.npz"), scratch.path("y.npz"));
            write_npz(&data, &[("x", Npy::ramp(&[1, 4, 8, 8]))]);
            let report = check_model(args!["run", path, data, outputs]).unwrap();
            assert_eq!(report["ok"].as_bool(), Some(!refused), "{body}: {report}");
        }
    }
}

#[test]
fn nothing_to_say() {
    let scratch = Scratch::new();
    let model = quantize_digits(&scratch, "out.onnx", args!["--calib", digits("calib.npz")]);
    assert_eq!(msq(args!["lint", model]).ok().stdout, "lint       nothing to say for ort-cpu\n");
    let report = msq(args!["lint", model, "--json"]).ok().json();
    assert_eq!(report["profile"], "ort-cpu");
    assert_eq!(report["findings"].as_array().unwrap().len(), 0);
    assert_eq!(msq(args!["lint", model, "-q"]).ok().stdout, "");
}

#[test]
fn errors_fail() {
    let scratch = Scratch::new();
    let model = quantize_digits(&scratch, "out.onnx", args!["--calib", digits("calib.npz")]);
    let run = msq(args!["lint", model, "--profile", "tensorrt"]);
    assert_eq!(run.code, Some(1));
    assert_eq!(run.stderr, "");
    assert!(run.stdout.contains("error bias-not-float 10 × `stem.conv`, `res.conv1.conv`, "), "{}", run.stdout);
    let summary = run.stdout.lines().last().unwrap();
    assert!(summary.starts_with("lint       ") && summary.ends_with(" for tensorrt · -v lists each"), "{summary}");
    let run = msq(args!["lint", model, "--profile", "tensorrt", "--json"]);
    assert_eq!(run.code, Some(1));
    let report = run.json();
    let of =
        |severity: &str| report["findings"].as_array().unwrap().iter().filter(|f| f["severity"] == severity).count();
    assert_eq!(
        (report["errors"].as_u64(), report["warnings"].as_u64()),
        (Some(of("error") as u64), Some(of("warning") as u64))
    );
}

#[test]
fn float_models() {
    let run = msq(args!["lint", digits("digits.onnx")]).ok();
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert!(lines[0].starts_with("warning not-quantized `"), "{}", run.stdout);
    assert_eq!(lines[1..], ["lint       1 warning for ort-cpu"]);
}

#[test]
fn bad_calls() {
    let scratch = Scratch::new();
    let model = digits("digits.onnx");
    let line = msq(args!["lint", model, "--profile", "nosuch"]).error(2).to_owned();
    assert!(line.contains("`nosuch`") && line.contains("ort-cpu, ort-arm, tensorrt, openvino, qnn, tract"), "{line}");
    assert!(msq(args!["lint", scratch.path("nosuch.onnx")]).error(3).contains("nosuch.onnx"));
    assert!(msq(args!["lint"]).usage().contains("MODEL"));
}
