//! Detectors: letterboxes, decoding in float, mean average precision by the example's command.

use crate::common::python::python;
use crate::common::{Run, Scratch, args, models, msq, repository};
use image::{Rgb, RgbImage};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The body of the detectors here, for 64×64 pixels: 4 · 16 numbers for sides and 2 for classes at 64 places.
const BODY: &str = "t = Conv <kernel_shape = [4, 4], strides = [4, 4]> (x, a, ab)
        u = Relu (t)
        v = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (u, c, cb)
        f = Relu (v)
        box = Conv (f, bw, bb)
        cls = Conv (f, sw, sb)";
const WEIGHTS: &str = "float[16,3,4,4] a = {}, float[16] ab = {}, float[24,16,3,3] c = {}, float[24] cb = {},
     float[64,24,1,1] bw = {}, float[64] bb = {}, float[2,24,1,1] sw = {}, float[2] sb = {},
     float[1,2,64] points = {}, float eight = {8.0}, int64[3] flat = {0, 66, 64}, int64[2] parts = {64, 2},
     int64[4] bins = {0, 4, 16, 64}, int64[3] sides = {0, 4, 64}, int64[2] halves = {2, 2}";

/// Distances as means of distributions, as `YOLOv8` and later have them.
const DISTRIBUTIONS: &str = "j = Concat <axis = 1> (box, cls)
        k = Reshape (j, flat)
        l, s = Split <axis = 1> (k, parts)
        m = Reshape (l, bins)
        n = Transpose <perm = [0, 2, 1, 3]> (m)
        p = Softmax <axis = 1> (n)
        d = Conv (p, table)
        e = Reshape (d, sides)
        near, far = Split <axis = 1> (e, halves)
        lt = Sub (points, near)
        rb = Add (points, far)
        q = Concat <axis = 1> (lt, rb)
        px = Mul (q, eight)
        sc = Sigmoid (s)
        out = Concat <axis = 1> (px, sc)";

/// Corners by a product with a matrix, as exporters write them that put the suppression into the graph: boxes in pixels
/// and scores are one tensor before.
const CORNERS: &str = "w = Conv (f, fw, fb)
        s1 = Conv (f, sw, sb)
        s2 = Reshape (s1, two)
        s0 = Sigmoid (s2)
        k = Reshape (w, four)
        g = Concat <axis = 1> (k, s0)
        r = Transpose <perm = [0, 2, 1]> (g)
        own, sc = Split <axis = 2> (r, five)
        m = Mul (own, eight)
        px = MatMul (m, matrix)
        out = Concat <axis = 2> (px, sc)";

fn detector(scratch: &Scratch, name: &str, nodes: &str, more: &str, output: &str) -> PathBuf {
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,3,64,64] x) => (float[{output}] out) \
         <{WEIGHTS}, {more}> {{ {nodes} }}"
    );
    let mut proto = models::parse(&text);
    models::fill(&mut proto);
    let points = (0..128).map(|at| if at < 64 { (at % 8) as f32 + 0.5 } else { ((at - 64) / 8) as f32 + 0.5 });
    models::set(&mut proto, "points", points);
    models::write(&scratch.path(name), &proto)
}

fn with_distributions(scratch: &Scratch) -> PathBuf {
    let table = (0..16).map(|at| at.to_string()).collect::<Vec<_>>().join(", ");
    let more = format!("float[1,16,1,1] table = {{{table}}}");
    detector(scratch, "dfl.onnx", &format!("{BODY}\n{DISTRIBUTIONS}"), &more, "N,6,64")
}

fn with_corners(scratch: &Scratch) -> PathBuf {
    let matrix = "float[4,4] matrix = {1, 0, 1, 0, 0, 1, 0, 1, -0.5, 0, 0.5, 0, 0, -0.5, 0, 0.5}";
    let more = format!(
        "{matrix}, float[4,24,1,1] fw = {{}}, float[4] fb = {{}}, int64[3] four = {{0, 4, 64}}, int64[3] two = {{0, 2, 64}}, \
         int64[2] five = {{4, 2}}"
    );
    detector(scratch, "corners.onnx", &format!("{BODY}\n{CORNERS}"), &more, "N,64,6")
}

/// Images of noise and squares, of these sizes.
fn photos(scratch: &Scratch, sizes: &[(u32, u32)]) -> PathBuf {
    let folder = scratch.path("photos");
    fs::create_dir_all(&folder).unwrap();
    for (at, &(width, height)) in sizes.iter().enumerate() {
        let n = at as u32;
        let pixel = |x: u32, y: u32| {
            let noise = ((x * 37 + y * 101 + n * 53).wrapping_mul(2_654_435_761) >> 26) as u8;
            let square = (x / 9 + n).is_multiple_of(3) && (y / 7 + n).is_multiple_of(2);
            Rgb([noise + if square { 150 } else { 20 }, noise, 90 + noise])
        };
        RgbImage::from_fn(width, height, pixel).save(folder.join(format!("{at:02}.png"))).unwrap();
    }
    folder
}

#[track_caller]
fn quantized(scratch: &Scratch, model: &Path, photos: &Path, flags: &str) -> (serde_json::Value, PathBuf) {
    let out = scratch.out("small.onnx");
    let mut all =
        args![model, "-o", out, "--calib", photos, "--preset", "yolo", "--placement", "all", "--json"].to_vec();
    all.extend(flags.split_whitespace().map(OsString::from));
    (msq(&all).ok().json(), out)
}

fn reason(report: &serde_json::Value, op: &str, node: &str) -> String {
    let kept = report["kept"].as_array().unwrap();
    let found = kept.iter().find(|kept| kept["op"] == op && kept["node"] == node);
    found.unwrap_or_else(|| panic!("{op} `{node}` is not among {kept:?}"))["reason"].as_str().unwrap().to_owned()
}

/// Nothing behind the last convolutions is on integers, whatever the bits, and the constants of the decoding stay.
#[test]
fn decoding_stays_in_float() {
    let scratch = Scratch::new();
    let photos = photos(&scratch, &[(96, 64); 8]);
    for (model, op, node, says, constant) in [
        (with_distributions(&scratch), "Conv", "d", "distributions", "table"),
        (with_corners(&scratch), "MatMul", "px", "corners", "matrix"),
    ] {
        for flags in ["--no-repair", "--weight-bits 4 --keep-names --no-repair"] {
            let (report, out) = quantized(&scratch, &model, &photos, flags);
            assert!(reason(&report, op, node).contains(says), "{report}");
            let names: Vec<&str> =
                report["layers"].as_array().unwrap().iter().map(|layer| layer["name"].as_str().unwrap()).collect();
            assert!(names.len() == 4 && !names.contains(&node), "{names:?}");
            let written = msq_onnx::load(&out).unwrap();
            let value = written.graph.find(constant).unwrap();
            assert!(written.graph.constant(value).unwrap().is_float());
            let decoding = ["Sub", "Softmax", "Sigmoid"];
            let quantizers =
                |v| written.graph.value(v).uses().iter().any(|u| written.graph.node(u.node).is("QuantizeLinear"));
            for (_, node) in written.graph.nodes().filter(|(_, node)| decoding.contains(&node.op())) {
                assert!(!node.outputs().iter().flatten().any(|&v| quantizers(v)), "{}", node.op());
            }
        }
    }
}

/// A model of free height and width: images padded to the model's stride only have many shapes.
#[test]
fn free_height_and_width() {
    let scratch = Scratch::new();
    let mut proto = models::parse(
        "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,3,H,W] x) => (float[N,5,P] out)
         <float[8,3,4,4] a = {}, float[8] ab = {}, float[5,8,1,1] b = {}, float[5] bb = {}, int64[3] flat = {0, 5, -1}>
         { t = Conv <strides = [4, 4]> (x, a, ab) u = Relu (t) v = Conv (u, b, bb) out = Reshape (v, flat) }",
    );
    models::fill(&mut proto);
    let model = models::write(&scratch.path("free.onnx"), &proto);
    let photos = photos(&scratch, &[(64, 32), (32, 64), (64, 64), (64, 49), (40, 64), (30, 20), (64, 17), (90, 70)]);
    for flags in ["--resize 64", "--resize 64 --pad-multiple 8"] {
        let (report, out) = quantized(&scratch, &model, &photos, flags);
        assert_eq!((&report["samples"], report["layers"].as_array().unwrap().len()), (&8.into(), 2));
        assert!(models::operators(&out).contains(&"QuantizeLinear".to_owned()));
    }
    // Without a size the preset's own is taken.
    let out = scratch.out("large.onnx");
    msq(args![model, "-o", out, "--calib", photos, "--preset", "yolo", "--samples", "2", "--verify", "0", "-q"]).ok();
}

#[test]
fn a_letterbox_takes_no_crop() {
    let scratch = Scratch::new();
    let (model, photos) = (with_corners(&scratch), photos(&scratch, &[(20, 20)]));
    let run = |flags: &[&str]| -> Run {
        let mut all = args![model, "-o", scratch.out("no.onnx"), "--calib", photos].to_vec();
        all.extend(flags.iter().map(OsString::from));
        msq(&all)
    };
    assert!(run(&["--letterbox", "center", "--crop", "64"]).usage().contains("cannot be used with"));
    let refused = run(&["--preset", "yolo", "--crop", "64"]);
    assert!(refused.error(4).contains("a letterbox takes whole images"));
    assert!(run(&["--pad-multiple", "0"]).usage().contains("pad-multiple"));
}

/// A detector of what is white, cell by cell of 8 pixels: boxes are the cells, scores their brightness.
const WHITE: &str = "<ir_version: 8, opset_import: [\"\": 17]> net (float[1,3,64,64] x) => (float[1,5,64] out)
    <float[1,3,8,8] mean = {}, float[1,4,64] cells = {}, int64[3] flat = {1, 1, 64}>
    { m = Conv <strides = [8, 8]> (x, mean) s = Reshape (m, flat) out = Concat <axis = 1> (cells, s) }";

/// The example scores it: images of 128×64 pixels in a letterbox of 64×64, all squares found, one thing missed.
#[test]
fn mean_average_precision_by_the_example() {
    let Some(python) = python() else { return };
    let scratch = Scratch::new();
    let mut proto = models::parse(WHITE);
    models::set(&mut proto, "mean", [1.0 / 192.0; 192]);
    let cell = |at: usize| match at / 64 {
        0 => 8.0 * (at % 8) as f32 + 4.0,
        1 => 8.0 * (at % 64 / 8) as f32 + 4.0,
        _ => 8.0,
    };
    models::set(&mut proto, "cells", (0..256).map(cell));
    let model = models::write(&scratch.path("white.onnx"), &proto);
    let squares = [[(16, 16), (80, 32)], [(0, 48), (112, 0)]];
    let folder = scratch.path("squares");
    fs::create_dir_all(&folder).unwrap();
    let (mut images, mut annotations) = (Vec::new(), Vec::new());
    for (id, own) in squares.iter().enumerate() {
        let inside = |x: u32, y: u32| own.iter().any(|&(l, t)| (l..l + 16).contains(&x) && (t..t + 16).contains(&y));
        let pixel = |x, y| if inside(x, y) { Rgb([255; 3]) } else { Rgb([0; 3]) };
        RgbImage::from_fn(128, 64, pixel).save(folder.join(format!("{id}.png"))).unwrap();
        images.push(serde_json::json!({ "id": id, "file_name": format!("{id}.png"), "width": 128, "height": 64 }));
        let boxes = own.iter().map(|&(left, top)| (left, top, 7)).chain((id == 1).then_some((48, 48, 7)));
        for (left, top, class) in boxes {
            let bbox = [left, top, 16, 16];
            annotations.push(serde_json::json!({ "image_id": id, "category_id": class, "bbox": bbox, "iscrowd": 0 }));
        }
    }
    let truth = serde_json::json!({ "images": images, "annotations": annotations, "categories": [{ "id": 7 }] });
    let truth = scratch.write("truth.json", truth.to_string());
    let command = format!(
        "'{}' '{}' {{outputs}} {{labels}} --truth '{}' --size 64x64",
        python.display(),
        repository("examples/coco_map.py").display(),
        truth.display()
    );
    let score = |flags: &[&str]| -> f64 {
        let mut all = args!["evaluate", model, "--calib", folder, "--json", "--metric-command", command].to_vec();
        all.extend(flags.iter().map(OsString::from));
        msq(&all).ok().json()["metric"].as_f64().unwrap()
    };
    // Recall ends at four fifths: 81 of 101 points have the precision 1.
    let (found, stretched) = (score(&["--preset", "yolo"]), score(&["--preset", "unit", "--resize", "64x64"]));
    assert!((found - 81.0 / 101.0).abs() < 1e-9, "{found}");
    assert!(stretched < 0.2, "{stretched}");
}
