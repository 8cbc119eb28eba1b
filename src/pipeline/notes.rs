//! What a user should know of the model, and of what was made of it.

use crate::prepare::FixedInput;
use crate::report::numbers::{bytes, counted, loss, short};
use crate::report::{Report, StoredReport};
use crate::scheme::Scheme;
use crate::scheme::bit_plan::WeightBits;
use crate::scheme::options::Format;
use crate::search::Target;
use msq_passes::analysis::{LookupCost, StoredKind};
use msq_passes::ir::{Graph, GraphProto, Model, Node, NodeProto, Use, ValueId};
use msq_passes::ops::{Trait, facts, schema};

/// How many times such constants have to be the file to be named.
const LARGE: u64 = 5;
/// Bytes of a file below which nobody asks.
const SMALL_FILE: u64 = 32 << 10;
/// Constants that are named.
const NAMED: usize = 3;

/// A note on the first node of an operator that neither ONNX nor the model has.
pub(super) fn unknown_operator(model: &Model) -> Option<String> {
    let is_unknown =
        |node: &Node| node.domain().is_empty() && schema(node.op()).is_none() && !model.is_function("", node.op());
    let (_, node) = model.graph.nodes().find(|(_, node)| is_unknown(node))?;
    let (op, label) = (node.op(), node.label(&model.graph));
    Some(format!(
        "ONNX has no operator `{op}`, which node `{label}` asks for: runtimes refuse the model, and what is written"
    ))
}

/// A note where layers quantize what they read on ranges of made-up inputs, though most could find them when they run.
pub(super) fn made_up_ranges(synthetic: bool, scheme: &Scheme) -> Option<String> {
    let (mut products, mut all) = (0, 0);
    for layer in scheme.placement.layers() {
        all += 1;
        products += usize::from(!layer.op.is_convolution());
    }
    (synthetic && scheme.target.dynamic && 2 * products > all).then(|| {
        "ranges are those of made-up inputs; with `--act-bits dynamic` products with a matrix, as most layers here are, find \
         theirs when they run, and no data are needed"
            .to_owned()
    })
}

/// Operators between an input and a condition, at most.
const BEFORE_CONDITION: usize = 4;

/// A note on layers in branches, of which an input chooses one.
pub(super) fn branches(model: &Model) -> Option<String> {
    let graph = &model.graph;
    let input = graph.nodes().find_map(|(_, node)| {
        let condition = node.input(0).filter(|_| node.is("If") && node.subgraphs().any(has_layers))?;
        input_behind(graph, condition)
    })?;
    let name = graph.value(input).name();
    Some(format!(
        "layers in branches that input `{name}` chooses between stay float; `--fix-input {name}=1` and `--fix-input {name}=0` make \
         a file of each branch, whose layers can run on integers"
    ))
}

fn has_layers(graph: &GraphProto) -> bool {
    let is_layer = |node: &NodeProto| facts(node.op_type()).layer.is_some() || node.subgraphs().any(has_layers);
    graph.node.iter().any(is_layer)
}

/// The input that alone decides a condition.
fn input_behind(graph: &Graph, condition: ValueId) -> Option<ValueId> {
    let mut at = condition;
    for _ in 0..BEFORE_CONDITION {
        let Some((producer, _)) = graph.value(at).producer() else { break };
        let node = graph.node(producer);
        if !matches!(node.op(), "Cast" | "Squeeze" | "Reshape" | "Identity" | "Not" | "Flatten") {
            return None;
        }
        at = node.input(0)?;
    }
    graph.runtime_inputs().find(|input| *input == at)
}

/// A note on a format of operators of which the written model has none.
pub(super) fn unused_format(model: &Model, scheme: &Scheme) -> Option<String> {
    let format = scheme.output.format;
    let is_used = model.graph.nodes().any(|(_, node)| match (format, node.op()) {
        (Format::Qdq, _) | (Format::Integer, "ConvInteger" | "MatMulInteger") => true,
        (Format::Qlinear, op) => op == "QGemm" || op.starts_with("QLinear"),
        (Format::Nbits, op) => matches!(op, "MatMulNBits" | "GatherBlockQuantized"),
        _ => false,
    });
    let reason = match format {
        _ if is_used => return None,
        Format::Nbits => "it is for weights with one scale per block",
        _ if scheme.placement.nodes.is_empty() => "every layer computes in float",
        _ => "no operator that computes on integers can be written so",
    };
    Some(format!("`--format {format}` has no effect: {reason}"))
}

/// Constants that are a large part of a quantized graph and stay float because nothing but arithmetic reads them, as weights
/// that the style of an image multiplies.
pub(super) fn float_operands(model: &Model) -> Option<String> {
    let graph = &model.graph;
    let is_operand = |value: ValueId| {
        let readers = graph.value(value).uses();
        let arithmetic = |reader: &Use| facts(graph.node(reader.node).op()).has(Trait::Arithmetic);
        !readers.is_empty() && readers.iter().all(arithmetic)
    };
    let floats = graph.initializers().filter(|(value, tensor)| tensor.is_float() && is_operand(*value));
    let mut found: Vec<(&str, usize)> =
        floats.map(|(value, tensor)| (graph.value(value).name(), tensor.byte_count().unwrap_or_default())).collect();
    let (all, total) = (found.iter().map(|(_, bytes)| bytes).sum::<usize>(), model.stored_bytes());
    if LARGE * (all as u64) < total || total < SMALL_FILE {
        return None;
    }
    found.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let named = found.iter().take(NAMED).map(|(name, size)| format!("`{name}` ({})", bytes(*size as u64)));
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match found.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "{} of {} stay float, because operators of arithmetic read them element by element: {named}{more}",
        counted(found.len(), "constant"),
        bytes(all as u64)
    ))
}

/// Shares of a run from which on lookups in tables of integers are worth a word.
const NOTICEABLE: f64 = 0.03;

/// What is to be known of how rows of embedding tables are looked up.
pub(super) fn lookups(cost: Option<LookupCost>) -> Vec<String> {
    let Some(LookupCost { share, avoided }) = cost else { return Vec::new() };
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let loaded = (avoided > 0.0).then(|| {
        format!(
            "small embedding tables are stored as integers, of which the runtime makes floats when it loads the file: looking \
             integers up would take about {} of a run",
            percent(avoided)
        )
    });
    let slow = (share >= NOTICEABLE).then(|| {
        format!(
            "looking rows up in embedding tables of integers takes about {} of a run; `--keep-float` leaves a table in float, \
             in a file that is as much larger",
            percent(share)
        )
    });
    loaded.into_iter().chain(slow).collect()
}

/// Embedding tables that have more bits than the plan asks of all weights, unless it names them.
pub(super) fn wider_tables(scheme: &Scheme, stored: &[StoredReport]) -> Option<String> {
    let asked = scheme.plan.default?.weights;
    let wider = |weight: &&StoredReport| {
        let more = weight.weight_bits.filter(|bits| *bits != WeightBits::Float && bits.width() > asked.width());
        weight.kind == StoredKind::Embedding && more.is_some() && !scheme.plan.layers.contains_key(&weight.name)
    };
    let tables: Vec<&StoredReport> = stored.iter().filter(wider).collect();
    said_of_tables(&tables, asked)
}

fn said_of_tables(tables: &[&StoredReport], asked: WeightBits) -> Option<String> {
    if tables.is_empty() || asked == WeightBits::Float {
        return None;
    }
    let mut bits: Vec<String> = tables.iter().filter_map(|table| table.weight_bits).map(|b| b.to_string()).collect();
    bits.sort_unstable();
    bits.dedup();
    let named = tables.iter().take(NAMED).map(|table| format!("`{}`", short(&table.name))).collect::<Vec<_>>();
    let more = if tables.len() > NAMED { format!(" and {} more", tables.len() - NAMED) } else { String::new() };
    Some(format!(
        "embedding tables have {} bits, not {asked}: {}{more}; what is looked up is what layers read, and no solver makes up for \
         its errors; an entry in a bit plan gives a table fewer bits, `--granularity block:N` 4",
        bits.join(" and "),
        named.join(", ")
    ))
}

/// What is said of the inputs that are constants.
pub(super) fn fixed(inputs: &[FixedInput]) -> Vec<String> {
    let said = |fixed: &FixedInput| format!("input `{}` is fixed at {} and not fed any more", fixed.input, fixed.value);
    inputs.iter().map(said).collect()
}

/// Samples from which on a plan that was chosen by them is about as good on others.
const ENOUGH: usize = 64;

/// What is to be said of a plan that few samples chose. The best of many on some samples is less good on others.
pub(super) fn chosen(report: &Report) -> Option<String> {
    let quality = report.quality.as_ref()?;
    let samples = quality.samples;
    (quality.chosen_by && samples < ENOUGH).then(|| {
        format!(
            "the plan was chosen by the {samples} samples that its quality is stated on: on others it loses more, perhaps \
             several times as much; more calibration data help"
        )
    })
}

/// What is to be said where a target is kept to although the samples show a larger loss: of few answers one that is lost is no
/// evidence, where scores have hardly moved.
pub(super) fn likely(report: &Report, target: Target, lost: Option<f64>) -> Option<String> {
    let (quality, lost) = (report.quality.as_ref()?, lost?);
    let Target::MaxDrop(most) = target else { return None };
    (quality.lost > most && lost <= most).then(|| {
        format!(
            "{} of the answers on {} are lost, but scores have moved so little that {} is likely: `max-drop` goes by that",
            loss(quality.lost, 2),
            counted(quality.samples, "sample"),
            loss(lost, 2)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir::TensorProto;

    #[test]
    fn branches_that_an_input_chooses_are_named() {
        let said = |condition: &str| {
            let text = format!(
                "<ir_version: 8, opset_import: [\"\": 17]>
                 net (float[1,2] x, bool[1] cached) => (float[1,2] y) <float[2,2] w = {{1, 0, 0, 1}}, float zero = {{0}}>
                 {{ flag = Squeeze (cached)  sum = ReduceSum <keepdims = 0> (x)  big = Greater (sum, zero)
                    y = If ({condition}) <then_branch = a () => (float[1,2] p) {{ p = MatMul (x, w) }},
                                          else_branch = b () => (float[1,2] q) {{ q = Neg (x) }}> }}"
            );
            branches(&msq_passes::ir::import(msq_passes::ir::text::parse(&text).unwrap()).unwrap())
        };
        let found = said("flag").unwrap();
        assert!(
            found.starts_with("layers in branches that input `cached`") && found.contains("--fix-input cached=1"),
            "{found}"
        );
        assert_eq!(said("big"), None);
    }

    #[test]
    fn lookups_that_take_time_are_named() {
        let said = |share, avoided| lookups(Some(LookupCost { share, avoided }));
        assert_eq!(lookups(None), [""; 0]);
        assert_eq!(said(0.02, 0.0), [""; 0]);
        let notes = said(0.081, 0.19);
        assert_eq!(notes.len(), 2);
        assert!(
            notes[0].contains("19 %") && notes[1].contains("8 %") && notes[1].contains("--keep-float"),
            "{notes:?}"
        );
    }

    #[test]
    fn large_operands_of_arithmetic_are_named() {
        let said = |rows: usize, read: &str| {
            let text = format!(
                "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,1,64] style) => (float[N,{rows},64] y)
                 <float[1,{rows},64] w = {{}}, float[64,64] v = {{}}> {{ s = MatMul (style, v) y = {read} (s, w) }}"
            );
            let mut proto = msq_passes::ir::text::parse(&text).unwrap();
            for tensor in &mut proto.graph.as_mut().unwrap().initializer {
                let shape: Vec<usize> = tensor.dims.iter().map(|&dim| dim as usize).collect();
                *tensor = TensorProto::from_f32(tensor.name(), &shape, &vec![0.5; shape.iter().product()]);
            }
            float_operands(&msq_passes::ir::import(proto).unwrap())
        };
        let found = said(256, "Mul").unwrap();
        assert!(found.contains("`w`") && found.contains("1 constant of") && !found.contains("`v`"), "{found}");
        assert_eq!(said(4, "Mul"), None);
        assert_eq!(said(256, "Concat <axis = 1>"), None);
    }
}
