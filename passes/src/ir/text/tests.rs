//! Round trips, golden text, positions of errors, hostile text.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;

use super::*;
use crate::ir::{
    AttributeProto, AttributeType, DataType, DimValue, DimensionProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeValue, ValueInfoProto,
};

/// Text that the printer writes exactly like this; together the lines cover the whole syntax.
const CANONICAL: &str = r#"<
  ir_version: 10,
  opset_import: ["": 21, "local": 1],
  producer_name: "hand \"made\"",
  producer_version: "1",
  domain: "org.example",
  model_version: 3,
  doc_string: "two
lines",
  metadata_props: ["key": "value", "": "\\"]
>
"net/0" (float[N,3,"8*k"] x, bool[] cond, "float", seq(map(int64, optional(float[?]))) s) => (float y, opaque(a.b, c) z)
<
  float[2,2] w = {1.0, -0.0, 1e-45, 3.4028235e38},
  float16[2] h = {15360, 31744},  # 1.0, inf
  int4[3] n = {-8, 7, 0},
  string[2] t = {"a", "\xff"},
  complex64[1] c = {1.0, -2.5},
  double d = {nan},
  int8[0] none = {},
  float[100,10] file = ["location": "w.bin", "offset": "4096"],
  sparse_tensor(float[3]) v,
  untyped
>
{
  [conv] a, "", "b/c" = Conv <auto_pad = "SAME_UPPER", pads = [1, 1], strides: ints = []> (x, w, "")
  = com.microsoft.Sink:v2 (a)
  q = "aten::foo" <"odd-name" = 1.0, plain: float = @alpha> ()
  y = If (cond) <
    else_branch = orelse () => (float e)
    <
      float one = {1.0}
    >
    {
      e = Identity (one)
    },
    then_branch = _then_1 () => (float f)  # name "then/1"
    {
      f = Constant <value_float = inf> ()
    }
  >
}

<
  domain: "local",
  overload: "v1",
  opset_import: ["": 21],
  doc_string: "a function"
>
scale <axis, alpha = 2.0> (x, "y z") => (out)
<
  float[4] x
>
{
  out = Mul (x, "y z")
}
"#;

fn model_of(declarations: &str, nodes: &str) -> String {
    format!("net () => ()\n<\n  {declarations}\n>\n{{\n  {nodes}\n}}\n")
}

fn first_initializer(text: &str) -> TensorProto {
    parse(&model_of(text, "")).unwrap().graph.unwrap().initializer.remove(0)
}

fn tensor(data_type: DataType, dims: &[i64], raw: &[u8]) -> TensorProto {
    TensorProto {
        data_type: Some(data_type.number()),
        dims: dims.to_vec(),
        raw_data: Some(Bytes::copy_from_slice(raw)),
        ..Default::default()
    }
}

fn model_with_attribute(attribute: AttributeProto) -> ModelProto {
    let attribute = AttributeProto { name: Some("a".into()), ..attribute };
    let node = NodeProto { op_type: Some("Op".into()), attribute: vec![attribute], ..Default::default() };
    let graph = GraphProto { name: Some("g".into()), node: vec![node], ..Default::default() };
    ModelProto { graph: Some(graph), ..Default::default() }
}

fn attribute(kind: AttributeType, set: impl FnOnce(&mut AttributeProto)) -> AttributeProto {
    let mut attribute = AttributeProto { r#type: Some(kind.into()), ..Default::default() };
    set(&mut attribute);
    attribute
}

fn error_of(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn canonical_text_is_a_fixed_point() {
    let model = parse(CANONICAL).unwrap();
    assert_eq!(print(&model), CANONICAL);
    let again = parse(&print(&model)).unwrap();
    assert_eq!(again, model);
}

#[test]
fn parsed_messages_have_the_fields_set() {
    let model = parse(CANONICAL).unwrap();
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(21) };
    assert_eq!(model.opset_import[0], opset);
    assert_eq!(model.metadata_props[1].value.as_deref(), Some("\\"));
    let graph = model.graph.unwrap();
    assert_eq!(graph.name.as_deref(), Some("net/0"));
    assert_eq!(graph.input[2], ValueInfoProto { name: Some("float".into()), ..Default::default() });
    assert_eq!(graph.initializer[3].string_data[1].as_ref(), b"\xff");
    assert_eq!(graph.initializer[7].data_location, Some(1));
    assert_eq!(graph.node[0].output, ["a", "", "b/c"]);
    assert_eq!(graph.node[1].domain.as_deref(), Some("com.microsoft"));
    assert_eq!(graph.node[1].overload.as_deref(), Some("v2"));
    assert_eq!(graph.node[2].attribute[1].ref_attr_name.as_deref(), Some("alpha"));
    let then_branch = graph.node[3].attribute[1].g.as_ref().unwrap();
    assert_eq!(then_branch.name.as_deref(), Some("then/1"));
    let function = &model.functions[0];
    assert_eq!((function.attribute.len(), function.attribute_proto.len()), (1, 1));
}

#[test]
fn types_distinguish_scalars_from_unknown_rank() {
    let model = parse("g (float a, float[] b, float[?,2] c) => () {}").unwrap();
    let shape_of = |value: &ValueInfoProto| match value.r#type.clone().unwrap().value.unwrap() {
        TypeValue::Tensor(TensorTypeProto { shape, .. }) => shape,
        _ => panic!("a tensor"),
    };
    let input = model.graph.unwrap().input;
    assert_eq!(shape_of(&input[0]), Some(TensorShapeProto::default()));
    assert_eq!(shape_of(&input[1]), None);
    let length = |value| DimensionProto { value, denotation: None };
    let dims = vec![length(None), length(Some(DimValue::Value(2)))];
    assert_eq!(shape_of(&input[2]), Some(TensorShapeProto { dim: dims }));
}

#[test]
fn every_kind_of_attribute_round_trips() {
    let graph = || GraphProto { name: Some("sub".into()), ..Default::default() };
    let odd_graph = || GraphProto { name: Some("nan_0".into()), ..Default::default() };
    let small = || tensor(DataType::Int8, &[2], &[1, 255]);
    let named = || TensorProto { name: Some("a/b\n".into()), ..small() };
    let plain = || TensorProto { name: Some("w".into()), ..small() };
    let type_proto = || parse("g (seq(float[n]) x) => () {}").unwrap().graph.unwrap().input[0].r#type.clone().unwrap();
    let attributes = vec![
        attribute(AttributeType::Float, |a| a.f = Some(3.0)),
        attribute(AttributeType::Float, |a| a.f = Some(f32::NEG_INFINITY)),
        attribute(AttributeType::Int, |a| a.i = Some(i64::MIN)),
        attribute(AttributeType::String, |a| a.s = Some(Bytes::from_static(b"a\"\\\n\xc3\xa9\xff"))),
        attribute(AttributeType::Tensor, |a| a.t = Some(small())),
        attribute(AttributeType::Tensor, |a| a.t = Some(named())),
        attribute(AttributeType::Graph, |a| a.g = Some(graph())),
        attribute(AttributeType::Graph, |a| a.g = Some(odd_graph())),
        attribute(AttributeType::TypeProto, |a| a.tp = Some(type_proto())),
        attribute(AttributeType::Floats, |a| a.floats = vec![1.0, 0.1, f32::INFINITY]),
        attribute(AttributeType::Floats, |_| {}),
        attribute(AttributeType::Ints, |a| a.ints = vec![1, -2]),
        attribute(AttributeType::Strings, |a| a.strings = vec!["".into(), "x".into()]),
        attribute(AttributeType::Tensors, |a| a.tensors = vec![small(), named(), plain()]),
        attribute(AttributeType::Graphs, |a| a.graphs = vec![graph(), odd_graph()]),
        attribute(AttributeType::TypeProtos, |a| a.type_protos = vec![type_proto(), type_proto()]),
        attribute(AttributeType::Ints, |a| a.ref_attr_name = Some("odd name".into())),
    ];
    for attribute in attributes {
        let model = model_with_attribute(attribute);
        let text = print(&model);
        assert_eq!(parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")), model, "{text}");
    }
}

#[test]
fn attributes_are_sorted() {
    let model = parse("g () => () { y = Op <b = 1, a = 2.0> () }").unwrap();
    assert!(print(&model).contains("y = Op <a = 2.0, b = 1> ()"));
}

#[test]
fn an_integer_is_a_float_where_one_is_stated() {
    let model = parse("g () => () { y = Op <a: float = -0, b: floats = [1, 2.5]> () }").unwrap();
    assert!(print(&model).contains("<a = -0.0, b = [1.0, 2.5]>"));
}

#[test]
fn every_element_type_round_trips() {
    for data_type in DataType::ALL.into_iter().filter(|&data_type| data_type != DataType::String) {
        let bytes = (data_type.bits().unwrap() * 4).div_ceil(8);
        // 7 is no NaN in any position, and fits every packing of four elements.
        let tensor = TensorProto { name: Some("w".into()), ..tensor(data_type, &[4], &vec![7; bytes]) };
        let graph = GraphProto { name: Some("g".into()), initializer: vec![tensor], ..Default::default() };
        let model = ModelProto { graph: Some(graph), ..Default::default() };
        let text = print(&model);
        assert_eq!(parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")), model, "{text}");
    }
}

#[test]
fn typed_fields_and_raw_data_read_alike() {
    let typed = |data_type: DataType, count: i64, set: fn(&mut TensorProto)| {
        let mut tensor = TensorProto { raw_data: None, ..tensor(data_type, &[count], &[]) };
        set(&mut tensor);
        describe::tensor_data(&tensor, INLINE_LIMIT).0
    };
    assert_eq!(typed(DataType::Int8, 2, |t| t.int32_data = vec![-1, 127]), "{-1, 127}");
    assert_eq!(typed(DataType::Bfloat16, 1, |t| t.int32_data = vec![0x3f80]), "{16256}");
    assert_eq!(typed(DataType::Int4, 3, |t| t.int32_data = vec![0xf1, 0x08]), "{1, -1, -8}");
    assert_eq!(typed(DataType::Uint2, 5, |t| t.int32_data = vec![0b1110_0100, 1]), "{0, 1, 2, 3, 1}");
    assert_eq!(typed(DataType::Float6e2m3, 2, |t| t.int32_data = vec![1, 63]), "{1, 63}");
    assert_eq!(typed(DataType::Uint32, 1, |t| t.uint64_data = vec![u64::from(u32::MAX)]), "{4294967295}");
    assert_eq!(typed(DataType::Uint64, 1, |t| t.uint64_data = vec![u64::MAX]), "{18446744073709551615}");
    assert_eq!(typed(DataType::Int64, 1, |t| t.int64_data = vec![i64::MIN]), "{-9223372036854775808}");
    assert_eq!(typed(DataType::Complex64, 1, |t| t.float_data = vec![1.0, 2.0]), "{1.0, 2.0}");
    assert_eq!(typed(DataType::Double, 1, |t| t.double_data = vec![0.1]), "{0.1}");
    // Four six-bit elements 1, 2, 3, 4 in three bytes.
    let packed = tensor(DataType::Float6e3m2, &[4], &[0b1000_0001, 0b0011_0000, 0b0001_0000]);
    assert_eq!(describe::tensor_data(&packed, INLINE_LIMIT).0, "{1, 2, 3, 4}");
}

#[test]
fn odd_data_is_described_not_trusted() {
    let comment = |tensor: &TensorProto| describe::tensor_data(tensor, INLINE_LIMIT);
    let short = tensor(DataType::Float, &[2], &[0; 5]);
    assert_eq!(comment(&short), ("{}".into(), Some("5 bytes of data where 8 are due".into())));
    let stripped = tensor(DataType::Float, &[2], &[]);
    assert_eq!(comment(&stripped), ("{}".into(), Some("no data".into())));
    let huge = tensor(DataType::Double, &[i64::MAX, 9], &[]);
    assert_eq!(comment(&huge), ("{}".into(), Some("impossible shape".into())));
    let negative = tensor(DataType::Double, &[0, -1], &[]);
    assert_eq!(comment(&negative), ("{}".into(), Some("impossible shape".into())));
}

#[test]
fn large_tensors_are_described() {
    let comment = |text: &str| describe::tensor_data(&first_initializer(text), INLINE_LIMIT).1.unwrap();
    let ramp = "{0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5}";
    assert_eq!(comment(&format!("float[9] w = {ramp}")), "fill positive 2.5: 9 elements, absmax 4.5, rms 2.81");
    let ramp = ramp.replace("0.5,", "-5,");
    assert_eq!(comment(&format!("double[9] w = {ramp}")), "fill normal 3.27: 9 elements, absmax 5, rms 3.27");
    let constant = format!("float16[9] w = {{{}}}", ["15360"; 9].join(", "));
    assert_eq!(comment(&constant), "fill constant 1.0: 9 elements, absmax 1, rms 1");
    let integers = "int64[9] w = {-4, -3, -2, -1, 0, 1, 2, 3, 4}";
    assert_eq!(comment(integers), "fill uniform -4 4: 9 elements, absmax 4, rms 2.58");
    assert_eq!(comment("string[9] w = {}"), "fill: 9 strings");
    let with_nan = "float[9] w = {nan, 1, 1, 1, 1, 1, 1, 1, 1}";
    assert_eq!(comment(with_nan), "fill normal: 9 elements, absmax 1, rms nan");
    assert_eq!(comment("complex64[9] w = {}  # fill constant 2"), "fill constant 2.0: 9 elements, absmax 2, rms 2");
}

#[test]
fn fill_is_fixed_forever() {
    let floats = |text: &str| -> Vec<f32> {
        let raw = first_initializer(text).raw_data.unwrap();
        raw.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    };
    assert_eq!(floats("float[3] w = {}"), [-0.092_124_51, 0.058_949_09, 0.013_087_932]);
    assert_eq!(floats("float[2] w  # fill positive 2"), [2.794_108_6, 2.558_426]);
    assert_eq!(floats("float[2] w,  # fill uniform -1 1: text\n float v"), [0.794_108_75, 0.558_425_8]);
    assert_eq!(floats("float[2] w = # fill constant 0.1"), [0.1, 0.1]);
    let bytes = |text: &str| first_initializer(text).raw_data.unwrap().to_vec();
    assert_eq!(bytes("int8[4] w = {}"), [101, 71, 129, 166]);
    assert_eq!(bytes("int64 w = {} # fill constant -9223372036854775808"), i64::MIN.to_le_bytes());
    assert_eq!(bytes("uint4[3] w = {} # fill constant 99"), [0xff, 0x0f]);
    assert_eq!(first_initializer("string[2] w = {}").string_data, ["0", "1"]);
}

#[test]
fn tensors_without_a_name_are_seeded_by_their_node() {
    let model =
        parse("g () => () { a = C <v = float[4] {}> () b = C <v = float[4] {}> () c = C <v = float[4] a.v {}> () }");
    assert!(model.is_err(), "a name with a point needs quotes");
    let model = parse("g () => () { a = C <v = float[4] {}> () b = C <v = float[4] {}> () }").unwrap();
    let data = |index: usize| model.graph.as_ref().unwrap().node[index].attribute[0].t.clone().unwrap().raw_data;
    assert_ne!(data(0), data(1));
}

#[test]
fn printing_a_filled_model_keeps_its_structure() {
    let text = model_of("float[4,5] w = {},  # fill normal 2\n  int8[9] q = {}", "y = C <v = float[9] {}> ()");
    let once = print(&parse(&text).unwrap());
    let without_numbers = |text: &str| text.replace(|c: char| c.is_ascii_digit() || c == '.', "");
    assert_eq!(without_numbers(&print(&parse(&once).unwrap())), without_numbers(&once));
    let full = print_with_limit(&parse(&text).unwrap(), usize::MAX);
    assert_eq!(parse(&full).unwrap(), parse(&text).unwrap());
}

#[test]
fn fill_refuses_what_would_not_fit() {
    let limits = "too large to fill, at most 16777216 elements a tensor and 67108864 in all";
    assert_eq!(error_of(&model_of("float[16777217] w = {}", "")), format!("line 3, column 23: {limits}"));
    assert!(error_of(&model_of("float[9223372036854775807,9] w = {}", "")).contains("impossible"));
    let many = ["uint2[16777216] w = {}"; 5].join(", ");
    assert!(error_of(&model_of(&many, "")).contains(limits));
}

#[test]
fn what_has_no_place_becomes_comments() {
    let entry = StringStringEntryProto { key: Some("k".into()), value: Some("v\n".into()) };
    let mut model = parse("g (float x) => () { y = Relu (x) }").unwrap();
    let graph = model.graph.as_mut().unwrap();
    graph.node[0].doc_string = Some("why".into());
    graph.node[0].metadata_props = vec![entry.clone()];
    graph.node[0].attribute = vec![attribute(AttributeType::SparseTensor, |a| a.name = Some("s".into()))];
    graph.metadata_props = vec![entry];
    graph.input[0].doc_string = Some("x".repeat(200));
    let text = print(&model);
    let doc = "x".repeat(120);
    let expected = format!(
        "g (float x) => () {{\n  # metadata \"k\": \"v\\x0a\"\n  # \"x\": doc_string \"{doc}\"...\n  # doc_string \"why\"\n  \
         # metadata \"k\": \"v\\x0a\"\n  # attribute \"s\": sparse_tensor that cannot be written\n  y = Relu (x)\n}}\n"
    );
    assert_eq!(text, expected);
    assert_eq!(print(&parse(&text).unwrap()), "g (float x) => () {\n  y = Relu (x)\n}\n");
}

#[test]
fn input_defaults_become_initializers() {
    let model = parse("g (float x = {1}, float y) => () {}").unwrap();
    assert_eq!(model.graph.unwrap().initializer[0].name.as_deref(), Some("x"));
}

#[test]
fn errors_say_where_and_what() {
    let cases = [
        ("", "line 1, column 1: expected the name of a graph, found the end of the text"),
        ("<ir: 8> g () => () {}", "line 1, column 2: `ir` is no property of a model"),
        ("<ir_version: \"8\">", "line 1, column 14: expected an IR version, found a string"),
        ("g (float x) {", "line 1, column 13: expected `=>`, found `{`"),
        ("g (float x y) => () {}", "line 1, column 12: expected `,` or `)`, found `y`"),
        ("g () => () {\n  é = Relu (x) }", "line 2, column 3: expected `=`, found `é`"),
        ("# é\ng () => () { \"é\" = Op (x ] }", "line 2, column 26: expected `)`, found `]`"),
        ("g () => () { y = Op <a = > () }", "line 1, column 26: expected the value of an attribute, found `>`"),
        ("g () => () { y = Op <a: real = 1> () }", "line 1, column 25: expected an attribute type, found `real`"),
        ("g () => () { y = Op <a = [1, 2.5]> () }", "line 1, column 30: the value is not of the attribute's type"),
        (
            "g () => () { y = Op <a = 9223372036854775808> () }",
            "line 1, column 26: `9223372036854775808` does not fit 64 bits",
        ),
        ("g () => () { y = Op <a = []> () }", "line 1, column 27: an empty list needs a type, as in `pads: ints = []`"),
        ("g () => () { y = Op <a = -x> () }", "line 1, column 26: expected a digit after `-`"),
        ("g () => () <float[n] w = {1}> {}", "line 1, column 26: the shape of a tensor must be known"),
        ("g () => () <float[2] w = {1}> {}", "line 1, column 26: 1 values where the shape asks for 2"),
        ("g () => () <int8 w = {128}> {}", "line 1, column 23: `128` is not in -128 to 127"),
        ("g () => () <float w = {1e39}> {}", "line 1, column 24: `1e39` is no float"),
        ("g () => () <float w = {1e}> {}", "line 1, column 24: `1e` is no float"),
        ("g () => () <seq(int) w> {}", "line 1, column 17: expected a type, found `int`"),
        ("g () => () { y = \"Op", "line 1, column 18: string without closing `\"`"),
        ("g (\"\\xg0\" x) => () {}", "line 1, column 5: expected two hexadecimal digits after `\\x`"),
        (
            "g () => () <float[9] w = {}  # fill normally\n> {}",
            "line 1, column 37: expected `normal`, `positive`, `uniform` or `constant`, found `normally`",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(error_of(text), message, "{text}");
    }
}

#[test]
fn nesting_has_a_limit() {
    let graphs = |depth: usize| {
        format!("{}g () => () {{}}{}", "g () => () { y = Op <a = ".repeat(depth), "> () }".repeat(depth))
    };
    assert!(parse(&graphs(31)).is_ok());
    assert!(error_of(&graphs(32)).ends_with("nested more than 32 levels deep"));
    assert!(error_of(&graphs(100_000)).ends_with("nested more than 32 levels deep"));
    let types = |depth: usize| format!("g ({}float{} x) => () {{}}", "seq(".repeat(depth), ")".repeat(depth));
    assert!(parse(&types(30)).is_ok());
    assert!(error_of(&types(100_000)).ends_with("nested more than 32 levels deep"));
}

#[test]
fn damaged_text_never_panics() {
    for end in (0..CANONICAL.len()).filter(|&end| CANONICAL.is_char_boundary(end)) {
        assert!(parse(&CANONICAL[..end]).is_err() || end >= CANONICAL.find("\n\n").unwrap());
        for damage in ["\"", "<", "{}", "\\x", "-", "=", "# fill uniform 1", "9e", "é"] {
            let _ = parse(&format!("{}{damage}{}", &CANONICAL[..end], &CANONICAL[end..]));
        }
    }
}
