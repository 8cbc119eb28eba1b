//! Every pass on small graphs: what it changes, what it declines and why.
//!
//! A fixture is `testdata/passes/<pass>/<case>.onnxtxt`, a snapshot `<case>.snap` beside it: name of the pass, its
//! outcome, and the difference it makes to the text. `# with KEY: VALUE` at the head of a fixture sets a field of the
//! pass.

use indexmap::IndexMap;
use msq_passes::ir::{DataType, Model, TensorProto, TypeProto, check, export, import, text};
use msq_passes::{
    BoundMasks, CancelTransposes, CleanNames, CompleteNodes, Differentiate, DropDefaults, EliminateDeadNodes,
    EliminateIdentities, EqualizeChannels, ExtractSegment, FixInputs, FoldConstants, Freeze, FreezeInitializers,
    FuseAffine, FuseBatchNorm, FuseBounds, FuseGelu, FuseLayerNorm, FuseQlinear, HalfConstants, HalfPrecision,
    HoistConstants, HoistInvariants, HoldQuantizers, InlineBranches, InlineFunctions, InsertTaps, LiftConstants,
    LoadConstants, LowerInteger, Magnitude, NormalizeGemm, NormalizePadding, NormalizePooling, NormalizeReshape,
    PackWeights, Packing, Pass, RestoreActivations, RewriteActivations, RewriteEinsum, ShareConstants, ShareWeights,
    SinglePrecision, SinkActivations, SinkConstants, SmoothActivations, SplitBiases, SplitOutliers, SplitPads,
    SplitSlopes, TrellisRate, UnfuseContrib, UpgradeOpset, WidenChannels, run_pass,
};
use similar::TextDiff;
use std::path::{Path, PathBuf};

type Fields<'a> = IndexMap<&'a str, &'a str>;

fn pass(name: &str, fields: &Fields) -> Box<dyn Pass> {
    match name {
        "bound-masks" => Box::new(BoundMasks { bounds: fields.iter().map(bound).collect() }),
        "cancel-transposes" => Box::new(CancelTransposes),
        "clean-names" => Box::new(CleanNames { strip: fields.contains_key("strip") }),
        "complete-nodes" => Box::new(CompleteNodes),
        "differentiate" => Box::new(Differentiate {
            seeds: words(fields.get("seeds").unwrap_or(&"")),
            wanted: words(fields.get("wanted").unwrap_or(&"")),
        }),
        "drop-defaults" => Box::new(DropDefaults),
        "eliminate-dead-nodes" => Box::new(EliminateDeadNodes),
        "eliminate-identities" => Box::new(EliminateIdentities),
        "equalize-channels" => Box::new(EqualizeChannels),
        "extract-segment" => Box::new(ExtractSegment {
            inputs: words(fields.get("inputs").unwrap_or(&"")).into_iter().map(|name| (name, float())).collect(),
            outputs: words(fields.get("outputs").unwrap_or(&"")),
        }),
        "fix-inputs" => Box::new(FixInputs { values: fields.iter().map(constant).collect() }),
        "fold-constants" => Box::new(FoldConstants { constants: fields.iter().map(constant).collect() }),
        "freeze-initializers" => Box::new(FreezeInitializers { which: freeze(fields.get("which").unwrap_or(&"")) }),
        "fuse-affine" => Box::new(FuseAffine),
        "fuse-batch-norm" => Box::new(FuseBatchNorm),
        "fuse-bounds" => Box::new(FuseBounds),
        "fuse-gelu" => Box::new(FuseGelu),
        "fuse-layer-norm" => Box::new(FuseLayerNorm),
        "fuse-qlinear" => Box::new(FuseQlinear { contrib: fields.contains_key("contrib") }),
        "half-constants" => Box::new(HalfConstants),
        "half-precision" => Box::new(halves(fields)),
        "hoist-constants" => Box::new(HoistConstants),
        "hoist-invariants" => Box::new(HoistInvariants),
        "inline-branches" => Box::new(InlineBranches),
        "inline-functions" => Box::new(InlineFunctions),
        "insert-taps" => Box::new(InsertTaps { values: words(fields.get("values").unwrap_or(&"")) }),
        "lift-constants" => Box::new(LiftConstants),
        "load-constants" => Box::new(LoadConstants),
        "hold-quantizers" => Box::new(HoldQuantizers),
        "lower-integer" => Box::new(LowerInteger),
        "normalize-gemm" => Box::new(NormalizeGemm),
        "normalize-padding" => Box::new(NormalizePadding),
        "normalize-pooling" => Box::new(NormalizePooling),
        "normalize-reshape" => Box::new(NormalizeReshape),
        "pack-weights" => Box::new(PackWeights {
            layers: fields.iter().filter_map(|(layer, text)| Some(((*layer).to_owned(), packing(text)?))).collect(),
            functions: fields.contains_key("functions"),
        }),
        "restore-activations" => Box::new(RestoreActivations::default()),
        "rewrite-activations" => Box::new(RewriteActivations),
        "rewrite-einsum" => Box::new(RewriteEinsum),
        "share-constants" => Box::new(ShareConstants),
        "share-weights" => Box::new(ShareWeights),
        "single-precision" => Box::new(SinglePrecision),
        "sink-activations" => Box::new(SinkActivations),
        "sink-constants" => Box::new(SinkConstants),
        "smooth-activations" => Box::new(SmoothActivations { factors: fields.iter().map(factors).collect() }),
        "split-biases" => Box::new(SplitBiases),
        "split-pads" => Box::new(SplitPads),
        "split-slopes" => Box::new(SplitSlopes),
        "split-outliers" => Box::new(SplitOutliers { channels: fields.iter().map(channels).collect() }),
        "unfuse-contrib" => Box::new(UnfuseContrib),
        "upgrade-opset" => Box::new(fields.get("to").map_or_else(UpgradeOpset::default, |to| {
            UpgradeOpset::to(to.parse().unwrap_or_else(|_| panic!("`{to}` is no opset")))
        })),
        "widen-channels" => Box::new(WidenChannels {
            layers: fields.iter().filter_map(|(layer, text)| Some(((*layer).to_owned(), text.parse().ok()?))).collect(),
            weights: IndexMap::new(),
            records: true,
        }),
        _ => panic!("testdata/passes/{name} is of no pass"),
    }
}

/// `magnitudes: x=2 y=1e5`; a second number, `m=3e38/5`, is that of the elements that do not stand for infinity.
fn halves(fields: &Fields) -> HalfPrecision {
    let number = |word: &str| -> f32 { word.parse().unwrap_or_else(|_| panic!("`{word}` is no number")) };
    let magnitude = |word: String| {
        let (name, numbers) = word.split_once('=').unwrap_or_else(|| panic!("`{word}` is no magnitude"));
        let (largest, below) = numbers.split_once('/').unwrap_or((numbers, numbers));
        (name.to_owned(), Magnitude { largest: number(largest), below_infinite: number(below) })
    };
    HalfPrecision {
        bfloat16: false,
        computation: fields.contains_key("computation"),
        quantizers: fields.contains_key("quantizers"),
        on_integers: words(fields.get("on-integers").unwrap_or(&"")).into_iter().collect(),
        magnitudes: words(fields.get("magnitudes").unwrap_or(&"")).into_iter().map(magnitude).collect(),
        simulated: fields.contains_key("simulated"),
    }
}

fn freeze(text: &str) -> Freeze {
    match text {
        "weights" => Freeze::Weights,
        "all" => Freeze::All,
        _ => Freeze::Nothing,
    }
}

fn packing(text: &str) -> Option<Packing> {
    Some(match text {
        "ternary" => Packing::Ternary,
        "codebook" => Packing::Codebook,
        "int4" => Packing::Int4,
        "int2" => Packing::Int2,
        _ => match text.strip_prefix("trellis ") {
            Some(quarters) => Packing::Trellis(TrellisRate::of_quarters(quarters.parse().ok()?)?),
            None => Packing::Bits(text.strip_suffix(" bits")?.parse().ok()?),
        },
    })
}

fn float() -> TypeProto {
    TypeProto::tensor(DataType::Float, &[None, None])
}

fn words(list: &str) -> Vec<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

/// `1 -1`: an int64 vector. `1000 zeros`: that many.
fn constant((name, elements): (&&str, &&str)) -> (String, TensorProto) {
    let number = |word: &str| -> i64 { word.parse().unwrap_or_else(|_| panic!("`{word}` is no number")) };
    let elements: Vec<i64> = match elements.strip_suffix(" zeros") {
        Some(count) => vec![0; number(count) as usize],
        None => elements.split_whitespace().map(number).collect(),
    };
    ((*name).to_owned(), TensorProto::from_i64(name, &[elements.len()], &elements))
}

/// `-7.5`: the bound of a masked value.
fn bound((name, bound): (&&str, &&str)) -> (String, f32) {
    ((*name).to_owned(), bound.parse().unwrap_or_else(|_| panic!("`{bound}` is no number")))
}

/// `2 0.5`: a factor per channel.
fn factors((name, factors): (&&str, &&str)) -> (String, Vec<f32>) {
    let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("`{word}` is no number"));
    ((*name).to_owned(), factors.split_whitespace().map(number).collect())
}

/// `0 2`: channels of an activation.
fn channels((name, channels): (&&str, &&str)) -> (String, Vec<usize>) {
    let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("`{word}` is no channel"));
    ((*name).to_owned(), channels.split_whitespace().map(number).collect())
}

fn fields(fixture: &str) -> Fields<'_> {
    let lines = fixture.lines().map_while(|line| line.strip_prefix('#'));
    lines.filter_map(|line| line.trim().strip_prefix("with ")?.split_once(": ")).collect()
}

fn model(fixture: &str) -> Model {
    let message = text::parse(fixture).unwrap_or_else(|e| panic!("{e}"));
    let model = import(message).unwrap_or_else(|e| panic!("{e}"));
    check(&model).unwrap_or_else(|e| panic!("{e}"));
    model
}

fn show(model: &Model) -> String {
    text::print(&export(model))
}

/// Runs the pass twice: the second time it has nothing to do.
fn report(pass: &dyn Pass, fixture: &str) -> String {
    let mut model = model(fixture);
    let before = show(&model);
    let outcome = match run_pass(pass, &mut model, true) {
        Ok(record) => record.outcome,
        Err(error) => return format!("{}: error: {error}\n", pass.name()),
    };
    let after = show(&model);
    assert_eq!(outcome.changed == 0, before == after, "{outcome}, but the text says otherwise");
    let again = run_pass(pass, &mut model, true).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again.outcome.changed, 0, "run again, it changes something");
    assert_eq!(after, show(&model), "run again, it changes something");
    let diff = TextDiff::from_lines(&before, &after).unified_diff().context_radius(2).to_string();
    format!("{}: {outcome}\n{diff}", pass.name())
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/passes")
}

fn cases(name: &str) {
    let folder = folder().join(name);
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(&folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let fixtures: Vec<_> =
        sorted(&folder).into_iter().filter(|p| p.extension().is_some_and(|e| e == "onnxtxt")).collect();
    assert!(!fixtures.is_empty(), "{} has no fixtures", folder.display());
    for path in fixtures {
        let case = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let fixture = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let context = format!("{name}/{case}");
        let report = std::panic::catch_unwind(|| report(pass(name, &fields(&fixture)).as_ref(), &fixture));
        let report = report.unwrap_or_else(|_| panic!("{context} failed"));
        settings.bind(|| insta::assert_snapshot!(case, report));
    }
}

macro_rules! passes {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            cases($name);
        })*

        const TESTED: &[&str] = &[$($name),*];
    };
}

passes! {
    bound_masks: "bound-masks",
    cancel_transposes: "cancel-transposes",
    clean_names: "clean-names",
    complete_nodes: "complete-nodes",
    differentiate: "differentiate",
    drop_defaults: "drop-defaults",
    eliminate_dead_nodes: "eliminate-dead-nodes",
    eliminate_identities: "eliminate-identities",
    equalize_channels: "equalize-channels",
    extract_segment: "extract-segment",
    fix_inputs: "fix-inputs",
    fold_constants: "fold-constants",
    freeze_initializers: "freeze-initializers",
    fuse_affine: "fuse-affine",
    fuse_batch_norm: "fuse-batch-norm",
    fuse_bounds: "fuse-bounds",
    fuse_gelu: "fuse-gelu",
    fuse_layer_norm: "fuse-layer-norm",
    fuse_qlinear: "fuse-qlinear",
    half_constants: "half-constants",
    half_precision: "half-precision",
    hoist_constants: "hoist-constants",
    hoist_invariants: "hoist-invariants",
    hold_quantizers: "hold-quantizers",
    inline_branches: "inline-branches",
    inline_functions: "inline-functions",
    insert_taps: "insert-taps",
    lift_constants: "lift-constants",
    load_constants: "load-constants",
    lower_integer: "lower-integer",
    normalize_gemm: "normalize-gemm",
    normalize_padding: "normalize-padding",
    normalize_pooling: "normalize-pooling",
    normalize_reshape: "normalize-reshape",
    pack_weights: "pack-weights",
    restore_activations: "restore-activations",
    rewrite_activations: "rewrite-activations",
    rewrite_einsum: "rewrite-einsum",
    share_constants: "share-constants",
    share_weights: "share-weights",
    single_precision: "single-precision",
    sink_activations: "sink-activations",
    sink_constants: "sink-constants",
    smooth_activations: "smooth-activations",
    split_biases: "split-biases",
    split_outliers: "split-outliers",
    split_pads: "split-pads",
    split_slopes: "split-slopes",
    unfuse_contrib: "unfuse-contrib",
    upgrade_opset: "upgrade-opset",
    widen_channels: "widen-channels",
}

#[test]
fn every_snapshot_has_its_fixture() {
    for folder in TESTED.iter().map(|name| folder().join(name)) {
        for path in sorted(&folder).into_iter().filter(|p| p.extension().is_some_and(|e| e == "snap")) {
            assert!(path.with_extension("onnxtxt").exists(), "{} is of no fixture", path.display());
        }
    }
}

#[test]
fn the_plan_of_clean_names_is_what_it_does() {
    let fixture = include_str!("../../testdata/passes/clean-names/strip.onnxtxt");
    let mut model = model(fixture);
    let pass = CleanNames { strip: true };
    let plan = pass.plan(&model);
    let names = |m: &Model| -> Vec<String> { m.graph.values().map(|(_, v)| v.name().to_owned()).collect() };
    let before = names(&model);
    run_pass(&pass, &mut model, true).unwrap_or_else(|e| panic!("{e}"));
    let expected: Vec<String> = before.into_iter().map(|name| plan.get(&name).cloned().unwrap_or(name)).collect();
    assert_eq!(names(&model), expected);
    assert!(pass.plan(&model).is_empty());
}
