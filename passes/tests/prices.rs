//! What the prices of a target decide.

#![allow(clippy::unwrap_used)]

use msq_passes::Profile;
use msq_passes::analysis::Placement;
use msq_passes::ir::{Model, import, text};

/// A depthwise convolution of so many channels, between two others, or before the output.
fn block(channels: usize, last: bool) -> Model {
    let (shape, square) = (format!("1,{channels},96,96"), format!("{channels},{channels},1,1"));
    let ends = if last { "y = Identity (q)" } else { "y = Conv (q, b)" };
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[{shape}] x) => (float[{shape}] y)
         <float[{square}] a = {{}}, float[{channels},1,3,3] w = {{}}, float[{square}] b = {{}}, float[{shape}] p, float[{shape}] q>
         {{ p = Conv (x, a)  [middle] q = Conv <group = {channels}, pads = [1, 1, 1, 1]> (p, w)  {ends} }}"
    );
    import(text::parse(&text).unwrap_or_else(|e| panic!("{e}: {text}"))).unwrap()
}

/// Whether the depthwise convolution runs on integers, and the channels that it gets.
fn placed(model: &Model) -> (bool, Option<usize>) {
    let placement = Placement::new(model, &Profile::ORT_CPU, |_, _, _| None);
    let is_middle = |node| model.graph.node(node).label(&model.graph) == "middle";
    let widened = placement.widened.iter().find(|&(&node, _)| is_middle(node)).map(|(_, &channels)| channels);
    (placement.nodes.keys().any(|&node| is_middle(node)), widened)
}

/// The kernel for depthwise convolutions that computes 16 channels at a time takes no other numbers of channels.
#[test]
fn depthwise_convolutions_of_whole_vectors_pay_sooner() {
    assert_eq!(placed(&block(48, false)), (true, None));
    assert_eq!(placed(&block(40, false)), (true, Some(48)));
}

/// In float, the kernel for blocks of channels takes channels in fours alone, and others are gathered one by one.
#[test]
fn depthwise_convolutions_whose_channels_are_not_in_fours() {
    let block = |channels: usize| {
        let (shape, square) = (format!("1,{channels},6,6"), format!("{channels},{channels},1,1"));
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (float[{shape}] x) => (float[{shape}] y)
             <float[{square}] a = {{}}, float[{channels},1,9,9] w = {{}}, float[{square}] b = {{}}, float[{shape}] p, float[{shape}] q>
             {{ p = Conv (x, a)  [middle] q = Conv <group = {channels}, pads = [4, 4, 4, 4]> (p, w)  y = Conv (q, b) }}"
        );
        placed(&import(text::parse(&text).unwrap()).unwrap()).0
    };
    assert!(block(90) && !block(92));
}

/// A convolution that writes 16 channels or more does not gather what it reads.
#[test]
fn convolutions_of_few_channels_get_as_many_as_a_faster_kernel_takes() {
    let wide = "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,16,160,160] x) => (float[1,16,160,160] y)
        <float[8,16,3,3] v = {}, float[16,8,3,3] w = {}, float[1,8,160,160] p, float[1,8,160,160] q> {
          [middle] p = Conv <pads = [1, 1, 1, 1]> (x, v)  q = Relu (p)  y = Conv <pads = [1, 1, 1, 1]> (q, w) }";
    assert_eq!(placed(&import(text::parse(wide).unwrap()).unwrap()), (true, Some(16)));
    let flat = wide.replace("160,160", "10,10").replace("3,3", "1,1").replace("[1, 1, 1, 1]", "[0, 0, 0, 0]");
    assert_eq!(placed(&import(text::parse(&flat).unwrap()).unwrap()).1, None);
}

/// An output of the graph has the channels that it has.
#[test]
fn depthwise_convolutions_at_an_output_stay_in_float() {
    assert_eq!(placed(&block(40, true)), (false, None));
}

/// How many layers of a network are on integers.
fn on_integers(text: &str) -> usize {
    let model = import(text::parse(text).unwrap_or_else(|e| panic!("{e}: {text}"))).unwrap();
    Placement::new(&model, &Profile::ORT_CPU, |_, _, _| None).layers().count()
}

/// Products of one row with a weight each, with functions between them.
fn row_products(count: usize) -> String {
    let joined = |of: &dyn Fn(usize) -> String, by: &str| (0..count).map(of).collect::<Vec<_>>().join(by);
    format!(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,128] x0) => (float[1,128] x{count})
         <{}, {}> {{ {} }}",
        joined(&|at| format!("float[128,128] w{at} = {{}}"), ", "),
        joined(&|at| format!("float[1,128] m{at}"), ", "),
        joined(&|at| format!("m{at} = MatMul (x{at}, w{at})  x{} = Neg (m{at})", at + 1), "  ")
    )
}

/// Where a network has more weights than stay near the processor, floats take four times as many bytes from afar.
#[test]
fn rows_of_large_networks_pay_sooner() {
    assert_eq!(on_integers(&row_products(8)), 0);
    assert_eq!(on_integers(&row_products(48)), 48);
}

/// Four convolutions over a series, with functions between them.
fn series(shape: &str, nodes: impl Fn(usize) -> String, values: impl Fn(usize) -> String) -> String {
    let body: Vec<String> = (0..4).map(nodes).collect();
    let values: Vec<String> = (0..4).map(values).collect();
    format!(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[{shape}] x0) => (float[{shape}] x4)
         <float[24,24,3] w = {{}}, {}> {{ {} }}",
        values.join(", "),
        body.join("  ")
    )
}

/// A transposition beside a convolution on integers goes with the change of the layout, and nothing is left of both.
#[test]
fn convolutions_between_transpositions_pay_sooner() {
    let plain = series(
        "1,24,64",
        |at| format!("c{at} = Conv <pads = [1, 1]> (x{at}, w)  x{} = Exp (c{at})", at + 1),
        |at| format!("float[1,24,64] c{at}, float[1,24,64] y{at}"),
    );
    assert_eq!(on_integers(&plain), 0);
    let between = series(
        "1,64,24",
        |at| {
            format!(
                "t{at} = Transpose <perm = [0, 2, 1]> (x{at})  c{at} = Conv <pads = [1, 1]> (t{at}, w)  \
                 u{at} = Transpose <perm = [0, 2, 1]> (c{at})  x{} = Exp (u{at})",
                at + 1
            )
        },
        |at| format!("float[1,24,64] t{at}, float[1,24,64] c{at}, float[1,64,24] u{at}, float[1,64,24] y{at}"),
    );
    assert_eq!(on_integers(&between), 4);
}

/// Where a kernel gathers columns, dilated taps are copied one by one.
#[test]
fn dilated_convolutions_of_few_channels_stay_in_float() {
    let dilated = |step: usize| {
        format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,12,384] x) => (float[1,12,384] y)
             <float[12,12,15] w = {{}}, float[1,12,384] a, float[1,12,384] b> {{
               a = Exp (x)  b = Conv <dilations = [{step}], pads = [{p}, {p}]> (a, w)  y = Exp (b) }}",
            p = 7 * step
        )
    };
    assert_eq!(on_integers(&dilated(1)), 1);
    assert_eq!(on_integers(&dilated(3)), 0);
}

/// Two convolutions with channels between them that are moved by these nodes from `r` to `s`.
fn moved_channels(nodes: &str) -> String {
    format!(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,16,28,28] x) => (float[1,16,28,28] y)
         <float[16,16,3,3] v = {{}}, float[16,16,3,3] w = {{}}, int64[5] apart = {{1, 2, 8, 28, 28}}, int64[4] joined = {{1, 16, 28, 28}},
          float[1,16,28,28] c, float[1,16,28,28] r, float[1,2,8,28,28] a, float[1,8,2,28,28] b, float[1,16,28,28] s, float[1,16,28,28] d> {{
           c = Conv <pads = [1, 1, 1, 1]> (x, v)  r = Relu (c)  {nodes}  d = Conv <pads = [1, 1, 1, 1]> (s, w)  y = Exp (d) }}"
    )
}

/// Where channels lie together, a shuffle moves them byte by byte: only the convolutions around it are on integers.
#[test]
fn channel_shuffles_between_convolutions_stay_in_float() {
    let shuffle = "a = Reshape (r, apart)  b = Transpose <perm = [0, 2, 1, 3, 4]> (a)  s = Reshape (b, joined)";
    let model = import(text::parse(&moved_channels(shuffle)).unwrap()).unwrap();
    let placement = Placement::new(&model, &Profile::ORT_CPU, |_, _, _| None);
    let ops: Vec<&str> = placement.nodes.keys().map(|&id| model.graph.node(id).op()).collect();
    assert_eq!(ops, ["Conv", "Conv"]);
    assert_eq!(on_integers(&moved_channels("s = Reshape (r, joined)")), 2);
}

/// A convolution in float leaves channels as the faster kernel for a linear `Resize` wants them.
#[test]
fn convolutions_before_large_resizes_stay_in_float() {
    let resized = |mode: &str| {
        format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,64,8,8] x) => (float[1,64,64,64] y)
             <float[64,64,3,3] w = {{}}, float[4] scales = {{1, 1, 8, 8}}, float[1,64,8,8] c, float[1,64,8,8] r> {{
               c = Conv <pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)  y = Resize <mode = \"{mode}\"> (r, , scales) }}"
        )
    };
    assert_eq!(on_integers(&resized("linear")), 0);
    assert_eq!(on_integers(&resized("nearest")), 1);
}

/// Products with something behind each that joins two of its results.
fn rows_of_products(bias: bool) -> String {
    let steps = 0..8;
    let product = |at: usize| {
        let sum = if bias {
            format!("s{at} = Add (m{at}, b)  r{at} = Relu (s{at})")
        } else {
            format!("r{at} = Relu (m{at})")
        };
        format!("m{at} = MatMul (x{at}, w{at})  {sum}  x{} = Concat <axis = 2> (r{at}, r{at})", at + 1)
    };
    let value = |at: usize| {
        let between = format!("float[1,96,32] m{at}, float[1,96,32] s{at}, float[1,96,32] r{at}");
        format!("float[64,32] w{at} = {{}}, {between}, float[1,96,64] x{}", at + 1)
    };
    let (nodes, values): (Vec<String>, Vec<String>) = steps.map(|at| (product(at), value(at))).unzip();
    format!(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,96,64] x0) => (float[1,96,64] y)
         <float[32] b = {{}}, {}> {{ {} y = Exp (x8) }}",
        values.join(", "),
        nodes.join("  ")
    )
}

/// A product in float takes in the bias behind it; on integers it is repeated for every row.
#[test]
fn small_products_with_a_bias_stay_in_float() {
    assert_eq!(on_integers(&rows_of_products(true)), 0);
    assert_eq!(on_integers(&rows_of_products(false)), 8);
}

/// What depends on no input is computed when the file is loaded, however large it is.
#[test]
fn layers_of_constants_stay_in_float() {
    let text = |read: &str| {
        format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (float[512,256] x) => (float[512,256] y)
             <float[512,256] table = {{}}, float[256,256] v = {{}}, float[256,256] w = {{}}, float[512,256] t, float[512,256] a, float[512,256] b> {{
               t = Tanh (table)  a = MatMul ({read}, v)  b = Exp (a)  c = MatMul (x, w)  y = Mul (b, c) }}"
        )
    };
    assert_eq!(on_integers(&text("t")), 1);
    assert_eq!(on_integers(&text("x")), 2);
}
