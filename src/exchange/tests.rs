#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn of(entries: impl IntoIterator<Item = (&'static str, Encoding, bool)>) -> Encodings {
    let mut encodings = Encodings::default();
    for (name, encoding, parameter) in entries {
        encodings.parameters.extend(parameter.then(|| name.to_owned()));
        encodings.add(name.to_owned(), encoding).unwrap();
    }
    encodings
}

/// An asymmetric activation, a symmetric one, and a weight with one scale per channel.
fn example() -> Encodings {
    let weight = Encoding { scales: vec![0.25, 0.5], zero_points: vec![0, 0], signed: true, bits: 4, axis: Some(0) };
    of([
        ("x", Encoding::per_tensor(0.5, 116, false, 8), false),
        ("y: 1", Encoding::per_tensor(0.125, 0, true, 8), false),
        ("w", weight, true),
    ])
}

/// The document of every format, key for key.
#[test]
fn formats_as_their_tools_write_them() {
    let compact = |format| {
        let text = example().to_text(format);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value.to_string()
    };
    assert_eq!(
        compact(EncodingsFormat::Aimet061),
        concat!(
            r#"{"version":"0.6.1","activation_encodings":{"#,
            r#""x":[{"bitwidth":8,"dtype":"int","is_symmetric":"False","max":69.5,"min":-58.0,"offset":-116,"scale":0.5}],"#,
            r#""y: 1":[{"bitwidth":8,"dtype":"int","is_symmetric":"True","max":15.875,"min":-16.0,"offset":-128,"#,
            r#""scale":0.125}]},"param_encodings":{"#,
            r#""w":[{"bitwidth":4,"dtype":"int","is_symmetric":"True","max":1.75,"min":-2.0,"offset":-8,"scale":0.25},"#,
            r#"{"bitwidth":4,"dtype":"int","is_symmetric":"True","max":3.5,"min":-4.0,"offset":-8,"scale":0.5}]}}"#,
        )
    );
    assert_eq!(
        compact(EncodingsFormat::Aimet1),
        concat!(
            r#"{"version":"1.0.0","activation_encodings":["#,
            r#"{"name":"x","enc_type":"PER_TENSOR","dtype":"INT","bw":8,"is_sym":false,"scale":[0.5],"offset":[-116]},"#,
            r#"{"name":"y: 1","enc_type":"PER_TENSOR","dtype":"INT","bw":8,"is_sym":true,"scale":[0.125],"offset":[-128]}],"#,
            r#""param_encodings":[{"name":"w","enc_type":"PER_CHANNEL","dtype":"INT","bw":4,"is_sym":true,"#,
            r#""scale":[0.25,0.5],"offset":[-8,-8]}]}"#,
        )
    );
    assert_eq!(
        compact(EncodingsFormat::Aimet2),
        concat!(
            r#"{"version":"2.0.0","encodings":[{"name":"x","output_dtype":"uint8","y_scale":0.5,"y_zero_point":116},"#,
            r#"{"name":"y: 1","output_dtype":"int8","y_scale":0.125},"#,
            r#"{"name":"w","output_dtype":"int4","y_scale":[0.25,0.5],"axis":0}]}"#,
        )
    );
    assert_eq!(
        compact(EncodingsFormat::Ort),
        concat!(
            r#"{"x":[{"quant_type":"QUInt8","scale":0.5,"zero_point":116}],"#,
            r#""y: 1":[{"quant_type":"QInt8","scale":0.125,"zero_point":0}],"#,
            r#""w":[{"quant_type":"QInt4","scale":0.25,"zero_point":0,"axis":0},"#,
            r#"{"quant_type":"QInt4","scale":0.5,"zero_point":0,"axis":0}]}"#,
        )
    );
    // 69.5/127 and 0.125.
    let cache = "TRT-8601-EntropyCalibration2\nx: 3f0c1830\ny: 1: 3e000000\n";
    assert_eq!(example().to_text(EncodingsFormat::TensorRt), cache);
}

/// The encodings after a format without axes, without signed asymmetric integers, or without parameters.
fn without(encodings: &Encodings, format: EncodingsFormat) -> Encodings {
    let mut kept = encodings.clone();
    let legacy = matches!(format, EncodingsFormat::Aimet061 | EncodingsFormat::Aimet1);
    for encoding in kept.tensors.values_mut().filter(|_| legacy) {
        encoding.axis = None;
        if encoding.signed && !encoding.is_symmetric() {
            let half = encoding.half();
            encoding.signed = false;
            encoding.zero_points.iter_mut().for_each(|zero_point| *zero_point += half);
        }
    }
    if legacy {
        let (parameters, activations) =
            kept.tensors.into_iter().partition::<Vec<_>, _>(|(name, _)| kept.parameters.contains(name));
        kept.tensors = activations.into_iter().chain(parameters).collect();
    } else {
        kept.parameters.clear();
    }
    kept
}

fn encoding(bits: u8) -> impl Strategy<Value = (Encoding, bool)> {
    let normal = prop::num::f32::POSITIVE | prop::num::f32::NORMAL;
    let scale = normal.prop_map(|scale| scale.abs().clamp(f32::MIN_POSITIVE, 1e30));
    let grid = (any::<bool>(), 0..1 << bits, any::<bool>(), any::<bool>());
    (prop::collection::vec(scale, 1..5), grid).prop_map(move |(scales, (signed, q, centered, parameter))| {
        let half = 1 << (bits - 1);
        let zero_point = match (signed, centered) {
            (true, true) => 0,
            (true, false) => q - half,
            (false, _) => q,
        };
        let axis = (scales.len() > 1).then_some(1);
        let zero_points = vec![zero_point; scales.len()];
        (Encoding { scales, zero_points, signed, bits, axis }, parameter)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        entries in prop::collection::vec((2_u8..=16).prop_flat_map(encoding), 1..6),
        names in prop::collection::btree_set("[ -~é]{1,12}", 6),
    ) {
        let mut encodings = Encodings::default();
        for ((encoding, parameter), name) in entries.into_iter().zip(names) {
            encodings.parameters.extend(parameter.then(|| name.clone()));
            encodings.tensors.insert(name, encoding);
        }
        for format in [EncodingsFormat::Aimet061, EncodingsFormat::Aimet1, EncodingsFormat::Aimet2] {
            let read = Encodings::parse(&encodings.to_text(format)).unwrap();
            prop_assert_eq!(read, without(&encodings, format), "{}", format);
        }
        for encoding in encodings.tensors.values_mut().filter(|encoding| ![4, 8, 16].contains(&encoding.bits)) {
            // onnxruntime has no such type: the next one that holds it.
            encoding.bits = if encoding.bits < 8 { 8 } else { 16 };
        }
        let read = Encodings::parse(&encodings.to_text(EncodingsFormat::Ort)).unwrap();
        prop_assert_eq!(read, without(&encodings, EncodingsFormat::Ort));
    }

    /// The scale reaches as far as the activation does, and symmetric ones keep theirs.
    #[test]
    fn calibration_caches_keep_ranges((encoding, _) in encoding(8)) {
        let encoding = Encoding { scales: vec![encoding.scales[0]], zero_points: vec![encoding.zero_points[0]], ..encoding };
        let text = of([("x", encoding.clone(), false)]).to_text(EncodingsFormat::TensorRt);
        let read = Encodings::parse(&text).unwrap();
        let scale = read.tensors["x"].scales[0];
        prop_assert_eq!(&read.tensors["x"], &Encoding::per_tensor(scale, 0, true, 8));
        let reach = encoding.ranges().next().unwrap().absolute_maximum();
        if encoding.is_symmetric() {
            prop_assert_eq!(scale, encoding.scales[0]);
        } else {
            prop_assert!((scale * 127.0 / reach - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}", cut in 0_usize..400, at in 0_usize..400) {
        let _ = Encodings::parse(&text);
        for format in EncodingsFormat::ALL {
            let whole = example().to_text(format);
            let cut: String = whole.chars().take(cut).collect();
            let _ = Encodings::parse(&cut);
            let changed: String = whole.chars().enumerate().map(|(i, c)| if i == at { '-' } else { c }).collect();
            let _ = Encodings::parse(&changed);
        }
    }
}

/// Every proper beginning of a document is refused; of a cache, every one that ends inside a number.
#[test]
fn truncated_files_are_errors() {
    for format in EncodingsFormat::ALL.into_iter().filter(|&format| format != EncodingsFormat::TensorRt) {
        let whole = example().to_text(format);
        let whole = whole.trim_end();
        assert!((0..whole.len()).all(|end| Encodings::parse(&whole[..end]).is_err()), "{format}");
    }
    let whole = example().to_text(EncodingsFormat::TensorRt);
    let whole = whole.trim_end();
    assert!((1..9).all(|less| Encodings::parse(&whole[..whole.len() - less]).is_err()));
}

#[track_caller]
fn refused(text: &str, part: &str) {
    let said = Encodings::parse(text).unwrap_err();
    assert!(said.contains(part) && !said.contains('\n'), "{said:?} does not say {part:?}");
}

#[test]
fn aimet_files_that_say_nonsense() {
    let old = |entry: &str| {
        format!(r#"{{"version": "0.6.1", "activation_encodings": {{"x": [{entry}]}}, "param_encodings": {{}}}}"#)
    };
    let plain = r#""bitwidth": 8, "is_symmetric": "False""#;
    assert_eq!(
        Encodings::parse(&old(&format!(r#"{{{plain}, "offset": -3.0, "scale": 0.5}}"#))).unwrap(),
        of([("x", Encoding::per_tensor(0.5, 3, false, 8), false)])
    );
    refused(&old(&format!(r#"{{{plain}, "offset": -3, "scale": 0}}"#)), "tensor `x`: scale 0 is not a positive");
    refused(&old(&format!(r#"{{{plain}, "offset": -3, "scale": -0.5}}"#)), "tensor `x`: scale -0.5 is not a positive");
    refused(&old(&format!(r#"{{{plain}, "offset": -3, "scale": 1e39}}"#)), "tensor `x`: scale inf is not a positive");
    refused(&old(&format!(r#"{{{plain}, "offset": -3, "scale": 1e-44}}"#)), "is not a positive number of single");
    refused(&old(&format!(r#"{{{plain}, "offset": -3, "scale": NaN}}"#)), "it is no file of encodings");
    refused(
        &old(&format!(r#"{{{plain}, "offset": 3, "scale": 0.5}}"#)),
        "tensor `x`: zero point -3 is outside 0 to 255",
    );
    refused(&old(&format!(r#"{{{plain}, "offset": -0.5, "scale": 0.5}}"#)), "tensor `x`: 0.5 is no offset");
    refused(&old(&format!(r#"{{{plain}, "offset": 1e300, "scale": 0.5}}"#)), "is no offset");
    refused(&old(&format!(r#"{{{plain}, "scale": 0.5}}"#)), "tensor `x`: it has no `offset`");
    refused(&old(r#"{"bitwidth": 300, "offset": 0, "scale": 1}"#), "tensor `x`: 300 bits are not supported");
    refused(&old(r#"{"bitwidth": 0, "offset": 0, "scale": 1}"#), "tensor `x`: 0 bits are not supported");
    refused(&old(r#"{"bitwidth": "8", "offset": 0, "scale": 1}"#), "invalid type: string \"8\"");
    refused(&old(""), "tensor `x`: it has no encoding");
    let entry = format!(r#"{{{plain}, "offset": -3, "scale": 1}}"#);
    refused(
        &old(&format!("{entry}, {{\"bitwidth\": 4, \"offset\": 0, \"scale\": 1}}")),
        "its channels differ in bitwidth",
    );
    refused(
        &format!(
            r#"{{"version": "0.6.1", "activation_encodings": {{"x": [{entry}], "x": [{entry}]}}, "param_encodings": {{}}}}"#
        ),
        "tensor `x` is named twice",
    );
    refused(
        &format!(
            r#"{{"version": "0.6.1", "activation_encodings": {{"x": [{entry}]}}, "param_encodings": {{"x": [{entry}]}}}}"#
        ),
        "tensor `x` is named twice",
    );
    refused(r#"{"version": "3.0.0"}"#, "encodings of version 3.0.0 are not known");
    refused(r#"{"version": "0.4.0", "activation_encodings": {}}"#, "encodings of version 0.4.0 are not known");
    refused(r#"{"version": "1.0.0"}"#, "missing field `activation_encodings`");
    let new =
        |entry: &str| format!(r#"{{"version": "1.0.0", "activation_encodings": [{entry}], "param_encodings": []}}"#);
    let head = r#""name": "x", "dtype": "INT", "bw": 8"#;
    refused(
        &new(&format!(r#"{{{head}, "enc_type": "PER_BLOCK", "scale": [1], "offset": [0]}}"#)),
        "enc_type PER_BLOCK",
    );
    refused(
        &new(&format!(r#"{{{head}, "enc_type": "PER_CHANNEL", "scale": [1, 2], "offset": [0]}}"#)),
        "tensor `x`: 2 scales and 1 zero points",
    );
    refused(&new(&format!(r#"{{{head}, "enc_type": "PER_TENSOR"}}"#)), "tensor `x`: 0 scales and 0 zero points");
    let newest = |entry: &str| format!(r#"{{"version": "2.0.0", "encodings": [{entry}]}}"#);
    refused(
        &newest(r#"{"name": "x", "output_dtype": "string", "y_scale": 1}"#),
        "output_dtype `string` is not supported",
    );
    refused(
        &newest(r#"{"name": "x", "output_dtype": "int8", "y_scale": [[1]]}"#),
        "`y_scale` is neither a number nor a list",
    );
    refused(&newest(r#"{"name": "x", "output_dtype": "int8"}"#), "tensor `x`: it has no `y_scale`");
    refused(
        &newest(r#"{"name": "x", "output_dtype": "int4", "y_scale": [1], "axis": 0, "block_size": 32}"#),
        "in blocks",
    );
}

/// What AIMET writes for tensors in float, and grids of its older versions that leave the lowest integer out.
#[test]
fn special_encodings_of_aimet() {
    let float = r#"{"version": "0.6.1", "activation_encodings": {"x": [{"bitwidth": 16, "dtype": "float"}]},
        "param_encodings": {"w": [{"bitwidth": 8, "is_symmetric": "True", "offset": -127, "scale": 0.5}],
        "v": [{"bitwidth": 8, "is_symmetric": true, "offset": 0, "scale": 0.5}]}}"#;
    let read = Encodings::parse(float).unwrap();
    let unsigned = Encoding::per_tensor(0.5, -128, true, 8);
    assert_eq!(read, of([("w", Encoding::per_tensor(0.5, 0, true, 8), true), ("v", unsigned, true)]));
    let none = r#"{"version": "2.0.0", "encodings": [{"name": "x"}, {"name": "y", "output_dtype": "float16"}]}"#;
    assert_eq!(Encodings::parse(none).unwrap(), Encodings::default());
}

#[test]
fn overrides() {
    let read = |entries: &str| Encodings::parse(&format!(r#"{{"x": {entries}}}"#));
    let one = |entries: &str| read(entries).unwrap().tensors.swap_remove("x");
    assert_eq!(
        one(r#"[{"quant_type": "QUInt8", "rmin": -1, "rmax": 1.55}]"#),
        Some(Encoding::per_tensor(0.01, 100, false, 8))
    );
    let symmetric = one(r#"[{"quant_type": "QuantType.QInt8", "rmin": -1, "rmax": 0.5, "symmetric": true}]"#).unwrap();
    assert_eq!((symmetric.zero_points, symmetric.scales), (vec![0], vec![1.0 / 127.0]));
    assert_eq!(one(r#"[{"quant_type": "QInt4"}]"#), None);
    assert_eq!(one("[]"), None);
    // A tensor may be called so.
    let version = Encodings::parse(r#"{"version": [{"scale": 1, "zero_point": 2}]}"#).unwrap();
    assert_eq!(version, of([("version", Encoding::per_tensor(1.0, 2, false, 8), false)]));
    let fault = |entries: &str| read(entries).unwrap_err();
    for (entries, part) in [
        (r#"[{"scale": 1}]"#, "tensor `x`: `scale` and `zero_point` go together"),
        (r#"[{"rmin": 1}]"#, "tensor `x`: `rmin` and `rmax` go together"),
        (r#"[{"rmin": 1, "rmax": -1}]"#, "rmin 1 is above rmax -1"),
        (r#"[{"scale": 1, "zero_point": 0, "rmin": 1, "rmax": 2}]"#, "both a scale and a range"),
        (r#"[{"quant_type": "QFLOAT8E4M3FN"}]"#, "quant_type `QFLOAT8E4M3FN` is not supported"),
        (r#"[{"scale": 1, "zero_point": 0, "axis": 0}, {"axis": 0}]"#, "some of its channels"),
        (r#"{"scale": 1}"#, "no TensorQuantOverrides either"),
    ] {
        assert!(fault(entries).contains(part), "{} does not say {part}", fault(entries));
    }
    refused(r#"{"x": [], "x": []}"#, "tensor `x` is named twice");
    refused("[1, 2]", "it is no file of encodings");
    refused("", "it is no file of encodings");
}

#[test]
fn calibration_caches() {
    // The example of NVIDIA's documentation, and names that networks have.
    let text = "TRT-7000-EntropyCalibration2\ndata: 3c008912\n(Unnamed Layer* 8) [Constant]_output: 39137939\n\
        /conv1/Conv: 0: 3C88EDFC\r\n\n";
    let read = Encodings::parse(text).unwrap();
    let scales: Vec<(&str, f32)> = read.tensors.iter().map(|(name, e)| (name.as_str(), e.scales[0])).collect();
    assert_eq!(scales, [("data", 0.007_845_18), ("/conv1/Conv: 0", 0.016_715_042)]);
    let lines = |lines: &str| format!("TRT-8601-EntropyCalibration2\n{lines}");
    // Exactly, though 127 times it is no float.
    let small = of([("x", Encoding::per_tensor(4.153_023_5e-5, 0, true, 8), false)]);
    assert_eq!(Encodings::parse(&small.to_text(EncodingsFormat::TensorRt)).unwrap(), small);
    refused(&lines("x: 3c0089"), "line 2 is not `tensor: hex`");
    refused(&lines("x: 3c008912\ny 3c008912"), "line 3 is not `tensor: hex`");
    refused(&lines("x: +c008912"), "line 2 is not `tensor: hex`");
    refused(&lines("x: 7fc00000"), "tensor `x`: scale NaN is not a positive");
    refused(&lines("x: bc008912"), "tensor `x`: scale -0.00784");
    refused(&lines("x: 00000000"), "tensor `x`: scale 0 is not a positive");
    refused(&lines("x: 3c008912\nx: 3c008912"), "tensor `x` is named twice");
}

#[test]
fn formats_have_names() {
    for format in EncodingsFormat::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    let said = "aimet".parse::<EncodingsFormat>().unwrap_err();
    assert_eq!(said, "`aimet` is none of aimet-0.6.1, aimet-1.0, aimet-2, ort, tensorrt");
}
