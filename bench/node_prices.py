"""Measure small nodes in onnxruntime on one thread, and fit the prices of products, lookups and other small nodes.

    python node_prices.py [--shapes 60] [--rounds 9] [--parts elementwise products lookups slopes]

`prices.py` measures convolutions; these are the other prices of `passes/src/target/ort_cpu.rs`. A
node is written many times into one graph, with weights of its own each time, and its time is that of
many copies less that of few, divided by their difference. Forms that run on integers are written as
the operators that onnxruntime makes of a quantized model. `elementwise` prints nanoseconds by number of
elements, alone and between other operators, which leave little of a kernel's code in the cache as a real network does; `products` fits
what M rows of K values cost with N columns, and `lookups` what integers with one scale per row take
more than floats, by least squares of the relative errors. `slopes` prints what a `PRelu` takes, beside the product and the
maximum that are the same function.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

LARGEST_WEIGHT, LARGEST_MACS = 1 << 17, 4e6
#: Bytes of the weights of all copies: less than a second-level cache.
CACHED = 600_000
SLICE = 0.003
FEW = 4
QUARTILE = 25
CONTRIB = "com.microsoft"
PRODUCTS = ("Gemm", "MatMul", "QGemm to floats", "QGemm to integers", "MatMulIntegerToFloat", "QLinearMatMul")
TERMS = ("node", "column", "weight", "product", "output", "input")
TYPES = {np.dtype("float32"): TensorProto.FLOAT, np.dtype("uint8"): TensorProto.UINT8, np.dtype("int64"): TensorProto.INT64}


@dataclass
class Pattern:
    """Nodes with their constants: `inputs` is shared by all copies, everything else each copy has for itself."""

    inputs: dict[str, np.ndarray]
    nodes: list[tuple[str, list[str], str, dict]]
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    #: Operators between two copies.
    between: bool = False

    def session(self, copies: int) -> ort.InferenceSession:
        """The nodes so many times, as they stand."""
        nodes, tensors = [], []
        for copy in range(copies):
            own = lambda name, copy=copy: name if name in self.inputs else f"{name}.{copy}"  # noqa: E731
            for op, inputs, output, attributes in self.nodes + (OTHERS if self.between else []):
                domain = CONTRIB if op.startswith(("Q", "MatMulI")) and op not in {"QuantizeLinear", "QLinearMatMul"} else ""
                named = [own(name) for name in inputs]
                nodes.append(helper.make_node(op, named, [own(output)], domain=domain, **attributes))
            constants = {**self.constants, **(OTHER_CONSTANTS if self.between else {})}
            tensors += [numpy_helper.from_array(np.asarray(array), own(name)) for name, array in constants.items()]
        first, array = next(iter(self.inputs.items()))
        nodes.append(helper.make_node("Identity", [first], ["end"]))
        feeds = [helper.make_tensor_value_info(name, TYPES[x.dtype], x.shape) for name, x in self.inputs.items()]
        end = helper.make_tensor_value_info("end", TYPES[array.dtype], array.shape)
        graph = helper.make_graph(nodes, "copies", feeds, [end], tensors)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        # Nothing reads the copies, and nothing may be joined.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


#: Operators that stand between two copies, on values of their own.
OTHER_CONSTANTS = {"other": np.linspace(-1, 1, 96, dtype=np.float32).reshape(4, 24), "scale": np.ones(24, np.float32)}
OTHERS = [
    (op, ["other", "scale"] if op == "LayerNormalization" else ["other"], f"other_{op}", attributes)
    for op, attributes in (
        ("Tanh", {}),
        ("Softmax", {"axis": -1}),
        ("Transpose", {"perm": [1, 0]}),
        ("ReduceMean", {"axes": [1]}),
        ("Exp", {}),
        ("LayerNormalization", {"axis": -1}),
    )
]


def nanoseconds(patterns: list[Pattern], rounds: int, copies: int = 36) -> list[float]:
    """What each pattern takes, by processor time, measured in turns: lower quartiles."""
    sessions = [[pattern.session(count) for count in (FEW, FEW + copies)] for pattern in patterns]
    spent = np.zeros((len(patterns), 2, rounds))
    for turn in range(-1, rounds):
        for at, pattern in enumerate(patterns):
            for which, session in enumerate(sessions[at]):
                start, runs = time.process_time(), 0
                while runs == 0 or time.process_time() - start < SLICE:
                    session.run(None, pattern.inputs)
                    runs += 1
                spent[at, which, turn] = (time.process_time() - start) / runs
    few, many = np.percentile(spent, QUARTILE, axis=2).T
    return list(1e9 * (many - few) / copies)


def quantized(*shape: int) -> np.ndarray:
    """Integers of activations."""
    return np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)


def floats(*shape: int) -> np.ndarray:
    """Random floats."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


GRID = {"s": np.float32(0.02), "z": np.uint8(128), "t": np.float32(0.03)}


def elementwise(rounds: int) -> None:
    """Prints what small nodes take."""
    one, two = ["s", "z", "t", "z"], ["x", "s", "z", "u", "s", "z", "t", "z"]
    for count in (16, 96, 1024, 4096, 16384):
        f, q = floats(1, count), quantized(1, count)
        listed = {
            "Add": Pattern({"x": f, "u": f}, [("Add", ["x", "u"], "y", {})]),
            "QLinearAdd": Pattern({"x": q, "u": q}, [("QLinearAdd", two, "y", {})], GRID),
            "Mul": Pattern({"x": f, "u": f}, [("Mul", ["x", "u"], "y", {})]),
            "QLinearMul": Pattern({"x": q, "u": q}, [("QLinearMul", two, "y", {})], GRID),
            "Sigmoid": Pattern({"x": f}, [("Sigmoid", ["x"], "y", {})]),
            "QLinearSigmoid": Pattern({"x": q}, [("QLinearSigmoid", ["x", *one], "y", {})], GRID),
            "QuantizeLinear": Pattern({"x": f}, [("QuantizeLinear", ["x", "s", "z"], "y", {})], GRID),
            "DequantizeLinear": Pattern({"x": q}, [("DequantizeLinear", ["x", "s", "z"], "y", {})], GRID),
        }
        apart = [Pattern(p.inputs, p.nodes, p.constants, between=True) for p in listed.values()]
        others = Pattern({"x": f}, [], between=True)
        alone = nanoseconds(list(listed.values()), rounds)
        between = nanoseconds([others, *apart], rounds, copies=12)
        times = zip(listed, alone, between[1:], strict=True)
        print(count, ", ".join(f"{op} {a:.0f} ({b - between[0]:.0f})" for op, a, b in times), flush=True)


def product(form: str, rows: int, inputs: int, columns: int) -> Pattern:
    """A product with a weight of its own."""
    if form in {"Gemm", "MatMul"}:
        tensors = {"w": floats(inputs, columns), "b": np.zeros(columns, np.float32)}
        read = ["x", "w", "b"] if form == "Gemm" else ["x", "w"]
        return Pattern({"x": floats(rows, inputs)}, [(form, read, "y", {})], tensors)
    weight = np.random.default_rng(1).integers(-60, 60, (inputs, columns)).astype(np.int8)
    of_weight = {"w": weight, "ws": np.full(columns, 0.01, np.float32), "wz": np.zeros(columns, np.int8)}
    tensors = {**GRID, **of_weight, "b": np.zeros(columns, np.int32)}
    op, read = {
        "QGemm to floats": ("QGemm", ["x", "s", "z", "w", "ws", "wz", "b"]),
        "QGemm to integers": ("QGemm", ["x", "s", "z", "w", "ws", "wz", "b", "t", "z"]),
        "MatMulIntegerToFloat": ("MatMulIntegerToFloat", ["x", "w", "s", "ws", "z", "wz"]),
        "QLinearMatMul": ("QLinearMatMul", ["x", "s", "z", "w", "ws", "wz", "t", "z"]),
    }[form]
    return Pattern({"x": quantized(rows, inputs)}, [(op, read, "y", {})], tensors)


def fitted(counts: np.ndarray, times: np.ndarray) -> tuple[dict[int, float], np.ndarray]:
    """Prices that are not negative, by column, and the relative errors."""
    used = list(range(counts.shape[1]))
    while True:
        prices, *_ = np.linalg.lstsq(counts[:, used] / times[:, None], np.ones(len(times)), rcond=None)
        if (prices >= 0).all():
            return dict(zip(used, prices, strict=True)), counts[:, used] @ prices / times - 1
        used.pop(int(prices.argmin()))


def products(shapes: int, rounds: int) -> None:
    """Fits products."""
    rows, inputs, columns = (1, 2, 4, 8, 16, 24, 32, 64, 128), (16, 32, 64, 128, 256, 512), (8, 32, 64, 128, 256, 384)
    grid = [(m, k, n) for m in rows for k in inputs for n in columns if k * n <= LARGEST_WEIGHT and m * k * n < LARGEST_MACS]
    chosen = [grid[at] for at in np.random.default_rng(1).permutation(len(grid))[:shapes]]
    times = []
    for m, k, n in chosen:
        copies = int(np.clip(CACHED // (4 * k * n), 3, 14))
        times.append(nanoseconds([product(form, m, k, n) for form in PRODUCTS], rounds, copies))
    counts = np.array([[1, n, k * n, m * k * n, m * n, m * k] for m, k, n in chosen], np.float64)
    for form, spent in zip(PRODUCTS, np.array(times).T, strict=True):
        prices, errors = fitted(counts, spent)
        listed = ", ".join(f"{TERMS[at]} {price:.4g}" for at, price in prices.items())
        middle, most = np.percentile(np.abs(errors), [50, 90])
        print(f"{form}, {len(spent)} shapes: {listed}; errors {100 * middle:.0f} %, at most {100 * most:.0f} % of 9 in 10", flush=True)


def lookups(rounds: int) -> None:
    """Fits what lookups in integers take more, alone and between other operators."""
    rng, sizes = np.random.default_rng(2), ((100, 8, 1), (1000, 32, 1), (1000, 32, 24), (300, 64, 24), (1000, 64, 64), (1000, 128, 8))
    for between in (False, True):
        counts, more = [], []
        for rows, width, looked_up in sizes:
            x = {"x": rng.integers(0, rows, (1, looked_up))}
            integers = {"w": rng.integers(-127, 127, (rows, width)).astype(np.int8), "s": np.ones((rows, 1), np.float32)}
            steps = [
                ("Gather", ["w", "x"], "a", {}),
                ("Cast", ["a"], "b", {"to": TensorProto.FLOAT}),
                ("Gather", ["s", "x"], "c", {}),
                ("Mul", ["b", "c"], "y", {}),
            ]
            table = Pattern(x, [("Gather", ["w", "x"], "y", {})], {"w": floats(rows, width)}, between)
            in_float, in_integers = nanoseconds([table, Pattern(x, steps, integers, between)], rounds, copies=6)
            counts.append([1, looked_up, looked_up * width])
            more.append(in_integers - in_float)
            print(f"{looked_up} of {rows} rows of {width}: {more[-1]:.0f} more in integers", flush=True)
        prices, errors = fitted(np.array(counts, np.float64), np.array(more))
        listed = ", ".join(f"{('lookup', 'row', 'value')[at]} {price:.4g}" for at, price in prices.items())
        where = "between others" if between else "alone"
        print(f"more in integers, {where}: {listed}; errors {100 * np.median(np.abs(errors)):.0f} %", flush=True)


def slopes(rounds: int) -> None:
    """Prints what a slope per channel takes."""
    for channels, size in ((16, 16), (32, 16), (64, 8), (64, 16), (128, 4), (32, 48), (8, 64)):
        x, slope = floats(1, channels, size, size), {"a": 0.3 * np.abs(floats(channels, 1, 1))}
        one = Pattern({"x": x}, [("PRelu", ["x", "a"], "y", {})], slope)
        two = Pattern({"x": x}, [("Mul", ["x", "a"], "m", {}), ("Max", ["x", "m"], "y", {})], slope)
        node, split = nanoseconds([one, two], rounds, copies=12)
        elements = f"{channels} channels of {size}x{size}"
        print(f"{elements}: PRelu {node / x.size:.2f} ns per element, Mul and Max {split / x.size:.2f}, {node / split:.1f} times", flush=True)


def main() -> None:
    """Measure, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=int, default=60, help="shapes of products; 60")
    parser.add_argument("--rounds", type=int, default=9, help="turns; 9")
    parser.add_argument("--parts", nargs="+", default=["elementwise", "products", "lookups", "slopes"], help="what to measure; all")
    args = parser.parse_args()
    print(f"onnxruntime {ort.__version__}, onnx {onnx.__version__}")
    if "elementwise" in args.parts:
        elementwise(args.rounds)
    if "products" in args.parts:
        products(args.shapes, args.rounds)
    if "lookups" in args.parts:
        lookups(args.rounds)
    if "slopes" in args.parts:
        slopes(args.rounds)


if __name__ == "__main__":
    main()
