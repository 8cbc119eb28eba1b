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
FixedInput: TypeAlias = str
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
GradientCode: TypeAlias = str
Format: TypeAlias = Literal["qdq", "qlinear", "integer", "nbits"]
Float16: TypeAlias = Literal["weights", "all", "bfloat16"]
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
        fix_input: Make a constant of an input, with one value for all its elements or one for each, separated by
            commas: what it decides, as the branch that an If takes, is decided then, and the input is gone from the
            written model; may be given again.
    """

    batch_norm: BatchNorm = field(metadata={"key": "batch-norm"})
    equalize: bool | None
    freeze_initializers: FreezeInitializers = field(metadata={"key": "freeze-initializers"})
    fix_input: tuple[FixedInput, ...] = field(metadata={"key": "fix-input"})


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
    """How every layer is quantized.

    Attributes:
        default: Applies to layers that are not named.
        layers: Layers by name.
        sequence: All layers in the order of the graph, if their names are not known.
        float: Names of nodes that are no layers and compute in float.
        observer: How ranges of values are chosen, if not as the options say.
        ranges: How the ranges of single values are chosen, by name.
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
    """How a layer is quantized.

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
        outliers: Whether products with a matrix read in float what quantizers clip of a few channels where that
            loses less.
    """

    observer: ObserverKind
    masks: bool
    smooth: bool
    outliers: bool


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
        solver_rate: Learning rate of weights for `block` and `distill`, relative to the root mean square of a
            layer's weights [default: 0.01 for `block`, 0.001 for `distill`].
        solver_processes: Processes that learn together for `block` and `distill`: each computes the gradients of
            its share of every mini-batch. Of the command line; where the library is given none, one computes all
            shares, with the same result.
        gradient_code: How the gradients that they exchange are encoded: float, onebit, threshold:T, qsgd:BITS,
            terngrad or dorefa:BITS.
    """

    solver: SolverName | None
    rounding: RoundingMode
    bias_correction: bool = field(metadata={"key": "bias-correction"})
    position_step: int = field(metadata={"key": "position-step"})
    solver_steps: int | None = field(metadata={"key": "solver-steps"})
    solver_time: float | None = field(metadata={"key": "solver-time"})
    solver_rate: float | None = field(metadata={"key": "solver-rate"})
    solver_processes: int = field(metadata={"key": "solver-processes"})
    gradient_code: GradientCode = field(metadata={"key": "gradient-code"})


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
        float16: Store in 16 bits what stays float: weights in float16 or bfloat16, which runtimes make float32
            again when they load the file, or all, to compute in float16 as well, for GPUs and NPUs. Inputs and
            outputs keep their types.
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
        weight_bits: Bits of the weights, a number or `ternary`; null for float.
        activation_bits: Bits of the input activation; null for float.
        stays_float: Why the runtime computes the layer in float although the file has it on integers, as rule
            `stays-float` of `lint` says.
        bytes: Bytes of the weights as stored, without the nodes that unpack them.
        weight_sqnr: Signal-to-quantization-noise ratio of the weights in decibels; null if rounding was exact.
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
    stays_float: str | None = None
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
    """A weight that belongs to no layer of the main graph.

    Attributes:
        name: Name of the tensor.
        kind: How it is used.
        op: The operator that reads it.
        shape: Its shape.
        weights: Number of weights.
        weight_bits: Bits of the integers; null for float.
        bytes: Bytes as stored, without scales and the nodes that unpack them.
        weight_sqnr: Signal-to-quantization-noise ratio of the weights in decibels; null if rounding was exact, and
            for float.
        reason: Why it stays in float.
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
    """What is stored and computed in float16.

    Attributes:
        nodes: Nodes of the float model that compute in float16.
        constants: Constants stored in float16.
        bytes: Bytes of these constants.
        left: Nodes and constants that stay in float32.
    """

    nodes: int
    constants: int
    bytes: int
    left: tuple[LeftFloat, ...]


@dataclass(frozen=True, kw_only=True)
class LeftFloat:
    """A node or a constant that stays in float32 although float16 was asked for.

    Attributes:
        name: Name of the node or constant.
        reason: Why it stays in float32.
    """

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class LearningReport:
    """What layers learned by gradients before their weights became integers.

    Attributes:
        processes: Processes that the mini-batches were shared among.
        gradient_code: How the gradients that they exchanged were encoded.
        steps: Mini-batches, of all blocks together.
        exchanged_bytes: Bytes of gradients that the processes received from each other, all together.
        float_bytes: The same if gradients had been exchanged as floats.
        distance_without: Distance of the outputs from the float network's, as searches measure it, on samples held
            out, without learning; null if no block gained.
        distance_with: The same with learning.
        taken: Whether what was learned went into the model.
    """

    processes: int
    gradient_code: GradientCode
    steps: int
    exchanged_bytes: int
    float_bytes: int
    distance_without: float | None
    distance_with: float | None
    taken: bool


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Outputs compared with the float model's.

    Attributes:
        samples: Number of samples compared.
        held_out: Whether these samples were held out of calibration.
        cross_validated: Whether each of them was compared with ranges that were chosen from others, and those
            written were chosen from all.
        chosen_by: Whether the plan was chosen among several by these samples: on others it loses more.
        agreement: Figures over all outputs together.
        accuracy: Share of labels that the quantized model predicts correctly; null without labels.
        float_accuracy: Share of labels that the float model predicts correctly; null without labels.
        metric: Value of the caller's own metric for the quantized model, if one was given.
        float_metric: Value of the caller's own metric for the float model.
        lost: The loss, as --max-drop counts it: in the caller's own metric, else in accuracy if the data have
            labels, else of the worst output.
        lost_error: The standard error of this loss, by how it differs between samples; null with a metric of the
            caller's own, and for few samples.
        lost_at_most: The loss that other samples of the same kind will hardly exceed: its limit of one-sided 95 %
            confidence; null where `lost_error` is.
        outputs: Every output: what it holds, and how far it is from the float model's.
        warnings: Warnings: channels and outputs with a large error, answers that differ, samples that are much
            worse than the rest.
    """

    samples: int
    held_out: bool
    cross_validated: bool | None = None
    chosen_by: bool | None = None
    agreement: AgreementFigures
    accuracy: float | None
    float_accuracy: float | None
    metric: float | None = None
    float_metric: float | None = None
    lost: float
    lost_error: float | None
    lost_at_most: float | None
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
        name: Name of the output.
        kind: What it holds.
        because: Why the program takes it for that.
        state: Whether it is a state or a cache, for an input of the next run; absent if not.
        compared: Whether anything of it was compared; absent if so. Otherwise the loss of 0 says nothing.
        lost: The loss, as `max-drop` counts it for this kind of output.
        distance: What this output contributes to the distance.
        sqnr: Signal-to-noise ratio in decibels, signal being the variance: mean over channels; absent if all are
            equal or none varies.
        worst_sqnr: Signal-to-noise ratio of the worst channel in decibels; absent if all are equal or none varies.
        worst_channel: Index of the worst channel; absent if the output is compared as a whole.
        channels: Number of channels compared; 1 if the output is compared as a whole.
        constant_error: Largest root mean square error of a channel that does not vary in the float network.
        rows: Rows compared: one per sample for a classifier, one per position for a sequence.
        agreement: Share of rows with the same answer.
        divergence: Mean Kullback-Leibler divergence KL(float ‖ network) of the rows in nats.
        softened_divergence: Mean of 4·KL of the same rows at temperature 2, by which searches compare plans.
        same_sequences: Share of sequences that are decoded to the same symbols.
        cosine: Mean cosine with the float network's vector.
        least_cosine: Smallest cosine with the float network's vector.
        boxes: Number of boxes that the float network finds.
        kept: Number of those that the network finds too, with the same class and at an intersection over union of
            one half.
        invented: Number of boxes that only the network finds.
        beside: Signal-to-noise ratio, in decibels, of the further numbers of boxes that are kept, such as
            coefficients of masks, key points and angles: the power of each number's deviation from its mean over
            that of its error.
        worst_quarter: A quarter of the samples that is much worse than the rest, if there is one.
    """

    name: str
    kind: OutputKind
    because: str
    state: bool | None = None
    compared: bool | None = None
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
    softened_divergence: float | None = None
    same_sequences: float | None = None
    cosine: float | None = None
    least_cosine: float | None = None
    boxes: int | None = None
    kept: int | None = None
    invented: int | None = None
    beside: float | None = None
    worst_quarter: QuarterMetrics | None = None


@dataclass(frozen=True, kw_only=True)
class QuarterMetrics:
    """A quarter of the samples, compared with the rest.

    Attributes:
        quarter: Which quarter in the order of the samples, counted from 1; absent if the bad samples are scattered.
        samples: Indices of some of the bad samples, from 0, if they are scattered.
        lost: Loss on this quarter.
        rest: Loss on the other samples.
    """

    quarter: int | None
    samples: tuple[int, ...]
    lost: float
    rest: float


@dataclass(frozen=True, kw_only=True)
class Repair:
    """The attempt to repair a loss that was too large.

    Attributes:
        allowed: The largest loss that is allowed.
        samples: Number of samples that repairs were measured on.
        before: Figures of the network before repairs.
        after: Figures of the network with the repairs.
        reached: Whether the loss is now within what is allowed.
        ranges: Number of values whose range is now chosen by another observer.
        wide_layers: Layers that now read activations of 16 bits.
        float_layers: Layers that now compute in float.
        float_weights: Those of them whose weights are float as well, and weights beside the layers that are float
            now.
        eight_bit_weights: Layers and weights beside them that now have 8 bits instead of fewer.
        float_recurrent: Recurrent nodes that no longer quantize at run time what they read.
        float_operators: Operators whose nodes now compute in float.
        float_work: Share of the network's multiply-accumulates that is now done in float.
        trials: The repairs that were tried.
        cut_short: Whether the budget ended before everything that seemed worth trying was tried.
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
    eight_bit_weights: tuple[str, ...]
    float_recurrent: tuple[str, ...]
    float_operators: tuple[str, ...]
    float_work: float
    trials: tuple[RepairTrial, ...]
    cut_short: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a network compares with the float network.

    Attributes:
        distance: Distance of the outputs from the float network's; lower is better, 0 is the float network.
        agreement: Share of rows whose best class is the float network's; null if no output holds scores.
        accuracy: Share of rows whose best class is the label; null without labels.
        metric: Value of the caller's own metric, if one was given.
        lost: The loss, as `max-drop` counts it: in the caller's own metric, else in accuracy, else of the worst
            output.
        outputs: Figures of every output.
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
        what: The repair, in words.
        lost: Loss of the network with it.
        distance: Distance of the network's outputs from the float network's.
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
        method: Method of the search.
        target: The target, in words.
        reached: Whether the chosen plan meets the target.
        nearest: What the nearest plan reaches, in words, if no plan meets the target.
        plan: The plan chosen.
        chosen: The search that proposed this plan; followed by `repair` if exchanges of bits between layers
            improved it.
        bits: Average bits per weight, a ternary weight counted as 1.6.
        bytes: Size in bytes of the file with the weights that the search used.
        verdict: Figures of the plan with the weights that the search used; those that the solver finds afterwards
            are better.
        float: Figures of the float network on the same samples.
        samples: Number of samples that layers were solved on, and number that plans were measured on.
        proposals: The plan that each search proposed.
        steps: The configurations that MSQ went through; empty if MSQ was not run.
        sensitivities: What each layer adds to the distance when it alone is quantized; empty if that was not
            measured.
        front: Plans than which no other found is both smaller and more accurate, from small to large.
        passes: Passes of the samples through the whole network.
        resumed: Number of measurements that were taken from a journal.
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
        method: Name of the search.
        bits: Average bits per weight.
        verdict: Figures of the plan.
    """

    method: str
    bits: float
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class SearchStep:
    """A configuration that MSQ went through.

    Attributes:
        bits: Average bits per weight.
        packed_bytes: Bytes of the weights as packed.
        accuracies: `Acc_1` to `Acc_N`, the imprinted accuracies of the layers.
        lowered: The layers whose bits are lowered next.
        plan: The configuration.
    """

    bits: float
    packed_bytes: int
    accuracies: tuple[float, ...]
    lowered: tuple[str, ...]
    plan: BitPlan


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What one layer adds to the distance.

    Attributes:
        layer: Name of the layer.
        costs: Pairs: bits of the weights, and the increase of the distance when this layer alone has these bits.
    """

    layer: str
    costs: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """A plan of the front.

    Attributes:
        bits: Average bits per weight.
        packed_bytes: Bytes of the weights as packed.
        verdict: Figures of the plan.
        method: The search that found it.
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
        run: Passes that were run, counted in multiply-accumulates of one pass.
        full: Passes that would have been run without reusing the results of layers that did not change.
    """

    run: float
    full: float


@dataclass(frozen=True, kw_only=True)
class Report(Document):
    """The result of a run, with the arguments that produced it.

    Attributes:
        schema_version: Version of this document's format. It is raised when a key is removed or changes its
            meaning, not when one is added.
        tool_version: Version of msq-onnx.
        arguments: The command line arguments.
        model: The model file that was read.
        output: The file that was written; null if none was.
        seed: Seed of the random numbers; null if the command draws none.
        opset: Version of the operator set `ai.onnx` of the float model.
        float_bytes: Size of the float model in bytes, on disk.
        bytes: Size of the quantized model in bytes, on disk.
        samples: Number of calibration samples.
        data: Where the data came from, in words.
        preprocessing: How image files became numbers, in words; null for other data.
        synthetic: Whether the data were generated because none were given.
        calibrate_seconds: Time that calibration took, in seconds.
        seconds: Time of the whole run, in seconds.
        options: The options of the run; after a search, with the plan that was found.
        plan: The bits of every layer: with this plan the run can be repeated.
        names: Names of inner values that were shortened, with their names in the file.
        layers: The layers with integer weights in graph order.
        float_layers: The layers that stay in float.
        stored: Weights that belong to no layer: embedding tables, recurrent weights, weights of sub-graphs.
        notes: Messages about the file for its user.
        kept: The nodes that stay in float, and why.
        float16: What is stored in float16, if that was asked for.
        learning: What layers learned before they were solved, with the solvers that let them.
        quality: How close the outputs are to the float model's; null if that was not measured.
        repair: What was repaired; null if the loss was small enough.
        search: The search for the bits; null if there was none.
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
    preprocessing: str | None
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
    learning: LearningReport | None = None
    quality: Quality | None
    repair: Repair | None
    search: SearchOutcome | None


@dataclass(frozen=True, kw_only=True)
class SearchReport(Document):
    """The result of a run, with the arguments that produced it.

    Attributes:
        schema_version: Version of this document's format. It is raised when a key is removed or changes its
            meaning, not when one is added.
        tool_version: Version of msq-onnx.
        arguments: The command line arguments.
        model: The model file that was read.
        output: The file that was written; null if none was.
        seed: Seed of the random numbers; null if the command draws none.
        method: Method of the search.
        target: The target, in words.
        reached: Whether the chosen plan meets the target.
        nearest: What the nearest plan reaches, in words, if no plan meets the target.
        plan: The plan chosen.
        chosen: The search that proposed this plan; followed by `repair` if exchanges of bits between layers
            improved it.
        bits: Average bits per weight, a ternary weight counted as 1.6.
        bytes: Size in bytes of the file with the weights that the search used.
        verdict: Figures of the plan with the weights that the search used; those that the solver finds afterwards
            are better.
        float: Figures of the float network on the same samples.
        samples: Number of samples that layers were solved on, and number that plans were measured on.
        proposals: The plan that each search proposed.
        steps: The configurations that MSQ went through; empty if MSQ was not run.
        sensitivities: What each layer adds to the distance when it alone is quantized; empty if that was not
            measured.
        front: Plans than which no other found is both smaller and more accurate, from small to large.
        passes: Passes of the samples through the whole network.
        resumed: Number of measurements that were taken from a journal.
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
        name: Name of the value.
        sqnr: Signal-to-quantization-noise ratio in decibels; absent if the two are equal.
    """

    name: str
    sqnr: float | None


@dataclass(frozen=True, kw_only=True)
class EvaluateReport(Document):
    """The result of a run, with the arguments that produced it.

    Attributes:
        schema_version: Version of this document's format. It is raised when a key is removed or changes its
            meaning, not when one is added.
        tool_version: Version of msq-onnx.
        arguments: The command line arguments.
        model: The model file that was read.
        output: The file that was written; null if none was.
        seed: Seed of the random numbers; null if the command draws none.
        samples: Number of samples that were run.
        accuracy: Share of rows whose largest entry is the label; null without labels.
        reference_accuracy: The same share for the reference.
        agreement: Figures over all outputs together, against the reference.
        metric: Value of the caller's own metric, if one was given.
        reference_metric: Value of the caller's own metric for the reference.
        lost: The loss against the reference, as --max-drop counts it: in the caller's own metric, else in accuracy
            if the data have labels, else of the worst output; null without a reference.
        outputs: Every output: what it holds, and how far it is from the reference's.
        values: Signal-to-noise ratios of inner values, in graph order: of values with the same name in both models
            or, if names were shortened, of the outputs of layers, matched by the names in the metadata or by order.
        fixed_inputs: Inputs that are fixed in both models: because the caller wants it, or because one was
            quantized so.
        text_outputs: Outputs that are text, which is neither computed nor compared.
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
    fixed_inputs: tuple[FixedInput, ...] = ()
    text_outputs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two models.

    Attributes:
        bytes: Size of the model in bytes, with external data.
        layers: Number of layers.
        accuracy: Share of labels that it predicts correctly; only if the data have labels.
        metric: Value of the caller's own metric, if one was given.
    """

    bytes: int
    layers: int
    accuracy: float | None
    metric: float | None = None


@dataclass(frozen=True, kw_only=True)
class LayerPair:
    """A layer that both models have.

    Attributes:
        name: Its name in the reference.
        op: Operator.
        weights: Number of weights.
        bits: Type or bits of its weights in the reference, and in the other model.
        input_sqnr: Signal-to-noise ratio in decibels of its input; null if the inputs are equal.
        output_sqnr: Signal-to-noise ratio in decibels of its output, before its activation function; null if the
            outputs are equal.
    """

    name: str
    op: LayerOp
    weights: int
    bits: tuple[str, str]
    input_sqnr: float | None
    output_sqnr: float | None


@dataclass(frozen=True, kw_only=True)
class Start:
    """The layer that adds most of the error.

    Attributes:
        layer: Name of the layer.
        in_weights: Whether the error is in the layer's weights (true) or in its input (false).
        before: Signal-to-noise ratio in decibels before the error is added; null if there is no noise there.
        after: Signal-to-noise ratio in decibels after it is added.
    """

    layer: str
    in_weights: bool
    before: float | None
    after: float


@dataclass(frozen=True, kw_only=True)
class CompareReport(Document):
    """The result of a run, with the arguments that produced it.

    Attributes:
        schema_version: Version of this document's format. It is raised when a key is removed or changes its
            meaning, not when one is added.
        tool_version: Version of msq-onnx.
        arguments: The command line arguments.
        model: The other model.
        output: The file that was written; null if none was.
        seed: Seed of the random numbers; null if the command draws none.
        samples: Number of samples compared.
        reference: The reference model.
        agreement: How far the outputs agree.
        lost: The loss, as --max-drop counts it: the drop in accuracy if the data have labels, else the loss of the
            worst output.
        outputs: Every output: what it holds, and how far it is from the reference's.
        layers: The layers that both models have, in graph order.
        starts: The layer that adds most of the error; null if there is no error.
        fixed_inputs: Inputs that are fixed in both models: because the caller wants it, or because one was
            quantized so.
        text_outputs: Outputs that are text, which is neither computed nor compared.
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
    fixed_inputs: tuple[FixedInput, ...] = ()
    text_outputs: tuple[str, ...] = ()


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
        activation_bits: Bits of its input activation; absent if that is float.
        reason: Why it would stay in float; absent if it would be quantized.
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
    """The result of a run, with the arguments that produced it.

    Attributes:
        schema_version: Version of this document's format. It is raised when a key is removed or changes its
            meaning, not when one is added.
        tool_version: Version of msq-onnx.
        arguments: The command line arguments.
        model: The model file that was read.
        output: The file that was written; null if none was.
        seed: Seed of the random numbers; null if the command draws none.
        producer: The tool that wrote the model.
        producer_version: Version of that tool.
        ir_version: Version of ONNX's file format (IR version).
        opset: Version of the operator set `ai.onnx`.
        nodes: Number of nodes.
        bytes: Size of the model in bytes, with external data.
        inputs: Inputs of the graph that a caller must feed.
        outputs: Outputs of the graph.
        layers: Layers that can be quantized, in graph order.
        kept: Other nodes that would stay in float.
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
    """The result of a run, with the arguments that produced it.

    Attributes:
        schema_version: Version of this document's format. It is raised when a key is removed or changes its
            meaning, not when one is added.
        tool_version: Version of msq-onnx.
        arguments: The command line arguments.
        model: The model file that was read.
        output: The file that was written; null if none was.
        seed: Seed of the random numbers; null if the command draws none.
        profile: The target.
        errors: Number of findings that are errors.
        warnings: Number of findings that are warnings.
        findings: The findings.
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
