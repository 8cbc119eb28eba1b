//! Tables are consistent, placement and linter agree on them, and the documentation shows them.

#![allow(clippy::unwrap_used)]

use super::kernel::MOVEMENTS;
use super::{ActivationGrid, BiasForm, Kernel, Profile, RuleId, Support, WideActivations};
use crate::ir::{import, text};
use crate::lint::{lint, predict_float};
use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;

#[test]
fn no_operator_stands_twice_and_every_operator_exists() {
    for profile in Profile::ALL {
        let mut seen = HashSet::new();
        for kernel in profile.all_kernels() {
            assert!(seen.insert(kernel.op), "{}: {} stands twice", profile.name, kernel.op);
            assert!(crate::ops::schema(kernel.op).is_some(), "{}: ONNX has no {}", profile.name, kernel.op);
        }
    }
}

#[test]
fn what_placement_uses_the_linter_knows() {
    for profile in Profile::ALL {
        let used = |kernel: &&Kernel| kernel.placed && kernel.support != Support::Affine;
        let unknown = profile.all_kernels().filter(used).filter(|kernel| !is_known(profile, kernel));
        let unknown: Vec<(&str, &str)> = unknown.map(|kernel| (profile.name, kernel.op)).collect();
        assert_eq!(unknown, []);
    }
}

#[test]
fn what_the_linter_takes_for_integers_is_in_the_table() {
    for profile in Profile::ALL.iter().filter(|profile| profile.listed(RuleId::StaysFloat).is_some()) {
        assert!(profile.kernel("Tanh").is_none());
        assert!(!is_quiet(profile, "Tanh"), "{} has no kernel for Tanh", profile.name);
        for kernel in profile.all_kernels() {
            let expected = kernel.runs_on_integers() || kernel.support == Support::Free;
            assert_eq!(is_quiet(profile, kernel.op), expected, "{}: {}", profile.name, kernel.op);
        }
    }
}

/// Whether the linter takes the operator between quantizers for one that runs on integers. Where no rule predicts what
/// the runtime does, it reads the table alone, and names arithmetic with a float operand.
fn is_known(profile: &Profile, kernel: &Kernel) -> bool {
    if kernel.on_integers {
        // Written on the integers themselves: nothing is left for a rule about floats to find.
        let found = lint(&on_integers(profile, kernel.op), profile);
        return !found.iter().any(|f| f.site == "t");
    }
    if profile.listed(RuleId::StaysFloat).is_some() {
        return is_quiet(profile, kernel.op);
    }
    let operands = if kernel.support == Support::Arithmetic { "xq, x" } else { "xq, xq" };
    let rules = lint(&between_quantizers(profile, kernel.op, operands), profile);
    kernel.runs_on_integers()
        && rules.iter().any(|f| f.rule == "float-operand" && f.site == "t") == (kernel.support == Support::Arithmetic)
}

fn is_quiet(profile: &Profile, op: &str) -> bool {
    let model = between_quantizers(profile, op, if op == "Gemm" { "xq, w, b" } else { "xq, w" });
    let found = lint(&model, profile);
    // The function without a target speaks for x86.
    assert!(profile.activations != ActivationGrid::Unsigned || predict_float(&model).len() <= found.len());
    !found.iter().any(|f| f.rule == "stays-float" && f.site == "t")
}

fn on_integers(profile: &Profile, op: &str) -> crate::ir::Model {
    model(profile, op, &format!("[t] t = {op} (q) y = DequantizeLinear(t, s, z)"))
}

fn between_quantizers(profile: &Profile, op: &str, operands: &str) -> crate::ir::Model {
    let operands = match op {
        "Conv" | "Gemm" | "MatMul" => operands,
        "Clip" => "xq",
        _ => &operands.replace(['w', 'b'], "xq").replace("xqxq", "xq"),
    };
    model(profile, op, &format!("[t] t = {op} ({operands}) o = QuantizeLinear(t, s, z) y = DequantizeLinear(o, s, z)"))
}

fn model(profile: &Profile, op: &str, body: &str) -> crate::ir::Model {
    let unsigned = profile.activations == ActivationGrid::Unsigned;
    let element = if unsigned { "uint8" } else { "int8" };
    // The smallest integer, so that a `Relu` does nothing that saturating does not; a `Clip` has no bounds.
    let low = if unsigned { 0 } else { -128 };
    let text = format!(
        "<ir_version: 10, opset_import: [\"\": 21]> g (float[4,4] x) => (float y)
<float s = {{0.5}}, {element} z = {{{low}}}, int8 wz = {{0}}, int8[4,4] wi = {{1,2,3,4,1,2,3,4,1,2,3,4,1,2,3,4}},
float[4] b = {{1,2,3,4}}>
{{ q = QuantizeLinear(x, s, z) xq = DequantizeLinear(q, s, z) w = DequantizeLinear(wi, s, wz)
{body} }}"
    );
    import(text::parse(&text).unwrap_or_else(|e| panic!("{op}: {e}\n{text}"))).unwrap()
}

/// The tables of `docs/profiles.md` stand between these lines.
const BEGIN: &str = "<!-- begin: tables of targets, printed from passes/src/target -->\n";
const END: &str = "<!-- end -->\n";

#[test]
fn the_documentation_shows_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/profiles.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (shown, tail) = rest.split_once(END).unwrap();
    let tables = tables();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{tables}{END}{tail}")).unwrap();
        return;
    }
    assert_eq!(shown, tables, "run `UPDATE_DOCS=1 cargo test -p msq-passes --lib target` to update docs/profiles.md");
}

fn tables() -> String {
    let mut text = String::from("\n");
    let mut row = |title: &str, cell: &dyn Fn(&Profile) -> String| {
        let cells: Vec<String> = Profile::ALL.iter().map(cell).collect();
        writeln!(text, "| {title} | {} |", cells.join(" | ")).unwrap();
    };
    row("", &|p| if p == &Profile::ALL[0] { format!("`{}` (default)", p.name) } else { format!("`{}`", p.name) });
    row("---", &|_| "---".to_owned());
    row("runtime", &|p| p.runtime.to_owned());
    row("activations", &activations);
    row("weights, int8, zero point 0", &|p| {
        if p.per_channel { "one scale per channel" } else { "one scale per tensor" }.to_owned()
    });
    row("weights with one scale per block", &blocks);
    row("bias", &|p| match (p.bias, p.rounds_float_bias) {
        (BiasForm::Float, _) => "float".to_owned(),
        (BiasForm::Int32, true) => "int32 ¹".to_owned(),
        (BiasForm::Int32, false) => "int32".to_owned(),
    });
    row("layers on integers", &|p| listed(p, &|s| matches!(s, Support::Layer { .. })));
    row("of these may write floats", &|p| listed(p, &|s| s == Support::Layer { float_output: true }));
    row("residual sums", &|p| {
        let fused = p.all_kernels().any(|kernel| kernel.support == Support::ResidualSum);
        if fused { "the operand that the layer does not compute is quantized ²" } else { "both operands quantized" }
            .to_owned()
    });
    row("`Relu`, `Clip` before a quantizer", &|p| {
        if p.activations == ActivationGrid::Symmetric { "stay" } else { "go" }.to_owned()
    });
    row("graph outputs that integer kernels write", &|p| {
        if p.quantized_outputs { "quantized" } else { "float" }.to_owned()
    });
    row("quantizers with float16 scales ⁴", &|p| yes(p.half_quantizers));
    row("packing `int4`", &|p| yes(p.int4_cast));
    row("folds what decodes weights", &|p| yes(p.folds_decoders));
    row("wants constants of branches in them", &|p| yes(p.folds_in_subgraphs));
    row("`--format qlinear`", &|p| yes(p.qlinear));
    row("`--format integer`", &|p| yes(p.integer));
    row("`--act-bits dynamic`", &|p| yes(p.dynamic));
    row("`--act-bits 16` ⁵", &|p| {
        match p.wide_activations {
            WideActivations::Refused => "no",
            WideActivations::Float => "in float between quantizers",
            WideActivations::Kernels => "yes",
        }
        .to_owned()
    });
    row("`--functions`", &|p| yes(p.functions));
    row("`com.microsoft` in `--format qlinear`", &|p| yes(p.contrib));
    row("highest opset ³", &|p| p.highest_opset.to_string());
    text.push_str("\nOther operators with integer kernels:\n\n| profile | operators |\n|---|---|\n");
    for profile in Profile::ALL {
        let mut parts = vec![listed(profile, &|s| s == Support::Arithmetic)];
        let sums = listed(profile, &|s| s == Support::ResidualSum);
        parts.extend((sums != NONE).then(|| format!("{sums} (as a residual sum)")));
        let placed = |op: &str| profile.support(op) == Some(Support::Movement);
        parts.extend(MOVEMENTS.iter().all(|kernel| placed(kernel.op)).then(|| "movements".to_owned()));
        let other = listed(profile, &|s| s == Support::Movement);
        let rest: Vec<&str> =
            other.split(", ").filter(|op| !MOVEMENTS.iter().any(|kernel| format!("`{}`", kernel.op) == *op)).collect();
        parts.extend((rest != [NONE]).then(|| rest.join(", ")).filter(|rest| !rest.is_empty()));
        let indices = listed(profile, &|s| s == Support::Index);
        parts.extend((indices != NONE).then(|| format!("{indices} (read integers, write indices)")));
        writeln!(text, "| `{}` | {} |", profile.name, parts.join("; ")).unwrap();
    }
    let movements: Vec<String> = MOVEMENTS.iter().map(|kernel| format!("`{}`", kernel.op)).collect();
    writeln!(text, "\nMovements are {}.\n", movements.join(", ")).unwrap();
    text
}

const NONE: &str = "none";

/// The operators that quantizers are placed around and that take part in one way.
fn listed(profile: &Profile, wanted: &dyn Fn(Support) -> bool) -> String {
    let found = profile.all_kernels().filter(|kernel| kernel.placed && wanted(kernel.support));
    let found: Vec<String> = found.map(|kernel| format!("`{}`", kernel.op)).collect();
    if found.is_empty() { NONE.to_owned() } else { found.join(", ") }
}

fn activations(profile: &Profile) -> String {
    match profile.activations {
        ActivationGrid::Unsigned => "uint8, zero point by range",
        ActivationGrid::Signed => "int8, zero point by range",
        ActivationGrid::Symmetric => "int8, zero point 0",
    }
    .to_owned()
}

fn blocks(profile: &Profile) -> String {
    let Some(blocks) = profile.blocks else { return "no".to_owned() };
    let bits: Vec<String> = blocks.bits.iter().map(u8::to_string).collect();
    let (first, last) = (blocks.sizes.first().unwrap(), blocks.sizes.last().unwrap());
    let zero_points = if blocks.zero_points { "" } else { ", zero point 0" };
    let partial = if blocks.partial { "" } else { ", whole ones" };
    format!("{} bits, blocks of {first} to {last}{partial}{zero_points}", bits.join(", "))
}

fn yes(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}
