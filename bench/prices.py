"""Measure convolutions in onnxruntime on one thread, and fit the prices that placement goes by.

    python prices.py --out OUT [--repeats 40]

A node is left in float where these prices say that the runtime runs it faster there
(`passes/src/target/ort_cpu.rs`). Runs a grid of single two-dimensional convolutions, in
float and as `QLinearConv` with channels last, which is what onnxruntime makes of a
quantized model, and takes the time of their kernels from its profiles. Of each form of
the kernels one set of prices is fitted by least squares of the relative errors. Prints
the prices, in nanoseconds, with the median and the 90th percentile of the relative
errors; `prices.json` in `--out` has all times. Then the same of convolutions over series,
dilated ones among them, of depthwise ones, and of `MaxPool` behind a convolution.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from compare_ort import environment
from onnx import TensorProto, helper, numpy_helper

LANES = 16
LARGEST_MACS = 60e6
NODE_US, INTEGER_NODE_US = 0.7, 1.4
SERIES, SERIES_MACS = 120, (4e5, 2e7)
#: Prices of series: in float, and on integers where columns are gathered.
SERIES_PRICES = ("product", "column", "strided column", "output", "position", "row", "dilated row", "dilated tap", "more per node, in µs")
#: Prices of groups, the last two per group.
GROUP_PRICES = ("product", "column", "output", "position", "row", "group, in µs", "more where it gathers")
DEPTHWISE_CHANNELS = (8, 16, 24, 32, 48, 64, 88, 104, 128, 200)
DEPTHWISE_SIZES = {1: ([256], [2048]), 2: ([14, 14], [28, 28]), 3: ([4, 12, 12], [6, 14, 14])}
#: Products with one vector of output channels and with more of them, positions, rows of the kernel, kernel positions,
#: gathered values, output values.
PRICES = ("single_product", "product", "position", "row", "tap", "column", "output")


@dataclass(frozen=True)
class Shape:
    """A convolution without strides, padded so that its output is as large as its input."""

    inputs: int
    outputs: int
    kernel: int
    size: int

    @property
    def macs(self) -> int:
        """Products."""
        return self.inputs * self.outputs * self.kernel**2 * self.size**2


def quantized(rng: np.random.Generator, weight: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The constants of a convolution on integers whose weight has this shape, output channels first."""
    return {
        "w": rng.integers(-60, 60, weight).astype(np.int8),
        "s": np.float32(0.02),
        "z": np.uint8(128),
        "ws": np.full(weight[0], 0.01, np.float32),
        "wz": np.zeros(weight[0], np.int8),
        "os": np.float32(1),
    }


def integer_convolution(attributes: dict[str, object]) -> onnx.NodeProto:
    """A convolution on integers that lie channels together, of x."""
    read = ["x", "s", "z", "w", "ws", "wz", "os", "z"]
    return helper.make_node("QLinearConv", read, ["y"], domain="com.microsoft", channels_last=1, **attributes)


def up(count: int) -> int:
    """Rounded up to whole vectors."""
    return -(-count // LANES) * LANES


def form(shape: Shape, integer: bool) -> str:
    """Which kernel takes a convolution."""
    if integer:
        direct = shape.inputs % 4 == 0 and shape.outputs >= LANES
    else:
        direct = shape.inputs >= LANES
    return ("integer" if integer else "float") + (" direct" if direct else " gathered")


def counts(shape: Shape, integer: bool) -> np.ndarray:
    """What each price is multiplied with."""
    positions, taps = shape.size**2, shape.kernel**2
    direct = form(shape, integer).endswith("direct")
    inputs = up(shape.inputs) if direct and not integer else shape.inputs
    products = positions * taps * inputs * up(shape.outputs)
    single = shape.outputs <= LANES
    gathered = 0 if direct or taps == 1 else 1
    return np.array(
        [
            products if single else 0,
            0 if single else products,
            positions,
            positions * shape.kernel * gathered * integer,
            positions * taps * direct * integer,
            positions * taps * shape.inputs * gathered * integer,
            positions * up(shape.outputs),
        ],
        np.float64,
    )


def model(shape: Shape, integer: bool, rng: np.random.Generator) -> tuple[onnx.ModelProto, np.ndarray]:
    """One convolution, and its input."""
    weight = (shape.outputs, shape.inputs, shape.kernel, shape.kernel)
    attributes = {"pads": [shape.kernel // 2] * 4, "kernel_shape": [shape.kernel] * 2}
    if integer:
        tensors = quantized(rng, weight)
        node = integer_convolution(attributes)
        x = rng.integers(0, 255, (1, shape.size, shape.size, shape.inputs)).astype(np.uint8)
        element = TensorProto.UINT8
    else:
        tensors = {"w": rng.standard_normal(weight).astype(np.float32), "b": np.zeros(shape.outputs, np.float32)}
        node = helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)
        x = rng.standard_normal((1, shape.inputs, shape.size, shape.size)).astype(np.float32)
        element = TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("x", element, x.shape)],
        [helper.make_tensor_value_info("y", element, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), x


def kernel_time(proto: onnx.ModelProto, x: np.ndarray, op: str, repeats: int) -> float:
    """Microseconds of the kernel of an operator: the lower quartile over runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for _ in range(repeats):
            session.run(None, {"x": x})
        events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event for event in events if event["name"].endswith("_kernel_time")]
    return float(np.percentile([event["dur"] for event in kernels if event["args"]["op_name"] == op], 25))


def fitted(rows: list[tuple[np.ndarray, float]]) -> tuple[dict[str, float], np.ndarray]:
    """Prices that are not negative, by least squares of the relative errors, and these errors."""
    features = np.stack([counted / time for counted, time in rows]) / 1000
    used = [at for at in range(len(PRICES)) if features[:, at].any()]
    while True:
        prices, *_ = np.linalg.lstsq(features[:, used], np.ones(len(rows)), rcond=None)
        if (prices >= 0).all():
            break
        used.pop(int(prices.argmin()))
    return {PRICES[at]: float(price) for at, price in zip(used, prices, strict=True)}, features[:, used] @ prices - 1


def depthwise(
    channels: int, kernel: int, size: list[int], rng: np.random.Generator, *, integer: bool
) -> tuple[onnx.ModelProto, np.ndarray]:
    """One depthwise convolution, on integers with channels last, and its input."""
    axes = len(size)
    weight = (channels, 1, *[kernel] * axes)
    attributes = {"pads": [kernel // 2] * 2 * axes, "kernel_shape": [kernel] * axes, "group": channels}
    if integer:
        tensors = quantized(rng, weight)
        node = integer_convolution(attributes)
        x, element = rng.integers(0, 255, (1, *size, channels)).astype(np.uint8), TensorProto.UINT8
    else:
        tensors = {"w": rng.standard_normal(weight).astype(np.float32)}
        node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
        x, element = rng.standard_normal((1, channels, *size)).astype(np.float32), TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "depthwise",
        [helper.make_tensor_value_info("x", element, x.shape)],
        [helper.make_tensor_value_info("y", element, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), x


def fit_depthwise(repeats: int, rng: np.random.Generator) -> None:
    """Measures depthwise convolutions of one to three axes, in float and on integers, and prints prices per kernel position,
    per product, in two axes in float per output, and per weight where their channels are no multiple of four: of integers
    apart where channels are whole vectors. What any node takes is subtracted."""
    rows: dict[str, list[tuple[list[float], float]]] = {}
    grid = [(*case, DEPTHWISE_SIZES[case[0]]) for case in itertools.product((1, 2, 3), DEPTHWISE_CHANNELS, (3, 5))]
    grid += [(2, *case, ([6, 6], [14, 14], [28, 28], [56, 56])) for case in itertools.product((10, 30, 75, 90), (3, 5, 7))]
    for axes, channels, kernel, lengths in ((*case, lengths) for *case, sizes in grid for lengths in sizes):
        positions, taps = int(np.prod(lengths)), kernel**axes
        for integer in (False, True):
            proto, x = depthwise(channels, kernel, lengths, rng, integer=integer)
            op, node = ("QLinearConv", INTEGER_NODE_US) if integer else ("Conv", NODE_US)
            time = kernel_time(proto, x, op, repeats) - node
            odd = not integer and channels % 4 != 0
            blocked = not integer and axes == 2 and not odd
            lanes = up(channels) if blocked else channels
            by_tap = 0 if blocked or odd else positions * taps
            counted = [by_tap, positions * taps * lanes, positions * lanes if blocked else 0, taps * channels if odd else 0]
            of_integers = ", whole vectors" if channels % LANES == 0 else ", other channels"
            whole = of_integers if integer else ", channels not in fours" if odd else ""
            name = f"depthwise {'integer' if integer else 'float'}, axes {axes}{whole}"
            rows.setdefault(name, []).append(([count / 1000 for count in counted], time))
    for name, found in sorted(rows.items()):
        relative = np.array([np.array(counted) / time for counted, time in found])
        prices, *_ = np.linalg.lstsq(relative, np.ones(len(found)), rcond=None)
        middle, most = np.percentile(np.abs(relative @ prices - 1), [50, 90])
        listed = f"tap {prices[0]:.4f}, product {prices[1]:.4f}, output {prices[2]:.4f}, weight {prices[3]:.4f}"
        errors = f"errors {100 * middle:.0f} %, at most {100 * most:.0f} % of 9 in 10"
        print(f"{name}, {len(found)} convolutions: {listed}; {errors}", flush=True)


def least_squares(name: str, terms: tuple[str, ...], found: list[tuple[list[float], float]]) -> None:
    """Prints prices that are not negative, by least squares of the relative errors."""
    relative = np.array([np.array(counted) / time for counted, time in found])
    used = [at for at in range(len(terms)) if relative[:, at].any()]
    while True:
        prices, *_ = np.linalg.lstsq(relative[:, used], np.ones(len(found)), rcond=None)
        if (prices >= 0).all():
            break
        used.pop(int(prices.argmin()))
    middle, most = np.percentile(np.abs(relative[:, used] @ prices - 1), [50, 90])
    listed = ", ".join(f"{terms[at]} {price:.4f}" for at, price in zip(used, prices, strict=True))
    print(f"{name}, {len(found)} shapes: {listed}; errors {100 * middle:.0f} %, at most {100 * most:.0f} % of 9 in 10", flush=True)


def series(
    channels: tuple[int, int], kernel: int, length: int, step: int, *, integer: bool, stride: int = 1
) -> tuple[onnx.ModelProto, np.ndarray]:
    """A convolution over a series, with `step` positions from tap to tap, and `stride` from output to output."""
    rng, (inputs, outputs) = np.random.default_rng(0), channels
    attributes = {"kernel_shape": [kernel], "dilations": [step], "strides": [stride]}
    length = stride * (length - 1) + step * (kernel - 1) + 1
    if integer:
        tensors = quantized(rng, (outputs, inputs, kernel))
        node = integer_convolution(attributes)
        x, element = rng.integers(0, 255, (1, length, inputs)).astype(np.uint8), TensorProto.UINT8
    else:
        weight = rng.standard_normal((outputs, inputs, kernel)).astype(np.float32)
        tensors = {"w": weight, "b": np.zeros(outputs, np.float32)}
        node = helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)
        x, element = rng.standard_normal((1, inputs, length)).astype(np.float32), TensorProto.FLOAT
    return single([node], x, element, tensors), x


def single(nodes: list[onnx.NodeProto], x: np.ndarray, element: int, tensors: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A graph from `x` to `y`."""
    graph = helper.make_graph(
        nodes,
        "nodes",
        [helper.make_tensor_value_info("x", element, x.shape)],
        [helper.make_tensor_value_info("y", element, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def fit_series(repeats: int) -> None:
    """Measures convolutions over series, in float and, where columns are gathered, on integers."""
    widths = (1, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
    grid = itertools.product(widths, widths, (1, 3, 5, 7), (48, 192, 400, 1024), (1, 2, 4), (1, 4))
    shapes = [at for at in grid if SERIES_MACS[0] < np.prod(at[:4]) < SERIES_MACS[1] and (at[2] > 1 or at[4] == 1)]
    in_float, gathered = [], []
    for at in np.random.default_rng(3).permutation(len(shapes))[:SERIES]:
        inputs, outputs, kernel, length, step, stride = shapes[at]
        direct = inputs % 4 == 0 and outputs >= LANES
        for integer in (False, True):
            if integer and direct:
                continue
            proto, x = series((inputs, outputs), kernel, length, step, integer=integer, stride=stride)
            time = kernel_time(proto, x, "QLinearConv" if integer else "Conv", repeats)
            time -= INTEGER_NODE_US if integer else NODE_US
            lanes, several, dilated = up(outputs) if integer else outputs, kernel > 1, step > 1
            rows = [several and integer and not dilated, several and integer and dilated]
            columns, strided = kernel * inputs * several, stride > 1 and not integer
            counted = [kernel * inputs * lanes, columns, columns * strided, lanes, 1, *rows, kernel * rows[1]]
            (gathered if integer else in_float).append(([*(length * count / 1000 for count in counted), 1], time))
    # The profile's own time is in every node.
    least_squares("series float", SERIES_PRICES, in_float)
    least_squares("series integer gathered", SERIES_PRICES, gathered)


def grouped(
    groups: int, widths: tuple[int, int], kernel: int, size: list[int], rng: np.random.Generator, *, integer: bool
) -> tuple[onnx.ModelProto, np.ndarray]:
    """A convolution of groups of so many input and output channels, and its input."""
    inputs, outputs = widths
    axes = len(size)
    weight = (groups * outputs, inputs, *[kernel] * axes)
    attributes = {"pads": [kernel // 2] * 2 * axes, "kernel_shape": [kernel] * axes, "group": groups}
    if integer:
        x = rng.integers(0, 255, (1, *size, groups * inputs)).astype(np.uint8)
        return single([integer_convolution(attributes)], x, TensorProto.UINT8, quantized(rng, weight)), x
    x = rng.standard_normal((1, groups * inputs, *size)).astype(np.float32)
    tensors = {"w": rng.standard_normal(weight).astype(np.float32), "b": np.zeros(groups * outputs, np.float32)}
    return single([helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)], x, TensorProto.FLOAT, tensors), x


def fit_groups(repeats: int) -> None:
    """Measures convolutions of groups with one and two axes, in float those of two whose channels are whole vectors apart."""
    rng, found = np.random.default_rng(4), {}
    widths = ((1, 2), (1, 4), (2, 1), (2, 2), (4, 4), (4, 8), (8, 8), (8, 16), (12, 12), (16, 16), (24, 24), (32, 32), (64, 64))
    sizes = ([3, 3], [4, 4], [7, 7], [14, 14], [28, 28], [50], [200], [1000])
    for width, groups, kernel, size in itertools.product(widths, (2, 4, 13, 32), (1, 3), sizes):
        inputs, outputs = width
        axes, positions, taps = len(size), int(np.prod(size)), kernel ** len(size)
        if not 1e4 < positions * taps * groups * inputs * outputs < LARGEST_MACS / 4:
            continue
        for integer in (False, True):
            proto, x = grouped(groups, width, kernel, size, rng, integer=integer)
            time = kernel_time(proto, x, "QLinearConv" if integer else "Conv", repeats)
            time -= INTEGER_NODE_US if integer else NODE_US
            whole = axes == 2 and inputs % LANES == 0 and outputs % LANES == 0
            lanes, several = up(outputs) if integer else outputs, kernel > 1
            columns, rows = taps * inputs * several, taps // kernel * several * integer
            counted = [taps * inputs * lanes, columns, lanes, 1, rows]
            name = f"{axes} axes, {'integer' if integer else 'float, whole vectors' if whole else 'float'}"
            terms = [*(groups * positions * count / 1000 for count in counted), groups, groups * several]
            found.setdefault(name, []).append((terms, time))
    for name, rows in found.items():
        least_squares(f"groups {name}", GROUP_PRICES, rows)


def run_time(proto: onnx.ModelProto, x: np.ndarray, repeats: int) -> float:
    """Nanoseconds of processor time of a run: the least of several."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session, spent = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"]), []
    for _ in range(repeats):
        start = time.process_time_ns()
        session.run(None, {"x": x})
        spent.append(time.process_time_ns() - start)
    return min(spent)


def far_columns(repeats: int) -> None:
    """Prints what a value of the columns takes more on integers where all of them do not fit into the cache."""
    for inputs, outputs, kernel in ((8, 8, (3, 3)), (8, 1, (5, 5)), (8, 8, (3, 15)), (32, 1, (7, 3)), (8, 8, (3, 39))):
        values, spent = inputs * kernel[0] * kernel[1], []
        for size in (40, 208):
            attributes = {"kernel_shape": list(kernel), "pads": [length // 2 for length in kernel] * 2}
            rng = np.random.default_rng(0)
            tensors = quantized(rng, (outputs, inputs, *kernel))
            node = integer_convolution(attributes)
            x = rng.integers(0, 255, (1, size, size, inputs)).astype(np.uint8)
            spent.append(run_time(single([node], x, TensorProto.UINT8, tensors), x, repeats) / size**2)
        print(f"{inputs} to {outputs}, kernel {kernel}, {values * 208**2 / 1e6:.1f} MB of columns: {(spent[1] - spent[0]) / values:.3f} ns more per value")


def fit_pools(repeats: int) -> None:
    """Measures `MaxPool` between convolutions in float, and with channels last on integers."""
    rng, found = np.random.default_rng(0), ([], [])
    for channels, size, (kernel, step) in itertools.product((16, 32, 64), (32, 64, 112), ((2, 2), (3, 2), (3, 1))):
        attributes = {"kernel_shape": [kernel] * 2, "strides": [step] * 2, "pads": [kernel // 3] * 4}
        x = rng.standard_normal((1, 16, size, size)).astype(np.float32)
        weights = {"w": np.ones((channels, 16, 1, 1), np.float32), "v": np.ones((16, channels, 1, 1), np.float32)}
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("MaxPool", ["a"], ["b"], **attributes),
            helper.make_node("Conv", ["b", "v"], ["y"]),
        ]
        q = rng.integers(0, 255, (1, size, size, channels)).astype(np.uint8)
        pool = helper.make_node("NhwcMaxPool", ["x"], ["y"], domain="com.microsoft", **attributes)
        times = (
            kernel_time(single(nodes, x, TensorProto.FLOAT, weights), x, "MaxPool", repeats) - NODE_US,
            kernel_time(single([pool], q, TensorProto.UINT8, {}), q, "NhwcMaxPool", repeats) - INTEGER_NODE_US,
        )
        positions = (-(-size // step)) ** 2
        for form, taken in enumerate(times):
            counted = [positions * channels * kernel**2 / 1000, positions / 1000 * form, 1]
            found[form].append((counted, taken))
    for name, rows in zip(("float", "integer"), found, strict=True):
        least_squares(f"MaxPool {name}", ("element of the window", "position", SERIES_PRICES[-1]), rows)


def main() -> None:
    """Measure, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--repeats", type=int, default=40, help="runs of each convolution; 40")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    grid = itertools.product((1, 3, 8, 16, 24, 32, 64, 128), (8, 16, 24, 32, 64, 128), (1, 3, 5), (32, 96))
    shapes = [shape for shape in itertools.starmap(Shape, grid) if 1e5 < shape.macs < LARGEST_MACS]
    forms: dict[str, list[tuple[np.ndarray, float]]] = {}
    times = []
    for shape in shapes:
        for integer in (False, True):
            proto, x = model(shape, integer, rng)
            time = kernel_time(proto, x, "QLinearConv" if integer else "Conv", args.repeats)
            forms.setdefault(form(shape, integer), []).append((counts(shape, integer), time))
            times.append({**asdict(shape), "integer": integer, "us": time})
    (args.out / "prices.json").write_text(json.dumps({"environment": environment(), "times": times}, indent=1) + "\n")
    for name, rows in sorted(forms.items()):
        prices, errors = fitted(rows)
        listed = ", ".join(f"{price} {value:.4f}" for price, value in prices.items())
        middle, most = np.percentile(np.abs(errors), [50, 90])
        print(f"{name}, {len(rows)} convolutions: {listed}; errors {100 * middle:.0f} %, at most {100 * most:.0f} % of 9 in 10")
    fit_series(args.repeats)
    far_columns(args.repeats)
    fit_depthwise(args.repeats, rng)
    fit_groups(args.repeats)
    fit_pools(args.repeats)


if __name__ == "__main__":
    main()
