"""What `speed.py` and `any_model.py` share: onnxruntime sessions, samples as feeds, times, onnxruntime's quantizer.

Importing this module loads onnxruntime; `common.py` does not, for the process that is measured.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime as ort
from common import Feed

WARM_UP_RUNS = 3
LEAST_ROUNDS = 5
TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
TYPES |= {f"tensor({name})": np.dtype(name).type for name in ("int64", "int32", "int8", "uint8", "bool")}


def session(model: Path, optimized: Path | None = None) -> ort.InferenceSession:
    """A session on one thread of the CPU; `optimized` is where it writes the graph that it runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def random_feeds(model: Path, count: int, open_axis: int) -> list[Feed]:
    """Batches of one: standard-normal floats and integers 0 or 1; other open axes than the first have this length."""
    random, inputs = np.random.default_rng(0), session(model).get_inputs()
    found = []
    for _ in range(count):
        feed = {}
        for entry in inputs:
            known = [n if isinstance(n, int) and n > 0 else open_axis for n in entry.shape]
            shape = known if not known or isinstance(entry.shape[0], int) else [1, *known[1:]]
            dtype = np.dtype(TYPES[entry.type])
            values = random.standard_normal(shape) if dtype.kind == "f" else random.integers(0, 2, shape)
            feed[entry.name] = np.asarray(values).astype(dtype)
        found.append(feed)
    return found


def feeds(model: Path, samples: Feed) -> list[Feed]:
    """Batches of one out of arrays whose first axis counts the samples."""
    inputs = [entry for entry in session(model).get_inputs() if entry.name in samples]
    count = min(len(samples[entry.name]) for entry in inputs)

    def one(entry: ort.NodeArg, at: int) -> np.ndarray:
        """The sample as it is where the model has no batch axis."""
        values = samples[entry.name]
        sample = values[at] if values.ndim == len(entry.shape) + 1 else values[at : at + 1]
        return np.ascontiguousarray(sample.astype(TYPES[entry.type]))

    return [{entry.name: one(entry, at) for entry in inputs} for at in range(count)]


def times(
    models: dict[str, Path], feed: Feed, rounds: int = 1000, slice_ms: float = 10, seconds: float = float("inf")
) -> dict[str, list[float]]:
    """Milliseconds of processor time of one run of each model, round by round.

    The models take turns: a round runs each for about `slice_ms`. It ends after so many rounds, or after `seconds` for
    each model and at least five rounds.
    """
    sessions = {name: session(path) for name, path in models.items()}
    runs: dict[str, int] = {}
    for name, running in sessions.items():
        spent = []
        for _ in range(WARM_UP_RUNS):
            start = time.thread_time()
            running.run(None, feed)
            spent.append(time.thread_time() - start)
        runs[name] = max(1, round(slice_ms / 1000 / max(min(spent), 1e-7)))
    found: dict[str, list[float]] = {name: [] for name in sessions}
    order = list(sessions)
    end = time.perf_counter() + seconds * len(order)
    for at in range(rounds):
        if at >= LEAST_ROUNDS and time.perf_counter() > end:
            break
        turned = order[at % len(order) :] + order[: at % len(order)]
        for name in turned:
            running = sessions[name]
            start = time.thread_time()
            for _ in range(runs[name]):
                running.run(None, feed)
            found[name].append((time.thread_time() - start) / runs[name] * 1000)
    return found


def ratio(spent: dict[str, list[float]], name: str, other: str = "float") -> float:
    """The median over rounds of how much longer one takes than the other."""
    return statistics.median(a / b for a, b in zip(spent[name], spent[other], strict=True))


def prepared(model: Path, folder: Path) -> Path:
    """The model as onnxruntime's own preparation leaves it, or as it is where that fails."""
    from ort_quantize import pre_process, with_per_channel_opset

    target = folder / "prepared.onnx"
    try:
        pre_process(with_per_channel_opset(model, folder), target)
    except Exception:  # noqa: BLE001 - its own errors are bare
        return model
    return target


def quantize_statically(model: Path, output: Path, samples: Iterable[Feed]) -> None:
    """onnxruntime's quantizer: QDQ, uint8 activations, int8 weights with one scale per channel."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from ort_quantize import Reader

    # onnxruntime leaves scratch files in the current folder when its shape inference fails.
    model, output = model.resolve(), output.resolve()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        reader = Reader(iter(samples))
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        source = prepared(model, Path(name))
        quantize_static(source, output, reader, quant_format=QuantFormat.QDQ, per_channel=True, **types)
