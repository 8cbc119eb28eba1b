"""Run models in onnxruntime and OpenVINO on one thread, see what they execute, and time them in turns."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from common import Feed

# A turn runs a model as often as fits in so much time, at least once.
TURN_MILLISECONDS = 10
WARM_UP_RUNS = 5
INTEGER_OPS = {"QLinearConv", "QGemm", "QLinearMatMul", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat"}
FLOAT_OPS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
OPENVINO_LAYERS = {"Convolution", "FullyConnected", "MatMul"}
INTEGER_PRECISIONS = {"u8", "i8"}

Json = dict[str, Any]
Run = Callable[[Feed], list[np.ndarray]]


def ort_options() -> ort.SessionOptions:
    """One thread, no warnings."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return options


def ort_run(model: Path) -> Run:
    """Runs the model on onnxruntime's CPU provider."""
    session = ort.InferenceSession(str(model), ort_options(), providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, feed)


def ort_nodes(model: Path) -> Counter[str]:
    """Operators of the graph that onnxruntime executes, before layouts are chosen."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort_options()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    return Counter(node.op_type for node in nodes)


def integer_share(nodes: Counter[str]) -> tuple[int, int]:
    """Layers that run on integers, and all layers."""
    integer = sum(nodes[op] for op in INTEGER_OPS)
    return integer, integer + sum(nodes[op] for op in FLOAT_OPS)


class OpenVino:
    """OpenVINO's CPU plugin with one thread and one stream, shapes fixed to those of a feed."""

    def __init__(self) -> None:
        import openvino

        self.version: str = openvino.__version__
        self.core = openvino.Core()
        self.core.set_property("CPU", {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"})

    def load(self, model: Path, feed: Feed) -> tuple[Run, tuple[int, int]]:
        """How to run the model; and its convolutions and products in int8, and all of them."""
        network = self.core.read_model(model)
        network.reshape({name: list(values.shape) for name, values in feed.items()})
        compiled = self.core.compile_model(network, "CPU")
        request = compiled.create_infer_request()
        outputs = list(compiled.outputs)

        def run(values: Feed) -> list[np.ndarray]:
            results = request.infer(values)
            return [np.array(results[output]) for output in outputs]

        return run, precisions(compiled)


def precisions(compiled: Any) -> tuple[int, int]:
    """Layers that OpenVINO runs in int8, and all layers."""
    layers = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) in OPENVINO_LAYERS:
            layers.append(info["runtimePrecision"].astype(str))
    return sum(precision in INTEGER_PRECISIONS for precision in layers), len(layers)


def milliseconds(run: Run, feed: Feed) -> float:
    """Processor time of one run: with one thread the latency on an idle machine, on a busy one without the waiting."""
    start = time.process_time()
    run(feed)
    return (time.process_time() - start) * 1000


def interleaved(runs: dict[str, Run], reference: Run, feed: Feed, rounds: int) -> dict[str, Json]:
    """Milliseconds of each model, and ratios to the reference.

    The models take turns, and every round another one begins. In its turn a model and the reference run alternately;
    the turn's ratio is that of the two medians, so that what else the machine does meets both. The first pair does not
    count: the model's weights have left the caches since its last turn, the reference's have not.
    """
    names = list(runs)
    repeats = {}
    for name, run in runs.items():
        spent = min(milliseconds(run, feed) for _ in range(WARM_UP_RUNS))
        repeats[name] = max(1, round(TURN_MILLISECONDS / spent))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            pairs = [(milliseconds(runs[name], feed), milliseconds(reference, feed)) for _ in range(repeats[name] + 1)]
            spent, against = zip(*pairs[1:], strict=True)
            times[name].append((statistics.median(spent), statistics.median(against)))
    return {name: summary(turns) for name, turns in times.items()}


def summary(turns: list[tuple[float, float]]) -> Json:
    """Median milliseconds; median and quartiles of the ratios."""
    ratios = [spent / against for spent, against in turns]
    lower, middle, upper = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return {"ms": statistics.median(spent for spent, _ in turns), "ratio": middle, "quartiles": [lower, upper]}
