//! Runs that succeed.

use crate::common::arrays::{Npy, write_npz};
use crate::common::models::{digits_proto, graph, write};
use crate::common::{Scratch, args, digits, models, msq, quantize_digits};
use msq_passes::ir::{DataType, TypeProto};

#[test]
fn writes_a_quantized_model() {
    let scratch = Scratch::new();
    let output = scratch.out("out.onnx");
    let run = msq(args![digits("digits.onnx"), "-o", output, "--calib", digits("calib.npz")]).ok();
    assert_eq!(run.stderr, "");
    let lines = || run.stdout.lines();
    assert!(
        lines().filter(|line| !line.contains(scratch.out("").to_str().unwrap())).all(|line| line.chars().count() <= 80)
    );
    let headings: Vec<&str> =
        lines().filter(|line| !line.starts_with(' ')).filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(headings, ["model", "calibrate", "size", "quality", "runs", "wrote"]);
    for part in ["opset 17", "10 layers", "512 samples from `calib.npz`", "10 of 10 layers int8", "nothing stays float"]
    {
        assert!(run.stdout.contains(part), "no {part:?} in\n{}", run.stdout);
    }
    assert!(run.stdout.contains(&output.display().to_string()));
    assert_eq!(scratch.outputs(), ["out.onnx"]);
    assert!(output.metadata().unwrap().len() * 2 < digits("digits.onnx").metadata().unwrap().len());
}

#[test]
fn keeps_the_interface_and_says_who_wrote_it() {
    let scratch = Scratch::new();
    let output = quantize_digits(&scratch, "out.onnx", args!["--calib", digits("calib.npz")]);
    let (float, quantized) = (models::digits_model(), msq_onnx::load(&output).unwrap());
    let ports = |m: &msq_passes::ir::Model| {
        let all = m.graph.inputs().chain(m.graph.outputs());
        all.map(|v| (m.graph.value(v).name().to_owned(), m.graph.value(v).ty().cloned())).collect::<Vec<_>>()
    };
    assert_eq!(ports(&quantized), ports(&float));
    assert_eq!(quantized.producer(), "msq-onnx");
    assert_eq!(quantized.ir_version(), float.ir_version(), "no newer than needed");
    assert_eq!(quantized.opset(""), Some(17));
}

#[test]
fn weights_are_int8_and_biases_int32() {
    let scratch = Scratch::new();
    let output = quantize_digits(&scratch, "out.onnx", args!["--calib", digits("calib.npz")]);
    let model = msq_onnx::load(&output).unwrap();
    let tensors: Vec<_> = model.graph.initializers().map(|(_, t)| t).collect();
    let count = |element, min: usize| {
        tensors.iter().filter(|t| t.element_type() == Some(element) && t.element_count().unwrap() >= min).count()
    };
    assert_eq!(count(DataType::Int8, 200), 10, "one weight per layer");
    assert_eq!(count(DataType::Int32, 10), 10, "one bias per layer");
    let floats = tensors.iter().filter(|t| t.is_float() && t.element_count().unwrap() > 80);
    assert_eq!(floats.count(), 0, "no float weight is left; the longest scale has 80 channels");
}

/// Below 8 bits the ends keep activations of 8, or get what the flag says; the saved plan shows it, and does the same.
#[test]
fn first_and_last_layers_have_their_own_bits() {
    let scratch = Scratch::new();
    let quantized = |name: &str, flags: &[&str]| {
        let plan = scratch.path(&format!("{name}.json"));
        let mut more = args!["--calib", digits("calib.npz"), "--samples", "32", "--verify", "0"].to_vec();
        more.extend(flags.iter().map(Into::into));
        more.extend_from_slice(args!["--solver", "round", "--save-plan", plan]);
        let output = quantize_digits(&scratch, &format!("{name}.onnx"), &more);
        let plan: serde_json::Value = serde_json::from_slice(&std::fs::read(plan).unwrap()).unwrap();
        let bits =
            |layer: &serde_json::Value| (layer["weights"].as_u64().unwrap(), layer["activations"].as_u64().unwrap());
        let layers = plan["layers"].as_object().unwrap().values().map(bits).collect::<Vec<_>>();
        (std::fs::read(output).unwrap(), layers)
    };
    let around = |end, between| [vec![end], vec![between; 8], vec![end]].concat();
    let (default, layers) = quantized("default", &["--weight-bits", "4", "--act-bits", "4"]);
    assert_eq!(layers, around((4, 8), (4, 4)));
    let ends = ["--weight-bits", "4", "--act-bits", "4", "--first-last-bits"];
    assert_eq!(quantized("wide", &[&ends[..], &["8"]].concat()).1, around((8, 8), (4, 4)));
    assert_eq!(quantized("same", &[&ends[..], &["same"]].concat()).1, around((4, 4), (4, 4)));
    let plan = scratch.path("default.json");
    let (again, layers) = quantized("again", &["--plan", plan.to_str().unwrap()]);
    assert_eq!(layers, around((4, 8), (4, 4)));
    assert!(again == default, "the saved plan gives another file");
}

#[test]
fn input_and_output_as_flags() {
    let scratch = Scratch::new();
    let positional = quantize_digits(&scratch, "a.onnx", args!["--calib", digits("calib.npz")]);
    let flags = scratch.out("b.onnx");
    msq(args!["-i", digits("digits.onnx"), "-o", flags, "-q", "--calib", digits("calib.npz")]).ok();
    assert_eq!(std::fs::read(positional).unwrap(), std::fs::read(flags).unwrap());
}

#[test]
fn replaces_an_existing_output() {
    let scratch = Scratch::new();
    std::fs::write(scratch.out("out.onnx"), "old").unwrap();
    let output = quantize_digits(&scratch, "out.onnx", args!["--calib", digits("calib.npz")]);
    msq_onnx::load(&output).unwrap();
    assert_eq!(scratch.outputs(), ["out.onnx"]);
}

#[test]
fn without_data_it_warns() {
    let scratch = Scratch::new();
    let run = msq(args![digits("digits.onnx"), "-o", scratch.out("out.onnx")]).ok();
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("WARN") && run.stderr.contains("--calib"), "{}", run.stderr);
    assert!(run.stdout.contains("synthetic"), "{}", run.stdout);
}

#[test]
fn json_is_one_document() {
    let scratch = Scratch::new();
    let output = scratch.out("out.onnx");
    let run = msq(args![digits("digits.onnx"), "-o", output, "--calib", digits("calib.npz"), "--json"]).ok();
    assert_eq!(run.stderr, "");
    let report = run.json();
    assert_eq!(report["samples"], 512);
    assert_eq!(report["synthetic"], false);
    assert_eq!(report["opset"], 17);
    assert_eq!(report["layers"].as_array().unwrap().len(), 10);
    assert_eq!(report["layers"][0]["name"], "stem.conv");
    assert_eq!(report["layers"][0]["weight_bits"], 8);
    assert_eq!(report["kept"].as_array().unwrap().len(), 0);
    assert_eq!(report["bytes"], output.metadata().unwrap().len());
}

#[test]
fn json_without_data_keeps_the_warning_off_stdout() {
    let scratch = Scratch::new();
    let run = msq(args![digits("digits.onnx"), "-o", scratch.out("out.onnx"), "--json"]).ok();
    assert_eq!(run.json()["synthetic"], true);
    assert!(run.stderr.contains("WARN"), "{}", run.stderr);
}

#[test]
fn quiet_prints_nothing() {
    let scratch = Scratch::new();
    let run = msq(args![digits("digits.onnx"), "-o", scratch.out("out.onnx"), "--quiet"]).ok();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
}

/// The lines of `--progress lines` stand on stderr and nothing else does; each phase is told from none to all of its steps.
#[test]
fn progress_is_lines_for_programs() {
    let scratch = Scratch::new();
    let (model, calib) = (digits("digits.onnx"), digits("calib.npz"));
    let runs = [
        args![model, "-o", scratch.out("out.onnx"), "--calib", calib, "--progress", "lines", "--json"].to_vec(),
        args!["evaluate", model, "--calib", calib, "--progress", "lines"].to_vec(),
    ];
    for arguments in runs {
        let run = msq(&arguments).ok();
        let told: Vec<serde_json::Value> = run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let begun: Vec<&serde_json::Value> = told.iter().filter(|line| line["done"] == 0).collect();
        assert!(!begun.is_empty(), "{}", run.stderr);
        for first in begun {
            let done = |line: &&serde_json::Value| line["phase"] == first["phase"] && line["done"] == first["steps"];
            assert!(told.iter().any(|line| done(&line)), "{first} has no end in {}", run.stderr);
        }
    }
    let run = msq(args![model, "-o", scratch.out("out.onnx"), "--progress", "lines", "--quiet"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
}

#[test]
fn verbose_logs_to_stderr_only() {
    let scratch = Scratch::new();
    let calib = digits("calib.npz");
    let run = msq(args![digits("digits.onnx"), "-o", scratch.out("out.onnx"), "--calib", calib, "--json", "-vv"]).ok();
    run.json();
}

#[test]
fn layers_can_stay_float() {
    let scratch = Scratch::new();
    let kept = |more: &[std::ffi::OsString]| {
        let files = args![digits("digits.onnx"), "-o", scratch.out("out.onnx"), "--calib", digits("calib.npz")];
        // By prices, more layers would stay beside those named.
        let mut all = [&files[..], &args!["--placement", "all", "--json"][..]].concat();
        all.extend_from_slice(more);
        let report = msq(&all).ok().json();
        let kept = report["kept"].as_array().unwrap().iter();
        kept.filter(|k| k["op"] == "Conv" || k["op"] == "Gemm")
            .map(|k| k["node"].as_str().unwrap().to_owned())
            .collect()
    };
    let by_name: Vec<String> = kept(args!["--skip", "head"]);
    assert_eq!(by_name, ["head"]);
    let by_pattern: Vec<String> = kept(args!["--skip", r"inv\..*", "--skip", "stem.conv"]);
    assert_eq!(by_pattern, ["stem.conv", "inv.expand.conv", "inv.depthwise.conv", "inv.project.conv"]);
    let by_op: Vec<String> = kept(args!["--keep-float", "Gemm"]);
    assert_eq!(by_op, ["head"]);
}

#[test]
fn inspect_lists_layers() {
    let run = msq(args!["inspect", digits("digits.onnx")]).ok();
    for part in ["input `image` float[N,1,8,8]", "stem.conv", "24×24×3×3", "int8"] {
        assert!(run.stdout.contains(part), "no {part:?} in\n{}", run.stdout);
    }
    let found = msq(args!["inspect", digits("digits.onnx"), "--json"]).ok().json();
    assert_eq!(found["layers"].as_array().unwrap().len(), 10);
    assert_eq!(found["opset"], 17);
}

/// The plan in the metadata says the bits; the file alone says them as far as it tells.
/// Images of 2^64 pixels.
#[test]
fn inspect_does_not_count_what_nothing_could_run() {
    let scratch = Scratch::new();
    let mut proto = digits_proto();
    let shape = [1, 1, 1 << 32, 1 << 32];
    graph(&mut proto).input[0].r#type = Some(TypeProto::tensor(DataType::Float, &shape.map(Some)));
    let run = msq(args!["inspect", write(&scratch.path("wide.onnx"), &proto), "--json"]).ok();
    assert_eq!(run.json()["layers"][0]["macs"], serde_json::Value::Null);
}

#[test]
fn inspect_shows_the_bits_of_a_quantized_model() {
    let scratch = Scratch::new();
    let plan = r#"{"version": 1, "default": {"weights": 4, "activations": 8}, "layers": {
        "stem.conv": {"weights": 8, "activations": 8}, "res.conv1.conv": {"weights": "ternary", "activations": 5},
        "res.conv2.conv": {"weights": 4, "activations": "float"}, "head": {"weights": "float", "activations": "float"}}}"#;
    let plan = scratch.write("plan.json", plan);
    let common = args![
        "--calib",
        digits("calib.npz"),
        "--samples",
        "16",
        "--solver",
        "round",
        "--placement",
        "all",
        "--plan",
        plan
    ];
    let quantized = |name: &str, flag: &str| quantize_digits(&scratch, name, &[&common[..], args![flag]].concat());
    let bits = |found: &serde_json::Value| {
        let layers = found["layers"].as_array().unwrap().iter().take(4);
        layers.map(|l| (l["bits"].as_str().unwrap().to_owned(), l["activation_bits"].as_u64())).collect::<Vec<_>>()
    };
    let wanted = |bits: [&str; 4]| {
        let read = [Some(8), Some(5), None, Some(8)];
        bits.map(str::to_owned).into_iter().zip(read).collect::<Vec<_>>()
    };
    let named = quantized("named.onnx", "--keep-names");
    let found = msq(args!["inspect", named, "--json"]).ok().json();
    assert_eq!(
        (&found["producer"], &found["producer_version"]),
        (&"msq-onnx".into(), &env!("CARGO_PKG_VERSION").into())
    );
    assert_eq!(found["layers"][1]["name"], "res.conv1.conv");
    assert_eq!(bits(&found), wanted(["8", "ternary", "4", "4"]));
    assert_eq!(found["plan"]["default"]["weights"], 4);
    // Names are gone here: the plan goes by the order of the layers.
    let stripped = quantized("stripped.onnx", "--strip-names");
    let found = msq(args!["inspect", stripped, "--json"]).ok().json();
    assert_eq!(bits(&found), wanted(["8", "ternary", "4", "4"]));
    let text = msq(args!["inspect", stripped]).ok().stdout;
    for part in ["msq-onnx 0.", "5,184     ?  ternary  5      int8", "1,728     ?  4        8      int8"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    // The plan of a model is a plan: the same file again.
    let again = args!["--calib", digits("calib.npz"), "--samples", "16", "--solver", "round", "--keep-names"];
    let again =
        quantize_digits(&scratch, "again.onnx", &[&again[..], args!["--placement", "all", "--plan", named]].concat());
    assert!(std::fs::read(again).unwrap() == std::fs::read(named).unwrap(), "the model's own plan gives another file");
}

#[test]
fn metadata_is_small() {
    let scratch = Scratch::new();
    let few = args!["--calib", digits("calib.npz"), "--samples", "16", "--solver", "round", "--weight-bits", "2"];
    let output = quantize_digits(&scratch, "out.onnx", few);
    let mut model = msq_passes::ir::decode_model(std::fs::read(output).unwrap().into()).unwrap();
    let with = msq_passes::ir::encoded_len(&model);
    assert_eq!(model.metadata_props.len(), 1);
    model.metadata_props.clear();
    let more = with - msq_passes::ir::encoded_len(&model);
    assert!(more < 60, "{more} bytes of metadata");
}

#[test]
fn print_parses_back() {
    let run = msq(args!["print", digits("digits.onnx")]).ok();
    let parsed = models::parse(&run.stdout);
    assert_eq!(parsed.graph.unwrap().node.len(), 31);
}

#[test]
fn evaluate_judges_a_model() {
    let scratch = Scratch::new();
    let output = quantize_digits(&scratch, "out.onnx", args!["--calib", digits("calib.npz")]);
    let (float, test) = (digits("digits.onnx"), digits("test.npz"));
    let run = msq(args!["evaluate", output, "--reference", float, "--calib", test, "--json"]).ok();
    assert_eq!(run.stderr, "");
    let found = run.json();
    assert_eq!(found["samples"], 600);
    assert!((found["reference_accuracy"].as_f64().unwrap() - 596.0 / 600.0).abs() < 1e-9);
    assert!(found["accuracy"].as_f64().unwrap() > 0.98);
    assert!(!found["values"].as_array().unwrap().is_empty());
    let alone = msq(args!["evaluate", output, "--calib", test]).ok();
    assert!(alone.stdout.contains("accuracy"), "{}", alone.stdout);
}

#[test]
fn a_model_agrees_with_itself() {
    let (float, test) = (digits("digits.onnx"), digits("test.npz"));
    let found = msq(args!["evaluate", float, "--reference", float, "--calib", test, "--json"]).ok().json();
    assert_eq!(found["agreement"]["same_argmax"], 1.0);
    assert_eq!(found["agreement"]["divergence"], 0.0);
    assert!(found["values"].as_array().unwrap().iter().all(|v| v["sqnr"].is_null()));
}

#[test]
fn data_comes_in_several_forms() {
    let scratch = Scratch::new();
    let ramp = || Npy::ramp(&[16, 1, 8, 8]);
    write_npz(&scratch.path("a.npz"), &[("image", ramp())]);
    scratch.write("a.npy", ramp().bytes());
    std::fs::create_dir(scratch.path("folder")).unwrap();
    for i in 0..4 {
        scratch.write(&format!("folder/{i}.npy"), Npy::ramp(&[1, 8, 8]).bytes());
    }
    std::fs::create_dir(scratch.path("images")).unwrap();
    for i in 0..3_u8 {
        let image = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * 30 + y) as u8 + i]));
        image.save(scratch.path(&format!("images/{i}.png"))).unwrap();
    }
    let from = |data: &str, more: &[std::ffi::OsString]| {
        let mut all = args!["--calib", scratch.path(data)].to_vec();
        all.extend_from_slice(more);
        std::fs::read(quantize_digits(&scratch, "out.onnx", &all)).unwrap()
    };
    assert!(from("a.npz", &[]) == from("a.npy", &[]), "the same data in another container gives the same model");
    from("folder", &[]);
    from("images", args!["--preset", "unit"]);
}
