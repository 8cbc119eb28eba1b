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

# A turn runs a model as often as fits in so many seconds, at least once.
TURN_SECONDS = 0.01
WARM_UP_RUNS = 5
INTEGER_OPS = {"QLinearConv", "QGemm", "QLinearMatMul", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat"}
FLOAT_OPS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
OPENVINO_LAYERS = {"Convolution", "FullyConnected", "MatMul"}
INTEGER_PRECISIONS = {"u8", "i8"}

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


def interleaved(runs: dict[str, Run], feed: Feed, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each model in each round; the models take turns, and every round another one begins."""
    names = list(runs)
    repeats = {}
    for name in names:
        spent = []
        for _ in range(WARM_UP_RUNS):
            start = time.perf_counter()
            runs[name](feed)
            spent.append(time.perf_counter() - start)
        repeats[name] = max(1, round(TURN_SECONDS / min(spent)))
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            for _ in range(repeats[name]):
                runs[name](feed)
            times[name].append((time.perf_counter() - start) / repeats[name] * 1000)
    return times


def summary(times: list[float], reference: list[float]) -> dict[str, Any]:
    """Median milliseconds; median and quartiles of the ratios to the reference, round by round."""
    ratios = [a / b for a, b in zip(times, reference, strict=True)]
    lower, middle, upper = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return {"ms": statistics.median(times), "ratio": middle, "quartiles": [lower, upper]}
