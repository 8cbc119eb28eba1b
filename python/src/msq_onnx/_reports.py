"""What `--json` prints, as frozen dataclasses."""

# Written by generate.py from what the binary prints; not to be edited.

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ._document import Document

BatchNorm: TypeAlias = Literal["fold", "affine"]
FreezeInitializers: TypeAlias = Literal["weights", "all", "none"]
WeightBits: TypeAlias = float | Literal["float", "ternary", "binary"]
ActivationBits: TypeAlias = int | Literal[16, "float", "dynamic"]
WeightGrid: TypeAlias = Literal[
    "narrow", "full", "asymmetric", "fixed-point", "wage", "sign", "power-of-two", "binary-bases", "codebook", "trellis"
]
PackingForm: TypeAlias = Literal["auto", "none", "int4", "int2"]
Granularity: TypeAlias = str
ObserverKind: TypeAlias = str
EndBits: TypeAlias = int | Literal["same", "activations"]
PlacementMode: TypeAlias = Literal["faster", "all"]
SolverName: TypeAlias = str
RoundingMode: TypeAlias = Literal["nearest", "stochastic"]
Format: TypeAlias = Literal["qdq", "qlinear", "integer", "nbits"]
Float16: TypeAlias = Literal["weights", "all"]
OutputChoice: TypeAlias = str
LayerOp: TypeAlias = Literal["Conv", "ConvTranspose", "Gemm", "MatMul"]
StoredKind: TypeAlias = Literal["embedding", "recurrent", "branch", "operator"]
OutputKind: TypeAlias = Literal["scores", "values", "boxes", "embedding", "sequence"]
Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of a quantization run, phase by phase.

    Attributes:
        prepare: How the float graph is brought into its canonical form.
        scheme: Which layers and values are quantized, for which runtime and to how many bits.
        calibrate: How ranges of activations are chosen.
        solve: How weights become integers.
        output: What the written file looks like.
        verify: How the result is compared with the float model.
        repair: What becomes of a result that loses too much.
        measure: How networks are measured against the float one.
        seed: Seed of whatever is drawn at random.
    """

    prepare: PrepareOptions
    scheme: SchemeOptions
    calibrate: CalibrateOptions
    solve: SolveOptions
    output: OutputOptions
    verify: VerifyOptions
    repair: RepairOptions
    measure: MeasureOptions
    seed: int


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How the float graph is brought into its canonical form.

    Attributes:
        batch_norm: What becomes of batch-norms.
        equalize: Whether channels between two layers are scaled to equal ranges; where `None`, only for targets
            whose weights have one scale per tensor.
        freeze_initializers: Which initializers that are inputs as well become constants.
    """

    batch_norm: BatchNorm = field(metadata={"key": "batch-norm"})
    equalize: bool | None
    freeze_initializers: FreezeInitializers = field(metadata={"key": "freeze-initializers"})


@dataclass(frozen=True, kw_only=True)
class SchemeOptions:
    """Which layers and values are quantized, for which runtime and to how many bits.

    Attributes:
        profile: The runtime that the file is written for.
        plan: Bits of every layer.
        first_last_bits: Bits of the first and the last layers, where the plan names no layers: 2 to 8 for weights
            and activations, same as in all layers, or activations, which keeps activations at 8 bits and weights at
            those of all layers.
        skip: Layers to leave in float: a name, or a regular expression that matches whole names; may be given
            again.
        keep_float: Operators whose nodes are left in float; may be given again.
        placement: Which of the nodes that have an integer kernel are quantized: those that run faster so, or all.
    """

    profile: str
    plan: BitPlan
    first_last_bits: EndBits = field(metadata={"key": "first-last-bits"})
    skip: tuple[str, ...]
    keep_float: tuple[str, ...] = field(metadata={"key": "keep-float"})
    placement: PlacementMode


@dataclass(frozen=True, kw_only=True)
class BitPlan:
    """What happens to every layer.

    Attributes:
        default: For layers not named.
        layers: By layer name.
        sequence: Of all layers in the order of the graph, where their names are not known.
        float: Nodes that are no layers and compute in float, by name.
        observer: How the ranges of values are chosen, where not as the options say.
        ranges: The same for single values, by name.
    """

    version: int
    default: LayerPlan | None = None
    layers: Mapping[str, LayerPlan] = field(default_factory=dict)
    sequence: tuple[LayerPlan, ...] = ()
    float: tuple[str, ...] = ()
    observer: ObserverKind | None = None
    ranges: Mapping[str, ObserverKind] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """What happens to a layer.

    Attributes:
        weights: Bits of the weights: `"float"`, `"ternary"`, `"binary"`, 2 to 8, or what else the grid has, such as
            1.75.
        activations: Bits of the activation read: `"float"`, 2 to 8, 16, or `"dynamic"` for 8 on ranges found at run
            time.
        grid: The grid of the weights; unless given, `narrow` at 8 bits, `trellis` up to 4 where the target folds it
            and the solver is `gram`, else `full`.
        packing: How the weights are stored.
        granularity: How much of the weight shares a scale: `"tensor"`, `"channel"`, or `"block:32"` for blocks of
            32 values of a channel, in products that compute in float; unless given, a channel where the target has
            one scale per channel.
    """

    weights: WeightBits
    activations: ActivationBits
    grid: WeightGrid | None = None
    packing: PackingForm | None = None
    granularity: Granularity | None = None


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """How ranges of activations are chosen.

    Attributes:
        observer: How activation ranges are chosen: min-max, moving-average, `percentile[:P]`, entropy, mse or
            cosine.
        masks: Whether positions that a mask or lengths among the inputs leave out count nowhere.
        smooth: Whether channels of what products with a matrix read are brought to like ranges where that loses
            less.
    """

    observer: ObserverKind
    masks: bool
    smooth: bool


@dataclass(frozen=True, kw_only=True)
class SolveOptions:
    """How weights become integers.

    Attributes:
        solver: How weights become integers [default: `gram` if any layer has fewer than 8 bits, else `round`].
        rounding: How the solver `round` rounds; `stochastic` makes it the solver where none is named.
        bias_correction: Whether the bias takes back what rounding the weights does to the mean of a layer's output.
        position_step: Stride between the positions of an activation that `gram` samples, 1 for all; at least 32
            positions per sample are taken, and more where samples are few.
        solver_steps: Mini-batches for the solvers that learn: per layer for `adaround` and `lsq`, per block for
            `block`, of the whole network for `distill` [default: 2,000 per layer, 250 per block, 300 of the
            network].
        solver_time: Seconds of work that `block` and `distill` may learn for, about: work is counted, not timed, so
            that the result depends on no clock [default: no limit].
    """

    solver: SolverName | None
    rounding: RoundingMode
    bias_correction: bool = field(metadata={"key": "bias-correction"})
    position_step: int = field(metadata={"key": "position-step"})
    solver_steps: int | None = field(metadata={"key": "solver-steps"})
    solver_time: float | None = field(metadata={"key": "solver-time"})


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What the written file looks like.

    Attributes:
        format: The operators that quantized layers are written as.
        functions: Unpack packed weights by functions of the model, for onnxruntime.
        half_scales: Round the scales of weights to half precision and store them so; biases too, where that moves
            outputs by less than a sixteenth of a step. So anyway where a weight has fewer than 8 bits and the
            target folds the casts, unless names are kept.
        full_scales: Keep scales and biases in single precision.
        float16: Store in float16 what stays float: weights, which runtimes make float32 again when they load the
            file, or all, to compute in float16 as well, for GPUs and NPUs. Inputs and outputs keep their types.
        strip_names: Whether names of inner values are shortened and node names dropped; where `None`, if weights
            are packed.
    """

    format: Format
    functions: bool
    half_scales: bool = field(metadata={"key": "half-scales"})
    full_scales: bool = field(metadata={"key": "full-scales"})
    float16: Float16 | None
    strip_names: bool | None = field(metadata={"key": "strip-names"})


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """How the result is compared with the float model.

    Attributes:
        verify: Samples whose outputs are compared with the float model's afterwards; 0 for none.
        details: Whether the report states what errors add up to layer by layer, and the distributions of the worst
            layers.
    """

    verify: int
    details: bool


@dataclass(frozen=True, kw_only=True)
class RepairOptions:
    """What becomes of a result that loses more than 1 % of its answers, or of the variance of a channel of its
    output.

    Attributes:
        repair: Whether it is repaired: by other ranges of activations, and by layers and operators that compute in
            float.
        repair_time: Seconds of work that repairs may take, about: work is counted, not timed, so that the result
            depends on no clock [default: twice that of calibration, 20 to 60].
    """

    repair: bool
    repair_time: float | None = field(metadata={"key": "repair-time"})


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """How a network is measured against the float one: in the summary, by searches and by `max-drop`, by `evaluate`
    and `compare`.

    Attributes:
        output_kind: What an output holds, where the program does not see it: scores, values, boxes, embedding or
            sequence; may be given again.
        metric_command: Command that scores a network, more being better: `{outputs}` becomes an .npz of its
            outputs, `{labels}` one of the labels, and it prints one number. A drop is then the share of the float
            network's score that is lost.
    """

    output_kind: tuple[OutputChoice, ...] = field(metadata={"key": "output-kind"})
    metric_command: str | None = field(metadata={"key": "metric-command"})


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """A quantized layer.

    Attributes:
        name: Name.
        op: Operator.
        shape: Shape of the weight.
        weights: Number of weights.
        macs: Multiply-accumulates for one sample, where the shapes are known.
        weight_bits: Bits of the weights, a number or `ternary`; nothing for float.
        activation_bits: Bits of the input activation; nothing for float.
        bytes: Bytes of the weights as stored, without what unpacks them.
        weight_sqnr: Signal-to-quantization-noise ratio of the weights in decibels; absent when rounding was exact.
        output_sqnr: Signal-to-quantization-noise ratio of what the layer computes on the calibration data, in
            decibels; only where the solver looks at that.
        network_sqnr: Signal-to-quantization-noise ratio in decibels of what the layer hands on in the quantized
            network, the errors of the layers before included; only where details are asked for.
        weight_distribution: The weights in steps of their channel's scale, and the integers that stand for them;
            only of the layers with the largest errors, where details are asked for.
        input_distribution: What the layer reads on the calibration data, and the numbers its quantizer holds; of
            the same layers.
    """

    name: str
    op: LayerOp
    shape: tuple[int, ...]
    weights: int
    macs: int | None
    weight_bits: WeightBits | None
    activation_bits: int | None
    bytes: int
    weight_sqnr: float | None
    output_sqnr: float | None
    network_sqnr: float | None
    weight_distribution: Distribution | None = None
    input_distribution: Distribution | None = None


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Values counted in bins of equal width, and the grid that they are rounded to.

    Attributes:
        min: Where the first bin begins.
        max: Where the last bin ends.
        counts: Values in each bin.
        grid: The numbers of the grid in ascending order.
    """

    min: float
    max: float
    counts: tuple[int, ...]
    grid: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class StoredReport:
    """A weight beside the layers: no layer of the main graph multiplies by it.

    Attributes:
        name: Name of the tensor.
        kind: What it is for.
        op: The operator that reads it.
        shape: Its shape.
        weights: Number of weights.
        weight_bits: Bits of the integers; nothing for float.
        bytes: Bytes as stored, without scales and what unpacks them.
        weight_sqnr: Signal-to-quantization-noise ratio of the weights in decibels; absent when rounding was exact,
            and for float.
        reason: Why it stays float.
    """

    name: str
    kind: StoredKind
    op: str
    shape: tuple[int, ...]
    weights: int
    weight_bits: WeightBits | None
    bytes: int
    weight_sqnr: float | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A node that stays float, and why.

    Attributes:
        node: The node's name, or its output's.
        op: Its operator.
        reason: Why it stays float.
    """

    node: str
    op: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class HalfReport:
    """What became float16.

    Attributes:
        nodes: Nodes of the float model that compute in float16.
        constants: Constants stored in float16.
        bytes: Their bytes.
        left: What stays float.
    """

    nodes: int
    constants: int
    bytes: int
    left: tuple[LeftFloat, ...]


@dataclass(frozen=True, kw_only=True)
class LeftFloat:
    """A node or a constant that stays float where float16 was asked for.

    Attributes:
        name: Its name.
        reason: Why.
    """

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Outputs compared with the float model's.

    Attributes:
        samples: Samples compared.
        held_out: Whether these samples were left out of calibration.
        agreement: How far they agree.
        accuracy: Share of labels that the quantized model gets right; only with labels.
        float_accuracy: Share of labels that the float model gets right; only with labels.
        metric: The caller's own metric; only with one.
        float_metric: The same of the float model.
        lost: What is lost, as the --max-drop counts it: of the caller's own metric, else of accuracy where there
            are labels, else by the worst output.
        outputs: Output by output: what it holds, and how far it is from the float model's.
        warnings: What to be warned of: channels and outputs with a large error, answers that differ, samples that
            are much worse than the rest.
    """

    samples: int
    held_out: bool
    agreement: AgreementFigures
    accuracy: float | None
    float_accuracy: float | None
    metric: float | None = None
    float_metric: float | None = None
    lost: float
    outputs: tuple[OutputMetrics, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AgreementFigures:
    """The figures of all outputs together that a report shows.

    Attributes:
        rows: Rows of scores compared: one per sample for a classifier, one per position for a sequence; 0 without
            scores.
        same_argmax: Share of rows whose largest entry is the same, for outputs that hold scores.
        divergence: Mean Kullback-Leibler divergence KL(reference ‖ model) in nats of the softmax of the rows, for
            the same outputs.
        sqnr: Power of an output over that of its error in decibels, of the output where that is least; absent when
            the outputs are equal. The mean of an output is power too: the ratios about it stand with each output.
    """

    rows: int
    same_argmax: float | None
    divergence: float | None
    sqnr: float | None


@dataclass(frozen=True, kw_only=True)
class OutputMetrics:
    """How far one output is from the float network's.

    Attributes:
        name: Its name.
        kind: What it holds.
        because: Why it is taken for that.
        lost: What is lost, as `max-drop` counts it for this kind.
        distance: Its share of the distance.
        sqnr: Signal-to-noise ratio in decibels, signal being the variance: mean over channels; absent where all are
            equal.
        worst_sqnr: Signal-to-noise ratio of the worst channel in decibels; absent where all are equal.
        worst_channel: The worst channel; absent where the output is compared as one.
        channels: Channels compared, 1 where the output is compared as one.
        constant_error: Largest root mean square error of a channel that does not vary in the float network.
        rows: Rows compared: one per sample for a classifier, one per position for a sequence.
        agreement: Share of rows with the same answer.
        divergence: Mean Kullback-Leibler divergence KL(float ‖ network) of the rows in nats.
        same_sequences: Share of sequences that read the same.
        cosine: Mean cosine with the float network's vector.
        least_cosine: Least cosine.
        boxes: Boxes that the float network finds.
        kept: Of those, boxes that the network finds too, with the same class and at an intersection over union of
            one half.
        invented: Boxes that only the network finds.
        worst_quarter: The quarter of the samples that is much worse than the rest, where there is one.
    """

    name: str
    kind: OutputKind
    because: str
    lost: float
    distance: float
    sqnr: float | None
    worst_sqnr: float | None
    worst_channel: int | None = None
    channels: int
    constant_error: float | None = None
    rows: int | None = None
    agreement: float | None = None
    divergence: float | None = None
    same_sequences: float | None = None
    cosine: float | None = None
    least_cosine: float | None = None
    boxes: int | None = None
    kept: int | None = None
    invented: int | None = None
    worst_quarter: QuarterMetrics | None = None


@dataclass(frozen=True, kw_only=True)
class QuarterMetrics:
    """A quarter of the samples beside the rest.

    Attributes:
        quarter: Which of the four in the order of the samples, from 1 on; absent where the samples are scattered.
        samples: Some of the samples, counted from 0, where they are scattered.
        lost: What it loses.
        rest: What the rest loses.
    """

    quarter: int | None
    samples: tuple[int, ...]
    lost: float
    rest: float


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What became of a loss that was too large.

    Attributes:
        allowed: The share that may be lost.
        samples: Samples that repairs were measured on.
        before: The network before repairs.
        after: The network with the repairs.
        reached: Whether the loss is small enough now.
        ranges: Values whose range is chosen in another way now.
        wide_layers: Layers that read activations of 16 bits now.
        float_layers: Layers that compute in float now.
        float_weights: Those of them whose weights are float as well.
        float_operators: Operators whose nodes compute in float now.
        float_work: Share of the work of the integer network that is done in float now, by multiply-accumulates.
        trials: What was tried.
        cut_short: Whether the budget of trials ended before all that seemed worth trying was tried.
    """

    allowed: float
    samples: int
    before: Verdict
    after: Verdict
    reached: bool
    ranges: int
    wide_layers: tuple[str, ...]
    float_layers: tuple[str, ...]
    float_weights: tuple[str, ...]
    float_operators: tuple[str, ...]
    float_work: float
    trials: tuple[RepairTrial, ...]
    cut_short: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How good a network is.

    Attributes:
        distance: Distance of the outputs from the float network's; lower is better, 0 is the float network.
        agreement: Share of rows whose best class is the float network's; none where no output holds scores.
        accuracy: Share of rows whose best class is the label; none without labels.
        metric: The caller's own metric; none without one.
        lost: What is lost, as `max-drop` counts it: of the caller's own metric, else of accuracy, else by the worst
            output.
        outputs: Output by output.
    """

    distance: float
    agreement: float | None
    accuracy: float | None
    metric: float | None = None
    lost: float
    outputs: tuple[OutputMetrics, ...]


@dataclass(frozen=True, kw_only=True)
class RepairTrial:
    """A repair that was tried.

    Attributes:
        what: What it was.
        lost: What the network loses with it.
        distance: The distance of its outputs from the float network's.
        kept: Whether it was kept.
    """

    what: str
    lost: float
    distance: float
    kept: bool


@dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """A finished search.

    Attributes:
        method: How bits were chosen.
        target: What the plan had to keep to, in words.
        reached: Whether it does.
        nearest: What the nearest plan reaches, in words, where the target is out of reach.
        plan: The plan chosen.
        chosen: Which search it comes from; `repair` behind the name if exchanges improved it.
        bits: Bits of a weight on average, a ternary weight 1.6.
        bytes: Bytes of the file by the weights of the search.
        verdict: How good the plan is with the weights of the search, which the full solution improves on.
        float: The float network on the same samples.
        samples: Samples layers were solved on, and samples plans were measured on.
        proposals: What each search proposed.
        steps: The way MSQ went; empty where it was not asked.
        sensitivities: What each layer costs alone; empty where that was not measured.
        front: Plans worth having, from small to large.
        passes: Passes through the network.
        resumed: Measurements taken over from a journal.
    """

    method: str
    target: str
    reached: bool
    nearest: str | None = None
    plan: BitPlan
    chosen: str
    bits: builtins.float
    bytes: int
    verdict: Verdict
    float: Verdict
    samples: tuple[int, int]
    proposals: tuple[Proposal, ...]
    steps: tuple[SearchStep, ...]
    sensitivities: tuple[Sensitivity, ...]
    front: tuple[FrontPoint, ...]
    passes: Passes
    resumed: int


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A plan that a search proposed.

    Attributes:
        method: The search.
        bits: Bits of a weight on average.
        verdict: How good it is.
    """

    method: str
    bits: float
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class SearchStep:
    """A configuration on MSQ's way.

    Attributes:
        bits: Bits of a weight on average.
        packed_bytes: Bytes of the weights as packed.
        accuracies: `Acc_1` to `Acc_N`.
        lowered: The layers lowered next.
        plan: The configuration.
    """

    bits: float
    packed_bytes: int
    accuracies: tuple[float, ...]
    lowered: tuple[str, ...]
    plan: BitPlan


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What a layer costs.

    Attributes:
        layer: The layer.
        costs: Bits of the weights, and what is added to the distance when this layer alone has them.
    """

    layer: str
    costs: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """A plan of the front.

    Attributes:
        bits: Bits of a weight on average.
        packed_bytes: Bytes of the weights as packed.
        verdict: How good it is.
        method: The search it comes from.
        plan: The plan.
    """

    bits: float
    packed_bytes: int
    verdict: Verdict
    method: str
    plan: BitPlan


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Passes of samples through the whole network.

    Attributes:
        run: What was run, by multiply-accumulates.
        full: What running every variant from its start would have been.
    """

    run: float
    full: float


@dataclass(frozen=True, kw_only=True)
class Report(Document):
    """What was found, and which run found it.

    Attributes:
        schema_version: Version of this document: raised when a key goes or comes to mean something else, not when
            one is added.
        tool_version: Version of msq-onnx.
        arguments: The arguments as given.
        model: The model that was read.
        output: The file that was written; null where none was.
        seed: Seed of everything random; null where nothing is.
        opset: Operator set of the float model.
        float_bytes: Size of the float model in bytes, on disk.
        bytes: Size of the quantized model in bytes, on disk.
        samples: Samples calibrated on.
        data: The data in words.
        synthetic: Whether the data was made up.
        calibrate_seconds: Seconds calibration took.
        seconds: Seconds in all.
        options: The options that were in force; with a search the plan is the one that was found.
        plan: The bits of every layer as they are now: a plan that does the same again.
        names: Names of inner values that were shortened, and what they are called in the file.
        layers: The layers with integer weights in graph order.
        float_layers: The layers that stay float.
        stored: Weights beside the layers: embedding tables, recurrent weights, weights of sub-graphs.
        notes: What a user of the file should know.
        kept: What stays float, and why.
        float16: What became float16, where that was asked for.
        quality: How close the outputs are to the float model's.
        repair: What was repaired, where the loss was too large.
        search: How the bits were found, where they were searched for.
    """

    schema_version: int
    tool_version: str
    arguments: tuple[str, ...]
    model: str
    output: str | None
    seed: int | None
    opset: int
    float_bytes: int
    bytes: int
    samples: int
    data: str
    synthetic: bool
    calibrate_seconds: float
    seconds: float
    options: Options
    plan: BitPlan
    names: Mapping[str, str]
    layers: tuple[LayerReport, ...]
    float_layers: tuple[LayerReport, ...]
    stored: tuple[StoredReport, ...]
    notes: tuple[str, ...]
    kept: tuple[Kept, ...]
    float16: HalfReport | None = None
    quality: Quality | None
    repair: Repair | None
    search: SearchOutcome | None


@dataclass(frozen=True, kw_only=True)
class SearchReport(Document):
    """What was found, and which run found it.

    Attributes:
        schema_version: Version of this document: raised when a key goes or comes to mean something else, not when
            one is added.
        tool_version: Version of msq-onnx.
        arguments: The arguments as given.
        model: The model that was read.
        output: The file that was written; null where none was.
        seed: Seed of everything random; null where nothing is.
        method: How bits were chosen.
        target: What the plan had to keep to, in words.
        reached: Whether it does.
        nearest: What the nearest plan reaches, in words, where the target is out of reach.
        plan: The plan chosen.
        chosen: Which search it comes from; `repair` behind the name if exchanges improved it.
        bits: Bits of a weight on average, a ternary weight 1.6.
        bytes: Bytes of the file by the weights of the search.
        verdict: How good the plan is with the weights of the search, which the full solution improves on.
        float: The float network on the same samples.
        samples: Samples layers were solved on, and samples plans were measured on.
        proposals: What each search proposed.
        steps: The way MSQ went; empty where it was not asked.
        sensitivities: What each layer costs alone; empty where that was not measured.
        front: Plans worth having, from small to large.
        passes: Passes through the network.
        resumed: Measurements taken over from a journal.
    """

    schema_version: int
    tool_version: str
    arguments: tuple[str, ...]
    model: str
    output: str | None
    seed: int | None
    method: str
    target: str
    reached: bool
    nearest: str | None = None
    plan: BitPlan
    chosen: str
    bits: builtins.float
    bytes: int
    verdict: Verdict
    float: Verdict
    samples: tuple[int, int]
    proposals: tuple[Proposal, ...]
    steps: tuple[SearchStep, ...]
    sensitivities: tuple[Sensitivity, ...]
    front: tuple[FrontPoint, ...]
    passes: Passes
    resumed: int


@dataclass(frozen=True, kw_only=True)
class InnerValueError:
    """Error of one value against the reference.

    Attributes:
        name: Its name.
        sqnr: Signal-to-quantization-noise ratio in decibels; absent where the two are equal.
    """

    name: str
    sqnr: float | None


@dataclass(frozen=True, kw_only=True)
class EvaluateReport(Document):
    """What was found, and which run found it.

    Attributes:
        schema_version: Version of this document: raised when a key goes or comes to mean something else, not when
            one is added.
        tool_version: Version of msq-onnx.
        arguments: The arguments as given.
        model: The model that was read.
        output: The file that was written; null where none was.
        seed: Seed of everything random; null where nothing is.
        samples: Samples run.
        accuracy: Share of rows whose largest entry is the label, with labels.
        reference_accuracy: The same for the reference.
        agreement: How far the outputs agree with the reference's.
        metric: The caller's own metric, where there is one.
        reference_metric: The same of the reference.
        lost: What is lost, as the --max-drop counts it: of the caller's own metric, else of accuracy where there
            are labels, else by the worst output; with a reference.
        outputs: Output by output: what it holds, and how far it is from the reference's.
        values: Signal-to-noise ratio of inner values, in graph order: of those that both models name alike; where
            names were shortened, of what layers compute that are the same by name in the metadata, or by order.
    """

    schema_version: int
    tool_version: str
    arguments: tuple[str, ...]
    model: str
    output: str | None
    seed: int | None
    samples: int
    accuracy: float | None
    reference_accuracy: float | None
    agreement: AgreementFigures | None
    metric: float | None = None
    reference_metric: float | None = None
    lost: float | None
    outputs: tuple[OutputMetrics, ...]
    values: tuple[InnerValueError, ...]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two.

    Attributes:
        bytes: Size of the model in bytes, with external data.
        layers: Layers.
        accuracy: Share of labels it gets right; only with labels.
        metric: The caller's own metric; only with one.
    """

    bytes: int
    layers: int
    accuracy: float | None
    metric: float | None = None


@dataclass(frozen=True, kw_only=True)
class LayerPair:
    """A layer of both.

    Attributes:
        name: Its name in the reference.
        op: Operator.
        weights: Number of weights.
        bits: What its weights are in the reference, and in the other model.
        input_sqnr: Signal-to-noise ratio in decibels of what it reads; null where that is equal.
        output_sqnr: Signal-to-noise ratio in decibels of what it computes, before its activation; null where that
            is equal.
    """

    name: str
    op: LayerOp
    weights: int
    bits: tuple[str, str]
    input_sqnr: float | None
    output_sqnr: float | None


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where most of the error comes in.

    Attributes:
        layer: The layer.
        in_weights: Whether it is in its weights, or in what it reads.
        before: Signal-to-noise ratio in decibels before; null where there is no noise.
        after: And behind.
    """

    layer: str
    in_weights: bool
    before: float | None
    after: float


@dataclass(frozen=True, kw_only=True)
class CompareReport(Document):
    """What was found, and which run found it.

    Attributes:
        schema_version: Version of this document: raised when a key goes or comes to mean something else, not when
            one is added.
        tool_version: Version of msq-onnx.
        arguments: The arguments as given.
        model: The other model.
        output: The file that was written; null where none was.
        seed: Seed of everything random; null where nothing is.
        samples: Samples run.
        reference: The reference.
        agreement: How far the outputs agree.
        lost: What is lost, as the --max-drop counts it: of accuracy where there are labels, else by the worst
            output.
        outputs: Output by output: what it holds, and how far it is from the reference's.
        layers: The layers that both have, in graph order.
        starts: Where most of the error comes in; null where there is none.
    """

    schema_version: int
    tool_version: str
    arguments: tuple[str, ...]
    model: Side
    output: str | None
    seed: int | None
    samples: int
    reference: Side
    agreement: AgreementFigures
    lost: float
    outputs: tuple[OutputMetrics, ...]
    layers: tuple[LayerPair, ...]
    starts: Start | None


@dataclass(frozen=True, kw_only=True)
class ValueInspection:
    """A graph input or output.

    Attributes:
        name: Name.
        type: Element type and shape, as far as declared.
    """

    name: str
    type: str


@dataclass(frozen=True, kw_only=True)
class LayerInspection:
    """A layer.

    Attributes:
        name: Name.
        op: Operator.
        shape: Shape of the weight.
        weights: Number of weights.
        macs: Multiply-accumulates for one sample, where the shapes are known.
        bits: Bits of the weights by the plan in the metadata, or what the weights are stored as.
        activation_bits: Bits of the activation it reads; absent where that is float.
        reason: Why it would stay float; absent when it would not.
    """

    name: str
    op: LayerOp
    shape: tuple[int, ...]
    weights: int
    macs: int | None
    bits: str
    activation_bits: int | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class InspectReport(Document):
    """What was found, and which run found it.

    Attributes:
        schema_version: Version of this document: raised when a key goes or comes to mean something else, not when
            one is added.
        tool_version: Version of msq-onnx.
        arguments: The arguments as given.
        model: The model that was read.
        output: The file that was written; null where none was.
        seed: Seed of everything random; null where nothing is.
        producer: The tool that wrote it.
        producer_version: Its version.
        ir_version: Version of the format.
        opset: Operator set.
        nodes: Number of nodes.
        bytes: Size of the model in bytes, with external data.
        inputs: What must be fed.
        outputs: What comes out.
        layers: Layers in graph order.
        kept: Other nodes that would stay float.
        plan: The bit plan in the model's metadata, by names of layers in the float model.
    """

    schema_version: int
    tool_version: str
    arguments: tuple[str, ...]
    model: str
    output: str | None
    seed: int | None
    producer: str
    producer_version: str
    ir_version: int
    opset: int
    nodes: int
    bytes: int
    inputs: tuple[ValueInspection, ...]
    outputs: tuple[ValueInspection, ...]
    layers: tuple[LayerInspection, ...]
    kept: tuple[Kept, ...]
    plan: BitPlan | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something a rule found.

    Attributes:
        rule: The rule.
        severity: How much it matters for the target.
        site: The node or value.
        message: What is wrong with it.
    """

    rule: str
    severity: Severity
    site: str
    message: str


@dataclass(frozen=True, kw_only=True)
class LintReport(Document):
    """What was found, and which run found it.

    Attributes:
        schema_version: Version of this document: raised when a key goes or comes to mean something else, not when
            one is added.
        tool_version: Version of msq-onnx.
        arguments: The arguments as given.
        model: The model that was read.
        output: The file that was written; null where none was.
        seed: Seed of everything random; null where nothing is.
        profile: The target.
        errors: How many findings are errors.
        warnings: How many findings are warnings.
        findings: What the rules found.
    """

    schema_version: int
    tool_version: str
    arguments: tuple[str, ...]
    model: str
    output: str | None
    seed: int | None
    profile: str
    errors: int
    warnings: int
    findings: tuple[Finding, ...]
